"""Effects: contrasts of cells, taken within each seed, with their intervals over seeds; frame to frame.

A contrast within a seed is one number per seed; its interval is Student's t over seeds, and no common variance is
assumed.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Collapsed, Contrast, Factor, Hypothesis, Level, collapse
from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import SEEDS
from mnist_ablate.inference.estimands import spread_of_seeds, summarise
from mnist_ablate.inference.intervals import FloatArray, Sample, sign_flip_p
from mnist_ablate.inference.measured import spread_between_seeds
from mnist_ablate.inference.samples import UnpairedSample, sample_of, within_seeds

Kind = Literal["main", "interaction", "simple", "level", "trend", "mean"]


@dataclass(frozen=True)
class Effect:
    """A contrast as it is reported.

    Parameters
    ----------
    kind
        Main effect (averaged over the other factors' levels), interaction, simple effect (the others at their
        reference), a level against the reference, a trend, or the mean of a cell.
    label
        In words.
    contrast
        The contrast.
    """

    kind: Kind
    label: str
    contrast: Contrast


def standard_effects(study: Design) -> list[Effect]:
    """List the effects that every report of `study` shows, as far as its cells allow them.

    Main effects of factors with two levels, their interactions (up to three factors), the simple effect of each;
    for a factor with more levels, each level against the reference, and the trend where levels are numbers. A factor
    that draws a part of chance anew has none: its levels have a variance and no effect.
    """
    factors = tuple(factor for factor in study.varied if factor.name not in study.chance)
    candidates = [*_main_effects(factors), *_interactions(factors), *_simple_effects(factors)]
    return [effect for effect in candidates if _has_effect(study, effect.contrast)]


def _main_effects(factors: Iterable[Factor]) -> Iterator[Effect]:
    for factor in factors:
        if len(factor.levels) == 2:
            yield Effect("main", factor.name, Contrast(factor.name))
        for level in factor.levels[1:] if len(factor.levels) > 2 else ():
            yield Effect("level", factor.label(level), Contrast(factor.effect(level)))
        if len(factor.levels) > 2 and factor.scores is not None:
            yield Effect("trend", f"trend per {factor.step} of {factor.name}", Contrast(f"trend({factor.name})"))


def _interactions(factors: Iterable[Factor]) -> Iterator[Effect]:
    names = [factor.name for factor in factors if len(factor.levels) == 2]
    for n in (2, 3):
        for group in itertools.combinations(names, n):
            yield Effect("interaction", " × ".join(group), Contrast(":".join(group)))  # noqa: RUF001 # the sign of products


def _simple_effects(factors: tuple[Factor, ...]) -> Iterator[Effect]:
    for factor in factors if len(factors) > 1 else ():
        for level in factor.levels[1:]:
            yield Effect("simple", f"{factor.label(level)} alone", Contrast(factor.effect(level), "reference"))


def _has_effect(study: Design, contrast: Contrast) -> bool:
    """Return whether `study` has the cells of `contrast`, and they are not all one run."""
    try:
        return bool(contrast_weights(study, contrast))
    except ValueError:
        return False


def contrast_weights(study: Design, contrast: Contrast) -> dict[str, float]:
    """Return the weight of each cell that `contrast` needs, by the name under which the cell is run.

    Raises
    ------
    ValueError
        If the study has no such contrast.
    """
    under, weights = study.run_under, dict[str, float]()
    for name, weight in contrast.weights(study.varied, study.cell_levels).items():
        weights[under[name]] = weights.get(under[name], 0.0) + weight
    return {name: weight for name, weight in weights.items() if weight != 0}


def hypothesis_effects(study: Design, hypothesis: Hypothesis, table: pd.DataFrame) -> "pd.Series[float]":
    """Return what a hypothesis is about for each seed that has all it needs, from its response in `table`."""
    if hypothesis.summary is None:
        return within_seeds(table, contrast_weights(study, hypothesis.contrast))
    if hypothesis.over == SEEDS:
        weights = contrast_weights(study, hypothesis.contrast)
        return within_seeds(spread_of_seeds(table[list(weights)].dropna()), weights)
    collapsed, groups = groups_over(study, hypothesis.over, hypothesis.within)
    summaries = summarise(table, groups, hypothesis.summary)
    return within_seeds(summaries, hypothesis.contrast.weights(collapsed.factors, collapsed.levels))


@dataclass(frozen=True)
class Arm:
    """One side of a hypothesis: a run's cell, or the cells whose response is put into one number."""

    weight: float
    cells: tuple[str, ...]
    levels: tuple[Level, ...] = ()


