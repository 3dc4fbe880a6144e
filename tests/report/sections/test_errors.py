"""What the networks get wrong: the commonest mistakes, and the images that all runs get wrong."""

from pathlib import Path

import synthetic

from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.format import number
from mnist_ablate.report.sections.errors import always_wrong, confusions, section
from mnist_ablate.store.results import load


def test_mistakes(whole: Analysis) -> None:
    """The commonest mistakes per run, and the images that all runs get wrong, with the number that is not shown."""
    shown = always_wrong(whole, most=1)
    assert shown
    share = number(100 * 56 / (3 * 56 - 4 * 8), 1)
    assert confusions(whole).rows[0] == {"pair": "8, 9", "per_run": "1.0", "share": share}
    assert [row["image"] for row in shown.rows] == ["38"]
    assert shown.caption.endswith("The first 1 of 2.")
    everything = always_wrong(whole)
    assert everything
    assert "first" not in everything.caption
    assert [row["image"] for row in everything.rows] == ["38", "39"]


def test_without_predictions_there_is_no_section(tmp_path: Path, pair: Study) -> None:
    """Where runs did not answer the same images, the section and its table of images are not there."""
    analysis = analyse(load(synthetic.make(tmp_path / "a", pair)))
    assert section(analysis) is None
    assert always_wrong(analysis) is None
    assert "not all tested on the same images" in analysis.results.no_mistakes
