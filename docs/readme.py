"""Write the README's tables and pictures, and the article, from the reference results: ``nox -s readme``."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import ClaimAnswer, References, answer_all
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.verdicts import Judgement, judge
from mnist_ablate.report import verdict_words as answers
from mnist_ablate.report.sections import cells
from mnist_ablate.store.results import Results, load

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
import elsewhere_tables  # noqa: E402
import performance  # noqa: E402
from marks import between, table  # noqa: E402

REFERENCES = ROOT / "results" / "reference"
REFERENCE = REFERENCES / "factorial"
PERFORMANCE = REFERENCES / "performance.parquet"
FINDINGS = ROOT / "docs" / "findings.md"


def with_table(readme: str, results: Results) -> str:
    """Return the text of the README with the table of `results` in its place."""
    return between("results/reference/factorial", cells.table(analyse(results)).markdown, readme)


def with_answers(readme: str, results: Results) -> str:
    """Return the text of the README with the verdicts on the hypotheses of `results` in their place."""
    rows = [_answer(judgement) for judgement in judge(results)]
    head = ["Hypothesis", "Verdict", "Estimate", "Interval that decides", "Seeds"]
    return between("verdicts of results/reference/factorial", table(head, rows, left=(0, 1)), readme)


def _answer(judgement: Judgement) -> list[object]:
    badge, numbers = f"**{answers.BADGES[judgement.verdict]}**", (answers.estimate_text, answers.interval_text)
    return [judgement.hypothesis.statement, badge, *(text(judgement) for text in numbers), judgement.sample.n]


def with_claims(readme: str, found: Sequence[ClaimAnswer]) -> str:
    """Return the text of the README with the verdicts on all claims in their place."""
    return between("claims", claims_page.markdown_table(found, "reports/reference"), readme)


def findings(found: Sequence[ClaimAnswer]) -> str:
    """Return the text of the article."""
    return claims_page.findings(found, "../reports/reference")


def with_performance(readme: str, measurements: pd.DataFrame) -> str:
    """Return the text of the README with what `measurements` come to in its place."""
    return between("results/reference/performance.parquet", performance.markdown(measurements), readme)


def with_compat(readme: str) -> str:
    """Return the text of the README with what ``nox -s compat`` measured in its place."""
    name = "results/reference/compat.parquet"
    return between(name, elsewhere_tables.compat(pd.read_parquet(ROOT / name)), readme)


def with_reproducibility(text: str) -> str:
    """Return docs/reproducibility.md with what was measured and simulated in its place."""
    made = {
        "reproducibility": elsewhere_tables.reproducibility,
        "engines": elsewhere_tables.engines,
        "compare-rates": elsewhere_tables.rates,
    }
    for stem, tabulated in made.items():
        name = f"results/reference/{stem}.parquet"
        text = between(name, tabulated(pd.read_parquet(ROOT / name)), text)
    return text


def main() -> None:
    """Write all of them."""
    found = answer_all(References.read(REFERENCES))
    FINDINGS.write_text(findings(found), encoding="utf-8")
    results, measurements = load(REFERENCE), pd.read_parquet(PERFORMANCE)
    readme = ROOT / "README.md"
    text = with_answers(with_table(readme.read_text(encoding="utf-8"), results), results)
    text = with_compat(with_performance(with_claims(text, found), measurements))
    readme.write_text(text, encoding="utf-8")
    promises = ROOT / "docs" / "reproducibility.md"
    promises.write_text(with_reproducibility(promises.read_text(encoding="utf-8")), encoding="utf-8")
    themes: tuple[plots.ThemeName, ...] = ("light", "dark")
    for theme in themes:
        _save(partial(plots.forest, results, smallest=0.1, theme=theme), f"effects-{theme}.svg")
        _save(partial(performance.figure, measurements, theme=theme), f"performance-{theme}.svg")


def _save(draw: Callable[[], Figure], name: str) -> None:
    """Draw and write a picture, the same file every time."""
    with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
        draw().savefig(ROOT / "docs" / name, metadata={"Date": None})


if __name__ == "__main__":
    main()
