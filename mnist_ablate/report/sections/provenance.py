"""What was run, and where: settings, versions and machines."""

import json
from collections import Counter, defaultdict

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import mark, say, told
from mnist_ablate.report import words
from mnist_ablate.report.format import NOTHING, out_of, time_span
from mnist_ablate.report.section import Section

_LABELS = {
    "data_sha256": mark("Data, SHA-256"),
    "code": mark("Code of your own, SHA-256"),
    "study_sha256": mark("Study file, SHA-256"),
    "hypotheses_sha256": mark("Hypotheses, SHA-256"),
    "git_commit": mark("Git commit"),
    "git_dirty": mark("Uncommitted changes"),
    "environment": mark("Environment variables"),
    "cpu_capability": mark("Vector instructions"),
    "processor": mark("Processor"),
    "platform": mark("Platform"),
    "threads": mark("Threads in a run"),
    "engine": mark("Engine"),
    "python": mark("Python"),
}


def section(analysis: Analysis) -> Section:
    """Return the settings, and what the runs recorded of the machines that made them."""
    values = {"facts": words.facts(analysis), "provenance": provenance(analysis)}
    return Section("made", say("What was run, and where"), TEMPLATE, values=values)


def provenance(analysis: Analysis) -> list[tuple[str, list[tuple[str, str]]]]:
    """List each key of the runs' provenance with its distinct values and the number of runs of each."""
    documents = analysis.results.documents.values()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for document in documents:
        declared = document.get("declared", {})
        recorded = {"data_sha256": document.get("data_sha256"), **document.get("provenance", {})}
        recorded |= {name: declared.get(name) for name in ("study_sha256", "hypotheses_sha256")}
        for key, value in recorded.items():
            counts[key][_written(value)] += 1
    started = counts.pop("started", Counter())
    table = [
        (told(_LABELS.get(key, key)), [(value, out_of(n, len(documents))) for value, n in values.most_common()])
        for key, values in counts.items()
    ]
    return [*table, (say("Started"), [(time_span(started), str(started.total()))])] if started else table


def _written(value: object) -> str:
    """Write a value of the provenance; one that says nothing is a dash."""
    if isinstance(value, bool):
        return say("yes") if value else say("no")
    return (value if isinstance(value, str) else json.dumps(value)) if value not in ("", None) else NOTHING


TEMPLATE = """
    <dl>
    {% for fact, value in facts.items() %}
      <div><dt>{{ fact }}</dt><dd>{{ value }}</dd></div>
    {% endfor %}
    </dl>
{% if provenance %}
    <div class="scroll" role="region" aria-labelledby="made-caption" tabindex="0">
      <table class="provenance">
        <caption id="made-caption"><span>{% trans %}Versions and machines, as each run recorded
      them.{% endtrans %}</span></caption>
        <thead>
          <tr><th scope="col" class="text">{% trans %}What{% endtrans %}</th>
            <th scope="col" class="text">{% trans %}Value{% endtrans %}</th>
            <th scope="col">{% trans %}Runs{% endtrans %}</th></tr>
        </thead>
        {% for key, values in provenance %}
        <tbody>
          {% for value, runs in values %}
          <tr>
            {% if loop.first %}
            <th scope="rowgroup" class="text" rowspan="{{ values | length }}">{{ key }}</th>
            {% endif %}
            <td class="text">{{ value }}</td><td>{{ runs }}</td>
          </tr>
          {% endfor %}
        </tbody>
        {% endfor %}
      </table>
    </div>
{% endif %}
"""
