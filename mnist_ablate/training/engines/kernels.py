"""The parts of a training step of the fused engine, compiled by Numba and cached on disk.

They share one file, because Numba compiles a cached function again only when the function's own file has changed.

Most pixels of a digit are black, and ReLU and dropout set more than half of the hidden units to zero. So every layer
takes its inputs as a list of the values that are not zero and multiplies only those: about a third of the arithmetic
of dense matrix products, with the same sums.

Notation: a batch of n rows; a layer has inputs x (n, inputs), weights W (inputs, outputs), biases b, linear outputs
z = x W + b, and, if it is hidden, x' = relu(dropout(norm(z))) as the inputs of the next one. d... is the gradient of
the mean loss. All arrays have one floating-point type, and so have constants: otherwise Numba would compute in float64.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, overload, register_model
from numpy.typing import NDArray

from mnist_ablate.training.engines.compilation import cached_njit

Floats = NDArray[np.floating]

BN_EPS = 1e-5
BN_MOMENTUM = 0.1
"""As `torch.nn.BatchNorm1d` has them."""

# A product and a sum may become one instruction that rounds once; all else is IEEE arithmetic.
_compiled = cached_njit(error_model="numpy", fastmath={"contract"})
# For functions of blocks (see below), which are fast only when inlined.
_inlined = cached_njit(error_model="numpy", fastmath={"contract"}, forceinline=True)
# Sums of products along a row may also be reordered, so that the lanes of a vector add up side by side.
_reordered = cached_njit(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


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


class Layer(NamedTuple):
    """A layer: its parameters, and room for the values of a step. Vectors are matrices of one row."""

    weight: Parameter  # (inputs, outputs); in the output layer (outputs, inputs)
    bias: Parameter  # (1, outputs)
    scale: Parameter  # (1, outputs), of the normalisation, as the next three
    shift: Parameter  # (1, outputs)
    mean: Floats  # (1, outputs), running
    variance: Floats  # (1, outputs), running
    x: Floats  # (n, inputs); empty in the first layer, whose rows are listed from the images
    rows: Sparse  # x, row by row
    columns: Sparse  # x, column by column
    z: Floats  # (n, outputs)
    normed: Floats  # (n, outputs): z with mean 0 and variance 1 over the batch
    spread: Floats  # (1, outputs): 1 / standard deviation over the batch
    dz: Floats  # (n, outputs)
    row: Floats  # one row of a gradient, or a vector of outputs


class Adam(NamedTuple):
    """Adam's constants, each an array of one value so that it has the type of the others."""

    decay: Floats  # weight decay
    keep_m: Floats  # beta1
    keep_v: Floats  # beta2
    new_m: Floats  # 1 - beta1, rounded once: in float32 it differs from 1 minus the rounded beta1
    new_v: Floats  # 1 - beta2
    rate: Floats  # learning rate / (1 - beta1 ** t)
    correction: Floats  # 1 / sqrt(1 - beta2 ** t)
    eps: Floats


# ---- Blocks: many columns at once ----
#
# A loop over columns that the compiler vectorises still loads and stores its sums every few rows. A block is one value
# instead, of 64 float32 or 32 float64: it stays in registers until the sum is complete, and Adam uses it there. It
# takes four 512-bit registers or eight of 256; LLVM splits it as the processor needs.

_BLOCK_BITS = 8 * 256
_CONTRACT = ("contract",)
_intrinsic: Callable[..., Any] = intrinsic  # with its own type, mypy would ask callers for Numba's hidden argument
_declared: Callable[..., Any] = cgutils.get_or_insert_function


