"""Pictures of the notebook's numbers among the runs of its cells: accuracies as dots, losses as bands over epochs."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.effects import FloatArray
from mnist_ablate.notebook.printed import PrintedCell, cells_of, printed_cells
from mnist_ablate.notebook.replication import SHOWN, values
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
)
from mnist_ablate.store.results import Results

_COLOURS = {"as it ran": "orange", "mended": "blue"}


def printed_accuracies(runs: Results | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the test accuracy of every run of the notebook's cells, as it ran and mended, with what it printed.

    Returns
    -------
    matplotlib.figure.Figure
        A row per network and mode; modes that are the same runs share a row. Parameters as of `printed_losses`.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    rows = _accuracy_rows(results)
    figure, axes = canvas(colours, width, 1.2 + 0.4 * len(rows))
    for row, (_, mode, one, found) in enumerate(rows):
        lanes = row + np.linspace(-0.28, 0.28, len(found) + 2)[1:-1]
        size = float(np.clip(600 / max(len(found), 1), 4, 18))
        axes.scatter(found, lanes, s=size, color=getattr(colours, _COLOURS[mode]), alpha=0.7, linewidths=0)
        axes.plot([found.mean()] * 2, [row - 0.38, row + 0.38], color=colours.ink, linewidth=1.8)
        axes.plot(one.test_accuracy, row, **_printed_style(colours))
    name_rows(axes, [name for name, *_ in rows], limit=26 if width > NARROW else 15)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    ticks(axes.xaxis, width)
    axes.set_xlabel("test accuracy after the notebook's last epoch, %")
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    key = _accuracy_key(colours)
    figure.legend(handles=key, **key_style(colours, columns=len(key) if width > NARROW else 2))
    return figure


def _accuracy_rows(results: Results) -> list[tuple[str, str, PrintedCell, FloatArray]]:
    """List the rows: their name, mode, what was printed, and the accuracies of the runs in percent."""
    ran, mended = (cells_of(results.study, mode) for mode in SHOWN)
    found = []
    for one in printed_cells():
        table = values(results, "test_accuracy", len(one.train_loss))
        alike = ran.get(one.name) == mended.get(one.name)
        for mode, cells in (("as it ran", {} if alike else ran), ("mended", mended)):
            if cells.get(one.name) in table:
                name = one.name if alike or one.name not in ran else f"{one.name}, {mode}"
                found.append((name, mode, one, table[cells[one.name]].dropna().to_numpy(dtype=float)))
    return found


def _printed_style(colours: Theme) -> dict[str, Any]:
    return {"linestyle": "", "marker": "D", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": colours.ink,
            "markeredgewidth": 1.6, "zorder": 4, "clip_on": False}  # fmt: skip


def _accuracy_key(colours: Theme) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5}
    dots = [
        Line2D([], [], color=getattr(colours, colour), label=f"a run, {mode}", **dot)
        for mode, colour in _COLOURS.items()
    ]
    mean = Line2D([], [], color=colours.ink, linestyle="", marker="|", markersize=12, markeredgewidth=1.8, label="mean")
    return [*dots, mean, Line2D([], [], **_printed_style(colours), label="printed")]


_LOSSES = {"train_loss": ("while training", "s", "orange"), "val_loss": ("validation", "o", "blue")}


def printed_losses(
    runs: Results | Analysis, mode: str = "as it ran", *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw the range of each loss over the runs of the notebook's cells, epoch by epoch, with what it printed.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    mode
        The notebook's cells as it ran them, or mended: of `mnist_ablate.notebook.printed.MODES`.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per network, on a logarithmic scale: bands from the lowest run to the highest, lines their means, hollow
        marks the printed values.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    cells = cells_of(results.study, mode)
    shown = [one for one in printed_cells() if one.name in cells]
    columns = min(len(shown), 4 if width > NARROW else 2)
    figure, places = panels(colours, width, math.ceil(len(shown) / columns), columns, len(shown))
    for axes, one in zip(places, shown, strict=True):
        axes.set_title(one.name, loc="left", fontsize=9.5, color=colours.ink, fontweight="bold", pad=4)
        for response in _LOSSES:
            _band(axes, results, cells[one.name], response, getattr(one, response), colours)
    _logarithmic(places[0])
    places[0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    figure.supxlabel("epoch", color=colours.ink, fontsize=10)
    figure.supylabel("loss, nats", color=colours.ink, fontsize=10)
    key = _loss_key(colours, mode)
    figure.legend(handles=key, **key_style(colours, columns=len(key) if width > NARROW else 1))
    return figure


def _band(axes: Axes, results: Results, cell: str, response: str, printed: tuple[float, ...], colours: Theme) -> None:
    _, marker, colour = _LOSSES[response]
    epochs = [epoch for epoch in range(1, len(printed) + 1) if cell in values(results, response, epoch)]
    runs = [values(results, response, epoch)[cell].dropna().to_numpy(dtype=float) for epoch in epochs]
    lowest, highest = [of.min() for of in runs], [of.max() for of in runs]
    axes.fill_between(epochs, lowest, highest, color=getattr(colours, colour), alpha=0.28, linewidth=0)
    axes.plot(epochs, [of.mean() for of in runs], color=getattr(colours, colour), linewidth=1.4)
    axes.plot(range(1, len(printed) + 1), printed, linestyle="", marker=marker, markersize=6, markerfacecolor="none",
              markeredgecolor=colours.ink, markeredgewidth=1.2)  # fmt: skip


def _logarithmic(axes: Axes) -> None:
    """Put the shared axis of losses on a logarithmic scale with plain round numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    shown = [m * 10.0**e for e in range(-4, 2) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.yaxis.set_ticks(shown, [f"{step:g}" for step in shown])
    axes.yaxis.set_minor_locator(NullLocator())


def _loss_key(colours: Theme, mode: str) -> list[Line2D | Patch]:
    bands = [Patch(facecolor=getattr(colours, colour), alpha=0.4, label=f"{what}, runs {mode}")
             for what, _, colour in _LOSSES.values()]  # fmt: skip
    hollow: dict[str, Any] = {
        "linestyle": "",
        "markersize": 6,
        "markerfacecolor": "none",
        "markeredgecolor": colours.ink,
    }
    marks = [Line2D([], [], marker=marker, label=f"{what}, printed", **hollow) for what, marker, _ in _LOSSES.values()]
    return [*bands, *marks]
