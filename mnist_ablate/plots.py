"""Pictures of results: each function takes results and returns a matplotlib `Figure`, and saves nothing.

No pyplot and no global settings: a figure is a value, and looks the same whatever else the process draws.
Colours are Okabe and Ito's, told apart with any kind of colour vision; shape or line style always says the same.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mnist_ablate.effects import cell_table, curves, reference_cell, seed_table
from mnist_ablate.store import Results

ThemeName = Literal["light", "dark"]
WIDTH = 8.6
"""Inches: as wide as the report's column."""
NARROW = 6.0
"""Inches: a figure of this width or less puts its key in a column."""
MANY_POINTS = 2_000
"""More points than this are drawn as pixels: as shapes they would fill the page's file."""

LOSSES = {"train_loss_eval": "training images", "val_loss": "validation images"}


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


def accuracy(results: Results, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw each seed's final test accuracy, cell by cell, with the cell's mean and its 95 % t interval.

    Parameters
    ----------
    results
        What `mnist_ablate.store.load` returns.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row per cell, in the order of the design. A seed keeps its height within all rows. Runs far below the
        rest because they diverged are drawn at the left edge, with their value.
    """
    colours = THEMES[theme]
    frame, seeds = cell_table(results), seed_table(results)
    diverged = _diverged(results, seeds)
    figure, axes = _canvas(colours, width, 1.15 + 0.42 * len(frame))
    axes.set(xlim=_limits(frame, seeds.where(~diverged)), ylim=(len(frame) - 0.4, -0.6))
    _reference_line(axes, frame, colours)
    for row, (_, cell) in enumerate(frame.iterrows()):
        name = cell["cell"]
        _seeds(axes, row, seeds[name], diverged[name], seeds.size > MANY_POINTS, colours)
        _mean(axes, row, cell, colours)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=max(3, round(1.1 * width)), steps=[1, 2, 5, 10]))
    axes.set_xlabel("test accuracy after the last epoch, %")
    _name_rows(axes, list(frame["cell"]), limit=24 if width > NARROW else 16)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    key = _accuracy_key(frame, colours)
    figure.legend(handles=key, **_key_style(colours, columns=len(key) if width > NARROW else 2))
    return figure


def loss_curves(results: Results, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the loss on training and on validation images, epoch by epoch, in a panel per cell.

    Both losses are of the same weights, in evaluation mode, after each epoch. Lines are means over seeds, bands
    their 95 % t intervals; the reference cell is repeated in grey in the other panels.

    Parameters
    ----------
    results
        What `mnist_ablate.store.load` returns.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches; the number of panels side by side follows from it.

    Returns
    -------
    matplotlib.figure.Figure
        All panels share both axes.
    """
    colours = THEMES[theme]
    frames = {response: curves(results, response) for response in LOSSES}
    cells = list(dict.fromkeys(frames["val_loss"]["cell"]))
    reference = reference_cell(results.study)
    columns = min(len(cells), max(1, int(width / 2.05)))
    rows = math.ceil(len(cells) / columns)
    figure, panels = _panels(colours, width, rows, columns, len(cells))
    for axes, cell in zip(panels, cells, strict=True):
        for response, frame in frames.items():
            if cell != reference:
                _line(axes, frame[frame["cell"] == reference], response, colours, faint=True)
            _line(axes, frame[frame["cell"] == cell], response, colours)
        _panel_title(axes, cell, frames["val_loss"].query("cell == @cell"), colours)
    panels[0].set_ylim(0, _top(frames))
    panels[0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    panels[0].set_xlim(0.6, frames["val_loss"]["epoch"].max() + 0.4)
    figure.supxlabel("epoch", color=colours.ink, fontsize=10)
    figure.supylabel("loss, nats", color=colours.ink, fontsize=10)
    handles = _loss_key(colours, reference if len(cells) > 1 else None)
    figure.legend(handles=handles, **_key_style(colours, columns=3 if width > NARROW else 1))
    return figure


def _canvas(colours: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    axes = figure.add_subplot()
    _dress(axes, colours)
    return figure, axes


def _panels(colours: Theme, width: float, rows: int, columns: int, n: int) -> tuple[Figure, list[Axes]]:
    """Make `n` panels on a grid, which share their axes; places left over stay empty."""
    height = 0.9 + rows * (2.0 if columns > 1 else 2.8)
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[n:]:
        axes.remove()
    for i, axes in enumerate(panels[:n]):
        _dress(axes, colours)
        axes.grid(axis="y", color=colours.grid, linewidth=0.8)
        # The last panel of each column has the numbers, though the row below it may be partly empty.
        axes.tick_params(labelbottom=i + columns >= n, labelleft=i % columns == 0)
    return figure, panels[:n]


def _dress(axes: Axes, colours: Theme) -> None:
    """Give `axes` the theme's colours one by one: matplotlib makes ticks late, outside any ``rc_context``."""
    axes.set_facecolor(colours.paper)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours.muted)
    axes.tick_params(colors=colours.muted, labelcolor=colours.ink, labelsize=9, length=3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set(color=colours.ink, fontsize=10)
    axes.xaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined] # a ScalarFormatter


def _key_style(colours: Theme, columns: int) -> dict[str, Any]:
    return {
        "loc": "outside upper left",
        "ncols": columns,
        "frameon": False,
        "labelcolor": colours.ink,
        "fontsize": 9.5,
        "handlelength": 2.6,
        "borderaxespad": 0.2,
    }


def _name_rows(axes: Axes, names: list[str], limit: int) -> None:
    """Name the rows of `axes`, each line of a name at a place of its own.

    matplotlib sets the lines of one text by the widths of its own typeface, and a page may have another.
    """
    lines = [(row, _wrapped(name, limit).split("\n")) for row, name in enumerate(names)]
    places = [(row + 0.34 * (i - (len(parts) - 1) / 2), part) for row, parts in lines for i, part in enumerate(parts)]
    axes.set_yticks([place for place, _ in places], [part for _, part in places])


def _wrapped(name: str, limit: int) -> str:
    """Break a cell's name after a ``+`` where it gets long."""
    lines = [""]
    for part in name.replace("+", "+\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part.rstrip("+")) > limit:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _diverged(results: Results, seeds: pd.DataFrame) -> pd.DataFrame:
    """Say which runs diverged, in the shape of `seeds`."""
    final = results.final.assign(diverged=results.final["status"] == "diverged")
    table = final.pivot(index="seed", columns="cell", values="diverged")
    return table.reindex(index=seeds.index, columns=seeds.columns).eq(True)


def _limits(frame: pd.DataFrame, sound: pd.DataFrame) -> tuple[float, float]:
    """Find the range of the axis: the runs in `sound` (those that did not diverge), and the means' intervals.

    With two or three seeds an interval is many times as wide as the points are apart: it gets at most as much
    room on either side as the points take, and is cut by the axis there.
    """
    points = sound if sound.notna().to_numpy().any() else frame[["min", "max"]]
    low, high = float(np.nanmin(points)), float(np.nanmax(points))
    room = max(high - low, 0.1)
    whole = frame[frame["n_diverged"] == 0]
    left = max(np.nanmin([low, *whole["mean_low"]]), low - room)
    right = min(np.nanmax([high, *whole["mean_high"]]), high + room)
    return float(left) - 0.06 * room, float(right) + 0.06 * room


# Within a row: seeds above, their mean below, so that neither hides the other.
_SEED_LANE = (-0.36, 0.14)
_MEAN_LANE = 0.24


def _seeds(
    axes: Axes, row: int, values: "pd.Series[float]", diverged: "pd.Series[bool]", many: bool, colours: Theme
) -> None:
    """Draw the runs of a cell, each seed at its own height; those that diverged as crosses, on the axis."""
    heights = pd.Series(row + np.linspace(*_SEED_LANE, len(values) + 2)[1:-1], index=values.index)
    sound, failed = values[~diverged], values[diverged]
    size = float(np.clip(600 / len(values), 3, 18))  # dots of many seeds get smaller
    axes.scatter(sound, heights[sound.index], s=size, color=colours.blue, alpha=0.75, linewidths=0, rasterized=many)
    edge = axes.get_xlim()[0]
    axes.scatter(
        failed.clip(lower=edge), heights[failed.index], s=36, color=colours.red, marker="X", linewidths=0, clip_on=False
    )


def _mean(axes: Axes, row: int, cell: "pd.Series[float]", colours: Theme) -> None:
    """Draw the mean of a cell with its interval, or say where it is if that is off the axis, or that there is none."""
    edge, height = axes.get_xlim()[0], row + _MEAN_LANE
    if cell["n"] == 0:
        axes.text(edge, row, "  no run stored", va="center", color=colours.muted, fontsize=9, style="italic")
    elif cell["mean"] < edge:
        text = f"   {cell['n_diverged']} diverged, lowest {cell['min']:.2f}; mean {cell['mean']:.2f}"
        paper = {"facecolor": colours.paper, "edgecolor": "none", "pad": 0.5}
        axes.text(edge, height, text, va="center", color=colours.red, fontsize=9, bbox=paper)
    else:
        axes.plot([cell["mean_low"], cell["mean_high"]], [height, height], color=colours.ink, linewidth=1.8)
        axes.plot(cell["mean"], height, "D", color=colours.ink, markersize=6.5, markeredgecolor=colours.paper)


def _reference_line(axes: Axes, frame: pd.DataFrame, colours: Theme) -> None:
    mean = frame.loc[frame["cell"] == frame["reference"], "mean"].item()
    if len(frame) > 1 and not math.isnan(mean):
        axes.axvline(mean, color=colours.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.9)


def _accuracy_key(frame: pd.DataFrame, colours: Theme) -> list[Line2D]:
    ink, muted = colours.ink, colours.muted
    dot = Line2D([], [], color=colours.blue, marker="o", linestyle="", markersize=4.5, alpha=0.7, label="one seed")
    mean = Line2D([], [], color=ink, marker="D", markersize=6, linewidth=1.8, label="mean, 95 % interval")
    cross = Line2D([], [], color=colours.red, marker="X", linestyle="", markersize=6, label="diverged")
    reference = frame["reference"].iloc[0]
    line = Line2D([], [], color=muted, linewidth=1, linestyle=(0, (4, 3)), label=f"mean of {reference}")
    return [dot, mean, *[line] * (len(frame) > 1), *[cross] * bool(frame["n_diverged"].any())]


# Line style, and the shape of the mark, for each loss.
_DRAWN = {"train_loss_eval": ((0, (4, 1.5)), "s"), "val_loss": ("-", "o")}


def _loss_style(response: str, colours: Theme, *, faint: bool = False) -> dict[str, Any]:
    """Colour, dashes and marks of a loss; `faint` is for the reference cell in the panels of others."""
    style, marker = _DRAWN[response]
    if faint:
        return {"color": colours.muted, "linestyle": style, "linewidth": 1, "alpha": 0.75, "zorder": 1.5}
    colour = {"train_loss_eval": colours.orange, "val_loss": colours.blue}[response]
    return {"color": colour, "linestyle": style, "linewidth": 1.8, "marker": marker, "markersize": 4}


def _line(axes: Axes, curve: pd.DataFrame, response: str, colours: Theme, *, faint: bool = False) -> None:
    """Draw the mean of a loss over the epochs; in its own cell with a band, or a bar where there is one epoch.

    A run that diverged makes the interval wider than the panel, and says so in words: no band then.
    """
    style = _loss_style(response, colours, faint=faint)
    epochs, mean, half = (curve[name].to_numpy(dtype=float) for name in ("epoch", "mean", "half_width"))
    if faint:
        axes.plot(epochs, mean, marker="_" if len(epochs) == 1 else "", markersize=16, **style)
    elif len(epochs) == 1:
        axes.errorbar(epochs, mean, yerr=half, capsize=3, **style)
    else:
        axes.plot(epochs, mean, **style)
    if len(epochs) > 1 and not faint and not curve["n_diverged"].any():
        axes.fill_between(epochs, mean - half, mean + half, color=style["color"], alpha=0.25, linewidth=0)


def _panel_title(axes: Axes, cell: str, curve: pd.DataFrame, colours: Theme) -> None:
    """Name the panel's cell, and say in it what is missing or diverged."""
    axes.set_title(_wrapped(cell, limit=20), loc="left", fontsize=9.5, color=colours.ink, fontweight="bold", pad=4)
    runs, diverged = int(curve["n"].max()), int(curve["n_diverged"].max())
    note = "no run stored" if not runs else f"{diverged} of {runs} diverged" if diverged else ""
    colour = colours.red if diverged else colours.muted
    axes.text(0.97, 0.93, note, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=colour)


def _top(frames: dict[str, pd.DataFrame]) -> float:
    """Find the upper end of the axis: all means, and the bands of what did not diverge."""
    curve = pd.concat(frames.values())
    bands = (curve["mean"] + curve["half_width"])[curve["n_diverged"] == 0]
    highest = float(np.nanmax([*curve["mean"], *bands, 1e-3]))
    # The interval of two seeds may be many times the mean.
    return 1.06 * min(highest, 2 * float(np.nanmax([*curve["mean"], 1e-3])))


def _loss_key(colours: Theme, reference: str | None) -> list[Line2D]:
    lines = [Line2D([], [], **_loss_style(response, colours), label=label) for response, label in LOSSES.items()]
    if reference is not None:
        lines.append(
            Line2D([], [], **_loss_style("val_loss", colours, faint=True), label=f"{reference}, for comparison")
        )
    return lines
