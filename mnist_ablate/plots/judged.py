"""Picture of what several hypotheses say of one claim, each in units of its own smallest effect that matters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, Theme, ThemeName, canvas, key_style, ticks, wrapped

_ROOM = 12.0
"""Smallest effects that matter, to which the axis goes beyond the estimates; intervals are cut there."""


@dataclass(frozen=True)
class JudgedRow:
    """A hypothesis as a row of the picture.

    Parameters
    ----------
    heading
        What it speaks of; rows of one heading follow each other.
    name
        Where, or under which conditions.
    decides
        Whether it decides on the claim.
    estimate, low, high
        With the interval that decides, in units of the smallest effect that matters, positive as claimed; NaN where
        nothing was run.
    negligible
        Whether it is claimed that there is no effect that matters.
    value
        The estimate in its own unit.
    """

    heading: str
    name: str
    decides: bool
    estimate: float
    low: float
    high: float
    negligible: bool
    value: str


def judged(rows: Sequence[JudgedRow], *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw hypotheses on one axis with the intervals that decide on them.

    Parameters
    ----------
    rows
        The hypotheses, in order.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row per hypothesis under its heading, its value at the right; filled marks decide, hollow ones do not.
        Squares: no effect that matters is claimed, so that they belong into the band.
    """
    colours = THEMES[theme]
    lines = _lines(rows, limit=36 if width > NARROW else 19)
    last = lines[-1].place
    figure, axes = canvas(colours, width, 1.3 + 0.24 * last + (0 if width > NARROW else 0.5))
    limits = _limits(rows)
    axes.set(xlim=limits, ylim=(last + 0.6, -0.7))
    axes.axvspan(-1, 1, color=colours.grid, alpha=0.75, linewidth=0, zorder=0)
    axes.axvline(0, color=colours.muted, linewidth=1, zorder=0.9)
    _name(axes, lines, colours)
    for line in lines:
        if line.row:
            _row(axes, line.place, line.row, limits, colours)
    ticks(axes.xaxis, width, integer=True)
    label = "in units of the smallest effect that matters; to the right: as claimed"
    axes.set_xlabel(label if width > NARROW else label.replace("; ", ";\n"))
    figure.legend(handles=_key(rows, colours), **key_style(colours, columns=3 if width > NARROW else 1))
    return figure


@dataclass(frozen=True)
class _Line:
    place: float
    heading: str = ""
    name: str = ""
    row: JudgedRow | None = None


_CLOSER = 0.7
"""From a line of a name to its next, where 1 is from row to row."""


def _lines(rows: Sequence[JudgedRow], limit: int) -> list[_Line]:
    """Lay out the lines: headings, and the lines of each row's name, with its mark in the first of them."""
    found: list[_Line] = []
    place = 0.0
    for i, row in enumerate(rows):
        if i == 0 or row.heading != rows[i - 1].heading:
            found.append(_Line(place, heading=row.heading))
            place += 1
        first, *more = wrapped(row.name, limit).split("\n")
        found.append(_Line(place, name=first, row=row))
        found += [_Line(place + _CLOSER * n, name=line) for n, line in enumerate(more, start=1)]
        place += 1 + _CLOSER * len(more)
    return found


def _name(axes: Axes, lines: Sequence[_Line], colours: Theme) -> None:
    """Name the rows at the axis, and write headings above them, inside."""
    axes.set_yticks([line.place for line in lines], [line.name for line in lines])
    for line in lines:
        axes.text(0.004, line.place, line.heading, transform=axes.get_yaxis_transform(), color=colours.muted,
                  fontsize=8.5, va="center", style="italic", zorder=3)  # fmt: skip


def _limits(rows: Sequence[JudgedRow]) -> tuple[float, float]:
    """Find the range of the axis: the band, all estimates, and the intervals as far as they are not absurd."""
    points = [-1.0, 1.0, *(row.estimate for row in rows if math.isfinite(row.estimate))]
    low, high = min(points) - _ROOM, max(points) + _ROOM
    ends = [min(max(end, low), high) for row in rows for end in (row.low, row.high) if not math.isnan(end)]
    least, most = min([*points, *ends]), max([*points, *ends])
    margin = 0.06 * (most - least)
    return least - margin, most + margin


def _row(axes: Axes, place: float, row: JudgedRow, limits: tuple[float, float], colours: Theme) -> None:
    axes.annotate(row.value, (1.012, place), xycoords=axes.get_yaxis_transform(), color=colours.ink, fontsize=8.5,
                  va="center", annotation_clip=False)  # fmt: skip
    if math.isnan(row.estimate):
        return
    if not math.isnan(row.low):
        ends = [min(max(end, limits[0]), limits[1]) for end in (row.low, row.high)]
        axes.plot(ends, [place, place], color=colours.blue, linewidth=3, solid_capstyle="butt")
    axes.plot(row.estimate, place, **_mark(row.decides, row.negligible, colours))


def _mark(decides: bool, negligible: bool, colours: Theme) -> dict[str, Any]:
    edge = colours.paper if decides else colours.ink
    return {"marker": "s" if negligible else "D", "markersize": 6.5, "linestyle": "none", "markeredgecolor": edge,
            "markerfacecolor": colours.ink if decides else colours.paper}  # fmt: skip


def _key(rows: Sequence[JudgedRow], colours: Theme) -> list[Line2D | Patch]:
    """Explain the marks that occur."""
    words = {
        (True, False): "decides",
        (False, False): "does not decide",
        (True, True): "decides; claimed to be in the band",
        (False, True): "claimed to be in the band",
    }
    there = {(row.decides, row.negligible) for row in rows}
    marks = [Line2D([], [], **_mark(*kind, colours), label=text) for kind, text in words.items() if kind in there]
    return [*marks, Patch(color=colours.grid, label="too small to matter")]
