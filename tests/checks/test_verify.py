"""Runs trained again: equal to the bit, or the first difference and its possible reasons."""

import math
from pathlib import Path
from typing import Any

import pytest
import synthetic

from mnist_ablate import data
from mnist_ablate.checks.verify import Check, Verification, verify
from mnist_ablate.data import Images
from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import OtherProtocolError, StudyError
from mnist_ablate.execution import runner
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.results import Results, load
from mnist_ablate.training import tasks, worker

TINY = parse_study(
    {
        "name": "tiny",
        "seeds": 2,
        "protocol": {"epochs": 2, "width": 4, "batch_size": 100},
        "factors": {"learning_rate": [0.001, 1e30]},
    }
)


@pytest.fixture(autouse=True)
def _small_images(small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    """Work in an empty folder, on small images."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))


@pytest.fixture
def results() -> Results:
    """Train 4 small runs; those with the large learning rate diverge."""
    return runner.run(TINY, workers=0, progress=False)


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Apply `change`, a function of rows and document, to every run that is trained from now on."""
    original = tasks.train_one

    def other(run: Any) -> Any:
        rows, predictions, document = original(run)
        change(rows, document)
        return rows, predictions, document

    monkeypatch.setattr(tasks, "train_one", other)


def test_the_same_bits(results: Results) -> None:
    """Trained again on the same machine, runs are the same to the bit, including diverged ones with their NaN."""
    verification = verify(results, workers=0, progress=False)
    assert (results.final["status"] == "diverged").any()
    assert [check.difference for check in verification.checks] == [""] * 4
    assert verification.exit_status == 0
    assert str(verification) == repr(verification) == "4 of 4 runs are the same to the bit."


def test_a_compact_folder_can_be_verified(results: Results, tmp_path: Path) -> None:
    """A compact folder is verified as well, by its rows and weights, named by its path."""
    write_compact(results, tmp_path / "compact")
    assert verify(tmp_path / "compact", workers=0, progress=False).exit_status == 0


def test_the_first_difference_is_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change in one last bit is named by column, epoch and both values, and the exit status is 1."""

    def change(rows: list[dict[str, Any]], _: Any) -> None:
        rows[1]["val_loss"] *= 1 + 2**-52

    changed(monkeypatch, change)
    verification = verify(results, workers=0, progress=False)
    assert "val_loss of epoch 2 was" in verification.checks[0].difference
    assert "This is a defect" in str(verification.checks[0])
    assert verification.checks[0].reasons == []
    assert verification.exit_status == 1
    assert str(verification).startswith(f"{verification.checks[0]}\n")


@pytest.mark.parametrize(("engine", "status"), [("autograd", 3), ("fused", 1)])
def test_another_machine_is_a_reason_for_autograd_alone(
    engine: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another processor made the run, that may be the reason, and the status is 3; of a fused run it cannot be."""
    results = runner.run(TINY, engine=engine, workers=0, progress=False)

    def change(_: Any, document: dict[str, Any]) -> None:
        document["weights_sha256"] = "0" * 64
        document["provenance"] = document["provenance"] | {"processor": "another one"}

    changed(monkeypatch, change)
    verification = verify(results, workers=0, progress=False)
    assert "the final weights are not the same" in str(verification.checks[0])
    assert ("'another one' now" in str(verification.checks[0])) == (engine == "autograd")
    assert ("This is a defect" in str(verification.checks[0])) == (engine == "fused")
    assert verification.exit_status == status


def test_probes_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come out the same again, and a difference in the last bit of one of their numbers is a defect."""
    study = TINY.model_copy(update={"probes": ("weights", "gradients")})
    results = runner.run(study, workers=0, progress=False)
    assert verify(results, workers=0, progress=False).exit_status == 0

    def change(_: Any, document: dict[str, Any]) -> None:
        if found := document["probes"]["weights"]["log_weight_norm"]:  # diverged runs have none
            document["probes"]["weights"]["log_weight_norm"] = math.nextafter(found, 9)

    changed(monkeypatch, change)
    verification = verify(results, workers=0, progress=False)
    assert "log_weight_norm of the probe weights was" in str(verification.checks[0])
    assert verification.checks[0].defect
    assert verification.exit_status == 1


def test_other_images_are_no_defect_of_arithmetic(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of other images is different, with status 1, but nothing is said of the arithmetic."""
    changed(monkeypatch, lambda _, document: document.update(data_sha256="0" * 64))
    verification = verify(results, workers=0, progress=False)
    assert "the images are not the same" in str(verification)
    assert "defect" not in str(verification)
    assert verification.exit_status == 1


@pytest.mark.parametrize("compact", [False, True])
def test_another_protocol_cannot_be_verified(tmp_path: Path, compact: bool) -> None:
    """Runs of protocol 1 are not trained again: one sentence has both protocols and what can be done, status 3."""
    folder = synthetic.make(tmp_path / "old", TINY, protocol_version=1)
    if compact:
        folder = write_compact(load(folder), tmp_path / "compact")
    with pytest.raises(OtherProtocolError, match=r"made by protocol 1 .* trains protocol 2.*`compare`.*--out") as error:
        verify(folder, workers=0)
    assert error.value.exit_status == 3


def test_steps_come_before_epochs(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """If losses of the first steps differ, the step is named rather than the epoch."""

    def change(rows: list[dict[str, Any]], document: dict[str, Any]) -> None:
        rows[0]["train_loss"] = 0.0
        document["first_losses"] = [*document["first_losses"][:2], 7.0]

    changed(monkeypatch, change)
    assert "the training loss of step 3 was" in verify(results, workers=0, progress=False).checks[0].difference


def test_a_sample_is_always_the_same(results: Results) -> None:
    """A sample has the requested number of runs, the same each time; 0 is an error."""
    first, second = (verify(results, 2, workers=0, progress=False).checks for _ in range(2))
    assert [check.run.run_id for check in first] == [check.run.run_id for check in second]
    assert len(first) == 2
    with pytest.raises(StudyError, match="sample = 0"):
        verify(results, 0, workers=0)


def test_a_mix_is_bad_news(results: Results) -> None:
    """One difference without a reason outweighs those with one."""
    run = plan(results.study)[0]
    assert Verification([Check(run, "x", ["y"]), Check(run, "x")]).exit_status == 1
    assert Verification([Check(run, "x", ["y"]), Check(run, "")]).exit_status == 3
