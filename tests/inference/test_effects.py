"""Effects, against hand computation, scipy, and regressions of statsmodels."""

import itertools
import math
import warnings
from dataclasses import replace
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
from mnist_ablate.inference import effects
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.store.results import Results

CUBE = synthetic.factorial(7, 1)


CELLS = CUBE.cell_names


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


CELLS_OF = {study.name: study.cell_names for study in (CUBE, WIDTHS)}


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


def test_the_gap_is_of_runs_that_did_not_diverge() -> None:
    """The gap is validation less training loss, however large they are; a run that diverged has none."""
    losses = {0: 0.25, 1: 300.0, 2: 0.25, 3: 0.25, 4: 0.5, 5: 2.0, 6: 2.3}
    results = synthetic.results(
        CUBE,
        val_loss=lambda run: losses[run.seed],
        train_loss_eval=lambda run: 0.125 if run.seed < 6 else 5.0,
        diverged=[(cell, 2) for cell in CELLS],
    )
    expected = [0.125, 299.875, math.nan, 0.125, 0.375, 1.875, -2.7]
    for cell in CELLS:
        assert analyse(results).seeds("gap")[cell].tolist() == pytest.approx(expected, nan_ok=True)
        assert analyse(results).seeds("val_loss")[cell][2] == LOSS_CAP
    found = effect_of(results, "mean", "reference", "gap")
    assert (found["n"], found["response"]) == (6, "gap")
    assert found["estimate"] == pytest.approx(np.nanmean(expected))


def test_missing_runs_make_an_effect_of_fewer_seeds() -> None:
    """A seed without all the cells of a contrast is not in it, and is in those that do not need the missing one."""
    gone = [("l2+dropout", 1), ("batch_norm", 4)]
    results = synthetic.results(CUBE, missing=gone, diverged=[("dropout", 0), ("batch_norm", 2)], test_accuracy=noise)
    table = table_of(results)
    table.loc[0, "dropout"] = table.loc[2, "batch_norm"] = 10.0  # what diverged counts as guessing
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
    rates = parse_study({"name": "rates", "factors": {"dropout": [0.0, 0.2, 0.5]}})
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
    with pytest.raises(ValueError, match="needs 8 cells, but this study runs 6"):
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
        found = Sample.of(rng.normal(0.15, 0.12, 7)).interval()
        hits += found[0] < 0.15 < found[1]
    interval = stats.binomtest(hits, 400).proportion_ci(0.999)
    assert interval.low < 0.95 < interval.high


def test_cells_that_are_one_run_have_no_effect_to_show() -> None:
    """A mistake that has nothing to act on in the reference cell is no simple effect of 0: it is left out."""
    labels = [effect.label for effect in effects.standard_effects(load_study("notebook"))]
    assert labels == ["l2 alone", "dropout alone", "batch_norm alone"]
