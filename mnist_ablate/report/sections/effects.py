"""What each technique does: the effects, how the techniques act together, and how the effects change in training."""

from functools import partial

from mnist_ablate import plots
from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import file_name, joined, number, out_of, p_value
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated
from mnist_ablate.report.words import is_paired


def section(analysis: Analysis) -> Section | None:
    """Return the effects; None where the cells allow no comparison."""
    if not analysis.standard_effects:
        return None
    return Section(
        "effects",
        "What each technique does",
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
            "others": joined(f"the {analysis.response(name).label}" for name in shown_responses(analysis)[1:]),
            "label": analysis.response().label,
            "unit": analysis.response().in_unit,
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
    unit, digits, label = shown.unit, shown.digits, shown.label
    columns: Columns = {
        "label": ("Effect", lambda row: in_words(row["label"])),
        "kind": ("Kind", lambda row: row["kind"]),
        "n": ("Seeds", _seeds),
        **estimated(f"Estimate, {unit}" if unit else "Estimate", digits),
        "in_spreads": ("In spreads between seeds", lambda row: number(row["in_spreads"], 1, sign=True)),
        "p": ("p (t)", lambda row: p_value(row["p"])),
        "p_sign_flip": ("p (sign flips)", lambda row: p_value(row["p_sign_flip"])),
    }
    when = " after the last epoch" if analysis.ours else ""
    within = ", each taken within every seed" if is_paired(analysis) else ""
    caption = (
        f"Effects on {label}{when}{within}. The 95 % intervals are for one effect "
        "at a time and decide nothing: one in twenty misses the truth by chance. A spread is the standard deviation "
        "between the seeds of a cell, over the cells that the effect compares."
    )
    return Table.of(f"effects-{file_name(response.replace('_', '-'))}", caption, analysis.effects(response), columns)


def _seeds(row: Row) -> str:
    diverged = f", {row['n_diverged']} diverged" if row["n_diverged"] else ""
    return out_of(int(row["n"]), int(row["n_planned"])) + diverged


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
    unit = f" in {response.unit}" if response.unit else ""
    alt = f"Forest plot of effects on {response.label} with their 95 % intervals. Estimates{unit}: {estimates}."
    return picture(partial(plots.forest, analysis, smallest=smallest_effect(analysis)), alt)


def _interactions(analysis: Analysis) -> Picture | None:
    if not plots.has_interactions(analysis):
        return None
    alt = (
        f"Line plots of mean {analysis.response().label} against the levels of one factor, a line for each level of "
        "another. The table of effects has the interactions."
    )
    return picture(partial(plots.interactions, analysis), alt)


def _by_epoch(analysis: Analysis) -> Picture | None:
    frame, response = analysis.effects_by_epoch(), analysis.response()
    if frame.empty or (not analysis.ours and frame["epoch"].nunique() == 1):
        return None
    first, last = frame[frame["epoch"] == 1], frame[frame["epoch"] == frame["epoch"].max()]
    changes = "; ".join(
        f"{in_words(label)} {number(early, response.digits, sign=True)} after the first and "
        f"{number(late, response.digits, sign=True)} after the last"
        for label, early, late in zip(first["label"], first["estimate"], last["estimate"], strict=True)
    )
    unit = f", in {response.unit}" if response.unit else ""
    alt = f"Line plots of effects on {response.label} against epoch{unit}: {changes}."
    return picture(partial(plots.by_epoch, analysis, smallest=smallest_effect(analysis)), alt)


TEMPLATE = """
    <p>An effect is what changes when one factor moves from its reference level to another and everything else stays
      the same{% if ours %}: the same held-out images, initial weights and batches. It is measured once in every seed;
      the dot is the mean over seeds{% endif %}.</p>
{% call figure(pictures, "effects") %}
      The thick bar is the 95&nbsp;% interval of the effect{% if ours %} on these test
      images{% endif %}{% if two_way %}; the thin bar also
      allows for other test images{% endif %}. An <em>interaction</em> is how much the effect of one technique changes
      when another is on.{% if claims %} The verdicts above rest on wider intervals than these.{% endif %}
{% endcall %}
{% for name, of_response in tables.items() %}
{% if loop.index == 2 %}
    <details><summary>Effects on {% if ours %}the validation loss, and on the gap between validation and training
    loss{% else %}{{ others }}{% endif %}</summary>
{% endif %}
{{ table(of_response) }}
{% if loop.last and not loop.first %}
    </details>
{% endif %}
{% endfor %}
{% if pictures.interactions %}
    <h3>How the techniques act together</h3>
{% call figure(pictures, "interactions") %}
      Parallel lines mean that a technique does the same whether the other is on or off. The numbers are the
      interactions{{ " in points" if unit == " points" }} with their 95&nbsp;% intervals; 0 means parallel.
{% endcall %}
{% endif %}
{% if pictures["effects-by-epoch"] %}
    <h3>How the effects change during training</h3>
{% call figure(pictures, "effects-by-epoch") %}
      The effect on {{ label }} after each epoch, averaged over the other techniques, with its 95&nbsp;% interval.
      An effect that shrinks from epoch to epoch speeds learning up more than it improves the final network; one that
      still grows may not have reached its full size.
{% endcall %}
{% endif %}
"""
