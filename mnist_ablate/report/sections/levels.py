"""Level by level: accuracy against the levels of a factor, what stands in place of the levels, and speed."""

import math
from functools import partial

import numpy as np
import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.contrasts import Hypothesis, show
from mnist_ablate.design.responses import SUMMARIES
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
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
    values = {"parts": _parts(analysis), "label": analysis.response().label}
    return Section("levels", "Level by level", TEMPLATE, {table.name: table for table in tables}, pictures, values)


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
        parts[f"levels-{file_name(factor)}"] = part(len(lines), n, "line", in_words(lines[0]), "means")
    return parts


def _doses_alt(analysis: Analysis, factor: str) -> str:
    response, lines = analysis.response(), []
    for line, rows in dose_lines(analysis, factor).groupby("line", sort=False):
        levels = zip(rows["level"], rows["mean"], strict=True)
        means = (f"{show(level)} {mean:.{response.digits}f}" for level, mean in levels)
        lines.append(f"{in_words(str(line))}: {', '.join(means)}")
    by_level = "In percent, by level" if response.value_unit == "%" else "By level"
    return f"Line plot of mean {response.label} against {in_words(factor)}. {by_level}: {'; '.join(lines)}."


def summaries(analysis: Analysis) -> list[Table]:
    """Tabulate what stands in place of a factor's levels, such as the highest that trains, or the spread over them."""
    return [
        (_steps_table if SUMMARIES[hypothesis.summary or ""].steps else _mean_table)(hypothesis, frame)
        for hypothesis, frame in analysis.over_levels
    ]  # fmt: skip


def _named(hypothesis: Hypothesis) -> tuple[str, str, str]:
    """Return the name of the table of a summary, the heading of its numbers, and its caption."""
    summary, over = SUMMARIES[hypothesis.summary or ""], in_words(hypothesis.over)
    ends = f" Levels from {hypothesis.within[0]:g} to {hypothesis.within[1]:g}." if hypothesis.within else ""
    name = f"{summary.table}-{hypothesis.over}{'-within' if hypothesis.within else ''}"
    return name, summary.heading.format(over), f"{summary.caption.format(over)}{ends}"


def _steps_table(hypothesis: Hypothesis, frame: pd.DataFrame) -> Table:
    name, heading, caption = _named(hypothesis)
    columns: Columns = {
        "others": ("Cells", lambda row: in_words(row["others"])),
        "n": ("Seeds", lambda row: str(row["n"])),
        "level": (heading, lambda row: NOTHING if pd.isna(row["level"]) else show(float(row["level"]))),
        "levels": ("Seeds at each", lambda row: str(row["levels"]) or NOTHING),
        "end": ("At the end of the grid", lambda row: plural(int(row["n_end"]), "seed")),
    }
    return Table.of(name, caption, frame, columns)


def _mean_table(hypothesis: Hypothesis, frame: pd.DataFrame) -> Table:
    name, heading, caption = _named(hypothesis)
    columns: Columns = {
        "others": ("Cells", lambda row: in_words(row["others"])),
        "n": ("Seeds", lambda row: str(row["n"])),
        **estimated(heading, value="mean", sign=False),
        "seeds": ("sd over seeds", lambda row: number(row["sd_seeds"])),
    }
    return Table.of(name, caption, frame, columns)


def speed(frame: pd.DataFrame) -> Table:
    """Tabulate when the cells reach 97 % validation accuracy."""
    columns: Columns = {
        "cell": ("Cell", lambda row: in_words(row["cell"])),
        "n": ("Runs", lambda row: str(row["n"])),
        "reached": ("Reach 97 %", lambda row: out_of(int(row["n_reached"]), int(row["n"])) if row["n"] else NOTHING),
        "median": ("Median, epochs", lambda row: _time(row, "median")),
        "interval": ("95 % interval", _times),
        "steps": ("Median, steps", _steps),
    }
    caption = (
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
    return _time(row, "low") if math.isinf(row["low"]) else f"{_time(row, 'low')} to {_time(row, 'high')}"


def _time(row: Row, name: str) -> str:
    """Write a number of epochs; an infinite one is above the last."""
    return f"> {row['epochs']:.0f}" if math.isinf(row[name]) else number(row[name], 1)


TEMPLATE = """
{% for name in pictures %}
{% call figure(pictures, name) %}
      Mean {{ label }} over seeds at each level, with 95&nbsp;% intervals; a line for each combination of the other
      factors. A logarithmic axis has no place for level 0: it stands at the left.{% if parts[name] %} {{ parts[name] }}
      The table of every run has all of them.{% endif %}

{% endcall %}
{% endfor %}
{% for name in tables %}
{{ table(tables[name]) }}
{% endfor %}
"""
