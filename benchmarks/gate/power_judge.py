"""Judge what ``power.py`` trained by every level of the gate, and as people do without a gate.

Reads ``results/gate-power/items`` and writes the tables in ``results/reference/gate-power``.
"""

import argparse
import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.design.responses import scale
from mnist_ablate.gate import judge as gate
from mnist_ablate.gate import shifts as gate_shifts
from mnist_ablate.gate.reference import FIRST, RESPONSES, RUN_COLUMNS, Evidence, Reference, load_reference, trace_table
from mnist_ablate.gate.runs import STRANGERS

ROOT = Path(__file__).parent.parent.parent
COMMITTED = ROOT / "results" / "reference"
MEASURED = COMMITTED / "gate-power"
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
Item = dict[str, Any]
Items = dict[tuple[int, str], Item]
"""What ``item.py`` wrote, by seed set and name."""


def read_items(work: Path) -> Items:
    """Read what was trained."""
    items = {}
    for path in sorted((work / "items").glob("*.json.gz")):
        index, _, name = path.name.removesuffix(".json.gz").partition("-")
        items[int(index), name] = json.loads(gzip.decompress(path.read_bytes()))
    return items


def evidence_of(item: Item, study: Any) -> Evidence:
    """Return an item as the gate takes it."""
    rows = []
    for run in item["runs"]:
        last = [(name, scale(name) * _number(run["rows"][-1][name])) for name in RESPONSES]
        numbers = [*last, (FIRST, _number(run["rows"][0]["train_loss"]))]
        rows += [(run["cell"], run["seed"], name, value) for name, value in numbers]
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


def judge(items: Items, committed: Reference) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge every item in every way.

    Returns
    -------
    tuple
        A row per seed set, item and way to judge; and every shift (`gate_shifts.shifts`) by seed set and item.
    """
    rows, moved, study = [], [], committed.evidence.study
    for (index, name), item in items.items():
        clean = [items.get((index, f"reference{k}")) for k in ("", "-1", "-2")]
        who = {"set": index, "item": name}
        if not item["runs"] and name.startswith("clean") and clean[0]:
            golden = replace(committed, evidence=evidence_of(clean[0], study))
            level = gate.golden(evidence_of(item, study), golden)
            rows.append(who | {"level": ALONE, "outcome": level.outcome, "check": _check(level)})
        if name.startswith("reference") or not all(clean):
            continue
        seconds = {"golden_seconds": item.get("golden_seconds", math.nan), "seconds": item["seconds"]}
        if "error" in item:  # training fails, whoever judges
            failed = {"outcome": "fail", "check": item["error"], **seconds}
            rows += [who | {"level": way} | failed for way in ("all levels", *LEVELS, *PEERS)]
            continue
        # The set's clean reference has its own runs, and the committed null bank and limits.
        parts = [evidence_of(part, study) for part in clean if part]
        runs = pd.concat([part.runs.assign(repeat=repeat) for repeat, part in enumerate(parts)], ignore_index=True)
        reference, evidence = replace(committed, evidence=replace(parts[0], runs=runs)), evidence_of(item, study)
        verdict = gate.judge(evidence, reference)
        shifts = verdict.shifts.reset_index()
        moved.append(shifts.assign(set=index, item=name)[["set", "item", "contrast", "response", "shift", "se"]])
        mean = shifts[shifts["contrast"] == "mean"].set_index("response")["shift"]
        sizes = {"points": mean["test_accuracy"], "nats": mean["val_loss"]} | seconds
        ways = [("all levels", verdict.outcome, verdict.sentence)]
        ways += [(level.name, level.outcome, _check(level)) for level in verdict.levels[:4]]
        rows += [who | {"level": way, "outcome": outcome, "check": check} | sizes for way, outcome, check in ways]
        other = items.get((index + 1, name)) or items.get((index - 1, name)) or {"runs": []}
        peers = _peers(evidence.runs, reference, evidence_of(other, None).runs if other["runs"] else None)
        rows += [who | {"level": peer, "outcome": "pass" if good else "fail"} for peer, good in peers.items()]
    return pd.DataFrame([*rows, *_on_purpose(items, committed)]), pd.concat(moved, ignore_index=True)


def _check(level: gate.Level) -> str:
    """Return the name of the level's most telling check."""
    findings = [finding for finding in level.findings if finding.outcome == level.outcome]
    return min(findings, key=lambda f: 1.0 if math.isnan(f.p) else f.p).check if findings else ""


