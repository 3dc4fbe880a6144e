"""The gate's verdict as Markdown for a pull request, and as JUnit XML for CI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tabulate import tabulate

from mnist_ablate.gate.judge import Level, Outcome, Verdict
from mnist_ablate.language import ENGLISH, Language, figures, mark_as, say, speaking, told, told_as
from mnist_ablate.store.sealed import write_atomically

_MOST_FINDINGS = 20  # per level: a bad bug fails every check
OUTCOMES = (
    mark_as("outcome", "pass"), mark_as("outcome", "fail"), mark_as("outcome", "cannot tell"),
    mark_as("outcome", "not applied"),
)  # fmt: skip
LEVELS = (
    mark_as("gate", "training"), mark_as("gate", "bits"), mark_as("gate", "golden"), mark_as("gate", "statistical"),
    mark_as("gate", "floor"), mark_as("gate", "thresholds"),
)  # fmt: skip


def markdown(verdict: Verdict, document: Mapping[str, Any] | None = None, *, in_units: bool = True) -> str:
    """Return the verdict, what each level says, and every shift of the mean, as Markdown in the language spoken.

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
            say("Level"): told_as("gate", level.name),
            say("Outcome"): _emphasised(level.outcome),
            say("Checks"): level.checks,
            say("What it says"): told(level.sentence),
        }
        for level in verdict.levels
    ]
    title = say("Regression gate: {outcome}", outcome=_outcome(verdict.outcome))
    blocks = [f"# {title}", told(verdict.sentence), tabulate(levels, "keys", "pipe")]
    for level in verdict.levels:
        blocks += _findings(level)
    if not verdict.shifts.empty:
        units = say("Accuracies in percentage points, losses in nats.") if in_units else ""
        rare = say("Chance exceeds a limit in one gate of thousands.")
        blocks += [f"## {say('Shifts from the reference')}", f"{units} {rare}".strip(), _shifts(verdict)]
    for entry in (document or {}).get("history", [])[-1:]:
        blocks.append(say("Reference of {date}: {why}", date=entry["date"], why=entry["why"]))
    return "\n\n".join(blocks) + "\n"


def _outcome(outcome: Outcome) -> str:
    return told_as("outcome", outcome)


def _emphasised(outcome: Outcome) -> str:
    return f"**{_outcome(outcome).upper()}**" if outcome == "fail" else _outcome(outcome)


def _shifts(verdict: Verdict) -> str:
    table = verdict.shifts.reset_index().sort_values("p")
    headings = [say("Response"), say("Contrast"), say("Was"), say("Now"), say("Shift"), say("Limit"), "p"]
    specs = {"was": ".5g", "now": ".5g", "shift": "+.3g", "limit": ".2g", "p": ".2g"}
    rows = [
        [row["response"], told("mean") if row["contrast"] == "mean" else row["contrast"],
         *(figures(("±" if name == "limit" else "") + format(row[name], spec)) for name, spec in specs.items())]
        for _, row in table.iterrows()
    ]  # fmt: skip
    align = ["left", "left", *["right"] * 5]
    return tabulate(rows, headings, "pipe", colalign=align, disable_numparse=True)


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
    lines = [f"- {_outcome(finding.outcome)}: {told(finding.sentence)}" for finding in level.findings[:_MOST_FINDINGS]]
    if len(level.findings) > _MOST_FINDINGS:
        lines.append(f"- {say('and {n} more', n=len(level.findings) - _MOST_FINDINGS)}")
    return [f"## {told_as('gate', level.name)}", "\n".join(lines)]


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


def write(
    verdict: Verdict,
    document: Mapping[str, Any],
    folder: Path,
    *,
    in_units: bool = True,
    lang: str | Language = ENGLISH,
) -> Path:
    """Write ``gate.md`` and ``gate.xml`` into `folder`, and return the path of the first; see `markdown`.

    The first is in the language `lang`, the second, which programs read, in English.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "gate.xml", junit(verdict).encode())
    with speaking(lang):
        write_atomically(folder / "gate.md", markdown(verdict, document, in_units=in_units).encode())
    return folder / "gate.md"
