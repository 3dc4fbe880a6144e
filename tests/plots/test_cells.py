"""The pictures of cells: every run, every mean, every loss is drawn where the results have it."""

from collections.abc import Callable
from pathlib import Path

import drawn
import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.plots.cells import _LOOKS
from mnist_ablate.store.results import Results, load

BOTH = pytest.mark.parametrize("draw", [plots.accuracy, plots.loss_curves])


def results(folder: Path, seeds: int = 3, epochs: int = 2, **options: object) -> Results:
    """Return planted results of the factorial study."""
    return load(synthetic.make(folder, synthetic.factorial(seeds, epochs), **options))  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("width", [8.6, 4.1])
def test_every_cell_is_named(tmp_path: Path, draw: Callable[..., Figure], width: float) -> None:
    """Every cell is named, at both widths."""
    shown = " ".join(drawn.words(draw(results(tmp_path), width=width)).split())
    assert all(in_words(cell) in shown for cell in synthetic.MEANS)


def test_every_seed_is_a_dot(tmp_path: Path) -> None:
    """The accuracy plot has a dot per run, in the row of its cell, at the run's accuracy in percent."""
    found = results(tmp_path, seeds=4)
    (axes,) = plots.accuracy(found).axes
    rows = drawn.rows_of_dots(axes)
    table = analyse(found).seeds()
    assert [row[:, 0].tolist() for row in rows] == [table[cell].tolist() for cell in table]
    assert [round(float(row[:, 1].mean())) for row in rows] == list(range(8))


def test_a_seed_keeps_its_height(tmp_path: Path) -> None:
    """Within their rows all cells have the same heights of dots, and a seed's line goes through its dots."""
    (axes,) = plots.accuracy(results(tmp_path)).axes
    rows = drawn.rows_of_dots(axes)
    heights = [row[:, 1] - i for i, row in enumerate(rows)]
    assert all(height == pytest.approx(heights[0]) for height in heights)
    pairs = next(line for line in drawn.lines(axes) if len(line) == 3 * 9)
    for seed, line in enumerate(np.split(pairs, 3)):
        assert line[:8] == pytest.approx(np.array([row[seed] for row in rows]))
        assert np.isnan(line[8]).all()


def test_means_have_their_intervals(tmp_path: Path) -> None:
    """A diamond lies at each cell's mean, on a bar that ends where the mean's interval does."""
    found = results(tmp_path, seeds=4)
    (axes,) = plots.accuracy(found).axes
    frame = analyse(found).cells()
    marks = np.concatenate(drawn.lines(axes, marker="D"))
    assert marks[:, 0] == pytest.approx(frame["mean"])
    bars = np.array([line[:, 0] for line in drawn.lines(axes, linewidth=1.8)])
    assert bars == pytest.approx(frame[["mean_low", "mean_high"]].to_numpy())
    dashed = next(line for line in axes.lines if line.is_dashed())
    assert np.asarray(dashed.get_xdata())[0] == frame.set_index("cell")["mean"]["baseline"]


def test_loss_panels_have_the_means_and_their_intervals(tmp_path: Path) -> None:
    """A panel's lines are the mean losses over seeds within their t intervals, and the reference cell's, faintly."""
    found = results(tmp_path)
    figure = plots.loss_curves(found)
    assert len(figure.axes) == 8
    curves = {response: analyse(found).curves(response).set_index(["cell", "epoch"]) for response in plots.LOSSES}
    for axes in figure.axes:
        title = axes.get_title("left").replace("\n", " ")
        for response, look in _LOOKS.items():
            frame = curves[response]
            mine = frame.rename(in_words, level="cell").loc[title]
            assert any(np.allclose(line[:, 1], mine["mean"]) for line in drawn.lines(axes, marker=look.marker))
            reference = frame.loc["baseline"]["mean"]
            faint = drawn.lines(axes, marker="")
            assert any(np.allclose(line[:, 1], reference) for line in faint) == (title != "baseline")
            low, high = mine["mean"] - mine["half_width"], mine["mean"] + mine["half_width"]
            assert any(np.allclose(a, low) and np.allclose(b, high) for _, a, b in drawn.bands(axes))


