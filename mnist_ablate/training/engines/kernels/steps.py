"""A step of training, and the evaluation of a network: what the engine calls."""

import math

from mnist_ablate.training.engines.kernels.activations import back_through_relu, drop, relu
from mnist_ablate.training.engines.kernels.arithmetic import compiled, inner
from mnist_ablate.training.engines.kernels.constants import BATCH_NORM, NO_NORM
from mnist_ablate.training.engines.kernels.lists import drop_pixels, gather, list_columns, list_units
from mnist_ablate.training.engines.kernels.losses import judge, softmax_loss
from mnist_ablate.training.engines.kernels.norms import back_through_norm, normalise, scale_and_shift
from mnist_ablate.training.engines.kernels.optimisers import update_vector
from mnist_ablate.training.engines.kernels.products import (
    all_finite,
    multiply,
    multiply_lists,
    transpose,
    update,
    update_from_lists,
)
from mnist_ablate.training.engines.kernels.rooms import Rule


@compiled
def train_steps(pixels, labels, batches, layers, words, network, rule, losses):  # type: ignore[no-untyped-def]
    """Take a step on each batch until a loss is not finite, and return the number of steps taken.

    Parameters
    ----------
    pixels, labels
        All images, and their labels, int64 (N,).
    batches
        Rows of the images, int64 (steps, n).
    layers
        A tuple of `Layer`, whose parameters are updated.
    words
        The random words of these steps.
    network, rule
        The form of the network, and the optimiser; `rate` and `correction` have a value for each step.
    losses
        Receives the mean loss before each step, in nats, float64 (steps,).
    """
    for s in range(len(batches)):
        now = Rule(
            rule.kind, rule.l1, rule.decay, rule.shrink, rule.keep_m, rule.keep_v, rule.new_m, rule.new_v,
            rule.rate[s : s + 1], rule.correction[s : s + 1], rule.eps, rule.still,
        )  # fmt: skip
        losses[s] = train_step(pixels, labels, batches[s], layers, words, s, network, now)
        if not math.isfinite(losses[s]):
            return s + 1
    return len(batches)


@inner
def train_step(pixels, labels, rows, layers, words, s, network, rule):  # type: ignore[no-untyped-def]
    """Take step `s`, on the images in `rows` (n,), and return its loss."""
    n, last = len(rows), len(layers) - 1
    if not sound(layers):
        return math.nan
    forward(pixels, rows, layers, words, s, network, True)
    loss = softmax_loss(layers[last].z, labels, rows, network.classes, layers[last].dz)
    for i in range(last):
        layers[i].d_scale[:] = 0
        layers[i].d_shift[:] = 0
    for i in range(last, -1, -1):
        layer = layers[i]
        if i < last:
            back_through_unit(layer, layers[i + 1].x, n, words.units[i], s, network)
            if network.norm != NO_NORM and (i == 0 or not network.shared):
                update_vector(layer.scale, layer.d_scale, rule)
                update_vector(layer.shift, layer.d_shift, rule)
        listed = i == 0 or (network.listed and i < last)
        if listed:
            list_columns(layer.lists, n)
        if i > 0:
            transpose(layer.weight.value, layer.flipped)
            if listed and network.norm == NO_NORM:  # what was not active has no gradient
                list_units(layer.dz, n, layer.lists.rows)
                multiply_lists(layer.lists.rows, n, layer.flipped, layers[i - 1].none, layers[i - 1].dz)
            else:
                multiply(layer.dz, n, layer.flipped, layers[i - 1].none, layers[i - 1].dz)
        if listed:
            update_from_lists(layer, rule)
        else:
            update(layer, n, rule)
        update_bias(layer, n, i < last and network.norm == BATCH_NORM and not network.norm_after, rule)
    return loss


