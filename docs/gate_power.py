"""The tables and the picture of docs/gate-power.md, from what ``nox -s gate-power`` measured."""

import math
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from mnist_ablate import plots
from mnist_ablate.gate.reference import FIRST

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "docs"), str(ROOT / "benchmarks" / "gate")]
from bugs import BUGS  # noqa: E402
from elsewhere_digits import BUGS as DIGITS_BUGS  # noqa: E402
from elsewhere_digits import CLEAN, WAYS  # noqa: E402
from elsewhere_digits import MEASURED as DIGITS_MEASURED  # noqa: E402
from marks import between, table  # noqa: E402
from power_judge import ALONE, LEVELS, MEASURED, PEERS, PURPOSE  # noqa: E402

PAGE = ROOT / "docs" / "gate-power.md"
SETS, SEEDS = 10, 2
LIMIT, POWER_90 = 5.0, 1.28
"""In standard errors: the limit of a shift with the committed null bank, and what 90 % power needs beyond it."""


def bug_summary(power: pd.DataFrame) -> pd.DataFrame:
    """Return a row per bug, the largest shift of test accuracy first."""
    rows = []
    for bug in BUGS:
        of = power[power["item"] == bug.name]
        whole, failed = of[of["level"] == "all levels"], of[of["outcome"] == "fail"]
        if of.empty:
            continue
        caught = failed["level"].value_counts()
        by_golden, checks = failed[failed["level"] == "golden"], failed[failed["level"].isin(LEVELS)]["check"]
        seconds = by_golden["golden_seconds"] if len(by_golden) == len(whole) else whole["seconds"]
        row = {"bug": bug.name, "what": bug.what, "sets": len(whole), f"{PURPOSE}, of": sum(of["level"] == PURPOSE)}
        row |= {level: caught.get(level, 0) for level in ("all levels", *LEVELS, PURPOSE, *PEERS)}
        row |= {"points": whole["points"].mean(), "nats": whole["nats"].mean(), "seconds": seconds.median()}
        rows.append(row | {"check": checks.mode().iloc[0] if len(checks) else ""})
    return pd.DataFrame(rows).sort_values("points", key=lambda shift: shift.abs().fillna(1e9), ascending=False)


def markdown(power: pd.DataFrame, moved: pd.DataFrame, simulation: pd.DataFrame) -> str:
    """Return everything that was measured as Markdown."""
    bugs, clean = bug_summary(power), power[power["item"].str.startswith("clean")]
    parts = [_completeness(power), _bug_table(bugs), _unseen(bugs, moved), _clean_table(clean)]
    return "\n\n".join([*parts, _simulation(simulation), _peer_table(power, clean)]) + "\n"


def _completeness(power: pd.DataFrame) -> str:
    counts = power[power["level"] == "all levels"].groupby("item")["set"].nunique()
    bugs, clean = counts.reindex([bug.name for bug in BUGS], fill_value=0), counts[counts.index.str.startswith("clean")]
    low, high = bugs.min(), bugs.max()
    sets = f"{low}" if low == high else f"{low} to {high}"
    done = f"{(bugs > 0).sum()} of {len(bugs)} bugs over {sets} seed sets, and {clean.sum()} clean sets."
    goes_on = "The measurement is not complete; `nox -s gate-power` goes on with it."
    return f"Measured: {done}" if low >= SETS else f"Measured so far: {done} {goes_on}"


def _bug_table(bugs: pd.DataFrame) -> str:
    rows = []
    for row in bugs.to_dict("records"):
        counts = [f"{row[level]} of {row['sets']}" for level in ("all levels", *LEVELS)]
        counts.append(f"{row[PURPOSE]} of {row[f'{PURPOSE}, of']}")
        fails = math.isnan(row["points"])
        nats = f"{row['nats']:{'+.4f' if abs(row['nats']) < 1000 else '+.0e'}}"
        size = ["training fails", ""] if fails else [f"{row['points']:+.2f}", nats]
        rows.append([row["what"], *size, *counts, row["check"][:60], f"{row['seconds']:.0f}"])
    head = ["Bug", "Shift of test accuracy, points", "of validation loss, nats", "Caught", *LEVELS, "On purpose"]
    return table([*head, "Check that says most", "Core seconds"], rows, left=(0, 8))


