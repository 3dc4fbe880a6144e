"""The estimands, against hand computation and scipy's own paired tests."""

import itertools
import math
import warnings
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import OLS
from statsmodels.formula.api import mixedlm, ols

from mnist_ablate.design.contrasts import Contrast, Place
from mnist_ablate.design.plan import Run
from mnist_ablate.design.responses import LOSS_CAP
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference import effects, intervals, measured
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


def test_interval_by_hand() -> None:
    """Of 1, 2, 3, 4 the 95 % interval is 2.5 ± 3.18245 x 1.29099 / 2 (Student's t with 3 degrees of freedom)."""
    found = intervals.mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx((2.5, 0.445739, 4.554260), abs=1e-5)


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
    """A diverged run is counted, and its last evaluation is in the mean; its loss counts as that of guessing."""
    found = row(analyse(holed).cells(), "batch_norm")
    assert (found["n"], found["n_diverged"]) == (7, 1)
    assert found["min"] == pytest.approx(9.8)
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


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e9])
def test_zero_spread_is_a_point(value: float) -> None:
    """Equal values, but for rounding, give an interval of no width, and scipy is not made to warn."""
    values = np.full(10, value)
    values[0] *= 1 + 2**-52
    mean, low, high = intervals.mean_interval(values)
    assert mean == pytest.approx(value)
    assert low == mean == high


def test_nothing_has_no_mean() -> None:
    """No value at all: no mean, and no warning."""
    assert all(math.isnan(number) for number in intervals.mean_interval(np.empty(0)))


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


# ---- Contrasts of cells ----

CUBE = synthetic.factorial(7, 1)
CELLS = measured.cell_names(CUBE)
FACTORS = ("l2", "dropout", "batch_norm")
WIDTHS = parse_study(
    {"name": "widths", "seeds": 5, "protocol": {"epochs": 1},
     "factors": {"dropout": [0.0, 0.5], "width": [64, 128, 512]}}
)  # fmt: skip


def noise(run: Run, scale: float = 0.0015) -> float:
    """Draw an accuracy: of its seed in part, so that pairs are alike, and of its run."""
    of_seed = np.random.default_rng([run.seed, 5]).normal()
    return 0.975 + scale * float(
        of_seed + np.random.default_rng([CELLS_OF[run.study].index(run.cell), run.seed]).normal()
    )


CELLS_OF = {study.name: measured.cell_names(study) for study in (CUBE, WIDTHS)}


def table_of(results: Results) -> "pd.DataFrame":
    """Give the planted accuracies in percent by hand: a row per seed, a column per cell."""
    return 100 * results.epochs.pivot(index="seed", columns="cell", values="test_accuracy")


def effect_of(results: Results, contrast: str, at: Place = "average", response: str = "test_accuracy") -> Any:
    """Give the row of one effect."""
    effect = effects.Effect("main", contrast, Contrast(contrast, at))
    return analyse(results).estimate([effect], response).iloc[0]


def sign(cell: str, *factors: str) -> int:
    """Give the sign of a cell in the product of some factors."""
    return math.prod(1 if factor in cell.split("+") else -1 for factor in factors)


@pytest.fixture(scope="module")
def cube() -> Results:
    """Return 8 cells x 7 seeds, with accuracies that are not rounded."""
    return synthetic.results(CUBE, test_accuracy=noise)


@pytest.fixture(scope="module")
def widths() -> Results:
    """Return 2 x 3 cells x 5 seeds."""
    return synthetic.results(WIDTHS, test_accuracy=noise)


@pytest.mark.parametrize(
    "factors",
    [("l2",), ("dropout",), ("batch_norm",), ("l2", "dropout"), ("dropout", "batch_norm"),
     ("l2", "dropout", "batch_norm")],
)  # fmt: skip
def test_effects_of_the_cube_by_hand(cube: Results, factors: tuple[str, ...]) -> None:
    """Main effects and interactions are sums over cells with the signs of the design, over 2^(3 - order)."""
    table = table_of(cube)
    z = sum(sign(cell, *factors) * table[cell] for cell in CELLS) / 2 ** (3 - len(factors))
    found = effect_of(cube, ":".join(factors))
    interval = stats.ttest_1samp(z, 0).confidence_interval(0.95)
    assert (found["n"], found["n_planned"], found["n_diverged"]) == (7, 7, 0)
    assert found["estimate"] == pytest.approx(np.mean(z), abs=1e-12)
    assert found["sd"] == pytest.approx(np.std(z, ddof=1))
    assert found["se"] == pytest.approx(np.std(z, ddof=1) / math.sqrt(7))
    assert found[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])
    assert found["p"] == pytest.approx(stats.ttest_1samp(z, 0).pvalue)
    mean_variance = np.mean([np.var(table[cell], ddof=1) for cell in CELLS])
    assert found["in_spreads"] == pytest.approx(found["estimate"] / math.sqrt(mean_variance), abs=1e-12)


