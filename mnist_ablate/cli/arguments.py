"""What several commands share: options, and messages while they work."""

import argparse
import sys

from mnist_ablate.language import ENGLISH
from mnist_ablate.paths import user_path


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the argument STUDY, by default the main study."""
    parser.add_argument("study", nargs="?", metavar="STUDY", default="factorial", help="a bundled study or a TOML file")


def add_results(parser: argparse.ArgumentParser, name: str = "results") -> None:
    """Add the argument of a results folder."""
    parser.add_argument(name, type=user_path, metavar=name.upper(), help="results folder")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option `--workers`."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes; by default one per physical core")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the option `--device`."""
    parser.add_argument("--device", metavar="NAME", default="auto", help="cuda, cpu or auto: a card if there is one")


def add_language(parser: argparse.ArgumentParser) -> None:
    """Add the option `--lang`."""
    parser.add_argument("--lang", metavar="CODE", default=ENGLISH, help="language of the page: en or es (%(default)s)")


def add_latex(parser: argparse.ArgumentParser) -> None:
    """Add the option `--latex`."""
    parser.add_argument("--latex", action="store_true", help="for a paper: tables in LaTeX, figures as PDF, methods")


def tell(message: str) -> None:
    """Print a message about progress on standard error."""
    print(message, file=sys.stderr, flush=True)
