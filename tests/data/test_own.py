"""Data sets of the user's own: what a function may return, and how its arrays are kept."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_ablate import data
from mnist_ablate.data import own
from mnist_ablate.data.images import Images
from mnist_ablate.errors import DataError, TrainingError

NAME = "data_of_ones_own"


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> Iterator[None]:
    """Keep arrays in a folder of the test's own, and forget the module afterwards."""
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(in_folder / "data"))
    yield
    sys.modules.pop(NAME, None)


def kept(returned: str) -> str:
    """Keep what a function of the user's returns."""
    Path(f"{NAME}.py").write_text(f"import numpy as np\n\n\ndef arrays():\n    return {returned}\n")
    return data.keep(f"{NAME}:arrays")


X, Y = "np.arange(24.0).reshape(6, 2, 2)", "(np.arange(6) % 3)"


def test_arrays_of_any_shape_are_kept_and_found() -> None:
    """They come back as they were, under their SHA-256, with the sizes that a network needs."""
    sha256 = kept(f"({X}, {Y}, {X}[:2], {Y}[:2])")
    images = data.load_kept(sha256)
    assert data.is_kept(sha256)
    assert images.sha256 == sha256
    np.testing.assert_array_equal(images.train_images, np.arange(24.0).reshape(6, 2, 2))
    assert images.sizes == (4, 3)
    assert data.keep(f"{NAME}:arrays") == sha256


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("(1, 2)", "returned 2 values, and must return four arrays"),
        ("{}", "returned dict, and must return four arrays"),
        ("1 / 0", "it failed: ZeroDivisionError: division by zero"),
        ("(1", "it failed: SyntaxError: "),
        (f"({X}, {Y}[:-1], {X}, {Y})", r"train images and labels: shapes \(6, 2, 2\) and \(5,\)"),
        (f"({X}, {Y}, {X}[:0], {Y}[:0])", "test images and labels: .* with n at least 1"),
        (f"({X}, {Y}, {X}[:, 0], {Y})", r"images: float64 \(6, 2, 2\) to train on and float64 \(6, 2\) to test on"),
        (f"({X}, {Y}, {X}, {Y}.astype(np.int8))", "labels: .* must have one type and one shape"),
        (f"({X}, np.array(list('abcabc')), {X}, {Y})", "but both must be numbers"),
        (f"(np.array([object()] * 6), {Y}, {X}, {Y})", "but both must be numbers"),
    ],
)
def test_what_are_no_four_arrays_is_one_clear_message(returned: str, problem: str) -> None:
    """The message names the function and what it returned; nothing is kept."""
    with pytest.raises(DataError, match=problem) as told:
        kept(returned)
    assert NAME in str(told.value)
    assert not list(Path("data").glob("own/[!.]*"))


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (f"({X}, {Y} / 2, {X}, {Y} / 2)", r"its labels are float64 \(6,\), but classes are whole numbers"),
        (f"({X}, {Y} - 1, {X}, {Y} - 1)", "its labels go from -1 to 1"),
        (f"({X}, {Y} + 255, {X}, {Y} + 255)", "its labels go from 255 to 257, but classes are 0 to at most 255"),
        (f"({X} / 0.0, {Y}, {X}, {Y})", "some numbers of its images are not finite"),
        ("(np.arange(6), np.arange(6), np.arange(6), np.arange(6))", "but networks take numbers of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_what_is_not_for_a_classifier_says_so(returned: str, problem: str) -> None:
    """Targets and inputs of any kind are kept for a training of the user's own; a classifier says what is wrong."""
    images = data.load_kept(kept(returned))
    with pytest.raises(DataError, match=problem + r".*Only a training of your own"):
        _ = images.sizes


def test_damaged_arrays_are_not_used() -> None:
    """A file that was changed or cut is noticed, and made again where the function is called."""
    sha256 = kept(f"({X}, {Y}, {X}, {Y})")
    file = own.kept_folder(sha256) / "train-images.npy"
    content = file.read_bytes()
    for damage in (content[:-8] + b"\1" * 8, content[:20], b""):
        file.write_bytes(damage)
        with pytest.raises(DataError, match="damaged"):
            data.load_kept(sha256)
    assert data.keep(f"{NAME}:arrays") == sha256
    assert data.load_kept(sha256).sha256 == sha256


def test_arrays_go_to_another_machine(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    """Sent files are kept there, and refused if they are other arrays."""
    sha256 = kept(f"({X}, {Y}, {X}, {Y})")
    files = data.kept_files(sha256)
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(in_folder / "elsewhere"))
    with pytest.raises(DataError, match="are not there"):
        data.load_kept(sha256)
    data.receive(sha256, files)
    assert data.load_kept(sha256).sha256 == sha256
    with pytest.raises(DataError, match="damaged"):
        data.receive("0" * 64, files)


def test_a_missing_function_says_where_it_was_looked_for() -> None:
    """The message names the key of the study, and the folders."""
    with pytest.raises(TrainingError, match=r"dataset = 'no_such_module_here:f': No module named .*looked in"):
        data.keep("no_such_module_here:f")


def test_bytes_have_the_identity_of_their_files() -> None:
    """MNIST's own arrays from a function have MNIST's identity, and other types one of their own."""
    x, y = np.zeros((3, 784), np.uint8), np.array([0, 1, 2], np.uint8)
    arrays: tuple[Any, ...] = (x, y, x, y)
    mnist = Images.from_arrays("a", *arrays).sha256
    assert Images.from_arrays("b", x.astype(np.float32), y, x.astype(np.float32), y).sha256 != mnist
    assert Images.from_arrays("c", x.reshape(3, 28, 28), y, x.reshape(3, 28, 28), y).sha256 == mnist
