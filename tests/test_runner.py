"""From a plan to a results folder: skipping, failing, resuming. Here in one process; see also test_end_to_end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_ablate import data, runner, store
from mnist_ablate.data import Images
from mnist_ablate.design import Run, Study, parse_study, plan
from mnist_ablate.errors import InterruptedRunError, ResultsError, RunsFailedError, StorageError, StudyError
from mnist_ablate.train import RunResult, train


@pytest.fixture(autouse=True)
def _small_mnist(small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    """Train on small images, in an empty folder."""
    monkeypatch.setattr(runner, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))


def tiny(seeds: int = 2, **protocol: Any) -> Study:
    """Make a study of 4 cells that takes a moment."""
    return parse_study(
        {
            "name": "tiny",
            "seeds": seeds,
            "protocol": {"epochs": 1, "width": 4, "batch_size": 100} | protocol,
            "factors": {"dropout": [0.0, 0.5], "batch_norm": [False, True]},
        }
    )


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every training that really takes place."""
    names: list[str] = []
    original = train

    def noting(run: Run, images: Images) -> RunResult:
        names.append(f"{run.cell}/{run.seed}")
        return original(run, images)

    monkeypatch.setattr(runner, "train", noting)
    return names


def failing(monkeypatch: pytest.MonkeyPatch, cell: str, error: BaseException) -> None:
    """Let every run of `cell` fail."""
    original = runner.train_one

    def breaks(run: Run) -> Any:
        if run.cell == cell:
            raise error
        return original(run)

    monkeypatch.setattr(runner, "train_one", breaks)


def test_every_run_is_stored_in_the_schema() -> None:
    """All runs of the plan are there, with the schema's columns and the documents of their footers."""
    results = runner.run(tiny(), workers=0)
    runs = plan(tiny())
    assert results.folder == Path("results/tiny")
    assert set(results.epochs["run_id"]) == {run.run_id for run in runs}
    assert list(results.epochs.columns) == [
        "run_id", "study", "cell", "seed", "dropout", "batch_norm", "epoch", "status", "train_loss", "train_loss_eval",
        "val_loss", "val_accuracy", "test_loss", "test_accuracy", "train_seconds", "eval_seconds",
    ]  # fmt: skip
    document = results.documents[runs[0].run_id]
    assert document["specification"] == runs[0].specification
    assert document["provenance"]["engine"] == "autograd"
    assert {"schema_version", "data_sha256", "weights_sha256", "first_losses", "digest"} <= set(document)
    predictions = results.predictions(runs[0].run_id)
    hits = (predictions["label"] == predictions["prediction"]).mean()
    assert hits == results.epochs.set_index("run_id").loc[runs[0].run_id, "test_accuracy"]


def test_what_is_stored_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call trains nothing; more seeds train only the new ones; fewer keep what is there."""
    names = trained(monkeypatch)
    runner.run(tiny(), workers=0)
    assert len(names) == 8
    runner.run(tiny(), workers=0)
    assert len(names) == 8
    runner.run(tiny(seeds=3), workers=0)
    assert [name.split("/")[1] for name in names[8:]] == ["2"] * 4
    assert len(runner.run(tiny(seeds=1), workers=0).documents) == 12


def test_a_failed_run_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failure is named at once with its cause, the rest is stored, and the next call tries it again."""
    with monkeypatch.context() as patch:
        failing(patch, "dropout", ValueError("planted"))
        with pytest.raises(RunsFailedError, match="2 of 8 runs failed; finished runs are kept in results/tiny"):
            runner.run(tiny(), workers=0)
    told = capsys.readouterr().err
    assert "FAILED dropout, seed 0: ValueError: planted" in told
    results = store.load("results/tiny")
    assert len(results.documents) == 6
    assert sorted(results.problems) == [f"Failed: dropout, seed {seed}: ValueError: planted" for seed in (0, 1)]
    (file, _) = sorted(Path("results/tiny/failures").iterdir())
    assert "Traceback" in file.read_text()
    names = trained(monkeypatch)
    assert runner.run(tiny(), workers=0).problems == []
    assert names == ["dropout/0", "dropout/1"]


