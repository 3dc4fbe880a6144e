"""What the course notebook behind the protocol printed, to be shown beside what was measured."""

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any

import pandas as pd

from mnist_ablate.design import Settings, Study, cells


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return tomllib.loads(files("mnist_ablate").joinpath("printed.toml").read_text(encoding="utf-8"))


def _cells(study: Study) -> list[tuple[str, dict[str, Any]]]:
    """Pair each cell that the notebook trained too, whatever the number of epochs, with what it printed."""
    any_length = {"epochs": 1}
    printed = [(Settings(**entry["settings"]).model_copy(update=any_length), entry) for entry in _document()["cells"]]
    ours = [(cell.name, cell.settings.model_copy(update=any_length)) for cell in cells(study)]
    return [(name, entry) for name, settings in ours for theirs, entry in printed if settings == theirs]


def printed_losses(study: Study) -> pd.DataFrame:
    """List the losses that the notebook printed for cells of `study`.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``epoch``, ``train_loss`` (mean over the batches of an epoch, while training) and ``val_loss`` (after
        it, but with the network left in training mode), in nats. Empty where no cell is one of the notebook's.
    """
    rows = [
        {"cell": name, "epoch": epoch, "train_loss": train, "val_loss": val}
        for name, entry in _cells(study)
        for epoch, (train, val) in enumerate(zip(entry["train_loss"], entry["val_loss"], strict=True), start=1)
    ]
    return pd.DataFrame(rows, columns=["cell", "epoch", "train_loss", "val_loss"])


def printed_accuracy(study: Study) -> "pd.Series[float]":
    """List the test accuracies that the notebook printed for cells of `study`, in percent, by cell."""
    return pd.Series({name: entry["test_accuracy"] for name, entry in _cells(study)}, dtype=float)
