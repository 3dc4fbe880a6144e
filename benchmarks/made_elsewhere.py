"""Do the rules for runs that were made elsewhere keep their promises? A simulation, part of ``nox -s calibration``.

Each rule has studies drawn for it whose truth is known: cells that share no seeds, evaluations that are nested in
seeds, folds of one data set, and searches. Intervals are computed for many studies at once; every run first compares
some of each with those of the package. Beside the rules stands what they replace.

`write` makes ``results/reference/made-elsewhere.parquet``, a row per rule, setting, noise, size and level.
"""

import itertools
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from calibration import SEED, SIZES, Floats, Hits, Row, counted
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.inference.intervals import CONFIDENCE, Sample
from mnist_ablate.inference.regression import CoefficientSample, least_squares
from mnist_ablate.inference.samples import ResampledSample, UnpairedSample
from mnist_ablate.store.sealed import write_table

Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
NOISES: dict[str, Draw] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "contaminated": lambda rng, shape: (
        rng.standard_normal(shape) * np.where(rng.random(shape) < 0.03, 5.0, 1.0) / math.sqrt(0.97 + 0.03 * 25)
    ),
    "skewed_runs": lambda rng, shape: rng.standard_exponential(shape) - 1,
}
"""Noise of a run, with mean 0 and variance 1."""
LEVELS = (CONFIDENCE, 1 - 0.05 / 9)
"""Of intervals: the usual one, and that which decides on one of nine hypotheses."""
_CHUNK = 500
_CHECKED = 20
"""Studies of each setting whose intervals are compared with those of the package."""


@dataclass(frozen=True)
class Estimated:
    """What a rule makes of many studies: the error of each estimate, its standard error and degrees of freedom.

    Parameters
    ----------
    error
        Estimate less truth, shape (studies,).
    se, df
        Likewise; `df` may be one number.
    """

    error: Floats
    se: Floats
    df: Floats | int

    def holds(self, level: float) -> Hits:
        """Return whether the t interval holds the truth, shape (studies,)."""
        return np.asarray(np.abs(self.error) <= stats.t.isf((1 - level) / 2, self.df) * self.se)

    def ends(self, level: float) -> Floats:
        """Return half the t interval, shape (studies,)."""
        return np.asarray(stats.t.isf((1 - level) / 2, self.df) * self.se)


def of_means(z: Floats, ratio: float = 0.0) -> Estimated:
    """Estimate means of `z`, shape (studies, n), whose truth is 0; `ratio` corrects for shared training data."""
    n = z.shape[1]
    return Estimated(z.mean(axis=1), z.std(axis=1, ddof=1) * math.sqrt(1 / n + ratio), n - 1)


def check(found: Estimated, samples: Sequence[Sample]) -> None:
    """Compare estimates and intervals with those of the package.

    Raises
    ------
    AssertionError
        If they differ once.
    """
    for i, sample in enumerate(samples):
        low, high = sample.interval(1 - LEVELS[1])
        half = float(found.ends(LEVELS[1])[i])
        assert np.allclose([low, high], [sample.mean - half, sample.mean + half], rtol=1e-9)


# ---- Cells that share no seeds ----


@dataclass(frozen=True)
class Cells:
    """Cells with their weights in a contrast, how many runs each has for each run of the first, and their spreads."""

    weights: tuple[float, ...]
    sizes: tuple[int, ...]
    sds: tuple[float, ...]


UNPAIRED = {
    "two cells": Cells((1, -1), (1, 1), (1, 1)),
    "two cells, spreads 1 and 3": Cells((1, -1), (1, 1), (1, 3)),
    "two cells, the wider with a third of the runs": Cells((1, -1), (1, 3), (3, 1)),
    "four cells, one three times as wide": Cells((0.5, 0.5, -0.5, -0.5), (1, 1, 1, 1), (3, 1, 1, 1)),
}


def satterthwaite(cells: Cells, columns: Sequence[Floats]) -> Estimated:
    """Compare cells without common seeds, each of shape (studies, runs), whose true means are 0."""
    parts = [w**2 * c.var(axis=1, ddof=1) / c.shape[1] for w, c in zip(cells.weights, columns, strict=True)]
    error = sum(w * c.mean(axis=1) for w, c in zip(cells.weights, columns, strict=True))
    variance = np.sum(parts, axis=0)
    spread = np.sum([part**2 / (c.shape[1] - 1) for part, c in zip(parts, columns, strict=True)], axis=0)
    return Estimated(np.asarray(error), np.sqrt(variance), variance**2 / spread)


