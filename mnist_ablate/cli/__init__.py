"""The command line: each command parses its options, calls the public function of the same name, and prints.

Imports are light, and a command imports what it alone needs when it runs: `run` has workers training before statistics
are loaded.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from mnist_ablate.cli import checks, gate, report, run
from mnist_ablate.errors import MnistAblateError

_INTERRUPTED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()  # here, so that a full disk is reported
    except BrokenPipeError:  # the reader, such as `head`, has enough
        _discard_output()
        return 0
    except (MemoryError, OSError) as error:
        _discard_output()
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
    checks.add_plan(commands.add_parser("plan", help="what a study would run, and about how long that takes"))
    run.add_data(commands.add_parser("data", help="fetch and check a data set, and print where it is"))
    checks.add_verify(commands.add_parser("verify", help="train stored runs again, and compare them bit for bit"))
    checks.add_doctor(commands.add_parser("doctor", help="check a results folder without training"))
    checks.add_compare(commands.add_parser("compare", help="two results folders: the same, equivalent or different?"))
    gate.add(commands.add_parser("gate", help="has training got worse since the reference was accepted?"))
    return program


def _discard_output() -> None:
    """Discard what is left to print: at exit, the interpreter would try to write it again, and complain."""
    with suppress(OSError):  # standard output is no file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cause(error: MemoryError | OSError) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory; use fewer --workers, or close other programs"
    return f"{error.filename or 'standard output'}: {error.strerror or error}"
