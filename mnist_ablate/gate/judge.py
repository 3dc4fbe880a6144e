"""The regression gate's decision: training is as it was when the reference was accepted, neither worse nor better.

Four levels, and plain thresholds for those who want them, look at the same `Evidence`; one level that fails fails the
gate. Everything here is a pure function of tables; `mnist_ablate.gate.runs` trains.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.responses import scale
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.gate.golden import at_any_step, departures, group_cells, side_by_side
from mnist_ablate.gate.reference import Evidence, Reference, long_table, same_study
from mnist_ablate.gate.shifts import shifts
from mnist_ablate.language import figures, later, later_by, mark, mark_as, say, told, told_as

Outcome = Literal["pass", "fail", "cannot tell", "not applied"]
_EXIT_STATUS = {"pass": 0, "fail": 1, "cannot tell": 3}

_FLOOR_SHARE = 0.1
"""The floor's share of the budget of false alarms; the statistical level has its own. The rest covers the golden level,
whose limits are measured."""
FLOOR_POINTS = 1.0
"""Percentage points of accuracy that a single run may always lie below the mean of its cell."""
CHANGED_PREDICTIONS = 2
"""Test images whose prediction by the stored network may change: ties, which rounding decides."""
CHECKPOINT_LIMITS = {"loss": 1e-5, "accuracy": 0.02}
"""What rounding may do to the stored network's results: nats, and percentage points (2 images in 10,000)."""
LEAST_FREEDOM = 6
"""With fewer degrees of freedom, chance may do so much that only a ruin would show: eight standard errors and more."""


@dataclass(frozen=True)
class Finding:
    """A check that does not pass: its outcome, its name, a sentence, and its p value (NaN if unknown)."""

    outcome: Outcome
    check: str
    sentence: str
    p: float = math.nan


@dataclass(frozen=True)
class Level:
    """A level's outcome, in one sentence; the number of its checks, and those that do not pass."""

    name: str
    outcome: Outcome
    sentence: str
    checks: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, repr=False)
class Verdict:
    """Pass, fail or cannot tell.

    Parameters
    ----------
    outcome, sentence
        The verdict, in a word and in a sentence.
    levels
        What each level says.
    shifts
        Every shift of the mean from the reference, see `mnist_ablate.gate.shifts.shifts`.
    page
        Where the verdict was written; None if it was not.
    """

    outcome: Outcome
    sentence: str
    levels: tuple[Level, ...]
    shifts: pd.DataFrame
    page: Path | None = None

    @property
    def exit_status(self) -> int:
        """0 pass, 1 fail, 3 cannot tell."""
        return _EXIT_STATUS[self.outcome]

    def __str__(self) -> str:
        return self.sentence

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        from mnist_ablate.gate.page import markdown  # which imports this module

        return markdown(self)


def judge(results: Evidence | pd.DataFrame, reference: Reference, *, changed_on_purpose: bool = False) -> Verdict:
    """Return the verdict on `results`.

    Parameters
    ----------
    results
        `Evidence`, or any table with the columns ``cell``, ``seed``, ``value`` and optionally ``response``.
    reference
        What to compare with.
    changed_on_purpose
        Random streams, initial weights or the order of arithmetic were changed on purpose: the course of golden runs
        is not judged, and runs of one seed count as unrelated, so the limits of the statistical level are wider.

    Raises
    ------
    GateReferenceError
        If the two cannot be compared.
    """
    evidence = results if isinstance(results, Evidence) else Evidence(long_table(results))
    _refuse_others(evidence, reference)
    first_levels = (bits(evidence, reference), golden(evidence, reference, changed_on_purpose=changed_on_purpose))
    if evidence.runs.empty:  # the golden runs failed, so no others were trained
        return _verdict(first_levels, pd.DataFrame())
    lowest = floor(evidence, reference)
    try:
        measured = shifts(evidence.runs, reference, paired=reference.paired and not changed_on_purpose)
    except GateReferenceError:
        if lowest.outcome == "fail":  # no run is finite
            return _verdict((*first_levels, lowest), pd.DataFrame())
        raise
    means = statistical(measured, in_units=not reference.elsewhere)
    return _verdict((*first_levels, means, lowest, thresholds(evidence, reference, measured)), measured)


