"""Verdicts in words: every branch says what the numbers say, for whatever numbers."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.responses import RESPONSES
from mnist_ablate.inference.intervals import Bound, MedianSample, Sample, TwoWaySample, half_width
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.sequential import repeated
from mnist_ablate.inference.verdicts import Judgement, decide
from mnist_ablate.report.format import MINUS, interval, percent
from mnist_ablate.report.verdict_words import BADGES, answer, claims, estimate_text, interval_text, seeds_needed, tally

KINDS = ("increase", "decrease", "negligible")
UNIT = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0, -0.7, 0.7, -0.2, 0.2])


def hypothesis_(kind: str = "increase", **changes: object) -> Hypothesis:
    """Return a hypothesis on test accuracy, of which 0.1 points matter."""
    fields = {"id": "H", "statement": "It helps", "effect": "dropout", "kind": kind, "smallest": 0.1}
    return Hypothesis(**fields | changes)  # type: ignore[arg-type]


def judged(
    of: Hypothesis, z: "list[float] | np.ndarray[tuple[int], np.dtype[np.float64]]", alpha: float = 0.05, **kept: object
) -> Judgement:
    """Judge `of` by the effects `z` of the seeds."""
    return of_sample(of, Sample.of(np.asarray(z, dtype=np.float64)), alpha, **kept)


def of_sample(of: Hypothesis, sample: Sample, alpha: float = 0.05, **kept: object) -> Judgement:
    """Judge `of` by a sample."""
    low, high = sample.interval(alpha)
    fields = {
        "hypothesis": of, "verdict": decide(sample, of.kind, of.smallest, alpha), "sample": sample, "alpha": alpha,
        "low": low, "high": high, "p": 0.01, "p_holm": 0.02, "p_sign_flip": 0.03, "n_planned": sample.n,
        "provisional": "", "response": RESPONSES[of.response],
    }  # fmt: skip
    return Judgement(**fields | kept)  # type: ignore[arg-type]


CASES = [
    ("increase", 0.5, 0.01, "supported", "Yes. Test accuracy is 0.50 points higher (95 % interval +0."),
    ("decrease", -0.5, 0.01, "supported", "Yes. Test accuracy is 0.50 points lower (95 % interval −0."),  # noqa: RUF001
    ("increase", 0.1, 0.02, "supported, size open", "Yes, but its size is open. Test accuracy is 0.10 points hi"),
    ("decrease", -0.1, 0.02, "supported, size open", "Yes, but its size is open. Test accuracy is 0.10 points lo"),
    ("increase", 0.0, 0.02, "negligible", "No effect that matters, and perhaps none at all. Test accuracy is the sa"),
    ("increase", 0.03, 0.01, "negligible", "The effect is real, as claimed, but too small to matter. Test accura"),
    ("decrease", -0.03, 0.01, "negligible", "The effect is real, as claimed, but too small to matter. Test acc"),
    ("increase", -0.03, 0.01, "negligible", "The effect is real, the other way round, but too small to matter."),
    ("decrease", 0.03, 0.01, "negligible", "The effect is real, the other way round, but too small to matter."),
    ("increase", -0.5, 0.01, "refuted", "No: it is the other way round. Test accuracy is 0.50 points lower"),
    ("decrease", 0.5, 0.01, "refuted", "No: it is the other way round. Test accuracy is 0.50 points higher"),
    ("increase", 0.05, 1.0, "inconclusive", "Test accuracy is 0.05 points higher (95 % interval"),
    ("decrease", 0.05, 1.0, "inconclusive", "Test accuracy is 0.05 points higher (95 % interval"),
    ("negligible", 0.03, 0.01, "supported", "Yes. Test accuracy is 0.03 points higher (95 % interval"),
    ("negligible", 0.5, 0.01, "refuted", "No: there is an effect that matters. Test accuracy is 0.50 points higher"),
    ("negligible", -0.5, 0.01, "refuted", "No: there is an effect that matters. Test accuracy is 0.50 points lower"),
    ("negligible", 0.1, 0.02, "inconclusive", "Test accuracy is 0.10 points higher (95 % interval"),
]


@pytest.mark.parametrize(("kind", "mean", "sd", "verdict", "start"), CASES)
def test_every_verdict_has_its_sentence(kind: str, mean: float, sd: float, verdict: str, start: str) -> None:
    """Each verdict on each kind of claim is said with its estimate, in its direction, and has its badge."""
    found = answer(judged(hypothesis_(kind), mean + sd * UNIT))
    assert found.verdict == verdict
    assert found.badge == BADGES[verdict]
    assert found.sentence.startswith(start)


@pytest.mark.parametrize("kind", KINDS)
def test_without_enough_seeds_there_is_no_answer(kind: str) -> None:
    """No seed, one, and five: no verdict, how many it takes, and neither yes nor no."""
    for n in (0, 1, 5):
        found = answer(judged(hypothesis_(kind), 0.5 + UNIT[:n]))
        assert found.badge == "No verdict"
        there = f"there {'is' if n == 1 else 'are'} {n}."
        assert found.sentence.endswith(f"A verdict needs at least {LEAST_SEEDS} seeds; {there}")
        assert found.sentence.startswith("No seed has all the cells" if n == 0 else "Test accuracy is")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.5, 0.0])
def test_equal_seeds_settle_nothing(kind: str, value: float) -> None:
    """Where all seeds give the same, it says so, shows no interval, and calls 0 neither higher nor lower."""
    found = answer(judged(hypothesis_(kind), [value] * 8))
    what = "0.50 points higher" if value else "the same"
    assert found.sentence == (
        f"Test accuracy is {what}. All seeds give the same value, which says nothing about chance: not settled."
    )


# ---- Words against the numbers beside them ----

_SPREADS = st.floats(0.0005, 2)
_BOUNDS: st.SearchStrategy[Bound] = st.sampled_from(["", "", "", "least", "most", "none"])


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Draw what an estimator may give: a mean, perhaps a bound; over seeds and images; a median of steps; looks."""
    kind = draw(st.sampled_from(["t", "t", "images", "steps"]))
    if draw(st.booleans()):
        return sample_of(draw, kind, draw(st.integers(2, 40)))
    looks = range(6, 40, 6)
    return repeated([(n, sample_of(draw, kind, n)) for n in looks[: draw(st.integers(1, 6))]], tuple(looks))


