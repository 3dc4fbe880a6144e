"""What several test files use."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import synthetic

from mnist_ablate import data
from mnist_ablate.data import Images

# The same examples every time, so that only a change of the code can make a test fail; no deadline on a busy machine.
hypothesis.settings.register_profile(
    "project", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# Other examples every time, for `nox -s fuzz`.
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=10_000, suppress_health_check=[*hypothesis.HealthCheck]
)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def no_flushing() -> Iterator[None]:
    """Leave flushing to the operating system: it takes most of the time, and no test has a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def small_images(n_train: int = 500, n_test: int = 100, seed: int = 0) -> Images:
    """Make images that can be learnt: a bright 7 x 7 square on noise, whose position gives the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n_train + n_test, dtype=np.uint8)
    images = rng.integers(0, 60, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[7 * row : 7 * row + 7, 7 * column : 7 * column + 7] += 150
    flat = images.reshape(len(labels), -1)
    return Images.from_arrays("small", flat[:n_train], labels[:n_train], flat[n_train:], labels[n_train:])


@pytest.fixture(scope="session")
def small() -> Images:
    """Images that can be learnt in seconds."""
    return small_images()


@pytest.fixture(scope="session")
def mnist() -> Images:
    """Open the real MNIST, after fetching it if it is missing; if that fails, the test fails with the reason."""
    data.fetch("mnist")
    return data.load("mnist")


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a results folder with planted runs: two seeds of the factorial study, two epochs."""
    return synthetic.make(tmp_path / "results", synthetic.factorial(2, 2))
