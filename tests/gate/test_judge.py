"""The gate's judgement: what each level must let pass, what it must catch, and how levels combine."""

import re
from dataclasses import replace
from typing import Any

import gate_tables as tables
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_ablate.design.plan import PROTOCOL_VERSION
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.gate import judge as module
from mnist_ablate.gate.judge import Level, Verdict, judge
from mnist_ablate.gate.reference import Evidence, Reference, Rules
from mnist_ablate.gate.shifts import shift_limits


@pytest.fixture(scope="module")
def known() -> Reference:
    """Return a reference."""
    return tables.reference()


def level(verdict: Verdict, name: str) -> Level:
    """Return a level by its name."""
    return next(level for level in verdict.levels if level.name == name)


def test_equal_bits_pass_at_once(known: Reference) -> None:
    """Identical numbers pass by the first level, even if other levels compare them with the mean of repeats."""
    first = known.evidence.runs[known.evidence.runs["repeat"] == 0].drop(columns="repeat")
    verdict = judge(replace(known.evidence, runs=first), known)
    assert (verdict.outcome, verdict.exit_status) == ("pass", 0)
    assert level(verdict, "bits").outcome == "pass"
    assert "every bit of 16 runs" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"digests": {"baseline/0": "2"}}, "weights"),
        ({"checkpoint": {"test_loss": 0.1, "test_accuracy": 97.0 + 1e-9}}, "stored network"),
        ({"trace": tables.trace(1e-9)}, "golden runs"),
        ({"predictions": np.ones(1000, np.uint8)}, "stored network"),
    ],
)
def test_one_other_bit_is_another(known: Reference, change: dict[str, Any], named: str) -> None:
    """A difference anywhere, in a digest, a golden run or the stored network, is not 'the same bits', and is named."""
    first = known.evidence.runs[known.evidence.runs["repeat"] == 0].drop(columns="repeat")
    evidence = replace(known.evidence, runs=first, **change)
    found = module.bits(evidence, known)
    assert found.outcome == "not applied"
    assert f"bits differ ({named})" in found.sentence


def test_other_bits_are_explained_by_the_engine(known: Reference) -> None:
    """If bits of the engine fused differ, its arithmetic has changed, whatever machine; autograd's may differ."""
    for machine in ({"engine": "fused", "torch": "3"}, known.evidence.machine):
        assert "so the arithmetic has changed" in module.bits(tables.candidate(known, machine=machine), known).sentence
    there = tables.candidate(known, machine={"engine": "autograd"})
    assert "as they may with the engine autograd" in module.bits(there, known).sentence


def test_clean_runs_with_other_bits_pass(known: Reference) -> None:
    """Clean runs whose bits differ pass, and the sentence says what would have shown."""
    verdict = judge(tables.candidate(known), known)
    assert verdict.outcome == "pass", verdict.sentence
    assert [one.outcome for one in verdict.levels] == ["not applied", "pass", "pass", "pass", "not applied"]
    assert "would show" in verdict.sentence


@pytest.mark.parametrize("by", [-0.6, 0.6])
def test_a_shift_fails_either_way(known: Reference, by: float) -> None:
    """Accuracy that falls, and accuracy that rises without a reason, both fail; the sentence says which and how."""
    evidence = tables.candidate(known)
    verdict = judge(replace(evidence, runs=tables.moved(evidence.runs, by)), known)
    assert (verdict.outcome, verdict.exit_status) == ("fail", 1)
    assert "test_accuracy (mean of all cells) went from" in verdict.sentence
    assert f", by {'+' if by > 0 else '-'}0." in verdict.sentence
    assert "by chance" in verdict.sentence


def test_the_smallest_p_names_the_check(known: Reference) -> None:
    """If only cells with a technique moved, the sentence names its contrast and the cell that moved most."""
    evidence = tables.candidate(known)
    runs = tables.moved(evidence.runs, 0.02, "val_loss", ("dropout", "l2+dropout"))
    runs = tables.moved(runs, 0.01, "val_loss", ("l2+dropout",))
    verdict = judge(replace(evidence, runs=runs), known)
    found = level(verdict, "statistical").findings
    assert min(found, key=lambda finding: finding.p).check == "val_loss, dropout"
    assert "most in cell l2+dropout" in verdict.sentence


