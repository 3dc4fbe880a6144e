"""The arithmetic of the kernels for arrays of numpy, as `training.arithmetic` has it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.training.engines.compilation import cache_folder, load_or_compile
from mnist_ablate.training.engines.kernels.arithmetic import compiled
from mnist_ablate.training.engines.kernels.arithmetic import exp as exp_of
from mnist_ablate.training.engines.kernels.arithmetic import log as log_of
from mnist_ablate.training.engines.kernels.products import multiply
from mnist_ablate.training.engines.kernels.rooms import Floats, padded


def affine(matrix: Floats, vector: Floats) -> Callable[[Floats], Floats]:
    """Return the function that maps x (n, inputs) to x W + b, of a matrix W (inputs, outputs) and a vector b."""
    inputs, outputs = matrix.shape
    w, b = _in_room(matrix, inputs, padded(outputs)), _in_room(vector[None], 1, padded(outputs))

    def apply(x: Floats) -> Floats:
        n, whole = len(x), padded(len(x))
        out = np.empty((whole, w.shape[1]), w.dtype)
        multiply(np.ascontiguousarray(x) if n == whole else _in_room(x, whole, inputs), n, w, b, out)
        return out[:n, :outputs]

    return apply


def exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential of each number."""
    return _each(_exp_each, x)


def log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the natural logarithm of each number; all are positive and normal."""
    return _each(_log_each, x)


@compiled
def _exp_each(x, out):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        out[i] = exp_of(x[i])


@compiled
def _log_each(x, out):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        out[i] = log_of(x[i])


def _each(kernel: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty(x.shape)
    kernel(np.ascontiguousarray(x).reshape(-1), out.reshape(-1))
    return out


def _in_room(values: Floats, rows: int, columns: int) -> Floats:
    room = np.zeros((rows, columns), values.dtype)
    room[: len(values), : values.shape[1]] = values
    return room


def _call_kernels() -> None:
    one = np.ones((1, 1), np.float32)
    affine(one, one[0])(one)
    log(exp(np.ones(1)))


load_or_compile(_call_kernels, cache_folder())  # once in a process
