"""Engines: what a step of training and a forward pass are made of. The protocol around them is in `train`."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines.autograd import AutogradEngine


class Engine(Protocol):
    """A model with its optimiser, ready to train."""

    def train(self, images: Tensor, labels: Tensor, batches: Iterable[Tensor]) -> list[float]:
        """Take a step of training on each batch, up to one whose loss is not finite.

        Parameters
        ----------
        images, labels
            All training images, uint8 (n, pixels), and their labels, int64 (n,).
        batches
            Which of them are a batch, int64 (batch,), batch by batch.

        Returns
        -------
        list of float
            The mean loss of each batch before its step, in nats; the last one need not be finite.
        """

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs for some rows of `images`, float32 (rows, classes), in the mode that evaluation has."""

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of every parameter and running statistic, by name, in a fixed order."""

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Put values in place of all that `weights` returns, as it returns them."""


def make_engine(name: str, settings: Settings, seed: int) -> Engine:
    """Make the engine `name`, at the initial weights of `seed`."""
    if name == "fused":
        from mnist_ablate.training.engines.fused import FusedEngine  # needs Numba, which is optional

        return FusedEngine(settings, seed)
    return AutogradEngine(settings, seed)
