"""The article on the claims: its text is in docs/article/, its numbers and pictures come from the reference results.

A person wrote the text for the verdicts in docs/article/assumed.toml. Where a result has another verdict by now, making
the article fails: its sentences must be read again before it is published.
"""

import functools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import ClaimAnswer, References
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.intervals import mean_interval
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.language import say, speaking, whole
from mnist_ablate.notebook.replication import rankings
from mnist_ablate.report.format import digits_of, interval, number
from mnist_ablate.report.svg import themed
from mnist_ablate.report.verdict_words import badge
from mnist_ablate.store.results import load

FOLDER = Path(__file__).parent / "article"
OUT = {"en": "findings.md", "es": "hallazgos.md"}
"""The documents that are made, by language."""


class ArticleError(Exception):
    """The text says something else than the results."""


@dataclass(frozen=True)
class Article:
    """The article in a language.

    Parameters
    ----------
    references
        The folder of reference results.
    answers
        The verdicts on the claims.
    found
        The verdicts of all studies.
    language
        A key of `OUT`.
    assumed
        The verdicts that the text was written for, by claim and by hypothesis.
    """

    references: Path
    answers: Sequence[ClaimAnswer]
    found: References
    language: str
    assumed: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, references: Path, answers: Sequence[ClaimAnswer], found: References, language: str) -> "Article":
        """Return the article with the verdicts of docs/article/assumed.toml."""
        assumed = tomllib.loads((FOLDER / "assumed.toml").read_text(encoding="utf-8"))
        return cls(references, answers, found, language, assumed)

    def text(self) -> str:
        """Return it in Markdown.

        Raises
        ------
        ArticleError
            If it was written for another verdict than a result has, or names a result that is not there.
        """
        loader = jinja2.FileSystemLoader(FOLDER)
        says = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
        says.globals |= {name: getattr(self, name) for name in _SAYS}
        with speaking(self.language):
            made = says.get_template(f"{self.language}.md").render()
        return (
            f"<!-- Made by `nox -s readme` from docs/article/ and results/reference/; a test compares. -->\n\n{made}\n"
        )

    # ---- What the text may ask for ----

    def verdict(self, claim: str) -> str:
        """Return the verdict on a claim in words."""
        (answer,) = (answer for answer in self.answers if answer.claim.id == claim)
        self._hold(claim, "claims", answer.verdict)
        if claims_page.provisional(answer):
            return say("{claim} (provisional)", claim=badge(answer.verdict))
        return badge(answer.verdict)

    def known(self, place: str) -> str:
        """Hold that a hypothesis has the verdict that the text tells without its number."""
        self._judged(place)
        return ""

    def size(self, place: str, digits: int | None = None) -> str:
        """Return the size of an effect with its unit, without its sign; `place` is study/hypothesis."""
        return self._amount(place, digits, abs, sign=False)

    def signed(self, place: str, digits: int | None = None) -> str:
        """Return an effect with its sign and unit."""
        return self._amount(place, digits, lambda value: value, sign=True)

    def ends(self, place: str) -> str:
        """Return the interval that decides; without signs where it leaves out 0."""
        judgement = self._judged(place)
        digits = _digits(judgement)
        ends = [judgement.low, judgement.high]
        crosses = ends[0] < 0 < ends[1]
        low, high = ends if crosses else sorted(map(abs, ends))
        return say("{low} to {high}", low=number(low, digits, sign=crosses), high=number(high, digits, sign=crosses))

    def less(self, place: str) -> str:
        """Return in percent by how much an effect on a logarithm lowers what it is the logarithm of."""
        return f"{_percent_less(self._judged(place).sample.mean)} %"

    def less_ends(self, place: str) -> str:
        """Return the interval of `less`."""
        judgement = self._judged(place)
        return f"{say('{low} to {high}', low=_percent_less(judgement.high), high=_percent_less(judgement.low))} %"

    def ratio(self, place: str) -> str:
        """Return the ratio of which an effect is the logarithm, with its interval."""
        judgement = self._judged(place)
        mean, *ends = (number(math.exp(value), 2) for value in (judgement.sample.mean, judgement.low, judgement.high))
        return f"{mean} ({say('{low} to {high}', low=ends[0], high=ends[1])})"

    def times(self, place: str) -> str:
        """Return the range of a ratio of two levels of a grid."""
        ratio = self._judged(place).ratio
        if ratio is None or not ratio[0] or math.isinf(ratio[1]):
            raise ArticleError(f"{place}: its ratio is no range of two numbers: {ratio}")
        low, high = (number(float(f"{end:.2g}"), 0) for end in ratio)
        return say("{low} to {high}", low=low, high=high)

    def seeds(self, study: str) -> int:
        """Return the number of seeds that a study's verdicts rest on."""
        (n,) = {judgement.sample.n for judgement in self.found.judgements[study].values()}
        return n

    def runs(self) -> str:
        """Return the number of all runs."""
        return whole(sum(map(len, self.found.networks.values())))

    def lowest(self, study: str, cell: str) -> str:
        """Return the lowest test accuracy of the runs of a cell, in percent."""
        return number(self._accuracies(study, cell).min(), 2)

    def highest(self, study: str, cell: str) -> str:
        """Return the highest test accuracy of the runs of a cell, in percent."""
        return number(self._accuracies(study, cell).max(), 2)

    def mean(self, study: str, cell: str) -> str:
        """Return the mean test accuracy of a cell, in percent."""
        return number(self._accuracies(study, cell).mean(), 2)

    def difference(self, study: str, cell: str, base: str) -> str:
        """Return the mean difference in test accuracy of two cells with its 95 % interval, which decides nothing."""
        differences = self._accuracies(study, cell) - self._accuracies(study, base)
        mean, low, high = mean_interval(np.asarray(differences, dtype=np.float64))
        return f"{number(mean, sign=True)} {_UNITS[self.language]['points']} ({interval(low, high)})"

    def sd(self, study: str, cell: str) -> str:
        """Return the standard deviation of test accuracy over the runs of a cell, in percentage points."""
        return number(self._accuracies(study, cell).std(ddof=1), 2)

    def ranking(self, study: str, mode: str) -> str:
        """Return in percent how often four runs rank as the notebook does, with its mistakes or mended."""
        rows = rankings(_analysis(self.references / study)).query("ranking == 'printed'").set_index("mode")
        share = 100 * float(rows["share"][mode])
        return number(share, 0 if share >= 1 else 1)

    def means_rank(self, study: str, order: str) -> str:
        """Hold that the text tells the ranking of the means, where ``=`` stands between what cannot be told apart."""
        rows = rankings(_analysis(self.references / study)).query("ranking == 'separable' and mode == 'mended'")
        if rows["order"].tolist() != [order]:
            raise ArticleError(
                f"docs/article: the text says that the means rank {order}, and they rank {rows['order'].tolist()}"
            )
        return ""

    def picture(self, claim: str, alt: str) -> str:
        """Return the image of a claim in Markdown, with what it shows in words."""
        return f"![{alt}]({_picture_name(claim, self.language)})"

    def guarantees(self) -> str:
        """Say how often verdicts may be false; the answers page says more."""
        return claims_page.guarantees(self.answers, self.found, brief=True)

    # ---- Below it ----

    def _hold(self, what: str, kind: str, verdict: str) -> None:
        if self.assumed[kind].get(what) != verdict:
            raise ArticleError(
                f"docs/article: the text was written for {what} being '{self.assumed[kind].get(what, 'left out')}'; "
                f"the results say '{verdict}'. Read what the article says of it in every language, mend it, and then "
                "change assumed.toml."
            )

    def _judged(self, place: str) -> Judgement:
        study, _, wanted = place.partition("/")
        judgement = self.found.judgements.get(study, {}).get(wanted)
        if judgement is None:
            raise ArticleError(f"docs/article: there are no results for {place}")
        self._hold(place, "hypotheses", judgement.verdict)
        return judgement

    def _amount(self, place: str, digits: int | None, of: Callable[[float], float], *, sign: bool) -> str:
        judgement = self._judged(place)
        digits = _digits(judgement) if digits is None else digits
        unit = _UNITS[self.language][judgement.response.unit]
        return f"{number(of(judgement.sample.mean), digits, sign=sign)} {unit}"

    def _accuracies(self, study: str, cell: str) -> "pd.Series[float]":
        return _analysis(self.references / study).seeds("test_accuracy")[cell]


