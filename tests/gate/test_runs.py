"""What the gate trains. `test_accept` has a reference to judge by, and tests most of it."""

import os
from pathlib import Path

import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import ResultsError, RunsFailedError
from mnist_ablate.gate import runs
from mnist_ablate.gate.reference import FIRST, RESPONSES
from mnist_ablate.training import worker

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
    assert runs.golden_study(varied).design == varied.design
    golden = runs.golden_study(load_study("gate"))
    assert (golden.seeds, golden.protocol.validation_fraction) == (1, runs.GOLDEN_FRACTION)
