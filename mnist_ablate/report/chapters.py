"""Parts of the page that only some studies have: tables, and sentences made from the same numbers as those."""

import math

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import show
from mnist_ablate.inference import levels
from mnist_ablate.inference.effects import describe, probed, spread_between_seeds
from mnist_ablate.notebook import replication
from mnist_ablate.notebook.printed import printed_cells
from mnist_ablate.report.tables import Table, table_rows
from mnist_ablate.report.words import NOTHING, listed, number, of, plural, span
from mnist_ablate.store.results import Results

_WORDS = {"test_accuracy": "test accuracy, %", "train_loss": "loss while training", "val_loss": "validation loss"}
_DIGITS = {"test_accuracy": 2, "train_loss": 4, "val_loss": 4}


# ---- The notebook, replicated ----


def replication_tables(results: Results) -> dict[str, Table]:
    """Make the tables of the notebook's numbers; none where the study has not all of its cells."""
    if not replication.has_notebook(results.study):
        return {}
    frame = replication.places(results)
    if frame.empty:
        return {}
    found = {"printed_losses": _places(frame, "val_loss", "train_loss", name="printed-losses")}
    if (frame["response"] == "test_accuracy").any():
        found["printed_accuracies"] = _places(frame, "test_accuracy", name="printed-accuracies")
    ranked, mistakes = replication.rankings(results), replication.mistakes_did(results)
    if len(ranked):
        found["rankings"] = _rankings(ranked)
    if len(mistakes):
        found["notebook_mistakes"] = _mistakes(mistakes, last=True)
        found["notebook_mistakes_all"] = _mistakes(mistakes, last=False)
    return found


def _places(frame: pd.DataFrame, *responses: str, name: str) -> Table:
    """Tabulate where printed numbers lie: a row per number, columns for each mode."""
    mine = frame[frame["response"].isin(responses)]
    modes = list(dict.fromkeys(mine["mode"]))
    headings = {"number": "Network, number", "printed": "Printed"}
    for mode in modes:
        headings |= {f"{mode} mean": f"Runs {mode}: mean (sd)", f"{mode} place": "Runs below it, %"}
    rows = []
    for (network, response, epoch), of_modes in mine.groupby(["name", "response", "epoch"], sort=False):
        digits, last = _DIGITS[str(response)], f", epoch {epoch}" if response != "test_accuracy" else ""
        row = {"number": f"{network}, {_WORDS[str(response)]}{last}"}
        row["printed"] = number(of_modes["printed"].iloc[0], digits)
        by_mode = of_modes.set_index("mode")
        for mode in modes:
            there = mode in by_mode.index
            row[f"{mode} mean"] = _mean(by_mode.loc[mode], digits) if there else NOTHING
            row[f"{mode} place"] = _place_words(by_mode.loc[mode]) if there else NOTHING
        rows.append(row)
    caption = (
        "What the notebook printed, and where that lies among the runs of the same cell after the same epoch. 'As it "
        "ran': with its mistakes, evaluation in train mode and one BatchNorm for both layers; 'mended': without them. "
        "In a cell in which neither has anything to act on, both are the same runs. The CSV file has the 95 % "
        "prediction interval for one more run."
    )
    return Table(name, caption, headings, rows, mine)


def _mean(row: "pd.Series[float]", digits: int) -> str:
    return f"{number(row['mean'], digits)} ({number(row['sd'], digits)})"


def _place_words(row: "pd.Series[float]") -> str:
    if not row["outside"]:
        return f"{100 * row['place']:.0f}"
    return f"{'0, below' if row['place'] < 0.5 else '100, above'} all {row['n']}"


_RANKINGS = {"printed": "as printed", "means": "as the means over seeds", "separable": "all that can be told apart"}


def _rankings(frame: pd.DataFrame) -> Table:
    headings = {"what": "Ranking, best first", "mode": "Runs", "any": "Four independent runs, %",
                "any_interval": "95 % interval", "seed": "Four runs of one seed, %",
                "seed_interval": "95 % interval"}  # fmt: skip
    rows = table_rows(frame, {
        "what": lambda row: f"{_RANKINGS[str(row['ranking'])]}: {row['order']}",
        "mode": lambda row: str(row["mode"]),
        "any": lambda row: number(100 * row["share"], 1),
        "any_interval": lambda row: span(100 * row["low"], 100 * row["high"], 1, sign=False),
        "seed": lambda row: number(100 * row["share_paired"], 1),
        "seed_interval": lambda row: span(100 * row["low_paired"], 100 * row["high_paired"], 1, sign=False),
    })  # fmt: skip
    caption = (
        "How often one run of each of the four networks ranks them so by test accuracy. Cells joined by = cannot be "
        "told apart: the interval of their difference within seeds, 95 % for all pairs together, holds 0. 'All that "
        "can be told apart' counts every ranking that agrees with the other pairs."
    )
    return Table("rankings", caption, headings, rows, frame)


