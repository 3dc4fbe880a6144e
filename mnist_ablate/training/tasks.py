"""The calls that a driver sends to workers.

This module loads almost nothing, and torch only within a call, so the driver never loads torch, and a worker never
loads what only the driver needs.
"""

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.design.responses import scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mnist_ablate.design.plan import Run
    from mnist_ablate.training.provenance import Provenance
    from mnist_ablate.training.worker import Outcome, Trained, Weights


def train_one(run: "Run", nudge: int = 0, device: str = "cpu") -> "Trained":
    """Train `run` in this process: see `worker.train_one`."""
    from mnist_ablate.training import worker

    return worker.train_one(run, nudge, device)


def card(run: "Run") -> "Provenance":
    """Return what card trains in this process, if `run` fits in its memory: see `worker.card`."""
    from mnist_ablate.training import worker

    return worker.card(run)


def torch_card(run: "Run") -> "tuple[str, int]":
    """Return what card torch has in this process, and how many runs at once: see `worker.torch_card`."""
    from mnist_ablate.training import worker

    return worker.torch_card(run)


def train_together(runs: "Sequence[Run]", say: "Callable[[int, int], None]") -> "Iterator[Outcome]":
    """Train runs on this process's card: see `worker.train_together`."""
    from mnist_ablate.training import worker

    return worker.train_together(runs, say)


def final_weights(run: "Run") -> "Weights":
    """Train `run` and return its final weights and running statistics by name."""
    from mnist_ablate.training import worker

    return worker.final_weights(run)


def evaluate_or_nothing(run: "Run", weights: "Weights") -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Evaluate `weights` as those of `run`; return the numbers by name, accuracies in percent, and the predictions.

    Return neither if the network no longer takes such weights, which the gate notices.
    """
    from mnist_ablate.training import worker

    try:
        numbers, predictions = worker.evaluate(run, weights)
    except (KeyError, ValueError, RuntimeError) as error:
        if failed_outside(error):
            raise
        return {}, np.empty(0, np.uint8)
    return {name: scale(name) * value for name, value in numbers.items()}, predictions


_NO_ROOM = ("allocate memory", "not enough memory", "start new thread", "cannot cache function")
"""What torch, Python and Numba say in a `RuntimeError` where they lack memory, or a folder to write to."""


def failed_outside(error: BaseException) -> bool:
    """Return whether a call failed because of its machine: disk, memory, worker, a library that cannot be loaded.

    Anything else was raised by the code that trains.
    """
    if isinstance(error, ImportError):
        return not (error.name or "").startswith("mnist_ablate")
    no_room = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_ROOM)
    return no_room or isinstance(error, OSError | MemoryError | SystemError | BrokenExecutor)