def broken(cause: str) -> Verdict:
    """Return the verdict if training itself fails: a regression, with nothing to compare."""
    finding = Finding("fail", "training", cause)
    level = Level("training", "fail", cause, 1, (finding,))
    return Verdict("fail", later("Regression: {cause}", cause=cause), (level,), pd.DataFrame())


def _refuse_others(evidence: Evidence, reference: Reference) -> None:
    if not same_study(evidence.study, reference.evidence.study):
        raise GateReferenceError(
            "The results and the reference are of different studies. Make a reference of this one with "
            "`python -m mnist_ablate gate --accept --why TEXT`, or name its folder with --reference."
        )
    protocols = evidence.machine.get("protocol_version"), reference.document.get("protocol_version")
    if all(protocols) and protocols[0] != protocols[1]:
        raise GateReferenceError(
            f"The results are of protocol {protocols[0]} and the reference is of protocol {protocols[1]}: train again "
            "with `python -m mnist_ablate gate`, or compare statistics with `python -m mnist_ablate compare`."
        )
    images = [side.machine.get("data", "") for side in (evidence, reference.evidence)]
    if all(images) and images[0] != images[1]:
        raise GateReferenceError("The results are of other images than the reference: their SHA-256 differ.")
    if not evidence.runs.empty:
        _refuse_missing(evidence.runs, reference)


def _refuse_missing(runs: pd.DataFrame, reference: Reference) -> None:
    """Refuse runs that lack a cell or a response of the reference, or, made elsewhere, have one that it lacks."""
    for column, what in (("cell", "cells"), ("response", "metrics")):
        known, there = (set(map(str, table[column])) for table in (reference.evidence.runs, runs))
        if missing := sorted(known - there):
            raise GateReferenceError(f"There are no runs of the {what} {', '.join(missing)} of the reference.")
        if reference.elsewhere and (unknown := sorted(there - known)):
            raise GateReferenceError(
                f"The reference has no {what} {', '.join(unknown)}. Make a new one, which has all that is judged: "
                "`python -m mnist_ablate gate TABLE --accept --reference DIR --why TEXT`."
            )


def _verdict(levels: tuple[Level, ...], measured: pd.DataFrame) -> Verdict:
    """Combine the levels: any failure fails, equal bits pass at once, otherwise all that apply must pass."""
    same_bits = levels[0].outcome == "pass"  # then only the user's thresholds matter
    failed = [level for level in levels if level.outcome == "fail" and (level.name == "thresholds" or not same_bits)]
    unsure = [level for level in levels if level.outcome == "cannot tell"]
    if failed:
        worst = min((f for level in failed for f in level.findings if f.outcome == "fail"), key=_rank)
        return Verdict("fail", later("Regression: {cause}", cause=worst.sentence), levels, measured)
    if same_bits:
        return Verdict("pass", later("Pass: {cause}", cause=levels[0].sentence), levels, measured)
    if unsure:
        return Verdict("cannot tell", later("Cannot tell: {cause}", cause=unsure[0].sentence), levels, measured)
    return Verdict("pass", later("Pass: {cause}", cause=levels[2].sentence), levels, measured)


def _rank(finding: Finding) -> float:
    """Sort findings by p value, those without one last."""
    return finding.p if not math.isnan(finding.p) else 1.0


def _level(name: str, findings: list[Finding], checks: int, good: str) -> Level:
    """Sum up a level by its worst outcome and the most telling finding; `good` is its sentence if all pass."""
    outcomes = {finding.outcome for finding in findings}
    outcome: Outcome = "fail" if "fail" in outcomes else "cannot tell" if outcomes else "pass"
    first = min((f for f in findings if f.outcome == outcome), key=_rank, default=None)
    return Level(name, outcome, first.sentence if first else good, checks, tuple(findings))


# ---- Level 1: bits ----


