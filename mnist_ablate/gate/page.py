"""The gate's verdict as Markdown for a pull request, and as JUnit XML for CI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tabulate import tabulate

from mnist_ablate.gate.judge import Level, Verdict
from mnist_ablate.store.sealed import write_atomically

_MOST_FINDINGS = 20  # per level: a bad bug fails every check


def markdown(verdict: Verdict, document: Mapping[str, Any] | None = None, *, in_units: bool = True) -> str:
    """Return the verdict, what each level says, and every shift of the mean, as Markdown.

    Parameters
    ----------
    verdict
        The verdict.
    document
        `Reference.document`, whose last reason is named.
    in_units
        Accuracies are in percentage points and losses in nats.
    """
    levels = [
        {
            "Level": level.name,
            "Outcome": "**FAIL**" if level.outcome == "fail" else level.outcome,
            "Checks": level.checks,
            "What it says": level.sentence,
        }
        for level in verdict.levels
    ]
    blocks = [f"# Regression gate: {verdict.outcome}", verdict.sentence, tabulate(levels, "keys", "pipe")]
    for level in verdict.levels:
        blocks += _findings(level)
    if not verdict.shifts.empty:
        blocks += ["## Shifts from the reference", f"{_UNITS if in_units else ''}{_RARE}", _shifts(verdict)]
    for entry in (document or {}).get("history", [])[-1:]:
        blocks.append(f"Reference of {entry['date']}: {entry['why']}")
    return "\n\n".join(blocks) + "\n"


_UNITS = "Accuracies in percentage points, losses in nats. "
_RARE = "Chance exceeds a limit in one gate of thousands."


def _shifts(verdict: Verdict) -> str:
    table = verdict.shifts.reset_index().sort_values("p")
    columns = {"response": "Response", "contrast": "Contrast", "was": "Was", "now": "Now", "shift": "Shift"}
    columns |= {"limit": "Limit", "p": "p"}
    table["limit"] = table["limit"].map("±{:.2g}".format)
    formats, sides = ("", "", ".5g", ".5g", "+.3g", "", ".2g"), ("left", "left", *["right"] * 5)
    rows = table[list(columns)].itertuples(index=False)
    return tabulate(rows, list(columns.values()), "pipe", floatfmt=formats, colalign=sides)


def distances(verdict: Verdict) -> list[str]:
    """Return a line for each shift of the mean: where it went, and how much of the way to its limit that is."""
    return [_distance(row) for row in verdict.shifts.reset_index().itertuples()]


def _distance(row: Any) -> str:
    """Write a row of `mnist_ablate.gate.shifts.shifts` as a line."""
    what = f"{row.response}, {'mean of all cells' if row.contrast == 'mean' else row.contrast}"
    if row.shift == 0:
        return f"{what}: {row.now:.5g}, unchanged"
    way = f"{abs(row.shift) / row.limit:.0%} of the limit ±{row.limit:.2g}" if row.limit else "no limit is known"
    return f"{what}: {row.was:.5g} to {row.now:.5g}, by {row.shift:+.3g}, {way}"


def _findings(level: Level) -> list[str]:
    if not level.findings:
        return []
    lines = [f"- {finding.outcome}: {finding.sentence}" for finding in level.findings[:_MOST_FINDINGS]]
    if len(level.findings) > _MOST_FINDINGS:
        lines.append(f"- and {len(level.findings) - _MOST_FINDINGS} more")
    return [f"## {level.name}", "\n".join(lines)]


def junit(verdict: Verdict) -> str:
    """Return the verdict as JUnit XML: a test case per level, skipped if it does not apply or cannot tell."""
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


def write(verdict: Verdict, document: Mapping[str, Any], folder: Path, *, in_units: bool = True) -> Path:
    """Write ``gate.md`` and ``gate.xml`` into `folder`, and return the path of the first; see `markdown`.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "gate.xml", junit(verdict).encode())
    write_atomically(folder / "gate.md", markdown(verdict, document, in_units=in_units).encode())
    return folder / "gate.md"
