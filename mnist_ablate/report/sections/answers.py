"""The answers: every claim with its verdict, in sentences."""

import math
from functools import partial

from mnist_ablate import plots
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.verdicts import Judgement, oriented
from mnist_ablate.language import say
from mnist_ablate.plots import JudgedRow
from mnist_ablate.report import verdict_words
from mnist_ablate.report.format import plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.verdict_words import Claim, estimate_text, interval_text


def section(analysis: Analysis) -> Section:
    """Return the verdicts, or a sentence that there are none."""
    claims = verdict_words.claims(analysis.judgements)
    n = int(analysis.seeds().count().max())
    units = [verdict_words.unit(judgement) for judgement in analysis.judgements]
    pictures = {"answers": _picture(analysis, claims)}
    return Section("answers", say("The answers"), TEMPLATE, pictures=pictures, values={
        "claims": claims,
        "tally": verdict_words.tally(claims),
        "beforehand": not any(judgement.provisional for judgement in analysis.judgements),
        "family": len(analysis.judgements),
        "looks": len(analysis.study.looks),
        "ratios": "log ratio" in units,
        "ours": analysis.ours is not None,
        "varied": [factor.name for factor in analysis.study.varied],
        "trained": analysis.trained is not None,
        "metrics": "; ".join(_meaning(analysis, name) for name in analysis.study.responses if not analysis.ours),
        "few": n if n < LEAST_SEEDS else None,
        "number": plural(n, analysis.unit),
        "least": plural(LEAST_SEEDS, analysis.unit),
    })  # fmt: skip


def _picture(analysis: Analysis, claims: list[Claim]) -> Picture | None:
    """Draw all hypotheses under their claims with the verdicts; None without hypotheses."""
    if not claims:
        return None
    judgements = {judgement.hypothesis.id: judgement for judgement in analysis.judgements}
    rows = [
        judged_row(judgements[answer.id], _heading(claim), answer.statement)
        for claim in claims
        for answer in claim.answers
    ]
    said = [
        say("{statement}: {verdict}, {estimate}, interval {interval}", statement=answer.statement, verdict=answer.badge,
            estimate=estimate_text(judgements[answer.id]), interval=interval_text(judgements[answer.id]))
        for claim in claims for answer in claim.answers
    ]  # fmt: skip
    alt = say("Plot of all answers with their intervals. {answers}.", answers="; ".join(said))
    return picture(partial(plots.judged, rows), alt)


_LONGEST = 80
"""Letters of a claim in the picture; the whole claim is below it."""


def _heading(claim: Claim) -> str:
    if claim.title == claim.answers[0].statement:
        return claim.badge
    title = claim.title if len(claim.title) <= _LONGEST else f"{claim.title[:_LONGEST].rstrip()}\N{HORIZONTAL ELLIPSIS}"
    return f"{claim.badge}: {title}"


def judged_row(judgement: Judgement, heading: str, name: str, *, decides: bool = True) -> JudgedRow:
    """Return a hypothesis as a row of a picture, in units of its smallest effect that matters."""
    kind, smallest = judgement.hypothesis.kind, judgement.hypothesis.smallest
    low, high = oriented((judgement.low, judgement.high), kind)
    low, high = (low, high) if low <= high else (math.nan, math.nan)  # an empty one cannot be drawn
    mean = -judgement.sample.mean if kind == "decrease" else judgement.sample.mean
    estimate, low, high = (value / smallest for value in (mean, low, high))
    return JudgedRow(heading, name, decides, estimate, low, high, kind == "negligible", estimate_text(judgement))


def _meaning(analysis: Analysis, name: str) -> str:
    """Say of a metric of a table which way is better, and in which unit it is."""
    response = analysis.response(name)
    words = {"metric": response.name, "unit": response.value_unit}
    match (response.better, bool(response.unit)):
        case 1, True:
            return say("{metric}: higher is better, in {unit}", **words)
        case 1, False:
            return say("{metric}: higher is better", **words)
        case -1, True:
            return say("{metric}: lower is better, in {unit}", **words)
        case -1, False:
            return say("{metric}: lower is better", **words)
        case _, True:
            return say("{metric}: neither way is better, in {unit}", **words)
    return say("{metric}: neither way is better", **words)


