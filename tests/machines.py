"""A Dask scheduler and workers as processes of their own, for tests and for ``benchmarks/faults``."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE = 300.0
"""Seconds for other processes to come up; nothing depends on how long it takes."""


def until(there: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Machines:
    """A scheduler and workers, each a process of its own.

    Parameters
    ----------
    folder
        For their files.
    host
        The address to listen at.
    environment
        What is set for the scheduler beside what this process has.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        written = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--no-dashboard", "--host", host, "--port", "0",
                                     "--scheduler-file", str(written), environment=environment)  # fmt: skip
        until(written.exists)
        until(lambda: "address" in written.read_text())
        self.address: str = json.loads(written.read_text())["address"]

    def _start(
        self, *what: str, environment: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> "subprocess.Popen[bytes]":
        command = [*through, sys.executable, "-m", "distributed.cli.dask_" + what[0], *what[1:]]
        with (self.folder / f"{what[0]}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=log, stderr=log, cwd=self.folder, env=os.environ | dict(environment or {})
            )
        self.processes.append(process)
        return process

    def worker(
        self, environment: Mapping[str, str] | None = None, threads: int = 1, through: Sequence[str] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start a worker, by a command such as ``ip netns exec NAME`` if need be."""
        options = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder))
        return self._start("worker", self.address, *options, environment=environment, through=through)

    def end(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
