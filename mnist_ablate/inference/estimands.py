"""Estimands that are not contrasts of cells, frame to frame: speed, spread, limits, parts of variance, rankings.

`OF_CURVES` computes the responses whose source is ``"curve"``, and `OF_LEVELS` the summaries over levels, both by their
names in `mnist_ablate.design.responses`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_ablate.design.contrasts import Factor, Level
from mnist_ablate.inference.intervals import proportion_interval

GOAL = 0.97
"""Validation accuracy, a fraction, up to which learning speed is measured."""
TRAINED = 90.0
"""Validation accuracy, in percent, below which a run counts as failed: a linear model reaches more."""
_CHANCE = 0.1

Levels = Mapping[str, Mapping[str, Level]]
"""The levels of each cell, by its name."""


# ---- From the curve of a run ----


def log_epochs_to(epochs: pd.DataFrame, goal: float = GOAL) -> "pd.Series[float]":
    """Return the logarithm of the epochs that each run takes to reach a validation accuracy of `goal`.

    Accuracy starts at that of guessing and is interpolated linearly between evaluations. A run that never reaches the
    goal is censored: it counts as reaching it in its last epoch. So a difference to a slower, censored cell is a lower
    bound.

    Parameters
    ----------
    epochs
        One row per run and epoch, with ``run_id``, ``epoch``, ``val_accuracy``.

    Returns
    -------
    pandas.Series
        By ``run_id``.
    """
    table = epochs.pivot(index="run_id", columns="epoch", values="val_accuracy")
    return pd.Series(
        {run_id: math.log(_arrival(curve.dropna(), goal)) for run_id, curve in table.iterrows()}, dtype=float
    )


def _arrival(curve: "pd.Series[float]", goal: float) -> float:
    """Return the epoch, interpolated, at which `curve` first reaches `goal`; the last epoch if it never does."""
    before, start = _CHANCE, 0.0
    for epoch, value in curve.items():
        if value >= goal:
            return start + (float(str(epoch)) - start) * (goal - before) / (value - before)
        before, start = value, float(str(epoch))
    return start


def is_censored(epochs: pd.DataFrame, goal: float = GOAL) -> "pd.Series[bool]":
    """Return whether each run, by ``run_id``, never reaches a validation accuracy of `goal`."""
    return epochs.groupby("run_id")["val_accuracy"].max() < goal


OF_CURVES: Mapping[str, Callable[[pd.DataFrame], "pd.Series[float]"]] = MappingProxyType({
    "log_epochs_to_97": log_epochs_to,
})  # fmt: skip
"""From the rows of all epochs to one value for each ``run_id``."""

CENSORED: Mapping[str, Callable[[pd.DataFrame], "pd.Series[bool]"]] = MappingProxyType({
    "log_epochs_to_97": is_censored,
})  # fmt: skip
"""From the rows of all epochs to whether the value of each ``run_id`` is only the least that it can be."""


# ---- Over the levels of a factor ----


def summarise(table: pd.DataFrame, groups: Mapping[str, Mapping[Level, str]], summary: str) -> pd.DataFrame:
    """Summarise over the levels of a factor, within each seed.

    Parameters
    ----------
    table
        Response: a row per seed, a column per cell.
    groups
        For each group the cells of the factor's levels, in increasing order.
    summary
        One of `OF_LEVELS`. ``"log_sd"``: logarithm of the standard deviation over levels, which says how much the
        response depends on the factor. ``"log_drop"``: logarithm of the mean distance to the best, highest, level.
        ``"lowest"``: the lowest response, and ``"fastest"``: the index of its level. ``"highest"``: see
        `highest_trained`.

    Returns
    -------
    pandas.DataFrame
        A row per seed, a column per group; NaN where a cell is missing.
    """
    function = OF_LEVELS[summary]
    return pd.DataFrame({
        group: table[list(cells.values())].apply(
            lambda row: math.nan if row.isna().any() else function(row.to_numpy(dtype=float)), axis=1
        )
        for group, cells in groups.items()
    })  # fmt: skip


def _log_sd(values: NDArray[np.float64]) -> float:
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return math.log(sd) if sd > 0 else math.nan


def _log_drop(values: NDArray[np.float64]) -> float:
    drop = float(np.mean(values.max() - values))
    return math.log(drop) if drop > 0 else math.nan


def spread_of_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return a number for each seed whose mean is the logarithm of the standard deviation between the seeds of a cell.

    The jackknife's pseudo-values, whose t interval holds whatever the distribution (Miller 1968, "Jackknifing
    variances", Annals of Mathematical Statistics 39): n times the logarithm less n - 1 times that without the seed.

    Parameters
    ----------
    table
        Response: a row per seed, a column per cell, without gaps.
    """
    values, n = table.to_numpy(dtype=float), len(table)
    if n < 3:
        return table * math.nan
    squares = (values - values.mean(axis=0)) ** 2
    without = (squares.sum(axis=0) - squares * n / (n - 1)) / (n - 2)  # the variance without each seed
    with np.errstate(divide="ignore", invalid="ignore"):  # no spread has no logarithm
        pseudo = n * np.log(values.std(axis=0, ddof=1)) - (n - 1) * np.log(without) / 2
    return pd.DataFrame(pseudo, index=table.index, columns=table.columns)


def highest_trained(values: NDArray[np.float64], least: float = TRAINED) -> float:
    """Return the index of the highest level that trains, from the accuracies `values`, shape (levels,); -1 for none.

    A level fails if its validation accuracy, in percent, is below `least`. The search starts at the best level and
    stops before the first failure above it: a level that is too low to learn anything is not a limit.
    """
    best = int(np.argmax(values))
    if values[best] < least:
        return -1.0
    failed = np.flatnonzero(values[best:] < least)
    return float(best + failed[0] - 1 if len(failed) else len(values) - 1)