def bits(evidence: Evidence, reference: Reference) -> Level:
    """Return level 1: every number and every digest is that of the reference, to the bit."""
    known = reference.evidence
    if not known.digests or not evidence.digests:
        return Level("bits", "not applied", later("there are no digests to compare"))
    first = known.runs[known.runs["repeat"] == 0] if "repeat" in known.runs else known.runs
    equal = {
        mark_as("gate", "weights"): dict(evidence.digests) == dict(known.digests),
        mark_as("gate", "numbers of the runs"): _same_rows(evidence.runs, first),
        mark_as("gate", "golden runs"): _same_rows(evidence.trace, known.trace),
        mark_as("gate", "stored network"): dict(evidence.checkpoint) == dict(known.checkpoint)
        and np.array_equal(evidence.predictions, known.predictions),
    }
    if all(equal.values()):
        sentence = later("every bit of {n} runs is that of the reference", n=len(known.digests))
        return Level("bits", "pass", sentence, len(equal))
    differ = later_by(_named, [name for name, same in equal.items() if not same])
    exact = {side.machine.get("engine") for side in (evidence, known)} == {"fused"}
    if exact:
        sentence = later("bits differ ({parts}), so the arithmetic has changed", parts=differ)
    else:
        sentence = later("bits differ ({parts}), as they may with the engine autograd", parts=differ)
    return Level("bits", "not applied", sentence, len(equal))


def _named(parts: list[str]) -> str:
    return ", ".join(told_as("gate", part) for part in parts)


