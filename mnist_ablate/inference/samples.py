"""Which estimator a contrast of cells gets, and the estimators that runs made elsewhere may need.

The runs of a study share their seeds by construction, so a contrast is one number a seed. In a table, labels of seeds
say what is paired, a metric may be yes or no, and its values may be few or far from Gaussian.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import Response
from mnist_ablate.inference.intervals import (
    ALPHA,
    FloatArray,
    MedianSample,
    Sample,
    Unit,
    discordant_interval,
    newcombe_interval,
    sign_flip_p,
    sign_test_p,
)
from mnist_ablate.language import later

FEW_VALUES = 5
"""With so few distinct differences or fewer, their median is estimated, by order statistics and the sign test."""
MOST_FAILURES = 0.05
"""With a larger share of runs that have no value of the response there is no verdict."""
ALIKE = 0.05
"""Nor where a test of equal shares, on both sides or along a setting, has a smaller p."""
SKEWED = 1.0
"""A sample whose skewness is beyond this, either way, is far from Gaussian where it has fewer than `MANY` values."""
MANY = 30


def within_seeds(table: pd.DataFrame, weights: Mapping[str, float]) -> "pd.Series[float]":
    """Return the weighted sum of the cells of `table` for each seed that has all of them, by seed."""
    return (table[list(weights)].dropna() * pd.Series(weights, dtype=float)).sum(axis=1)


def is_paired(study: Design, cells: Iterable[str], ran: pd.DataFrame) -> bool:
    """Return whether `cells` are compared within seeds: at least half of the seeds of each are in all of them.

    The labels alone decide, and never how alike the values of a seed are. Where a study goes on look by look, only
    whole seeds count.
    """
    if study.pairing != "labels" or len(study.looks) > 1:
        return study.pairing != "none"
    there = ran[list(cells)]
    return bool(2 * there.all(axis=1).sum() >= there.sum().max() > 0)


def sample_of(
    study: Design, weights: Mapping[str, float], table: pd.DataFrame, ran: pd.DataFrame, response: Response
) -> Sample:
    """Summarise a contrast of cells by the estimator that its design calls for.

    Parameters
    ----------
    study
        The design.
    weights
        The weight of each cell.
    table
        The response: a row per seed, a column per cell.
    ran
        Whether there is a run, likewise.
    response
        What it is.
    """
    paired = is_paired(study, weights, ran)
    z = np.asarray(within_seeds(table, weights), dtype=np.float64) if paired else np.empty(0)
    difference = sorted(weights.values()) == [-1, 1]
    if study.pairing == "construction" or len(study.looks) > 1:
        exact = response.yes_no and difference and len(z) > 1 and len(study.looks) == 1
        return Discordant.of_differences(z, response) if exact else Sample.of(z)
    if not paired:
        columns = {cell: table[cell].dropna().to_numpy(dtype=float) for cell in weights}
        if response.yes_no and difference and all(len(column) for column in columns.values()):
            return TwoProportions.of_cells(weights, columns, response)
        unpaired = UnpairedSample.of_cells(weights, columns)
        return replace(unpaired, skewed=False, summarised=True) if study.summarised else unpaired
    if study.resampled:
        return ResampledSample.of_folds(z, study.resampled)
    if response.yes_no and difference and len(z) > 1:
        return Discordant.of_differences(z, response)
    if len(z) > FEW_VALUES and 1 < len(np.unique(z.round(12))) <= FEW_VALUES:
        return FewValues.of(z)
    if 2 < len(z) < MANY and abs(_skewness(z)) > SKEWED:
        return SkewedSample.of_values(z)
    return Sample.of(z)


def _skewness(z: FloatArray) -> float:
    return float(stats.skew(z, bias=False)) if not np.allclose(z, z[0], rtol=1e-9, atol=1e-12) else 0.0


@dataclass(frozen=True)
class UnpairedSample(Sample):
    """Runs of cells that share no seeds: Σ w ȳ with variance Σ w² s² / n, df after Satterthwaite (1946).

    Parameters
    ----------
    n
        The runs of the cell that has the fewest.
    sd
        √ Σ w² s²: with n runs in each cell, the standard error is sd / √n.
    cells
        Of each cell: weight, number of runs, variance between them.
    skewed
        Whether the runs of a cell with fewer than 30 have a skewness beyond 1.
    summarised
        Whether only their means and standard deviations are known.
    """

    cells: tuple[tuple[float, int, float], ...] = ()
    skewed: bool = False
    summarised: bool = False

    @classmethod
    def of_cells(cls, weights: Mapping[str, float], columns: Mapping[str, FloatArray]) -> "UnpairedSample":
        """Summarise the runs of each cell."""
        moments = {cell: Sample.of(column) for cell, column in columns.items()}
        mean = sum(weight * moments[cell].mean for cell, weight in weights.items())
        skewed = any(2 < len(c) < MANY and abs(_skewness(c)) > SKEWED for c in columns.values())
        parts = tuple((weight, moments[cell].n, moments[cell].sd ** 2) for cell, weight in weights.items())
        sd = math.sqrt(sum(weight**2 * variance for weight, _, variance in parts))
        return cls(min(n for _, n, _ in parts), mean, sd, cells=parts, skewed=skewed)

    @property
    def unit(self) -> Unit:
        """No seed is in all cells."""
        return "run in each cell"

    @property
    def flips(self) -> bool:
        """There is no effect of a single seed."""
        return False

    @property
    def note(self) -> str:
        """Say that nothing is paired."""
        if self.summarised:
            return later(
                "Only means and standard deviations are known, so the cells are compared as independent ones (Welch), "
                "though their runs may share seeds."
            )
        if not self.skewed:
            return later("The cells share no seeds: their runs are compared as independent ones (Welch).")
        return later(
            "The cells share no seeds: their runs are compared as independent ones (Welch). The runs of a cell are far "
            "from Gaussian, and fewer than {n}: be careful.",
            n=MANY,
        )

    @property
    def se(self) -> float:
        """Standard error of the weighted sum of means."""
        return math.sqrt(sum(w**2 * v / n for w, n, v in self.cells)) if self.n > 1 else math.nan

    @property
    def df(self) -> float:
        """Degrees of freedom of `se`."""
        spread = sum((w**2 * v / n) ** 2 / (n - 1) for w, n, v in self.cells) if self.n > 1 else 0.0
        return self.se**4 / spread if spread else math.nan

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the standard error with `n` runs in each cell, and its degrees of freedom."""
        spread = sum((w**2 * v) ** 2 / (n - 1) for w, _, v in self.cells)
        return self.sd / math.sqrt(n), self.sd**4 / spread if spread else n - 1


