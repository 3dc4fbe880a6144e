"""Pictures of the notebook's numbers among the runs of its cells: accuracies as dots, losses as bands over epochs."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import mark, say, told
from mnist_ablate.notebook.printed import PrintedCell, cells_of, printed_cells
from mnist_ablate.notebook.replication import SHOWN, places, values
from mnist_ablate.plots import style
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, Look, Theme, ThemeName
from mnist_ablate.store.results import Runs

_COLOURS = {"as it ran": "orange", "mended": "blue"}
_HOLLOW: dict[str, Any] = {"linestyle": "", "markerfacecolor": "none"}
_LANES = (-0.28, 0.28)


@style.under_own_settings
def printed_accuracies(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw the test accuracy of every run of the notebook's cells, as it ran and mended, with what it printed.

    Returns
    -------
    matplotlib.figure.Figure
        A row per network and mode; modes with the same runs share a row. Parameters as of `printed_losses`.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    rows = _accuracy_rows(analysis)
    figure, axes = style.canvas(colours, width, 1.2 + 0.4 * len(rows))
    table = pd.DataFrame({i: accuracies for i, (*_, accuracies) in enumerate(rows)})
    points = style.in_lanes(table, *_LANES)
    points["mode"] = points["row"].map({i: mode for i, (_, mode, *_) in enumerate(rows)})
    style.dots(axes, points, "value", colours, by="mode", looks=_COLOURS)
    for row, (_, _, network, accuracies) in enumerate(rows):
        axes.plot([accuracies.mean()] * 2, [row - 0.38, row + 0.38], color=colours.ink, linewidth=1.8)
        axes.plot(network.test_accuracy, row, **_printed_style(colours))
    label = say("test accuracy after the notebook's last epoch, %")
    style.rows(axes, [name for name, *_ in rows], width, (26, 15), label)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    key = _accuracy_key(colours)
    style.key(figure, key, colours, columns=len(key) if width > NARROW else 2)
    return figure


def _accuracy_rows(analysis: Analysis) -> list[tuple[str, str, PrintedCell, "pd.Series[float]"]]:
    """List the rows: their name, mode, what was printed, and the accuracies of the runs by seed, in percent."""
    ran, mended = (cells_of(analysis.study, mode) for mode in SHOWN)
    rows = []
    for network in printed_cells():
        table = values(analysis, "test_accuracy", len(network.train_loss))
        alike = ran.get(network.name) == mended.get(network.name)
        for mode, cells in (("as it ran", {} if alike else ran), ("mended", mended)):
            if cells.get(network.name) in table:
                name = network.name if alike or network.name not in ran else f"{network.name}, {told(mode)}"
                rows.append((name, mode, network, table[cells[network.name]]))
    return rows


def _printed_style(colours: Theme) -> dict[str, Any]:
    return _HOLLOW | {"marker": "D", "markersize": 9, "markeredgecolor": colours.ink, "markeredgewidth": 1.6,
                      "zorder": 4, "clip_on": False}  # fmt: skip


def _accuracy_key(colours: Theme) -> list[Line2D]:
    modes = [
        style.handle(Look(colour, marker="o"), say("a run, {mode}", mode=told(mode)), colours, linestyle="",
                     markersize=5)
        for mode, colour in _COLOURS.items()
    ]  # fmt: skip
    mean = Line2D(
        [], [], color=colours.ink, linestyle="", marker="|", markersize=12, markeredgewidth=1.8, label=say("mean")
    )
    return [*modes, mean, Line2D([], [], **_printed_style(colours), label=say("printed"))]


# ---- Losses ----

_LOSSES = {"train_loss": (mark("while training"), "s", "orange"), "val_loss": (mark("validation"), "o", "blue")}
_LINES = {response: Look(colour) for response, (_, _, colour) in _LOSSES.items()}


@style.under_own_settings
def printed_losses(
    runs: Runs | Analysis, mode: str = "as it ran", *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw the range of each loss over the runs of the notebook's cells, epoch by epoch, with what it printed.

    Parameters
    ----------
    runs
        What `mnist_ablate.load` returns, or its analysis.
    mode
        The notebook's cells as it ran them, or mended: of `mnist_ablate.notebook.replication.SHOWN`.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per network, on a logarithmic scale: bands from the lowest run to the highest, lines their means, hollow
        marks the printed values.
    """
    analysis, colours = analyse(runs), THEMES[theme]
    frame = places(analysis)
    frame = frame[(frame["mode"] == mode) & frame["response"].isin(list(_LOSSES))]
    networks = [network for network in printed_cells() if network.name in cells_of(analysis.study, mode)]
    most = 4 if width > NARROW else 2
    figure, panels = style.panels(colours, width, len(networks), most, labels=(say("epoch"), say("loss, nats")))
    for axes, network in zip(panels, networks, strict=True):
        style.title(axes, network.name, colours)
        of_network = frame[frame["name"] == network.name]
        style.lines(axes, of_network, "epoch", "mean", _LINES, colours, by="response", interval=("min", "max"),
                    linewidth=1.4)  # fmt: skip
        _printed(axes, network, colours)
    panels[0].set_yscale("log")
    style.round_ticks(panels[0].yaxis, 4.5)
    style.round_ticks(panels[0].xaxis, 4.5, integer=True)
    key = _loss_key(colours, mode)
    style.key(figure, key, colours, columns=len(key) if width > NARROW else 1)
    return figure


def _printed(axes: Axes, network: PrintedCell, colours: Theme) -> None:
    for response, (_, marker, _) in _LOSSES.items():
        losses = getattr(network, response)
        axes.plot(range(1, len(losses) + 1), losses, marker=marker, markersize=6, markeredgecolor=colours.ink,
                  markeredgewidth=1.2, **_HOLLOW)  # fmt: skip


def _loss_key(colours: Theme, mode: str) -> list[Line2D | Patch]:
    bands = [
        Patch(facecolor=getattr(colours, colour), alpha=0.4,
              label=say("{loss}, runs {mode}", loss=told(what), mode=told(mode)))
        for what, _, colour in _LOSSES.values()
    ]  # fmt: skip
    marks = [
        Line2D([], [], marker=marker, label=say("{loss}, printed", loss=told(what)), markersize=6,
               markeredgecolor=colours.ink, **_HOLLOW)
        for what, marker, _ in _LOSSES.values()
    ]  # fmt: skip
    return [*bands, *marks]
