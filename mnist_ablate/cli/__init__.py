"""The command line: each command parses its options, calls the public function of the same name, and prints.

Imports are light, and a command imports what it alone needs when it runs: `run` has workers training before statistics
are loaded.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from mnist_ablate.cli import checks, claims, gate, judge, report, run
from mnist_ablate.errors import MnistAblateError

_INTERRUPTED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own; return the exit status."""
    # The reader of the output, such as `head`, may have enough. Messages may have nowhere to go, as when a terminal is
    # closed or a log is full. Neither ends a study, or changes what a command finds.
    out = _Lasting(sys.stdout, "standard output", BrokenPipeError)
    messages = _Lasting(sys.stderr, "standard error", OSError)
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, messages)):
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.command(arguments)
        sys.stdout.flush()  # here, so that a full disk is reported
    except (MemoryError, OSError) as error:
        _discard(sys.stdout)
        print(f"mnist-ablate: {_cause(error)}. Finished runs are kept: run the same command again.", file=sys.stderr)
        return 1
    except MnistAblateError as error:
        print(f"mnist-ablate: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("mnist-ablate: Stopped.", file=sys.stderr)
        return _INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser(prog="mnist-ablate", description="Does L2, dropout or BatchNorm help on MNIST?")
    commands = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run.add(commands.add_parser("run", help="train every run of a study that is not stored yet"))
    report.add(commands.add_parser("report", help="write the page of a results folder; needs no torch"))
    judge.add(commands.add_parser("judge", help="write the page and verdicts for a table of runs made elsewhere"))
    claims.add(commands.add_parser("claims", help="answer a course notebook's claims from the reference results"))
    checks.add_plan(commands.add_parser("plan", help="show what a study would run, and about how long it takes"))
    run.add_data(commands.add_parser("data", help="fetch and check a data set, and print where it is"))
    checks.add_verify(commands.add_parser("verify", help="train stored runs again, and compare them bit for bit"))
    checks.add_doctor(commands.add_parser("doctor", help="check a results folder without training"))
    checks.add_compare(commands.add_parser("compare", help="say whether two results folders agree"))
    gate.add(commands.add_parser("gate", help="say whether training got worse since the reference was accepted"))
    return program


class _Lasting:
    """A stream that goes on when writing fails with `forgiven`, and discards what is written from then on."""

    def __init__(self, stream: TextIO, name: str, forgiven: type[OSError]) -> None:
        self._stream, self._name, self._forgiven = stream, name, forgiven

    def write(self, text: str) -> int:
        """Write `text`."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is still in memory."""
        self._try(self._stream.flush)

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except self._forgiven:
            _discard(self._stream)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _discard(stream: TextIO) -> None:
    """Discard what is left to print: at exit, the interpreter would try to write it again, and complain."""
    with suppress(OSError):  # it is no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _cause(error: MemoryError | OSError) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory; use fewer --workers, or close other programs"
    where = f"{error.filename}: " if error.filename else ""
    remedy = "; allow more with ulimit -n" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
    return f"{where}{error.strerror or error}{remedy}"
