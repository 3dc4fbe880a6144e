"""Softmax and cross-entropy. Sums, quotients and losses are float64, whatever the type of the network."""

from mnist_ablate.training.engines.kernels.arithmetic import exp, flushed, inner, log


@inner
def softmax_loss(logits, labels, rows, classes, d_logits):  # type: ignore[no-untyped-def]
    """Return the mean cross-entropy over a batch, and write its gradient (softmax - one-hot) / n to `d_logits`."""
    n, total = len(rows), 0.0
    for i in range(n):
        label = labels[rows[i]]
        highest, _ = largest(logits[i], classes)
        together = sum_of_exp(logits[i], classes, highest)
        total += log(together) + (highest - logits[i, label])
        for j in range(classes):
            probability = exp(logits[i, j] - highest) / together
            d_logits[i, j] = flushed(logits.dtype.type((probability - (1.0 if j == label else 0.0)) / n))
    return total / n


@inner
def judge(logits, labels, rows, classes, losses, predictions, confidences):  # type: ignore[no-untyped-def]
    """Write each image's cross-entropy, most probable class (of equals the first), and that class's probability."""
    for i in range(len(rows)):
        highest, predictions[i] = largest(logits[i], classes)
        together = sum_of_exp(logits[i], classes, highest)
        losses[i] = log(together) + (highest - logits[i, labels[rows[i]]])
        confidences[i] = 1.0 / together


@inner
def largest(row, classes):  # type: ignore[no-untyped-def]
    """Return the largest number, and its first place."""
    place = 0
    for j in range(1, classes):
        if row[j] > row[place]:
            place = j
    return float(row[place]), place


@inner
def sum_of_exp(row, classes, highest):  # type: ignore[no-untyped-def]
    """Return the sum of exp(number - highest)."""
    together = 0.0
    for j in range(classes):
        together += exp(row[j] - highest)
    return together