def test_simple_effect_is_scipys_paired_test(cube: Results) -> None:
    """A technique alone against the baseline is ``ttest_rel`` of the two cells."""
    table, found = table_of(cube), effect_of(cube, "dropout", "reference")
    test = stats.ttest_rel(table["dropout"], table["baseline"])
    interval = test.confidence_interval(0.95)
    assert found["p"] == pytest.approx(test.pvalue)
    assert found[["low", "high"]].tolist() == pytest.approx([interval.low, interval.high])


def test_levels_and_trend_by_hand(widths: Results) -> None:
    """A level is its mean over dropout less the reference's; the trend of a seed is numpy's slope on log2."""
    table = table_of(widths)
    at = {64: ["baseline", "dropout"], 128: ["width=128", "dropout+width=128"], 512: ["width=512", "dropout+width=512"]}
    means = np.array([table[cells].mean(axis=1) for cells in at.values()])
    assert effect_of(widths, "width[512]")["estimate"] == pytest.approx((means[2] - means[0]).mean())
    mean_variance = table[at[64] + at[512]].var(ddof=1).mean()  # of the cells that are compared
    level = effect_of(widths, "width[512]")
    assert level["in_spreads"] == pytest.approx(level["estimate"] / math.sqrt(mean_variance))
    slopes = np.polyfit(np.log2([64, 128, 512]), means, 1)[0]
    found = effect_of(widths, "trend(width)")
    assert found["estimate"] == pytest.approx(slopes.mean())
    assert found["sd"] == pytest.approx(slopes.std(ddof=1))


def long_frame(results: Results) -> pd.DataFrame:
    """Give the accuracies in percent beside factors as -1 and 1."""
    frame = results.epochs[["seed", "test_accuracy"]].copy()
    for name in ("l2", "dropout", "batch_norm"):
        frame[name] = np.where(results.epochs[name] == 0, -1, 1)
    return frame.assign(y=100 * frame["test_accuracy"])


def test_standard_errors_are_those_of_a_regression_on_one(cube: Results) -> None:
    """Estimate, standard error, interval and p of every standard effect are those of statsmodels' ``OLS(z, 1)``."""
    frame = analyse(cube).effects()
    assert len(frame) == 10
    for effect, (_, found) in zip(effects.standard_effects(CUBE), frame.iterrows(), strict=True):
        z = analyse(cube).contrast(effect.contrast)
        fit = OLS(z.to_numpy(), np.ones(len(z))).fit()
        expected = [fit.params[0], fit.bse[0], *fit.conf_int()[0], fit.pvalues[0]]
        assert found[["estimate", "se", "low", "high", "p"]].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_estimates_are_those_of_a_mixed_model(cube: Results) -> None:
    """In a balanced design a model with a random intercept per seed, and plain OLS, estimate the same effects."""
    frame = long_frame(cube)
    formula = "y ~ l2 * dropout * batch_norm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, which its optimiser is shy about
        mixed = mixedlm(formula, frame, groups=frame["seed"]).fit().fe_params
    plain = ols(formula, frame).fit().params
    for name in plain.index.drop("Intercept"):
        order = name.count(":") + 1  # with -1 and 1, a coefficient is half a difference, quarter of a double one, ...
        expected = effect_of(cube, name)["estimate"]
        assert 2**order * plain[name] == pytest.approx(expected, abs=1e-9)
        assert 2**order * mixed[name] == pytest.approx(expected, abs=1e-6)


def test_simple_effects_and_levels_are_those_of_dummy_coding(cube: Results, widths: Results) -> None:
    """OLS with dummy coding has simple effects as its main terms, and, without interactions, levels as such."""
    frame = long_frame(cube).replace({name: {-1: 0} for name in ("l2", "dropout", "batch_norm")})
    coded = ols("y ~ l2 * dropout * batch_norm", frame).fit().params
    for name in ("l2", "dropout", "batch_norm", "l2:dropout", "dropout:batch_norm", "l2:dropout:batch_norm"):
        assert coded[name] == pytest.approx(effect_of(cube, name, "reference")["estimate"], abs=1e-9)
    assert coded["Intercept"] == pytest.approx(effect_of(cube, "mean", "reference")["estimate"])
    frame = widths.epochs.assign(y=100 * widths.epochs["test_accuracy"])
    coded = ols("y ~ C(width) + C(dropout)", frame).fit().params
    assert coded["C(width)[T.512]"] == pytest.approx(effect_of(widths, "width[512]")["estimate"])
    assert coded["C(dropout)[T.0.5]"] == pytest.approx(effect_of(widths, "dropout")["estimate"])
    slope = ols("y ~ np.log2(width)", frame).fit().params.iloc[1]
    assert slope == pytest.approx(effect_of(widths, "trend(width)")["estimate"])


