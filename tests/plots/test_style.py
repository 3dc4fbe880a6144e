"""What all pictures share: colours that stand out, figures that are values, and marks that are where the data are."""

import inspect
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import drawn
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mnist_ablate import plots
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.language import speaking
from mnist_ablate.plots import style
from mnist_ablate.store.results import Results, load

LIGHT = plots.THEMES["light"]
PLOTS: list[Callable[..., Figure]] = [
    plots.accuracy, plots.loss_curves, plots.forest, plots.by_epoch, plots.interactions, plots.power, plots.confusion,
]  # fmt: skip
ALL = pytest.mark.parametrize("draw", PLOTS, ids=lambda draw: draw.__name__)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the factorial study with 4 seeds and predictions of the same images."""
    folder = tmp_path_factory.mktemp("answered")
    return load(synthetic.make(folder, synthetic.factorial(4, 2), answers=drawn.answers))


def luminance(colour: str) -> float:
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))


def contrast(first: str, second: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    dark, light = sorted(luminance(colour) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", plots.THEMES.values(), ids=plots.THEMES)
def test_colours_stand_out(theme: plots.Theme) -> None:
    """Text has a contrast of at least 4.5 with the paper, lines and marks of at least 3."""
    assert min(contrast(colour, theme.paper) for colour in (theme.ink, theme.muted, theme.red)) >= 4.5
    assert min(contrast(colour, theme.paper) for colour in (theme.blue, theme.orange)) >= 3


@ALL
@pytest.mark.parametrize("width", [8.6, 4.1])
def test_figures_have_the_theme_and_the_width(answered: Results, draw: Callable[..., Figure], width: float) -> None:
    """Every figure is on the theme's paper at its width; what shows has the theme's colours, which differ."""
    used = {}
    for theme, colours in plots.THEMES.items():
        figure = draw(answered, theme=theme, width=width)
        assert figure.get_facecolor()[:3] == to_rgb(colours.paper)
        assert figure.get_figwidth() == (width if draw is not plots.confusion else min(width, 5.4))
        lines = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() != "None"]
        faces = [face for axes in figure.axes for part in axes.collections for face in np.asarray(part.get_facecolor())]
        used[theme] = [to_rgb(line.get_color()) for line in lines] + [to_rgb(face) for face in faces if face[3] > 0]
        marks = (to_rgb(getattr(colours, name)) for name in ("ink", "muted", "grid", "blue", "orange", "red"))
        assert set(used[theme]) <= set(marks)
    assert len(used["light"]) == len(used["dark"]) > 0
    assert all(light != dark for light, dark in zip(*used.values(), strict=True))


@ALL
def test_figures_are_values(answered: Results, draw: Callable[..., Figure]) -> None:
    """Drawing opens no figure of pyplot, changes no setting, and draws no global random number."""
    settings, state = dict(mpl.rcParams), str(np.random.get_state())  # noqa: NPY002 # it is this that must stay
    draw(answered, theme="dark").draw_without_rendering()
    assert dict(mpl.rcParams) == settings
    assert pyplot.get_fignums() == []
    assert str(np.random.get_state()) == state  # noqa: NPY002


HOSTILE: dict[Any, Any] = {
    "text.usetex": True, "savefig.bbox": "tight", "savefig.dpi": 300, "font.family": ["No Such Font"], "figure.dpi": 50,
    "axes.grid": True, "axes.facecolor": "red", "svg.fonttype": "path", "text.parse_math": True, "lines.linewidth": 9,
    "axes.formatter.use_locale": True, "xtick.minor.visible": True, "path.sketch": (1, 2, 3), "legend.frameon": True,
    "axes.unicode_minus": False, "lines.antialiased": False, "figure.autolayout": True, "image.cmap": "hot",
}  # fmt: skip
"""A user's settings. Each would change a picture; the first fails without LaTeX."""


