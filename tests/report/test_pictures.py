"""The pictures of the page: which there are, that they say what they show, and what their files are."""

import base64
import re
from functools import partial
from pathlib import Path

import pytest
import synthetic
from matplotlib.figure import Figure

from mnist_ablate import data, plots
from mnist_ablate.data import Images
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import DataError
from mnist_ablate.report import pictures, svg
from mnist_ablate.store.results import load

NAMES = (
    "accuracy", "loss_curves", "forest", "by_epoch", "interactions", "power", "confusion", "images", "doses",
    "variance_parts", "printed_accuracies", "printed_losses",
)  # fmt: skip
RATES = {"name": "rates", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"learning_rate": [0.001, 0.0003, 0.00125]}}


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pictures empty, and have no data set at hand."""
    for name in NAMES:
        monkeypatch.setattr(plots, name, lambda *_, **__: Figure((1, 1)))

    def absent(*_: object) -> Images:
        raise DataError("not here")

    monkeypatch.setattr(data, "load", absent)


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


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("factors", "seeds", "names"),
    [
        ({"dropout": [0.2]}, 2, set()),
        ({"dropout": [0.0, 0.2]}, 1, {"effects", "effects-by-epoch"}),
        ({"dropout": [0.0, 0.2]}, 2, {"effects", "effects-by-epoch", "power"}),
        ({"dropout": [0.0, 0.2], "l2": [0.0, 1e-5]}, 2, {"effects", "effects-by-epoch", "power", "interactions"}),
    ],
)
def test_only_what_results_allow_is_drawn(tmp_path: Path, factors: object, seeds: int, names: set[str]) -> None:
    """No effects of one cell, no power from one seed, no interactions of one factor; each with its words."""
    study = parse_study({"name": "s", "seeds": seeds, "protocol": {"epochs": 1}, "factors": factors})
    found = pictures.draw_all(load(synthetic.make(tmp_path, study)))
    assert set(found) - {"confusions"} == {"accuracy", "losses"} | names
    assert all(picture.alt and "nan" not in picture.alt for picture in found.values())


@pytest.mark.usefixtures("blank")
def test_no_effects_by_epoch_without_main_effects(tmp_path: Path) -> None:
    """Cells that allow simple effects only have no picture of main effects by epoch."""
    cells = [{}, {"l2": 1e-5}, {"dropout": 0.2}]
    study = {"name": "s", "seeds": 2, "factors": {"l2": [0.0, 1e-5], "dropout": [0.0, 0.2]}, "cells": cells}
    found = pictures.draw_all(load(synthetic.make(tmp_path, parse_study(study))))
    assert "effects" in found
    assert "effects-by-epoch" not in found


@pytest.mark.usefixtures("blank")
def test_pictures_of_levels_of_chance_and_of_the_notebook() -> None:
    """Graded factors have a picture each, parts of chance have theirs, the notebook has two; all of them have words."""

    def drawn(name: str) -> dict[str, svg.Picture]:
        found = pictures.draw_all(synthetic.results(load_study(name).with_options(seeds=2)))
        assert all(picture.alt and "nan" not in picture.alt for picture in found.values())
        return found

    assert {"levels-dropout"} == {name for name in drawn("dropout-rate") if name.startswith("levels-")}
    assert "variance" in drawn("variance")
    assert {"printed-accuracies", "printed-losses"} <= set(drawn("notebook"))


def test_band_only_where_hypotheses_agree() -> None:
    """The band is drawn where all hypotheses on test accuracy have one smallest effect that matters."""
    factors = {"dropout": [0.0, 0.2, 0.5], "batch_norm": [False, True]}
    base = {"name": "s", "seeds": 1, "protocol": {"epochs": 1}, "factors": factors}
    claim: dict[str, object] = {
        "id": "a",
        "statement": "s",
        "effect": "batch_norm",
        "kind": "increase",
        "smallest": 0.1,
    }
    others: list[dict[str, object]] = [{"smallest": 0.1}, {"smallest": 0.2}, {"smallest": 0.2, "response": "gap"}]
    others += [{"smallest": 0.2, "over": "dropout", "summary": "log_sd"}, {"smallest": 0.2, "effect": "trend(dropout)"}]
    for other, band in zip(others, (0.1, None, 0.1, 0.1, 0.1), strict=True):
        study = parse_study(base | {"hypotheses": [claim, claim | {"id": "b"} | other]})
        assert pictures._smallest(synthetic.results(study)) == band
