"""The kernels are compiled once for all processes, and the user is told."""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import pytest
from numba.core.event import install_recorder, trigger_event

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines import compilation, fused
from mnist_ablate.training.engines.compilation import cache_folder, load_or_compile, vector_lanes
from mnist_ablate.training.engines.fused import FusedEngine
from mnist_ablate.training.engines.kernels.steps import train_steps
from mnist_ablate.training.protocol import train

STAND_IN = """
import sys, time
from pathlib import Path
from numba import config, njit

sys.path.append(sys.argv[1])
import compilation  # alone: its package would load torch

compiled = compilation.cached_njit(error_model="numpy")

@compiled
def inner(x):
    return x + 1

@compiled
def outer(x):
    return inner(x) * 2

def hang(_):
    print("compiling", flush=True)
    time.sleep(600)

if sys.argv[2:] == ["hangs"]:
    compilation._announce = hang
folder = compilation.cache_folder()
compilation.load_or_compile(lambda: outer(1), folder)
print(outer(20), repr(config.CACHE_DIR))
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


WITHOUT_FMA = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
PROCESSES = pytest.mark.parametrize(
    ("process", "times"), [("MainProcess", 1), ("SpawnProcess-1", 1), ("SpawnProcess-2", 0)]
)


@pytest.mark.skipif(vector_lanes() == 1, reason="this processor has no fused multiply-add")
def test_a_slow_processor_is_told(tmp_path: Path) -> None:
    """Where there is no fused multiply-add the kernels work, and a line says why they are slow; elsewhere none does."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert "multiply-add" not in run_stand_in(tmp_path, where)
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("every processor of this kind has fused multiply-add")
    for _ in range(2):
        assert "\n" + compilation._SLOW + "\n" in run_stand_in(tmp_path, where | WITHOUT_FMA)


