"""The verdict on a page and as JUnit XML."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import gate_tables as tables
import pytest

from mnist_ablate.gate import judge as gate
from mnist_ablate.gate import page as gate_report
from mnist_ablate.gate.reference import Rules


@pytest.fixture(scope="module")
def verdicts() -> dict[str, gate.Verdict]:
    """Judge clean runs, and bad ones."""
    known = tables.reference(rules=Rules(thresholds={"test_accuracy": 0.9}))
    evidence = tables.candidate(known)
    bad = replace(evidence, runs=tables.moved(evidence.runs, -1.0))
    return {"pass": gate.check(evidence, known), "fail": gate.check(bad, known)}


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_the_page_says_it_all(verdicts: dict[str, gate.Verdict], outcome: str) -> None:
    """The page has the outcome, the sentence, every level, every shift with its limit, and the reference's reason."""
    verdict = verdicts[outcome]
    page = gate_report.markdown(verdict, {"history": [{"date": "2026-01-02", "why": "the reason"}]})
    assert page.startswith(f"# Regression gate: {outcome}\n\n{verdict.sentence}\n")
    assert all(f"| {level.name} |" in page for level in verdict.levels)
    assert page.count("| ±") == len(verdict.shifts)
    assert "Reference of 2026-01-02: the reason" in page
    assert ("**FAIL**" in page) == (outcome == "fail")


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_junit_counts_what_it_holds(verdicts: dict[str, gate.Verdict], outcome: str) -> None:
    """The XML has a test case for each level; the counts of failures and skipped ones are those of its elements."""
    suite = ET.fromstring(gate_report.junit(verdicts[outcome]))  # noqa: S314  # our own
    assert len(suite.findall("testcase")) == int(suite.attrib["tests"]) == len(verdicts[outcome].levels)
    assert len(suite.findall("testcase/failure")) == int(suite.attrib["failures"])
    assert len(suite.findall("testcase/skipped")) == int(suite.attrib["skipped"])
    assert (int(suite.attrib["failures"]) > 0) == (outcome == "fail")


def test_both_files_are_written(verdicts: dict[str, gate.Verdict], tmp_path: Path) -> None:
    """`write` leaves the page and the XML in the folder, which it makes."""
    page = gate_report.write(verdicts["pass"], {}, tmp_path / "new")
    assert page.read_text().startswith("# Regression gate: pass")
    assert ET.parse(tmp_path / "new" / "gate.xml").getroot().tag == "testsuite"  # noqa: S314  # our own
