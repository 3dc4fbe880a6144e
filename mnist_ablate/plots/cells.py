"""Pictures of the cells: every run with its mean, and the losses epoch by epoch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import count, figures, mark, say, told
from mnist_ablate.notebook.printed import printed_losses
from mnist_ablate.plots import style
from mnist_ablate.plots.style import DASHED, MANY_POINTS, NARROW, SOLID, THEMES, WIDTH, Look, Theme, ThemeName
from mnist_ablate.store.results import Runs

LOSSES = {"train_loss_eval": mark("training images"), "val_loss": mark("validation images")}

MOST_SEEDS = 2000
"""Of more seeds, so many are drawn, evenly spaced: more points would only cover each other."""
# Within a row: seeds above, their mean below, so that neither hides the other.
_SEED_LANES = (-0.36, 0.14)
_MEAN_LANE = 0.24


@style.under_own_settings
def accuracy(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the main response of each run, such as its final test accuracy, with each cell's mean and 95 % t interval.

    Lines connect the runs of a seed, which share every random draw.

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
        A row per cell, in the order of the design; of more than `style.MOST_ROWS` cells, the reference cell and those
        with the highest and the lowest means. A seed has the same height in every row. Runs far below the
        rest because they diverged are drawn at the left edge, with their value.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame = analysis.cells()
    cells = cells_in_rows(analysis)
    frame, seeds = frame[frame["cell"].isin(cells)], drawn_seeds(analysis)[cells]
    seeds = seeds[:0] if analysis.study.summarised else seeds
    diverged = analysis.diverged.reindex_like(seeds).eq(True)
    sound = seeds.where(~diverged)
    figure, axes = style.canvas(colours, width, 1.15 + 0.42 * len(frame))
    axes.set(xlim=_limits(frame, sound, analysis), ylim=(len(frame) - 0.4, -0.6))
    _reference_line(axes, frame, colours)
    if analysis.paired:
        _pairs(axes, sound, colours)
    points = style.in_lanes(sound, *_SEED_LANES).assign(run="a seed")
    style.dots(axes, points, "value", colours, by="run", looks={"a seed": "blue"})
    edge, failed = axes.get_xlim()[0], style.in_lanes(seeds.where(diverged), *_SEED_LANES)
    axes.scatter(failed["value"].clip(lower=edge), failed["row"] + failed["lane"], marker="X", s=36, color=colours.red,
                 linewidths=0, clip_on=False)  # fmt: skip
    for row, (_, cell) in enumerate(frame.iterrows()):
        _mean(axes, row, cell, colours)
    style.rows(axes, [in_words(c) for c in frame["cell"]], width, (24, 16), axis_label(analysis))
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    key = _accuracy_key(frame, colours, say("one seed") if analysis.paired else say("one run"))
    key = key[1:] if analysis.study.summarised else key
    style.key(figure, key, colours, columns=len(key) if width > NARROW else 2)
    return figure


@style.under_own_settings
def loss_curves(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
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
        All panels share both axes. Of more than `style.MOST_PANELS` cells, the reference cell and those with the
        highest and the lowest validation losses have one.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    cells = cells_in_panels(analysis)
    frame = pd.concat(analysis.curves(response).assign(response=response) for response in LOSSES)
    frame = frame[frame["cell"].isin(cells)]
    of_cells = {str(cell): curves for cell, curves in frame.groupby("cell", sort=False)}
    printed = printed_losses(analysis.study)
    figure, panels = style.panels(
        colours, width, len(of_cells), int(width / 2.05), labels=(say("epoch"), say("loss, nats"))
    )
    for axes, (cell, curves) in zip(panels, of_cells.items(), strict=True):
        if cell != analysis.reference:
            _reference_curves(axes, of_cells[analysis.reference], colours)
        _curves(axes, curves, colours)
        for response in _PRINTED if cell in set(printed["cell"]) else ():
            losses = printed[printed["cell"] == cell]
            axes.plot(losses["epoch"], losses[response], **_hollow(response, colours))
        _say(axes, cell, curves, colours)
    highest_printed = printed[["train_loss", "val_loss"]].to_numpy(dtype=float).max(initial=0)
    panels[0].set(ylim=(0, max(_top(frame), 1.06 * highest_printed)), xlim=(0.6, frame["epoch"].max() + 0.4))
    style.round_ticks(panels[0].xaxis, 4.5, integer=True)
    key = _loss_key(colours, analysis.reference if len(of_cells) > 1 else None, printed=len(printed) > 0)
    style.key(figure, key, colours, columns=3 if width > NARROW else 1)
    return figure


@style.under_own_settings
def learning_curves(
    runs: Runs | Analysis, response: str | None = None, *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw a response of runs that were made elsewhere as it was logged, epoch by epoch, in a panel per cell.

    Parameters
    ----------
    runs
        Runs of a table with a column of epochs, or their analysis.
    response
        One of the study's; by default its main one.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches; the number of panels side by side follows from it.

    Returns
    -------
    matplotlib.figure.Figure
        Means over seeds with their 95 % t intervals; the reference cell is repeated in grey. Of more than
        `style.MOST_PANELS` cells, the reference cell and those with the highest and the lowest means have one.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    shown, name = analysis.response(response), response or analysis.metric
    frame = analysis.logged_curves(name).assign(response=name)
    frame = frame[frame["cell"].isin(cells_with_curves(analysis))]
    of_cells = {str(cell): curves for cell, curves in frame.groupby("cell", sort=False)}
    labels = (analysis.results.epoch_name, shown.named)
    figure, panels = style.panels(colours, width, len(of_cells), int(width / 2.05), labels=labels)
    looks = {name: _LOOKS["val_loss"]}
    for axes, (cell, curves) in zip(panels, of_cells.items(), strict=True):
        if cell != analysis.reference and analysis.reference in of_cells:
            _reference_curves(axes, of_cells[analysis.reference], colours, looks)
        _curves(axes, curves, colours, looks)
        _say(axes, cell, curves, colours)
    for axes in panels[:1]:
        axes.set(ylim=_ends(frame))
        style.round_ticks(axes.xaxis, 4.5)
    return figure


def cells_with_curves(analysis: Analysis) -> list[str]:
    """Return the cells that `learning_curves` shows."""
    logged = set(analysis.logged_curves()["cell"])
    return [cell for cell in _outermost(analysis, style.MOST_PANELS) if cell in logged]


def drawn_seeds(analysis: Analysis) -> pd.DataFrame:
    """Return the main response of the seeds that `accuracy` shows."""
    seeds = analysis.seeds()
    return seeds if len(seeds) <= MOST_SEEDS else seeds.iloc[np.linspace(0, len(seeds) - 1, MOST_SEEDS).astype(int)]


def cells_in_rows(analysis: Analysis) -> list[str]:
    """Return the cells that `accuracy` shows."""
    return _outermost(analysis, style.MOST_ROWS)


def _outermost(analysis: Analysis, most: int) -> list[str]:
    return style.outermost(analysis.cells().set_index("cell")["mean"], most, analysis.reference)


def cells_in_panels(analysis: Analysis) -> list[str]:
    """Return the cells that `loss_curves` shows."""
    means = analysis.cells("val_loss").set_index("cell")["mean"]
    return style.outermost(means, style.MOST_PANELS, analysis.reference)


# ---- Accuracies ----


def axis_label(analysis: Analysis) -> str:
    """Name the main response on an axis."""
    response = analysis.response()
    if not analysis.ours:
        return response.named
    return say("{response} after the last epoch, {unit}", response=response.name, unit=response.value_unit)


def _limits(frame: pd.DataFrame, sound: pd.DataFrame, analysis: Analysis) -> tuple[float, float]:
    """Return the range of the axis: the runs in `sound` (those that did not diverge), and the means' intervals.

    With two or three seeds an interval is many times as wide as the points are apart. It gets at most as much
    room on either side as the points take, and the axis cuts it there.
    """
    points = sound if sound.notna().to_numpy().any() else frame[["min", "max"]]
    if analysis.study.summarised:
        spread = frame["sd"].fillna(0)
        points = pd.DataFrame({"low": frame["mean"] - spread, "high": frame["mean"] + spread})
    low, high = float(np.nanmin(points)), float(np.nanmax(points))
    room = max(high - low, 0.1 if analysis.ours else 1e-6 * abs(high) or 1.0)
    whole = frame[frame["n_diverged"] == 0] if analysis.ours else frame
    left = max(np.nanmin([low, *whole["mean_low"]]), low - room)
    right = min(np.nanmax([high, *whole["mean_high"]]), high + room)
    return float(left) - 0.06 * room, float(right) + 0.06 * room


def _pairs(axes: Axes, seeds: pd.DataFrame, colours: Theme) -> None:
    """Connect the runs of each seed from row to row; a missing run leaves a gap in the line."""
    x = seeds.to_numpy(dtype=float)
    y = style.heights(len(seeds), *_SEED_LANES)[:, None] + np.arange(seeds.shape[1])
    # One line for all, lifted between the seeds: a tenth of the space that many lines take.
    lifted = [np.pad(values, ((0, 0), (0, 1)), constant_values=np.nan).ravel() for values in (x, y)]
    faint = float(np.clip(8 / max(len(seeds), 1), 0.12, 0.35))
    axes.plot(*lifted, color=colours.muted, linewidth=0.5, alpha=faint, zorder=0.8, rasterized=x.size > MANY_POINTS)


def _mean(axes: Axes, row: int, cell: "pd.Series[float]", colours: Theme) -> None:
    """Draw the mean of a cell with its interval; say so where it lies off the axis, or where there is none."""
    edge, height = axes.get_xlim()[0], row + _MEAN_LANE
    if cell["n"] == 0:
        axes.text(edge, row, "  " + say("no run stored"), va="center", color=colours.muted, fontsize=9, style="italic")
    elif cell["mean"] < edge:
        text = "   " + count(
            int(cell["n_diverged"]),
            "{n} diverged, lowest {least}; mean {mean}", "{n} diverged, lowest {least}; mean {mean}",
            least=figures(f"{cell['min']:.2f}"), mean=figures(f"{cell['mean']:.2f}"),
        )  # fmt: skip
        paper = {"facecolor": colours.paper, "edgecolor": "none", "pad": 0.5}
        axes.text(edge, height, text, va="center", color=colours.red, fontsize=9, bbox=paper)
    else:
        ends = cell["mean_low"], cell["mean_high"]
        style.row_interval(axes, height, cell["mean"], *ends, colours, look="ink", linewidth=1.8)


def _reference_line(axes: Axes, frame: pd.DataFrame, colours: Theme) -> None:
    mean = frame.loc[frame["cell"] == frame["reference"], "mean"].item()
    if len(frame) > 1 and not math.isnan(mean):
        axes.axvline(mean, color=colours.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.9)


def _accuracy_key(frame: pd.DataFrame, colours: Theme, dot_is: str) -> list[Line2D]:
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4.5, "alpha": 0.7}
    key = [
        Line2D([], [], color=colours.blue, label=dot_is, **dot),
        style.interval_handle(say("mean, 95 % interval"), colours, look="ink", linewidth=1.8),
    ]
    if len(frame) > 1:
        label = say("mean of {cell}", cell=in_words(frame["reference"].iloc[0]))
        key.append(Line2D([], [], color=colours.muted, linewidth=1, linestyle=(0, (4, 3)), label=label))
    if frame["n_diverged"].any():
        key.append(Line2D([], [], color=colours.red, marker="X", linestyle="", markersize=6, label=say("diverged")))
    return key


# ---- Losses ----

_LOOKS = {"train_loss_eval": Look("orange", DASHED, "s"), "val_loss": Look("blue", SOLID, "o")}
# What the notebook printed: hollow marks of the same shapes.
_PRINTED = {
    "train_loss": (mark("training, as the notebook printed it"), "s", "orange"),
    "val_loss": (mark("validation, as the notebook printed it"), "o", "blue"),
}
_FAINT = {"linewidth": 1, "alpha": 0.75, "zorder": 1.5}
_MARKS = 8
"""Marks on a line at most: more would touch."""


def _curves(axes: Axes, curves: pd.DataFrame, colours: Theme, looks: Mapping[str, Look] = _LOOKS) -> None:
    """Draw the mean losses of a cell with their intervals.

    A diverged run makes the interval wider than the panel, and words say that it diverged: no band then.
    """
    frame = curves.assign(low=curves["mean"] - curves["half_width"], high=curves["mean"] + curves["half_width"])
    interval = None if curves["n_diverged"].any() and curves["epoch"].max() > 1 else ("low", "high")
    every = math.ceil(curves["epoch"].nunique() / _MARKS)
    style.lines(axes, frame, "epoch", "mean", looks, colours, by="response", interval=interval, markersize=5,
                markevery=every)  # fmt: skip


def _reference_curves(axes: Axes, curves: pd.DataFrame, colours: Theme, looks: Mapping[str, Look] = _LOOKS) -> None:
    """Draw the mean losses of the reference cell, faintly."""
    for response, look in looks.items():
        curve = curves[curves["response"] == response]
        marks = {"marker": "_" if len(curve) == 1 else "", "markersize": 16, "color": colours.muted}
        axes.plot(curve["epoch"], curve["mean"], **look.style(colours) | marks | _FAINT)


def _hollow(response: str, colours: Theme) -> dict[str, Any]:
    what, marker, colour = _PRINTED[response]
    return {"linestyle": "", "marker": marker, "markersize": 6, "markerfacecolor": "none",
            "markeredgecolor": getattr(colours, colour), "markeredgewidth": 1.1,
            "label": told(what)}  # fmt: skip


def _say(axes: Axes, cell: str, curves: pd.DataFrame, colours: Theme) -> None:
    """Name the panel's cell, and say in it what is missing or diverged."""
    style.title(axes, style.wrapped(in_words(cell), limit=20), colours)
    n_runs, n_diverged = int(curves["n"].max()), int(curves["n_diverged"].max())
    note = "" if n_runs else say("no run stored")
    if n_diverged:
        note = count(n_diverged, "{n} of {all} diverged", "{n} of {all} diverged", all=n_runs)
    colour = colours.red if n_diverged else colours.muted
    axes.text(0.97, 0.93, note, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=colour)


