"""Pictures of effects: all of them on one axis, how techniques act together, how effects change, what could be seen."""

import itertools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from mnist_ablate.design.contrasts import Contrast, Factor, Level, show
from mnist_ablate.design.settings import CHANCE
from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.effects import (
    contrast_weights,
    describe,
    effect_table,
    effects_by_epoch,
    seed_effects,
    standard_effects,
    t_summary,
)
from mnist_ablate.inference.levels import graded
from mnist_ablate.inference.test_images import two_way_table
from mnist_ablate.inference.verdicts import detectable
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

_HEADINGS = {
    "main": "averaged over the other factors",
    "level": "against the reference level",
    "trend": "trends",
    "interaction": "interactions",
    "simple": "alone, the others at their reference",
}


def forest(
    runs: Results | Analysis,
    response: str = "test_accuracy",
    *,
    smallest: float | None = None,
    theme: ThemeName = "light",
    width: float = WIDTH,
) -> Figure:
    """Draw all standard effects on one axis, with their 95 % intervals.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    response
        One of `mnist_ablate.inference.effects.RESPONSES`.
    smallest
        Half the width of the band of effects that are too small to matter; None draws none.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row per effect. For test accuracy, where predictions are stored, a thinner line is the interval for other
        test images as well. Of an interval wider than ten times the estimates, the ends are cut.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frame = effect_table(results, response)
    wider = two_way_table(results) if response == "test_accuracy" else None
    names, rows = _forest_rows(frame)
    figure, axes = canvas(colours, width, 1.1 + 0.31 * len(names))
    axes.set(xlim=_forest_limits(frame, smallest), ylim=(len(names) - 0.4, -0.6))
    if smallest:
        axes.axvspan(-smallest, smallest, color=colours.grid, alpha=0.75, linewidth=0, zorder=0)
    axes.axvline(0, color=colours.muted, linewidth=1, zorder=0.9)
    for i, row in enumerate(rows):
        _forest_row(axes, row, frame.iloc[i], None if wider is None else wider.iloc[i], colours)
    _name_forest(axes, names, width, colours)
    ticks(axes.xaxis, width)
    axes.set_xlabel(f"effect on {describe(response).label}, {describe(response).unit}")
    key = _forest_key(colours, smallest, two=wider is not None, unit=describe(response).unit)
    figure.legend(handles=key, **key_style(colours, columns=len(key) if width > NARROW else 1))
    return figure


def _forest_rows(frame: pd.DataFrame) -> tuple[list[tuple[str, bool]], list[int]]:
    """Lay out the rows: names (and whether each is a heading), and the row of each effect."""
    names: list[tuple[str, bool]] = []
    rows = []
    kind = ""
    for effect in frame.itertuples():
        if effect.kind != kind:
            kind = str(effect.kind)
            names.append((_HEADINGS[kind], True))
        rows.append(len(names))
        names.append((str(effect.label), False))
    return names, rows


def _name_forest(axes: Axes, names: list[tuple[str, bool]], width: float, colours: Theme) -> None:
    """Name the rows of effects at the axis, and write headings above them, inside."""
    name_rows(axes, ["" if heading else name for name, heading in names], limit=30 if width > NARROW else 17)
    for row, (name, heading) in enumerate(names):
        if heading:
            axes.text(0.004, row + 0.12, name, transform=axes.get_yaxis_transform(), color=colours.muted, fontsize=8.5,
                      va="center", style="italic", zorder=3)  # fmt: skip


def _forest_limits(frame: pd.DataFrame, smallest: float | None) -> tuple[float, float]:
    """Find the range of the axis: all estimates, 0, the band, and the intervals as far as they are not absurd."""
    points = np.array([0.0, *frame["estimate"].dropna(), *([smallest, -smallest] if smallest else [])])
    room = 10 * max(np.abs(points).max(), 1e-6)
    ends = frame[["low", "high"]].to_numpy(dtype=float).ravel()
    kept = np.clip(ends[np.isfinite(ends)], -room, room)
    low, high = min(points.min(), *kept, 0), max(points.max(), *kept, 0)
    if low == high:  # there is nothing to draw, or all of it is at 0
        return -1, 1
    return float(low - 0.06 * (high - low)), float(high + 0.06 * (high - low))


def _forest_row(
    axes: Axes, row: int, effect: "pd.Series[float]", wider: "pd.Series[float] | None", colours: Theme
) -> None:
    if effect["n"] == 0:
        axes.text(0.5, row, "no seed has all its cells", transform=axes.get_yaxis_transform(), va="center",
                  color=colours.muted, fontsize=9, style="italic")  # fmt: skip
        return
    if wider is not None and not math.isnan(wider["low_two_way"]):
        axes.plot([wider["low_two_way"], wider["high_two_way"]], [row, row], color=colours.muted, linewidth=1)
    axes.plot([effect["low"], effect["high"]], [row, row], color=colours.blue, linewidth=3, solid_capstyle="butt")
    axes.plot(effect["estimate"], row, "D", color=colours.ink, markersize=6, markeredgecolor=colours.paper)


def _forest_key(colours: Theme, smallest: float | None, *, two: bool, unit: str) -> list[Line2D | Patch]:
    mean = Line2D([], [], color=colours.blue, linewidth=3, marker="D", markersize=6, markerfacecolor=colours.ink,
                  markeredgecolor=colours.paper, label="estimate, 95 % interval")  # fmt: skip
    wider = Line2D([], [], color=colours.muted, linewidth=1, label="… for other test images, too")
    band = Patch(color=colours.grid, label=f"too small to matter (± {smallest:g} {unit})" if smallest else "")
    return [mean, *[wider] * two, *[band] * bool(smallest)]


def interactions(
    runs: Results | Analysis, response: str = "test_accuracy", *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw how factors act together: a panel for each pair, the levels of one along it, a line per level of the other.

    Parallel lines: each does the same whatever the other is. Values are means over seeds and over the levels of all
    other factors. Under each panel's name is the interaction, where both factors have two levels.

    Returns
    -------
    matplotlib.figure.Figure
        All panels share the vertical axis. Parameters as of `forest`.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    pairs = interaction_pairs(results.study)
    columns = min(len(pairs), 3 if width > NARROW else 1) or 1
    figure, places = panels(colours, width, math.ceil(len(pairs) / columns) or 1, columns, len(pairs), sharex=False)
    for axes, (one, other) in zip(places, pairs, strict=True):
        _interaction(axes, results, response, one, other, colours)
    figure.supylabel(f"mean {describe(response).label}", color=colours.ink, fontsize=10)
    return figure


def has_interactions(runs: Results | Analysis) -> bool:
    """Tell whether there is a pair of factors to draw."""
    analysis = analyse(runs)
    results = analysis.results
    return bool(interaction_pairs(results.study))


def interaction_pairs(study: Study) -> list[tuple[Factor, Factor]]:
    """List the pairs of factors of which every combination of levels is run, at all levels of the others.

    Less those of graded factors, which are drawn level by level, and of parts of chance, which have no effect.
    """
    graded_names = {factor.name for factor in graded(study)}
    shown = [f for f in study.design if f.name not in CHANCE and f.name not in graded_names and len(f.levels) > 1]
    return [(one, other) for one, other in itertools.combinations(shown, 2) if _is_whole(study, one, other)]


def _is_whole(study: Study, one: Factor, other: Factor) -> bool:
    try:
        for a, b in itertools.product(one.levels, other.levels):
            contrast_weights(study, Contrast("mean", ((one.name, a), (other.name, b))))
    except ValueError:
        return False
    return True


_LINES = (("-", "o"), ((0, (4, 1.5)), "s"), ((0, (1, 1.2)), "^"), ((0, (5, 1.5, 1, 1.5)), "v"))


def _interaction(axes: Axes, results: Results, response: str, one: Factor, other: Factor, colours: Theme) -> None:
    for i, level in enumerate(other.levels):
        style, marker = _LINES[i % len(_LINES)]
        y = [_mean_at(results, response, ((one.name, at), (other.name, level))) for at in one.levels]
        colour = (colours.muted, colours.blue, colours.orange, colours.red)[i % 4]
        axes.plot(range(len(y)), y, linestyle=style, marker=marker, color=colour, linewidth=1.8, markersize=5,
                  label=f"{other.name} {_word(level)}")  # fmt: skip
    axes.set_xticks(range(len(one.levels)), [f"{one.name} {_word(one.levels[0])}", *map(_word, one.levels[1:])])
    axes.set_xlim(-0.25, len(one.levels) - 0.75)
    axes.set_title(_interaction_title(results, response, one, other), loc="left", fontsize=9.5, color=colours.ink)
    axes.legend(frameon=False, labelcolor=colours.ink, fontsize=8.5, loc="best", handlelength=2.4)


def _mean_at(results: Results, response: str, at: tuple[tuple[str, Level], ...]) -> float:
    """Average over the other factors, in the seeds that have all those cells."""
    return float(seed_effects(results, Contrast("mean", at), response).mean())


def _word(level: object) -> str:
    return ("off", "on")[level] if isinstance(level, bool) else "off" if level == 0 else show(level)  # type: ignore[arg-type]


def _interaction_title(results: Results, response: str, one: Factor, other: Factor) -> str:
    title = f"{one.name} × {other.name}"  # noqa: RUF001 # the sign of products
    contrast = Contrast(f"{one.name}:{other.name}")
    if contrast not in [effect.contrast for effect in standard_effects(results.study)]:
        return title
    found = t_summary(np.asarray(seed_effects(results, contrast, response), dtype=np.float64))
    digits = describe(response).digits
    numbers = [f"{found[name]:+z.{digits}f}".replace("-", "\N{MINUS SIGN}") for name in ("estimate", "low", "high")]
    return f"{title}\n{numbers[0]} ({numbers[1]} to {numbers[2]})" if math.isfinite(found["low"]) else title


def by_epoch(
    runs: Results | Analysis,
    response: str = "test_accuracy",
    *,
    smallest: float | None = None,
    theme: ThemeName = "light",
    width: float = WIDTH,
) -> Figure:
    """Draw each main effect after each epoch, with its 95 % interval.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per effect; all share both axes. Parameters as of `forest`.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    frame = effects_by_epoch(results, response)
    labels = list(dict.fromkeys(frame["label"]))
    columns = max(1, min(len(labels), 4 if width > NARROW else 2))
    figure, places = panels(colours, width, math.ceil(len(labels) / columns) or 1, columns, len(labels))
    for axes, label in zip(places, labels, strict=True):
        of = frame[frame["label"] == label]
        if smallest:
            axes.axhspan(-smallest, smallest, color=colours.grid, alpha=0.75, linewidth=0, zorder=0)
        axes.axhline(0, color=colours.muted, linewidth=1)
        axes.plot(of["epoch"], of["estimate"], color=colours.blue, linewidth=1.8, marker="o", markersize=4)
        axes.fill_between(of["epoch"], of["low"], of["high"], color=colours.blue, alpha=0.25, linewidth=0)
        axes.set_title(label, loc="left", fontsize=9.5, color=colours.ink, fontweight="bold")
    if places:
        ticks(places[0].xaxis, 4, integer=True)
    figure.supxlabel("epoch", color=colours.ink, fontsize=10)
    figure.supylabel(f"effect, {describe(response).unit}", color=colours.ink, fontsize=10)
    return figure


