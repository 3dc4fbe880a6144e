"""Verdicts: each hypothesis of a study, decided by the rule that was written down before its runs.

A verdict is a pure function of one interval (`decide`), which is the one that pages show. All hypotheses of a study are
one family: each of m hypotheses is decided at alpha / m. Where the study goes on until it is settled, that interval
holds at all looks at once (`mnist_ablate.inference.sequential`). Holm's p values and sign flips are shown beside the
verdicts and decide nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.contrasts import Contrast, Hypothesis
from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import SUMMARIES, Response
from mnist_ablate.inference.declared import Declarations, provisional
from mnist_ablate.inference.effects import Arm, arms_of, contrast_weights, hypothesis_effects
from mnist_ablate.inference.estimands import summarise
from mnist_ablate.inference.intervals import (
    Bound,
    FloatArray,
    MedianSample,
    Sample,
    TwoWaySample,
    sign_flip_p,
)
from mnist_ablate.inference.power import LEAST_SEEDS, Seeds, seeds_needed
from mnist_ablate.inference.regression import Searched
from mnist_ablate.inference.samples import ALIKE, MOST_FAILURES, is_paired, sample_of
from mnist_ablate.inference.sequential import repeated
from mnist_ablate.inference.test_images import two_way_sample
from mnist_ablate.language import later

Verdict = Literal[
    "supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict", "inconsistent"
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = (
    "supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict", "inconsistent",
)  # fmt: skip


def decide(sample: Sample, kind: str, smallest: float, alpha: float) -> Verdict:
    """Return the verdict on one hypothesis: that of its 1 - `alpha` interval, see `by_interval`.

    Parameters
    ----------
    sample
        The effects of the seeds, in the direction in which they were measured.
    kind
        ``"increase"``, ``"decrease"`` or ``"negligible"``.
    smallest
        The smallest effect that matters.
    alpha
        Probability of a false verdict on this hypothesis.

    Returns
    -------
    str
        One of `VERDICTS`; *no verdict* with fewer than `LEAST_SEEDS` seeds, *inconclusive* where all seeds are equal,
        *inconsistent* where the intervals of different looks have nothing in common.
    """
    if sample.n < LEAST_SEEDS:
        return "no verdict"
    return by_interval(sample.interval(alpha), kind, smallest) if sample.spreads else "inconclusive"


def by_interval(interval: tuple[float, float], kind: str, smallest: float) -> Verdict:
    """Return the verdict that an interval gives.

    With [L, U] the interval, oriented so that the claim is positive, and Δ = `smallest`, the first of these that holds:

    - any claim is *inconsistent* if the interval is empty, L > U: the looks contradict each other;
    - an effect is *negligible* if the interval is inside ±Δ, *supported* if L > Δ, *supported, size open* if L > 0,
      *refuted* if U < 0, else *inconclusive*;
    - 'negligible' is *supported* inside ±Δ, *refuted* if L > Δ or U < -Δ, else *inconclusive*.
    """
    low, high = oriented(interval, kind)
    if low > high:
        return "inconsistent"
    inside = -smallest < low and high < smallest
    if kind == "negligible":
        return "supported" if inside else "refuted" if low > smallest or high < -smallest else "inconclusive"
    if inside:
        return "negligible"
    if high < 0:
        return "refuted"
    if low > 0:
        return "supported" if low > smallest else "supported, size open"
    return "inconclusive"


def oriented(interval: tuple[float, float], kind: str) -> tuple[float, float]:
    """Mirror an interval where the claim is a decrease, so that what is claimed is positive."""
    low, high = interval
    return (-high, -low) if kind == "decrease" else (low, high)


@dataclass(frozen=True)
class Judgement:
    """A hypothesis with its verdict and the numbers behind it.

    Parameters
    ----------
    hypothesis
        The claim and its rule.
    verdict
        By `decide`.
    sample
        The effects of the seeds, in the unit of the response.
    alpha
        This hypothesis' share of the family's alpha.
    low, high
        The 1 - `alpha` interval, which decides.
    p
        Of a claimed effect, the two-sided t test of 0; of 'negligible', see `Sample.p_equivalence`.
    p_holm
        The same, adjusted over the family (Holm 1979); a missing p counts as 1.
    p_sign_flip
        Of a claimed effect, by `mnist_ablate.inference.intervals.sign_flip_p`; NaN for 'negligible', for bounds, and
        over seeds and images.
    n_planned
        Seeds of the study.
    provisional
        Why the verdict is not final, or empty.
    response
        What it is about, and how that is shown.
    per
        What a trend is the change for, such as ``"doubling of width"``; else empty.
    lacking
        Why there can be no verdict however many seeds there are, or empty.
    measured
        Whether there is any value.
    at_worst
        An interval that holds whatever the runs without the response would have given, where its range is known and
        there is no verdict because of them; else None.
    ratios
        Of places in a grid, for each seed the least and the largest ratio of what they stand for; else empty.
    """

    hypothesis: Hypothesis
    verdict: Verdict
    sample: Sample
    alpha: float
    low: float
    high: float
    p: float
    p_holm: float
    p_sign_flip: float
    n_planned: int
    provisional: str
    response: Response
    per: str = ""
    lacking: str = ""
    measured: bool = True
    at_worst: tuple[float, float] | None = None
    ratios: tuple[tuple[float, float], ...] = ()

    @property
    def ratio(self) -> tuple[float, float] | None:
        """The interval of the median of `ratios`; None where there are none."""
        if not self.ratios:
            return None
        assert isinstance(self.sample, MedianSample)  # noqa: S101 # places in a grid are compared by medians
        least, largest = (self.sample.of_same_seeds(ends) for ends in zip(*self.ratios, strict=True))
        return least.interval(self.alpha)[0], largest.interval(self.alpha)[1]

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0: there is an effect, however small."""
        return self.low <= self.high and (self.low > 0 or self.high < 0)

    @property
    def flips_disagree(self) -> bool:
        """Whether sign flips and the t test disagree at `alpha` on whether there is an effect.

        False where the smallest p that flips can give, 2 / 2^n, is not below `alpha`.
        """
        if math.isnan(self.p_sign_flip) or self.sample.n < 2 or 2.0 ** (1 - self.sample.n) >= self.alpha:
            return False
        return (self.p_sign_flip < self.alpha) != (self.p < self.alpha)

    @property
    def images_dominate(self) -> bool:
        """Whether the choice of the test images adds more to the error than the seeds do."""
        return isinstance(self.sample, TwoWaySample) and self.sample.images_dominate

    @property
    def seeds_needed(self) -> Seeds:
        """The numbers of seeds that would settle the hypothesis."""
        return seeds_needed(self.sample, self.hypothesis.kind, self.hypothesis.smallest, self.alpha)

    def at(self, alpha: float) -> "Judgement":
        """Decide again at another share of alpha."""
        low, high = self.sample.interval(alpha)
        verdict = decide(self.sample, self.hypothesis.kind, self.hypothesis.smallest, alpha)
        verdict = "no verdict" if self.lacking else verdict
        return replace(self, alpha=alpha, verdict=verdict, low=low, high=high)


