"""The pictures: what is in them, and that they work for every kind of result."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import synthetic
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference.effects import effect_table
from mnist_ablate.inference.levels import components
from mnist_ablate.plots.cells import _loss_style
from mnist_ablate.plots.levels import _places
from mnist_ablate.report.svg import _svg
from mnist_ablate.store.results import Results, load

BOTH = pytest.mark.parametrize("draw", [plots.accuracy, plots.loss_curves])


def results(folder: Path, seeds: int = 3, epochs: int = 2, **options: object) -> Results:
    """Return planted results of the factorial study."""
    return load(synthetic.make(folder, synthetic.factorial(seeds, epochs), **options))  # type: ignore[arg-type]


def words(figure: Figure) -> str:
    """Collect all text of a figure, once drawn."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def luminance(colour: str) -> float:
    """Relative luminance, as the Web Content Accessibility Guidelines define it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, from 1 to 21."""
    dark, light = sorted(luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", plots.THEMES.values(), ids=plots.THEMES)
def test_colours_stand_out(theme: plots.Theme) -> None:
    """Text has a contrast of at least 4.5 with the paper, lines and marks of at least 3."""
    assert min(contrast(colour, theme.paper) for colour in (theme.ink, theme.muted, theme.red)) >= 4.5
    assert min(contrast(colour, theme.paper) for colour in (theme.blue, theme.orange)) >= 3


@BOTH
@pytest.mark.parametrize("theme", plots.THEMES)
@pytest.mark.parametrize("width", [8.6, 4.1])
def test_figures_of_the_whole_design(tmp_path: Path, draw: type, theme: plots.ThemeName, width: float) -> None:
    """Every cell is named, on the theme's paper, at the width that was asked for."""
    figure = draw(results(tmp_path), theme=theme, width=width)
    shown = words(figure).replace("\n", "")
    assert all(cell in shown for cell in synthetic.MEANS)
    assert figure.get_facecolor()[:3] == to_rgb(plots.THEMES[theme].paper)
    assert figure.get_figwidth() == width


def test_every_seed_is_a_dot(tmp_path: Path) -> None:
    """The accuracy plot has a dot per run, at the run's accuracy in percent."""
    found = results(tmp_path, seeds=4)
    (axes,) = plots.accuracy(found).axes
    dots = np.concatenate([np.asarray(dots.get_offsets())[:, 0] for dots in axes.collections])
    assert sorted(dots) == pytest.approx(sorted(100 * found.final["test_accuracy"]))


def test_a_seed_keeps_its_height(tmp_path: Path) -> None:
    """Within their rows, all cells have the same heights of dots, so that pairs can be told."""
    (axes,) = plots.accuracy(results(tmp_path)).axes
    rows = [np.asarray(dots.get_offsets())[:, 1] for dots in axes.collections if len(np.asarray(dots.get_offsets()))]
    assert len(rows) == 8
    assert all(row - i == pytest.approx(rows[0]) for i, row in enumerate(rows))


def test_loss_panel_has_the_means(tmp_path: Path) -> None:
    """A panel's lines are the mean losses over seeds, the reference cell's in every other panel."""
    found = results(tmp_path)
    panels = plots.loss_curves(found).axes
    assert len(panels) == 8
    means = found.epochs.groupby(["cell", "epoch"])["val_loss"].mean()
    for axes, cell in ((panels[0], "baseline"), (panels[2], "dropout")):
        lines = [np.asarray(line.get_ydata()) for line in axes.lines]
        assert any(np.allclose(line, means[cell]) for line in lines)
        assert any(np.allclose(line, means["baseline"]) for line in lines)


def test_losses_differ_by_more_than_colour() -> None:
    """The lines of the two losses differ in dashes and in marks too."""
    theme = plots.THEMES["light"]
    one, other = (_loss_style(response, theme) for response in plots.LOSSES)
    assert one["linestyle"] != other["linestyle"]
    assert one["marker"] != other["marker"]


@BOTH
@pytest.mark.parametrize(("seeds", "epochs"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_few_seeds_and_epochs(tmp_path: Path, draw: type, seeds: int, epochs: int) -> None:
    """One seed, one epoch, or two of both give a figure, without a warning."""
    assert words(draw(results(tmp_path, seeds, epochs)))


@BOTH
def test_one_cell(tmp_path: Path, draw: type) -> None:
    """A study of a single cell gives a figure without a reference to itself."""
    study = parse_study({"name": "alone", "seeds": 2, "protocol": {"epochs": 2}, "factors": {"dropout": [0.2]}})
    shown = words(draw(load(synthetic.make(tmp_path, study))))
    assert "baseline" in shown
    assert "comparison" not in shown
    assert "mean of baseline" not in shown


@BOTH
def test_other_factors(tmp_path: Path, draw: type) -> None:
    """A factor with five levels, none of them 'off', gives five cells."""
    study = parse_study(
        {"name": "rates", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"learning_rate": [1e-3, 1e-4, 3e-3, 0.1]}}
    )
    shown = words(draw(load(synthetic.make(tmp_path, study, means={"learning_rate=0.1": 11.0}))))
    assert "learning_rate=0.003" in shown


@BOTH
def test_diverged_and_missing_are_said(tmp_path: Path, draw: type) -> None:
    """A diverged run and a cell without runs are named as such."""
    found = results(tmp_path, diverged=[("l2", 1)], missing=[("dropout", seed) for seed in range(3)])
    shown = words(draw(found))
    assert "diverged" in shown
    assert "no run stored" in shown


def test_diverged_does_not_squeeze_the_rest(tmp_path: Path) -> None:
    """The axis of accuracies fits the runs that did not diverge; the one that did is marked at its edge."""
    (axes,) = plots.accuracy(results(tmp_path, diverged=[("l2", 1)])).axes
    assert axes.get_xlim()[0] > 90
    assert any("9.80" in text.get_text() for text in axes.texts)


@BOTH
def test_all_diverged(tmp_path: Path, draw: type) -> None:
    """A study in which every run diverged gives a figure all the same."""
    everything = [(cell, seed) for cell in synthetic.MEANS for seed in range(2)]
    assert "diverged" in words(draw(results(tmp_path, 2, 2, diverged=everything)))


def test_no_global_settings(tmp_path: Path) -> None:
    """Drawing leaves matplotlib's settings as they were."""
    before = dict(mpl.rcParams)
    plots.accuracy(results(tmp_path), theme="dark")
    assert dict(mpl.rcParams) == before


# ---- Effects and answers ----

EFFECTS = pytest.mark.parametrize(
    "draw", [plots.forest, plots.by_epoch, plots.interactions, plots.power, plots.confusion], ids=lambda f: f.__name__
)


def answers(run: Run) -> dict[str, Any]:
    """Make predictions of the same 20 images in all runs, one of which is always taken for a 4."""
    labels = np.arange(20, dtype=np.uint8) % 10
    said = np.where(np.arange(20) == 19, 4, labels).astype(np.uint8)
    said[0] = run.seed % 2
    return {"test_index": np.arange(20, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(20, 0.5, np.float32)}  # fmt: skip


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the factorial study with 4 seeds and predictions of the same images."""
    return results(tmp_path_factory.mktemp("answered"), 4, 2, answers=answers)


@EFFECTS
@pytest.mark.parametrize("width", [8.6, 4.1])
def test_figures_of_effects(answered: Results, draw: Any, width: float) -> None:
    """Every figure is drawn in both widths, on the theme's paper, and has words."""
    for theme, colours in plots.THEMES.items():
        figure = draw(answered, theme=theme, width=width)
        assert figure.get_facecolor()[:3] == to_rgb(colours.paper)
        assert figure.get_figwidth() == (width if draw is not plots.confusion else min(width, 5.4))
    assert words(figure)


@pytest.mark.parametrize(
    "name", ["accuracy", "loss_curves", "forest", "by_epoch", "interactions", "power", "confusion"]
)
def test_in_theme_changes_all_colours_and_nothing_else(answered: Results, name: str) -> None:
    """The dark drawing has no colour of the light theme, and without colours both are the same."""
    light = _svg(getattr(plots, name)(answered))
    dark = plots.in_theme(light, "dark")
    colour = r"#[0-9a-fA-F]{6}\b"
    palette = {theme: {getattr(of, field.name) for field in fields(of)} for theme, of in plots.THEMES.items()}
    assert re.sub(colour, "", light) == re.sub(colour, "", dark)
    assert set(re.findall(colour, light)) <= palette["light"]
    assert set(re.findall(colour, dark)) <= palette["dark"]
    assert plots.in_theme(light, "light") == light


def test_forest_shows_every_effect_with_its_interval(answered: Results) -> None:
    """A diamond per effect at its estimate, over bars that end where its interval does."""
    frame = effect_table(answered)
    (axes,) = plots.forest(answered, smallest=0.1).axes
    marks = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_marker() == "D"]
    assert marks == pytest.approx(list(frame["estimate"]))
    bars = [tuple(np.asarray(line.get_xdata())) for line in axes.lines if line.get_linewidth() == 3]
    assert np.allclose(bars, frame[["low", "high"]])


def test_by_epoch_ends_at_the_table(answered: Results) -> None:
    """The last point of each panel is the effect in the table."""
    frame = effect_table(answered).set_index("label")["estimate"]
    for axes in plots.by_epoch(answered).axes:
        (line,) = [line for line in axes.lines if line.get_marker() == "o"]
        assert np.asarray(line.get_ydata())[-1] == pytest.approx(frame[axes.get_title("left")])


def test_images_have_their_captions() -> None:
    """Each image is drawn with its caption, in as many rows as the width needs; more captions are an error."""
    figure = plots.images(np.zeros((13, 28, 28), np.uint8), [f"{i} as x" for i in range(13)], width=4.1)
    assert len(figure.axes[0].images) == 13
    assert "12 as x" in words(figure)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        plots.images(np.zeros((1, 28, 28), np.uint8), ["a", "b"])


def test_confusion_needs_predictions(tmp_path: Path, answered: Results) -> None:
    """Mistakes in a mean run are written in their squares; without predictions there is one clear error."""
    assert "1.0" in words(plots.confusion(answered))
    with pytest.raises(ValueError, match="no predictions are stored"):
        plots.confusion(results(tmp_path))


@EFFECTS
@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 1},
        {"seeds": 2, "missing": [("baseline", 0), ("baseline", 1)]},
        {"seeds": 2, "diverged": [("l2", 0), ("dropout", 0)]},
        {"seeds": 2, "diverged": [(cell, seed) for cell in synthetic.MEANS for seed in range(2)]},
        {"seeds": 2, "sd": 0.0, "means": dict.fromkeys(synthetic.MEANS, 97.5)},
    ],
    ids=["one seed", "no reference", "diverged", "all diverged", "all the same"],
)
def test_extreme_effects(tmp_path: Path, draw: Any, options: dict[str, Any]) -> None:
    """No interval, no effect, or no spread: a figure all the same, without a warning."""
    figure = draw(results(tmp_path, epochs=1, answers=answers, **options))
    assert words(figure)
    assert _svg(figure)


