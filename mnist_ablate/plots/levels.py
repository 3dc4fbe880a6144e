"""Pictures over many levels: accuracy against each level of a factor, and the parts of the variance between runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import figures, say, told
from mnist_ablate.plots import style
from mnist_ablate.plots.style import DASHED, DOTTED, NARROW, SOLID, THEMES, WIDTH, Look, ThemeName
from mnist_ablate.store.results import Runs

FAR = 90.0
"""Percent: where a mean accuracy lies below, an axis of accuracies would flatten the rest, so we draw errors."""

_LOOKS = [Look(colour, dashes, marker) for dashes in (SOLID, DASHED, DOTTED)
          for colour, marker in (("blue", "o"), ("orange", "s"), ("ink", "^"), ("muted", "v"))]  # fmt: skip


@style.under_own_settings
def doses(runs: Runs | Analysis, factor: str, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the mean of the main response against the levels of a factor, a line for each combination of the others.

    Of more than `style.MOST_LINES` combinations, those with the highest and the lowest means over the levels, and the
    first.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    factor
        The name of a factor with three or more levels, all of them numbers.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Levels that span a factor of ten or more are on a logarithmic axis, with 0 to the left of it. Bars are 95 % t
        intervals. Where a mean is below `FAR` percent, the axis is that of the test error, logarithmic and upside
        down.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame = dose_lines(analysis, factor)
    levels = sorted(frame["level"].unique())
    places = _places(levels)
    looks = {str(line): _LOOKS[i % len(_LOOKS)] for i, line in enumerate(dict.fromkeys(frame["line"]))}
    frame = frame.assign(place=frame["level"].map(places))
    response = analysis.response()
    errors = analysis.ours is not None and bool(frame["mean"].min() < FAR)
    if errors:
        frame = frame.assign(mean=100 - frame["mean"], low=100 - frame["high"], high=100 - frame["low"])
        frame["low"] = frame["low"].clip(lower=0.1 * frame["mean"])  # an error is above 0, unlike its interval
    figure, axes = style.canvas(colours, width, 3.6 + (0.0 if width > NARROW else 0.2 * len(looks)))
    style.lines(axes, frame, "place", "mean", looks, colours, by="line", interval=("low", "high"), band=False,
                linewidth=1.5, markersize=5.5)  # fmt: skip
    _name_levels(axes, levels, places, width)
    if errors:
        axes.set_yscale("log")
        style.round_ticks(axes.yaxis, width)
        axes.invert_yaxis()
    axes.set(xlabel=in_words(factor), ylabel=say("test error, % (up is better)") if errors else response.named)
    axes.grid(color=colours.grid, linewidth=0.8)
    handles = [style.handle(look, in_words(line), colours, linewidth=1.5) for line, look in looks.items()]
    style.key(figure, handles, colours, columns=4 if width > NARROW else 1)
    return figure


def dose_lines(analysis: Analysis, factor: str) -> pd.DataFrame:
    """Return the part of `Analysis.by_level` that `doses` shows."""
    frame = analysis.by_level()
    frame = frame[frame["factor"] == factor].dropna(subset="mean")
    means = frame.groupby("line", sort=False)["mean"].mean()
    return frame[frame["line"].isin(style.outermost(means, style.MOST_LINES, str(frame["line"].iloc[0])))]


def _places(levels: Sequence[Level]) -> dict[Level, float]:
    """Return the place of each level: logarithmic if positive ones span a factor of ten, with 0 to the left of them."""
    positive = [float(level) for level in levels if float(level) > 0]
    if min(map(float, levels)) < 0 or len(positive) < 2 or max(positive) / min(positive) < 10:
        return {level: float(level) for level in levels}
    logs = np.log10(positive)
    zero = float(logs[0] - np.median(np.diff(logs)))
    return {level: math.log10(float(level)) if float(level) > 0 else zero for level in levels}


def _name_levels(axes: Axes, levels: Sequence[Level], places: Mapping[Level, float], width: float) -> None:
    """Name the levels on the axis, without names that would touch the one before."""
    span = max(places.values()) - min(places.values()) or 1.0
    named: list[Level] = []
    for level in levels:
        room = 0.075 * max(len(show(level)), 3) / (0.8 * width) * span
        if not named or places[level] - places[named[-1]] >= room:
            named.append(level)
    axes.set_xticks([places[level] for level in named], [figures(show(level)) for level in named])


@style.under_own_settings
def variance_parts(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the share of each part of chance in the variance of test accuracy, with 95 % intervals.

    Returns
    -------
    matplotlib.figure.Figure
        A row per part. Parameters as of `doses`.

    Raises
    ------
    ValueError
        If the study does not vary parts of chance alone.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    if analysis.components is None:
        raise ValueError(f"{analysis.study.name}: its factors are not parts of chance")
    frame = analysis.components[:-1]
    figure, axes = style.canvas(colours, width, 0.9 + 0.42 * len(frame))
    axes.axvline(0, color=colours.muted, linewidth=1, zorder=0.9)
    shares = 100 * frame[["share", "share_low", "share_high"]].to_numpy(dtype=float)
    for row, (share, low, high) in enumerate(shares):
        style.row_interval(axes, row, share, low, high, colours)
    names = [told(source) for source in frame["source"]]
    style.rows(axes, names, width, (26, 16), say("share of the variance of test accuracy between runs, %"))
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    return figure
