"""Tables for the gate without training: runs, golden runs and a null bank with a known spread."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mnist_ablate.gate import golden
from mnist_ablate.gate.reference import Evidence, Reference, cell_contrasts, trace_table

CELLS = ("baseline", "dropout", "l2", "l2+dropout")
CONTRASTS = {
    "mean": dict.fromkeys(CELLS, 0.25),
    "l2": {"baseline": -0.5, "dropout": -0.5, "l2": 0.5, "l2+dropout": 0.5},
    "dropout": {"baseline": -0.5, "dropout": 0.5, "l2": -0.5, "l2+dropout": 0.5},
}
LEVELS = {"test_accuracy": 97.0, "val_loss": 0.1}
NOISE = {"test_accuracy": 0.1, "val_loss": 0.001}
STEPS = 20


def runs(seeds: Any, repeats: int = 1, *, noise: float = 1.0, rng: int = 0) -> pd.DataFrame:
    """Draw runs: a level per seed, which its repeats share, plus luck with the spread `NOISE` times `noise`."""
    generator = np.random.default_rng(rng)
    rows = [
        (cell, seed, response, level + 3 * NOISE[response] * own + noise * NOISE[response] * luck, repeat)
        for seed in seeds
        for response, level in LEVELS.items()
        for cell in CELLS
        for own in [_own_level(seed, cell)]
        for repeat in range(repeats)
        for luck in [generator.normal()]
    ]
    return pd.DataFrame(rows, columns=["cell", "seed", "response", "value", "repeat"])


@cache
def _own_level(seed: int, cell: str) -> float:
    return float(np.random.default_rng([seed, *map(ord, cell)]).normal())


def trace(off: float = 0.0, cells: tuple[str, ...] = CELLS, start: int = 1) -> pd.DataFrame:
    """Return golden runs whose losses are `off` their course in some cells, from step `start` on."""
    losses = {
        cell: [2.3 - 0.05 * step + (off if cell in cells and step >= start else 0.0) for step in range(1, STEPS + 1)]
        for cell in CELLS
    }
    row = {"epoch": 1, "train_loss": 1.9, "train_loss_eval": 1.0, "val_loss": 1.0, "test_loss": 1.0}
    return trace_table(losses, [(cell, row | {"val_accuracy": 0.8, "test_accuracy": 0.8}) for cell in CELLS])


def limits(spread: float = 1e-6) -> pd.DataFrame:
    """Return the limits of one clean environment in which half of the cells reached `spread`."""
    groups = golden.group_cells(CONTRASTS)
    compared = golden.side_by_side(trace(spread), trace())
    return golden.limits(golden.departures(compared, groups, share=0.5).assign(engine="same"), groups)


def reference(seeds: int = 4, repeats: int = 3, **rest: Any) -> Reference:
    """Return a reference of `seeds` seeds, with a null bank of 30 others."""
    evidence = Evidence(
        runs(range(seeds), repeats),
        trace(),
        {"test_loss": 0.1, "test_accuracy": 97.0},
        np.zeros(1000, np.uint8),
        {f"{cell}/{seed}": "0" for cell in CELLS for seed in range(seeds)},
        {"engine": "fused", "torch": "2"},
    )
    return Reference(evidence, runs(range(100, 130), repeats, rng=1), limits(), CONTRASTS, **rest)


def candidate(known: Reference, rng: int = 7, **changes: Any) -> Evidence:
    """Return clean evidence for `known` whose bits differ."""
    evidence = known.evidence
    seeds = sorted(evidence.runs["seed"].unique())
    fields = {name: getattr(evidence, name) for name in ("trace", "checkpoint", "predictions", "machine")}
    digests = dict.fromkeys(evidence.digests, "1")
    return Evidence(**{"runs": runs(seeds, rng=rng).drop(columns="repeat"), "digests": digests, **fields, **changes})


def moved(
    table: pd.DataFrame, by: float, response: str = "test_accuracy", cells: tuple[str, ...] = CELLS
) -> pd.DataFrame:
    """Shift a response in some cells."""
    where = (table["response"] == response) & table["cell"].isin(cells)
    return table.assign(value=table["value"] + by * where)


ALONE = cell_contrasts(CELLS)
