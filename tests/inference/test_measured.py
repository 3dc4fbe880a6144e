"""Cells and curves, against hand computation and scipy's own paired tests."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy import stats

from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.store.results import Results, load


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 8 cells x 12 seeds x 3 epochs, all there."""
    return load(synthetic.make(tmp_path_factory.mktemp("whole"), synthetic.factorial(12, 3)))


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the same with a cell, two seeds of another missing, and one run that diverged."""
    gone = [("l2", seed) for seed in range(7)] + [("dropout", 1), ("baseline", 2)]
    folder = synthetic.make(
        tmp_path_factory.mktemp("holed"), synthetic.factorial(7, 2), missing=gone, diverged=[("batch_norm", 0)]
    )
    return load(folder)


def final(results: Results, cell: str, response: str = "test_accuracy") -> "pd.Series[float]":
    """Pick by hand what a cell's runs had after the last epoch, by seed."""
    rows = results.epochs[results.epochs["cell"] == cell]
    found: pd.Series[float] = rows[rows["epoch"] == rows["epoch"].max()].set_index("seed")[response]
    return found


def row(frame: pd.DataFrame, cell: str) -> "pd.Series[float]":
    """Pick the row of a cell."""
    return frame[frame["cell"] == cell].iloc[0]


def learning_rates(**changes: object) -> Study:
    """Return a study of another factor, with five levels."""
    levels = [0.001, 0.0003, 0.003, 0.01, 0.03]
    document = {"name": "rates", "seeds": 3, "protocol": {"epochs": 2}, "factors": {"learning_rate": levels}}
    return parse_study(document | changes)


def test_one_row_per_cell_in_design_order(whole: Results) -> None:
    """The table has the cells of the full design, in the order of the design, with the planned number of runs."""
    frame = analyse(whole).cells()
    assert list(frame["cell"]) == [
        "baseline",
        "batch_norm",
        "dropout",
        "dropout+batch_norm",
        "l2",
        "l2+batch_norm",
        "l2+dropout",
        "l2+dropout+batch_norm",
    ]
    assert (frame["n"] == 12).all()
    assert (frame["n_planned"] == 12).all()
    assert (frame["n_diverged"] == 0).all()
    assert set(frame["reference"]) == {"baseline"}


def test_means_and_spread_are_in_percent(whole: Results) -> None:
    """Mean, sd, least and most are those of the stored fractions, times 100, with n - 1 in the sd."""
    values = 100 * final(whole, "dropout").to_numpy()
    found = row(analyse(whole).cells(), "dropout")
    assert found["mean"] == pytest.approx(sum(values) / 12)
    assert found["sd"] == pytest.approx(math.sqrt(sum((values - values.mean()) ** 2) / 11))
    assert found[["min", "max"]].tolist() == pytest.approx([min(values), max(values)])


def test_difference_is_scipys_paired_test(whole: Results) -> None:
    """Every difference to the baseline and its interval are those of ``scipy.stats.ttest_rel``."""
    frame = analyse(whole).cells()
    for cell in frame["cell"][1:]:
        pairs = 100 * pd.concat([final(whole, cell), final(whole, "baseline")], axis=1).to_numpy()
        interval = stats.ttest_rel(pairs[:, 0], pairs[:, 1]).confidence_interval(0.95)
        found = row(frame, cell)
        assert found["difference"] == pytest.approx((pairs[:, 0] - pairs[:, 1]).mean())
        assert found[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
        assert found["n_pairs"] == 12


def test_interval_of_the_cells_mean(whole: Results) -> None:
    """The interval of a cell's own mean is scipy's."""
    interval = stats.ttest_1samp(100 * final(whole, "l2"), 0).confidence_interval(0.95)
    found = row(analyse(whole).cells(), "l2")
    assert found[["mean_low", "mean_high"]].tolist() == pytest.approx([interval.low, interval.high])


def test_planted_difference_is_found(whole: Results) -> None:
    """Planted means lie within the intervals of differences wide enough for all seven (99.9 %)."""
    frame = analyse(whole).cells()
    for cell in frame["cell"][1:]:
        found, truth = row(frame, cell), synthetic.MEANS[cell] - synthetic.MEANS["baseline"]
        wider = stats.t.ppf(0.9995, 11) / stats.t.ppf(0.975, 11)
        assert abs(found["difference"] - truth) <= wider * (found["high"] - found["low"]) / 2


def test_reference_has_no_difference_to_itself(whole: Results) -> None:
    """The baseline's own difference is not a number, rather than a zero that looks measured."""
    found = row(analyse(whole).cells(), "baseline")
    assert found[["difference", "low", "high"]].isna().all()


def test_missing_cell_is_a_row(holed: Results) -> None:
    """A cell without a run stays in the table, with n = 0 and no numbers."""
    found = row(analyse(holed).cells(), "l2")
    assert (found["n"], found["n_planned"], found["n_pairs"]) == (0, 7, 0)
    assert found[["mean", "sd", "min", "max", "difference", "low", "high"]].isna().all()


def test_unequal_seeds_pair_where_both_are(holed: Results) -> None:
    """Without seed 1 of one cell and seed 2 of the baseline, the pairs are the other five seeds."""
    dropout, baseline = 100 * final(holed, "dropout"), 100 * final(holed, "baseline")
    both = [0, 3, 4, 5, 6]
    interval = stats.ttest_rel(dropout[both], baseline[both]).confidence_interval(0.95)
    found = row(analyse(holed).cells(), "dropout")
    assert (found["n"], found["n_pairs"]) == (6, 5)
    assert found["mean"] == pytest.approx(dropout.mean())
    assert found[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])


