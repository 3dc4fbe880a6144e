"""Level by level: accuracy against the levels of a factor, what stands in place of the levels, and speed."""

import math
from functools import partial

import numpy as np
import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.contrasts import Hypothesis, show
from mnist_ablate.design.responses import SUMMARIES
from mnist_ablate.design.settings import in_words, level_in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import figures, say, told
from mnist_ablate.plots.levels import dose_lines
from mnist_ablate.report.format import NOTHING, file_name, number, out_of, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated
from mnist_ablate.report.words import part


def section(analysis: Analysis) -> Section | None:
    """Return what changes from level to level; None where no factor has several levels, and speed is not measured."""
    tables = [*summaries(analysis), *([speed(analysis.speed)] if analysis.speed is not None else [])]
    pictures = _doses(analysis)
    if not tables and not pictures:
        return None
    values = {"parts": _parts(analysis), "label": analysis.response().in_sentence, "paired": analysis.paired}
    return Section("levels", say("Level by level"), TEMPLATE, {table.name: table for table in tables}, pictures, values)


def _doses(analysis: Analysis) -> dict[str, Picture]:
    """Draw accuracy against the levels of each graded factor."""
    return {
        f"levels-{file_name(factor)}": picture(partial(plots.doses, analysis, factor), _doses_alt(analysis, factor))
        for factor in _lines(analysis)
    }


def _lines(analysis: Analysis) -> dict[str, int]:
    """Return how many lines each graded factor has."""
    frame = analysis.by_level().dropna(subset="mean")
    return {str(factor): rows["line"].nunique() for factor, rows in frame.groupby("factor", sort=False)}


def _parts(analysis: Analysis) -> dict[str, str]:
    """Say of each picture which lines it shows, where these are not all."""
    parts = {}
    for factor, n in _lines(analysis).items():
        lines = list(dict.fromkeys(dose_lines(analysis, factor)["line"]))
        parts[f"levels-{file_name(factor)}"] = part(len(lines), n, "line", in_words(lines[0]), say("means"))
    return parts


def _doses_alt(analysis: Analysis, factor: str) -> str:
    response, lines = analysis.response(), []
    for line, rows in dose_lines(analysis, factor).groupby("line", sort=False):
        levels = zip(rows["level"], rows["mean"], strict=True)
        means = (figures(f"{show(level)} {mean:.{response.digits}f}") for level, mean in levels)
        lines.append(f"{in_words(str(line))}: {', '.join(means)}")
    words = {"response": response.in_sentence, "factor": in_words(factor), "means": "; ".join(lines)}
    if response.value_unit == "%":
        return say("Line plot of mean {response} against {factor}. In percent, by level: {means}.", **words)
    return say("Line plot of mean {response} against {factor}. By level: {means}.", **words)


def summaries(analysis: Analysis) -> list[Table]:
    """Tabulate what stands in place of a factor's levels, such as the highest that trains, or the spread over them."""
    return [
        (_steps_table if SUMMARIES[hypothesis.summary or ""].steps else _mean_table)(hypothesis, frame)
        for hypothesis, frame in analysis.over_levels
    ]  # fmt: skip


def _named(hypothesis: Hypothesis) -> tuple[str, str, str]:
    """Return the name of the table of a summary, the heading of its numbers, and its caption."""
    summary, over = SUMMARIES[hypothesis.summary or ""], in_words(hypothesis.over)
    name = f"{summary.table}-{hypothesis.over}{'-within' if hypothesis.within else ''}"
    heading, caption = (told(text).format(factor=over) for text in (summary.heading, summary.caption))
    if hypothesis.within:
        low, high = (figures(f"{end:g}") for end in hypothesis.within)
        caption = f"{caption} {say('Levels from {low} to {high}.', low=low, high=high)}"
    return name, heading, caption


