"""Numbers, intervals, lists and times as the pages write them."""

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal

import pandas as pd

from mnist_ablate.inference.intervals import Unit
from mnist_ablate.language import count, figures, say, say_as

NOTHING = "–"  # noqa: RUF001 # an en dash, what a table of numbers shows where there is no number
MINUS = "−"  # noqa: RUF001 # as wide as the plus


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """Write a number with a minus as wide as the plus; NaN is a dash."""
    if pd.isna(value):
        return NOTHING
    return figures(f"{value:{'+' if sign else ''}z.{digits}f}").replace("-", MINUS)


def digits_of(low: float, high: float, digits: int = 2, border: float = 0.0) -> int:
    """Return the digits to write an interval with: more where an end would read as lying elsewhere.

    Up to two more where an end that is not 0 would read as 0; up to six where it would read as on the other side of
    `border` or of its negative, or as equal to it.
    """
    distances = [(end, at) for end in (low, high) for at in (0, border, -border) if abs(end - at) > 1e-9]
    most = digits + (6 if border else 2)
    return next((n for n in range(digits, most) if all((round(e, n) - at) * (e - at) > 0 for e, at in distances)), most)


def interval(low: float, high: float, digits: int = 2, *, border: float = 0.0, sign: bool = True) -> str:
    """Write an interval, both ends with the digits of `digits_of`; NaN is a dash, and no end is a bound."""
    if pd.isna(low):
        return NOTHING
    if low > high:
        return say("empty")
    digits = digits_of(low, high, digits, border)
    if math.isinf(low) and math.isinf(high):
        return say("without ends")
    if math.isinf(high):
        return say("above {end}", end=number(low, digits, sign=sign))
    if math.isinf(low):
        return say("below {end}", end=number(high, digits, sign=sign))
    return say("{low} to {high}", low=number(low, digits, sign=sign), high=number(high, digits, sign=sign))


def estimate(value: float, low: float, high: float, digits: int = 2, *, sign: bool = True) -> str:
    """Write an estimate with as many digits as its interval has."""
    return number(value, digits if pd.isna(low) else digits_of(low, high, digits), sign=sign)


def p_value(p: float) -> str:
    """Write a p value to three digits, and a small one as a bound."""
    return NOTHING if math.isnan(p) else figures("< 0.001" if p < 0.001 else f"{p:.3f}")


def percent(share: float) -> str:
    """Write a share in percent, with at most two digits after the point."""
    return figures(f"{100 * share:.2f}".rstrip("0").rstrip(".")) + " %"


def plural(n: int, noun: str) -> str:
    """Write a count with its noun; a noun that the pages do not use is English."""
    if noun in _COUNTED:
        return _COUNTED[noun](n)
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


_COUNTED: dict[str, Callable[[int], str]] = {
    "cell": lambda n: count(n, "{n} cell", "{n} cells"),
    "claim": lambda n: count(n, "{n} claim", "{n} claims"),
    "line": lambda n: count(n, "{n} line", "{n} lines"),
    "look": lambda n: count(n, "{n} look", "{n} looks"),
    "planned run": lambda n: count(n, "{n} planned run", "{n} planned runs"),
    "run": lambda n: count(n, "{n} run", "{n} runs"),
    "run in each cell": lambda n: count(n, "{n} run in each cell", "{n} runs in each cell"),
    "seed": lambda n: count(n, "{n} seed", "{n} seeds"),
}


def heading_of(unit: Unit) -> str:
    """Name what a column counts."""
    return {"seed": say("Seeds"), "run": say("Runs"), "run in each cell": say("Runs of a cell")}[unit]


def joined(items: Iterable[object], last: Literal["and", "or"] = "and") -> str:
    """Join items as in a sentence: 'a, b and c'."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return "".join(words)
    first, end = ", ".join(words[:-1]), words[-1]
    # Some languages have another word before the same sound: Spanish says 'y', but 'e' before an i.
    sound = end[:1].lower() if not end.lower().startswith("h") else end[1:2].lower()
    if last == "and" and sound == "i":
        return say_as("before i", "{first} and {end}", first=first, end=end)
    if last == "and":
        return say("{first} and {end}", first=first, end=end)
    if sound in ("o", "8"):
        return say_as("before o", "{first} or {end}", first=first, end=end)
    return say("{first} or {end}", first=first, end=end)


def file_name(name: str) -> str:
    """Write a name, whatever characters it has, as a part of the name of a file."""
    return re.sub(r"[^\w.-]", "-", name)[:60]


def out_of(n: int, planned: int) -> str:
    """Write a count, with the planned one where it differs: '7', '6 of 7'."""
    return str(n) if n == planned else say("{n} of {planned}", n=n, planned=planned)


def seeds(numbers: Iterable[int]) -> str:
    """Write seeds in short: 'seed 3', 'seeds 0-4, 7' (with an en dash)."""
    ranges: list[list[int]] = []
    for seed in sorted(numbers):
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1].append(seed)
        else:
            ranges.append([seed])
    parts = [f"{r[0]}" if len(r) == 1 else f"{r[0]}{NOTHING}{r[-1]}" for r in ranges]
    return count(sum(map(len, ranges)), "seed {seeds}", "seeds {seeds}", seeds=", ".join(parts))


def duration(seconds: float) -> str:
    """Write a time."""
    if seconds < 60:
        return figures(f"{seconds:.1f} s")
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else figures(f"{minutes // 60:,} h {minutes % 60} min")


def time_span(times: Iterable[str]) -> str:
    """Write the first and the last of some times, to the minute."""
    times = list(times)
    try:
        moments = sorted(datetime.fromisoformat(time).astimezone(UTC) for time in times)
        first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    except ValueError:
        first, last = min(times), max(times)
    return f"{first} UTC" if first == last else say("{first} to {last} UTC", first=first, last=last)
