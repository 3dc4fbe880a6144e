"""How far golden runs are from the reference's course, for each cell and group of cells: frame to frame.

Rounding alone makes a run leave its course now and then, at any step and by a lot: a unit whose sum is zero but for
rounding is on instead of off, and Adam, which divides by the size of the gradient, turns that into a full step. But
this happens in one run and not in the next, while a mistake shows in every run that has the technique. So the tight
limit is on the *smallest* departure in a group of cells: those with a technique, those without it, all of them.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

SHARE = 0.5
"""Limits are what this share of a group's cells reached in clean runs; to fail, all of the cells must be beyond."""
FACTOR = 10.0
"""A departure may be this many times the largest that was seen when the limits were measured."""
LEAST, LEAST_ACCURACY = 1e-6, 0.02
"""No limit is below a few roundings of a float32 loss (nats), or two images of 10,000 (percentage points)."""

Groups = dict[str, list[str]]
"""Cells by the name of the group."""


def group_cells(contrasts: Mapping[str, Mapping[str, float]]) -> Groups:
    """Return the groups, the largest first: all cells, those on either side of each contrast, each cell alone."""
    groups: Groups = {}
    for name, weights in contrasts.items():
        with_it, without = ([cell for cell, weight in weights.items() if sign * weight > 0] for sign in (1, -1))
        groups[f"cells with {name}" if without else "all cells"] = with_it
        if without:
            groups[f"cells without {name}"] = without
    cells = {cell for members in groups.values() for cell in members}
    groups |= {f"cell {cell}": [cell] for cell in sorted(cells)}
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def side_by_side(trace: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Return two traces side by side.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``what``, ``at``, ``was``, ``now``, and ``departure``: the largest difference up to this step or
        epoch, infinite if a value is missing or not finite.
    """
    keys = ["cell", "what", "at"]
    both = reference.rename(columns={"value": "was"}).merge(trace.rename(columns={"value": "now"}), "outer", on=keys)
    difference = (both["now"] - both["was"]).abs()
    both["departure"] = difference.where(np.isfinite(difference), np.inf)
    both = both.sort_values(keys, ignore_index=True)
    both["departure"] = both.groupby(["cell", "what"])["departure"].cummax()
    return both


def at_any_step(limits: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """Return the limits, with those of single cells raised at every step after the first to their largest at any step.

    Once the weights have moved, a single run may leave its course at any step, even where none of the runs did that the
    limits were measured on. In a group all cells must leave it, so the limits of groups stay.
    """
    single = limits["group"].map(lambda name: len(groups.get(name, ())) == 1)
    after_first = (limits["what"] != "step") | (limits["at"] > 1)
    largest = limits[single & after_first].groupby(["engine", "group", "what"])["limit"].transform("max")
    return limits.assign(limit=largest.reindex(limits.index).fillna(limits["limit"]))


def departures(compared: pd.DataFrame, groups: Groups, *, share: float = 1.0) -> pd.DataFrame:
    """Return the departure that `share` of the cells of each group have reached.

    With a share of 1 that is the smallest departure in the group.

    Returns
    -------
    pandas.DataFrame
        ``group``, ``what``, ``at``, ``departure``.
    """
    # A step that a cell has in neither trace is no departure of that cell.
    table = compared.pivot(index=["what", "at"], columns="cell", values="departure").fillna(0.0)
    reached = {}
    for name, cells in groups.items():
        largest_first = -np.sort(-table[cells].to_numpy(), axis=1)
        reached[name] = largest_first[:, math.ceil(share * len(cells)) - 1]
    frame = pd.DataFrame(reached, index=table.index).reset_index()
    return frame.melt(["what", "at"], list(reached), var_name="group", value_name="departure")


def limits(clean: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """Return limits, measured on clean runs of many seeds and environments.

    Parameters
    ----------
    clean
        What `departures` returned with a share of `SHARE` for each of them, with a column ``engine``: ``same``, or
        ``other`` if the engine is not that of the reference.
    groups
        The groups.

    Returns
    -------
    pandas.DataFrame
        ``engine``, ``group``, ``what``, ``at``, ``limit``: the largest departure times `FACTOR`, at least `LEAST`.
        All single cells share one limit. For another engine, the departures of both engines count.
    """
    single = clean["group"].map(lambda name: len(groups[name]) == 1)
    pooled = [clean[single].assign(group=name) for name, cells in groups.items() if len(cells) == 1]
    both = pd.concat([clean[~single], *pooled])
    both = pd.concat([both[both["engine"] == "same"], both.assign(engine="other")])
    largest = both.groupby(["engine", "group", "what", "at"])["departure"].max()
    table = (FACTOR * largest).rename("limit").reset_index()
    least = np.where(table["what"].str.endswith("accuracy"), LEAST_ACCURACY, LEAST)
    return table.assign(limit=np.maximum(table["limit"], least))
