"""Write the table of docs/reliability.md from the committed measurements: ``nox -s readme``."""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
from marks import between, table  # noqa: E402

PAGE = ROOT / "docs" / "reliability.md"


def faults(measured: pd.DataFrame) -> str:
    """Return the table of faults: a row per kind, and one for all."""
    measured = measured.assign(
        otherwise=measured[["hung", "traceback"]].any(axis=1)
        | (measured[["left_over", "unseen", "resumed"]] != 0).any(axis=1)
        | (measured["left"] != "")
    )
    rows = []
    for kind, of in [*measured.groupby("kind"), ("**All**", measured)]:
        statuses = ", ".join(f"{status:.0f} ({n})" for status, n in of["status"].value_counts().items())
        stages = ", ".join(dict.fromkeys(of["stage"]))
        counts = [int(of[name].sum()) for name in ("repaired", "lost", "double", "different", "otherwise")]
        rows.append([kind, *(["–", len(of), "–"] if kind == "**All**" else [stages, len(of), statuses]), *counts])  # noqa: RUF001
    head = ["Fault", "When", "Injections", "Exit status", "Repaired", "Lost", "Double", "Different", "Otherwise wrong"]
    return table(head, rows, left=(0, 1))


def page(text: str) -> str:
    """Return the page with what was measured in its place."""
    measured = pd.read_parquet(ROOT / "results" / "reference" / "faults.parquet")
    return between("results/reference/faults.parquet", faults(measured), text)


def main() -> None:
    """Write the page's table."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
