"""The regression gate: training has not got worse, nor better without a reason, since the reference was accepted.

Four levels look at the same `Evidence`, and plain thresholds for those who want them; a level that fails fails the
gate. Pure functions of tables: what trains is in `gate_runs`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.responses import scale
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.gate import golden as gate_golden
from mnist_ablate.gate.reference import Evidence, Reference, long_table, same_study
from mnist_ablate.gate.shifts import shifts

Outcome = Literal["pass", "fail", "cannot tell", "not applied"]
_EXIT = {"pass": 0, "fail": 1, "cannot tell": 3}

_FLOOR_SHARE = 0.1
"""Of the budget of false alarms, the floor's; the statistical level has its own. What is left covers the golden
level, whose limits are set by measurement."""
FLOOR_POINTS = 1.0
"""Percentage points of accuracy that one run may always lie below the mean of its cell."""
CHANGED_PREDICTIONS = 2
"""Test images of which a stored network may say something else: ties, which rounding decides."""
CHECKPOINT_LIMITS = {"loss": 1e-5, "accuracy": 0.02}
"""What rounding may do to the numbers of a stored network: nats, and percentage points (2 images in 10,000)."""

_SAME_MACHINE = ("python", "torch", "numpy", "numba", "platform", "processor", "cpu_capability", "environment")


@dataclass(frozen=True)
class Finding:
    """Why a check does not pass: a sentence, how it came out, and how unlikely it is by chance (NaN: not known)."""

    outcome: Outcome
    check: str
    sentence: str
    p: float = math.nan


@dataclass(frozen=True)
class Level:
    """What a level says: outcome, one sentence, the number of its checks, and those that do not pass."""

    name: str
    outcome: Outcome
    sentence: str
    checks: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Pass, fail or cannot tell; the levels that it comes from; the shifts that were measured."""

    outcome: Outcome
    sentence: str
    levels: tuple[Level, ...]
    shifts: pd.DataFrame

    @property
    def exit_status(self) -> int:
        """0 pass, 1 fail, 3 cannot tell."""
        return _EXIT[self.outcome]


def check(results: Evidence | pd.DataFrame, reference: Reference, *, changed_on_purpose: bool = False) -> Verdict:
    """Judge `results` by `reference`.

    Parameters
    ----------
    results
        What `gate_runs.measure` or `gate_reference.evidence_of` returns, or any table with the columns ``cell``,
        ``seed``, ``value`` and optionally ``response``.
    reference
        What `gate_reference.load_reference` or `Reference.of_tables` returns.
    changed_on_purpose
        Random streams, initial weights or the order of arithmetic were changed on purpose: the golden trajectory is
        not judged, and runs of one seed count as strangers, so the limits of the statistical level are wider.

    Raises
    ------
    GateReferenceError
        If the two cannot be compared.
    """
    evidence = results if isinstance(results, Evidence) else Evidence(long_table(results))
    _comparable(evidence, reference)
    course = golden(evidence, reference, changed_on_purpose=changed_on_purpose)
    if evidence.runs.empty:  # the golden runs have ended it
        return _verdict((bits(evidence, reference), course), pd.DataFrame())
    measured = shifts(evidence.runs, reference, paired=not changed_on_purpose)
    levels = (
        bits(evidence, reference),
        course,
        statistical(measured),
        floor(evidence, reference),
        thresholds(evidence, reference, measured),
    )
    return _verdict(levels, measured)


def broken(cause: str) -> Verdict:
    """Give the verdict where training itself fails: there is nothing to compare, and that is a regression."""
    finding = Finding("fail", "training", cause)
    return Verdict("fail", f"Regression: {cause}", (Level("training", "fail", cause, 1, (finding,)),), pd.DataFrame())


def _comparable(evidence: Evidence, reference: Reference) -> None:
    if not same_study(evidence.study, reference.evidence.study):
        raise GateReferenceError(
            "The results are of another study than the reference. Make a reference of this one with "
            "`python -m mnist_ablate gate --accept --why TEXT`, or give its folder with --reference."
        )
    images = [side.machine.get("data", "") for side in (evidence, reference.evidence)]
    if all(images) and images[0] != images[1]:
        raise GateReferenceError("the results are of other images than the reference: their SHA-256 differ.")
    missing = set(reference.evidence.runs["cell"]) - set(evidence.runs["cell"])
    if missing and not evidence.runs.empty:
        raise GateReferenceError(f"no runs of the cells {', '.join(sorted(missing))}, which the reference has.")