def _on_purpose(items: Items, committed: Reference) -> Iterator[dict[str, Any]]:
    """Judge as `gate --changed-on-purpose` does: seeds of several sets as strangers, by the committed reference.

    No set shares a seed with the null bank, so random numbers, initial weights and batches are others, as they are
    after such a change.
    """
    complete = sorted((name, index) for (index, name), item in items.items() if item["runs"] or "error" in item)
    for name in dict.fromkeys(name for name, _ in complete if not name.startswith("reference")):
        sets = [index for item, index in complete if item == name]
        for first in range(0, len(sets) - STRANGERS + 1, STRANGERS):
            group = [items[index, name] for index in sets[first : first + STRANGERS]]
            who = {"set": sets[first], "item": name, "level": PURPOSE}
            if error := next((item["error"] for item in group if "error" in item), ""):
                yield who | {"outcome": "fail", "check": error}
                continue
            parts = [evidence_of(item, committed.evidence.study) for item in group]
            together = replace(parts[0], runs=pd.concat([part.runs for part in parts], ignore_index=True))
            verdict = gate.judge(together, committed, changed_on_purpose=True)
            yield who | {"outcome": verdict.outcome, "check": verdict.sentence}


def _peers(runs: pd.DataFrame, reference: Reference, of_third: pd.DataFrame | None) -> dict[str, bool]:
    """Judge as people do: by a threshold or a stored number. `of_third` has the third seed, if there is one."""
    ours, stored, bank = (_accuracies(frame) for frame in (runs, reference.evidence.runs, reference.bank))
    threshold = math.floor(2 * bank[PEER_CELL].mean()) / 2
    run, expected = ours[PEER_CELL].iloc[0], stored[PEER_CELL].iloc[0]
    means = bank.groupby("seed").first().mean(axis=1)
    n, m = len(ours), len(means)
    lowest = means.mean() - stats.t.isf(0.001, m - 1) * means.std() * math.sqrt(1 / n + 1 / m)
    passes = {
        "one run": run >= threshold,
        "approx, 1 point": abs(run - expected) <= 1.0,
        "approx": abs(run - expected) <= 1e-6 * abs(expected),
        "all runs": float(ours.to_numpy().mean()) >= lowest,
    }
    if of_third is not None:
        third = _accuracies(of_third)[PEER_CELL].iloc[0]
        passes["three runs"] = (ours[PEER_CELL].sum() + third) / (n + 1) >= threshold
    return {peer: bool(good) for peer, good in passes.items()}


def _accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Return test accuracy in percent: a row per seed (and repeat), a column per cell."""
    keys = ["seed", "repeat"] if "repeat" in runs else ["seed"]
    return runs[runs["response"] == "test_accuracy"].pivot(index=keys, columns="cell", values="value").sort_index()


def clean_runs(items: Items) -> pd.DataFrame:
    """Return the runs of all clean items and references: `Evidence.runs` with ``set`` and ``item``."""
    tables = [
        evidence_of(item, None).runs.assign(set=index, item=name)
        for (index, name), item in items.items()
        if name.startswith(("clean", "reference")) and item["runs"]
    ]
    return pd.concat(tables, ignore_index=True)


def simulate(clean: pd.DataFrame, committed: Reference, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `DRAWS` gates from clean runs that set no limit, and from a normal distribution with their spread.

    For each of a gate's seeds, one version of the run is the candidate's and three others are the reference's.
    """
    clean = clean.assign(repeat=clean["item"].astype("category").cat.codes)
    values = gate_shifts.contrast_values(clean[["cell", "seed", "response", "value", "repeat"]], committed.contrasts)
    seeds = [table.drop_duplicates().to_numpy() for _, table in values.groupby("seed")]
    seeds = [versions for versions in seeds if len(versions) > 3]
    n = committed.evidence.runs["seed"].nunique()
    limits = gate_shifts.shift_limits(committed, n).loc[values.columns]
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


def _draw(seeds: list[NDArray[np.float64]], n: int, rng: np.random.Generator) -> Any:
    """Return the mean shift of one gate."""
    shifts = []
    for seed in rng.choice(len(seeds), n, replace=False):
        candidate, *reference = rng.choice(len(seeds[seed]), 4, replace=False)
        shifts.append(seeds[seed][candidate] - seeds[seed][reference].mean(axis=0))
    return np.mean(shifts, axis=0)


def main() -> None:
    """Judge everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "gate-power")
    parser.add_argument("--out", type=Path, default=MEASURED, help="folder of the tables")
    arguments = parser.parse_args()
    items, committed = read_items(arguments.work), load_reference(COMMITTED / "gate")
    frames = dict(zip(("power", "shifts"), judge(items, committed), strict=True)) | {"clean": clean_runs(items)}
    frames["simulation"] = simulate(frames["clean"], committed, np.random.default_rng(0))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.to_parquet(arguments.out / f"{name}.parquet", index=False)


if __name__ == "__main__":
    main()
