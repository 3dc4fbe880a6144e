"""The command `report`."""

import argparse
from pathlib import Path

from mnist_ablate.cli.arguments import add_language, add_latex
from mnist_ablate.paths import user_path


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `report`."""
    default = Path("results/factorial")
    parser.add_argument(
        "results", nargs="?", type=user_path, default=default, metavar="RESULTS", help="results folder (%(default)s)"
    )
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder of the report; by default reports/<study>")
    add_language(parser)
    add_latex(parser)
    parser.add_argument("--live", action="store_true", help="also write live.html, whose sliders change the rule")
    parser.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    from mnist_ablate.report import write

    report = write(arguments.results, arguments.out, lang=arguments.lang, live=arguments.live, latex=arguments.latex)
    print(f"Report: {report.html}\nSummary: {report.summary}")
    if report.live:
        print(f"With sliders: {report.live}")
    if report.paper:
        print(f"Paper: {report.paper}")
    return 0
