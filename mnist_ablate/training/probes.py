"""Probes: what a trained network shows beyond its losses, each a small function that cites its source.

A probe looks at a copy of the network in evaluation mode and has its own random streams: it changes no bit of a run,
and is not part of the run's identity.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import permutation, stream
from mnist_ablate.training.model import Dropout, mlp

SAMPLE = 1_000
"""Training images, the first of the split, for pre-activations and gradients."""
SHARES = (10, 20, 50)
"""Percentages of the hidden units to remove."""
REMOVALS = 5
"""Random choices of the units to remove; the loss of accuracy is the mean over them."""
SINGLE = 2_000
"""Test images, the first, on which every hidden unit is removed by itself."""
SAMPLES = 50
"""Thinned networks to average over."""
BINS = 15
_CHUNK = 500
"""Images in a forward pass: few enough to stay in cache."""

Numbers = dict[str, float]
Part = tuple[Tensor, Tensor]
"""Images, float32 (n, pixels) in [0, 1], and labels, int64 (n,)."""
Moments = list[tuple[Tensor, Tensor]]
"""Mean and standard deviation of each unit, float64 (units,), layer by layer."""


@dataclass(frozen=True)
class Subject:
    """A trained network, and the images to probe it with.

    Parameters
    ----------
    network
        The trained network, in evaluation mode.
    seed
        The run's.
    sample, test
        Some training images and all test images, with their labels.
    """

    network: nn.Sequential
    seed: int
    sample: Part
    test: Part


def network_of(weights: dict[str, NDArray[Any]], settings: Settings, seed: int) -> nn.Sequential:
    """Build the perceptron of `settings` with `weights`, named as an engine names them, in evaluation mode."""
    network = mlp(settings, seed)
    initial = network.state_dict()
    network.load_state_dict(initial | {name: torch.from_numpy(weights[name]) for name in initial if name in weights})
    return network.eval()


def look(probes: Sequence[str], subject: Subject) -> dict[str, Numbers]:
    """Take `probes` of a trained network, except those that need its history: see `Shifts`."""
    return {probe: _LOOKS[probe](subject) for probe in probes if probe in _LOOKS}


# ---- Stability of pre-activations ----


class Shifts:
    """How far the inputs of hidden units move between epochs, in units of their spread (Ioffe and Szegedy 2015).

    "Internal covariate shift" is the change in the distribution of a layer's inputs while the layers before it learn.
    For each unit, over a fixed sample of images: |mean now - mean before| / sd before, and |sd now - sd before| / sd
    before; then the median over units, and the mean over layers and pairs of epochs; then the logarithm, so that
    contrasts compare ratios. Measured on the outputs of linear layers, and on the inputs of the activation, which
    BatchNorm stabilises by construction.
    """

    def __init__(self) -> None:
        self._before: dict[str, Moments] | None = None
        self._movements: dict[str, list[float]] = {}

    def add(self, network: nn.Sequential, images: Tensor) -> None:
        """Look at the network after one more epoch."""
        now = moments(network, images)
        for place, before in (self._before or {}).items():
            shift, spread = moved(before, now[place])
            self._movements.setdefault(f"log_shift_{place}", []).append(shift)
            self._movements.setdefault(f"log_spread_{place}", []).append(spread)
        self._before = now

    @property
    def numbers(self) -> Numbers:
        """Return the logarithms of the mean movements; NaN after a single epoch."""
        means = {name: float(np.mean(self._movements.get(name, [math.nan]))) for name in PROBES["preactivations"]}
        return {name: math.log(mean) if mean > 0 else math.nan for name, mean in means.items()}


@torch.inference_mode()
def moments(network: nn.Sequential, images: Tensor) -> dict[str, Moments]:
    """Return the moments of hidden units over `images`: of ``linear`` outputs, and of inputs of the ``activation``."""
    by_place: dict[str, Moments] = {"linear": [], "activation": []}
    x = images
    for name, module in network.named_children():
        if isinstance(module, nn.ReLU):
            by_place["activation"].append(_moments(x))
        x = module(x)
        if isinstance(module, nn.Linear) and name != "output":
            by_place["linear"].append(_moments(x))
    return by_place


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.double().mean(dim=0), x.double().std(dim=0, correction=0)


def moved(before: Moments, now: Moments) -> tuple[float, float]:
    """Return the mean over layers of the median over units of the movements of mean and spread.

    A mean over units would show only the units that L2 has shrunk to almost no spread.
    """
    shifts, spreads = [], []
    for (mean, sd), (new_mean, new_sd) in zip(before, now, strict=True):
        alive = sd > 0
        shifts.append(_median((new_mean - mean).abs()[alive] / sd[alive]))
        spreads.append(_median((new_sd - sd).abs()[alive] / sd[alive]))
    return float(np.mean(shifts)), float(np.mean(spreads))


def _median(values: Tensor) -> float:
    return values.quantile(0.5).item() if len(values) else math.nan


# ---- Gradients and weights ----


def gradients(subject: Subject) -> Numbers:
    """Return the logarithm of the norm of the loss's gradient on the sample (Pascanu, Mikolov and Bengio 2013)."""
    images, labels = subject.sample
    with torch.enable_grad():
        parameters = list(subject.network.parameters())
        of_each = torch.autograd.grad(cross_entropy(subject.network(images), labels), parameters)
    squares = math.fsum(gradient.double().square().sum().item() for gradient in of_each)
    return {"log_gradient_norm": 0.5 * math.log(squares) if squares > 0 else math.nan}


