"""ReLU and dropout of hidden units, forward and backward."""

from mnist_ablate.training.engines.kernels.arithmetic import inner


@inner
def relu(z, n, out):  # type: ignore[no-untyped-def]
    """Compute out = max(z, 0)."""
    zero = z.dtype.type(0)
    for i in range(n):
        for j in range(z.shape[1]):
            out[i, j] = zero if z[i, j] <= zero else z[i, j]  # NaN stays NaN, so a run that diverged shows


@inner
def drop(x, n, words, threshold, gain):  # type: ignore[no-untyped-def]
    """Set units to 0 where their word is below the threshold; scale the others up."""
    zero = gain - gain
    for i in range(n):
        for j in range(words.shape[1]):
            x[i, j] = x[i, j] * gain if words[i, j] >= threshold else zero


@inner
def back_through_relu(dx, n, x, gain):  # type: ignore[no-untyped-def]
    """Turn the gradient of x = relu(dropout(z)) into that of z: where x is 0 it is 0, elsewhere scaled up by `gain`."""
    zero = gain - gain
    for i in range(n):
        for j in range(x.shape[1]):
            dx[i, j] = zero if x[i, j] == zero else dx[i, j] * gain