def _steps_table(hypothesis: Hypothesis, frame: pd.DataFrame) -> Table:
    name, heading, caption = _named(hypothesis)
    columns: Columns = {
        "others": (say("Cells"), lambda row: in_words(row["others"])),
        "n": (say("Seeds"), lambda row: str(row["n"])),
        "level": (heading, lambda row: NOTHING if pd.isna(row["level"]) else figures(show(float(row["level"])))),
        "levels": (say("Seeds at each"), lambda row: _seeds_at_each(str(row["levels"]))),
        "end": (say("At the end of the grid"), lambda row: plural(int(row["n_end"]), "seed")),
    }
    return Table.of(name, caption, frame, columns)


def _seeds_at_each(levels: str) -> str:
    """Write levels with their numbers of seeds, such as "0.01: 3; none: 2"."""
    if not levels:
        return NOTHING
    parts = (part.split(": ") for part in levels.split("; "))
    return "; ".join(f"{level_in_words(level)}: {n}" for level, n in parts)


def _mean_table(hypothesis: Hypothesis, frame: pd.DataFrame) -> Table:
    name, heading, caption = _named(hypothesis)
    columns: Columns = {
        "others": (say("Cells"), lambda row: in_words(row["others"])),
        "n": (say("Seeds"), lambda row: str(row["n"])),
        **estimated(heading, value="mean", sign=False),
        "seeds": (say("sd over seeds"), lambda row: number(row["sd_seeds"])),
    }
    return Table.of(name, caption, frame, columns)


def speed(frame: pd.DataFrame) -> Table:
    """Tabulate when the cells reach 97 % validation accuracy."""
    columns: Columns = {
        "cell": (say("Cell"), lambda row: in_words(row["cell"])),
        "n": (say("Runs"), lambda row: str(row["n"])),
        "reached": (
            say("Reach 97 %"),
            lambda row: out_of(int(row["n_reached"]), int(row["n"])) if row["n"] else NOTHING,
        ),
        "median": (say("Median, epochs"), lambda row: _time(row, "median")),
        "interval": (say("95 % interval"), _times),
        "steps": (say("Median, steps"), _steps),
    }
    caption = say(
        "Epochs to a validation accuracy of 97 %, interpolated linearly between evaluations. A run that ends earlier "
        "counts as later than all that arrive, so a median among such runs is above their last epoch. In a hypothesis "
        "it counts as arriving with its last epoch: a difference to slower cells is at least as large as it looks. "
        "Intervals of the median by order statistics."
    )
    return Table.of("speed", caption, frame, columns)


def _steps(row: Row) -> str:
    arrives = row["steps"] and np.isfinite(row["median"])
    return number(row["median"] * row["steps"], 0) if arrives else NOTHING


def _times(row: Row) -> str:
    """Write the interval of a median; one that lies wholly among runs that do not arrive is above the last epoch."""
    if not row["n"]:
        return NOTHING
    low, high = _time(row, "low"), _time(row, "high")
    return low if math.isinf(row["low"]) else say("{low} to {high}", low=low, high=high)


def _time(row: Row, name: str) -> str:
    """Write a number of epochs; an infinite one is above the last."""
    return f"> {row['epochs']:.0f}" if math.isinf(row[name]) else number(row[name], 1)


TEMPLATE = """
{% for name in pictures %}
{% call figure(pictures, name) %}
      {% if paired %}{% trans %}Mean {{ label }} over seeds at each level, with 95&nbsp;% intervals; a line for each
      combination of
      the other
      factors. A logarithmic axis has no place for level 0: it stands at the left.{% endtrans %}{% else %}
      {% trans %}Mean {{ label }} over runs at each level, with 95&nbsp;% intervals; a line for each combination of the
      other factors. A logarithmic axis has no place for level 0: it stands at the
      left.{% endtrans %}{% endif %}{% if parts[name] %}
      {{ parts[name] }}
      {% trans %}The table of every run has all of them.{% endtrans %}{% endif %}

{% endcall %}
{% endfor %}
{% for name in tables %}
{{ table(tables[name]) }}
{% endfor %}
"""
