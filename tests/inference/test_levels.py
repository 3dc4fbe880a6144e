"""Estimates over many levels: planted values come back, censored runs stay censored, chance has no effect."""

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.effects import standard_effects
from mnist_ablate.inference.levels import (
    chance_factors,
    graded,
    has_speed,
    over_levels,
    speed,
    summarised,
)
from mnist_ablate.store.results import Results

RATES = [0.01, 0.001, 0.1]


def rates(**more: object) -> Study:
    """Return a study of three learning rates with and without BatchNorm, whose limits and spread are asked for."""
    asked = {"statement": "-", "response": "val_accuracy", "over": "learning_rate", "effect": "batch_norm"}
    hypotheses = [
        asked | {"id": "a", "summary": "highest", "kind": "increase", "smallest": 0.5},
        asked | {"id": "b", "summary": "highest", "kind": "decrease", "smallest": 0.5},
        asked | {"id": "c", "summary": "log_sd", "kind": "decrease", "smallest": 0.1},
    ]
    factors = {"batch_norm": [False, True], "learning_rate": RATES}
    return parse_study({"name": "s", "seeds": 4, "factors": factors, "hypotheses": hypotheses} | more)


def trained(run: Run) -> float:
    """Give the accuracy: without BatchNorm 0.1 fails, with it nothing does; seeds differ by thousandths."""
    settings = run.settings
    fails = settings.learning_rate == 0.1 and not settings.batch_norm
    return (0.1 if fails else 0.97 + 0.01 * math.log10(settings.learning_rate / 0.01)) + run.seed / 1000


def components_of(results: Results) -> pd.DataFrame:
    """Return the parts of variance of a study that draws parts of chance anew."""
    frame = analyse(results).components
    assert frame is not None
    return frame


def test_a_response_at_each_level() -> None:
    """A line for each level of the other factor, levels increasing, with the mean over seeds in percent."""
    frame = analyse(synthetic.results(rates(), test_accuracy=trained)).by_level()
    assert list(frame["line"]) == ["without batch_norm"] * 3 + ["batch_norm"] * 3
    assert list(frame["level"]) == [0.001, 0.01, 0.1] * 2
    assert list(frame["mean"]) == pytest.approx([96.15, 97.15, 10.15, 96.15, 97.15, 98.15])
    assert (frame["n"] == 4).all()


def test_only_numbers_are_graded() -> None:
    """Two levels, words and parts of chance are no levels to go along."""
    factors = {
        "dropout": [0.0, 0.2],
        "init": ["default", "kaiming", "xavier"],
        "split_seed": [0, 1, 2],
        "width": [4, 8, 16],
    }
    study = parse_study({"name": "s", "factors": factors})
    assert [factor.name for factor in graded(study)] == ["width"]


def test_limits_by_hand() -> None:
    """Without BatchNorm all seeds end at 0.01; with it no level fails, and all seeds are beyond the grid."""
    results = synthetic.results(rates(), val_accuracy=trained)
    highest, _ = summarised(results.study)
    frame = synthetic.records(over_levels(results.study, highest, analyse(results).seeds(highest.response)), "others")
    assert [row["level"] for row in frame.values()] == [0.01, 0.1]
    assert [row["n_end"] for row in frame.values()] == [0, 4]
    assert frame["batch_norm"]["levels"] == "0.1: 4"


def test_spread_by_hand() -> None:
    """The sd over levels, the same in all seeds, and the sd over seeds at the reference level."""
    results = synthetic.results(rates(), val_accuracy=trained)
    _, spread = summarised(results.study)
    frame = synthetic.records(over_levels(results.study, spread, analyse(results).seeds(spread.response)), "others")
    assert frame["batch_norm"]["mean"] == pytest.approx(1.0)
    assert frame["without batch_norm"]["mean"] == pytest.approx(np.std([96, 97, 10], ddof=1))
    assert [row["sd_seeds"] for row in frame.values()] == pytest.approx([np.std([0, 0.1, 0.2, 0.3], ddof=1)] * 2)


