"""Verdicts in words. Every sentence is made from a judgement, so words cannot contradict numbers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_ablate.design.responses import SEEDS, SUMMARIES
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.intervals import Bound, TwoWaySample
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.verdicts import Judgement, Verdict, claim_verdict, oriented
from mnist_ablate.report.format import NOTHING, digits_of, interval, joined, number, p_value, percent, plural

BADGES: dict[str, str] = {
    "supported": "Supported",
    "supported, size open": "Supported, size open",
    "negligible": "Too small to matter",
    "refuted": "Refuted",
    "inconclusive": "Not settled",
    "no verdict": "No verdict",
    "inconsistent": "Inconsistent",
    "in part": "In part",
    "it depends": "It depends",
    "not run": "Not measured yet",
}


@dataclass(frozen=True)
class Answer:
    """What the page says about one hypothesis.

    Parameters
    ----------
    id, statement
        Of the hypothesis.
    verdict, badge
        The verdict, and the word for it.
    sentence
        The result.
    rule
        What decided, and the tests that are only shown.
    provisional
        Why the verdict is not final, or empty.
    """

    id: str
    statement: str
    verdict: Verdict
    badge: str
    sentence: str
    rule: str
    provisional: str


@dataclass(frozen=True)
class Claim:
    """A claim with the answers to its parts. A hypothesis without a claim is titled by its statement."""

    title: str
    verdict: str
    badge: str
    answers: list[Answer]


def claims(judgements: Sequence[Judgement]) -> list[Claim]:
    """Return the answers, grouped by the claim that they are parts of, in the order of the study."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.hypothesis.claim or judgement.hypothesis.statement, []).append(judgement)
    answered = []
    for title, parts in groups.items():
        verdict = claim_verdict(parts)
        answered.append(Claim(title.rstrip("."), verdict, BADGES[verdict], [answer(part) for part in parts]))
    return answered


def answer(judgement: Judgement) -> Answer:
    """Put a judgement into words."""
    hypothesis = judgement.hypothesis
    return Answer(
        id=hypothesis.id,
        statement=hypothesis.statement.rstrip("."),
        verdict=judgement.verdict,
        badge=BADGES[judgement.verdict],
        sentence=_sentence(judgement),
        rule=rule(judgement),
        provisional=judgement.provisional and f"Provisional: {judgement.provisional}.",
    )


def _sentence(judgement: Judgement) -> str:
    """Describe what came out, by verdict."""
    note = f" {judgement.sample.note}" if judgement.sample.note else ""
    return f"{_of_verdict(judgement)}{_of_images(judgement)}{note}"


def _of_images(judgement: Judgement) -> str:
    """Say what the choice of test images adds to the interval, where it is about new images."""
    sample = judgement.sample
    if not isinstance(sample, TwoWaySample) or not sample.n > 1:
        return ""
    digits = judgement.response.digits + 1
    images, seeds = number(sample.se_images, digits), number(sample.sd / math.sqrt(sample.n), digits)
    most = " Most of it comes from the images, so more seeds will not help." if sample.images_dominate else ""
    return f" It is about new test images, too: standard error {images} from images and {seeds} from seeds.{most}"


def _of_verdict(judgement: Judgement) -> str:
    if not judgement.measured and judgement.lacking:
        return f"Not measured yet. {judgement.lacking}"
    if judgement.lacking:
        return f"{_result(judgement)} There is no verdict: {judgement.lacking}{_at_worst(judgement)}"
    if judgement.verdict == "no verdict":
        seeds = f"A verdict needs at least {LEAST_SEEDS} seeds; there {'is' if judgement.sample.n == 1 else 'are'}"
        return f"{_result(judgement, with_interval=False)} {seeds} {judgement.sample.n}."
    if judgement.verdict == "inconclusive":
        return _inconclusive(judgement)
    if judgement.verdict == "inconsistent":
        return (
            f"{_result(judgement, with_interval=False)} The intervals of its looks have nothing in common. Chance "
            "hardly ever does that: something differs between the first seeds and the later ones."
        )
    smallest, result = _amount(judgement, judgement.hypothesis.smallest), _result(judgement)
    least, too_small = f"{smallest}, the smallest effect that matters", f"All of it lies within ± {smallest}: too small"
    if judgement.hypothesis.kind == "negligible":
        return {
            "supported": f"Yes. {result} {too_small} to matter.",
            "refuted": f"No: there is an effect that matters. {result} All of it lies beyond ± {smallest}.",
        }[judgement.verdict]
    return {
        "supported": f"Yes. {result} Even the end nearer to 0 is beyond {least}.",
        "supported, size open": f"Yes, but its size is open. {result} The end nearer to 0 is within {least}.",
        "negligible": f"{_negligible(judgement)} {result} {too_small} to matter.",
        "refuted": f"No: it is the other way round. {result}",
    }[judgement.verdict]