def _verdict(levels: tuple[Level, ...], measured: pd.DataFrame) -> Verdict:
    """Put the levels together: any failure fails; equal bits pass at once; else all that apply must pass."""
    same = levels[0].outcome == "pass"  # then only the user's thresholds have a say
    failed = [level for level in levels if level.outcome == "fail" and not (same and level.name != "thresholds")]
    unsure = [level for level in levels if level.outcome == "cannot tell"]
    if failed:
        found = min((f for level in failed for f in level.findings if f.outcome == "fail"), key=_rank)
        return Verdict("fail", f"Regression: {found.sentence}", levels, measured)
    if same:
        return Verdict("pass", f"Pass: {levels[0].sentence}", levels, measured)
    if unsure:
        return Verdict("cannot tell", f"Cannot tell: {unsure[0].sentence}", levels, measured)
    return Verdict("pass", f"Pass: {levels[2].sentence}", levels, measured)


def _rank(finding: Finding) -> float:
    """Let a check with a probability speak first, the smallest first; what shows without one, after it."""
    return finding.p if not math.isnan(finding.p) else 1.0


def bits(evidence: Evidence, reference: Reference) -> Level:
    """Level 1: every number and every digest as in the reference, to the bit."""
    known = reference.evidence
    if not known.digests or not evidence.digests:
        return Level("bits", "not applied", "there are no digests to compare")
    first = known.runs[known.runs["repeat"] == 0] if "repeat" in known.runs else known.runs
    equal = {
        "weights": dict(evidence.digests) == dict(known.digests),
        "numbers of the runs": _same_rows(evidence.runs, first),
        "golden runs": _same_rows(evidence.trace, known.trace),
        "stored network": _same_checkpoint(evidence, known),
    }
    if all(equal.values()):
        return Level("bits", "pass", f"every bit of {len(known.digests)} runs is that of the reference", len(equal))
    differ = ", ".join(name for name, same in equal.items() if not same)
    other = [key for key in _SAME_MACHINE if evidence.machine.get(key) != known.machine.get(key)]
    why = f"another machine or other versions ({', '.join(other)})" if other else "on the same machine and versions"
    return Level("bits", "not applied", f"bits differ ({differ}), {why}", len(equal))


