"""The same runs from five kinds of source give the numbers that pandas and scipy give, paired and unpaired."""

import csv
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import planted
import pytest
from scipy import stats

from mnist_ablate.checks.judge import write_proposal
from mnist_ablate.errors import TableError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.propose import propose

HERE = Path(__file__).parent


def wandb(folder: Path) -> Path:
    """Write W&B's table of runs, as its page exports it."""
    rows = [
        {"Name": run.name, "State": "crashed" if run.failed else "finished", "Notes": "-", "User": "me", "Tags": "",
         "Created": f"2026-01-01T10:{i:02}:00.000Z", "Runtime": 60 + i, "Sweep": "", "optimizer": run.optimizer,
         "seed": run.seed, "epochs": 3, "val_acc": "NaN" if np.isnan(run.val_acc[-1]) else run.val_acc[-1]}
        for i, run in enumerate(planted.runs())
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "wandb.csv", index=False, quoting=csv.QUOTE_ALL)
    return folder / "wandb.csv"


def mlflow_folder(folder: Path) -> Path:
    """Unpack a folder that MLflow wrote."""
    with zipfile.ZipFile(HERE / "mlflow_folder.zip") as archive:
        archive.extractall(folder / "mlruns")
    return folder / "mlruns"


def mlflow_database(folder: Path) -> Path:
    """Fill a database with what MLflow wrote."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript((HERE / "mlflow_database.sql").read_text(encoding="utf-8"))
    database.close()
    return folder / "mlflow.db"


def tensorboard(folder: Path) -> Path:
    """Write event files with TensorBoard's own writer, a folder for each run."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run in planted.runs():
        writer = EventFileWriter(str(folder / "logs" / f"optimizer={run.optimizer},seed={run.seed}" / run.name))
        for step, value in enumerate(run.val_acc):
            summary = Summary(value=[Summary.Value(tag="val_acc", simple_value=value)])
            writer.add_event(Event(wall_time=1.7e9 + step, step=step, summary=summary))
        writer.close()
    return folder / "logs"


def lightning(folder: Path) -> Path:
    """Write the folders of Lightning's CSVLogger: training and validation are in rows of their own."""
    for i, run in enumerate(planted.runs()):
        place = folder / "lightning_logs" / f"version_{i}"
        place.mkdir(parents=True)
        (place / "hparams.yaml").write_text(f"optimizer: {run.optimizer}\nseed: {run.seed}\nepochs: 3\n")
        lines = ["epoch,step,train_loss,val_acc"]
        for epoch, value in enumerate(run.val_acc):
            lines += [f"{epoch},{10 * epoch + 9},{1 / (1 + epoch)},", f"{epoch},{10 * epoch + 9},,{value}"]
        (place / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder / "lightning_logs"


def keras(folder: Path) -> Path:
    """Write the files of Keras's CSVLogger: what varies is in their names."""
    for run in planted.runs():
        place = folder / "keras" / f"optimizer={run.optimizer}" / f"seed={run.seed},try={run.name}.csv"
        place.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{epoch},0.5,{value},0.4" for epoch, value in enumerate(run.val_acc)]
        place.write_text("\n".join(["epoch,loss,val_acc,val_loss", *lines]) + "\n")
    return folder / "keras"


def wandb_chart(folder: Path) -> Path:
    """Write W&B's export of a chart: a column for each run, and its bounds; where a run has ended, cells are empty."""
    columns: dict[str, list[Any]] = {"Step": [0, 1, 2]}
    for run in planted.runs():
        cells: list[Any] = ["NaN" if np.isnan(value) else value for value in run.val_acc]
        name = f"optimizer={run.optimizer},seed={run.seed},try={run.name} - val_acc"
        columns |= {name: [*cells, "", ""][:3], f"{name}__MIN": [0.0] * 3, f"{name}__MAX": [1.0] * 3}
    pd.DataFrame(columns).to_csv(folder / "chart.csv", index=False)
    return folder / "chart.csv"


def csv_log(folder: Path) -> Path:
    """Write a table with a row for each run and epoch."""
    rows = [(run.name, run.optimizer, run.seed, epoch, "NaN" if np.isnan(value) else value)
            for run in planted.runs() for epoch, value in enumerate(run.val_acc)]  # fmt: skip
    pd.DataFrame(rows, columns=["run", "optimizer", "seed", "epoch", "val_acc"]).to_csv(folder / "log.csv", index=False)
    return folder / "log.csv"


def parquet(folder: Path) -> Path:
    """Write a Parquet file with a row for each run, whose cells have types."""
    rows = [(run.name, run.optimizer, run.seed, "crashed" if run.failed else "finished", run.val_acc[-1])
            for run in planted.runs()]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["run", "optimizer", "seed", "state", "val_acc"])
    frame.to_parquet(folder / "runs.parquet", index=False)
    return folder / "runs.parquet"


WRITERS = [wandb, wandb_chart, mlflow_folder, mlflow_database, tensorboard, lightning, keras, csv_log, parquet]


def declared(path: Path, **table: Any) -> dict[str, Any]:
    """Return the study that is proposed for a table, with what `table` adds, about validation accuracy."""
    document = propose(sources.read(path), "planted").document
    metrics = {name: metric for name, metric in document["metrics"].items() if "val_acc" in name}
    hypotheses = [{"id": "H", "statement": "SGD is worse", "effect": "optimizer", "kind": "decrease", "smallest": 0.5}]
    return document | {"metrics": metrics, "table": document["table"] | table, "hypotheses": hypotheses}


