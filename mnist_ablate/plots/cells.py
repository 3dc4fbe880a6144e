"""Pictures of the cells: every run with its mean, and the losses epoch by epoch."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.effects import cell_table, curves, reference_cell, seed_table
from mnist_ablate.notebook.printed import printed_losses
from mnist_ablate.plots.style import (
    NARROW,
    THEMES,
    WIDTH,
    Theme,
    ThemeName,
    canvas,
    key_style,
    name_rows,
    panels,
    ticks,
    wrapped,
)
from mnist_ablate.store.results import Results

MANY_POINTS = 2_000
"""More points than this are drawn as pixels: as shapes they would fill the page's file."""

LOSSES = {"train_loss_eval": "training images", "val_loss": "validation images"}


def accuracy(runs: Results | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw each seed's final test accuracy, cell by cell, with the cell's mean and its 95 % t interval.

    Lines connect the runs of a seed, which share all that chance decides.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
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
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frame, seeds = cell_table(results), seed_table(results)
    diverged = _diverged(results, seeds)
    figure, axes = canvas(colours, width, 1.15 + 0.42 * len(frame))
    axes.set(xlim=_limits(frame, seeds.where(~diverged)), ylim=(len(frame) - 0.4, -0.6))
    _reference_line(axes, frame, colours)
    _pairs(axes, seeds.where(~diverged), colours)
    for row, (_, cell) in enumerate(frame.iterrows()):
        name = cell["cell"]
        _seeds(axes, row, seeds[name], diverged[name], seeds.size > MANY_POINTS, colours)
        _mean(axes, row, cell, colours)
    ticks(axes.xaxis, width)
    axes.set_xlabel("test accuracy after the last epoch, %")
    name_rows(axes, list(frame["cell"]), limit=24 if width > NARROW else 16)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    key = _accuracy_key(frame, colours)
    figure.legend(handles=key, **key_style(colours, columns=len(key) if width > NARROW else 2))
    return figure


def loss_curves(runs: Results | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the loss on training and on validation images, epoch by epoch, in a panel per cell.

    Both losses are of the same weights, in evaluation mode, after each epoch. Lines are means over seeds, bands
    their 95 % t intervals; the reference cell is repeated in grey in the other panels.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches; the number of panels side by side follows from it.

    Returns
    -------
    matplotlib.figure.Figure
        All panels share both axes.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frames = {response: curves(results, response) for response in LOSSES}
    cells = list(dict.fromkeys(frames["val_loss"]["cell"]))
    reference, printed = reference_cell(results.study), printed_losses(results.study)
    columns = min(len(cells), max(1, int(width / 2.05)))
    rows = math.ceil(len(cells) / columns)
    figure, places = panels(colours, width, rows, columns, len(cells))
    for axes, cell in zip(places, cells, strict=True):
        for response, frame in frames.items():
            if cell != reference:
                _line(axes, frame[frame["cell"] == reference], response, colours, faint=True)
            _line(axes, frame[frame["cell"] == cell], response, colours)
        _printed(axes, printed[printed["cell"] == cell], colours)
        _panel_title(axes, cell, frames["val_loss"].query("cell == @cell"), colours)
    places[0].set_ylim(
        0, max(_top(frames), 1.06 * printed[["train_loss", "val_loss"]].to_numpy(dtype=float).max(initial=0))
    )
    places[0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    places[0].set_xlim(0.6, frames["val_loss"]["epoch"].max() + 0.4)
    figure.supxlabel("epoch", color=colours.ink, fontsize=10)
    figure.supylabel("loss, nats", color=colours.ink, fontsize=10)
    handles = _loss_key(colours, reference if len(cells) > 1 else None, printed=len(printed) > 0)
    figure.legend(handles=handles, **key_style(colours, columns=3 if width > NARROW else 1))
    return figure


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
    heights = row + _lanes(values)
    sound, failed = values[~diverged], values[diverged]
    size = float(np.clip(600 / len(values), 3, 18))  # dots of many seeds get smaller
    axes.scatter(sound, heights[sound.index], s=size, color=colours.blue, alpha=0.75, linewidths=0, rasterized=many)
    edge = axes.get_xlim()[0]
    axes.scatter(
        failed.clip(lower=edge), heights[failed.index], s=36, color=colours.red, marker="X", linewidths=0, clip_on=False
    )


def _lanes(seeds: "pd.Series[float] | pd.DataFrame") -> "pd.Series[float]":
    """Give each seed its height within a row."""
    return pd.Series(np.linspace(*_SEED_LANE, len(seeds) + 2)[1:-1], index=seeds.index)


def _pairs(axes: Axes, seeds: pd.DataFrame, colours: Theme) -> None:
    """Connect the runs of each seed from row to row; a run that is not there leaves a hole in the line."""
    x = seeds.to_numpy(dtype=float)
    y = _lanes(seeds).to_numpy()[:, None] + np.arange(x.shape[1])
    gap = np.full((len(x), 1), np.nan)  # one line for all, lifted between the seeds: a tenth of the space of many
    faint = float(np.clip(8 / max(len(seeds), 1), 0.12, 0.35))
    places = [np.hstack([values, gap]).ravel() for values in (x, y)]
    axes.plot(*places, color=colours.muted, linewidth=0.5, alpha=faint, zorder=0.8, rasterized=x.size > MANY_POINTS)


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


# What the notebook printed: hollow marks, the shape as in `_DRAWN`.
_PRINTED = {"train_loss": ("training", "s", "orange"), "val_loss": ("validation", "o", "blue")}


def _printed(axes: Axes, losses: pd.DataFrame, colours: Theme) -> None:
    """Draw the losses that the notebook printed for this cell, from one run each."""
    for response in _PRINTED if len(losses) else ():
        axes.plot(losses["epoch"], losses[response], **_printed_style(response, colours))


def _printed_style(response: str, colours: Theme) -> dict[str, Any]:
    what, marker, colour = _PRINTED[response]
    return {"linestyle": "", "marker": marker, "markersize": 6, "markerfacecolor": "none",
            "markeredgecolor": getattr(colours, colour), "markeredgewidth": 1.1,
            "label": f"{what}, as the notebook printed it"}  # fmt: skip


def _panel_title(axes: Axes, cell: str, curve: pd.DataFrame, colours: Theme) -> None:
    """Name the panel's cell, and say in it what is missing or diverged."""
    axes.set_title(wrapped(cell, limit=20), loc="left", fontsize=9.5, color=colours.ink, fontweight="bold", pad=4)
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


def _loss_key(colours: Theme, reference: str | None, *, printed: bool) -> list[Line2D]:
    lines = [Line2D([], [], **_loss_style(response, colours), label=label) for response, label in LOSSES.items()]
    if reference is not None:
        lines.append(
            Line2D([], [], **_loss_style("val_loss", colours, faint=True), label=f"{reference}, for comparison")
        )
    return lines + [Line2D([], [], **_printed_style(response, colours)) for response in _PRINTED if printed]
