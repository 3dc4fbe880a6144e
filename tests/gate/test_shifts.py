"""How far runs have moved, and how far chance alone moves them."""

import math
from dataclasses import replace

import gate_tables as tables
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mnist_ablate.design.responses import LOSS_CAP
from mnist_ablate.gate.reference import Rules
from mnist_ablate.gate.shifts import contrast_values, shift_limits, shifts, spreads


def test_contrasts_are_those_of_the_design() -> None:
    """The mean and each effect come out of a table made by hand, a row per seed."""
    values = {"baseline": 1.0, "dropout": 2.0, "l2": 4.0, "l2+dropout": 9.0}
    table = pd.DataFrame([(cell, 0, "value", value) for cell, value in values.items()])
    table.columns = ["cell", "seed", "response", "value"]
    found = contrast_values(table, tables.CONTRASTS).iloc[0]
    assert found["mean", "value"] == pytest.approx(4.0)
    assert found["l2", "value"] == pytest.approx((4 + 9 - 1 - 2) / 2)
    assert found["dropout", "value"] == pytest.approx((2 + 9 - 1 - 4) / 2)


def test_a_diverged_run_counts_as_guessing_and_half_a_block_not_at_all() -> None:
    """A loss that is missing counts as ln 10 and a large one as itself; a seed that lacks a cell is left out."""
    table = tables.runs([0, 1]).query("response == 'val_loss'")
    table = table.assign(value=[math.nan, 9.0, 1.0, 1.0, *table["value"].iloc[4:]]).iloc[:-1]
    found = contrast_values(table, tables.CONTRASTS)
    assert len(found) == 1
    assert found["mean", "val_loss"].iloc[0] == pytest.approx((LOSS_CAP + 9 + 2) / 4)


def test_all_of_a_diverged_run_counts_as_guessing() -> None:
    """Where any number of a run is not finite, its accuracy and all its losses are those of guessing."""
    rows = [(cell, 0, "val_accuracy", 97.0) for cell in ("a", "b")] + [("a", 0, "val_loss", math.nan)]
    rows += [("b", 0, "val_loss", 0.1), ("a", 0, "custom loss", math.inf), ("b", 0, "custom loss", 0.2)]
    table = pd.DataFrame(rows, columns=["cell", "seed", "response", "value"])
    found = contrast_values(table, {"a": {"a": 1.0}, "b": {"b": 1.0}}).iloc[0]
    assert found["a"].to_dict() == {"val_accuracy": 10.0, "val_loss": LOSS_CAP, "custom loss": LOSS_CAP}
    assert found["b"].to_dict() == {"val_accuracy": 97.0, "val_loss": 0.1, "custom loss": 0.2}


def test_the_spread_is_that_of_the_bank() -> None:
    """The paired standard error is that of the planted noise, smaller with more repeats; the unpaired one is larger."""
    known = tables.reference()
    se = spreads(known, 4)["se"]["mean", "test_accuracy"]
    assert se == pytest.approx(tables.NOISE["test_accuracy"] / 2 * math.sqrt((1 + 1 / 3) / 4), rel=0.15)
    assert spreads(known, 4)["df"].unique() == [60.0]
    one = replace(known, evidence=replace(known.evidence, runs=tables.runs(range(4))))
    assert spreads(one, 4)["se"]["mean", "test_accuracy"] == pytest.approx(se * math.sqrt(2 / (4 / 3)))
    assert (spreads(known, 4, paired=False)["se"] > 1.5 * spreads(known, 4)["se"]).all()


def test_limits_are_bonferroni_of_t() -> None:
    """Each limit is the t quantile of the level's share of the budget over all checks, or a larger tolerance."""
    known = tables.reference(rules=Rules(budget=1e-5, tolerances={"val_loss": 0.5}))
    table = shift_limits(known, 4)
    alpha = 1e-5 * 0.8 / 6
    expected = stats.t.isf(alpha / 2, 60) * table["se"]["l2", "test_accuracy"]
    assert table["limit"]["l2", "test_accuracy"] == pytest.approx(expected)
    assert table["limit"]["l2", "val_loss"] == 0.5
    assert table["margin"]["l2", "val_loss"] == pytest.approx(stats.t.ppf(0.95, 60) * table["se"]["l2", "val_loss"])


def test_clean_runs_lie_inside_with_their_interval() -> None:
    """With a generous budget, limits are wide enough for 19 of 20 clean gates to pass."""
    table = shift_limits(tables.reference(rules=Rules(budget=0.4)), 4)
    inside = stats.t.isf(0.05 / 6 / 2, 60) * table["se"]
    np.testing.assert_allclose(table["limit"] - table["margin"], inside)


def test_false_alarms_keep_to_the_budget() -> None:
    """In 300 gates for each of 100 null banks, no more fail, and no more are unsure, than promised."""
    rng = np.random.default_rng(3)
    shifts = rng.normal(size=(300, 2, 4)) * math.sqrt((1 + 1 / 3) / 4) * np.array([[0.1], [0.001]])
    weights = np.array([[contrast[cell] for cell in tables.CELLS] for contrast in tables.CONTRASTS.values()])
    sizes = np.abs(np.einsum("grc,kc->gkr", shifts, weights))
    alarms, unsure = [], []
    known = tables.reference(rules=Rules(budget=0.01))
    for bank in range(100):
        table = shift_limits(replace(known, bank=tables.runs(range(100, 130), 3, rng=bank)), 4)
        limits, margins = (table[name].unstack().loc[list(tables.CONTRASTS), list(tables.LEVELS)].to_numpy()
                           for name in ("limit", "margin"))  # fmt: skip
        alarms.append((sizes > limits).any(axis=(1, 2)).mean())
        unsure.append((sizes + margins > limits).any(axis=(1, 2)).mean())
    for rates, promised in ((alarms, 0.008), (unsure, 0.05)):
        assert stats.ttest_1samp(rates, promised, alternative="greater").pvalue > 0.001
    assert np.mean(unsure) > 0.01


def test_a_shift_is_now_less_was() -> None:
    """Shifts are differences over common seeds, with a two-sided p value; no difference has p = 1."""
    known = tables.reference()
    runs = known.evidence.runs.groupby(["cell", "seed", "response"], as_index=False).agg({"value": "mean"})
    table = shifts(tables.moved(runs, 0.3, cells=("l2",)).query("seed < 3"), known)
    assert table["shift"]["mean", "test_accuracy"] == pytest.approx(0.3 / 4)
    assert table["shift"]["l2", "test_accuracy"] == pytest.approx(0.3 / 2)
    assert table["cell"]["l2", "test_accuracy"] == "l2"
    assert table["p"]["mean", "val_loss"] == pytest.approx(1.0)
    t = 0.15 / table["se"]["l2", "test_accuracy"]
    assert table["p"]["l2", "test_accuracy"] == pytest.approx(2 * stats.t.sf(t, 60))
