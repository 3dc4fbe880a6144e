"""The command `gate`."""

import argparse
from pathlib import Path

from mnist_ablate.cli.arguments import add_workers, tell


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gate`."""
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS", help="judge this folder; else train first")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="what to compare with (results/reference/gate, or else the reference in the package)",
    )
    parser.add_argument("--study", metavar="STUDY", default="gate", help="for --accept: a bundled study or a TOML file")
    parser.add_argument("--accept", action="store_true", help="make a new reference of the code as it is")
    parser.add_argument("--why", metavar="TEXT", help="the reason for the new reference, which is kept")
    parser.add_argument("--changed-on-purpose", action="store_true", help="do not judge the course of golden runs")
    add_workers(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results/gate"), help="for runs and gate.md (%(default)s)"
    )
    parser.set_defaults(command=_gate)


def _gate(arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("reference", "out", "workers")}
    if arguments.accept:
        from mnist_ablate.gate.accept import accept_reference
        from mnist_ablate.gate.reference import DEFAULT

        options["reference"] = arguments.reference or DEFAULT
        accept_reference(arguments.study, arguments.why, **options, say=tell)
        print(f"Reference: {options['reference']}")
        return 0
    from mnist_ablate.gate.runs import gate

    verdict = gate(arguments.results, **options, changed_on_purpose=arguments.changed_on_purpose, say=tell)
    print(f"{verdict}\nMore:  {verdict.page}")
    return verdict.exit_status
