"""Verdicts in words: every sentence is made from a judgement, so that words cannot contradict numbers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.inference.effects import describe
from mnist_ablate.inference.verdicts import LEAST_SEEDS, Judgement, Verdict, claim_verdict, oriented
from mnist_ablate.report.words import NOTHING, listed, number, p_value, percent, plural, span

BADGES: dict[str, str] = {
    "supported": "Supported",
    "supported, size open": "Supported, size open",
    "negligible": "Too small to matter",
    "refuted": "Refuted",
    "inconclusive": "Not settled",
    "no verdict": "No verdict",
    "in part": "In part",
    "it depends": "It depends",
    "not run": "Not run yet",
}


@dataclass(frozen=True)
class Answer:
    """What the page says on one hypothesis.

    Parameters
    ----------
    id, statement
        Of the hypothesis.
    verdict, badge
        The verdict, and how it is shown.
    sentence
        What was found.
    rule
        What decided, and what is only shown beside it.
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
    """A claim with the answers to its parts; a hypothesis that stands for itself is titled by its id."""

    title: str
    verdict: str
    badge: str
    answers: list[Answer]


def claims(judgements: Sequence[Judgement]) -> list[Claim]:
    """Group answers by the claim that they are parts of, in the order of the study."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.hypothesis.claim or judgement.hypothesis.statement, []).append(judgement)
    found = []
    for title, parts in groups.items():
        verdict = claim_verdict([part.verdict for part in parts])
        found.append(Claim(title.rstrip("."), verdict, BADGES[verdict], [answer(part) for part in parts]))
    return found


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
    """Say what was found, by verdict."""
    if judgement.verdict == "no verdict":
        n = judgement.sample.n
        return (
            f"{_found(judgement, bounds=False)} With {plural(n, 'seed')} there is no verdict: that takes {LEAST_SEEDS}."
        )
    if judgement.verdict == "inconclusive":
        return _unsettled(judgement)
    if judgement.hypothesis.kind == "negligible":
        return _of_negligible(judgement)
    smallest = _amount(judgement, judgement.hypothesis.smallest)
    found, least = _found(judgement), f"{smallest}, the smallest effect that matters"
    return {
        "supported": f"Yes. {found} Even its end nearer to 0 is beyond {least}.",
        "supported, size open": f"Yes, but by how much is open. {found} Its end nearer to 0 is within {least}.",
        "negligible": f"{_real(judgement)} {found} All of that is within ± {smallest}, and less does not matter.",
        "refuted": f"No: it is the other way round. {found}",
    }[judgement.verdict]


def _of_negligible(judgement: Judgement) -> str:
    """Say what was found on a claim that an effect is negligible."""
    smallest = _amount(judgement, judgement.hypothesis.smallest)
    if judgement.verdict == "supported":
        return f"Yes. {_found(judgement)} All of that is within ± {smallest}, and less does not matter."
    return f"No: there is an effect that matters. {_found(judgement)} All of that is beyond ± {smallest}."


def _real(judgement: Judgement) -> str:
    """Say of a negligible effect whether there is one, and in which direction."""
    if not judgement.is_real:
        return "No effect that matters, and perhaps none at all."
    low, _ = oriented((judgement.low, judgement.high), judgement.hypothesis.kind)
    return f"The effect is real, {'as claimed' if low > 0 else 'the other way round'}, but too small to matter."


def _unsettled(judgement: Judgement) -> str:
    if not judgement.sample.sd > 0:
        return f"{_found(judgement, bounds=False)} All seeds give the same, so nothing is known of chance: not settled."
    smallest = _amount(judgement, judgement.hypothesis.smallest)
    needed = judgement.seeds_needed
    why = (
        f"reaches across the border of what matters, ± {smallest}."
        if judgement.hypothesis.kind == "negligible"
        else f"is too wide to tell an effect of {smallest}, the smallest that matters, from none."
    )
    return f"{_found(judgement)} That {why} {_needed(needed.likely, needed.cautious, judgement.sample.n)}"


def _needed(likely: int | None, cautious: int | None, n: int) -> str:
    """Say how many seeds would settle it."""
    if likely is None:
        return "No number of seeds that one could train would settle it."
    if likely <= n:
        return (
            f"{likely} seeds settle most such questions, and there are {n}: the truth may lie close to the border, "
            "where no number of seeds settles it."
        )
    more = f", {cautious} if they vary more than was seen" if cautious and cautious > likely else ""
    return f"About {likely} seeds would settle it{more}; there are {n}."


def _found(judgement: Judgement, *, bounds: bool = True) -> str:
    """State the estimate, with the interval that decides."""
    if math.isnan(judgement.sample.mean):
        return "No seed has all the cells that this needs."
    what = _estimate(judgement.hypothesis, judgement.sample.mean) + (f" for each {judgement.per}" * bool(judgement.per))
    if not bounds or math.isnan(judgement.low):
        return f"{what}."
    low, high, share = deciding(judgement)
    digits, sign = describe(judgement.hypothesis.response).digits, judgement.hypothesis.effect != "mean"
    return f"{what} ({share} interval {span(low, high, digits, sign=sign)})."


def _estimate(hypothesis: Hypothesis, mean: float) -> str:
    """State an estimate, by what it is one of."""
    response, terms = describe(hypothesis.response), hypothesis.contrast.terms
    label = "The gap" + response.label[3:] if hypothesis.response == "gap" else response.label.capitalize()
    signed = f"{number(mean, response.digits, sign=True)} {response.unit}"
    if hypothesis.over:
        return _estimate_over(hypothesis, mean)
    if not terms:
        return f"{label} is {number(mean, response.digits)} {'%' if response.unit == 'points' else response.unit}"
    if len(terms) > 1:
        return f"The interaction on {response.label} is {signed}"
    if terms[0].kind == "trend":
        return f"The trend of {response.label} is {signed}"
    if mean == 0:
        return f"{label} is the same"
    return f"{label} is {number(abs(mean), response.digits)} {response.unit} {'higher' if mean > 0 else 'lower'}"


def _estimate_over(hypothesis: Hypothesis, mean: float) -> str:
    """State an estimate of what was made of all levels of a factor."""
    what = {
        "log_sd": f"The log of the spread over the levels of {hypothesis.over}",
        "highest": f"The highest level of {hypothesis.over} that trains",
    }
    label = what[hypothesis.summary] if hypothesis.summary else ""
    amount = f"{number(abs(mean))} {unit(hypothesis)} {'higher' if mean > 0 else 'lower'}" if mean else "the same"
    return f"{label} is {amount}"


def deciding(judgement: Judgement) -> tuple[float, float, str]:
    """Pick the interval that a verdict rests on: TOST's where it lies inside ± smallest, else the one for borders."""
    if judgement.verdict == ("supported" if judgement.hypothesis.kind == "negligible" else "negligible"):
        return judgement.inner_low, judgement.inner_high, percent(1 - 2 * judgement.alpha)
    return judgement.low, judgement.high, percent(1 - judgement.alpha)