def _top(curves: pd.DataFrame) -> float:
    """Return the upper end of the axis: all means, and the bands of what did not diverge."""
    bands = (curves["mean"] + curves["half_width"])[curves["n_diverged"] == 0]
    highest_mean = float(np.nanmax([*curves["mean"], 1e-3]))
    # The interval of two seeds may be many times the mean.
    return 1.06 * min(float(np.nanmax([highest_mean, *bands])), 2 * highest_mean)


def _ends(curves: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the axis: all means, and their bands where these are not many times as wide."""
    low, high = float(curves["mean"].min()), float(curves["mean"].max())
    room = max(high - low, 1e-6 * abs(high)) or 1.0
    half = curves["half_width"].fillna(0)
    low, high = (
        max(float((curves["mean"] - half).min()), low - room),
        min(float((curves["mean"] + half).max()), high + room),
    )
    return low - 0.04 * room, high + 0.04 * room


def _loss_key(colours: Theme, reference: str | None, *, printed: bool) -> list[Line2D]:
    key = [style.handle(_LOOKS[response], told(label), colours) for response, label in LOSSES.items()]
    if reference is not None:
        faint = {"color": colours.muted, "marker": ""} | _FAINT
        key.append(
            style.handle(_LOOKS["val_loss"], say("{cell}, for comparison", cell=in_words(reference)), colours, **faint)
        )
    if printed:
        key += [Line2D([], [], **_hollow(response, colours)) for response in _PRINTED]
    return key
