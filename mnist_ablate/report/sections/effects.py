"""What each technique does: the effects, how the techniques act together, and how the effects change in training."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import count, mark, say, told
from mnist_ablate.report.format import file_name, heading_of, joined, number, out_of, p_value
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated


def section(analysis: Analysis) -> Section | None:
    """Return the effects; None where the cells allow no comparison."""
    if not analysis.standard_effects:
        return None
    return Section(
        "effects",
        say("What each technique does"),
        TEMPLATE,
        tables={response: table(analysis, response) for response in shown_responses(analysis)},
        pictures={
            "effects": _forest(analysis),
            "interactions": _interactions(analysis),
            "effects-by-epoch": _by_epoch(analysis),
        },
        values={
            "claims": bool(analysis.judgements),
            "two_way": analysis.two_way is not None,
            "ours": analysis.ours is not None,
            "others": joined(
                say("the {metric}", metric=analysis.response(name).name) for name in shown_responses(analysis)[1:]
            ),
            "label": analysis.response().in_sentence,
            "points": analysis.response().unit == "points",
        },
    )


_OURS = ("test_accuracy", "gap", "val_loss")


def shown_responses(analysis: Analysis) -> list[str]:
    """List the responses whose effects are shown, the main one first."""
    return [*_OURS] if analysis.ours else list(analysis.study.responses)


def table(analysis: Analysis, response: str | None = None) -> Table:
    """Tabulate the effects on a response."""
    response = response or analysis.metric
    shown = analysis.response(response)
    heading = say("Estimate, {unit}", unit=shown.unit_name) if shown.unit else say("Estimate")
    paired = analysis.paired
    columns: Columns = {
        "label": (say("Effect"), lambda row: in_words(row["label"])),
        "kind": (say("Kind"), lambda row: told(row["kind"])),
        "n": (heading_of(analysis.unit), partial(_seeds, ours=analysis.ours is not None)),
        **estimated(heading, shown.digits),
        "in_spreads": (
            say("In spreads between seeds") if paired else say("In spreads between runs"),
            lambda row: number(row["in_spreads"], 1, sign=True),
        ),
        "p": (say("p (t)"), lambda row: p_value(row["p"])),
        "p_sign_flip": (say("p (sign flips)"), lambda row: p_value(row["p_sign_flip"])),
    }
    match (analysis.ours is not None, paired):
        case True, _:  # our runs are always paired
            what = say("Effects on {response} after the last epoch, each taken within every seed.",
                       response=shown.in_sentence)  # fmt: skip
        case _, True:
            what = say("Effects on {response}, each taken within every seed.", response=shown.in_sentence)
        case _:
            what = say("Effects on {response}.", response=shown.in_sentence)
    if paired:
        rest = say(
            "The 95 % intervals are for one effect at a time and decide nothing: one in twenty misses the truth by "
            "chance. A spread is the standard deviation between the seeds of a cell, over the cells that the effect "
            "compares."
        )
    else:
        rest = say(
            "The 95 % intervals are for one effect at a time and decide nothing: one in twenty misses the truth by "
            "chance. A spread is the standard deviation between the runs of a cell, over the cells that the effect "
            "compares."
        )
    return Table.of(f"effects-{file_name(response.replace('_', '-'))}", f"{what} {rest}",
                    analysis.effects(response), columns)  # fmt: skip


KINDS = (mark("main"), mark("level"), mark("trend"), mark("interaction"), mark("simple"))
"""Of effects."""


def _seeds(row: Row, *, ours: bool) -> str:
    seeds, lost = out_of(int(row["n"]), int(row["n_planned"])), int(row["n_diverged"])
    if not lost:
        return seeds
    if ours:
        return count(lost, "{seeds}, {n} diverged", "{seeds}, {n} diverged", seeds=seeds)
    return count(lost, "{seeds}, {n} failed", "{seeds}, {n} failed", seeds=seeds)


def smallest_effect(analysis: Analysis) -> float | None:
    """Return the smallest effect on the main response that matters, if all hypotheses on it agree."""
    hypotheses = analysis.study.hypotheses
    sizes = {h.smallest for h in hypotheses if h.response == analysis.metric and _is_plain(h)}
    return sizes.pop() if len(sizes) == 1 else None


def _is_plain(hypothesis: Hypothesis) -> bool:
    """Return whether the hypothesis is on a plain effect: slopes and summaries over levels have other units."""
    return not hypothesis.summary and all(term.kind == "difference" for term in hypothesis.contrast.terms)


def _forest(analysis: Analysis) -> Picture:
    frame, response = analysis.effects().dropna(subset="estimate"), analysis.response()
    estimates = "; ".join(
        f"{in_words(label)} {number(value, response.digits, sign=True)}"
        for label, value in zip(frame["label"], frame["estimate"], strict=True)
    )
    words = {"response": response.in_sentence, "unit": response.unit_name, "estimates": estimates}
    if response.unit:
        alt = say(
            "Forest plot of effects on {response} with their 95 % intervals. Estimates in {unit}: {estimates}.", **words
        )
    else:
        alt = say("Forest plot of effects on {response} with their 95 % intervals. Estimates: {estimates}.", **words)
    return picture(partial(plots.forest, analysis, smallest=smallest_effect(analysis)), alt)


def _interactions(analysis: Analysis) -> Picture | None:
    if not plots.has_interactions(analysis):
        return None
    alt = say(
        "Line plots of mean {response} against the levels of one factor, a line for each level of another. The table "
        "of effects has the interactions.",
        response=analysis.response().in_sentence,
    )
    return picture(partial(plots.interactions, analysis), alt)


def _by_epoch(analysis: Analysis) -> Picture | None:
    frame, response = analysis.effects_by_epoch(), analysis.response()
    if frame.empty or (not analysis.ours and frame["epoch"].nunique() == 1):
        return None
    first, last = frame[frame["epoch"] == 1], frame[frame["epoch"] == frame["epoch"].max()]
    changes = "; ".join(
        say(
            "{effect} {early} after the first and {late} after the last",
            effect=in_words(label), early=number(early, response.digits, sign=True),
            late=number(late, response.digits, sign=True),
        )
        for label, early, late in zip(first["label"], first["estimate"], last["estimate"], strict=True)
    )  # fmt: skip
    words = {"response": response.in_sentence, "unit": response.unit_name, "changes": changes}
    if response.unit:
        alt = say("Line plots of effects on {response} against epoch, in {unit}: {changes}.", **words)
    else:
        alt = say("Line plots of effects on {response} against epoch: {changes}.", **words)
    return picture(partial(plots.by_epoch, analysis, smallest=smallest_effect(analysis)), alt)


TEMPLATE = """
    <p>{% if ours %}{% trans %}An effect is what changes when one factor moves from its reference level to another
      and everything else stays
      the same: the same held-out images, initial weights and batches. It is measured once in every seed;
      the dot is the mean over seeds.{% endtrans %}{% else %}{% trans %}An effect is what changes when one factor
      moves from its reference level to another and everything else stays
      the same.{% endtrans %}{% endif %}</p>
{% call figure(pictures, "effects") %}
      {% trans response=label %}Effects on {{ response }}.{% endtrans +%}
      {% if two_way %}{% trans %}The thick bar is the 95&nbsp;% interval of the effect on these test
      images; the thin bar also
      allows for other test images.{% endtrans %}{% elif ours %}{% trans %}The thick bar is the 95&nbsp;% interval of
      the effect on these test
      images.{% endtrans %}{% else %}{% trans %}The thick bar is the 95&nbsp;% interval of the
      effect.{% endtrans %}{% endif %} {% trans %}An <em>interaction</em> is how much the effect of one technique
      changes
      when another is on.{% endtrans %}{% if claims %} {% trans %}Verdicts rest on wider intervals than
      these.{% endtrans %}{% endif %}

