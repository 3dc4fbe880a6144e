"""Where the spread between runs comes from: the parts of its variance, where a study draws parts of chance anew."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say, told
from mnist_ablate.report.format import NOTHING, joined, number, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Table, estimated


def section(analysis: Analysis) -> Section | None:
    """Return the parts of the variance; None where the study does not draw parts of chance anew."""
    if analysis.components is None:
        return None
    return Section(
        "variance",
        say("Where the spread between runs comes from"),
        TEMPLATE,
        tables={"variance": table(analysis)},
        pictures={"variance": picture(partial(plots.variance_parts, analysis), shares(analysis))},
        values={"shares": shares(analysis)},
    )


def table(analysis: Analysis) -> Table:
    """Tabulate the parts of the variance of test accuracy."""
    frame = analysis.components
    assert frame is not None  # noqa: S101 # without it there is no section
    columns: Columns = {
        "source": (
            say("Part of chance"),
            lambda row: say("all together") if row["source"] == "all" else told(row["source"]),
        ),
        **_part(say("Variance, points²"), "variance", 4),
        **_part(say("As sd, points"), "sd", 3),
        **_part(say("Share, %"), "share", 1, scale=100),
    }
    caption = say(
        "Where the variance of test accuracy between runs comes from, over {seeds}. The estimates are unbiased, so a "
        "part that does almost nothing may have one below 0; a dash stands for the sd where the whole interval is, "
        "which says that these seeds are too few for that part. All parts together give a standard deviation of {all} "
        "points; between the seeds of a cell, where everything is drawn anew, it is {spread}. Intervals: bootstrap "
        "over seeds, percentiles.",
        seeds=plural(int(frame["n"].iloc[0]), "seed"), all=number(frame["sd"].iloc[-1], 3),
        spread=number(analysis.spread(), 3),
    )  # fmt: skip
    table = Table.of("variance", caption, frame, columns)
    table.rows[-1]["share_interval"] = NOTHING  # the share of everything is 100 % by definition
    return table


def _part(heading: str, value: str, digits: int, scale: float = 1) -> Columns:
    return estimated(heading, digits, value=value, ends=(f"{value}_low", f"{value}_high"), sign=False, scale=scale)


def shares(analysis: Analysis) -> str:
    """Describe which part of chance causes most of the spread."""
    assert analysis.components is not None  # noqa: S101 # without it there is no section
    parts = analysis.components[:-1].sort_values("share", ascending=False)
    if parts["share"].isna().any():
        return say("The runs do not differ, so there is no spread to divide.")
    named = [f"{told(row['source'])} {number(100 * row['share'], 0)} %" for _, row in parts.iterrows()]
    said = say("Shares of the variance of test accuracy between runs: {shares}.", shares=joined(named))
    if parts["share"].between(0, 1).all():
        return said
    few = plural(int(parts["n"].iloc[0]), "seed")
    return f"{said} {say('No true share is below 0 or above 100 %: {seeds} say little about such a part.', seeds=few)}"


TEMPLATE = """
    <p>{{ shares }}</p>
    <p>{% trans %}Each part of chance was drawn twice within each seed, in all combinations, which separates its
      variance from
      that of the others. What no single part explains is an interaction: some batches, for example, are lucky only
      with some initial weights.{% endtrans %}</p>
{% call figure(pictures, "variance") %}
      {% trans %}Diamonds are estimates, bars their 95&nbsp;% intervals.{% endtrans %}

{% endcall %}
{{ table(tables.variance) }}
"""
