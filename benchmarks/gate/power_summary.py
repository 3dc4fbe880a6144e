"""Judge what ``power.py`` trained, by every level, and write the table, the picture and the rates of false alarms.

``python benchmarks/gate/power_summary.py``: from ``results/gate-power`` to ``results/reference/gate-power``, and from
that to ``docs/gate-power.md`` and its picture. With ``--documents`` only the second.
"""

import argparse
import math
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from mnist_ablate import plots
from mnist_ablate.gate.reference import FIRST, load_reference

sys.path.append(str(Path(__file__).parent))
from bugs import BUGS
from power_judge import ALONE, LEVELS, PEERS, PURPOSE, clean_runs, judge, read_items, simulate

ROOT = Path(__file__).parent.parent.parent
COMMITTED = ROOT / "results" / "reference"
MEASURED = COMMITTED / "gate-power"
SETS, SEEDS = 10, 2
LIMIT, POWER_90 = 5.0, 1.28
"""In standard errors: the limit of a shift with the null bank as it is, and what a power of 90 % takes beyond it."""


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
                **{level: caught["sum"].get(level, 0) for level in ("all levels", *LEVELS, PURPOSE, *PEERS)},
                f"{PURPOSE}, of": caught["count"].get(PURPOSE, 0),
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
    sets = f"{low}" if low == high else f"{low} to {high}"
    done = f"{len(bugs)} of {len(expected)} bugs over {sets} seed sets, and {clean} clean sets"
    more = "" if low >= SETS else " The measurement is not complete; `nox -s gate-power` goes on with it."
    return f"Measured so far: {done}.{more}" if more else f"Measured: {done}."


def _bug_table(bugs: pd.DataFrame) -> list[str]:
    lines = [
        "| Bug | Shift of test accuracy, points | of validation loss, nats | Caught | golden | statistical | floor | "
        "On purpose | Check that says most | Core seconds |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | :-- | --: |",
    ]
    for row in bugs.to_dict("records"):
        counts = " | ".join(f"{row[level]} of {row['sets']}" for level in ("all levels", *LEVELS))
        counts += f" | {row[PURPOSE]} of {row[f'{PURPOSE}, of']}"
        size = f"{row['points']:+.2f} | {row['nats']:+.4f}" if not math.isnan(row["points"]) else "training fails | "
        lines.append(f"| {row['what']} | {size} | {counts} | {row['check'][:60]} | {row['seconds']:.0f} |")
    return lines


def _clean_table(power: pd.DataFrame) -> list[str]:
    clean = power[power["item"].str.startswith("clean")]
    lines = ["| Clean copies | Sets | Pass | False alarms | Cannot tell | golden fails | statistical fails | "]
    lines[0] += "Golden runs of other seeds | fail |"
    lines.append("| :-- | --: | --: | --: | --: | --: | --: | --: | --: |")
    for name, mine in clean.groupby("item"):
        whole = mine[mine["level"] == "all levels"]["outcome"]
        fails = [(mine[mine["level"] == level]["outcome"] == "fail").sum() for level in ("golden", "statistical")]
        alone = mine[mine["level"] == ALONE]["outcome"]
        counts = [len(whole), *((whole == outcome).sum() for outcome in ("pass", "fail", "cannot tell")), *fails]
        counts += [len(alone), (alone == "fail").sum()]
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
    ours = {"all levels": "this gate", "statistical": "its statistical level alone"}
    ours |= {PURPOSE: "this gate with `--changed-on-purpose`: other random numbers, three times the seeds"}
    for level, what in (ours | PEERS).items():
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
    """Write the tables of docs/gate-power.md and its picture from the committed measurements."""
    power, moved, simulation = measurements()
    page = ROOT / "docs" / "gate-power.md"
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
