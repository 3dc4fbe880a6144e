"""The simulation of the rules for runs made elsewhere: its intervals are the package's, its counts are on the page."""

import calibration
import calibration_page as document
import made_elsewhere as script
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from marks import between
from scipy import stats

from mnist_ablate.inference.intervals import Sample


def test_intervals_are_those_of_scipy_and_statsmodels() -> None:
    """Many studies at once have Welch's interval and statsmodels' HC3, study by study."""
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=(3, 7)), rng.normal(0, 3, (3, 20))]
    found = script.satterthwaite(script.UNPAIRED["two cells"], columns)
    for i in range(3):
        welch = stats.ttest_ind(columns[0][i], columns[1][i], equal_var=False).confidence_interval(0.95)
        half = found.ends(0.95)[i]
        assert (found.error[i] - half, found.error[i] + half) == pytest.approx((welch.low, welch.high))
        assert found.holds(0.95)[i] == (welch.low <= 0 <= welch.high)
    x, y = np.stack([np.ones((3, 30)), rng.normal(size=(3, 30))], axis=2), rng.normal(size=(3, 30))
    estimates, robust, plain = script._least_squares(x, y)
    for i in range(3):
        for kind, ses in (("HC3", robust), ("nonrobust", plain)):
            theirs = sm.OLS(y[i], x[i]).fit(cov_type=kind)
            assert estimates[i] == pytest.approx(theirs.params)
            assert ses[i] == pytest.approx(theirs.bse)


def test_another_rule_is_noticed() -> None:
    """An interval that is not the package's ends the simulation."""
    z = np.random.default_rng(1).normal(size=(2, 8))
    script.check(script.of_means(z), [Sample.of(one) for one in z])
    with pytest.raises(AssertionError):
        script.check(script.of_means(z, 0.1), [Sample.of(one) for one in z])


@pytest.mark.parametrize("split", list(script.SPLITS))
def test_every_split_tests_on_rows_of_its_own(split: str) -> None:
    """No row is tested on twice in a split, and ten folds test on every row once."""
    tested = script._tested_on(np.random.default_rng(2), split, 4)
    assert tested.shape == (4, *script.SPLITS[split])
    assert all(len(set(rows)) == len(rows) for study in tested for rows in study)
    if split == "10 folds":
        assert np.sort(tested.reshape(4, -1), axis=1).tolist() == [list(range(script.ROWS))] * 4


def test_losses_of_folds_are_those_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on all other rows one split at a time gives the same differences, and their mean the stated truth."""
    tested = script._tested_on(np.random.default_rng(3), "10 random splits, 90 to 10", 2)
    monkeypatch.setattr(script, "_tested_on", lambda *_: tested)
    drawn, truth = script.shrunken_means(np.random.default_rng(4), "gaussian", "10 random splits, 90 to 10", 2)
    y = 0.3 + np.random.default_rng(4).standard_normal((2, script.ROWS))
    wrong, _ = script.nearest_centroids(np.random.default_rng(5), "gaussian", "10 random splits, 90 to 10", 2)
    x = np.random.default_rng(5).standard_normal((2, script.ROWS, 10))
    label = np.arange(script.ROWS) % 2
    x += 0.25 * (2 * label[:, None] - 1)
    for i, j in ((0, 0), (1, 7)):
        rest = np.setdiff1d(np.arange(script.ROWS), tested[i, j])
        mean, test = y[i, rest].mean(), y[i, tested[i, j]]
        assert drawn[i, j] == pytest.approx(((test - mean / 2) ** 2).mean() - ((test - mean) ** 2).mean())
        errors = []
        for features in (5, 10):
            centroids = [x[i, rest[label[rest] == which], :features].mean(axis=0) for which in (0, 1)]
            far = [((x[i, tested[i, j], :features] - centroid) ** 2).sum(axis=1) for centroid in centroids]
            errors.append(((far[1] < far[0]) != label[tested[i, j]]).mean())
        assert wrong[i, j] == pytest.approx(errors[0] - errors[1])
    monkeypatch.undo()
    many, _ = script.shrunken_means(np.random.default_rng(6), "gaussian", "10 folds", 20_000)
    means = many.mean(axis=1)
    assert abs(means.mean() - truth) < 4 * means.std() / np.sqrt(len(means))


def test_counts_add_up() -> None:
    """Every rule has a row for each setting, noise, size and level, and what it replaces beside it."""
    frame = script.simulate(60)
    assert (frame["R"] == 60).all()
    assert frame.groupby("rule").size().to_dict() == {
        "Satterthwaite": 4 * 4 * 3 * 2, "averaged first": 2 * 4 * 3 * 2, "evaluations as seeds": 2 * 4 * 3 * 2,
        "Nadeau and Bengio": 2 * 4 * 3 * 2, "folds as seeds": 2 * 4 * 3 * 2, "HC3": 2 * 2 * 4 * 2 * 2,
        "equal spreads assumed": 2 * 2 * 4 * 2 * 2,
    }  # fmt: skip
    assert set(frame[frame["instead"]]["rule"]) == {"evaluations as seeds", "folds as seeds", "equal spreads assumed"}
    assert not frame.duplicated(["rule", "setting", "noise", "n", "nominal"]).any()


def test_the_document_says_what_was_counted() -> None:
    """The committed counts give the page to the byte, and bear out the rules with Gaussian noise."""
    frame = pd.read_parquet(calibration.ELSEWHERE)
    text = document.PAGE.read_text(encoding="utf-8")
    assert between("made-elsewhere.parquet", document.elsewhere_table(frame), text) == text
    missed = document.say_elsewhere(frame)
    assert missed
    assert all(f"- {line}\n" in text.partition("## What holds")[0] for line in missed)
    assert (frame["R"] == 10_000).all()
    gaussian = frame[(frame["noise"] == "gaussian") & frame["rule"].isin(["Satterthwaite", "averaged first", "HC3"])]
    assert (gaussian["estimate"] > gaussian["nominal"] - 0.015).all()
    replaced = frame[(frame["rule"] == "evaluations as seeds") & (frame["nominal"] == 0.95)]
    assert replaced["estimate"].max() < 0.85


def test_a_rule_that_falls_short_is_said() -> None:
    """A share far below its promise is named with its noise; one that chance explains is not."""
    row = {"rule": "HC3", "setting": "a slope", "n": 60, "R": 10_000, "nominal": 0.95, "instead": False}
    rows = [row | {"noise": "gaussian", "k": 9480}, row | {"noise": "skewed_runs", "k": 9200}]
    frame = pd.DataFrame(rows).assign(estimate=lambda f: f["k"] / f["R"])
    assert document.say_elsewhere(frame) == [
        "Coefficients of searches (HC3): 95\u00a0% intervals hold in as few as 92.0\u00a0% of the studies; short in "
        "1 of 2 counts (skewed runs)."
    ]
    text = document._say_rule(frame, "HC3")
    assert "94.8\u00a0% to 94.8\u00a0% with Gaussian noise, 92.0\u00a0% to 92.0\u00a0% with other noise" in text
    assert text.endswith("short in 1 of 2 counts at both levels (skewed runs).")
    assert "nothing is short" in document._say_rule(frame.assign(k=9480), "HC3")
