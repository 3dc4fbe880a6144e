"""A training of the user's own: a function that yields the metrics of each epoch; nothing is known of it but these.

It is called as ``function(settings, seed, data)``, where `data` is a `TrainingData`.
"""

import importlib
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_ablate.data import Images, replace_labels, split, training_size
from mnist_ablate.design.metrics import Expected
from mnist_ablate.design.own_code import looking_in, own_function
from mnist_ablate.design.plan import OWN, Run
from mnist_ablate.design.streams import derive, permutation, stream, variant
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.protocol import steady_arithmetic

Part = tuple[NDArray[Any], NDArray[Any]]
"""Inputs and targets, (n, ...) each."""
_END = object()


class TrainingData:
    """What a training of the user's own gets: data that are split by the seed, and named streams of chance.

    Whatever is taken from here is the same in all cells of a study that have the same seed, so it is paired. Settings
    such as ``validation_fraction``, ``train_images``, ``label_noise`` and ``split_seed`` act as in any other study.

    Parameters
    ----------
    run
        The run.
    images
        The data set.
    """

    def __init__(self, run: Run, images: Images) -> None:
        settings, n = run.settings, len(images.train_images)
        self._run, self._images = run, images
        of_split = variant(run.seed, "split", settings.split_seed)
        used = training_size(settings.model_copy(update={"batch_norm": False}), n)  # which may be no BatchNorm here
        rows, self._held_out = split(n, of_split, settings.validation_fraction)
        self._rows, self._labels = rows[:used], images.train_labels
        if settings.label_noise:
            classes = images.sizes.classes
            self._labels = replace_labels(self._labels, self._rows, settings.label_noise, of_split, classes)

    @cached_property
    def train(self) -> Part:
        """The inputs and targets to train on."""
        return self._images.train_images[self._rows], self._labels[self._rows]

    @cached_property
    def validation(self) -> Part:
        """The inputs and targets that were held out, for choices."""
        return self._images.train_images[self._held_out], self._labels[self._held_out]

    @cached_property
    def test(self) -> Part:
        """The inputs and targets to report on, and for no choice."""
        return np.array(self._images.test_images), np.array(self._images.test_labels)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which to go through the training data in an epoch, counted from 1."""
        of_batches = variant(self._run.seed, "batches", self._run.settings.batch_seed)
        return permutation(stream(of_batches, f"batches/{epoch}"), len(self._rows))

    def generator(self, name: str) -> np.random.Generator:
        """Return the random generator of a part of chance, such as ``"init"``, at its beginning.

        Each name has a stream of its own. The setting ``init_seed`` draws ``"init"`` anew, and ``dropout_seed``
        ``"dropout"``.
        """
        settings = self._run.settings
        number = {"init": settings.init_seed, "dropout": settings.dropout_seed}.get(name, 0)
        return np.random.Generator(stream(variant(self._run.seed, name, number), f"own/{name}"))


def train_own(run: Run, images: Images, luck: int = 0) -> list[dict[str, Any]]:
    """Train `run` by the user's function, and return a row for each epoch.

    Python's, numpy's and torch's global generators are seeded from the run's seed, and left as they were: a function
    that draws from them gives the same numbers whatever else the process does.

    Parameters
    ----------
    run, images
        The run, and the data set to train it on.
    luck
        Repeat the run with other luck: `seed` and the global generators are others, while the data are split and
        ordered as before. The runs of a study have 0.

    Raises
    ------
    TrainingError
        If the function yields something else than the study's metrics, once for each epoch.
    """
    name, chance = run.settings.train, _Chance(derive(run.seed, f"train/{luck}"))
    seed = derive(run.seed, f"luck/{luck}") % 2**31 if luck else run.seed
    function = own_function(name, run.folder, "train", run.planned_code)
    rows: list[dict[str, Any]] = []
    with steady_arithmetic(OWN), _one_thread(), looking_in(run.folder):
        with chance.at_work():
            yielded = _epochs(function(run.settings, seed, TrainingData(run, images)), name)
        while True:
            began = time.perf_counter()
            with chance.at_work():
                given = next(yielded, _END)
            if given is _END:
                break
            epoch, seconds = len(rows) + 1, time.perf_counter() - began
            if epoch > run.settings.epochs:
                raise TrainingError(f"train = {name!r}: {_number(run)}, but yielded more. Take settings.epochs.")
            metrics = _checked(given, run.metrics, f"train = {name!r}: epoch {epoch}")
            rows.append({"epoch": epoch, "status": "ok", **metrics, "train_seconds": seconds})
    if len(rows) < run.settings.epochs:
        raise TrainingError(f"train = {name!r}: {_number(run)}, but yielded {len(rows) or 'nothing'}.")
    return rows


def _number(run: Run) -> str:
    return f"must yield once for each epoch, {run.settings.epochs} times (epochs in the study file)"


def _epochs(made: Any, name: str) -> Iterator[Any]:
    if isinstance(made, Mapping | str) or not isinstance(made, Iterable):
        raise TrainingError(
            f"train = {name!r}: returned {type(made).__name__}, and must yield a dictionary of metrics for each epoch: "
            "write yield in place of return."
        )
    return iter(made)


def _checked(given: Any, metrics: Sequence[Expected], where: str) -> dict[str, float]:
    """Return the metrics of an epoch as numbers."""
    if not isinstance(given, Mapping):
        raise TrainingError(f"{where}: yielded {type(given).__name__}, and must yield a dictionary of metrics.")
    names = [metric.name for metric in metrics]
    lacking, unknown = [n for n in names if n not in given], [str(n) for n in given if n not in names]
    if lacking or unknown:
        wrong = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has {', '.join(unknown)}"] * bool(unknown)
        raise TrainingError(
            f"{where}: the dictionary {' and '.join(wrong)}; the study's [metrics] are {', '.join(names)}, and each "
            "epoch must have these and no others."
        )
    return {metric.name: _value(given[metric.name], metric, where) for metric in metrics}


def _value(given: Any, metric: Expected, where: str) -> float:
    value = _number_of(given)
    if value is None:
        raise TrainingError(f"{where}: {metric.name} is {given!r}, and must be a number.")
    if not math.isfinite(value):
        raise TrainingError(f"{where}: {metric.name} is {value}. A run whose metrics are not finite has failed.")
    if metric.yes_no and value not in (0, 1):
        raise TrainingError(
            f"{where}: {metric.name} is {value:g}, and must be 0 or 1, as yes_no in the study file says."
        )
    if not metric.low <= value <= metric.high:
        raise TrainingError(
            f"{where}: {metric.name} is {value:g}, outside of its range in the study file, {metric.low:g} to "
            f"{metric.high:g}."
        )
    return value


def _number_of(given: Any) -> float | None:
    """Return a number of any library as a float; None if it is none, as text is, even if it reads like one."""
    try:
        return None if isinstance(given, str) else float(given)
    except (TypeError, ValueError, RuntimeError):
        return None


class _Chance:
    """The state of the global generators of a run, set around each of its steps."""

    def __init__(self, seed: int) -> None:
        with self._restored():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 # what the user's code may draw from
            torch.manual_seed(seed % 2**63)
            self._own = self._state()

    @staticmethod
    def _state() -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    @staticmethod
    def _set(state: tuple[Any, Any, Any]) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])

    @contextmanager
    def _restored(self) -> Iterator[None]:
        before = self._state()
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the run draw from the global generators within the block."""
        with self._restored():
            self._set(self._own)
            try:
                yield
            finally:
                self._own = self._state()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep numpy's and scikit-learn's libraries to one thread, as torch is, where threadpoolctl is installed.

    Each worker has a core; and sums that are split over threads round differently.
    """
    with ExitStack() as limits:
        try:
            threadpoolctl = importlib.import_module("threadpoolctl")
        except ImportError:
            limits.enter_context(nullcontext())
        else:
            limits.enter_context(threadpoolctl.threadpool_limits(1))
        yield