class BlockType(types.Type):
    """Numba's type of a block of numbers of one floating-point type."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"Block({dtype})")
        self.dtype = dtype
        self.lanes = _BLOCK_BITS // dtype.bitwidth


@register_model(BlockType)
class _BlockModel(PrimitiveModel):
    """A block is an LLVM vector."""

    def __init__(self, manager: Any, block: BlockType) -> None:
        vector = ir.VectorType(manager.lookup(block.dtype).get_value_type(), block.lanes)
        super().__init__(manager, block, vector)  # type: ignore[no-untyped-call]


def _place(context: Any, builder: Any, matrix_type: Any, arguments: Any) -> Any:
    """Return a pointer to the block at (matrix, row, column)."""
    matrix, row, column = arguments
    made = context.make_array(matrix_type)(context, builder, matrix)
    offset = builder.add(builder.mul(row, builder.extract_value(made.shape, 1)), column)
    vector = context.get_value_type(BlockType(matrix_type.dtype))
    return builder.bitcast(builder.gep(made.data, [offset]), vector.as_pointer())


@_intrinsic
def load(_typing: Any, matrix: Any, row: Any, column: Any) -> Any:  # noqa: ARG001  # Numba passes types
    """Return the block that begins at a row and column of a matrix, which lies row by row in memory."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = builder.load(_place(context, builder, signature.args[0], arguments))
        block.align = matrix.dtype.bitwidth // 8
        return block

    return BlockType(matrix.dtype)(matrix, types.intp, types.intp), emit


