"""How sure is this: chance between runs, chance in the test images, seeds that would see an effect, all verdicts."""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.language import figures, say, told, whole
from mnist_ablate.report.format import NOTHING, heading_of, number, out_of, p_value, percent
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated
from mnist_ablate.report.verdict_words import badge


def section(analysis: Analysis) -> Section | None:
    """Return what is known of chance; None for a search without hypotheses, whose coefficients say it."""
    if analysis.study.searched and not analysis.judgements:
        return None
    spread, labels, response = analysis.spread(), analysis.results.labels, analysis.response()
    return Section(
        "sure",
        say("How sure is this?"),
        TEMPLATE,
        tables={
            "two_way": two_way(analysis) if analysis.standard_effects else None,
            "verdicts": verdicts(analysis.judgements) if analysis.judgements else None,
        },
        pictures={"power": _power(analysis)},
        values={
            "spread": "" if math.isnan(spread) else number(spread, response.digits),
            "label": response.in_sentence,
            "unit": response.in_unit,
            "ours": analysis.ours is not None,
            "paired": analysis.paired,
            "searched": bool(analysis.study.searched),
            "binomial": "" if analysis.binomial_error is None else number(analysis.binomial_error),
            "n_images": "" if labels is None else whole(len(labels)),
            "no_mistakes": told(analysis.results.no_mistakes),
            "claims": bool(analysis.judgements),
        },
        style="prose",
    )


def two_way(analysis: Analysis) -> Table | None:
    """Tabulate the errors that seeds and test images add; None without stored predictions."""
    frame = analysis.two_way
    if frame is None:
        return None
    numbers = ("estimate", "se_seeds", "se_images", "se_two_way", "df", "low_two_way", "high_two_way")
    frame = frame.reindex(columns=["kind", "label", "n", *numbers])  # none of them where no seed has all the cells
    both = estimated(say("Estimate, points"), ends=("low_two_way", "high_two_way"))
    columns: Columns = {
        "label": (say("Effect"), lambda row: in_words(row["label"])),
        "estimate": both["estimate"],
        "seeds": (say("Error from seeds"), lambda row: number(row["se_seeds"], 3)),
        "images": (say("Error from test images"), lambda row: number(row["se_images"], 3)),
        "both": (say("95 % interval over both"), both["estimate_interval"][1]),
    }
    caption = say(
        "Standard errors of effects on test accuracy, in points: from the choice of seeds, with these test images, and "
        "from the choice of test images. The interval allows for both: it is about digits that nobody has seen."
    )
    return Table.of("test-images", caption, frame, columns)


def _power(analysis: Analysis) -> Picture | None:
    """Draw the smallest effects that numbers of seeds find; None where no effect has a spread over seeds."""
    if not analysis.standard_effects or not analysis.effects()["sd"].gt(1e-9).any():
        return None
    if analysis.paired:
        alt = say(
            "Line plot of the smallest effect found with 90 % power against the number of seeds, a line for every "
            "effect."
        )
    else:
        alt = say(
            "Line plot of the smallest effect found with 90 % power against the number of runs of a cell, a line for "
            "every effect."
        )
    return picture(partial(plots.power, analysis), alt)


def verdicts(judgements: Sequence[Judgement]) -> Table:
    """Tabulate the verdicts with all that they rest on."""
    frame = pd.DataFrame([_numbers(judgement) for judgement in judgements])
    frame = frame.astype(dict.fromkeys(("seeds_likely", "seeds_cautious"), "Int64"))
    digits = {judgement.hypothesis.id: judgement.response.digits for judgement in judgements}
    counted, needed = _counted(judgements)
    estimates = estimated(say("Estimate"), lambda row: digits[row["id"]])
    columns: Columns = {
        "id": (say("Hypothesis"), lambda row: row["id"]),
        "verdict": (say("Verdict"), lambda row: badge(row["verdict"])),
        "n": (counted, lambda row: out_of(row["n"], row["n_planned"])),
        "estimate": estimates["estimate"],
        "interval": (
            say("{share} interval", share=percent(1 - judgements[0].alpha)),
            estimates["estimate_interval"][1],
        ),
        "smallest": (say("Smallest that matters"), lambda row: figures(f"{row['smallest']:g}")),
        "p_holm": (say("p (Holm)"), lambda row: p_value(row["p_holm"])),
        "needed": (needed, _needed),
    }
    if all(judgement.response.source != "table" for judgement in judgements):
        caption = say(
            "Every hypothesis with the interval that decides; accuracies in points, losses in nats. p decides nothing. "
            "{needed}: the likely number, and in brackets the number if the spread is at its upper 80 % limit.",
            needed=needed,
        )
    else:
        caption = say(
            "Every hypothesis with the interval that decides. p decides nothing. {needed}: the likely number, and in "
            "brackets the number if the spread is at its upper 80 % limit.",
            needed=needed,
        )
    return Table.of("verdicts", caption, frame, columns, in_file=say("The CSV file has more columns."))


