"""Data sets in memory, their identity, and the split into training and validation images."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_data import Contents, flat, tiny_arrays, write

from mnist_ablate.data import Images, fetch, load, split
from mnist_ablate.errors import DataError


def test_identity_is_the_same_from_files_and_from_arrays(folder: Path, mnist: Contents) -> None:
    """`sha256` hashes the four files' digests in order, even if the arrays were never in files."""
    write(folder, mnist)
    digests = "".join(hashlib.sha256(content).hexdigest() for content in mnist.values())
    identity = hashlib.sha256(digests.encode()).hexdigest()
    assert load("mnist").sha256 == load("mnist", check=False).sha256 == identity
    assert Images.from_arrays("other name", *flat(tiny_arrays(0))).sha256 == identity
    assert Images.from_arrays("mnist", *flat(tiny_arrays(1))).sha256 != identity


def test_from_arrays_takes_any_memory_order() -> None:
    """The identity depends on values, not on memory order, and torch accepts the arrays."""
    arrays = flat(tiny_arrays(0))
    reversed_views = [array[::-1].copy()[::-1] for array in arrays]
    images = Images.from_arrays("views", *reversed_views)
    assert images.sha256 == Images.from_arrays("plain", *arrays).sha256
    torch.from_numpy(images.train_images)


@pytest.mark.parametrize(
    ("index", "change", "problem"),
    [
        (0, lambda array: array.astype(np.str_), "train.*<U.* and uint8"),
        (0, lambda array: array.astype(np.float32), r"float32 \(6, 784\) to train on and uint8 \(4, 784\) to test on"),
        (1, lambda array: array.astype(np.int64), r"int64 \(6,\) to train on and uint8 \(4,\) to test on"),
        (0, lambda array: array[:, :-1], r"\(6, 783\) to train on"),
        (2, lambda array: array.reshape(-1, 28, 28), r"\(4, 28, 28\) to test on"),
        (3, lambda array: array[:-1], r"test.*\(4, 784\) and \(3,\)"),
        (3, lambda array: array[:, None], r"\(4, 1\) to test on"),
        (
            1,
            lambda array: np.where(array == array.max(), np.uint8(10), array),
            "train.*label 10, but labels go to 9",
        ),
    ],
)
def test_images_refuses_arrays_that_are_no_data_set(
    index: int, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], problem: str
) -> None:
    """Wrong types and shapes, unequal lengths and labels above 9 are refused; the message names the part."""
    arrays = flat(tiny_arrays(0))
    arrays[index] = change(arrays[index])
    with pytest.raises(DataError, match=problem):
        Images.from_arrays("mine", *arrays)


def test_images_refuses_an_empty_part() -> None:
    """A part without images is refused: its mean loss would not be a number."""
    train_images, train_labels, test_images, test_labels = flat(tiny_arrays(0))
    with pytest.raises(DataError, match="at least 1"):
        Images.from_arrays("mine", train_images, train_labels, test_images[:0], test_labels[:0])


def test_images_is_frozen() -> None:
    """A data set cannot be changed under its identity."""
    images = Images.from_arrays("mine", *flat(tiny_arrays(0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.sha256 = "another"  # type: ignore[misc]


@pytest.mark.mnist
def test_identity_of_mnist() -> None:
    """MNIST's identity is the one in stored results, and its own arrays have it, too."""
    fetch("mnist")
    images = load("mnist")
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    assert images.sha256 == "c65580678af93f1ea48c2c0d01d543ec89307c6b8a0eb7ca542d7c18c5f4c681"
    assert Images.from_arrays("copy", *arrays).sha256 == images.sha256


@given(n=st.integers(2, 500), seed=st.integers(0, 2**63), fraction=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_split_divides_all_of_it(n: int, seed: int, fraction: float) -> None:
    """The two parts are disjoint, cover everything, and have the sizes given by the fraction, at least 1 each."""
    n_train = round(n * (1 - fraction))
    if not 0 < n_train < n:
        with pytest.raises(DataError, match="both parts need at least 1"):
            split(n, seed, fraction)
        return
    training, validation = split(n, seed, fraction)
    assert training.dtype == validation.dtype == np.int64
    assert len(training) == n_train
    assert sorted([*training, *validation]) == list(range(n))


def test_split_follows_the_seed() -> None:
    """The same seed gives the same split, another seed a different one; MNIST's has 48,000 and 12,000 images."""
    first, again, other = (split(60_000, seed, 0.2) for seed in (3, 3, 4))
    assert [len(part) for part in first] == [48_000, 12_000]
    for part in (0, 1):
        np.testing.assert_array_equal(first[part], again[part])
        assert not np.array_equal(first[part], other[part])


def test_split_keeps_its_order_when_the_fraction_changes() -> None:
    """The order depends on n and seed alone, so a smaller validation part is the end of a larger one."""
    _, small = split(1000, 0, 0.1)
    _, large = split(1000, 0, 0.3)
    np.testing.assert_array_equal(large[-100:], small)


def test_split_is_the_same_on_every_machine() -> None:
    """The split of seed 0 never changes."""
    training, validation = split(10, 0, 0.2)
    assert training.tolist() == [0, 7, 9, 6, 5, 1, 8, 2]
    assert validation.tolist() == [4, 3]
