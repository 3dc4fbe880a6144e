"""Which data sets there are: four files each in IDX format, known by their SHA-256, wherever they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import numpy as np

SIDE = 28
"""Height and width of an image in pixels."""
PIXELS = SIDE * SIDE
CLASSES = 10


@dataclass(frozen=True)
class IdxFile:
    """A file of a data set: its name, the shape of its array, and the SHA-256 of all its bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(idx_header(self.shape)) + prod(self.shape)


def idx_header(shape: tuple[int, ...]) -> bytes:
    """Return magic number (0, 0, type 8 for unsigned bytes, number of dimensions) and dimensions, big-endian."""
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()


_SHAPES = {
    "train-images-idx3-ubyte": (60_000, SIDE, SIDE),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, SIDE, SIDE),
    "t10k-labels-idx1-ubyte": (10_000,),
}
_SHA256: Mapping[str, tuple[str, ...]] = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
DATASETS: Mapping[str, tuple[IdxFile, ...]] = MappingProxyType(
    {name: tuple(map(IdxFile, _SHAPES, _SHAPES.values(), digests)) for name, digests in _SHA256.items()}
)
"""The files of each data set, in the order train images, train labels, test images, test labels."""
_GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CLASS_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mnist": tuple("0123456789"), "fashion-mnist": _GARMENTS}
)
"""What the labels 0 to 9 mean."""


def class_names(name: str, classes: int) -> tuple[str, ...]:
    """Return what the labels of a data set mean: of one of the user's own, with so many classes, the numbers."""
    return CLASS_NAMES.get(name) or tuple(map(str, range(classes)))
