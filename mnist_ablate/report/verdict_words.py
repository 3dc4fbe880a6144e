"""Verdicts in words. Every sentence is made from a judgement, so words cannot contradict numbers."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnist_ablate.design.responses import SEEDS, SUMMARIES
from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.combined import claim_verdict
from mnist_ablate.inference.intervals import Bound, TwoWaySample, Unit
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.verdicts import Judgement, Verdict, oriented
from mnist_ablate.language import count, figures, mark, say, told, told_as, whole
from mnist_ablate.report.format import NOTHING, digits_of, interval, joined, number, p_value, percent, plural

BADGES: dict[str, str] = {
    "supported": mark("Supported"),
    "supported, size open": mark("Supported, size open"),
    "negligible": mark("Too small to matter"),
    "refuted": mark("Refuted"),
    "inconclusive": mark("Not settled"),
    "no verdict": mark("No verdict"),
    "inconsistent": mark("Inconsistent"),
    "in part": mark("In part"),
    "it depends": mark("It depends"),
    "not run": mark("Not measured yet"),
}
"""The word for each verdict, in English; `badge` says it in the language of the page."""


def badge(verdict: str) -> str:
    """Return the word for a verdict."""
    return told(BADGES[verdict])


_TALLIES: dict[str, Callable[[int], str]] = {
    "supported": lambda n: count(n, "{n} supported", "{n} supported"),
    "supported, size open": lambda n: count(n, "{n} supported, size open", "{n} supported, size open"),
    "negligible": lambda n: count(n, "{n} too small to matter", "{n} too small to matter"),
    "refuted": lambda n: count(n, "{n} refuted", "{n} refuted"),
    "inconclusive": lambda n: count(n, "{n} not settled", "{n} not settled"),
    "no verdict": lambda n: count(n, "{n} no verdict", "{n} no verdict"),
    "inconsistent": lambda n: count(n, "{n} inconsistent", "{n} inconsistent"),
    "in part": lambda n: count(n, "{n} in part", "{n} in part"),
    "it depends": lambda n: count(n, "{n} it depends", "{n} it depends"),
    "not run": lambda n: count(n, "{n} not measured yet", "{n} not measured yet"),
}


def counted(verdict: str, n: int) -> str:
    """Write how many claims have a verdict."""
    return _TALLIES[verdict](n)


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
        answered.append(Claim(told(title).rstrip("."), verdict, badge(verdict), [answer(part) for part in parts]))
    return answered


_MOST_FOUND = 20
"""Claims in the list at the head of a page; of more, only their numbers are said."""


@dataclass(frozen=True)
class Found:
    """The claims with one verdict, for the list at the head of a page: the verdict, its word, and links to the claims.

    A link is an id within the page, and a title.
    """

    verdict: str
    badge: str
    links: list[tuple[str, str]]


def found(answered: Sequence[tuple[str, str, str]]) -> list[Found]:
    """Group claims, each a verdict, an id and a title, by verdict; none if they are too many for a list."""
    if len(answered) > _MOST_FOUND:
        return []
    groups = {verdict: [(id_, title) for one, id_, title in answered if one == verdict] for verdict in BADGES}
    return [Found(verdict, badge(verdict), links) for verdict, links in groups.items() if links]


def answer(judgement: Judgement) -> Answer:
    """Put a judgement into words."""
    hypothesis = judgement.hypothesis
    reason = told(judgement.provisional)
    return Answer(
        id=hypothesis.id,
        statement=told(hypothesis.statement).rstrip("."),
        verdict=judgement.verdict,
        badge=badge(judgement.verdict),
        sentence=_sentence(judgement),
        rule=rule(judgement),
        provisional=say("Provisional: {reason}.", reason=reason) if reason else "",
    )


def _sentence(judgement: Judgement) -> str:
    """Describe what came out, by verdict."""
    said = (_of_verdict(judgement), _of_images(judgement), told(judgement.sample.note))
    return " ".join(filter(None, said))


def _of_images(judgement: Judgement) -> str:
    """Say what the choice of test images adds to the interval, where it is about new images."""
    sample = judgement.sample
    if not isinstance(sample, TwoWaySample) or not sample.n > 1:
        return ""
    digits = judgement.response.digits + 1
    errors = say(
        "It is about new test images, too: standard error {images} from images and {seeds} from seeds.",
        images=number(sample.se_images, digits), seeds=number(sample.sd / math.sqrt(sample.n), digits),
    )  # fmt: skip
    if not sample.images_dominate:
        return errors
    most = say(
        "Most of it comes from the images: no number of seeds would bring the standard error below {images}.",
        images=number(sample.se_images, digits),
    )
    return f"{errors} {most}"


def _of_verdict(judgement: Judgement) -> str:
    if not judgement.measured and judgement.lacking:
        return say("Not measured yet. {reason}", reason=told(judgement.lacking))
    result, smallest = _result(judgement), amount(judgement, judgement.hypothesis.smallest)
    if judgement.lacking:
        none = say("{result} There is no verdict: {reason}", result=result, reason=told(judgement.lacking))
        return " ".join(filter(None, (none, _at_worst(judgement))))
    if judgement.verdict == "no verdict":
        return count(
            judgement.sample.n,
            "{result} A verdict needs at least {least}; there is {n}.",
            "{result} A verdict needs at least {least}; there are {n}.",
            result=_result(judgement, with_interval=False), least=plural(LEAST_SEEDS, judgement.sample.unit),
        )  # fmt: skip
    if judgement.verdict == "inconclusive":
        return _inconclusive(judgement)
    if judgement.verdict == "inconsistent":
        return say(
            "{result} The intervals of its looks have nothing in common. Chance hardly ever does that: either one of "
            "them missed the effect, or something differs between the first seeds and the later ones.",
            result=_result(judgement, with_interval=False),
        )
    words = {"result": result, "smallest": smallest}
    match (judgement.hypothesis.kind, judgement.verdict):
        case "negligible", "supported":
            return say("Yes. {result} All of it lies within ± {smallest}: too small to matter.", **words)
        case "negligible", _:
            return say("No: there is an effect that matters. {result} All of it lies beyond ± {smallest}.", **words)
        case _, "supported":
            return say(
                "Yes. {result} Even the end nearer to 0 is beyond {smallest}, the smallest effect that matters.",
                **words,
            )
        case _, "supported, size open":
            return say(
                "Yes, but its size is open. {result} The end nearer to 0 is within {smallest}, the smallest effect "
                "that matters.",
                **words,
            )
        case _, "negligible":
            return _negligible(judgement, words)
        case _:
            return say("No: it is the other way round. {result}", **words)


def _at_worst(judgement: Judgement) -> str:
    """Say what the effect can be, whatever the runs that failed would have given."""
    if judgement.at_worst is None:
        return ""
    digits, sign = _shared_digits(judgement), judgement.hypothesis.effect != "mean"
    return say(
        "Whatever those would have given, the effect is within {ends} ({share} interval).",
        ends=interval(*judgement.at_worst, digits, sign=sign), share=percent(1 - judgement.alpha),
    )  # fmt: skip


def _negligible(judgement: Judgement, words: dict[str, str]) -> str:
    """Describe a negligible effect: whether there is one, and in which direction."""
    if not judgement.is_real:
        return say(
            "No effect that matters, and perhaps none at all. {result} All of it lies within ± {smallest}: too small "
            "to matter.",
            **words,
        )
    low, _ = oriented((judgement.low, judgement.high), judgement.hypothesis.kind)
    if low > 0:
        return say(
            "The effect is real, as claimed, but too small to matter. {result} All of it lies within ± {smallest}: too "
            "small to matter.",
            **words,
        )
    return say(
        "The effect is real, the other way round, but too small to matter. {result} All of it lies within ± "
        "{smallest}: too small to matter.",
        **words,
    )


def _inconclusive(judgement: Judgement) -> str:
    if not judgement.sample.spreads:
        return _without_spread(judgement)
    smallest, needed = amount(judgement, judgement.hypothesis.smallest), judgement.seeds_needed
    sample = judgement.sample
    if judgement.hypothesis.kind == "negligible":
        why = say(
            "{result} That crosses the border of what matters, ± {smallest}.",
            result=_result(judgement), smallest=smallest,
        )  # fmt: skip
    else:
        why = say(
            "{result} That is too wide to tell an effect of {smallest}, the smallest that matters, from none.",
            result=_result(judgement), smallest=smallest,
        )  # fmt: skip
    if needed.likely is None and judgement.images_dominate:
        return f"{why} {say('No number of seeds would settle it: these test images are too few.')}"
    return f"{why} {seeds_needed(needed.likely, needed.cautious, sample.n, sample.unit)}"


def _without_spread(judgement: Judgement) -> str:
    result = _result(judgement, with_interval=False)
    match judgement.sample.unit:
        case "seed":
            return say(
                "{result} All seeds give the same value, which says nothing about chance: not settled.", result=result
            )
        case "run":
            return say(
                "{result} The settings explain every run exactly, which says nothing about chance: not settled.",
                result=result,
            )
    return say(
        "{result} All runs of a cell give the same value, which says nothing about chance: not settled.", result=result
    )


def seeds_needed(likely: int | None, cautious: int | None, n: int, unit: Unit = "seed") -> str:
    """Describe how many seeds, or what else `unit` says, would settle a question that `n` of them have not."""
    if likely is None and unit == "seed":
        return say("No feasible number of seeds would settle it.")
    if likely is None:
        return say("No feasible number of runs would settle it.")
    words = {"likely": plural(likely, unit), "n": whole(n)}
    if likely <= n:
        return say(
            "{likely} settle most questions like this one, and there are {n}: the true effect may lie close to the "
            "border, where no number settles it.",
            **words,
        )
    if cautious and cautious > likely:
        return say(
            "About {likely} would settle most questions like it, or {cautious} if they vary more than these did; there "
            "are {n}.",
            cautious=whole(cautious), **words,
        )  # fmt: skip
    return say("About {likely} would settle most questions like it; there are {n}.", **words)


def _result(judgement: Judgement, *, with_interval: bool = True) -> str:
    """State the estimate, with the interval that decides."""
    if math.isnan(judgement.sample.mean):
        if judgement.sample.unit != "seed":
            return say("A cell that this needs has no run with a value.")
        return say("No seed has all the cells that this needs.")
    finding = _estimate(judgement, _shared_digits(judgement))
    if judgement.per:
        finding = say("{finding} for each {step}", finding=finding, step=_steps(judgement.per))
    if not with_interval or math.isnan(judgement.low):
        return say("{finding}.", finding=finding)
    sign = judgement.hypothesis.effect != "mean"
    result = say(
        "{finding} ({share} interval {ends}).",
        finding=finding, share=percent(1 - judgement.alpha),
        ends=interval(judgement.low, judgement.high, _shared_digits(judgement), sign=sign),
    )  # fmt: skip
    return " ".join(filter(None, (result, _as_factor(judgement), _as_bound(judgement))))


def _as_factor(judgement: Judgement) -> str:
    """Write a difference of logarithms and its interval as factors; empty for other units."""
    hypothesis, sample = judgement.hypothesis, judgement.sample
    if unit(judgement) != "log ratio" or not (hypothesis.summary or hypothesis.contrast.terms):
        return ""
    low, high = (end if math.isinf(end) else math.exp(end) for end in (judgement.low, judgement.high))
    narrow = next((n for n in (2, 3) if round(low, n) < round(high, n)), 4)  # else both ends would read the same
    digits = digits_of(low, high, narrow, 1)
    factor = _bounded(sample.bound, number(math.exp(sample.mean), digits))
    return say("That is a factor of {factor} ({ends}).", factor=factor, ends=interval(low, high, digits, sign=False))


def _steps(per: str) -> str:
    """Name the steps of trends, such as "doubling of width and unit of dropout"."""
    steps = []
    for step in per.split(" and "):
        unit_of, _, factor = step.partition(" of ")
        named = in_words(factor)
        doubles = unit_of == "doubling"
        steps.append(say("doubling of {factor}", factor=named) if doubles else say("unit of {factor}", factor=named))
    return joined(steps)


def _as_bound(judgement: Judgement) -> str:
    """Say that what is known is a bound, where it is one."""
    if judgement.ratio:
        tried = say("Levels between those of the grid were not tried: it is {times}.", times=_times(judgement.ratio))
        if judgement.low < judgement.high:
            return tried
        return f"{tried} {say('The interval is one of the median, and has no width where most seeds agree.')}"
    return say("Runs that never got there make it a bound.") if judgement.sample.bound else ""


def _times(ratio: tuple[float, float]) -> str:
    """Write a range of ratios."""
    low, high = (figures(f"{float(f'{end:.2g}'):g}") for end in ratio)
    if not ratio[0] and math.isinf(ratio[1]):
        return say("not known how many times as high")
    if not ratio[0]:
        return say("at most {high} times as high", high=high)
    if math.isinf(ratio[1]):
        return say("at least {low} times as high", low=low)
    return say("between {low} and {high} times as high", low=low, high=high)


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
        return say(
            "The log of the standard deviation between seeds of {response}", response=judgement.response.in_sentence
        )
    summary = told(SUMMARIES[hypothesis.summary or ""].sentence).format(factor=in_words(hypothesis.over))
    if not hypothesis.within:
        return summary
    low, high = (figures(f"{end:g}") for end in hypothesis.within)
    return say("{summary} from {low} to {high}", summary=summary, low=low, high=high)


_MIRRORED: dict[Bound, Bound] = {"": "", "least": "most", "most": "least", "none": "none"}


def _bounded(bound: Bound, size: str) -> str:
    """Write the size of an effect, which may be a bound."""
    match bound:
        case "least":
            return say("at least {size}", size=size)
        case "most":
            return say("at most {size}", size=size)
        case "none":
            return say("perhaps {size}", size=size)
    return size


def _estimate(judgement: Judgement, digits: int) -> str:
    """State an estimate, by its kind."""
    hypothesis, mean, bound = judgement.hypothesis, judgement.sample.mean, judgement.sample.bound
    response, terms = judgement.response, hypothesis.contrast.terms
    if not hypothesis.summary and not terms:
        value = f"{number(mean, digits)} {response.value_unit}".rstrip()
        return say("{response} is {value}", response=response.at_start, value=value)
    signed = _bounded(bound, f"{number(mean, digits, sign=True)}{response.in_unit}")
    if not hypothesis.summary and len(terms) > 1:
        return say("The interaction on {response} is {value}", response=response.in_sentence, value=signed)
    if not hypothesis.summary and terms[0].kind == "trend":
        return say("The trend of {response} is {value}", response=response.in_sentence, value=signed)
    what = _summary(judgement) if hypothesis.summary else response.at_start
    size = f"{number(abs(mean), digits)}{in_unit(judgement)}"
    if mean > 0:
        return say("{what} is {size} higher", what=what, size=_bounded(bound, size))
    if mean < 0:
        return say("{what} is {size} lower", what=what, size=_bounded(_MIRRORED[bound], size))
    return say("{what} is the same", what=what)


def unit(judgement: Judgement) -> str:
    """Return the unit of what a hypothesis is about, in English; empty for a plain number."""
    summary = judgement.hypothesis.summary
    return (SUMMARIES[summary] if summary else judgement.response).unit


def in_unit(judgement: Judgement) -> str:
    """Return the unit after a number, with a space in front, or nothing."""
    return f" {told_as('unit', unit(judgement))}".rstrip()


def estimate_text(judgement: Judgement) -> str:
    """Write an estimate with its sign and unit, for a table."""
    value = number(judgement.sample.mean, _shared_digits(judgement), sign=True)
    return _bounded(judgement.sample.bound, f"{value}{in_unit(judgement)}")


def interval_text(judgement: Judgement) -> str:
    """Write the interval that a verdict rests on, for a table."""
    ends = interval(judgement.low, judgement.high, _shared_digits(judgement))
    return f"{ends} ({percent(1 - judgement.alpha)}{f', {_times(judgement.ratio)}' if judgement.ratio else ''})"


def amount(judgement: Judgement, value: float) -> str:
    """Write an amount of what a hypothesis is about, with its unit."""
    return f"{figures(f'{value:g}')}{in_unit(judgement)}"


def rule(judgement: Judgement) -> str:
    """Describe what decided on a hypothesis, and which tests are only shown."""
    hypothesis = judgement.hypothesis
    words = {"smallest": amount(judgement, hypothesis.smallest), "share": percent(1 - judgement.alpha),
             "p": _p(judgement.p), "holm": _p(judgement.p_holm), "flips": _p(judgement.p_sign_flip)}  # fmt: skip
    if hypothesis.kind == "negligible":
        return say(
            "The rule: supported if the {share} interval lies within ± {smallest}; refuted if it lies entirely beyond "
            "it; otherwise not settled. Test of an effect of {smallest} or more: {p}; adjusted for the family by "
            "Holm's method, {holm}.",
            **words,
        )
    decides = say(
        "The rule: too small to matter if the {share} interval lies within ± {smallest}; otherwise supported if it "
        "lies beyond {smallest} in the claimed direction, supported with its size open if only beyond 0, and refuted "
        "if it lies beyond 0 in the other direction; otherwise not settled.",
        **words,
    )
    if math.isnan(judgement.p_sign_flip):
        tests = say("t test: {p}; adjusted for the family by Holm's method, {holm}.", **words)
        return f"{decides} {tests}"
    tests = say("t test: {p}; adjusted for the family by Holm's method, {holm}; sign flips: {flips}.", **words)
    odd = say("The t test and the sign flips disagree: the effects in the seeds are far from Gaussian, so be careful.")
    return f"{decides} {tests} {odd}" if judgement.flips_disagree else f"{decides} {tests}"


def _p(p: float) -> str:
    text = p_value(p)
    return f"p {text}" if text.startswith("<") or text == NOTHING else f"p = {text}"


def tally(answered: Sequence[Claim]) -> str:
    """Count the verdicts on claims."""
    counts = Counter(claim.verdict for claim in answered)
    said = joined(counted(verdict, n) for verdict, n in counts.items())
    return say("Of {claims} in this study: {tally}.", claims=plural(len(answered), "claim"), tally=said)
