"""The protocol: one run, from its specification to its numbers. No files, no printing, no global state."""

import hashlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.data import Images, replace_labels, split, training_size
from mnist_ablate.design.plan import Run
from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import permutation, stream, variant
from mnist_ablate.training.arithmetic import arithmetic, exact_mean
from mnist_ablate.training.engines import Engine, make_engine
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.perceptron import Perceptron
from mnist_ablate.training.probes import SAMPLE, Part, Shifts, Subject, look, part

TRAIN_SAMPLE = 10_000
"""Training images, the first in the split's random order, on which `train_loss_eval` is measured."""
FIRST_LOSSES = 200
"""Number of first steps whose losses are stored, to compare the courses of two runs."""


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Parameters
    ----------
    rows
        One dictionary per epoch, with the columns of `mnist_ablate.store.schema.EPOCH_COLUMNS`.
    predictions
        Columns of equal length, one value per test image: `test_index`, `label`, `prediction`, `confidence`.
    first_losses
        Training losses of at most `FIRST_LOSSES` first steps, in nats.
    weights_sha256
        Digest of the final weights and running statistics.
    probes
        The numbers of each probe of the trained network; None where a number is not finite, and everywhere in a run
        that diverged, since its rows are not those of its final weights.
    weights
        The final weights and running statistics, by name; NaN in a run that diverged.
    """

    rows: list[dict[str, Any]]
    predictions: dict[str, NDArray[Any]]
    first_losses: list[float]
    weights_sha256: str
    probes: dict[str, dict[str, float | None]]
    weights: dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss (nats) and accuracy (fraction) on some images, and its answer to each."""

    loss: float
    accuracy: float
    answers: Answers


@dataclass(frozen=True)
class _Task:
    """A run's images as tensors, and the rows to train and to validate on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    train_rows: Tensor
    val_rows: Tensor

    @classmethod
    def of(cls, run: Run, images: Images) -> "_Task":
        settings, n = run.settings, len(images.train_labels)
        used = training_size(settings, n)
        of_split = variant(run.seed, "split", settings.split_seed)
        train_rows, val_rows = split(n, of_split, settings.validation_fraction)
        train_rows, labels = train_rows[:used], images.train_labels
        if settings.label_noise:
            labels = replace_labels(labels, train_rows, settings.label_noise, of_split)
        return cls(
            _tensors(images.train_images, labels),
            _tensors(images.test_images, images.test_labels),
            torch.from_numpy(train_rows),
            torch.from_numpy(val_rows),
        )

    @property
    def sample(self) -> Part:
        """Return some training images as probes take them, and their labels."""
        rows = self.train_rows[:SAMPLE]
        return part(self.train[0][rows].numpy(), self.train[1][rows].numpy())


def _tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def train(run: Run, images: Images, *, nudge: int = 0) -> RunResult:
    """Train `run` on `images` and evaluate it after every epoch.

    The result depends on the arguments alone, whatever else ran in the process. Trained by the engine ``fused``, it has
    the same bits on every machine; by ``autograd``, on the same kind of machine with the same versions.

    Parameters
    ----------
    run, images
        The run, and the images to train it on.
    nudge
        Move all initial weights by this many units in the last place: the same experiment with other rounding, to
        measure what rounding does to results. The runs of a study have 0.

    Raises
    ------
    TrainingError
        If the settings do not fit the images.
    """
    with steady_arithmetic(run.engine):
        task = _Task.of(run, images)
        engine = make_engine(run.engine, run.settings, run.seed, run.folder)
        if nudge:
            engine.load({name: _nudged(values, nudge) for name, values in engine.weights().items()})
        losses: list[float] = []
        shifts = Shifts()
        rows, test = _epochs(run, task, engine, losses, shifts)
        diverged = rows[-1]["status"] == "diverged"
        found = no_probes(run) if diverged else _probe(run, task, engine, shifts)
        weights = _nowhere(engine.weights()) if diverged else engine.weights()
        first = losses[:FIRST_LOSSES]
        return RunResult(rows, _predictions(task, test), first, _sha256(weights), found, weights)


def _nowhere(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.generic]]:
    """Return NaN for all weights: which of them diverge first depends on how sums are arranged."""
    return {
        name: np.full_like(values, np.nan) if values.dtype.kind == "f" else values for name, values in weights.items()
    }


def _nudged(values: NDArray[Any], units: int) -> NDArray[Any]:
    """Move float32 values by about `units` in the last place; zeros and counts stay."""
    return values * np.float32(1 + units * 2.0**-23) if values.dtype == np.float32 else values


def evaluate_weights(
    run: Run, images: Images, weights: Mapping[str, NDArray[np.generic]]
) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Evaluate `weights` as `train` evaluates those of a run after an epoch.

    Returns
    -------
    tuple
        The five numbers of an evaluation by name, and the predictions, both as in `RunResult`.

    Raises
    ------
    TrainingError
        If the settings do not fit the images.
    """
    with steady_arithmetic(run.engine):
        task = _Task.of(run, images)
        engine = make_engine(run.engine, run.settings, run.seed, run.folder)
        engine.load(weights)
        numbers, test = _evaluate_all(task, engine, run.settings)
        return numbers, _predictions(task, test)


