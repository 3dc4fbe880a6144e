"""Golden runs against each other: departures of groups, and limits from clean ones."""

import gate_tables as tables
import numpy as np
import pandas as pd
import pytest

from mnist_ablate.gate.golden import FACTOR, LEAST, LEAST_ACCURACY, at_any_step, compare, departures, groups, limits

MEMBERS = groups(tables.CONTRASTS)


def at_step(table: pd.DataFrame, group: str, step: int = 20) -> float:
    """Give the departure, or the limit, of a group at a step."""
    row = table[(table["group"] == group) & (table["what"] == "step") & (table["at"] == step)]
    return float(row.iloc[:, -1].to_numpy()[0])


def test_groups_are_all_cells_both_sides_and_each_alone() -> None:
    """The groups are all cells, those with and without each technique, and each cell, the largest first."""
    assert MEMBERS["all cells"] == list(tables.CELLS)
    assert MEMBERS["cells with dropout"] == ["dropout", "l2+dropout"]
    assert MEMBERS["cells without dropout"] == ["baseline", "l2"]
    assert MEMBERS["cell l2"] == ["l2"]
    sizes = [len(cells) for cells in MEMBERS.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(MEMBERS) == 1 + 4 + 4


def test_a_departure_lasts() -> None:
    """A run that was off at one step counts as off from there on; what is missing or not finite is infinitely far."""
    trace = tables.trace()
    one = trace["value"].where(~((trace["what"] == "step") & (trace["at"] == 5)), trace["value"] + 0.5)
    found = departures(compare(trace.assign(value=one), trace), MEMBERS)
    assert at_step(found, "all cells", 4) == 0
    assert at_step(found, "all cells", 5) == pytest.approx(0.5)
    assert at_step(found, "all cells", 20) == pytest.approx(0.5)
    for gone in (trace[trace["at"] != 7], trace.assign(value=trace["value"].where(trace["at"] != 7))):
        assert at_step(departures(compare(gone, trace), MEMBERS), "all cells", 7) == np.inf


def test_a_group_departs_as_far_as_its_nearest_cell() -> None:
    """One cell off its course moves only its own group; all cells of a technique move that technique's."""
    one = departures(compare(tables.trace(0.1, ("dropout",)), tables.trace()), MEMBERS)
    assert at_step(one, "cell dropout") == pytest.approx(0.1)
    assert at_step(one, "cells with dropout") == 0
    both = departures(compare(tables.trace(0.1, ("dropout", "l2+dropout")), tables.trace()), MEMBERS)
    assert at_step(both, "cells with dropout") == pytest.approx(0.1)
    assert at_step(both, "all cells") == 0
    half = departures(compare(tables.trace(0.1, ("dropout",)), tables.trace()), MEMBERS, share=0.5)
    assert at_step(half, "cells with dropout") == pytest.approx(0.1)


def test_a_single_cell_may_leave_its_course_at_any_step_after_the_first() -> None:
    """A lone cell has its largest limit at every step but the first; groups, and other engines, keep their own."""
    members = {"all cells": ["a", "b"], "cell a": ["a"]}
    rows = [
        (engine, group, "step", at, factor * limit)
        for engine, factor in (("same", 1.0), ("other", 10.0))
        for group in members
        for at, limit in ((1, 1e-6), (2, 1e-5), (3, 1e-2))
    ]
    table = pd.DataFrame(rows, columns=["engine", "group", "what", "at", "limit"])
    widened = at_any_step(table, members).set_index(["engine", "group", "at"]).sort_index()["limit"]
    assert widened["same", "cell a"].tolist() == [1e-6, 1e-2, 1e-2]
    assert widened["other", "cell a"].tolist() == pytest.approx([1e-5, 1e-1, 1e-1])
    assert widened["same", "all cells"].tolist() == [1e-6, 1e-5, 1e-2]


def test_limits_are_a_multiple_of_the_worst_that_was_seen() -> None:
    """The limit is the factor times the largest clean departure over environments, and never below the least."""
    clean = [tables.trace(0.002, ("dropout",)), tables.trace(0.001, ("dropout", "l2")), tables.trace()]
    found = [departures(compare(trace, tables.trace()), MEMBERS, share=0.5).assign(engine="same") for trace in clean]
    table = limits(pd.concat(found), MEMBERS)
    same = table[table["engine"] == "same"].drop(columns="engine")
    assert at_step(same, "cells with dropout") == pytest.approx(FACTOR * 0.002)
    assert at_step(same, "all cells") == pytest.approx(FACTOR * 0.001)
    assert set(same[same["what"] == "test_accuracy"]["limit"]) == {LEAST_ACCURACY}
    assert set(same[same["what"] == "val_loss"]["limit"]) == {LEAST}


def test_single_cells_share_a_limit_and_engines_their_worst() -> None:
    """What one cell did by chance any other may; another engine may do what either did, the same one may not."""
    clean = departures(compare(tables.trace(0.002, ("l2",)), tables.trace()), MEMBERS, share=0.5)
    other = departures(compare(tables.trace(0.003), tables.trace()), MEMBERS, share=0.5)
    table = limits(pd.concat([clean.assign(engine="same"), other.assign(engine="other")]), MEMBERS)
    for engine, expected in (("same", 0.002), ("other", 0.003)):
        mine = table[table["engine"] == engine].drop(columns="engine")
        assert at_step(mine, "cell baseline") == at_step(mine, "cell l2") == pytest.approx(FACTOR * expected)