@pytest.mark.parametrize("n", [2, 6, 11])
def test_sign_flips_are_scipys_permutation_test(n: int) -> None:
    """Up to 20 seeds the p of sign flips is that of scipy's exact permutation test of one sample."""
    z = np.random.default_rng(n).normal(0.5, 1, n)
    test = stats.permutation_test(
        (z,), lambda x: abs(x.sum()), permutation_type="samples", n_resamples=2**n, alternative="greater"
    )
    assert intervals.sign_flip_p(z) == pytest.approx(test.pvalue)


def test_sign_flips_by_hand() -> None:
    """Of 1, 2, 3 the sum is reached by two of eight flips; of 1, -1 by all; ties count in spite of rounding."""
    assert intervals.sign_flip_p(np.array([1.0, 2.0, 3.0])) == 0.25
    assert intervals.sign_flip_p(np.array([1.0, -1.0])) == 1
    assert intervals.sign_flip_p(np.array([0.1, 0.2, 0.3, 0.0])) == 0.25
    assert intervals.sign_flip_p(np.full(20, 0.1)) == 2**-19


def test_many_sign_flips_are_drawn() -> None:
    """Above 20 seeds the p is the exact one within Monte Carlo error, always the same, and never 0."""
    z = np.random.default_rng(3).normal(0.3, 1, 22)
    sums = np.zeros(1)
    for value in z:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(z.sum()) - 1e-9)
    assert 0.01 < exact < 0.5
    assert intervals.sign_flip_p(z) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert intervals.sign_flip_p(z) == intervals.sign_flip_p(z)
    assert intervals.sign_flip_p(np.full(40, 0.1)) == pytest.approx(1 / 20_001)


def test_gap_and_cap() -> None:
    """The gap is validation less training loss, each at most ln 10: infinite, missing and huge losses count as that."""
    losses = {0: 0.25, 1: 300.0, 2: math.nan, 3: math.inf, 4: 0.5, 5: 2.0, 6: 2.3}
    results = synthetic.results(
        CUBE, val_loss=lambda run: losses[run.seed], train_loss_eval=lambda run: 0.125 if run.seed < 6 else 5.0
    )
    cap = math.log(10)
    assert cap == LOSS_CAP
    expected = [0.25 - 0.125, cap - 0.125, cap - 0.125, cap - 0.125, 0.5 - 0.125, 2 - 0.125, 2.3 - cap]
    for cell in CELLS:
        assert analyse(results).seeds("gap")[cell].tolist() == pytest.approx(expected)
    found = effect_of(results, "mean", "reference", "gap")
    assert (found["n"], found["response"]) == (7, "gap")
    assert found["estimate"] == pytest.approx(np.mean(expected))


def test_missing_runs_make_an_effect_of_fewer_seeds() -> None:
    """A seed without all the cells of a contrast is not in it, and is in those that do not need the missing one."""
    gone = [("l2+dropout", 1), ("batch_norm", 4)]
    results = synthetic.results(CUBE, missing=gone, diverged=[("dropout", 0), ("batch_norm", 2)], test_accuracy=noise)
    table = table_of(results)
    main, simple = effect_of(results, "dropout"), effect_of(results, "dropout", "reference")
    z = table[CELLS].to_numpy() @ [sign(cell, "dropout") / 4 for cell in CELLS]
    kept = [0, 2, 3, 5, 6]
    assert (main["n"], main["n_planned"], main["n_diverged"]) == (5, 7, 2)
    assert main["estimate"] == pytest.approx(z[kept].mean())
    assert (simple["n"], simple["n_diverged"]) == (7, 1)
    assert simple["estimate"] == pytest.approx((table["dropout"] - table["baseline"]).mean())


def test_a_missing_cell_is_an_effect_without_a_number() -> None:
    """Effects that need a cell that no seed has are rows with n = 0 and no numbers; nothing warns."""
    results = synthetic.results(CUBE, missing=[("dropout", seed) for seed in range(7)], test_accuracy=noise)
    frame = analyse(results).effects()
    assert len(frame) == 10
    without = frame[frame["n"] == 0]
    numbers = ["estimate", "sd", "se", "low", "high", "p", "p_sign_flip", "in_spreads"]
    assert without[numbers].isna().to_numpy().all()
    assert set(frame["label"]) - set(without["label"]) == {"l2 alone", "batch_norm alone"}


