"""Searches, from a frame to verdicts: coefficients in place of contrasts, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import mnist_ablate
from mnist_ablate.errors import StudyError, TableError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report import method_words
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.propose import propose

RISES = {"id": "lr", "statement": "lr helps", "effect": "trend(lr)", "kind": "increase", "smallest": 0.1}
STUDY: dict[str, Any] = {
    "table": {"seed": "seed", "search": True},
    "factors": {"lr": "numbers", "optimizer": ["sgd", "adam"], "dropout": [0.0, 0.2, 0.5]},
    "metrics": {"acc": {"better": "higher", "range": [-50.0, 50.0]}},
    "hypotheses": [RISES],
}


def frame(n: int = 120) -> pd.DataFrame:
    """Return a random search."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "lr": 10 ** rng.uniform(-4, -1, n), "optimizer": rng.choice(["adam", "sgd"], n),
        "dropout": rng.choice([0.0, 0.2, 0.5], n), "seed": range(n),
    })  # fmt: skip
    effect = np.log2(table["lr"]) + 2.0 * (table["optimizer"] == "adam") - 1.0 * table["dropout"]
    return table.assign(acc=effect + rng.normal(0, 1, n) * (1 + table["dropout"]))


def judged(of: pd.DataFrame, /, **changes: Any) -> Analysis:
    """Analyse a frame by `STUDY` with `changes`, which are merged into its sections."""
    document: dict[str, Any] = dict(STUDY)
    for key, change in changes.items():
        document[key] = document[key] | change if isinstance(document.get(key), dict) else change
    return analyse(runs.make(sources.read(of), design.parse(document, "study", "study")))


def theirs(table: pd.DataFrame) -> Any:
    """Fit the same model with statsmodels."""
    x = np.column_stack([np.ones(len(table)), np.log2(table["lr"]), table["optimizer"] == "adam", table["dropout"]])
    return sm.OLS(table["acc"].to_numpy(), x.astype(float)).fit(cov_type="HC3", use_t=True)


def test_a_search_has_the_coefficients_of_statsmodels() -> None:
    """Effects and verdicts are HC3 least squares on doublings, levels and plain numbers, whatever the order of rows."""
    table = frame()
    analysis, fit = judged(table.sample(frac=1, random_state=0)), theirs(table)
    effects = analysis.effects()
    assert list(effects["label"]) == ["trend per doubling of lr", "optimizer=adam", "trend per unit of dropout"]
    assert list(effects["estimate"]) == pytest.approx(fit.params[1:])
    assert effects[["low", "high"]].to_numpy() == pytest.approx(fit.conf_int()[1:])
    (judgement,) = analysis.judgements
    assert (judgement.low, judgement.high) == pytest.approx(tuple(fit.conf_int(0.05)[1]))
    assert (judgement.verdict, judgement.per, judgement.sample.n) == ("supported", "doubling of lr", 120)
    assert analysis.cell_names == ["all runs"]


def test_rows_of_one_run_are_averaged_and_equal_rows_refused() -> None:
    """Evaluations are averaged in the run that they are of; the same settings and seed twice are refused."""
    table = frame()
    twice = pd.concat([table.assign(episode=i, acc=table["acc"] + shift) for i, shift in enumerate((-1.0, 1.0))])
    nested = judged(twice, table={"nested": ["episode"]})
    assert list(nested.effects()["estimate"]) == pytest.approx(theirs(table).params[1:])
    assert nested.effects()["n"].tolist() == [120] * 3
    with pytest.raises(
        TableError, match=r"rows 1, 121 are of the same cell and seed \(lr = .*, optimizer = .*seed 0\)"
    ):
        judged(twice)


