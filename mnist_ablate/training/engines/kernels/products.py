"""Products of matrices: linear layers, forward and backward.

Every number of a result is one chain of fused multiply-adds in increasing index. A product with 0 changes no finite
sum, so zeros may be left out. The first layer leaves out black pixels. The others multiply whole matrices, tile by
tile, or list what is not zero, whichever this processor does faster. Both have the same bits as long as all numbers
are finite: see `steps.sound`.
"""

from mnist_ablate.training.engines.kernels.arithmetic import compiled, fma, inlined
from mnist_ablate.training.engines.kernels.blocks import (
    BAND,
    COLUMNS,
    HALF,
    LONG,
    ROWS,
    SQUARE,
    WIDE,
    flip,
    is_zero,
    load,
    load_half,
    load_long,
    load_narrow,
    load_wide,
    plus_columns,
    plus_rows,
    store,
    store_tile,
    tile_of,
)
from mnist_ablate.training.engines.kernels.optimisers import update_row


@inlined
def plus_line(total, lists, line, matrix, column):  # type: ignore[no-untyped-def]
    """Add to a block the rows of a matrix that a line lists, each times its value."""
    for k in range(lists.start[line], lists.start[line + 1]):
        total = fma(lists.value[k], load(matrix, lists.at[k], column, total), total)
    return total


@inlined
def rows_by_lists(x, n, w, j, start, out):  # type: ignore[no-untyped-def]
    """Compute as many columns of x w + start from `j` on as `start` has, with the rows of x as lists.

    All rows are multiplied by a part of these columns of w, which stays in the first cache, then by the next part.
    """
    for part in range(x.parts):
        for i in range(n):
            total = load(out, i, j, start) if part else start
            store(out, i, j, plus_line(total, x, i * x.parts + part, w, j))


@inlined
def stretches(vector):  # type: ignore[no-untyped-def]
    """Return where the columns end that long blocks cover, those that half ones cover too, and all."""
    columns = vector.shape[1]
    return columns // LONG * LONG, columns // HALF * HALF, columns


@compiled
def multiply_lists(x, n, weight, bias, z):  # type: ignore[no-untyped-def]
    """Compute z = x W + b, with the rows of x as lists."""
    long, half, columns = stretches(bias)
    for j in range(0, long, LONG):
        rows_by_lists(x, n, weight, j, load_long(bias, 0, j), z)
    for j in range(long, half, HALF):
        rows_by_lists(x, n, weight, j, load_half(bias, 0, j), z)
    for j in range(half, columns, COLUMNS):
        rows_by_lists(x, n, weight, j, load_narrow(bias, 0, j), z)


@inlined
def rows_times(x, i, w, j, start):  # type: ignore[no-untyped-def]
    """Return the tile x w + start, of the rows of x from `i` on and as many columns of w from `j` on as `start` has."""
    tile = tile_of(start)
    for k in range(w.shape[0]):
        tile = plus_rows(tile, x, i, k, load(w, k, j, start))
    return tile


@inlined
def columns_times(x, n, p, dz, j, start):  # type: ignore[no-untyped-def]
    """Return the tile x' dz + start, of the columns of x from `p` on and those of dz from `j` on, over `n` rows."""
    tile = tile_of(start)
    for i in range(n):
        tile = plus_columns(tile, x, i, p, load(dz, i, j, start))
    return tile


@compiled
def multiply(x, n, w, start, out):  # type: ignore[no-untyped-def]
    """Compute out = x w + start for `n` rows of x, and for the rest of their last tile."""
    columns, wide = start.shape[1], start.shape[1] // WIDE * WIDE
    for j in range(0, wide, WIDE):
        for i in range(0, n, ROWS):
            store_tile(out, i, j, rows_times(x, i, w, j, load_wide(start, 0, j)))
    for j in range(wide, columns, COLUMNS):
        for i in range(0, n, ROWS):
            store_tile(out, i, j, rows_times(x, i, w, j, load_narrow(start, 0, j)))


@compiled
def transpose(matrix, out):  # type: ignore[no-untyped-def]
    """Write the transpose of a matrix."""
    for i in range(0, matrix.shape[0], SQUARE):
        for j in range(0, out.shape[0], SQUARE):
            flip(matrix, i, j, out)


@inlined
def columns_by_lists(x, band, j, start, dz, out):  # type: ignore[no-untyped-def]
    """Compute as many columns of x' dz + start as `start` has, for a band of the columns of x, which are lists."""
    for p in band:
        store(out, p % BAND, j, plus_line(start, x, p, dz, j))


@compiled
def update_from_lists(layer, rule):  # type: ignore[no-untyped-def]
    """Compute dW = x' dz, with the columns of x as lists, and update the weights.

    A block of columns of dz stays in the first cache for a band of rows of dW.
    """
    dz, x, seen, none, work = layer.dz, layer.lists.columns, layer.lists.seen, layer.none, layer.work
    long, half, columns = stretches(none)
    for first in range(0, len(seen), BAND):
        band = range(first, min(first + BAND, len(seen)))
        for j in range(0, long, LONG):
            columns_by_lists(x, band, j, load_long(none, 0, j), dz, work)
        for j in range(long, half, HALF):
            columns_by_lists(x, band, j, load_half(none, 0, j), dz, work)
        for j in range(half, columns, COLUMNS):
            columns_by_lists(x, band, j, load_narrow(none, 0, j), dz, work)
        for p in band:
            if seen[p] or not rule.still:  # otherwise the moments are 0, and the step would be
                update_row(layer.weight, p, work, p % BAND, rule)


@compiled
def update(layer, n, rule):  # type: ignore[no-untyped-def]
    """Compute dW = x' dz and update the weights."""
    weight, dz, x, none, work = layer.weight, layer.dz, layer.x, layer.none, layer.work
    columns, wide = none.shape[1], none.shape[1] // WIDE * WIDE
    for p in range(0, weight.value.shape[0], ROWS):
        for j in range(0, wide, WIDE):
            store_tile(work, 0, j, columns_times(x, n, p, dz, j, load_wide(none, 0, j)))
        for j in range(wide, columns, COLUMNS):
            store_tile(work, 0, j, columns_times(x, n, p, dz, j, load_narrow(none, 0, j)))
        for r in range(ROWS):
            update_row(weight, p + r, work, r, rule)


@compiled
def all_finite(matrix):  # type: ignore[no-untyped-def]
    """Return whether every number is finite."""
    total = load_narrow(matrix, 0, 0)
    total = total - total  # 0 unless there is NaN or infinity
    for i in range(matrix.shape[0]):
        for j in range(0, matrix.shape[1], COLUMNS):
            total = fma(matrix.dtype.type(0), load_narrow(matrix, i, j), total)
    return is_zero(total)
