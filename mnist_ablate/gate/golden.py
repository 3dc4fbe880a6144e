"""How far golden runs lie from the reference's course, cell by cell and group by group: frame to frame.

Rounding makes a run leave its course now and then, at any step and by a lot: a unit whose sum was zero but for
rounding is on instead of off, and Adam, which divides by the gradient's size, makes a full step of it. But it does so
in one run and not in the next, while a mistake is in every run that has the technique. So what is limited tightly is
the *smallest* departure in a group of cells: those with a technique, those without it, all of them.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

SHARE = 0.5
"""Limits are what half of a group's cells have reached in a clean run; to fail, all of them must be beyond."""
FACTOR = 10.0
"""A departure may be this many times the largest that was seen when the limits were measured."""
LEAST, LEAST_ACCURACY = 1e-6, 0.02
"""No limit is less: a few roundings of a float32 loss, in nats; two images of 10,000, in percentage points."""

Groups = dict[str, list[str]]


def groups(contrasts: Mapping[str, Mapping[str, float]]) -> Groups:
    """Name the groups of cells, the largest first: all, those on either side of each contrast, each cell alone."""
    found: Groups = {}
    for name, weights in contrasts.items():
        sides = {side: [cell for cell, weight in weights.items() if weight * side > 0] for side in (1, -1)}
        found[f"cells with {name}" if sides[-1] else "all cells"] = sides[1]
        if sides[-1]:
            found[f"cells without {name}"] = sides[-1]
    cells = {cell for members in found.values() for cell in members}
    found |= {f"cell {cell}": [cell] for cell in sorted(cells)}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def compare(trace: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Set two traces side by side.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``what``, ``at``, ``was``, ``now``, and ``departure``: the largest difference up to this step or
        epoch; infinite where a value is missing or not finite.
    """
    keys = ["cell", "what", "at"]
    both = reference.rename(columns={"value": "was"}).merge(trace.rename(columns={"value": "now"}), "outer", on=keys)
    apart = (both["now"] - both["was"]).abs()
    both["departure"] = apart.where(np.isfinite(apart), np.inf)
    both = both.sort_values(keys, ignore_index=True)
    both["departure"] = both.groupby(["cell", "what"])["departure"].cummax()
    return both


def at_any_step(limits: pd.DataFrame, members: Groups) -> pd.DataFrame:
    """Give single cells, at every step after the first, the largest of their limits at any.

    The weights have moved by then, so a single run may leave its course at any of these steps, also where none of the
    runs that the limits were measured on did. Of a group all cells must have done so, and its limits stay.

    Parameters
    ----------
    limits
        `limits`.
    members
        The groups.
    """
    alone = limits["group"].map(lambda name: len(members.get(name, ())) == 1)
    moved = (limits["what"] != "step") | (limits["at"] > 1)
    largest = limits[alone & moved].groupby(["engine", "group", "what"])["limit"].transform("max")
    return limits.assign(limit=largest.reindex(limits.index).fillna(limits["limit"]))


def departures(compared: pd.DataFrame, members: Groups, *, share: float = 1.0) -> pd.DataFrame:
    """Give what `share` of the cells of each group have reached: ``group``, ``what``, ``at``, ``departure``.

    With a share of 1 that is the smallest departure in the group. A group of one cell is the same with any share.
    """
    # A step that a cell has on neither side is no departure of that cell.
    table = compared.pivot(index=["what", "at"], columns="cell", values="departure").fillna(0.0)
    found = {}
    for name, cells in members.items():
        ordered = -np.sort(-table[cells].to_numpy(), axis=1)
        found[name] = ordered[:, math.ceil(share * len(cells)) - 1]
    frame = pd.DataFrame(found, index=table.index).reset_index()
    return frame.melt(["what", "at"], list(found), var_name="group", value_name="departure")


def limits(clean: pd.DataFrame, members: Groups) -> pd.DataFrame:
    """Set limits from clean runs of many seeds and environments.

    Parameters
    ----------
    clean
        `departures` with a share of `SHARE`, one below the other, and a column ``engine``: ``same``, or ``other``
        where the engine is not that of the reference.
    members
        The groups.

    Returns
    -------
    pandas.DataFrame
        ``engine``, ``group``, ``what``, ``at``, ``limit``: the largest departure times `FACTOR`, at least `LEAST`.
        Single cells have one limit for all of them. For another engine, whatever either engine did counts.
    """
    alone = clean["group"].map(lambda name: len(members[name]) == 1)
    pooled = [clean[alone].assign(group=name) for name, cells in members.items() if len(cells) == 1]
    both = pd.concat([clean[~alone], *pooled])
    both = pd.concat([both[both["engine"] == "same"], both.assign(engine="other")])
    largest = both.groupby(["engine", "group", "what", "at"])["departure"].max()
    table = (FACTOR * largest).rename("limit").reset_index()
    least = np.where(table["what"].str.endswith("accuracy"), LEAST_ACCURACY, LEAST)
    return table.assign(limit=np.maximum(table["limit"], least))
