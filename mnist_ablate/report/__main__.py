"""The command ``python -m mnist_ablate.report``."""

import argparse
import sys

from mnist_ablate.errors import MnistAblateError
from mnist_ablate.report.page import write


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mnist_ablate.report", description="Write the report of a study.")
    parser.add_argument(
        "results", nargs="?", default="results/factorial", metavar="RESULTS", help="results folder (%(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the report (reports/ and the name of the study)")
    arguments = parser.parse_args(argv)
    try:
        report = write(arguments.results, arguments.out)
    except MnistAblateError as error:
        print(error, file=sys.stderr)  # noqa: T201 # what a command is for
        return error.exit_status
    print(f"Report: {report.html}\nSummary: {report.summary}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
