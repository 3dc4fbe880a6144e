"""Which of two ways to multiply is faster on this processor? Both have the same bits."""

import functools
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from mnist_ablate.training.engines.compilation import cache_folder, compiled_for, digest_of_code
from mnist_ablate.training.engines.kernels.lists import list_columns, list_units
from mnist_ablate.training.engines.kernels.products import multiply, multiply_lists, update, update_from_lists
from mnist_ablate.training.engines.kernels.rooms import Layer, Rule

_ROUNDS = 30
_WORDS = {"faster\n": True, "slower\n": False}
_ACTIVE = 0.37
"""Share of hidden units that are not zero: some 0.41 in plain training, 0.33 with dropout."""


@functools.cache
def lists_are_faster(layer: Callable[[], Layer], rule: Callable[[], Rule]) -> bool:
    """Return whether lists of active hidden units beat whole matrices here: tried once, and kept beside the kernels.

    `layer` and `rule` make a layer between hidden layers, with room for lists, and an optimiser to try them with. The
    kernels must have been compiled for them.
    """
    tried = f"{compiled_for()} {digest_of_code(Path(__file__).parent / 'kernels')}"
    folder = cache_folder()
    kept = folder / f"lists-{hashlib.sha256(tried.encode()).hexdigest()[:16]}.txt" if folder else None
    with suppress(OSError, KeyError, UnicodeDecodeError):
        if kept:
            return _WORDS[kept.read_text(encoding="utf-8")]
    faster = _try(layer(), rule())
    with suppress(OSError):
        if kept:
            kept.write_text("faster\n" if faster else "slower\n", encoding="utf-8")
    return faster


def _try(layer: Layer, rule: Rule) -> bool:
    """Time both ways in turn on random inputs; compare the least of each."""
    active(layer)
    ways = [functools.partial(way, layer, rule) for way in (by_lists, whole)]
    rounds = [[_seconds(way) for way in ways] for _ in range(_ROUNDS)]
    lists, matrices = (min(times) for times in zip(*rounds, strict=True))
    return bool(lists < matrices)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def active(layer: Layer) -> None:
    """Fill a layer with random inputs, as many of them zero as hidden units are, and random gradients."""
    random = np.random.default_rng(0)
    layer.x[:] = random.random(layer.x.shape) * (random.random(layer.x.shape) < _ACTIVE)
    layer.dz[:] = random.normal(size=layer.dz.shape)


def by_lists(layer: Layer, rule: Rule) -> None:
    """Multiply forward and backward by lists of what is not zero, and make the lists."""
    n = len(layer.x)
    list_units(layer.x, n, layer.lists.rows)
    multiply_lists(layer.lists.rows, n, layer.weight.value, layer.bias.value, layer.z)
    list_columns(layer.lists, n)
    update_from_lists(layer, rule)


def whole(layer: Layer, rule: Rule) -> None:
    """Multiply whole matrices forward and backward."""
    n = len(layer.x)
    multiply(layer.x, n, layer.weight.value, layer.bias.value, layer.z)
    update(layer, n, rule)
