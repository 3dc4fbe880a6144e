"""Write the README's table and picture from the reference results: ``nox -s readme``."""

import re
from pathlib import Path

import matplotlib as mpl

from mnist_ablate import plots, store
from mnist_ablate.report import markdown_table

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference" / "factorial"
_TABLE = re.compile(r"(?<=<!-- table: results/reference/factorial -->\n).*?(?=<!-- end -->)", re.DOTALL)


def with_table(readme: str, results: store.Results) -> str:
    """Return the text of the README with the table of `results` in its place."""
    return _TABLE.sub(lambda _: markdown_table(results).strip() + "\n", readme)


def main() -> None:
    """Write both."""
    results = store.load(REFERENCE)
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), results), encoding="utf-8")
    for theme in ("light", "dark"):
        with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):  # the same file every time
            figure = plots.accuracy(results, theme=theme)
            figure.savefig(ROOT / "docs" / f"accuracy-{theme}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
