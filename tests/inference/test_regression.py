"""Least squares with HC3 standard errors: those of statsmodels, what a search makes of them, and runs that failed."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from mnist_ablate.design.contrasts import Factor
from mnist_ablate.design.responses import Response
from mnist_ablate.design.search import coefficients, combinations_of_others, model_matrix
from mnist_ablate.inference.regression import Searched, least_squares

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SETTINGS = (Factor("lr", (0.1, 0.2, 0.4)), Factor("arm", ("a", "b", "c")))
RESPONSE = Response("acc", "", 2, 1, "table", range=(0.0, 1.0))


def drawn(n: int = 120, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return settings and responses of runs that spread unequally."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=n), rng.random(n) < 0.3, rng.random(n)])
    return x, x @ [1.0, 0.5, -0.2, 0.0] + (0.2 + np.abs(x[:, 1])) * rng.normal(size=n)


def test_coefficients_and_errors_are_those_of_statsmodels() -> None:
    """Estimates, HC3 standard errors, intervals and R² are those of `statsmodels` with `use_t`."""
    x, y = drawn()
    found, theirs = least_squares(x, y), sm.OLS(y, x).fit(cov_type="HC3", use_t=True)
    assert found.estimates == pytest.approx(theirs.params)
    assert found.ses == pytest.approx(theirs.bse)
    assert found.explained == pytest.approx(theirs.rsquared)
    assert found.sd == pytest.approx(math.sqrt(theirs.scale))
    searched = Searched(coefficients(SETTINGS), x, y)
    for place in range(3):
        sample = searched.sample(place)
        assert sample.interval(0.01) == pytest.approx(theirs.conf_int(0.01)[1 + place])
        assert sample.p_sign() == pytest.approx(theirs.pvalues[1 + place])
        assert (sample.n, sample.df) == (120, 116)


def test_two_groups_have_nearly_welchs_error() -> None:
    """Of a difference of two groups, HC3 has the variance s² / (n - 1) of each, as its formula gives by hand."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 30), rng.normal(1, 3, 50)
    x = np.column_stack([np.ones(80), np.repeat([0.0, 1.0], [30, 50])])
    found = least_squares(x, np.concatenate([a, b]))
    assert found.estimates[1] == pytest.approx(b.mean() - a.mean())
    assert found.ses[1] == pytest.approx(math.sqrt(a.var(ddof=1) / 29 + b.var(ddof=1) / 49))


def test_a_search_has_slopes_and_differences() -> None:
    """Numbers above 0 count in doublings, other numbers as they are, and text by differences to the first level."""
    lr = np.array([0.1, 0.2, 0.4, 0.4])
    values = {"lr": _series(lr), "arm": _series(["b", "a", "c", "b"])}
    assert model_matrix(SETTINGS, values)[:, 1] == pytest.approx(np.log2(lr))
    assert model_matrix(SETTINGS, values)[:, 2:].tolist() == [[1, 0], [0, 0], [0, 1], [1, 0]]
    assert [term.effect for term in coefficients(SETTINGS)] == ["trend(lr)", "arm[b]", "arm[c]"]
    assert [term.per for term in coefficients(SETTINGS)] == ["doubling of lr", "", ""]
    signed = (Factor("shift", (-1.0, 0.0, 2.0)),)
    assert model_matrix(signed, {"shift": _series([2.0, -1.0])})[:, 1].tolist() == [2, -1]
    assert [term.effect for term in coefficients((Factor("norm", (False, True)),))] == ["norm"]


def _series(values: object) -> "pd.Series[Any]":
    return pd.Series(values, dtype=object)


def test_columns_that_follow_from_others_are_found() -> None:
    """A constant, a copy and a sum are named with the columns that make them; independent columns are not."""
    rng = np.random.default_rng(2)
    one, two = rng.normal(size=(2, 50))
    x = np.column_stack([np.ones(50), one, np.full(50, 3.0), two, 1e6 * (one - two) + 5, 1e-6 * rng.normal(size=50)])
    assert combinations_of_others(x) == {2: [], 4: [1, 3]}


def test_runs_that_fail_at_one_end_leave_no_verdict_but_bounds() -> None:
    """Few failures anywhere are left out; more at one end of a setting, or above 5 %, are named, and bound it."""
    x, y = drawn()
    y = stats.norm.cdf(y)
    terms = coefficients(SETTINGS)
    order = np.argsort(x[:, 1])
    few, many, one_end = y.copy(), y.copy(), y.copy()
    few[order[60]] = many[order[10::12]] = one_end[order[-4:]] = np.nan
    assert Searched(terms, x, few).lacking("acc") == ""
    assert "10 of 120 runs that it needs have no acc, too many to leave out." in Searched(terms, x, many).lacking("acc")
    failed = Searched(terms, x, one_end)
    assert "4 of 120 runs that it needs have no acc, more at one end of trend per" in failed.lacking("acc")
    ends = []
    for value in (0.0, 1.0):  # these runs are at the upper end, where a high value makes the slope larger
        filled = np.where(np.isnan(one_end), value, one_end)
        ends.append(sm.OLS(filled, x).fit(cov_type="HC3", use_t=True).conf_int(0.05)[1])
    assert failed.at_worst(0, RESPONSE, 0.05) == pytest.approx((ends[0][0], ends[1][1]))
    assert Searched(terms, x, y).at_worst(0, RESPONSE, 0.05) is None
    assert Searched(terms, x, np.full(120, np.nan)).lacking("acc") == "These results have no acc."


def test_settings_that_the_remaining_runs_do_not_tell_apart_have_no_fit() -> None:
    """Where all runs of a level failed there is no coefficient, and the reason is given."""
    x, y = drawn()
    found = Searched(coefficients(SETTINGS), x, np.where(x[:, 2] == 1, np.nan, y))
    assert found.fit is None
    assert math.isnan(found.sample(0).mean)
    assert found.lacking("acc") == "The runs that have acc do not tell the settings apart."


def test_intervals_of_coefficients_cover() -> None:
    """Of 1,000 drawn searches of 60 runs with unequal spreads, 95 % intervals miss as often as they say, or less."""
    hits = 0
    for seed in range(1000):
        x, y = drawn(60, seed)
        fit = least_squares(x, y)
        hits += abs(fit.estimates[1] - 0.5) <= stats.t.isf(0.025, fit.df) * fit.ses[1]
    assert stats.binomtest(hits, 1000, 0.95, alternative="less").pvalue > 0.001
    assert hits < 990
