"""The measurement on scikit-learn's digits: its fast gate is the real one, and its bugs are planted."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mnist_ablate.gate.judge import judge
from mnist_ablate.gate.reference import Reference

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gate"))
import elsewhere_digits as script  # it is not part of the package


def table(values: Any) -> pd.DataFrame:
    """Return values in the shape (seeds, repeats, cells, metrics) as a table."""
    rows = [
        (cell, seed, repeat, metric, values[seed, repeat, i, j])
        for i, cell in enumerate(script.CELLS)
        for seed in range(values.shape[0])
        for repeat in range(values.shape[1])
        for j, metric in enumerate(script.METRICS)
    ]
    return pd.DataFrame(rows, columns=["cell", "seed", "repeat", "response", "value"])


@pytest.mark.parametrize("repeats", [1, script.REPEATS])
def test_the_fast_gate_is_the_real_one(repeats: int) -> None:
    """Outcomes are those of the package, from no shift to a large one, with repeats and without."""
    rng, outcomes = np.random.default_rng(0), []
    for by in (0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 9.0):
        accepted = rng.normal([97.0, 0.1], [0.5, 0.01], (script.SEEDS, repeats, 2, 2))
        now = rng.normal([97.0, 0.1], [0.5, 0.01], (script.SEEDS, 2, 2)) - [by / 2, 0.0]
        verdict = judge(table(now[:, None]), Reference.of_tables(table(accepted)))
        assert script._drawn_gate(now, accepted) == verdict.outcome
        outcomes.append(verdict.outcome)
    assert {"pass", "fail"} <= set(outcomes)


def test_every_bug_changes_the_training() -> None:
    """Each bug has a name of its own, and changes the result of a seed; so do the harmless changes."""
    names = [bug.name for bug in (*script.BUGS, *script.CLEAN)]
    assert len(set(names)) == len(names)
    assert len(script.BUGS) >= 10
    plain = script.train("narrow", 3, 0)
    changed = {name: script.train("narrow", 3, 0, name) for name in names}
    assert {name for name, result in changed.items() if result == plain} == {script.LUCK.name}
    assert script.train("narrow", 3, 1) != plain


def test_clean_gates_pass_and_a_simulation_counts() -> None:
    """Drawn from clean runs, few gates raise an alarm, and counts add up."""
    pool = table(np.random.default_rng(1).normal([97.0, 0.1], [0.5, 0.01], (40, script.REPEATS + 1, 2, 2)))
    frame = script.simulate(pool, 200, np.random.default_rng(2))
    assert frame["way"].tolist() == ["gate", "without repeats"]
    assert (frame["alarms"] <= 4).all()
    assert (frame["alarms"] + frame["unsure"] < 60).all()
