"""What the kernels work on: parameters, lists of values that are not zero, and room for the values of a step.

All matrices lie row by row. Their rows and columns are padded with zeros to multiples of `blocks.COLUMNS`; vectors are
matrices of one row. Padding stays zero: its inputs, and so its gradients, are zero.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_ablate.training.engines.kernels.blocks import COLUMNS

Floats = NDArray[np.floating]


class Parameter(NamedTuple):
    """A parameter with Adam's moments, each (rows, columns): value, mean of gradients, mean of squared gradients."""

    value: Floats
    m: Floats
    v: Floats


class Sparse(NamedTuple):
    """The values of a matrix that are not zero, line by line.

    Line i has the values `value[start[i]:start[i + 1]]`, at the positions `at[start[i]:start[i + 1]]`.
    """

    start: NDArray[np.int64]
    at: NDArray[np.uint32]  # unsigned, or Numba would check for negative indices
    value: Floats


class Pixels(NamedTuple):
    """The pixels that are not black, image by image: a `Sparse` of bytes."""

    start: NDArray[np.int64]  # (images + 1,)
    at: NDArray[np.uint16]
    value: NDArray[np.uint8]


class Lists(NamedTuple):
    """A layer's inputs that are not zero, image by image and input by input."""

    rows: Sparse
    columns: Sparse
    seen: NDArray[np.bool_]  # (inputs,): whether an input was ever not zero


class Layer(NamedTuple):
    """A layer: its parameters, and room for the values of a step."""

    weight: Parameter  # (inputs, outputs)
    bias: Parameter  # (1, outputs)
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
    work: Floats  # (rows of a tile, outputs)


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


def zeros(rows: int, columns: int, dtype: Any) -> Floats:
    """Return zeros that begin at a cache line, as torch's do and numpy's may not.

    With vectors that straddle two lines, training takes a quarter longer.
    """
    made: Floats = torch.zeros((rows, columns), dtype=torch.from_numpy(np.empty(0, dtype)).dtype).numpy()
    return made
