"""Verdicts: each hypothesis of a study, decided by the rule that was written down before its runs.

A verdict is a pure function of one t interval (`decide`). All hypotheses of a study are one family: with m of them,
and alpha for all of a study's verdicts together, each is decided at alpha / m, and at a third of that where the study
declares three looks. Holm's p values and sign flips are shown beside the verdicts, and decide nothing.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import optimize, stats

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.plan import cells
from mnist_ablate.design.study import Study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.effects import (
    Effect,
    FloatArray,
    contrast_weights,
    hypothesis_effects,
    seed_effects,
    sign_flip_p,
)
from mnist_ablate.inference.estimands import median_interval, sign_test_p
from mnist_ablate.store.results import Results

LEAST_SEEDS = 6
"""With fewer seeds there are no verdicts: a t interval then rests too much on the noise being Gaussian."""
POWER = 0.9
_SPREAD_CONFIDENCE = 0.8
_MOST_SEEDS = 100_000

Verdict = Literal["supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict"]
VERDICTS: tuple[Verdict, ...] = (
    "supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What a t interval needs: number, mean and standard deviation of the effects of the seeds."""

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, z: FloatArray) -> "Sample":
        """Summarise `z`, shape (n,); the sd of equal values is 0, whatever rounding adds."""
        if len(z) < 2:
            return cls(len(z), float(z.mean()) if len(z) else math.nan, math.nan)
        alike = np.allclose(z, z[0], rtol=1e-12, atol=1e-12)
        return cls(len(z), float(z.mean()), 0.0 if alike else float(z.std(ddof=1)))

    @property
    def se(self) -> float:
        """Standard error of the mean."""
        return self.sd / math.sqrt(self.n) if self.n > 1 else math.nan

    def interval(self, alpha: float) -> tuple[float, float]:
        """Give the ends of the 1 - `alpha` t interval, with `alpha` / 2 on either side."""
        half = float(stats.t.ppf(1 - alpha / 2, self.n - 1)) * self.se if self.n > 1 else math.nan
        return self.mean - half, self.mean + half

    def p_sign(self) -> float:
        """Two-sided p of the t test that the true effect is 0."""
        return float(2 * stats.t.sf(abs(self.mean) / self.se, self.n - 1)) if self.se else math.nan

    def p_equivalence(self, smallest: float) -> float:
        """P of the two one-sided t tests (TOST) that the true effect is not within ± `smallest` (Schuirmann 1987)."""
        return float(stats.t.sf((smallest - abs(self.mean)) / self.se, self.n - 1)) if self.se else math.nan


