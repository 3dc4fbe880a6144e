"""A data set in memory, and which of its images and labels a run trains on; no file is read here.

Images may be any arrays of numbers, and labels any targets, where a data set is of the user's own.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.data.catalogue import CLASSES, PIXELS, SIDE, idx_header
from mnist_ablate.design import streams
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import DataError, TrainingError

_NUMBERS = "uifb"
"""Kinds of numpy's types that are numbers, or yes and no."""
MOST_CLASSES = 256
"""Answers are stored as bytes."""
MOST_INPUTS = 2**16 - 8
"""What the engine ``fused`` takes of an image: it stores places in 16 bits, and reads eight inputs at a time."""


class Sizes(NamedTuple):
    """How many numbers enter a network for each image, and how many classes leave it."""

    inputs: int
    classes: int


MNIST = Sizes(PIXELS, CLASSES)
"""Those of MNIST and Fashion-MNIST."""


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory.

    Parameters
    ----------
    name
        Its name in messages and results.
    train_images, test_images
        Shape (n, ...). MNIST's are uint8 of shape (n, 784), row by row from 0 (background) to 255 (ink).
    train_labels, test_labels
        Shape (n, ...). MNIST's are uint8 of shape (n,), each in 0..9.
    sha256
        The data set's identity: SHA-256 of the four hexadecimal SHA-256 of its arrays, in the order train images,
        train labels, test images, test labels. Those of uint8 are what their IDX files have.
    classes
        Number of classes; 0 if the labels are no classes.

    Raises
    ------
    DataError
        If an array has no numbers, is empty, or disagrees in shape or length, or a label is none of the classes.
    """

    name: str
    train_images: NDArray[Any]
    train_labels: NDArray[Any]
    test_images: NDArray[Any]
    test_labels: NDArray[Any]
    sha256: str
    classes: int = CLASSES

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if problem := _problem(images, labels, self.classes):
                raise DataError(f"{self.name}, {part} images and labels: {problem}.")
        for what, train, test in (
            ("images", self.train_images, self.test_images),
            ("labels", self.train_labels, self.test_labels),
        ):
            if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
                raise DataError(
                    f"{self.name}, {what}: {_form(train)} to train on and {_form(test)} to test on, but all must have "
                    "one type and one shape."
                )

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train_images: NDArray[Any],
        train_labels: NDArray[Any],
        test_images: NDArray[Any],
        test_labels: NDArray[Any],
        *,
        classes: int = CLASSES,
    ) -> Self:
        """Make a data set of arrays shaped as in `Images`; do not change the arrays afterwards.

        Its identity is that of IDX files with these arrays, so MNIST's own arrays have MNIST's identity.
        """
        arrays = [np.ascontiguousarray(array) for array in (train_images, train_labels, test_images, test_labels)]
        return cls(name, arrays[0], arrays[1], arrays[2], arrays[3], identity(map(_sha256, arrays)), classes)

    @property
    def sizes(self) -> Sizes:
        """What a classifier of these images must have.

        Raises
        ------
        DataError
            If there are no classes.
        """
        if not self.classes:
            raise DataError(
                f"{self.name}: {no_classes(self.train_images, self.train_labels, self.test_images, self.test_labels)}. "
                "Only a training of your own (protocol.train) takes such data."
            )
        return Sizes(prod(self.train_images.shape[1:]), self.classes)


def no_classes(*arrays: NDArray[Any]) -> str:
    """Return why images and labels, and others, are not for a classifier; empty if they are."""
    for labels in arrays[1::2]:
        if labels.ndim != 1 or labels.dtype.kind not in "ui":
            return f"its labels are {_form(labels)}, but classes are whole numbers of shape (n,)"
        if labels.min() < 0 or labels.max() >= MOST_CLASSES:
            return (
                f"its labels go from {labels.min()} to {labels.max()}, but classes are 0 to at most {MOST_CLASSES - 1}"
            )
    for images in arrays[::2]:
        if images.dtype.kind not in "uif" or images.ndim < 2:
            return f"its images are {_form(images)}, but networks take numbers of shape (n, ...)"
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            return "some numbers of its images are not finite"
    return ""


def _problem(images: NDArray[Any], labels: NDArray[Any], classes: int) -> str:
    """Return why these arrays cannot be one part of a data set; empty if they can."""
    if images.dtype.kind not in _NUMBERS or labels.dtype.kind not in _NUMBERS:
        return f"types {images.dtype} and {labels.dtype}, but both must be numbers"
    if not images.ndim or not labels.ndim or len(images) != len(labels) or not images.size or not labels.size:
        return f"shapes {images.shape} and {labels.shape}, but they must be (n, ...) and (n, ...), with n at least 1"
    return f"label {labels.max()}, but labels go to {classes - 1}" if classes and labels.max() >= classes else ""


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def identity(digests: Iterable[str]) -> str:
    """Return the identity of a data set whose four IDX files have these SHA-256."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array; of uint8, that of its IDX file."""
    shape = (len(array), SIDE, SIDE) if array.ndim == 2 and array.shape[1] == PIXELS else array.shape
    header = idx_header(shape) if array.dtype == np.uint8 else f"{array.dtype.str}{shape}".encode()
    sha = hashlib.sha256(header)
    if array.dtype.kind in _NUMBERS:  # others are refused
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


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


def replace_labels(
    labels: NDArray[Any], rows: NDArray[np.int64], share: float, seed: int, classes: int = CLASSES
) -> NDArray[Any]:
    """Return a copy of `labels` in which a `share` of `rows` has a wrong label, each of the others equally likely.

    Drawn from the streams ``label-noise/...`` of `seed`. A label replaced at one share is replaced at every greater
    one, by the same wrong label.
    """
    chosen = streams.permutation(streams.stream(seed, "label-noise/which"), len(rows))[: round(share * len(rows))]
    shifts = streams.stream(seed, "label-noise/by").random_raw(len(rows)) % np.uint64(classes - 1) + np.uint64(1)
    noisy = labels.copy()
    noisy[rows[chosen]] = (labels[rows[chosen]].astype(np.int64) + shifts[chosen].astype(np.int64)) % classes
    return noisy