@_intrinsic
def store(_typing: Any, matrix: Any, row: Any, column: Any, block: Any) -> Any:  # noqa: ARG001
    """Store a block at a row and column of a matrix."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, value = arguments
        builder.store(value, _place(context, builder, signature.args[0], place)).align = matrix.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(matrix, types.intp, types.intp, block), emit


@_intrinsic
def spread(_typing: Any, number: Any) -> Any:
    """Return a block filled with one number."""
    block = BlockType(number)

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(context.get_value_type(block), ir.Undefined)
        first = builder.insert_element(nothing, arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), block.lanes), None))

    return block(number), emit


def _arithmetic(operation: Callable[..., Any], instruction: str) -> None:
    """Teach Numba an operation on two blocks, or on a block and a number."""

    @_intrinsic
    def compute(_typing: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
        def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=_CONTRACT)

        return a(a, a), emit

    @overload(operation)
    def choose(a, b):  # type: ignore[no-untyped-def]
        if isinstance(a, BlockType) and isinstance(b, BlockType):
            return lambda a, b: compute(a, b)
        if isinstance(a, BlockType):
            return lambda a, b: compute(a, spread(b))
        return (lambda a, b: compute(spread(a), b)) if isinstance(b, BlockType) else None


for _operation, _instruction in {
    operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"
}.items():  # fmt: skip
    _arithmetic(_operation, _instruction)


@_intrinsic
def _root(_typing: Any, a: Any) -> Any:
    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(a)
        name, kind = f"llvm.sqrt.v{a.lanes}{vector.element.intrinsic_name}", ir.FunctionType(vector, [vector])
        return builder.call(_declared(builder.module, kind, name), arguments)

    return a(a), emit


@overload(math.sqrt)
def _root_of_block(a):  # type: ignore[no-untyped-def]
    return (lambda a: _root(a)) if isinstance(a, BlockType) else None


@_inlined
def blocks(matrix):  # type: ignore[no-untyped-def]
    """Return the number of columns in a block, and the number of columns of the matrix that lie in whole blocks."""
    columns = _BLOCK_BITS // (8 * matrix.itemsize)
    return columns, matrix.shape[1] // columns * columns


# ---- A step of training ----


@_compiled
def train_steps(pixels, labels, batches, layers, words, threshold, keep, norm, adam, losses):  # type: ignore[no-untyped-def]
    """Take a step on each batch until a loss is not finite, and return the number of steps taken.

    Parameters
    ----------
    pixels, labels
        All images, and their labels, int64 (N,).
    batches
        Rows of the images, int64 (steps, n).
    layers
        A tuple of `Layer`, whose parameters are updated.
    words, threshold, keep
        Dropout: for each hidden layer words, uint16 (steps, n, outputs). A unit is kept where its word is at least
        `threshold`, and then divided by `keep`, an array of one value. A threshold of 0 means no dropout.
    norm
        Whether hidden layers are batch-normalised.
    adam
        The constants; `rate` and `correction` have a value for each step.
    losses
        Receives the mean loss before each step, in nats, float64 (steps,).
    """
    for s in range(len(batches)):
        now = Adam(
            adam.decay, adam.keep_m, adam.keep_v, adam.new_m, adam.new_v,
            adam.rate[s : s + 1], adam.correction[s : s + 1], adam.eps,
        )  # fmt: skip
        losses[s] = train_step(pixels, labels, batches[s], layers, words, s, threshold, keep, norm, now)
        if not math.isfinite(losses[s]):
            return s + 1
    return len(batches)


@_compiled
def train_step(pixels, labels, batch, layers, words, s, threshold, keep, norm, adam):  # type: ignore[no-untyped-def]
    """Take step `s`, on the rows `batch` (n,), and return its loss; `adam` has the constants of this step."""
    n, last = len(batch), len(layers) - 1
    forward(pixels, batch, layers, words, s, threshold, keep, norm, True)
    output = layers[last]
    loss = softmax_loss(output.z, labels, batch, output.dz)
    back_through_output(output, n, threshold, keep[0], layers[last - 1].dz)
    update_output(output, n, adam)
    for i in range(last - 1, -1, -1):
        layer = layers[i]
        if norm:
            back_through_norm(layer, n, adam)
        if i > 0:
            back_through(layer, n, threshold, keep[0], layers[i - 1].dz)
        find_columns(layer.rows, n, layer.columns)
        update_weight(layer, adam)
        update_bias(layer, n, norm, adam)
    return loss


@_compiled
def forward(pixels, batch, layers, words, s, threshold, keep, norm, training):  # type: ignore[no-untyped-def]
    """Compute the outputs of all layers, in training or evaluation mode; other arguments as for `train_step`."""
    n, last = len(batch), len(layers) - 1
    gather(pixels, batch, layers[0].rows)
    for i in range(last):
        layer = layers[i]
        if i > 0:
            find_rows(layer.x, n, layer.rows)
        multiply(layer.rows, n, layer.weight.value, layer.bias.value, layer.z)
        if norm and training:
            normalise(layer, n)
        elif norm:
            normalise_running(layer, n)
        activate(layer, n, norm, words[i][s], threshold, keep[0], layers[i + 1].x)
    multiply_output(layers[last], n)


@_compiled
def list_pixels(words, images, found):  # type: ignore[no-untyped-def]
    """List the pixels of images, uint8 (N, pixels), that are not black; `words` has the same, 8 pixels a word."""
    k = 0
    for i in range(len(images)):
        found.start[i] = k
        for w in range(words.shape[1]):
            for p in range(8 * w, 8 * w + 8 if words[i, w] else 0):
                found.at[k] = p  # always written, as in find_rows
                found.value[k] = images[i, p]
                k += images[i, p] != 0
    found.start[len(images)] = k


@_compiled
def gather(pixels, batch, found):  # type: ignore[no-untyped-def]
    """List the pixels of the images in a batch, scaled to [0, 1]: pixel / 255, rounded as a division."""
    white, k = found.value.dtype.type(255), 0
    for i in range(len(batch)):
        found.start[i] = k
        first, stop = pixels.start[batch[i]], pixels.start[batch[i] + 1]
        at, value = pixels.at[first:stop], pixels.value[first:stop]
        to, scaled = found.at[k : k + stop - first], found.value[k : k + stop - first]
        for q in range(len(at)):
            to[q] = at[q]
        for q in range(len(at)):
            scaled[q] = value[q] / white
        k += len(at)
    found.start[len(batch)] = k


@_compiled
def find_rows(x, n, found):  # type: ignore[no-untyped-def]
    """List the values that are not zero in each of the first `n` rows of `x`."""
    k = 0
    for i in range(n):
        found.start[i] = k
        for j in range(x.shape[1]):
            # Always written, and kept if not zero: cheaper than a branch that is hard to predict. NaN is not zero.
            found.at[k] = j
            k += x[i, j] != 0
        for q in range(found.start[i], k):
            found.value[q] = x[i, found.at[q]]
    found.start[n] = k


@_compiled
def find_columns(rows, n, found):  # type: ignore[no-untyped-def]
    """List the same values column by column: a counting sort of the `n` lines of `rows`."""
    start, columns = found.start, len(found.start) - 1
    start[:] = 0
    for k in range(rows.start[n]):
        start[rows.at[k] + 1] += 1
    for j in range(columns):
        start[j + 1] += start[j]
    for i in range(n):
        for k in range(rows.start[i], rows.start[i + 1]):
            place = start[rows.at[k]]
            found.at[place] = i
            found.value[place] = rows.value[k]
            start[rows.at[k]] = place + 1
    for j in range(columns, 0, -1):  # each has moved to the start of the next column
        start[j] = start[j - 1]
    start[0] = 0


@_inlined
def block_of_lines(sparse, i, matrix, column, total):  # type: ignore[no-untyped-def]
    """Add to `total` the blocks at `column` of the matrix rows that line `i` of `sparse` lists, times its values."""
    k, stop, at, value = sparse.start[i], sparse.start[i + 1], sparse.at, sparse.value
    while k + 4 <= stop:
        total = total + (
            value[k] * load(matrix, at[k], column)
            + value[k + 1] * load(matrix, at[k + 1], column)
            + value[k + 2] * load(matrix, at[k + 2], column)
            + value[k + 3] * load(matrix, at[k + 3], column)
        )
        k += 4
    while k < stop:
        total = total + value[k] * load(matrix, at[k], column)
        k += 1
    return total


@_compiled
def rest_of_lines(sparse, i, matrix, column, total):  # type: ignore[no-untyped-def]
    """Do the same for all columns from `column` on, too few for a block; `total` is a vector."""
    k, stop = sparse.start[i], sparse.start[i + 1]
    while k + 4 <= stop:
        a, b, c, d = sparse.value[k], sparse.value[k + 1], sparse.value[k + 2], sparse.value[k + 3]
        row_a, row_b = matrix[sparse.at[k], column:], matrix[sparse.at[k + 1], column:]
        row_c, row_d = matrix[sparse.at[k + 2], column:], matrix[sparse.at[k + 3], column:]
        for j in range(len(total)):
            total[j] += a * row_a[j] + b * row_b[j] + c * row_c[j] + d * row_d[j]
        k += 4
    while k < stop:
        a, row_a = sparse.value[k], matrix[sparse.at[k], column:]
        for j in range(len(total)):
            total[j] += a * row_a[j]
        k += 1


@_compiled
def multiply(x, n, weight, bias, z):  # type: ignore[no-untyped-def]
    """Compute z = x W + b."""
    block, whole = blocks(z)
    for i in range(n):
        for j in range(0, whole, block):
            store(z, i, j, block_of_lines(x, i, weight, j, load(bias, 0, j)))
        if whole < z.shape[1]:
            z[i, whole:] = bias[0, whole:]
            rest_of_lines(x, i, weight, whole, z[i, whole:])


@_compiled
def normalise(layer, n):  # type: ignore[no-untyped-def]
    """Normalise z over the batch, and move the running mean and (unbiased) variance towards those of the batch.

    normed = (z - mean) / sqrt(variance + eps), with the batch's own mean and biased variance (Ioffe and Szegedy
    2015, algorithm 1).
    """
    z, normed, spread, mean = layer.z, layer.normed, layer.spread[0], layer.row[0]
    one = z.dtype.type(1)
    eps, momentum, count = z.dtype.type(BN_EPS), z.dtype.type(BN_MOMENTUM), z.dtype.type(n)
    column_means(z, n, mean)
    spread[:] = 0
    for i in range(n):
        for j in range(len(mean)):
            normed[i, j] = z[i, j] - mean[j]
            spread[j] += normed[i, j] * normed[i, j]
    for j in range(len(mean)):
        layer.mean[0, j] += momentum * (mean[j] - layer.mean[0, j])
        layer.variance[0, j] += momentum * (spread[j] / (count - one) - layer.variance[0, j])
        spread[j] = one / math.sqrt(spread[j] / count + eps)
    for i in range(n):
        for j in range(len(mean)):
            normed[i, j] *= spread[j]


@_compiled
def column_means(matrix, n, out):  # type: ignore[no-untyped-def]
    """Write the mean of each column over the first `n` rows to `out`."""
    out[:] = 0
    for i in range(n):
        for j in range(len(out)):
            out[j] += matrix[i, j]
    for j in range(len(out)):
        out[j] /= out.dtype.type(n)


@_compiled
def activate(layer, n, norm, words, threshold, keep, out):  # type: ignore[no-untyped-def]
    """Compute out = relu(dropout(scale * normed + shift)), or relu(dropout(z)) without normalisation."""
    zero, scale, shift = out.dtype.type(0), layer.scale.value[0], layer.shift.value[0]
    for i in range(n):
        for j in range(layer.z.shape[1]):
            y = layer.normed[i, j] * scale[j] + shift[j] if norm else layer.z[i, j]
            out[i, j] = zero if y <= zero else y  # NaN stays NaN, so a run that diverged shows
        if threshold > 0:
            for j in range(layer.z.shape[1]):
                out[i, j] = out[i, j] / keep if words[i, j] >= threshold else zero


@_compiled
def softmax_loss(logits, labels, batch, d_logits):  # type: ignore[no-untyped-def]
    """Return the mean cross-entropy, and write its gradient (softmax - one-hot) / n to `d_logits`."""
    n, total = len(batch), 0.0
    count = logits.dtype.type(n)
    for i in range(n):
        row, d_row, label = logits[i], d_logits[i], labels[batch[i]]
        highest, together = row.max(), logits.dtype.type(0)
        for j in range(len(row)):
            d_row[j] = math.exp(row[j] - highest)
            together += d_row[j]
        total += math.log(together) + highest - row[label]
        for j in range(len(row)):
            d_row[j] /= together * count
        d_row[label] -= logits.dtype.type(1) / count
    return total / n


@_reordered
def dot(a, b):  # type: ignore[no-untyped-def]
    """Return the sum of the products of two vectors."""
    total = a.dtype.type(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@_compiled
def back_through(layer, n, threshold, keep, d_before):  # type: ignore[no-untyped-def]
    """Compute dx = dz W' through ReLU and dropout: only where x is not zero, and divided by `keep` there."""
    x, weight = layer.rows, layer.weight.value
    for i in range(n):
        d_before[i] = 0
        for k in range(x.start[i], x.start[i + 1]):
            d = dot(layer.dz[i], weight[x.at[k]])
            d_before[i, x.at[k]] = d / keep if threshold > 0 else d