@dataclass(frozen=True)
class MedianSample(Sample):
    """Effects that are few whole steps of a grid: their median, by order statistics and the sign test.

    Parameters
    ----------
    values
        The effects of the seeds.
    """

    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, z: FloatArray) -> "MedianSample":
        """Summarise `z`, shape (n,); `mean` is the median."""
        median = float(np.median(z)) if len(z) else math.nan
        return cls(len(z), median, float(z.std(ddof=1)) if len(z) > 1 else math.nan, tuple(map(float, z)))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Give an interval of the median with a confidence of at least 1 - `alpha`."""
        return median_interval(np.array(self.values), alpha)

    def p_sign(self) -> float:
        """Two-sided p of the sign test that the median is 0."""
        return sign_test_p(np.array(self.values))


def decide(sample: Sample, kind: str, smallest: float, alpha: float) -> Verdict:
    """Give the verdict on one hypothesis.

    With [L, U] the 1 - `alpha` interval, oriented so that the claim is positive, Δ = `smallest`, and 'inside ±Δ' by
    the 1 - 2 `alpha` interval (TOST), the first of these that holds:

    - an effect is *negligible* inside ±Δ, *supported* if L > Δ, *supported, size open* if L > 0, *refuted* if U < 0,
      else *inconclusive*;
    - 'negligible' is *supported* inside ±Δ, *refuted* if L > Δ or U < -Δ, else *inconclusive*.

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
        One of `VERDICTS`; *no verdict* with fewer than `LEAST_SEEDS` seeds, *inconclusive* without spread between them.
    """
    if sample.n < LEAST_SEEDS:
        return "no verdict"
    if not sample.sd > 0 and not isinstance(sample, MedianSample):
        return "inconclusive"
    low, high = oriented(sample.interval(alpha), kind)
    inner_low, inner_high = oriented(sample.interval(2 * alpha), kind)
    inside = -smallest < inner_low and inner_high < smallest
    if kind == "negligible":
        outside = low > smallest or high < -smallest
        return "supported" if inside else "refuted" if outside else "inconclusive"
    if inside:
        return "negligible"
    if high < 0:
        return "refuted"
    if low > 0:
        return "supported" if low > smallest else "supported, size open"
    return "inconclusive"


def oriented(interval: tuple[float, float], kind: str) -> tuple[float, float]:
    """Turn an interval so that what is claimed is positive."""
    low, high = interval
    return (-high, -low) if kind == "decrease" else (low, high)


@dataclass(frozen=True)
class Judgement:
    """A hypothesis with its verdict and all that it rests on.

    Parameters
    ----------
    hypothesis
        The claim and its rule.
    verdict
        By `decide`.
    sample
        The effects of the seeds, in the unit of the response.
    alpha
        Share of this hypothesis, at this look, in the family's alpha.
    low, high
        The 1 - `alpha` interval, which decides on signs.
    inner_low, inner_high
        The 1 - 2 `alpha` interval, which decides on 'negligible'.
    p
        Of a claimed effect: two-sided t test of 0. Of 'negligible': TOST.
    p_holm
        The same, adjusted over the family (Holm 1979); a missing p counts as 1.
    p_sign_flip
        Of a claimed effect, see `mnist_ablate.inference.effects.sign_flip_p`; else NaN.
    n_planned
        Seeds of the study.
    provisional
        Why the verdict is not final, or empty.
    per
        What a trend is the change for, such as ``"doubling of width"``; else empty.
    """

    hypothesis: Hypothesis
    verdict: Verdict
    sample: Sample
    alpha: float
    low: float
    high: float
    inner_low: float
    inner_high: float
    p: float
    p_holm: float
    p_sign_flip: float
    n_planned: int
    provisional: str
    per: str = ""

    @property
    def is_real(self) -> bool:
        """Whether 0 is outside the interval, so that there is an effect, however small."""
        return self.low > 0 or self.high < 0

    @property
    def flips_disagree(self) -> bool:
        """Whether flips of signs and the t test differ on whether there is an effect at `alpha`.

        Where even the least possible p of flips, 2 / 2^n, is not below `alpha`, flips cannot tell.
        """
        if math.isnan(self.p_sign_flip) or self.sample.n < 2 or 2.0 ** (1 - self.sample.n) >= self.alpha:
            return False
        return (self.p_sign_flip < self.alpha) != (self.p < self.alpha)

    @property
    def seeds_needed(self) -> "Seeds":
        """How many seeds would settle it."""
        return seeds_needed(self.sample, self.hypothesis.kind, self.hypothesis.smallest, self.alpha)


def judge(results: Results) -> list[Judgement]:
    """Decide on every hypothesis of the study of `results`, in its order."""
    declared = declarations(results)
    alpha = share_of_alpha(results.study, declared)
    found = [_judge_one(results, hypothesis, alpha, declared) for hypothesis in results.study.hypotheses]
    adjusted = holm([judgement.p for judgement in found])
    return [replace(judgement, p_holm=p) for judgement, p in zip(found, adjusted, strict=True)]


def _judge_one(results: Results, hypothesis: Hypothesis, alpha: float, declared: "Declarations") -> Judgement:
    z = np.asarray(hypothesis_effects(results, hypothesis), dtype=np.float64)
    sample = MedianSample.of(z) if hypothesis.summary == "highest" else Sample.of(z)
    negligible = hypothesis.kind == "negligible"
    low, high = sample.interval(alpha)
    inner_low, inner_high = sample.interval(2 * alpha)
    return Judgement(
        hypothesis=hypothesis,
        verdict=decide(sample, hypothesis.kind, hypothesis.smallest, alpha),
        sample=sample,
        alpha=alpha,
        low=low,
        high=high,
        inner_low=inner_low,
        inner_high=inner_high,
        p=sample.p_equivalence(hypothesis.smallest) if negligible else sample.p_sign(),
        p_holm=math.nan,
        p_sign_flip=math.nan if negligible or not sample.sd > 0 else sign_flip_p(z),
        n_planned=results.study.seeds,
        provisional=_provisional(results.study, sample.n, declared),
        per=_per(results.study, hypothesis),
    )


def _per(study: Study, hypothesis: Hypothesis) -> str:
    """Say what the trends in a hypothesis are the change for."""
    trends = {term.factor for term in hypothesis.contrast.terms if term.kind == "trend"}
    return " and ".join(f"{factor.step} of {factor.name}" for factor in study.design if factor.name in trends)


def share_of_alpha(study: Study, declared: "Declarations") -> float:
    """Give what one hypothesis at one look has of the family's alpha."""
    return study.alpha / max(len(study.hypotheses), 1) / len(looks_of(study, declared))


