"""What each technique does: the tables have the numbers of their frames, and the pictures' words too."""

import pytest
import synthetic

from mnist_ablate.design.settings import in_words
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.format import NOTHING, estimate, interval, number
from mnist_ablate.report.sections.effects import section, smallest_effect, table


@pytest.mark.parametrize(("response", "digits"), [("test_accuracy", 2), ("gap", 4)])
def test_effects_show_their_frame(whole: Analysis, response: str, digits: int) -> None:
    """Each row has the numbers of its effect, losses with four digits, and an estimate the digits of its interval."""
    frame = whole.effects(response)
    for row, (_, numbers) in zip(table(whole, response).rows, frame.iterrows(), strict=True):
        assert (row["label"], row["n"]) == (in_words(numbers["label"]), "7")
        assert row["estimate"] == estimate(numbers["estimate"], numbers["low"], numbers["high"], digits)
        assert row["estimate_interval"] == interval(numbers["low"], numbers["high"], digits)
        assert len(row["estimate"].partition(".")[2]) == len(row["estimate_interval"].rpartition(".")[2])


def test_missing_and_diverged_are_shown(holed: Analysis) -> None:
    """The seeds that an effect has are counted, and the runs among them that diverged."""
    assert table(holed).rows[0]["n"] == "2 of 3, 1 diverged"


def test_what_is_not_there_is_a_dash(poor: Analysis) -> None:
    """An effect that no seed has is a row of dashes."""
    assert list(table(poor).rows[0].values())[2:] == ["0 of 1", *[NOTHING] * 5]


def test_the_picture_tells_every_estimate(whole: Analysis) -> None:
    """The words have each effect with its estimate in points."""
    made = section(whole)
    assert made
    picture = made.pictures["effects"]
    assert picture
    frame = whole.effects()
    for label, value in zip(frame["label"], frame["estimate"], strict=True):
        assert f"{in_words(label)} {number(value, sign=True)}" in picture.alt


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
        assert smallest_effect(analyse(synthetic.results(study))) == band