def _unseen(bugs: pd.DataFrame, moved: pd.DataFrame) -> str:
    """Tabulate the bugs that the statistical level alone misses, with the seeds that it would need.

    Compares the largest mean shift over the seed sets, in standard errors of one gate, with the limit plus what 90 %
    power needs beyond it. A mean shift within three of its own standard errors shows nothing.
    """
    missed, rows = bugs[bugs["statistical"] < bugs["sets"]], []
    for row in missed.to_dict("records"):
        of = moved[(moved["item"] == row["bug"]) & (moved["response"] != FIRST)]  # which has a tolerance
        means = of.groupby(["contrast", "response"])[["shift", "se"]].mean()
        size = (means["shift"] / means["se"]).abs()
        contrast, response = size.idxmax()
        shift, needed = means["shift"][contrast, response], f"{SEEDS * ((LIMIT + POWER_90) / size.max()) ** 2:.0f}"
        if size.max() > 3 / math.sqrt(row["sets"]):
            told = [f"{response}, {contrast}: {shift:+.2g}", needed]
        else:
            told = ["of either sign, by seed" if row["statistical"] else "none that shows", "more than were trained"]
        rows.append([row["what"], f"{row['statistical']} of {row['sets']}", *told])
    head = ["Missed by the statistical level alone", "Caught", "Largest shift", "Seeds that would show it, for 2"]
    return table(head, rows, left=(0, 2)) if rows else "The statistical level alone misses none of them."


def _clean_table(clean: pd.DataFrame) -> str:
    rows = []
    for name, of in clean.groupby("item"):
        outcomes = {level: rows["outcome"].tolist() for level, rows in of.groupby("level")}
        whole, alone = outcomes["all levels"], outcomes.get(ALONE, [])
        counts = [len(whole), *(whole.count(outcome) for outcome in ("pass", "fail", "cannot tell"))]
        counts += [outcomes[level].count("fail") for level in ("golden", "statistical")]
        rows.append([str(name).removeprefix("clean-"), *counts, len(alone), alone.count("fail")])
    head = ["Clean copies", "Sets", "Pass", "False alarms", "Cannot tell", "golden fails", "statistical fails"]
    return table([*head, "Golden runs of other seeds", "fail"], rows)


def _simulation(simulation: pd.DataFrame) -> str:
    rows = []
    for row in simulation.to_dict("records"):
        interval = stats.binomtest(int(row["alarms"]), int(row["gates"])).proportion_ci()
        of_runs, normal = f"the runs of {row['seeds']} seeds", "a normal distribution of their spread"
        between_rates = f"{1000 * interval.low:.3f} to {1000 * interval.high:.3f}"
        unsure = f"{row['unsure'] / row['gates']:.1%}"
        drawn = of_runs if row["drawn"] == "runs" else normal
        rows.append([drawn, f"{row['gates']:,}", row["alarms"], between_rates, unsure])
    head = ["Gates drawn from", "Gates", "False alarms", "95 % interval, per 1,000", "Cannot tell"]
    return table(head, rows)


def _peer_table(power: pd.DataFrame, clean: pd.DataFrame) -> str:
    ways = {"all levels": "this gate", "statistical": "its statistical level alone"}
    ways |= {PURPOSE: "this gate with `--changed-on-purpose`: other random numbers, three times the seeds"} | PEERS
    rows = []
    for level, what in ways.items():
        of = power[(power["level"] == level) & ~power["item"].str.startswith("clean")]
        caught, alarms = of["outcome"] == "fail", clean[clean["level"] == level]["outcome"] == "fail"
        always = caught.groupby(of["item"]).all()
        share = f"{caught.mean():.0%}" if len(of) else "not yet known"
        rows.append([what, f"{always.sum()} of {len(always)}", share, f"{alarms.sum()} of {len(alarms)}"])
    return table(
        ["Way to judge", "Bugs caught every time", "of all runs with a bug", "False alarms of clean sets"], rows
    )


def digits(power: pd.DataFrame, simulation: pd.DataFrame) -> str:
    """Return what was measured of a training with scikit-learn as Markdown."""
    clean = power["item"].str.startswith("clean")
    sets = f"Measured: {len(DIGITS_BUGS)} bugs over {power['set'].nunique()} sets of 10 seeds."
    tables = (_digits_bugs(power), _digits_ways(power[~clean], power[clean]), _digits_simulation(simulation))
    return "\n\n".join([sets, *tables]) + "\n"


def _digits_bugs(power: pd.DataFrame) -> str:
    failed = power.assign(failed=power["outcome"] == "fail").groupby(["item", "way"])["failed"].agg(["sum", "size"])
    points = power[power["way"] == "gate"].groupby("item")["points"].mean()
    rows = []
    for bug in (*sorted(DIGITS_BUGS, key=lambda bug: -abs(points[bug.name])), *CLEAN):
        caught = [f"{failed['sum'][bug.name, way]} of {failed['size'][bug.name, way]}" for way in WAYS]
        what = f"nothing is wrong: {bug.what}" if bug in CLEAN else bug.what
        rows.append([what, f"{points[bug.name]:+.2f}", *caught])
    return table(["Bug", "Shift of accuracy, points", *WAYS], rows)


