"""Verdicts: each hypothesis of a study, decided by the rule that was written down before its runs.

A verdict is a pure function of one interval (`decide`). All hypotheses of a study are one family: each of m hypotheses
is decided at alpha / m. Where the study goes on until it is settled, its intervals hold at all looks at once
(`mnist_ablate.inference.sequential`). Holm's p values and sign flips are shown beside the verdicts and decide nothing.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.responses import SUMMARIES
from mnist_ablate.design.study import Study
from mnist_ablate.inference.effects import hypothesis_effects
from mnist_ablate.inference.intervals import MedianSample, Sample, sign_flip_p
from mnist_ablate.inference.power import LEAST_SEEDS, Seeds, seeds_needed
from mnist_ablate.inference.sequential import repeated
from mnist_ablate.store.sealed import Document

Verdict = Literal[
    "supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict", "inconsistent"
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = (
    "supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict", "inconsistent",
)  # fmt: skip


def decide(sample: Sample, kind: str, smallest: float, alpha: float) -> Verdict:
    """Return the verdict on one hypothesis.

    With [L, U] the 1 - `alpha` interval, oriented so that the claim is positive, Δ = `smallest`, and 'inside ±Δ' by
    the 1 - 2 `alpha` interval (TOST), the first of these that holds:

    - an effect is *negligible* inside ±Δ, *supported* if L > Δ, *supported, size open* if L > 0, *refuted* if U < 0,
      else *inconclusive*;
    - 'negligible' is *supported* inside ±Δ, *refuted* if L > Δ or U < -Δ, else *inconclusive*.

    Parameters
    ----------
    sample
        The effects of the seeds, in the direction in which they were measured.
    kind
        ``"increase"``, ``"decrease"`` or ``"negligible"``.
    smallest
        The smallest effect that matters.
    alpha
        Probability of a false verdict on this hypothesis.

    Returns
    -------
    str
        One of `VERDICTS`; *no verdict* with fewer than `LEAST_SEEDS` seeds, *inconclusive* where all seeds are equal,
        *inconsistent* where the intervals of different looks have nothing in common.
    """
    if sample.n < LEAST_SEEDS:
        return "no verdict"
    if not sample.sd > 0 and not isinstance(sample, MedianSample):
        return "inconclusive"
    low, high = oriented(sample.interval(alpha), kind)
    if low > high:
        return "inconsistent"
    inner_low, inner_high = oriented(sample.interval(2 * alpha), kind)
    inside = -smallest < inner_low and inner_high < smallest
    if kind == "negligible":
        outside = low > smallest or high < -smallest
        return "supported" if inside else "refuted" if outside else "inconclusive"
    if inside:
        return "negligible"
    if high < 0:
        return "refuted"
    if low > 0:
        return "supported" if low > smallest else "supported, size open"
    return "inconclusive"


def oriented(interval: tuple[float, float], kind: str) -> tuple[float, float]:
    """Mirror an interval where the claim is a decrease, so that what is claimed is positive."""
    low, high = interval
    return (-high, -low) if kind == "decrease" else (low, high)


@dataclass(frozen=True)
class Judgement:
    """A hypothesis with its verdict and the numbers behind it.

    Parameters
    ----------
    hypothesis
        The claim and its rule.
    verdict
        By `decide`.
    sample
        The effects of the seeds, in the unit of the response.
    alpha
        This hypothesis' share of the family's alpha.
    low, high
        The 1 - `alpha` interval, which decides on signs.
    inner_low, inner_high
        The 1 - 2 `alpha` interval, which decides on 'negligible'.
    p
        Of a claimed effect, the two-sided t test of 0; of 'negligible', TOST.
    p_holm
        The same, adjusted over the family (Holm 1979); a missing p counts as 1.
    p_sign_flip
        Of a claimed effect, by `mnist_ablate.inference.intervals.sign_flip_p`; NaN for 'negligible'.
    n_planned
        Seeds of the study.
    provisional
        Why the verdict is not final, or empty.
    per
        What a trend is the change for, such as ``"doubling of width"``; else empty.
    """

    hypothesis: Hypothesis
    verdict: Verdict
    sample: Sample
    alpha: float
    low: float
    high: float
    inner_low: float
    inner_high: float
    p: float
    p_holm: float
    p_sign_flip: float
    n_planned: int
    provisional: str
    per: str = ""

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0: there is an effect, however small."""
        return self.low > 0 or self.high < 0

    @property
    def flips_disagree(self) -> bool:
        """Whether sign flips and the t test disagree at `alpha` on whether there is an effect.

        False where the smallest p that flips can give, 2 / 2^n, is not below `alpha`.
        """
        if math.isnan(self.p_sign_flip) or self.sample.n < 2 or 2.0 ** (1 - self.sample.n) >= self.alpha:
            return False
        return (self.p_sign_flip < self.alpha) != (self.p < self.alpha)

    @property
    def seeds_needed(self) -> Seeds:
        """The numbers of seeds that would settle the hypothesis."""
        return seeds_needed(self.sample, self.hypothesis.kind, self.hypothesis.smallest, self.alpha)


