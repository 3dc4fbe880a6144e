"""What the kernels work on: parameters, lists of values that are not zero, and room for the values of a step.

All matrices lie row by row. Their rows and columns are padded with zeros to multiples of `blocks.COLUMNS`; vectors are
matrices of one row. Padding stays zero: its inputs, and so its gradients, are zero. A matrix may have more columns of
padding than the vectors that go with it, which say how many columns count.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.training.engines.kernels.blocks import COLUMNS, PART

Floats = NDArray[np.floating]
_T = TypeVar("_T")

_LINE, _HUGE = 64, 2**21
"""Bytes of a cache line and of a huge page of memory."""


class Parameter(NamedTuple):
    """A parameter with Adam's moments, each (rows, columns): value, mean of gradients, mean of squared gradients."""

    value: Floats
    m: Floats
    v: Floats


class Sparse(NamedTuple):
    """The values of a matrix that are not zero, line by line.

    A line is a row or a part of one. Line i has the values `value[start[i]:start[i + 1]]`, at the positions
    `at[start[i]:start[i + 1]]` of its row. Positions are unsigned, or Numba would check for negative indices.
    """

    start: NDArray[np.uint32]
    at: NDArray[np.uint32]
    value: Floats
    parts: int  # lines of a row: each is for `blocks.PART` columns


class Pixels(NamedTuple):
    """The pixels that are not black, image by image: a `Sparse` of bytes."""

    start: NDArray[np.int64]  # (images parts + 1,)
    at: NDArray[np.uint16]
    value: NDArray[np.uint8]
    parts: int


class Lists(NamedTuple):
    """A layer's inputs that are not zero, image by image and input by input."""

    rows: Sparse
    columns: Sparse
    seen: NDArray[np.bool_]  # (inputs with padding,): whether an input was ever not zero


class Layer(NamedTuple):
    """A layer: its parameters, and room for the values of a step."""

    weight: Parameter  # (inputs, outputs)
    bias: Parameter  # (1, outputs)
    none: Floats  # (1, outputs): zeros
    scale: Parameter  # (1, outputs), of the normalisation, as the next five
    shift: Parameter  # (1, outputs)
    mean: Floats  # (1, outputs), running
    variance: Floats  # (1, outputs), running
    d_scale: Floats  # (1, outputs): gradients, which layers that share a normalisation add up
    d_shift: Floats  # (1, outputs)
    x: Floats  # (n, inputs); empty in the first layer, whose inputs are listed from the images
    lists: Lists
    z: Floats  # (n, outputs): linear outputs; with a normalisation after the activation, its inputs
    normed: Floats  # (n, outputs): with mean 0 and variance 1
    spread: Floats  # 1 / standard deviation: (1, outputs) over the batch, or (n, groups) over groups of units
    dz: Floats  # (n, outputs)
    flipped: Floats  # (outputs, inputs): the weights transposed; empty in the first layer
    work: Floats  # (blocks.BAND, outputs)


class Network(NamedTuple):
    """The form of a network, the same for all its layers.

    Dropout keeps a unit where its random word is at least the threshold, and multiplies it by the gain, an array of
    one value. A threshold of 0 means no dropout.
    """

    width: int  # outputs of a hidden layer, without padding
    classes: int  # outputs of the last layer
    norm: int  # NO_NORM, BATCH_NORM or GROUP_NORM
    groups: int  # groups of units that GROUP_NORM normalises
    norm_after: bool  # the normalisation comes after the activation, not before
    drop_after: bool  # dropout comes after the activation, and after a normalisation there
    shared: bool  # all hidden layers have one normalisation
    listed: bool  # hidden layers, too, list what is not zero: faster on some processors, with the same bits
    threshold: int  # of hidden units
    gain: Floats
    pixel_threshold: int  # of pixels
    pixel_gain: Floats


class Words(NamedTuple):
    """Random words for the dropout of some steps; empty where there is no dropout."""

    pixels: NDArray[np.uint16]  # (steps, n, pixels)
    units: tuple[NDArray[np.uint16], ...]  # for each hidden layer (steps, n, outputs)


class Rule(NamedTuple):
    """The rule of the optimiser: its constants are arrays of one value, so that they have the type of the others."""

    kind: int  # ADAM or SGD
    l1: Floats  # weight of the L1 penalty
    decay: Floats  # weight decay that is added to the gradient
    shrink: Floats  # weight decay apart from the gradient (AdamW), times the learning rate
    keep_m: Floats  # beta1
    keep_v: Floats  # beta2
    new_m: Floats  # 1 - beta1, rounded once: in float32 it differs from 1 minus the rounded beta1
    new_v: Floats  # 1 - beta2
    rate: Floats  # learning rate, with Adam / (1 - beta1**t)
    correction: Floats  # 1 / sqrt(1 - beta2**t)
    eps: Floats
    still: bool  # a parameter whose gradient was always 0 stays as it is: no penalty moves it


def padded(size: int) -> int:
    """Return the next multiple of `blocks.COLUMNS`."""
    return -(-size // COLUMNS) * COLUMNS


def parts(columns: int) -> int:
    """Return how many lines a `Sparse` has for each row of so many columns."""
    return -(-columns // PART)


def room(rows: int, columns: int, dtype: Any) -> Floats:
    """Return a matrix of zeros, padded to whole tiles, and rows to an odd number of cache lines.

    A cache places what is a power of two apart in the same few lines: without this, a block of columns would push
    itself out.
    """
    columns = padded(columns)
    if columns * np.dtype(dtype).itemsize // _LINE % 2 == 0:
        columns += COLUMNS
    return np.zeros((padded(rows), columns), dtype)


def together(tree: _T) -> _T:
    """Return a tree of tuples with its arrays moved to one block of memory, each to the beginning of a cache line.

    Vectors that straddle two cache lines cost a quarter more time. The block begins at a huge page, which NumPy asks
    the system for from 4 MiB on: finding small pages costs a hundredth of a step.
    """
    arrays = {id(array): array for array in _arrays(tree)}  # some may be in several places
    sizes = [-(-array.nbytes // _LINE) * _LINE for array in arrays.values()]
    block = np.zeros(sum(sizes) + 2 * _HUGE, np.uint8)
    first = -block.ctypes.data % _HUGE
    moved = {}
    for (key, array), size in zip(arrays.items(), sizes, strict=True):
        moved[key] = block[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        moved[key][...] = array
        first += size
    made: _T = _replaced(tree, moved)
    return made


def _arrays(tree: Any) -> Iterator[NDArray[Any]]:
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, tuple):
        for part in tree:
            yield from _arrays(part)


def _replaced(tree: Any, moved: Mapping[int, NDArray[Any]]) -> Any:
    if isinstance(tree, np.ndarray):
        return moved[id(tree)]
    if not isinstance(tree, tuple):
        return tree
    made = [_replaced(part, moved) for part in tree]
    return type(tree)(*made) if hasattr(tree, "_fields") else tuple(made)