class Measured(Protocol):
    """What verdicts rest on; an `mnist_ablate.inference.analysis.Analysis` has it."""

    @property
    def ran(self) -> pd.DataFrame:
        """Whether there is a run: a row per seed, a column per cell."""

    def seeds(self, response: str) -> pd.DataFrame:
        """Return a response, in the same shape."""

    def censored(self, response: str) -> pd.DataFrame:
        """Return whether each value is only the least that it can be, in the same shape."""

    def on_images(self, contrast: Contrast) -> FloatArray | None:
        """Return a contrast of accuracy by seed with its cells, in order, and test image; None without predictions."""

    def searched(self, response: str) -> Searched:
        """Return a response with the settings of each run, where the study is a search."""


def judge(study: Design, declared: Declarations, measured: Measured) -> list[Judgement]:
    """Decide on every hypothesis of `study`, in its order.

    Parameters
    ----------
    study
        The study.
    declared
        What was laid down before the runs.
    measured
        What was measured.
    """
    alpha, decide_on = share_of_alpha(study), _judge_coefficient if study.searched else _judge_one
    judgements = [decide_on(study, hypothesis, alpha, declared, measured) for hypothesis in study.hypotheses]
    adjusted = holm([judgement.p for judgement in judgements])
    return [replace(judgement, p_holm=p) for judgement, p in zip(judgements, adjusted, strict=True)]


