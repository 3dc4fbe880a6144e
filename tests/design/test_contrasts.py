"""Contrasts of cells: how they are written, their weights by hand, and the messages for impossible ones."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from statsmodels.api import OLS, add_constant

from mnist_ablate.design.contrasts import Contrast, Factor, Hypothesis, Level, Place, Term, show
from mnist_ablate.inference.intervals import FloatArray

L2, DROPOUT, BATCH_NORM = Factor("l2", (0.0, 1e-5)), Factor("dropout", (0.0, 0.2)), Factor("batch_norm", (False, True))
CUBE = (L2, DROPOUT, BATCH_NORM)
WIDTH, RATE, KIND = Factor("width", (64, 128, 512)), Factor("rate", (0.0, 0.1, 0.5)), Factor("kind", ("a", "b", "c"))


def grid(factors: Sequence[Factor]) -> dict[str, dict[str, Level]]:
    """Cross all levels, and name each cell by them, as in '0,1,0'."""
    listed = itertools.product(*(enumerate(factor.levels) for factor in factors))
    return {
        ",".join(str(i) for i, _ in cell): {f.name: level for f, (_, level) in zip(factors, cell, strict=True)}
        for cell in listed
    }


def weights(
    effect: str, factors: Sequence[Factor] = CUBE, at: Place | Mapping[str, Level] = "average"
) -> dict[str, float]:
    """Return the weights of a contrast of a full grid."""
    return Contrast(effect, at if isinstance(at, str) else tuple(at.items())).weights(factors, grid(factors))


def test_terms_as_they_are_written() -> None:
    """A term is a factor, a level of it in brackets, or a trend; spaces around colons do not matter."""
    assert Contrast("mean").terms == ()
    assert Contrast("dropout").terms == (Term("dropout", "difference"),)
    assert Contrast("dropout[0.5]").terms == (Term("dropout", "difference", "0.5"),)
    assert Contrast(" trend(width) : l2[1e-05]:batch_norm").terms == (
        Term("width", "trend"), Term("l2", "difference", "1e-05"), Term("batch_norm", "difference"),
    )  # fmt: skip
    assert Contrast("model[mine:build]:l2").terms == (
        Term("model", "difference", "mine:build"), Term("l2", "difference"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "effect", ["", ":", "l2:", "l2*dropout", "trend(l2", "trend()", "l2[", "l2[]", "l2[1][2]", "l2 dropout", "mean:"]
)
def test_what_is_no_effect_is_refused(effect: str) -> None:
    """An effect that cannot be parsed is refused with what is allowed, or names what is not a factor."""
    with pytest.raises(ValueError, match=r'allowed: "mean", or terms such as|not a factor of this study|which level'):
        weights(effect)


def test_main_effect_by_hand() -> None:
    """A main effect of 2^3 cells: + 1/4 for the four cells with the factor, - 1/4 for those without."""
    assert weights("dropout") == {cell: 0.25 if cell[2] == "1" else -0.25 for cell in grid(CUBE)}


def test_two_factor_interaction_by_hand() -> None:
    """The effect of l2 with dropout minus that without, averaged over BatchNorm: signs of the product, halves."""
    assert weights("l2:dropout") == {
        "0,0,0": 0.5, "0,0,1": 0.5, "0,1,0": -0.5, "0,1,1": -0.5,
        "1,0,0": -0.5, "1,0,1": -0.5, "1,1,0": 0.5, "1,1,1": 0.5,
    }  # fmt: skip


def test_three_factor_interaction_by_hand() -> None:
    """The two-factor interaction with the third on minus that with it off: all weights are 1 in size."""
    assert weights("l2:dropout:batch_norm") == {cell: (-1.0) ** (1 + cell.count("1")) for cell in grid(CUBE)}


def test_simple_effect_by_hand() -> None:
    """At the reference, an effect is one cell minus the baseline, and the mean is the baseline."""
    assert weights("dropout", at="reference") == {"0,0,0": -1, "0,1,0": 1}
    assert weights("mean", at="reference") == {"0,0,0": 1}
    assert weights("l2:dropout", at="reference") == {"0,0,0": 1, "0,1,0": -1, "1,0,0": -1, "1,1,0": 1}


def test_a_table_holds_what_it_names_and_averages_the_rest() -> None:
    """With BatchNorm held on and l2 left out: the two cells with BatchNorm on either side, at a half each."""
    assert weights("dropout", at={"batch_norm": True}) == {"0,0,1": -0.5, "1,0,1": -0.5, "0,1,1": 0.5, "1,1,1": 0.5}
    assert weights("mean", at={"batch_norm": True, "l2": 1e-5, "dropout": 0}) == {"1,0,1": 1}


def test_levels_by_hand() -> None:
    """A level of many is compared with the first, averaged over the levels of the other factor."""
    third = pytest.approx(1 / 3)
    found = weights("width[512]", (WIDTH, RATE))
    assert found == {f"2,{i}": third for i in range(3)} | {f"0,{i}": pytest.approx(-1 / 3) for i in range(3)}
    assert weights("width[128]:rate[0.5]", (WIDTH, RATE)) == {"0,0": 1, "0,2": -1, "1,0": -1, "1,2": 1}
    assert weights("mean", (WIDTH, RATE)) == dict.fromkeys(grid((WIDTH, RATE)), pytest.approx(1 / 9))
    assert weights("kind[c]", (KIND,)) == {"0": -1, "2": 1}
    assert weights("batch_norm[True]") == weights("batch_norm")
    assert weights("l2[1e-05]") == weights("l2")


@pytest.mark.parametrize(("factor", "scale"), [(WIDTH, np.log2), (RATE, np.asarray)])
def test_a_trend_is_the_least_squares_slope(factor: Factor, scale: Callable[[FloatArray], FloatArray]) -> None:
    """A trend is the slope that numpy and statsmodels find, on log2 of positive levels, else on the levels."""
    x, y = scale(np.array(factor.levels, dtype=float)), np.array([0.3, -1.2, 2.5])
    found = weights(f"trend({factor.name})", (factor,))
    slope = sum(found[str(i)] * y[i] for i in range(3))
    assert slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert slope == pytest.approx(OLS(y, add_constant(x)).fit().params[1])


def test_a_trend_over_another_factor_is_the_slope_of_all_cells() -> None:
    """In a full grid the averaged trend is the slope of a regression on all cells; its interaction differs in slope."""
    factors = (WIDTH, L2)
    y = dict(zip(grid(factors), [1.0, 4.0, 2.0, 9.0, 5.0, -3.0], strict=True))
    x = [math.log2(float(levels["width"])) for levels in grid(factors).values()]
    assert sum(weight * y[cell] for cell, weight in weights("trend(width)", factors).items()) == pytest.approx(
        np.polyfit(x, list(y.values()), 1)[0]
    )
    on, off = (np.polyfit(x[::2], [y[f"{i},{j}"] for i in range(3)], 1)[0] for j in (1, 0))
    assert sum(weight * y[cell] for cell, weight in weights("trend(width):l2", factors).items()) == pytest.approx(
        on - off
    )


def test_a_level_in_the_middle_of_a_trend_is_not_needed() -> None:
    """A middle level without weight in a trend needs no cell."""
    factor = Factor("width", (64, 128, 256))
    assert weights("trend(width)", (factor,)) == {"0": -0.5, "2": 0.5}
    without = {name: levels for name, levels in grid((factor,)).items() if name != "1"}
    assert Contrast("trend(width)").weights((factor,), without) == {"0": -0.5, "2": 0.5}


@pytest.mark.parametrize("levels", [("a", "b", "c"), (False, True), (1.0,)])
def test_some_levels_have_no_trend(levels: tuple[Level, ...]) -> None:
    """Text, booleans and a single level have no scale; a trend over them is refused."""
    assert Factor("own", levels).scores is None
    with pytest.raises(ValueError, match=re.escape("trend(own): a trend needs levels that are numbers")):
        weights("trend(own)", (Factor("own", levels),))


def test_scores_are_doublings_where_they_can_be() -> None:
    """Positive levels are on a log2 scale; with a zero or a negative one, all are used as given."""
    for levels, expected in [((1, 2, 8), [0, 1, 3]), ((0, 2, 8), [0, 2, 8]), ((-1.0, 2.0), [-1, 2])]:
        scores = Factor("f", levels).scores
        assert scores is not None
        assert scores.tolist() == expected


def test_excluded_cells_are_an_error_that_names_the_effect() -> None:
    """An effect that needs a missing cell is refused, with how many it needs and has; others are not."""
    cells = {name: levels for name, levels in grid(CUBE).items() if name != "1,1,1"}
    with pytest.raises(ValueError, match=re.escape('effect = "dropout": needs 8 cells, but this study runs 7')):
        Contrast("dropout").weights(CUBE, cells)
    with pytest.raises(ValueError, match=re.escape('effect = "mean": needs 1 cells, but this study runs 0')):
        Contrast("mean", (("l2", 1e-5), ("dropout", 0.2), ("batch_norm", True))).weights(CUBE, cells)
    assert Contrast("dropout", "reference").weights(CUBE, cells) == {"0,0,0": -1, "0,1,0": 1}


@pytest.mark.parametrize(
    ("effect", "at", "complaint"),
    [
        ("depth", "average", "depth: not a factor of this study; allowed: l2, dropout, batch_norm, width"),
        ("l2", {"depth": 2}, "depth: not a factor of this study"),
        ("l2", {"dropout": 0.3}, "at.dropout = 0.3: not a level of it; allowed: 0, 0.2"),
        ("l2", {"l2": 0.0}, 'effect = "l2": each factor once, in the effect or in at'),
        ("l2:l2", "average", 'effect = "l2:l2": each factor once'),
        ("width", "average", "width: which level? allowed: width[128], width[512], trend(width)"),
        ("width[64]", "average", "width: which level?"),
        ("width[99]", "average", "width: which level?"),
        ("l2[0.5]", "average", "l2: which level? allowed: l2[1e-05]"),
    ],
)
def test_messages(effect: str, at: Place | dict[str, Level], complaint: str) -> None:
    """What the study does not have is named, with what it has."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        weights(effect, (*CUBE, WIDTH), at)


