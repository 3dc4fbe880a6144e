"""Write the README's tables and pictures from the reference results: ``nox -s readme``."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate import plots, store
from mnist_ablate.tables import markdown_table

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks" / "peers"))
import summary  # noqa: E402

REFERENCE = ROOT / "results" / "reference" / "factorial"
PERFORMANCE = ROOT / "results" / "reference" / "performance.parquet"


def with_table(readme: str, results: store.Results) -> str:
    """Return the text of the README with the table of `results` in its place."""
    return _between("results/reference/factorial", markdown_table(results), readme)


def with_performance(readme: str, measurements: pd.DataFrame) -> str:
    """Return the text of the README with what `measurements` come to in its place."""
    return _between("results/reference/performance.parquet", summary.markdown(measurements), readme)


def _between(source: str, table: str, readme: str) -> str:
    """Put `table` between the README's two marks for what is made from `source`."""
    place = re.compile(rf"(?<=<!-- table: {re.escape(source)} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return place.sub(lambda _: table.strip() + "\n", readme)


def main() -> None:
    """Write all of them."""
    results, measurements = store.load(REFERENCE), pd.read_parquet(PERFORMANCE)
    readme = ROOT / "README.md"
    text = with_performance(with_table(readme.read_text(encoding="utf-8"), results), measurements)
    readme.write_text(text, encoding="utf-8")
    themes: tuple[plots.ThemeName, ...] = ("light", "dark")
    for theme in themes:
        _save(lambda theme=theme: plots.accuracy(results, theme=theme), f"accuracy-{theme}.svg")
        _save(lambda theme=theme: summary.figure(measurements, theme=theme), f"performance-{theme}.svg")


def _save(draw: Callable[[], Figure], name: str) -> None:
    """Draw and write a picture, the same file every time."""
    with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
        draw().savefig(ROOT / "docs" / name, metadata={"Date": None})


if __name__ == "__main__":
    main()