def looks_of(study: Study, declared: "Declarations") -> tuple[int, ...]:
    """Give the numbers of seeds for verdicts: those declared with the first run, else the study's."""
    return declared.looks or study.looks or (study.seeds,)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for their number by Holm's method (1979); a missing one counts as 1, and stays missing."""
    from statsmodels.stats.multitest import multipletests  # a second to import, which few commands need

    adjusted = multipletests(np.nan_to_num(p, nan=1.0), method="holm")[1] if len(p) else []
    return [math.nan if math.isnan(value) else float(found) for value, found in zip(p, adjusted, strict=True)]


def _provisional(study: Study, n: int, declared: "Declarations") -> str:
    """Say why a verdict from `n` seeds is not the one that was declared; empty if it is."""
    if not declared.looks:
        return "the runs do not say what was declared before them"
    changed = sum(runs for rules, runs in declared.rules.items() if rules != study.hypotheses_sha256)
    if changed:
        return f"{changed} of the runs were made before the hypotheses became what they are now"
    if n not in declared.looks:
        return f"it rests on {n} seeds, and {' or '.join(map(str, declared.looks))} were declared before the first run"
    return ""


@dataclass(frozen=True)
class Declarations:
    """What was laid down before the runs.

    Parameters
    ----------
    files
        SHA-256 of study files, and how many runs were made under each.
    rules
        SHA-256 of the hypotheses (`mnist_ablate.design.study.Study.hypotheses_sha256`), and how many runs.
    looks
        Numbers of seeds for verdicts that were declared with the first run; empty where none was recorded.
    """

    files: dict[str, int]
    rules: dict[str, int]
    looks: tuple[int, ...]


def declarations(results: Results) -> Declarations:
    """Read from the runs what was laid down before them."""
    files: dict[str, int] = defaultdict(int)
    rules: dict[str, int] = defaultdict(int)
    started, looks = "", ()
    for document in results.documents.values():
        declared = document.get("declared", {})
        files[declared.get("study_sha256", "")] += 1
        rules[declared.get("hypotheses_sha256", "")] += 1
        when = str(document.get("provenance", {}).get("started", ""))
        if declared and (not started or when < started):
            started, looks = when, tuple(declared["looks"])
    return Declarations(dict(files), dict(rules), looks)


# ---- Claims of several parts ----


def claim_verdict(verdicts: Sequence[Verdict]) -> str:
    """Give the verdict on a claim from those on its parts.

    Supported if every part is, refuted if any is; *supported, size open* if every part is supported with or without
    its size; negligible if every part is; else *in part* if some part is supported, and *inconclusive*.
    """
    found = set(verdicts)
    if len(found) == 1:
        return verdicts[0]
    if "refuted" in found:
        return "refuted"
    if found <= {"supported", "supported, size open"}:
        return "supported, size open"
    return "in part" if found & {"supported", "supported, size open"} else "inconclusive"


# ---- How many seeds ----


@dataclass(frozen=True)
class Seeds:
    """Seeds that settle a hypothesis with 90 % power.

    Parameters
    ----------
    likely
        If the true spread between seeds is the one that was seen.
    cautious
        If it is the upper 80 % limit of what the spread may be.
    """

    likely: int | None
    cautious: int | None


def seeds_needed(sample: Sample, kind: str, smallest: float, alpha: float, power: float = POWER) -> Seeds:
    """Tell how many seeds a hypothesis needs, from the spread of a pilot; never from the effect that it showed.

    An effect: enough to see one of size `smallest`, and enough to see that one of 0 is negligible, whichever is more.
    'negligible': enough to show it if the true effect is 0.

    Returns
    -------
    Seeds
        None where the pilot has no spread or fewer than two seeds, or where 100,000 would not do.
    """
    if not sample.sd > 0:
        return Seeds(None, None)
    limit = sample.sd * math.sqrt((sample.n - 1) / float(stats.chi2.ppf(1 - _SPREAD_CONFIDENCE, sample.n - 1)))
    numbers = []
    for sd in (sample.sd, limit):
        needed = [_least(lambda n, sd=sd: equivalence_power(sd, n, smallest, alpha) >= power)]  # type: ignore[misc]
        if kind != "negligible":
            needed.append(_least(lambda n, sd=sd: sign_power(smallest, sd, n, alpha) >= power))  # type: ignore[misc]
        numbers.append(None if None in needed else max(n for n in needed if n is not None))
    return Seeds(*numbers)


