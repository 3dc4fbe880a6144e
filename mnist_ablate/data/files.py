"""The data folder: where the files of a data set lie unpacked, whether they are the right ones, and their arrays.

Files are mapped into memory, so that processes that load the same data set share one copy.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from mnist_ablate.data import catalogue
from mnist_ablate.data.catalogue import PIXELS, IdxFile, idx_header
from mnist_ablate.data.images import Images, identity
from mnist_ablate.errors import DataError
from mnist_ablate.paths import user_path

MISSING = "missing"
"""The fault of a file that does not exist."""


def data_folder() -> Path:
    """Return the folder of all data sets: ``MNIST_ABLATE_DATA`` if it is set, else the user's cache folder.

    Raises
    ------
    DataError
        If neither is known: the variable is not set, and this user has no home folder.
    """
    chosen = os.environ.get("MNIST_ABLATE_DATA")
    if chosen:
        return user_path(chosen).absolute()
    try:
        folder = platformdirs.user_cache_path("mnist-ablate")
    except RuntimeError:  # what pathlib raises for a user without a home folder
        folder = Path("~")
    if not folder.is_absolute():
        raise DataError("This user has no home folder for the images. Set MNIST_ABLATE_DATA to a folder for them.")
    return folder


def load(name: str, check: bool = True) -> Images:
    """Open a data set that `fetch` has brought. Workers share its memory if each loads it by name.

    Parameters
    ----------
    name
        The data set.
    check
        Whether to compare the files' SHA-256, which takes 0.1 s; headers, lengths and labels are always checked.

    Raises
    ------
    DataError
        If a file is missing or damaged.
    """
    folder = data_folder() / name
    files = catalogue.DATASETS[name]
    if check:
        for path, fault in faults(name, folder).items():
            raise _unusable(path, fault)
    arrays = [read_idx(folder / file.name, file.shape) for file in files]
    sha256 = identity(file.sha256 for file in files)
    return Images(name, arrays[0].reshape(-1, PIXELS), arrays[1], arrays[2].reshape(-1, PIXELS), arrays[3], sha256)


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map the unpacked IDX file at `path` into memory as uint8 of `shape`.

    The mapping is copy-on-write: processes share its pages, writing to the array does not change the file, and torch
    accepts it without the warning it gives for read-only arrays.

    Raises
    ------
    DataError
        If the file cannot be read, or its magic number, dimensions or length are not those of `shape`.
    """
    expected = idx_header(shape)
    try:
        with path.open("rb") as file:
            header = file.read(len(expected))
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if header[:4] != expected[:4]:
        raise _unusable(path, f"magic number {header[:4].hex()} instead of {expected[:4].hex()}")
    if len(header) == len(expected) and header != expected:
        raise _unusable(path, f"dimensions {tuple(np.frombuffer(header[4:], '>u4').tolist())} instead of {shape}")
    if size != (expected_size := IdxFile(path.name, shape, "").size):
        raise _unusable(path, f"{size:,} bytes instead of {expected_size:,}")
    return np.memmap(path, np.uint8, mode="c", offset=len(expected), shape=shape)


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: {problem}. To fetch it again: python -m mnist_ablate data {path.parent.name}")


def faults(name: str, folder: Path) -> dict[Path, str]:
    """Return what is wrong with each file of a data set in `folder`, except those that are right."""
    problems = {folder / file.name: fault(folder / file.name, file) for file in catalogue.DATASETS[name]}
    return {path: problem for path, problem in problems.items() if problem}


def fault(path: Path, expected: IdxFile) -> str:
    """Return why the file at `path` is not the one expected; empty if it is."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return error.strerror or str(error)
    if digest == expected.sha256:
        return ""
    if size != expected.size:
        return f"{size:,} bytes instead of {expected.size:,}"
    return f"SHA-256 {digest[:12]}... instead of {expected.sha256[:12]}..."