def judged(path: Path, **table: Any) -> Analysis:
    """Analyse a table."""
    return analyse(runs.make(sources.read(path), design.parse(declared(path, **table), "planted", "planted")))


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_source_gives_the_numbers_of_pandas_and_scipy(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """A run made twice is refused by its rows; then paired and unpaired effects are those of scipy's tests."""
    path, truth = write(tmp_path), 100 * planted.table()
    with pytest.raises(TableError, match=r"rows \d+, \d+ are of the same cell and seed \(optimizer = adam, seed 2\)"):
        judged(path)
    repeat = _run(path)
    paired, unpaired = judged(path, repeat=repeat), judged(path, repeat=repeat, pairing="none")
    both = truth.dropna()
    row, expected = paired.effects().iloc[0], stats.ttest_rel(both["sgd"], both["adam"])
    interval = expected.confidence_interval(0.95)
    assert row["n"] == len(both) == 9
    assert row["estimate"] == pytest.approx((both["sgd"] - both["adam"]).mean())
    assert (row["low"], row["high"], row["p"]) == pytest.approx(
        (interval.low, interval.high, expected.pvalue), abs=1e-5
    )
    row = unpaired.effects().iloc[0]
    welch = stats.ttest_ind(truth["sgd"].dropna(), truth["adam"].dropna(), equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((interval.low, interval.high, welch.pvalue), abs=1e-5)


def _run(path: Path) -> str:
    source = sources.read(path)
    return next((column for column, role in source.roles.items() if role == "run"), "run")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_failures_and_missing_runs_are_said(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """A failed run and a NaN are failures, which leave no verdict but bounds; the missing run is named."""
    path = write(tmp_path)
    analysis = judged(path, repeat=_run(path))
    (judgement,) = analysis.judgements
    assert sorted(analysis.diverged_runs) == [("baseline", 5), ("optimizer=sgd", 4)]
    assert analysis.missing_runs == [("optimizer=sgd", 11)]
    assert judgement.verdict == "no verdict"
    assert "2 of 23 runs that it needs have no" in judgement.lacking
    worst = 100 * planted.table()
    low = (worst["sgd"].fillna(0) - worst["adam"].fillna(100)).drop(11)
    high = (worst["sgd"].fillna(100) - worst["adam"].fillna(0)).drop(11)
    ends = [stats.ttest_1samp(z, 0).confidence_interval(0.95) for z in (low, high)]
    assert judgement.at_worst == pytest.approx((ends[0].low, ends[1].high), abs=1e-4)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_the_second_call_is_reproducible(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """The file that is proposed is valid, and reads the table as the proposal did."""
    path = write(tmp_path)
    file, proposal = write_proposal(path, tmp_path / "study.toml")
    again = design.load(file, "study")
    assert again == design.parse(proposal.document, "proposal", path.stem)
    assert again.factors == {"optimizer": ("adam", "sgd")}
    assert again.table.seed.endswith("seed")


def test_a_chart_of_wandb_has_a_column_for_each_run(tmp_path: Path) -> None:
    """Its columns become rows, what varies comes from the names of the runs, and bounds are no metrics."""
    source = sources.read(wandb_chart(tmp_path))
    assert list(source.frame.columns) == ["Step", "val_acc", "run", "optimizer", "seed", "try"]
    assert len(source.frame) == 3 * len(planted.runs())


@pytest.mark.parametrize("write", [wandb_chart, lightning, keras, csv_log], ids=lambda write: write.__name__)
def test_logs_have_learning_curves(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Mean, number and interval after each epoch are those that pandas and scipy give of the runs that got there."""
    path = write(tmp_path)
    curves = judged(path, repeat=_run(path)).logged_curves()
    rows = [(run.optimizer, run.seed, epoch, 100 * value)
            for run in planted.runs() for epoch, value in enumerate(run.val_acc)]  # fmt: skip
    of_seeds = pd.DataFrame(rows, columns=["optimizer", "seed", "epoch", "value"])
    means = of_seeds.groupby(["optimizer", "epoch", "seed"])["value"].mean()
    assert len(curves) == 6
    for row in curves.to_dict(orient="records"):
        there = means["adam" if row["cell"] == "baseline" else "sgd"][row["epoch"]].dropna()
        assert row["n"] == len(there)
        assert row["mean"] == pytest.approx(there.mean())
        half = stats.t.isf(0.025, len(there) - 1) * stats.sem(there)
        assert row["half_width"] == pytest.approx(half, abs=1e-9)


def test_hyperparameters_of_torch_are_read(tmp_path: Path) -> None:
    """What torch's `add_hparams` writes into a folder of its own belongs to the run above it."""
    from torch.utils.tensorboard import SummaryWriter

    for seed in range(3):
        with SummaryWriter(tmp_path / f"run{seed}") as writer:
            writer.add_scalar("val_acc", 0.5 + seed / 10, 1)
            writer.add_hparams({"lr": 0.1, "seed": seed, "clip": True}, {"hparam/acc": 0.25})
    frame = sources.read(tmp_path).frame.sort_values("run")
    assert list(frame["lr"]) == ["0.1"] * 3
    assert list(frame["seed"]) == ["0.0", "1.0", "2.0"]
    assert list(frame["metrics.val_acc"].astype(float)) == pytest.approx([0.5, 0.6, 0.7])
    assert list(frame["metrics.hparam/acc"].astype(float)) == [0.25] * 3


def test_without_tensorboard_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is missing, the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing.event_accumulator", None)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    with pytest.raises(TableError, match=r'pip install "mnist-ablate\[tensorboard\]"'):
        sources.read(tmp_path)