def weights(subject: Subject) -> Numbers:
    """Return the logarithms of the norm of all weights, without biases, and of how evenly they are spread.

    Evenness is the participation ratio (sum w^2)^2 / (n sum w^4): 1 / n where only one weight differs from zero, 1
    where all have the same size (Bell and Dean 1970, "Atomic vibrations in vitreous silica", for amplitudes).
    """
    every = [module.weight.detach() for module in subject.network if isinstance(module, nn.Linear)]
    squares = torch.cat([weight.flatten() for weight in every]).double().square()
    evenness = squares.sum().square() / (len(squares) * squares.square().sum())
    return {"log_weight_norm": 0.5 * squares.sum().log().item(), "log_weight_evenness": evenness.log().item()}


# ---- Answers ----


@torch.inference_mode()
def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """Return the probability of each digit, float32 (n, 10)."""
    return torch.cat([torch.softmax(network(part), dim=1) for part in torch.split(images, _CHUNK)])


def accuracy(answers: Tensor, labels: Tensor) -> float:
    """Return the share of `answers`, probabilities (n, 10), whose most probable digit is the label."""
    return (answers.argmax(dim=1) == labels).double().mean().item()


def loss(answers: Tensor, labels: Tensor) -> float:
    """Return the mean of -log of the label's probability, in nats."""
    return -answers.gather(1, labels[:, None]).double().clamp_min(1e-45).log().mean().item()


