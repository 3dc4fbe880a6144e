"""``python -m mnist_ablate``, which is the program ``mnist-ablate``."""

import io
import signal
import sys
import time
from types import FrameType

_FAILED, _INTERRUPTED = 1, 3

LEAST_MEMORY = 1 << 30
"""Bytes of address space. With less, libraries do not load, and OpenBLAS tries for ever (measured below 460 MB)."""

AT_ONCE_SECONDS = 3.0
"""A second Ctrl-C this soon after the first is none: it would interrupt what the first has started, the end."""


def main() -> int:
    """Be the program: Ctrl-C ends it with one sentence from its first import on, and is ignored when it is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may have bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell lets jobs behind it ignore it
            signal.signal(signal.SIGINT, _Interrupt())
        if memory_limit() < LEAST_MEMORY:
            raise MemoryError(f"{memory_limit() >> 20} MB is the limit, {LEAST_MEMORY >> 20} the least")
        from mnist_ablate import cli

        status = cli.main()
    except KeyboardInterrupt:
        print("mnist-ablate: Stopped.", file=sys.stderr)  # noqa: T201
        status = _INTERRUPTED
    except (ImportError, MemoryError, OSError, SystemError) as error:  # most often for want of memory
        print(f"mnist-ablate: {_not_loaded(error)}", file=sys.stderr)  # noqa: T201
        status = _FAILED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the end of the interpreter is left to be interrupted
    return status


class _Interrupt:
    """What Ctrl-C does, as Python has it, but for those that follow at once."""

    last: float | None = None

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt."""
        now = time.monotonic()
        if self.last is None or now - self.last > AT_ONCE_SECONDS:
            self.last = now
            raise KeyboardInterrupt


def memory_limit() -> int:
    """Return how many bytes of address space this process may have, a great many where there is no limit."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return sys.maxsize
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _not_loaded(error: Exception) -> str:
    cause = (str(error).strip() or "not enough memory").splitlines()[-1]  # the last line is where NumPy has the cause
    remedy = "End other programs or allow it more memory (ulimit -v); if that is not the cause, install it again."
    return f"a part of the program could not be loaded: {cause}. {remedy}"


if __name__ == "__main__":
    sys.exit(main())
