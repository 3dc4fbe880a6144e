"""The floor: the dense matrix products of an epoch and its three evaluations, and nothing else, in one thread.

Each product is done in the fastest way that PyTorch offers: ``torch.mm`` into an existing buffer (MKL, if torch is
built with it), or oneDNN, which is twice as fast as MKL on some AMD processors; weights and gradients as (in, out) or
(out, in). Activations lie in rows, as in a program. Evaluations use the fastest chunk size. No program that does these
products with this library is faster.
"""

import itertools
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from common import BATCH, CHUNK, STEPS, WIDTH, Epoch, Task, main
from torch import Tensor

SIZES = (784, WIDTH, WIDTH, 10)
EVALUATED = 32_000
CHUNKS = (64, 128, 250, CHUNK, 1000)
_TRIALS = 20

Product = Callable[[], object]


def train(_task: Task, options: Namespace) -> Iterator[Epoch | None]:
    """Multiply as often as training one model does: see ``common.Train``."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    weights = [_both_layouts(*shape) for shape in itertools.pairwise(SIZES)]
    step = _step(weights)
    chunks = [(_forward(weights, size), size) for size in CHUNKS]
    chunk, size = min(chunks, key=lambda candidate: _seconds(candidate[0]) / candidate[1])
    yield None
    for _ in range(options.epochs):
        _repeat(step, STEPS)
        _repeat(chunk, EVALUATED // size)
        yield Epoch(np.full((1, STEPS), np.nan), {})


def _both_layouts(inputs: int, outputs: int) -> list[Tensor]:
    """Return a matrix (inputs, outputs) stored in rows, and one stored in columns."""
    return [torch.rand(inputs, outputs), torch.rand(outputs, inputs).t()]


def _forward(weights: list[list[Tensor]], size: int) -> list[Product]:
    """Return the products of a forward pass of `size` images."""
    return [_fastest(torch.rand(size, layouts[0].shape[0]), layouts) for layouts in weights]


def _step(weights: list[list[Tensor]]) -> list[Product]:
    """Return the products of a training step: forward, gradients of weights, gradients of hidden layers."""
    x = [torch.rand(BATCH, size) for size in SIZES]
    products = _forward(weights, BATCH)
    for i in reversed(range(len(weights))):
        gradient = torch.rand(BATCH, SIZES[i + 1])
        products.append(_fastest(x[i].t(), [gradient]))
        if i > 0:
            products.append(_fastest(gradient, [weight.t() for weight in weights[i]]))
    return products


def _fastest(left: Tensor, rights: Sequence[Tensor]) -> Product:
    """Return the fastest way to multiply `left`, (m, k), with any of `rights`, (k, n)."""
    return min((way for right in rights for way in _ways(left, right)), key=lambda way: _seconds([way]))


def _ways(left: Tensor, right: Tensor) -> Iterator[Product]:
    for out in _both_layouts(left.shape[0], right.shape[1]):
        yield partial(torch.mm, left, right, out=out)
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        linear = torch.ops.mkldnn._linear_pointwise  # oneDNN in float32
        yield lambda: linear(left, right.t(), None, "none", [], "")
        yield lambda: linear(right.t(), left, None, "none", [], "")


def _repeat(products: list[Product], times: int) -> None:
    for _ in range(times):
        for product in products:
            product()


def _seconds(products: list[Product]) -> float:
    """Return the best of five short trials."""
    _repeat(products, 2)
    trials = []
    for _ in range(5):
        began = time.perf_counter()
        _repeat(products, _TRIALS)
        trials.append(time.perf_counter() - began)
    return min(trials)


if __name__ == "__main__":
    main(train, ["floor"], {"torch": torch.__version__})
