"""Tests of the page with sliders; what its script does is tested in a browser."""

import json
import re
from pathlib import Path

import pytest

from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import live, write
from mnist_ablate.store.results import load

REFERENCES = Path(__file__).parents[2] / "results" / "reference"


def test_without_hypotheses_it_is_refused(tmp_path: Path) -> None:
    """A study without hypotheses has nothing to redraw: the message says so, and nothing is written."""
    with pytest.raises(ResultsError, match=r"no hypotheses.*--live"):
        write(REFERENCES / "variance", tmp_path / "out", live=True)
    assert not (tmp_path / "out").exists()


def test_the_stored_numbers_are_those_of_shorter_studies() -> None:
    """The intervals for fewer seeds are those of a study that ended there, and the last are the study's own."""
    analysis = analyse(load(REFERENCES / "notebook"))
    data = json.loads(live.content(analysis)["data"])
    assert data["seeds"] == ["10 seeds", "20 seeds", "30 seeds"]
    alpha = data["alphas"].index("5 %")
    by_look = analysis.by_look
    for i, seeds in enumerate((10, 20, 30)):
        rows = by_look[by_look["seeds"] == seeds]
        for entry, (_, row) in zip(data["at"][i][alpha], rows.iterrows(), strict=True):
            assert entry[:3] == pytest.approx([row["estimate"], row["low"], row["high"]])


def test_no_text_leaves_the_data() -> None:
    """A text cannot end the script element, whatever it holds."""
    assert json.loads(live._json(["</script><b>", "\u2028"])) == ["</script><b>", "\u2028"]
    assert not re.search("[<\u2028\u2029]", live._json(["</script><b>", "\u2028\u2029"]))
