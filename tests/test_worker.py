"""What a process that trains does."""

from dataclasses import replace

import pytest

from mnist_ablate import worker
from mnist_ablate.data import Images
from mnist_ablate.design import Run, Settings
from mnist_ablate.train import train

RUN = Run("s", "c", (), 0, Settings(epochs=1, width=4, batch_size=100), "fused")


def test_a_run_comes_with_what_made_it(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides its rows and predictions a run has its provenance and digests, and those are its own."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    rows, predictions, document = worker.train_one(RUN)
    result = train(RUN, small)
    assert rows[0]["val_loss"] == result.rows[0]["val_loss"]
    assert (predictions["prediction"] == result.predictions["prediction"]).all()
    assert document["weights_sha256"] == result.weights_sha256
    assert document["first_losses"] == result.first_losses
    assert document["data_sha256"] == small.sha256
    assert document["provenance"]["engine"] == "fused"


def test_a_nudged_run_says_so(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose initial weights were moved is not to be taken for the run itself: its document has the nudge."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    assert worker.train_one(RUN, 2)[2]["nudge"] == 2
    assert worker.train_one(RUN, 2)[2]["weights_sha256"] == train(RUN, small, nudge=2).weights_sha256
    assert "nudge" not in worker.train_one(RUN)[2]


def test_weights_go_out_and_come_back(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final weights of a run, evaluated, give its accuracy and its predictions."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    numbers, said = worker.evaluate(RUN, worker.final_weights(RUN))
    rows, predictions, _ = worker.train_one(RUN)
    assert numbers["test_accuracy"] == rows[-1]["test_accuracy"]
    assert (said == predictions["prediction"]).all()


def test_estimate_counts_runs_and_epochs() -> None:
    """The estimate is that of a trial of each cell, times the epochs and the runs."""
    one = worker.estimate_seconds([RUN])
    many = worker.estimate_seconds([replace(RUN, seed=seed) for seed in range(1000)])
    assert 0 < one < many
    assert worker.estimate_seconds([]) == 0