def power(
    runs: Results | Analysis, response: str = "test_accuracy", *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw the smallest effect that a number of seeds would find with 90 % power, for every standard effect.

    Returns
    -------
    matplotlib.figure.Figure
        Both axes are logarithmic; a dot marks the seeds that there are. Parameters as of `forest`.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours = THEMES[theme]
    figure, axes = canvas(colours, width, 3.9)
    frame = detectable(results, [e for e in standard_effects(results.study) if e.kind != "trend"], response)
    styles = {"main": ("-", colours.blue), "level": ("-", colours.blue), "simple": ((0, (4, 1.5)), colours.orange),
              "interaction": ((0, (1, 1.2)), colours.muted)}  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = []
    for (kind, label), of in frame.groupby(["kind", "label"], sort=False):
        style, colour = styles[str(kind)]
        axes.plot(of["seeds"], of["effect"], linestyle=style, color=colour, linewidth=1.6)
        now = of[of["seeds"] == of["n"]]
        axes.plot(now["seeds"], now["effect"], "o", color=colour, markersize=5)
        ends.append((float(of["effect"].iloc[-1]), str(label), colour))
    _name_ends(axes, ends, float(frame["seeds"].max()) if len(frame) else 1, width)
    _plain_numbers(axes, frame)
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.set_xlabel("seeds")
    axes.set_ylabel(f"smallest effect found, {describe(response).unit}", color=colours.ink, fontsize=10)
    return figure


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], x: float, width: float) -> None:
    """Write the name of each line at its end, moved apart where they would touch."""
    size, least = 8, 0.052 if width > NARROW else 0.06
    low, high = map(math.log, axes.get_ylim())
    place = -math.inf
    for value, label, colour in sorted(ends):
        place = max((math.log(value) - low) / (high - low), place + least)
        axes.annotate(label, (x, value), xytext=(1.012, place), textcoords="axes fraction", color=colour, fontsize=size,
                      va="center", annotation_clip=False)  # fmt: skip


def _plain_numbers(axes: Axes, frame: pd.DataFrame) -> None:
    """Label logarithmic axes with plain round numbers."""
    for axis, values in ((axes.xaxis, frame["seeds"]), (axes.yaxis, frame["effect"])):
        steps = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
        shown = [step for step in steps if len(values) and 0.9 * values.min() <= step <= 1.1 * values.max()]
        axis.set_ticks(shown, [f"{step:g}" for step in shown])
        axis.set_minor_locator(NullLocator())
