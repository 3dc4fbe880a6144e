"""Probes: what a trained network shows beyond its losses, each a small function that cites its source.

A probe looks at a copy of the network in evaluation mode and has its own random streams: it changes no bit of a run,
and is not part of the run's identity. After the engine ``fused`` its numbers have the same bits on every machine, so
take sums, exponentials and logarithms from `training.arithmetic` or, where they are few, from `math.fsum`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.streams import keep_mask, permutation, stream
from mnist_ablate.training.arithmetic import Doubles, Floats, exact_mean, total
from mnist_ablate.training.perceptron import CHUNK, Change, Perceptron

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

Numbers = dict[str, float]
Labels = NDArray[np.int64]
Part = tuple[Floats, Labels]
"""Images, float32 (n, pixels) in [0, 1], and labels (n,)."""
Moments = list[tuple[Doubles, Doubles]]
"""Mean and standard deviation of each unit, (units,), layer by layer."""


@dataclass(frozen=True)
class Subject:
    """A trained network, and the images to probe it with.

    Parameters
    ----------
    network
        The trained network.
    seed
        The run's.
    sample, test
        Some training images and all test images, with their labels.
    """

    network: Perceptron
    seed: int
    sample: Part
    test: Part


def part(images: NDArray[Any], labels: Labels) -> Part:
    """Return images and labels as probes take them."""
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return images.reshape(len(images), -1).astype(np.float32) / scale, labels


def look(probes: Sequence[str], subject: Subject) -> dict[str, Numbers]:
    """Take `probes` of a trained network, except those that need its history: see `Shifts`."""
    with np.errstate(all="ignore"):  # a number that is not finite says so itself
        return {probe: _LOOKS[probe](subject) for probe in probes if probe in _LOOKS}


def _log(network: Perceptron, value: float) -> float:
    """Return the logarithm of a number; NaN unless it is above 0."""
    return network.arithmetic.log(np.array([value])).item() if value > 0 else math.nan


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
        self._movements: dict[str, list[float]] = {name: [] for name in PROBES["preactivations"]}

    def add(self, network: Perceptron, images: Floats) -> None:
        """Look at the network after one more epoch."""
        now = moments(network, images)
        for place, before in (self._before or {}).items():
            shift, spread = moved(before, now[place])
            self._movements[f"log_shift_{place}"].append(shift)
            self._movements[f"log_spread_{place}"].append(spread)
        self._before = now

    def numbers(self, network: Perceptron) -> Numbers:
        """Return the logarithms of the mean movements; NaN after a single epoch."""
        return {
            name: _log(network, exact_mean(moves)) if moves else math.nan for name, moves in self._movements.items()
        }


@np.errstate(all="ignore")
def moments(network: Perceptron, images: Floats) -> dict[str, Moments]:
    """Return the moments of hidden units over `images`: of ``linear`` outputs, and of inputs of the ``activation``."""
    by_place: dict[str, Moments] = {"linear": [], "activation": []}
    x = images
    for name in network.parts[:-1]:
        if name.startswith("relu"):
            by_place["activation"].append(_moments(x))
        x = network.apply(name, x)
        if name.startswith("linear"):
            by_place["linear"].append(_moments(x))
    return by_place


def _moments(x: Floats) -> tuple[Doubles, Doubles]:
    x = x.astype(np.float64)
    mean = total(x) / len(x)
    centred = x - mean
    return mean, np.sqrt(total(centred * centred) / len(x))


def moved(before: Moments, now: Moments) -> tuple[float, float]:
    """Return the mean over layers of the median over units of the movements of mean and spread.

    A mean over units would show only the units that L2 has shrunk to almost no spread.
    """
    shifts, spreads = [], []
    for (mean, sd), (new_mean, new_sd) in zip(before, now, strict=True):
        alive = sd > 0
        shifts.append(_median(np.abs(new_mean - mean)[alive] / sd[alive]))
        spreads.append(_median(np.abs(new_sd - sd)[alive] / sd[alive]))
    return exact_mean(shifts), exact_mean(spreads)


def _median(values: Doubles) -> float:
    ordered = np.sort(values).tolist()
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return exact_mean(middle) if middle else math.nan


# ---- Gradients and weights ----


def gradients(subject: Subject) -> Numbers:
    """Return the logarithm of the norm of the loss's gradient on the sample (Pascanu, Mikolov and Bengio 2013)."""
    squares = _squares(subject.network.gradients(*subject.sample).values())
    return {"log_gradient_norm": 0.5 * _log(subject.network, float(total(squares)))}


