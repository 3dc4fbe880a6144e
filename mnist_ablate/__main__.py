"""``python -m mnist_ablate``, also installed as the program ``mnist-ablate``."""

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

_FAILED, _INTERRUPTED, _CANNOT_TELL = 1, 3, 3

LEAST_MEMORY = 1 << 30
"""Bytes of address space needed. With less, libraries fail to load, and OpenBLAS hangs (measured below 460 MB)."""

AT_ONCE_SECONDS = 3.0
"""Ignore a second Ctrl-C this soon after the first: it would interrupt the clean end that the first one began."""


STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, `kill` or the end of a container, and a terminal that is closed. Not every platform has each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status; Ctrl-C ends it with one sentence, even while it is still loading."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold bytes that are not text
            stream.reconfigure(errors="backslashreplace")
    try:
        stop = _Interrupt()
        for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
            # Background jobs inherit SIGINT as ignored, and `nohup` ignores SIGHUP.
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, stop)
        if memory_limit() < LEAST_MEMORY:
            raise MemoryError(f"the limit is {memory_limit() >> 20} MB, at least {LEAST_MEMORY >> 20} MB are needed")
        from mnist_ablate import cli

        status = cli.main(argv)
    except KeyboardInterrupt:
        print("mnist-ablate: Stopped.", file=sys.stderr)  # noqa: T201
        status = _INTERRUPTED
    except (ImportError, MemoryError, OSError, SystemError) as error:  # usually a lack of memory
        print(f"mnist-ablate: {_load_failure(error)}", file=sys.stderr)  # noqa: T201
        status = _CANNOT_TELL if sys.argv[1:2] == ["gate"] else _FAILED  # there, 1 means a regression
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: do not let Ctrl-C disturb the interpreter's exit
    return status


def _open_closed_streams() -> None:
    """Send to the null device what a closed stream would get: else the next file to be opened would get it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 # open as long as we run
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


class _Interrupt:
    """Python's own handler of Ctrl-C, except that it ignores repeats within `AT_ONCE_SECONDS`."""

    last: float | None = None

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt."""
        now = time.monotonic()
        if self.last is None or now - self.last > AT_ONCE_SECONDS:
            self.last = now
            raise KeyboardInterrupt


def memory_limit() -> int:
    """Return how many bytes of address space this process may use; ``sys.maxsize`` if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _load_failure(error: Exception) -> str:
    cause = (str(error).strip() or "not enough memory").splitlines()[-1]  # NumPy names the cause in its last line
    return (
        f"Part of the program could not be loaded: {cause}. Close other programs or allow more memory (ulimit -v); "
        "if that does not help, reinstall."
    )


if __name__ == "__main__":
    sys.exit(main())
