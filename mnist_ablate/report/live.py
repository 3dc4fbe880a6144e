"""The page with sliders: what the verdicts would be with another smallest effect, another alpha, or fewer seeds.

The browser estimates nothing. All intervals are computed here, for every number of seeds and every alpha that the
sliders have, and written into the page with the texts that show them. The script looks them up, applies the rule of
`mnist_ablate.inference.verdicts.by_interval`, and draws.
"""

import json
import math
from typing import Any

import numpy as np

from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import Analysis, of_first
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.language import say
from mnist_ablate.report import verdict_words
from mnist_ablate.report.format import number, percent, plural

ALPHAS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
"""The choices for the probability of any false verdict, beside the study's own."""
FACTORS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""The choices for the smallest effect that matters, as multiples of the declared one."""
_MOST_NUMBERS = 15
"""Of seeds to choose from, in a study with a fixed number."""


def content(analysis: Analysis) -> dict[str, Any]:
    """Return what the template of the page needs.

    Raises
    ------
    ResultsError
        If the study has no hypotheses.
    """
    if not analysis.judgements:
        raise ResultsError(
            f"{analysis.results.folder}: the study has no hypotheses, so there are no verdicts to redraw. "
            "Leave --live out, or add [[hypotheses]] to the study."
        )
    study, claims = analysis.study, verdict_words.claims(analysis.judgements)
    alphas = sorted({*ALPHAS, study.alpha}, reverse=True)
    fewer, last = _numbers(analysis)[:-1], study.n_seeds
    by_seeds = {n: of_first(analysis.results, n).judgements for n in fewer} | {last: analysis.judgements}
    index = {judgement.hypothesis.id: i for i, judgement in enumerate(analysis.judgements)}
    return {
        "claims": claims,
        "rows": {answer.id: index[answer.id] for claim in claims for answer in claim.answers},
        "shown": [_shown(judgement) for judgement in analysis.judgements],
        "numbers": list(by_seeds),
        "of_seeds": analysis.unit == "seed",
        "alphas": alphas,
        "factors": FACTORS,
        "own": {"seeds": len(by_seeds) - 1, "alpha": alphas.index(study.alpha), "smallest": FACTORS.index(1)},
        "data": _json({
            "badges": {verdict: verdict_words.badge(verdict) for verdict in verdict_words.BADGES},
            "claims": [[index[answer.id] for answer in claim.answers] for claim in claims],
            "hypotheses": [_hypothesis(judgement) for judgement in analysis.judgements],
            "seeds": [plural(n, analysis.unit) for n in by_seeds],
            "alphas": [percent(alpha) for alpha in alphas],
            "factors": list(FACTORS),
            "times": [say("{factor} times as declared", factor=number(f, 1)) if f != 1 else say("as declared")
                      for f in FACTORS],
            "at": [[[_entry(judgement.at(judgement.alpha * alpha / study.alpha)) for judgement in judgements]
                    for alpha in alphas] for judgements in by_seeds.values()],
        }),
    }  # fmt: skip


def _numbers(analysis: Analysis) -> list[int]:
    """Return the numbers of seeds to choose from; the last is that of the study."""
    study, most = analysis.study, int(analysis.ran.all(axis=1).sum())
    if analysis.trained is None or most < LEAST_SEEDS or most < study.n_seeds:
        return [study.n_seeds]  # only whole blocks can be left out
    looks = [n for n in study.looks if n <= study.n_seeds]
    if len(study.looks) > 1:
        return looks
    return sorted({int(n) for n in np.linspace(LEAST_SEEDS, most, min(_MOST_NUMBERS, most - LEAST_SEEDS + 1))} | {most})


def _hypothesis(judgement: Judgement) -> dict[str, Any]:
    smallest = judgement.hypothesis.smallest
    amounts = [
        f"±\N{NO-BREAK SPACE}{verdict_words.amount(judgement, float(f'{smallest * factor:.4g}'))}" for factor in FACTORS
    ]
    ends = [end for end in (judgement.low, judgement.high) if math.isfinite(end)] or [0.0]
    reach = 1.25 * max(2 * smallest, *map(abs, ends))
    return {"kind": judgement.hypothesis.kind, "smallest": smallest, "amounts": amounts, "reach": reach}


def _shown(judgement: Judgement) -> dict[str, str]:
    """Return what the page says before its script runs."""
    smallest = verdict_words.amount(judgement, judgement.hypothesis.smallest)
    estimate, interval = verdict_words.estimate_text(judgement), verdict_words.interval_text(judgement)
    return {"estimate": estimate, "interval": interval, "amount": f"±\N{NO-BREAK SPACE}{smallest}"}


def _entry(judgement: Judgement) -> list[Any]:
    """Return estimate and interval, as numbers and in words, and the verdict where no interval decides."""
    fixed = judgement.verdict if judgement.verdict == "no verdict" or not judgement.sample.spreads else ""
    ends = (judgement.sample.mean, judgement.low, judgement.high)
    # JSON has no infinity; what is far beyond any axis is the same to the rule and to the drawing.
    numbers = [None if math.isnan(end) else float(np.clip(end, -1e9, 1e9)) for end in ends]
    return [*numbers, verdict_words.estimate_text(judgement), verdict_words.interval_text(judgement), fixed]


def _json(value: object) -> str:
    """Write a value so that it may stand in a script, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
