"""What all pictures share: colours, axes, lines, dots, rows with intervals, keys.

A figure is a value: it looks the same whatever else the process draws and whatever settings of matplotlib the user
has, and it opens no window. Colours are Okabe and Ito's, which people with any colour vision can tell apart; a marker's
shape or a line's dashes always repeat what a colour says.
"""

import contextlib
import functools
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from mnist_ablate.language import figures, speaking, spoken

ThemeName = Literal["light", "dark"]
WIDTH = 8.6
"""Inches: as wide as the report's column."""
NARROW = 6.0
"""Inches: a figure of this width or less puts its key in a column."""
MOST_ROWS, MOST_PANELS, MOST_LINES = 40, 24, 12
"""Of more cells than this, a picture of rows, panels or lines shows some: see `outermost`."""
MANY_POINTS = 5_000
"""More points than this are drawn as pixels, which then take less space than shapes."""


@dataclass(frozen=True)
class Theme:
    """The colours of a figure; a page has a CSS variable of the same name for each."""

    paper: str
    ink: str
    muted: str
    grid: str
    blue: str
    orange: str
    red: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme("#ffffff", "#1b1f24", "#5b626b", "#e3e5e8", "#0072b2", "#d55e00", "#b34700"),
    "dark": Theme("#14171b", "#e8e6e1", "#a3a9b2", "#2f343b", "#56b4e9", "#e69f00", "#ff8a4c"),
}


# ---- Settings ----

P = ParamSpec("P")
T = TypeVar("T")
_EAST_ASIAN = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans CJK TC", "Noto Sans SC", "Noto Sans JP",
    "Noto Sans KR", "Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "IPAexGothic", "IPAGothic", "NanumGothic", "PingFang SC", "Hiragino Sans",
    "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei",
)  # fmt: skip
"""Typefaces for letters that matplotlib's own does not have. Which of them are there depends on the machine."""


@functools.cache
def _settings() -> dict[Any, Any]:
    """Return the settings that differ from matplotlib's defaults."""
    there = {font.name for font in fontManager.ttflist}  # to ask for another would print a line for each word
    return {
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans", *(name for name in _EAST_ASIAN if name in there)],
        "text.parse_math": False,  # names are shown as written, with their dollars
        "svg.fonttype": "none",
        "pdf.fonttype": 42,  # outlines, which journals ask for
        "svg.hashsalt": "mnist_ablate",
    }


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Have the settings of our pictures in place of the user's, who get theirs back at the end."""
    with mpl.rc_context(), warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box in the PNG; the SVG has the letter
        mpl.rcdefaults()
        mpl.rcParams.update(_settings())
        yield


def under_own_settings(draw: Callable[P, T]) -> Callable[P, T]:
    """Make `draw` look the same whatever settings of matplotlib the user has."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        with own_settings():
            return draw(*args, **kwargs)

    return drawn


class Drawing(Figure):
    """A figure that is drawn and saved under our settings, and that a notebook shows."""

    draw = under_own_settings(Figure.draw)  # matplotlib makes ticks late, when it draws
    savefig = under_own_settings(Figure.savefig)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the picture for screens of high and low resolution; a formatter that IPython has comes before it."""
        width, height = (round(96 * inches) for inches in self.get_size_inches())
        return png(self), {"width": width, "height": height}


def png(figure: Figure) -> bytes:
    """Write a figure as PNG."""
    buffer, dpi = io.BytesIO(), figure.get_dpi()
    with own_settings():
        figure.set_dpi(150)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(buffer, metadata={"Software": None}, pil_kwargs={"compress_level": 1})
        figure.set_dpi(dpi)
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """Write a figure as PDF: the same bytes for the same results, with its typeface in it."""
    buffer = io.BytesIO()
    with own_settings():
        canvas: Any = FigureCanvasPdf(figure)
        canvas.print_pdf(buffer, metadata=dict.fromkeys(("Creator", "Producer", "CreationDate")))
    return buffer.getvalue()


# ---- Figures and axes ----


