"""How sure is this: errors over seeds and images, and the verdicts with all that they rest on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import synthetic

from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.format import NOTHING, estimate, interval, number
from mnist_ablate.report.sections.certainty import section, two_way, verdicts
from mnist_ablate.store.results import load


def values_of(analysis: Analysis) -> Mapping[str, Any]:
    """Return what the section's template gets; a section there must be."""
    made = section(analysis)
    assert made is not None
    return made.values


def test_verdicts_show_their_judgements(whole: Analysis) -> None:
    """A row per hypothesis, in its order, with whole numbers of seeds in the CSV file."""
    judgements = whole.judgements
    table = verdicts(judgements)
    assert [row["id"] for row in table.rows] == [judgement.hypothesis.id for judgement in judgements]
    assert table.headings["interval"] == "99.44 % interval"
    for row, judgement in zip(table.rows, judgements, strict=True):
        digits = 2 if "accuracy" in judgement.hypothesis.response else 4
        assert row["interval"] == interval(judgement.low, judgement.high, digits)
        assert row["estimate"] == estimate(judgement.sample.mean, judgement.low, judgement.high, digits)
    line = next(line for line in table.csv.splitlines() if line.startswith("C2-accuracy"))
    likely = next(judgement for judgement in judgements if judgement.hypothesis.id == "C2-accuracy").seeds_needed.likely
    assert line.split(",")[-2] == str(likely)


def test_errors_over_seeds_and_images_are_those_of_the_analysis(whole: Analysis) -> None:
    """Each row has both standard errors with three digits, and the interval over both."""
    table, frame = two_way(whole), whole.two_way
    assert table
    assert frame is not None
    for row, (_, numbers) in zip(table.rows, frame.iterrows(), strict=True):
        assert (row["seeds"], row["images"]) == (number(numbers["se_seeds"], 3), number(numbers["se_images"], 3))
        assert row["both"] == interval(numbers["low_two_way"], numbers["high_two_way"])


def test_what_is_not_there_is_a_dash(poor: Analysis) -> None:
    """An effect that no seed has is a row of dashes."""
    table = two_way(poor)
    assert table
    assert set(list(table.rows[0].values())[1:]) == {NOTHING}


def test_without_predictions_there_is_no_error_from_images(tmp_path: Path, pair: Study) -> None:
    """Where runs did not answer the same images the section says why it cannot tell."""
    analysis = analyse(load(synthetic.make(tmp_path / "a", pair)))
    assert two_way(analysis) is None
    values = values_of(analysis)
    assert (values["binomial"], values["n_images"]) == ("", "")
    assert values["no_mistakes"] == "the runs were not all tested on the same images"


def test_the_binomial_error_is_that_of_one_network(whole: Analysis) -> None:
    """It is the root of p (1 - p) / n over the test images, in points."""
    accuracy = whole.results.final["test_accuracy"].mean()
    assert whole.binomial_error == pytest.approx(100 * (accuracy * (1 - accuracy) / 40) ** 0.5)
    assert values_of(whole)["binomial"] == number(100 * (accuracy * (1 - accuracy) / 40) ** 0.5)
    assert values_of(whole)["n_images"] == "40"


def test_a_single_run_has_no_spread() -> None:
    """With one run in each cell the section does not claim a standard deviation."""
    study = parse_study({"name": "s", "seeds": 1, "factors": {"dropout": [0.0, 0.2]}})
    assert values_of(analyse(synthetic.results(study)))["spread"] == ""