def test_diverged_runs_stay_in_and_are_counted(holed: Results) -> None:
    """A diverged run is counted, and stays in the mean with the accuracy and the loss of guessing."""
    found = row(analyse(holed).cells(), "batch_norm")
    assert (found["n"], found["n_diverged"]) == (7, 1)
    assert found["min"] == 10.0
    losses = final(holed, "batch_norm", "val_loss")
    assert losses.max() == 300
    expected = np.where(losses == 300, math.log(10), losses).mean()
    assert row(analyse(holed).cells("val_loss"), "batch_norm")["mean"] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_counts_as_guessing(holed: Results) -> None:
    """The training loss of a diverged run is not a number: it counts as ln 10, and is not left out of the mean."""
    losses = final(holed, "batch_norm", "train_loss")
    assert losses.isna().sum() == 1
    found = row(analyse(holed).cells("train_loss"), "batch_norm")
    assert found["n"] == 7
    assert found["mean"] == pytest.approx((losses.sum() + math.log(10)) / 7)


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    """With one seed there are means and differences, and neither sd nor interval; nothing warns."""
    frame = analyse(load(synthetic.make(tmp_path, synthetic.factorial(1, 1)))).cells()
    assert frame["mean"].notna().all()
    assert frame["difference"][1:].notna().all()
    assert frame[["sd", "mean_low", "mean_high", "low", "high"]].isna().to_numpy().all()


def test_other_reference_where_there_is_no_baseline(tmp_path: Path) -> None:
    """A study that lists cells without the one of all references compares with its first cell, and says so."""
    study = learning_rates(cells=[{"learning_rate": 0.003}, {"learning_rate": 0.01}])
    frame = analyse(load(synthetic.make(tmp_path, study))).cells()
    assert list(frame["cell"]) == ["learning_rate=0.003", "learning_rate=0.01"]
    assert set(frame["reference"]) == {"learning_rate=0.003"}
    assert frame["difference"].isna().tolist() == [True, False]


def test_runs_beyond_the_planned_seeds_count(tmp_path: Path) -> None:
    """A folder with more seeds than its study now names shows all of them: '4 of 4', not '4 of 3'."""
    synthetic.make(tmp_path, synthetic.factorial(4, 1))
    results = load(tmp_path)
    fewer = Results(results.folder, synthetic.factorial(3, 1), results.epochs, results.documents)
    assert set(analyse(fewer).cells()["n_planned"]) == {4}


def test_curves_by_hand(whole: Results) -> None:
    """A point of a curve has the mean, sd and half of scipy's interval of its cell and epoch."""
    frame = analyse(whole).curves("val_loss")
    assert len(frame) == 8 * 3
    rows = whole.epochs[(whole.epochs["cell"] == "l2+dropout") & (whole.epochs["epoch"] == 2)]
    found = frame[(frame["cell"] == "l2+dropout") & (frame["epoch"] == 2)].iloc[0]
    interval = stats.ttest_1samp(rows["val_loss"], 0).confidence_interval(0.95)
    assert found["n"] == 12
    assert found["mean"] == pytest.approx(rows["val_loss"].mean())
    assert found["sd"] == pytest.approx(np.std(rows["val_loss"], ddof=1))
    assert found["half_width"] == pytest.approx((interval.high - interval.low) / 2)


def test_curves_show_what_is_missing(holed: Results) -> None:
    """A cell without a run has its epochs with n = 0; diverged runs are counted; accuracies are in percent."""
    frame = analyse(holed).curves("val_accuracy")
    last = frame[frame["epoch"] == 2]
    assert row(last, "l2")["n"] == 0
    assert math.isnan(row(last, "l2")["mean"])
    assert row(last, "batch_norm")["n_diverged"] == 1
    assert row(last, "dropout")["mean"] == pytest.approx(100 * final(holed, "dropout", "val_accuracy").mean())


def test_curves_of_one_seed_have_no_band(tmp_path: Path) -> None:
    """With one seed there is a curve and no band, and nothing warns."""
    frame = analyse(load(synthetic.make(tmp_path, synthetic.factorial(1, 2)))).curves("train_loss")
    assert frame["mean"].notna().all()
    assert frame[["sd", "half_width"]].isna().to_numpy().all()


def test_epochs_as_a_factor(tmp_path: Path) -> None:
    """Where the number of epochs varies, each cell has its own, and its last is its final one."""
    study = parse_study({"name": "long", "seeds": 2, "factors": {"epochs": [1, 3]}})
    results = load(synthetic.make(tmp_path, study))
    assert analyse(results).curves("val_loss").groupby("cell").size().to_dict() == {"baseline": 1, "epochs=3": 3}
    assert (analyse(results).cells()["n"] == 2).all()