def expected_calibration_error(answers: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over equal bins of confidence, weighted by images.

    Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    confidence, digit = answers.double().max(dim=1)
    of_bin = (confidence * bins).ceil().long().clamp(1, bins) - 1
    surplus = torch.zeros(bins, dtype=torch.float64).index_add_(0, of_bin, confidence - (digit == labels).double())
    return surplus.abs().sum().item() / len(labels)


def calibration(subject: Subject) -> Numbers:
    """Return the expected calibration error on the test images, a fraction."""
    images, labels = subject.test
    return {"ece": expected_calibration_error(probabilities(subject.network, images), labels)}


def removal(subject: Subject) -> Numbers:
    """Return the accuracy lost on the test images when some percent of the units of each hidden layer output 0.

    Morcos et al. 2018, "On the importance of single directions for generalization": the units are clamped to zero,
    and nothing is scaled to make up for them. The mean over `REMOVALS` random choices; and the most that any single
    unit costs on `SINGLE` of the images.
    """
    images, labels = subject.test
    whole = accuracy(probabilities(subject.network, images), labels)
    second = next(i for i, (name, _) in enumerate(subject.network.named_children()) if i and _takes_hidden_units(name))
    hidden, rest = _up_to(subject.network, second, images)
    lost = {}
    for share in SHARES:
        thinned = [_without(rest, share, subject.seed, draw) for draw in range(REMOVALS)]
        left = [accuracy(probabilities(network, hidden), labels) for network in thinned]
        lost[f"accuracy_lost_{share}"] = whole - float(np.mean(left))
    return lost | {"accuracy_lost_worst": _lost_without_the_worst(rest, hidden[:SINGLE], labels[:SINGLE])}


@torch.inference_mode()
def _lost_without_the_worst(rest: nn.Sequential, hidden: Tensor, labels: Tensor) -> float:
    """Return the accuracy lost without the one unit that matters most, of all hidden layers.

    Without a unit the output of the layer above lacks what the unit adds to it, so only what follows is computed anew.
    """
    whole, least, x = accuracy(rest(hidden), labels), 1.0, hidden
    for place, (name, module) in enumerate(rest.named_children()):
        if _takes_hidden_units(name) and isinstance(module, nn.Linear):
            after, out, above = module(x), module.weight, rest[place + 1 :]
            for unit in range(module.in_features):
                without = after - x[:, unit, None] * out[:, unit]
                least = min(least, accuracy(above(without), labels))
        x = module(x)
    return whole - least


def _takes_hidden_units(name: str) -> bool:
    return name == "output" or (name.startswith("linear") and name != "linear1")


@torch.inference_mode()
def _up_to(network: nn.Sequential, place: int, images: Tensor) -> tuple[Tensor, nn.Sequential]:
    """Return the inputs of child `place` of `network`, computed once, and the network from there on."""
    first = network[:place]
    return torch.cat([first(part) for part in torch.split(images, _CHUNK)]), network[place:]


def _without(rest: nn.Sequential, share: int, seed: int, draw: int) -> nn.Sequential:
    """Remove `share` percent of the inputs of each layer; those of a smaller share are among those of a larger."""
    thinned: list[nn.Module] = []
    width = int(rest.get_submodule("output").in_features)  # type: ignore[arg-type]
    for name, module in rest.named_children():
        if _takes_hidden_units(name):
            order = permutation(stream(seed, f"probe/removal/{draw}/{name}"), width)
            thinned.append(_Removal(order[: round(width * share / 100)], width))
        thinned.append(module)
    return nn.Sequential(*thinned).eval()


class _Removal(nn.Module):
    """Set some units to zero."""

    def __init__(self, units: NDArray[np.int64], width: int) -> None:
        super().__init__()
        self.keep = torch.ones(width)
        self.keep[torch.from_numpy(units)] = 0

    def forward(self, x: Tensor) -> Tensor:
        """Set the units of `x`, (n, width), to zero."""
        return x * self.keep


def sampling(subject: Subject) -> Numbers:
    """Return what averaging over `SAMPLES` thinned networks adds to accuracy, loss and calibration error.

    Gal and Ghahramani 2016, "Dropout as a Bayesian approximation": average the probabilities over dropout masks.
    Plain evaluation scales the weights instead (Srivastava et al. 2014, section 7.5, compare both). All are 0 without
    dropout.
    """
    images, labels = subject.test
    plain = probabilities(subject.network, images)
    mean = _mean_of_thinned(subject) if _dropouts(subject.network) else plain
    ece = expected_calibration_error
    return {
        "accuracy_gain_of_50": accuracy(mean, labels) - accuracy(plain, labels),
        "loss_gain_of_50": loss(mean, labels) - loss(plain, labels),
        "ece_gain_of_50": ece(mean, labels) - ece(plain, labels),
    }


def _mean_of_thinned(subject: Subject) -> Tensor:
    """Average the probabilities over thinned networks; normalisation stays in evaluation mode."""
    place = next(i for i, module in enumerate(subject.network) if isinstance(module, Dropout))
    entering, rest = _up_to(subject.network, place, subject.test[0])
    for i, dropout in enumerate(_dropouts(rest)):
        dropout.bits = stream(subject.seed, f"probe/sampling/{i}")
        dropout.train()
    total = probabilities(rest, entering).double()
    for _ in range(SAMPLES - 1):
        total += probabilities(rest, entering)
    subject.network.eval()
    return total / SAMPLES


def _dropouts(network: nn.Module) -> list[Dropout]:
    return [module for module in network.modules() if isinstance(module, Dropout)]


_LOOKS: dict[str, Callable[[Subject], Numbers]] = {
    "gradients": gradients,
    "weights": weights,
    "removal": removal,
    "sampling": sampling,
    "calibration": calibration,
}
