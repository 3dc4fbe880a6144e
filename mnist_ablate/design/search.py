"""A search: settings that were drawn, or have many values, and so make coefficients in place of contrasts of cells.

A setting whose values are numbers has one coefficient, its slope; any other has one for each level but the first, its
difference to that. There are no interactions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_ablate.design.contrasts import Factor, Level

CELL = "all runs"
"""The only cell of a search."""
RUNS_PER_COEFFICIENT = 20
"""With fewer runs for each coefficient, that of the intercept included, nothing is estimated."""
RUNS_PER_LEVEL = 6
"""Nor where a level has fewer."""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of a search.

    Parameters
    ----------
    effect
        How a hypothesis asks about it: ``trend(lr)``, ``optimizer[sgd]``, or ``norm`` of two levels.
    setting
        The name of its setting.
    label
        How a page names it.
    per
        What a slope is the change for, such as ``"doubling of lr"``; else empty.
    """

    effect: str
    setting: str
    label: str
    per: str = ""


def coefficients(settings: Iterable[Factor]) -> list[Coefficient]:
    """List the coefficients of settings, without that of the intercept."""
    found = []
    for factor in settings:
        if factor.scores is not None:
            per = f"{factor.step} of {factor.name}"
            found.append(Coefficient(f"trend({factor.name})", factor.name, f"trend per {per}", per))
        else:
            for level in factor.levels[1:]:
                found.append(Coefficient(factor.effect(level), factor.name, factor.label(level)))
    return found


def model_matrix(settings: Sequence[Factor], values: Mapping[str, "pd.Series[Level]"]) -> NDArray[np.float64]:
    """Return what is multiplied by the coefficients, shape (runs, 1 + coefficients): first a column of ones.

    Parameters
    ----------
    settings
        The settings with the levels that there are.
    values
        Of each setting, the level of each run.
    """
    n = len(next(iter(values.values()))) if values else 0
    columns: list[NDArray[np.float64]] = [np.ones(n)]
    for factor in settings:
        of_runs = values[factor.name]
        if factor.scores is not None:
            numbers = np.asarray(of_runs, dtype=np.float64)
            columns.append(np.log2(numbers) if factor.step == "doubling" else numbers)
        else:
            columns += [np.asarray(of_runs == level, dtype=np.float64) for level in factor.levels[1:]]
    return np.asarray(np.column_stack(columns))


def combinations_of_others(x: NDArray[np.float64]) -> dict[int, list[int]]:
    """Return the columns of a model matrix that are combinations of those before them, with the columns that make each.

    The first column, of ones, may be part of any.
    """
    found: dict[int, list[int]] = {}
    for place in range(1, x.shape[1]):
        column = x[:, place] - x[:, place].mean()
        size = float(np.abs(column).max())
        if size == 0:
            found[place] = []
            continue
        before = [p for p in range(1, place) if p not in found]
        others = x[:, before] - x[:, before].mean(axis=0)
        others /= np.abs(others).max(axis=0)
        weights = np.linalg.lstsq(others, column / size, rcond=None)[0]
        if np.abs(others @ weights - column / size).max() < 1e-9:
            found[place] = [p for p, weight in zip(before, weights, strict=True) if abs(weight) > 1e-9]
    return found


def setting_column(name: str) -> str:
    """Return the column of the runs that has a setting."""
    return f"setting {name}"