def sample_of(draw: st.DrawFn, kind: str, n: int) -> Sample:
    """Draw a sample of `n` seeds."""
    mean, sd = draw(st.floats(-1, 1)), draw(_SPREADS)
    if kind == "images":
        images = draw(_SPREADS) / 10
        seeds = sd / math.sqrt(n)
        return TwoWaySample(n, mean, sd, se_both=math.hypot(seeds, images), df_both=n, se_images=images, images=10_000)
    if kind == "steps":
        return MedianSample.of(np.array(draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), dtype=float))
    return Sample(n, mean, sd, draw(_BOUNDS))


def printed(text: str) -> tuple[float, float]:
    """Read the interval in a sentence or in a table, infinite where it says that there is no end."""
    plain = text.replace(MINUS, "-")
    if "without ends" in plain:
        return -math.inf, math.inf
    number = r"([+-]?\d+\.\d+)"
    if one := re.search(rf"(above|below) {number}", plain):
        return (float(one[2]), math.inf) if one[1] == "above" else (-math.inf, float(one[2]))
    both = re.search(rf"{number} to {number}", plain)
    assert both, text
    return float(both[1]), float(both[2])


@given(
    kind=st.sampled_from(KINDS),
    sample=samples(),
    smallest=st.sampled_from([0.01, 0.1, 0.5]),
    alpha=st.sampled_from([0.05, 0.05 / 9]),
)
def test_no_sentence_contradicts_the_interval_beside_it(
    kind: str, sample: Sample, smallest: float, alpha: float
) -> None:
    """What words say of sign, size and 0 holds for the interval that is printed beside them, to the printed digit."""
    made = of_sample(hypothesis_(kind, smallest=smallest), sample, alpha)
    found = answer(made)
    said, badge = found.sentence, found.badge
    if made.verdict == "no verdict":
        assert "interval" not in said
        return
    if made.verdict == "inconsistent":
        assert made.low > made.high
        assert interval_text(made).startswith("empty (")
        assert "have nothing in common" in said
        return
    assert printed(said) == printed(interval_text(made))
    assert f"({percent(1 - alpha)}" in interval_text(made)
    assert f"({percent(1 - alpha)} interval" in said
    low, high = printed(said)
    inside, real = -smallest < low and high < smallest, low > 0 or high < 0
    claimed, contrary = (high < 0, low > 0) if kind == "decrease" else (low > 0, high < 0)
    beyond = low > smallest or high < -smallest
    assert ("All of it lies within" in said) == inside
    assert ("Even the end nearer to 0 is beyond" in said or "All of it lies beyond" in said) <= beyond
    assert ("The end nearer to 0 is within" in said) <= (claimed and not beyond)
    assert ("The effect is real" in said) == (kind != "negligible" and inside and real)
    assert ("perhaps none at all" in said) == (kind != "negligible" and inside and not real)
    assert ("real, as claimed" in said) == (kind != "negligible" and inside and claimed)
    assert ("the other way round" in said) == (kind != "negligible" and contrary)
    assert ("too wide" in said or "crosses the border" in said) == (badge == "Not settled")
    if kind != "negligible":
        assert badge.startswith("Supported") == (claimed and not inside)
        assert (badge == "Refuted") == (contrary and not inside)
        assert (badge == "Too small to matter") == inside
    else:
        assert (badge == "Supported", badge == "Refuted") == (inside, beyond)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("close", [-0.004, -0.0004, 0.0004, 0.004])
