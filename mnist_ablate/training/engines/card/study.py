"""Many runs at once on a card, in waves: each run a block of threads, an epoch at a time."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.errors import DeviceError
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.engines.card.compiler import machine_code
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import PARTS, dtype
from mnist_ablate.training.engines.card.memory import THREADS, OnCard, Shared, jumps
from mnist_ablate.training.protocol import Chance, Course, RunResult, divided, ordered, steady_arithmetic

KERNEL = "train_epoch"
_SPARE = 256 * 2**20
"""Bytes of the card's memory that are left for the driver."""
_ROUNDS = 8
"""Runs in a wave for each multiprocessor, which trains one at a time, if the card's memory holds so many: enough that
few multiprocessors idle, and few enough that the 3 MB which each takes here have room, and results come early."""

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
        chance = Chance(kept(divided), kept(ordered))
        left, done, total = list(runs), 0, sum(run.settings.epochs for run in runs)
        with steady_arithmetic("fused"), ExitStack() as stack:
            shared = _share(self._card, images, stack)
            while left:
                ones, left, failed = self._next(left, images, chance)
                yield from failed
                if not ones:
                    continue
                with ExitStack() as memory:
                    wave = _Wave(self._card, self._kernel, ones, shared, memory)
                    yield from wave.train(functools.partial(_say_more, say, done, total))
                    done += wave.done
                del ones, wave  # before others take memory

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

    def _next(self, runs: list[Run], images: Images, chance: Chance) -> tuple[list["_One"], list[Run], list[Found]]:
        """Return the runs of a wave, those that are left, and those that cannot be trained."""
        wave: list[_One] = []
        failed: list[Found] = []
        room, most = self._card.free_memory() - _SPARE, _ROUNDS * self._card.multiprocessors
        for k, run in enumerate(runs):
            if len(wave) == most:
                return wave, runs[k:], failed
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