@PROCESSES
def test_slowness_is_said_once(
    process: str, times: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of several workers says for all that the processor is slow, however many kernels it loads."""
    monkeypatch.setattr(compilation, "_SAID", set())
    monkeypatch.setattr(compilation, "vector_lanes", lambda: 1)
    monkeypatch.setattr(multiprocessing.current_process(), "name", process)
    for _ in range(2):
        load_or_compile(lambda: None, tmp_path)
    assert capsys.readouterr().err == times * (compilation._SLOW + "\n")


@PROCESSES
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


def files_of(folder: Path) -> dict[str, set[str]]:
    """Return the names of the files in each folder below `folder` that has any."""
    return {str(path): set(files) for path, _, files in os.walk(folder) if files}


def run_stand_in(folder: Path, environment: dict[str, str], preexec_fn: Callable[[], object] | None = None) -> str:
    """Run the stand-in in a process of its own with the variables of `environment`; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, str(folder / "stand_in.py"), ENGINES]
    done = subprocess.run(  # noqa: S603
        command, env=kept | environment, capture_output=True, text=True, check=False, preexec_fn=preexec_fn
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere other variables name the user's cache")
def test_the_cache_lies_in_the_users_folder(tmp_path: Path) -> None:
    """Nothing is written beside the source; NUMBA_CACHE_DIR names another folder, and kernels of users stay theirs."""
    source, home, chosen = tmp_path / "source", tmp_path / "home", tmp_path / "chosen"
    source.mkdir()
    (source / "stand_in.py").write_text(STAND_IN)
    assert run_stand_in(source, {"XDG_CACHE_HOME": str(home)}) == "42 ''\n" + ONCE
    ours = home / "mnist-ablate" / "numba"
    assert files_of(source) == {str(source): {"stand_in.py"}}
    assert set(files_of(home)) == {str(ours), *map(str, ours.glob("source_*"))}
    assert run_stand_in(source, {"XDG_CACHE_HOME": str(home)}) == "42 ''\n"  # loaded
    assert run_stand_in(source, {"NUMBA_CACHE_DIR": str(chosen)}).endswith(ONCE)
    assert len(files_of(chosen)) == 2


def test_changed_source_is_compiled_again(tmp_path: Path) -> None:
    """The cache is in another folder than the source, and still never serves code of an older source."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run_stand_in(tmp_path, where).startswith("42 ")
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace("x + 1", "x + 10"))
    assert run_stand_in(tmp_path, where).startswith("60 ")


PARTS = """
from compilation import cached_njit

@cached_njit(error_model="numpy")
def inner(x):
    return x + 1
"""


def test_changed_source_of_another_file_is_compiled_again(tmp_path: Path) -> None:
    """A kernel that calls one of another file in its folder is compiled again when that file changes, and only then."""
    inner = STAND_IN[STAND_IN.index("@compiled\ndef inner") : STAND_IN.index("@compiled\ndef outer")]
    (tmp_path / "stand_in.py").write_text(STAND_IN.replace(inner, "from parts import inner\n\n"))
    (tmp_path / "parts.py").write_text(PARTS)
    where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run_stand_in(tmp_path, where) == f"42 {where['NUMBA_CACHE_DIR']!r}\n{ONCE}"
    (tmp_path / "parts.py").touch()
    (tmp_path / "notes.txt").write_text("no source")
    assert run_stand_in(tmp_path, where) == f"42 {where['NUMBA_CACHE_DIR']!r}\n"
    (tmp_path / "parts.py").write_text(PARTS.replace("x + 1", "x + 10"))
    assert run_stand_in(tmp_path, where) == f"60 {where['NUMBA_CACHE_DIR']!r}\n{ONCE}"


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    """Files that were cut, as by a power cut, are taken as missing, and written again."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    where = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    run_stand_in(tmp_path, where)
    for i, file in enumerate(sorted((tmp_path / "cache").rglob("*.nb?"))):
        file.write_bytes(file.read_bytes()[: (0, 40)[i % 2]])
    assert run_stand_in(tmp_path, where).endswith(ONCE)
    assert ONCE not in run_stand_in(tmp_path, where)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """Where no more than an index can be written, the kernels are compiled and used all the same."""
    import resource

    (tmp_path / "stand_in.py").write_text(STAND_IN)

    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    told = run_stand_in(tmp_path, {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, no_large_files)
    assert told.startswith("42 ")
    assert not list((tmp_path / "cache").rglob("*.nbc"))


@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_CACHE_DIR": "/dev/null/none"},
        {"XDG_CACHE_HOME": "/dev/null/none"},
        pytest.param(
            {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"},
            marks=pytest.mark.skipif(
                not hasattr(numba.config, "CACHE_LOCATOR_CLASSES"), reason="this Numba has no such variable"
            ),
        ),
    ],
)
def test_numba_without_a_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    """Where there is no folder to write to, kernels are compiled and not cached, and nothing is left elsewhere."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    assert run_stand_in(tmp_path, {"XDG_CACHE_HOME": str(tmp_path / "unused")} | environment).startswith("42 ")
    assert not list(tmp_path.rglob("*.nbi"))


def test_each_kind_of_network_is_compiled_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of one depth and type share their kernels, whose lock lies in the folder of Numba's cache."""
    calls = []
    monkeypatch.setattr(fused, "_COMPILED", set())
    monkeypatch.setattr(fused, "load_or_compile", lambda _, folder: calls.append(folder))
    for depth in (1, 1, 2):
        FusedEngine(Settings(depth=depth, width=8, batch_size=10), 0)
    folder = cache_folder()
    assert calls == [folder] * 2
    assert folder in Path(str(train_steps.stats.cache_path)).parents


def test_nothing_is_compiled_after_an_engine_is_made(small: Images) -> None:
    """What is compiled or loaded beforehand is all that training and evaluation call, so no clock counts it."""
    settings = Settings(epochs=1, width=8, batch_size=50, dropout=0.5, batch_norm=True)
    FusedEngine(settings, 0)
    with install_recorder("numba:compiler_lock") as events:  # held to compile, and to load from the cache
        train(Run("s", "c", (), 0, settings, "fused"), small)
    assert events.buffer == []
