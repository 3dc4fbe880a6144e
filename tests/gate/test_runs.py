"""What the gate trains. `test_accept` has a reference to judge by, and tests most of it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import DamagedFileError, NoVerdictError, ResultsError, RunsFailedError
from mnist_ablate.execution.executors import WorkerLostError
from mnist_ablate.gate import runs
from mnist_ablate.gate.reference import FIRST, RESPONSES
from mnist_ablate.training import tasks, worker

TINY = {
    "name": "tiny",
    "seeds": 1,
    "protocol": {"epochs": 1, "width": 4, "batch_size": 50},
    "factors": {"dropout": [0.0, 0.5]},
}


@pytest.fixture(autouse=True)
def _small_images(small: Images, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, on small images."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda name, *_, **__: data.Fetched(name, in_folder, "planted"))
    monkeypatch.setattr(runs, "GOLDEN_FRACTION", 0.8)


def test_measure_trains_golden_runs_and_runs() -> None:
    """Every cell has a golden run, every cell and seed a run, and files of older code are gone."""
    runs.measure(parse_study(TINY), None, Path("out"), workers=0)
    (Path("out") / "runs" / "old.parquet").write_text("left over")
    evidence = runs.measure(parse_study(TINY), None, Path("out"), seeds=[0, 3], workers=0)
    assert set(evidence.runs["response"]) == {*RESPONSES, FIRST}
    assert set(zip(evidence.runs["cell"], evidence.runs["seed"], strict=True)) == {
        (cell, seed) for cell in ("baseline", "dropout") for seed in (0, 3)
    }
    assert set(evidence.trace["cell"]) == {"baseline", "dropout"}
    assert (evidence.trace["what"] == "step").sum() == 4
    assert not (Path("out") / "runs" / "old.parquet").exists()
    again = runs.read_evidence(Path("out"))
    assert again.runs.equals(evidence.runs)
    assert again.trace.equals(evidence.trace)


def test_a_folder_of_something_else_is_left_alone() -> None:
    """The gate empties only its own folders; any other is refused and stays as it is."""
    Path("precious").mkdir()
    (Path("precious") / "study.json").write_text("{}")
    with pytest.raises(ResultsError, match="not a folder that the gate made"):
        runs.measure(parse_study(TINY), None, Path("precious"), workers=0)
    assert (Path("precious") / "study.json").read_text() == "{}"


def test_a_run_that_fails_is_a_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """If training raises, so does `measure`, with status 1, naming the run and the cause."""
    monkeypatch.setattr(worker, "train", lambda *_: 1 / 0)
    with pytest.raises(RunsFailedError, match=r"seed 1000 cannot be trained: ZeroDivisionError") as error:
        runs.measure(parse_study(TINY), None, Path("out"), workers=0)
    assert error.value.exit_status == 1


def test_without_a_reference_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing reference is reported before anything is trained."""
    monkeypatch.setattr(runs, "measure", None)
    with pytest.raises(ResultsError, match="no reference there"):
        runs.gate(reference="none", out="out")


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers get their environment variables; afterwards the process has its own again."""
    monkeypatch.delenv("MNIST_ABLATE_TEST", raising=False)
    with runs.pool(1, {"MNIST_ABLATE_TEST": "seen"}) as executor:
        assert executor.submit(os.getenv, "MNIST_ABLATE_TEST").result() == "seen"
    assert "MNIST_ABLATE_TEST" not in os.environ


def test_a_study_of_validation_fractions_keeps_its_own() -> None:
    """Golden runs hold out most images, unless the study varies that share."""
    varied = parse_study({"name": "x", "factors": {"validation_fraction": [0.2, 0.5]}})
    assert runs.golden_study(varied).varied == varied.varied
    golden = runs.golden_study(load_study("gate"))
    assert (golden.seeds, golden.protocol.validation_fraction) == (1, runs.GOLDEN_FRACTION)


OF_THE_MACHINE = [
    OSError(28, "No space left on device"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("cannot cache function 'f': no locator available for file 'kernels.py'"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite"),
    WorkerLostError("its worker process died"),
]
OF_THE_CODE = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ImportError("cannot import name 'mlp'", name="mnist_ablate.training.model"),
    TypeError("unsupported"),
]


def raising(error: Exception) -> Any:
    """Return a function that raises `error`."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "expected"),
    [(error, NoVerdictError) for error in OF_THE_MACHINE] + [(error, RunsFailedError) for error in OF_THE_CODE],
)
def test_only_the_code_that_trains_can_fail_the_gate(
    error: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that the code under test cannot train is a regression; for want of disk, memory, workers it is not."""
    monkeypatch.setattr(worker, "train", raising(error))
    with pytest.raises(expected, match=f"seed 1000 cannot be trained: {type(error).__name__}"):
        runs.measure(parse_study(TINY), None, Path("out"), workers=0)


@pytest.mark.parametrize(
    ("error", "expected"), [(OF_THE_MACHINE[2], NoVerdictError), (OF_THE_CODE[2], RunsFailedError)]
)
def test_the_stored_network_cannot_be_evaluated(
    error: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for the evaluation of the stored network."""
    np.savez("checkpoint.npz", w=np.zeros(1))
    monkeypatch.setattr(worker, "evaluate", raising(error))
    with pytest.raises(expected, match=f"the stored network cannot be evaluated: {type(error).__name__}"):
        runs.measure(parse_study(TINY), Path(), Path("out"), workers=0)


def test_a_network_that_takes_no_such_weights_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that no longer fit give empty results, which the gate judges, and no error."""
    monkeypatch.setattr(worker, "evaluate", raising(RuntimeError("Missing key(s) in state_dict")))
    numbers, predictions = tasks.evaluate_or_nothing(runs.checkpoint_run(parse_study(TINY)), {})
    assert (numbers, len(predictions)) == ({}, 0)


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_network_is_named(how: str) -> None:
    """Whatever happened to the stored network, the error names its file and the remedy."""
    file = Path("checkpoint.npz")
    np.savez(file, w=np.arange(1000))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"empty": b"", "cut": bytes(content[:500]), "flipped": bytes(content)}
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(changed[how])
    with pytest.raises(DamagedFileError, match=r"checkpoint\.npz: cannot be read \(.*Restore the reference"):
        runs.load_weights(file)


def test_a_worker_that_is_killed_gives_no_verdict() -> None:
    """A worker that ends in the middle of a run is not taken for a regression."""
    with runs.pool(1) as executor:
        future = executor.submit(os._exit, 1)
        with pytest.raises(NoVerdictError, match="its worker process died"):
            runs._result(future, "a run", Path())


def test_workers_that_cannot_start_give_no_verdict() -> None:
    """An executor that is broken is no regression either."""
    with ThreadPoolExecutor(1, initializer=raising(ValueError())) as executor:
        future = executor.submit(os.getpid)
        with pytest.raises(NoVerdictError, match="BrokenThreadPool"):
            runs._result(future, "a run", Path())
