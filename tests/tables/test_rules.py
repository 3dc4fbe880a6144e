"""The rules for runs that were made elsewhere, from a frame to verdicts: what is paired, lost, averaged or refused."""

import itertools
from datetime import UTC, datetime
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
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.report import verdict_words
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.propose import propose
from mnist_ablate.tables.source import Source

HELPS = {"id": "H", "statement": "b is better", "effect": "arm", "kind": "increase", "smallest": 0.1}
STUDY = {"table": {"seed": "seed"}, "factors": {"arm": ["a", "b"]}, "metrics": {"acc": {"better": "higher"}},
         "hypotheses": [HELPS]}  # fmt: skip


def frame(n: int = 10, effect: float = 0.5, sd: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Return `n` seeds of two arms, a row for each run."""
    rng = np.random.default_rng(seed)
    luck = rng.normal(0, 1, n)
    rows = [(arm, i, luck[i] + rng.normal(0, sd) + effect * (arm == "b")) for i in range(n) for arm in "ab"]
    return pd.DataFrame(rows, columns=["arm", "seed", "acc"])


def judged(of: "pd.DataFrame | Source", /, **changes: Any) -> Analysis:
    """Analyse a frame by `STUDY` with `changes`, which are merged into its sections."""
    document: dict[str, Any] = dict(STUDY)
    for key, change in changes.items():
        document[key] = document[key] | change if isinstance(document.get(key), dict) else change
    source = of if isinstance(of, Source) else sources.read(of)
    return analyse(runs.make(source, design.parse(document, "study", "study")))


def verdict(analysis: Analysis) -> Judgement:
    """Return the only judgement."""
    (judgement,) = analysis.judgements
    return judgement


# ---- 1: declared before ----


@pytest.mark.parametrize(
    ("declared", "started", "seeds", "why"),
    [
        (None, "2026-01-02", 10, "nothing says when its rule was written"),
        ("2026-01-03", "2026-01-02", 10, "post hoc: the first run started 2026-01-02 00:00 UTC"),
        ("2026-01-01", "", 10, "nothing says when the runs started"),
        ("2026-01-01", "2026-01-02", None, "the study file names no number of seeds"),
        ("2026-01-01", "2026-01-02", 20, "it rests on 10 seeds, and 20 were declared before the first run"),
        ("2026-01-01", "2026-01-02", 10, ""),
    ],
)
def test_only_a_rule_that_is_older_than_the_runs_is_final(
    declared: "str | None", started: str, seeds: "int | None", why: str
) -> None:
    """What the file and the table say of their times decides; where they say nothing, that is said."""
    moment = {} if declared is None else {"declared": datetime.fromisoformat(declared).replace(tzinfo=UTC)}
    table = {"seed": "seed", **moment} | ({"started": "when"} if started else {})
    number = {} if seeds is None else {"seeds": seeds}
    found = verdict(judged(frame().assign(when=started), table=table, **number))
    assert found.provisional.startswith(why)
    assert bool(found.provisional) is bool(why)


def test_a_table_older_than_its_rule_is_post_hoc(tmp_path: Path) -> None:
    """A file that was last changed before the rule was written shows that the runs were known."""
    frame().to_csv(tmp_path / "runs.csv", index=False)
    later = datetime(2999, 1, 1, tzinfo=UTC)
    found = verdict(judged(sources.read(tmp_path / "runs.csv"), table={"declared": later}, seeds=10))
    assert found.provisional.startswith("post hoc: the table was written 20")


def test_without_a_smallest_effect_there_are_no_verdicts() -> None:
    """A table without hypotheses has effects with intervals, and the effects that numbers of seeds find."""
    analysis = judged(frame(), hypotheses=[])
    assert analysis.judgements == []
    assert len(analysis.effects()) == 1
    assert 10 in set(analysis.detectable["seeds"])


# ---- 2: pairing ----


def test_pairing_is_by_labels_and_may_be_declined() -> None:
    """The same rows are paired by their labels, independent where those differ, and where the file says so."""
    table = frame()
    apart = table.assign(seed=table["seed"] + 100 * (table["arm"] == "b"))
    a, b = (table.loc[table["arm"] == arm, "acc"].to_numpy() for arm in "ab")
    paired, welch = stats.ttest_rel(b, a), stats.ttest_ind(b, a, equal_var=False)
    assert verdict(judged(table)).p == pytest.approx(paired.pvalue)
    for other in (judged(apart), judged(table, table={"pairing": "none"}), judged(table, table={"seed": ""})):
        assert verdict(other).p == pytest.approx(welch.pvalue)
        assert not other.paired
        assert (other.missing_runs, other.study.n_seeds) == ([], 10)
        assert "share no seeds" in verdict_words.answer(verdict(other)).sentence


def test_unpaired_cells_need_six_runs_each() -> None:
    """With five runs in one cell there is no verdict, whatever the others have."""
    table = frame(12, effect=9.0)
    few = table[(table["arm"] == "a") | (table["seed"] < 5)]
    assert verdict(judged(few, table={"pairing": "none"})).verdict == "no verdict"
    assert verdict(judged(few, table={"pairing": "none"})).n_planned == 5
    enough = table[(table["arm"] == "a") | (table["seed"] < 6)]
    assert verdict(judged(enough, table={"pairing": "none"})).verdict == "supported"


# ---- 3: missing and failed ----


def test_a_missing_seed_is_left_out_and_a_nan_is_a_failure() -> None:
    """A missing run costs its seed; failures above 5 % cost the verdict, and leave bounds where the range is known."""
    table = frame(20)
    analysis = judged(table[1:])
    assert verdict(analysis).sample.n == 19
    assert analysis.missing_runs == [("baseline", 0)]
    assert verdict(analysis).verdict == "supported"
    table.loc[[0, 2, 4], "acc"] = np.nan
    lost = verdict(judged(table, metrics={"acc": {"range": [-10.0, 10.0]}}))
    assert lost.verdict == "no verdict"
    assert "3 of 40 runs that it needs have no acc" in lost.lacking
    assert lost.at_worst is not None
    assert lost.at_worst[0] < 0 < lost.at_worst[1]
    assert "Whatever those would have given" in verdict_words.answer(lost).sentence
    assert verdict(judged(table)).at_worst is None


def test_failures_in_one_cell_alone_leave_no_verdict() -> None:
    """Fewer than 5 %, but more on one side than on the other by Fisher's test."""
    table = frame(160)
    table.loc[[2 * i for i in range(7)], "acc"] = np.inf
    assert stats.fisher_exact(np.array([[7, 153], [0, 160]]))[1] < 0.05
    assert "more on one side than on the other" in verdict(judged(table)).lacking


def test_states_of_runs() -> None:
    """A run with a state of failure failed, whatever it logged; one that is not over is left out, and named."""
    table = frame(40).assign(state="finished")
    table.loc[0, "state"], table.loc[1, "state"] = "Crashed", "running"
    analysis = judged(table, table={"status": "state"})
    assert analysis.diverged_runs == [("baseline", 0)]
    assert analysis.missing_runs == [("arm=b", 0)]
    assert "1 rows of runs that are not over are left out: row 2." in analysis.results.problems


# ---- 4 and 5: nested, folds, repeats ----


def test_what_is_nested_in_a_run_is_averaged_first() -> None:
    """Evaluations and repeats count as one number of their seed, not as seeds; two such rows are else refused."""
    table = frame(8)
    many = pd.concat([table.assign(acc=table["acc"] + shift, episode=i) for i, shift in enumerate((-0.3, 0.1, 0.2))])
    with pytest.raises(TableError, match=r"rows 1, 17, 33 are of the same cell and seed \(arm = a, seed 0\), and 45"):
        judged(many)
    for table_section in ({"nested": ["episode"]}, {"repeat": "episode"}):
        found = verdict(judged(many, table=table_section))
        assert found.sample.n == 8
        assert found.p == pytest.approx(verdict(judged(table)).p)


def test_intervals_of_nested_evaluations_cover() -> None:
    """Of 300 drawn tables of 7 seeds with 5 evaluations each, 95 % intervals miss the truth as often as they say."""
    rng, hits = np.random.default_rng(5), 0
    keys = pd.DataFrame(itertools.product("ab", range(7), range(5)), columns=["arm", "seed", "episode"])
    for _ in range(300):
        of_runs = np.repeat(rng.normal(0, 1, 14), 5)
        table = keys.assign(acc=of_runs + rng.normal(0, 0.3, 70) + 0.5 * (keys["arm"] == "b"))
        row = judged(table, table={"nested": ["episode"]}).effects().iloc[0]
        hits += row["low"] < 0.5 < row["high"]
    assert stats.binomtest(hits, 300, 0.95).pvalue > 0.001


def test_folds_are_no_seeds() -> None:
    """Folds as seeds are refused, or have the corrected variance, and are labelled."""
    table = frame().rename(columns={"seed": "fold"})
    with pytest.raises(TableError, match="fold: folds of one data set share training data and are no independent s"):
        judged(table, table={"seed": "fold"})
    found = verdict(judged(table, table={"seed": "fold", "resampled": 1 / 9}))
    plain = verdict(judged(frame()))
    assert found.sample.se == pytest.approx(plain.sample.se * np.sqrt(10 * (1 / 10 + 1 / 9)))
    assert "Nadeau and Bengio" in verdict_words.answer(found).sentence


# ---- 6: designs ----


def test_what_cannot_be_told_apart_is_refused() -> None:
    """Two factors whose levels change together are named, and a hypothesis about one of them is refused."""
    table = frame().assign(lr=lambda f: np.where(f["arm"] == "a", 0.1, 0.2))
    factors = {"factors": {"lr": [0.1, 0.2]}}
    with pytest.raises(TableError, match="arm and lr cannot be told apart: their levels change together"):
        judged(table, **factors)
    said = judged(table, hypotheses=[], **factors).results.problems
    assert said == ["arm and lr are confounded: their levels change together in all runs, so nothing here tells one "
                    "from the other."]  # fmt: skip


def test_numbers_have_a_trend_and_differences_to_the_reference() -> None:
    """Three numbers, all above 0, give a trend per doubling and each level against the first."""
    one = frame()[::2]
    table = pd.concat([one.assign(arm=number, acc=one["acc"] + np.log2(number)) for number in (1, 2, 8)])
    effects = judged(table, factors={"arm": [1, 2, 8]}, hypotheses=[]).effects()
    assert list(effects["label"]) == ["arm=2", "arm=8", "trend per doubling of arm"]
    assert list(effects["estimate"]) == pytest.approx([1, 3, 1])


# ---- 7: yes or no, censored ----


def test_a_yes_or_no_is_counted() -> None:
    """McNemar's exact test where seeds are shared, Newcombe's interval where not; a fraction is refused."""
    table = frame(20)
    table["acc"] = [float(i % 2 or i % 8 == 0) for i in range(40)]
    metric = {"metrics": {"acc": {"yes_no": True, "scale": 100.0, "unit": "points"}}}
    paired = verdict(judged(table, **metric))
    assert paired.p == pytest.approx(stats.binomtest(15, 15).pvalue)
    assert "McNemar's exact test" in verdict_words.answer(paired).sentence
    assert "Newcombe" in verdict_words.answer(verdict(judged(table, table={"seed": ""}, **metric))).sentence
    table.loc[3, "acc"] = 0.5
    with pytest.raises(TableError, match=r"acc, row 4: neither 0 nor 1. Remove yes_no"):
        judged(table, **metric)


def test_censored_values_are_bounds() -> None:
    """A difference to a cell with censored values is a bound, and never too small to matter."""
    table = frame(20, effect=0.0, sd=0.001)
    table["late"] = (table["seed"] == 0) & (table["arm"] == "b")
    assert verdict(judged(table)).verdict == "negligible"
    found = verdict(judged(table, metrics={"acc": {"censored": "late"}}))
    assert (found.sample.bound, found.high) == ("least", np.inf)
    assert found.verdict != "negligible"


# ---- 8: refusals ----


@pytest.mark.parametrize("name", ["best_test_acc", "test/acc.max", "test_acc_best", "max test accuracy"])
def test_the_best_value_on_test_data_is_refused(name: str) -> None:
    """A metric whose name says that it was chosen on test data is refused with the reason."""
    with pytest.raises(TableError, match="the best of several values on test data is too good"):
        judged(frame().rename(columns={"acc": name}), table={"columns": {"acc": name}})


@pytest.mark.parametrize("name", ["test_acc", "best_val_acc", "latest_acc", "contest_max"])
def test_other_names_are_not(name: str) -> None:
    """Names that only look alike are accepted."""
    judged(frame().rename(columns={"acc": name}), table={"columns": {"acc": name}})


def test_seeds_that_were_tuned_on_are_left_out() -> None:
    """They are named, and all that is left is judged."""
    analysis = judged(frame(12), table={"tuned_on": [0, 3]})
    assert verdict(analysis).sample.n == 10
    assert analysis.results.problems == ["4 rows of seeds that settings were chosen on are left out: rows 1, 2, 7, 8."]


def test_seeds_that_were_tuned_on_are_found_however_they_are_written() -> None:
    """A seed is a number: 3, 3.0 and "3" are one; names of seeds are names. Without a column of seeds it is refused."""
    table = frame(12)
    for seeds, tuned in (
        (table["seed"].astype(float), [0, 3]),
        (table["seed"].astype(str) + ".0", ["0", 3]),
        ("s" + table["seed"].astype(str), ["s0", "s3"]),
    ):
        assert verdict(judged(table.assign(seed=seeds), table={"tuned_on": tuned})).sample.n == 10
    with pytest.raises(
        TableError, match=r"all rows are of seeds that settings were chosen on\. Give a table with others"
    ):
        judged(table, table={"tuned_on": list(range(12))})
    with pytest.raises(StudyError, match=r"table\.tuned_on: needs the column of the seeds, as seed"):
        judged(table, table={"seed": "", "tuned_on": [3]})


def test_a_metric_that_was_chosen_on_test_data_is_not_proposed() -> None:
    """Where there are other metrics, those that will be refused are left out, and named."""
    proposal = propose(sources.read(frame().assign(best_test_acc=0.5)), "x")
    assert list(proposal.document["metrics"]) == ["acc"]
    assert "Left out, since they are the best of several values on test data: best_test_acc." in proposal.notes


def test_two_data_sets_are_not_mixed() -> None:
    """Runs on two data sets are refused, and one of them can be chosen."""
    table = pd.concat([frame().assign(dataset="mnist"), frame(seed=1).assign(dataset="cifar")])
    with pytest.raises(TableError, match=r"dataset: runs on 2 data sets \(mnist, cifar\), which no contrast may mix"):
        judged(table)
    assert verdict(judged(table, table={"only": {"dataset": "cifar"}})).sample.n == 10


def test_too_few_units_and_no_spread_say_so() -> None:
    """Five seeds give no verdict, and equal differences say nothing about chance."""
    assert verdict(judged(frame(5))).verdict == "no verdict"
    found = verdict(judged(frame(10, sd=0.0)))
    assert found.verdict == "inconclusive"
    assert "says nothing about chance" in verdict_words.answer(found).sentence


def test_values_beyond_their_range_are_refused() -> None:
    """The rows are named, with the range of the study file."""
    table = frame()
    table.loc[4, "acc"] = 11.0
    with pytest.raises(TableError, match="acc, row 5: beyond the range of -10 to 10 in the study file"):
        judged(table, metrics={"acc": {"range": [-10.0, 10.0]}})


# ---- 9: skewness ----


def test_a_skewed_sample_is_flagged() -> None:
    """The answer says that sign flips must agree; a Gaussian sample has no such note."""
    table = frame(10)
    table["acc"] += np.where(table.index == 1, 30.0, 0.0)
    assert "far from Gaussian" in verdict_words.answer(verdict(judged(table))).sentence
    assert verdict(judged(frame(10))).sample.note == ""


# ---- Logs and wide tables ----


def test_of_a_log_the_last_epoch_counts() -> None:
    """A run that ends before the declared epoch, or whose metric ends before it, failed."""
    table = frame(12)
    log = pd.concat([table.assign(epoch=e, acc=table["acc"] - (3 - e)) for e in (1, 2, 3)], ignore_index=True)
    log = log[~((log["seed"] == 0) & (log["arm"] == "b") & (log["epoch"] == 3))]
    log.loc[(log["seed"] == 1) & (log["arm"] == "a") & (log["epoch"] == 3), "acc"] = np.nan
    analysis = judged(log.sample(frac=1, random_state=0), table={"epoch": "epoch", "epochs": 3.0})
    assert analysis.diverged_runs == [("baseline", 1), ("arm=b", 0)]
    assert analysis.seeds().loc[5, "arm=b"] == pytest.approx(table.loc[11, "acc"])


def test_curves_of_a_log_leave_out_epochs_that_few_runs_have() -> None:
    """Runs that log at other steps, or many epochs, make no jagged or endless line; a table of runs has none."""
    table = frame(8)
    log = pd.concat([table.assign(epoch=e, acc=table["acc"] + e) for e in range(1000)], ignore_index=True)
    odd = table[table["seed"] == 0].assign(epoch=0.5)
    curves = judged(pd.concat([log, odd], ignore_index=True), table={"epoch": "epoch"}).logged_curves()
    assert curves["n"].eq(8).all()
    assert 0.5 not in set(curves["epoch"])
    assert curves.groupby("cell")["epoch"].agg(["min", "max", "count"]).to_numpy().tolist() == [[0, 999, 200]] * 2
    assert judged(table).logged_curves().empty


def test_a_log_has_a_page_with_its_curves(tmp_path: Path) -> None:
    """The page draws the main metric epoch by epoch, a panel for each cell, and says what decides."""
    table = frame(8)
    log = pd.concat([table.assign(step=100 * e, acc=table["acc"] - 3 / e) for e in range(1, 9)], ignore_index=True)
    document = STUDY | {"table": {"seed": "seed", "epoch": "step"}}
    told = mnist_ablate.judge(log, document, out=tmp_path / "told")
    assert "acc, as it was logged" in told.report.html.read_text("utf-8")
    assert (tmp_path / "told" / "figures" / "curves.svg").is_file()
    figure = plots.learning_curves(told.analysis)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["baseline", "arm=b"]
    line = max(figure.axes[1].lines, key=lambda line: np.size(line.get_xdata()) and line.get_linewidth())
    expected = log[log["arm"] == "b"].groupby("step")["acc"].mean()
    assert np.asarray(line.get_ydata()) == pytest.approx(expected.to_numpy())
    of_runs = mnist_ablate.judge(table, STUDY, out=tmp_path / "runs")
    assert "as it was logged" not in of_runs.report.html.read_text("utf-8")


def test_wide_tables() -> None:
    """Columns that are seeds, and columns that are levels, are the same runs as rows."""
    table = frame()
    by_seed = table.pivot(index="arm", columns="seed", values="acc").add_prefix("seed_").reset_index()
    wide = {"columns": [f"seed_{i}" for i in range(10)], "names": "seed", "values": "acc"}
    by_arm = table.pivot(index="seed", columns="arm", values="acc").reset_index()
    arms = {"columns": ["a", "b"], "names": "arm", "values": "acc"}
    expected = verdict(judged(table)).p
    assert verdict(judged(by_seed, table={"wide": wide})).p == pytest.approx(expected)
    assert verdict(judged(by_arm, table={"wide": arms})).p == pytest.approx(expected)