@inner
def forward(pixels, rows, layers, words, s, network, training):  # type: ignore[no-untyped-def]
    """Compute the outputs of all layers, in training or evaluation mode."""
    n, last = len(rows), len(layers) - 1
    for i in range(last + 1):
        layer, lists = layers[i], layers[i].lists.rows
        if i == 0:
            gather(pixels, rows, lists)
            if training and network.pixel_threshold > 0:
                drop_pixels(lists, n, words.pixels[s], network.pixel_threshold, network.pixel_gain[0])
        else:
            unit(layers[i - 1], layer.x, n, words.units[i - 1], s, network, training)
        if i == 0 or (network.listed and i < last):
            if i > 0:
                list_units(layer.x, n, lists)
            multiply_lists(lists, n, layer.weight.value, layer.bias.value, layer.z)
        else:
            multiply(layer.x, n, layer.weight.value, layer.bias.value, layer.z)


@inner
def sound(layers):  # type: ignore[no-untyped-def]
    """Return whether weights and biases between hidden layers are finite; otherwise the run has diverged.

    Infinity times 0 is not 0, so from here on whole matrices and lists would part. A gradient that is not finite makes
    a bias so. The loss need not show it: a bias of minus infinity only silences a unit.
    """
    finite = True
    for i in range(1, len(layers) - 1):
        finite = finite and all_finite(layers[i].weight.value) and all_finite(layers[i].bias.value)
    return finite


@inner
def unit(layer, x, n, words, s, network, training):  # type: ignore[no-untyped-def]
    """Compute what follows a hidden linear layer: x = relu(dropout(norm(z))), or x = dropout(norm(relu(z))).

    ReLU comes before dropout, where either order gives the same.
    """
    drops = training and network.threshold > 0
    if network.norm == NO_NORM:
        relu(layer.z, n, x)
    elif network.norm_after:
        relu(layer.z, n, layer.z)
        if drops and not network.drop_after:
            drop(layer.z, n, words[s], network.threshold, network.gain[0])
        normalise(layer, n, network, training)
        scale_and_shift(layer, n, x)
    else:
        normalise(layer, n, network, training)
        scale_and_shift(layer, n, x)
        relu(x, n, x)
    if drops and (network.drop_after or not network.norm_after):
        drop(x, n, words[s], network.threshold, network.gain[0])


@inner
def back_through_unit(layer, x, n, words, s, network):  # type: ignore[no-untyped-def]
    """Turn dz from the gradient of x into that of z."""
    dz, gain = layer.dz, network.gain[0]
    if network.norm == NO_NORM:
        back_through_relu(dz, n, x, gain)
    elif network.norm_after:
        if network.drop_after:
            if network.threshold > 0:
                drop(dz, n, words[s], network.threshold, gain)
            gain /= gain
        back_through_norm(layer, n, network)
        back_through_relu(dz, n, layer.z, gain)
    else:
        back_through_relu(dz, n, x, gain)
        back_through_norm(layer, n, network)


@inner
def update_bias(layer, n, normed, rule):  # type: ignore[no-untyped-def]
    """Compute db = the sum of dz over the batch; 0 before batch normalisation, which subtracts the bias again.

    There the sum would be nothing but rounding error, which Adam would blow up to full steps.
    """
    gradient = layer.work[:1]
    gradient[:] = 0
    for i in range(n):
        for j in range(gradient.shape[1]):
            gradient[0, j] += layer.dz[i, j]
    if normed:
        gradient *= gradient.dtype.type(0)  # NaN stays NaN
    update_vector(layer.bias, gradient, rule)


@compiled
def answer(pixels, labels, rows, layers, words, network, training, losses, predictions, confidences):  # type: ignore[no-untyped-def]
    """Evaluate the network on the images in `rows`, as many at a time as there is room for; see `losses.judge`.

    In `training` mode, all rows are one batch, with the first of `words`.
    """
    room = len(layers[0].z)
    if not sound(layers):
        losses[:] = math.nan
        return
    for first in range(0, len(rows), room):
        part = rows[first : first + room]
        stop = first + len(part)
        forward(pixels, part, layers, words, 0, network, training)
        judge(
            layers[len(layers) - 1].z, labels, part, network.classes,
            losses[first:stop], predictions[first:stop], confidences[first:stop],
        )  # fmt: skip
