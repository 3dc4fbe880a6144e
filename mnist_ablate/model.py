"""The multilayer perceptron, every factor an argument, its chance drawn from streams of its own."""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

from mnist_ablate.data import CLASSES, PIXELS
from mnist_ablate.design import Settings
from mnist_ablate.seeds import keep_mask, stream, uniform


class Dropout(nn.Module):
    """Inverted dropout that takes its masks from a stream, not from torch's global generator.

    Parameters
    ----------
    rate
        Probability that a unit is dropped; the others are scaled by 1 / (1 - `rate`).
    bits
        The stream of the masks; each training step draws on from where the last one stopped.
    """

    def __init__(self, rate: float, bits: np.random.BitGenerator) -> None:
        super().__init__()
        self.rate = rate
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Drop units of `x`, any shape, in training mode; in evaluation mode return `x` as it is."""
        if not self.training:
            return x
        keep = torch.from_numpy(keep_mask(self.bits, tuple(x.shape), self.rate))
        return x * keep.to(x.dtype).div_(1 - self.rate)


def mlp(settings: Settings, seed: int) -> nn.Sequential:
    """Build the network 784-width-...-width-10, with ReLU after each hidden layer.

    A hidden layer is linear, then batch normalisation, then dropout (each if the settings have it), then ReLU.
    Each parameter has a stream named after it, so the techniques change no initial weight.

    Parameters
    ----------
    settings
        `depth`, `width`, `batch_norm` and `dropout` are used.
    seed
        Seed of the initial weights and the dropout masks.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = PIXELS
    for i in range(1, settings.depth + 1):
        layers[f"linear{i}"] = linear(inputs, settings.width, seed, f"linear{i}")
        if settings.batch_norm:
            layers[f"batch_norm{i}"] = nn.BatchNorm1d(settings.width, dtype=torch.float32)
        if settings.dropout:
            layers[f"dropout{i}"] = Dropout(settings.dropout, stream(seed, f"dropout/{i}"))
        layers[f"relu{i}"] = nn.ReLU()
        inputs = settings.width
    layers["output"] = linear(inputs, CLASSES, seed, "output")
    return nn.Sequential(layers)


def linear(inputs: int, outputs: int, seed: int, name: str) -> nn.Linear:
    """Make a linear layer with torch's default initialisation, drawn from the streams ``init/<name>.*``.

    The default of ``torch.nn.Linear`` comes to U(-b, b) with b = 1 / sqrt(`inputs`), for weights and biases.
    """
    layer = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for kind, parameter in layer.named_parameters():
            values = uniform(stream(seed, f"init/{name}.{kind}"), tuple(parameter.shape), bound)
            parameter.copy_(torch.from_numpy(values))
    return layer
