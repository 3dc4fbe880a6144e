"""Many runs at once on a card: each a block of threads, an epoch at a time, as many as memory holds, in waves."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_ablate.data import Images, split
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import DeviceError
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.card.compiler import machine_code
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import dtype
from mnist_ablate.training.engines.card.memory import THREADS, OnCard, jumps
from mnist_ablate.training.model import mlp
from mnist_ablate.training.protocol import Batches, Chance, Course, RunResult, order_of_images, steady_arithmetic

KERNEL = "train_epoch"
_SPARE = 256 * 2**20
"""Bytes of the card's memory that are left for the driver."""

Found = tuple[Run, RunResult | Exception]


class Trainer:
    """Trains runs on a card.

    Parameters
    ----------
    card
        The card.
    code
        Machine code of the kernels; by default they are compiled for the card.
    """

    def __init__(self, card: Card, code: bytes | None = None) -> None:
        self._card = card
        code = machine_code(card.capability, card.driver_version) if code is None else code
        self._kernel = card.load(code, KERNEL)
        self._records = 0  # where the records of a wave lie

    def train(
        self, runs: Sequence[Run], images: Images, say: Callable[[int, int], None] = lambda _done, _all: None
    ) -> Iterator[Found]:
        """Train runs on images, and yield each with its result, or what went wrong, as soon as it has ended.

        Parameters
        ----------
        runs
            Runs of the engine ``fused``, all on the same images.
        images
            The images.
        say
            Hears after each epoch how many model-epochs are done, and of how many.

        Raises
        ------
        DeviceError
            If not even one run fits in the card's memory.
        """
        kept = functools.lru_cache(maxsize=256)  # runs of one seed have the same
        chance = Chance(kept(split), kept(order_of_images))
        left, done, total = list(runs), 0, sum(run.settings.epochs for run in runs)
        with steady_arithmetic("fused"), ExitStack() as stack:
            shared = _Shared(self._card, images, stack)
            while left:
                wave, left, failed = self._wave(left, images, chance)
                yield from failed
                if not wave:
                    continue
                with ExitStack() as memory:
                    self._records = memory.enter_context(self._card.memory(len(wave) * dtype("Run").itemsize))
                    _settle(self._card, wave, shared, memory)
                    for epochs, ended in self._epochs(wave, shared):
                        say(done + epochs, total)
                        yield from ((one.run, one.result(self._card)) for one in ended)
                    done += sum(one.course.done for one in wave)

    def _epochs(self, wave: Sequence["_One"], shared: "_Shared") -> Iterator[tuple[int, list["_One"]]]:
        """Train a wave to the end; yield after each epoch how many epochs are done, and the runs that have ended.

        While the card trains an epoch, this process judges the one before, draws the batches of the next, and whoever
        takes what is yielded stores it.
        """
        found: list[_One] = []
        training = list(wave)
        while training or found:
            records = self._start(training, shared)
            for one in found:
                one.judge()
            for one in training:
                one.draw()
            yield sum(one.course.done for one in wave), [one for one in found if one.course.ended]
            self._finish(training, records)
            found = [one for one in training if not one.course.ended]
            training = [one for one in found if one.left]

    def check(self, run: Run, images: Images) -> None:
        """Check that `run` fits in the memory that is free.

        Raises
        ------
        DeviceError
            If it does not.
        """
        size, room = _One(run, images, Chance()).size, self._room(images)
        if size > room:
            raise _too_large(run, size, room)

    def _room(self, images: Images) -> int:
        """Return how many bytes runs may take beside these images."""
        shared = images.train_images.nbytes + images.test_images.nbytes
        return self._card.free_memory() - _SPARE - shared

    def _wave(self, runs: list[Run], images: Images, chance: Chance) -> tuple[list["_One"], list[Run], list[Found]]:
        """Return the next runs, as many as the memory holds, those that are left, and those that cannot be trained."""
        wave: list[_One] = []
        failed: list[Found] = []
        room = self._card.free_memory() - _SPARE
        for k, run in enumerate(runs):
            try:
                one = _One(run, images, chance)
            except Exception as error:  # noqa: BLE001  # the others go on
                failed.append((run, error))
                continue
            if one.size > room:
                if wave:
                    return wave, runs[k:], failed
                failed.append((run, _too_large(run, one.size, room)))
                continue
            wave.append(one)
            room -= one.size
        return wave, [], failed

    def _start(self, training: Sequence["_One"], shared: "_Shared") -> NDArray[Any] | None:
        """Start an epoch of some runs; return their records."""
        if not training:
            return None
        card = self._card
        records = np.zeros(len(training), dtype("Run"))  # `np.stack` takes a while to see that all are alike
        for i, one in enumerate(training):
            records[i] = one.begin(card, shared)
        card.upload(self._records, records)
        card.start(self._kernel, len(training), THREADS, self._records)
        return records

    def _finish(self, training: Sequence["_One"], records: NDArray[Any] | None) -> None:
        """Wait for the epoch, and take what it has found."""
        if records is None:
            return
        self._card.wait()
        self._card.download(self._records, records)
        for one, record in zip(training, records, strict=True):
            one.take(self._card, record)


