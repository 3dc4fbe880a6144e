"""Count false verdicts of `compare` on simulated folders: ``results/reference/compare-rates.parquet``.

A folder has 27 comparisons: 3 responses of 8 cells and of their mean. The differences of the cells are drawn, the mean
is theirs. The rule is that of `compare.judge`, for many samples at once; `check_rule` compares the two.
"""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.checks.compare import ALPHA, judge
from mnist_ablate.inference.verdicts import Sample

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "results" / "reference" / "compare-rates.parquet"
DRAWS, CELLS, RESPONSES, SEED = 10_000, 8, 3, 8
FAMILY = RESPONSES * (CELLS + 1)
SIZES = (6, 10, 20)
SDS = (0.05, 0.5)
"""Standard deviation of a difference between seeds, in margins: TOST's error is largest where it is small."""
TRUTHS = (0.0, 1.0)
"""True difference of every cell, in margins."""
NOISES = ("gaussian", "t3", "skewed runs", "skewed differences")
"""Differences of two runs that are skewed alike are symmetric; differences that are skewed themselves are the worst."""
WORDS = ("too little to tell", "different", "equivalent")

Floats = NDArray[np.float64]


def noise(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw noise with mean 0 and variance 1."""
    if name == "t3":
        return np.asarray(rng.standard_t(3, shape) / math.sqrt(3))
    if name == "skewed runs":
        return np.asarray((rng.standard_exponential(shape) - rng.standard_exponential(shape)) / math.sqrt(2))
    return np.asarray(rng.standard_exponential(shape) - 1 if name != "gaussian" else rng.standard_normal(shape))


def verdicts(mean: Floats, sd: Floats, n: int, alpha: float) -> NDArray[np.int8]:
    """Decide as `compare.judge` does at a margin of 1, for samples of equal size; places in `WORDS`."""
    se = sd / math.sqrt(n)
    inner, half = (float(stats.t.ppf(1 - a, n - 1)) * se for a in (alpha, alpha / 2))
    equivalent, different = np.abs(mean) + inner < 1, np.abs(mean) > half
    return np.select([equivalent, different], [np.int8(2), np.int8(1)], np.int8(0))


def check_rule() -> int:
    """Compare `verdicts` with `compare.judge`, and give the number of comparisons.

    Raises
    ------
    SystemExit
        If the two differ once.
    """
    rng = np.random.default_rng(SEED)
    mean, sd, alpha = rng.uniform(-2, 2, 1000), rng.uniform(0.01, 2, 1000), ALPHA / FAMILY
    for n in SIZES:
        wanted = [judge(Sample(n, float(m), float(s)), 1.0, alpha) for m, s in zip(mean, sd, strict=True)]
        if [WORDS[place] for place in verdicts(mean, sd, n, alpha)] != wanted:
            raise SystemExit("the rule that is simulated is not that of compare.judge")
    return len(SIZES) * len(mean)


def count(name: str, n: int, sd: float, truth: float) -> dict[str, object]:
    """Count folders with a false verdict, with the 95 % interval of their share (Clopper and Pearson)."""
    rng = np.random.default_rng([SEED, NOISES.index(name), n, round(1000 * sd), round(truth)])
    false, of_one, wrong = 0, 0, WORDS.index("equivalent" if truth else "different")
    for draws in [500] * (DRAWS // 500):
        z = truth + sd * noise(name, rng, (draws, n, RESPONSES, CELLS))
        z = np.concatenate([z, z.mean(axis=-1, keepdims=True)], axis=-1).reshape(draws, n, FAMILY)
        found = verdicts(z.mean(axis=1), z.std(axis=1, ddof=1), n, ALPHA / FAMILY) == wrong
        false, of_one = false + int(found.any(axis=1).sum()), of_one + int(found.sum())
    interval = stats.binomtest(false, DRAWS).proportion_ci()
    where = {"noise": name, "n": n, "sd": sd, "truth": truth, "false_verdict": WORDS[wrong]}
    rates = {"folders": DRAWS, "false": false, "low": float(interval.low), "high": float(interval.high)}
    return where | rates | {"rate_of_one": of_one / DRAWS / FAMILY, "nominal": ALPHA}


def main() -> None:
    """Count all, and write the table."""
    print(f"{check_rule():,} verdicts are those of compare.judge", file=sys.stderr)
    found = [count(*which) for which in itertools.product(NOISES, SIZES, SDS, TRUTHS)]
    pd.DataFrame(found).to_parquet(RESULTS, index=False)


if __name__ == "__main__":
    main()