def _judge_one(
    study: Design, hypothesis: Hypothesis, alpha: float, declared: Declarations, measured: Measured
) -> Judgement:
    try:
        arms = arms_of(study, hypothesis)
    except ValueError:  # results that are older than the hypothesis lack its cells
        why = later("These results lack the cells that it needs.")
        return _judged(study, hypothesis, Sample(0, math.nan, math.nan), alpha, lacking=why, measured=False)
    sample, lacking = looked_at(study, hypothesis, measured)
    values = measured.seeds(hypothesis.response)
    z = np.asarray(hypothesis_effects(study, hypothesis, values), dtype=np.float64)
    cells = [cell for arm in arms for cell in arm.cells]
    ran = measured.ran[cells]
    complete = int(ran.all(axis=1).sum() if is_paired(study, cells, measured.ran) else ran.sum().min())
    flips = sample.flips and hypothesis.kind != "negligible"
    return _judged(
        study,
        hypothesis,
        sample,
        alpha,
        p_sign_flip=sign_flip_p(z) if flips else math.nan,
        n_planned=study.n_seeds if sample.unit == "seed" else complete,
        provisional=provisional(study, complete, declared, sample.unit),
        per=_per(study, hypothesis),
        lacking=lacking[-1],
        measured=bool(values[cells].notna().any(axis=None)),
        at_worst=_at_worst(study, hypothesis, measured, alpha) if lacking[-1] else None,
        ratios=_ratios(hypothesis, arms, values),
    )


def _judge_coefficient(
    study: Design, hypothesis: Hypothesis, alpha: float, declared: Declarations, measured: Measured
) -> Judgement:
    """Decide on a hypothesis about a coefficient of a search."""
    found = measured.searched(hypothesis.response)
    place, (sample, (lacking,)) = found.place(hypothesis.effect), looked_at(study, hypothesis, measured)
    worst = found.at_worst(place, study.responses[hypothesis.response], alpha) if lacking else None
    return _judged(
        study,
        hypothesis,
        sample,
        alpha,
        provisional=provisional(study, len(found.y), declared, sample.unit),
        per=found.terms[place].per,
        lacking=lacking,
        measured=bool(np.isfinite(found.y).any()),
        at_worst=worst,
    )


def _judged(study: Design, hypothesis: Hypothesis, sample: Sample, alpha: float, **known: Any) -> Judgement:
    """Return the judgement of a sample; `known` are the fields of a `Judgement` that do not follow from the others."""
    negligible = hypothesis.kind == "negligible"
    p = sample.p_equivalence(hypothesis.smallest) if negligible else sample.p_sign()
    rest = {"p_sign_flip": math.nan, "n_planned": study.n_seeds, "provisional": "", **known}
    response = study.responses[hypothesis.response]
    undecided = Judgement(hypothesis, "no verdict", sample, alpha, math.nan, math.nan, p, math.nan, response=response,
                          **rest)  # fmt: skip
    return undecided.at(alpha)


