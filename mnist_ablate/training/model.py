"""The multilayer perceptron in torch: every factor is an argument, and all chance comes from named streams.

The engine ``autograd`` trains it. The engine ``fused`` has equations of its own, dropout
included, in `mnist_ablate.training.engines.kernels`.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

from mnist_ablate.data import MNIST, Sizes
from mnist_ablate.design.settings import GROUPS, Settings
from mnist_ablate.design.streams import keep_mask, stream, uniform, variant


class Dropout(nn.Module):
    """Inverted dropout whose masks come from a stream, not from torch's global generator.

    Parameters
    ----------
    rate
        Probability of dropping a unit; the others are scaled by 1 / (1 - `rate`).
    bits
        The stream of the masks; each training step continues where the last one stopped.
    """

    def __init__(self, rate: float, bits: np.random.BitGenerator) -> None:
        super().__init__()
        self.rate = rate
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Drop units of `x`, of any shape, in training mode; in evaluation mode return `x` itself."""
        if not self.training:
            return x
        keep = torch.from_numpy(keep_mask(self.bits, tuple(x.shape), self.rate))
        return x * keep.to(x.dtype).div_(1 - self.rate).to(x.device)


def mlp(settings: Settings, seed: int, sizes: Sizes = MNIST) -> nn.Sequential:
    """Build the network inputs-width-...-width-classes (784 and 10 for MNIST), with ReLU after each hidden layer.

    A hidden layer is linear, then normalisation and dropout if the settings have them, then ReLU; what the settings
    place after the activation follows ReLU, in that order. Each parameter and each dropout has a stream named after
    it, so the techniques change no initial weight.

    Parameters
    ----------
    settings
        Only those of the network matter.
    seed
        Seed of the initial weights and the dropout masks.
    sizes
        Of the data set.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, norm = sizes.inputs, None
    for name in parts(settings):
        if name.startswith("linear") or name == "output":
            outputs = sizes.classes if name == "output" else settings.width
            layers[name] = linear(inputs, outputs, seed, name, settings)
            inputs = outputs
        elif name.startswith("relu"):
            layers[name] = nn.ReLU()
        elif "norm" in name:
            norm = norm if norm and settings.shared_norm else _normalisation(settings)
            layers[name] = norm
        else:
            layers[name] = _dropout(name, settings, seed)
    return nn.Sequential(layers)


def parts(settings: Settings) -> list[str]:
    """Return the names of the parts of the network, in order."""
    kind = "batch" if settings.batch_norm else settings.norm
    names = ["input_dropout"] if settings.input_dropout else []
    for i in range(1, settings.depth + 1):
        norm = [] if kind == "none" else [f"{kind}_norm{i}"]
        dropout = [f"dropout{i}"] if settings.dropout else []
        names.append(f"linear{i}")
        names += norm * (settings.norm_place == "before") + dropout * (settings.dropout_place == "before")
        names.append(f"relu{i}")
        names += norm * (settings.norm_place == "after") + dropout * (settings.dropout_place == "after")
    return [*names, "output"]


def _normalisation(settings: Settings) -> nn.Module:
    """Return the normalisation of a hidden layer."""
    if settings.batch_norm:
        return nn.BatchNorm1d(settings.width, dtype=torch.float32)
    # Without spatial dimensions, LayerNorm (Ba et al. 2016) is GroupNorm (Wu and He 2018) with one group.
    return nn.GroupNorm(GROUPS if settings.norm == "group" else 1, settings.width, dtype=torch.float32)


def _dropout(name: str, settings: Settings, seed: int) -> Dropout:
    """Return the dropout of the pixels or of a hidden layer, with masks from the stream ``dropout/<place>``."""
    place = name.removesuffix("_dropout").removeprefix("dropout")
    bits = stream(variant(seed, "dropout", settings.dropout_seed), f"dropout/{place}")
    return Dropout(settings.input_dropout if place == "input" else settings.dropout, bits)


def linear(inputs: int, outputs: int, seed: int, name: str, settings: Settings | None = None) -> nn.Linear:
    """Return a linear layer with weights and biases from the streams ``init/<name>.*``.

    All are uniform on (-b, b). The default of ``torch.nn.Linear`` amounts to b = 1 / sqrt(`inputs`) for weights and
    biases. For ``kaiming`` b = sqrt(6 / `inputs`) (He et al. 2015, equation 10, for ReLU), for ``xavier`` sqrt(6 /
    (`inputs` + `outputs`)) (Glorot and Bengio 2010, equation 16), both with biases of 0. Weights, and default biases,
    are then multiplied by `settings.init_scale`.
    """
    settings = settings or Settings()
    # On "meta", where torch draws no values from its global generator. `to_empty` would load half of torch.
    layer = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32)
    fans = {"default": inputs, "kaiming": inputs / 6, "xavier": (inputs + outputs) / 6}
    bound = 1 / math.sqrt(fans[settings.init])
    of_init = variant(seed, "init", settings.init_seed)
    for kind, parameter in list(layer.named_parameters()):
        of_kind = bound * settings.init_scale if kind == "weight" or settings.init == "default" else 0.0
        values = uniform(stream(of_init, f"init/{name}.{kind}"), tuple(parameter.shape), of_kind)
        setattr(layer, kind, nn.Parameter(torch.tensor(values)))
    return layer
