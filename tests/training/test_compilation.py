"""The kernels are compiled once for all processes, and the user is told."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from numba.core.event import install_recorder, trigger_event

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines import compilation, fused, kernels
from mnist_ablate.training.engines.compilation import load_or_compile
from mnist_ablate.training.engines.fused import FusedEngine
from mnist_ablate.training.protocol import train

STAND_IN = """
import sys, time
from pathlib import Path
from numba import njit

sys.path.append(sys.argv[1])
import compilation  # alone: its package would load torch

@njit(cache=True)
def inner(x):
    return x + 1

@njit(cache=True)
def outer(x):
    return inner(x) * 2

def hang(_):
    print("compiling", flush=True)
    time.sleep(600)

if sys.argv[2:] == ["hangs"]:
    compilation._announce = hang
compilation.load_or_compile(lambda: outer(1), Path(outer.stats.cache_path))
"""
ENGINES = str(Path(fused.__file__).parent)
ONCE = "Compiling the training kernels for this processor, once: from ten seconds to a few minutes.\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a process with two small kernels of its own, which shares a cache folder, empty at first."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_DEBUG_CACHE": "1"}
    processes = []

    def start_one(*words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(tmp_path / "stand_in.py"), ENGINES, *words]
        processes.append(
            subprocess.Popen(  # noqa: S603
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_one_process_compiles_and_the_others_load(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    """While one compiles, others wait; it is killed, so one of them compiles and says so; the other loads."""
    first = start("hangs")
    assert first.stdout is not None
    while "compiling" not in first.stdout.readline():
        assert first.poll() is None
    others = [start(), start()]
    with pytest.raises(subprocess.TimeoutExpired):
        others[0].wait(1)
    first.send_signal(signal.SIGKILL)
    answers = [process.communicate(timeout=300) for process in others]
    assert sorted((out.count("data saved to"), told) for out, told in answers) == [(0, ""), (2, ONCE)]


class Kernels:
    """Stands in for kernels: compiles at its first full call, as Numba's events have it."""

    def __init__(self) -> None:
        self.compiled = False

    def __call__(self) -> None:
        """Compile two functions, one within the other, or load them."""
        if not self.compiled:
            with trigger_event("numba:compile"), trigger_event("numba:compile"):
                self.compiled = True


@pytest.mark.parametrize("folder", [Path("/dev/null/none"), None])
def test_without_a_lock_each_process_compiles(
    folder: Path | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no lock file can be made, or Numba has no folder at all, the kernels are compiled all the same."""
    monkeypatch.setattr(compilation, "_SAID", set())
    kernels = Kernels()
    load_or_compile(kernels, folder)
    assert kernels.compiled
    told = capsys.readouterr().err
    assert told == ONCE if folder else "in each process, since Numba has no folder to write to" in told
    load_or_compile(kernels, folder)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("process", "times"), [("MainProcess", 1), ("SpawnProcess-1", 1), ("SpawnProcess-2", 0)])
def test_no_folder_is_said_once(
    process: str, times: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several workers says for all that nothing can be stored, with the remedy, whatever it compiles."""
    monkeypatch.setattr(compilation, "_SAID", set())
    monkeypatch.setattr(multiprocessing.current_process(), "name", process)
    for _ in range(2):
        load_or_compile(Kernels(), None)
    assert capsys.readouterr().err.count("NUMBA_CACHE_DIR") == times


def test_a_compiler_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Numba is told not to compile, as on another machine of a cluster, the run fails with the remedy."""
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    with pytest.raises(TrainingError, match=r'NUMBA_DISABLE_JIT.*unset it, or take "autograd"'):
        load_or_compile(Kernels(), tmp_path)


def test_another_thread_that_compiles_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a user's own thread compiles meanwhile neither fails nor counts as ours."""
    theirs = Kernels()

    def load() -> None:
        thread = threading.Thread(target=theirs)
        thread.start()
        thread.join()

    load_or_compile(load, tmp_path)
    assert theirs.compiled
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_message_covers_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The line begins where the bar does, and is as wide."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    load_or_compile(Kernels(), tmp_path)
    assert capsys.readouterr().err == f"\r{ONCE.strip():119}\n"


def test_numba_without_a_folder(tmp_path: Path) -> None:
    """Where Numba finds no folder to write to, the kernels can be imported, and are not cached."""
    environment = os.environ | {
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": "/dev/null/none"
    }  # fmt: skip
    code = f"import sys; sys.path.append({ENGINES!r}); import kernels; print(kernels.train_steps.stats.cache_path)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)  # noqa: S603
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_each_kind_of_network_is_compiled_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of one depth and type share their kernels, whose lock lies in the folder of Numba's cache."""
    calls = []
    monkeypatch.setattr(fused, "_COMPILED", set())
    monkeypatch.setattr(fused, "load_or_compile", lambda _, folder: calls.append(folder))
    for depth in (1, 1, 2):
        FusedEngine(Settings(depth=depth, width=8, batch_size=10), 0)
    assert calls == [Path(str(kernels.train_steps.stats.cache_path))] * 2


def test_nothing_is_compiled_after_an_engine_is_made(small: Images) -> None:
    """What is compiled or loaded beforehand is all that training and evaluation call, so no clock counts it."""
    settings = Settings(epochs=1, width=8, batch_size=50, dropout=0.5, batch_norm=True)
    FusedEngine(settings, 0)
    with install_recorder("numba:compiler_lock") as events:  # held to compile, and to load from the cache
        train(Run("s", "c", (), 0, settings, "fused"), small)
    assert events.buffer == []
