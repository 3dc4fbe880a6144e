"""Tiny data sets in the IDX format."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.data.catalogue import DATASETS, IdxFile
from mnist_ablate.design.settings import DatasetName

Contents = dict[str, bytes]
N_TRAIN, N_TEST = 6, 4


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return the IDX file of an array, written independently of the package."""
    dimensions = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return b"\x00\x00\x08" + array.ndim.to_bytes(1, "big") + dimensions + array.tobytes()


def tiny_arrays(seed: int) -> list[NDArray[np.uint8]]:
    """Return train images, train labels, test images and test labels."""
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, tuple[int, ...]]] = [
        (256, (N_TRAIN, 28, 28)),
        (10, (N_TRAIN,)),
        (256, (N_TEST, 28, 28)),
        (10, (N_TEST,)),
    ]
    return [rng.integers(high, size=shape, dtype=np.uint8) for high, shape in shapes]


def tiny_contents(name: DatasetName, arrays: list[NDArray[np.uint8]]) -> Contents:
    """Return the IDX files of `arrays`, under the names of a data set's files."""
    return {file.name: idx_bytes(array) for file, array in zip(DATASETS[name], arrays, strict=True)}


def register(contents: Contents) -> tuple[IdxFile, ...]:
    """Return the catalogue entry of these files, with shapes read from their headers."""
    ndim = {name: content[3] for name, content in contents.items()}
    return tuple(
        IdxFile(
            name,
            tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim[name])),
            hashlib.sha256(content).hexdigest(),
        )
        for name, content in contents.items()
    )


def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Write files into a folder, which is made if needed, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> Contents:
    """Read all files of a folder except the lock and the log."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", "fetch.log")}


def flat(arrays: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return arrays as `Images` has them: each image is a row."""
    return [arrays[0].reshape(-1, 784), arrays[1], arrays[2].reshape(-1, 784), arrays[3]]
