"""Faults of processes: killed, interrupted, out of memory, hung, with the clock set back, two at once."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from scene import Outcome, Scene, fault
from writes import POINTS

DEADLINE = 3600.0
"""Seconds after which a command counts as hung. It takes a few on an idle machine, and hundreds beside other work."""
_TICK = 0.005
STAGES = ("starting", "running", "ending")
_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, ProcessLookupError)


@dataclass
class Driver:
    """The program as a process in a session of its own.

    Parameters
    ----------
    folder
        Its results folder.
    arguments
        The command, without the interpreter.
    environment
        Variables beside those of this process.
    memory
        The address space that it and each worker may have, in bytes; 0 for no limit.
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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell inherit it as ignored
        if self.memory:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))

    @property
    def running(self) -> bool:
        """Whether the driver has neither ended nor missed the deadline."""
        return self.process.poll() is None and time.monotonic() < self.deadline

    def stored(self) -> int:
        """Count the stored runs."""
        return len(list((self.folder / "runs").glob("*.parquet")))

    def workers(self) -> list[int]:
        """List its worker processes."""
        workers = []
        with suppress(*_GONE):
            for child in psutil.Process(self.pid).children():
                with suppress(*_GONE):
                    if "tracker" not in (line := " ".join(child.cmdline())) and "multiprocessing" in line:
                        workers.append(child.pid)
        return workers

    def session(self) -> list[int]:
        """List the processes of its session that have not ended."""
        pids = []
        for process in psutil.process_iter():
            with suppress(*_GONE):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    pids.append(process.pid)
        return pids

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds or the driver has ended."""
        while self.running and not condition():
            time.sleep(_TICK)

    def moment(self, scene: Scene, *, of_worker: bool = False) -> str:
        """Wait for a random moment of the scene's stage, and describe it.

        Moments count in processor time and in stored runs, so they mean the same on a busy machine.
        """
        rng, runs = scene.rng, len(scene.bench.runs)
        if scene.stage == "starting":
            at, pid, whose = rng.uniform(0.1, 2.0), self.pid, "the driver"
            if of_worker:
                at, which = rng.uniform(0.1, 3.0), rng.randrange(2)
                self.wait_for(lambda: len(self.workers()) == 2)
                pid, whose = [*self.workers(), 0, 0][which], f"worker {which + 1}"
            self.wait_for(lambda: cpu_seconds(pid) >= at or self.stored() > 0)
            return f"after {at:.2f} s of processor time of {whose}"
        delay = rng.uniform(0, 0.2 if scene.stage == "ending" else 0.05)
        after = runs if scene.stage == "ending" else rng.randint(1, runs - 1)
        self.wait_for(lambda: self.stored() >= after)
        time.sleep(delay)
        return f"{1000 * delay:.0f} ms after run {after} was stored"

    def end(self) -> Outcome:
        """Wait until the driver and its workers have ended, kill what hangs, and return how it went."""
        self.wait_for(lambda: False)
        hung = self.process.poll() is None
        if hung:
            self.kill_all()
        began = time.monotonic()
        while (left_over := self.session()) and time.monotonic() - began < 60:
            time.sleep(0.05)
        for pid in left_over:
            send(pid, signal.SIGKILL)
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return {"status": self.process.wait(), "told": text, "hung": hung, "left_over": len(left_over)}

    def kill_all(self) -> None:
        """Kill the driver and its workers, as a power cut does."""
        for pid in [self.pid, *self.workers()]:
            send(pid, signal.SIGKILL)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, infinite if it has ended."""
    with suppress(*_GONE):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return float("inf")


