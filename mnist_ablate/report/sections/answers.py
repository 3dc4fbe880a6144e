"""The answers: every claim with its verdict, in sentences."""

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.report import verdict_words
from mnist_ablate.report.section import Section


def section(analysis: Analysis) -> Section:
    """Return the verdicts, or a sentence that there are none."""
    claims = verdict_words.claims(analysis.judgements)
    seeds = int(analysis.seeds().count().max())
    units = [verdict_words.unit(judgement) for judgement in analysis.judgements]
    return Section("answers", "The answers", TEMPLATE, values={
        "claims": claims,
        "tally": verdict_words.tally(claims),
        "beforehand": not any(judgement.provisional for judgement in analysis.judgements),
        "family": len(analysis.judgements),
        "ratios": "log ratio" in units,
        "ours": analysis.ours is not None,
        "trained": analysis.trained is not None,
        "metrics": [_meaning(analysis, name) for name in analysis.study.responses] if not analysis.ours else [],
        "few_seeds": seeds if seeds < LEAST_SEEDS else None,
        "least_seeds": LEAST_SEEDS,
    })  # fmt: skip


def _meaning(analysis: Analysis, name: str) -> str:
    """Say of a metric of a table which way is better, and in which unit it is."""
    response = analysis.response(name)
    better = {1: "higher is better", -1: "lower is better", 0: "neither way is better"}[response.better]
    return f"{response.label}: {better}{f', in {response.value_unit}' if response.unit else ''}"


TEMPLATE = """
{% macro css(verdict) %}{{ verdict | replace(",", "") | replace(" ", "-") }}{% endmacro %}
{% if claims %}
    <p>{{ tally }} {% if beforehand %}Each was judged by a rule that was written down before the first
      run.{% else %}A verdict is provisional, and says why, unless its rule and its number of seeds were certainly set
      before the first run.{% endif %} That is an honour system: {% if trained %}the same seeds give the same bits, so
      whoever deletes the folder can declare anew what they know. A study that shares settings and seeds with this one
      has the same networks in it, and is no independent replication{% else %}nothing in a table proves when a rule was
      written{% endif %}.</p>
    <p class="terms">A <em>cell</em> is one combination of {{ "techniques" if ours else "levels" }}.
      {% if ours %}Accuracies are compared in percentage <em>points</em>. A loss says how little probability the network
      gave to the right answers, as a natural logarithm (in <em>nats</em>): 0 is perfect, 2.30 is guessing. The
      <em>gap</em> is the validation loss minus the training loss.{% else %}The metrics:
      {{ metrics | join("; ") }}.{% endif %} An interval contains the true effect
      with the probability in front of it{% if family > 1 %}; these intervals are wider than the usual 95&nbsp;%,
      because the study asks {{ family }} questions at once{% endif %}.{% if ratios %} Ratios are shown as natural
      logarithms (<em>log ratio</em>): 0 means equal, and
      &minus;0.69 means half.{% endif %}</p>
    {% for claim in claims %}
    <article class="claim">
      <h3><span class="badge {{ css(claim.verdict) }}">{{ claim.badge }}</span> in this study: {{ claim.title }}</h3>
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
        <details><summary>How this was decided</summary><p>{{ answer.rule }}</p></details>
      </div>
      {% endfor %}
    </article>
    {% endfor %}
{% else %}
    <p>This study declares no hypotheses, so this page has estimates with their intervals and no verdicts. Among several
      intervals one may well miss the truth by chance, and a difference can be real and still too small to matter.</p>
{% endif %}
{% if few_seeds %}
    <p><strong>{{ "One seed" if few_seeds == 1 else "Only %d seeds" % few_seeds }}.</strong>
      {% if few_seeds == 1 %}One seed gives no interval: a difference between two single runs may be luck
      alone.{% else %}An interval from fewer than {{ least_seeds }} seeds says little.{% endif %} Treat this page as a
      rehearsal.</p>
{% endif %}
"""
