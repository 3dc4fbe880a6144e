"""Watch every atomic write of this process; as a program, be ``mnist_ablate`` and die at a chosen point of a write.

``python writes.py '{"number": 3, "point": "fsync", "share": 0.5}' run ...`` kills itself at the third write: before
the file is opened (``open``), before it is flushed, with only this share of its bytes in it (``fsync``), before it is
renamed (``rename``) or just after (``renamed``).
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POINTS = ("open", "fsync", "rename", "renamed")


@contextmanager
def watched(act: Callable[[str, int, Any], None]) -> Iterator[None]:
    """Call ``act(point, number, file)`` at each point of each write; numbers count from 1, `file` is open at fsync."""
    original_open, original_fsync, original_replace = Path.open, os.fsync, Path.replace
    number = 0

    def watched_open(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        nonlocal number
        if path.suffix == ".tmp" and "w" in mode:
            number += 1
            act("open", number, path)
        return original_open(path, mode, *arguments, **options)

    def watched_fsync(descriptor: Any) -> None:
        act("fsync", number, descriptor)
        original_fsync(descriptor)

    def watched_replace(path: Path, target: Any) -> Path:
        act("rename", number, path)
        renamed = original_replace(path, target)
        act("renamed", number, renamed)
        return renamed

    path_class: Any = Path
    system: Any = os
    path_class.open, path_class.replace, system.fsync = watched_open, watched_replace, watched_fsync
    try:
        yield
    finally:
        path_class.open, path_class.replace, system.fsync = original_open, original_replace, original_fsync


def main() -> int:
    """Run the program until its time comes."""
    fatal = json.loads(sys.argv[1])

    def die(point: str, number: int, file: Any) -> None:
        if (point, number) != (fatal["point"], fatal["number"]):
            return
        if point == "fsync":
            os.ftruncate(file, int(fatal["share"] * os.fstat(file).st_size))
        os.kill(os.getpid(), signal.SIGKILL)

    from mnist_ablate.cli import main as program

    with watched(die):
        return program(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