def _at_worst(judgement: Judgement) -> str:
    """Say what the effect can be, whatever the runs that failed would have given."""
    if judgement.at_worst is None:
        return ""
    digits, sign = _shared_digits(judgement), judgement.hypothesis.effect != "mean"
    ends = interval(*judgement.at_worst, digits, sign=sign)
    return f" Whatever those would have given, the effect is within {ends} ({percent(1 - judgement.alpha)} interval)."


def _negligible(judgement: Judgement) -> str:
    """Describe a negligible effect: whether there is one, and in which direction."""
    if not judgement.is_real:
        return "No effect that matters, and perhaps none at all."
    low, _ = oriented((judgement.low, judgement.high), judgement.hypothesis.kind)
    return f"The effect is real, {'as claimed' if low > 0 else 'the other way round'}, but too small to matter."


def _inconclusive(judgement: Judgement) -> str:
    if not judgement.sample.spreads:
        result = _result(judgement, with_interval=False)
        return f"{result} All seeds give the same value, which says nothing about chance: not settled."
    smallest, needed = _amount(judgement, judgement.hypothesis.smallest), judgement.seeds_needed
    why = (
        f"crosses the border of what matters, ± {smallest}."
        if judgement.hypothesis.kind == "negligible"
        else f"is too wide to tell an effect of {smallest}, the smallest that matters, from none."
    )
    if needed.likely is None and judgement.images_dominate:
        return f"{_result(judgement)} That {why} No number of seeds would settle it: these test images are too few."
    return f"{_result(judgement)} That {why} {seeds_needed(needed.likely, needed.cautious, judgement.sample.n)}"


def seeds_needed(likely: int | None, cautious: int | None, n: int) -> str:
    """Describe how many seeds would settle a question that `n` seeds have not."""
    if likely is None:
        return "No feasible number of seeds would settle it."
    if likely <= n:
        return (
            f"{likely} seeds settle most questions like this one, and there are {n}: the true effect may lie close to "
            "the border, where no number of seeds settles it."
        )
    more = f", or {cautious} if seeds vary more than these did" if cautious and cautious > likely else ""
    return f"About {likely} seeds would settle it{more}; there are {n}."


def _result(judgement: Judgement, *, with_interval: bool = True) -> str:
    """State the estimate, with the interval that decides."""
    if math.isnan(judgement.sample.mean):
        return "No seed has all the cells that this needs."
    per = f" for each {in_words(judgement.per)}" if judgement.per else ""
    result = _estimate(judgement, _shared_digits(judgement))
    if not with_interval or math.isnan(judgement.low):
        return f"{result}{per}."
    sign = judgement.hypothesis.effect != "mean"
    ends = interval(judgement.low, judgement.high, _shared_digits(judgement), sign=sign)
    return f"{result}{per} ({percent(1 - judgement.alpha)} interval {ends}).{_as_bound(judgement)}"


def _as_bound(judgement: Judgement) -> str:
    """Say that what is known is a bound, where it is one."""
    if judgement.ratio:
        return f" Levels between those of the grid were not tried: it is {_times(judgement.ratio)}."
    return " Runs that never got there make it a bound." if judgement.sample.bound else ""


def _times(ratio: tuple[float, float]) -> str:
    """Write a range of ratios."""
    low, high = (f"{float(f'{end:.2g}'):g}" for end in ratio)
    if not ratio[0] and math.isinf(ratio[1]):
        return "not known how many times as high"
    ends = f"at most {high}" if not ratio[0] else f"at least {low}" if math.isinf(ratio[1]) else ""
    return f"{ends or f'between {low} and {high}'} times as high"


def least_digits(judgement: Judgement) -> int:
    """Return the digits of an estimate where its interval needs no more."""
    return 2 if judgement.hypothesis.over else judgement.response.digits


def _shared_digits(judgement: Judgement) -> int:
    """Return the digits of the interval that decides, which are also those of its estimate."""
    low, high, digits = judgement.low, judgement.high, least_digits(judgement)
    return digits if math.isnan(low) else digits_of(low, high, digits, judgement.hypothesis.smallest)


