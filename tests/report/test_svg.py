"""Drawings: what their files say, and the markup for a page, which follows its theme and the width of the screen."""

import io
import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.plots import style
from mnist_ablate.report import svg
from mnist_ablate.store.results import Results, load

RATES = {"name": "rates", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"learning_rate": [0.001, 0.0003, 0.00125]}}
HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
LIGHT, DARK = (set(asdict(theme).values()) for theme in plots.THEMES.values())
PLOTS: list[Callable[..., Figure]] = [
    plots.accuracy, plots.loss_curves, plots.forest, plots.by_epoch, plots.interactions, plots.power, plots.confusion,
]  # fmt: skip


def answers(run: Run) -> dict[str, Any]:
    """Make predictions of the same 20 images in all runs; the first is a 0 or a 1."""
    labels = np.arange(20, dtype=np.uint8) % 10
    said = labels.copy()
    said[0] = run.seed % 2
    return {"test_index": np.arange(20, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(20, 0.5, np.float32)}  # fmt: skip


def parsed(drawing: str) -> ET.Element:
    """Parse a drawing, without the namespace."""
    return ET.fromstring(re.sub(r' xmlns="[^"]*"', "", drawing).replace("xlink:", ""))  # noqa: S314 # our own


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the factorial study with 4 seeds of 2 epochs, one of them diverged."""
    folder = tmp_path_factory.mktemp("results")
    return load(synthetic.make(folder, synthetic.factorial(4, 2), diverged=[("l2", 1)], answers=answers))


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return a study of three learning rates with many digits."""
    return load(synthetic.make(tmp_path_factory.mktemp("rates"), parse_study(RATES)))


def dots(diameter: float, count: int) -> Figure:
    """Draw `count` dots, in the theme's blue."""
    figure = Figure((4, 3))
    axes = figure.add_subplot()
    axes.scatter(range(count), range(count), s=diameter**2, color="#0072b2", linewidths=0, alpha=0.75)
    return figure


@pytest.mark.parametrize("draw", PLOTS, ids=lambda draw: draw.__name__)
def test_one_drawing_for_both_themes(results: Results, draw: Callable[..., Figure]) -> None:
    """All colours of a file are the light theme's; in a page they are variables, and nothing else differs."""
    light, dark = draw(results), draw(results, theme="dark")
    file, of_dark = svg.svg(light), svg.svg(dark)
    assert set(HEX.findall(file)) <= LIGHT
    assert set(HEX.findall(of_dark)) <= DARK
    assert HEX.sub("", file) == HEX.sub("", of_dark)
    assert HEX.findall(file) != HEX.findall(of_dark)
    markup = svg.inline(file, "wide")
    assert not HEX.findall(markup)
    names = {value: name for name, value in asdict(plots.THEMES["light"]).items()}
    assert re.findall(r"var\(--(\w+)\)", markup) == [names[colour] for colour in HEX.findall(file)]


def test_the_page_has_each_colour_in_both_themes() -> None:
    """The page's variables have the values of `plots.THEMES`, first the light ones, then the dark ones."""
    css = resources.files("mnist_ablate.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    for name, light in asdict(plots.THEMES["light"]).items():
        values = re.findall(rf"--{name}: (#\w+);", css)
        assert values == [light, asdict(plots.THEMES["dark"])[name]]


def test_a_picture_is_drawn_for_both_widths(rates: Results) -> None:
    """The markup has a drawing for each width, the files are of the wide one, and no identifier comes twice."""
    picture = svg.picture(partial(plots.accuracy, rates), "what it shows")
    assert picture.alt == "what it shows"
    kinds, boxes = zip(*re.findall(r'<svg class="(\w+)" viewBox="0 0 ([\d.]+) ', picture.inline), strict=True)
    assert kinds == ("wide", "narrow")
    widths = [72 * plots.WIDTH, 72 * svg.NARROW_WIDTH]
    assert [float(box) for box in boxes] == pytest.approx(widths, abs=0.1)
    assert f'width="{boxes[0]}pt"' in picture.svg
    ids = re.findall(r' id="([^"]+)"', picture.inline)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", picture.inline)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', picture.inline)) <= set(ids)


def test_png_is_the_wide_drawing(rates: Results) -> None:
    """The PNG file has 150 pixels per inch, and paper in its corner."""
    picture = svg.picture(partial(plots.accuracy, rates), "")
    size = np.frombuffer(picture.png[16:24], dtype=">u4")
    assert size[0] == pytest.approx(150 * plots.WIDTH, abs=1)


def test_text_and_numbers_that_are_read_stay_whole(rates: Results) -> None:
    """Places have two digits at most; a cell named by 0.00125 keeps its name."""
    drawing = svg.svg(plots.accuracy(rates))
    assert "learning rate 0.00125" in drawing
    assert "learning rate 0.0003" in drawing
    assert not re.search(r'(?:d|x|y|transform)="[^"]*\d\.\d{3}', drawing)


def test_markup_in_names_is_text() -> None:
    """A name made of markup, or of a colour, is text in the file and on the page."""
    figure = Figure((3, 2))
    figure.add_subplot().set_title("<script> & #0072b2")
    markup = svg.inline(svg.svg(figure), "wide")
    assert "&lt;script&gt; &amp; #0072b2" in markup
    assert "<script" not in markup


def test_same_results_same_bytes(results: Results) -> None:
    """A picture is the same bytes each time."""
    first, second = (svg.picture(partial(plots.loss_curves, results), "") for _ in range(2))
    assert first == second


def test_dots_are_one_path() -> None:
    """Dots of one look are one path, a round end each, as wide as the dots and where they were."""
    root = parsed(svg.svg(dots(3, 50)))
    (path,) = [path for path in root.iter("path") if "h0" in path.get("d", "")]
    places = re.findall(r"M([\d.]+) ([\d.]+)h0", path.attrib["d"])
    assert len(places) == 50
    x, y = np.array(places, dtype=float).T
    assert np.ptp(np.diff(x)) < 0.02
    assert np.all(np.diff(y) < 0)
    look = dict(part.split(":") for part in path.attrib["style"].split(";"))
    assert look["stroke"] == "#0072b2"
    assert look["stroke-linecap"] == "round"
    assert float(look["stroke-width"]) == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("draw", PLOTS, ids=lambda draw: draw.__name__)
def test_a_drawing_keeps_all_lines_and_words(results: Results, draw: Callable[..., Figure]) -> None:
    """A file has every line and every word of matplotlib's own, in less than two thirds of the bytes."""

    def lines(root: ET.Element) -> set[tuple[str, ...]]:
        stroked = [
            path.attrib["d"] for path in root.iter("path") if re.match("fill: ?none;.*stroke:", path.get("style", ""))
        ]
        return {tuple(f"{float(n):.2f}" for n in re.findall(r"-?[\d.]+", d)) for d in stroked if "C" not in d} - {()}

    def words(root: ET.Element) -> list[str]:
        return ["".join(text.itertext()) for text in root.iter("text")]

    figure, whole = draw(results), io.StringIO()
    short = svg.svg(figure)
    figure.set_layout_engine("none")  # a second layout moves everything a little
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(whole, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = whole.getvalue()
    long = parsed(text[text.index("<svg") :])
    assert lines(long) <= lines(parsed(short))
    assert words(parsed(short)) == words(long)
    assert len(short) < 0.67 * len(text)


def test_thousands_of_points_are_pixels_that_follow_the_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond `MANY_POINTS`, dots and the lines between them are images; a page paints its colours through them."""
    study = load_study("factorial").with_options(seeds=20)
    many = synthetic.results(study, test_accuracy=lambda run: 0.97 + run.seed / 2000)
    assert "<image" not in svg.svg(plots.accuracy(many))
    monkeypatch.setattr(style, "MANY_POINTS", 100)
    monkeypatch.setattr("mnist_ablate.plots.cells.MANY_POINTS", 100)
    file = svg.svg(plots.accuracy(many))
    markup = svg.inline(file, "wide")
    assert file.count("<image") == markup.count("<mask") == 2
    painted = re.findall(r'<rect width="100%" height="100%" style="fill:var\(--(\w+)\)" mask="url\(#(.*?)\)"', markup)
    assert [name for name, _ in painted] == ["muted", "blue"]
    assert all(f'<mask id="{mask}"' in markup for _, mask in painted)


def test_pictures_of_pixels_stay_as_they_are() -> None:
    """Images without transparency, such as digits, are not masks."""
    figure = plots.images(np.zeros((1, 28, 28), np.uint8), ["7 as 1"])
    markup = svg.inline(svg.svg(figure), "wide")
    assert "<image" in markup
    assert "<mask" not in markup
