"""Every run: the main response, such as test accuracy, by cell."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.plots.cells import cells_in_rows, drawn_seeds
from mnist_ablate.report.format import estimate, interval, number, out_of, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Row, Table
from mnist_ablate.report.words import is_paired, part


def section(analysis: Analysis) -> Section | None:
    """Return the cells with all their runs; None for a search, which has no cells."""
    if analysis.study.searched:
        return None
    return Section(
        "cells",
        "Every cell" if analysis.study.summarised else "Every run",
        TEMPLATE,
        tables={"cells": table(analysis)},
        pictures={"accuracy": picture(partial(plots.accuracy, analysis), _alt(analysis))},
        values={
            "reference": in_words(analysis.reference),
            "part": _part(analysis),
            "paired": is_paired(analysis),
            "summarised": analysis.study.summarised,
        },
    )


def table(analysis: Analysis) -> Table:
    """Tabulate the main response by cell, and the difference to the reference cell."""
    reference, response = in_words(analysis.reference), analysis.response()
    digits, unit = response.digits, f", {response.unit}" if response.unit else ""
    paired = ", paired by seed" if is_paired(analysis) else ""
    columns: Columns = {
        "cell": ("Cell", lambda row: in_words(row["cell"])),
        "runs": ("Runs", lambda row: out_of(int(row["n"]), int(row["n_planned"]))),
        "mean": (response.heading, lambda row: number(row["mean"], digits)),
        "sd": ("sd", lambda row: number(row["sd"], digits)),
        "difference": (f"Difference to {reference}{unit}", lambda row: _difference(row, digits)),
        "interval": ("95 % interval", lambda row: _interval(row, digits, paired=bool(paired))),
        "diverged": ("Diverged" if analysis.ours else "Failed", lambda row: str(row["n_diverged"])),
    }
    what = "Accuracy on the test images after the last epoch" if analysis.ours else response.at_start
    caption = f"{what}: mean and standard deviation (sd) over seeds, and the difference to {reference}{paired}"
    caption += ", in percentage points." if response.unit == "points" else "."
    return Table.of("cells", caption, analysis.cells(), columns)


def _difference(row: Row, digits: int) -> str:
    known = estimate(row["difference"], row["low"], row["high"], digits)
    return "reference" if row["cell"] == row["reference"] else known


def _interval(row: Row, digits: int, *, paired: bool) -> str:
    # The number of pairs is worth a word only where the numbers of runs do not give it.
    known = not paired or row["n_pairs"] == row["n_planned"] or row.isna()["low"]
    pairs = "" if known else f" ({row['n_pairs']} pairs)"
    return interval(row["low"], row["high"], digits) + pairs


def _part(analysis: Analysis) -> str:
    """Say which cells the picture shows, where these are not all."""
    n, seeds, drawn = len(analysis.cell_names), len(analysis.seeds()), len(drawn_seeds(analysis))
    some = f" It shows {drawn:,} of {seeds:,} runs of a cell." if drawn < seeds else ""
    return some.strip() + part(len(cells_in_rows(analysis)), n, "cell", in_words(analysis.reference), "means")


def _alt(analysis: Analysis) -> str:
    response = analysis.response()
    frame = analysis.cells().dropna(subset="mean").sort_values("mean", ascending=False)
    frame = frame[frame["cell"].isin(cells_in_rows(analysis))]
    percent = response.value_unit == "%"
    numbers = (f"{mean:.{response.digits}f}" for mean in frame["mean"])
    means = "; ".join(f"{in_words(cell)} {mean}" for cell, mean in zip(frame["cell"], numbers, strict=True))
    ends = (f"{end:.{response.digits}f}" for end in (frame["min"].min(), frame["max"].max()))
    runs = f" Single runs lie between {' and '.join(ends)}{' percent' if percent else ''}."
    dots = "." if analysis.study.summarised else f" and a dot for each seed.{runs}"
    return (
        f"Dot plot of {response.label}, a row for each of {plural(len(frame), 'cell')}{dots} Means from highest to "
        f"lowest{', in percent' if percent else ''}: {means}."
    )


TEMPLATE = """
{{ table(tables.cells, highlight=reference) }}
{% call figure(pictures, "accuracy") %}
      {% if not summarised %}Every dot is one training run{% if paired %}, and a thin line connects the runs of a
      seed{% endif %}. {% endif %}The diamond
      is the mean of the cell, the bar its 95&nbsp;% interval. Overlapping bars do not mean that two cells are alike:
      the table compares them{% if paired %} seed by seed{% endif %}.{% if part %} {{ part }} The table has all of
      them.{% endif %}

{% endcall %}
"""
