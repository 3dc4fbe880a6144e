"""The main response of runs that were made elsewhere as it was logged, epoch by epoch."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say
from mnist_ablate.plots.cells import cells_with_curves
from mnist_ablate.report.format import number, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import picture
from mnist_ablate.report.words import part


def section(analysis: Analysis) -> Section | None:
    """Return the curves; None where runs were not logged epoch by epoch, or are ours."""
    if analysis.ours or analysis.logged_curves()["epoch"].nunique() < 2:
        return None
    frame, response = analysis.logged_curves(), analysis.response()
    shown = cells_with_curves(analysis)
    return Section(
        "curves",
        say("{response}, as it was logged", response=response.at_start),
        TEMPLATE,
        pictures={"curves": picture(partial(plots.learning_curves, analysis), _alt(analysis))},
        values={
            "epoch": analysis.results.epoch_name,
            "reference": in_words(analysis.reference),
            "part": part(len(shown), frame["cell"].nunique(), "cell", in_words(analysis.reference), say("means")),
        },
    )


def _alt(analysis: Analysis) -> str:
    response, frame = analysis.response(), analysis.logged_curves()
    last = frame[frame["cell"].isin(cells_with_curves(analysis))].groupby("cell", sort=False).last()
    ends = "; ".join(f"{in_words(str(cell))} {number(row['mean'], response.digits)}" for cell, row in last.iterrows())
    return say(
        "Line plots of mean {response} against {epoch}, a panel for each of {cells}. Where the lines end: {ends}.",
        response=response.in_sentence, epoch=analysis.results.epoch_name, cells=plural(len(last), "cell"), ends=ends,
    )  # fmt: skip


TEMPLATE = """
{% call figure(pictures, "curves") %}
      {% trans %}Means over the runs of a cell with their 95&nbsp;% intervals as bands, by {{ epoch }}.
      {{ reference }} is grey in
      the
      other panels. Comparisons and verdicts use the last value of each run alone. A run that failed counts as far as
      it got.{% endtrans %}{% if part %} {{ part }}{% endif %}

{% endcall %}
"""