def arms_of(study: Design, hypothesis: Hypothesis) -> list[Arm]:
    """Return what a hypothesis compares, with the weight of each in its contrast.

    Raises
    ------
    ValueError
        If the study has no such contrast.
    """
    if hypothesis.over in ("", SEEDS):
        weights = contrast_weights(study, hypothesis.contrast)
        return [Arm(weight, (cell,)) for cell, weight in weights.items()]
    collapsed, groups = groups_over(study, hypothesis.over, hypothesis.within)
    weights = hypothesis.contrast.weights(collapsed.factors, collapsed.levels)
    return [Arm(weight, tuple(groups[name].values()), tuple(groups[name])) for name, weight in weights.items()]


def groups_over(
    study: Design, factor: str, within: tuple[float, float] | None = None
) -> tuple[Collapsed, dict[str, dict[Level, str]]]:
    """Return the design without `factor`, and for each group of cells that differ in it alone its runs by level."""
    under, collapsed = study.run_under, collapse(factor, study.varied, study.cell_levels, within)
    groups = {name: {level: under[cell] for level, cell in by.items()} for name, by in collapsed.groups.items()}
    return collapsed, groups


def effect_table(
    study: Design, effects: Iterable[Effect], response: str, table: pd.DataFrame, ran: pd.DataFrame,
    diverged: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    """Estimate effects on a response.

    Parameters
    ----------
    study
        The design.
    effects
        What to estimate.
    response
        Its name.
    table
        The response: a row per seed, a column per cell.
    ran, diverged
        Which runs there are, and which of them diverged or failed, likewise.

    Returns
    -------
    pandas.DataFrame
        One row per effect: ``kind``, ``label``, ``n`` (seeds that have all its cells), ``n_planned``, ``n_diverged``
        (runs among them), ``estimate``, ``sd``, ``se``, ``low`` and ``high`` (95 % t interval), ``p`` (t test of 0),
        ``p_sign_flip`` (see `sign_flip_p`), ``in_spreads`` (estimate over `spread_between_seeds` of its cells). In the
        unit of the response. What too few seeds leave undefined is NaN.
    """
    rows = []
    for effect in effects:
        weights = contrast_weights(study, effect.contrast)
        sample = sample_of(study, weights, table, ran, study.responses[response])
        spread, paired = spread_between_seeds(table[list(weights)]), not isinstance(sample, UnpairedSample)
        z = within_seeds(table if paired else table[:0], weights)
        planned = study.n_seeds if study.pairing != "none" else int(ran[list(weights)].sum().min())
        lost = diverged[list(weights)] if study.pairing != "construction" else diverged[list(weights)].reindex(z.index)
        rows.append(
            {"kind": effect.kind, "label": effect.label, "n": sample.n, "n_planned": max(planned, sample.n)}
            | {"n_diverged": int(lost.to_numpy().sum())}
            | t_summary(sample, np.asarray(z, dtype=np.float64))
            | {"in_spreads": sample.mean / spread if sample.n and spread else math.nan}
        )
    return pd.DataFrame(rows)


def t_summary(sample: Sample, z: FloatArray) -> dict[str, float]:
    """Return mean, sd, se, 95 % interval and p of a sample, and the p value of flips of signs of `z`, shape (n,)."""
    low, high = sample.interval()
    sd = float(np.std(z, ddof=1)) if len(z) > 1 else sample.sd  # of equal values, what rounding leaves
    se = sd / math.sqrt(len(z)) if type(sample) is Sample and len(z) else sample.se
    p = sample.p_sign() if sample.spreads else math.nan
    return {"estimate": sample.mean, "sd": sd, "se": se, "low": low, "high": high, "p": p,
            "p_sign_flip": sign_flip_p(z) if sample.flips else math.nan}  # fmt: skip


def effects_by_epoch(
    study: Design, effects: Sequence[Effect], response: str, tables: Iterable[pd.DataFrame], ran: pd.DataFrame
) -> pd.DataFrame:
    """Estimate effects on a response after each epoch, from a table of seeds by cells for each.

    Returns
    -------
    pandas.DataFrame
        One row per effect and epoch: ``label``, ``epoch``, ``n``, ``estimate``, ``low``, ``high`` (95 % t interval).
    """
    weights = {effect.label: contrast_weights(study, effect.contrast) for effect in effects}
    rows = []
    for epoch, table in enumerate(tables, start=1):
        for label, of_cells in weights.items():
            sample = sample_of(study, of_cells, table, ran, study.responses[response])
            low, high = sample.interval()
            rows.append({"label": label, "epoch": epoch, "n": sample.n, "estimate": sample.mean, "low": low,
                         "high": high})  # fmt: skip
    return pd.DataFrame(rows, columns=["label", "epoch", "n", "estimate", "low", "high"])