def test_near_the_limit_it_cannot_tell(known: Reference) -> None:
    """A shift inside the limit whose interval crosses it neither passes nor fails: status 3."""
    evidence = tables.candidate(known)
    table = judge(evidence, known).shifts
    limit, margin, shift = (float(table[name]["mean", "test_accuracy"]) for name in ("limit", "margin", "shift"))
    runs = tables.moved(evidence.runs, limit - 0.5 * margin - shift)
    verdict = judge(replace(evidence, runs=runs), known)
    assert (verdict.outcome, verdict.exit_status) == ("cannot tell", 3)
    assert "more seeds would tell" in verdict.sentence


def test_a_stated_tolerance_lets_small_shifts_pass(known: Reference) -> None:
    """A shift within a stated tolerance passes, and fails without one."""
    evidence = tables.candidate(known)
    runs = tables.moved(evidence.runs, 0.5)
    tolerant = replace(known, rules=Rules(tolerances={"test_accuracy": 1.0}))
    assert judge(replace(evidence, runs=runs), known).outcome == "fail"
    assert judge(replace(evidence, runs=runs), tolerant).outcome == "pass"


def test_no_spread_is_no_ground(known: Reference) -> None:
    """Without spread in the null bank, a shift cannot be judged, and equal means pass."""
    flat = replace(known, bank=tables.runs(range(100, 130), 2, noise=0.0), evidence=replace(
        known.evidence, runs=tables.runs(range(4), 3, noise=0.0)
    ))  # fmt: skip
    same = tables.candidate(known, runs=tables.runs(range(4), noise=0.0).drop(columns="repeat"))
    assert module.statistical(judge(same, flat).shifts).outcome == "pass"
    other = replace(same, runs=tables.moved(same.runs, 0.25))
    assert judge(other, flat).outcome == "cannot tell"


@pytest.mark.parametrize(
    ("off", "cells", "fails"),
    [
        (1e-4, tables.CELLS, True),
        (1e-4, ("dropout", "l2+dropout"), True),
        (1e-4, ("dropout",), True),
        (3e-6, tables.CELLS, False),
    ],
)
def test_golden_runs_off_their_course_fail(known: Reference, off: float, cells: tuple[str, ...], fails: bool) -> None:
    """A departure beyond the limit fails, in all cells, in those of a technique or in one; a smaller one passes."""
    verdict = judge(tables.candidate(known, trace=tables.trace(off, cells)), known)
    assert (level(verdict, "golden").outcome == "fail") is fails
    if fails:
        assert "loss of step 1" in verdict.sentence
        assert "It is the first step" in verdict.sentence


def test_golden_runs_say_where_it_begins(known: Reference) -> None:
    """The sentence names the first step that is off, and the cells."""
    verdict = judge(tables.candidate(known, trace=tables.trace(0.1, ("dropout", "l2+dropout"), 7)), known)
    assert "cells with dropout" in verdict.sentence
    assert "loss of step 7" in verdict.sentence
    assert "The first step agrees" in verdict.sentence


def test_steps_too_few_or_too_many_fail(known: Reference) -> None:
    """A golden run that is too short, too long or has a loss that is not finite fails."""
    whole = tables.trace()
    for changed in (
        whole[~((whole["what"] == "step") & (whole["at"] > 15))],
        pd.concat([whole, pd.DataFrame([("l2", "step", 21, 1.0)], columns=whole.columns)]),
        whole.assign(value=whole["value"].where(whole["at"] != 3)),
    ):
        assert module.golden(tables.candidate(known, trace=changed), known).outcome == "fail"


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({"checkpoint": {"test_loss": 0.1 + 9e-6, "test_accuracy": 97.0}}, False),
        ({"checkpoint": {"test_loss": 0.1 + 2e-5, "test_accuracy": 97.0}}, True),
        ({"checkpoint": {"test_loss": 0.1, "test_accuracy": 97.1}}, True),
        ({"checkpoint": {}}, True),
        ({"predictions": np.array([1, 1] + 998 * [0], np.uint8)}, False),
        ({"predictions": np.array([1, 1, 1] + 997 * [0], np.uint8)}, True),
        ({"predictions": np.empty(0, np.uint8)}, True),
    ],
)
def test_the_stored_network_must_say_the_same(known: Reference, change: dict[str, Any], fails: bool) -> None:
    """Its loss may move by rounding and its predictions by ties, and no more, even after a change on purpose."""
    evidence = tables.candidate(known, **change)
    for purpose in (False, True):
        assert (module.golden(evidence, known, changed_on_purpose=purpose).outcome == "fail") is fails


