"""Write every table and picture of the documents, and the articles, from the reference results: ``nox -s readme``."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import ClaimAnswer, References, answer_all, as_declared
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.report.sections import cells
from mnist_ablate.report.verdict_words import BADGES, estimate_text, interval_text
from mnist_ablate.store.results import load

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
import article  # noqa: E402
import elsewhere_tables  # noqa: E402
import gpu_table  # noqa: E402
import performance  # noqa: E402
import reliability  # noqa: E402
from marks import between, table  # noqa: E402

REFERENCES = ROOT / "results" / "reference"
REFERENCE = REFERENCES / "factorial"
GPU = "results/reference/gpu.parquet"

_MEASURED: dict[str, dict[str, Callable[[pd.DataFrame], str]]] = {
    "docs/performance.md": {"performance": performance.markdown},
    "docs/reproducibility.md": {
        "reproducibility": elsewhere_tables.reproducibility,
        "rounding": elsewhere_tables.rounding,
        "engines": elsewhere_tables.engines,
        "protocols": elsewhere_tables.protocols,
        "compat": elsewhere_tables.compat,
    },
    "docs/compare.md": {"compare-rates": elsewhere_tables.rates},
    "docs/reliability.md": {"faults": reliability.faults},
}
"""By document: what turns ``results/reference/<name>.parquet`` into Markdown, by that name."""


@functools.cache
def found() -> References:
    """Return the verdicts of all reference results."""
    return References.read(REFERENCES)


@functools.cache
def answers() -> Sequence[ClaimAnswer]:
    """Return the verdicts on all claims."""
    return answer_all(found())


def tables() -> dict[str, dict[str, str]]:
    """Return every table in Markdown, by its document and then by the source that its marks name."""
    analysis = analyse(as_declared("factorial", load(REFERENCE)))
    made = {
        "README.md": {
            "verdicts of results/reference/factorial": verdicts(analysis.judgements),
            "what the verdicts guarantee": claims_page.guarantees(answers(), found()),
        },
        "docs/results.md": {
            "results/reference/factorial": cells.table(analysis).markdown,
            "claims": claims_page.markdown_table(answers(), "../reports/reference"),
        },
    }
    for document, sources in _MEASURED.items():
        files = {f"results/reference/{name}.parquet": tabulate for name, tabulate in sources.items()}
        made[document] = {file: tabulate(pd.read_parquet(ROOT / file)) for file, tabulate in files.items()}
    processors = pd.read_parquet(REFERENCES / "performance.parquet")
    made["docs/gpu.md"] = {
        GPU: gpu_table.markdown(gpu()),
        f"what runs cost, from {GPU}": gpu_table.costs(gpu(), processors),
    }
    made["README.md"][GPU] = gpu_table.headline(gpu())
    return made


def gpu() -> pd.DataFrame | None:
    """Return what was measured on a card, if anything was."""
    return pd.read_parquet(ROOT / GPU) if (ROOT / GPU).exists() else None


def verdicts(judgements: Iterable[Judgement]) -> str:
    """Return the table of verdicts, a row for each hypothesis."""
    head = ["Hypothesis", "Verdict", "Estimate", "Interval that decides", "Seeds"]
    rows = [
        [j.hypothesis.statement, f"**{BADGES[j.verdict]}**{', provisional' if j.provisional else ''}",
         estimate_text(j), interval_text(j), j.sample.n]
        for j in judgements
    ]  # fmt: skip
    return table(head, rows, left=(0, 1))


def articles() -> dict[str, str]:
    """Return the text of the article in each language, by the name of its document."""
    return {
        name: article.Article.of(REFERENCES, answers(), found(), language).text()
        for language, name in article.OUT.items()
    }


def main() -> None:
    """Write all of them."""
    for name, made in tables().items():
        document = ROOT / name
        text = document.read_text(encoding="utf-8")
        for source, markdown in made.items():
            text = between(source, markdown, text)
        document.write_text(text, encoding="utf-8")
    for name, text in articles().items():
        (ROOT / "docs" / name).write_text(text, encoding="utf-8")
    for language in article.OUT:
        for name, picture in article.pictures(answers(), language).items():
            (ROOT / "docs" / name).write_text(picture, encoding="utf-8")
    results, measured = load(REFERENCE), pd.read_parquet(REFERENCES / "performance.parquet")
    measurements = performance.machines(measured)[0]
    themes: tuple[plots.ThemeName, ...] = ("light", "dark")
    for theme in themes:
        _save(functools.partial(plots.forest, results, smallest=0.1, theme=theme), f"effects-{theme}.svg")
        _save(functools.partial(performance.figure, measurements, theme=theme), f"performance-{theme}.svg")
        if (measured_on_card := gpu()) is not None:
            _save(functools.partial(gpu_table.figure, measured_on_card, theme=theme), f"gpu-{theme}.svg")


def _save(draw: Callable[[], Figure], name: str) -> None:
    """Draw and write a picture, the same file every time."""
    with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
        draw().savefig(ROOT / "docs" / name, metadata={"Date": None})


if __name__ == "__main__":
    main()