def test_losses_differ_by_more_than_colour() -> None:
    """The lines of the two losses differ in dashes and in marks too."""
    first, second = (_LOOKS[response] for response in plots.LOSSES)
    assert first.dashes != second.dashes
    assert first.marker != second.marker
    assert first.colour != second.colour


def test_long_curves_have_few_marks(tmp_path: Path) -> None:
    """A line over 30 epochs has at most eight marks, which would touch otherwise, and all of its points."""
    study = parse_study({"name": "long", "seeds": 2, "protocol": {"epochs": 30}, "factors": {"dropout": [0.0, 0.2]}})
    axes = plots.loss_curves(load(synthetic.make(tmp_path, study))).axes[0]
    (line,) = [line for line in axes.lines if line.get_marker() == "o" and len(np.asarray(line.get_xdata())) == 30]
    assert line.get_markevery() == 4


@BOTH
@pytest.mark.parametrize(("seeds", "epochs"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_few_seeds_and_epochs(tmp_path: Path, draw: Callable[..., Figure], seeds: int, epochs: int) -> None:
    """One seed, one epoch, or two of both give a figure with all of their points, without a warning."""
    figure = draw(results(tmp_path, seeds, epochs))
    drawn.words(figure)
    if draw is plots.accuracy:
        assert [len(row) for row in drawn.rows_of_dots(figure.axes[0])] == [seeds] * 8
    else:
        assert all(len(drawn.lines(axes, marker="o")[0]) == epochs for axes in figure.axes[5:])


@BOTH
def test_one_cell(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    """A study of a single cell gives a figure without a reference to itself."""
    study = parse_study({"name": "alone", "seeds": 2, "protocol": {"epochs": 2}, "factors": {"dropout": [0.2]}})
    shown = drawn.words(draw(load(synthetic.make(tmp_path, study))))
    assert "baseline" in shown
    assert "comparison" not in shown
    assert "mean of baseline" not in shown


@BOTH
def test_other_factors(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    """A factor with five levels, none of them 'off', gives a row or panel for each."""
    study = parse_study(
        {"name": "rates", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"learning_rate": [1e-3, 1e-4, 3e-3, 0.1]}}
    )
    shown = drawn.words(draw(load(synthetic.make(tmp_path, study, means={"learning_rate=0.1": 11.0}))))
    assert all(f"learning rate {rate}" in shown for rate in ("0.0001", "0.003", "0.1"))


@BOTH
def test_diverged_and_missing_are_said(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    """A diverged run and a cell without runs are named as such."""
    found = results(tmp_path, diverged=[("l2", 1)], missing=[("dropout", seed) for seed in range(3)])
    shown = drawn.words(draw(found))
    assert "diverged" in shown
    assert "no run stored" in shown


def test_diverged_does_not_squeeze_the_rest(tmp_path: Path) -> None:
    """The axis of accuracies fits the runs that did not diverge; the one that did is a cross at its edge."""
    (axes,) = plots.accuracy(results(tmp_path, diverged=[("l2", 1)])).axes
    edge = axes.get_xlim()[0]
    assert edge > 90
    assert any("10.00" in text.get_text() for text in axes.texts)
    (cross,) = [row for row in drawn.rows_of_dots(axes) if len(row) == 1]
    assert cross[0, 0] == edge
    assert round(cross[0, 1]) == list(analyse(results(tmp_path)).cell_names).index("l2")


@BOTH
def test_all_diverged(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    """A study in which every run diverged gives a figure that says so."""
    everything = [(cell, seed) for cell in synthetic.MEANS for seed in range(2)]
    assert "diverged" in drawn.words(draw(results(tmp_path, 2, 2, diverged=everything)))
