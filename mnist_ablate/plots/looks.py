"""Picture of a study that goes on until it is settled: the intervals of its hypotheses, look by look."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import say
from mnist_ablate.plots import style
from mnist_ablate.plots.style import NARROW, SOLID, THEMES, WIDTH, Look, ThemeName
from mnist_ablate.store.results import Runs

_ROOM = 3.0
"""How far the axis goes beyond the last intervals, in smallest effects that matter; earlier ones are cut there."""
_TICKS = (-100, -30, -10, -3, -1, 1, 3, 10, 30, 100)


@style.under_own_settings
def by_look(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the estimate and the repeated interval of each hypothesis at each look.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each hypothesis, in units of its own smallest effect that matters, logarithmic beyond two of them.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame = analysis.by_look.copy()
    ids = list(dict.fromkeys(frame["id"]))
    labels = (say("seeds"), say("in units of the smallest effect that matters"))
    figure, panels = style.panels(colours, width, len(ids), 3 if width > NARROW else 1, labels=labels)
    numbers = ["estimate", "low", "high"]
    frame[numbers] = frame[numbers].div(frame["smallest"], axis=0)
    low, high = _limits(frame)
    frame[["low", "high"]] = frame[["low", "high"]].clip(2 * low, 2 * high)  # an infinite one cannot be drawn
    for axes, name in zip(panels, ids, strict=True):
        style.too_small(axes, 1, colours, upright=False)
        style.lines(axes, frame[frame["id"] == name], "seeds", "estimate", {name: Look("blue", SOLID, "o")}, colours,
                    by="id", interval=("low", "high"))  # fmt: skip
        style.title(axes, name, colours)
        axes.set_yscale("symlog", linthresh=2)  # effects of a tenth and of twenty times what matters are both seen
        axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
        axes.set_yticks([], minor=True)
        axes.set(ylim=(low, high), xlim=(0, 1.05 * frame["seeds"].max()))
    return figure


def _limits(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the axis: the band, all estimates, and the last intervals as far as they are not absurd."""
    points = frame["estimate"].dropna()
    least, most = min(-1.0, points.min()), max(1.0, points.max())
    last = frame.groupby("id").last()
    ends = np.nan_to_num(last[["low", "high"]].to_numpy(dtype=float).ravel())
    ends = ends.clip(least - _ROOM, most + _ROOM)
    return 1.3 * float(min(least, *ends)), 1.3 * float(max(most, *ends))