def _mistakes(frame: pd.DataFrame, *, last: bool) -> Table:
    """Tabulate what the notebook's mistakes did: to all of its numbers, or to those after the last epoch."""
    final = len(printed_cells()[0].train_loss)
    mine = frame[frame["epoch"] == final] if last else frame
    headings = {"who": "Network, mistake", "number": "Number", "n": "Seeds", "estimate": "Difference",
                "interval": "95 % interval"}  # fmt: skip
    rows = table_rows(mine, {
        "who": lambda row: f"{row['name']}, {row['mistake']}",
        "number": lambda row: f"{_NUMBERS[str(row['response'])]}" + ("" if last else f", epoch {row['epoch']}"),
        "n": lambda row: str(row["n"]),
        "estimate": lambda row: number(row["estimate"], _DIGITS[str(row["response"])], sign=True),
        "interval": lambda row: span(row["low"], row["high"], _DIGITS[str(row["response"])]),
    })  # fmt: skip
    caption = (
        "What the notebook's mistakes did to its numbers: the run with the mistake less the run of the same seed "
        "without it, mean over seeds, accuracy in points and losses in nats"
        + (", after the last epoch. " if last else ", after each epoch. ")
        + "The baseline and L2 have neither dropout nor BatchNorm: there the mistakes change no bit."
    )
    return Table("notebook-mistakes" if last else "notebook-mistakes-all", caption, headings, rows, mine)


_NUMBERS = {"test_accuracy": "test accuracy, points", "train_loss": "loss while training, nats",
            "val_loss": "validation loss, nats"}  # fmt: skip


def replication_words(results: Results) -> list[str]:
    """Say what the tables of the notebook's numbers show."""
    if not replication.has_notebook(results.study):
        return []
    frame = replication.places(results)
    whole = [
        mode for mode in replication.SHOWN if frame[frame["mode"] == mode]["name"].nunique() == len(printed_cells())
    ]
    found = [_outside_words(frame[frame["mode"] == mode], mode) for mode in whole]
    ranked = replication.rankings(results)
    return found + [_ranking_words(ranked[ranked["mode"] == mode], mode) for mode in whole if len(ranked)]


def _outside_words(frame: pd.DataFrame, mode: str) -> str:
    """Count the printed numbers that no run gave, beside how many one more run of each cell would have there."""
    out = frame[frame["outside"]]
    expected = replication.expected_outside(frame)
    which = (f"{name} ({_listed_numbers(rows)})" for name, rows in out.groupby("name", sort=False))
    fewest, most = int(frame["n"].min()), int(frame["n"].max())
    text = (
        f"Of the {plural(len(frame), 'number')} that can be compared, {len(frame) - len(out)} lie within what "
        f"{most if fewest == most else f'{fewest} to {most}'} runs of their cell gave, {mode}. Of one more run of each "
        f"cell, about {expected:.1f} would be expected to lie beyond them all."
    )
    return text + (f" Beyond all runs: {listed(which)}." if len(out) else "")


def _listed_numbers(rows: pd.DataFrame) -> str:
    """Name printed numbers of a network: the response, and of losses the epochs."""
    what = {"test_accuracy": "accuracy", "train_loss": "loss while training", "val_loss": "validation loss"}
    found = []
    for response, mine in rows.groupby("response", sort=False):
        epochs = [int(epoch) for epoch in mine["epoch"]]
        of_epochs = f" of epoch{'s' * (len(epochs) > 1)} {listed(epochs)}" if response != "test_accuracy" else ""
        found.append(what[str(response)] + of_epochs)
    return "; ".join(found)


