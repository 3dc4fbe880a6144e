"""Estimands that are no weighted sum of cells, by hand and by simulation."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from mnist_ablate.design.contrasts import Factor, Level
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import StudyError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.estimands import (
    agreement,
    highest_trained,
    is_censored,
    log_epochs_to,
    place_of,
    spread_of_seeds,
    summarise,
    variance_parts,
)
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.store.results import Results


def curve(run_id: str, *accuracies: float) -> pd.DataFrame:
    """Make the epochs of a run."""
    epochs = range(1, len(accuracies) + 1)
    return pd.DataFrame({"run_id": run_id, "epoch": epochs, "val_accuracy": accuracies})


def test_epochs_to_the_goal_by_hand() -> None:
    """A straight line between evaluations, from guessing at the start; who never arrives counts with the last epoch."""
    frame = pd.concat([curve("a", 0.95, 0.96, 0.98), curve("b", 0.5, 0.6, 0.7), curve("c", 0.98, 0.9, 0.99)])
    found = log_epochs_to(frame, 0.97)
    assert found["a"] == pytest.approx(math.log(2.5))
    assert found["b"] == pytest.approx(math.log(3))
    assert found["c"] == pytest.approx(math.log(0.87 / 0.88))
    assert is_censored(frame, 0.97).to_dict() == {"a": False, "b": True, "c": False}


def test_runs_of_other_lengths_stand_side_by_side() -> None:
    """A shorter run is not taken to go on: it is censored at its own last epoch."""
    found = log_epochs_to(pd.concat([curve("a", 0.5, 0.98), curve("b", 0.5)]))
    assert found["b"] == 0.0


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ((95.0, 97.0, 96.0, 10.0), 2),
        ((20.0, 95.0, 97.0, 98.0), 3),  # too low a level is no failure
        ((95.0, 97.0, 10.0, 95.0), 1),  # a level that trains beyond a failure does not count
        ((10.0, 11.0), -1),
    ],
)
def test_highest_level_that_trains(values: tuple[float, ...], place: float) -> None:
    """The last before the first failure, counted from the best level up."""
    assert highest_trained(np.array(values)) == place


def test_drop_speed_and_place_over_levels() -> None:
    """The mean distance to the best level, the least value, and the place of the least, level by level."""
    table = pd.DataFrame({"a": [90.0], "b": [97.0], "c": [94.0]})
    groups: dict[str, dict[Level, str]] = {"a": {1: "a", 2: "b", 3: "c"}}
    found = {summary: summarise(table, groups, summary)["a"][0] for summary in ("log_drop", "lowest", "fastest")}
    assert found == {"log_drop": pytest.approx(math.log((7 + 0 + 3) / 3)), "lowest": 90.0, "fastest": 0.0}
    alike = pd.DataFrame({"a": [90.0], "b": [90.0], "c": [90.0]})
    assert math.isnan(summarise(alike, groups, "log_drop")["a"][0])


def test_the_spread_between_seeds_is_the_jackknifes() -> None:
    """Each pseudo-value is n times the logarithm of the sd less n - 1 times that without the seed."""
    values = np.random.default_rng(4).normal(size=(9, 2)) * [1, 3]
    found = spread_of_seeds(pd.DataFrame(values, columns=["a", "b"]))
    for column, of in zip(("a", "b"), values.T, strict=True):
        for seed in range(9):
            without = math.log(np.delete(of, seed).std(ddof=1))
            assert found[column][seed] == pytest.approx(9 * math.log(of.std(ddof=1)) - 8 * without)
    assert spread_of_seeds(pd.DataFrame({"a": [1.0, 2.0]})).isna().all(axis=None)


def test_the_interval_of_a_ratio_of_spreads_holds_the_truth() -> None:
    """Of 1,000 pairs of samples with sds of 1 and 1.5, some 95 % of the intervals hold log 1.5, with tails, too."""
    rng = np.random.default_rng(8)
    for degrees in (1e6, 8):
        hits = 0
        for _ in range(1000):
            shared, a, b = rng.standard_t(degrees, (3, 60))
            pair = pd.DataFrame({"a": shared + a, "b": 1.5 * (shared + b)})
            z = spread_of_seeds(pair)
            low, high = Sample.of((z["b"] - z["a"]).to_numpy()).interval()
            hits += low < math.log(1.5) < high
        assert 920 < hits < 980


def test_summaries_take_the_levels_of_a_factor_in_each_seed() -> None:
    """Each group of cells becomes a column; a seed that lacks one of the cells has no number there."""
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 2.0], "c": [95.0, np.nan], "d": [10.0, 10.0]})
    groups: dict[str, dict[Level, str]] = {"a": {1: "a", 2: "b"}, "c": {1: "c", 2: "d"}}
    spread = summarise(table, groups, "log_sd")
    assert spread["a"][0] == pytest.approx(math.log(math.sqrt(2)))
    assert spread["a"].isna().tolist() == [False, True]  # no spread has no logarithm
    highest = summarise(table, groups, "highest")
    assert highest["c"][0] == 0
    assert highest["c"].isna().tolist() == [False, True]


def test_parts_of_variance_are_found() -> None:
    """Planted variances of two sources and of their interaction come back, to the precision of 4,000 seeds."""
    rng, n = np.random.default_rng(0), 4000
    a, b, ab = rng.normal(0, 2, (n, 2)), rng.normal(0, 1, (n, 2)), rng.normal(0, 0.5, (n, 2, 2))
    both = rng.normal(0, 9, n)  # what a seed adds in every cell is nobody's
    levels = {f"{i}{j}": {"a": i, "b": j} for i in (0, 1) for j in (0, 1)}
    table = pd.DataFrame(
        {name: both + a[:, of["a"]] + b[:, of["b"]] + ab[:, of["a"], of["b"]] for name, of in levels.items()}
    )
    found = variance_parts(table, levels, (Factor("a", (0, 1)), Factor("b", (0, 1)))).mean()
    assert found.index.tolist() == ["a", "b", "a:b"]
    assert found.tolist() == pytest.approx([4, 1, 0.25], rel=0.1)


def test_place_of_a_printed_value() -> None:
    """The share of values below it, ties counted half."""
    assert place_of(np.array([1.0, 2, 3, 4]), 3.5) == 0.75
    assert place_of(np.array([1.0, 2, 3, 4]), 3.0) == 0.625


def test_probability_of_a_ranking_by_hand() -> None:
    """Within seeds, and over all ways to take one run of each cell; ties are no ranking."""
    table = pd.DataFrame({"x": [3.0, 1.0], "y": [2.0, 2.0], "z": [1.0, 2.0]})
    assert agreement(table, [("x", "y"), ("y", "z")], paired=True)[0] == 0.5
    # x > y: 3 > 2 twice; then y > z: 2 > 1 only.
    assert agreement(table, [("x", "y"), ("y", "z")], paired=False)[0] == 2 / 8
    assert agreement(table[["x", "y"]], [("x", "y")], paired=False)[0] == 0.5


@pytest.mark.parametrize("above", [[("a", "b"), ("b", "c"), ("c", "d")], [("a", "b"), ("a", "c"), ("d", "c")], []])
def test_probability_of_an_order_is_that_of_all_ways(above: list[tuple[str, str]]) -> None:
    """Of any run of each cell with any of the others, ties included, the share is what counting them all gives."""
    table = pd.DataFrame(np.random.default_rng(3).integers(0, 6, (5, 4)), columns=list("abcd"))
    ways = [dict(zip("abcd", values, strict=True)) for values in itertools.product(*(table[name] for name in "abcd"))]
    agreeing = [way for way in ways if all(way[one] > way[other] for one, other in above)]
    share, low, high = agreement(table, above, paired=False)
    assert share == pytest.approx(len(agreeing) / 5**4, abs=1e-15)
    assert low <= share <= high


# ---- In hypotheses ----


def results(**accuracies: list[float]) -> Results:
    """Make the results of a study with and without BatchNorm at three learning rates, from final accuracies."""
    study = parse_study(
        {
            "name": "s",
            "factors": {"batch_norm": [False, True], "learning_rate": [0.1, 0.01, 1.0]},
            "hypotheses": [
                {"id": "limit", "statement": "-", "response": "val_accuracy", "over": "learning_rate"}
                | {"summary": "highest", "effect": "batch_norm", "kind": "increase", "smallest": 0.5},
                {"id": "spread", "statement": "-", "response": "val_accuracy", "over": "learning_rate"}
                | {"summary": "log_sd", "effect": "batch_norm", "kind": "decrease", "smallest": 0.1},
                {"id": "speed", "statement": "-", "response": "log_epochs_to_97", "effect": "batch_norm"}
                | {"at": "reference", "kind": "decrease", "smallest": 0.1},
            ],
        }
    )
    rows = []
    for run in plan(study):
        low, middle, high = accuracies["with_norm" if run.settings.batch_norm else "without"]
        of_rate = {0.01: low, 0.1: middle, 1.0: high}[run.settings.learning_rate]
        who = {"run_id": run.run_id, "cell": run.cell, "seed": run.seed, "epoch": 1, "status": "ok"}
        rows.append(who | {"val_accuracy": of_rate + run.seed / 1000})
    return Results(Path(), study, pd.DataFrame(rows), {})


def test_limits_are_decided_by_medians() -> None:
    """That every seed trains one step higher is no lack of spread: the median is one step, with its interval."""
    limit, spread, speed = analyse(results(without=[0.95, 0.96, 0.1], with_norm=[0.95, 0.96, 0.95])).judgements
    assert limit.verdict == "supported"
    assert (limit.sample.mean, limit.low, limit.high) == (1, 1, 1)
    assert limit.p == pytest.approx(2 / 2**10)
    assert limit.ratio == (1, math.inf)  # without, the limit is in (0.1, 1]; with, it lies beyond the grid
    expected = math.log(np.std([95, 96, 95], ddof=1) / np.std([95, 96, 10], ddof=1))
    assert spread.sample.mean == pytest.approx(expected)
    assert speed.sample.mean == pytest.approx(0)


def asking(**changes: object) -> Study:
    """Make a study of four rates with and without BatchNorm that asks one thing."""
    claim = {"id": "x", "statement": "-", "effect": "batch_norm", "kind": "increase", "smallest": 0.5} | changes
    factors = {"batch_norm": [False, True], "learning_rate": [0.01, 0.1, 1.0, 10.0]}
    return parse_study({"name": "s", "factors": factors, "hypotheses": [claim]})


def test_only_levels_within_two_ends_count() -> None:
    """With ends, the levels outside of them change nothing."""

    def accuracy(run: Run) -> float:
        return (97 - run.settings.learning_rate * (3 if run.settings.batch_norm else 6) + run.seed / 10) / 100

    def judged_with(**changes: object) -> Judgement:
        study = asking(over="learning_rate", summary="log_drop", kind="decrease", **changes)
        return analyse(synthetic.results(study, test_accuracy=accuracy)).judgements[0]

    near, all_ = judged_with(within=[0.01, 1.0]), judged_with()
    assert near.sample.mean == pytest.approx(math.log(0.5))
    mean = {slope: np.mean([slope * (rate - 0.01) for rate in (0.01, 0.1, 1, 10)]) for slope in (3, 6)}
    assert all_.sample.mean == pytest.approx(math.log(mean[3] / mean[6]))
    others = synthetic.results(asking(over="learning_rate", summary="log_drop", within=[0.01, 1.0]),
                               test_accuracy=lambda run: accuracy(run) * (run.settings.learning_rate < 5))  # fmt: skip
    assert analyse(others).judgements[0].sample.mean == near.sample.mean


def test_the_spread_between_seeds_is_an_effect() -> None:
    """Over seeds the effect is the logarithm of the ratio of two standard deviations, with the jackknife's interval."""
    rng = np.random.default_rng(3)
    drawn = {(cell, seed): rng.normal() for cell in (False, True) for seed in range(10)}
    study = asking(over="seed", summary="log_sd", at={"learning_rate": 0.1})

    def accuracy(run: Run) -> float:
        return 0.9 + 0.01 * drawn[run.settings.batch_norm, run.seed] * (2 if run.settings.batch_norm else 1)

    (judged,) = analyse(synthetic.results(study, test_accuracy=accuracy)).judgements
    with_norm, without = (np.array([drawn[on, seed] for seed in range(10)]) for on in (True, False))
    assert judged.sample.mean == pytest.approx(math.log(2 * with_norm.std() / without.std()), abs=0.2)
    z = spread_of_seeds(pd.DataFrame({"b": 2 * with_norm, "a": without}))
    assert (judged.low, judged.high) == pytest.approx(Sample.of((z["b"] - z["a"]).to_numpy()).interval(0.05))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"over": "seed", "summary": "highest"}, r'summary = "highest": allowed over = "seed": "log_sd"'),
        ({"over": "seed", "summary": "log_sd", "within": [1.0, 2.0]}, "within = .*: allowed with over a factor"),
        ({"within": [1.0, 2.0]}, "within = .*: allowed with over a factor"),
        ({"over": "learning_rate", "summary": "log_sd", "within": [2.0, 1.0]}, "its least and largest level"),
        ({"over": "learning_rate", "summary": "log_sd", "within": [2.0, 5.0]}, "ends of at least two levels"),
        ({"over": "learning_rate", "summary": "lowest"}, 'needs response = "log_epochs_to_97"'),
        ({"over": "width", "summary": "log_sd"}, "allowed: batch_norm, learning_rate, seed"),
    ],
)
def test_mistakes_in_summaries_are_told(changes: dict[str, object], said: str) -> None:
    """What a summary cannot be of is one message with what is allowed."""
    with pytest.raises(StudyError, match=said):
        asking(**changes)


def test_levels_that_come_to_the_same_run_count_as_levels() -> None:
    """A level whose cell is run under another's name has that run's number."""
    document = {
        "name": "s",
        "factors": {"batch_norm": [False, True], "norm_place": ["before", "after"]},
        "hypotheses": [
            {"id": "x", "statement": "-", "response": "val_accuracy", "over": "norm_place", "summary": "highest"}
            | {"effect": "batch_norm", "kind": "increase", "smallest": 0.5}
        ],
    }
    study = parse_study(document)
    rows = [
        {"run_id": run.run_id, "cell": run.cell, "seed": run.seed, "epoch": 1, "status": "ok", "val_accuracy": 0.95}
        for run in plan(study)
    ]
    assert len(rows) == 30
    (judged,) = analyse(Results(Path(), study, pd.DataFrame(rows), {})).judgements
    assert judged.sample.n == 10
    assert judged.sample.mean == 0


def test_no_limit_is_seen_where_there_is_none() -> None:
    """Equal limits in all seeds are a difference of nothing."""
    limit = analyse(results(without=[0.95, 0.96, 0.1], with_norm=[0.95, 0.93, 0.1])).judgements[0]
    assert limit.verdict == "negligible"
    assert math.isnan(limit.p)
