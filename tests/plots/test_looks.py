"""The picture of looks: a panel per hypothesis, estimates and intervals in units of what matters."""

import drawn
import numpy as np
import pytest
import synthetic

from mnist_ablate import plots
from mnist_ablate.design.study import load_study
from mnist_ablate.inference.analysis import analyse


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_each_hypothesis_has_its_looks(width: float) -> None:
    """Each panel has the estimates at the looks on a line, and a band between the ends of the repeated intervals."""
    rng = np.random.default_rng(0)
    study = load_study("factorial").model_copy(update={"futility": 0.0}).reaching(30)
    analysis = analyse(synthetic.results(study, test_accuracy=lambda _: 0.97 + 0.003 * float(rng.normal())))
    before, frame = analysis.by_look.copy(), analysis.by_look
    figure = plots.by_look(analysis, width=width)
    assert analysis.by_look.equals(before)
    assert [axes.get_title("left") for axes in figure.axes] == [h.id for h in study.hypotheses]
    for axes in figure.axes:
        rows = frame[frame["id"] == axes.get_title("left")]
        assert rows["seeds"].tolist() == [10, 20, 30]
        (line,) = (line for line in drawn.lines(axes) if len(line) == 3)
        assert line == pytest.approx(np.column_stack([rows["seeds"], rows["estimate"] / rows["smallest"]]))
        if np.isfinite(rows["low"]).all() and (rows["high"] > rows["low"]).all():
            (band,) = (band for band in drawn.bands(axes) if len(band[0]) == 3)
            low, high = 2 * np.array(axes.get_ylim())
            assert band[1] == pytest.approx((rows["low"] / rows["smallest"]).clip(low, high).to_numpy())
            assert band[2] == pytest.approx((rows["high"] / rows["smallest"]).clip(low, high).to_numpy())
