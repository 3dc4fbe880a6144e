"""The engine for any ``nn.Module``: gradients by autograd, steps by torch's fused Adam."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnist_ablate.design import Settings
from mnist_ablate.model import mlp


def pixels(images: Tensor, rows: Tensor) -> Tensor:
    """Gather `rows` of uint8 `images` and scale them to [0, 1]: the same values as torchvision's ``ToTensor``."""
    return images[rows].to(torch.float32).div_(255)


class AutogradEngine:
    """The multilayer perceptron trained by torch: see `mnist_ablate.engines.Engine`."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.model = mlp(settings, seed)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.l2, fused=True
        )

    @torch.enable_grad()
    def step(self, images: Tensor, labels: Tensor, rows: Tensor) -> float:
        """Take one step of training on a batch, and return its mean loss before the step, in nats."""
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