@dataclass(frozen=True)
class TwoProportions(UnpairedSample):
    """A yes or no of each run of two cells that share no seeds: Newcombe's interval.

    Parameters
    ----------
    counts
        Yes and runs of the cell of weight 1, then of the other.
    scale
        Of the response.
    """

    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    scale: float = 1.0

    @classmethod
    def of_cells(  # type: ignore[override]
        cls, weights: Mapping[str, float], columns: Mapping[str, FloatArray], response: Response
    ) -> "TwoProportions":
        """Count the runs that are yes."""
        plain = UnpairedSample.of_cells(weights, columns)
        (more,), (less,) = ([columns[cell] for cell, w in weights.items() if w == sign] for sign in (1, -1))
        counts = int((more > 0).sum()), len(more), int((less > 0).sum()), len(less)
        return cls(plain.n, plain.mean, plain.sd, cells=plain.cells, counts=counts, scale=response.scale)

    @property
    def spreads(self) -> bool:
        """Counts need no spread."""
        return True

    @property
    def note(self) -> str:
        """Say which interval it is."""
        return later("The cells share no seeds: shares of independent runs are compared (Newcombe).")

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return Newcombe's interval of the difference."""
        low, high = newcombe_interval(*self.counts, alpha)
        return self.scale * low, self.scale * high

    def p_sign(self) -> float:
        """P where Newcombe's interval begins to leave out 0."""

        def beyond(alpha: float) -> float:
            low, high = self.interval(alpha)
            return low if self.mean > 0 else -high

        if not self.mean or beyond(1e-15) >= 0:
            return float(not self.mean)
        return float(optimize.brentq(beyond, 1e-15, 1 - 1e-9))

    def p_equivalence(self, smallest: float) -> float:  # noqa: ARG002 # there is no such test
        """NaN: the interval alone decides."""
        return math.nan


