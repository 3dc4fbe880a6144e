"""The data folder, the IDX reader, and `load`."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from tiny_data import Contents, flat, idx_bytes, tiny_arrays, write

from mnist_ablate import data
from mnist_ablate.data import fetch, load
from mnist_ablate.data.files import read_idx
from mnist_ablate.errors import DataError


def test_data_folder_is_the_variable_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MNIST_ABLATE_DATA sets the folder; ~ is the home folder, and the path becomes absolute."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MNIST_ABLATE_DATA", "~/images")
    assert data.data_folder() == tmp_path / "images"
    monkeypatch.setenv("MNIST_ABLATE_DATA", "images")
    assert data.data_folder() == Path.cwd() / "images"


@pytest.mark.parametrize(
    "answer", [Path("~/.cache/mnist-ablate"), RuntimeError("no home")], ids=["a tilde", "an error"]
)
def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> None:
    """A user without a home folder gets one sentence with the variable to set, and no folder called ``~``."""

    def cache_path(_: str) -> Path:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.delenv("MNIST_ABLATE_DATA", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", cache_path)
    with pytest.raises(DataError, match="no home folder for the images"):
        data.data_folder()


@pytest.mark.parametrize("empty", [True, False])
def test_data_folder_defaults_to_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: bool) -> None:
    """If MNIST_ABLATE_DATA is unset or empty, the folder is the user's cache folder."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    if empty:
        monkeypatch.setenv("MNIST_ABLATE_DATA", "")
    else:
        monkeypatch.delenv("MNIST_ABLATE_DATA", raising=False)
    assert data.data_folder() == tmp_path / "mnist-ablate"


def test_read_idx_returns_what_was_written(tmp_path: Path) -> None:
    """The reader returns the array byte for byte."""
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", (2, 3, 4)), array)


def test_read_idx_maps_copy_on_write(tmp_path: Path) -> None:
    """The array is a memory map that torch accepts without a warning, and writing to it never changes the file."""
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
    """A file with a wrong header or length is refused, with its path, what is wrong and what helps."""
    path = write(tmp_path / "mnist", {"a": content}) / "a"
    with pytest.raises(DataError, match=problem) as caught:
        read_idx(path, (2, 3))
    assert str(path) in str(caught.value)
    assert "python -m mnist_ablate data mnist" in str(caught.value)


def test_read_idx_names_a_missing_file(tmp_path: Path) -> None:
    """A missing file raises DataError with its path."""
    with pytest.raises(DataError, match="nothing: No such file"):
        read_idx(tmp_path / "nothing", (1,))


def test_load_opens_the_images(folder: Path, mnist: Contents) -> None:
    """`load` returns the images as rows of pixels, and the labels, as the files have them."""
    write(folder, mnist)
    images = load("mnist")
    assert images.name == "mnist"
    opened = [images.train_images, images.train_labels, images.test_images, images.test_labels]
    for array, expected in zip(opened, flat(tiny_arrays(0)), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert isinstance(array, np.memmap)


def test_load_says_how_to_fetch_what_is_missing(folder: Path, mnist: Contents) -> None:
    """Without the files, `load` names the first missing one and the command that fetches it."""
    for check in (True, False):
        with pytest.raises(DataError, match="python -m mnist_ablate data mnist") as caught:
            load("mnist", check=check)
        assert str(folder / next(iter(mnist))) in str(caught.value)


def test_load_finds_one_changed_byte(folder: Path, mnist: Contents) -> None:
    """A file of the right length with one changed byte is refused, unless the check is switched off."""
    path = write(folder, mnist) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match="train-images-idx3-ubyte: SHA-256"):
        load("mnist")
    load("mnist", check=False)


# The real MNIST


@pytest.mark.mnist
def test_mnist_is_what_torchvision_reads(tmp_path: Path) -> None:
    """Images and labels equal torchvision's, and scaled to [0, 1] they equal what its ToTensor makes, bit for bit.

    ToTensor looks at each pixel alone: images with all 256 values stand for the others.
    """
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
        first = torch.from_numpy(images[:1000])
        assert len(np.unique(images[:1000])) == 256
        scaled = first.float().div(255).view(-1, 1, 28, 28)
        assert torch.equal(scaled, torch.stack([theirs[i][0] for i in range(len(first))]))


@pytest.mark.mnist
def test_data_needs_no_torch() -> None:
    """Reading and splitting the images imports neither torch nor torchvision."""
    fetch("mnist")
    program = "import sys; from mnist_ablate import data; data.load('mnist'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"
