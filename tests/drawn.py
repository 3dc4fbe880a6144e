"""What a figure shows, for tests of pictures."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mnist_ablate.design.plan import Run

Pairs = NDArray[np.float64]


def words(figure: Figure) -> str:
    """Return all visible text of a figure, once drawn."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def rows_of_dots(axes: Axes) -> list[Pairs]:
    """Return the dots of each row: an array of x and y."""
    offsets = [np.asarray(dots.get_offsets(), dtype=float) for dots in axes.collections]
    return [places for places in offsets if len(places)]


def lines(axes: Axes, **look: object) -> list[Pairs]:
    """Return the points of the visible lines that have a look, such as ``marker="o"``: arrays of x and y."""
    return [
        np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
        for line in axes.lines
        if (line.get_linestyle() != "None" or line.get_marker() not in ("None", ""))
        and all(getattr(line, f"get_{name}")() == value for name, value in look.items())
    ]


def bands(axes: Axes) -> list[tuple[Pairs, Pairs, Pairs]]:
    """Return x, lower and upper end of each band between two lines."""
    drawn = []
    for band in axes.collections:
        if type(band).__name__ in ("FillBetweenPolyCollection", "PolyCollection"):
            points = np.asarray(band.get_paths()[0].vertices, dtype=float)
            x = np.unique(points[:, 0])
            ends = [(points[points[:, 0] == at, 1].min(), points[points[:, 0] == at, 1].max()) for at in x]
            drawn.append((x, *np.array(ends).T))
    return drawn


def answers(run: Run) -> dict[str, Any]:
    """Make predictions of the same 20 images in all runs: the last is always taken for a 4, the first now and then."""
    labels = np.arange(20, dtype=np.uint8) % 10
    said = labels.copy()
    said[0], said[-1] = run.seed % 2, 4
    return {"test_index": np.arange(20, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(20, 0.5, np.float32)}  # fmt: skip
