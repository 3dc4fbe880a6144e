"""The kernels' own arithmetic: each operation rounds as it says, in numbers, blocks and tiles, and sums are chains."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines.fused import _layer, _lists, _row
from mnist_ablate.training.engines.kernels import arithmetic, blocks
from mnist_ablate.training.engines.kernels.blocks import BAND, COLUMNS, PART, load_narrow, store
from mnist_ablate.training.engines.kernels.constants import SGD, TINY
from mnist_ablate.training.engines.kernels.lists import list_columns, list_units
from mnist_ablate.training.engines.kernels.products import (
    all_finite,
    multiply,
    multiply_lists,
    transpose,
    update,
    update_from_lists,
)
from mnist_ablate.training.engines.kernels.rooms import Layer, Parameter, Rule, padded, room
from mnist_ablate.training.model import linear

Array = NDArray[Any]
INFINITY, NAN = math.inf, math.nan
LN2 = math.log(2)
FLOATS = [np.float32, np.float64]
RANDOM = np.random.default_rng(0)


def applied(function: Any) -> Callable[..., Array]:
    """Return a compiled function of numbers as one of arrays of them, which writes to its last argument."""

    @njit(error_model="numpy")
    def apply(numbers, out):  # type: ignore[no-untyped-def]
        for i in range(len(numbers)):
            out[i] = function(numbers[i])

    def on_arrays(numbers: Array) -> Array:
        out = np.empty_like(numbers)
        apply(numbers, out)
        return out

    return on_arrays


exp, log = applied(arithmetic.exp), applied(arithmetic.log)


def ulps(found: Array, function: Any, numbers: Array) -> float:
    """Return the largest error of a function, in units in the last place of the exact result."""
    with mpmath.workprec(120):
        exact = [function(mpmath.mpf(float(number))) for number in numbers]
        errors = (abs(mpmath.mpf(float(y)) - x) / math.ulp(float(x)) for y, x in zip(found, exact, strict=True))
        return float(max(errors))


def around(numbers: Array, steps: int = 3) -> Array:
    """Return numbers and their neighbours."""
    below = above = numbers
    found = [numbers]
    for _ in range(steps):
        below, above = np.nextafter(below, -INFINITY), np.nextafter(above, INFINITY)
        found += [below, above]
    return np.concatenate(found)


# ---- Exponential and logarithm ----

EXPONENTS = {
    "random": RANDOM.uniform(-708, 709, 20_000),
    "near 0": RANDOM.uniform(-1, 1, 20_000),
    "tiny": np.ldexp(RANDOM.uniform(-1, 1, 2_000), RANDOM.integers(-1074, 0, 2_000)),
    # Between two of these, the same power of 2 is taken out.
    "halves of ln 2": around((np.arange(-1021, 1023) + 0.5) * LN2, 2),
    "multiples of ln 2": around(np.arange(-1020, 1023) * LN2, 1),
    "integers": np.arange(-708.0, 710.0),
    "ends": np.array([-708.0, np.nextafter(-708, 0), -0.0, 0.0, np.nextafter(709, 0), 709.0]),
}


@pytest.mark.parametrize("numbers", EXPONENTS.values(), ids=EXPONENTS)
def test_exponentials_are_within_a_unit(numbers: Array) -> None:
    """Each e**x is less than 1 unit in the last place from the exact value, everywhere from -708 to 709."""
    assert ulps(exp(numbers), mpmath.exp, numbers) < 1


@njit(error_model="numpy")
def exp_of_float32(numbers, out):  # type: ignore[no-untyped-def]
    """Write e**x of float32 numbers to float64 ones, as a softmax does."""
    for i in range(len(numbers)):
        out[i] = arithmetic.exp(numbers[i])


@pytest.mark.parametrize(
    ("low", "high", "worst", "bound"),
    [
        (-1, 0, -0.99055964, 2.6e-8),
        (-80, -1, -79.34897, 2.8e-7),
        (-200, -80, -199.9644, 6.4e-7),
        (-708, -200, -707.9977, 2.2e-6),
    ],
)
def test_exponentials_of_float32_are_as_good_as_their_arguments(
    low: float, high: float, worst: float, bound: float
) -> None:
    """The relative error is below that of docs/arithmetic.md, and near it for the worst of all float32 arguments."""
    numbers = np.append(RANDOM.uniform(low, high, 20_000), worst).astype(np.float32)
    found = np.empty(len(numbers))
    exp_of_float32(numbers, found)
    with mpmath.workprec(120):
        pairs = zip(found.tolist(), numbers.tolist(), strict=True)
        error = max(abs(mpmath.mpf(y) / mpmath.exp(mpmath.mpf(x)) - 1) for y, x in pairs)
    assert 0.95 * bound < error < bound


def test_exponentials_beyond_both_ends() -> None:
    """Below -708 e**x is 0, above 709 infinite; it never falls at the ends, and NaN stays NaN."""
    low, high = around(np.array([-708.0]), 50), around(np.array([709.0]), 50)
    for numbers in (np.sort(low), np.sort(high), np.linspace(-750, 750, 100_001)):
        assert (np.diff(exp(numbers)[np.isfinite(exp(numbers))]) >= 0).all()
    assert (exp(np.array([-INFINITY, -1e300, -709.0, np.nextafter(-708, -709)])) == 0).all()
    assert (exp(np.array([INFINITY, 1e300, np.nextafter(709, 710)])) == INFINITY).all()
    assert np.isnan(exp(np.array([NAN, -NAN]))).all()
    assert (exp(np.array([0.0, -0.0])) == 1).all()


LOGARITHMS = {
    "softmax": RANDOM.uniform(1, 10, 20_000),
    "near 1": around(1 + np.ldexp(RANDOM.uniform(-1, 1, 5_000), RANDOM.integers(-52, -1, 5_000)), 1),
    "normal": np.ldexp(RANDOM.uniform(0.5, 1, 20_000), RANDOM.integers(-1020, 1024, 20_000)),
    "powers of 2": around(np.ldexp(1.0, np.arange(-1021, 1024)), 1),
    # Between two of these, the same power of 2 is taken out.
    "powers of 2 times the root of 1/2": around(np.ldexp(math.sqrt(0.5), np.arange(-1020, 1024)), 2),
    "integers": np.arange(2.0, 5_000),
    "ends": np.array([np.finfo(float).tiny, np.nextafter(np.finfo(float).tiny, 1), 1.1e308, np.finfo(float).max]),
}


@pytest.mark.parametrize("numbers", LOGARITHMS.values(), ids=LOGARITHMS)
def test_logarithms_are_within_a_unit(numbers: Array) -> None:
    """The logarithm of each normal number is less than 1 unit in the last place from the exact value."""
    normal = numbers[(numbers >= np.finfo(float).tiny) & np.isfinite(numbers) & (numbers != 1)]
    assert len(normal)
    assert ulps(log(normal), mpmath.log, normal) < 1


def test_logarithms_of_what_has_none() -> None:
    """The logarithm of 1 is 0; infinity and NaN stay, so a run that diverged shows."""
    assert log(np.array([1.0])) == 0
    assert log(np.array([INFINITY])) == INFINITY
    assert np.isnan(log(np.array([NAN])))


# ---- Operations on numbers ----


def rounded(exact: Fraction, dtype: Any) -> float:
    """Return an exact number rounded to nearest, ties to even; infinite where it is too large."""
    digits, least, greatest = (24, -149, 128) if dtype == np.float32 else (53, -1074, 1024)
    if not exact:
        return 0.0
    size = abs(exact)
    exponent = (
        size.numerator.bit_length() - size.denominator.bit_length()
    )  # of the last digit before the point, or 1 more
    exponent -= size < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - digits + 1, least)
    units = round(exact / unit) * unit  # Python rounds ties to even
    if abs(units) >= 2**greatest:
        return INFINITY if units > 0 else -INFINITY
    return float(units)


@pytest.mark.parametrize(("dtype", "lanes"), [(np.float32, 1), (np.float32, 16), (np.float64, 16)])
def test_multiply_add_rounds_once(dtype: Any, lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused multiply-add is the exact a b + c, rounded once: random, cancelled, tied, overflowing and subnormal.

    With `lanes` of 1, the code is that for a processor that has none.
    """
    monkeypatch.setattr(arithmetic, "vector_lanes", lambda: lanes)

    @njit
    def apply(a, b, c, out):  # type: ignore[no-untyped-def]
        for i in range(len(a)):
            out[i] = arithmetic.fma(a[i], b[i], c[i])

    digits, reach = (24, 120) if dtype == np.float32 else (53, 1000)
    eps = dtype(2.0 ** (1 - digits))
    ties = np.array([1 + eps, 1 + eps, 1 - eps / 2, 2 - eps, eps, eps * eps], dtype)

    def drawn(exponents: Array) -> Array:
        return np.ldexp(RANDOM.uniform(-2, 2, len(exponents)), exponents).astype(dtype)

    with np.errstate(all="ignore"):
        near_a, near_b, near_c = (drawn(RANDOM.integers(-6, 6, 4_000)) for _ in range(3))
        of_a, of_b = RANDOM.integers(-reach, reach, (2, 2_000))
        a = np.concatenate([near_a, near_a, drawn(of_a), ties])
        b = np.concatenate([near_b, near_b, drawn(of_b), ties])
        c = np.concatenate([near_c, -(near_a * near_b), drawn(of_a + of_b), np.full_like(ties, eps * eps)])
        apart = a * b + c
    finite = np.isfinite(c)
    a, b, c, apart = a[finite], b[finite], c[finite], apart[finite]
    found = np.empty_like(c)
    apply(a, b, c, found)
    exact = [rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), dtype)
             for x, y, z in zip(a, b, c, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(found, np.array(exact, dtype))
    assert (found != apart).sum() > 1_000


@pytest.mark.parametrize("dtype", FLOATS)
def test_small_numbers_become_zero(dtype: Any) -> None:
    """Below 2**-100 a number is stored as 0, of the sign +; from there on it stays, and so do NaN and infinity."""
    flushed, flushed_square = applied(arithmetic.flushed), applied(arithmetic.flushed_square)
    below = np.nextafter(dtype(TINY), dtype(0))
    kept = np.array([TINY, 1, np.finfo(dtype).max, INFINITY, NAN], dtype)
    small = np.array([0, below, np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal], dtype)
    for sign in (1, -1):
        np.testing.assert_array_equal(flushed(sign * kept), sign * kept)
        assert flushed(sign * small).tobytes() == np.zeros_like(small).tobytes()
    np.testing.assert_array_equal(flushed_square(kept), kept)
    assert flushed_square(small).tobytes() == np.zeros_like(small).tobytes()


# ---- Blocks and tiles ----


def matrix(rows: int, columns: int, dtype: Any, zeros: float = 0.3) -> Array:
    """Return a matrix padded as those of the kernels are, part of whose numbers are 0."""
    made = room(rows, columns, dtype)
    drawn = RANDOM.normal(size=(rows, columns))
    made[:rows, :columns] = np.where(RANDOM.random((rows, columns)) < zeros, 0, drawn)
    return made


def vector(columns: int, dtype: Any) -> Array:
    """Return a matrix of one row, padded as those of the kernels are."""
    return matrix(1, columns, dtype)[:1, : padded(columns)].copy()


@pytest.mark.parametrize("dtype", FLOATS)
def test_blocks_compute_as_numbers_do(dtype: Any) -> None:
    """Each operation on blocks gives, lane by lane, the bits of the operation on numbers; a number fills a block."""

    @njit(error_model="numpy")
    def on_blocks(a, b, c, out):  # type: ignore[no-untyped-def]
        x, y, z = load_narrow(a, 0, 0), load_narrow(b, 0, 0), load_narrow(c, 0, 0)
        store(out, 0, 0, x + y)
        store(out, 1, 0, x - y)
        store(out, 2, 0, x * y)
        store(out, 3, 0, x / y)
        store(out, 4, 0, a[0, 0] * y)
        store(out, 5, 0, arithmetic.fma(x, y, z))
        store(out, 6, 0, arithmetic.fma(a[0, 0], y, z))
        store(out, 7, 0, arithmetic.root(x))
        store(out, 8, 0, arithmetic.flushed(x))
        store(out, 9, 0, arithmetic.flushed_square(x))
        store(out, 10, 0, blocks.signs(x))
        store(out, 11, 0, blocks.load(b, 0, 0, x))

    @njit(error_model="numpy")
    def on_numbers(a, b, c, out):  # type: ignore[no-untyped-def]
        for j in range(a.shape[1]):
            x, y, z = a[0, j], b[0, j], c[0, j]
            out[0, j], out[1, j], out[2, j], out[3, j], out[4, j] = x + y, x - y, x * y, x / y, a[0, 0] * y
            out[5, j], out[6, j] = arithmetic.fma(x, y, z), arithmetic.fma(a[0, 0], y, z)
            out[7, j], out[8, j], out[9, j] = arithmetic.root(x), arithmetic.flushed(x), arithmetic.flushed_square(x)
            out[10, j], out[11, j] = (x > 0) - (x < 0) if x == x else 0, y

    a, b, c = (vector(COLUMNS, dtype) for _ in range(3))
    a[0, :8] = [0.7, TINY, TINY / 2, -TINY / 2, -0.0, INFINITY, NAN, np.finfo(dtype).smallest_subnormal]
    together, apart = np.zeros((2, 12, COLUMNS), dtype)
    on_blocks(a, b, c, together)
    on_numbers(a, b, c, apart)
    np.testing.assert_array_equal(together, apart)
    np.testing.assert_array_equal(np.signbit(together[~np.isnan(apart)]), np.signbit(apart[~np.isnan(apart)]))


@pytest.mark.parametrize("bad", [0.0, NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize("place", [(0, 0), (0, 47), (31, 0), (31, 47), (17, 20)])
def test_any_number_that_is_not_finite_is_found(bad: float, place: tuple[int, int]) -> None:
    """`all_finite` looks at every number of a matrix."""
    numbers = matrix(32, 48, np.float32)
    numbers[place] = bad
    assert all_finite(numbers) == math.isfinite(bad)


@pytest.mark.parametrize("dtype", FLOATS)
def test_transpose(dtype: Any) -> None:
    """Every number comes to its mirrored place."""
    numbers = matrix(3 * COLUMNS, 2 * COLUMNS, dtype, zeros=0)
    out = np.full((2 * COLUMNS, 3 * COLUMNS), NAN, dtype)
    transpose(numbers, out)
    np.testing.assert_array_equal(out, numbers[:, : 2 * COLUMNS].T)


@njit
def chain(x, n, w, start, out):  # type: ignore[no-untyped-def]
    """Compute x w + start as the rules have it: each number is one chain, in increasing index."""
    for i in range(n):
        for j in range(start.shape[1]):
            out[i, j] = start[0, j]
            for k in range(len(w)):
                out[i, j] = arithmetic.fma(x[i, k], w[k, j], out[i, j])


SIZES = [(n, inputs, outputs) for n in (1, 7, 20) for inputs in (1, 37, 2 * PART + 5) for outputs in (10, 150, 300)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "inputs", "outputs"), SIZES)
def test_products_are_chains(n: int, inputs: int, outputs: int, dtype: Any) -> None:
    """Whole matrices and lists give the chains of the rules, for sizes that fill no tile, no block and no part.

    Where a bias is -0, lists may give -0 for 0, which no later step tells apart.
    """
    x, w, bias = matrix(n, inputs, dtype), matrix(inputs, outputs, dtype), vector(outputs, dtype)
    bias[0, :9] = -0.0
    expected, dense, listed = np.zeros((3, len(x), w.shape[1]), dtype)
    chain(x, n, w, bias, expected)
    multiply(x, n, w, bias, dense)
    lists = _lists(len(x), inputs, dtype)
    list_units(x, n, lists.rows)
    multiply_lists(lists.rows, n, w, bias, listed)
    assert dense[:n].tobytes() == expected[:n].tobytes()
    np.testing.assert_array_equal(listed[:n], expected[:n])
    signs = np.signbit(listed[:n]) != np.signbit(expected[:n])
    assert not signs[listed[:n] != 0].any()
    assert not signs[:, 9:].any()


@pytest.mark.parametrize("width", [20, 300])
def test_padding_that_is_not_zero_has_room_in_lists(width: int) -> None:
    """Where a run diverges, infinity times 0 makes padding NaN: the lists of a layer hold it, too."""
    layer = _layer(Settings(width=width), linear(width, width, 0, "test"), np.float32, first=False)
    rows, columns, n = layer.lists.rows, layer.lists.columns, len(layer.x)
    for lists, lines in ((rows, n * rows.parts), (columns, padded(width))):
        assert len(lists.start) == lines + 1
        assert len(lists.at) == len(lists.value) > n * padded(width)
    layer.x[:, : padded(width)] = NAN
    list_units(layer.x, n, rows)
    list_columns(layer.lists, n)
    for lists in (rows, columns):
        assert lists.start[-1] == n * padded(width)
        assert np.isnan(lists.value[: lists.start[-1]]).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "inputs", "outputs"), SIZES)
