"""The optimisers: Adam, AdamW and plain gradient descent, with L2 and L1 penalties."""

from mnist_ablate.training.engines.kernels.arithmetic import compiled, flushed, flushed_square, fma, inlined, root
from mnist_ablate.training.engines.kernels.blocks import COLUMNS, WIDE, load, load_narrow, load_wide, signs, store
from mnist_ablate.training.engines.kernels.constants import SGD


@inlined
def update_row(parameter, row, gradient, of, rule):  # type: ignore[no-untyped-def]
    """Update a row of a parameter; its gradient is row `of` of a matrix, which may be changed.

    An L1 penalty (Tibshirani 1996) adds its weight times the sign of the parameter to the gradient.
    """
    columns, wide = gradient.shape[1], gradient.shape[1] // WIDE * WIDE
    if rule.still:
        for j in range(0, wide, WIDE):
            adam(parameter, row, j, load_wide(gradient, of, j), rule, None)
        for j in range(wide, columns, COLUMNS):
            adam(parameter, row, j, load_narrow(gradient, of, j), rule, None)
        return
    if rule.l1[0] > 0:
        for j in range(0, columns, COLUMNS):
            sign = signs(load_narrow(parameter.value, row, j))
            store(gradient, of, j, fma(rule.l1[0], sign, load_narrow(gradient, of, j)))
    if rule.kind == SGD:
        for j in range(0, columns, COLUMNS):
            value = load_narrow(parameter.value, row, j)
            g = fma(rule.decay[0], value, load_narrow(gradient, of, j))
            store(parameter.value, row, j, flushed(fma(-rule.rate[0], g, value)))
        return
    for j in range(0, wide, WIDE):
        adam(parameter, row, j, load_wide(gradient, of, j), rule, rule)
    for j in range(wide, columns, COLUMNS):
        adam(parameter, row, j, load_narrow(gradient, of, j), rule, rule)


@inlined
def adam(parameter, row, column, gradient, rule, decays):  # type: ignore[no-untyped-def]
    """Update a block of a parameter and its moments by Adam (Kingma and Ba 2015, algorithm 1).

    g = gradient + decay value, m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g**2, and
    value - rate m / (sqrt(v) correction + eps). AdamW (Loshchilov and Hutter 2019) subtracts shrink value besides.
    Without weight decay `decays` is None, and no value becomes tiny.
    """
    value, g = load(parameter.value, row, column, gradient), gradient
    if decays is not None:
        g = fma(rule.decay[0], value, gradient)
    m = fma(rule.new_m[0], g, rule.keep_m[0] * load(parameter.m, row, column, gradient))
    v = fma(rule.new_v[0] * g, g, rule.keep_v[0] * load(parameter.v, row, column, gradient))
    step = rule.rate[0] * m / fma(rule.correction[0], root(v), rule.eps[0])
    if decays is None:  # noqa: SIM108  # Numba drops the branch that is not taken from a statement alone
        value = value - step
    else:
        value = flushed(value - fma(rule.shrink[0], value, step))
    store(parameter.value, row, column, value)
    store(parameter.m, row, column, flushed(m))
    store(parameter.v, row, column, flushed_square(v))


@compiled
def update_vector(parameter, gradient, rule):  # type: ignore[no-untyped-def]
    """Update a parameter of one row."""
    update_row(parameter, 0, gradient, 0, rule)
