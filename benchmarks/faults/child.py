"""The program with a fault of its own: what ``python -m mnist_ablate`` is, killed at a chosen point of a write.

``python child.py '{"write": 3, "point": "fsync", "keep": 0.5}' run ...``: at the third file that is written, the
process ends as by ``kill -9`` before it is opened (``open``), before it is flushed, with only the share ``keep`` of
its bytes in it (``fsync``), before it gets its name (``rename``), or when it has its name (``renamed``).
"""

import json
import os
import signal
import sys
from typing import Any


class _Killer:
    """Counts the temporary files that are written, and ends the process at the chosen one."""

    def __init__(self, write: int, point: str, keep: float) -> None:
        self.write, self.point, self.keep, self.written = write, point, keep, 0
        self.armed = False
        self._fsync = os.fsync

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Is told of everything that Python asks the system for."""
        if event not in ("open", "os.rename"):
            return
        if self.armed:  # the first thing that is done after the rename
            _die()
        name = str(arguments[0])
        if event == "open" and name.endswith(".tmp") and "w" in str(arguments[1] or ""):
            self.written += 1
            self._at("open")
        elif event == "os.rename" and name.endswith(".tmp"):
            self._at("rename")
            self.armed = self.written == self.write and self.point == "renamed"

    def fsync(self, descriptor: int) -> None:
        """Stand in for `os.fsync`."""
        if self.written == self.write and self.point == "fsync":
            os.ftruncate(descriptor, int(self.keep * os.fstat(descriptor).st_size))
            _die()
        self._fsync(descriptor)

    def _at(self, point: str) -> None:
        if self.written == self.write and self.point == point:
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Arm the fault, and be the program."""
    killer = _Killer(**json.loads(sys.argv[1]))
    sys.addaudithook(killer.hook)
    os.fsync = killer.fsync  # type: ignore[assignment]
    from mnist_ablate.cli import main as program

    sys.exit(program(sys.argv[2:]))


if __name__ == "__main__":
    main()
