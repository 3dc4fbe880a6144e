"""Faults of a Dask cluster: its scheduler lost, a worker lost, the network of one of them stalled.

A stall is real: the driver or a worker is in a network of its own (``ip netns``), and the kernel drops every packet to
and from it, so that nobody is told. Needs iproute2 and the rights of root.
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tiny
from machines import Machines
from processes import Driver, Found, moment

WORKERS = ("one of two", "both, then a new one")
STALLS = tuple(f"of {whom}, {how}" for whom in ("the driver", "a worker") for how in ("for seconds", "for good"))
_SUBNET = "10.213.77"
_NAME = "ablate"
_INSIDE = ("ip", "netns", "exec", _NAME)
_ENDS: tuple[tuple[int, tuple[str, ...]], ...] = ((0, ()), (1, _INSIDE))
"""The ends of the link, and what a command for each begins with."""
_PATIENT = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
"""Dask gives a silent worker 5 minutes; nothing else is other than by default."""


@contextmanager
def _machines(host: str = "127.0.0.1") -> Iterator[Machines]:
    """Start a scheduler, and end it with all workers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        machines = Machines(Path(folder), host, _PATIENT)
        try:
            yield machines
        finally:
            machines.end()


def _start(bench: tiny.Bench, folder: Path, address: str, through: tuple[str, ...] = ()) -> Driver:
    """Start the study on the workers of a scheduler."""
    command = ["-m", "mnist_ablate", "run", str(bench.study_file), "--out", str(folder), "--scheduler", address]
    return Driver(folder, command, through=through)


def lost_scheduler(bench: tiny.Bench, folder: Path, _kind: str, _part: str, stage: str, rng: random.Random) -> Found:
    """``kill -9`` of the scheduler."""
    with _machines() as machines:
        for _ in range(2):
            machines.worker()
        driver = _start(bench, folder, machines.address)
        detail = moment(bench, driver, stage, rng)
        machines.scheduler.kill()
        return driver.end() | {"detail": detail}


def lost_worker(bench: tiny.Bench, folder: Path, _kind: str, part: str, stage: str, rng: random.Random) -> Found:
    """``kill -9`` of one of two workers, which the other must make up for, or of both, before a new one comes."""
    with _machines() as machines:
        workers = [machines.worker() for _ in range(2)]
        driver = _start(bench, folder, machines.address)
        detail = moment(bench, driver, stage, rng)
        for worker in rng.sample(workers, 1) if part == WORKERS[0] else workers:
            worker.kill()
        if part != WORKERS[0]:
            time.sleep(rng.uniform(0, 2))
            machines.worker()
        return driver.end() | {"detail": detail}


def stalled(bench: tiny.Bench, folder: Path, _kind: str, part: str, stage: str, rng: random.Random) -> Found:
    """Drop all packets to and from the driver or one of two workers, for some seconds or for good."""
    whom, _, how = part.removeprefix("of ").partition(", ")
    with _network(), _machines(f"{_SUBNET}.1") as machines:
        machines.worker(through=_INSIDE if whom == "a worker" else ())
        machines.worker()
        driver = _start(bench, folder, machines.address, _INSIDE if whom == "the driver" else ())
        detail = moment(bench, driver, stage, rng)
        seconds = rng.choice([rng.uniform(1, 10), rng.uniform(10, 40)])
        _drop()
        if how == "for seconds":
            time.sleep(seconds)
            _drop("del")
            detail += f", {seconds:.1f} s"
        return driver.end() | {"detail": detail}


@contextmanager
def _network() -> Iterator[None]:
    """Make a network that is joined to this machine's by a link."""
    _unmake()  # what a benchmark left that was killed
    _do("ip", "netns", "add", _NAME)
    try:
        _do("ip", "link", "add", f"{_NAME}0", "type", "veth", "peer", "name", f"{_NAME}1", "netns", _NAME)
        for end, prefix in _ENDS:
            _do(*prefix, "ip", "address", "add", f"{_SUBNET}.{end + 1}/24", "dev", f"{_NAME}{end}")
            _do(*prefix, "ip", "link", "set", f"{_NAME}{end}", "up")
        _do(*_INSIDE, "ip", "link", "set", "lo", "up")
        yield
    finally:
        _unmake()


def _unmake() -> None:
    for command in (("ip", "link", "del", f"{_NAME}0"), ("ip", "netns", "del", _NAME)):
        with suppress(subprocess.CalledProcessError):
            _do(*command)


def _drop(what: str = "add") -> None:
    """Let both ends of the link drop what is sent, or no longer."""
    for end, prefix in _ENDS:
        kind = ("blackhole",) if what == "add" else ()
        _do(*prefix, "tc", "qdisc", what, "dev", f"{_NAME}{end}", "root", *kind)


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