def judge(study: Study, declared: "Declarations", table: Callable[[str], pd.DataFrame]) -> list[Judgement]:
    """Decide on every hypothesis of `study`, in its order.

    Parameters
    ----------
    study
        The study.
    declared
        What was laid down before the runs.
    table
        A function from a response to its values: a row per seed, a column per cell.
    """
    alpha = share_of_alpha(study)
    judgements = [_judge_one(study, hypothesis, alpha, declared, table) for hypothesis in study.hypotheses]
    adjusted = holm([judgement.p for judgement in judgements])
    return [replace(judgement, p_holm=p) for judgement, p in zip(judgements, adjusted, strict=True)]


def _judge_one(
    study: Study,
    hypothesis: Hypothesis,
    alpha: float,
    declared: "Declarations",
    table: Callable[[str], pd.DataFrame],
) -> Judgement:
    z = np.asarray(hypothesis_effects(study, hypothesis, table(hypothesis.response)), dtype=np.float64)
    sample = sample_of(study, hypothesis, table(hypothesis.response))
    negligible = hypothesis.kind == "negligible"
    low, high = sample.interval(alpha)
    inner_low, inner_high = sample.interval(2 * alpha)
    return Judgement(
        hypothesis=hypothesis,
        verdict=decide(sample, hypothesis.kind, hypothesis.smallest, alpha),
        sample=sample,
        alpha=alpha,
        low=low,
        high=high,
        inner_low=inner_low,
        inner_high=inner_high,
        p=sample.p_equivalence(hypothesis.smallest) if negligible else sample.p_sign(),
        p_holm=math.nan,
        p_sign_flip=math.nan if negligible or not sample.sd > 0 else sign_flip_p(z),
        n_planned=study.n_seeds,
        provisional=_provisional(study, sample.n, declared),
        per=_per(study, hypothesis),
    )


def sample_of(study: Study, hypothesis: Hypothesis, table: pd.DataFrame) -> Sample:
    """Return the effects of the seeds, as far as `study` has gone, with what its interval has to pay for looks."""
    effects = hypothesis_effects(study, hypothesis, table)
    in_steps = hypothesis.summary is not None and SUMMARIES[hypothesis.summary].steps
    kind = MedianSample if in_steps else Sample
    if len(study.looks) == 1:
        return kind.of(np.asarray(effects, dtype=np.float64))
    looks = [n for n in study.looks if n <= study.n_seeds]
    first = [np.asarray(effects[effects.index < study.first_seed + n], dtype=np.float64) for n in looks]
    return repeated([(n, kind.of(z)) for n, z in zip(looks, first, strict=True)], study.looks)


def _per(study: Study, hypothesis: Hypothesis) -> str:
    """Return the steps of the trends in a hypothesis, such as "doubling of width"."""
    trends = {term.factor for term in hypothesis.contrast.terms if term.kind == "trend"}
    return " and ".join(f"{factor.step} of {factor.name}" for factor in study.design if factor.name in trends)


