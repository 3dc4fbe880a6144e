"""The operations that decide a bit beyond those of IEEE 754: fused multiply-add, exponential, logarithm, flushing.

IEEE 754 fixes the result of an addition, product, division, square root and fused multiply-add to the bit. So a
sequence of them has the same bits on every processor, if the compiler keeps to it: see the rules in the package's
docstring. The C library's `exp` and `log` differ between libraries and processors, and are not used.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mnist_ablate.training.engines.compilation import cached_njit, vector_lanes
from mnist_ablate.training.engines.kernels.constants import (
    EXP_LARGEST,
    EXP_SMALLEST,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUND,
    TINY,
)

# No `fastmath`: nothing may be contracted, reordered or replaced. A division by zero gives infinity or NaN.
_OPTIONS: dict[str, Any] = {"error_model": "numpy"}
# Only `compiled` functions can be called from Python: what that takes is a quarter of all code.
_INNER = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled = cached_njit(**_OPTIONS)
inner = cached_njit(**_INNER)
inlined = cached_njit(**_INNER, forceinline=True)

_declared: Callable[..., Any] = cgutils.get_or_insert_function
a_intrinsic: Callable[..., Any] = intrinsic  # with its own type, mypy would ask callers for Numba's hidden argument


def splat(builder: Any, number: Any, vector: Any) -> Any:
    """Emit code that fills a vector with one number."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


def call(builder: Any, name: str, kind: Any, arguments: Any) -> Any:
    """Emit a call of one of LLVM's operations on numbers, or on vectors of them; single numbers become vectors."""
    if isinstance(kind, ir.VectorType):
        suffix = f"v{kind.count}{kind.element.intrinsic_name}"
        arguments = [value if value.type == kind else splat(builder, value, kind) for value in arguments]
    else:
        suffix = kind.intrinsic_name
    of_llvm = ir.FunctionType(kind, [kind] * len(arguments))
    if name == "fma" and suffix.endswith("f32") and vector_lanes() == 1:
        return _fma_in_float64(builder, kind, arguments)
    return builder.call(_declared(builder.module, of_llvm, f"llvm.{name}.{suffix}"), arguments)


def _fma_in_float64(builder: Any, kind: Any, arguments: Any) -> Any:
    """Emit a fused multiply-add of float32 for a processor without one: ten times as fast as the C library's.

    The product is exact in float64. The sum is rounded to odd (Boldo and Melquiond 2008): if it is not exact, the error
    of TwoSum (Knuth) tells on which side the true one lies, and of the two float64 around it the odd one is taken. That
    keeps enough to round to float32 as if once, since 53 bits are more than two more than 24.
    """
    double, whole = (_like(kind, scalar) for scalar in (ir.DoubleType(), ir.IntType(64)))
    a, b, c = (builder.fpext(number, double) for number in arguments)
    product = builder.fmul(a, b)
    total = builder.fadd(product, c)
    rest = builder.fsub(total, product)
    error = builder.fadd(builder.fsub(product, builder.fsub(total, rest)), builder.fsub(c, rest))
    bits, zero = builder.bitcast(total, whole), constant(double, 0.0)
    even = builder.icmp_signed("==", builder.and_(bits, constant(whole, 1)), constant(whole, 0))
    inexact = builder.fcmp_ordered("!=", error, zero)
    beyond = builder.icmp_signed("==", builder.fcmp_ordered(">", error, zero), builder.fcmp_ordered(">", total, zero))
    step = builder.select(beyond, constant(whole, 1), constant(whole, -1))
    odd = builder.add(bits, builder.select(builder.and_(inexact, even), step, constant(whole, 0)))
    return builder.fptrunc(builder.bitcast(odd, double), kind)


def _like(kind: Any, scalar: Any) -> Any:
    return ir.VectorType(scalar, kind.count) if isinstance(kind, ir.VectorType) else scalar


def constant(kind: Any, value: float) -> Any:
    """Return a constant number, or a vector of it."""
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


@a_intrinsic
def fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:  # Numba passes types
    """Return a b + c, rounded once, of numbers, or of blocks (see `blocks`), where some may be numbers."""
    blocks = [kind for kind in (a, b, c) if not isinstance(kind, types.Number)]
    result = blocks[0] if blocks else c
    number = result.dtype if blocks else c

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return call(builder, "fma", context.get_value_type(result), arguments)

    return result(*(kind if kind in blocks else number for kind in (a, b, c))), emit


