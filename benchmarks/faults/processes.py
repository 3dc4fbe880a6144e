"""Faults of processes: killed, stopped by a signal, out of memory, hung, with the clock set back, or two at once."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny

DEADLINE = 3600.0
"""Seconds after which a command that has not ended is called hung: it takes a few on an idle machine, and may take
hundreds beside other work."""
_TICK = 0.005
_CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass
class Driver:
    """The program as a process of its own, with workers, in a session of its own.

    Parameters
    ----------
    folder
        Its results folder.
    arguments
        The command, without the interpreter.
    environment
        What is set beside what this process has.
    memory
        Address space that it and its workers may have, in bytes; 0 for as much as they like.
    through
        A command that starts it, such as ``ip netns exec NAME``.
    """

    folder: Path
    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0
    through: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.log = self.folder.with_name(f"{self.folder.name}-{time.monotonic_ns()}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [*self.through, sys.executable, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | dict(self.environment),
                start_new_session=True,
                preexec_fn=self._prepare,
            )
        self.pid = self.process.pid
        self.deadline = time.monotonic() + DEADLINE

    def _prepare(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets jobs in the background ignore it
        if self.memory:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))

    @property
    def running(self) -> bool:
        """Whether the driver has not ended, nor taken too long."""
        return self.process.poll() is None and time.monotonic() < self.deadline

    def stored(self) -> int:
        """Count the runs that are stored."""
        return len(list((self.folder / "runs").glob("*.parquet")))

    def workers(self) -> list[int]:
        """List its worker processes."""
        found = []
        for pid in _children(self.pid):
            try:
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
            except OSError:  # it has ended meanwhile
                continue
        return found

    def wait_for(self, holds: Callable[[], bool]) -> bool:
        """Wait until something holds; tell whether it does, rather than that the driver has ended."""
        while self.running:
            if holds():
                return True
            time.sleep(_TICK)
        return False

    def end(self) -> dict[str, Any]:
        """Wait for its end, and for that of its workers; kill what hangs. Say how it went."""
        hung = False
        while self.running:
            time.sleep(_TICK)
        if self.process.poll() is None:
            hung = True
            self.kill_all()
        began = time.monotonic()
        while (over := _session(self.pid)) and time.monotonic() - began < 60:
            time.sleep(_TICK)
        for pid in over:
            send(pid, signal.SIGKILL)
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return {"status": self.process.wait(), "told": text, "hung": hung, "left_over": len(over)}

    def kill_all(self) -> None:
        """Kill the driver and its workers, as a machine does that is switched off."""
        workers = self.workers()
        for pid in [self.pid, *workers]:
            send(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    try:
        return [int(child) for file in tasks for child in file.read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """Return the fields of a process's ``stat`` from its state on; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _session(leader: int) -> list[int]:
    """List the processes of a session that have not ended."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    stats = ((pid, _stat(pid)) for pid in pids)
    return [pid for pid, stat in stats if stat and stat[3] == str(leader) and stat[0] != "Z"]


def cpu_seconds(pid: int) -> float:
    """Tell how long a process has computed; for one that is gone, for ever."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / _CLOCK if stat else float("inf")


def send(pid: int, what: int) -> None:
    """Send a signal to a process, if it is there."""
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return


def start(bench: tiny.Bench, folder: Path, **how: Any) -> Driver:
    """Start the study with two workers."""
    return Driver(folder, ["-m", "mnist_ablate", *bench.run_command(folder, workers=2)], **how)


# A moment is found by what has happened and by the processor's time, so that it means the same on a busy machine.
def moment(bench: tiny.Bench, driver: Driver, stage: str, rng: random.Random, of_worker: bool = False) -> str:
    """Wait for a random moment of a stage, and say which."""
    n = len(bench.runs)
    if stage == "starting" and of_worker:
        which, at = rng.randrange(2), rng.uniform(0.1, 3.0)
        driver.wait_for(lambda: len(driver.workers()) == 2)
        pid = [*driver.workers(), 0, 0][which]
        driver.wait_for(lambda: cpu_seconds(pid) >= at or driver.stored() > 0)
        return f"after {at:.2f} s of the processor for worker {which + 1}"
    if stage == "starting":
        at = rng.uniform(0.1, 2.0)
        driver.wait_for(lambda: cpu_seconds(driver.pid) >= at or driver.stored() > 0)
        return f"after {at:.2f} s of the processor"
    runs, delay = (n, rng.uniform(0, 0.2)) if stage == "ending" else (rng.randint(1, n - 1), rng.uniform(0, 0.05))
    driver.wait_for(lambda: driver.stored() >= runs)
    time.sleep(delay)
    return f"{1000 * delay:.0f} ms after run {runs} was stored"


STAGES = ("starting", "running", "ending")
Found = dict[str, Any]


def killed(bench: tiny.Bench, folder: Path, kind: str, _part: str, stage: str, rng: random.Random) -> Found:
    """``kill -9`` of the driver, of a worker, or of all of them."""
    driver = start(bench, folder)
    detail = moment(bench, driver, stage, rng, of_worker=kind == "kill -9 of a worker")
    workers = driver.workers()
    if kind == "kill -9 of the driver":
        send(driver.pid, signal.SIGKILL)
    elif kind == "kill -9 of a worker":
        for pid in rng.sample(workers, min(1, len(workers))):
            send(pid, signal.SIGKILL)
    else:
        driver.kill_all()
    return driver.end() | {"detail": f"{detail}; {len(workers)} workers"}


