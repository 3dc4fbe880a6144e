"""Engines: the training step and the forward pass. The protocol around them is in `training.protocol`."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.data import MNIST, Sizes
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.engines.autograd import AutogradEngine


class Engine(Protocol):
    """A model with its optimiser, ready to train."""

    def train(self, images: Tensor, labels: Tensor, batches: Iterable[Tensor]) -> list[float]:
        """Take a step of training on each batch, up to one whose loss is not finite.

        Parameters
        ----------
        images, labels
            All training images, uint8 or float32 (n, ...), and their labels, int64 (n,).
        batches
            The rows of each batch, int64 (batch,).

        Returns
        -------
        list of float
            The mean loss of each batch before its step, in nats; the last one may not be finite.
        """

    def answers(self, images: Tensor, labels: Tensor, rows: Tensor, size: int) -> Answers:
        """Return the network's answers to `rows` of `images`, in the mode of evaluation.

        In train mode `size` images at a time are a batch.
        """

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of every parameter and running statistic, by name, in a fixed order."""

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace all that `weights` returns by values of the same names and shapes."""


def make_engine(
    name: str, settings: Settings, seed: int, folder: str = "", sizes: Sizes = MNIST, device: str = "cpu"
) -> Engine:
    """Return the engine `name` with the initial weights of `seed`.

    A model of the user's may lie in `folder`; `sizes` are those of the data set. The engine ``autograd`` trains on
    `device`.
    """
    if name == "fused":
        from mnist_ablate.training.engines.fused import FusedEngine  # needs Numba, which is optional

        return FusedEngine(settings, seed, sizes=sizes)
    return AutogradEngine(settings, seed, folder, sizes, device)