def test_fail_fast_stops_at_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fail_fast` nothing is trained after a failure, and what was finished is kept."""
    names = trained(monkeypatch)
    failing(monkeypatch, "dropout", ValueError("planted"))
    with pytest.raises(RunsFailedError, match="A run failed, and --fail-fast was given"):
        runner.run(tiny(), workers=0, fail_fast=True)
    assert names == ["baseline/0", "batch_norm/0"]
    assert len(store.load("results/tiny").documents) == 2


def test_ctrl_c_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt says how to go on, and the next call goes on."""
    with monkeypatch.context() as patch:
        failing(patch, "dropout", KeyboardInterrupt())
        with pytest.raises(InterruptedRunError, match="kept in results/tiny: run the same command again"):
            runner.run(tiny(), workers=0)
    names = trained(monkeypatch)
    runner.run(tiny(), workers=0)
    assert len(names) == 6


def test_a_full_disk_stops_and_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a result cannot be written, one message says so and nothing half written stays."""
    runner.run(tiny(seeds=1), workers=0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mnist_ablate.store.os.fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*make room"):
            runner.run(tiny(), workers=0)
    assert len(store.load("results/tiny").documents) == 4
    assert not list(Path("results").rglob("*.tmp"))
    assert len(runner.run(tiny(), workers=0).documents) == 8


@pytest.mark.parametrize("part", ["runs", "predictions"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_file_is_done_again(
    part: str, damage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose file is cut, changed, empty or gone is named and trained again, and no other."""
    before = runner.run(tiny(), workers=0)
    victim = plan(tiny())[3]
    file = Path("results/tiny") / part / f"{victim.run_id}.parquet"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        half = len(content) // 2
        changed = {"cut": content[:half], "flip": content[:99] + bytes([content[99] ^ 1]) + content[100:], "empty": b""}
        file.write_bytes(changed[damage])
    capsys.readouterr()
    names = trained(monkeypatch)
    after = runner.run(tiny(), workers=0)
    assert names == ["dropout+batch_norm/0"]
    assert (str(file) in capsys.readouterr().err) == (damage != "gone" or part == "predictions")
    assert same_numbers(before, after)


def same_numbers(a: store.Results, b: store.Results) -> bool:
    """Compare all rows but for the seconds."""
    seconds = ["train_seconds", "eval_seconds"]
    return a.epochs.drop(columns=seconds).equals(b.epochs.drop(columns=seconds))


def test_a_diverged_run_is_stored_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that diverges is a result, said at once and stored with its status."""
    results = runner.run(tiny(seeds=1, learning_rate=1e30), workers=0)
    assert "DIVERGED" in capsys.readouterr().err
    assert "diverged" in set(results.epochs["status"])


def test_a_run_that_does_not_fit_its_images_fails_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A last batch of one fails the BatchNorm cells with a message that tells the remedy, and only those."""
    with pytest.raises(RunsFailedError, match="2 of 4 runs failed"):
        runner.run(tiny(seeds=1, batch_size=57), workers=0)
    assert "choose another batch_size" in capsys.readouterr().err


def test_bad_options_train_nothing(in_folder: Path) -> None:
    """A wrong option is refused before a folder is made."""
    with pytest.raises(StudyError, match="workers = -1"):
        runner.run(tiny(), workers=-1)
    with pytest.raises(StudyError, match="seeds = 0"):
        runner.run(tiny(), seeds=0)
    assert not (in_folder / "results").exists()


def test_another_study_in_the_folder_is_refused() -> None:
    """Other epochs in the same folder are refused, naming the difference and --out; nothing is lost."""
    runner.run(tiny(seeds=1), workers=0)
    with pytest.raises(ResultsError, match=r"protocol.epochs is 1 there, 2 here.*--out"):
        runner.run(tiny(seeds=1), epochs=2, workers=0)
    assert len(runner.run(tiny(seeds=1), epochs=2, workers=0, out="elsewhere").documents) == 4
    assert len(store.load("results/tiny").documents) == 4


def test_estimate_counts_every_run() -> None:
    """The estimate of the time grows with the runs."""
    one, two = (runner.estimate_seconds(plan(tiny(seeds=n))) for n in (1, 100))
    assert 0 < one < two


def test_workers_default_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number there is a worker for each physical core, but never more than runs."""
    cores = {True: 6, False: 12}
    monkeypatch.setattr("mnist_ablate.runner.joblib.cpu_count", lambda only_physical_cores: cores[only_physical_cores])
    assert [runner._workers(None, 100), runner._workers(None, 4), runner._workers(3, 100), runner._workers(0, 9)] == [
        6, 4, 3, 0,
    ]  # fmt: skip


def test_results_show_themselves() -> None:
    """A notebook shows the cells with their mean accuracy in percent."""
    results = runner.run(tiny(), workers=0, progress=False)
    shown = results._repr_html_()
    mean = 100 * results.final.loc[results.final["cell"] == "baseline", "test_accuracy"].mean()
    assert "<table" in shown
    assert f"{np.round(mean, 2)}" in shown