def test_a_factor_of_many_levels_is_a_slope() -> None:
    """Fifteen levels, each over 20 seeds, are no cells: they have one coefficient."""
    rng, levels = np.random.default_rng(1), [float(2**i) for i in range(15)]
    rows = [(width, seed, np.log2(width) + rng.normal()) for width in levels for seed in range(20)]
    table = pd.DataFrame(rows, columns=["width", "seed", "acc"])
    changes: dict[str, Any] = {"factors": {"width": levels}, "hypotheses": []}
    with pytest.raises(
        StudyError, match=r"factors.width: 15 levels; allowed: at most 12. Write \[table\] search = true"
    ):
        design.parse(STUDY | changes | {"table": {"seed": "seed"}}, "study", "study")
    document = STUDY | changes
    effects = analyse(runs.make(sources.read(table), design.parse(document, "study", "study"))).effects()
    assert list(effects["label"]) == ["trend per doubling of width"]
    assert effects["estimate"].item() == pytest.approx(1, abs=0.05)


def test_failures_at_one_end_leave_no_verdict() -> None:
    """Runs that diverge at high rates are named, and the coefficient has bounds where the range is known."""
    table = frame()
    table.loc[table["lr"].nlargest(5).index, "acc"] = np.nan
    (judgement,) = judged(table).judgements
    assert judgement.verdict == "no verdict"
    assert "5 of 120 runs that it needs have no acc, more at one end of trend per doubling of lr" in judgement.lacking
    assert judgement.at_worst is not None
    assert judgement.at_worst[0] < judgement.sample.mean < judgement.at_worst[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.1}, "lr: is 0.1 in all runs, so nothing is known of what it does. Leave it out of [factors]."),
        ({"optimizer": "adam"}, "optimizer: is adam in all runs"),
        ({"lr": "a"}, "lr, rows 1, 2, 3, 4, 5, 6, 7, 8 and 112 more: not a number (a)."),
        ({"lr": np.nan}, "lr, rows 1, 2, 3, 4, 5, 6, 7, 8 and 112 more: no finite number. Fill it in"),
    ],
)
def test_settings_that_say_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    """The message names the column, and the remedy."""
    with pytest.raises(TableError) as refused:
        judged(frame().assign(**changes))
    assert message in str(refused.value)


def test_too_few_runs_are_refused() -> None:
    """Twenty runs for each coefficient, the intercept included, and six of each level are the least."""
    assert len(judged(frame(80)).effects()) == 3
    with pytest.raises(TableError, match="79 runs with values, and 80 are needed: 20 for each of 4 coefficients"):
        judged(frame(80)[:-1])
    table = frame()
    table["optimizer"] = np.where(table.index < 5, "adam", "sgd")
    with pytest.raises(TableError, match=r"optimizer: fewer than 6 runs with adam\. Put levels together, or remove"):
        judged(table)


def test_settings_that_change_together_are_named() -> None:
    """A setting whose values follow from another's is refused with both names."""
    table = frame().assign(decay=lambda f: f["lr"] ** 2)
    with pytest.raises(
        TableError, match="trend per doubling of decay cannot be told apart from trend per doubling of lr"
    ):
        judged(table, factors={"decay": "numbers"})