def _least(enough: Callable[[int], bool]) -> int | None:
    """Find the least number of seeds that is `enough`, which more than enough always is."""
    high = LEAST_SEEDS
    while not enough(high):
        if high == _MOST_SEEDS:
            return None
        high = min(2 * high, _MOST_SEEDS)
    low = max(LEAST_SEEDS, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def sign_power(effect: float, sd: float, n: int, alpha: float) -> float:
    """Give the probability that the two-sided t test at `alpha` finds a true `effect`, with its sign (noncentral t)."""
    return float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, n - 1), n - 1, abs(effect) / sd * math.sqrt(n)))


def equivalence_power(sd: float, n: int, smallest: float, alpha: float) -> float:
    """Give the probability, roughly, that TOST at `alpha` finds a true effect of 0 to be within ± `smallest`.

    Inverse of n ≥ (t₁₋ₐ + t₍₁₊ₚ₎⸝₂)² sd² / smallest², with both quantiles at n - 1 degrees of freedom (Julious 2004,
    "Sample sizes for clinical trials with Normal data", Statistics in Medicine 23).
    """
    margin = smallest / sd * math.sqrt(n) - float(stats.t.ppf(1 - alpha, n - 1))
    return max(0.0, 2 * float(stats.t.cdf(margin, n - 1)) - 1)


def as_pilot(results: Results, study: Study) -> Results:
    """Take `results` as the pilot of `study`: its hypotheses, alpha and looks in the place of their own.

    Raises
    ------
    ResultsError
        If `study` has no hypotheses, or they need a cell of which `results` have no run with the same levels.
    """
    if not study.hypotheses:
        raise ResultsError(f"{study.name}: has no hypotheses, so there is nothing that needs a number of seeds.")
    needed = {name for hypothesis in study.hypotheses for name in contrast_weights(study, hypothesis.contrast)}
    levels = {cell.name: cell.levels for cell in cells(results.study)}
    ran = set(results.final["cell"])
    missing = [c.name for c in cells(study) if c.name in needed and (c.name not in ran or levels[c.name] != c.levels)]
    if missing:
        raise ResultsError(f"{results.folder}: no pilot for {study.name}, it has no runs of {', '.join(missing)}. "
                           "Give a folder with these cells at the same levels.")  # fmt: skip
    return replace(results, study=study, documents={})  # what the pilot's runs declared is not what `study` does


def power_table(results: Results) -> pd.DataFrame:
    """Tell how many seeds each hypothesis of a study needs, with `results` as the pilot.

    Returns
    -------
    pandas.DataFrame
        One row per hypothesis: ``id``, ``n`` (seeds of the pilot), ``sd`` (of the effect, between seeds), ``smallest``,
        ``likely`` and ``cautious`` (see `Seeds`).
    """
    rows = []
    for judgement in judge(results):
        hypothesis, sample, needed = judgement.hypothesis, judgement.sample, judgement.seeds_needed
        rows.append(
            {"id": hypothesis.id, "n": sample.n, "sd": sample.sd, "smallest": hypothesis.smallest}
            | {"likely": needed.likely, "cautious": needed.cautious}
        )
    return pd.DataFrame(rows)


def detectable(results: Results, effects: Iterable[Effect], response: str = "test_accuracy") -> pd.DataFrame:
    """Tell what effects numbers of seeds would find with 90 % power, at the level of one hypothesis of the family.

    Returns
    -------
    pandas.DataFrame
        A row per effect and number of seeds: ``kind``, ``label``, ``n`` (seeds that there are), ``seeds``, ``effect``
        (in the unit of the response). Effects with fewer than two seeds or without spread are left out.
    """
    alpha = share_of_alpha(results.study, declarations(results))
    rows = []
    for effect in effects:
        sample = Sample.of(np.asarray(seed_effects(results, effect.contrast, response), dtype=np.float64))
        for n in sorted({6, 10, 20, 40, 80, 160, 320, max(sample.n, LEAST_SEEDS)}) if sample.sd > 0 else ():
            found = least_effect(sample.sd, n, alpha)
            rows.append({"kind": effect.kind, "label": effect.label, "n": sample.n, "seeds": n, "effect": found})
    return pd.DataFrame(rows, columns=["kind", "label", "n", "seeds", "effect"])


def least_effect(sd: float, n: int, alpha: float, power: float = POWER) -> float:
    """Give the smallest true effect that the t test at `alpha` finds with probability `power`, for `n` seeds.

    Raises
    ------
    ValueError
        If n < 2.
    """
    if n < 2:
        raise ValueError(f"n = {n}: a t test needs at least 2 seeds")
    # In units of sd / √n; the t quantiles' sum is close, the root of the noncentral t exact.
    guess = float(stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1))
    unit = sd / math.sqrt(n)
    return unit * float(optimize.brentq(lambda x: sign_power(x * unit, sd, n, alpha) - power, guess / 3, 3 * guess))
