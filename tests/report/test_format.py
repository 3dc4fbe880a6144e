"""Numbers, intervals, lists and times are written as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_ablate.report import format as fmt
from mnist_ablate.report.format import MINUS, NOTHING


@given(st.floats(-1000, 1000), st.integers(0, 4))
def test_numbers_read_back(value: float, digits: int) -> None:
    """A number reads back to its digits, with a wide minus, and is never minus zero."""
    text = fmt.number(value, digits, sign=True)
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.500001 * 10**-digits)  # noqa: RUF001
    assert "-" not in text
    assert not (text.startswith("−") and float(text[1:]) == 0)  # noqa: RUF001


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (fmt.number(math.nan), NOTHING),
        (fmt.interval(math.nan, math.nan), NOTHING),
        (fmt.interval(-0.5, 1), "−0.50 to +1.00"),  # noqa: RUF001
        (fmt.interval(-0.253, -0.0009), "−0.253 to −0.001"),  # noqa: RUF001  # all of it is below 0
        (fmt.interval(0, 0.00049), "+0.0000 to +0.0005"),
        (fmt.p_value(math.nan), NOTHING),
        (fmt.p_value(0.0009), "< 0.001"),
        (fmt.p_value(0.001), "0.001"),
        (fmt.percent(0.05), "5 %"),
        (fmt.percent(1 - 0.05 / 9), "99.44 %"),
        (fmt.percent(1.0), "100 %"),
        (fmt.plural(1, "run"), "1 run"),
        (fmt.plural(1200, "run"), "1,200 runs"),
        (fmt.joined([]), ""),
        (fmt.joined(["a"]), "a"),
        (fmt.joined("abc", "or"), "a, b or c"),
        (fmt.out_of(3, 3), "3"),
        (fmt.out_of(2, 3), "2 of 3"),
        (fmt.seeds([7]), "seed 7"),
        (fmt.seeds([4, 0, 1, 2, 7]), f"seeds 0{NOTHING}2, 4, 7"),
        (fmt.duration(59.94), "59.9 s"),
        (fmt.duration(60), "1 min"),
        (fmt.duration(3600 * 1234), "1,234 h 0 min"),
                        (fmt.time_span(["some day"]), "some day UTC"),
        (fmt.time_span(["2025-01-01T01:30:00+01:00"] * 2), "2025-01-01 00:30 UTC"),
    ],
)  # fmt: skip
def test_short_forms(written: str, text: str) -> None:
    """Numbers, intervals, shares, lists, seeds and times have the form that readers expect; NaN is a dash."""
    assert written == text


@given(st.floats(-2, 2), st.floats(0, 1), st.integers(0, 4))
def test_both_ends_of_an_interval_and_its_estimate_have_the_same_digits(low: float, width: float, digits: int) -> None:
    """An interval and its estimate have equally many digits, at least those asked for and at most two more."""
    high = low + width
    ends = fmt.interval(low, high, digits).split(" to ")
    written = [*ends, fmt.estimate((low + high) / 2, low, high, digits)]
    lengths = {len(text.partition(".")[2]) for text in written}
    assert len(lengths) == 1
    assert digits <= lengths.pop() <= digits + 2


@pytest.mark.parametrize(("low", "high"), [(0.0009, 0.2), (-0.2, -0.0009), (0.004, 0.006)])
def test_an_end_that_is_not_zero_does_not_read_as_zero(low: float, high: float) -> None:
    """An interval on one side of 0 is written with enough digits to say so."""
    ends = [float(end.replace(MINUS, "-")) for end in fmt.interval(low, high).split(" to ")]
    assert all(end > 0 for end in ends) or all(end < 0 for end in ends)
    assert (low > 0) == (ends[0] > 0)
