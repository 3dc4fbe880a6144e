"""What the settings of a run mean to the engine ``fused``, on a processor and on a card."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mnist_ablate.data import MNIST, Sizes
from mnist_ablate.design.settings import GROUPS, Settings
from mnist_ablate.design.streams import drop_threshold, stream, variant
from mnist_ablate.training.engines.kernels.constants import ADAM, BATCH_NORM, GROUP_NORM, NO_NORM, SGD
from mnist_ablate.training.engines.kernels.rooms import Floats, Network, Rule

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's


class Place(NamedTuple):
    """Where a parameter or running statistic lies: a field of a layer, and how much of it is not padding."""

    layer: int
    field: str
    rows: int
    columns: int


def parameters(settings: Settings, sizes: Sizes = MNIST) -> dict[str, Place]:
    """Return where all parameters and running statistics lie, by torch's names and in torch's order."""
    places: dict[str, Place] = {}
    inputs = [sizes.inputs, *[settings.width] * settings.depth]
    for i, rows in enumerate(inputs):
        hidden = i < settings.depth
        name, columns = (f"linear{i + 1}", settings.width) if hidden else ("output", sizes.classes)
        places |= {f"{name}.weight": Place(i, "weight", rows, columns), f"{name}.bias": Place(i, "bias", 1, columns)}
        if hidden and kind_of_norm(settings) != NO_NORM:
            fields = {"weight": "scale", "bias": "shift"}
            if settings.batch_norm:
                fields |= {"running_mean": "mean", "running_var": "variance"}
            kind = "batch" if settings.batch_norm else settings.norm
            places |= {f"{kind}_norm{i + 1}.{key}": Place(i, field, 1, columns) for key, field in fields.items()}
    return places


def kind_of_norm(settings: Settings) -> int:
    """Return the kernels' number for the normalisation."""
    kinds = {"none": NO_NORM, "layer": GROUP_NORM, "group": GROUP_NORM}
    return BATCH_NORM if settings.batch_norm else kinds[settings.norm]


def network(settings: Settings, dtype: Any, classes: int = MNIST.classes) -> Network:
    """Return the form of the network."""
    norm = kind_of_norm(settings)
    norm_after = norm != NO_NORM and settings.norm_place == "after"
    return Network(
        width=settings.width,
        classes=classes,
        norm=norm,
        groups=GROUPS if settings.norm == "group" else 1,
        norm_after=norm_after,
        drop_after=norm_after and settings.dropout_place == "after",
        shared=settings.shared_norm and settings.batch_norm,
        listed=False,
        threshold=drop_threshold(settings.dropout),
        gain=numbers(dtype, 1 / (1 - settings.dropout)),
        pixel_threshold=drop_threshold(settings.input_dropout),
        pixel_gain=numbers(dtype, 1 / (1 - settings.input_dropout)),
    )


def rule(settings: Settings, dtype: Any) -> Rule:
    """Return the optimiser's constants; those that change from step to step are empty."""
    decoupled = settings.optimiser == "adamw"
    return Rule(
        kind=SGD if settings.optimiser == "sgd" else ADAM,
        l1=numbers(dtype, settings.l1),
        decay=numbers(dtype, 0.0 if decoupled else settings.l2),
        shrink=numbers(dtype, settings.learning_rate * settings.l2 if decoupled else 0.0),
        keep_m=numbers(dtype, _BETA1),
        keep_v=numbers(dtype, _BETA2),
        new_m=numbers(dtype, 1 - _BETA1),
        new_v=numbers(dtype, 1 - _BETA2),
        rate=numbers(dtype),
        correction=numbers(dtype),
        eps=numbers(dtype, _EPS),
        still=settings.optimiser != "sgd" and settings.l1 == 0 and settings.l2 == 0,
    )


class Pace:
    """The optimiser's numbers that change from step to step.

    Powers are products, taken one by one: the C library's `pow` rounds differently from one to the next.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._powers = 1.0, 1.0  # of Adam's betas

    def take(self, steps: int) -> tuple[Sequence[float], Sequence[float]]:
        """Return `rate` and `correction` of the next steps."""
        rates, corrections, self._powers = _pace(
            self._settings.learning_rate, self._settings.optimiser, steps, self._powers
        )
        return rates, corrections


@functools.lru_cache(maxsize=64)  # runs that are trained side by side have the same
def _pace(
    learning_rate: float, optimiser: str, steps: int, powers: tuple[float, float]
) -> tuple[Sequence[float], Sequence[float], tuple[float, float]]:
    rates, corrections = [], []
    for _ in range(steps):
        power1, power2 = powers = powers[0] * _BETA1, powers[1] * _BETA2
        rates.append(learning_rate / (1 - power1 if optimiser != "sgd" else 1))
        corrections.append(1 / math.sqrt(1 - power2))
    return rates, corrections, powers


def numbers(dtype: Any, *values: float) -> Floats:
    """Return an array of numbers, each rounded once."""
    with np.errstate(over="ignore"):  # a value too large for the type becomes infinite, and the run diverges
        return np.array(values, dtype)


def streams(settings: Settings, seed: int) -> tuple[list[np.random.PCG64], list[np.random.PCG64]]:
    """Return the streams of dropout masks for training, and for evaluations in train mode: pixels, then each layer."""
    of_dropout = variant(seed, "dropout", settings.dropout_seed)
    places = ["input"] * bool(settings.input_dropout)
    places += [str(i) for i in range(1, settings.depth + 1) if settings.dropout]
    training = [stream(of_dropout, f"dropout/{place}") for place in places]
    return training, [stream(of_dropout, f"evaluation/dropout/{i}") for i in range(len(places))]
