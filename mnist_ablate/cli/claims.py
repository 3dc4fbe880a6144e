"""The command `claims`."""

import argparse
from pathlib import Path

from mnist_ablate.cli.arguments import add_language
from mnist_ablate.language import folder_of
from mnist_ablate.paths import user_path


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `claims`."""
    default = Path("results/reference")
    parser.add_argument(
        "references", nargs="?", type=user_path, default=default, metavar="DIR",
        help="results of several studies, one folder each (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--out", type=user_path, metavar="DIR", help="folder of the pages; by default reports/claims")
    add_language(parser)
    parser.set_defaults(command=_claims)


def _claims(arguments: argparse.Namespace) -> int:
    from mnist_ablate.claims.page import write_all

    folder = arguments.out or folder_of(Path("reports/claims"), arguments.lang)
    print(f"Answers: {write_all(arguments.references, folder, lang=arguments.lang)}")
    return 0