def _counted(judgements: Sequence[Judgement]) -> tuple[str, str]:
    """Name the columns of what verdicts rest on, and of what they need."""
    match {judgement.sample.unit for judgement in judgements}:
        case units if units == {"seed"}:
            return heading_of("seed"), say("Seeds needed")
        case units if "seed" not in units:
            return heading_of(units.pop()), say("Runs needed")
    return say("Seeds, or runs of a cell"), say("Seeds or runs needed")


_OF_HYPOTHESIS = ("id", "claim", "statement", "response", "effect", "kind", "smallest", "population")
_OF_JUDGEMENT = ("alpha", "low", "high", "p", "p_holm", "p_sign_flip", "n_planned", "provisional", "lacking")


def _numbers(judgement: Judgement) -> dict[str, object]:
    sample, needed = judgement.sample, judgement.seeds_needed
    return (
        {name: getattr(judgement.hypothesis, name) for name in _OF_HYPOTHESIS}
        | {"verdict": judgement.verdict, "n": sample.n, "estimate": sample.mean, "sd": sample.sd}
        | {name: getattr(judgement, name) for name in _OF_JUDGEMENT}
        | {"seeds_likely": needed.likely, "seeds_cautious": needed.cautious}
    )


def _needed(row: Row) -> str:
    likely, cautious = row["seeds_likely"], row["seeds_cautious"]
    return NOTHING if pd.isna(likely) else f"{likely} ({NOTHING if pd.isna(cautious) else cautious})"


TEMPLATE = """
{% if not searched %}
    <p><strong>{% trans %}Chance between runs.{% endtrans %}</strong> {% if ours %}{% trans %}The seed decides
      everything that chance decides: the held-out
      images, the initial weights, the order of the batches, what dropout drops.{% endtrans %} {% endif %}
      {% if spread and paired %}{% trans %}Two runs of one cell with different seeds differ: averaged over the
      cells, their standard deviation is {{ spread }}{{ unit }} of {{ label }}. A single run may be off by that much
      through luck alone.{% endtrans %}{% elif spread %}{% trans %}Two runs of one cell differ: averaged over the cells,
      their standard deviation is
      {{ spread }}{{ unit }} of {{ label }}. A single run may be off by that much through luck
      alone.{% endtrans %}{% else %}{% trans %}No cell
      has two runs here, so this page cannot say how much runs
      differ by luck.{% endtrans %}{% endif %}</p>
{% endif %}
{% if binomial %}
    <p><strong>{% trans %}Chance in the test images.{% endtrans %}</strong> {% trans %}One network's accuracy on
      {{ n_images }} images is known to
      ±&nbsp;{{ binomial }} points (its binomial standard error). That is <em>not</em> the error of a comparison: both
      networks answer the same images, and most answers agree.{% endtrans %}{% if tables.two_way %} {% trans %}The
      table has the error that the
      choice of images adds to each comparison.{% endtrans %}{% endif %} {% trans %}All networks learnt from images
      of one sample of 60,000, of
      which each seed holds out others; that sample has no error here. Where images come in clusters, as MNIST's do by
      writer, they say less of new images than as many independent ones, and the error is larger than the
      table's.{% endtrans %}</p>
{% elif ours %}
    <p>{% trans %}This page cannot say which images are got wrong, nor how much the choice of test images adds to the
      error:
      {{ no_mistakes }}.{% endtrans %}</p>
{% endif %}
{% if tables.two_way %}
{{ table(tables.two_way) }}
{% endif %}
{% if pictures.power %}
    <h3>{% if paired %}{% trans %}How many seeds would show which effect{% endtrans %}{% else %}{% trans %}How many
      runs would show which effect{% endtrans %}{% endif %}</h3>
{% call figure(pictures, "power") %}
      {% if claims and paired %}{% trans %}The smallest true effect on {{ label }} that a study with so many seeds
      would find in
      nine cases out of
      ten, at the level of one hypothesis of this family.{% endtrans %}{% elif paired %}{% trans %}The smallest true
      effect
      on {{ label }} that a study with so many seeds would find in nine cases out of
      ten.{% endtrans %}{% elif claims %}{% trans %}The smallest true effect on {{ label }} that a study with so many
      runs of each cell would find in nine cases out of ten, at the level of one hypothesis of this
      family.{% endtrans %}{% else %}{% trans %}The smallest true effect on {{ label }} that a study with so many runs
      of each cell would find in nine cases out of
      ten.{% endtrans %}{% endif %} {% if ours %}{% trans %}Dots: the seeds of this study.
      Solid: averaged over the other techniques; dashed: one
      technique alone; dotted: interactions.{% endtrans %}{% elif paired %}{% trans %}Dots: the seeds of this study.
      Solid: averaged over the other factors; dashed: one
      factor alone; dotted: interactions.{% endtrans %}{% else %}{% trans %}Dots: the runs of this study.
      Solid: averaged over the other factors; dashed: one
      factor alone; dotted: interactions.{% endtrans %}{% endif %}

{% endcall %}
{% endif %}
{% if tables.verdicts %}
{{ table(tables.verdicts) }}
{% endif %}
"""