def unit(hypothesis: Hypothesis) -> str:
    """Name the unit of what a hypothesis is about."""
    of_summary = {"log_sd": "log ratio", "highest": "steps"}
    return of_summary[hypothesis.summary] if hypothesis.summary else describe(hypothesis.response).unit


def estimate_text(judgement: Judgement) -> str:
    """Write an estimate with its sign and unit, for a table."""
    hypothesis = judgement.hypothesis
    return f"{number(judgement.sample.mean, describe(hypothesis.response).digits, sign=True)} {unit(hypothesis)}"


def interval_text(judgement: Judgement) -> str:
    """Write the interval that a verdict rests on, for a table."""
    low, high, share = deciding(judgement)
    return f"{span(low, high, describe(judgement.hypothesis.response).digits)} ({share})"


def _amount(judgement: Judgement, value: float) -> str:
    return f"{value:g} {unit(judgement.hypothesis)}"


def rule(judgement: Judgement) -> str:
    """Say what decided on a hypothesis, and what is shown beside it."""
    hypothesis = judgement.hypothesis
    smallest, wide, narrow = (
        _amount(judgement, hypothesis.smallest),
        percent(1 - judgement.alpha),
        percent(1 - 2 * judgement.alpha),
    )
    holm = f"adjusted for the family by Holm's method {_p(judgement.p_holm)}"
    if hypothesis.kind == "negligible":
        decides = (
            f"supported if the {narrow} interval lies within ± {smallest}; refuted if the {wide} interval lies "
            "wholly beyond it; else not settled"
        )
        test = f"Two one-sided t tests: p {_p(judgement.p)}, {holm}."
    else:
        decides = (
            f"too small to matter if the {narrow} interval lies within ± {smallest}; else supported if the {wide} "
            f"interval lies beyond {smallest} in the claimed direction, supported with its size open if only "
            "beyond 0, refuted if it lies beyond 0 in the other; else not settled"
        )
        flips = "" if math.isnan(judgement.p_sign_flip) else f"; flips of signs: p {_p(judgement.p_sign_flip)}"
        test = f"t test: p {_p(judgement.p)}, {holm}{flips}."
    odd = " The t test and the flips of signs disagree: the effects of the seeds are far from Gaussian, be careful."
    return f"The rule: {decides}. {test}{odd * judgement.flips_disagree}"


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") or text == NOTHING else f"= {text}"


def tally(found: Sequence[Claim]) -> str:
    """Count the verdicts on claims."""
    counts = Counter(claim.badge.lower() for claim in found)
    return f"Of {plural(len(found), 'claim')}: {listed(f'{n} {what}' for what, n in counts.items())}."
