"""The verdict on a page and as JUnit XML."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import gate_tables as tables
import pytest

from mnist_ablate.gate.judge import Verdict, judge
from mnist_ablate.gate.page import junit, markdown, write
from mnist_ablate.gate.reference import Rules


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """Return the verdicts on clean runs and on bad ones."""
    known = tables.reference(rules=Rules(thresholds={"test_accuracy": 0.9}))
    evidence = tables.candidate(known)
    bad = replace(evidence, runs=tables.moved(evidence.runs, -1.0))
    return {"pass": judge(evidence, known), "fail": judge(bad, known)}


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_the_page_says_it_all(verdicts: dict[str, Verdict], outcome: str) -> None:
    """The page has the outcome, the sentence, every level, every shift with its limit, and the reason."""
    verdict = verdicts[outcome]
    page = markdown(verdict, {"history": [{"date": "2026-01-02", "why": "the reason"}]})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert page.startswith(f"# Regression gate: {outcome}\n\n{verdict.sentence}\n")
    assert [row[0] for row in rows[2 : 2 + len(verdict.levels)]] == [level.name for level in verdict.levels]
    shifts = [row for row in rows if len(row) == 7][2:]
    assert [row[5] for row in shifts] == [f"±{limit:.2g}" for limit in verdict.shifts.sort_values("p")["limit"]]
    assert all(row[4][0] in "+-" for row in shifts)
    assert "Reference of 2026-01-02: the reason" in page
    assert ("**FAIL**" in page) == (outcome == "fail")


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_junit_counts_what_it_holds(verdicts: dict[str, Verdict], outcome: str) -> None:
    """The XML has a test case for each level, and counts its failures and skipped cases correctly."""
    suite = ET.fromstring(junit(verdicts[outcome]))  # noqa: S314  # our own
    assert len(suite.findall("testcase")) == int(suite.attrib["tests"]) == len(verdicts[outcome].levels)
    assert len(suite.findall("testcase/failure")) == int(suite.attrib["failures"])
    assert len(suite.findall("testcase/skipped")) == int(suite.attrib["skipped"])
    assert (int(suite.attrib["failures"]) > 0) == (outcome == "fail")


def test_both_files_are_written(verdicts: dict[str, Verdict], tmp_path: Path) -> None:
    """`write` creates the folder and writes the page and the XML."""
    page = write(verdicts["pass"], {}, tmp_path / "new")
    assert page.read_text().startswith("# Regression gate: pass")
    assert ET.parse(tmp_path / "new" / "gate.xml").getroot().tag == "testsuite"  # noqa: S314  # our own


def test_a_verdict_shows_itself(verdicts: dict[str, Verdict]) -> None:
    """Printed, a verdict is its sentence; in a notebook, it is the page."""
    verdict = verdicts["fail"]
    assert str(verdict) == repr(verdict) == verdict.sentence
    assert verdict._repr_markdown_() == markdown(verdict)
