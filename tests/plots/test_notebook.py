"""The pictures of the notebook's numbers: printed values beside the runs of the same cells."""

import drawn
import numpy as np
import pytest
import synthetic
from matplotlib.colors import to_rgb

from mnist_ablate import plots
from mnist_ablate.design.plan import Run
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.notebook.replication import places

PRINTED = [97.69, 97.73, 96.96, 96.96, 97.19, 97.19]


def accuracy(run: Run) -> float:
    """Return an accuracy that differs between seeds, and between the notebook's mode and ours."""
    return 0.97 + run.seed / 1000 - 0.01 * (run.settings.evaluation == "train")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """Return planted results of the notebook's cells."""
    study = synthetic.bundled("notebook", 3)
    return analyse(synthetic.results(study, test_accuracy=accuracy, val_loss=lambda run: 0.1 + run.seed / 100))


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_printed_accuracies_are_among_the_runs(analysis: Analysis, width: float) -> None:
    """Each row has a dot for each run in its mode's colour, a bar at their mean, and a diamond at what was printed."""
    (axes,) = plots.printed_accuracies(analysis, width=width).axes
    diamonds = np.concatenate(drawn.lines(axes, marker="D"))
    assert diamonds.tolist() == [[printed, row] for row, printed in enumerate(PRINTED)]
    rows = drawn.rows_of_dots(axes)
    as_ran, mended = [96.0, 96.1, 96.2], [97.0, 97.1, 97.2]
    expected = [mended, mended, as_ran, mended, as_ran, mended]
    assert [row[:, 0].tolist() for row in rows] == [pytest.approx(runs) for runs in expected]
    means = [line[0, 0] for line in drawn.lines(axes, linewidth=1.8)]
    assert means == pytest.approx([np.mean(runs) for runs in expected])
    faces = [tuple(dots.get_facecolor()[0][:3]) for dots in axes.collections]  # type: ignore[index]
    blue, orange = (to_rgb(getattr(plots.THEMES["light"], name)) for name in ("blue", "orange"))
    assert faces == [blue, blue, orange, blue, orange, blue]


@pytest.mark.parametrize("width", [8.6, 4.1])
def test_printed_losses_are_among_the_runs(analysis: Analysis, width: float) -> None:
    """Each network's panel has marks at its printed losses, and the range and the mean of the runs."""
    panels = plots.printed_losses(analysis, width=width).axes
    assert [axes.get_title("left") for axes in panels] == ["baseline", "L2", "dropout", "BatchNorm"]
    printed = [line[:, 1].tolist() for line in drawn.lines(panels[2], marker="o")]
    assert printed == [[0.1935, 0.1417, 0.1348, 0.1090, 0.1060]]
    assert len(drawn.lines(panels[2], marker="s")) == 1
    frame = places(analysis).query("mode == 'as it ran' and name == 'dropout' and response == 'val_loss'")
    assert len(frame) == 1  # planted results have one epoch
    (mean,) = [line for line in drawn.lines(panels[2], linewidth=1.4) if line[0, 1] < 0.2]
    assert mean.tolist() == [[5, pytest.approx(0.11)]]
    assert panels[0].get_yscale() == "log"


def test_losses_over_epochs_are_bands(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over several epochs bands reach from the lowest run to the highest, in both losses."""
    from mnist_ablate.store.results import load

    study = synthetic.bundled("notebook", 3, 3)
    analysis = analyse(load(synthetic.make(tmp_path_factory.mktemp("runs"), study)))
    panel = plots.printed_losses(analysis, "mended").axes[3]
    frame = places(analysis).query("mode == 'mended' and name == 'BatchNorm'")
    for response, (epochs, low, high) in zip(("train_loss", "val_loss"), drawn.bands(panel), strict=True):
        rows = frame[frame["response"] == response]
        assert epochs.tolist() == [1, 2, 3]
        assert np.column_stack([low, high]) == pytest.approx(rows[["min", "max"]].to_numpy(dtype=float))
