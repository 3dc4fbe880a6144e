"""The pictures of effects: estimates, intervals, means and power are drawn as the tables have them."""

from typing import Any

import drawn
import numpy as np
import pandas as pd
import pytest
import synthetic

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.store.results import load


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Return the factorial study with 4 seeds and predictions of the same images."""
    folder = tmp_path_factory.mktemp("answered")
    return analyse(load(synthetic.make(folder, synthetic.factorial(4, 2), answers=drawn.answers)))


def test_forest_shows_every_effect_with_its_intervals(answered: Analysis) -> None:
    """A diamond per effect at its estimate, over bars that end where its intervals do, under its kind's heading."""
    frame = answered.effects()
    (axes,) = plots.forest(answered, smallest=0.1).axes
    marks = np.concatenate(drawn.lines(axes, marker="D"))
    assert marks[:, 0] == pytest.approx(frame["estimate"])
    bars = np.array([line[:, 0] for line in drawn.lines(axes, linewidth=3)])
    assert bars == pytest.approx(frame[["low", "high"]].to_numpy())
    two_way = answered.two_way
    assert two_way is not None
    wider = np.array([line[:, 0] for line in drawn.lines(axes, linewidth=1)[1:]])  # after the line at 0
    assert wider == pytest.approx(two_way[["low_two_way", "high_two_way"]].dropna().to_numpy())
    headings = [text.get_text() for text in axes.texts]
    assert headings == ["averaged over the other factors", "interactions", "alone, the others at their reference"]


def test_the_band_is_what_is_too_small_to_matter(answered: Analysis) -> None:
    """The band reaches as far as the smallest effect that matters, on either side; without one there is none."""
    (axes,) = plots.forest(answered, smallest=0.07).axes
    (band,) = axes.patches
    assert band.get_extents().width == pytest.approx(np.ptp(axes.transData.transform([(-0.07, 0), (0.07, 0)])[:, 0]))
    assert "± 0.07 points" in drawn.words(plots.forest(answered, smallest=0.07))
    (axes,) = plots.forest(answered).axes
    assert not axes.patches


def test_a_forest_of_losses_has_their_unit(answered: Analysis) -> None:
    """For another response the estimates and the unit are that response's, without intervals for other images."""
    (axes,) = plots.forest(answered, "val_loss").axes
    marks = np.concatenate(drawn.lines(axes, marker="D"))
    assert marks[:, 0] == pytest.approx(answered.effects("val_loss")["estimate"])
    assert axes.get_xlabel() == "effect on validation loss, nats"


def test_by_epoch_is_the_table_epoch_by_epoch(answered: Analysis) -> None:
    """Each panel has the effect after each epoch in a band to the ends of its interval, and ends at the table."""
    frame = answered.effects_by_epoch()
    frame = frame.assign(label=frame["label"].map(in_words))
    final = answered.effects().set_index("label")["estimate"].rename(in_words)
    panels = plots.by_epoch(answered).axes
    assert [axes.get_title("left") for axes in panels] == list(dict.fromkeys(frame["label"]))
    for axes in panels:
        rows = frame[frame["label"] == axes.get_title("left")]
        (line,) = drawn.lines(axes, marker="o")
        assert line == pytest.approx(rows[["epoch", "estimate"]].to_numpy(dtype=float))
        assert line[-1, 1] == pytest.approx(final[axes.get_title("left")])
        (band,) = drawn.bands(axes)
        assert np.column_stack(band[1:]) == pytest.approx(rows[["low", "high"]].to_numpy())


def test_interactions_join_the_means_of_the_combinations(answered: Analysis) -> None:
    """Each point is the mean over all seeds and the other factors; titles have the interaction and its interval."""
    panels = plots.interactions(answered).axes
    assert len(panels) == 3
    seeds = answered.seeds()
    levels: Any = answered.results.final.drop_duplicates("cell").set_index("cell")
    for axes, (first, second) in zip(
        panels, [("l2", "dropout"), ("l2", "batch_norm"), ("dropout", "batch_norm")], strict=True
    ):
        lines = [*drawn.lines(axes, marker="o"), *drawn.lines(axes, marker="s")]
        for line, second_on in zip(lines, (False, True), strict=True):
            for place, first_on in enumerate((False, True)):
                cells = [
                    c for c in seeds if bool(levels[first][c]) == first_on and bool(levels[second][c]) == second_on
                ]
                assert line[place] == pytest.approx([place, seeds[cells].to_numpy().mean()])
        row = answered.effects().set_index("label").loc[f"{first} \N{MULTIPLICATION SIGN} {second}"]
        assert f"{row['estimate']:+.2f}".replace("-", "\N{MINUS SIGN}") in axes.get_title("left")


def test_interactions_only_where_all_combinations_are_run() -> None:
    """Pairs of which the study leaves combinations out, graded factors and parts of chance have no panel."""
    assert not plots.has_interactions(synthetic.results(load_study("notebook").with_options(seeds=1)))
    assert not plots.has_interactions(synthetic.results(load_study("variance").with_options(seeds=1)))
    assert plots.has_interactions(synthetic.results(load_study("factorial").with_options(seeds=1)))


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_power_has_a_line_for_each_effect(answered: Analysis, width: float) -> None:
    """Each line is what the analysis says can be found, a dot marks the study's seeds, and each line has its name."""
    frame = answered.detectable
    (axes,) = plots.power(answered, width=width).axes
    expected = [of[["seeds", "effect"]].to_numpy(dtype=float) for _, of in frame.groupby("label", sort=False)]
    for line, rows in zip(drawn.lines(axes, marker="None"), expected, strict=True):
        assert line == pytest.approx(rows)
    now = frame[frame["seeds"] == frame["n"]]
    dots = np.concatenate(drawn.lines(axes, marker="o")) if len(now) else np.empty((0, 2))
    assert dots == pytest.approx(now[["seeds", "effect"]].to_numpy(dtype=float))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert sorted(text.get_text() for text in axes.texts) == sorted(frame["label"].map(in_words).unique())


def test_names_of_lines_do_not_touch(answered: Analysis) -> None:
    """The names at the ends of lines are apart, in the order of the ends."""
    (axes,) = plots.power(answered).axes
    heights = pd.Series({text.get_text(): text.get_position()[1] for text in axes.texts}).sort_values()
    assert heights.diff().dropna().ge(0.0519).all()
    ends = answered.detectable.groupby("label")["effect"].last().sort_values()
    assert list(heights.index) == [in_words(label) for label in ends.index]


def test_trends_have_no_power_line() -> None:
    """A trend, whose unit is another, is not among the lines."""
    study = parse_study({"name": "s", "seeds": 4, "factors": {"learning_rate": [0.001, 0.002, 0.004]}})
    planted = synthetic.results(
        study, test_accuracy=lambda run: 0.97 + (run.seed * run.settings.learning_rate * 1000) % 7 / 1000
    )
    analysis = analyse(planted)
    (axes,) = plots.power(analysis).axes
    assert analysis.detectable["kind"].eq("trend").any()
    assert axes.texts
    assert not any("trend" in text.get_text() for text in axes.texts)