# ---- Levels, chance, and the notebook ----


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_doses_have_a_line_for_each_combination(width: float) -> None:
    """Each line has its points at the means, on a logarithmic scale with 0 left of it, and is named in the key."""
    found = synthetic.results(
        load_study("dropout-rate").with_options(seeds=3), test_accuracy=lambda run: 0.97 + run.settings.dropout / 100
    )
    figure = plots.doses(found, "dropout", width=width)
    assert "without input_dropout" in words(figure)
    boxes: list[Any] = list(figure.axes[0].containers)
    lines = [np.asarray(box.lines[0].get_ydata()) for box in boxes]
    assert len(lines) == 2
    assert lines[0] == pytest.approx([97 + rate for rate in np.arange(0, 0.9, 0.1)])
    low, middle, high = (_places([0.0, 1e-5, 1e-4])[level] for level in (0.0, 1e-5, 1e-4))
    assert middle - low == high - middle == pytest.approx(1)


def test_failures_are_drawn_as_errors() -> None:
    """Where a level fails, the axis is that of the error, on a logarithmic scale, and the best is at its top."""
    study = parse_study({"name": "s", "seeds": 2, "factors": {"learning_rate": [0.001, 0.1, 10.0]}})
    found = synthetic.results(study, test_accuracy=lambda run: 0.1 if run.settings.learning_rate > 1 else 0.98)
    (axes,) = plots.doses(found, "learning_rate").axes
    assert axes.get_yscale() == "log"
    assert axes.yaxis_inverted()
    box: Any = axes.containers[0]
    assert np.asarray(box.lines[0].get_ydata()) == pytest.approx([2, 2, 90])


