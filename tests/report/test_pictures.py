"""The pictures of the page: which there are, that they say what they show, and what their files are."""

import base64
import re
from functools import partial
from pathlib import Path

import pytest
import synthetic

from mnist_ablate import plots
from mnist_ablate.design.study import parse_study
from mnist_ablate.report import svg
from mnist_ablate.store.results import load

RATES = {"name": "rates", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"learning_rate": [0.001, 0.0003, 0.00125]}}


def shown(picture: svg.Picture, which: str) -> str:
    """Decode one of the drawings that are in the page."""
    return base64.b64decode(picture.uris[which].partition("base64,")[2]).decode()


def test_numbers_in_the_text_of_a_picture_are_whole(tmp_path: Path) -> None:
    """Places are cut to a hundredth of a point, what is to be read is not: a cell named by 0.00125 keeps its name."""
    results = load(synthetic.make(tmp_path, parse_study(RATES)))
    drawing = svg._svg(plots.accuracy(results))
    assert "learning_rate=0.00125" in drawing
    assert "learning_rate=0.0003" in drawing
    assert not re.search(r'(?:d|x|y|transform)="[^"]*\d\.\d{3}', drawing)


def test_a_picture_is_drawn_for_both_widths_and_themes(tmp_path: Path) -> None:
    """There are four drawings, two widths in two themes, and files of the wide light one."""
    results = load(synthetic.make(tmp_path, parse_study(RATES)))
    picture = svg.picture(partial(plots.accuracy, results), "alt")
    assert set(picture.uris) == {"wide_light", "wide_dark", "narrow_light", "narrow_dark"}
    assert shown(picture, "wide_light") == picture.svg
    assert shown(picture, "wide_dark") == plots.in_theme(picture.svg, "dark")
    found = [re.findall(r'width="([\d.]+)pt"', shown(picture, name)) for name in ("wide_light", "narrow_dark")]
    widths = [float(numbers[0]) for numbers in found]
    assert widths == pytest.approx([72 * plots.WIDTH, 72 * svg.NARROW_WIDTH], abs=0.1)
    assert picture.png.startswith(b"\x89PNG")