@pytest.mark.parametrize("border", [-0.1, 0.0, 0.1])
@pytest.mark.parametrize("side", [-1, 1])
def test_an_end_close_to_a_border_reads_as_on_its_own_side(kind: str, close: float, border: float, side: int) -> None:
    """An end just beyond 0 or what matters is written with the digits that show on which side it lies."""
    half = float(half_width(0.02 / math.sqrt(10), 9, 0.05))
    made = of_sample(hypothesis_(kind), Sample(10, border + close + side * half, 0.02))
    shown, ends = printed(answer(made).sentence), (made.low, made.high)
    assert printed(interval_text(made)) == shown
    for at in (-0.1, 0.0, 0.1):
        assert [end > at for end in shown] == [end > at for end in ends]
        assert [end < at for end in shown] == [end < at for end in ends]


@pytest.mark.parametrize(("bound", "said"), [("", "0.50"), ("least", "at least 0.50"), ("most", "at most 0.50")])
def test_a_difference_of_logarithms_is_said_as_a_factor(bound: Bound, said: str) -> None:
    """Half is said as half, with the ends of the interval as factors; a bound stays one; points have no factor."""
    of = hypothesis_("decrease", response="log_epochs_to_97", smallest=0.2)
    made = of_sample(of, Sample(20, math.log(0.5), 0.3, bound))
    low, high = (end if math.isinf(end) else math.exp(end) for end in (made.low, made.high))
    ends = interval(low, high, sign=False)
    assert f"That is a factor of {said} ({ends})." in answer(made).sentence
    narrow = answer(of_sample(of, Sample(20, math.log(0.5), 0.002))).sentence
    assert "That is a factor of 0.5000 (0.4995 to 0.5005)." in narrow
    assert "factor" not in answer(judged(hypothesis_(), 0.5 + UNIT / 10)).sentence


@given(sample=samples())
def test_a_bound_is_not_called_an_estimate(sample: Sample) -> None:
    """Where runs are censored, words and table say 'at least' or 'at most', in the direction that is known."""
    made = of_sample(hypothesis_("increase"), sample)
    said = estimate_text(made), answer(made).sentence
    mean = sample.mean
    assert ("at least" in said[0], "at most" in said[0]) == (sample.bound == "least", sample.bound == "most")
    if sample.n >= LEAST_SEEDS and mean:
        larger = sample.bound == ("least" if mean > 0 else "most")
        assert ("at least" in said[1].partition("(")[0]) == larger
        assert ("Runs that never got there" in said[1]) == (bool(sample.bound) and made.verdict != "inconsistent")


