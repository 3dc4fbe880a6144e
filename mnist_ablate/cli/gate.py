"""The command `gate`."""

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_ablate.cli.arguments import add_language, add_workers, tell
from mnist_ablate.errors import DataError, MnistAblateError, NoVerdictError, TableError
from mnist_ablate.paths import user_path

if TYPE_CHECKING:
    import pandas as pd


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gate`."""
    parser.add_argument(
        "results",
        nargs="?",
        type=user_path,
        metavar="RESULTS",
        help="judge this folder, or this table of cell, seed and value; by default train first",
    )
    parser.add_argument(
        "--reference",
        type=user_path,
        metavar="DIR",
        help="what to compare with (results/reference/gate, or if it is missing, the package's own)",
    )
    parser.add_argument("--study", metavar="STUDY", default="gate", help="for --accept: a bundled study or a TOML file")
    parser.add_argument(
        "--accept", action="store_true", help="make a new reference from the current code, or from a table"
    )
    parser.add_argument("--why", metavar="TEXT", help="the reason for the new reference; it is kept")
    parser.add_argument("--changed-on-purpose", action="store_true", help="do not judge the course of golden runs")
    add_workers(parser)
    parser.add_argument(
        "--out", type=user_path, metavar="DIR", default=Path("results/gate"), help="for runs and gate.md (%(default)s)"
    )
    add_language(parser)
    parser.set_defaults(command=_gate)


def _gate(arguments: argparse.Namespace) -> int:
    """Run the gate so that status 1 always means a measured regression: whatever else fails, the gate cannot tell."""
    try:
        return _accept_or_judge(arguments)
    except MnistAblateError as error:
        if error.exit_status != 1 and not isinstance(error, DataError):
            raise
        raise NoVerdictError(f"Cannot tell: {error}") from error
    except (ImportError, MemoryError, OSError, SystemError) as error:  # disk, memory, a library
        cause = traceback.format_exception_only(error)[-1].strip()
        raise NoVerdictError(f"Cannot tell: {cause}. Correct that, and run the same command again.") from error
    except Exception as error:
        details = "".join(traceback.format_exception(error))
        raise NoVerdictError(f"Cannot tell: the gate itself failed, which is a mistake in it.\n{details}") from error


def _table(arguments: argparse.Namespace) -> "pd.DataFrame | None":
    """Read the table that is to become a reference, if one is named."""
    from mnist_ablate.gate.tables import ENDINGS, is_table, read_runs

    if arguments.results is None:
        return None
    if not is_table(arguments.results):
        raise TableError(f"{arguments.results}: not a table ({' or '.join(ENDINGS)}). Without one, --accept trains.")
    if arguments.reference is None:
        raise TableError(f"--accept {arguments.results}: name the folder of its reference with --reference DIR.")
    return read_runs(arguments.results)


def _accept_or_judge(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("reference", "out", "workers")}
    if arguments.accept:
        from mnist_ablate.gate.accept import accept_reference
        from mnist_ablate.gate.reference import DEFAULT

        table = _table(arguments)
        options["reference"] = arguments.reference or DEFAULT
        accept_reference(arguments.study if table is None else table, arguments.why, **options, say=tell)
        print(f"Reference: {options['reference']}")
        return 0
    from mnist_ablate.gate.runs import gate

    chosen = {"changed_on_purpose": arguments.changed_on_purpose, "lang": arguments.lang}
    verdict = gate(arguments.results, **options, **chosen, say=tell)
    try:
        print(f"{verdict}\nMore:  {verdict.page}" if verdict.page else verdict, flush=True)
    except OSError:  # nobody reads, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would try again at exit
        tell(str(verdict))
    return verdict.exit_status