_TERMS = st.sampled_from(["l2", "batch_norm", "width[128]", "width[512]", "trend(width)", "rate[0.1]", "trend(rate)"])


@given(st.lists(_TERMS, max_size=4), st.sampled_from(["average", "reference"]))
def test_weights_of_an_effect_sum_to_nothing(terms: list[str], at: Place) -> None:
    """The weights of an effect sum to 0, those of the mean to 1; none of them is 0."""
    names = [re.sub(r"trend\((\w+)\)|(\w+).*", r"\1\2", term) for term in terms]
    assume(len(set(names)) == len(names))
    found = weights(":".join(terms) or "mean", (L2, BATCH_NORM, WIDTH, RATE), at)
    assert sum(found.values()) == pytest.approx(0 if terms else 1, abs=1e-12)
    assert 0 not in found.values()


@given(st.permutations(range(4)), st.randoms(use_true_random=False))
def test_no_order_matters(order: list[int], random: Random) -> None:
    """The order of factors, of cells and of the terms of an interaction changes no weight."""
    factors = (L2, BATCH_NORM, WIDTH, RATE)
    cells = grid(factors)
    shuffled = list(cells.items())
    random.shuffle(shuffled)
    expected = Contrast("l2:trend(width)").weights(factors, cells)
    found = Contrast("trend(width):l2").weights([factors[i] for i in order], dict(shuffled))
    assert found == pytest.approx(expected)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_no_two_levels_are_written_alike(one: float, other: float) -> None:
    """No two levels share their text, since cells are named by their levels."""
    assert float(show(one)) == one
    assert (show(one) == show(other)) == (repr(one) == repr(other))


