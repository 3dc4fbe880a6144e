"""What each setting of a search does: coefficients of least squares, in place of contrasts of cells."""

import math
from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say
from mnist_ablate.report.format import file_name, joined, number, out_of, p_value
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.tables import Columns, Table, estimated


def section(analysis: Analysis) -> Section | None:
    """Return the coefficients; None where the study is no search, or its runs do not tell the settings apart."""
    if not analysis.study.searched or analysis.searched().fit is None:
        return None
    responses = list(analysis.study.responses)
    return Section(
        "coefficients",
        say("What each setting does"),
        TEMPLATE,
        tables={response: table(analysis, response) for response in responses},
        pictures={"coefficients": picture(partial(plots.forest, analysis), _alt(analysis))},
        values={
            "others": joined(say("the {metric}", metric=analysis.response(name).name) for name in responses[1:]),
            "label": analysis.response().in_sentence,
        },
    )


def table(analysis: Analysis, response: str | None = None) -> Table:
    """Tabulate the coefficients of a response."""
    response = response or analysis.metric
    shown, found = analysis.response(response), analysis.searched(response)
    heading = say("Estimate, {unit}", unit=shown.unit_name) if shown.unit else say("Estimate")
    columns: Columns = {
        "label": (say("Coefficient"), lambda row: in_words(row["label"])),
        "n": (say("Runs"), lambda row: out_of(int(row["n"]), int(row["n_planned"]))),
        **estimated(heading, shown.digits),
        "p": (say("p (t)"), lambda row: p_value(row["p"])),
    }
    rest, explained = (found.fit.sd, 100 * found.fit.explained) if found.fit else (math.nan, math.nan)
    caption = say(
        "Coefficients of {response}: least squares on all settings, without interactions, with 95 % t intervals from "
        "HC3 standard errors. The model accounts for {explained} % of the variance between runs; what it leaves has a "
        "standard deviation of {rest}.",
        response=shown.in_sentence, explained=number(explained, 1), rest=number(rest, shown.digits) + shown.in_unit,
    )  # fmt: skip
    return Table.of(f"coefficients-{file_name(response)}", caption, analysis.effects(response), columns)


def _alt(analysis: Analysis) -> str:
    frame, response = analysis.effects().dropna(subset="estimate"), analysis.response()
    estimates = "; ".join(
        f"{in_words(label)} {number(value, response.digits, sign=True)}"
        for label, value in zip(frame["label"], frame["estimate"], strict=True)
    )
    return say(
        "Forest plot of coefficients of {response} with their 95 % intervals: {estimates}.",
        response=response.in_sentence, estimates=estimates,
    )  # fmt: skip


TEMPLATE = """
    <p>{% trans %}Settings were searched, so there are no cells to compare. A coefficient is what changes on average
      when one
      setting changes and the others stay: for each doubling (or each unit) of a number, or against the first level of
      anything else.{% endtrans %}</p>
{% call figure(pictures, "coefficients") %}
      {% trans %}Bars are 95&nbsp;% intervals. They hold for runs that spread unequally. They do not know of bends and
      interactions: where {{ label }} does not rise or fall evenly with a setting, its coefficient is that of the
      straight line that fits best.{% endtrans %}

{% endcall %}
{% call first_of(tables) %}{% trans %}Coefficients of {{ others }}{% endtrans %}{% endcall %}

"""
