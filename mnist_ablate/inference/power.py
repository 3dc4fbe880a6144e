"""How many seeds a hypothesis needs, and what effects numbers of seeds would find."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from mnist_ablate.design.plan import cells
from mnist_ablate.design.study import Study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.effects import Effect, arms_of
from mnist_ablate.inference.intervals import MedianSample, Sample
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
    """The numbers of seeds that settle a hypothesis with 90 % power.

    Parameters
    ----------
    likely
        If the true standard deviation between seeds is the observed one.
    cautious
        If it is the upper 80 % confidence limit of the observed one.
    """

    likely: int | None
    cautious: int | None


def seeds_needed(sample: Sample, kind: str, smallest: float, alpha: float, power: float = POWER) -> Seeds:
    """Return how many seeds a hypothesis needs, from the spread of a pilot and never from its effect.

    A claimed effect needs enough to detect one of size `smallest`, and to show that one of 0 is negligible, whichever
    is more; a claim of 'negligible' needs enough to show it if the true effect is 0. Standard errors are those of the
    estimator, and its interval must have ends: a median needs more seeds than a mean, and what images add stays.
    Where a study is looked at as it grows, the level is that of its last look.

    Returns
    -------
    Seeds
        None where the pilot has no spread or fewer than two seeds, or where 100,000 seeds are too few.
    """
    if sample.n < 2 or not sample.spreads or sample.bound == "none":
        return Seeds(None, None)
    alpha = sample.last_alpha(alpha)
    limit = sample.sd * math.sqrt((sample.n - 1) / float(stats.chi2.ppf(1 - _SPREAD_CONFIDENCE, sample.n - 1)))
    likely, cautious = (_of_spread(replace(sample, sd=sd), kind, smallest, alpha, power) for sd in (sample.sd, limit))
    return Seeds(likely, cautious)


def _of_spread(sample: Sample, kind: str, smallest: float, alpha: float, power: float) -> int | None:
    def settles(n: int) -> bool:
        se, df = sample.with_seeds(n)
        inside = sample.bound or _equivalence_power(se, df, smallest, alpha) >= power  # a bound is never inside
        return bool(inside and (kind == "negligible" or _sign_power(smallest, se, df, alpha) >= power))

    found = _least(settles)
    return found and max(found, sample.least_seeds(alpha) if isinstance(sample, MedianSample) else 0)


def _least(enough: Callable[[int], bool]) -> int | None:
    """Return the least number of seeds that is `enough`, by doubling and bisection; None if 100,000 are too few."""
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
    """Return the probability that the two-sided t test at `alpha` detects `effect` with its sign (noncentral t)."""
    return _sign_power(effect, sd / math.sqrt(n), n - 1, alpha)


def _sign_power(effect: float, se: float, df: float, alpha: float) -> float:
    return float(stats.nct.sf(stats.t.isf(alpha / 2, df), df, abs(effect) / se)) if se else 1.0


def equivalence_power(sd: float, n: int, smallest: float, alpha: float) -> float:
    """Return the probability that the 1 - `alpha` interval of a true effect of 0 lies within ± `smallest`."""
    return _equivalence_power(sd / math.sqrt(n), n - 1, smallest, alpha)


_MIDDLES = (np.arange(400) + 0.5) / 400


def _equivalence_power(se: float, df: float, smallest: float, alpha: float) -> float:
    """Average over the spread that is seen, whose square is chi-squared, how often the mean is close enough to 0."""
    if not se:
        return 1.0
    seen = np.sqrt(stats.chi2.ppf(_MIDDLES, df) / df)
    room = smallest / se - stats.t.isf(alpha / 2, df) * seen
    return float(np.mean(np.maximum(0.0, 2 * special.ndtr(room) - 1)))


def least_effect(sd: float, n: int, alpha: float, power: float = POWER) -> float:
    """Return the smallest true effect that the t test at `alpha` detects with probability `power`, for `n` seeds.

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
    """Return `results` as the pilot of `study`: with its hypotheses and alpha in place of their own.

    Raises
    ------
    ResultsError
        If `study` has no hypotheses, or needs a cell that `results` lack at the same levels.
    """
    if not study.hypotheses:
        raise ResultsError(f"{study.name}: has no hypotheses to find seeds for. Add some to the study file.")
    needed = {cell for hypothesis in study.hypotheses for arm in arms_of(study, hypothesis) for cell in arm.cells}
    levels = {cell.name: cell.levels for cell in cells(results.study)}
    ran = set(results.final["cell"])
    missing = [c.name for c in cells(study) if c.name in needed and (c.name not in ran or levels[c.name] != c.levels)]
    if missing:
        raise ResultsError(f"{results.folder}: no pilot for {study.name}, it has no runs of {', '.join(missing)}. "
                           "Give a folder with these cells at the same levels.")  # fmt: skip
    study = study.with_options(seeds=results.study.n_seeds)
    # The pilot's runs declared other hypotheses; what probes measured stays.
    undeclared = {
        run_id: {key: value for key, value in document.items() if key != "declared"}
        for run_id, document in results.documents.items()
    }
    return replace(results, study=study, documents=undeclared)


def most_seeds(likely: float) -> int:
    """Return how many seeds a study may go on to, if a fixed number of `likely` ones would settle all: a tenth more.

    Looks cost that much, and the next number that is whole tens is easy to step to.
    """
    return 10 * math.ceil(1.1 * likely / 10)


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
