"""The floor: the dense matrix products of an epoch and its three evaluations, and nothing else.

One thread. Each product is done in the fastest of the ways that PyTorch offers: by ``torch.mm`` into a buffer that
exists (MKL, where torch is built with it), or by oneDNN, which is twice as fast as MKL on some AMD processors; with
weights and gradients (in, out) or (out, in). Activations lie in rows, as a program has them. Evaluations go in chunks
of the size that is fastest here. A program that does these products with this library takes at least that long.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from common import BATCH, CHUNK, STEPS, WIDTH, Epoch, Options, Task, main
from torch import Tensor

SIZES = (784, WIDTH, WIDTH, 10)
EVALUATED = 32_000
CHUNKS = (64, 128, 250, CHUNK, 1000)
_TRIALS = 20

Product = Callable[[], object]


def train(task: Task, options: Options) -> Iterator[Epoch | None]:
    """Multiply as often as training one model does: see `common.Train`."""
    del task
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
    """Make a matrix (inputs, outputs) that lies in memory in rows, and one in columns."""
    return [torch.rand(inputs, outputs), torch.rand(outputs, inputs).t()]


def _forward(weights: list[list[Tensor]], size: int) -> list[Product]:
    """Choose the products of a forward pass of `size` images."""
    return [_fastest(torch.rand(size, layouts[0].shape[0]), layouts) for layouts in weights]


def _step(weights: list[list[Tensor]]) -> list[Product]:
    """Choose the products of a training step: forward, gradients of weights, gradients of hidden layers."""
    x = [torch.rand(BATCH, size) for size in SIZES]
    products = _forward(weights, BATCH)
    for i in reversed(range(len(weights))):
        gradient = torch.rand(BATCH, SIZES[i + 1])
        products.append(_fastest(x[i].t(), [gradient]))
        if i > 0:
            products.append(_fastest(gradient, [weight.t() for weight in weights[i]]))
    return products


def _fastest(left: Tensor, rights: Sequence[Tensor]) -> Product:
    """Choose how to multiply `left`, (m, k), with any one of `rights`, (k, n)."""
    return min((way for right in rights for way in _ways(left, right)), key=lambda way: _seconds([way]))


def _ways(left: Tensor, right: Tensor) -> Iterator[Product]:
    for out in _both_layouts(left.shape[0], right.shape[1]):
        yield partial(torch.mm, left, right, out=out)
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        linear = torch.ops.mkldnn._linear_pointwise  # the way to oneDNN for float32
        yield lambda: linear(left, right.t(), None, "none", [], "")
        yield lambda: linear(right.t(), left, None, "none", [], "")


def _repeat(products: list[Product], times: int) -> None:
    for _ in range(times):
        for product in products:
            product()


def _seconds(products: list[Product]) -> float:
    """Take the best of five short trials."""
    _repeat(products, 2)
    trials = []
    for _ in range(5):
        began = time.perf_counter()
        _repeat(products, _TRIALS)
        trials.append(time.perf_counter() - began)
    return min(trials)


if __name__ == "__main__":
    main(train, ["floor"], lambda: {"torch": torch.__version__})
