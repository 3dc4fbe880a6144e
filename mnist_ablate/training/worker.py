"""What a process that trains does: train a run, return its final weights, or evaluate given ones."""

import threading
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.training.protocol import evaluate_weights, train
from mnist_ablate.training.provenance import provenance

Trained = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]
"""The rows of a run, its predictions and its document: what `mnist_ablate.store.folder.Store.write_run` takes."""

Weights = dict[str, NDArray[np.generic]]

_ONE_AT_A_TIME = threading.Lock()
"""Held while a run trains: thread count, flushing of subnormals and torch's generator belong to the whole process."""


@lru_cache(maxsize=2)
def _images(name: DatasetName) -> data.Images:
    return data.load(name)


def train_one(run: Run, nudge: int = 0) -> Trained:
    """Train `run` in this process, on images that are loaded once; `nudge` as in `protocol.train`.

    Threads of one process train one run after the other: the results are right, and come no faster.
    """
    made_by = provenance()  # first: what cannot be told must not cost a trained run
    with _ONE_AT_A_TIME:
        images = _images(run.settings.dataset)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        result = train(run, images, nudge=nudge) if nudge else train(run, images)
    document = {
        "provenance": made_by | {"engine": run.engine, "started": started},
        "data_sha256": images.sha256,
        "weights_sha256": result.weights_sha256,
        "first_losses": result.first_losses,
        **({"probes": result.probes} if run.probes else {}),
        **({"nudge": nudge} if nudge else {}),
    }
    return result.rows, result.predictions, document


def final_weights(run: Run) -> Weights:
    """Train `run` and return its final weights and running statistics by name."""
    return train(run, _images(run.settings.dataset)).weights


def evaluate(run: Run, weights: Weights) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Evaluate `weights` as those of `run`; return the numbers by name and the prediction for each test image."""
    numbers, predictions = evaluate_weights(run, _images(run.settings.dataset), weights)
    return numbers, predictions["prediction"]
