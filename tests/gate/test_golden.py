"""Golden runs: how far groups depart from the reference, and the limits that clean runs set."""

import gate_tables as tables
import numpy as np
import pandas as pd
import pytest

from mnist_ablate.gate.golden import (
    FACTOR,
    LEAST,
    LEAST_ACCURACY,
    at_any_step,
    departures,
    group_cells,
    limits,
    side_by_side,
)

GROUPS = group_cells(tables.CONTRASTS)


def at_step(table: pd.DataFrame, group: str, step: int = 20) -> float:
    """Return the departure, or the limit, of a group at a step."""
    row = table[(table["group"] == group) & (table["what"] == "step") & (table["at"] == step)]
    return float(row.iloc[:, -1].to_numpy()[0])


def test_groups_are_all_cells_both_sides_and_each_alone() -> None:
    """The groups are all cells, those with and without each technique, and each cell, the largest first."""
    assert GROUPS["all cells"] == list(tables.CELLS)
    assert GROUPS["cells with dropout"] == ["dropout", "l2+dropout"]
    assert GROUPS["cells without dropout"] == ["baseline", "l2"]
    assert GROUPS["cell l2"] == ["l2"]
    sizes = [len(cells) for cells in GROUPS.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(GROUPS) == 1 + 4 + 4


def test_a_departure_lasts() -> None:
    """A departure counts from its step on; a missing or infinite value is infinitely far away."""
    trace = tables.trace()
    shifted = trace["value"].where(~((trace["what"] == "step") & (trace["at"] == 5)), trace["value"] + 0.5)
    table = departures(side_by_side(trace.assign(value=shifted), trace), GROUPS)
    assert at_step(table, "all cells", 4) == 0
    assert at_step(table, "all cells", 5) == pytest.approx(0.5)
    assert at_step(table, "all cells", 20) == pytest.approx(0.5)
    for gone in (trace[trace["at"] != 7], trace.assign(value=trace["value"].where(trace["at"] != 7))):
        assert at_step(departures(side_by_side(gone, trace), GROUPS), "all cells", 7) == np.inf


def test_a_group_departs_as_far_as_its_nearest_cell() -> None:
    """One cell off its course moves only its own group; all cells of a technique move that technique's."""
    one = departures(side_by_side(tables.trace(0.1, ("dropout",)), tables.trace()), GROUPS)
    assert at_step(one, "cell dropout") == pytest.approx(0.1)
    assert at_step(one, "cells with dropout") == 0
    both = departures(side_by_side(tables.trace(0.1, ("dropout", "l2+dropout")), tables.trace()), GROUPS)
    assert at_step(both, "cells with dropout") == pytest.approx(0.1)
    assert at_step(both, "all cells") == 0
    half = departures(side_by_side(tables.trace(0.1, ("dropout",)), tables.trace()), GROUPS, share=0.5)
    assert at_step(half, "cells with dropout") == pytest.approx(0.1)


def test_a_single_cell_may_leave_its_course_at_any_step_after_the_first() -> None:
    """A lone cell has its largest limit at every step but the first; groups, and other engines, keep their own."""
    groups = {"all cells": ["a", "b"], "cell a": ["a"]}
    rows = [
        (engine, group, "step", at, factor * limit)
        for engine, factor in (("same", 1.0), ("other", 10.0))
        for group in groups
        for at, limit in ((1, 1e-6), (2, 1e-5), (3, 1e-2))
    ]
    table = pd.DataFrame(rows, columns=["engine", "group", "what", "at", "limit"])
    widened = at_any_step(table, groups).set_index(["engine", "group", "at"]).sort_index()["limit"]
    assert widened["same", "cell a"].tolist() == [1e-6, 1e-2, 1e-2]
    assert widened["other", "cell a"].tolist() == pytest.approx([1e-5, 1e-1, 1e-1])
    assert widened["same", "all cells"].tolist() == [1e-6, 1e-5, 1e-2]


def test_limits_are_a_multiple_of_the_worst_that_was_seen() -> None:
    """A limit is a multiple of the largest clean departure in any environment, and never below the least."""
    clean = [tables.trace(0.002, ("dropout",)), tables.trace(0.001, ("dropout", "l2")), tables.trace()]
    compared = [side_by_side(trace, tables.trace()) for trace in clean]
    reached = [departures(table, GROUPS, share=0.5).assign(engine="same") for table in compared]
    table = limits(pd.concat(reached), GROUPS)
    same = table[table["engine"] == "same"].drop(columns="engine")
    assert at_step(same, "cells with dropout") == pytest.approx(FACTOR * 0.002)
    assert at_step(same, "all cells") == pytest.approx(FACTOR * 0.001)
    assert set(same[same["what"] == "test_accuracy"]["limit"]) == {LEAST_ACCURACY}
    assert set(same[same["what"] == "val_loss"]["limit"]) == {LEAST}


def test_single_cells_share_a_limit_and_engines_their_worst() -> None:
    """All single cells share a limit; another engine may depart as far as either engine did."""
    clean = departures(side_by_side(tables.trace(0.002, ("l2",)), tables.trace()), GROUPS, share=0.5)
    other = departures(side_by_side(tables.trace(0.003), tables.trace()), GROUPS, share=0.5)
    table = limits(pd.concat([clean.assign(engine="same"), other.assign(engine="other")]), GROUPS)
    for engine, expected in (("same", 0.002), ("other", 0.003)):
        own = table[table["engine"] == engine].drop(columns="engine")
        assert at_step(own, "cell baseline") == at_step(own, "cell l2") == pytest.approx(FACTOR * expected)