@_compiled
def multiply_output(layer, n):  # type: ignore[no-untyped-def]
    """Compute z = x W + b for the output layer, with its weight stored as (outputs, inputs).

    It has so few outputs that dense products along its inputs are faster.
    """
    for i in range(n):
        for c in range(layer.z.shape[1]):
            layer.z[i, c] = layer.bias.value[0, c] + dot(layer.x[i], layer.weight.value[c])


@_compiled
def back_through_output(layer, n, threshold, keep, d_before):  # type: ignore[no-untyped-def]
    """Compute dx = dz W' through ReLU and dropout for the output layer."""
    zero = keep - keep
    for i in range(n):
        d = d_before[i]
        d[:] = 0
        for c in range(layer.z.shape[1]):
            dz, weight = layer.dz[i, c], layer.weight.value[c]
            for j in range(len(d)):
                d[j] += dz * weight[j]
        for j in range(len(d)):
            through = d[j] / keep if threshold > 0 else d[j]
            d[j] = zero if layer.x[i, j] == zero else through


@_compiled
def update_output(layer, n, adam):  # type: ignore[no-untyped-def]
    """Compute dW = x' dz and db = sum of dz for the output layer; Adam uses each at once."""
    gradient = layer.row[0, : layer.x.shape[1]]
    for c in range(layer.z.shape[1]):
        gradient[:] = 0
        for i in range(n):
            dz, x = layer.dz[i, c], layer.x[i]
            for j in range(len(gradient)):
                gradient[j] += dz * x[j]
        adam_step(layer.weight, c, 0, gradient, adam)
    update_bias(layer, n, False, adam)