def share_of_alpha(study: Study) -> float:
    """Return one hypothesis' share of the family's alpha."""
    return study.alpha / max(len(study.hypotheses), 1)


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's method (1979); a missing one counts as 1 and stays missing."""
    from statsmodels.stats.multitest import multipletests  # a second to import, which few commands need

    adjusted = multipletests(np.nan_to_num(p, nan=1.0), method="holm")[1] if len(p) else []
    return [math.nan if math.isnan(value) else float(p_holm) for value, p_holm in zip(p, adjusted, strict=True)]


def _provisional(study: Study, n: int, declared: "Declarations") -> str:
    """Return why a verdict from `n` seeds is not the declared one; empty if it is."""
    if not declared.looks:
        return "the runs do not say what was declared before them"
    changed = sum(runs for rules, runs in declared.rules.items() if rules != study.hypotheses_sha256)
    if changed:
        return f"{changed} of the runs were made before the hypotheses became what they are now"
    if len(study.looks) > 1 or len(declared.looks) > 1:
        return _other_looks(study.looks, declared.looks) or _incomplete(study, n)
    if n not in declared.looks:
        return f"it rests on {n} seeds, and {declared.looks[0]} were declared before the first run"
    return ""


def _other_looks(looks: tuple[int, ...], declared: tuple[int, ...]) -> str:
    """Return how the numbers of seeds differ from those that were declared before the first run."""
    if looks == declared:
        return ""
    if len(declared) == 1:
        return f"a fixed number of {declared[0]} seeds was declared before the first run"
    now, then = ({"first": n[0], "step": n[1] - n[0] if len(n) > 1 else 0, "most": n[-1]} for n in (looks, declared))
    if len(looks) == 1:
        steps = ", ".join(f"{name} = {value}" for name, value in then.items())
        return f"it rests on a fixed number of seeds, and {steps} were declared before the first run"
    changed = [f"{name} = {then[name]}, which is {now[name]} now" for name in now if now[name] != then[name]]
    return f"its first run declared {' and '.join(changed)}"


def _incomplete(study: Study, n: int) -> str:
    if n == study.n_seeds:
        return ""
    return f"its look at {study.n_seeds} seeds is incomplete: it rests on {n}"


@dataclass(frozen=True)
class Declarations:
    """What was declared before the runs.

    Parameters
    ----------
    files
        Number of runs by the SHA-256 of the study file.
    rules
        Number of runs by the SHA-256 of the hypotheses (`mnist_ablate.design.study.Study.hypotheses_sha256`).
    looks
        Numbers of seeds for verdicts, declared with the first run; empty where none was recorded.
    """

    files: dict[str, int]
    rules: dict[str, int]
    looks: tuple[int, ...]


def declarations(documents: Iterable[Document]) -> Declarations:
    """Read what was declared before the runs from their documents."""
    files: dict[str, int] = defaultdict(int)
    rules: dict[str, int] = defaultdict(int)
    started, looks = "", ()
    for document in documents:
        declared = document.get("declared", {})
        files[declared.get("study_sha256", "")] += 1
        rules[declared.get("hypotheses_sha256", "")] += 1
        when = str(document.get("provenance", {}).get("started", ""))
        if declared and (not started or when < started):
            started, looks = when, tuple(declared["looks"])
    return Declarations(dict(files), dict(rules), looks)


# ---- Claims of several parts ----


def claim_verdict(verdicts: Sequence[Verdict]) -> str:
    """Return the verdict on a claim from the verdicts on its parts.

    Where they differ: *refuted* if any part is; *supported, size open* if all parts are supported, with or without
    their size; *in part* if only some are; else *inconclusive*.
    """
    distinct = set(verdicts)
    if len(distinct) == 1:
        return verdicts[0]
    if "refuted" in distinct:
        return "refuted"
    if distinct <= {"supported", "supported, size open"}:
        return "supported, size open"
    return "in part" if distinct & {"supported", "supported, size open"} else "inconclusive"