def test_where_images_dominate_more_seeds_will_not_help() -> None:
    """Of an interval over seeds and images both errors are said, and which is larger."""
    few = TwoWaySample(40, 0.3, 0.2, se_both=0.033, df_both=100, se_images=0.01, images=10_000)
    said = answer(of_sample(hypothesis_(), few)).sentence
    assert said.endswith("It is about new test images, too: standard error 0.010 from images and 0.032 from seeds.")
    many = TwoWaySample(400, 0.05, 0.2, se_both=0.1, df_both=500, se_images=0.1, images=10_000)
    said = answer(of_sample(hypothesis_(), many)).sentence
    assert "No number of seeds would settle it: these test images are too few." in said
    assert said.endswith(
        "Most of it comes from the images: no number of seeds would bring the standard error below 0.100."
    )


def test_a_place_in_a_grid_says_between_what() -> None:
    """Two steps of a grid are said as the ratios that the grid allows."""
    steps = MedianSample.of(np.full(20, 2.0))
    of = hypothesis_(over="learning_rate", summary="highest", smallest=0.5)
    for least, largest, said in (
        (3.0, 100 / 3, "between 3 and 33 times as high"),
        (3.0, math.inf, "at least 3 times as high"),
        (0.0, 10.0, "at most 10 times as high"),
        (0.0, math.inf, "not known how many times as high"),
    ):
        made = of_sample(of, steps, ratios=((least, largest),) * 20)
        assert f"it is {said}. The interval is one of the median, and has no width" in answer(made).sentence
        assert said in interval_text(made)


def test_what_is_lacking_is_said_in_place_of_a_verdict() -> None:
    """A judgement that can have no verdict says why; one without any number that it is not measured yet."""
    lacking = judged(hypothesis_(), 0.5 + 0.01 * UNIT, verdict="no verdict", lacking="Half of the runs failed.")
    assert answer(lacking).sentence.endswith("There is no verdict: Half of the runs failed.")
    nothing = judged(hypothesis_(), [], lacking="These results have no gap.", measured=False)
    assert answer(nothing).sentence == "Not measured yet. These results have no gap."


def test_what_an_effect_is_an_effect_on() -> None:
    """A mean, an interaction, a trend and the gap are called so, in their unit; a trend is for each of its steps."""
    z, width = 0.5 + 0.02 * UNIT, "doubling of width"
    for changes, start in (
        ({"effect": "mean"}, "Yes. Test accuracy is 0.50 % (95 % interval 0.49 to 0.51)."),
        ({"effect": "l2:dropout"}, "Yes. The interaction on test accuracy is +0.50 points ("),
        ({"effect": "trend(width)"}, "Yes. The trend of test accuracy is +0.50 points for each doubling of width ("),
        (
            {"effect": "dropout:trend(width)"},
            "Yes. The interaction on test accuracy is +0.50 points for each ",
        ),
        ({"response": "gap"}, "Yes. The gap between validation and training loss is 0.5000 nats higher ("),
        ({"response": "val_loss"}, "Yes. Validation loss is 0.5000 nats higher (95 % interval +0.4910 to +0.5090)."),
    ):
        per = width if "trend" in changes.get("effect", "") else ""
        assert answer(judged(hypothesis_(**changes), z, per=per)).sentence.startswith(start)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((None, None, 10), "No feasible number of seeds would settle it."),
        ((8, 12, 10), "8 seeds settle most questions like this one, and there are 10: the true effect may lie close"),
        (
            (20, 31, 10),
            "About 20 seeds would settle most questions like it, or 31 if they vary more than these did; there are 10.",
        ),
        ((20, 20, 10), "About 20 seeds would settle most questions like it; there are 10."),
        ((20, None, 10), "About 20 seeds would settle most questions like it; there are 10."),
        ((None, None, 10, "run"), "No feasible number of runs would settle it."),
        (
            (20, 31, 10, "run in each cell"),
            "About 20 runs in each cell would settle most questions like it, or 31 if they vary more",
        ),
        ((1200, None, 1000, "run"), "About 1,200 runs would settle most questions like it; there are 1,000."),
    ],
)
def test_seeds_that_would_settle_it(numbers: Any, said: str) -> None:
    """What is not settled is told with the seeds or runs that it takes, and where more may not help, that."""
    assert seeds_needed(*numbers).startswith(said)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_names_both_borders(kind: str) -> None:
    """The rule has the smallest effect that matters, the level of confidence and all p values."""
    said = answer(judged(hypothesis_(kind), UNIT, alpha=0.05 / 9)).rule
    assert "0.1 points" in said
    assert "99.44 %" in said
    assert "p = 0.010" in said
    assert "Holm's method, p = 0.020" in said
    assert ("sign flips: p = 0.030" in said) == (kind != "negligible")


