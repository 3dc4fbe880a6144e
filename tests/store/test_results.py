"""Reading a results folder."""

from pathlib import Path

import pytest
import synthetic

from mnist_ablate.design.plan import plan
from mnist_ablate.errors import ResultsError
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load

STUDY = synthetic.factorial(2, 2)


def test_load(folder: Path) -> None:
    """`load` returns all runs in the order of the design, the last epoch of each, and their predictions."""
    results = load(folder)
    assert results.study == STUDY
    assert results.problems == []
    assert list(dict.fromkeys(results.epochs["cell"])) == [run.cell for run in plan(STUDY)[:8]]
    assert len(results.epochs) == 8 * 2 * 2
    assert len(results.final) == 8 * 2
    assert set(results.final["epoch"]) == {2}
    run = plan(STUDY)[3]
    assert results.predictions(run.run_id)["label"].tolist() == synthetic.predictions(run)["label"].tolist()


@pytest.mark.parametrize("make", [False, True])
def test_no_study_there(tmp_path: Path, make: bool) -> None:
    """For a missing or empty folder, one message has the path and how to make results."""
    path = tmp_path / "results"
    if make:
        path.mkdir()
    with pytest.raises(ResultsError, match=r"results: no results there .*mnist_ablate run"):
        load(path)


def test_no_run_there(tmp_path: Path) -> None:
    """A study without a readable run raises an error that says why."""
    with Store(tmp_path).opened(STUDY) as store:
        pass
    with pytest.raises(ResultsError, match="no finished run there"):
        load(tmp_path)
    store.run_file("0" * 20).write_bytes(b"")
    with pytest.raises(ResultsError, match="damaged"):
        load(tmp_path)
