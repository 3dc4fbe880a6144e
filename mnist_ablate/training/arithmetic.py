"""What numpy leaves to libraries and processors: products of matrices, exponentials, logarithms, and sums.

Its additions, products, quotients and square roots, number by number, have the same bits everywhere.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]


class Arithmetic(NamedTuple):
    """Functions of arrays.

    Parameters
    ----------
    affine
        Takes a matrix W (inputs, outputs) and a vector b, and returns the function that maps x (n, inputs) to x W + b.
    exp, log
        Of each number; those for `log` are positive.
    """

    affine: Callable[[Floats, Floats], Callable[[Floats], Floats]]
    exp: Callable[[Doubles], Doubles]
    log: Callable[[Doubles], Doubles]


def arithmetic(engine: str) -> Arithmetic:
    """Return the arithmetic of an engine; that of ``fused`` has the same bits on every machine."""
    if engine == "fused":
        from mnist_ablate.training.engines.kernels import arrays  # needs Numba, which is optional

        return Arithmetic(arrays.affine, arrays.exp, arrays.log)
    return Arithmetic(_affine, np.exp, np.log)


def _affine(matrix: Floats, vector: Floats) -> Callable[[Floats], Floats]:
    w, b = torch.tensor(matrix), torch.tensor(vector)
    return lambda x: torch.addmm(b, torch.from_numpy(x), w).numpy()


def exact_mean(values: Sequence[float]) -> float:
    """Return the mean of some numbers, whose sum is correctly rounded."""
    return math.fsum(values) / len(values)


def total(values: Floats) -> Floats:
    """Add up along the first axis, in an order that is fixed: halves are added to each other, again and again."""
    while len(values) > 1:
        half = len(values) // 2
        values = np.concatenate([values[:half] + values[half : 2 * half], values[2 * half :]])
    return np.asarray(values[0])
