"""``python -m mnist_ablate``, which is the program ``mnist-ablate``."""

import io
import signal
import sys

_INTERRUPTED = 3


def main() -> int:
    """Be the program: Ctrl-C ends it with one sentence from its first import on, and is ignored when it is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may have bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        from mnist_ablate import cli

        status = cli.main()
    except KeyboardInterrupt:
        print("mnist-ablate: Stopped.", file=sys.stderr)  # noqa: T201
        status = _INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the end of the interpreter is left to be interrupted
    return status


if __name__ == "__main__":
    sys.exit(main())