def _same_rows(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    keys = [name for name in ("cell", "seed", "response", "what", "at") if name in a]
    a, b = (table.sort_values(keys)[[*keys, "value"]].reset_index(drop=True) for table in (a, b))
    return len(a) == len(b) and a.equals(b.astype(a.dtypes))


def _same_checkpoint(evidence: Evidence, known: Evidence) -> bool:
    return dict(evidence.checkpoint) == dict(known.checkpoint) and np.array_equal(
        evidence.predictions, known.predictions
    )


@dataclass(frozen=True)
class Course:
    """A group of golden runs must not leave the reference's course by more than rounding takes the group.

    Parameters
    ----------
    group
        Its name.
    cells
        Its cells.
    limits
        Rows of `Reference.limits` for the group: ``what``, ``at``, ``limit``.
    """

    group: str
    cells: list[str]
    limits: pd.DataFrame

    def __call__(self, compared: pd.DataFrame) -> Finding | None:
        """Find where all cells of the group have left it first; `compared` is of `gate_golden.compare`."""
        smallest = gate_golden.departures(compared, {self.group: self.cells})
        both = smallest.merge(self.limits, "left", on=["what", "at"])
        over = both[both["departure"] > both["limit"].fillna(0.0)]  # without a limit: a step or an epoch too many
        if over.empty:
            return None
        steps = over[over["what"] == "step"]
        first = (steps if len(steps) else over).sort_values("at").iloc[0]
        mine = compared[(compared["what"] == first["what"]) & (compared["at"] == first["at"])]
        mine = mine[mine["cell"].isin(self.cells)].sort_values("departure")
        return Finding("fail", f"{first['what']} {first['at']}, {self.group}", self._sentence(first, mine.iloc[0]))

    def _sentence(self, first: Any, run: Any) -> str:
        where = "loss of step" if first["what"] == "step" else f"{first['what']} after epoch"
        if math.isnan(run["was"]) or math.isnan(run["now"]):
            return f"golden runs ({self.group}): {where} {first['at']} is missing, or was not there in the reference."
        return (
            f"golden runs ({self.group}), {where} {first['at']}: off by {first['departure']:.1e} or more, where "
            f"rounding comes to {first['limit']:.0e} at most (cell {run['cell']}: "
            f"{run['now']:.7g}, was {run['was']:.7g}). {_hint(first['what'], first['at'])}"
        )


def _hint(what: str, at: int) -> str:
    """Say where to look first."""
    if what != "step":
        return "All steps agree, so look at the evaluation."
    if at == 1:
        return "It is the first step: look at images, labels, initial weights, random streams, the loss."
    return "The first step agrees: look at gradients, the optimiser, the order of images, what happens between epochs."


def golden(evidence: Evidence, reference: Reference, *, changed_on_purpose: bool = False) -> Level:
    """Level 2: short runs follow the reference's course step by step, and a stored network says what it said."""
    known = reference.evidence
    if reference.limits.empty or (evidence.trace.empty and not evidence.checkpoint):
        return Level("golden", "not applied", "no golden runs were made")
    if changed_on_purpose:
        findings = list(_checkpoint(evidence, known, ("test_loss", "test_accuracy")))
        return _level("golden", findings, 3, "changed on purpose: golden runs are not judged; the stored network holds")
    engine = "same" if evidence.machine.get("engine") == known.machine.get("engine") else "other"
    members = gate_golden.groups(reference.contrasts)
    limits = gate_golden.at_any_step(reference.limits[reference.limits["engine"] == engine], members)
    compared = gate_golden.compare(evidence.trace, known.trace)
    courses = [Course(name, cells, limits[limits["group"] == name]) for name, cells in members.items()]
    findings = [found for course in courses if (found := course(compared))]
    findings += _checkpoint(evidence, known, tuple(known.checkpoint))
    return _level("golden", findings, len(limits), "golden runs follow the reference to within rounding")


def _checkpoint(evidence: Evidence, known: Evidence, names: tuple[str, ...]) -> Iterator[Finding]:
    """Find what the stored network gives otherwise than in the reference."""
    for name in names if known.checkpoint else ():
        limit = CHECKPOINT_LIMITS["accuracy" if name.endswith("accuracy") else "loss"]
        was, now = known.checkpoint[name], evidence.checkpoint.get(name, math.nan)
        if not abs(now - was) <= limit * (1 + 1e-9):
            sentence = (
                f"the stored network gives {name} = {now:.7g}, in the reference {was:.7g}: the evaluation differs."
            )
            yield Finding("fail", f"checkpoint {name}", sentence)
    if len(known.predictions):
        same = len(evidence.predictions) == len(known.predictions)
        changed = int((evidence.predictions != known.predictions).sum()) if same else len(known.predictions)
        if changed > CHANGED_PREDICTIONS:
            sentence = f"the stored network says something else of {changed} of {len(known.predictions)} test images."
            yield Finding("fail", "checkpoint predictions", sentence)


def _level(name: str, findings: list[Finding], checks: int, good: str) -> Level:
    """Sum up a level's checks: the worst outcome, and the sentence of the finding that says most."""
    outcomes = {finding.outcome for finding in findings}
    outcome: Outcome = "fail" if "fail" in outcomes else "cannot tell" if outcomes else "pass"
    first = min((f for f in findings if f.outcome == outcome), key=_rank, default=None)
    return Level(name, outcome, first.sentence if first else good, checks, tuple(findings))


@dataclass(frozen=True)
class Shift:
    """One contrast of one response must not have moved: a row of `gate_shifts.shifts`."""

    contrast: str
    response: str
    was: float
    now: float
    shift: float
    limit: float
    margin: float
    p: float
    cell: str

    def __call__(self) -> Finding | None:
        """Fail beyond the limit; pass where the interval lies inside it; else it cannot be told."""
        size, name = abs(self.shift), f"{self.response}, {self.contrast}"
        if size > 0 == self.limit:
            sentence = f"{self._what}: moved by {size:.2g}, and the null bank has no spread to judge it by."
            return Finding("cannot tell", name, sentence)
        if size > self.limit:
            return Finding("fail", name, f"{self._sentence}, {_odds(self.p)}.", self.p)
        if size > 0 and size + self.margin > self.limit:
            return Finding("cannot tell", name, f"{self._sentence}: too near to say; more seeds would tell.", self.p)
        return None

    @property
    def _what(self) -> str:
        where = "mean of all cells" if self.contrast == "mean" else self.contrast
        return f"{self.response} ({where})"

    @property
    def _sentence(self) -> str:
        unit = " points" if self.response.endswith("accuracy") else " nat" if "loss" in self.response else ""
        return (
            f"{self._what} went from {self.was:.5g} to {self.now:.5g}, by {self.shift:+.4g}{unit}, most in cell "
            f"{self.cell}; chance moves it by {self.limit:.2g} at most"
        )


def _odds(p: float) -> str:
    return f"1 in {1 / p:,.0f} by chance" if p > 1e-9 else "less than 1 in a billion by chance"


def statistical(measured: pd.DataFrame) -> Level:
    """Level 3: no contrast of any response has moved by more than chance, nor may have, as far as can be seen."""
    names = [one.name for one in fields(Shift)]
    rows = [Shift(**dict(zip(names, row, strict=True))) for row in measured.reset_index()[names].to_numpy(object)]
    main = next((row for row in rows if (row.contrast, row.response) == ("mean", "test_accuracy")), rows[0])
    good = (
        f"{main.response} moved by {main.shift:+.3f} in the mean, where {main.limit:.2g} would show, "
        f"and none of {len(rows)} shifts is more than chance"
    )
    return _level("statistical", [found for row in rows if (found := row())], len(rows), good)


@dataclass(frozen=True)
class Floor:
    """No single run may lie far below what runs of its cell give, nor have a value that is not finite.

    The limit is mean - max(`FLOOR_POINTS`, t s sqrt(1 + 1/m)), with mean and s of the m seeds of the null bank.
    """

    cell: str
    response: str
    floor: float

    def __call__(self, runs: pd.DataFrame) -> Finding | None:
        """Find the lowest run, if it is too low; the first one without a finite value."""
        mine = runs[(runs["cell"] == self.cell) & (runs["response"] == self.response)]
        finite = mine[np.isfinite(mine["value"])]
        if len(finite) < len(mine):
            seed = mine[~np.isfinite(mine["value"])]["seed"].iloc[0]
            return Finding("fail", "not finite", f"{self.cell}, seed {seed}: {self.response} is not finite.")
        if mine.empty or mine["value"].min() >= self.floor:
            return None
        worst = mine.sort_values("value").iloc[0]
        sentence = f"{self.cell}, seed {worst['seed']}: {self.response} {worst['value']:.5g}, below {self.floor:.5g}."
        return Finding("fail", self.response, sentence)


def floors(reference: Reference, runs: int) -> list[Floor]:
    """Set the floor of every cell and response for a gate of `runs` runs; losses need only be finite."""
    alpha = reference.rules.budget * _FLOOR_SHARE / runs
    bank = reference.bank
    first = bank[bank["repeat"] == bank["repeat"].min()]
    found = []
    for keys, values in first.groupby(["cell", "response"], sort=False)["value"]:
        cell, response = map(str, keys)
        found.append(Floor(cell, response, _floor(response, len(values), values.mean(), values.std(), alpha)))
    return found


def _floor(response: str, n: int, mean: float, sd: float, alpha: float) -> float:
    if "loss" in response or n < 2:
        return -math.inf
    width = float(stats.t.isf(alpha, n - 1)) * sd * math.sqrt(1 + 1 / n)
    return mean - max(FLOOR_POINTS if response.endswith("accuracy") else 0.0, width)


def floor(evidence: Evidence, reference: Reference) -> Level:
    """Level 4: every single run is finite, and not far below its cell."""
    runs = evidence.runs.drop_duplicates(["cell", "seed"])
    checks = floors(reference, len(runs))
    findings = [found for one in checks if (found := one(evidence.runs))]
    return _level("floor", findings, len(checks), "no single run is far below its cell")


@dataclass(frozen=True)
class Threshold:
    """The mean of a response over all runs must reach a number that the user chose."""

    response: str
    wanted: float

    def __call__(self, now: float) -> Finding | None:
        """Compare: a loss must be at most, anything else at least what is wanted."""
        good = now <= self.wanted if "loss" in self.response else now >= self.wanted
        if good:
            return None
        return Finding("fail", self.response, f"{self.response} is {now:.5g} in the mean, wanted {self.wanted:g}.")


def thresholds(evidence: Evidence, reference: Reference, measured: pd.DataFrame) -> Level:
    """Plain thresholds, each with how far from it the runs lie, in standard errors of chance."""
    wanted = reference.rules.thresholds
    if not wanted:
        return Level("thresholds", "not applied", "none are set")
    findings, said = [], []
    rows = measured.reset_index()
    errors = {name: se for contrast, name, se in rows[["contrast", "response", "se"]].to_numpy() if contrast == "mean"}
    for response, value in wanted.items():
        mine = evidence.runs[evidence.runs["response"] == response]["value"]
        if mine.empty:
            raise GateReferenceError(f"gate.thresholds.{response}: no such response in the runs.")
        limit = scale(response) * value
        findings.append(Threshold(response, limit)(float(mine.mean())))
        away = abs(mine.mean() - limit) / float(errors[response])
        said.append(f"{response} is {away:.3g} standard errors of chance from {limit:g}")
    level = _level("thresholds", [f for f in findings if f], len(wanted), "")
    return replace(level, sentence="; ".join(filter(None, [level.sentence, *said])))