def _summary(judgement: Judgement) -> str:
    """Name what stands in place of a factor's levels."""
    hypothesis = judgement.hypothesis
    if hypothesis.over == SEEDS:
        return f"The log of the standard deviation between seeds of {judgement.response.label}"
    summary = SUMMARIES[hypothesis.summary or ""].sentence.format(in_words(hypothesis.over))
    return f"{summary} from {hypothesis.within[0]:g} to {hypothesis.within[1]:g}" if hypothesis.within else summary


_LEAST: dict[Bound, str] = {"": "", "least": "at least ", "most": "at most ", "none": "perhaps "}
_MIRRORED: dict[Bound, Bound] = {"": "", "least": "most", "most": "least", "none": "none"}


def _estimate(judgement: Judgement, digits: int) -> str:
    """State an estimate, by its kind."""
    hypothesis, mean, bound = judgement.hypothesis, judgement.sample.mean, judgement.sample.bound
    response, terms = judgement.response, hypothesis.contrast.terms
    label = response.at_start
    signed = f"{_LEAST[bound]}{number(mean, digits, sign=True)}{response.in_unit}"
    least = _LEAST[bound if mean > 0 else _MIRRORED[bound]]
    direction = f"{least}{number(abs(mean), digits)}{in_unit(judgement)} {'higher' if mean > 0 else 'lower'}"
    if hypothesis.summary:
        summary = _summary(judgement)
        return f"{summary} is {direction if mean else 'the same'}"
    if not terms:
        return f"{label} is {number(mean, digits)} {response.value_unit}".rstrip()
    if len(terms) > 1:
        return f"The interaction on {response.label} is {signed}"
    if terms[0].kind == "trend":
        return f"The trend of {response.label} is {signed}"
    return f"{label} is {direction if mean else 'the same'}"


def unit(judgement: Judgement) -> str:
    """Return the unit of what a hypothesis is about; empty for a plain number."""
    summary = judgement.hypothesis.summary
    return (SUMMARIES[summary] if summary else judgement.response).unit


def in_unit(judgement: Judgement) -> str:
    """Return the unit after a number, with a space in front, or nothing."""
    return f" {unit(judgement)}".rstrip()


def estimate_text(judgement: Judgement) -> str:
    """Write an estimate with its sign and unit, for a table."""
    value = number(judgement.sample.mean, _shared_digits(judgement), sign=True)
    return f"{_LEAST[judgement.sample.bound]}{value}{in_unit(judgement)}"


def interval_text(judgement: Judgement) -> str:
    """Write the interval that a verdict rests on, for a table."""
    ends = interval(judgement.low, judgement.high, _shared_digits(judgement))
    return f"{ends} ({percent(1 - judgement.alpha)}{f', {_times(judgement.ratio)}' if judgement.ratio else ''})"


def _amount(judgement: Judgement, value: float) -> str:
    return f"{value:g}{in_unit(judgement)}"


def rule(judgement: Judgement) -> str:
    """Describe what decided on a hypothesis, and which tests are only shown."""
    hypothesis = judgement.hypothesis
    smallest = _amount(judgement, hypothesis.smallest)
    share = percent(1 - judgement.alpha)
    holm = f"adjusted for the family by Holm's method, {_p(judgement.p_holm)}"
    if hypothesis.kind == "negligible":
        decides = (
            f"supported if the {share} interval lies within ± {smallest}; refuted if it lies entirely beyond it; "
            "otherwise not settled"
        )
        return f"The rule: {decides}. Test of an effect of {smallest} or more: {_p(judgement.p)}; {holm}."
    decides = (
        f"too small to matter if the {share} interval lies within ± {smallest}; otherwise supported if it lies beyond "
        f"{smallest} in the claimed direction, supported with its size open if only beyond 0, and refuted if it lies "
        "beyond 0 in the other direction; otherwise not settled"
    )
    flips = "" if math.isnan(judgement.p_sign_flip) else f"; sign flips: {_p(judgement.p_sign_flip)}"
    odd = " The t test and the sign flips disagree: the effects in the seeds are far from Gaussian, so be careful."
    test = f"t test: {_p(judgement.p)}; {holm}{flips}."
    return f"The rule: {decides}. {test}{odd if judgement.flips_disagree else ''}"


def _p(p: float) -> str:
    text = p_value(p)
    return f"p {text}" if text.startswith("<") or text == NOTHING else f"p = {text}"


def tally(answered: Sequence[Claim]) -> str:
    """Count the verdicts on claims."""
    counts = Counter(claim.badge.lower() for claim in answered)
    said = joined(f"{n} {badge}" for badge, n in counts.items())
    return f"Of {plural(len(answered), 'claim')} in this study: {said}."
