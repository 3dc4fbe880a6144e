"""Sums that are rounded once: of many numbers without `math.fsum`, which they must equal to the bit."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mnist_ablate.training.arithmetic import exact_mean, exact_sum

Doubles = NDArray[np.float64]
DRAWN = np.random.default_rng(0)


def any_bits(n: int) -> Doubles:
    """Return numbers of all sizes below overflow, subnormal ones among them."""
    numbers = DRAWN.integers(0, 2**64, n, np.uint64).view(np.float64)
    return np.where(np.isfinite(numbers) & (np.abs(numbers) < 1e300), numbers, 1.0)


def cancelling(n: int) -> Doubles:
    """Return numbers that cancel, except for one that is far below the others."""
    half = DRAWN.normal(size=n // 2) * 2.0 ** DRAWN.integers(-100, 100, n // 2)
    return np.concatenate([half, -half, [2.0**-300]])


KINDS: dict[str, Callable[[int], Doubles]] = {
    "losses": lambda n: DRAWN.exponential(0.1, n),
    "losses of float32": lambda n: DRAWN.exponential(0.1, n).astype(np.float32).astype(np.float64),
    "any bits": any_bits,
    "cancelling": cancelling,
    "next to the smallest": lambda n: DRAWN.normal(size=n) * 2.0 ** DRAWN.integers(-1074, -880, n),
    "halves of a last bit": lambda n: np.where(DRAWN.random(n) < 0.5, 1.0, 2.0**-53),
    "zeros": np.zeros,
}


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_fsum(kind: str) -> None:
    """Whatever the numbers, and however many: the sum has the bits of the exact one, rounded once."""
    for n in [0, 1, 2, 3, 100, 1000, 12_000] * 10:
        numbers = KINDS[kind](n)
        assert exact_sum(numbers).hex() == math.fsum(numbers.tolist()).hex()
        if len(numbers):
            assert exact_mean(numbers) == math.fsum(numbers.tolist()) / len(numbers)


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_sums_that_are_not_finite(odd: float) -> None:
    """Infinity and NaN go through."""
    found = exact_sum(np.array([1.0, odd, 2.0]))
    assert found == odd or (math.isnan(found) and math.isnan(odd))


def test_lists_are_summed_too() -> None:
    """A list has the same sum as an array."""
    assert exact_sum([0.1] * 10) == exact_sum(np.full(10, 0.1)) == 1.0
