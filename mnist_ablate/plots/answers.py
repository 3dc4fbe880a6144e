"""Pictures of what the networks answer: which digits are taken for which, and the images that none gets right."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mnist_ablate.data import CLASS_NAMES
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.test_images import confusions
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, ThemeName, canvas
from mnist_ablate.store.results import Results


def confusion(runs: Results | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw how many mistakes of each kind a run makes on average: a row per label, a column per answer.

    Returns
    -------
    matplotlib.figure.Figure
        Empty squares: the right answers, and less than one mistake in ten runs.

    Raises
    ------
    ValueError
        If predictions are not stored.
    """
    analysis = analyse(runs)
    results = analysis.results
    colours, frame = THEMES[theme], confusions(results)
    if frame is None:
        raise ValueError("no predictions are stored")
    side = min(width, 5.4)
    figure, axes = canvas(colours, side, side)
    axes.set(xlim=(-0.5, 9.5), ylim=(9.5, -0.5), aspect="equal")
    most = frame["per_run"].max() if len(frame) else 1
    size = 8 if width > NARROW else 7
    for x, y, mistakes in frame[["prediction", "label", "per_run"]].itertuples(index=False, name=None):
        share = mistakes / most
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours.blue, alpha=0.85 * share, linewidth=0))
        if mistakes >= 0.1:
            ink = colours.paper if share > 0.6 else colours.ink
            axes.text(x, y, f"{mistakes:.1f}", ha="center", va="center", fontsize=size, color=ink)
    for digit in range(10):
        axes.add_patch(Rectangle((digit - 0.5, digit - 0.5), 1, 1, facecolor=colours.grid, edgecolor="none"))
    names = CLASS_NAMES[results.study.protocol.dataset]
    axes.set_xticks(range(10), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(10), names)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("answer of the network")
    axes.set_ylabel("label of the image", color=colours.ink, fontsize=10)
    return figure


def images(
    pixels: NDArray[np.uint8], captions: list[str], *, theme: ThemeName = "light", width: float = WIDTH
) -> Figure:
    """Draw images with a caption each.

    Parameters
    ----------
    pixels
        Shape (n, 28, 28), 255 is ink.
    captions
        One per image.
    theme
        ``"light"`` or ``"dark"``.
    width
        Inches; the number of images in a row follows from it.

    Returns
    -------
    matplotlib.figure.Figure
        The images in rows, dark on light in both themes.
    """
    colours = THEMES[theme]
    longest = max((len(caption) for caption in captions), default=0)
    columns = max(1, int(width / max(0.78, 0.078 * longest)))
    place, rows = width / columns, max(1, -(-len(pixels) // columns))
    figure = Figure(figsize=(width, _ROW * rows), facecolor=colours.paper)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        x, y = place * (i % columns + 0.5), _ROW * (i // columns)  # inches from the upper left corner
        ends = (x - 0.3, x + 0.3, y + 0.88, y + 0.28)
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest", extent=ends)
        axes.text(x, y + 0.22, caption, ha="center", fontsize=8.5, color=colours.ink)
    axes.set(xlim=(0, width), ylim=(_ROW * rows, 0), aspect="auto")
    return figure


_ROW = 1.02
"""Inches from one row of images to the next."""
