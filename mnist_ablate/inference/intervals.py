"""Intervals and tests of numbers: every t, median and proportion interval is here once. Only NumPy and SciPy below."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
"""Of intervals that decide nothing."""
ALPHA = 1 - CONFIDENCE

FloatArray = NDArray[np.float64]


def half_width(se: Any, df: Any, alpha: float = ALPHA) -> Any:
    """Return half the 1 - `alpha` t interval for a standard error and its degrees of freedom, numbers or arrays."""
    return (_quantile(alpha, df) if isinstance(df, int | float) else stats.t.isf(alpha / 2, df)) * se


@functools.lru_cache(maxsize=1024)  # a simulation has other degrees of freedom in each of its studies
def _quantile(alpha: float, df: float) -> float:
    """Return how many standard errors a 1 - `alpha` t interval has on each side; a study asks often for the same."""
    return float(stats.t.isf(alpha / 2, df))


Bound = Literal["", "least", "most", "none"]
Unit = Literal["seed", "run", "run in each cell"]
"""What an estimate has a number of: seeds, each of which is in all its cells; runs; or runs in each cell."""


@dataclass(frozen=True)
class Sample:
    """What a t interval needs: number, mean and standard deviation of the effects of the seeds.

    Parameters
    ----------
    n, mean, sd
        Of the effects.
    bound
        What censored effects leave of the mean: the true one is at ``"least"`` that or at ``"most"`` that, or
        ``"none"`` where some effects are bounded from one side and some from the other. Empty where none is censored.
    """

    n: int
    mean: float
    sd: float
    bound: Bound = ""

    @classmethod
    def of(cls, z: FloatArray) -> Self:
        """Summarise `z`, shape (n,); the sd of equal values is 0, whatever rounding adds."""
        if len(z) < 2:
            return cls(len(z), float(z.mean()) if len(z) else math.nan, math.nan)
        alike = np.allclose(z, z[0], rtol=1e-12, atol=1e-12)
        return cls(len(z), float(z.mean()), 0.0 if alike else float(z.std(ddof=1)))

    @property
    def se(self) -> float:
        """Standard error of the mean."""
        return self.with_seeds(self.n)[0] if self.n > 1 else math.nan

    @property
    def df(self) -> float:
        """Degrees of freedom of `se`."""
        return self.n - 1

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the standard error that `n` seeds of this spread have, and its degrees of freedom."""
        return self.sd / math.sqrt(n), n - 1

    @property
    def spreads(self) -> bool:
        """Whether the effects say something about chance."""
        return self.se > 0

    @property
    def note(self) -> str:
        """What a reader must know of the estimator, in a sentence; empty for a mean of the seeds."""
        return ""

    @property
    def unit(self) -> Unit:
        """What `n` counts."""
        return "seed"

    @property
    def flips(self) -> bool:
        """Whether signs of the effects can be flipped: there is one for each seed, and a mean of them."""
        return self.sd > 0 and not self.bound

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the ends of the 1 - `alpha` t interval of the mean: NaN where n < 2, the mean without spread.

        Infinite on a side on which nothing is known, see `bound`.
        """
        half = float(half_width(self.se, self.df, alpha)) if self.n > 1 else math.nan
        low = -math.inf if self.bound in ("most", "none") else self.mean - half
        return low, math.inf if self.bound in ("least", "none") else self.mean + half

    def safe_interval(self, alpha: float) -> tuple[float, float]:
        """Return an interval that misses with `alpha` at most, however small that is, as early looks need it."""
        return self.interval(alpha)

    def last_alpha(self, alpha: float) -> float:
        """Return the part of `alpha` that the last interval may miss with: all of it, where there is only one."""
        return alpha

    def later(self, n: int, mean: float) -> "Sample":
        """Return this sample as it would be with `n` seeds of the same spread, and their `mean`."""
        return replace(self, n=n, mean=mean)

    def p_sign(self) -> float:
        """Two-sided p of the t test that the true effect is 0; NaN without spread."""
        return float(2 * stats.t.sf(abs(self.mean) / self.se, self.df)) if self.se else math.nan

    def p_equivalence(self, smallest: float) -> float:
        """P of the t test that the true effect is not within ± `smallest`.

        Twice that of the two one-sided tests (TOST, Schuirmann 1987): it is below alpha where the 1 - alpha interval,
        which also decides on signs, lies inside.
        """
        twice = 2 * stats.t.sf((smallest - abs(self.mean)) / self.se, self.df) if self.se else math.nan
        return float(np.minimum(1, twice))


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
        median, sd = float(np.median(z)) if len(z) else math.nan, float(z.std(ddof=1)) if len(z) > 1 else math.nan
        return cls(len(z), median, sd, values=tuple(map(float, z)))

    @property
    def spreads(self) -> bool:
        """Order statistics need no spread."""
        return True

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the standard error of a median of Gaussian effects, √(π/2) times that of a mean."""
        return math.sqrt(math.pi / 2) * self.sd / math.sqrt(n), n - 1

    def least_seeds(self, alpha: float) -> int:
        """Return the least number of seeds of which the outermost two enclose the median with 1 - `alpha`."""
        return math.ceil(1 - math.log2(alpha))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return an interval of the median with a confidence of at least 1 - `alpha`."""
        return median_interval(np.array(self.values), alpha)

    def of_same_seeds(self, values: Sequence[float]) -> "MedianSample":
        """Return the sample of other `values` of the same seeds."""
        return replace(self, values=tuple(values))

    def p_sign(self) -> float:
        """Two-sided p of the sign test that the median is 0."""
        return sign_test_p(np.array(self.values))


@dataclass(frozen=True)
class TwoWaySample(Sample):
    """Effects of seeds on test images, where both are samples: see `mnist_ablate.inference.test_images.two_way`.

    Parameters
    ----------
    se_both, df_both
        The standard error over seeds and images, with its degrees of freedom.
    se_images
        What the choice of images adds to it, however many seeds there are.
    images
        Their number.
    """

    se_both: float = math.nan
    df_both: float = math.nan
    se_images: float = math.nan
    images: int = 0

    @property
    def flips(self) -> bool:
        """Flips of the seeds' signs would say nothing of new images."""
        return False

    @property
    def se(self) -> float:
        """Standard error over seeds and images."""
        return self.se_both

    @property
    def df(self) -> float:
        """Degrees of freedom of `se`."""
        return self.df_both

    def with_seeds(self, n: int) -> tuple[float, float]:
        """Return the standard error over seeds and images, with degrees of freedom after Satterthwaite (1946)."""
        seeds, images = self.sd**2 / n, self.se_images**2
        spread = seeds**2 / (n - 1) + images**2 / (self.images - 1)
        return math.sqrt(seeds + images), (seeds + images) ** 2 / spread if spread else n - 1

    def safe_interval(self, alpha: float) -> tuple[float, float]:
        """Return an interval that misses with `alpha` at most, however small that is, as early looks need it.

        Its half width is the root of the sum of squares of those of seeds and of images (Banerjee 1960, "Approximate
        confidence interval for linear functions of means of k populations when the population variances are not
        equal", Sankhyā 22). Satterthwaite's degrees of freedom promise too much of few seeds at such an `alpha`.
        """
        if self.n < 2:
            return math.nan, math.nan
        seeds = half_width(self.sd / math.sqrt(self.n), self.n - 1, alpha)
        half = math.hypot(seeds, half_width(self.se_images, self.images - 1, alpha))
        return self.mean - half, self.mean + half

    def later(self, n: int, mean: float) -> "TwoWaySample":
        """Return this sample as it would be with `n` seeds of the same spread on the same images, and their `mean`."""
        se, df = self.with_seeds(n)
        return replace(self, n=n, mean=mean, se_both=se, df_both=df)

    @property
    def images_dominate(self) -> bool:
        """Whether the images add more to the error than the seeds."""
        return self.n > 1 and self.se_images > self.sd / math.sqrt(self.n)


