"""Normalisations: batch normalisation, and layer and group normalisation, forward and backward.

All compute normed = (z - mean) / sqrt(variance + eps), with the biased variance, and then scale normed + shift.
"""

from mnist_ablate.training.engines.kernels.arithmetic import flushed, fma, inner, root
from mnist_ablate.training.engines.kernels.constants import BATCH_NORM, EPS, MOMENTUM


@inner
def normalise(layer, n, network, training):  # type: ignore[no-untyped-def]
    """Normalise z to `normed`."""
    if network.norm != BATCH_NORM:
        normalise_groups(layer.z, n, layer.normed, layer.spread, network.width, network.groups)
    elif training:
        normalise_batch(layer, n)
    else:
        normalise_running(layer, n)


@inner
def normalise_batch(layer, n):  # type: ignore[no-untyped-def]
    """Normalise over the batch, and move the running mean and (unbiased) variance towards those of the batch.

    Ioffe and Szegedy 2015, algorithm 1. One image has no unbiased variance: the running one stays.
    """
    z, normed, spread, mean = layer.z, layer.normed, layer.spread[0], layer.work[0]
    one = z.dtype.type(1)
    eps, momentum, count = z.dtype.type(EPS), z.dtype.type(MOMENTUM), z.dtype.type(n)
    mean[:] = 0
    for i in range(n):
        for j in range(len(mean)):
            mean[j] += z[i, j]
    for j in range(len(mean)):
        mean[j] /= count
    spread[:] = 0
    for i in range(n):
        for j in range(len(mean)):
            normed[i, j] = z[i, j] - mean[j]
            spread[j] = fma(normed[i, j], normed[i, j], spread[j])
    for j in range(len(mean)):
        layer.mean[0, j] = flushed(fma(momentum, mean[j] - layer.mean[0, j], layer.mean[0, j]))
        if n > 1:
            variance = layer.variance[0, j]
            layer.variance[0, j] = flushed(fma(momentum, spread[j] / (count - one) - variance, variance))
        spread[j] = one / root(spread[j] / count + eps)
    for i in range(n):
        for j in range(len(mean)):
            normed[i, j] *= spread[j]


@inner
def normalise_running(layer, n):  # type: ignore[no-untyped-def]
    """Normalise with the running mean and variance."""
    spread, one, eps = layer.work[0], layer.z.dtype.type(1), layer.z.dtype.type(EPS)
    for j in range(len(spread)):
        spread[j] = one / root(layer.variance[0, j] + eps)
    for i in range(n):
        for j in range(len(spread)):
            layer.normed[i, j] = (layer.z[i, j] - layer.mean[0, j]) * spread[j]


@inner
def normalise_groups(z, n, normed, spread, width, groups):  # type: ignore[no-untyped-def]
    """Normalise each image over all units (Ba, Kiros and Hinton 2016), or over groups of them (Wu and He 2018)."""
    one, size = z.dtype.type(1), width // groups
    eps, count = z.dtype.type(EPS), z.dtype.type(size)
    for i in range(n):
        for g in range(groups):
            total = variance = z.dtype.type(0)
            for j in range(g * size, (g + 1) * size):
                total += z[i, j]
            mean = total / count
            for j in range(g * size, (g + 1) * size):
                normed[i, j] = z[i, j] - mean
                variance = fma(normed[i, j], normed[i, j], variance)
            spread[i, g] = one / root(variance / count + eps)
            for j in range(g * size, (g + 1) * size):
                normed[i, j] *= spread[i, g]


@inner
def scale_and_shift(layer, n, out):  # type: ignore[no-untyped-def]
    """Compute out = scale normed + shift."""
    scale, shift = layer.scale.value[0], layer.shift.value[0]
    for i in range(n):
        for j in range(len(scale)):
            out[i, j] = fma(scale[j], layer.normed[i, j], shift[j])


@inner
def back_through_norm(layer, n, network):  # type: ignore[no-untyped-def]
    """Turn dz from the gradient of (scale normed + shift) into that of z; add those of scale and shift to their sums.

    With dn = scale dy: dz = spread (dn - mean(dn) - normed mean(dn normed)), with means over what was normalised
    together (Ioffe and Szegedy 2015, section 3). Over a batch, scale is the same for all and comes before the bracket.
    """
    dz, normed, scale = layer.dz, layer.normed, layer.scale.value[0]
    d_shift, d_scale = layer.work[0], layer.work[1]
    d_shift[:] = 0
    d_scale[:] = 0
    for i in range(n):
        for j in range(len(scale)):
            d_shift[j] += dz[i, j]
            d_scale[j] = fma(dz[i, j], normed[i, j], d_scale[j])
    for j in range(len(scale)):
        layer.d_scale[0, j] += d_scale[j]
        layer.d_shift[0, j] += d_shift[j]
    if network.norm == BATCH_NORM:
        back_through_batch(layer, n, d_scale, d_shift)
    else:
        back_through_groups(layer, n, network.width, network.groups)


@inner
def back_through_batch(layer, n, d_scale, d_shift):  # type: ignore[no-untyped-def]
    """Turn dz into the gradient of z where a batch was normalised together."""
    dz, normed, scale, spread = layer.dz, layer.normed, layer.scale.value[0], layer.spread[0]
    count = dz.dtype.type(n)
    for j in range(len(scale)):
        d_scale[j] /= count
        d_shift[j] /= count
    for i in range(n):
        for j in range(len(scale)):
            centred = fma(-normed[i, j], d_scale[j], dz[i, j] - d_shift[j])
            dz[i, j] = scale[j] * spread[j] * centred


@inner
def back_through_groups(layer, n, width, groups):  # type: ignore[no-untyped-def]
    """Turn dz into the gradient of z where groups of an image's units were normalised together."""
    dz, normed, scale = layer.dz, layer.normed, layer.scale.value[0]
    size = width // groups
    count = dz.dtype.type(size)
    for i in range(n):
        for g in range(groups):
            total = along = dz.dtype.type(0)
            for j in range(g * size, (g + 1) * size):
                dz[i, j] *= scale[j]
                total += dz[i, j]
                along = fma(dz[i, j], normed[i, j], along)
            mean, of_normed = total / count, along / count
            for j in range(g * size, (g + 1) * size):
                dz[i, j] = layer.spread[i, g] * fma(-normed[i, j], of_normed, dz[i, j] - mean)
