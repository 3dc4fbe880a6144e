"""Results with planted changes, for comparisons."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mnist_ablate.design.study import parse_study
from mnist_ablate.store.results import Results

SMALL = parse_study(
    {
        "name": "two",
        "seeds": 12,
        "engine": "autograd",  # whose bits may differ
        "protocol": {"epochs": 2},
        "factors": {"dropout": [0.0, 0.2]},
    }
)


def moved(results: Results, response: str, by: Callable[[str, int], float], epoch: int = 2) -> Results:
    """Change a response in some epoch of every run, by what a function of cell and seed says."""
    epochs = results.epochs.copy()
    at = epochs["epoch"] == epoch
    epochs.loc[at, response] += [
        by(cell, seed) for cell, seed in zip(epochs["cell"][at], epochs["seed"][at], strict=True)
    ]
    return replace(results, folder=Path("moved"), epochs=epochs)


def noise(sd: float, mean: float = 0.0) -> Callable[[str, int], float]:
    """Make a change with a mean and standard deviation, the same for a cell and seed every time."""

    def of(cell: str, seed: int) -> float:
        return mean + sd * float(np.random.default_rng([len(cell), seed]).normal())

    return of
