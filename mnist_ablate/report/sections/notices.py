"""What is missing or went wrong."""

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say
from mnist_ablate.report import words
from mnist_ablate.report.section import Section


def section(analysis: Analysis) -> Section | None:
    """Return the notices; None where nothing is missing and all went well."""
    notices = words.notices(analysis)
    if not notices:
        return None
    heading = say("What is missing or went wrong")
    return Section("notice", heading, TEMPLATE, values={"notices": notices}, style="notice")


TEMPLATE = """
    <ul>
    {% for notice in notices %}
      <li>{{ notice }}</li>
    {% endfor %}
    </ul>
"""