def test_the_rule_warns_where_tests_disagree() -> None:
    """Where t test and flips of signs disagree it says so; where they agree, or flips cannot tell, it does not."""
    z = 0.5 + UNIT
    assert "disagree" in answer(judged(hypothesis_(), z, p=0.01, p_sign_flip=0.2)).rule
    assert "disagree" not in answer(judged(hypothesis_(), z, p=0.01, p_sign_flip=0.02)).rule
    few = answer(judged(hypothesis_(), z[:3], p=math.nan, p_holm=math.nan, p_sign_flip=math.nan)).rule
    assert "disagree" not in few
    assert "nan" not in few


def test_provisional_is_said_with_its_reason() -> None:
    """A verdict that is not final says why; a final one says nothing."""
    assert answer(judged(hypothesis_(), UNIT)).provisional == ""
    assert answer(judged(hypothesis_(), UNIT, provisional="why")).provisional == "Provisional: why."


def test_claims_are_grouped_and_tallied() -> None:
    """Parts of a claim stand together, in order, with one verdict; one without a claim is titled by its statement."""
    yes, no = 0.5 + 0.01 * UNIT, -0.5 + 0.01 * UNIT
    found = claims([
        judged(hypothesis_(id="a", claim="Both."), yes),
        judged(hypothesis_(id="b", statement="It is not."), no),
        judged(hypothesis_(id="c", claim="Both.", statement="So it is."), UNIT),
    ])  # fmt: skip
    assert [(claim.title, claim.badge) for claim in found] == [("Both", "Not settled"), ("It is not", "Refuted")]
    assert [part.id for part in found[0].answers] == ["a", "c"]
    assert found[0].answers[1].statement == "So it is"
    assert tally(found) == "Of 2 claims in this study: 1 not settled and 1 refuted."
    assert tally(found[1:]) == "Of 1 claim in this study: 1 refuted."


def test_an_estimate_has_the_digits_of_its_interval() -> None:
    """In a sentence and in a table, an estimate has as many digits as the interval that decides."""
    judgement = judged(hypothesis_(smallest=0.5), 0.006 + 0.003 * UNIT)
    assert interval_text(judgement) == f"{interval(judgement.low, judgement.high)} (95 %)"
    assert estimate_text(judgement) == "+0.006 points"
    assert "is 0.006 points higher (95 % interval +0.005 to +0.007)" in answer(judgement).sentence


def test_settings_have_the_names_that_people_use() -> None:
    """A trend is for each step of a setting in words, not by its name in a file."""
    said = answer(
        judged(hypothesis_(effect="trend(batch_size)"), 0.5 + 0.02 * UNIT, per="doubling of batch_size")
    ).sentence
    assert "for each doubling of batch size" in said
    over = hypothesis_(over="learning_rate", summary="log_sd")
    assert (
        "over the levels of learning rate is 0.50 log ratio higher" in answer(judged(over, 0.5 + 0.02 * UNIT)).sentence
    )
