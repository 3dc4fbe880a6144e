"""How far a study has gone that goes on until it is settled: its looks, why it stopped, and how to go on."""

from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.study import bundled_studies
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import count, say
from mnist_ablate.report.format import digits_of, interval, joined, number, percent
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Row, Table
from mnist_ablate.report.verdict_words import badge, in_unit, least_digits


def section(analysis: Analysis) -> Section | None:
    """Return the looks; None for a study with a fixed number of seeds."""
    looks, standing = analysis.study.looks, analysis.standing
    if len(looks) == 1:
        return None
    frame = analysis.by_look
    done = frame["seeds"].nunique() if standing.complete else 0
    alt = count(
        frame["seeds"].nunique(),
        "A panel for each hypothesis: estimate and interval at {n} look. Not settled at the last: {open}.",
        "A panel for each hypothesis: estimate and interval at {n} looks. Not settled at the last: {open}.",
        open=joined(standing.open) if standing.open else say("none"),
    )
    return Section(
        "looks",
        say("How far the study has gone"),
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
        "id": (say("Hypothesis"), lambda row: str(row["id"])),
        "seeds": (say("Seeds"), lambda row: str(row["seeds"])),
        "estimate": (
            say("Estimate"),
            lambda row: number(row["estimate"], digits(row), sign=True) + in_unit(judgements[str(row["id"])]),
        ),
        "interval": (say("Interval"), lambda row: interval(row["low"], row["high"], digits(row))),
        "verdict": (say("Verdict"), lambda row: badge(str(row["verdict"]))),
    }
    caption = say(
        "Each hypothesis at each look, with its repeated confidence interval: the intervals of all looks hold at once."
    )
    return Table.of("looks", caption, analysis.by_look, columns)


TEMPLATE = """
    <p>{% if settle == "size" %}{% trans %}This study adds seeds until its hypotheses are settled, with the sizes of
      their
      effects.{% endtrans %}{% else %}{% trans %}This study adds seeds until its hypotheses are
      settled.{% endtrans %}{% endif %} {% if look %}{% trans n_looks=looks | length, most=looks[-1] %}It stands at
      look {{ look }} of {{ n_looks }}, with {{ seeds }} seeds of
      at most {{ most }}.{% endtrans %}{% else %}{% trans %}Its first look, at {{ seeds }} seeds, lacks some
      runs.{% endtrans %}{% endif +%}
      {% if stop == "settled" %}{% trans %}It stopped there, because all hypotheses are settled.{% endtrans +%}
      {% elif stop == "most" %}{% trans %}It stopped there, because it has all its seeds. Not settled:
      {{ open }}.{% endtrans +%}
      {% elif stop == "futile" %}{% trans most=looks[-1] %}It stopped there, because each hypothesis that is not
      settled ({{ open }}) has a
      chance of less than {{ futility }} to be settled with {{ most }} seeds. To go on all the same, write
      <code>futility = 0</code> into the study's file; the verdicts stay as valid.{% endtrans +%}
      {% else %}{% trans %}Not settled yet: {{ open }}.{% endtrans %} {% if command %}{% trans %}This goes on:
      <code>{{ command }}</code>{% endtrans %}{% else %}{% trans %}Make the
      runs of the next look, and judge the table again.{% endtrans %}{% endif %}{% endif %}</p>
{% if waiting %}
    <p>{% trans n=waiting %}{{ n }} run of later seeds
      is stored and not used on this page: a look uses its own seeds alone.{% pluralize %}{{ n }} runs of later seeds
      are stored and not used on this page: a look uses its own seeds alone.{% endtrans %}</p>
{% endif %}
{% call figure(pictures, "looks") %}
      {% trans %}The estimate (line) and the interval that decides (shaded) at each look, in units of the smallest
      effect that
      matters (logarithmic beyond 2); the grey band is too small to matter. Early intervals are wide, so that looking
      often costs little later. None is wider than the one before.{% endtrans %}

{% endcall %}
    <details><summary>{% trans %}The looks in numbers{% endtrans %}</summary>
{{ table(tables.looks) }}
    </details>
    <p>{% trans %}A study that stops because an effect looks large stops a little too often on a lucky high. In
      simulations of the main study the mean at the stop was too far from 0 by at most 0.08 of the smallest effect that
      matters. The intervals allow for it.{% endtrans %}</p>
"""