def _same_rows(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    keys = [name for name in ("cell", "seed", "response", "what", "at") if name in a]
    a, b = (table.sort_values(keys)[[*keys, "value"]].reset_index(drop=True) for table in (a, b))
    return len(a) == len(b) and a.equals(b.astype(a.dtypes))


# ---- Level 2: golden runs and the stored network ----


def golden(evidence: Evidence, reference: Reference, *, changed_on_purpose: bool = False) -> Level:
    """Return level 2: short runs follow the reference step by step, and a stored network predicts what it did."""
    known = reference.evidence
    if reference.limits.empty or (evidence.trace.empty and not evidence.checkpoint):
        return Level("golden", "not applied", later("no golden runs were made"))
    if changed_on_purpose:
        findings = list(_checkpoint(evidence, known, ("test_loss", "test_accuracy")))
        good = later("changed on purpose: golden runs are not judged; the stored network holds")
        return _level("golden", findings, 3, good)
    engine = "same" if evidence.machine.get("engine") == known.machine.get("engine") else "other"
    groups = group_cells(reference.contrasts)
    limits = at_any_step(reference.limits[reference.limits["engine"] == engine], groups)
    compared = side_by_side(evidence.trace, known.trace)
    courses = (_course(name, cells, limits[limits["group"] == name], compared) for name, cells in groups.items())
    findings = [finding for finding in courses if finding]
    findings += _checkpoint(evidence, known, tuple(known.checkpoint))
    return _level("golden", findings, len(limits), later("golden runs follow the reference to within rounding"))


def _course(group: str, cells: list[str], limits: pd.DataFrame, compared: pd.DataFrame) -> Finding | None:
    """Find where all cells of a group first leave the reference's course by more than rounding takes the group.

    Parameters
    ----------
    group, cells
        The group's name and its cells.
    limits
        The rows of `Reference.limits` for the group.
    compared
        What `side_by_side` returned.
    """
    both = departures(compared, {group: cells}).merge(limits, "left", on=["what", "at"])
    beyond = both[both["departure"] > both["limit"].fillna(0.0)]  # no limit: a step or an epoch too many
    if beyond.empty:
        return None
    steps = beyond[beyond["what"] == "step"]
    first = (steps if len(steps) else beyond).sort_values("at").iloc[0]
    what, at = first["what"], int(first["at"])
    runs = compared[(compared["what"] == what) & (compared["at"] == at) & compared["cell"].isin(cells)]
    run = runs.sort_values("departure").iloc[0]
    where = later("loss of step {at}", at=at) if what == "step" else later("{what} after epoch {at}", what=what, at=at)
    if math.isnan(run["was"]) or math.isnan(run["now"]):
        sentence = later(
            "golden runs ({group}): {where} is missing, or was not in the reference.",
            group=later_by(_group, group), where=where,
        )  # fmt: skip
    else:
        sentence = later(
            "golden runs ({group}), {where}: off by {departure} or more, while rounding explains {limit} at most (cell "
            "{cell}: {now}, was {was}). {hint}",
            group=later_by(_group, group), where=where, departure=_number(first["departure"], ".1e"),
            limit=_number(first["limit"], ".0e"), cell=run["cell"], now=_number(run["now"], ".7g"),
            was=_number(run["was"], ".7g"), hint=_hint(what, at),
        )  # fmt: skip
    return Finding("fail", f"{what} {at}, {group}", sentence)


def _group(name: str) -> str:
    """Write the name of a group of `mnist_ablate.gate.golden.group_cells` in the language of the page."""
    what, _, which = name.rpartition(" ")
    match what:
        case "cells with":
            return say("cells with {name}", name=which)
        case "cells without":
            return say("cells without {name}", name=which)
        case "cell":
            return say("cell {name}", name=which)
    return say("all cells")


def _hint(what: str, at: int) -> str:
    """Return where to look first."""
    if what != "step":
        return later("All steps agree, so look at the evaluation.")
    if at == 1:
        return later("It is the first step: look at images, labels, initial weights, random streams, the loss.")
    return later(
        "The first step agrees: look at gradients, the optimiser, the order of images, what happens between epochs."
    )


def _checkpoint(evidence: Evidence, known: Evidence, names: tuple[str, ...]) -> Iterator[Finding]:
    """Yield what the stored network gives differently from the reference."""
    for name in names if known.checkpoint else ():
        limit = CHECKPOINT_LIMITS["accuracy" if name.endswith("accuracy") else "loss"]
        was, now = known.checkpoint[name], evidence.checkpoint.get(name, math.nan)
        if not abs(now - was) <= limit * (1 + 1e-9):
            sentence = later(
                "the stored network gives {name} = {now}, not {was}: the evaluation differs.",
                name=name, now=_number(now, ".7g"), was=_number(was, ".7g"),
            )  # fmt: skip
            yield Finding("fail", f"checkpoint {name}", sentence)
    if n := len(known.predictions):
        same_length = len(evidence.predictions) == n
        changed = int((evidence.predictions != known.predictions).sum()) if same_length else n
        if changed > CHANGED_PREDICTIONS:
            sentence = later(
                "the stored network predicts something else for {changed} of {n} test images.", changed=changed, n=n
            )
            yield Finding("fail", "checkpoint predictions", sentence)


# ---- Level 3: shifts of the mean ----


def statistical(measured: pd.DataFrame, *, in_units: bool = True) -> Level:
    """Return level 3: no contrast of any response has moved by more than chance explains, nor may have.

    With `in_units`, accuracies are in percentage points and losses in nats.
    """
    rows = list(measured.reset_index().itertuples())
    main = next((row for row in rows if (row.contrast, row.response) == ("mean", "test_accuracy")), rows[0])
    good = later(
        "{response} moved by {shift} in the mean, where {limit} would show, and none of {n} shifts is more than chance",
        response=main.response, shift=_number(main.shift, "+.3f"), limit=_number(main.limit, ".2g"), n=len(rows),
    )  # fmt: skip
    return _level(
        "statistical", [finding for row in rows if (finding := _shift(row, in_units=in_units))], len(rows), good
    )


def _shift(row: Any, *, in_units: bool) -> Finding | None:
    """Fail beyond the limit, pass if the interval lies inside it, otherwise it cannot be told.

    Parameters
    ----------
    row
        A row of `mnist_ablate.gate.shifts.shifts`.
    in_units
        See `statistical`.
    """
    size, check = abs(row.shift), f"{row.response}, {row.contrast}"
    where = mark("mean of all cells") if row.contrast == "mean" else row.contrast
    what = later("{response} ({where})", response=row.response, where=where)
    if size > 0 and row.limit == 0:
        sentence = later(
            "{what}: moved by {size}, and the null bank has no spread to judge it by.",
            what=what, size=_number(size, ".2g"),
        )  # fmt: skip
        return Finding("cannot tell", check, sentence)
    unit = "points" if row.response.endswith("accuracy") else mark_as("unit", "nat") if "loss" in row.response else ""
    unit = unit if in_units else ""
    words = {
        "what": what, "was": _number(row.was, ".5g"), "now": _number(row.now, ".5g"), "cell": row.cell,
        "shift": later_by(_with_unit, f"{row.shift:+.4g}", unit), "limit": _number(row.limit, ".2g"),
    }  # fmt: skip
    sentence = later(
        "{what} went from {was} to {now}, by {shift}, most in cell {cell}; chance moves it by {limit} at most", **words
    )
    if size > row.limit:
        if row.p > 1e-9:
            rare = later("{sentence}, 1 in {odds} by chance.", sentence=sentence, odds=_number(1 / row.p, ",.0f"))
        else:
            rare = later("{sentence}, less than 1 in a billion by chance.", sentence=sentence)
        return Finding("fail", check, rare, row.p)
    if size > 0 and row.df < LEAST_FREEDOM:
        few = later(
            "{what} moved by {shift}, and chance is known from {df} degrees of freedom alone, and {least} are needed: "
            "accept a reference of more seeds or repeats.",
            df=f"{row.df:.0f}", least=LEAST_FREEDOM, **words,
        )  # fmt: skip
        return Finding("cannot tell", check, few, row.p)
    if size > 0 and size + row.margin > row.limit:
        close = later("{sentence}: too close to say; more seeds would tell.", sentence=sentence)
        return Finding("cannot tell", check, close, row.p)
    return None


# ---- Level 4: single runs ----


def floor(evidence: Evidence, reference: Reference) -> Level:
    """Return level 4: every single run is finite, and not far worse than its cell."""
    limits = floors(reference, len(evidence.runs.drop_duplicates(["cell", "seed"])))
    runs = limits.merge(evidence.runs, on=["cell", "response"]).groupby(["cell", "response"], sort=False)
    findings = [finding for _, of_cell in runs if (finding := _worst(of_cell, reference))]
    return _level("floor", findings, len(limits), later("no single run is far worse than its cell"))


def _asked(reference: Reference, response: str) -> str:
    """Ask which way a response is better, if nobody has said it and its name does not."""
    if reference.declared(response) or reference.better(response) != "neither":
        return ""
    return later("Is that worse? {remedy}", remedy=_to_declare(response))


def _to_declare(response: str) -> str:
    return later(
        'Write {response} = "higher" or "lower" under [gate.better] in gate.toml.', response=json.dumps(response)
    )


def _worst(runs: pd.DataFrame, reference: Reference) -> Finding | None:
    """Find the first run of a cell whose value is not finite, or else the one that is furthest beyond a limit."""
    infinite = runs[~np.isfinite(runs["value"])]
    beyond = np.maximum(runs["floor"] - runs["value"], runs["value"] - runs["ceiling"])
    worst = infinite.iloc[0] if len(infinite) else runs.iloc[int(np.argmax(beyond))]
    response = str(worst["response"])
    asked, words = _asked(reference, response), {"cell": worst["cell"], "seed": worst["seed"], "response": response}
    if len(infinite):
        return Finding("fail", "not finite", later("{cell}, seed {seed}: {response} is not finite.", **words))
    if worst["value"] < worst["floor"]:
        words |= {"value": _number(worst["value"], ".5g"), "floor": _number(worst["floor"], ".5g")}
        sentence = later("{cell}, seed {seed}: {response} {value}, below {floor}.", **words)
        return Finding("fail", response, _with_question(sentence, asked))
    if worst["value"] > worst["ceiling"]:
        words |= {"value": _number(worst["value"], ".5g"), "ceiling": _number(worst["ceiling"], ".5g")}
        sentence = later("{cell}, seed {seed}: {response} {value}, above {ceiling}.", **words)
        return Finding("fail", response, _with_question(sentence, asked))
    return None


def _with_question(sentence: str, asked: str) -> str:
    return later("{sentence} {question}", sentence=sentence, question=asked) if asked else sentence


def floors(reference: Reference, runs: int) -> pd.DataFrame:
    """Return the least or the largest value of each cell and response, for a gate of `runs` runs.

    They are max(`FLOOR_POINTS`, t s sqrt(1 + 1/m)) from the mean, with the standard deviation s of the m seeds of the
    null bank, on the side that is worse; on both, with half the chance each, where nobody says which that is. A loss
    whose direction is not declared needs only be finite.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``response``, ``floor``, ``ceiling``; infinite where there is no limit.
    """
    bank = reference.bank[reference.bank["repeat"] == reference.bank["repeat"].min()]
    table = bank.groupby(["cell", "response"], sort=False)["value"].agg(["mean", "std", "size"]).reset_index()
    n, better = table["size"], table["response"].map(reference.better)
    alpha = reference.rules.budget * _FLOOR_SHARE / runs / np.where(better == "neither", 2, 1)
    width = stats.t.isf(alpha, n - 1) * table["std"] * np.sqrt(1 + 1 / n)
    in_points = table["response"].str.endswith("accuracy") & (not reference.elsewhere)
    width = np.maximum(np.where(in_points, FLOOR_POINTS, 0.0), width)
    a_loss = table["response"].str.contains("loss") & table["response"].map(reference.declared).isna()
    table["floor"] = (table["mean"] - width).mask((better == "lower") | (n < 2), -math.inf)
    table["ceiling"] = (table["mean"] + width).mask((better == "higher") | a_loss | (n < 2), math.inf)
    limits: pd.DataFrame = table[["cell", "response", "floor", "ceiling"]]
    return limits


# ---- Thresholds of the user ----


def thresholds(evidence: Evidence, reference: Reference, measured: pd.DataFrame) -> Level:
    """Return whether the mean of all runs reaches the user's thresholds, with its distance in standard errors."""
    wanted = reference.rules.thresholds
    if not wanted:
        return Level("thresholds", "not applied", later("none are set"))
    findings, distances = [], []
    for response, value in wanted.items():
        values = evidence.runs[evidence.runs["response"] == response]["value"]
        if values.empty:
            raise GateReferenceError(f"gate.thresholds.{response}: no such response in the runs.")
        better = reference.better(response)
        if better == "neither":
            raise GateReferenceError(
                f"gate.thresholds.{response}: at least that much, or at most? {_to_declare(response)}"
            )
        limit, mean = (1 if reference.elsewhere else scale(response)) * value, float(values.mean())
        if not (mean <= limit if better == "lower" else mean >= limit):
            sentence = later(
                "{response} is {mean} in the mean; the threshold is {limit}.",
                response=response, mean=_number(mean, ".5g"), limit=_number(limit, "g"),
            )  # fmt: skip
            findings.append(Finding("fail", response, sentence))
        if ("mean", response) in measured.index:  # not where some cells lack the response
            distance = abs(mean - limit) / float(measured["se"]["mean", response])
            distances.append(later(
                "{response} is {distance} standard errors of chance from {limit}",
                response=response, distance=_number(distance, ".3g"), limit=_number(limit, "g"),
            ))  # fmt: skip
    level = _level("thresholds", findings, len(wanted), "")
    return replace(level, sentence=later_by(_together, [*filter(None, [level.sentence]), *distances]))


def _together(sentences: list[str]) -> str:
    return "; ".join(map(told, sentences))


# ---- Words ----


def _number(value: Any, spec: str) -> str:
    """Write a number, to be written again as the language of a page does."""
    return later_by(figures, format(value, spec))


def _with_unit(number: str, unit: str) -> str:
    return f"{figures(number)} {told_as('unit', unit)}" if unit else figures(number)
