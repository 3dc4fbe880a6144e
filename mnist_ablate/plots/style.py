"""What all pictures share: colours, canvas, axes, keys.

No pyplot and no global settings: a figure is a value, and looks the same whatever else the process draws.
Colours are Okabe and Ito's, told apart with any kind of colour vision; shape or line style always says the same.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

ThemeName = Literal["light", "dark"]
WIDTH = 8.6
"""Inches: as wide as the report's column."""
NARROW = 6.0
"""Inches: a figure of this width or less puts its key in a column."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure."""

    paper: str
    ink: str
    muted: str
    grid: str
    blue: str
    orange: str
    red: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme("#ffffff", "#1b1f24", "#69707a", "#e3e5e8", "#0072b2", "#d55e00", "#b34700"),
    "dark": Theme("#14171b", "#e8e6e1", "#949aa3", "#2f343b", "#56b4e9", "#e69f00", "#ff8a4c"),
}


def canvas(colours: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    axes = figure.add_subplot()
    dress(axes, colours)
    return figure, axes


def panels(
    colours: Theme, width: float, rows: int, columns: int, n: int, *, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """Make `n` panels on a grid, which share their axes; places left over stay empty."""
    height = 0.9 + rows * (2.0 if columns > 1 else 2.8)
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False)
    places = list(grid.flat)
    for axes in places[n:]:
        axes.remove()
    for i, axes in enumerate(places[:n]):
        dress(axes, colours)
        axes.grid(axis="y", color=colours.grid, linewidth=0.8)
        # The last panel of each column has the numbers, though the row below it may be partly empty.
        axes.tick_params(labelbottom=not sharex or i + columns >= n, labelleft=i % columns == 0)
    return figure, places[:n]


def dress(axes: Axes, colours: Theme) -> None:
    """Give `axes` the theme's colours one by one: matplotlib makes ticks late, outside any ``rc_context``."""
    axes.set_facecolor(colours.paper)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours.muted)
    axes.tick_params(colors=colours.muted, labelcolor=colours.ink, labelsize=9, length=3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set(color=colours.ink, fontsize=10)
    axes.xaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined] # a ScalarFormatter


def key_style(colours: Theme, columns: int) -> dict[str, Any]:
    """Say how a figure's legend looks."""
    return {
        "loc": "outside upper left",
        "ncols": columns,
        "frameon": False,
        "labelcolor": colours.ink,
        "fontsize": 9.5,
        "handlelength": 2.6,
        "borderaxespad": 0.2,
    }


def name_rows(axes: Axes, names: list[str], limit: int) -> None:
    """Name the rows of `axes`, each line of a name at a place of its own.

    matplotlib sets the lines of one text by the widths of its own typeface, and a page may have another.
    """
    lines = [(row, wrapped(name, limit).split("\n")) for row, name in enumerate(names)]
    places = [(row + 0.34 * (i - (len(parts) - 1) / 2), part) for row, parts in lines for i, part in enumerate(parts)]
    axes.set_yticks([place for place, _ in places], [part for _, part in places])


def wrapped(name: str, limit: int) -> str:
    """Break a name after a ``+`` or before a space where it gets long."""
    lines = [""]
    for part in name.replace("+", "+\n").replace(" ", "\n ").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part.rstrip("+")) > limit:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def ticks(axis: Axis, width: float, *, integer: bool = False) -> None:
    """Set as many round ticks as `width` inches can hold."""
    axis.set_major_locator(
        MaxNLocator(nbins=max(3, round(1.1 * width)), steps=[1, 2, 5, 10], integer=integer, min_n_ticks=1)
    )


def in_theme(drawing: str, theme: ThemeName) -> str:
    """Put the colours of `theme` in place of those of the light one, in the text of an SVG file.

    So that a figure is laid out once for both: that takes a hundred times as long.
    """
    old, new = THEMES["light"], THEMES[theme]
    pairs = {getattr(old, field.name): getattr(new, field.name) for field in fields(Theme)}
    return re.sub("|".join(map(re.escape, pairs)), lambda match: pairs[match[0]], drawing)