def looked_at(study: Design, hypothesis: Hypothesis, measured: Measured) -> tuple[Sample, list[str]]:
    """Look at what decides on a hypothesis, at each look as far as `study` has gone.

    Returns
    -------
    tuple
        The effects of the seeds, with what their interval has to pay for looks, and for each look why there can be no
        verdict, or empty.

    Raises
    ------
    ValueError
        If the study has no such contrast.
    """
    if study.searched:
        found = measured.searched(hypothesis.response)
        label = study.responses[hypothesis.response].kept
        return found.sample(found.place(hypothesis.effect)), [found.lacking(label)]
    arms, looks = arms_of(study, hypothesis), [n for n in study.looks if n <= study.n_seeds]
    views = [_First(study, measured, n) for n in looks] if len(study.looks) > 1 else [measured]
    samples = [_sample(study, hypothesis, arms, view) for view in views]
    lacking = [_lacking(study, hypothesis, arms, view) for view in views]
    if len(study.looks) == 1:
        return samples[0], lacking
    return repeated(list(zip(looks, samples, strict=True)), study.looks), lacking


@dataclass(frozen=True)
class _First:
    """What was measured of the first `n` seeds of a study."""

    study: Design
    measured: Measured
    n: int

    @property
    def ran(self) -> pd.DataFrame:
        return self._of_these(self.measured.ran)

    def seeds(self, response: str) -> pd.DataFrame:
        return self._of_these(self.measured.seeds(response))

    def censored(self, response: str) -> pd.DataFrame:
        return self._of_these(self.measured.censored(response))

    def on_images(self, contrast: Contrast) -> FloatArray | None:
        values, cells = self.measured.on_images(contrast), contrast_weights(self.study, contrast)
        return None if values is None else values[: int(self.ran[list(cells)].all(axis=1).sum())]

    def searched(self, response: str) -> Searched:
        return self.measured.searched(response)

    def _of_these(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.iloc[: table.index.searchsorted(self.study.first_seed + self.n)]  # seeds are in order


def _sample(study: Design, hypothesis: Hypothesis, arms: Sequence[Arm], measured: Measured) -> Sample:
    """Summarise the effects of the seeds by the estimator that the hypothesis asks for."""
    if hypothesis.population == "seeds and images":
        on_images = measured.on_images(hypothesis.contrast)
        if on_images is not None:
            return two_way_sample(on_images)
    values = measured.seeds(hypothesis.response)
    effects = hypothesis_effects(study, hypothesis, values)
    z = np.asarray(effects, dtype=np.float64)
    if hypothesis.summary is not None and SUMMARIES[hypothesis.summary].steps:
        return MedianSample.of(z)
    if hypothesis.summary is None:
        weights = contrast_weights(study, hypothesis.contrast)
        sample = sample_of(study, weights, values, measured.ran, study.responses[hypothesis.response])
    else:
        sample = Sample.of(z)
    censored = measured.censored(hypothesis.response)
    paired = is_paired(study, [cell for arm in arms for cell in arm.cells], measured.ran)
    censored = censored.reindex(effects.index) if paired else censored
    return replace(sample, bound=_bound(arms, censored, every=hypothesis.summary == "lowest"))


def _bound(arms: Sequence[Arm], censored: pd.DataFrame, *, every: bool) -> Bound:
    """Return what censored runs leave of an effect; the lowest over levels is censored where `every` level is."""
    if not censored.to_numpy().any():
        return ""
    cells = {arm: censored[list(arm.cells)] for arm in arms}
    sides = {arm.weight > 0 for arm, c in cells.items() if (c.all(axis=1) if every else c.any(axis=1)).any()}
    return "" if not sides else "none" if len(sides) > 1 else "least" if True in sides else "most"


def _lacking(study: Design, hypothesis: Hypothesis, arms: Sequence[Arm], measured: Measured) -> str:
    """Return why there can be no verdict: runs without the response are failures, and not seeds less."""
    label, values = study.responses[hypothesis.response].kept, measured.seeds(hypothesis.response)
    cells = [cell for arm in arms for cell in arm.cells]
    above = np.array([arm.weight > 0 for arm in arms for _ in arm.cells])
    ran, there = measured.ran[cells].to_numpy(), values[cells].notna().to_numpy()
    # Of the two sides of the contrast: runs without the response, and with it.
    counts = np.array([[(ran & is_so)[:, side].sum() for is_so in (~there, there)] for side in (~above, above)])
    failed, total = int(counts[:, 0].sum()), int(counts.sum())
    if failed == total > 0:
        return later("These results have no {label}.", label=label)
    if hypothesis.population == "seeds and images" and measured.on_images(hypothesis.contrast) is None:
        return later("The answers to single test images are not stored, so nothing is known of new images.")
    unlike = failed and counts.sum(axis=1).all() and float(stats.fisher_exact(counts)[1]) < ALIKE
    words = {"failed": failed, "total": total, "label": label}
    if unlike:
        return later(
            "{failed} of {total} runs that it needs have no {label}, more on one side than on the other.", **words
        )
    if failed > MOST_FAILURES * total:
        return later("{failed} of {total} runs that it needs have no {label}, too many to leave out.", **words)
    return ""


def _at_worst(study: Design, hypothesis: Hypothesis, measured: Measured, alpha: float) -> tuple[float, float] | None:
    """Return the interval of an effect where each run without the response has what makes the effect least, or most."""
    response, values, ran = study.responses[hypothesis.response], measured.seeds(hypothesis.response), measured.ran
    if response.range is None or hypothesis.summary:
        return None
    weights, ends = contrast_weights(study, hypothesis.contrast), []
    for side in (0, 1):
        filled = values.copy()
        for cell, weight in weights.items():
            worst = response.range[side if weight > 0 else 1 - side]
            filled[cell] = values[cell].mask(ran[cell] & values[cell].isna(), worst)
        ends.append(sample_of(study, weights, filled, ran, response).interval(alpha)[side])
    return ends[0], ends[1]


def _ratios(hypothesis: Hypothesis, arms: Sequence[Arm], values: pd.DataFrame) -> tuple[tuple[float, float], ...]:
    """Return for each seed the least and the largest ratio of the two limits whose places in a grid are compared.

    A limit lies between the highest level that trains and the next one, which fails (see `highest_trained`), and what
    is fastest between the neighbours of the fastest level.
    """
    levels = [level for arm in arms for level in arm.levels]
    numbers = all(not isinstance(level, bool | str) and level > 0 for level in levels)
    if hypothesis.summary not in ("highest", "fastest") or not numbers or sorted(arm.weight for arm in arms) != [-1, 1]:
        return ()
    limits = []
    for arm in sorted(arms, key=lambda arm: arm.weight):
        grid = [0.0, *map(float, arm.levels), math.inf]
        places = summarise(values, {"": dict(zip(arm.levels, arm.cells, strict=True))}, hypothesis.summary)[""]
        below = 1 if hypothesis.summary == "highest" else 0  # a fastest level lies between its neighbours
        limits.append({seed: (grid[int(p) + below], grid[int(p) + 2]) for seed, p in places.dropna().items()})
    less, more = limits
    return tuple(
        (more[seed][0] / less[seed][1], more[seed][1] / less[seed][0] if less[seed][0] else math.inf)
        for seed in less
        if seed in more
    )


def _per(study: Design, hypothesis: Hypothesis) -> str:
    """Return the steps of the trends in a hypothesis, such as "doubling of width"."""
    trends = {term.factor for term in hypothesis.contrast.terms if term.kind == "trend"}
    return " and ".join(f"{factor.step} of {factor.name}" for factor in study.varied if factor.name in trends)


def share_of_alpha(study: Design) -> float:
    """Return one hypothesis' share of the family's alpha."""
    return study.alpha / max(len(study.hypotheses), 1)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's method (1979); a missing one counts as 1 and stays missing."""
    from statsmodels.stats.multitest import multipletests  # a second to import, which few commands need

    adjusted = multipletests(np.nan_to_num(p, nan=1.0), method="holm")[1] if len(p) else []
    return [math.nan if math.isnan(value) else float(p_holm) for value, p_holm in zip(p, adjusted, strict=True)]