def test_one_two_and_no_spread() -> None:
    """One seed has estimates alone; two have intervals; equal seeds have an interval of no width and no p."""
    one = analyse(synthetic.results(synthetic.factorial(1, 1), test_accuracy=noise)).effects()
    assert one["estimate"].notna().all()
    assert one[["sd", "se", "low", "high", "p", "p_sign_flip", "in_spreads"]].isna().to_numpy().all()
    two = analyse(synthetic.results(synthetic.factorial(2, 1), test_accuracy=noise)).effects()
    assert two[["low", "high", "p", "p_sign_flip"]].notna().to_numpy().all()
    alike = analyse(synthetic.results(CUBE, test_accuracy=lambda run: 0.9 + 0.01 * len(run.cell))).effects()
    assert (alike["low"] == alike["high"]).all()
    assert alike["sd"].to_numpy() == pytest.approx(0, abs=1e-12)
    assert alike[["p", "p_sign_flip"]].isna().to_numpy().all()


def test_standard_effects_of_a_cube() -> None:
    """A 2 x 2 x 2 study has 3 main effects, 4 interactions, 3 simple effects, in this order."""
    listed = effects.standard_effects(CUBE)
    assert [(effect.kind, effect.label) for effect in listed] == [
        ("main", "l2"), ("main", "dropout"), ("main", "batch_norm"),
        ("interaction", "l2 \N{MULTIPLICATION SIGN} dropout"),
        ("interaction", "l2 \N{MULTIPLICATION SIGN} batch_norm"),
        ("interaction", "dropout \N{MULTIPLICATION SIGN} batch_norm"),
        ("interaction", "l2 \N{MULTIPLICATION SIGN} dropout \N{MULTIPLICATION SIGN} batch_norm"),
        ("simple", "l2 alone"), ("simple", "dropout alone"), ("simple", "batch_norm alone"),
    ]  # fmt: skip


def test_standard_effects_of_levels() -> None:
    """More levels are compared with the reference, and have a trend where they are numbers, in words that tell how."""
    listed = effects.standard_effects(WIDTHS)
    assert [(effect.kind, effect.label) for effect in listed] == [
        ("main", "dropout"), ("level", "width=128"), ("level", "width=512"), ("trend", "trend per doubling of width"),
        ("simple", "dropout alone"), ("simple", "width=128 alone"), ("simple", "width=512 alone"),
    ]  # fmt: skip
    rates = learning_rates(factors={"dropout": [0.0, 0.2, 0.5]})
    assert [effect.label for effect in effects.standard_effects(rates)] == [
        "dropout=0.2", "dropout=0.5", "trend per unit of dropout",
    ]  # fmt: skip


def test_levels_with_colons_have_their_effects() -> None:
    """Models, whose names have a colon in them, are compared as other levels are."""
    study = parse_study({"name": "models", "seeds": 2, "factors": {"model": ["m:a", "m:b", "m:c"]}})
    assert [effect.label for effect in effects.standard_effects(study)] == ["model=m:b", "model=m:c"]


def test_effects_without_their_cells_are_not_listed() -> None:
    """Of a study that excludes cells, only effects that its cells can answer are shown; the others are refused."""
    study = synthetic.factorial(3, 1).model_dump(exclude_unset=True)
    study |= {"hypotheses": (), "exclude": [{"l2": 1e-5, "dropout": 0.2}]}
    excluded = parse_study(study)
    labels = [effect.label for effect in effects.standard_effects(excluded)]
    assert labels == ["l2 alone", "dropout alone", "batch_norm alone"]
    with pytest.raises(ValueError, match="needs 8 cells, of which this study runs 6"):
        effects.contrast_weights(excluded, Contrast("dropout"))


SMALL = synthetic.factorial(3, 1)
_ACCURACIES = st.lists(st.integers(0, 10_000), min_size=24, max_size=24)


def drawn(values: list[int], *, study: Study = SMALL) -> Results:
    """Plant whole images in 10,000, cell by cell within seeds."""
    return synthetic.results(study, test_accuracy=lambda run: values[8 * run.seed + CELLS.index(run.cell)] / 10_000)


def estimates(results: Results) -> "pd.DataFrame":
    """Give the numbers of all standard effects."""
    return analyse(results).effects()[["n", "estimate", "sd", "low", "high"]]


