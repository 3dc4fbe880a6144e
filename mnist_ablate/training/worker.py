"""What a process that trains does: a run, or a short trial of one to foresee the time."""

import math
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.training.probes import SAMPLE, Subject, look, moments, network_of
from mnist_ablate.training.protocol import TRAIN_SAMPLE, evaluate_weights, steady_arithmetic, train
from mnist_ablate.training.provenance import provenance

Trained = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]
"""The rows of a run, its predictions and its document: what `mnist_ablate.store.folder.Store.write_run` takes."""

Weights = dict[str, NDArray[np.generic]]


_ONE_AT_A_TIME = threading.Lock()
"""Held while a run is trained: what fixes its arithmetic is in part the whole process's, as torch's generator is."""


@lru_cache(maxsize=2)
def _images(name: DatasetName) -> data.Images:
    return data.load(name)


def train_one(run: Run, nudge: int = 0) -> Trained:
    """Train `run` in this process, on images that it loads once; `nudge` as in `train.train`.

    In an executor with threads one run is trained after the other: it is right there, and no faster.
    """
    with _ONE_AT_A_TIME:
        images = _images(run.settings.dataset)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        result = train(run, images, nudge=nudge) if nudge else train(run, images)
    document = {
        "provenance": provenance() | {"engine": run.engine, "started": started},
        "data_sha256": images.sha256,
        "weights_sha256": result.weights_sha256,
        "first_losses": result.first_losses,
        **({"probes": result.probes} if run.probes else {}),
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
_INK = 0.19
"""Share of MNIST's pixels that are not black, on which the time of the engine ``fused`` depends."""


def estimate_seconds(runs: list[Run]) -> float:
    """Estimate the core seconds that `runs` take, from a trial of each cell of a few steps on random images."""
    per_cell: dict[str, float] = {}
    for run in runs[:1]:
        _estimate_one(run)  # the first in a process compiles, or reads what was compiled
    for run in runs:
        if run.cell not in per_cell:
            per_cell[run.cell] = _estimate_one(run)
    return sum(per_cell[run.cell] for run in runs)


def _estimate_one(run: Run) -> float:
    _, train_labels, _, test_labels = data.DATASETS[run.settings.dataset]
    train_n, test_n = train_labels.shape[0], test_labels.shape[0]
    settings = run.settings
    used, held_out = data.training_size(settings, train_n), settings.validation_fraction
    trial = settings.model_copy(update={"epochs": 1, "train_images": 0, "epoch_steps": 0})
    small_n = math.ceil(_TRIAL_STEPS * settings.batch_size / (1 - held_out))
    if trial.batch_norm and round(small_n * (1 - held_out)) % trial.batch_size == 1:
        small_n += math.ceil(2 / (1 - held_out))
    shape = (small_n + 500, data.PIXELS)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, shape, dtype=np.uint8)
    images[generator.random(shape) > _INK] = 0
    labels = np.arange(len(images), dtype=np.uint8) % data.CLASSES
    random = data.Images.from_arrays("trial", images[:small_n], labels[:small_n], images[small_n:], labels[small_n:])
    row = train(replace(run, settings=trial, probes=()), random).rows[0]
    steps = settings.epoch_steps or math.ceil(used / settings.batch_size)
    train_seconds = row["train_seconds"] * steps / _TRIAL_STEPS
    evaluated = min((1 - held_out) * small_n, TRAIN_SAMPLE) + held_out * small_n + 500
    eval_seconds = row["eval_seconds"] * (min(used, TRAIN_SAMPLE) + held_out * train_n + test_n) / evaluated
    return float(settings.epochs * (train_seconds + eval_seconds)) + _probe_seconds(run, random, test_n)


def _probe_seconds(run: Run, random: data.Images, test_n: int) -> float:
    """Estimate what the probes of `run` take, from one look at an untrained network.

    Those that answer the test images are taken on those of the trial, `random`, and scaled to `test_n`; the others look
    at a sample of fixed size, once or after each epoch.
    """
    if not run.probes:
        return 0.0
    network = network_of({}, run.settings, run.seed)
    n = len(random.test_labels)
    images = torch.from_numpy(np.resize(random.test_images, (SAMPLE, data.PIXELS))).float() / 255
    labels = torch.from_numpy(np.resize(random.test_labels, SAMPLE).astype(np.int64))
    subject = Subject(network, run.seed, (images, labels), (images[:n], labels[:n]))
    seconds = 0.0
    with steady_arithmetic():
        for probe in run.probes:
            began = time.perf_counter()
            if probe == "preactivations":
                moments(network, images)
            else:
                look([probe], subject)
            times = run.settings.epochs if probe == "preactivations" else test_n / n if probe in _OF_TEST else 1
            seconds += times * (time.perf_counter() - began)
    return seconds


_OF_TEST = ("removal", "sampling", "calibration")
"""Probes that answer all test images."""