def saved(figure: Figure, kind: str) -> bytes:
    """Return the file that a figure is saved as."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


@ALL
def test_settings_of_the_user_change_nothing(answered: Results, draw: Callable[..., Figure]) -> None:
    """A figure is saved as the same bytes whatever the user's settings, which stay as they were."""
    plain = draw(answered)
    expected = [saved(plain, kind) for kind in ("svg", "png")]
    with mpl.rc_context(HOSTILE):
        before = dict(mpl.rcParams)
        figure = draw(answered)
        found = [saved(figure, kind) for kind in ("svg", "png")]
        assert dict(mpl.rcParams) == before
    assert found == expected


def test_all_plots_have_their_own_settings() -> None:
    """Each public function that returns a figure works under our settings."""
    functions = {name: getattr(plots, name) for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    drawing = {name: draw for name, draw in functions.items() if draw.__annotations__["return"] is Figure}
    assert set(plots.__all__) > set(drawing) > {"accuracy", "images", "judged"}
    assert [name for name, draw in drawing.items() if not hasattr(draw, "__wrapped__")] == []


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "svg", ""])
def test_the_environments_backend_is_not_used(backend: str) -> None:
    """Whatever `MPLBACKEND` names, pictures are drawn; it stays in the environment, and a valid one for pyplot."""
    code = (
        "import os, mnist_ablate.report, matplotlib as mpl; from mnist_ablate.plots import style; "
        "figure, axes = style.canvas(style.THEMES['light'], 2, 2); style.png(figure); "
        "chosen = mpl.rcParams._get('backend'); "  # without choosing one now
        "print(repr(os.environ['MPLBACKEND']), chosen if isinstance(chosen, str) else None)"
    )
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    there, of_pyplot = done.stdout.split()
    assert there == repr(backend)
    assert of_pyplot in ({"svg"} if backend == "svg" else {"None", backend})


def test_a_notebook_shows_a_figure() -> None:
    """A figure gives a notebook its PNG, at twice the resolution of its size on the page, and stays as it was."""
    figure, _ = style.canvas(LIGHT, 4, 3)
    dpi = figure.get_dpi()
    assert isinstance(figure, style.Drawing)
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 384, "height": 288}
    assert figure.get_dpi() == dpi


ODD = ("a$b$c", "x_{^$", "$5", "_under", "<b>&", "\u968f\u673a")


def test_names_are_shown_as_written() -> None:
    """Dollars, braces and underscores are no formulas, keys have all their entries, and no font is missed."""
    factors = {"kind": list(ODD), "_own": ["$x$", "_y"]}
    document = {"name": "odd", "seeds": 2, "engine": "autograd", "protocol": {"epochs": 1, "model": "m:build"}}
    study = parse_study(document | {"factors": factors})
    results = synthetic.results(study, test_accuracy=lambda run: 0.97 + 0.001 * run.seed)
    words = drawn.words(plots.interactions(results)).split("\n")
    assert {"_own $x$", "_own _y", "kind × _own"} <= set(words)  # noqa: RUF001 # the sign of products
    assert {"x_{^$", "$5", "_under", "<b>&", "\u968f\u673a"} <= set(words)
    rows = drawn.words(plots.accuracy(results)).split("\n")
    assert {f"kind={name}" for name in ODD[1:]} <= set(rows)
    style.png(plots.accuracy(results))


def test_only_typefaces_that_are_there_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """East Asian typefaces follow matplotlib's own where they are installed."""
    fonts = [SimpleNamespace(name=name) for name in ("IPAGothic", "Some Other", "DejaVu Sans")]
    monkeypatch.setattr(style, "fontManager", SimpleNamespace(ttflist=fonts))
    assert style._settings.__wrapped__()["font.sans-serif"] == ["DejaVu Sans", "IPAGothic"]


# ---- Many cells ----


