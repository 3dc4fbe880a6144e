"""Every run: the main response, such as test accuracy, by cell."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import count, figures, say, whole
from mnist_ablate.plots.cells import cells_in_rows, drawn_seeds
from mnist_ablate.report.format import estimate, interval, number, out_of, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Row, Table
from mnist_ablate.report.words import part


def section(analysis: Analysis) -> Section | None:
    """Return the cells with all their runs; None for a search, which has no cells."""
    if analysis.study.searched:
        return None
    return Section(
        "cells",
        say("Every cell") if analysis.study.summarised else say("Every run"),
        TEMPLATE,
        tables={"cells": table(analysis)},
        pictures={"accuracy": picture(partial(plots.accuracy, analysis), _alt(analysis))},
        values={
            "label": analysis.response().at_start,
            "reference": in_words(analysis.reference),
            "part": _part(analysis),
            "paired": analysis.paired,
            "summarised": analysis.study.summarised,
        },
    )


def table(analysis: Analysis) -> Table:
    """Tabulate the main response by cell, and the difference to the reference cell."""
    reference, response = in_words(analysis.reference), analysis.response()
    digits, paired = response.digits, analysis.paired
    difference = say("Difference to {cell}", cell=reference)
    columns: Columns = {
        "cell": (say("Cell"), lambda row: in_words(row["cell"])),
        "runs": (say("Runs"), lambda row: out_of(int(row["n"]), int(row["n_planned"]))),
        "mean": (response.heading, lambda row: number(row["mean"], digits)),
        "sd": (say("sd"), lambda row: number(row["sd"], digits)),
        "difference": (
            f"{difference}, {response.unit_name}" if response.unit else difference,
            lambda row: _difference(row, digits),
        ),
        "interval": (say("95 % interval"), lambda row: _interval(row, digits, paired=paired)),
        "diverged": (say("Diverged") if analysis.ours else say("Failed"), lambda row: str(row["n_diverged"])),
    }
    return Table.of("cells", _caption(analysis, reference, paired=paired), analysis.cells(), columns)


def _caption(analysis: Analysis, reference: str, *, paired: bool) -> str:
    response = analysis.response()
    what = say("Accuracy on the test images after the last epoch") if analysis.ours else response.at_start
    words = {"what": what, "reference": reference}
    match (paired, response.unit == "points"):
        case True, True:
            return say(
                "{what}: mean and standard deviation (sd) over seeds, and the difference to {reference}, paired by "
                "seed, in percentage points.",
                **words,
            )
        case True, False:
            return say(
                "{what}: mean and standard deviation (sd) over seeds, and the difference to {reference}, paired by "
                "seed.",
                **words,
            )
        case False, True:
            return say(
                "{what}: mean and standard deviation (sd) over runs, and the difference to {reference}, in percentage "
                "points.",
                **words,
            )
    return say("{what}: mean and standard deviation (sd) over runs, and the difference to {reference}.", **words)


def _difference(row: Row, digits: int) -> str:
    known = estimate(row["difference"], row["low"], row["high"], digits)
    return say("reference") if row["cell"] == row["reference"] else known


def _interval(row: Row, digits: int, *, paired: bool) -> str:
    # The number of pairs is worth a word only where the numbers of runs do not give it.
    known = not paired or row["n_pairs"] == row["n_planned"] or row.isna()["low"]
    ends = interval(row["low"], row["high"], digits)
    return ends if known else count(int(row["n_pairs"]), "{ends} ({n} pairs)", "{ends} ({n} pairs)", ends=ends)


def _part(analysis: Analysis) -> str:
    """Say which cells the picture shows, where these are not all."""
    n, seeds, drawn = len(analysis.cell_names), len(analysis.seeds()), len(drawn_seeds(analysis))
    some = (
        say("It shows {drawn} of {all} runs of a cell.", drawn=whole(drawn), all=whole(seeds)) if drawn < seeds else ""
    )
    return some + part(len(cells_in_rows(analysis)), n, "cell", in_words(analysis.reference), say("means"))


def _alt(analysis: Analysis) -> str:
    response = analysis.response()
    frame = analysis.cells().dropna(subset="mean").sort_values("mean", ascending=False)
    frame = frame[frame["cell"].isin(cells_in_rows(analysis))]
    numbers = (figures(f"{mean:.{response.digits}f}") for mean in frame["mean"])
    least, most = (figures(f"{end:.{response.digits}f}") for end in (frame["min"].min(), frame["max"].max()))
    means = "; ".join(f"{in_words(cell)} {mean}" for cell, mean in zip(frame["cell"], numbers, strict=True))
    words = {"response": response.in_sentence, "cells": plural(len(frame), "cell"), "least": least, "most": most,
             "means": means}  # fmt: skip
    match (analysis.study.summarised, response.value_unit == "%"):
        case True, True:
            return say(
                "Dot plot of {response}, a row for each of {cells}. Means from highest to lowest, in percent: {means}.",
                **words,
            )
        case True, False:
            return say(
                "Dot plot of {response}, a row for each of {cells}. Means from highest to lowest: {means}.", **words
            )
        case False, True:
            return say(
                "Dot plot of {response}, a row for each of {cells} and a dot for each run. Single runs lie between "
                "{least} and {most} percent. Means from highest to lowest, in percent: {means}.",
                **words,
            )
    return say(
        "Dot plot of {response}, a row for each of {cells} and a dot for each run. Single runs lie between {least} "
        "and {most}. Means from highest to lowest: {means}.",
        **words,
    )


TEMPLATE = """
{{ table(tables.cells, highlight=reference) }}
{% call figure(pictures, "accuracy") %}
      {{ label }}. {% if summarised %}{% trans %}The diamond
      is the mean of the cell, the bar its 95&nbsp;% interval. Overlapping bars do not mean that two cells are alike:
      the table compares them.{% endtrans %}{% elif paired %}{% trans %}Every dot is one training run, and a thin line
      connects the runs of a seed. The diamond
      is the mean of the cell, the bar its 95&nbsp;% interval. Overlapping bars do not mean that two cells are alike:
      the table compares them seed by seed.{% endtrans %}{% else %}{% trans %}Every dot is one training run. The diamond
      is the mean of the cell, the bar its 95&nbsp;% interval. Overlapping bars do not mean that two cells are alike:
      the table compares them.{% endtrans %}{% endif %}{% if part %} {{ part }} {% trans %}The table has all of
      them.{% endtrans %}{% endif %}

{% endcall %}
"""
