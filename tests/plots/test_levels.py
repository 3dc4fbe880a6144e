"""The pictures of many levels and of the parts of chance: means, shares and intervals are in place."""

from typing import Any

import drawn
import numpy as np
import pytest
import synthetic

from mnist_ablate import plots
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.plots.levels import _places
from mnist_ablate.store.results import Results


def bars(axes: Any) -> list[list[list[float]]]:
    """Return the lower and upper ends of the bars of each line."""
    return [[segment[:, 1].tolist() for segment in box.lines[2][0].get_segments()] for box in axes.containers]


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_doses_have_a_line_for_each_combination(width: float) -> None:
    """Each line goes through the means at its levels, with bars to the ends of their intervals, and is in the key."""
    study = synthetic.bundled("dropout-rate", 3)
    found = synthetic.results(
        study, test_accuracy=lambda run: 0.97 + run.settings.dropout / 100 + (run.seed - 1) / 10_000
    )
    figure = plots.doses(found, "dropout", width=width)
    assert "without input dropout" in drawn.words(figure)
    (axes,) = figure.axes
    lines = [line for line in drawn.lines(axes) if len(line) > 1]
    frame = analyse(found).by_level()
    expected = [of[["level", "mean"]].to_numpy(dtype=float) for _, of in frame.groupby("line", sort=False)]
    assert [len(line) for line in lines] == [len(rows) for rows in expected]
    assert len(lines) == 2
    half = 4.302653 * 0.01 / 3**0.5
    for line, rows, of_line in zip(lines, expected, bars(axes), strict=True):
        assert line == pytest.approx(rows)
        assert line[:, 1] == pytest.approx(97 + line[:, 0])
        ends = [(97 + rate - half, 97 + rate + half) for rate in line[:, 0]]
        assert np.array(of_line) == pytest.approx(np.array(ends), abs=1e-4)


def test_levels_far_apart_are_on_a_logarithmic_axis() -> None:
    """Steps of a factor of ten are equally long, and 0 lies one step to the left of them."""
    low, middle, high = (_places([0.0, 1e-5, 1e-4])[level] for level in (0.0, 1e-5, 1e-4))
    assert middle - low == high - middle == pytest.approx(1)
    assert _places([0.1, 0.2, 0.5]) == {0.1: 0.1, 0.2: 0.2, 0.5: 0.5}


def test_failures_are_drawn_as_errors() -> None:
    """Where a level fails, the axis is that of the error, on a logarithmic scale, and the best is at its top."""
    study = parse_study({"name": "s", "seeds": 2, "factors": {"learning_rate": [0.001, 0.1, 10.0]}})

    def accuracy(run: Any) -> float:
        return 0.1 if run.settings.learning_rate > 1 else 0.98 + run.seed / 1000

    (axes,) = plots.doses(synthetic.results(study, test_accuracy=accuracy), "learning_rate").axes
    assert axes.get_yscale() == "log"
    assert axes.yaxis_inverted()
    (line,) = [line for line in drawn.lines(axes) if len(line) == 3]
    assert line[:, 1] == pytest.approx([1.95, 1.95, 90])
    (low, high), _, failed = bars(axes)[0]
    assert low == pytest.approx(1.95 - 12.7062 * 0.0707107 / 2**0.5, rel=1e-4)
    assert high == pytest.approx(1.95 + 12.7062 * 0.0707107 / 2**0.5, rel=1e-4)
    assert failed == pytest.approx([90, 90])


def variance() -> Results:
    """Return planted results of the study of chance."""
    study = synthetic.bundled("variance", 6)
    return synthetic.results(study, test_accuracy=lambda run: 0.97 + (run.seed + run.settings.init_seed) % 5 / 1000)


def test_parts_of_variance_are_drawn_at_their_shares() -> None:
    """A diamond per part at its share in percent, on a bar between the ends of its interval."""
    frame = analyse(variance()).components
    assert frame is not None
    (axes,) = plots.variance_parts(variance()).axes
    marks = np.concatenate(drawn.lines(axes, marker="D"))
    assert marks[:, 0] == pytest.approx(100 * frame["share"][:-1])
    ends = np.array([line[:, 0] for line in drawn.lines(axes, linewidth=3)])
    assert ends == pytest.approx(100 * frame[["share_low", "share_high"]][:-1].to_numpy())


def test_variance_needs_a_study_of_chance() -> None:
    """Of a study whose factors are techniques there is one clear error."""
    with pytest.raises(ValueError, match="factorial: its factors are not parts of chance"):
        plots.variance_parts(synthetic.results(synthetic.bundled("factorial", 1)))