@pytest.mark.parametrize("name", ["train_loss", "val/loss", "final accuracy", "runtime", "grad_norm"])
def test_what_is_measured_is_no_setting(name: str) -> None:
    """A covariate that is measured after the settings take effect is refused, in a search and among factors."""
    table = frame().assign(**{name: np.arange(120.0) % 9 + 1})
    with pytest.raises(TableError, match=r"is measured after the settings take effect, and a comparison that holds it"):
        judged(table, factors={"x": "numbers"}, table={"columns": {"x": name}})
    crossed = {"table": {"columns": {"x": name}}, "factors": {"x": [float(i) for i in range(1, 10)]}}
    told = design.parse(crossed | {"metrics": {"acc": {}}}, "study", "study")
    with pytest.raises(TableError, match=r"Leave it out of \[factors\], or make it one of the metrics."):
        runs.make(sources.read(table), told)
    judged(table.rename(columns={name: "loss_weight"}), factors={"loss_weight": "numbers"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hypotheses": [RISES | {"effect": "lr"}]}, 'effect = "lr": not a coefficient of this search; allowed: '),
        ({"hypotheses": [RISES | {"effect": "optimizer[sgd]"}]}, "allowed: trend(lr), optimizer, trend(dropout)"),
        ({"hypotheses": [RISES | {"at": {"optimizer": "sgd"}}]}, "hypotheses[0]: over and at need cells"),
        ({"hypotheses": [RISES | {"response": "loss"}]}, 'response = "loss": not a metric; allowed: acc'),
        ({"hypotheses": [RISES, RISES]}, 'hypotheses: id = "lr": repeated'),
        ({"metrics": {"test_accuracy": {}}, "hypotheses": [RISES | {"population": "seeds and images"}]},
         "hypotheses[0].population: needs the answers to single test images"),
        ({"factors": {}}, 'factors: a search needs at least one setting, as lr = "numbers"'),
        ({"table": {"seed": "seed", "search": True, "resampled": 0.1}}, "table.resampled: not allowed in a search"),
        ({"metrics": {"acc": {"censored": "late"}}}, "metrics.acc.censored: not allowed in a search"),
        ({"table": {"seed": "seed"}, "hypotheses": []}, 'factors.lr: allowed: at least one level, each once; or'),
        ({"seeds": {"first": 10, "step": 10, "most": 50}}, "seeds: a number that grows needs seeds that pair"),
    ],
)  # fmt: skip
def test_mistakes_of_a_search_are_named(changes: dict[str, Any], message: str) -> None:
    """Each mistake is a line with the key and what is allowed."""
    with pytest.raises(StudyError) as refused:
        design.parse(STUDY | changes, "study", "study")
    assert message in str(refused.value)


def test_a_search_is_proposed() -> None:
    """Numbers of many values, or settings of nearly each run's own, are proposed as a search, if the runs suffice."""
    proposal = propose(sources.read(frame()), "x")
    assert proposal.document["factors"] == {"lr": "numbers", "optimizer": ["sgd", "adam"], "dropout": [0.0, 0.2, 0.5]}
    assert proposal.document["table"]["search"] is True
    assert "setting lr: any numbers" in str(proposal)
    assert '# effect = "optimizer"' in proposal.toml
    few = propose(sources.read(frame(79)), "x")
    assert "search" not in few.document["table"]
    assert "lr is left out: it has 79 values, too many to compare." in few.notes
    assert "Coefficients of all settings would need 80 runs, and 6 of each level." in few.notes
    follows = propose(sources.read(frame().assign(weight_decay=lambda f: f["lr"] ** 2)), "x")
    assert "weight_decay is left out: its values follow from those of lr." in follows.notes
    rng = np.random.default_rng(2)
    crossed = pd.DataFrame({f"width_{i}": rng.choice([1, 2, 4, 8], 100) for i in range(4)}).assign(
        acc=rng.normal(size=100)
    )
    drawn = propose(sources.read(crossed), "x")
    assert drawn.document["table"]["search"] is True
    assert '# effect = "trend(width_0)"' in drawn.toml


def test_a_search_has_a_page(tmp_path: Path) -> None:
    """The page and its summary have coefficients and no cells, with and without hypotheses."""
    table = frame().assign(loss=lambda f: -f["acc"])
    guessed = mnist_ablate.judge(table, out=tmp_path / "guessed")
    page, summary = guessed.report.html.read_text("utf-8"), guessed.report.summary.read_text("utf-8")
    assert "What each setting does" in page
    assert "Every run" not in page
    assert "Coefficients of least squares with 95 % intervals (HC3)." in summary
    assert "Coefficients of the loss" in page
    document = STUDY | {"metrics": {"acc": {"better": "higher"}, "loss": {"better": "lower"}}}
    told = mnist_ablate.judge(table, document, out=tmp_path / "told")
    methods = "\n".join(method_words.paragraphs(told.analysis))
    assert "They are a search of lr, optimizer and dropout" in methods
    assert "least squares on all settings, without interactions, with HC3 standard errors" in methods
    assert "mean over seeds" not in methods
    assert "for each doubling of lr" in told.report.summary.read_text("utf-8")
    assert "Settings searched" in told.report.html.read_text("utf-8")