def test_labels_of_levels() -> None:
    """A label is empty at the reference, the factor alone if it is on or off, else factor and level."""
    assert [L2.label(level) for level in L2.levels] == ["", "l2"]
    assert [Factor("epochs", (5, 10)).label(level) for level in (5, 10)] == ["", "epochs=10"]
    assert [RATE.label(level) for level in RATE.levels] == ["", "rate=0.1", "rate=0.5"]
    assert (show(1e-5), show(0.001), show(0.001000011), show(True), show("a")) == (
        "1e-05", "0.001", "0.001000011", "True", "a",
    )  # fmt: skip


def test_a_hypothesis_has_its_contrast() -> None:
    """The contrast of a hypothesis has its effect and place, tables included."""
    given_keys = {"id": "H", "statement": "s", "effect": "l2", "kind": "increase", "smallest": 0.1}
    assert Hypothesis.model_validate(given_keys).contrast == Contrast("l2")
    assert Hypothesis.model_validate(given_keys | {"at": "reference"}).contrast == Contrast("l2", "reference")
    held = Hypothesis.model_validate(given_keys | {"at": {"dropout": 0.2}})
    assert held.contrast == Contrast("l2", (("dropout", 0.2),))
    for wrong in ({"id": "no spaces"}, {"statement": ""}, {"kind": "bigger"}, {"smallest": 0.0}):
        with pytest.raises(ValidationError):
            Hypothesis.model_validate(given_keys | wrong)
