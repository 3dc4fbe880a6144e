"""Tables of means and standard deviations: Welch's comparison, from the numbers that there are."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mnist_ablate
from mnist_ablate import plots
from mnist_ablate.errors import StudyError, TableError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report import method_words, verdict_words
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.propose import propose

HELPS = {"id": "H", "statement": "b is better", "effect": "arm", "kind": "increase", "smallest": 0.1}
STUDY: dict[str, Any] = {
    "table": {"summary": {"n": "n", "spread": {"acc": "sd"}}}, "factors": {"arm": ["a", "b"]}, "metrics": {"acc": {}},
    "hypotheses": [HELPS],
}  # fmt: skip
TABLE = pd.DataFrame({"arm": ["a", "b"], "n": [8, 12], "acc": [97.2, 97.9], "sd": [0.3, 0.5]})
WRITTEN = TABLE.assign(acc=["97.2 ± 0.3", "97.9 ± 0.5"])[["arm", "n", "acc"]]


def judged(of: pd.DataFrame, /, **changes: Any) -> Analysis:
    """Analyse a frame by `STUDY` with `changes`."""
    return analyse(runs.make(sources.read(of), design.parse(STUDY | changes, "study", "study")))


def welch() -> Any:
    """Compare the two cells with scipy."""
    return stats.ttest_ind_from_stats(97.9, 0.5, 12, 97.2, 0.3, 8, equal_var=False)


def of_text(**summary: Any) -> dict[str, Any]:
    """Return what a study file says of means that are written with their spreads."""
    return {"table": {"summary": {"n": "n"} | summary}}


def test_means_are_compared_by_welch() -> None:
    """Difference, interval and p are those that scipy gives from the summaries, and the verdict says what it is."""
    analysis = judged(TABLE)
    (judgement,), row = analysis.judgements, analysis.effects().iloc[0]
    assert row["estimate"] == pytest.approx(0.7)
    assert row["p"] == judgement.p == pytest.approx(welch().pvalue)
    se = math.sqrt(0.3**2 / 8 + 0.5**2 / 12)
    assert row["se"] == pytest.approx(se)
    df = se**4 / ((0.3**2 / 8) ** 2 / 7 + (0.5**2 / 12) ** 2 / 11)
    assert row["high"] - row["low"] == pytest.approx(2 * stats.t.isf(0.025, df) * se)
    assert judgement.verdict == "supported"
    assert "Only means and standard deviations are known" in verdict_words.answer(judgement).sentence
    cells = analysis.cells()
    assert cells["n"].tolist() == cells["n_planned"].tolist() == [8, 12]
    assert cells["sd"].tolist() == pytest.approx([0.3, 0.5])
    assert cells[["min", "max"]].isna().all(axis=None)


@pytest.mark.parametrize(
    "cells",
    [
        ["97.2 ± 0.3", "97.9 ± 0.5"], ["97.2±0.3", "97.9±.5"], ["97.2 +/- 0.3", "97.9 +- 0.5"],
        ["97.2% ± 0.3%", "97.9 ± 0.5 %"], ["97.2 (0.3)", "97.9 (0.5)"], [r"$97.2 \pm 0.3$", r"$97.9\pm0.5$"],
        ["9.72e1 ± 3e-1", "97.9 ± 0.50"],
    ],
)  # fmt: skip
def test_means_with_their_spreads_in_one_cell(cells: list[str]) -> None:
    """However a mean is written with its spread, it gives the same comparison."""
    assert judged(WRITTEN.assign(acc=cells), **of_text()).effects()["p"].item() == pytest.approx(welch().pvalue)


def test_decimal_commas_are_declared(tmp_path: Path) -> None:
    """Commas are points where the study file says so, and refused where not."""
    (tmp_path / "means.csv").write_text("arm;n;acc\na;8;97,2 ± 0,3\nb;12;97,9 ± 0,5\n", encoding="utf-8")
    source = sources.read(tmp_path / "means.csv")
    told = design.parse(STUDY | {"table": {"summary": {"n": "n"}, "decimal": ","}}, "s", "s")
    assert analyse(runs.make(source, told)).effects()["p"].item() == pytest.approx(welch().pvalue)
    with pytest.raises(TableError, match=r"acc, rows 1, 2: not a mean with its spread \(97,2 ± 0,3\)"):
        runs.make(source, design.parse(STUDY | of_text(), "s", "s"))


def test_standard_errors_are_declared() -> None:
    """A spread that is the standard error of the mean makes the standard deviation by √n; n may be one number."""
    errors = TABLE.assign(sd=[0.3 / math.sqrt(8), 0.5 / math.sqrt(12)])
    table = {"summary": {"n": "n", "spread": {"acc": "sd"}, "is_error": True}}
    assert judged(errors, table=table).effects()["p"].item() == pytest.approx(welch().pvalue)
    alike = judged(TABLE, table={"summary": {"n": 8, "spread": {"acc": "sd"}}})
    expected = stats.ttest_ind_from_stats(97.9, 0.5, 8, 97.2, 0.3, 8, equal_var=False)
    assert alike.effects()["p"].item() == pytest.approx(expected.pvalue)
    assert "of 8 runs each" in alike.results.facts["Read as"]


def test_fewer_than_six_runs_of_a_cell_have_no_verdict() -> None:
    """Five are too few; one run has no spread, and no interval."""
    assert judged(TABLE.assign(n=[5, 12])).judgements[0].verdict == "no verdict"
    one = judged(TABLE.assign(n=[1, 12], sd=[math.nan, 0.5]))
    assert one.effects()["low"].isna().all()
    assert one.cells()["sd"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": [8, 0]}, "n, row 2: not a number of runs. Correct it, as in 10."),
        ({"n": [8.5, 12]}, "n, row 1: not a number of runs."),
        ({"sd": [0.3, -0.1]}, "sd, row 2: no mean with a spread of 0 or more."),
        ({"sd": [0.3, None]}, "sd, row 2: no mean with a spread"),
        ({"acc": [None, 97.9]}, "acc, row 1: no mean with a spread"),
        ({"arm": "a"}, "rows 1, 2 are of the same cell. Means cannot be put together here"),
        ({"arm": ["a", "c"]}, "arm, row 2: c, and the study file has a, b."),
    ],
)  # fmt: skip
def test_rows_that_are_no_means_are_refused(changes: dict[str, Any], message: str) -> None:
    """The message names the rows and the remedy."""
    with pytest.raises(TableError) as refused:
        judged(TABLE.assign(**changes))
    assert message in str(refused.value)


def test_means_beyond_their_range_are_refused() -> None:
    """The range of the study file is that of values, and so of means."""
    with pytest.raises(TableError, match=r"acc, row 2: beyond the range of 0 to 97\.5 in the study file"):
        judged(TABLE, metrics={"acc": {"range": [0.0, 97.5]}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": STUDY["table"] | {"seed": "seed"}}, "table.seed: not allowed with [table.summary]"),
        ({"table": STUDY["table"] | {"epoch": "epoch"}}, "table.epoch: not allowed with [table.summary]"),
        ({"metrics": {"acc": {"yes_no": True}}}, "metrics.acc: yes_no and censored are of single runs"),
        ({"metrics": {"loss": {}}}, "table.summary.spread.acc: not a metric"),
        ({"hypotheses": [HELPS | {"over": "seed", "summary": "log_sd"}]}, "hypotheses[0].over: needs single runs"),
    ],
)  # fmt: skip
def test_what_needs_single_runs_is_refused(changes: dict[str, Any], message: str) -> None:
    """Seeds, epochs, counts and spreads between seeds are of runs, and not of means."""
    with pytest.raises(StudyError) as refused:
        design.parse(STUDY | changes, "study", "study")
    assert message in str(refused.value)


def test_tables_of_means_are_proposed() -> None:
    """Columns of means with those of spreads, or both in a cell, are found with the number of runs."""
    named = TABLE.rename(columns={"acc": "acc_mean", "sd": "acc_std"})
    assert propose(sources.read(named), "x").document["table"]["summary"] == {
        "n": "n", "is_error": False, "spread": {"acc_mean": "acc_std"},
    }  # fmt: skip
    errors = TABLE.rename(columns={"acc": "loss", "sd": "loss SEM", "n": "runs"})
    assert propose(sources.read(errors), "x").document["table"]["summary"] == {
        "n": "runs", "is_error": True, "spread": {"loss": "loss SEM"},
    }  # fmt: skip
    assert propose(sources.read(WRITTEN), "x").document["table"]["summary"] == {"n": "n", "is_error": False}
    unknown = propose(sources.read(WRITTEN.drop(columns="n")), "x")
    assert unknown.document["table"]["summary"]["n"] == 1
    assert any("No column says of how many runs" in note for note in unknown.notes)
    of_runs = pd.DataFrame({"seed": [0, 1], "acc": [0.5, 0.6], "grad_mean": [0.1, 0.2], "grad_std": [1.0, 2.0]})
    assert "summary" not in propose(sources.read(of_runs), "x").document["table"]


def test_a_table_of_means_has_a_page(tmp_path: Path) -> None:
    """The page shows cells and their comparison, and no run: neither a dot nor a least value."""
    told = mnist_ablate.judge(WRITTEN, STUDY | of_text(), out=tmp_path / "told")
    page = told.report.html.read_text("utf-8")
    assert "Every cell" in page
    assert "Every dot is one training run" not in page
    assert "a dot for each seed" not in page
    assert "means with standard deviations, of the number of runs in n" in page
    methods = "\n".join(method_words.paragraphs(told.analysis))
    assert "Of each cell we had the number, the mean and the standard deviation of its runs" in methods
    assert "Welch's variance" in methods
    figure = plots.accuracy(told.analysis)
    assert figure.legends[0].get_texts()[0].get_text() == "mean, 95 % interval"
    assert all(np.size(points.get_offsets()) == 0 for points in figure.axes[0].collections)
    assert "H: Supported" in str(mnist_ablate.judge(TABLE, STUDY, out=tmp_path / "columns"))
