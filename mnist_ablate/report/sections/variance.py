"""Where the spread between runs comes from: the parts of its variance, where a study draws parts of chance anew."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import NOTHING, estimate, interval, joined, number, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Row, Table


def section(analysis: Analysis) -> Section | None:
    """Return the parts of the variance; None where the study does not draw parts of chance anew."""
    if analysis.components is None:
        return None
    return Section(
        "variance",
        "Where the spread between runs comes from",
        TEMPLATE,
        tables={"variance": table(analysis)},
        pictures={"variance": picture(partial(plots.variance_parts, analysis), shares(analysis))},
        values={"shares": shares(analysis)},
    )


def table(analysis: Analysis) -> Table:
    """Tabulate the parts of the variance of test accuracy."""
    frame = analysis.components
    assert frame is not None  # noqa: S101 # without it there is no section

    columns = {
        "source": ("Part of chance", lambda row: "all together" if row["source"] == "all" else row["source"]),
        "variance": ("Variance, points²", lambda row: _estimate(row, "variance", 4)),
        "variance_interval": ("95 % interval", lambda row: _interval(row, "variance", 4)),
        "sd": ("As sd, points", lambda row: _estimate(row, "sd", 3)),
        "sd_interval": ("95 % interval", lambda row: _interval(row, "sd", 3)),
        "share": ("Share, %", lambda row: number(100 * row["share"], 1)),
        "share_interval": ("95 % interval", _share_interval),
    }
    caption = (
        f"Where the variance of test accuracy between runs comes from, over {plural(int(frame['n'].iloc[0]), 'seed')}. "
        "The estimates are unbiased, so a part that does almost nothing may have one below 0. All parts together give "
        f"a standard deviation of {number(frame['sd'].iloc[-1], 3)} points; between the seeds of a cell, where "
        f"everything is drawn anew, it is {number(analysis.spread(), 3)}. Intervals: bootstrap over seeds, percentiles."
    )
    return Table.of("variance", caption, frame, columns)


def _estimate(row: Row, name: str, digits: int) -> str:
    return estimate(row[name], row[f"{name}_low"], row[f"{name}_high"], digits, sign=False)


def _interval(row: Row, name: str, digits: int) -> str:
    return interval(row[f"{name}_low"], row[f"{name}_high"], digits, sign=False)


def _share_interval(row: Row) -> str:
    if str(row["source"]) == "all":
        return NOTHING
    return interval(100 * row["share_low"], 100 * row["share_high"], 1, sign=False)


def shares(analysis: Analysis) -> str:
    """Say which part of chance causes most of the spread."""
    assert analysis.components is not None  # noqa: S101 # without it there is no section
    parts = analysis.components[:-1].sort_values("share", ascending=False)
    if parts["share"].isna().any():
        return "The runs do not differ, so there is no spread to divide."
    named = [f"{row['source']} {number(100 * row['share'], 0)} %" for _, row in parts.iterrows()]
    return f"Shares of the variance of test accuracy between runs: {joined(named)}."


TEMPLATE = """
    <p>{{ shares }}</p>
    <p>Each part of chance was drawn twice within each seed, in all combinations, which separates its variance from
      that of the others. What no single part explains is an interaction: some batches, for example, are lucky only
      with some initial weights.</p>
{% call figure(pictures, "variance") %}
      Diamonds are estimates, bars their 95&nbsp;% intervals.
{% endcall %}
{{ table(tables.variance) }}
"""
