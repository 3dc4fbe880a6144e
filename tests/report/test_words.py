"""Numbers, studies and their state in words."""

import math
from pathlib import Path

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.effects import cell_names
from mnist_ablate.report import words
from mnist_ablate.store.results import load

DASH = "–"  # noqa: RUF001 # an en dash
STUDY = {"name": "pair", "seeds": 3, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.2]}}


@given(st.floats(-1000, 1000), st.integers(0, 4))
def test_numbers_read_back(value: float, digits: int) -> None:
    """A written number is the value to its digits, with the typographic minus, and never minus nought."""
    text = words.number(value, digits, sign=True)
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.500001 * 10**-digits)  # noqa: RUF001
    assert "-" not in text
    assert not (text.startswith("−") and float(text[1:]) == 0)  # noqa: RUF001


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (words.number(math.nan), DASH),
        (words.span(math.nan, math.nan), DASH),
        (words.span(-0.5, 1), "−0.50 to +1.00"),  # noqa: RUF001
        (words.span(-0.253, -0.0009), "−0.253 to −0.001"),  # noqa: RUF001  # all of it is below 0
        (words.span(0, 0.00049), "+0.0000 to +0.0005"),
        (words.p_value(math.nan), DASH),
        (words.p_value(0.0009), "< 0.001"),
        (words.p_value(0.001), "0.001"),
        (words.percent(0.05), "5 %"),
        (words.percent(1 - 0.05 / 9), "99.44 %"),
        (words.percent(1.0), "100 %"),
        (words.plural(1, "run"), "1 run"),
        (words.plural(1200, "run"), "1,200 runs"),
        (words.listed([]), ""),
        (words.listed(["a"]), "a"),
        (words.listed("abc", "or"), "a, b or c"),
        (words.of(3, 3), "3"),
        (words.of(2, 3), "2 of 3"),
        (words.seeds([7]), "seed 7"),
        (words.seeds([4, 0, 1, 2, 7]), f"seeds 0{DASH}2, 4, 7"),
        (words.duration(59.94), "59.9 s"),
        (words.duration(60), "1 min"),
        (words.duration(3600 * 1234), "1,234 h 0 min"),
        (words.level(True), "on"),
        (words.level(1e-5), "1e-05"),
        (words.time_span(["some day"]), "some day UTC"),
        (words.time_span(["2025-01-01T01:30:00+01:00"] * 2), "2025-01-01 00:30 UTC"),
    ],
)  # fmt: skip
def test_short_forms(written: str, text: str) -> None:
    """Lists, shares, times and what is not there are written as people write them."""
    assert written == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "trains 2 variants of a neural network 3 times each, from as many random seeds, for 1 epoch on MNIST"),
        ({"seeds": 1}, "trains 2 variants of a neural network once, for 1 epoch"),
        ({"factors": {"dropout": [0.2]}}, "trains one neural network 3 times, from as many random seeds"),
        ({"factors": {"epochs": [1, 2]}, "protocol": {}}, "for 1 or 2 epochs on MNIST"),
        ({"factors": {"dataset": ["mnist", "fashion-mnist"]}}, "on MNIST or Fashion-MNIST"),
    ],
)
def test_lead_says_what_was_run(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    """One sentence has the cells, seeds, epochs and images; it tells what the cells differ in if there are several."""
    results = load(synthetic.make(tmp_path, parse_study(STUDY | changes)))
    assert said in words.lead(results)
    assert ("differ in nothing but" in words.lead(results)) == (len(cell_names(results.study)) > 1)


def test_facts_mark_what_varies(tmp_path: Path) -> None:
    """What is varied stands first and is marked so, what is fixed is not, and times are summed over the runs."""
    facts = words.facts(load(synthetic.make(tmp_path, parse_study(STUDY))))
    assert list(facts.items())[:2] == [("dropout", "0 or 0.2 (varied)"), ("l2", "0")]
    assert facts["Time"] == "37.5 s of training and 3.0 s of evaluation, summed over 6 runs"


def test_state_and_notices(tmp_path: Path) -> None:
    """What is missing and what diverged is counted, and named by cell and seed."""
    study = parse_study(STUDY)
    results = load(synthetic.make(tmp_path, study, missing=[("dropout", 1)], diverged=[("baseline", 2)]))
    assert words.state(results) == "5 of 6 planned runs stored, 1 diverged"
    gone, diverged = words.notices(results)
    assert gone.startswith("1 planned run not stored (not run yet, failed or damaged): dropout (seed 1).")
    assert diverged.startswith("1 run diverged, the loss was no longer finite: baseline (seed 2).")


def test_changed_hypotheses_are_said() -> None:
    """Runs made under other hypotheses are counted; the same ones, or none recorded, are no notice."""
    study = synthetic.factorial(1, 1)
    same = {"study_sha256": "", "hypotheses_sha256": study.hypotheses_sha256, "looks": [1]}
    assert words.notices(synthetic.results(study, declared=same)) == []
    assert words.notices(synthetic.results(study, declared={})) == []
    (notice,) = words.notices(synthetic.results(study, declared=same | {"hypotheses_sha256": "other"}))
    assert notice.startswith("The hypotheses were changed after the first run: 8 of 8 runs were made under others.")


def test_two_kinds_of_processors_are_said(tmp_path: Path) -> None:
    """Each kind is named with its runs, the commonest first; one kind is no notice."""
    machines = [synthetic.MACHINE, synthetic.MACHINE | {"processor": "Abacus"}, synthetic.MACHINE]
    (notice,) = words.notices(load(synthetic.make(tmp_path, parse_study(STUDY), machines=machines)))
    assert notice.index(f"{synthetic.MACHINE['processor']}, 4 runs: ") < notice.index("Abacus, 2 runs: ")


def test_runs_without_numbers_of_probes_are_said() -> None:
    """A run that lacks a number of the study's probes is named; without probes nothing is said."""
    study = parse_study(STUDY | {"probes": ["weights"]})
    results = synthetic.results(study)
    for i, document in enumerate(results.documents.values()):
        norm = None if i == 2 else 1.0
        document["probes"] = {"weights": {"log_weight_norm": norm, "log_weight_evenness": 0.0}}
    (notice,) = words.notices(results)
    assert notice.startswith("1 run without some or all numbers of the probes")
    last = list(results.documents)[2]
    who = results.final.set_index("run_id").loc[last]
    assert f"{who['cell']} (seed {who['seed']})" in notice
    assert words.notices(synthetic.results(parse_study(STUDY))) == []