def test_parts_of_variance_are_drawn_at_their_shares() -> None:
    """A diamond per part at its share in percent."""
    study = load_study("variance").with_options(seeds=6)
    found = synthetic.results(study, test_accuracy=lambda run: 0.97 + (run.seed + run.settings.init_seed) % 5 / 1000)
    (axes,) = plots.variance_parts(found).axes
    marks = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_marker() == "D"]
    assert marks == pytest.approx(list(100 * components(found)["share"][:-1]))


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_what_was_printed_is_marked(width: float) -> None:
    """Each network's printed accuracy is a diamond in each of its rows, and its losses are marks in its panel."""
    found = synthetic.results(load_study("notebook").with_options(seeds=3), test_accuracy=lambda _: 0.97)
    (axes,) = plots.printed_accuracies(found, width=width).axes
    marks = [float(np.asarray(line.get_xdata())[0]) for line in axes.lines if line.get_marker() == "D"]
    assert marks == [97.69, 97.73, 96.96, 96.96, 97.19, 97.19]
    panels = plots.printed_losses(found, width=width).axes
    assert [axes.get_title("left") for axes in panels] == ["baseline", "L2", "dropout", "BatchNorm"]
    printed = [list(np.asarray(line.get_ydata())) for line in panels[2].lines if line.get_marker() == "o"]
    assert printed == [[0.1935, 0.1417, 0.1348, 0.1090, 0.1060]]


def test_interactions_only_where_all_combinations_are_run() -> None:
    """Pairs of which the study leaves combinations out, graded factors and parts of chance have no panel."""
    assert not plots.has_interactions(synthetic.results(load_study("notebook").with_options(seeds=1)))
    assert not plots.has_interactions(synthetic.results(load_study("variance").with_options(seeds=1)))
    assert plots.has_interactions(synthetic.results(load_study("factorial").with_options(seeds=1)))