def _digits_ways(bugs: pd.DataFrame, clean: pd.DataFrame) -> str:
    rows = []
    for way, what in WAYS.items():
        of, well = bugs[bugs["way"] == way], clean[clean["way"] == way]["outcome"]
        caught = of["outcome"] == "fail"
        always = caught.groupby(of["item"]).all()
        told = [f"{(well == outcome).sum()} of {len(well)}" for outcome in ("fail", "cannot tell")]
        rows.append([way, what, f"{always.sum()} of {len(always)}", f"{caught.mean():.0%}", *told])
    head = ["Way to judge", "What it is", "Bugs caught every time", "Of all sets with a bug"]
    return table([*head, "False alarms of clean sets", "Cannot tell of clean sets"], rows, left=(0, 1))


def _digits_simulation(simulation: pd.DataFrame) -> str:
    rows = []
    for row in simulation.to_dict("records"):
        ends = stats.binomtest(int(row["alarms"]), int(row["gates"])).proportion_ci()
        rate = f"{1000 * ends.low:.2f} to {1000 * ends.high:.2f}"
        rows.append([WAYS[row["way"]], row["seeds"], f"{row['gates']:,}", row["alarms"], rate,
                     f"{row['unsure'] / row['gates']:.1%}"])  # fmt: skip
    head = ["Gates drawn from clean runs", "Seeds", "Gates", "False alarms", "95 % interval, per 1,000", "Cannot tell"]
    return table(head, rows)


def figure(power: pd.DataFrame, *, theme: plots.ThemeName = "light") -> Figure:
    """Draw each bug's share of sets in which it is caught, by this gate, its levels and the peers' ways."""
    colours, bugs = plots.THEMES[theme], bug_summary(power)
    ways = {"all levels": "this gate", "statistical": "statistical alone", "all runs": "threshold, 16 runs"}
    ways |= {"three runs": "threshold, 3 runs", "one run": "threshold, 1 run", "approx, 1 point": "approx, 1 point"}
    drawn = Figure(figsize=(plots.WIDTH, 1.4 + 0.2 * len(bugs)), facecolor=colours.paper, layout="constrained")
    axes = drawn.add_subplot(facecolor=colours.paper)
    failed = power.assign(share=power["outcome"] == "fail").pivot_table("share", "item", "level")
    shares = failed.reindex(index=bugs["bug"], columns=list(ways)).astype(float)
    sizes = ["fails" if math.isnan(points) else f"{points:+.2f}" for points in bugs["points"]]
    names = [f"{name.replace('_', ' ')}  {size}" for name, size in zip(bugs["bug"], sizes, strict=True)]
    blues = mpl.colors.LinearSegmentedColormap.from_list("", [colours.paper, colours.blue])
    sns.heatmap(
        shares, ax=axes, cmap=blues, vmin=0, vmax=1, cbar=False, linewidths=1.5, linecolor=colours.paper, annot=True,
        fmt=".0%", annot_kws={"fontsize": 6.5}, xticklabels=list(ways.values()), yticklabels=names,
    )  # fmt: skip
    for text, share in zip(axes.texts, shares.stack(future_stack=True).dropna(), strict=True):
        text.set_color(colours.paper if share > 0.5 else colours.ink)
    axes.set(xlabel="", ylabel="")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, colors=colours.ink, labelsize=7)
    title = "Seed sets in which each bug is caught; its shift of test accuracy in points"
    axes.set_title(title, fontsize=9, color=colours.ink)
    return drawn


def measurements() -> tuple[pd.DataFrame, ...]:
    """Read the committed measurements, as `with_power` takes them."""
    ours = (MEASURED / f"{name}.parquet" for name in ("power", "shifts", "simulation"))
    theirs = (DIGITS_MEASURED / f"{name}.parquet" for name in ("power", "simulation"))
    return tuple(map(pd.read_parquet, (*ours, *theirs)))


def with_power(
    page: str,
    power: pd.DataFrame,
    moved: pd.DataFrame,
    simulation: pd.DataFrame,
    digits_power: pd.DataFrame,
    digits_simulation: pd.DataFrame,
) -> str:
    """Return the page with what was measured in its places."""
    page = between("results/reference/gate-power", markdown(power, moved, simulation), page)
    return between("results/reference/gate-elsewhere", digits(digits_power, digits_simulation), page)


def main() -> None:
    """Write the tables of docs/gate-power.md and its picture."""
    measured = measurements()
    power = measured[0]
    PAGE.write_text(with_power(PAGE.read_text(encoding="utf-8"), *measured), encoding="utf-8")
    for theme in plots.THEMES:
        with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):
            figure(power, theme=theme).savefig(PAGE.with_name(f"gate-{theme}.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