{% endcall %}
{% call first_of(tables) %}
      {% if ours %}{% trans %}Effects on the validation loss, and on the gap between validation and
      training
    loss{% endtrans %}{% else %}{% trans %}Effects on {{ others }}{% endtrans %}{% endif %}

{% endcall %}
{% if pictures.interactions %}
    <h3>{% trans %}How the techniques act together{% endtrans %}</h3>
{% call figure(pictures, "interactions") %}
      {% trans %}Parallel lines mean that a technique does the same whether the other is on or off.{% endtrans +%}
      {% if points %}{% trans %}The numbers are the
      interactions in points with their 95&nbsp;% intervals; 0 means parallel.{% endtrans %}{% else %}{% trans %}The
      numbers are the
      interactions with their 95&nbsp;% intervals; 0 means parallel.{% endtrans %}{% endif %}

{% endcall %}
{% endif %}
{% if pictures["effects-by-epoch"] %}
    <h3>{% trans %}How the effects change during training{% endtrans %}</h3>
{% call figure(pictures, "effects-by-epoch") %}
      {% trans %}The effect on {{ label }} after each epoch, averaged over the other techniques, with its 95&nbsp;%
      interval.
      An effect that shrinks from epoch to epoch speeds learning up more than it improves the final network; one that
      still grows may not have reached its full size.{% endtrans %}

{% endcall %}
{% endif %}
"""
