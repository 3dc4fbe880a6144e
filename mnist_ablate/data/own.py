"""A data set of the user's own: a function returns its arrays, which are kept as files, as those of MNIST are.

The function takes no arguments and returns four arrays: images and labels to train on, images and labels to test on. It
is called once, where a study begins. Its arrays go into the data folder, in a folder named after their SHA-256, from
which workers map them into memory.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.data.files import data_folder
from mnist_ablate.data.images import Images, no_classes
from mnist_ablate.design.own_code import code_of, looking_in, own_function
from mnist_ablate.errors import DataError, MnistAblateError

_PARTS = ("train-images", "train-labels", "test-images", "test-labels")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_kept(name: str) -> bool:
    """Return whether the name of a data set is the SHA-256 of arrays that were kept."""
    return _SHA256.fullmatch(name) is not None


def kept_folder(sha256: str) -> Path:
    """Return the folder of a data set of the user's own."""
    return data_folder() / "own" / sha256[:20]


def keep(name: str, folder: str = "") -> str:
    """Call the user's function, keep its arrays, and return their SHA-256.

    Parameters
    ----------
    name
        ``module:function``.
    folder
        The study file's; empty if it is not known.

    Raises
    ------
    DataError
        If the function fails, returns something else, or its arrays cannot be kept.
    TrainingError
        If there is no such function, or it has changed since this process imported it.
    """
    try:
        function = own_function(name, folder, "dataset", code_of(name, folder))
        with looking_in(folder):
            arrays = function()
    except MnistAblateError:
        raise
    except Exception as error:
        raise DataError(f"dataset = {name!r}: it failed: {type(error).__name__}: {error}") from error
    if not isinstance(arrays, tuple | list) or len(arrays) != len(_PARTS):
        what = f"{len(arrays)} values" if isinstance(arrays, tuple | list) else type(arrays).__name__
        raise DataError(
            f"dataset = {name!r}: returned {what}, and must return four arrays: images and labels to train on, images "
            "and labels to test on."
        )
    images = _images(f"dataset = {name!r}", [_array(array) for array in arrays])
    try:
        _write(images)
    except OSError as error:
        raise DataError(
            f"{kept_folder(images.sha256)}: cannot be written ({error.strerror}). Make room there, or set "
            "MNIST_ABLATE_DATA to another folder."
        ) from error
    return images.sha256


def _array(value: Any) -> Any:
    """Return an array in the byte order of the machine, without pandas' or torch's own types."""
    array = np.asarray(value)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _images(name: str, arrays: Sequence[NDArray[Any]]) -> Images:
    images = Images.from_arrays(name, arrays[0], arrays[1], arrays[2], arrays[3], classes=0)
    classes = 0 if no_classes(*arrays) else 1 + max(int(arrays[1].max()), int(arrays[3].max()))
    return replace(images, classes=max(classes, 2) if classes else 0)


def _write(images: Images) -> None:
    folder = kept_folder(images.sha256)
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    with suppress(DataError):
        load_kept(images.sha256)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".keep-", ignore_cleanup_errors=True) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        for part, array in zip(_PARTS, arrays, strict=True):
            np.save(made / f"{part}.npy", array, allow_pickle=False)
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        with suppress(OSError):  # another process was faster
            made.rename(folder)
    load_kept(images.sha256)


def load_kept(sha256: str) -> Images:
    """Map kept arrays into memory.

    Raises
    ------
    DataError
        If they are not there, or damaged.
    """
    folder = kept_folder(sha256)
    try:
        # Copy-on-write, as for MNIST: processes share the memory, and torch accepts the arrays.
        arrays = [np.load(folder / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in _PARTS]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: the arrays of your own data set are not there, or damaged ({error}).") from error
    images = _images("your data set", arrays)
    if images.sha256 != sha256:
        raise DataError(f"{folder}: damaged (other arrays). Remove the folder, and run the same command again.")
    return images


def kept_files(sha256: str) -> dict[str, bytes]:
    """Read the files of kept arrays, to send them to another machine."""
    return {f"{part}.npy": (kept_folder(sha256) / f"{part}.npy").read_bytes() for part in _PARTS}


def receive(sha256: str, files: Mapping[str, bytes]) -> None:
    """Keep arrays that another machine has sent, checked by SHA-256.

    Raises
    ------
    DataError
        If they are other arrays.
    """
    folder = kept_folder(sha256)
    folder.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        (folder / f"{part}.npy").write_bytes(files[f"{part}.npy"])
    load_kept(sha256)