def unpaired(draws: int) -> Iterator[Row]:
    """Count how often intervals of contrasts of cells without common seeds hold."""
    for (i, (name, cells)), (j, noise), n in itertools.product(enumerate(UNPAIRED.items()), enumerate(NOISES), SIZES):
        rng = np.random.default_rng([SEED, 1, i, j, n])
        columns = [sd * NOISES[noise](rng, (draws, n * size)) for size, sd in zip(cells.sizes, cells.sds, strict=True)]
        found = satterthwaite(cells, columns)
        weights = dict(zip("abcd", cells.weights, strict=False))
        check(found, [UnpairedSample.of_cells(weights, {name: c[k] for name, c in zip(weights, columns, strict=True)})
                      for k in range(min(_CHECKED, draws))])  # fmt: skip
        yield from _rows("Satterthwaite", name, noise, n, found)


# ---- Evaluations that are nested in seeds ----

NESTED = (5, 20)
"""Evaluations of each run."""


def nested(draws: int) -> Iterator[Row]:
    """Count how often intervals of paired differences hold where each run is evaluated several times."""
    for k, (j, noise), n in itertools.product(NESTED, enumerate(NOISES), SIZES):
        rng, parts = np.random.default_rng([SEED, 2, k, j, n]), []
        for start in range(0, draws, _CHUNK):
            shape = (min(_CHUNK, draws - start), n)
            runs = NOISES[noise](rng, (*shape, 2))[..., None] + rng.standard_normal((*shape, 2, k))
            parts.append(runs[:, :, 1] - runs[:, :, 0])
        z = np.concatenate(parts)
        found = of_means(z.mean(axis=2))
        check(found, [Sample.of(one.mean(axis=1)) for one in z[:_CHECKED]])
        setting = f"{k} evaluations of each run, which vary as much as runs"
        yield from _rows("averaged first", setting, noise, n, found)
        naive = of_means(z.reshape(draws, n * k))
        yield from _rows("evaluations as seeds", setting, noise, n, naive, instead=True)


# ---- Folds of one data set ----

ROWS = 100
SPLITS = {"10 folds": (10, 10), "10 random splits, 90 to 10": (10, 10), "30 random splits, 80 to 20": (30, 20)}
"""Numbers of splits, and rows that each tests on."""
_FEATURES, _FEWER, _APART = 10, 5, 0.25


def _tested_on(rng: np.random.Generator, split: str, studies: int) -> NDArray[np.intp]:
    """Return the rows that each split tests on, shape (studies, splits, rows)."""
    times, size = SPLITS[split]
    if split == "10 folds":
        return rng.permuted(np.tile(np.arange(ROWS), (studies, 1)), axis=1).reshape(studies, times, size)
    return np.argsort(rng.random((studies, times, ROWS)), axis=2)[:, :, :size]


def shrunken_means(rng: np.random.Generator, noise: str, split: str, studies: int) -> tuple[Floats, float]:
    """Draw data sets of numbers around 0.3; compare half their mean with their mean as predictions, by squared error.

    Returns
    -------
    tuple
        The difference in each split, shape (studies, splits), and its true expectation.
    """
    y = 0.3 + NOISES[noise](rng, (studies, ROWS))
    tested = y[np.arange(studies)[:, None, None], _tested_on(rng, split, studies)]
    trained = ROWS - tested.shape[2]
    mean = (y.sum(axis=1)[:, None] - tested.sum(axis=2)) / trained
    losses = [((tested - share * mean[..., None]) ** 2).mean(axis=2) for share in (0.5, 1.0)]
    return losses[0] - losses[1], 0.25 * 0.3**2 + (0.25 - 1) / trained


def nearest_centroids(rng: np.random.Generator, noise: str, split: str, studies: int) -> tuple[Floats, float]:
    """Draw data sets of two classes; compare nearest centroids on half of the features with those on all, by errors.

    Returns
    -------
    tuple
        The difference in each split, shape (studies, splits), and NaN: its expectation has no simple form.
    """
    label = np.arange(ROWS) % 2
    x = NOISES[noise](rng, (studies, ROWS, _FEATURES)) + _APART * (2 * label[:, None] - 1)
    tested = _tested_on(rng, split, studies)
    of_test = x[np.arange(studies)[:, None, None], tested]  # studies, splits, rows, features
    labels = label[tested]
    scores = np.zeros((2, *labels.shape))
    centroids = []
    for which in (0, 1):
        mine = labels == which
        total = x[:, label == which].sum(axis=1)[:, None] - (of_test * mine[..., None]).sum(axis=2)
        centroids.append(total / ((label == which).sum() - mine.sum(axis=2))[..., None])
    middle, apart = (centroids[0] + centroids[1]) / 2, centroids[1] - centroids[0]
    parts = (of_test - middle[:, :, None]) * apart[:, :, None]
    for i, features in enumerate((_FEWER, _FEATURES)):
        scores[i] = parts[..., :features].sum(axis=-1)
    wrong = [((score > 0) != (labels == 1)).mean(axis=2) for score in scores]
    return wrong[0] - wrong[1], math.nan


TASKS = {"shrunken means": shrunken_means, "nearest centroids": nearest_centroids}


