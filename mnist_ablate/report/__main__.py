"""``python -m mnist_ablate.report``, the command `report` under its short name."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from mnist_ablate import cli

    return cli.main(["report", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    from mnist_ablate.__main__ import main as program

    sys.exit(program(["report", *sys.argv[1:]]))
