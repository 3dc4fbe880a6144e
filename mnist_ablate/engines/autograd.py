"""The engine for any ``nn.Module``: gradients by autograd, steps by torch's fused Adam."""

from collections.abc import Mapping
from importlib import import_module

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_ablate.design import Settings
from mnist_ablate.errors import TrainingError
from mnist_ablate.model import mlp
from mnist_ablate.seeds import derive


def pixels(images: Tensor, rows: Tensor) -> Tensor:
    """Gather `rows` of uint8 `images` and scale them to [0, 1]: the same values as torchvision's ``ToTensor``."""
    return images[rows].to(torch.float32).div_(255)


def own_model(settings: Settings, seed: int) -> nn.Module:
    """Make the model of `settings.model`, a function (settings, seed) of the user's.

    Raises
    ------
    TrainingError
        If there is no such function.
    """
    module, _, name = settings.model.partition(":")
    try:
        model: nn.Module = getattr(import_module(module), name)(settings, seed)
    except (ImportError, AttributeError) as error:
        raise TrainingError(
            f"model = {settings.model!r}: {error}; it is looked for as Python's import does."
        ) from error
    return model


class AutogradEngine:
    """Any model trained by torch, the multilayer perceptron unless the settings name another: see `engines.Engine`.

    A model of the user's may draw from torch's global generator, as ``nn.Dropout`` does. It gets a state of its
    own, which is put in place around every step, so that nothing else in the process can disturb it.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self._chance: Tensor | None = None
        if settings.model:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(seed, "model") % 2**63)
                self.model = own_model(settings, seed)
                self._chance = torch.get_rng_state()
        else:
            self.model = mlp(settings, seed)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.l2, fused=True
        )

    @torch.enable_grad()
    def step(self, images: Tensor, labels: Tensor, rows: Tensor) -> float:
        """Take one step of training on a batch, and return its mean loss before the step, in nats."""
        if self._chance is None:
            return self._step(images, labels, rows)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._chance)
            loss = self._step(images, labels, rows)
            self._chance = torch.get_rng_state()
        return loss

    def _step(self, images: Tensor, labels: Tensor, rows: Tensor) -> float:
        self.model.train()
        loss = cross_entropy(self.model(pixels(images, rows)), labels[rows])
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        return loss.item()

    @torch.inference_mode()
    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs in evaluation mode for some rows of `images`: float32 (rows, classes)."""
        self.model.eval()
        outputs: Tensor = self.model(pixels(images, rows))
        return outputs

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of every parameter and running statistic, by name, in a fixed order."""
        return {name: tensor.numpy().copy() for name, tensor in self.model.state_dict().items()}

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Put values in place of all that `weights` returns, as it returns them."""
        self.model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