def test_times_are_censored() -> None:
    """A cell of which half the runs or more do not arrive has no median, but one above the last epoch."""
    study = parse_study({"name": "s", "seeds": 3, "protocol": {"epochs": 2, "epoch_steps": 100},
                         "factors": {"dropout": [0.0, 0.2]}})  # fmt: skip
    rows = []
    for run in plan(study):
        arrives = run.seed == 0 if run.settings.dropout else run.seed < 2
        for epoch, accuracy in ((1, 0.535), (2, 0.98 if arrives else 0.6)):
            who = {"run_id": run.run_id, "cell": run.cell, "seed": run.seed, "status": "ok"}
            rows.append(who | {"epoch": epoch, "val_accuracy": accuracy})
    assert has_speed(study)
    table = speed(Results(Path(), study, pd.DataFrame(rows), {}))
    frame = synthetic.records(table, "cell")
    expected = 1 + (0.97 - 0.535) / (0.98 - 0.535)
    assert frame["baseline"]["median"] == pytest.approx(expected)
    assert frame["dropout"]["median"] == math.inf
    assert table["n_reached"].tolist() == [2, 1]
    assert (table["high"] == math.inf).all()
    assert (table["low"] == 0).all()  # three runs bound nothing


@lru_cache(maxsize=4)
def drawn_anew(n: int) -> Results:
    """Make the runs of the bundled study of variance, without numbers."""
    return synthetic.results(synthetic.bundled("variance", n))


def simulated(seed: int, n: int, sds: dict[str, float]) -> Results:
    """Plant accuracies with these sds, in points, in the bundled study of variance; the rest is the run's own."""
    rng, blank = np.random.default_rng(seed), drawn_anew(n)
    total = 97.5 + rng.normal(0, sds["rest"], len(blank.epochs))
    for name in ("split_seed", "init_seed", "batch_seed", "dropout_seed"):
        total += rng.normal(0, sds[name], (n, 2))[blank.epochs["seed"], blank.epochs[name]]
    return replace(blank, epochs=blank.epochs.assign(test_accuracy=total / 100))


SDS = {"split_seed": 0.10, "init_seed": 0.15, "batch_seed": 0.20, "dropout_seed": 0.0, "rest": 0.10}


def test_components_are_found() -> None:
    """Planted parts of variance come back, the rest with the interactions of most parts, and shares sum to one."""
    table = components_of(simulated(0, 400, SDS))
    frame = synthetic.records(table, "source")
    parts = ["split", "initial weights", "order of the images", "dropout masks"]
    assert list(frame)[:4] == parts
    assert [frame[part]["variance"] for part in parts] == pytest.approx([0.01, 0.0225, 0.04, 0], abs=0.004)
    rest = sum(frame[part]["variance"] for part in ("interactions of two", "interactions of three or more"))
    assert rest == pytest.approx(0.01, abs=0.002)
    assert table["share"][:-1].sum() == pytest.approx(1)
    assert frame["all"]["sd"] == pytest.approx(math.sqrt(0.0825), abs=0.01)
    assert frame["dropout masks"]["sd"] >= 0


def test_component_intervals_cover() -> None:
    """With 100 seeds, 95 % intervals of the four parts' variances hold the planted ones nearly as often as they say."""
    true = {name: SDS[factor] ** 2 for name, factor in zip(
        ("split", "initial weights", "order of the images", "dropout masks"), SDS, strict=False)}  # fmt: skip
    hits = []
    for seed in range(25):
        frame = synthetic.records(components_of(simulated(seed, 100, SDS)), "source")
        hits += [frame[name]["variance_low"] <= value <= frame[name]["variance_high"] for name, value in true.items()]
    assert np.mean(hits) >= 0.88  # 100 hits at 0.93 lie below with a probability of 3 %


def test_chance_has_no_effects() -> None:
    """In a study of parts of chance there are parts, and no effects of one draw against the other."""
    study = load_study("variance")
    assert len(chance_factors(study)) == 4
    assert standard_effects(study) == []
    assert chance_factors(load_study("factorial")) == ()
    mixed = parse_study({"name": "s", "factors": {"dropout": [0.0, 0.2], "split_seed": [0, 1]}})
    assert [effect.label for effect in standard_effects(mixed)] == ["dropout"]
    assert chance_factors(mixed) == ()


def test_one_seed_has_no_intervals() -> None:
    """Of one seed there are estimates, and no interval."""
    frame = components_of(simulated(0, 1, SDS))
    assert frame["variance"].notna().all()
    assert frame["variance_low"].isna().all()
