"""Repeated confidence intervals: what may be said at each look of a study that goes on until it is settled.

Group-sequential boundaries by an error spending function (Lan and DeMets 1983), a · t³ (Kim and DeMets 1987), at
information t = seeds so far / most seeds. The joint distribution of the scores is integrated look by look (Armitage,
McPherson and Rowe 1969). The critical value of a t statistic has the tail probability of the boundary of a Gaussian one
(Pocock 1977; Jennison and Turnbull 2000). Only NumPy and SciPy below.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from mnist_ablate.inference.intervals import ALPHA, FloatArray, MedianSample, Sample, TwoWaySample

_LOWEST, _HIGHEST = -8.0, 37.0
"""Standard normal scores: below the first there is no probability to speak of, beyond the second it underflows."""
_NODES_PER_STEP, _NODES = 3, (128, 2048)
_ROOT = math.sqrt(2 * math.pi)


def boundaries(spent: FloatArray, information: FloatArray) -> FloatArray:
    """Return the upper boundaries of a standardised Gaussian score, one for each look.

    Parameters
    ----------
    spent
        The probability that the score has crossed its boundary by each look, increasing.
    information
        Proportional to the variance of the score at each look, increasing.
    """
    found, inside = list[float](), _START
    for more, at in zip(np.diff(spent, prepend=0.0), information, strict=True):
        found.append(inside.boundary(more, at))
        inside = inside.below(found[-1], at)
    return np.array(found)


def crossing(boundary: FloatArray, information: FloatArray) -> FloatArray:
    """Return the probability that a Gaussian score without drift crosses `boundary` at each look and not before."""
    found, inside = list[float](), _START
    for z, at in zip(boundary, information, strict=True):
        found.append(inside.beyond(z, at))
        inside = inside.below(z, at)
    return np.array(found)


@dataclass(frozen=True, eq=False)
class _Inside:
    """The scores that have crossed no boundary up to a look.

    Parameters
    ----------
    scores, mass
        Nodes of a quadrature, and the probability at each.
    information
        Of the look; 0 before the first.
    """

    scores: FloatArray
    mass: FloatArray
    information: float

    def beyond(self, z: float, information: float) -> float:
        """Return the probability that the standardised score is above `z` at the next look, at `information`."""
        step = math.sqrt(information - self.information)
        return float(self.mass @ stats.norm.sf((z * math.sqrt(information) - self.scores) / step))

    def boundary(self, probability: float, information: float) -> float:
        """Return what the standardised score is above with a `probability` at the next look."""

        def excess(z: float) -> float:
            return math.log(max(self.beyond(z, information), sys.float_info.min) / probability)

        return float(optimize.brentq(excess, _LOWEST, _HIGHEST, xtol=1e-11))

    def below(self, z: float, information: float) -> "_Inside":
        """Return the scores that are below `z` at the next look, too."""
        step, unit = math.sqrt(information - self.information), math.sqrt(information)
        # The density is as smooth as a Gaussian of one step's width: a few nodes in each width are as good as exact.
        n = min(max(_NODES_PER_STEP * (z - _LOWEST) * unit / step, _NODES[0]), _NODES[1])
        nodes, weights = _legendre(2 ** math.ceil(math.log2(n)))
        half = unit * (z - _LOWEST) / 2
        scores = unit * _LOWEST + half * (nodes + 1)
        density = np.exp(-(((scores[:, None] - self.scores) / step) ** 2) / 2) @ self.mass / (step * _ROOT)
        return _Inside(scores, density * weights * half, information)


_START = _Inside(np.zeros(1), np.ones(1), 0.0)


@lru_cache
def _legendre(n: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes, weights


@lru_cache
def tails(alpha: float, looks: tuple[int, ...]) -> dict[int, float]:
    """Return the tail probability beyond the critical value at each look, for intervals that miss with `alpha` in all.

    Parameters
    ----------
    alpha
        The probability that any of the intervals, which have two sides, misses the truth.
    looks
        The numbers of seeds of the looks, increasing. One look has all of `alpha`.
    """
    information = np.array(looks) / looks[-1]
    z = boundaries(alpha / 2 * information**3, information)
    return dict(zip(looks, map(float, stats.norm.sf(z)), strict=True))


# ---- Samples that are looked at as they grow ----


@dataclass(frozen=True, kw_only=True)
class Repeated(Sample):
    """A sample that has been looked at as it grew; its interval holds at all looks at once.

    Parameters
    ----------
    samples
        The sample at each look so far, by the look's number of seeds.
    looks
        The numbers of seeds of all looks.
    """

    samples: tuple[tuple[int, Sample], ...]
    looks: tuple[int, ...]

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the last of `intervals`; its lower end is the higher one where the looks contradict each other."""
        return self.intervals(alpha)[-1]

    def intervals(self, alpha: float) -> list[tuple[float, float]]:
        """Return the interval at each look so far, as far as it lies in those of earlier looks.

        The probability that any of them misses the true effect is at most `alpha`, whenever the study stops. A look
        whose seeds have no spread says nothing; NaN where none has.
        """
        tail = tails(alpha, self.looks)
        nothing = (math.nan, math.nan)
        own = [sample.safe_interval(2 * tail[n]) if sample.spreads else nothing for n, sample in self.samples]
        return [(float(np.fmax.reduce(lows)), float(np.fmin.reduce(highs)))
                for lows, highs in (zip(*own[: k + 1], strict=True) for k in range(len(own)))]  # fmt: skip

    def last_alpha(self, alpha: float) -> float:
        """Return the part of `alpha` that is left for the last look."""
        return 2 * tails(alpha, self.looks)[self.looks[-1]]

    def before(self, looks: int) -> "Repeated":
        """Return this sample as it was at its first `looks` looks."""
        return repeated(self.samples[:looks], self.looks)


@dataclass(frozen=True, kw_only=True)
class RepeatedMedian(Repeated, MedianSample):
    """The same for a median."""

    def of_same_seeds(self, values: Sequence[float]) -> "RepeatedMedian":
        """Return the sample of other `values` of the same seeds, at the same looks."""
        medians = ((n, sample) for n, sample in self.samples if isinstance(sample, MedianSample))
        samples = tuple((n, sample.of_same_seeds(values[: sample.n])) for n, sample in medians)
        return replace(self, values=tuple(values), samples=samples)


@dataclass(frozen=True, kw_only=True)
class RepeatedTwoWay(Repeated, TwoWaySample):
    """The same for seeds and images.

    The images are the same at all looks, so scores of two looks are more alike than those of seeds alone, for which the
    boundaries are made. So they cross them at most as often (Slepian 1962).
    """


_KINDS: dict[type[Sample], type[Repeated]] = {
    Sample: Repeated, MedianSample: RepeatedMedian, TwoWaySample: RepeatedTwoWay,
}  # fmt: skip


def repeated(samples: Sequence[tuple[int, Sample]], looks: tuple[int, ...]) -> Repeated:
    """Return the sample that has been looked at as `samples`, each with the look's number of seeds."""
    last = samples[-1][1]
    return _KINDS[type(last)](**vars(last), samples=tuple(samples), looks=looks)
