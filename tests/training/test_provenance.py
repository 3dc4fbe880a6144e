"""What made a result."""

import json
import os
import subprocess
from importlib import metadata
from importlib.metadata import PackageNotFoundError
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


def test_a_hook_s_repository_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git tells its hooks of their repository by variables, which do not change whose commit is told."""
    before = git_facts()
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init")
    git(other, "commit", "--allow-empty", "-m", "m")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert git_facts() == before


def test_a_linked_worktree_has_its_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a hook of a linked worktree, git's variables name the main one; the commit is the linked one's."""
    (tmp_path / "main" / "training").mkdir(parents=True)
    (tmp_path / "main" / "training" / "provenance.py").write_text("1")
    git(tmp_path / "main", "init")
    git(tmp_path / "main", "add", ".")
    git(tmp_path / "main", "commit", "-m", "m")
    git(tmp_path / "main", "worktree", "add", str(tmp_path / "linked"))
    git(tmp_path / "linked", "commit", "--allow-empty", "-m", "another")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "linked" / "training" / "provenance.py"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "main" / ".git"))
    assert git_facts() == {"git_commit": git_without(tmp_path / "linked", "rev-parse", "HEAD"), "git_dirty": False}


def git_without(folder: Path, *arguments: str) -> str:
    """Run git in `folder` without the variables that git sets for hooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GIT_DIR")
        return git(folder, *arguments)


def test_a_checkout_that_git_refuses_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If git refuses the checkout of another user, the commit is not known, and the reason is recorded."""
    stub = tmp_path / "git"
    stub.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in repository' >&2\nexit 128\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert str(git_facts()["git_commit"]).startswith("not known, because the checkout belongs to another user")


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from a checkout that is not installed, runs are made all the same, and say that there is no version."""
    real = metadata.version

    def version(name: str) -> str:
        if name == "mnist-ablate":
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(module, "version", version)
    provenance.cache_clear()
    assert provenance()["mnist_ablate"] == "not installed"
    provenance.cache_clear()


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
