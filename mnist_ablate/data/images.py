"""A data set in memory, and which of its images and labels a run trains on; no file is read here."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.data.catalogue import CLASSES, PIXELS, SIDE, idx_header
from mnist_ablate.design import streams
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import DataError, TrainingError


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory.

    Parameters
    ----------
    name
        Its name in messages and results.
    train_images, test_images
        uint8 of shape (n, 784), row by row from 0 (background) to 255 (ink).
    train_labels, test_labels
        uint8 of shape (n,), each in 0..9.
    sha256
        The data set's identity: SHA-256 of the four hexadecimal SHA-256 of its IDX files, in the order train
        images, train labels, test images, test labels.

    Raises
    ------
    DataError
        If an array has another type or shape, is empty, disagrees in length, or a label is above 9.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    sha256: str

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if problem := _problem(images, labels):
                raise DataError(f"{self.name}, {part} images and labels: {problem}.")

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train_images: NDArray[np.uint8],
        train_labels: NDArray[np.uint8],
        test_images: NDArray[np.uint8],
        test_labels: NDArray[np.uint8],
    ) -> Self:
        """Make a data set of arrays shaped as in `Images`; do not change the arrays afterwards.

        Its identity is that of IDX files with these arrays, so MNIST's own arrays have MNIST's identity.
        """
        arrays = [np.ascontiguousarray(array) for array in (train_images, train_labels, test_images, test_labels)]
        return cls(name, arrays[0], arrays[1], arrays[2], arrays[3], identity(map(_idx_sha256, arrays)))


def _problem(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """Return why these arrays cannot be one part of a data set; empty if they can."""
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        return f"types {images.dtype} and {labels.dtype}, but both must be uint8"
    if images.shape != (len(images), PIXELS) or labels.shape != (len(images),) or not len(images):
        return f"shapes {images.shape} and {labels.shape}, but they must be (n, {PIXELS}) and (n,), with n at least 1"
    return f"label {labels.max()}, but labels go to {CLASSES - 1}" if labels.max() >= CLASSES else ""


def identity(digests: Iterable[str]) -> str:
    """Return the identity of a data set whose four IDX files have these SHA-256."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _idx_sha256(array: NDArray[np.uint8]) -> str:
    shape = (len(array), SIDE, SIDE) if array.ndim == 2 else array.shape
    return hashlib.sha256(idx_header(shape) + array.tobytes()).hexdigest()


def split(n: int, seed: int, validation_fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide ``range(n)`` at random into training and validation indices.

    Returns
    -------
    Training indices, shape (round(n * (1 - validation_fraction)),), and validation indices, all the others: the
    beginning and the rest of one random order, which depends on `n` and `seed` alone.

    Raises
    ------
    DataError
        If either part would be empty.
    """
    n_train = round(n * (1 - validation_fraction))
    if not 0 < n_train < n:
        raise DataError(
            f"validation_fraction = {validation_fraction} of {n} images leaves {n_train} to train on, "
            "but both parts need at least 1: take another fraction or more images."
        )
    order = streams.permutation(streams.stream(seed, "split"), n)
    return order[:n_train], order[n_train:]


def training_size(settings: Settings, n: int) -> int:
    """Return how many of `n` images a run trains on.

    Raises
    ------
    TrainingError
        If the split leaves fewer training images than the settings ask for, or BatchNorm would get a batch of one.
    """
    part = round(n * (1 - settings.validation_fraction))
    used = settings.train_images or part
    if used > part:
        raise TrainingError(
            f"train_images = {used}, but the split leaves {part} of {n} images to train on. Ask for at most {part}, "
            "or take a smaller validation_fraction."
        )
    if settings.batch_norm and used % settings.batch_size == 1:
        raise TrainingError(
            f"batch_size = {settings.batch_size} leaves a last batch of one of {used} training images, which "
            "BatchNorm cannot normalise: choose another batch_size."
        )
    return used


def replace_labels(labels: NDArray[np.uint8], rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.uint8]:
    """Return a copy of `labels` in which a `share` of `rows` has a wrong label, each of the nine equally likely.

    Drawn from the streams ``label-noise/...`` of `seed`. A label replaced at one share is replaced at every greater
    one, by the same wrong label.
    """
    chosen = streams.permutation(streams.stream(seed, "label-noise/which"), len(rows))[: round(share * len(rows))]
    shifts = streams.stream(seed, "label-noise/by").random_raw(len(rows)) % np.uint64(CLASSES - 1) + np.uint64(1)
    noisy = labels.copy()
    noisy[rows[chosen]] = (labels[rows[chosen]] + shifts[chosen].astype(np.uint8)) % CLASSES
    return noisy
