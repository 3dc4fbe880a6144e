"""Named random streams."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnist_ablate.design.streams import derive, keep_mask, permutation, stream, uniform, words16


def test_streams_do_not_depend_on_each_other() -> None:
    """A stream is the same however much another was drawn from, and differs by seed and by label."""
    first = stream(0, "a").random_raw(4)
    stream(0, "b").random_raw(1000)
    assert (stream(0, "a").random_raw(4) == first).all()
    assert len({derive(seed, label) for seed in range(50) for label in ("a", "b", "a/1")}) == 150


def test_streams_are_what_they_always_were() -> None:
    """The drawn numbers never change: stored results and every other machine depend on them."""
    drawn = [
        permutation(stream(3, "split"), 1000),
        uniform(stream(3, "init/output.bias"), (4, 5), 0.1),
        keep_mask(stream(3, "dropout/1"), (64, 256), 0.2),
    ]
    digests = [hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12] for values in drawn]
    assert digests == ["b896b2ebe298", "ee6c2bd3863e", "929d48b7a489"]


@given(st.integers(0, 2**31), st.integers(1, 200))
def test_permutation_has_each_number_once(seed: int, n: int) -> None:
    """Every index comes once."""
    assert sorted(permutation(stream(seed, "x"), n)) == list(range(n))


@given(st.lists(st.sampled_from([0, 1, 2, 255, 256, 2**40, 2**40 + 1, 2**63, 2**64 - 2, 2**64 - 1]), max_size=40))
def test_permutation_sorts_keys(keys: list[int]) -> None:
    """Keys that are equal, or nearly, are sorted as others are; equal ones stay in order."""

    class Bits:
        def random_raw(self, n: int) -> NDArray[np.uint64]:
            return np.array(keys[:n], np.uint64)

    bits: Any = Bits()
    assert permutation(bits, len(keys)).tolist() == sorted(range(len(keys)), key=keys.__getitem__)


def test_permutation_is_uniform() -> None:
    """Each of 5 places is taken by each of 5 items about equally often (5 standard errors)."""
    bits = stream(1, "uniform")
    orders = np.array([permutation(bits, 5) for _ in range(5000)])
    counts = np.array([[(orders[:, place] == item).sum() for item in range(5)] for place in range(5)])
    assert abs(counts - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)


def test_uniform_fills_its_range() -> None:
    """Values lie in [-bound, bound), with the mean and the variance of a uniform distribution (5 standard errors)."""
    values = uniform(stream(0, "u"), (200, 500), 0.5)
    assert values.dtype == np.float32
    assert values.shape == (200, 500)
    assert values.min() >= -0.5
    assert values.max() < 0.5
    n = values.size
    assert abs(values.mean(dtype=np.float64)) < 5 * np.sqrt(1 / 12 / n)
    assert abs(values.var(dtype=np.float64) - 1 / 12) < 5 * np.sqrt(1 / 180 / n)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.99])
def test_keep_mask_drops_at_the_rate(rate: float) -> None:
    """The share that is dropped is the rate (5 standard errors), for any number of units, and neighbours are free."""
    mask = keep_mask(stream(0, "m"), (333, 301), rate)
    assert mask.shape == (333, 301)
    assert abs((~mask).mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / mask.size)
    both = (~mask[:, 1:] & ~mask[:, :-1]).mean()
    assert abs(both - rate**2) <= 5 * np.sqrt(rate**2 * (1 - rate**2) / mask.size) + 1e-9


def test_keep_mask_takes_a_new_word_each_call() -> None:
    """Masks of successive steps differ, and a mask does not depend on the size of the one before it."""
    bits = stream(0, "m")
    first, second = keep_mask(bits, (8,), 0.5), keep_mask(bits, (8,), 0.5)
    again = stream(0, "m")
    keep_mask(again, (5,), 0.5)  # 5 units take two words, as 8 do
    assert (keep_mask(again, (8,), 0.5) == second).all()
    assert not (first == second).all()


def test_words_of_several_times_are_those_of_each() -> None:
    """Words that are drawn for several steps at once are those that each step would draw, of any number of units."""
    for shape in ((8, 4), (3, 5)):
        one_by_one, at_once = stream(0, "w"), stream(0, "w")
        each = np.concatenate([words16(one_by_one, shape) for _ in range(3)])
        np.testing.assert_array_equal(words16(at_once, shape, 3), each)
        assert one_by_one.state == at_once.state