def test_updates_are_chains(n: int, inputs: int, outputs: int, dtype: Any) -> None:
    """Gradients of weights, of whole matrices and of lists, are the chains of the rules, to the bit."""
    x, dz = matrix(n, inputs, dtype), matrix(n, outputs, dtype)
    none, expected = _row(outputs, dtype), room(inputs, outputs, dtype)
    chain(np.ascontiguousarray(x[:n].T), inputs, dz[:n], none, expected)
    zero, one = np.zeros(1, dtype), np.ones(1, dtype)
    rule = Rule(SGD, zero, zero, zero, zero, zero, zero, zero, -one, zero, zero, False)
    found = []
    for from_lists in (False, True):
        weight = Parameter(*np.zeros((3, *expected.shape), dtype))
        rest: Any = dict.fromkeys(Layer._fields, none)
        work = np.zeros((BAND, padded(outputs)), dtype)
        layer = Layer(
            **rest | {"weight": weight, "x": x, "dz": dz, "work": work, "lists": _lists(len(x), inputs, dtype)}
        )
        if from_lists:
            list_units(x, n, layer.lists.rows)
            list_columns(layer.lists, n)
            update_from_lists(layer, rule)
        else:
            update(layer, n, rule)
        found.append(weight.value.tobytes())
    assert found[0] == found[1] == expected.tobytes()
