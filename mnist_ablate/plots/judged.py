"""Picture of what several hypotheses say of one claim, each in units of its own smallest effect that matters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mnist_ablate.language import mark, say, told
from mnist_ablate.plots import style
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, Theme, ThemeName

_ROOM = 12.0
"""How far the axis goes beyond the estimates, in smallest effects that matter; intervals are cut there."""
_CLOSER = 0.7
"""From a line of a name to its next, where 1 is from row to row."""


@dataclass(frozen=True)
class JudgedRow:
    """A hypothesis as a row of the picture.

    Parameters
    ----------
    heading
        The subject; rows of one heading follow each other.
    name
        Where, or under which conditions.
    decides
        Whether it decides on the claim.
    estimate, low, high
        With the interval that decides, in units of the smallest effect that matters, positive as claimed; NaN where
        nothing was run.
    negligible
        Whether the claim is that there is no effect that matters.
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


@style.under_own_settings
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
        Squares mark claims of no effect that matters: they should lie in the band.
    """
    colours = THEMES[theme]
    lines = _lines(rows, *((36, 100) if width > NARROW else (19, 38)))
    last = lines[-1].place
    figure, axes = style.canvas(colours, width, 1.3 + 0.24 * last + (0 if width > NARROW else 0.5))
    limits = _limits(rows)
    axes.set(xlim=limits, ylim=(last + 0.6, -0.7))
    style.too_small(axes, 1, colours, upright=True)
    axes.set_yticks([line.place for line in lines], [line.name for line in lines])
    for line in lines:
        style.heading(axes, line.place, line.heading, colours)
        if row := line.row:
            axes.annotate(row.value, (1.012, line.place), xycoords=axes.get_yaxis_transform(), color=colours.ink,
                          fontsize=8.5, va="center", annotation_clip=False)  # fmt: skip
            low, high = np.clip([row.low, row.high], *limits)
            mark = _mark(row.decides, row.negligible, colours)
            style.row_interval(axes, line.place, row.estimate, low, high, colours, **mark)
    style.round_ticks(axes.xaxis, width, integer=True)
    label = say("in units of the smallest effect that matters; to the right: as claimed")
    axes.set_xlabel(label if width > NARROW else label.replace("; ", ";\n"))
    style.key(figure, _key(rows, colours), colours, columns=3 if width > NARROW else 1)
    return figure


@dataclass(frozen=True)
class _Line:
    place: float
    heading: str = ""
    name: str = ""
    row: JudgedRow | None = None


def _lines(rows: Sequence[JudgedRow], limit: int, of_headings: int) -> list[_Line]:
    """Lay out the lines: headings, and the lines of each row's name, with its mark in the first of them.

    Names break at a `limit` of letters, headings at another.
    """
    lines: list[_Line] = []
    place = 0.0
    for i, row in enumerate(rows):
        if i == 0 or row.heading != rows[i - 1].heading:
            parts = style.wrapped(row.heading, of_headings).split("\n")
            lines += [_Line(place + _CLOSER * n, heading=part) for n, part in enumerate(parts)]
            place += 1 + _CLOSER * (len(parts) - 1)
        first, *more = style.wrapped(row.name, limit).split("\n")
        lines.append(_Line(place, name=first, row=row))
        lines += [_Line(place + _CLOSER * n, name=line) for n, line in enumerate(more, start=1)]
        place += 1 + _CLOSER * len(more)
    return lines


def _limits(rows: Sequence[JudgedRow]) -> tuple[float, float]:
    """Return the range of the axis: the band, all estimates, and the intervals as far as they are not absurd."""
    points = [-1.0, 1.0, *(row.estimate for row in rows if math.isfinite(row.estimate))]
    low, high = min(points) - _ROOM, max(points) + _ROOM
    ends = [min(max(end, low), high) for row in rows for end in (row.low, row.high) if not math.isnan(end)]
    least, most = min([*points, *ends]), max([*points, *ends])
    margin = 0.06 * (most - least)
    return least - margin, most + margin


def _mark(decides: bool, negligible: bool, colours: Theme) -> dict[str, Any]:
    face, edge = (colours.ink, colours.paper) if decides else (colours.paper, colours.ink)
    return {"marker": "s" if negligible else "D", "markerfacecolor": face, "markeredgecolor": edge}


def _key(rows: Sequence[JudgedRow], colours: Theme) -> list[Line2D | Patch]:
    """Explain the marks that occur."""
    words = {
        (True, False): mark("decides"),
        (False, False): mark("does not decide"),
        (True, True): mark("decides; claimed to be in the band"),
        (False, True): mark("claimed to be in the band"),
    }
    kinds = {(row.decides, row.negligible) for row in rows}
    if all(decides for decides, _ in kinds):
        words = {(True, False): mark("estimate"), (True, True): mark("estimate, claimed to be in the band")}
    marks = [
        Line2D([], [], label=told(label), **style.diamond(colours) | _mark(*kind, colours))
        for kind, label in words.items()
        if kind in kinds
    ]
    return [*marks, Patch(color=colours.grid, label=say("too small to matter"))]
