"""The protocol: one run, from its specification to its numbers. No files, no printing, no global state."""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.data import Images, replace_labels, split, training_size
from mnist_ablate.design.plan import Run
from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import permutation, stream, variant
from mnist_ablate.training import cuda
from mnist_ablate.training.arithmetic import arithmetic, exact_mean, exact_sum
from mnist_ablate.training.engines import Engine, make_engine
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.perceptron import Perceptron
from mnist_ablate.training.probes import SAMPLE, Part, Shifts, Subject, look, part

TRAIN_SAMPLE = 10_000
"""Training images, the first in the split's random order, on which `train_loss_eval` is measured."""
_SOME = 1000
"""Images that `try_out` evaluates of each part: more than an engine takes at once."""
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


class Batches(NamedTuple):
    """The batches of an epoch, one after the other: rows of the training images, and the size of each."""

    rows: Tensor
    sizes: list[int]


@dataclass(frozen=True, eq=False)
class Task:
    """A run's images as tensors, and the rows to train and to validate on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    train_rows: Tensor
    val_rows: Tensor

    @classmethod
    def of(cls, run: Run, images: Images, divide: "Divide | None" = None) -> "Task":
        """Return the task of a run; `divide` does what `divided` does."""
        settings, of_split = run.settings, variant(run.seed, "split", run.settings.split_seed)
        used = training_size(settings, len(images.train_labels))
        return (divide or divided)(images, of_split, settings.validation_fraction, used, settings.label_noise)

    @property
    def parts(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        """Return images, labels and rows of what is evaluated: some training images, validation and test images."""
        test_rows = torch.arange(len(self.test[1]))
        return (*self.train, self.train_rows[:TRAIN_SAMPLE]), (*self.train, self.val_rows), (*self.test, test_rows)

    @cached_property
    def labels(self) -> list[Tensor]:
        """The labels of each of the parts."""
        return [labels[rows] for _, labels, rows in self.parts]

    @property
    def sample(self) -> Part:
        """Return some training images as probes take them, and their labels."""
        rows = self.train_rows[:SAMPLE]
        return part(self.train[0][rows].numpy(), self.train[1][rows].numpy())


def divided(images: Images, of_split: int, validation_fraction: float, used: int, label_noise: float) -> Task:
    """Return the task of runs with these settings: `of_split` is a seed, `used` how many images they train on."""
    train_rows, val_rows = split(len(images.train_labels), of_split, validation_fraction)
    train_rows, labels = train_rows[:used], images.train_labels
    if label_noise:
        labels = replace_labels(labels, train_rows, label_noise, of_split, images.sizes.classes)
    return Task(
        _tensors(images.train_images, labels),
        _tensors(images.test_images, images.test_labels),
        torch.from_numpy(train_rows),
        torch.from_numpy(val_rows),
    )


def order_of_images(of_batches: int, passed: int, n: int) -> NDArray[np.int64]:
    """Return the order of n images in a pass, counted from 1; `of_batches` is the seed of this part of chance."""
    return permutation(stream(of_batches, f"batches/{passed}"), n)


def ordered(task: Task, of_batches: int, passed: int) -> NDArray[np.int64]:
    """Return the rows to train on in the order of a pass; see `order_of_images`."""
    rows = task.train_rows.numpy()
    return rows[order_of_images(of_batches, passed, len(rows))]


Divide = Callable[[Images, int, float, int, float], Task]
Order = Callable[[Task, int, int], NDArray[np.int64]]


class Chance(NamedTuple):
    """What a run asks for its task, and for the order of its images in each pass."""

    divide: Divide = divided
    order: Order = ordered


def _tensors(images: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensor, Tensor]:
    if images.dtype != np.uint8:
        images = images.astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def train(run: Run, images: Images, *, nudge: int = 0, device: str = "cpu") -> RunResult:
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
    device
        What the engine ``autograd`` trains on: torch's name for the processor or a card.

    Raises
    ------
    TrainingError
        If the settings do not fit the images.
    """
    with steady_arithmetic(run.engine, device):
        course = Course(run, images)
        engine = make_engine(run.engine, run.settings, run.seed, run.folder, images.sizes, device)
        if nudge:
            engine.load({name: _nudged(values, nudge) for name, values in engine.weights().items()})
        while not course.ended:
            batches = course.batches()
            began = time.perf_counter()
            losses = engine.train(*course.task.train, torch.split(batches.rows, batches.sizes))
            trained = time.perf_counter()
            answers = _answers(course.task, engine, run.settings)
            seconds = trained - began, time.perf_counter() - trained
            course.add(batches, losses, answers, seconds, engine.weights)
        return course.result(engine.weights())


