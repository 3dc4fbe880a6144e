"""How far the runs moved from the reference, and how far chance alone moves them: frame to frame."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.errors import GateReferenceError
from mnist_ablate.gate.reference import Reference
from mnist_ablate.inference.effects import LOSS_CAP

STATISTICAL_SHARE = 0.8
"""Of the budget of false alarms, the statistical level's."""
CONFIDENCE = 0.95
"""That a shift lies inside its limit must be this sure for a pass, one-sided: two one-sided tests at 5 %."""

UNSURE = 0.05
"""Of clean gates, at most this many may end in 'cannot tell'."""

INDEX = ["contrast", "response"]


def contrast_values(runs: pd.DataFrame, contrasts: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Reduce runs to contrasts: a row per (seed, repeat), a column per (contrast, response).

    Losses count as at most ln 10, the loss of guessing: a run that diverged is to be seen, and not all there is.
    Seeds that lack a cell are left out.
    """
    runs = runs if "repeat" in runs else runs.assign(repeat=0)
    is_loss = runs["response"].str.contains("loss")
    capped = runs.assign(value=runs["value"].mask(is_loss, runs["value"].fillna(LOSS_CAP).clip(upper=LOSS_CAP)))
    cells = capped.pivot(index=["seed", "repeat"], columns=["response", "cell"], values="value").dropna()
    found = {
        (name, response): sum(weight * cells[response][cell] for cell, weight in weights.items())
        for name, weights in contrasts.items()
        for response in runs["response"].unique()
    }
    return pd.DataFrame(found, index=cells.index)


def spreads(reference: Reference, n: int, *, paired: bool = True) -> pd.DataFrame:
    """Measure, by the null bank, the standard error that chance alone gives the mean shift of `n` seeds.

    Paired: the reference is the mean of r repeats of the same seeds, so the variance is (1 + 1/r) / n times that of
    repeats of a seed. That is estimated twice, and the larger counts: from the contrasts themselves, in case luck is
    shared by cells, and from the cells, taken to be independent, which is less at the mercy of few seeds.
    Unpaired: the reference is the mean of the m seeds of the bank, and the variance (1/n + 1/m) times that between
    seeds.

    Returns
    -------
    pandas.DataFrame
        Columns ``se`` and ``df`` (degrees of freedom), a row per (contrast, response).
    """
    values = contrast_values(reference.bank, reference.contrasts)
    seeds = values.index.get_level_values("seed").nunique()
    if paired:
        repeats = reference.evidence.runs["repeat"].nunique()
        df, factor = len(values) - seeds, (1 + 1 / repeats) / n
        variance = np.maximum(_within(values), _of_cells(reference)[values.columns])
    else:
        df, factor = seeds - 1, 1 / n + 1 / seeds
        variance = values.groupby("seed").first().var()
    return pd.DataFrame({"se": np.sqrt(variance * factor), "df": float(df)}).rename_axis(INDEX)


def _within(values: pd.DataFrame) -> "pd.Series[float]":
    """Pool the variance of repeats over seeds."""
    inner = values - values.groupby("seed").transform("mean")
    return (inner**2).sum() / (len(values) - values.index.get_level_values("seed").nunique())


def _of_cells(reference: Reference) -> "pd.Series[float]":
    """Give each contrast's variance if its cells are independent: the sum of weight squared times the cell's."""
    cells = {cell: {cell: 1.0} for cell in reference.contrasts["mean"]}
    alone = _within(contrast_values(reference.bank, cells))
    responses = reference.bank["response"].unique()
    found = {
        (name, response): sum(weight**2 * alone[cell, response] for cell, weight in weights.items())
        for name, weights in reference.contrasts.items()
        for response in responses
    }
    return pd.Series(found)


def shift_limits(reference: Reference, n: int, *, paired: bool = True) -> pd.DataFrame:
    """Give what the statistical level allows with `n` seeds: a row per (contrast, response).

    The limit is the largest of three: what chance exceeds with the level's share of the budget; what it takes for
    clean runs to lie inside it with their whole interval, but for the share `UNSURE` of them; the tolerance that the
    rules state. The first two are split over all checks (Bonferroni).

    Returns
    -------
    pandas.DataFrame
        `spreads`, and ``limit``, beyond which a shift fails; and ``margin``, half the interval of `CONFIDENCE`,
        which must lie inside the limit for a pass.
    """
    table = spreads(reference, n, paired=paired)
    alpha = reference.rules.budget * STATISTICAL_SHARE / len(table)
    table["margin"] = stats.t.ppf(CONFIDENCE, table["df"]) * table["se"]
    alarm = stats.t.isf(alpha / 2, table["df"]) * table["se"]
    clean = stats.t.isf(UNSURE / len(table) / 2, table["df"]) * table["se"] + table["margin"]
    stated = table.index.get_level_values(1).map(lambda response: reference.rules.tolerances.get(response, 0.0))
    table["limit"] = np.maximum(np.maximum(alarm, clean), stated.to_numpy(float))
    return table


def shifts(runs: pd.DataFrame, reference: Reference, *, paired: bool = True) -> pd.DataFrame:
    """Measure every shift of the runs from the reference: a row per (contrast, response).

    Returns
    -------
    pandas.DataFrame
        `shift_limits`, and ``was``, ``now``, ``shift`` (now - was), ``p`` (two-sided) and ``cell``, where the
        shift is largest. Paired: over the seeds that both have. Unpaired: against the seeds of the null bank.

    Raises
    ------
    GateReferenceError
        If no seed is in both with all its cells.
    """
    base = reference.evidence.runs if paired else reference.bank
    was = contrast_values(base, reference.contrasts).groupby("seed").mean()
    now = contrast_values(runs, reference.contrasts).groupby("seed").mean()
    if paired:
        both = was.index.intersection(now.index)
        was, now = was.loc[both], now.loc[both]
    if len(now) == 0:
        raise GateReferenceError("no seed of the reference has all its cells in the runs.")
    table = shift_limits(reference, len(now), paired=paired)
    table["was"], table["now"] = was.mean(), now.mean()
    table["shift"] = table["now"] - table["was"]
    t = (table["shift"].abs() / table["se"]).where(table["shift"] != 0, 0.0)
    table["p"] = 2 * stats.t.sf(t, table["df"])
    return table.assign(cell=_largest_cell(runs, base, table))


def _largest_cell(now: pd.DataFrame, was: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    keys = ["response", "cell"]
    difference = now.groupby(keys, sort=False)["value"].mean() - was.groupby(keys, sort=False)["value"].mean()
    size = difference.abs().fillna(math.inf)
    return [str(size[response].idxmax()) for _, response in table.index]
