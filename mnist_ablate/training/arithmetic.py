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


def exact_mean(values: Sequence[float] | Doubles) -> float:
    """Return the mean of some numbers, whose sum is correctly rounded."""
    return exact_sum(values) / len(values)


def exact_sum(values: Sequence[float] | Doubles) -> float:
    """Return the sum of some numbers, rounded once, as `math.fsum` does; of an array it takes a fraction of the time.

    Leading bits of all numbers are split off, so few that adding them up needs no rounding in any order, then those of
    what is left (Rump, Ogita and Oishi 2008, "Accurate floating-point summation part I: faithful rounding", SIAM
    Journal on Scientific Computing 31). `math.fsum` adds up these sums.
    """
    if not isinstance(values, np.ndarray):
        return math.fsum(values)
    sums, rest = [], values
    while (largest := np.abs(rest).max(initial=0.0)) > _SMALL:
        if not largest < _LARGE:  # infinity and NaN, too
            return math.fsum(values.tolist())
        whole = 2.0 ** (math.frexp(largest)[1] + len(rest).bit_length() + 1)
        leading = (whole + rest) - whole
        sums.append(float(leading.sum()))
        rest = rest - leading
    return math.fsum([*sums, *rest[rest != 0].tolist()])


_SMALL, _LARGE = 2.0**-900, 2.0**900
"""Between them no step of `exact_sum` overflows, or has bits below the smallest number, flushed to 0 or not."""


def total(values: Floats) -> Floats:
    """Add up along the first axis, in an order that is fixed: halves are added to each other, again and again."""
    while len(values) > 1:
        half = len(values) // 2
        values = np.concatenate([values[:half] + values[half : 2 * half], values[2 * half :]])
    return np.asarray(values[0])
