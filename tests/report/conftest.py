"""What tests of pages and of papers share."""

import pytest
from matplotlib.figure import Figure

from mnist_ablate import data, plots
from mnist_ablate.data import Images
from mnist_ablate.errors import DataError

DRAWN = (
    "accuracy", "loss_curves", "forest", "by_epoch", "by_look", "interactions", "power", "confusion", "images", "doses",
    "variance_parts", "printed_accuracies", "printed_losses",
)  # fmt: skip


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pictures empty: they take most of the time."""
    for name in DRAWN:
        monkeypatch.setattr(plots, name, lambda *_, **__: Figure((1, 1)))


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no data set at hand, whatever this machine has."""

    def absent(*_: object) -> Images:
        raise DataError("not here")

    monkeypatch.setattr(data, "load", absent)