POINTS = ("open", "fsync", "rename", "renamed")


def killed_in_a_write(bench: tiny.Bench, folder: Path, _kind: str, part: str, _stage: str, rng: random.Random) -> Found:
    """``kill -9`` of the driver at a chosen point of a write: before a file is opened, half written, renamed."""
    fault = {"write": rng.randint(1, 1 + 2 * len(bench.runs)), "point": part, "keep": rng.random()}
    child = str(Path(__file__).with_name("child.py"))
    driver = Driver(folder, [child, json.dumps(fault), *bench.run_command(folder, workers=2)])
    return driver.end() | {"detail": f"write {fault['write']}"}


SIGNALS = {"SIGTERM": (signal.SIGTERM, 1), "SIGINT": (signal.SIGINT, 1), "SIGINT twice": (signal.SIGINT, 2)}


def signalled(bench: tiny.Bench, folder: Path, kind: str, _part: str, stage: str, rng: random.Random) -> Found:
    """SIGTERM for the driver, or SIGINT for the whole terminal, as Ctrl-C has it, once or twice."""
    driver = start(bench, folder)
    detail = moment(bench, driver, stage, rng)
    what, times = SIGNALS[kind]
    for n in range(times):
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.2)]) if n else 0)
        try:
            os.killpg(driver.pid, what) if what == signal.SIGINT else send(driver.pid, what)
        except ProcessLookupError:
            detail += "; it had ended"
    return driver.end() | {"detail": detail}


HANGS = ("goes on", "Ctrl-C", "killed", "driver killed")


def hung(bench: tiny.Bench, folder: Path, _kind: str, part: str, stage: str, rng: random.Random) -> Found:
    """Stop a worker in its tracks; then it goes on, is killed, or its driver is stopped or killed.

    One that is stopped before its first line of ours is not known to the system yet: it must end when it goes on.
    """
    driver = start(bench, folder)
    detail = moment(bench, driver, stage, rng, of_worker=True)
    stopped = rng.sample(driver.workers(), min(1, len(driver.workers())))
    for pid in stopped:
        send(pid, signal.SIGSTOP)
    time.sleep(1)
    if part == "Ctrl-C":
        send(driver.pid, signal.SIGINT)
    elif part == "driver killed":
        send(driver.pid, signal.SIGKILL)
        time.sleep(5)
        for pid in set(stopped) & set(_session(driver.pid)):
            detail += "; it had not begun"
            send(pid, signal.SIGCONT)
    for pid in stopped if part in ("goes on", "killed") else ():
        send(pid, signal.SIGCONT if part == "goes on" else signal.SIGKILL)
    return driver.end() | {"detail": f"{detail}; {len(stopped)} stopped"}


def out_of_memory(bench: tiny.Bench, folder: Path, _kind: str, part: str, stage: str, rng: random.Random) -> Found:
    """Let no more memory be had: by all from the start, by the driver or by the workers from some moment on."""
    if part == "all":
        limit = int(rng.uniform(0.1, 4) * 2**30)
        return start(bench, folder, memory=limit).end() | {"detail": f"{limit >> 20} MB for each process"}
    driver = start(bench, folder)
    detail = moment(bench, driver, stage, rng, of_worker=part == "workers")
    more = rng.randrange(256 << 20 if part == "workers" else 32 << 20)
    for pid in driver.workers() if part == "workers" else [driver.pid]:
        try:
            has = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (has + more, has + more))
        except (OSError, IndexError):
            detail += "; it had ended"
    return driver.end() | {"detail": f"{detail}: {more >> 20} MB more than it had"}


LIBFAKETIME = ("FAKETIME_LIBRARY", "/usr/lib/*/faketime/libfaketime.so.1")


def faketime() -> str:
    """Find the library that gives a process another time."""
    named = os.environ.get(LIBFAKETIME[0])
    found = [named] if named else [str(path) for path in Path("/").glob(LIBFAKETIME[1].lstrip("/"))]
    if not found:
        raise SystemExit(f"libfaketime is not there: install it (Debian: libfaketime), or name it in {LIBFAKETIME[0]}")
    return found[0]


def clock_set_back(bench: tiny.Bench, folder: Path, _kind: str, _part: str, stage: str, rng: random.Random) -> Found:
    """Set the clock of the driver and its workers back, by an hour to years; the machine's own stays as it is."""
    clock = folder.with_name(folder.name + ".clock")
    clock.write_text("+0\n")
    environment = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    driver = start(bench, folder, environment=environment)
    detail = moment(bench, driver, stage, rng)
    hours = rng.choice([1, 24, 24 * 365, 24 * 365 * 20])
    clock.write_text(f"-{hours}h\n")
    return driver.end() | {"detail": f"{detail}, by {hours} hours"}


def two_drivers(bench: tiny.Bench, folder: Path, _kind: str, part: str, stage: str, rng: random.Random) -> Found:
    """Start a second driver on a folder, beside the first, or at once after the first was killed."""
    first = start(bench, folder)
    detail = "at the same time" if part == "together" else moment(bench, first, stage, rng)
    if part == "after a kill":
        send(first.pid, signal.SIGKILL)
    second = start(bench, folder).end()
    found = first.end()
    for name in ("hung", "left_over"):
        found[name] += second[name]
    refused = "another process is writing there" in second["told"]
    detail += f"; the second ended with {second['status']}{', refused' * refused}"
    return found | {"detail": detail, "told": found["told"] + second["told"], "second_status": second["status"]}
