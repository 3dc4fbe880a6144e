"""How many seeds a hypothesis needs, and what effects numbers of seeds would find."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd
from scipy import optimize, stats

from mnist_ablate.design.plan import cells
from mnist_ablate.design.study import Study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.effects import Effect, contrast_weights
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.store.results import Results

if TYPE_CHECKING:  # a judgement says how many seeds it needs
    from mnist_ablate.inference.verdicts import Judgement

LEAST_SEEDS = 6
"""With fewer seeds there are no verdicts: a t interval then rests too much on the noise being Gaussian."""
POWER = 0.9
_SPREAD_CONFIDENCE = 0.8
_MOST_SEEDS = 100_000


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


def power_table(judgements: "Iterable[Judgement]") -> pd.DataFrame:
    """Tabulate how many seeds each hypothesis of a study needs, from judgements on a pilot.

    Returns
    -------
    pandas.DataFrame
        One row per hypothesis: ``id``, ``n`` (seeds of the pilot), ``sd`` (of the effect, between seeds), ``smallest``,
        ``likely`` and ``cautious`` (see `Seeds`).
    """
    rows = []
    for judgement in judgements:
        hypothesis, sample, needed = judgement.hypothesis, judgement.sample, judgement.seeds_needed
        rows.append(
            {"id": hypothesis.id, "n": sample.n, "sd": sample.sd, "smallest": hypothesis.smallest}
            | {"likely": needed.likely, "cautious": needed.cautious}
        )
    return pd.DataFrame(rows)


def detectable(effects: Mapping[Effect, Sample], alpha: float) -> pd.DataFrame:
    """Tabulate what effects numbers of seeds would find with 90 % power, each at `alpha`.

    Returns
    -------
    pandas.DataFrame
        A row per effect and number of seeds: ``kind``, ``label``, ``n`` (seeds that there are), ``seeds``, ``effect``
        (in the unit of the response). Effects with fewer than two seeds or without spread are left out.
    """
    rows = []
    for effect, sample in effects.items():
        for n in sorted({6, 10, 20, 40, 80, 160, 320, max(sample.n, LEAST_SEEDS)}) if sample.sd > 0 else ():
            least = least_effect(sample.sd, n, alpha)
            rows.append({"kind": effect.kind, "label": effect.label, "n": sample.n, "seeds": n, "effect": least})
    return pd.DataFrame(rows, columns=["kind", "label", "n", "seeds", "effect"])