def _say_more(say: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    say(before + done, total)


def _too_large(run: Run, size: int, room: int) -> DeviceError:
    return DeviceError(
        f"device = cuda: {run.cell}, seed {run.seed}, needs {size / 2**20:,.1f} MiB of the card's memory, and "
        f"{max(room, 0) / 2**20:,.0f} MiB are free. End what else uses the card, or take --device cpu."
    )


def _share(card: Card, images: Images, stack: ExitStack) -> Shared:
    """Copy to the card what runs share, until `stack` ends."""

    def place(values: NDArray[Any]) -> int:
        address = stack.enter_context(card.memory(values.nbytes))
        card.upload(address, values)
        return address

    return Shared(
        place(jumps()),
        (place(images.train_images), place(images.train_labels)),
        (place(images.test_images), place(images.test_labels)),
    )


class _Wave:
    """Runs that are trained side by side, an epoch at a time."""

    def __init__(self, card: Card, kernel: Any, ones: Sequence["_One"], shared: Shared, memory: ExitStack) -> None:
        self._card, self._kernel, self._ones = card, kernel, ones
        self._records = memory.enter_context(card.memory(len(ones) * dtype("Run").itemsize))
        self._inputs = _Block(card, [one.place.inputs.size for one in ones], memory)
        self._outputs = _Block(card, [one.place.outputs.size for one in ones], memory)
        begins = list(itertools.accumulate((one.place.size for one in ones), initial=0))
        address = memory.enter_context(card.memory(begins[-1]))
        for i, (one, begin) in enumerate(zip(ones, begins, strict=False)):
            one.settle(i, card, address + begin, self._inputs, self._outputs, shared)

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return sum(one.done for one in self._ones)

    def train(self, say: Callable[[int], None]) -> Iterator[Found]:
        """Train to the end; yield each run when it has ended, and say for each epoch how many are done.

        While the card trains an epoch, this process draws the batches of the next, judges the one before, and whoever
        takes what is yielded stores it.
        """
        training = list(self._ones)
        taken: Iterable[_One] = ()
        for one in training:
            one.draw()
        while True:
            done = self.done
            records = self._start(training)
            say(done)
            for one in training:
                one.draw()
            for one in taken:
                one.judge()
                if one.course.ended:
                    yield one.run, one.result()
            if not training:
                return
            self._finish(training, records)
            found = [one for one in training if not one.course.ended]
            training = [one for one in found if one.left]
            taken = (one.take(self._card) for one in found)
            if training:  # what they have found would be overwritten
                taken = list(taken)

    def _start(self, training: Sequence["_One"]) -> NDArray[Any]:
        """Start an epoch of some runs; return their records."""
        records = np.zeros(len(training), dtype("Run"))  # `np.stack` takes a while to see that all are alike
        for i, one in enumerate(training):
            records[i] = one.begin()
        if training:
            self._inputs.upload(training[0].number, training[-1].number)
            self._card.upload(self._records, records)
            self._card.start(self._kernel, len(training), THREADS, self._records)
        return records

    def _finish(self, training: Sequence["_One"], records: NDArray[Any]) -> None:
        """Wait for the epoch, and copy here what it has found."""
        self._card.wait()
        self._card.download(self._records, records)
        self._outputs.download(training[0].number, training[-1].number)
        for one, record in zip(training, records, strict=True):
            one.end(record)


class _Block:
    """Bytes of all runs of a wave, here and on the card, which are copied at once."""

    def __init__(self, card: Card, sizes: Sequence[int], memory: ExitStack) -> None:
        self._card, self._begins = card, list(itertools.accumulate(sizes, initial=0))
        self._here = np.zeros(self._begins[-1], np.uint8)
        self._there = memory.enter_context(card.memory(self._begins[-1]))

    def of(self, number: int) -> tuple[int, NDArray[np.uint8]]:
        """Return the address and the bytes of a run."""
        begin, end = self._begins[number : number + 2]
        return self._there + begin, self._here[begin:end]

    def upload(self, first: int, last: int) -> None:
        """Copy the bytes of some runs to the card."""
        begin, end = self._begins[first], self._begins[last + 1]
        self._card.upload(self._there + begin, self._here[begin:end])

    def download(self, first: int, last: int) -> None:
        """Copy the bytes of some runs from the card."""
        begin, end = self._begins[first], self._begins[last + 1]
        self._card.download(self._there + begin, self._here[begin:end])


class _One:
    """A run on the card."""

    def __init__(self, run: Run, images: Images, chance: Chance) -> None:
        self.run, self.course = run, Course(run, images, chance)
        self.place = OnCard(self.course)
        self._pace = form.Pace(run.settings)
        self.left = run.settings.epochs
        """Epochs that have not begun."""
        self._state: NDArray[np.uint8] | None = None

    @property
    def size(self) -> int:
        """How many bytes of the card's memory it takes."""
        place = self.place
        return place.size + place.inputs.size + place.outputs.size + dtype("Run").itemsize

    @property
    def done(self) -> int:
        """How many epochs are done, or begun; all where it is known that the run has diverged."""
        return max(self.course.done, self.run.settings.epochs - self.left)

    def settle(self, number: int, card: Card, begin: int, inputs: _Block, outputs: _Block, shared: Shared) -> None:
        """Take a place in the card's memory."""
        self.number = number
        (inputs_at, of_inputs), (outputs_at, of_outputs) = inputs.of(number), outputs.of(number)
        self._record = self.place.settle(card, begin, inputs_at, outputs_at, shared)
        self._inputs, self._outputs = self.place.inputs.arrays(of_inputs), self.place.outputs.arrays(of_outputs)

    def draw(self) -> None:
        """Draw the batches of the next epoch, if there is one."""
        if self.left:
            self._next = rows, sizes = self.course.batches()
            self._inputs["batches"][: len(rows)] = rows.numpy()
            self._inputs["sizes"][:] = sizes
            rate, correction = self._pace.take(len(sizes))
            self._inputs["rate"][:], self._inputs["correction"][:] = _rounded(*rate), _rounded(*correction)

    def begin(self) -> NDArray[Any]:
        """Begin an epoch with the batches that were drawn; return the run's record."""
        self._batches = self._next
        self.left -= 1
        return self._record

    def end(self, record: NDArray[Any]) -> None:
        """End an epoch."""
        self._found = self._batches, record

    def take(self, card: Card) -> Self:
        """Copy the weights here if they are wanted."""
        if not self.left or "preactivations" in self.run.probes:
            self._state = self.place.state(card)
        return self

    def judge(self) -> None:
        """Judge what the epoch has found."""
        (batches, record), outputs = self._found, self._outputs
        losses = outputs["losses"][: record["taken"]].tolist()
        answers = [
            Answers(*(outputs[f"{name}{i}"] for name in ("losses", "predictions", "confidences"))) for i in range(PARTS)
        ]
        answers[-1] = deepcopy(answers[-1])  # is kept, and the next epoch overwrites these
        seconds = int(record["train_nanoseconds"]) / 1e9, int(record["eval_nanoseconds"]) / 1e9
        self.course.add(batches, losses, answers, seconds, lambda: self.place.weights(self._state))

    def result(self) -> RunResult | Exception:
        """Return the outcome, or what went wrong."""
        state, self._state = self._state, None
        try:
            return self.course.result(self.place.weights(state))
        except Exception as error:  # noqa: BLE001  # the others go on
            return error


@functools.lru_cache(maxsize=64)
def _rounded(*values: float) -> NDArray[np.float32]:
    return form.numbers(np.float32, *values).astype(np.float32, copy=False)
