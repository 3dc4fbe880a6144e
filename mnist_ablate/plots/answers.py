"""Pictures of the networks' answers: which digits they take for which, and the images that every run gets wrong."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import figures, say, told
from mnist_ablate.plots import style
from mnist_ablate.plots.style import NARROW, THEMES, WIDTH, ThemeName
from mnist_ablate.store.results import Runs


@style.under_own_settings
def confusion(runs: Runs | Analysis, *, theme: ThemeName = "light", width: float = WIDTH) -> Figure:
    """Draw how many mistakes of each kind a run makes on average: a row per label, a column per answer.

    Returns
    -------
    matplotlib.figure.Figure
        Empty squares: the right answers, and fewer than one mistake in ten runs.

    Raises
    ------
    ValueError
        If predictions are not stored.
    """
    import seaborn  # imports pyplot: not for those who draw nothing

    analysis, colours = analyse(runs), THEMES[theme]
    if analysis.confusions is None:
        raise ValueError("no predictions are stored")
    mistakes = analysis.confusions.pivot(index="label", columns="prediction", values="per_run")
    names = [told(name) for name in analysis.class_names]
    mistakes = mistakes.reindex(index=range(len(names)), columns=range(len(names))).fillna(0.0)
    words = mistakes.map(lambda n: figures(f"{n:.1f}") if n >= 0.1 else "")
    side = min(width, 5.4)
    figure, axes = style.canvas(colours, side, side)
    # Shades of one colour over the paper, so that a page can change both for the dark theme.
    shades = LinearSegmentedColormap.from_list("mistakes", [to_rgba(colours.blue, alpha) for alpha in (0, 0.85)])
    counts = mistakes.to_numpy(dtype=float)
    most, empty = counts.max() or 1.0, (counts < 0.1) | np.eye(len(names), dtype=bool)
    seaborn.heatmap(mistakes, cmap=shades, vmin=0, vmax=most, mask=empty, annot=words, fmt="",
                    annot_kws={"fontsize": 8 if width > NARROW else 7, "color": colours.ink}, cbar=False, square=True,
                    xticklabels=names, yticklabels=names, ax=axes)  # fmt: skip
    for text in axes.texts:
        column, row = text.get_position()
        if counts[int(row), int(column)] > 0.6 * most:
            text.set_color(colours.paper)
    for digit in range(len(names)):
        axes.add_patch(Rectangle((digit, digit), 1, 1, facecolor=colours.grid, edgecolor="none"))
    axes.tick_params(axis="x", rotation=90 if max(map(len, names)) > 2 else 0)
    axes.tick_params(axis="y", rotation=0)
    axes.set(xlabel=say("answer of the network"), ylabel=say("label of the image"))
    return figure


@style.under_own_settings
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
    figure = style.Drawing(figsize=(width, _ROW * rows), facecolor=colours.paper)
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
