"""What made a result."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_ablate.training import provenance as module
from mnist_ablate.training.provenance import provenance


@pytest.fixture(autouse=True)
def _afresh() -> None:
    """Look again in each test: a process asks only once."""
    provenance.cache_clear()


def test_versions_and_machine_are_told() -> None:
    """The versions are those of this process, and all of it fits into JSON."""
    told = provenance()
    assert told["torch"] == torch.__version__
    assert told["numpy"] == np.__version__
    assert told["processor"]
    assert json.loads(json.dumps(told)) == told


def test_settings_that_change_bits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables that change how numbers round are recorded."""
    for name in module._BITS_DEPEND_ON:
        monkeypatch.delenv(name, raising=False)
    assert provenance()["environment"] == ""
    provenance.cache_clear()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert provenance()["environment"] == "MKL_CBWR=COMPATIBLE"


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder`."""
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()


def test_commit_and_changes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout the commit is told, and whether the package differs from it; elsewhere neither."""
    (tmp_path / "training").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "training" / "provenance.py"))
    assert git_facts() == {"git_commit": "", "git_dirty": False}
    git(tmp_path, "init")
    (tmp_path / "training" / "provenance.py").write_text("1")
    (tmp_path / "elsewhere.py").write_text("1")
    assert git_facts() == {"git_commit": "", "git_dirty": False}
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "m")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_facts() == {"git_commit": commit, "git_dirty": False}
    (tmp_path / "elsewhere.py").write_text("2")
    assert git_facts() == {"git_commit": commit, "git_dirty": True}


def git_facts() -> dict[str, Any]:
    """Return what provenance tells of git."""
    provenance.cache_clear()
    return {key: value for key, value in provenance().items() if key.startswith("git_")}


def test_without_git_or_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without git, or without /proc/cpuinfo, is described by what there is."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    def refuse_proc(path: Path, *arguments: Any, **named: Any) -> str:
        return refuse() if str(path) == "/proc/cpuinfo" else read(path, *arguments, **named)

    read = Path.read_text  # the packages' versions, too, are read by it
    monkeypatch.setattr("mnist_ablate.training.provenance.subprocess.run", refuse)
    monkeypatch.setattr("mnist_ablate.training.provenance.Path.read_text", refuse_proc)
    assert git_facts()["git_commit"] == ""
    assert provenance()["processor"]