def _ranking_words(ranked: pd.DataFrame, mode: str) -> str:
    """Say how likely the printed ranking is, and how often single runs are right."""
    rows = {str(row["ranking"]): row for _, row in ranked.iterrows()}
    printed, means, clear = (rows[name] for name in ("printed", "means", "separable"))
    return (
        f"{mode.capitalize()}, four independent runs rank the networks as the notebook did ({printed['order']}) in "
        f"{_share(printed)} of cases. The means over {printed['n']} seeds rank them {means['order']}, as four single "
        f"runs do in {_share(means)}; what the means can tell apart is {clear['order']}, and four single runs agree "
        f"with that in {_share(clear)}."
    )


def _share(row: "pd.Series[float]") -> str:
    interval = "" if pd.isna(row["low"]) else f" ({span(100 * row['low'], 100 * row['high'], 1, sign=False)})"
    return f"{number(100 * row['share'], 1)} %{interval}"


# ---- Parts of variance ----


def variance_table(results: Results) -> Table | None:
    """Tabulate the parts of the variance of test accuracy; None where the study does not draw parts of chance anew."""
    if not levels.chance_factors(results.study):
        return None
    frame = levels.components(results)
    headings = {"source": "Part of chance", "variance": "Variance, points²", "variance_interval": "95 % interval",
                "sd": "As sd, points", "sd_interval": "95 % interval", "share": "Share, %",
                "share_interval": "95 % interval"}  # fmt: skip
    rows = table_rows(frame, {
        "source": lambda row: "all together" if str(row["source"]) == "all" else str(row["source"]),
        "variance": lambda row: number(row["variance"], 4),
        "variance_interval": lambda row: span(row["variance_low"], row["variance_high"], 4, sign=False),
        "sd": lambda row: number(row["sd"], 3),
        "sd_interval": lambda row: span(row["sd_low"], row["sd_high"], 3, sign=False),
        "share": lambda row: number(100 * row["share"], 1),
        "share_interval": _share_interval,
    })  # fmt: skip
    spread = spread_between_seeds(results)
    caption = (
        f"Where the variance of test accuracy between runs comes from, over {plural(int(frame['n'].iloc[0]), 'seed')}. "
        f"The estimates are unbiased, so one of a part that does next to nothing may be below 0. All together they are "
        f"a standard deviation of {number(frame['sd'].iloc[-1], 3)} points; between the seeds of a cell, where "
        f"everything is drawn anew, it is {number(spread, 3)}. Intervals: percentiles over seeds drawn again."
    )
    return Table("variance", caption, headings, rows, frame)


def _share_interval(row: "pd.Series[float]") -> str:
    if str(row["source"]) == "all":
        return NOTHING
    return span(100 * row["share_low"], 100 * row["share_high"], 1, sign=False)


def variance_words(results: Results) -> str:
    """Say which part of chance causes most of the spread."""
    if not levels.chance_factors(results.study):
        return ""
    frame = levels.components(results)[:-1]
    ordered = frame.sort_values("share", ascending=False)
    if ordered["share"].isna().any():
        return "The runs do not differ, so there is no spread to divide."
    parts = [f"{row['source']} {number(100 * row['share'], 0)} %" for _, row in ordered.iterrows()]
    return f"Of the variance of test accuracy between runs: {listed(parts)}."


# ---- Levels, limits, speed ----


def limits_tables(results: Results) -> list[Table]:
    """Tabulate what stands in place of a factor's levels: the highest that trains, or the spread over them."""
    return [
        _highest(h.over, levels.over_levels(results, h)) if h.summary == "highest" else
        _spread(h.over, describe(h.response).label, levels.over_levels(results, h))
        for h in levels.summarised(results.study)
    ]  # fmt: skip


def _highest(over: str, frame: pd.DataFrame) -> Table:
    headings = {"others": "Cells", "n": "Seeds", "level": f"Highest {over} that trains, median",
                "levels": "Seeds at each", "end": "Beyond the grid"}  # fmt: skip
    rows = table_rows(frame, {
        "others": lambda row: str(row["others"]),
        "n": lambda row: str(row["n"]),
        "level": lambda row: NOTHING if pd.isna(row["level"]) else show(float(row["level"])),
        "levels": lambda row: str(row["levels"]) or NOTHING,
        "end": lambda row: plural(int(row["n_end"]), "seed"),
    })  # fmt: skip
    caption = (
        f"The highest {over} of the grid with a validation accuracy of 90 % or more at the end, seed by seed: the last "
        "before the first failure, from the best level up. Where no level fails, the limit lies beyond the grid: the "
        f"seed counts with the grid's end, and the last column says how many do."
    )
    return Table(f"highest-{over}", caption, headings, rows, frame)