@a_intrinsic
def root(_typing: Any, a: Any) -> Any:
    """Return the square root of a number, or of each lane of a block."""

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return call(builder, "sqrt", context.get_value_type(a), arguments)

    return a(a), emit


def _flushing(size: Callable[[Any, Any, Any], Any]) -> Any:
    @a_intrinsic
    def flush(_typing: Any, a: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = context.get_value_type(a)
            small = builder.fcmp_ordered("<", size(builder, kind, arguments[0]), constant(kind, TINY))
            return builder.select(small, constant(kind, 0.0), arguments[0])

        return a(a), emit

    return flush


flushed = _flushing(lambda builder, kind, number: call(builder, "fabs", kind, [number]))
"""Return the number or block with 0 in the place of what is smaller than `TINY`; NaN stays."""
flushed_square = _flushing(lambda _builder, _kind, number: number)
"""The same for numbers that are not below 0."""


@a_intrinsic
def _from_bits(_typing: Any, bits: Any) -> Any:  # noqa: ARG001
    """Return the float64 that has the bits of an int64."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), emit


@a_intrinsic
def _to_bits(_typing: Any, number: Any) -> Any:  # noqa: ARG001
    """Return the bits of a float64 as an int64."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), emit


@inlined
def exp(x):  # type: ignore[no-untyped-def]
    """Return e**x in float64, within 1.1 units in the last place; 0 below -708, where the result is almost subnormal.

    Of a float32, r and the last sum are float32, and the relative error is below 3e-7 down to -80.

    x = k ln 2 + r with an integer k and |r| <= ln(2) / 2, so e**x = 2**k e**r, and e**r is its Taylor polynomial of
    degree 13, whose remainder is below 2**-57.
    """
    if x < EXP_SMALLEST:
        return 0.0
    if x > EXP_LARGEST:
        return x * 1e308  # infinity, also from infinity
    if x != x:  # NaN
        return x
    k = fma(x, LOG2_E, ROUND) - ROUND
    r = fma(k, -LN2_LOW, fma(k, -LN2_HIGH, x))
    q = 1 / 6227020800.0
    q = fma(q, r, 1 / 479001600.0)
    q = fma(q, r, 1 / 39916800.0)
    q = fma(q, r, 1 / 3628800.0)
    q = fma(q, r, 1 / 362880.0)
    q = fma(q, r, 1 / 40320.0)
    q = fma(q, r, 1 / 5040.0)
    q = fma(q, r, 1 / 720.0)
    q = fma(q, r, 1 / 120.0)
    q = fma(q, r, 1 / 24.0)
    q = fma(q, r, 1 / 6.0)
    q = fma(q, r, 0.5)
    e = 1.0 + fma(r * r, q, r)
    return e * _from_bits((types.int64(k) + 1023) << 52)


@inlined
def log(x):  # type: ignore[no-untyped-def]
    """Return the natural logarithm of a normal float64 above 0, within 1 unit in the last place.

    x = 2**k m with sqrt(1/2) < m < sqrt(2), and with s = (m - 1) / (m + 1), log m = 2 s + 2 s**3 / 3 + 2 s**5 / 5 + ...
    (the remainder after s**23 is below 2**-60), summed with m - 1 first, which is exact.
    """
    if not x < math.inf:  # infinity and NaN
        return x
    bits = _to_bits(x)
    k = (bits - 0x3FE6A09E667F3BCD) >> 52  # of sqrt(1/2)
    f = _from_bits(bits - (k << 52)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = 2 / 23.0
    r = fma(r, z, 2 / 21.0)
    r = fma(r, z, 2 / 19.0)
    r = fma(r, z, 2 / 17.0)
    r = fma(r, z, 2 / 15.0)
    r = fma(r, z, 2 / 13.0)
    r = fma(r, z, 2 / 11.0)
    r = fma(r, z, 2 / 9.0)
    r = fma(r, z, 2 / 7.0)
    r = fma(r, z, 2 / 5.0)
    r = fma(r, z, 2 / 3.0)
    half = 0.5 * f * f
    e = types.float64(k)
    return fma(e, LN2_HIGH, -((half - fma(s, fma(r, z, half), e * LN2_LOW)) - f))