@pytest.mark.parametrize(("most", "shown"), [(5, "abcde"), (4, "abce"), (3, "ace"), (2, "ae"), (1, "a")])
def test_the_outermost_are_shown(most: int, shown: str) -> None:
    """Of too many, the reference, the highest and the lowest are shown, in the order of all; missing is lowest."""
    values = pd.Series({"a": 2.0, "b": 3.0, "c": np.nan, "d": 1.0, "e": 4.0})
    assert "".join(style.outermost(values, most, "a")) == shown


def test_of_many_cells_pictures_show_some(answered: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and panels have a limit, and the reference cell is always there."""
    monkeypatch.setattr(style, "MOST_ROWS", 5)
    monkeypatch.setattr(style, "MOST_PANELS", 3)
    assert len(drawn.rows_of_dots(plots.accuracy(answered).axes[0])) == 5
    panels = plots.loss_curves(answered).axes
    assert len(panels) == 3
    assert panels[0].get_title("left") == "baseline"


@ALL
def test_runs_and_their_analysis_give_the_same(answered: Results, draw: Callable[..., Figure]) -> None:
    """A plot of runs has the words and the lines of a plot of their analysis."""
    first, second = draw(answered), draw(analyse(answered))
    assert drawn.words(first) == drawn.words(second)
    for one, other in zip(first.axes, second.axes, strict=True):
        for a, b in zip(drawn.lines(one), drawn.lines(other), strict=True):
            assert np.array_equal(a, b, equal_nan=True)


def test_importing_plots_does_not_import_pyplot() -> None:
    """Who only imports the plots or the report waits for neither pyplot nor seaborn."""
    code = "import sys, mnist_ablate.plots, mnist_ablate.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    assert not {"matplotlib.pyplot", "seaborn", "torch"} & set(loaded)


EXTREMES: dict[str, dict[str, Any]] = {
    "one seed": {"seeds": 1},
    "no reference": {"seeds": 2, "missing": [("baseline", 0), ("baseline", 1)]},
    "diverged": {"seeds": 2, "diverged": [("l2", 0), ("dropout", 0)]},
    "all diverged": {"seeds": 2, "diverged": [(cell, seed) for cell in synthetic.MEANS for seed in range(2)]},
    "all the same": {"seeds": 2, "sd": 0.0, "means": dict.fromkeys(synthetic.MEANS, 97.5)},
}


@ALL
@pytest.mark.parametrize("options", EXTREMES.values(), ids=EXTREMES)
def test_extreme_results(tmp_path: Path, draw: Callable[..., Figure], options: dict[str, Any]) -> None:
    """No interval, no effect or no spread: a figure without a warning, finite axes, and no 'nan' in words."""
    others = {name: value for name, value in options.items() if name != "seeds"}
    study = synthetic.factorial(options["seeds"], 1)
    figure = draw(load(synthetic.make(tmp_path, study, answers=drawn.answers, **others)))
    assert "nan" not in drawn.words(figure)
    assert figure.axes or draw is plots.interactions
    for axes in figure.axes:
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()


# ---- Marks ----


def frame() -> pd.DataFrame:
    """Return two lines of three points with intervals, one value missing."""
    a, b = [(1.0, 0.5, 1.5), (2.0, 1.5, 3.0), (4.0, 3.5, 4.5)], [(5, 4, 6), (np.nan,) * 3, (7, 6, 8)]
    rows = [(line, x, *values) for line, points in (("a", a), ("b", b)) for x, values in enumerate(points, start=1)]
    return pd.DataFrame(rows, columns=["line", "x", "y", "low", "high"])


def test_lines_have_the_points_and_the_intervals_of_the_frame() -> None:
    """Each line goes through its points in its own look, in a band between the given ends; labels stay."""
    _, axes = style.canvas(LIGHT, 4, 3)
    axes.set(xlabel="epoch", ylabel="loss")
    looks = {"b": style.Look("blue", style.SOLID, "o"), "a": style.Look("orange", style.DASHED, "s")}
    style.lines(axes, frame(), "x", "y", looks, LIGHT, by="line", interval=("low", "high"))
    (b,), (a,) = drawn.lines(axes, marker="o"), drawn.lines(axes, marker="s")
    assert a.tolist() == [[1, 1], [2, 2], [3, 4]]
    assert b.tolist() == [[1, 5], [3, 7]]
    assert [line.get_color() for line in axes.lines] == [LIGHT.blue, LIGHT.orange]
    assert axes.lines[1].is_dashed()
    assert not axes.lines[0].is_dashed()
    (_, b_low, b_high), (_, a_low, a_high) = drawn.bands(axes)
    assert (a_low.tolist(), a_high.tolist()) == ([0.5, 1.5, 3.5], [1.5, 3.0, 4.5])
    assert (b_low.tolist(), b_high.tolist()) == ([4, 6], [6, 8])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")


def test_a_single_point_has_a_bar() -> None:
    """Where a line has one point its interval is a bar, from end to end."""
    _, axes = style.canvas(LIGHT, 4, 3)
    looks = {"a": style.Look("blue", style.SOLID, "o")}
    style.lines(axes, frame()[:1], "x", "y", looks, LIGHT, by="line", interval=("low", "high"))
    assert not drawn.bands(axes)
    container: Any = axes.containers[0]
    (bar,) = container.lines[2][0].get_segments()
    assert bar.tolist() == [[1, 0.5], [1, 1.5]]


def test_lines_that_are_not_there_are_left_out() -> None:
    """Looks without a line in the frame, and an empty frame, draw nothing and raise nothing."""
    _, axes = style.canvas(LIGHT, 4, 3)
    looks = {name: style.Look("blue", style.SOLID, "o") for name in ("c", "a")}
    style.lines(axes, frame()[:3], "x", "y", looks, LIGHT, by="line")
    style.lines(axes, frame()[:0], "x", "y", looks, LIGHT, by="line")
    assert len(axes.lines) == 1


def test_dots_keep_their_lanes_and_colours() -> None:
    """A seed has one height in all rows, a missing run no dot, and colours are those of the given column."""
    table = pd.DataFrame({"first": [1.0, 2.0, 3.0], "second": [4.0, np.nan, 6.0]})
    points = style.in_lanes(table, -0.4, 0.4)
    points["kind"] = points["row"].map({0: "plain", 1: "special"})
    _, axes = style.canvas(LIGHT, 4, 3)
    style.dots(axes, points, "value", LIGHT, by="kind", looks={"plain": "blue", "special": "orange"})
    first, second = drawn.rows_of_dots(axes)
    assert first == pytest.approx(np.array([[1, -0.2], [2, 0], [3, 0.2]]))
    assert second == pytest.approx(np.array([[4, 0.8], [6, 1.2]]))
    faces = [dots.get_facecolor()[0][:3] for dots in axes.collections]  # type: ignore[index]
    assert [tuple(face) for face in faces] == [to_rgb(LIGHT.blue), to_rgb(LIGHT.orange)]


@pytest.mark.parametrize(("many", "pixels"), [(1000, False), (1001, True)])
def test_many_dots_are_pixels(monkeypatch: pytest.MonkeyPatch, many: int, pixels: bool) -> None:
    """From one more than `MANY_POINTS` on, dots are drawn as pixels."""
    monkeypatch.setattr(style, "MANY_POINTS", 1000)
    points = style.in_lanes(pd.DataFrame({"row": np.arange(float(many))}), 0, 1).assign(kind="run")
    _, axes = style.canvas(LIGHT, 4, 3)
    style.dots(axes, points, "value", LIGHT, by="kind", looks={"run": "blue"})
    assert [bool(dots.get_rasterized()) for dots in axes.collections] == [pixels]


def test_a_row_has_its_interval_and_its_estimate() -> None:
    """The bar goes from end to end, the diamond lies at the estimate; what is missing is left out."""
    _, axes = style.canvas(LIGHT, 4, 3)
    style.row_interval(axes, 2, 0.5, 0.1, 0.8, LIGHT)
    bar, mark = drawn.lines(axes)
    assert bar.tolist() == [[0.1, 2], [0.8, 2]]
    assert mark.tolist() == [[0.5, 2]]
    style.row_interval(axes, 3, 0.5, float("nan"), float("nan"), LIGHT)
    style.row_interval(axes, 4, float("nan"), 0.1, 0.8, LIGHT)
    assert [line.tolist() for line in drawn.lines(axes)[2:]] == [[[0.5, 3]], [[0.1, 4], [0.8, 4]]]


def test_round_ticks() -> None:
    """Ticks are steps of 1, 2 or 5 in plain numbers, linear or logarithmic, and whole where asked."""
    _, axes = style.canvas(LIGHT, 4, 3)
    axes.set(xlim=(0.6, 5.4), ylim=(0.03, 7), yscale="log")
    style.round_ticks(axes.xaxis, 4, integer=True)
    style.round_ticks(axes.yaxis, 4)
    assert [tick for tick in axes.get_xticks() if 0.6 <= tick <= 5.4] == [2, 4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"]
    assert len(axes.yaxis.get_minorticklocs()) == 0


@pytest.mark.parametrize(
    ("name", "lines"),
    [("l2", ["l2"]), ("l2+dropout+batch_norm", ["l2+dropout+", "batch_norm"]), ("one or two", ["one or two"]),
     ("interactions of two", ["interactions", "of two"])],
)  # fmt: skip
def test_names_break_where_they_can(name: str, lines: list[str]) -> None:
    """A long name breaks after a plus or before a space."""
    assert style.wrapped(name, 12).split("\n") == lines


def test_panels_share_their_axes_and_name_the_last_row() -> None:
    """Five panels, three side by side: each column's last panel has the numbers, and both labels are there once."""
    figure, panels = style.panels(LIGHT, 8.6, 5, 3, labels=("epoch", "loss"))
    assert len(figure.axes) == len(panels) == 5
    panels[0].set_ylim(0, 3)
    assert all(axes.get_ylim() == (0, 3) for axes in panels)
    named = [axes.xaxis.get_major_ticks()[0].label1.get_visible() for axes in panels]
    assert named == [False, False, True, True, True]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("epoch", "loss")


def test_results_of_the_notebook_need_no_folder() -> None:
    """Plots take results in memory, such as those of a notebook session."""
    results = synthetic.results(load_study("factorial").with_options(seeds=2), test_accuracy=lambda _: 0.97)
    assert "baseline" in drawn.words(plots.accuracy(results))


@pytest.mark.parametrize(("longest", "columns"), [(10, 3), (40, 2), (90, 1)])
def test_a_key_has_as_many_columns_as_fit(longest: int, columns: int) -> None:
    """Labels of another language may be longer: a key has fewer columns rather than labels that are cut off."""
    figure = Figure((8.6, 3))
    handles = [Line2D([], [], label="x" * longest) for _ in range(3)]
    style.key(figure, handles, LIGHT, columns=3)
    assert figure.legends[0]._ncols == columns  # type: ignore[attr-defined]


def test_ticks_are_those_of_the_language_in_which_a_figure_was_made() -> None:
    """Matplotlib writes the numbers of ticks when it draws, which may be much later."""
    figures = []
    for language in ("en", "es"):
        with speaking(language):
            figure, axes = style.canvas(LIGHT, 5, 3)
            axes.set(xlim=(0.0, 0.5), ylim=(-0.5, 0.0))
            figures.append(figure)
    english, spanish = (drawn.words(figure).split("\n") for figure in figures)
    assert {"0.2", "−0.4"} <= set(english)  # noqa: RUF001 # as matplotlib writes it
    assert spanish == [text.replace(".", ",") for text in english]