def send(pid: int, what: int) -> None:
    """Send a signal to a process if it exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, what)


def start(scene: Scene, memory: int = 0, environment: Mapping[str, str] | None = None) -> Driver:
    """Start the study with two workers."""
    command = ["-m", "mnist_ablate", *scene.bench.run_command(scene.folder, workers=2)]
    return Driver(scene.folder, command, environment or {}, memory)


@fault("kill -9 of the driver", STAGES)
@fault("kill -9 of a worker", STAGES)
@fault("kill -9 of both", STAGES)
def killed(scene: Scene) -> Outcome:
    """``kill -9`` of the driver, of a worker, or of all of them."""
    driver = start(scene)
    detail = driver.moment(scene, of_worker=scene.kind == "kill -9 of a worker")
    workers = driver.workers()
    if scene.kind == "kill -9 of both":
        driver.kill_all()
    else:
        of_driver = scene.kind == "kill -9 of the driver"
        for pid in [driver.pid] if of_driver else scene.rng.sample(workers, min(1, len(workers))):
            send(pid, signal.SIGKILL)
    return driver.end() | {"detail": f"{detail}; {len(workers)} workers"}


@fault("kill -9 of the driver", ["in a write"], POINTS)
def killed_in_a_write(scene: Scene) -> Outcome:
    """``kill -9`` of the driver before a file is opened, half written, before or after it is renamed."""
    rng = scene.rng
    fatal = {"number": rng.randint(1, 1 + 2 * len(scene.bench.runs)), "point": scene.part, "share": rng.random()}
    program = str(Path(__file__).with_name("writes.py"))
    driver = Driver(scene.folder, [program, json.dumps(fatal), *scene.bench.run_command(scene.folder, workers=2)])
    return driver.end() | {"detail": f"write {fatal['number']}"}


@fault("SIGTERM", STAGES)
@fault("SIGINT", STAGES)
@fault("SIGINT twice", STAGES)
def signalled(scene: Scene) -> Outcome:
    """SIGTERM for the driver, or SIGINT for its whole session as Ctrl-C sends it, once or twice."""
    driver = start(scene)
    detail = driver.moment(scene)
    for number in range(2 if scene.kind == "SIGINT twice" else 1):
        time.sleep(scene.rng.choice([0.0, scene.rng.uniform(0, 0.2)]) if number else 0)
        with suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGTERM) if scene.kind == "SIGTERM" else os.killpg(driver.pid, signal.SIGINT)
    return driver.end() | {"detail": detail}


@fault("worker hangs", ("starting", "running"), ("goes on", "Ctrl-C", "killed", "driver killed"))
def hung(scene: Scene) -> Outcome:
    """Freeze a worker with SIGSTOP; then it goes on or is killed, or its driver is interrupted or killed.

    A worker that freezes before our first line runs cannot end with its driver: it must end when it goes on.
    """
    driver = start(scene)
    detail = driver.moment(scene, of_worker=True)
    frozen = scene.rng.sample(driver.workers(), min(1, len(driver.workers())))
    for pid in frozen:
        send(pid, signal.SIGSTOP)
    time.sleep(1)
    if scene.part == "Ctrl-C":
        send(driver.pid, signal.SIGINT)
    elif scene.part == "driver killed":
        send(driver.pid, signal.SIGKILL)
        time.sleep(5)
        for pid in set(frozen) & set(driver.session()):
            detail += "; it had not begun"
            send(pid, signal.SIGCONT)
    else:
        for pid in frozen:
            send(pid, signal.SIGCONT if scene.part == "goes on" else signal.SIGKILL)
    return driver.end() | {"detail": f"{detail}; {len(frozen)} stopped"}


@fault("memory limit", STAGES, ("driver", "workers"))
@fault("memory limit", ["from the start"], ["all"])
def out_of_memory(scene: Scene) -> Outcome:
    """Limit the address space: of all processes from the start, or of the driver or the workers later."""
    if scene.part == "all":
        limit = int(scene.rng.uniform(0.1, 4) * 2**30)
        return start(scene, memory=limit).end() | {"detail": f"{limit >> 20} MB for each process"}
    driver = start(scene)
    detail = driver.moment(scene, of_worker=scene.part == "workers")
    more = scene.rng.randrange((256 if scene.part == "workers" else 32) << 20)
    for pid in driver.workers() if scene.part == "workers" else [driver.pid]:
        with suppress(*_GONE):
            limit = psutil.Process(pid).memory_info().vms + more
            resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    return driver.end() | {"detail": f"{detail}: {more >> 20} MB more than it had"}


def faketime() -> str:
    """Return the path of the library that gives a process another time.

    Raises
    ------
    SystemExit
        If it is not installed.
    """
    named = os.environ.get("FAKETIME_LIBRARY")
    libraries = [Path(named)] if named else [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not libraries:
        raise SystemExit("libfaketime is missing: install it (Debian: libfaketime) or name it in FAKETIME_LIBRARY")
    return str(libraries[0])


@fault("clock set back", STAGES)
def clock_set_back(scene: Scene) -> Outcome:
    """Set the clock of the driver and its workers back, by an hour to 20 years; the machine's clock stays."""
    clock = scene.folder.with_name(scene.folder.name + ".clock")
    clock.write_text("+0\n")
    fake = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    driver = start(scene, environment=fake | {"FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"})
    detail = driver.moment(scene)
    hours = scene.rng.choice([1, 24, 24 * 365, 24 * 365 * 20])
    clock.write_text(f"-{hours}h\n")
    return driver.end() | {"detail": f"{detail}, by {hours} hours"}


@fault("two drivers", STAGES, ("beside the first", "after a kill"))
@fault("two drivers", ["from the start"], ["together"])
def two_drivers(scene: Scene) -> Outcome:
    """Start a second driver on a folder, beside the first or at once after the first was killed."""
    first = start(scene)
    detail = "at the same time" if scene.part == "together" else first.moment(scene)
    if scene.part == "after a kill":
        send(first.pid, signal.SIGKILL)
    second = start(scene).end()
    outcome = first.end()
    refused = ", refused" if "another process is writing there" in second["told"] else ""
    detail += f"; the second ended with {second['status']}{refused}"
    totals = {name: outcome[name] + second[name] for name in ("hung", "left_over", "told")}
    return outcome | totals | {"detail": detail}
