"""Write the README's tables and pictures from the reference results: ``nox -s readme``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate import answers, plots, store
from mnist_ablate.effects import describe
from mnist_ablate.hypotheses import Judgement, judge
from mnist_ablate.report import write
from mnist_ablate.tables import markdown_table
from mnist_ablate.words import number, span

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "benchmarks" / "peers"), str(ROOT / "docs")]
import summary  # noqa: E402
from marks import between  # noqa: E402

REFERENCE = ROOT / "results" / "reference" / "factorial"
PERFORMANCE = ROOT / "results" / "reference" / "performance.parquet"


def with_table(readme: str, results: store.Results) -> str:
    """Return the text of the README with the table of `results` in its place."""
    return between("results/reference/factorial", markdown_table(results), readme)


def with_answers(readme: str, results: store.Results) -> str:
    """Return the text of the README with the verdicts on the hypotheses of `results` in their place."""
    rows = [_answer(judgement) for judgement in judge(results)]
    head = ["| Hypothesis | Verdict | Estimate | Interval that decides | Seeds |", "| :-- | :-- | --: | --: | --: |"]
    return between("verdicts of results/reference/factorial", "\n".join([*head, *rows]), readme)


def _answer(judgement: Judgement) -> str:
    how = describe(judgement.hypothesis.response)
    low, high, level = answers.deciding(judgement)
    found = f"{number(judgement.sample.mean, how.digits, sign=True)} {how.unit}"
    interval = f"{span(low, high, how.digits)} ({level})"
    badge = f"**{answers.BADGES[judgement.verdict]}**"
    return f"| {' | '.join([judgement.hypothesis.statement, badge, found, interval, str(judgement.sample.n)])} |"


def with_performance(readme: str, measurements: pd.DataFrame) -> str:
    """Return the text of the README with what `measurements` come to in its place."""
    return between("results/reference/performance.parquet", summary.markdown(measurements), readme)


def main() -> None:
    """Write all of them, and the page of the reference results."""
    os.chdir(ROOT)  # the page names the folder that it was made from
    results, measurements = store.load(REFERENCE), pd.read_parquet(PERFORMANCE)
    readme = ROOT / "README.md"
    text = with_answers(with_table(readme.read_text(encoding="utf-8"), results), results)
    text = with_performance(text, measurements)
    readme.write_text(text, encoding="utf-8")
    themes: tuple[plots.ThemeName, ...] = ("light", "dark")
    for theme in themes:
        _save(lambda theme=theme: plots.forest(results, smallest=0.1, theme=theme), f"effects-{theme}.svg")
        _save(lambda theme=theme: summary.figure(measurements, theme=theme), f"performance-{theme}.svg")
    write(REFERENCE.relative_to(ROOT), ROOT / "reports" / "reference" / "factorial")


def _save(draw: Callable[[], Figure], name: str) -> None:
    """Draw and write a picture, the same file every time."""
    with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
        draw().savefig(ROOT / "docs" / name, metadata={"Date": None})


if __name__ == "__main__":
    main()