def weights(subject: Subject) -> Numbers:
    """Return the logarithms of the norm of all weights, without biases, and of how evenly they are spread.

    Evenness is the participation ratio (sum w^2)^2 / (n sum w^4): 1 / n where only one weight differs from zero, 1
    where all have the same size (Bell and Dean 1970, "Atomic vibrations in vitreous silica", for amplitudes).
    """
    network = subject.network
    squares = _squares(network.weights[f"{name}.weight"] for name in network.linears)
    together = total(squares)
    evenness = together * together / (len(squares) * total(squares * squares))
    log_norm = 0.5 * _log(network, float(together))
    return {"log_weight_norm": log_norm, "log_weight_evenness": _log(network, float(evenness))}


def _squares(arrays: Iterable[Floats]) -> Doubles:
    """Return the squares of all numbers of some arrays, (n,)."""
    every = np.concatenate([values.ravel() for values in arrays]).astype(np.float64)
    return every * every


# ---- Answers ----


def accuracy(answers: Floats, labels: Labels) -> float:
    """Return the share of `answers`, logits or probabilities (n, classes), that are highest for the label."""
    return _right(answers, labels) / len(labels)


def _right(answers: Floats, labels: Labels) -> int:
    return int((answers.argmax(axis=1) == labels).sum())