@_compiled
def back_through_norm(layer, n, adam):  # type: ignore[no-untyped-def]
    """Turn dz from the gradient of (scale * normed + shift) into that of z; update scale and shift.

    dz = scale * spread * (dy - mean(dy) - normed * mean(dy * normed)) (Ioffe and Szegedy 2015, section 3).
    """
    dz, normed, scale = layer.dz, layer.normed, layer.scale.value[0]
    d_shift, d_scale = layer.row[0], layer.z[0]  # this step no longer needs z
    count = dz.dtype.type(n)
    d_shift[:] = 0
    d_scale[:] = 0
    for i in range(n):
        for j in range(len(scale)):
            d_shift[j] += dz[i, j]
            d_scale[j] += dz[i, j] * normed[i, j]
    for i in range(n):
        for j in range(len(scale)):
            centred = dz[i, j] - d_shift[j] / count - normed[i, j] * (d_scale[j] / count)
            dz[i, j] = scale[j] * layer.spread[0, j] * centred
    adam_step(layer.scale, 0, 0, d_scale, adam)
    adam_step(layer.shift, 0, 0, d_shift, adam)


@_compiled
def update_weight(layer, adam):  # type: ignore[no-untyped-def]
    """Compute dW = x' dz block by block; Adam uses each while it is in registers."""
    weight, none = layer.weight, spread(layer.dz.dtype.type(0))
    block, whole = blocks(layer.dz)
    for p in range(weight.value.shape[0]):
        for j in range(0, whole, block):
            gradient = block_of_lines(layer.columns, p, layer.dz, j, none)
            adam_block(weight, p, j, gradient, adam)
        if whole < layer.dz.shape[1]:
            gradient = layer.row[0, whole:]
            gradient[:] = 0
            rest_of_lines(layer.columns, p, layer.dz, whole, gradient)
            adam_step(weight, p, whole, gradient, adam)


