"""Verdicts on claims of several parts, from the verdicts on these parts: one rule for one study and for many."""

import math
from collections.abc import Sequence
from typing import Literal

from mnist_ablate.inference.intervals import MedianSample, half_width
from mnist_ablate.inference.sequential import Repeated
from mnist_ablate.inference.verdicts import Judgement, Verdict

Outcome = Literal["holds", "does not hold", "open", "not run"]
ClaimVerdict = Literal[Verdict, "in part", "it depends", "not run"]

_OUTCOMES: dict[Verdict, Outcome] = {
    "supported": "holds", "supported, size open": "holds", "negligible": "does not hold", "refuted": "does not hold",
    "inconclusive": "open", "no verdict": "open", "inconsistent": "open",
}  # fmt: skip


def outcome_of(judgement: Judgement | None) -> Outcome:
    """Return whether a claim holds by one hypothesis; *not run* where nothing was measured."""
    return _OUTCOMES[judgement.verdict] if judgement is not None and judgement.measured else "not run"


def claim_verdict(judgements: Sequence[Judgement | None], *, depends: bool = False) -> ClaimVerdict:
    """Return the verdict on a claim from the verdicts on its parts, all of which decide.

    The first of these that applies: *not run* if a part is; *it depends* if it `depends`; *in part* if one part holds
    and another does not; if any is open, *inconclusive*, or the verdict of all parts where it is the same; if all hold,
    *supported*, with its size open if that of any part is; *refuted* if any part is; else *negligible*.

    Parameters
    ----------
    judgements
        One for each part; None for a part that was not run.
    depends
        Whether a part is the other way round under other conditions, see `differ`.
    """
    outcomes, verdicts = {outcome_of(judgement) for judgement in judgements}, {j.verdict for j in judgements if j}
    if "not run" in outcomes:
        return "not run"
    if depends:
        return "it depends"
    if {"holds", "does not hold"} <= outcomes:
        return "in part"
    if "open" in outcomes:
        return next(iter(verdicts)) if len(verdicts) == 1 else "inconclusive"
    order: tuple[Verdict, ...] = ("refuted", "negligible", "supported, size open", "supported")
    return next(verdict for verdict in order if verdict in verdicts)


def differ(here: Judgement, there: Judgement) -> bool:
    """Return whether a claim holds in one of two places and not in the other, and the places certainly differ."""
    low, high = difference(here, there)
    opposed = {outcome_of(here), outcome_of(there)} == {"holds", "does not hold"}
    return opposed and (low > 0 or high < 0)


def difference(here: Judgement, there: Judgement) -> tuple[float, float]:
    """Return the interval of an effect there minus that here, at the smaller of their shares of alpha.

    By Welch's t, as if the two places shared no seeds and no images; what they share makes their effects alike, so the
    interval is then too wide. Medians, bounds and samples that were looked at as they grew are compared by their
    intervals at half that share each.
    """
    alpha, (one, other) = min(here.alpha, there.alpha), (here.sample, there.sample)
    if one.bound or other.bound or any(isinstance(sample, MedianSample | Repeated) for sample in (one, other)):
        (low, high), (other_low, other_high) = one.interval(alpha / 2), other.interval(alpha / 2)
        return other_low - high, other_high - low
    se = math.hypot(one.se, other.se)
    df = se**4 / (one.se**4 / one.df + other.se**4 / other.df) if se > 0 else math.nan
    half = float(half_width(se, df, alpha))
    return other.mean - one.mean - half, other.mean - one.mean + half
