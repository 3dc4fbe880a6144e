"""Judge what ``power.py`` trained, by every level of the gate and as people do without one."""

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.responses import scale
from mnist_ablate.gate.judge import Level, Verdict, golden
from mnist_ablate.gate.judge import judge as judge_evidence
from mnist_ablate.gate.reference import (
    FIRST,
    RESPONSES,
    RUN_COLUMNS,
    Evidence,
    Reference,
    trace_table,
)
from mnist_ablate.gate.runs import STRANGERS
from mnist_ablate.gate.shifts import contrast_values, shift_limits

LEVELS = ("golden", "statistical", "floor")
PURPOSE = "changed on purpose"
ALONE = "golden alone"
PEERS = {
    "one run": "one run, accuracy at least what one run gives, rounded down to half a point",
    "three runs": "the mean of three seeds, the same threshold",
    "approx, 1 point": "one run, `pytest.approx(stored, abs=0.01)`",
    "approx": "one run, `pytest.approx(stored)`",
    "all runs": "the mean of as many runs as the gate has, threshold at 1 false alarm in 1,000",
}
PEER_CELL = "l2+dropout+batch_norm"
DRAWS = 100_000


def read_items(work: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """Read what was trained: by seed set and name."""
    found = {}
    for path in sorted((work / "items").glob("*.json.gz")):
        index, _, name = path.name.removesuffix(".json.gz").partition("-")
        found[int(index), name] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def evidence_of(item: dict[str, Any], study: Any) -> Evidence:
    """Lay out an item as the gate takes it."""
    rows = [
        (run["cell"], run["seed"], name, scale(name) * _number(run["rows"][-1][name]))
        for run in item["runs"]
        for name in RESPONSES
    ]
    rows += [(run["cell"], run["seed"], FIRST, _number(run["rows"][0]["train_loss"])) for run in item["runs"]]
    golden = item["golden"]
    return Evidence(
        pd.DataFrame(rows, columns=RUN_COLUMNS),
        trace_table(
            {run["cell"]: run["losses"] for run in golden}, [(r["cell"], e) for r in golden for e in r["rows"]]
        ),
        item.get("checkpoint", {}),
        np.array(item.get("predictions", []), np.uint8),
        {f"{run['cell']}/{run['seed']}": run["digest"] for run in item["runs"]},
        (item["runs"] or golden or [{"machine": {}}])[0]["machine"],
        study,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def set_reference(items: dict[tuple[int, str], dict[str, Any]], index: int, committed: Reference) -> Reference:
    """Make the clean reference of a seed set: its own runs, the committed null bank and limits."""
    study = committed.evidence.study
    parts = [evidence_of(items[index, name], study) for name in ("reference", "reference-1", "reference-2")]
    runs = pd.concat([part.runs.assign(repeat=repeat) for repeat, part in enumerate(parts)], ignore_index=True)
    return replace(committed, evidence=replace(parts[0], runs=runs))


def judge(items: dict[tuple[int, str], dict[str, Any]], committed: Reference) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge every item by every level.

    Returns
    -------
    tuple
        A row per seed set, item and way to judge; and every shift: `shifts` by seed set and item.
    """
    rows, moved = [], []
    for index, name in items:
        if name.startswith("reference") or not all((index, f"reference{k}") in items for k in ("", "-1", "-2")):
            continue
        who = {"set": index, "item": name}
        reference = set_reference(items, index, committed)
        evidence = evidence_of(items[index, name], reference.evidence.study)
        verdict = None if "error" in items[index, name] else judge_evidence(evidence, reference)
        if verdict is not None:
            shifts = verdict.shifts.reset_index().assign(set=index, item=name)
            moved.append(shifts[["set", "item", "contrast", "response", "shift", "se"]])
        rows += [who | row for row in _outcomes(items[index, name], verdict)]
        if verdict is not None:
            peers = _peers(items, index, name, evidence, reference)
            rows += [who | {"level": peer, "outcome": outcome} for peer, outcome in peers.items()]
    rows += [*_on_purpose(items, committed), *_golden_alone(items, committed)]
    return pd.DataFrame(rows), pd.concat(moved, ignore_index=True)


def _golden_alone(items: dict[tuple[int, str], dict[str, Any]], committed: Reference) -> Iterator[dict[str, Any]]:
    """Judge the seed sets of clean golden runs: those without runs for the other levels."""
    for (index, name), item in items.items():
        if item["runs"] or not name.startswith("clean") or (index, "reference") not in items:
            continue
        study = committed.evidence.study
        reference = replace(committed, evidence=evidence_of(items[index, "reference"], study))
        level = golden(evidence_of(item, study), reference)
        yield {"set": index, "item": name, "level": ALONE, "outcome": level.outcome, "check": _check(level)}


def _on_purpose(items: dict[tuple[int, str], dict[str, Any]], committed: Reference) -> Iterator[dict[str, Any]]:
    """Judge as `gate --changed-on-purpose` does: strangers' seeds, here of several sets, by the committed reference.

    No set shares a seed with the null bank, so random numbers, initial weights and batches are others, as they are
    after such a change.
    """
    whole = sorted((name, index) for (index, name), item in items.items() if item["runs"] or "error" in item)
    for name in dict.fromkeys(name for name, _ in whole if not name.startswith("reference")):
        sets = [index for item, index in whole if item == name]
        for first in range(0, len(sets) - STRANGERS + 1, STRANGERS):
            group = [items[index, name] for index in sets[first : first + STRANGERS]]
            who = {"set": sets[first], "item": name, "level": PURPOSE}
            if error := next((item["error"] for item in group if "error" in item), ""):
                yield who | {"outcome": "fail", "check": error}
                continue
            verdict = judge_evidence(_together(group, committed), committed, changed_on_purpose=True)
            yield who | {"outcome": verdict.outcome, "check": verdict.sentence}


def _together(group: list[dict[str, Any]], committed: Reference) -> Evidence:
    """Take the runs of several seed sets as those of one gate, which has looked at a stored network once."""
    parts = [evidence_of(item, committed.evidence.study) for item in group]
    return replace(parts[0], runs=pd.concat([part.runs for part in parts], ignore_index=True))


def _outcomes(item: dict[str, Any], verdict: Verdict | None) -> Iterator[dict[str, Any]]:
    """Lay out a verdict, a row for all levels together and for each; without one, training fails for everybody."""
    seconds = {"golden_seconds": item.get("golden_seconds", math.nan), "seconds": item["seconds"]}
    if verdict is None:
        for way in ("all levels", *LEVELS, *PEERS):
            yield {"level": way, "outcome": "fail", "check": item["error"], **seconds}
        return
    mean = {
        name: shift for contrast, name, shift in verdict.shifts.reset_index()[_MOVED].to_numpy() if contrast == "mean"
    }
    sizes = {"points": mean["test_accuracy"], "nats": mean["val_loss"]} | seconds
    yield {"level": "all levels", "outcome": verdict.outcome, "check": verdict.sentence, **sizes}
    for level in verdict.levels[:4]:
        yield {"level": level.name, "outcome": level.outcome, "check": _check(level), **sizes}


_MOVED = ["contrast", "response", "shift"]


def _check(level: Level) -> str:
    """Name the check of a level that says most."""
    found = [finding for finding in level.findings if finding.outcome == level.outcome]
    return min(found, key=lambda finding: 1.0 if math.isnan(finding.p) else finding.p).check if found else ""


def _peers(
    items: dict[tuple[int, str], dict[str, Any]], index: int, name: str, evidence: Evidence, reference: Reference
) -> dict[str, str]:
    """Judge as people do: a threshold, or a stored number."""
    mine, stored, bank = (_accuracies(runs) for runs in (evidence.runs, reference.evidence.runs, reference.bank))
    threshold = math.floor(2 * bank[PEER_CELL].mean()) / 2
    one, was = mine[PEER_CELL].iloc[0], stored[PEER_CELL].iloc[0]
    means = bank.groupby("seed").first().mean(axis=1)
    n, m = len(mine), len(means)
    lowest = means.mean() - stats.t.isf(0.001, m - 1) * means.std() * math.sqrt(1 / n + 1 / m)
    verdicts = {
        "one run": one >= threshold,
        "approx, 1 point": abs(one - was) <= 1.0,
        "approx": abs(one - was) <= 1e-6 * abs(was),
        "all runs": float(mine.to_numpy().mean()) >= lowest,
    }
    other = items.get((index + 1, name)) or items.get((index - 1, name))
    if other and other["runs"]:
        third = _accuracies(evidence_of(other, None).runs)[PEER_CELL].iloc[0]
        verdicts["three runs"] = (mine[PEER_CELL].sum() + third) / (n + 1) >= threshold
    return {peer: "pass" if good else "fail" for peer, good in verdicts.items()}


def _accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Give test accuracy in percent: a row per seed (and repeat), a column per cell."""
    keys = ["seed", "repeat"] if "repeat" in runs else ["seed"]
    return runs[runs["response"] == "test_accuracy"].pivot(index=keys, columns="cell", values="value").sort_index()


def clean_runs(items: dict[tuple[int, str], dict[str, Any]]) -> pd.DataFrame:
    """Put together the runs of all clean items and references: `Evidence.runs` with ``set`` and ``item``."""
    tables = [
        evidence_of(item, None).runs.assign(set=index, item=name)
        for (index, name), item in items.items()
        if name.startswith(("reference", "clean")) and item["runs"]
    ]
    return pd.concat(tables, ignore_index=True)


def simulate(clean: pd.DataFrame, committed: Reference, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `DRAWS` gates from clean runs that set no limit, and from a normal distribution with their spread.

    For each of a gate's seeds one version of the run is the candidate's and three others are the reference's.
    """
    clean = clean.assign(repeat=clean["item"].astype("category").cat.codes)
    values = contrast_values(clean[["cell", "seed", "response", "value", "repeat"]], committed.contrasts)
    seeds = [table.drop_duplicates().to_numpy() for _, table in values.groupby("seed")]
    seeds = [versions for versions in seeds if len(versions) > 3]
    n = committed.evidence.runs["seed"].nunique()
    limits = shift_limits(committed, n).loc[values.columns]
    drawn = np.stack([_draw(seeds, n, rng) for _ in range(DRAWS)])
    inner = np.vstack([versions - versions.mean(axis=0) for versions in seeds])
    freedom = len(inner) - len(seeds)
    normal = rng.multivariate_normal(np.zeros(inner.shape[1]), inner.T @ inner / freedom * (1 + 1 / 3) / n, DRAWS)
    rows = []
    for name, shifts in (("runs", drawn), ("normal", normal)):
        over = (np.abs(shifts) > limits["limit"].to_numpy()).any(axis=1)
        near = (np.abs(shifts) + limits["margin"].to_numpy() > limits["limit"].to_numpy()).any(axis=1) & ~over
        rows.append({"drawn": name, "gates": DRAWS, "alarms": over.sum(), "unsure": near.sum(), "seeds": len(seeds)})
    return pd.DataFrame(rows)


def _draw(seeds: list[Any], n: int, rng: np.random.Generator) -> Any:
    """Draw the mean shift of one gate."""
    shifts = []
    for one in rng.choice(len(seeds), n, replace=False):
        candidate, *reference = rng.choice(len(seeds[one]), 4, replace=False)
        shifts.append(seeds[one][candidate] - seeds[one][reference].mean(axis=0))
    return np.mean(shifts, axis=0)
