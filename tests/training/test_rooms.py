"""Tests of the memory that the kernels work on."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from mnist_ablate.training.engines.kernels.rooms import room, together


class Pair(NamedTuple):
    """A part of a tree."""

    first: Any
    second: Any


@pytest.mark.parametrize("columns", [10, 16, 17, 128, 250, 256, 784, 1024])
def test_rows_are_an_odd_number_of_cache_lines(columns: int) -> None:
    """Rows hold all columns in whole blocks, and begin at an odd number of cache lines from each other."""
    made = room(3, columns, np.float32)
    assert made.shape[0] == 16
    assert columns <= made.shape[1] < columns + 32
    assert made.shape[1] * 4 % 128 == 64


def test_a_tree_is_moved_to_one_block() -> None:
    """Arrays have their values, types and shapes, begin at cache lines of one block, and do not overlap."""
    tree = (Pair(np.arange(5), Pair(np.ones((3, 7), np.float32), 4)), Pair(np.array([True, False]), np.empty((0, 9))))
    moved = together(tree)
    assert type(moved[0]) is type(moved[0].second) is Pair
    assert moved[0].second.second == 4
    before = [tree[0].first, tree[0].second.first, tree[1].first, tree[1].second]
    after = [moved[0].first, moved[0].second.first, moved[1].first, moved[1].second]
    places = [array.ctypes.data for array in after if array.size]
    assert places[0] % 64 == 0
    assert [place - places[0] for place in places] == [0, 64, 3 * 64]
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        assert new.flags.c_contiguous
        np.testing.assert_array_equal(new, old)
        new[...] = i % 2
    assert [array.astype(int).ravel().tolist() for array in after] == [[0] * 5, [1] * 21, [0] * 2, []]


def test_an_array_in_two_places_stays_one() -> None:
    """Layers that share a normalisation share it after the move."""
    shared = np.zeros(3)
    moved = together((Pair(shared, np.zeros(3)), Pair(np.zeros(3), shared)))
    moved[0].first[1] = 5
    assert moved[1].second[1] == 5
    assert not moved[0].second.any()
    assert not shared.any()