@_compiled
def update_bias(layer, n, normed, adam):  # type: ignore[no-untyped-def]
    """Compute db = the sum of dz over the batch; 0 before a normalisation, which subtracts the bias again.

    There the sum would be nothing but rounding error, which Adam would blow up to full steps.
    """
    gradient = layer.row[0, : layer.dz.shape[1]]
    gradient[:] = 0
    if not normed:
        for i in range(n):
            for j in range(len(gradient)):
                gradient[j] += layer.dz[i, j]
    adam_step(layer.bias, 0, 0, gradient, adam)


@_inlined
def adam_of(value, m, v, gradient, adam):  # type: ignore[no-untyped-def]
    """Return updated numbers or blocks (Kingma and Ba 2015, algorithm 1; weight decay added to the gradient)."""
    g = gradient + adam.decay[0] * value
    m = adam.keep_m[0] * m + adam.new_m[0] * g
    v = adam.keep_v[0] * v + adam.new_v[0] * g * g
    return value - adam.rate[0] * m / (math.sqrt(v) * adam.correction[0] + adam.eps[0]), m, v


@_inlined
def adam_block(parameter, row, column, gradient, adam):  # type: ignore[no-untyped-def]
    """Update a block of a parameter."""
    value, m, v = parameter.value, parameter.m, parameter.v
    new, new_m, new_v = adam_of(load(value, row, column), load(m, row, column), load(v, row, column), gradient, adam)
    store(value, row, column, new)
    store(m, row, column, new_m)
    store(v, row, column, new_v)


@_compiled
def adam_step(parameter, row, column, gradient, adam):  # type: ignore[no-untyped-def]
    """Update a row of a parameter, from a column on."""
    value, m, v = parameter.value[row, column:], parameter.m[row, column:], parameter.v[row, column:]
    for j in range(len(value)):
        value[j], m[j], v[j] = adam_of(value[j], m[j], v[j], gradient[j], adam)


@_compiled
def predict(pixels, batch, layers, words, norm, out):  # type: ignore[no-untyped-def]
    """Write the outputs in evaluation mode for the rows `batch` to `out`, (rows, outputs), batch by batch."""
    room, no_dropout = len(layers[0].z), np.int32(0)  # so `words` are not read
    for first in range(0, len(batch), room):
        part = batch[first : first + room]
        forward(pixels, part, layers, words, 0, no_dropout, layers[0].z[0], norm, False)
        out[first : first + len(part)] = layers[len(layers) - 1].z[: len(part)]


@_compiled
def normalise_running(layer, n):  # type: ignore[no-untyped-def]
    """Normalise z with the running mean and variance."""
    eps, spread = layer.z.dtype.type(BN_EPS), layer.row[0]
    for j in range(layer.z.shape[1]):
        spread[j] = math.sqrt(layer.variance[0, j] + eps)
    for i in range(n):
        for j in range(layer.z.shape[1]):
            layer.normed[i, j] = (layer.z[i, j] - layer.mean[0, j]) / spread[j]