def resampled(draws: int) -> Iterator[Row]:
    """Count how often intervals of differences over folds hold what is true of new data sets of that size."""
    for (i, (task, drawn)), (j, noise), (k, split) in itertools.product(
        enumerate(TASKS.items()), enumerate(NOISES), enumerate(SPLITS)
    ):
        rng, parts, truth = np.random.default_rng([SEED, 3, i, j, k]), [], math.nan
        for start in range(0, draws, _CHUNK):
            z, truth = drawn(rng, noise, split, min(_CHUNK, draws - start))
            parts.append(z)
        z = np.concatenate(parts)
        z -= float(z.mean()) if math.isnan(truth) else truth
        times, size = SPLITS[split]
        ratio = size / (ROWS - size)
        found = of_means(z, ratio)
        check(found, [ResampledSample.of_folds(one, ratio) for one in z[:_CHECKED]])
        setting = f"{task}, {split}"
        yield from _rows("Nadeau and Bengio", setting, noise, times, found)
        yield from _rows("folds as seeds", setting, noise, times, of_means(z), instead=True)


# ---- Searches ----

COEFFICIENTS = ("a slope", "a level that a third of the runs have")
SPREADS: dict[str, Callable[[Floats], Floats]] = {
    "runs spread equally": lambda x: np.ones(x.shape[:2]),
    "runs spread more at the ends and at the level": lambda x: (1 + 2 * np.abs(2 * x[:, :, 1] - 1)) * (1 + x[:, :, 2]),
}
RUNS = (60, 120)
"""Twenty runs a coefficient, and forty."""


def search(draws: int) -> Iterator[Row]:
    """Count how often intervals of coefficients hold: of a slope, and of a level against the reference."""
    for (i, spread), (j, noise), n in itertools.product(enumerate(SPREADS), enumerate(NOISES), RUNS):
        rng = np.random.default_rng([SEED, 4, i, j, n])
        x = np.stack([np.ones((draws, n)), rng.random((draws, n)), rng.random((draws, n)) < 1 / 3], axis=2)
        y = NOISES[noise](rng, (draws, n)) * SPREADS[spread](x)  # all coefficients are 0
        estimates, robust, plain = _least_squares(x, y)
        for place, name in enumerate(COEFFICIENTS, start=1):
            found = Estimated(estimates[:, place], robust[:, place], n - 3)
            check(found, [_of_package(x[k], y[k], place) for k in range(min(_CHECKED, draws))])
            setting = f"{name}, {spread}"
            yield from _rows("HC3", setting, noise, n, found)
            usual = Estimated(estimates[:, place], plain[:, place], n - 3)
            yield from _rows("equal spreads assumed", setting, noise, n, usual, instead=True)


def _least_squares(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Fit many studies; return coefficients, and standard errors of kind HC3 and the usual ones, shape (studies, k)."""
    inverse = np.linalg.inv(np.einsum("snk,snl->skl", x, x))
    weights = np.einsum("skl,snl->snk", inverse, x)
    estimates = np.einsum("snk,sn->sk", weights, y)
    residuals = y - np.einsum("snk,sk->sn", x, estimates)
    leverage = np.einsum("snk,snk->sn", weights, x)
    robust = np.sqrt(np.einsum("snk,sn->sk", weights**2, (residuals / (1 - leverage)) ** 2))
    variance = (residuals**2).sum(axis=1) / (x.shape[1] - x.shape[2])
    return estimates, robust, np.sqrt(variance[:, None] * np.einsum("skk->sk", inverse))


def _of_package(x: Floats, y: Floats, place: int) -> CoefficientSample:
    fit = least_squares(x, y)
    return CoefficientSample(len(y), float(fit.estimates[place]), float(fit.ses[place]) * math.sqrt(len(y)), k=3)


# ---- All of it ----


def _rows(rule: str, setting: str, noise: str, n: int, found: Estimated, *, instead: bool = False) -> Iterator[Row]:
    for level in LEVELS:
        count = counted(rule, int(found.holds(level).sum()), len(found.error), level)
        shares = {name: count[name] for name in ("k", "R", "estimate", "low", "high", "nominal")}
        yield {"rule": rule, "setting": setting, "noise": noise, "n": n, "instead": instead} | shares


def simulate(draws: int) -> pd.DataFrame:
    """Count everything: a row per rule, setting, noise, size and level; `instead` marks what a rule replaces."""
    rows: list[Row] = []
    for count in (unpaired, nested, resampled, search):
        rows += count(draws)
        print(f"{count.__name__}: counted", flush=True)
    return pd.DataFrame(rows)


def write(draws: int, out: Path) -> None:
    """Simulate, and write the counts."""
    document = {"draws": draws, "seed": SEED, "python": platform.python_version()}
    document |= {package: version(package) for package in ("mnist-ablate", "numpy", "scipy")}
    write_table(out, pa.Table.from_pandas(simulate(draws), preserve_index=False), document)
