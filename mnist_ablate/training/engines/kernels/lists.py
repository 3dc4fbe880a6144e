"""Lists of the inputs of a layer that are not zero: pixels that are not black, hidden units that are active."""

import numpy as np

from mnist_ablate.training.engines.kernels.arithmetic import compiled, inner
from mnist_ablate.training.engines.kernels.blocks import PART


@compiled
def list_pixels(words, images, found):  # type: ignore[no-untyped-def]
    """List the pixels of images, uint8 (N, pixels), that are not black; `words` has the same, 8 pixels a word."""
    k, parts = 0, found.parts
    for i in range(len(images)):
        for part in range(parts):
            found.start[i * parts + part] = k
            for w in range(part * PART // 8, min((part + 1) * PART // 8, words.shape[1])):
                for p in range(8 * w, 8 * w + 8 if words[i, w] else 0):
                    # Always written, and kept if not black: cheaper than a branch that is hard to predict.
                    found.at[k] = p
                    found.value[k] = images[i, p]
                    k += images[i, p] != 0
    found.start[len(images) * parts] = k


@inner
def gather(pixels, rows, found):  # type: ignore[no-untyped-def]
    """List the pixels of some images, scaled to [0, 1]: pixel / 255, rounded once."""
    white, k, parts = found.value.dtype.type(255), 0, pixels.parts
    for i in range(len(rows)):
        line = rows[i] * parts
        first, stop = pixels.start[line], pixels.start[line + parts]
        for part in range(parts):
            found.start[i * parts + part] = k + pixels.start[line + part] - first
        at, value = pixels.at[first:stop], pixels.value[first:stop]
        to, scaled = found.at[k : k + stop - first], found.value[k : k + stop - first]
        for q in range(len(at)):
            to[q] = at[q]
        for q in range(len(at)):
            scaled[q] = value[q] / white
        k += len(at)
    found.start[len(rows) * parts] = k


@inner
def drop_pixels(found, n, words, threshold, gain):  # type: ignore[no-untyped-def]
    """Drop pixels from the lists of `n` images where their word is below the threshold; scale the others up."""
    k, parts = 0, found.parts
    for line in range(n * parts):
        first, found.start[line] = found.start[line], k
        for q in range(first, found.start[line + 1]):
            found.at[k] = found.at[q]
            found.value[k] = found.value[q] * gain
            k += words[line // parts, found.at[q]] >= threshold
    found.start[n * parts] = k


@compiled
def list_units(x, n, found):  # type: ignore[no-untyped-def]
    """List the values that are not zero in each of the first `n` rows of `x`; NaN is not zero."""
    k, parts = np.uint64(0), found.parts  # unsigned, or Numba would check whether it is negative
    for i in range(n):
        for part in range(parts):
            found.start[i * parts + part] = k
            row = x[i, part * PART : (part + 1) * PART]
            for j in range(len(row)):
                found.at[k], found.value[k] = part * PART + j, row[j]
                k += np.uint64(row[j] != 0)
    found.start[n * parts] = k


@compiled
def list_columns(lists, n):  # type: ignore[no-untyped-def]
    """List the same values input by input: a counting sort of the lists of `n` images."""
    rows, start, at, value = lists.rows, lists.columns.start, lists.columns.at, lists.columns.value
    last, parts = len(start) - 1, rows.parts
    start[:] = 0
    for k in range(rows.start[n * parts]):
        start[rows.at[k] + 1] += 1
    for j in range(last):
        lists.seen[j] |= start[j + 1] > 0
        start[j + 1] += start[j]
    for i in range(n):
        for k in range(rows.start[i * parts], rows.start[(i + 1) * parts]):
            place = start[rows.at[k]]
            at[place] = i
            value[place] = rows.value[k]
            start[rows.at[k]] = place + 1
    for j in range(last, 0, -1):  # each has moved to the start of the next one's
        start[j] = start[j - 1]
    start[0] = 0
