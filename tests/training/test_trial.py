"""The faster way to multiply is tried once on a processor, and kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines import trial
from mnist_ablate.training.engines.fused import FusedEngine, _plain_adam, _typical


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool]:
    """Plan what the next trials find, the last first; choices are kept in an empty folder."""
    planned = [False, True]
    monkeypatch.setattr(trial, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(trial, "_try", lambda *_: planned.pop())
    return planned


def ask() -> bool:
    """Ask as a new process does."""
    trial.lists_are_faster.cache_clear()
    return trial.lists_are_faster(_typical, _plain_adam)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Leave no answer of a test to the engines of others."""
    yield
    trial.lists_are_faster.cache_clear()


def test_a_choice_is_kept(tries: list[bool], tmp_path: Path) -> None:
    """It lies in the cache's folder, one for each kind of processor, where other processes read it."""
    assert [ask(), ask(), ask()] == [True] * 3
    assert tries == [False]
    (kept,) = tmp_path.iterdir()
    kept.write_text("slower\n", encoding="utf-8")
    assert not ask()
    kept.rename(tmp_path / "lists-of-another-processor.txt")
    assert not ask()
    assert tries == []


def test_changed_kernels_are_tried_again(tries: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """What other kernels did faster says nothing of these."""
    assert ask()
    monkeypatch.setattr(trial, "digest_of_code", lambda _: "other kernels")
    assert not ask()
    assert not ask()
    assert tries == []


@pytest.mark.parametrize("content", [b"", b"fas", b"\xff\xfe\x00"])
def test_a_damaged_choice_is_made_again(content: bytes, tries: list[bool], tmp_path: Path) -> None:
    """A file that was cut, or has other bytes, is written again."""
    assert ask()
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content)
    assert not ask()
    assert not ask()
    assert tries == []


@pytest.mark.parametrize("folder", [None, Path("/dev/null/none")])
def test_without_a_folder_each_process_tries(
    folder: Path | None, tries: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written the choice is made in each process, once."""
    monkeypatch.setattr(trial, "cache_folder", lambda: folder)
    assert ask()
    assert trial.lists_are_faster(_typical, _plain_adam)
    assert tries == [False]


def test_the_trial_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real trial ends with a choice; it works on a layer of its own, so the weights of the engine stay the seed's."""
    before = FusedEngine(Settings(width=8, batch_size=10), 0).weights()
    monkeypatch.setattr(trial, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(trial, "_ROUNDS", 2)
    assert ask() in (False, True)
    (kept,) = tmp_path.iterdir()
    assert kept.read_text(encoding="utf-8") in ("faster\n", "slower\n")
    after = FusedEngine(Settings(width=8, batch_size=10), 0).weights()
    assert all((before[name] == after[name]).all() for name in before)


def test_a_normalisation_after_relu_leaves_nothing_to_list(tries: list[bool]) -> None:
    """There no unit is 0, so whole matrices are multiplied without a trial; double precision is only for tests."""
    trial.lists_are_faster.cache_clear()
    after = Settings(width=8, batch_size=10, batch_norm=True, norm_place="after")
    assert not FusedEngine(after, 0)._network.listed
    assert tries == [False, True]
    assert FusedEngine(Settings(width=8, batch_size=10), 0)._network.listed
    assert tries == [False]