def mean_interval(z: FloatArray) -> tuple[float, float, float]:
    """Return the mean of `z`, shape (n,), and the ends of its 95 % t interval; see `Sample.interval`."""
    sample = Sample.of(z)
    return sample.mean, *sample.interval()


def median_interval(z: FloatArray, alpha: float = ALPHA) -> tuple[float, float]:
    """Return an interval of the median of `z`, shape (n,), with a confidence of at least 1 - `alpha`.

    Order statistics, whose places are quantiles of the binomial distribution (Conover 1999, section 3.2); infinite
    where there are too few values.
    """
    ordered, n = np.sort(z), len(z)
    k = int(stats.binom.ppf(alpha / 2, n, 0.5)) if n else 0
    k = k if k == 0 or stats.binom.cdf(k - 1, n, 0.5) <= alpha / 2 else k - 1
    return (float(ordered[k - 1]), float(ordered[n - k])) if k > 0 else (-math.inf, math.inf)


def proportion_interval(k: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the exact 1 - `alpha` interval of a proportion `k` / `n` (Clopper and Pearson 1934); NaN where n < 2."""
    if n < 2:
        return math.nan, math.nan
    interval = stats.binomtest(k, n).proportion_ci(1 - alpha)
    return float(interval.low), float(interval.high)


def score_interval(k: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the 1 - `alpha` score interval of a proportion `k` / `n` (Wilson 1927)."""
    interval = stats.binomtest(k, n).proportion_ci(1 - alpha, method="wilson")
    return float(interval.low), float(interval.high)


def newcombe_interval(k: int, n: int, other: int, other_n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the 1 - `alpha` interval of `k` / `n` - `other` / `other_n`, from two independent groups.

    Square-and-add of the two score intervals (Newcombe 1998, "Interval estimation for the difference between
    independent proportions", Statistics in Medicine 17, method 10).
    """
    one, two = k / n, other / other_n
    (low, high), (other_low, other_high) = score_interval(k, n, alpha), score_interval(other, other_n, alpha)
    return (one - two - math.hypot(one - low, other_high - two),
            one - two + math.hypot(high - one, two - other_low))  # fmt: skip


def discordant_interval(up: int, down: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Return an interval of the mean of `n` differences of 1 (`up` of them), -1 (`down`) and 0, with 1 - `alpha`.

    The share of differences that are not 0, and the share of 1 among them, each have an exact interval (Clopper and
    Pearson 1934), at a tenth and at nine tenths of `alpha`; the ends are the least and the largest product. So it
    leaves out 0 exactly where McNemar's exact test rejects at nine tenths of `alpha`, and misses at most with `alpha`.
    """
    if n < 2:
        return math.nan, math.nan
    if not up + down:  # nothing is known of which way it would go
        _, most = proportion_interval(0, n, alpha)
        return -most, most
    shares = proportion_interval(up + down, n, alpha / 10)
    ups = stats.binomtest(up, up + down).proportion_ci(1 - 0.9 * alpha)
    ends = [share * (2 * float(end) - 1) for share in shares for end in (ups.low, ups.high)]
    return min(ends), max(ends)


def sign_test_p(z: FloatArray) -> float:
    """Two-sided p of the sign test that the median of `z` is 0; ties are left out, NaN where all are ties."""
    up, down = int((z > 0).sum()), int((z < 0).sum())
    return float(stats.binomtest(up, up + down).pvalue) if up + down else math.nan


_EXACT_FLIPS = 20
_MOST_FLIPPED = 10_000
"""Beyond so many values, a sum with random signs is Gaussian for every purpose here."""
_RANDOM_FLIPS = 20_000
_FLIPS_AT_ONCE = 1000


def sign_flip_p(z: FloatArray) -> float:
    """Two-sided p of the hypothesis that `z`, shape (n,), is symmetric about 0, by flipping signs.

    All 2^n flips up to n = 20; beyond, 20,000 random ones and the observed one (Phipson and Smyth 2010), the same in
    every call; beyond n = 10,000, their Gaussian limit. Exact where `z` is symmetric about 0, which a mean of 0 does
    not imply.
    """
    observed = abs(z.sum()) * (1 - 1e-12)  # sums in another order round differently
    if len(z) <= _EXACT_FLIPS:
        sums = z[:1]  # by symmetry, one sign can stay
        for value in z[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed))
    if len(z) > _MOST_FLIPPED:
        return float(2 * stats.norm.sf(observed / math.sqrt(float(z @ z)))) if z.any() else 1.0
    generator, total, as_far = np.random.default_rng(0), z.sum(), 1
    for _ in range(_RANDOM_FLIPS // _FLIPS_AT_ONCE):  # all at once would take gigabytes where there are many seeds
        flips = generator.integers(0, 2, (_FLIPS_AT_ONCE, len(z)), dtype=np.int8)
        as_far += int(np.count_nonzero(np.abs(2 * (flips.astype(float) @ z) - total) >= observed))
    return float(as_far / (1 + _RANDOM_FLIPS))