def no_probes(run: Run) -> dict[str, dict[str, float | None]]:
    """Return the probes of `run` with None for every number."""
    return {probe: dict.fromkeys(PROBES[probe]) for probe in run.probes}


def _probe(run: Run, task: _Task, engine: Engine, shifts: Shifts) -> dict[str, dict[str, float | None]]:
    """Take the probes of `run` at its final weights."""
    if not run.probes:
        return {}
    network = _network(run, engine)
    images, labels = task.test
    subject = Subject(network, run.seed, task.sample, part(images.numpy(), labels.numpy()))
    found: dict[str, dict[str, float]] = look(run.probes, subject)
    if "preactivations" in run.probes:
        found["preactivations"] = shifts.numbers(network)
    return {
        probe: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        for probe, numbers in found.items()
    }


def _network(run: Run, engine: Engine) -> Perceptron:
    """Return a copy of the network for probes."""
    return Perceptron(engine.weights(), run.settings, arithmetic(run.engine))


def _epochs(
    run: Run, task: _Task, engine: Engine, losses: list[float], shifts: Shifts
) -> tuple[list[dict[str, Any]], Evaluation]:
    """Train all epochs; return their rows and the last finite evaluation on the test images."""
    rows: list[dict[str, Any]] = []
    settings, numbers, test = run.settings, None, None
    batches = _batches(run, task.train_rows)
    steps = settings.epoch_steps or -(-len(task.train_rows) // settings.batch_size)
    for epoch in range(1, settings.epochs + 1):
        began = time.perf_counter()
        train_loss = _train_epoch(itertools.islice(batches, steps), task, engine, losses, settings.loss_mean)
        trained = time.perf_counter()
        new_numbers, new_test = _evaluate_all(task, engine, settings)
        seconds = {"train_seconds": trained - began, "eval_seconds": time.perf_counter() - trained}
        if not all(map(math.isfinite, [train_loss, *new_numbers.values()])):
            if numbers is None or test is None:  # no epoch to fall back on: evaluate the initial weights
                numbers, test = _evaluate_all(task, make_engine(run.engine, settings, run.seed, run.folder), settings)
            return rows + list(_diverged(epoch, settings.epochs, numbers, seconds)), test
        numbers, test = new_numbers, new_test
        if "preactivations" in run.probes:
            shifts.add(_network(run, engine), task.sample[0])
        rows.append({"epoch": epoch, "status": "ok", "train_loss": train_loss, **numbers, **seconds})
    assert test is not None  # noqa: S101  # there is at least one epoch
    return rows, test


def _diverged(first: int, last: int, numbers: dict[str, float], seconds: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Yield the rows from the epoch that diverged on: they repeat the last finite evaluation, and take no more time."""
    for epoch in range(first, last + 1):
        yield {"epoch": epoch, "status": "diverged", "train_loss": math.nan, **numbers, **seconds}
        seconds = dict.fromkeys(seconds, 0.0)


def _batches(run: Run, train_rows: Tensor) -> Iterator[Tensor]:
    """Yield batches of the training images, pass after pass, each in another order; a pass may end with a short one."""
    of_batches = variant(run.seed, "batches", run.settings.batch_seed)
    for passed in itertools.count(1):
        order = permutation(stream(of_batches, f"batches/{passed}"), len(train_rows))
        yield from torch.split(train_rows[torch.from_numpy(order)], run.settings.batch_size)


def _train_epoch(batches: Iterable[Tensor], task: _Task, engine: Engine, losses: list[float], mean: str) -> float:
    """Take a step on each batch; return the mean loss over images or over batches, as `mean` says.

    Append the loss of each step to `losses`. A loss that is not finite ends the epoch and is returned.
    """
    epoch = list(batches)
    of_steps = engine.train(*task.train, epoch)
    losses += of_steps
    if not math.isfinite(of_steps[-1]):
        return of_steps[-1]
    weights = [len(batch) if mean == "images" else 1 for batch in epoch]
    return math.fsum(loss * weight for loss, weight in zip(of_steps, weights, strict=True)) / sum(weights)


def _evaluate_all(task: _Task, engine: Engine, settings: Settings) -> tuple[dict[str, float], Evaluation]:
    how = settings.batch_size, settings.loss_mean
    sample = evaluate(engine, *task.train, task.train_rows[:TRAIN_SAMPLE], *how)
    val = evaluate(engine, *task.train, task.val_rows, *how)
    test = evaluate(engine, *task.test, torch.arange(len(task.test[1])), *how)
    numbers = {
        "train_loss_eval": sample.loss,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
    }
    return numbers, test


def evaluate(
    engine: Engine, images: Tensor, labels: Tensor, rows: Tensor, size: int = 64, mean: str = "images"
) -> Evaluation:
    """Evaluate the model on `rows` of `images`, uint8 (n, pixels), against `labels`, int64 (n,).

    The loss is the mean over ``"images"``, or over ``"batches"`` of `size` of their own means. Sums are correctly
    rounded.
    """
    answers = engine.answers(images, labels, rows, size)
    losses = answers.losses.tolist()
    if mean == "batches":
        losses = [exact_mean(losses[first : first + size]) for first in range(0, len(losses), size)]
    right = int((answers.predictions == labels[rows].numpy()).sum())
    return Evaluation(exact_mean(losses), right / len(rows), answers)


def _predictions(task: _Task, test: Evaluation) -> dict[str, NDArray[Any]]:
    labels = task.test[1].numpy()
    return {
        "test_index": np.arange(len(labels), dtype=np.int32),
        "label": labels.astype(np.uint8),
        "prediction": test.answers.predictions,
        "confidence": test.answers.confidences,
    }


def _sha256(weights: Mapping[str, NDArray[np.generic]]) -> str:
    sha = hashlib.sha256()
    for name, values in weights.items():
        sha.update(f"{name}:{values.dtype}:{values.shape}:".encode())
        sha.update(np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()


@contextmanager
def steady_arithmetic(engine: str = "fused") -> Iterator[None]:
    """Fix what could change the bits of a result, and restore it afterwards.

    One thread, because sums that are split over threads round differently; full float32 products. The engine ``fused``
    has subnormal numbers, as IEEE 754 defines them, and sets to 0 what would make them frequent. For ``autograd`` they
    are flushed to zero: Adam's moments have them from the first epochs on, and they make it several times slower.
    A notebook that trains in its own process may have set another default device, or train in half precision.
    """
    device = torch.get_default_device()
    if device.type != "cpu":
        torch.set_default_device(None)
    threads, precision, flushed = torch.get_num_threads(), torch.get_float32_matmul_precision(), _flushes_subnormals()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(engine == "autograd")
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        if device.type != "cpu":
            torch.set_default_device(device)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(flushed)


def _flushes_subnormals() -> bool:
    smallest_normal = torch.tensor([torch.finfo(torch.float32).tiny])
    return bool((smallest_normal / 2 == 0).item())