OF_LEVELS: Mapping[str, Callable[[NDArray[np.float64]], float]] = MappingProxyType({
    "log_sd": _log_sd, "log_drop": _log_drop, "lowest": lambda values: float(values.min()),
    "fastest": lambda values: float(values.argmin()), "highest": highest_trained,
})  # fmt: skip
"""From a response at each level of a factor, in increasing order, shape (levels,), to one number."""


# ---- Parts of variance ----


def variance_parts(table: pd.DataFrame, levels: Levels, factors: Sequence[Factor]) -> pd.DataFrame:
    """Divide the variance between runs among sources of chance, from a crossed design with two levels of each.

    Each seed draws the levels anew, so they are random effects. With z_S the contrast of a set S of factors, k of them
    in all and each weight ±2^(-k/2), E z_S² is the sum over all T that contain S of 2^(k - |T|) σ²_T, which is solved
    from the largest set down (Searle, Casella and McCulloch 1992, "Variance components", chapter 4, for balanced data).

    Returns
    -------
    pandas.DataFrame
        A row per seed that has all cells, a column per set T of factors, single ones first, names joined with ``:``.
        The means over seeds are unbiased estimates of σ²_T, and so may be negative.
    """
    names, whole = [factor.name for factor in factors], table.dropna()
    subsets = [subset for n in range(1, len(names) + 1) for subset in itertools.combinations(names, n)]
    on = {cell: {f.name: of[f.name] != f.reference for f in factors} for cell, of in levels.items()}
    found: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for subset in reversed(subsets):
        weights = [math.prod(1.0 if on[str(cell)][name] else -1.0 for name in subset) for cell in whole.columns]
        square = (whole.to_numpy() @ np.array(weights)) ** 2 / 2 ** len(names)
        above = sum(
            (2 ** (len(names) - len(t)) * found[t] for t in found if set(subset) < set(t)), np.zeros(len(whole))
        )
        found[subset] = (square - above) / 2 ** (len(names) - len(subset))
    return pd.DataFrame({":".join(subset): found[subset] for subset in subsets}, index=whole.index)


# ---- A printed table ----


def place_of(values: NDArray[np.float64], printed: float) -> float:
    """Return the share of `values` below `printed`, ties counted half."""
    return float((values < printed).mean() + (values == printed).mean() / 2)


_RESAMPLES = 2_000


def agreement(
    table: pd.DataFrame, above: Sequence[tuple[str, str]], *, paired: bool, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Return how often one run of each cell puts the first cell of every pair in `above` strictly above the second.

    Parameters
    ----------
    table
        Response: a row per seed, a column per cell, higher is better; seeds that lack a cell are left out.
    above
        Pairs of cells, without a contradiction.
    paired
        Take the runs of one seed together; else any run of each cell with any run of the others.

    Returns
    -------
    tuple
        The share, and its 1 - `alpha` interval: of Clopper and Pearson (1934) within seeds, and wherever the share is 0
        or 1; else percentiles over seeds drawn again (Efron and Tibshirani 1993, "An introduction to the bootstrap").
        NaN without a seed; the interval NaN with one.
    """
    values = table.dropna()
    n = len(values)
    if n == 0:
        return math.nan, math.nan, math.nan
    if paired:
        agree = np.all([values[one] > values[other] for one, other in above], axis=0) if above else np.ones(n, bool)
        return float(agree.mean()), *proportion_interval(int(agree.sum()), n, alpha)
    share = float(_agreement_of_any(values, above, np.ones((1, n), int))[0])
    if n == 1 or share in (0.0, 1.0):
        return share, *proportion_interval(round(share * n), n, alpha)
    again = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    low, high = np.quantile(_agreement_of_any(values, above, again), [alpha / 2, 1 - alpha / 2])
    return share, float(low), float(high)


def _agreement_of_any(
    values: pd.DataFrame, above: Sequence[tuple[str, str]], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share of all choices of one run per cell that agree, for each row of weights of the seeds, `times`.

    Sums over all rankings that agree. A tie counts as disagreement.
    """
    names = [str(name) for name in values.columns]
    agreeing = [order for order in itertools.permutations(names) if _agrees(order, above)]
    codes = np.unique(values.to_numpy(dtype=float), return_inverse=True)[1].reshape(values.shape)
    keys = {name: codes[:, names.index(name)] * len(names) + place for place, name in enumerate(agreeing[0])}
    each = times.T.astype(float)
    total = np.zeros(len(times))
    for order in agreeing:
        chains = each  # of each run of the last cell so far: the ways to get there in this order
        for better, worse in itertools.pairwise(order):
            chains = each * _of_those_above(chains, keys[better], keys[worse])
        total += chains.sum(axis=0)
    all_ways: NDArray[np.float64] = times.sum(axis=1, dtype=float) ** len(names)
    return total / all_ways


def _of_those_above(
    ways: NDArray[np.float64], better: NDArray[np.int64], worse: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Add up, for each run of the worse cell, the `ways` of those runs of the better one that lie above it."""
    order = np.argsort(better)
    sums = np.zeros((len(ways) + 1, ways.shape[1]))
    np.cumsum(ways[order[::-1]], axis=0, out=sums[1:])  # of the best, of the two best, ...
    return sums[len(ways) - np.searchsorted(better[order], worse, side="right")]


def _agrees(order: Sequence[str], above: Sequence[tuple[str, str]]) -> bool:
    return all(order.index(one) < order.index(other) for one, other in above)
