"""Judge what ``power.py`` trained, by every level, and write the table, the picture and the rates of false alarms.

``python benchmarks/gate/power_summary.py``: from ``results/gate-power`` to ``results/reference/gate-power``, and from
that to ``docs/gate.md`` and its picture. With ``--documents`` only the second.
"""

import argparse
import gzip
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from mnist_ablate import gate, gate_shifts, plots
from mnist_ablate.gate_reference import (
    FIRST,
    RESPONSES,
    RUN_COLUMNS,
    Evidence,
    Reference,
    load_reference,
    scale,
    trace_table,
)

sys.path.append(str(Path(__file__).parent))
from bugs import BUGS

ROOT = Path(__file__).parent.parent.parent
COMMITTED = ROOT / "results" / "reference"
MEASURED = COMMITTED / "gate-power"
SETS, SEEDS = 10, 2
LIMIT, POWER_90 = 5.0, 1.28
"""In standard errors: the limit of a shift with the null bank as it is, and what a power of 90 % takes beyond it."""
LEVELS = ("golden", "statistical", "floor")
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
        A row per seed set, item and way to judge; and every shift: `gate_shifts.shifts` by seed set and item.
    """
    rows, moved = [], []
    for index, name in items:
        if name.startswith("reference") or not all((index, f"reference{k}") in items for k in ("", "-1", "-2")):
            continue
        who = {"set": index, "item": name}
        reference = set_reference(items, index, committed)
        evidence = evidence_of(items[index, name], reference.evidence.study)
        verdict = None if "error" in items[index, name] else gate.check(evidence, reference)
        if verdict is not None:
            shifts = verdict.shifts.reset_index().assign(set=index, item=name)
            moved.append(shifts[["set", "item", "contrast", "response", "shift", "se"]])
        rows += [who | row for row in _outcomes(items[index, name], verdict)]
        if verdict is not None:
            peers = _peers(items, index, name, evidence, reference)
            rows += [who | {"level": peer, "outcome": outcome} for peer, outcome in peers.items()]
    return pd.DataFrame(rows), pd.concat(moved, ignore_index=True)


def _outcomes(item: dict[str, Any], verdict: gate.Verdict | None) -> Iterator[dict[str, Any]]:
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


def _check(level: gate.Level) -> str:
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
    if other and "error" not in other:
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
        if name.startswith(("reference", "clean"))
    ]
    return pd.concat(tables, ignore_index=True)


def simulate(clean: pd.DataFrame, committed: Reference, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `DRAWS` gates from clean runs that set no limit, and from a normal distribution with their spread.

    For each of a gate's seeds one version of the run is the candidate's and three others are the reference's.
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


def _draw(seeds: list[Any], n: int, rng: np.random.Generator) -> Any:
    """Draw the mean shift of one gate."""
    shifts = []
    for one in rng.choice(len(seeds), n, replace=False):
        candidate, *reference = rng.choice(len(seeds[one]), 4, replace=False)
        shifts.append(seeds[one][candidate] - seeds[one][reference].mean(axis=0))
    return np.mean(shifts, axis=0)


def table(power: pd.DataFrame) -> pd.DataFrame:
    """Sum up the bugs: a row each, in the order of size."""
    bugs = power[~power["item"].str.startswith("clean")]
    rows = []
    for bug in BUGS:
        mine = bugs[bugs["item"] == bug.name]
        if mine.empty:
            continue
        whole = mine[mine["level"] == "all levels"]
        caught = mine.assign(caught=mine["outcome"] == "fail").groupby("level")["caught"].agg(["sum", "count"])
        by_golden = mine[(mine["level"] == "golden") & (mine["outcome"] == "fail")]
        checks = mine[(mine["level"].isin(LEVELS)) & (mine["outcome"] == "fail")]["check"]
        seconds = by_golden["golden_seconds"] if len(by_golden) == len(whole) else whole["seconds"]
        rows.append(
            {
                "bug": bug.name,
                "what": bug.what,
                "sets": len(whole),
                "points": whole["points"].mean(),
                "nats": whole["nats"].mean(),
                **{level: caught["sum"].get(level, 0) for level in ("all levels", *LEVELS, *PEERS)},
                "check": checks.mode().iloc[0] if len(checks) else "",
                "seconds": seconds.median(),
            }
        )
    return pd.DataFrame(rows).sort_values("points", key=lambda shift: shift.abs().fillna(1e9), ascending=False)


def markdown(power: pd.DataFrame, moved: pd.DataFrame, simulation: pd.DataFrame) -> str:
    """Write everything that was measured as Markdown tables."""
    bugs = table(power)
    parts = [[_completeness(power)], _bug_table(bugs), _unseen(bugs, moved), _clean_table(power)]
    parts += [_simulation(simulation), [_peer_table(power)]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _unseen(bugs: pd.DataFrame, moved: pd.DataFrame) -> list[str]:
    """List the bugs that the statistical level alone misses, with the seeds that it would take to see them.

    The largest mean shift over the seed sets, in standard errors of one gate, is compared with the limit and what
    a power of 90 % takes beyond it. A mean shift that is itself within three standard errors shows nothing.
    """
    missed = bugs[bugs["statistical"] < bugs["sets"]]
    lines = ["| Missed by the statistical level alone | Caught | Largest shift | Seeds that would show it, for 2 |"]
    lines.append("| :-- | --: | :-- | --: |")
    for row in missed.to_dict("records"):
        mine = moved[(moved["item"] == row["bug"]) & (moved["response"] != FIRST)]  # which has a tolerance
        mine = mine.groupby(["contrast", "response"])[["shift", "se"]].mean()
        size = mine["shift"] / mine["se"]
        contrast, response = size.abs().idxmax()
        seeds = SEEDS * ((LIMIT + POWER_90) / size.abs().max()) ** 2
        shown = size.abs().max() > 3 / math.sqrt(row["sets"])
        what = f"{response}, {contrast}: {mine['shift'][contrast, response]:+.2g}" if shown else "none that shows"
        needed = f"{seeds:.0f}" if shown else "more than were trained"
        lines.append(f"| {row['what']} | {row['statistical']} of {row['sets']} | {what} | {needed} |")
    return lines if len(missed) else ["The statistical level alone misses none of them."]


def _completeness(power: pd.DataFrame) -> str:
    counts = power[power["level"] == "all levels"].groupby("item")["set"].nunique()
    expected = [bug.name for bug in BUGS]
    bugs = counts[counts.index.isin(expected)]
    low, high = (bugs.min() if len(bugs) == len(expected) else 0), bugs.max() if len(bugs) else 0
    clean = counts[counts.index.str.startswith("clean")].sum()
    done = f"{len(bugs)} of {len(expected)} bugs over {low} to {high} seed sets of {SETS}, and {clean} clean sets"
    more = "" if low == SETS else " The measurement is not complete; `nox -s gate-power` goes on with it."
    return f"Measured so far: {done}.{more}" if more else f"Measured: {done}."


def _bug_table(bugs: pd.DataFrame) -> list[str]:
    lines = [
        "| Bug | Shift of test accuracy, points | of validation loss, nats | Caught | golden | statistical | floor | "
        "Check that says most | Core seconds |",
        "| :-- | --: | --: | --: | --: | --: | --: | :-- | --: |",
    ]
    for row in bugs.to_dict("records"):
        counts = " | ".join(f"{row[level]} of {row['sets']}" for level in ("all levels", *LEVELS))
        size = f"{row['points']:+.2f} | {row['nats']:+.4f}" if not math.isnan(row["points"]) else "training fails | "
        lines.append(f"| {row['what']} | {size} | {counts} | {row['check'][:60]} | {row['seconds']:.0f} |")
    return lines


def _clean_table(power: pd.DataFrame) -> list[str]:
    clean = power[power["item"].str.startswith("clean")]
    lines = ["| Clean copies | Sets | Pass | False alarms | Cannot tell | golden fails | statistical fails |"]
    lines.append("| :-- | --: | --: | --: | --: | --: | --: |")
    for name, mine in clean.groupby("item"):
        whole = mine[mine["level"] == "all levels"]["outcome"]
        fails = [(mine[mine["level"] == level]["outcome"] == "fail").sum() for level in ("golden", "statistical")]
        counts = [len(whole), *((whole == outcome).sum() for outcome in ("pass", "fail", "cannot tell")), *fails]
        lines.append(f"| {str(name).removeprefix('clean-')} | " + " | ".join(map(str, counts)) + " |")
    return lines


def _simulation(simulation: pd.DataFrame) -> list[str]:
    lines = ["| Gates drawn from | Gates | False alarms | 95 % interval, per 1,000 | Cannot tell |"]
    lines.append("| :-- | --: | --: | --: | --: |")
    for row in simulation.to_dict("records"):
        interval = stats.binomtest(int(row["alarms"]), int(row["gates"])).proportion_ci()
        what = (
            f"the runs of {row['seeds']} seeds" if row["drawn"] == "runs" else "a normal distribution of their spread"
        )
        between = f"{1000 * interval.low:.3f} to {1000 * interval.high:.3f}"
        lines.append(
            f"| {what} | {row['gates']:,} | {row['alarms']} | {between} | {row['unsure'] / row['gates']:.1%} |"
        )
    return lines


def _peer_table(power: pd.DataFrame) -> str:
    clean = power[power["item"].str.startswith("clean")]
    lines = ["| Way to judge | Bugs caught every time | of all runs with a bug | False alarms of clean sets |"]
    lines.append("| :-- | --: | --: | --: |")
    for level, what in {"all levels": "this gate", "statistical": "its statistical level alone", **PEERS}.items():
        mine = power[(power["level"] == level) & ~power["item"].str.startswith("clean")]
        always: Any = mine.assign(caught=mine["outcome"] == "fail").groupby("item")["caught"].all().sum()
        alarms = clean[clean["level"] == level]["outcome"] == "fail"
        share = f"{(mine['outcome'] == 'fail').mean():.0%}" if len(mine) else "not yet known"
        always = f"{always} of {mine['item'].nunique()}"
        lines.append(f"| {what} | {always} | {share} | {alarms.sum()} of {len(alarms)} |")
    return "\n".join(lines)


def figure(power: pd.DataFrame, *, theme: plots.ThemeName = "light") -> Figure:
    """Draw each bug's share of sets in which it is caught, by this gate, its levels and the peers' ways."""
    colours, bugs = plots.THEMES[theme], table(power).iloc[::-1]
    ways = {"all levels": "this gate", "statistical": "statistical alone", "all runs": "threshold, 16 runs"}
    ways |= {"three runs": "threshold, 3 runs", "one run": "threshold, 1 run", "approx, 1 point": "approx, 1 point"}
    drawn = Figure(figsize=(plots.WIDTH, 1.4 + 0.2 * len(bugs)), facecolor=colours.paper, layout="constrained")
    axes = drawn.add_subplot(facecolor=colours.paper)
    failed = power.assign(share=power["outcome"] == "fail").pivot_table("share", "item", "level")
    shares = failed.reindex(index=bugs["bug"], columns=list(ways)).to_numpy()
    blues = mpl.colors.LinearSegmentedColormap.from_list("", [colours.paper, colours.blue])
    axes.pcolormesh(shares, cmap=blues, vmin=0, vmax=1, edgecolor=colours.paper, linewidth=1.5)
    for (i, j), share in np.ndenumerate(shares):
        ink, said = (colours.paper if share > 0.5 else colours.ink), "?" if math.isnan(share) else f"{share:.0%}"
        axes.text(j + 0.5, i + 0.5, said, ha="center", va="center", fontsize=6.5, color=ink)
    sizes = ["fails" if math.isnan(points) else f"{points:+.2f}" for points in bugs["points"]]
    names = [f"{name.replace('_', ' ')}  {size}" for name, size in zip(bugs["bug"], sizes, strict=True)]
    axes.set_yticks(np.arange(len(bugs)) + 0.5, names, fontsize=7)
    axes.set_xticks(np.arange(len(ways)) + 0.5, list(ways.values()), fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=colours.ink)
    axes.spines[:].set_visible(False)
    axes.set_title("Seed sets in which each bug is caught; its shift of test accuracy in points", fontsize=9,
                   color=colours.ink)  # fmt: skip
    return drawn


def write_documents() -> None:
    """Write the tables of docs/gate.md and its picture from the committed measurements."""
    power, moved, simulation = measurements()
    page = ROOT / "docs" / "gate.md"
    page.write_text(with_power(page.read_text(encoding="utf-8"), power, moved, simulation), encoding="utf-8")
    themes: tuple[plots.ThemeName, ...] = ("light", "dark")
    for theme in themes:
        with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
            figure(power, theme=theme).savefig(ROOT / "docs" / f"gate-{theme}.svg", metadata={"Date": None})


def measurements() -> tuple[pd.DataFrame, ...]:
    """Read the committed measurements, as `with_power` takes them."""
    return tuple(pd.read_parquet(MEASURED / f"{name}.parquet") for name in ("power", "shifts", "simulation"))


def with_power(page: str, power: pd.DataFrame, moved: pd.DataFrame, simulation: pd.DataFrame) -> str:
    """Return the page with what was measured in its place."""
    place = re.compile(r"(?<=<!-- table: results/reference/gate-power -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return place.sub(lambda _: markdown(power, moved, simulation), page)


def main() -> None:
    """Judge, then write the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "gate-power")
    parser.add_argument("--documents", action="store_true", help="only write the documents")
    arguments = parser.parse_args()
    if not arguments.documents:
        items, committed = read_items(arguments.work), load_reference(COMMITTED / "gate")
        MEASURED.mkdir(parents=True, exist_ok=True)
        power, moved = judge(items, committed)
        power.to_parquet(MEASURED / "power.parquet", index=False)
        moved.to_parquet(MEASURED / "shifts.parquet", index=False)
        clean = clean_runs(items)
        clean.to_parquet(MEASURED / "clean.parquet", index=False)
        simulate(clean, committed, np.random.default_rng(0)).to_parquet(MEASURED / "simulation.parquet", index=False)
    write_documents()


if __name__ == "__main__":
    main()