def _spread(over: str, response: str, frame: pd.DataFrame) -> Table:
    headings = {"others": "Cells", "n": "Seeds", "sd": f"sd over {over}, points", "interval": "95 % interval",
                "seeds": "sd over seeds, points"}  # fmt: skip
    rows = table_rows(frame, {
        "others": lambda row: str(row["others"]),
        "n": lambda row: str(row["n"]),
        "sd": lambda row: number(row["sd"]),
        "interval": lambda row: span(row["low"], row["high"], sign=False),
        "seeds": lambda row: number(row["sd_seeds"]),
    })  # fmt: skip
    caption = (
        f"How much {response} depends on {over}: within each seed the standard deviation over its levels, then the "
        "geometric mean over seeds. Beside it the standard deviation over seeds at the reference level: chance alone."
    )
    return Table(f"spread-{over}", caption, headings, rows, frame)


def speed_table(results: Results) -> Table | None:
    """Tabulate when the cells reach 97 % validation accuracy; None where the study does not ask for it."""
    if not levels.has_speed(results.study):
        return None
    frame = levels.speed(results)
    headings = {"cell": "Cell", "n": "Runs", "reached": "Reach 97 %", "median": "Median, epochs",
                "interval": "95 % interval", "steps": "Median, steps"}  # fmt: skip
    rows = table_rows(frame, {
        "cell": lambda row: str(row["cell"]),
        "n": lambda row: str(row["n"]),
        "reached": lambda row: of(int(row["n_reached"]), int(row["n"])) if row["n"] else NOTHING,
        "median": lambda row: _time(row, "median"),
        "interval": lambda row: _times(row),
        "steps": _steps,
    })  # fmt: skip
    caption = (
        "Epochs to a validation accuracy of 97 %, on a straight line between evaluations. A run that ends before is "
        "later than all that arrive: a median among such runs is above their last epoch. In a hypothesis such a run "
        "counts as arriving with its last epoch, so a difference to slower cells is at least as large as it shows. "
        "Intervals of the median by order statistics."
    )
    return Table("speed", caption, headings, rows, frame)


def _steps(row: "pd.Series[float]") -> str:
    arrives = row["steps"] and np.isfinite(row["median"])
    return number(row["median"] * row["steps"], 0) if arrives else NOTHING


def _times(row: "pd.Series[float]") -> str:
    """Write the interval of a median; one that lies wholly among runs that do not arrive is above the last epoch."""
    if not row["n"]:
        return NOTHING
    return _time(row, "low") if math.isinf(row["low"]) else f"{_time(row, 'low')} to {_time(row, 'high')}"


def _time(row: "pd.Series[float]", name: str) -> str:
    """Write a number of epochs; one that no run's end bounds is above the last."""
    return f"> {row['epochs']:.0f}" if math.isinf(row[name]) else number(row[name], 1)


# ---- Probes ----


def probe_table(results: Results) -> Table | None:
    """Tabulate the main effects on everything that the study's probes measure; None without probes."""
    frame = probed(results)
    if frame is None:
        return None
    headings = {"what": "Measured, unit", "label": "Effect of", "mean": "Mean of all cells", "n": "Seeds",
                "estimate": "Estimate", "interval": "95 % interval"}  # fmt: skip
    rows = table_rows(frame, {
        "what": lambda row: f"{describe(str(row['response'])).label}, {describe(str(row['response'])).unit}",
        "label": lambda row: str(row["label"]),
        "mean": lambda row: number(row["mean"], describe(str(row["response"])).digits),
        "n": lambda row: of(int(row["n"]), int(row["n_planned"])),
        "estimate": lambda row: number(row["estimate"], describe(str(row["response"])).digits, sign=True),
        "interval": lambda row: span(row["low"], row["high"], describe(str(row["response"])).digits),
    })  # fmt: skip
    caption = (
        "Effects on what was measured inside the trained networks, averaged over the other factors. Of logarithms, an "
        "effect of 0.05 is about 5 %. A run that diverged has no such numbers: its seed is left out of the effects "
        "that need it, and the column of seeds says so."
    )
    return Table("probes", caption, headings, rows, frame)
