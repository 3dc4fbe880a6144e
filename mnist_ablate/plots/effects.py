"""Pictures of effects: all of them on one axis, interactions, effects by epoch, and what could be found."""

import itertools
import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mnist_ablate.design.contrasts import Contrast, Factor, Level, show
from mnist_ablate.design.design import Design
from mnist_ablate.design.settings import in_words, level_in_words
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.effects import contrast_weights
from mnist_ablate.inference.levels import graded
from mnist_ablate.language import figures, mark, say, told
from mnist_ablate.plots import style
from mnist_ablate.plots.style import DASHED, DOTTED, NARROW, SOLID, THEMES, WIDTH, Look, Theme, ThemeName
from mnist_ablate.store.results import Runs

_HEADINGS = {
    "main": mark("averaged over the other factors"),
    "level": mark("against the reference level"),
    "trend": mark("trends"),
    "interaction": mark("interactions"),
    "simple": mark("alone, the others at their reference"),
    "coefficient": mark("coefficients, without interactions"),
}


@style.under_own_settings
def forest(
    runs: Runs | Analysis,
    response: str | None = None,
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
        One of the study's; by default its main one, such as test accuracy.
    smallest
        The smallest effect that matters: a band shows the effects below it. None draws no band.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row per effect. For test accuracy, where predictions are stored, a thinner line is the interval for other
        test images as well. The axis cuts intervals wider than ten times the estimates.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame = analysis.effects(response)
    shown = analysis.response(response)
    wider = analysis.two_way if response in (None, analysis.metric) else None
    names, rows = _forest_rows(frame)
    figure, axes = style.canvas(colours, width, 1.1 + 0.31 * len(names))
    axes.set_xlim(_forest_limits(frame, smallest))
    style.too_small(axes, smallest, colours, upright=True)
    missing = say("no seed has all its cells") if analysis.paired else say("a cell has no runs")
    for i, row in enumerate(rows):
        _forest_row(axes, row, frame.iloc[i], None if wider is None else wider.iloc[i], colours, missing)
    label = say("effect on {response}", response=shown.in_sentence)
    label = f"{label}, {shown.unit_name}" if shown.unit else label
    style.rows(axes, ["" if heading else name for name, heading in names], width, (30, 17), label)
    for row, (name, heading) in enumerate(names):
        if heading:
            style.heading(axes, row + 0.12, name, colours)
    key: list[Line2D | Patch] = [style.interval_handle(say("estimate, 95 % interval"), colours)]
    if wider is not None:
        key.append(Line2D([], [], color=colours.muted, linewidth=1, label=say("… for other test images, too")))
    if smallest:
        size = f"{figures(f'{smallest:g}')}{shown.in_unit}"
        key.append(Patch(color=colours.grid, label=say("too small to matter (± {size})", size=size)))
    style.key(figure, key, colours, columns=len(key) if width > NARROW else 1)
    return figure


def _forest_rows(frame: pd.DataFrame) -> tuple[list[tuple[str, bool]], list[int]]:
    """Lay out the rows: names (and whether each is a heading), and the row of each effect."""
    names: list[tuple[str, bool]] = []
    rows = []
    kind = ""
    for effect in frame.itertuples():
        if effect.kind != kind:
            kind = str(effect.kind)
            names.append((told(_HEADINGS[kind]), True))
        rows.append(len(names))
        names.append((in_words(str(effect.label)), False))
    return names, rows


def _forest_limits(frame: pd.DataFrame, smallest: float | None) -> tuple[float, float]:
    """Return the range of the axis: all estimates, 0, the band, and the intervals as far as they are not absurd."""
    points = np.array([0.0, *frame["estimate"].dropna(), *([smallest, -smallest] if smallest else [])])
    room = 10 * max(np.abs(points).max(), 1e-6)
    ends = frame[["low", "high"]].to_numpy(dtype=float).ravel()
    shown = [*points, *np.clip(ends[np.isfinite(ends)], -room, room)]
    low, high = float(min(shown)), float(max(shown))
    if low == high:  # there is nothing to draw, or all of it is at 0
        return -1, 1
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _forest_row(
    axes: Axes, row: int, effect: "pd.Series[float]", wider: "pd.Series[float] | None", colours: Theme, missing: str
) -> None:
    if effect["n"] == 0:
        axes.text(0.5, row, missing, transform=axes.get_yaxis_transform(), va="center",
                  color=colours.muted, fontsize=9, style="italic")  # fmt: skip
        return
    if wider is not None:
        ends = wider["low_two_way"], wider["high_two_way"]
        style.row_interval(axes, row, math.nan, *ends, colours, look="muted", linewidth=1)
    style.row_interval(axes, row, effect["estimate"], effect["low"], effect["high"], colours)


# ---- Interactions ----


@style.under_own_settings
def interactions(
    runs: Runs | Analysis, response: str | None = None, *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw how factors act together: a panel for each pair, the levels of one along it, a line per level of the other.

    Parallel lines: each does the same whatever the other is. Values are means over seeds and over the levels of all
    other factors. Under each panel's name is the interaction, where both factors have two levels.

    Returns
    -------
    matplotlib.figure.Figure
        All panels share the vertical axis. Parameters as of `forest`.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    pairs = interaction_pairs(analysis.study)
    label = say("mean {response}", response=analysis.response(response).in_sentence)
    most = 3 if width > NARROW else 1
    figure, panels = style.panels(colours, width, len(pairs), most, sharex=False, labels=("", label))
    for axes, (first, second) in zip(panels, pairs, strict=True):
        _interaction(axes, analysis, response, first, second, colours)
    return figure


def has_interactions(runs: Runs | Analysis) -> bool:
    """Return whether there is a pair of factors to draw."""
    return bool(interaction_pairs(analyse(runs).study))


def interaction_pairs(study: Design) -> list[tuple[Factor, Factor]]:
    """List the pairs of factors whose every combination of levels is run, at all levels of the others.

    Without graded factors, which are drawn level by level, and parts of chance, which have no effect.
    """
    graded_names = {factor.name for factor in graded(study)}
    shown = [f for f in study.varied if f.name not in study.chance and f.name not in graded_names and len(f.levels) > 1]
    return [(first, second) for first, second in itertools.combinations(shown, 2) if _is_whole(study, first, second)]


def _is_whole(study: Design, first: Factor, second: Factor) -> bool:
    try:
        for a, b in itertools.product(first.levels, second.levels):
            contrast_weights(study, Contrast("mean", ((first.name, a), (second.name, b))))
    except ValueError:
        return False
    return True


_LEVEL_LOOKS = (Look("muted", SOLID, "o"), Look("blue", DASHED, "s"), Look("orange", DOTTED, "^"),
                Look("red", style.DASH_DOTTED, "v"))  # fmt: skip


def _interaction(
    axes: Axes, analysis: Analysis, response: str | None, first: Factor, second: Factor, colours: Theme
) -> None:
    looks = {f"{in_words(second.name)} {_word(level)}": _LEVEL_LOOKS[i % 4] for i, level in enumerate(second.levels)}
    points = [
        {"place": place, "line": line, "mean": _mean_at(analysis, response, ((first.name, at), (second.name, level)))}
        for line, level in zip(looks, second.levels, strict=True)
        for place, at in enumerate(first.levels)
    ]
    style.lines(axes, pd.DataFrame(points), "place", "mean", looks, colours, by="line")
    names = [f"{in_words(first.name)} {_word(first.levels[0])}", *map(_word, first.levels[1:])]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.25, len(names) - 0.75)
    style.title(axes, _interaction_title(analysis, response, first, second), colours, bold=False)
    handles = [style.handle(look, line, colours, markersize=5) for line, look in looks.items()]
    style.name_entries(axes.legend(handles, [""] * len(handles), frameon=False, labelcolor=colours.ink, fontsize=8.5,
                                   loc="best", handlelength=2.4), handles)  # fmt: skip


def _mean_at(analysis: Analysis, response: str | None, at: tuple[tuple[str, Level], ...]) -> float:
    """Average over the other factors, in the seeds that have all those cells."""
    return analysis.sample(Contrast("mean", at), response).mean


def _word(level: object) -> str:
    if isinstance(level, bool):
        return say("on") if level else say("off")
    return say("off") if level == 0 else level_in_words(show(level))  # type: ignore[arg-type]


def _interaction_title(analysis: Analysis, response: str | None, first: Factor, second: Factor) -> str:
    title = f"{first.name} × {second.name}"  # noqa: RUF001 # the sign of products
    frame = analysis.effects(response)
    rows = frame[(frame["kind"] == "interaction") & (frame["label"] == title)]
    if rows.empty or not math.isfinite(rows["low"].item()):
        return in_words(title)
    digits = analysis.response(response).digits
    numbers = [figures(f"{rows[name].item():+z.{digits}f}") for name in ("estimate", "low", "high")]
    estimate, low, high = (number.replace("-", "\N{MINUS SIGN}") for number in numbers)
    return f"{in_words(title)}\n{estimate} ({say('{low} to {high}', low=low, high=high)})"


# ---- By epoch ----


@style.under_own_settings
def by_epoch(
    runs: Runs | Analysis,
    response: str | None = None,
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
    analysis, colours = analyse(runs), THEMES[theme]
    frame = analysis.effects_by_epoch(response)
    effects = list(dict.fromkeys(frame["label"]))
    most, unit = 4 if width > NARROW else 2, analysis.response(response).unit_name
    labels = (say("epoch"), say("effect, {unit}", unit=unit) if unit else say("effect"))
    figure, panels = style.panels(colours, width, len(effects), most, labels=labels)
    for axes, effect in zip(panels, effects, strict=True):
        style.too_small(axes, smallest, colours, upright=False)
        style.lines(axes, frame, "epoch", "estimate", {effect: Look("blue", SOLID, "o")}, colours, by="label",
                    interval=("low", "high"), markersize=5)  # fmt: skip
        style.title(axes, in_words(effect), colours)
    if panels:
        style.round_ticks(panels[0].xaxis, 4, integer=True)
    return figure


# ---- Power ----

_KIND_LOOKS = {"main": Look("blue"), "level": Look("blue"), "simple": Look("orange", DASHED),
               "interaction": Look("muted", DOTTED)}  # fmt: skip
_NAMES = 16
"""More names than this at the ends of lines make the picture taller."""


@style.under_own_settings
def power(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the smallest effect on the main response that a number of seeds would find with 90 % power.

    Returns
    -------
    matplotlib.figure.Figure
        A line for every standard effect without trends, on logarithmic axes; a dot marks the seeds of the study.
        Parameters as of `forest`.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame, unit = analysis.detectable, analysis.response().unit_name
    frame = frame[frame["kind"] != "trend"]
    looks = {str(row.label): _KIND_LOOKS[str(row.kind)] for row in frame.drop_duplicates("label").itertuples()}
    taller = max(1.0, len(looks) / _NAMES)
    figure, axes = style.canvas(colours, width, 3.9 * taller)
    found = say("smallest effect found, {unit}", unit=unit) if unit else say("smallest effect found")
    counted = say("seeds") if analysis.paired else say("runs of a cell")
    axes.set(xscale="log", yscale="log", xlabel=counted, ylabel=found)
    style.lines(axes, frame, "seeds", "effect", looks, colours, by="label", linewidth=1.6)
    for label, row in frame[frame["seeds"] == frame["n"]].set_index("label").iterrows():
        axes.plot(row["seeds"], row["effect"], "o", color=getattr(colours, looks[str(label)].colour), markersize=5)
    _name_ends(axes, frame.groupby("label").last(), looks, (0.052 if width > NARROW else 0.06) / taller, colours)
    style.round_ticks(axes.xaxis, width)
    style.round_ticks(axes.yaxis, width)
    axes.grid(color=colours.grid, linewidth=0.8)
    return figure


def _name_ends(axes: Axes, ends: pd.DataFrame, looks: dict[str, Look], apart: float, colours: Theme) -> None:
    """Write the name of each line at its end, moved apart where they would touch: by a share of the axis."""
    low, high = map(math.log, axes.get_ylim())
    place = -math.inf
    for label, end in ends.sort_values("effect").iterrows():
        place = max((math.log(end["effect"]) - low) / (high - low), place + apart)
        colour, point = getattr(colours, looks[str(label)].colour), (end["seeds"], end["effect"])
        axes.annotate(in_words(str(label)), point, xytext=(1.012, place), textcoords="axes fraction", color=colour,
                      fontsize=8, va="center", annotation_clip=False)  # fmt: skip
