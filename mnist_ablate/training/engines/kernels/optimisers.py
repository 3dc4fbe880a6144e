"""The optimisers: Adam, AdamW and plain gradient descent, with L2 and L1 penalties."""

from mnist_ablate.training.engines.kernels.arithmetic import compiled, flushed, fma, inlined, root
from mnist_ablate.training.engines.kernels.blocks import COLUMNS, load, load_narrow, signs, store
from mnist_ablate.training.engines.kernels.rooms import SGD


@inlined
def updated(value, m, v, gradient, rule):  # type: ignore[no-untyped-def]
    """Return blocks of a parameter and its moments after a step.

    Adam (Kingma and Ba 2015, algorithm 1): g = gradient + decay value, m = beta1 m + (1 - beta1) g,
    v = beta2 v + (1 - beta2) g**2, value - rate m / (sqrt(v) correction + eps). AdamW (Loshchilov and Hutter 2019)
    subtracts shrink value besides. Gradient descent: value - rate g. An L1 penalty (Tibshirani 1996) adds its weight
    times the sign of the value to the gradient.
    """
    g = gradient
    if rule.l1[0] > 0:
        g = fma(rule.l1[0], signs(value), g)
    g = fma(rule.decay[0], value, g)
    if rule.kind == SGD:
        return flushed(fma(-rule.rate[0], g, value)), m, v
    m = fma(rule.new_m[0], g, rule.keep_m[0] * m)
    v = fma(rule.new_v[0] * g, g, rule.keep_v[0] * v)
    step = rule.rate[0] * m / fma(rule.correction[0], root(v), rule.eps[0])
    return flushed(value - fma(rule.shrink[0], value, step)), flushed(m), flushed(v)


@inlined
def update_block(parameter, row, column, gradient, rule):  # type: ignore[no-untyped-def]
    """Update a block of a parameter."""
    value, m, v = parameter.value, parameter.m, parameter.v
    new, new_m, new_v = updated(
        load(value, row, column, gradient), load(m, row, column, gradient), load(v, row, column, gradient), gradient, rule
    )
    store(value, row, column, new)
    store(m, row, column, new_m)
    store(v, row, column, new_v)


@compiled
def update_vector(parameter, gradient, rule):  # type: ignore[no-untyped-def]
    """Update a parameter of one row, from its gradient (1, columns)."""
    for j in range(0, gradient.shape[1], COLUMNS):
        update_block(parameter, 0, j, load_narrow(gradient, 0, j), rule)