def test_what_changed_on_purpose_goes_to_the_statistics(known: Reference) -> None:
    """A course changed on purpose is not judged, and limits are wider; a large shift still fails."""
    other = tables.candidate(known, trace=tables.trace(0.1), runs=tables.runs(range(200, 206)).drop(columns="repeat"))
    verdict = judge(other, known, changed_on_purpose=True)
    assert verdict.outcome == "pass", verdict.sentence
    assert (verdict.shifts["limit"] > shift_limits(known, 6)["limit"]).all()
    worse = replace(other, runs=tables.moved(other.runs, -3.0))
    assert judge(worse, known, changed_on_purpose=True).outcome == "fail"


def test_one_bad_run_fails(known: Reference) -> None:
    """A run far below its cell, or not finite, fails by the floor, which names cell and seed."""
    evidence = tables.candidate(known)
    one = (evidence.runs["cell"] == "l2") & (evidence.runs["seed"] == 2)
    low = evidence.runs.assign(
        value=evidence.runs["value"] - 5.0 * (one & (evidence.runs["response"] == "test_accuracy"))
    )
    found = module.floor(replace(evidence, runs=low), known)
    assert found.outcome == "fail"
    assert "l2, seed 2" in found.sentence
    broken = evidence.runs.assign(value=evidence.runs["value"].mask(one & (evidence.runs["response"] == "val_loss")))
    assert "val_loss is not finite" in module.floor(replace(evidence, runs=broken), known).sentence
    assert module.floor(evidence, known).outcome == "pass"


def test_plain_thresholds_say_how_far_they_are(known: Reference) -> None:
    """A threshold fails unless the mean reaches it; both sentences give the distance in standard errors."""
    for wanted, outcome in ((0.95, "pass"), (0.99, "fail")):
        rules = Rules(thresholds={"test_accuracy": wanted, "val_loss": 0.5})
        verdict = judge(tables.candidate(known), replace(known, rules=rules))
        assert level(verdict, "thresholds").outcome == outcome
        assert verdict.outcome == outcome
        assert "standard errors of chance" in level(verdict, "thresholds").sentence
    with pytest.raises(GateReferenceError, match="no such response"):
        judge(tables.candidate(known), replace(known, rules=Rules(thresholds={"speed": 1.0})))


def test_thresholds_hold_for_equal_bits_too(known: Reference) -> None:
    """A user's threshold must be met even if nothing has changed."""
    first = known.evidence.runs[known.evidence.runs["repeat"] == 0].drop(columns="repeat")
    strict = replace(known, rules=Rules(thresholds={"test_accuracy": 0.99}))
    assert judge(replace(known.evidence, runs=first), strict).outcome == "fail"


def test_golden_runs_alone_can_end_it(known: Reference) -> None:
    """Evidence without runs, as after the first seconds, is judged by its golden runs."""
    nothing = tables.runs([]).drop(columns="repeat")
    early = tables.candidate(known, runs=nothing, digests={}, trace=tables.trace(0.1))
    assert judge(early, known).outcome == "fail"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"study": {"name": "other"}}, "different studies"),
        ({"machine": {"data": "b"}}, "other images"),
        (
            {"machine": {"data": "a", "protocol_version": 1}},
            "results are of protocol 1 and the reference is of protocol 2",
        ),
        ({"runs": tables.runs([0]).query("cell != 'l2'").drop(columns="repeat")}, "no runs of the cells l2"),
        ({"runs": tables.runs([50]).drop(columns="repeat")}, "no seed of the reference"),
    ],
)
def test_what_cannot_be_compared_is_refused(known: Reference, change: dict[str, Any], told: str) -> None:
    """Another study, protocol, other images, missing cells or seeds: refused with status 3, naming the cause."""
    ours = replace(
        known, evidence=replace(known.evidence, machine={"data": "a"}), document={"protocol_version": PROTOCOL_VERSION}
    )
    with pytest.raises(GateReferenceError, match=told) as error:
        judge(tables.candidate(known, **change), ours)
    assert error.value.exit_status == 3


