"""What was run, and where: every value is listed with its runs."""

from pathlib import Path
from typing import Any

import synthetic

from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report.format import NOTHING
from mnist_ablate.report.sections.provenance import provenance
from mnist_ablate.store.results import load


def test_provenance_counts_runs(tmp_path: Path, pair: Study) -> None:
    """Every value is listed with its runs, what says nothing is a dash, and truth is yes or no."""
    machines: list[dict[str, Any]] = [{"git_dirty": True, "threads": 1}, {"git_dirty": False, "threads": None}]
    recorded = dict(provenance(analyse(load(synthetic.make(tmp_path, pair, machines=machines)))))
    assert set(recorded["Uncommitted changes"]) == {("yes", "3 of 6"), ("no", "3 of 6")}
    assert set(recorded["Threads in a run"]) == {("1", "3 of 6"), (NOTHING, "3 of 6")}
    assert recorded["Study file, SHA-256"] == [(NOTHING, "6")]
