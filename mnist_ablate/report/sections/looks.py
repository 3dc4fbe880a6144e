"""How far a study has gone that goes on until it is settled: its looks, why it stopped, and how to go on."""

from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.study import bundled_studies
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import digits_of, interval, joined, number, percent, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Row, Table
from mnist_ablate.report.verdict_words import BADGES, in_unit, least_digits


def section(analysis: Analysis) -> Section | None:
    """Return the looks; None for a study with a fixed number of seeds."""
    looks, standing = analysis.study.looks, analysis.standing
    if len(looks) == 1:
        return None
    frame = analysis.by_look
    done = frame["seeds"].nunique() if standing.complete else 0
    open_at_last = joined(standing.open) if standing.open else "none"
    alt = (
        f"A panel for each hypothesis: estimate and interval at {plural(frame['seeds'].nunique(), 'look')}. "
        f"Not settled at the last: {open_at_last}."
    )
    return Section(
        "looks",
        "How far the study has gone",
        TEMPLATE,
        tables={"looks": table(analysis)},
        pictures={"looks": picture(partial(plots.by_look, analysis), alt)},
        values={
            "look": done,
            "looks": looks,
            "seeds": standing.seeds,
            "stop": standing.stop,
            "open": joined(standing.open),
            "settle": analysis.study.settle,
            "futility": percent(analysis.study.futility),
            "waiting": len(analysis.results.documents) - len(analysis.results.final) if analysis.trained else 0,
            "command": _command(analysis) if analysis.trained else "",
        },
    )


def _command(analysis: Analysis) -> str:
    """Return the command that goes on."""
    name, folder = analysis.study.name, analysis.results.folder.as_posix()
    study = name if name in bundled_studies() else f"{name}.toml"
    out = "" if folder == f"results/{name}" else f" --out {folder}"
    return f"python -m mnist_ablate run {study} --until-settled{out}"


def table(analysis: Analysis) -> Table:
    """Tabulate each hypothesis at each look."""
    judgements = {judgement.hypothesis.id: judgement for judgement in analysis.judgements}

    def digits(row: Row) -> int:
        judgement = judgements[str(row["id"])]
        least, smallest = least_digits(judgement), judgement.hypothesis.smallest
        return least if pd.isna(row["low"]) else digits_of(row["low"], row["high"], least, smallest)

    columns: Columns = {
        "id": ("Hypothesis", lambda row: str(row["id"])),
        "seeds": ("Seeds", lambda row: str(row["seeds"])),
        "estimate": (
            "Estimate",
            lambda row: number(row["estimate"], digits(row), sign=True) + in_unit(judgements[str(row["id"])]),
        ),
        "interval": ("Interval", lambda row: interval(row["low"], row["high"], digits(row))),
        "verdict": ("Verdict", lambda row: BADGES[str(row["verdict"])]),
    }
    caption = (
        "Each hypothesis at each look, with its repeated confidence interval: the intervals of all looks hold at once."
    )
    return Table.of("looks", caption, analysis.by_look, columns)


TEMPLATE = """
    <p>This study adds seeds until its hypotheses are settled{% if settle == "size" %}, with the sizes of their
      effects{% endif %}. {% if look %}It stands at look {{ look }} of {{ looks | length }}, with {{ seeds }} seeds of
      at most {{ looks[-1] }}.{% else %}Its first look, at {{ seeds }} seeds, lacks some runs.{% endif +%}
      {% if stop == "settled" %}It stopped there, because all hypotheses are settled.
      {% elif stop == "most" %}It stopped there, because it has all its seeds. Not settled: {{ open }}.
      {% elif stop == "futile" %}It stopped there, because each hypothesis that is not settled ({{ open }}) has a
      chance of less than {{ futility }} to be settled with {{ looks[-1] }} seeds. To go on all the same, write
      <code>futility = 0</code> into the study's file; that changes no verdict.
      {% else %}Not settled yet: {{ open }}. {% if command %}This goes on: <code>{{ command }}</code>{% else %}Make the
      runs of the next look, and judge the table again.{% endif %}{% endif %}</p>
{% if waiting %}
    <p>{{ "%d run" % waiting if waiting == 1 else "%d runs" % waiting }} of later seeds
      {{ "is" if waiting == 1 else "are" }} stored and not used on this page: a look uses its own seeds alone.</p>
{% endif %}
{% call figure(pictures, "looks") %}
      The estimate (line) and the interval that decides (shaded) at each look, in units of the smallest effect that
      matters (logarithmic beyond 2); the grey band is too small to matter. Early intervals are wide, so that looking
      often costs little later. None is wider than the one before.
{% endcall %}
    <details><summary>The looks in numbers</summary>
{{ table(tables.looks) }}
    </details>
    <p>A study that stops because an effect looks large stops a little too often on a lucky high. In simulations the
      mean at the stop was too far from 0 by at most 0.08 of the smallest effect that matters. The intervals allow for
      it.</p>
"""