def try_out(run: Run, images: Images, device: str) -> None:
    """Take a step and evaluate some images as `train` does, to see what a run takes."""
    with steady_arithmetic(run.engine, device):
        begun = Course(run, images)
        engine = make_engine(run.engine, run.settings, run.seed, run.folder, images.sizes, device=device)
        batches = begun.batches()
        rows = batches.rows[: batches.sizes[0]]
        engine.train(*begun.task.train, [rows])
        for part in begun.task.parts:
            engine.answers(*part[:2], part[2][:_SOME], run.settings.batch_size)


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
        task = Task.of(run, images)
        engine = make_engine(run.engine, run.settings, run.seed, run.folder, images.sizes)
        engine.load(weights)
        numbers, test = _evaluation(task.labels, _answers(task, engine, run.settings), run.settings)
        return numbers, _predictions(task, test)


def no_probes(run: Run) -> dict[str, dict[str, float | None]]:
    """Return the probes of `run` with None for every number."""
    return {probe: dict.fromkeys(PROBES[probe]) for probe in run.probes}


class Course:
    """A run on its way: whatever trains it takes batches from here, epoch by epoch, and hands back what it found.

    Parameters
    ----------
    run, images
        As for `train`.
    chance
        What to ask for tasks and orders: whoever trains runs of one seed side by side need not make them twice.

    Raises
    ------
    TrainingError
        If the settings do not fit the images.
    """

    def __init__(self, run: Run, images: Images, chance: Chance | None = None) -> None:
        chance = chance or Chance()
        self.run, self.task, self._sizes = run, Task.of(run, images, chance.divide), images.sizes
        self.steps = steps_of_epoch(run.settings, len(self.task.train_rows))
        """Steps of an epoch."""
        self._batches = _batches(run, self.task, chance.order)
        self._rows: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._numbers: dict[str, float] = {}
        self._test: Evaluation | None = None
        """The last finite evaluation, and that of the test images."""
        self._shifts = Shifts() if "preactivations" in run.probes else None

    @property
    def ended(self) -> bool:
        """Whether there are no more epochs to train."""
        return len(self._rows) >= self.run.settings.epochs

    @property
    def done(self) -> int:
        """How many epochs are done; all of them where a run has diverged."""
        return len(self._rows)

    def batches(self) -> Batches:
        """Return the batches of the next epoch."""
        return next(self._batches)

    def add(
        self,
        batches: Batches,
        losses: Sequence[float],
        answers: Sequence[Answers],
        seconds: tuple[float, float],
        weights: Callable[[], Mapping[str, NDArray[np.generic]]],
    ) -> None:
        """Take an epoch.

        Parameters
        ----------
        batches
            The batches of the epoch.
        losses
            The loss of each step. One that is not finite, the last, ends the run: it has diverged.
        answers
            The network's answers to each of the `parts` of the task.
        seconds
            What training and evaluation took.
        weights
            Returns the weights after the epoch.
        """
        settings, epoch = self.run.settings, len(self._rows) + 1
        self._losses += losses[: FIRST_LOSSES - len(self._losses)]
        train_loss = _train_loss(batches.sizes, losses, settings.loss_mean)
        numbers, test = _evaluation(self.task.labels, answers, settings)
        timed = dict(zip(("train_seconds", "eval_seconds"), seconds, strict=True))
        if all(map(math.isfinite, [train_loss, *numbers.values()])):
            self._numbers, self._test = numbers, test
            if self._shifts is not None:
                self._shifts.add(_network(self.run, weights()), self.task.sample[0])
            self._rows.append({"epoch": epoch, "status": "ok", "train_loss": train_loss, **numbers, **timed})
            return
        if self._test is None:  # no epoch to fall back on: evaluate the initial weights
            engine = make_engine(self.run.engine, settings, self.run.seed, self.run.folder, self._sizes)
            self._numbers, self._test = _evaluation(self.task.labels, _answers(self.task, engine, settings), settings)
        self._rows += _diverged(epoch, settings.epochs, self._numbers, timed)

    def result(self, weights: Mapping[str, NDArray[np.generic]]) -> RunResult:
        """Return the outcome, once the run has `ended`, with these final weights."""
        assert self._test is not None  # noqa: S101  # there is at least one epoch
        diverged = self._rows[-1]["status"] == "diverged"
        found = no_probes(self.run) if diverged else self._probe(weights)
        weights = _nowhere(weights) if diverged else dict(weights)
        predictions = _predictions(self.task, self._test)
        return RunResult(self._rows, predictions, self._losses, _sha256(weights), found, weights)

    def _probe(self, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, dict[str, float | None]]:
        """Take the probes of the run at its final weights."""
        run, task = self.run, self.task
        if not run.probes:
            return {}
        network = _network(run, weights)
        images, labels = task.test
        subject = Subject(network, run.seed, task.sample, part(images.numpy(), labels.numpy()))
        found: dict[str, dict[str, float]] = look(run.probes, subject)
        if self._shifts is not None:
            found["preactivations"] = self._shifts.numbers(network)
        return {
            probe: {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            for probe, numbers in found.items()
        }


def _network(run: Run, weights: Mapping[str, NDArray[np.generic]]) -> Perceptron:
    """Return the network for probes."""
    return Perceptron(weights, run.settings, arithmetic(run.engine))


def _diverged(first: int, last: int, numbers: dict[str, float], seconds: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Yield the rows from the epoch that diverged on: they repeat the last finite evaluation, and take no more time."""
    for epoch in range(first, last + 1):
        yield {"epoch": epoch, "status": "diverged", "train_loss": math.nan, **numbers, **seconds}
        seconds = dict.fromkeys(seconds, 0.0)


def steps_of_epoch(settings: Settings, n: int) -> int:
    """Return the steps of an epoch: those that are asked for, or a pass through `n` images."""
    return settings.epoch_steps or -(-n // settings.batch_size)


def _batches(run: Run, task: Task, order: Order) -> Iterator[Batches]:
    """Yield the batches of each epoch, pass after pass, each in another order; a pass may end with a short one."""
    of_batches, size = variant(run.seed, "batches", run.settings.batch_seed), run.settings.batch_size
    n = len(task.train_rows)
    of_pass = [size] * (n // size) + [n % size] * (n % size > 0)
    steps = steps_of_epoch(run.settings, n)
    left = np.empty(0, np.int64)
    sizes: list[int] = []
    for passed in itertools.count(1):
        rows = order(task, of_batches, passed)
        left, sizes = np.concatenate([left, rows]) if len(left) else rows, sizes + of_pass
        while len(sizes) >= steps:
            now, sizes = sizes[:steps], sizes[steps:]
            yield Batches(torch.from_numpy(left[: sum(now)]), now)
            left = left[sum(now) :]


def _train_loss(sizes: Sequence[int], losses: Sequence[float], mean: str) -> float:
    """Return the mean loss of an epoch over images or over batches, as `mean` says; one that is not finite stays."""
    if not math.isfinite(losses[-1]):
        return losses[-1]
    if mean == "batches":
        return exact_mean(np.array(losses))
    return exact_sum(np.multiply(losses, sizes, dtype=np.float64)) / sum(sizes)


def _answers(task: Task, engine: Engine, settings: Settings) -> list[Answers]:
    return [engine.answers(*part, settings.batch_size) for part in task.parts]


def _evaluation(
    labels: Sequence[Tensor], answers: Sequence[Answers], settings: Settings
) -> tuple[dict[str, float], Evaluation]:
    """Return the five numbers of an evaluation, and that of the test images."""
    sample, val, test = (
        judged(answer, own, settings.batch_size, settings.loss_mean)
        for answer, own in zip(answers, labels, strict=True)
    )
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
    return judged(engine.answers(images, labels, rows, size), labels[rows], size, mean)


def judged(answers: Answers, labels: Tensor, size: int, mean: str) -> Evaluation:
    """Return loss and accuracy of the network's answers to images with these labels, as `evaluate` does."""
    losses = answers.losses
    if mean == "batches":
        each = losses.tolist()
        losses = np.array([exact_mean(each[first : first + size]) for first in range(0, len(each), size)])
    right = int((answers.predictions == labels.numpy()).sum())
    return Evaluation(exact_mean(losses), right / len(labels), answers)


def _predictions(task: Task, test: Evaluation) -> dict[str, NDArray[Any]]:
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
        sha.update(np.ascontiguousarray(values).data)
    return sha.hexdigest()


@contextmanager
def steady_arithmetic(engine: str = "fused", device: str = "cpu") -> Iterator[None]:
    """Fix what could change the bits of a result, and restore it afterwards.

    One thread, because sums that are split over threads round differently; full float32 products. The engine ``fused``
    has subnormal numbers, as IEEE 754 defines them, and sets to 0 what would make them frequent. For ``autograd`` they
    are flushed to zero: Adam's moments have them from the first epochs on, and they make it several times slower.
    A notebook that trains in its own process may have set another default device, or train in half precision.
    """
    default = torch.get_default_device()
    if default.type != "cpu":
        torch.set_default_device(None)
    threads, precision, flushed = torch.get_num_threads(), torch.get_float32_matmul_precision(), _flushes_subnormals()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(engine == "autograd")
    try:
        with torch.autocast("cpu", enabled=False), nullcontext() if device == "cpu" else cuda.steady():
            yield
    finally:
        if default.type != "cpu":
            torch.set_default_device(default)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(flushed)


def _flushes_subnormals() -> bool:
    smallest_normal = torch.tensor([torch.finfo(torch.float32).tiny])
    return bool((smallest_normal / 2 == 0).item())
