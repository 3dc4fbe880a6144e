"""Tiny data sets in place of the real ones, with every source out of reach."""

import shutil
import sys
from pathlib import Path

import pytest
from tiny_data import Contents, register, tiny_arrays, tiny_contents

from mnist_ablate.data import catalogue, fetching
from mnist_ablate.design.settings import DatasetName


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty data folder, with every source out of reach; return MNIST's folder in it."""
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(fetching, "_DEBIAN_FOLDER", tmp_path / "no Debian")
    return tmp_path / "data" / "mnist"


@pytest.fixture
def mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Contents:
    """Replace the real data sets by tiny ones; return the files of the one called mnist."""
    both: dict[DatasetName, Contents] = {
        "mnist": tiny_contents("mnist", tiny_arrays(0)),
        "fashion-mnist": tiny_contents("fashion-mnist", tiny_arrays(1)),
    }
    monkeypatch.setattr(catalogue, "DATASETS", {name: register(contents) for name, contents in both.items()})
    assert not folder.exists()
    return both["mnist"]


@pytest.fixture
def fashion(mnist: Contents) -> Contents:
    """Return the files of the tiny fashion-mnist."""
    assert set(mnist) == {file.name for file in catalogue.DATASETS["fashion-mnist"]}
    return tiny_contents("fashion-mnist", tiny_arrays(1))