def test_any_table_will_do() -> None:
    """Any table of cell, seed and value is judged by the statistical level and the floor."""
    table = tables.runs(range(5), 3).query("response == 'test_accuracy'").drop(columns="response")
    known = Reference.of_tables(table, table)
    now = tables.runs(range(5), rng=9).query("response == 'test_accuracy'")[["cell", "seed", "value"]]
    assert judge(now, known).outcome == "pass"
    worse = now.assign(value=now["value"] - 2.0 * (now["cell"] == "l2"))
    verdict = judge(worse, known)
    assert verdict.outcome == "fail"
    assert "(l2) went from" in verdict.sentence or "l2, seed" in verdict.sentence
    assert [one.outcome for one in verdict.levels[:2]] == ["not applied", "not applied"]


def one_run_moved(by: float, response: str, **of: Any) -> Level:
    """Return the floor where one run of a table was moved; `of` goes into the rules, or `metrics` into the study."""
    table = tables.runs(range(8), 3).query("response == 'test_accuracy'").assign(response=response)
    study = {"metrics": {response: of.pop("metrics")}} if "metrics" in of else None
    known = Reference.of_tables(table, rules=Rules(**of))
    known = replace(known, evidence=replace(known.evidence, study=study))
    now = table.query("repeat == 0")
    one = (now["cell"] == "l2") & (now["seed"] == 2)
    return module.floor(Evidence(now.assign(value=now["value"] + by * one)), known)


@pytest.mark.parametrize(
    ("response", "of", "fails"),
    [
        ("accuracy", {}, "-"),
        ("word_error", {}, "+"),
        ("val_loss", {}, ""),
        ("val_loss", {"better": {"val_loss": "lower"}}, "+"),
        ("accuracy", {"better": {"accuracy": "lower"}}, "+"),
        ("speed", {"better": {"speed": "higher"}}, "-"),
        ("speed", {"better": {"speed": "neither"}}, "+-"),
        ("speed", {"metrics": {"better": "lower"}}, "+"),
        ("speed", {"metrics": {"better": "lower"}, "better": {"speed": "higher"}}, "-"),
        ("speed", {"metrics": {}}, "+-"),
    ],
)
def test_the_floor_is_on_the_side_that_is_worse(response: str, of: dict[str, Any], fails: str) -> None:
    """The rules say which side that is, or else the study, or else the name; both sides count where nobody does."""
    for side, by in (("+", 50.0), ("-", -50.0)):
        found = one_run_moved(by, response, **dict(of))
        assert found.outcome == ("fail" if side in fails else "pass")
        if found.outcome == "fail":
            assert f"l2, seed 2: {response}" in found.sentence
            assert ("below" if by < 0 else "above") in found.sentence
    assert one_run_moved(0.0, response, **dict(of)).outcome == "pass"


def test_which_side_is_worse_is_asked_for() -> None:
    """Where nobody says it, the floor's sentence asks, and a threshold is refused, with the line to write."""
    line = r'Write "speed" = "higher" or "lower" under \[gate.better\] in gate.toml'
    assert re.search(line, one_run_moved(50.0, "speed").sentence)
    assert "gate.better" not in one_run_moved(50.0, "speed", better={"speed": "lower"}).sentence
    table = tables.runs(range(8), 3).query("response == 'test_accuracy'").assign(response="speed")
    now = table.query("repeat == 0")
    with pytest.raises(GateReferenceError, match=line):
        judge(now, Reference.of_tables(table, rules=Rules(thresholds={"speed": 98.0})))
    for better, outcome in (("lower", "pass"), ("higher", "fail")):
        rules = Rules.model_validate({"thresholds": {"speed": 98.0}, "better": {"speed": better}})
        assert level(judge(now, Reference.of_tables(table, rules=rules)), "thresholds").outcome == outcome


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_false_alarms_are_rare_whatever_the_luck(known: Reference, rng: int) -> None:
    """No luck of clean runs, drawn with the bank's spread, makes the statistical level fail."""
    runs = tables.candidate(known, rng=rng).runs
    assert judge(Evidence(runs), replace(known, limits=pd.DataFrame())).outcome != "fail"
