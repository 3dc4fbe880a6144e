"""Loss, epoch by epoch: caps, changes in the last epoch, and what is not there."""

from pathlib import Path

import synthetic

from mnist_ablate.design.responses import LOSS_CAP
from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.format import NOTHING, estimate, number
from mnist_ablate.report.sections.losses import last_epoch, losses
from mnist_ablate.store.results import load


def test_losses_are_means_over_runs(whole: Analysis) -> None:
    """Each loss is the mean over the runs of its cell, with four digits; the gap is the difference of two of them."""
    means = whole.results.final.groupby("cell")[["train_loss", "val_loss", "train_loss_eval"]].mean()
    for row, cell in zip(losses(whole).rows, whole.cell_names, strict=True):
        assert row["train_loss"] == number(means["train_loss"][cell], 4)
        assert row["gap"] == number(means["val_loss"][cell] - means["train_loss_eval"][cell], 4)


def test_diverged_runs_have_the_loss_of_guessing(tmp_path: Path, pair: Study) -> None:
    """It stands in means, without a gap, and its change in the last epoch is none."""
    everything = [("dropout", seed) for seed in range(3)]
    analysis = analyse(load(synthetic.make(tmp_path, pair, diverged=everything)))
    row = losses(analysis).rows[1]
    assert (row["train_loss"], row["val_loss"], row["gap"]) == (f"{LOSS_CAP:.4f}", f"{LOSS_CAP:.4f}", NOTHING)
    assert last_epoch(analysis).rows[1]["loss"] == "+0.0000"


def test_what_is_not_there_is_a_dash(poor: Analysis) -> None:
    """A cell without runs has no losses, and a study of one epoch no change in its last."""
    assert set(list(losses(poor).rows[1].values())[1:]) == {NOTHING}
    assert {text for row in last_epoch(poor).rows for text in list(row.values())[1:]} == {NOTHING}


def test_last_epoch_is_the_change_in_it(whole: Analysis) -> None:
    """The change is the last epoch minus the one before, in nats and in points, over runs."""
    epochs = whole.results.epochs
    l2 = epochs[epochs["cell"] == "l2"]
    row = next(row for row in last_epoch(whole).rows if row["cell"] == "L2")
    frame = whole.last_epoch.set_index("cell")
    for column, name, scale, digits in (("val_accuracy", "accuracy", 100, 2), ("val_loss", "loss", 1, 4)):
        by_epoch = l2.pivot(index="seed", columns="epoch", values=column)
        change = scale * (by_epoch[2] - by_epoch[1]).mean()
        low, high = (float(frame[f"{name}_{end}"]["l2"]) for end in ("low", "high"))
        assert row[name] == estimate(change, low, high, digits)
        assert low <= change <= high
    assert frame.loc["l2", "n"] == 7
