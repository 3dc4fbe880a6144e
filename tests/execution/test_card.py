"""`run --device cuda`, with kernels on the processor behind a driver's interface: the whole way of a study."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import host_card
import pytest

import mnist_ablate
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import DeviceError, StudyError
from mnist_ablate.execution import runner
from mnist_ablate.execution.card import has_driver
from mnist_ablate.store.results import Results, load
from mnist_ablate.training.engines.card import compiler

ON_LINUX = pytest.mark.skipif(bool(host_card.WHY_NOT), reason=host_card.WHY_NOT)
STUDY = """
name = "small"
seeds = 1
[protocol]
width = 20
epochs = 2
validation_fraction = 0.01
batch_size = 50
train_images = 200
[factors]
batch_norm = [false, true]
dropout = [0.0, 0.2]
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a driver's library, for a process that finds it in LD_LIBRARY_PATH.

    The kernels are compiled for a card beforehand: NVRTC asks the driver for more than ours has.
    """
    code = f"from {compiler.__name__} import machine_code; machine_code(90, 13000)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return host_card.build(tmp_path_factory.mktemp("driver")).parent


def command(driver: Path | None, folder: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    """Start `run` in a folder, with a driver or without."""
    (folder / "small.toml").write_text(STUDY, encoding="utf-8")
    paths = {"LD_LIBRARY_PATH": str(driver)} if driver else {}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mnist_ablate", "run", "small.toml", "--out", "out", *options],
        cwd=folder,
        env=os.environ | paths | environment | {"PYTHONPATH": str(Path(mnist_ablate.__file__).parents[1])},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ran(driver: Path | None, folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Run to the end; return the exit status and what was said on stderr."""
    process = command(driver, folder, *options, **environment)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def weights(results: Results) -> Mapping[str, str]:
    """Return the digest of each run's weights."""
    return {run_id: document["weights_sha256"] for run_id, document in results.documents.items()}


@ON_LINUX
@pytest.mark.mnist
def test_a_study_on_a_card_is_that_of_processors(driver: Path, tmp_path: Path) -> None:
    """The same runs, the same bits, stored alike; the card is in the provenance alone, and resuming trains nothing."""
    status, said = ran(driver, tmp_path, "--device", "cuda")
    assert status == 0, said
    assert "Test card trains 4 of 4 runs" in said
    on_card = load(tmp_path / "out")
    on_cpu = runner.run(parse_study(tomllib.loads(STUDY)), workers=0, progress=False, out=tmp_path / "cpu")
    assert weights(on_card) == weights(on_cpu)
    less = ["train_seconds", "eval_seconds"]
    assert on_card.epochs.drop(columns=less).equals(on_cpu.epochs.drop(columns=less))
    assert {document["provenance"]["card"] for document in on_card.documents.values()} == {"Test card"}
    status, said = ran(driver, tmp_path, "--device", "cuda")
    assert (status, "4 of 4 runs are stored already" in said, "trains" in said) == (0, True, False)


@ON_LINUX
@pytest.mark.mnist
def test_what_no_card_can_train(driver: Path, tmp_path: Path) -> None:
    """What only autograd trains is trained by processors in the same command."""
    status, said = ran(driver, tmp_path, "--device", "cuda", "--engine", "autograd")
    assert status == 0, said
    assert "Processors train all runs" in said


@ON_LINUX
@pytest.mark.mnist
def test_stopped_and_resumed(driver: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the study with status 3 and leaves no process behind; the same command finishes it."""
    process = command(driver, tmp_path, "--device", "cuda", "--epochs", "30")
    assert process.stderr is not None
    while "trains" not in process.stderr.readline():
        pass
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    status, said = ran(driver, tmp_path, "--device", "cuda", "--epochs", "30")
    assert status == 0, said


@ON_LINUX
@pytest.mark.mnist
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HOST_CARDS": "0"}, "the driver shows no card"),
        ({"HOST_DRIVER": "11080"}, "the driver is for CUDA 11.8"),
        ({"HOST_DRIVER": "12080"}, "the driver is for CUDA 12, and the installed NVRTC for 13"),
        ({"HOST_CAPABILITY": "70"}, "has compute capability 7.0"),
        ({"HOST_MEMORY": "300"}, "of the card's memory, and 0 MiB are free"),
    ],
)
def test_a_card_that_cannot_train_is_bad_input(
    driver: Path, tmp_path: Path, environment: dict[str, str], words: str
) -> None:
    """Exit status 2, one sentence, and nothing trained; with --device auto, processors train."""
    status, said = ran(driver, tmp_path, "--device", "cuda", **environment)
    assert status == 2, said
    assert words in said
    assert "--device cpu" in said
    assert "Traceback" not in said


@pytest.mark.mnist
def test_no_driver(tmp_path: Path) -> None:
    """Without CUDA's driver `--device cuda` ends with status 2; the default trains on processors, and says nothing."""
    if has_driver():
        pytest.skip("this machine has a driver")
    status, said = ran(None, tmp_path, "--device", "cuda")
    assert status == 2, said
    assert "this machine has no CUDA driver" in said
    status, said = ran(None, tmp_path)
    assert (status, "card" in said) == (0, False)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVRTC the message names the extra that has it."""
    monkeypatch.setattr(compiler, "_packaged", list)
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(DeviceError, match=r'pip install "mnist-ablate\[cuda\]"; or take --device cpu'):
        compiler.Compiler()


def test_device_is_checked() -> None:
    """A device that is unknown, and a card together with workers elsewhere, are bad input."""
    with pytest.raises(StudyError, match="device = 'tpu': allowed: auto, cpu, cuda"):
        runner.run(parse_study(tomllib.loads(STUDY)), device="tpu")
    with pytest.raises(StudyError, match="device = 'cuda', scheduler: give one of them"):
        runner.run(parse_study(tomllib.loads(STUDY)), device="cuda", scheduler="tcp://nowhere:1")


def test_the_driver_process_needs_no_torch() -> None:
    """Neither the process that hands out runs nor a worker without a card imports anything of the card's engine."""
    test = "any('engines.card' in name or name == 'torch' for name in sys.modules)"
    code = f"import mnist_ablate.execution.runner, sys; sys.exit({test})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
    code = "import mnist_ablate.training.worker, sys; sys.exit(any('engines.card' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