def _too_large(run: Run, size: int, room: int) -> DeviceError:
    return DeviceError(
        f"device = cuda: {run.cell}, seed {run.seed}, needs {size / 2**20:,.1f} MiB of the card's memory, and "
        f"{max(room, 0) / 2**20:,.0f} MiB are free. End what else uses the card, or take --device cpu."
    )


class _Shared:
    """What runs share in the card's memory: images, labels, and the table of PCG64's jumps."""

    def __init__(self, card: Card, images: Images, stack: ExitStack) -> None:
        self._card = card
        self.jumps = self.place(jumps(), stack)
        self.images = {
            "train": self.place(images.train_images, stack),
            "test": self.place(images.test_images, stack),
            "test_labels": self.place(images.test_labels, stack),
        }
        self.labels = self.place(images.train_labels, stack)

    def place(self, values: NDArray[Any], stack: ExitStack) -> int:
        """Copy an array to the card until `stack` ends; return its address."""
        address = stack.enter_context(self._card.memory(values.nbytes))
        self._card.upload(address, values)
        return address


class _One:
    """A run on the card."""

    def __init__(self, run: Run, images: Images, chance: Chance) -> None:
        self.run, self.course = run, Course(run, images, chance)
        self._labels: int | None = None
        self._pace = form.Pace(run.settings)
        self.left = run.settings.epochs
        """Epochs that have not begun."""
        self._next: Batches | None = None
        task, settings = self.course.task, run.settings
        steps = self.course.steps
        parts = [part[2].numpy().astype(np.int32) for part in task.parts]
        self._parts = parts
        self._place = OnCard(run, steps, steps * settings.batch_size, tuple(map(len, parts)))
        self.size = self._place.size

    def settle(self, base: int, card: Card, shared: _Shared, memory: ExitStack) -> None:
        """Take a place in the card's memory."""
        settings = self.run.settings
        linears = _linears(
            settings.depth, settings.width, settings.init, settings.init_scale, settings.init_seed, self.run.seed
        )
        self._place.settle(base, card, linears, self._parts)
        noisy = self.run.settings.label_noise > 0
        labels = self.course.task.train[1].numpy().astype(np.uint8)
        self._labels = shared.place(labels, memory) if noisy else shared.labels

    def draw(self) -> None:
        """Draw the batches of the next epoch, if there is one."""
        self._next = self.course.batches() if self.left else None

    def begin(self, card: Card, shared: _Shared) -> NDArray[Any]:
        """Begin an epoch; return the run's record."""
        assert self._labels is not None  # noqa: S101  # it has settled
        self._batches = self._next or self.course.batches()
        self.left -= 1
        pace = self._pace.take(len(self._batches.sizes))
        return self._place.begin_epoch(card, self._batches, pace, shared.images, self._labels, shared.jumps)

    def take(self, card: Card, record: NDArray[Any]) -> None:
        """Take what an epoch has found, before the next one overwrites it."""
        losses, answers = self._place.end_epoch(card, int(record["taken"]))
        seconds = int(record["train_nanoseconds"]) / 1e9, int(record["eval_nanoseconds"]) / 1e9
        wanted = not self.left or "preactivations" in self.run.probes
        self._weights = weights = self._place.weights(card) if wanted else {}
        self._found = self._batches, losses, answers, seconds, lambda: weights

    def judge(self) -> None:
        """Judge what was taken."""
        self.course.add(*self._found)

    def result(self, card: Card) -> RunResult | Exception:
        """Return the outcome, or what went wrong."""
        try:
            return self.course.result(self._weights or self._place.weights(card))
        except Exception as error:  # noqa: BLE001  # the others go on
            return error


@functools.lru_cache(maxsize=256)  # of runs that are trained side by side many begin alike
def _linears(depth: int, width: int, init: Any, init_scale: float, init_seed: int, seed: int) -> list[nn.Linear]:
    """Return the linear layers with their initial weights, which only these settings decide."""
    settings = Settings(depth=depth, width=width, init=init, init_scale=init_scale, init_seed=init_seed)
    return [part for part in mlp(settings, seed) if isinstance(part, nn.Linear)]


def _settle(card: Card, wave: Sequence[_One], shared: _Shared, memory: ExitStack) -> None:
    """Give each run of a wave its place."""
    starts = list(itertools.accumulate((one.size for one in wave), initial=0))
    base = memory.enter_context(card.memory(starts[-1]))
    for one, start in zip(wave, starts, strict=False):
        one.settle(base + start, card, shared, memory)
