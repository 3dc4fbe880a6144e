"""Faults of a Dask cluster: its scheduler lost, workers lost, the network of the driver or of a worker stalled.

A stall is real: the driver or a worker is in a network namespace of its own, and the kernel silently drops every
packet to and from it. Needs iproute2 and root.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from machines import Machines
from processes import STAGES, Driver
from scene import Outcome, Scene, fault

_SUBNET, _NAME = "10.213.77", "ablate"
_INSIDE = ("ip", "netns", "exec", _NAME)
_ENDS: tuple[tuple[int, tuple[str, ...]], ...] = ((0, ()), (1, _INSIDE))
"""Each end of the link, with the prefix of a command that runs there."""
_PATIENT = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
"""Dask waits 5 minutes for a silent worker by default; everything else keeps its default."""


@contextmanager
def _cluster(host: str = "127.0.0.1") -> Iterator[Machines]:
    """Start a scheduler; at the end, stop it and all workers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        machines = Machines(Path(folder), host, _PATIENT)
        try:
            yield machines
        finally:
            machines.end()


def _start(scene: Scene, machines: Machines, through: tuple[str, ...] = ()) -> Driver:
    """Start the study on the workers of a scheduler."""
    command = ["run", str(scene.bench.study_file), "--out", str(scene.folder), "--scheduler", machines.address]
    return Driver(scene.folder, ["-m", "mnist_ablate", *command], through=through)


@fault("Dask scheduler lost", STAGES)
def lost_scheduler(scene: Scene) -> Outcome:
    """``kill -9`` of the scheduler."""
    with _cluster() as machines:
        machines.worker()
        machines.worker()
        driver = _start(scene, machines)
        detail = driver.moment(scene)
        machines.scheduler.kill()
        return driver.end() | {"detail": detail}


@fault("Dask worker lost", STAGES, ("one of two", "both, then a new one"))
def lost_worker(scene: Scene) -> Outcome:
    """``kill -9`` of one of two workers, or of both before a new one comes."""
    with _cluster() as machines:
        workers = [machines.worker(), machines.worker()]
        driver = _start(scene, machines)
        detail = driver.moment(scene)
        for worker in scene.rng.sample(workers, 1 if scene.part == "one of two" else 2):
            worker.kill()
        if scene.part != "one of two":
            time.sleep(scene.rng.uniform(0, 2))
            machines.worker()
        return driver.end() | {"detail": detail}


@fault("network stalled", STAGES,
       [f"of {whom}, {how}" for whom in ("the driver", "a worker") for how in ("for seconds", "for good")])  # fmt: skip
def stalled(scene: Scene) -> Outcome:
    """Drop all packets of the driver or of one of two workers, for some seconds or for good."""
    of_driver = "driver" in scene.part
    with _network(), _cluster(f"{_SUBNET}.1") as machines:
        machines.worker(through=() if of_driver else _INSIDE)
        machines.worker()
        driver = _start(scene, machines, _INSIDE if of_driver else ())
        detail = driver.moment(scene)
        seconds = scene.rng.choice([scene.rng.uniform(1, 10), scene.rng.uniform(10, 40)])
        _set_drop("add", "blackhole")
        if "seconds" in scene.part:
            time.sleep(seconds)
            _set_drop("del")
            detail += f", {seconds:.1f} s"
        return driver.end() | {"detail": detail}


@contextmanager
def _network() -> Iterator[None]:
    """Make a network namespace that a link joins to the machine's own."""
    _remove_network()  # a killed benchmark may have left it
    _do("ip", "netns", "add", _NAME)
    try:
        _do("ip", "link", "add", f"{_NAME}0", "type", "veth", "peer", "name", f"{_NAME}1", "netns", _NAME)
        for end, prefix in _ENDS:
            _do(*prefix, "ip", "address", "add", f"{_SUBNET}.{end + 1}/24", "dev", f"{_NAME}{end}")
            _do(*prefix, "ip", "link", "set", f"{_NAME}{end}", "up")
        _do(*_INSIDE, "ip", "link", "set", "lo", "up")
        yield
    finally:
        _remove_network()


def _remove_network() -> None:
    for command in (("ip", "link", "del", f"{_NAME}0"), ("ip", "netns", "del", _NAME)):
        with suppress(subprocess.CalledProcessError):
            _do(*command)


def _set_drop(what: str, *kind: str) -> None:
    """Add or delete the queue that drops everything, at both ends of the link."""
    for end, prefix in _ENDS:
        _do(*prefix, "tc", "qdisc", what, "dev", f"{_NAME}{end}", "root", *kind)


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
