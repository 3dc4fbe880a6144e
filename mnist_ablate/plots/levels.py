"""Pictures over many levels: accuracy against each level of a factor, and the parts of the variance between runs."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.levels import by_level, components
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, Theme, ThemeName, canvas, key_style, name_rows, ticks
from mnist_ablate.store.results import Results

FAR = 90.0
"""Accuracy in percent below which an axis of accuracies would flatten all that is above: errors on a log scale then."""


def doses(runs: Results | Analysis, factor: str, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw mean test accuracy against the levels of a factor, a line for each combination of the others.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    factor
        One of `mnist_ablate.inference.levels.graded`.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Levels that span a factor of ten or more are on a logarithmic axis, with 0 to the left of it. Bars are 95 % t
        intervals. Where some mean is below `FAR` percent, the axis is that of the test error, logarithmic and upside
        down.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frame = by_level(results)
    frame = frame[frame["factor"] == factor].dropna(subset="mean")
    levels = sorted(frame["level"].unique())
    places = _places(levels)
    lines = list(dict.fromkeys(frame["line"]))
    figure, axes = canvas(colours, width, 3.6 + (0.0 if width > NARROW else 0.2 * len(lines)))
    errors = bool(frame["mean"].min() < FAR)
    for i, line in enumerate(lines):
        of = frame[frame["line"] == line]
        _line(axes, of.assign(x=of["level"].map(places)), i, line, errors, colours)
    _level_axis(axes, levels, places, width)
    _value_axis(axes, errors=errors, colours=colours)
    axes.set_xlabel(factor)
    axes.grid(color=colours.grid, linewidth=0.8)
    figure.legend(**key_style(colours, columns=4 if width > NARROW else 1))
    return figure


def _places(levels: Sequence[Level]) -> dict[Level, float]:
    """Give each level its place: on a logarithmic scale where positive ones span a factor of ten, 0 left of them."""
    positive = [float(level) for level in levels if float(level) > 0]
    if min(map(float, levels)) < 0 or len(positive) < 2 or max(positive) / min(positive) < 10:
        return {level: float(level) for level in levels}
    logs = np.log10(positive)
    zero = float(logs[0] - np.median(np.diff(logs)))
    return {level: math.log10(float(level)) if float(level) > 0 else zero for level in levels}


_STYLES = [(colour, dashes, marker) for dashes, marker in (("-", "o"), ((0, (4, 1.5)), "s"), ((0, (1, 1.2)), "^"))
           for colour in ("blue", "orange", "ink", "muted")]  # fmt: skip


def _line(axes: Axes, of: pd.DataFrame, i: int, label: str, errors: bool, colours: Theme) -> None:
    colour, dashes, marker = _STYLES[i % len(_STYLES)]
    y = 100 - of["mean"] if errors else of["mean"]
    ends = np.array([of["mean"] - of["low"], of["high"] - of["mean"]]).clip(min=0)
    ends = np.nan_to_num(ends[::-1] if errors else ends)
    ends[0] = np.minimum(ends[0], 0.9 * y) if errors else ends[0]  # an error is not below 0, though its interval may be
    axes.errorbar(of["x"], y, yerr=ends, color=getattr(colours, colour), linestyle=dashes, marker=marker,
                  markersize=4.5, linewidth=1.5, elinewidth=1.2, label=label)  # fmt: skip


def _level_axis(axes: Axes, levels: Sequence[Level], places: dict[Level, float], width: float) -> None:
    """Name the levels, and leave names out that would touch the one before."""
    span = max(places.values()) - min(places.values()) or 1.0
    shown: list[Level] = []
    for level in levels:
        room = 0.075 * max(len(show(level)), 3) / (0.8 * width) * span
        if not shown or places[level] - places[shown[-1]] >= room:
            shown.append(level)
    axes.set_xticks([places[level] for level in shown], [show(level) for level in shown])


def _value_axis(axes: Axes, *, errors: bool, colours: Theme) -> None:
    if errors:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        steps = [m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        axes.yaxis.set_ticks(steps, [f"{step:g}" for step in steps])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.invert_yaxis()
    axes.set_ylabel("test error, % (up is better)" if errors else "test accuracy, %", color=colours.ink, fontsize=10)


def variance_parts(runs: Results | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the share of each part of chance in the variance of test accuracy, with 95 % intervals.

    Returns
    -------
    matplotlib.figure.Figure
        A row per part. Parameters as of `doses`.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frame = components(results)[:-1]
    figure, axes = canvas(colours, width, 0.9 + 0.42 * len(frame))
    axes.axvline(0, color=colours.muted, linewidth=1, zorder=0.9)
    for row, (share, low, high) in enumerate(100 * frame[["share", "share_low", "share_high"]].to_numpy(dtype=float)):
        axes.plot([low, high], [row, row], color=colours.blue, linewidth=3, solid_capstyle="butt")
        axes.plot(share, row, "D", color=colours.ink, markersize=6.5, markeredgecolor=colours.paper)
    name_rows(axes, list(frame["source"]), limit=26 if width > NARROW else 16)
    axes.set_ylim(len(frame) - 0.4, -0.6)
    ticks(axes.xaxis, width)
    axes.set_xlabel("share of the variance of test accuracy between runs, %")
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    return figure
