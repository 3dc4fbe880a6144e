"""How far runs have moved from the reference, and how far chance alone moves them: frame to frame."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from mnist_ablate.design.responses import LOSS_CAP, RESPONSES
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.gate.reference import Reference

STATISTICAL_SHARE = 0.8
"""The statistical level's share of the budget of false alarms."""
CONFIDENCE = 0.95
"""To pass, a shift must lie inside its limit with this confidence: two one-sided tests at 5 %."""
UNSURE = 0.05
"""At most this share of clean gates may end in 'cannot tell'."""

INDEX = ["contrast", "response"]


def contrast_values(runs: pd.DataFrame, contrasts: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the contrasts of runs: a row per (seed, repeat), a column per (contrast, response).

    A run with a number that is not finite diverged: it counts as one that guesses, so that it shows without hiding all
    others, and so does a loss of another name that is not finite. Left out are seeds that lack a cell, and contrasts of
    cells that do not all have the response.
    """
    runs = runs if "repeat" in runs else runs.assign(repeat=0)
    runs = runs.assign(value=_with_guesses(runs))
    cells = runs.pivot(index=["seed", "repeat"], columns=["response", "cell"], values="value").dropna()
    values = {
        (name, response): sum(weight * cells[response][cell] for cell, weight in weights.items())
        for name, weights in contrasts.items()
        for response in runs["response"].unique()
        if all((response, cell) in cells for cell in weights)
    }
    return pd.DataFrame(values, index=cells.index)


def _with_guesses(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return the values of `runs` with those of guessing where the run diverged."""
    missing = ~runs["value"].astype(float).abs().lt(math.inf)
    diverged = missing.groupby([runs["seed"], runs["repeat"], runs["cell"]]).transform("any")
    guesses = runs["response"].map({name: response.guessing for name, response in RESPONSES.items()}).astype(float)
    other_loss = guesses.isna() & runs["response"].str.contains("loss")
    values: pd.Series[float] = runs["value"].astype(float).mask(diverged & guesses.notna(), guesses)
    return values.mask(missing & other_loss, LOSS_CAP)


def spreads(reference: Reference, n: int, *, paired: bool = True) -> pd.DataFrame:
    """Return the standard error that chance alone gives the mean shift of `n` seeds, measured on the null bank.

    Paired: the reference is the mean of r repeats of the same seeds, so the variance is (1 + 1/r) / n times that of
    repeats of a seed. The larger of two estimates counts: one from the contrasts themselves, in case cells share their
    luck, and one from the cells, taken as independent, which depends less on a few seeds.
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
        variance = np.maximum(_within_seeds(values), _from_cells(reference)[values.columns])
    else:
        df, factor = seeds - 1, 1 / n + 1 / seeds
        variance = values.groupby("seed").first().var()
    return pd.DataFrame({"se": np.sqrt(variance * factor), "df": float(df)}).rename_axis(INDEX)


def _within_seeds(values: pd.DataFrame) -> "pd.Series[float]":
    """Return the variance between repeats, pooled over seeds."""
    deviations = values - values.groupby("seed").transform("mean")
    return (deviations**2).sum() / (len(values) - values.index.get_level_values("seed").nunique())


def _from_cells(reference: Reference) -> "pd.Series[float]":
    """Return the variance of each contrast if its cells are independent: the sum of weight squared times theirs."""
    cells = {cell: {cell: 1.0} for cell in reference.contrasts["mean"]}
    variances = _within_seeds(contrast_values(reference.bank, cells))
    return pd.Series(
        {
            (name, response): sum(weight**2 * variances[cell, response] for cell, weight in weights.items())
            for name, weights in reference.contrasts.items()
            for response in reference.bank["response"].unique()
            if all((cell, response) in variances for cell in weights)
        }
    )


def shift_limits(reference: Reference, n: int, *, paired: bool = True) -> pd.DataFrame:
    """Return what the statistical level allows with `n` seeds: a row per (contrast, response).

    The limit is the largest of three: what chance exceeds with the level's share of the budget; what holds the whole
    interval of clean runs, except for a share `UNSURE` of them; the tolerance stated in the rules. The first two are
    split over all checks (Bonferroni).

    Returns
    -------
    pandas.DataFrame
        The columns of `spreads`; ``limit``, beyond which a shift fails; and ``margin``, half the width of the interval
        at `CONFIDENCE`, which must lie inside the limit for a pass.
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
    """Return every shift of the runs from the reference: a row per (contrast, response).

    Paired runs are compared with the same seeds of the reference, others with the seeds of the null bank.

    Returns
    -------
    pandas.DataFrame
        The columns of `shift_limits`; ``was``, ``now``, ``shift`` (now - was), ``p`` (two-sided), and ``cell``: the
        cell that moved most.

    Raises
    ------
    GateReferenceError
        If the runs and the reference have no seed in common with all its cells.
    """
    base = reference.evidence.runs if paired else reference.bank
    was = contrast_values(base, reference.contrasts).groupby("seed").mean()
    now = contrast_values(runs, reference.contrasts).groupby("seed").mean()
    if paired:
        both = was.index.intersection(now.index)
        was, now = was.loc[both], now.loc[both]
    if len(now) == 0:
        raise GateReferenceError("The runs have no seed of the reference with all its cells.")
    table = shift_limits(reference, len(now), paired=paired)
    table["was"], table["now"] = was.mean(), now.mean()
    table["shift"] = table["now"] - table["was"]
    t = (table["shift"].abs() / table["se"]).where(table["shift"] != 0, 0.0)
    table["p"] = 2 * stats.t.sf(t, table["df"])
    return table.assign(cell=_cell_moved_most(runs, base, table))


def _cell_moved_most(now: pd.DataFrame, was: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    keys = ["response", "cell"]
    difference = now.groupby(keys, sort=False)["value"].mean() - was.groupby(keys, sort=False)["value"].mean()
    size = difference.abs().fillna(math.inf)
    return [str(size[response].idxmax()) for _, response in table.index]
