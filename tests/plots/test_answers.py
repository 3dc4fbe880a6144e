"""The pictures of answers: mistakes in their squares, and images with their captions."""

from pathlib import Path

import drawn
import numpy as np
import pytest
import synthetic
from matplotlib.colors import to_rgb

from mnist_ablate import plots
from mnist_ablate.store.results import load


@pytest.mark.parametrize("theme", plots.THEMES)
def test_mistakes_are_in_their_squares(tmp_path: Path, theme: plots.ThemeName) -> None:
    """A 9 that all take for a 4 and a 0 that half take for a 1 stand in their squares, the more the darker."""
    results = load(synthetic.make(tmp_path, synthetic.factorial(4, 1), answers=drawn.answers))
    figure = plots.confusion(results, theme=theme)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    written = {text.get_position(): text for text in axes.texts if text.get_text()}
    assert {place: text.get_text() for place, text in written.items()} == {(4.5, 9.5): "1.0", (1.5, 0.5): "0.5"}
    colours = plots.THEMES[theme]
    assert [written[place].get_color() for place in ((4.5, 9.5), (1.5, 0.5))] == [colours.paper, colours.ink]
    (mesh,) = axes.collections
    shades = np.asarray(mesh.get_facecolor())
    assert {tuple(shade[:3]) for shade in shades if shade[3] > 0} == {to_rgb(colours.blue)}
    alphas = shades[:, 3].reshape(10, 10)
    assert alphas[9, 4] == pytest.approx(0.85)
    assert alphas[0, 1] == pytest.approx(0.425, abs=0.01)
    assert np.count_nonzero(alphas) == 2
    assert len(axes.patches) == 10  # the right answers
    assert [label.get_text() for label in axes.get_xticklabels()] == list("0123456789")


def test_confusion_needs_predictions(tmp_path: Path) -> None:
    """Without predictions there is one clear error."""
    results = load(synthetic.make(tmp_path, synthetic.factorial(2, 1)))
    with pytest.raises(ValueError, match="no predictions are stored"):
        plots.confusion(results)


def test_images_have_their_captions() -> None:
    """Each image is drawn with its caption, in as many rows as the width needs; more captions are an error."""
    pixels = np.arange(13, dtype=np.uint8).repeat(28 * 28).reshape(13, 28, 28)
    figure = plots.images(pixels, [f"{i} as x" for i in range(13)], width=4.1)
    (axes,) = figure.axes
    assert [int(np.asarray(image.get_array())[0, 0]) for image in axes.images] == list(range(13))
    assert [text.get_text() for text in axes.texts] == [f"{i} as x" for i in range(13)]
    rows = {round(image.get_extent()[2], 2) for image in axes.images}
    assert len(rows) == 3
    for image, text in zip(axes.images, axes.texts, strict=True):
        left, right, _, top = image.get_extent()
        assert left < text.get_position()[0] < right
        assert text.get_position()[1] < top
    with pytest.raises(ValueError, match=r"shorter|longer"):
        plots.images(np.zeros((1, 28, 28), np.uint8), ["a", "b"])
