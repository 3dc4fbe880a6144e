"""What was run, and where: settings, versions and machines."""

import json
from collections import Counter, defaultdict

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report import words
from mnist_ablate.report.format import NOTHING, out_of, time_span
from mnist_ablate.report.section import Section

_LABELS = {
    "data_sha256": "Data, SHA-256",
    "code": "Code of your own, SHA-256",
    "study_sha256": "Study file, SHA-256",
    "hypotheses_sha256": "Hypotheses, SHA-256",
    "git_commit": "Git commit",
    "git_dirty": "Uncommitted changes",
    "environment": "Environment variables",
    "cpu_capability": "Vector instructions",
    "processor": "Processor",
    "platform": "Platform",
    "threads": "Threads in a run",
    "engine": "Engine",
    "python": "Python",
}


def section(analysis: Analysis) -> Section:
    """Return the settings, and what the runs recorded of the machines that made them."""
    values = {"facts": words.facts(analysis), "provenance": provenance(analysis)}
    return Section("made", "What was run, and where", TEMPLATE, values=values)


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
        (_LABELS.get(key, key), [(value, out_of(n, len(documents))) for value, n in values.most_common()])
        for key, values in counts.items()
    ]
    return [*table, ("Started", [(time_span(started), str(started.total()))])] if started else table


def _written(value: object) -> str:
    """Write a value of the provenance; one that says nothing is a dash."""
    if isinstance(value, bool):
        return ("no", "yes")[value]
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
        <caption id="made-caption"><span>Versions and machines, as each run recorded them.</span></caption>
        <thead>
          <tr><th scope="col" class="text">What</th><th scope="col" class="text">Value</th>
            <th scope="col">Runs</th></tr>
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