@functools.cache
def _analysis(folder: Path) -> Analysis:
    """Return the analysis of a folder, read once for all numbers and languages."""
    return analyse(load(folder))


def _percent_less(logarithm: float) -> str:
    return number(-100 * math.expm1(logarithm), 0)


def _digits(judgement: Judgement) -> int:
    least = 3 if judgement.response.unit == "nats" else judgement.response.digits
    return digits_of(judgement.low, judgement.high, least, judgement.hypothesis.smallest)


def pictures(answers: Sequence[ClaimAnswer], language: str) -> dict[str, str]:
    """Return the pictures of the claims as SVG, by their names in docs/."""
    with speaking(language):
        drawn = claims_page.pictures(answers)
    return {_picture_name(claim, language): themed(picture.svg) for claim, picture in drawn.items()}


def _picture_name(claim: str, language: str) -> str:
    return f"article/{claim}-{language}.svg"


_SAYS = ("verdict", "known", "size", "signed", "ends", "less", "less_ends", "ratio", "times", "seeds", "runs", "lowest",
         "highest", "mean", "difference", "sd", "ranking", "means_rank", "picture", "guarantees")  # fmt: skip
_UNITS = {
    "en": {"points": "points", "nats": "nats"},
    "es": {"points": "puntos", "nats": "nats"},
}
