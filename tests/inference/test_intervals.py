"""Intervals and tests of numbers, against hand computation, tables and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from mnist_ablate.inference.intervals import mean_interval, median_interval, sign_flip_p, sign_test_p


def test_interval_by_hand() -> None:
    """Of 1, 2, 3, 4 the 95 % interval is 2.5 ± 3.18245 x 1.29099 / 2 (Student's t with 3 degrees of freedom)."""
    found = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx((2.5, 0.445739, 4.554260), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e9])
def test_zero_spread_is_a_point(value: float) -> None:
    """Equal values, but for rounding, give an interval of no width, and scipy is not made to warn."""
    values = np.full(10, value)
    values[0] *= 1 + 2**-52
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(value)
    assert low == mean == high


def test_nothing_has_no_mean() -> None:
    """No value at all: no mean, and no warning."""
    assert all(math.isnan(number) for number in mean_interval(np.empty(0)))


@pytest.mark.parametrize("n", [2, 6, 11])
def test_sign_flips_are_scipys_permutation_test(n: int) -> None:
    """Up to 20 seeds the p of sign flips is that of scipy's exact permutation test of one sample."""
    z = np.random.default_rng(n).normal(0.5, 1, n)
    test = stats.permutation_test(
        (z,), lambda x: abs(x.sum()), permutation_type="samples", n_resamples=2**n, alternative="greater"
    )
    assert sign_flip_p(z) == pytest.approx(test.pvalue)


def test_sign_flips_by_hand() -> None:
    """Of 1, 2, 3 the sum is reached by two of eight flips; of 1, -1 by all; ties count in spite of rounding."""
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == 0.25
    assert sign_flip_p(np.array([1.0, -1.0])) == 1
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.0])) == 0.25
    assert sign_flip_p(np.full(20, 0.1)) == 2**-19


def test_many_sign_flips_are_drawn() -> None:
    """Above 20 seeds the p is the exact one within Monte Carlo error, always the same, and never 0."""
    z = np.random.default_rng(3).normal(0.3, 1, 22)
    sums = np.zeros(1)
    for value in z:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(z.sum()) - 1e-9)
    assert 0.01 < exact < 0.5
    assert sign_flip_p(z) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert sign_flip_p(z) == sign_flip_p(z)
    assert sign_flip_p(np.full(40, 0.1)) == pytest.approx(1 / 20_001)


def test_median_interval_by_the_table() -> None:
    """For n = 20 and 95 % the 6th and the 15th of the ordered values; too few values bound nothing."""
    z = np.arange(1.0, 21.0)
    assert median_interval(z, 0.05) == (6, 15)
    assert median_interval(z[:5], 0.05) == (-math.inf, math.inf)
    assert median_interval(z[:6], 0.05) == (1, 6)
    assert median_interval(np.full(20, 2.0), 0.05) == (2, 2)


def test_median_interval_covers() -> None:
    """At least 95 % of intervals hold the median, however skewed the values are."""
    rng = np.random.default_rng(0)
    hits = [
        low <= math.log(2) <= high
        for low, high in (median_interval(rng.exponential(size=12), 0.05) for _ in range(2000))
    ]
    assert np.mean(hits) > 0.94


def test_sign_test_leaves_ties_out() -> None:
    """Five up and none down are 2 / 2^5, whatever the number of ties."""
    assert sign_test_p(np.array([1.0, 1, 2, 3, 4, 0, 0])) == pytest.approx(2 / 32)
    assert math.isnan(sign_test_p(np.zeros(4)))