def loss(network: Perceptron, answers: Doubles, labels: Labels) -> float:
    """Return the mean of -log of the label's probability, in nats."""
    of_labels = np.maximum(answers[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
    return float(-total(network.arithmetic.log(of_labels)) / len(labels))


def expected_calibration_error(answers: Doubles, labels: Labels, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over equal bins of confidence, weighted by images.

    Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    confidence = answers.max(axis=1)
    of_bin = np.clip(np.ceil(confidence * bins), 1, bins)
    surplus = confidence - (answers.argmax(axis=1) == labels)
    by_bin = total(np.where(of_bin[:, None] == np.arange(1, bins + 1), surplus[:, None], 0.0))
    return math.fsum(np.abs(by_bin).tolist()) / len(labels)


def calibration(subject: Subject) -> Numbers:
    """Return the expected calibration error on the test images, a fraction."""
    network, (images, labels) = subject.network, subject.test
    return {"ece": expected_calibration_error(network.probabilities(network.outputs(images)), labels)}


def removal(subject: Subject) -> Numbers:
    """Return the accuracy lost on the test images when some percent of the units of each hidden layer output 0.

    Morcos et al. 2018, "On the importance of single directions for generalization": the units are clamped to zero,
    and nothing is scaled to make up for them. The mean over `REMOVALS` random choices; and the most that any single
    unit costs on `SINGLE` of the images.
    """
    network, (images, labels) = subject.network, subject.test
    second = network.parts.index(network.linears[1])
    hidden = network.outputs(images, stop=second)
    whole = accuracy(network.outputs(hidden, second), labels)
    lost = {}
    for share in SHARES:
        left = []
        for draw in range(REMOVALS):
            changes = _removals(network, share, subject.seed, draw)
            left.append(accuracy(network.outputs(hidden, second, changes=changes), labels))
        lost[f"accuracy_lost_{share}"] = whole - exact_mean(left)
    return lost | {"accuracy_lost_worst": _lost_without_the_worst(network, second, hidden[:SINGLE], labels[:SINGLE])}


def _removals(network: Perceptron, share: int, seed: int, draw: int) -> dict[str, Change]:
    """Remove `share` percent of the inputs of each layer; those of a smaller share are among those of a larger."""
    width = network.settings.width
    changes: dict[str, Change] = {}
    for name in network.linears[1:]:
        order = permutation(stream(seed, f"probe/removal/{draw}/{name}"), width)
        keep = np.ones(width, np.float32)
        keep[order[: round(width * share / 100)]] = 0
        changes[name] = partial(np.multiply, keep)
    return changes


def _lost_without_the_worst(network: Perceptron, place: int, x: Floats, labels: Labels) -> float:
    """Return the accuracy lost without the one unit that matters most, of all hidden layers.

    `x` has the inputs of the part at `place`. Without a unit the output of the layer above lacks what the unit adds to
    it, so only what follows is computed anew.
    """
    whole, least = _right(network.outputs(x, place), labels), len(labels)
    for name in network.linears[1:]:
        above = network.parts.index(name)
        x, place = network.outputs(x, place, above), above
        least = min(least, *_right_without_each(network, place, x, labels))
    return (whole - least) / len(labels)


def _right_without_each(network: Perceptron, place: int, x: Floats, labels: Labels) -> list[int]:
    """Return how many answers are right without each of the inputs `x` of the linear part at `place`."""
    name = network.parts[place]
    adds = np.ascontiguousarray(network.weights[f"{name}.weight"].T)
    right = [0] * len(adds)
    for first in range(0, len(x), CHUNK):
        some, of_some = x[first : first + CHUNK], labels[first : first + CHUNK]
        after = network.apply(name, some)
        for unit in range(len(adds)):
            without = after - some[:, unit, None] * adds[unit]
            right[unit] += _right(network.outputs(without, place + 1), of_some)
    return right


def sampling(subject: Subject) -> Numbers:
    """Return what averaging over `SAMPLES` thinned networks adds to accuracy, loss and calibration error.

    Gal and Ghahramani 2016, "Dropout as a Bayesian approximation": average the probabilities over dropout masks.
    Plain evaluation scales the weights instead (Srivastava et al. 2014, section 7.5, compare both). All are 0 without
    dropout.
    """
    network, (images, labels) = subject.network, subject.test
    plain = network.probabilities(network.outputs(images))
    mean = _mean_of_thinned(subject) if _dropouts(network) else plain
    ece = expected_calibration_error
    return {
        "accuracy_gain_of_50": accuracy(mean, labels) - accuracy(plain, labels),
        "loss_gain_of_50": loss(network, mean, labels) - loss(network, plain, labels),
        "ece_gain_of_50": ece(mean, labels) - ece(plain, labels),
    }


def _mean_of_thinned(subject: Subject) -> Doubles:
    """Average the probabilities over thinned networks; normalisation stays in evaluation mode."""
    network, dropouts = subject.network, _dropouts(subject.network)
    masks = [stream(subject.seed, f"probe/sampling/{i}") for i in range(len(dropouts))]
    changes = {name: _dropping(network, name, bits) for name, bits in zip(dropouts, masks, strict=True)}
    first = network.parts.index(dropouts[0])
    entering = network.outputs(subject.test[0], stop=first)
    together = np.zeros((len(entering), len(network.weights["output.bias"])))
    for _ in range(SAMPLES):
        together += network.probabilities(network.outputs(entering, first, changes=changes))
    return together / SAMPLES


def _dropouts(network: Perceptron) -> list[str]:
    return [name for name in network.parts if "dropout" in name]


def _dropping(network: Perceptron, name: str, bits: np.random.BitGenerator) -> Change:
    """Return the dropout of a part, with masks from a stream."""
    rate = network.settings.input_dropout if name == "input_dropout" else network.settings.dropout
    gain, zero = np.float32(1 / (1 - rate)), np.float32(0)
    return lambda x: np.where(keep_mask(bits, x.shape, rate), x * gain, zero)


_LOOKS: dict[str, Callable[[Subject], Numbers]] = {
    "gradients": gradients,
    "weights": weights,
    "removal": removal,
    "sampling": sampling,
    "calibration": calibration,
}
