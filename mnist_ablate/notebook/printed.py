"""What the course notebook behind the protocol printed, to show beside what was measured."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import pandas as pd

from mnist_ablate.design.design import Design
from mnist_ablate.design.plan import cells
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.study import Study


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return tomllib.loads(files("mnist_ablate.notebook").joinpath("printed.toml").read_text(encoding="utf-8"))


Modes = Mapping[str, Mapping[str, Any]]
MODES: Modes = MappingProxyType({
    "as it ran": {"evaluation": "train", "shared_norm": True},
    "train mode, two BatchNorms": {"evaluation": "train", "shared_norm": False},
    "evaluation mode, one BatchNorm": {"evaluation": "eval", "shared_norm": True},
    "mended": {"evaluation": "eval", "shared_norm": False},
})  # fmt: skip
"""The settings that make both, one or none of the notebook's two mistakes, by name."""


@dataclass(frozen=True)
class PrintedCell:
    """What the notebook printed of one of its networks.

    Parameters
    ----------
    name
        The technique, as the notebook calls it.
    settings
        What differs from the protocol, without the mistakes.
    test_accuracy
        After the last epoch, in percent.
    train_loss, val_loss
        After each epoch, in nats.
    """

    name: str
    settings: dict[str, Any]
    test_accuracy: float
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]


@lru_cache(maxsize=1)
def printed_cells() -> tuple[PrintedCell, ...]:
    """List the notebook's networks in its order."""
    return tuple(
        PrintedCell(**entry | {name: tuple(entry[name]) for name in ("train_loss", "val_loss")})
        for entry in _document()["cells"]
    )


def cells_of(study: Design, mode: str) -> dict[str, str]:
    """Return the cells of `study` that are the notebook's networks, with the mistakes of a `mode` in `MODES`.

    The number of epochs, and whether losses are means over batches or images, may differ.

    Returns
    -------
    dict
        Name of the cell by name of the network, in the notebook's order, without networks that the study lacks. Where a
        mistake has nothing to act on, the same cell serves all modes.
    """
    ours, names = _networks(study), dict[str, str]()
    for printed in printed_cells():
        theirs = _alike(Settings(**printed.settings, **MODES[mode]).reduced())
        same = [name for name, settings in ours if settings == theirs]
        if same:
            names[printed.name] = same[0]
    return names


def _networks(study: Design) -> list[tuple[str, Settings]]:
    """Return the settings of each cell that decide whether it is one of the notebook's; none of runs made elsewhere."""
    return [(cell.name, _alike(cell.settings)) for cell in cells(study)] if isinstance(study, Study) else []


def _alike(settings: Settings) -> Settings:
    return settings.model_copy(update={"epochs": 1, "loss_mean": "images"})


def printed_beside(study: Design) -> list[tuple[str, PrintedCell]]:
    """Pair each cell that the notebook trained, ignoring its mistakes, with what it printed."""
    printed = [(Settings(**one.settings), one) for one in printed_cells()]
    return [(name, one) for name, settings in _networks(study) for theirs, one in printed if settings == _alike(theirs)]


def printed_losses(study: Design) -> pd.DataFrame:
    """List the losses that the notebook printed for cells of `study`.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``epoch``, ``train_loss`` (mean over the batches of an epoch, while training) and ``val_loss`` (after
        it, but with the network left in training mode), in nats. Empty where no cell is one of the notebook's.
    """
    rows = [
        {"cell": name, "epoch": epoch, "train_loss": train, "val_loss": val}
        for name, one in printed_beside(study)
        for epoch, (train, val) in enumerate(zip(one.train_loss, one.val_loss, strict=True), start=1)
    ]
    return pd.DataFrame(rows, columns=["cell", "epoch", "train_loss", "val_loss"])