@settings(max_examples=8)
@given(_ACCURACIES, st.randoms(use_true_random=False))
def test_no_order_of_rows_matters(values: list[int], random: Random) -> None:
    """The order of the runs in the table, and so of its cells and seeds, changes no effect."""
    results = drawn(values)
    order = list(range(24))
    random.shuffle(order)
    shuffled = replace(results, epochs=results.epochs.iloc[order])
    pd.testing.assert_frame_equal(estimates(results), estimates(shuffled))
    assert analyse(results).cells().equals(analyse(shuffled).cells())


@settings(max_examples=8)
@given(_ACCURACIES, st.integers(-5000, 5000), st.sampled_from([0.25, 0.5, 2.0]))
def test_shift_and_scale(values: list[int], shift: int, scale: float) -> None:
    """What is added to all accuracies changes no effect; a factor scales estimate, sd and interval, and not p."""
    results = drawn(values)
    shifted = drawn([value + shift for value in values])
    scaled = synthetic.results(
        SMALL, test_accuracy=lambda run: scale * values[8 * run.seed + CELLS.index(run.cell)] / 10_000
    )
    before = estimates(results)
    assert estimates(shifted).to_numpy() == pytest.approx(before.to_numpy(), abs=1e-8, nan_ok=True)
    numbers = ["estimate", "sd", "low", "high"]
    assert estimates(scaled)[numbers].to_numpy() == pytest.approx(scale * before[numbers].to_numpy(), abs=1e-8)
    p = [analyse(found).effects()["p_sign_flip"].to_numpy() for found in (results, scaled)]
    assert p[0] == pytest.approx(p[1], nan_ok=True)


@settings(max_examples=8)
@given(_ACCURACIES)
def test_swapped_levels_flip_the_sign(values: list[int]) -> None:
    """With a factor's levels in the other order, effects that it is in once change sign, and the others do not."""
    document = SMALL.model_dump(exclude_unset=True) | {"hypotheses": ()}
    document["factors"] = document["factors"] | {"dropout": [0.2, 0.0]}
    swapped_study = parse_study(document)
    results = drawn(values)
    frame = results.epochs
    keys = zip(*(frame[name].tolist() for name in (*FACTORS, "seed")), strict=True)
    by_levels: dict[tuple[Any, ...], float] = dict(zip(keys, frame["test_accuracy"].tolist(), strict=True))
    swapped = synthetic.results(
        swapped_study, test_accuracy=lambda run: by_levels[(*(run.levels[f] for f in FACTORS), run.seed)]
    )
    for terms in ("l2", "dropout", "l2:dropout", "l2:batch_norm", "l2:dropout:batch_norm"):
        before, after = effect_of(results, terms), effect_of(swapped, terms)
        expected = [-before["estimate"], -before["high"], -before["low"]]
        if "dropout" not in terms:
            expected = [before["estimate"], before["low"], before["high"]]
        assert after[["estimate", "low", "high"]].tolist() == pytest.approx(expected, abs=1e-9)


def test_planted_effects_are_recovered() -> None:
    """Planted main effects and a planted interaction come out exactly, whatever a seed adds to all of its cells."""
    planted = {("l2",): 0.02, ("dropout",): 0.15, ("batch_norm",): 0.27, ("dropout", "batch_norm"): -0.08}

    def accuracy(run: Run) -> float:
        points: float = sum(size * sign(run.cell, *names) / 2 ** len(names) for names, size in planted.items())
        return (97 + points + float(np.random.default_rng(run.seed).normal())) / 100

    results = synthetic.results(CUBE, test_accuracy=accuracy)
    for order in (1, 2, 3):
        for names in itertools.combinations(FACTORS, order):
            found = effect_of(results, ":".join(names))
            assert found["estimate"] == pytest.approx(planted.get(names, 0), abs=1e-9)
    assert effect_of(results, "dropout", "reference")["estimate"] == pytest.approx(0.15 + 0.04)


def test_planted_effects_under_noise_are_covered() -> None:
    """Over 400 drawn studies of 7 seeds, 95 % intervals hold the planted effect as often as they say."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        found = effects.t_summary(rng.normal(0.15, 0.12, 7))
        hits += found["low"] < 0.15 < found["high"]
    interval = stats.binomtest(hits, 400).proportion_ci(0.999)
    assert interval.low < 0.95 < interval.high


def test_cells_that_are_one_run_have_no_effect_to_show() -> None:
    """A mistake that has nothing to act on in the reference cell is no simple effect of 0: it is left out."""
    labels = [effect.label for effect in effects.standard_effects(load_study("notebook"))]
    assert labels == ["l2 alone", "dropout alone", "batch_norm alone"]