@dataclass(frozen=True)
class Discordant(Sample):
    """A yes or no of each seed in two cells: McNemar's exact test, and the interval that belongs to it.

    Parameters
    ----------
    up, down
        The seeds with yes in the cell of weight 1 alone, and in the other alone.
    scale
        Of the response.
    """

    up: int = 0
    down: int = 0
    scale: float = 1.0

    @classmethod
    def of_differences(cls, z: FloatArray, response: Response) -> "Discordant":
        """Count the seeds that differ."""
        return replace(cls.of(z), up=int((z > 0).sum()), down=int((z < 0).sum()), scale=response.scale)

    @property
    def spreads(self) -> bool:
        """Counts need no spread."""
        return True

    @property
    def note(self) -> str:
        """Say which test it is."""
        return later(
            "Of {n} seeds, {differ} differ: {up} up and {down} down (McNemar's exact test).",
            n=self.n, differ=self.up + self.down, up=self.up, down=self.down,
        )  # fmt: skip

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the interval of `discordant_interval`."""
        low, high = discordant_interval(self.up, self.down, self.n, alpha)
        return self.scale * low, self.scale * high

    def p_sign(self) -> float:
        """Two-sided p of McNemar's exact test."""
        return sign_test_p(np.repeat([1.0, -1.0], [self.up, self.down]))

    def p_equivalence(self, smallest: float) -> float:  # noqa: ARG002 # there is no such test
        """NaN: the interval alone decides."""
        return math.nan


@dataclass(frozen=True)
class FewValues(MedianSample):
    """Differences that take few values: their median."""

    @property
    def note(self) -> str:
        """Say what is estimated."""
        distinct = len(np.unique(np.round(self.values, 12)))
        return later(
            "The differences take {n} values alone, so this is their median (order statistics, sign test).", n=distinct
        )


@dataclass(frozen=True)
class SkewedSample(Sample):
    """Few differences that are far from Gaussian: flips of signs must agree that there is an effect.

    Parameters
    ----------
    p_flips
        Two-sided p of sign flips.
    """

    p_flips: float = 1.0

    @classmethod
    def of_values(cls, z: FloatArray) -> "SkewedSample":
        """Summarise `z`, shape (n,)."""
        return replace(cls.of(z), p_flips=sign_flip_p(z))

    @property
    def note(self) -> str:
        """Say what is asked of it."""
        return later(
            "The {n} differences are far from Gaussian (skewness beyond {skewness}), so sign flips must agree: where "
            "they do not, the interval reaches to 0.",
            n=self.n, skewness=f"{SKEWED:g}",
        )  # fmt: skip

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the t interval, extended to 0 where flips of signs do not agree that there is an effect."""
        low, high = super().interval(alpha)
        return (low, high) if self.p_flips < alpha else (min(low, 0.0), max(high, 0.0))


@dataclass(frozen=True)
class ResampledSample(Sample):
    """Differences of folds or resamples of one data set, which share training data.

    Parameters
    ----------
    ratio
        Rows tested on for each row trained on.
    """

    ratio: float = 0.0

    @classmethod
    def of_folds(cls, z: FloatArray, ratio: float) -> "ResampledSample":
        """Summarise `z`, shape (n,)."""
        return replace(cls.of(z), ratio=ratio)

    @property
    def flips(self) -> bool:
        """Folds share training data, so their signs are not independent."""
        return False

    @property
    def note(self) -> str:
        """Name the rule."""
        return later(
            "Folds of one data set share training data: the variance is the corrected one of Nadeau and Bengio (2003), "
            "an approximation, and speaks of this data set alone."
        )

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the corrected standard error of `n` resamples, and its degrees of freedom."""
        return self.sd * math.sqrt(1 / n + self.ratio), n - 1