def canvas(colours: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, in inches."""
    figure = Drawing(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    axes = figure.add_subplot()
    dress(axes, colours)
    return figure, axes


def panels(
    colours: Theme, width: float, n: int, most: int, *, sharex: bool = True, labels: tuple[str, str] = ("", "")
) -> tuple[Figure, list[Axes]]:
    """Make `n` panels that share their axes, at most `most` side by side, with `labels` for all x and all y axes."""
    columns = max(1, min(n, most))
    rows = math.ceil(n / columns) or 1
    height = 0.9 + rows * (2.0 if columns > 1 else 2.8)
    figure = Drawing(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = list(figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False).flat)
    for axes in grid[n:]:
        axes.remove()
    for i, axes in enumerate(grid[:n]):
        dress(axes, colours)
        axes.grid(axis="y", color=colours.grid, linewidth=0.8)
        # The last panel of each column has the numbers, though the row below it may be partly empty.
        axes.tick_params(labelbottom=not sharex or i + columns >= n, labelleft=i % columns == 0)
    for write, label in zip((figure.supxlabel, figure.supylabel), labels, strict=True):
        if label:
            write(label, color=colours.ink, fontsize=10)
    return figure, grid[:n]


def dress(axes: Axes, colours: Theme) -> None:
    """Give `axes` the theme's colours one by one: matplotlib makes ticks late, outside any ``rc_context``."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(colours.muted)
    axes.tick_params(colors=colours.muted, labelcolor=colours.ink, labelsize=9, length=3)
    axes.tick_params(axis="y", length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=colours.ink, fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_Ticks(useOffset=False if axis is axes.xaxis else None))


class _Ticks(ScalarFormatter):
    """matplotlib's own ticks, with numbers as the language writes them in which the figure is made."""

    def __init__(self, *, useOffset: bool | None) -> None:  # noqa: N803 # matplotlib's name
        super().__init__(useOffset=useOffset)
        self._language = spoken()

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Write the number of a tick."""
        with speaking(self._language):
            return figures(super().__call__(x, pos))


def outermost(values: "pd.Series[float]", most: int, reference: str) -> list[str]:
    """Return the index of `values`, in its order; of more than `most`, the reference, the highest and the lowest.

    Half of those besides the reference are the highest, or one more than half. A missing value is the lowest.
    """
    others = values.drop(reference, errors="ignore").sort_values(ascending=False, kind="stable").index
    room = most - (len(values) - len(others))
    if len(others) <= room:
        return list(values.index)
    shown = {reference, *others[: -(-room // 2)], *others[len(others) - room // 2 :]}
    return [name for name in values.index if name in shown]


def title(axes: Axes, text: str, colours: Theme, *, bold: bool = True) -> None:
    """Name a panel, at its upper left."""
    weight = "bold" if bold else "normal"
    axes.set_title(text, loc="left", fontsize=9.5, color=colours.ink, fontweight=weight, pad=4)


def round_ticks(axis: Axis, width: float, *, integer: bool = False) -> None:
    """Set round ticks in plain numbers: as many as fit `width` inches; 1, 2, 5, 10 and so on on a logarithmic axis."""
    if axis.get_scale() == "log":
        low, high = sorted(axis.get_view_interval())
        steps = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        axis.set_ticks(steps, [figures(f"{step:g}") for step in steps])
        axis.set_minor_locator(NullLocator())
    else:
        bins = max(3, round(1.1 * width))
        axis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=1))


def name_rows(axes: Axes, names: Sequence[str], limit: int) -> None:
    """Name the rows of `axes`, each line of a name at a place of its own.

    matplotlib sets the lines of one text by the widths of its own typeface, and a page may have another.
    """
    lines = [(row, wrapped(name, limit).split("\n")) for row, name in enumerate(names)]
    places = [(row + 0.34 * (i - (len(parts) - 1) / 2), part) for row, parts in lines for i, part in enumerate(parts)]
    axes.set_yticks([place for place, _ in places], [part for _, part in places])


def rows(axes: Axes, names: Sequence[str], width: float, limit: tuple[int, int], label: str) -> None:
    """Name rows, with ticks and a `label` below; names break at a `limit` of letters in wide and in narrow figures."""
    name_rows(axes, names, limit[0] if width > NARROW else limit[1])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=label)
    round_ticks(axes.xaxis, width)


def heading(axes: Axes, place: float, text: str, colours: Theme) -> None:
    """Write a heading above rows, inside the axes."""
    axes.text(0.004, place, text, transform=axes.get_yaxis_transform(), color=colours.muted, fontsize=8.5, va="center",
              style="italic", zorder=3)  # fmt: skip


def wrapped(name: str, limit: int) -> str:
    """Break a name after a ``+`` or before a space where it gets long; a word half as long again breaks anywhere."""
    lines = [""]
    name = re.sub(rf"[^\s+]{{{limit}}}(?=[^\s+]{{{limit // 2}}})", r"\g<0>\n", name)
    for part in name.replace("+", "+\n").replace(" ", "\n ").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part.rstrip("+")) > limit:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def key(figure: Figure, handles: Sequence[Artist], colours: Theme, columns: int) -> None:
    """Explain `handles` above the axes, in `columns`, or in fewer where the labels are too long for the figure."""
    while columns > 1 and _key_width(handles, columns) > figure.get_figwidth():
        columns -= 1
    name_entries(figure.legend(handles, [""] * len(handles), loc="outside upper left", ncols=columns, frameon=False,
                               labelcolor=colours.ink, fontsize=9.5, handlelength=2.4, columnspacing=1.1,
                               borderaxespad=0.2), handles)  # fmt: skip


def _key_width(handles: Sequence[Artist], columns: int) -> float:
    """Estimate the width of a key in inches: matplotlib fills its columns one by one, the first ones with one more."""
    lengths = [len(str(entry.get_label())) for entry in handles]
    rows, longer = divmod(len(lengths), columns)
    ends = np.cumsum([rows + 1] * longer + [rows] * (columns - longer))
    longest = [max(lengths[start:end], default=0) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return sum(0.5 + 0.066 * length for length in longest)


def name_entries(legend: Legend, handles: Sequence[Artist]) -> None:
    """Write the labels of `handles` into a key: matplotlib leaves out entries whose label begins with ``_``."""
    for text, entry in zip(legend.get_texts(), handles, strict=True):
        text.set_text(str(entry.get_label()))


# ---- Marks ----


@dataclass(frozen=True)
class Look:
    """How a line looks: its colour (a name of `Theme`), its dashes, and its marks."""

    colour: str
    dashes: tuple[float, ...] = ()
    marker: str = ""

    def style(self, colours: Theme) -> dict[str, Any]:
        """Return the look as arguments of matplotlib's lines."""
        style = (0, self.dashes) if self.dashes else "-"
        return {"color": getattr(colours, self.colour), "linestyle": style, "marker": self.marker}


SOLID, DASHED, DOTTED, DASH_DOTTED = (), (4, 1.5), (1, 1.2), (5, 1.5, 1, 1.5)


def lines(
    axes: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    looks: Mapping[str, Look],
    colours: Theme,
    *,
    by: str,
    interval: tuple[str, str] | None = None,
    band: bool = True,
    **style: Any,
) -> None:
    """Draw columns `x` and `y` as a line for each value of column `by`, with seaborn; labels stay as they are.

    `looks` says how the line of each value looks; rows of other values are left out. `interval` names the columns with
    the ends of intervals: a band along the line, or a bar at each point if `band` is off or there is one point.
    `style` holds arguments of matplotlib's lines for all of them.
    """
    import seaborn  # imports pyplot: not for those who draw nothing

    drawn = frame[frame[by].isin(list(looks))].dropna(subset=[y])
    names = [name for name in looks if (drawn[by] == name).any()]
    if not names:
        return
    labels = _taken_labels(axes)
    markers = {name: looks[name].marker for name in names}
    seaborn.lineplot(
        data=drawn, x=x, y=y, hue=by, style=by, hue_order=names, style_order=names,
        palette={name: getattr(colours, looks[name].colour) for name in names},
        dashes={name: looks[name].dashes for name in names}, markers=markers if any(markers.values()) else False,
        estimator=None, errorbar=None, sort=False, legend=False, ax=axes,
        **{"linewidth": 1.8, "markersize": 6, "markeredgewidth": 0} | style,
    )  # fmt: skip
    axes.set(xlabel=labels[0], ylabel=labels[1])
    for name in names if interval else ():
        points = drawn[drawn[by] == name]
        at, middle, low, high = (points[column].to_numpy(dtype=float) for column in (x, y, *(interval or ())))
        colour = getattr(colours, looks[name].colour)
        if band and len(points) > 1:
            axes.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        else:
            sizes = np.nan_to_num([middle - low, high - middle]).clip(min=0)
            axes.errorbar(at, middle, yerr=sizes, color=colour, linestyle="none", elinewidth=1.2, capsize=3 * band)


def _taken_labels(axes: Axes) -> tuple[str, str]:
    """Return the labels of `axes`, and leave some: without, seaborn asks for the ticks of all panels each time."""
    labels = axes.get_xlabel(), axes.get_ylabel()
    axes.set(xlabel="x", ylabel="y")
    return labels


def handle(look: Look, label: str, colours: Theme, **style: Any) -> Line2D:
    """Make the entry of a key for a line."""
    return Line2D([], [], label=label, **look.style(colours) | {"linewidth": 1.8, "markersize": 4} | style)


def dots(axes: Axes, frame: pd.DataFrame, x: str, colours: Theme, *, by: str, looks: Mapping[str, str]) -> None:
    """Draw a dot for each row of `frame`, with seaborn; labels stay as they are.

    `frame` has columns ``row``, ``lane`` (the height within the row), `x`, and `by`; `looks` has the colour (a name of
    `Theme`) of each value of `by`.
    """
    import seaborn  # imports pyplot: not for those who draw nothing

    if frame.empty:
        return
    labels, before = _taken_labels(axes), len(axes.collections)
    most = frame.groupby("row").size().max()
    state = np.random.get_state()  # noqa: NPY002 # seaborn draws random heights from it, without jitter too
    seaborn.stripplot(
        data=frame, x=x, y="row", hue=by, palette={name: getattr(colours, colour) for name, colour in looks.items()},
        hue_order=list(looks), orient="h", native_scale=True, jitter=False, legend=False, ax=axes, linewidth=0,
        size=math.sqrt(np.clip(600 / most, 3, 18)), alpha=0.75, rasterized=len(frame) > MANY_POINTS,
    )  # fmt: skip
    np.random.set_state(state)  # noqa: NPY002
    axes.set(xlabel=labels[0], ylabel=labels[1])
    # seaborn lays the dots of a row on one line; here each seed has its own height.
    for points, (_, of_row) in zip(axes.collections[before:], frame.groupby("row"), strict=True):
        points.set_offsets(np.column_stack([of_row[x], of_row["row"] + of_row["lane"]]))


def in_lanes(table: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """Return the values of `table`, a row per seed and a column per row of the axes, as a frame for `dots`.

    Seeds have their heights between `low` and `high`, evenly spread: a seed has the same height in each row.
    """
    numbered = table.set_axis(range(table.shape[1]), axis="columns").assign(lane=heights(len(table), low, high))
    return numbered.melt("lane", var_name="row").dropna().astype({"row": int, "value": float})


def heights(n: int, low: float, high: float) -> NDArray[np.float64]:
    """Return `n` evenly spread heights between two others."""
    return np.linspace(low, high, n + 2)[1:-1]


def row_interval(
    axes: Axes,
    place: float,
    estimate: float,
    low: float,
    high: float,
    colours: Theme,
    *,
    look: str = "blue",
    linewidth: float = 3,
    **mark: Any,
) -> None:
    """Draw an estimate in a row, as a diamond on its interval; a missing end leaves the interval out."""
    if not (math.isnan(low) or math.isnan(high)):
        axes.plot([low, high], [place, place], color=getattr(colours, look), linewidth=linewidth, solid_capstyle="butt")
    if not math.isnan(estimate):
        axes.plot(estimate, place, **diamond(colours) | mark)


def diamond(colours: Theme) -> dict[str, Any]:
    """Return the mark of an estimate as arguments of matplotlib's lines."""
    return {"marker": "D", "markersize": 6.5, "linestyle": "none", "markerfacecolor": colours.ink,
            "markeredgecolor": colours.paper}  # fmt: skip


def interval_handle(label: str, colours: Theme, *, look: str = "blue", linewidth: float = 3) -> Line2D:
    """Make the entry of a key for rows with their intervals."""
    return Line2D([], [], **diamond(colours) | {"color": getattr(colours, look), "linestyle": "-"}, linewidth=linewidth,
                  label=label)  # fmt: skip


def too_small(axes: Axes, smallest: float | None, colours: Theme, *, upright: bool) -> None:
    """Mark 0, and the band of effects that are too small to matter: `smallest` on either side; None draws no band."""
    span, line = (axes.axvspan, axes.axvline) if upright else (axes.axhspan, axes.axhline)
    if smallest:
        span(-smallest, smallest, color=colours.grid, alpha=0.75, linewidth=0, zorder=0)
    line(0, color=colours.muted, linewidth=1, zorder=0.9)
