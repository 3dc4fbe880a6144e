"""Every run: test accuracy by cell."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.plots.cells import cells_in_rows
from mnist_ablate.report.format import estimate, interval, number, out_of, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Row, Table
from mnist_ablate.report.words import part


def section(analysis: Analysis) -> Section:
    """Return the cells with all their runs."""
    return Section(
        "cells",
        "Every run",
        TEMPLATE,
        tables={"cells": table(analysis)},
        pictures={"accuracy": picture(partial(plots.accuracy, analysis), _alt(analysis))},
        values={"reference": in_words(analysis.reference), "part": _part(analysis)},
    )


def table(analysis: Analysis) -> Table:
    """Tabulate test accuracy by cell, and the difference to the reference cell."""
    reference = in_words(analysis.reference)
    columns: Columns = {
        "cell": ("Cell", lambda row: in_words(row["cell"])),
        "runs": ("Runs", lambda row: out_of(int(row["n"]), int(row["n_planned"]))),
        "mean": ("Test accuracy, %", lambda row: number(row["mean"])),
        "sd": ("sd", lambda row: number(row["sd"])),
        "difference": (f"Difference to {reference}, points", _difference),
        "interval": ("95 % interval", _interval),
        "diverged": ("Diverged", lambda row: str(row["n_diverged"])),
    }
    caption = (
        "Accuracy on the test images after the last epoch: mean and standard deviation (sd) over seeds, and the "
        f"difference to {reference}, paired by seed, in percentage points."
    )
    return Table.of("cells", caption, analysis.cells(), columns)


def _difference(row: Row) -> str:
    return "reference" if row["cell"] == row["reference"] else estimate(row["difference"], row["low"], row["high"])


def _interval(row: Row) -> str:
    # The number of pairs is worth a word only where the numbers of runs do not give it.
    pairs = "" if row["n_pairs"] == row["n_planned"] or row.isna()["low"] else f" ({row['n_pairs']} pairs)"
    return interval(row["low"], row["high"]) + pairs


def _part(analysis: Analysis) -> str:
    """Say which cells the picture shows, where these are not all."""
    n = len(analysis.cell_names)
    return part(len(cells_in_rows(analysis)), n, "cell", in_words(analysis.reference), "means")


def _alt(analysis: Analysis) -> str:
    frame = analysis.cells().dropna(subset="mean").sort_values("mean", ascending=False)
    frame = frame[frame["cell"].isin(cells_in_rows(analysis))]
    means = "; ".join(f"{in_words(cell)} {mean:.2f}" for cell, mean in zip(frame["cell"], frame["mean"], strict=True))
    return (
        f"Dot plot of test accuracy, a row for each of {plural(len(frame), 'cell')} and a dot for each seed. Single "
        f"runs lie between {frame['min'].min():.2f} and {frame['max'].max():.2f} percent. Means from highest to "
        f"lowest, in percent: {means}."
    )


TEMPLATE = """
{{ table(tables.cells, highlight=reference) }}
{% call figure(pictures, "accuracy") %}
      Every dot is one training run, and a thin line connects the runs of a seed. The diamond is the mean of the cell,
      the bar its 95&nbsp;% interval. Overlapping bars do not mean that two cells are alike: the table compares them
      seed by seed.{% if part %} {{ part }} The table has all of them.{% endif %}

{% endcall %}
"""
