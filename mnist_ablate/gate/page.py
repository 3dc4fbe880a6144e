"""The verdict for people and for machines: a page in Markdown for a pull request, JUnit XML for CI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from mnist_ablate.gate.judge import Level, Verdict
from mnist_ablate.store.sealed import write_atomically

_MARK = {"pass": "pass", "fail": "**FAIL**", "cannot tell": "cannot tell", "not applied": "not applied"}
_MOST_FINDINGS = 20  # per level, in the Markdown: a bad bug fails every check


def markdown(verdict: Verdict, document: Mapping[str, Any]) -> str:
    """Write the verdict, what each level says, and every shift of the mean, as a Markdown page."""
    lines = [f"# Regression gate: {verdict.outcome}", "", verdict.sentence, ""]
    lines += ["| Level | Outcome | Checks | What it says |", "| :-- | :-- | --: | :-- |"]
    lines += [
        f"| {level.name} | {_MARK[level.outcome]} | {level.checks} | {level.sentence} |" for level in verdict.levels
    ]
    for level in verdict.levels:
        lines += _findings(level)
    if not verdict.shifts.empty:
        lines += ["", "## Shifts from the reference", ""]
        lines += [
            "Accuracies in percentage points, losses in nats; chance exceeds a limit in one gate of thousands.",
            "",
        ]
        lines += [
            "| Response | Contrast | Was | Now | Shift | Limit | p |",
            "| :-- | :-- | --: | --: | --: | --: | --: |",
        ]
        for row in verdict.shifts.reset_index().sort_values("p").itertuples():
            numbers = f"{row.was:.5g} | {row.now:.5g} | {row.shift:+.3g} | ±{row.limit:.2g} | {row.p:.2g}"
            lines.append(f"| {row.response} | {row.contrast} | {numbers} |")
    for entry in document.get("history", [])[-1:]:
        lines += ["", f"Reference of {entry['date']}: {entry['why']}"]
    return "\n".join(lines) + "\n"


def _findings(level: Level) -> list[str]:
    if not level.findings:
        return []
    shown = [f"- {finding.outcome}: {finding.sentence}" for finding in level.findings[:_MOST_FINDINGS]]
    more = len(level.findings) - len(shown)
    return ["", f"## {level.name}", "", *shown, *([f"- and {more} more"] if more else [])]


def junit(verdict: Verdict) -> str:
    """Write the verdict as JUnit XML: a test case per level; one that does not apply, or cannot tell, is skipped."""
    outcomes = [level.outcome for level in verdict.levels]
    skipped = outcomes.count("not applied") + outcomes.count("cannot tell")
    counts = {"tests": len(outcomes), "failures": outcomes.count("fail"), "errors": 0, "skipped": skipped}
    suite = ET.Element("testsuite", {"name": "regression gate"} | {key: str(n) for key, n in counts.items()})
    for level in verdict.levels:
        case = ET.SubElement(suite, "testcase", {"classname": "gate", "name": level.name})
        if level.outcome == "fail":
            details = "\n".join(finding.sentence for finding in level.findings)
            ET.SubElement(case, "failure", {"message": level.sentence}).text = details
        elif level.outcome != "pass":
            ET.SubElement(case, "skipped", {"message": f"{level.outcome}: {level.sentence}"})
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def write(verdict: Verdict, document: Mapping[str, Any], folder: Path) -> Path:
    """Write ``gate.md`` and ``gate.xml`` into `folder`, and return the first.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "gate.xml", junit(verdict).encode())
    write_atomically(folder / "gate.md", markdown(verdict, document).encode())
    return folder / "gate.md"