TEMPLATE = """
{% if claims %}
{% call figure(pictures, "answers") %}{% trans %}Each line is an interval, measured in units of the smallest effect
      that matters to its question. The further to the right it lies, the better the claim stands; in the band the
      effect is too small to matter. A claim that there is no effect should lie in the band.{% endtrans %}{% endcall %}

    <p class="terms">{% if ours %}{% trans %}A <em>cell</em> is one combination of techniques.{% endtrans %}

      {% trans %}Accuracies are compared in percentage <em>points</em>. A loss says how little probability the network
      gave to the right answers, as a natural logarithm (in <em>nats</em>): 0 is perfect, 2.30 is guessing. The
      <em>gap</em> is the validation loss minus the training loss.{% endtrans %}{% else %}{% trans %}A <em>cell</em>
      is one combination of levels.{% endtrans %}

      {% trans %}The metrics:
      {{ metrics }}.{% endtrans %}{% endif %} {% if family > 1 %}{% trans %}The intervals below contain the true
      effect as often as the percentage in front of each says. They are wider than the usual 95&nbsp;%,
      because the study asks {{ family }} questions at once.{% endtrans %}{% if looks > 1 %} {% trans %}They are wider
      still because it may stop at any of {{ looks }} looks. The p values below do not allow for
      looks.{% endtrans %}{% endif %}{% else %}{% trans %}The interval below
      contains the true effect as often as the percentage in front of it
      says.{% endtrans %}{% endif %}{% if ratios %} {% trans %}Ratios are shown as
      natural
      logarithms (<em>log ratio</em>): 0 means equal, and
      &minus;0.69 means half.{% endtrans %}{% endif %}</p>
    <details><summary>{% trans %}What the words mean{% endtrans %}</summary>
{{ words_of_verdicts() }}
      {% if ours %}
      <p>{% trans %}<em>Accuracy</em> is the share of images that a network gets right. A <em>seed</em> is the number
      from which all that chance decides in a run is computed. <em>Validation images</em> are training images that the
      network never learns from.{% endtrans %}

      {% if "l2" in varied %}{% trans %}<em>L2</em> (weight decay) pulls each weight a little towards 0 at every
      step.{% endtrans %}{% endif %}

      {% if "dropout" in varied %}{% trans %}<em>Dropout</em> turns off units at random while the network
      trains.{% endtrans %}{% endif %}

      {% if "batch_norm" in varied %}{% trans %}<em>BatchNorm</em> brings what enters each activation to a mean of 0
      and a spread of 1 in every batch, and then scales and shifts it by numbers that are
      learnt.{% endtrans %}{% endif %}</p>
      {% endif %}
    </details>
    {% for claim in claims %}
    <article class="claim" id="claim-{{ loop.index }}">
      <h3><span class="badge {{ css(claim.verdict) }}">{{ claim.badge }}</span> {% trans claim=claim.title %}in this
      study: {{ claim }}{% endtrans %}</h3>
      {% for answer in claim.answers %}
      <div class="answer">
        {% if answer.statement != claim.title %}
        <p class="statement">{{ answer.statement }}.{% if claim.answers | length > 1 %}
          <span class="part {{ css(answer.verdict) }}">{{ answer.badge }}</span>{% endif %}</p>
        {% endif %}
        <p>{{ answer.sentence }}</p>
        {% if answer.provisional %}
        <p class="provisional">{{ answer.provisional }}</p>
        {% endif %}
        <details><summary>{% trans %}How this was decided{% endtrans %}</summary><p>{{ answer.rule }}</p></details>
      </div>
      {% endfor %}
    </article>
    {% endfor %}
    <p>{{ tally }} {% if beforehand %}{% trans %}Each was judged by a rule that was written down before the first
      run.{% endtrans %}{% else %}{% trans %}A verdict is provisional, and says why, unless its rule and the
      size of its study were certainly set
      before the first run.{% endtrans %}{% endif %} {% if trained %}{% trans %}That is an honour system: nothing stops
      anyone from deleting the results, writing rules that fit them, and training the same runs again. A study that
      shares settings and seeds with this one has the same networks in it, and is no independent
      replication.{% endtrans %}{% else %}{% trans %}That is an
      honour system: nothing in a table proves when a rule was
      written.{% endtrans %}{% endif %}</p>
{% else %}
    <p>{% trans %}This study declares no hypotheses, so this page has estimates with their intervals and no verdicts.
      Among several
      intervals one may well miss the truth by chance, and a difference can be real and still too small to
      matter.{% endtrans %}</p>
{% endif %}
{% if few %}
    <p><strong>{% trans %}Only {{ number }}.{% endtrans %}</strong>
      {% if few == 1 %}{% trans %}A single value gives no interval: a difference between two single runs may be luck
      alone.{% endtrans %}{% else %}{% trans %}An interval from fewer than {{ least }} says
      little.{% endtrans %}{% endif %} {% trans %}Treat this page as a
      rehearsal.{% endtrans %}</p>
{% endif %}
"""
