"""What a process that trains does: a run, or a short trial of one to foresee the time."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design import DatasetName, Run
from mnist_ablate.provenance import provenance
from mnist_ablate.train import TRAIN_SAMPLE, evaluate_weights, train

Trained = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]
"""The rows of a run, its predictions and its document: what `mnist_ablate.store.Store.write_run` takes."""

Weights = dict[str, NDArray[np.generic]]


@lru_cache(maxsize=2)
def _images(name: DatasetName) -> data.Images:
    return data.load(name)


def train_one(run: Run, nudge: int = 0) -> Trained:
    """Train `run` in this process, on images that it loads once; `nudge` as in `train.train`."""
    images = _images(run.settings.dataset)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    result = train(run, images, nudge=nudge) if nudge else train(run, images)
    document = {
        "provenance": provenance() | {"engine": run.engine, "started": started},
        "data_sha256": images.sha256,
        "weights_sha256": result.weights_sha256,
        "first_losses": result.first_losses,
    }
    return result.rows, result.predictions, document | ({"nudge": nudge} if nudge else {})


def final_weights(run: Run) -> Weights:
    """Train `run` and return its final weights and running statistics, by name."""
    return train(run, _images(run.settings.dataset)).weights


def evaluate(run: Run, weights: Weights) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Evaluate given weights as a run's are: the numbers by name, and what is said of each test image."""
    numbers, predictions = evaluate_weights(run, _images(run.settings.dataset), weights)
    return numbers, predictions["prediction"]


_TRIAL_STEPS = 30


def estimate_seconds(runs: list[Run]) -> float:
    """Estimate the core seconds that `runs` take, from a trial of each cell of a few steps on random images."""
    per_cell: dict[str, float] = {}
    for run in runs:
        if run.cell not in per_cell:
            per_cell[run.cell] = _estimate_one(run)
    return sum(per_cell[run.cell] for run in runs)


def _estimate_one(run: Run) -> float:
    _, train_labels, _, test_labels = data.DATASETS[run.settings.dataset]
    train_n, test_n = train_labels.shape[0], test_labels.shape[0]
    batch, held_out = run.settings.batch_size, run.settings.validation_fraction
    small_n = math.ceil(_TRIAL_STEPS * batch / (1 - held_out))
    shape = (small_n + 500, data.PIXELS)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(len(images), dtype=np.uint8) % data.CLASSES
    random = data.Images.from_arrays("trial", images[:small_n], labels[:small_n], images[small_n:], labels[small_n:])
    row = train(replace(run, settings=run.settings.model_copy(update={"epochs": 1})), random).rows[0]
    sample = min((1 - held_out) * small_n, TRAIN_SAMPLE)
    train_seconds = row["train_seconds"] * train_n / small_n
    eval_seconds = (
        row["eval_seconds"] * (TRAIN_SAMPLE + held_out * train_n + test_n) / (sample + held_out * small_n + 500)
    )
    return float(run.settings.epochs * (train_seconds + eval_seconds))
