"""All runs of a study at once on a graphics card, which a worker process of its own has."""

import ctypes
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from mnist_ablate import data
from mnist_ablate.design.plan import Run
from mnist_ablate.errors import WorkerError
from mnist_ablate.execution.executors import (
    Crew,
    WorkerLostError,
    block_interrupts,
    end_with_parent,
    interrupt_held_back,
    pickled,
    start_worker,
)
from mnist_ablate.training import tasks

P = ParamSpec("P")
T = TypeVar("T")

_DRIVER = "libcuda.so.1"
_GATHER_SECONDS = 0.05
"""The driver hands runs out one by one; all that come within so long of each other are trained at once."""
_MANY = 1_000_000
"""Calls that a card may have: more than any study has."""


def is_for_card(run: Run) -> bool:
    """Return whether a card can train `run`: all that the engine ``fused`` can, on images of MNIST's size."""
    return run.engine == "fused" and not run.settings.own_dataset


def size(run: Run) -> int:
    """Return roughly how much memory a run takes; only which is larger matters."""
    settings = run.settings
    return settings.width * (data.PIXELS + settings.width * (settings.depth - 1) + settings.batch_size * settings.depth)


def has_driver() -> bool:
    """Return whether this machine has CUDA's driver, perhaps without a card."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


class OneCard:
    """Trains all runs that it is given on one card; see `executors.Crew`.

    Parameters
    ----------
    hear
        Hears how many model-epochs are done, and of how many.
    largest
        The run that takes most memory.

    Raises
    ------
    DeviceError
        If there is no card that can train.
    WorkerError
        If no process can be started.
    """

    room = _MANY

    def __init__(self, hear: Callable[[int, int], None], largest: Run) -> None:
        self._hear = hear
        self._waiting: list[tuple[Run, Future[Any]]] = []
        self._changed = threading.Condition()
        self._killed = False
        self._pipe, self._child = start_worker(_work)
        self.about = self._look(largest)
        """The card and its driver."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _look(self, largest: Run) -> dict[str, Any]:
        """Return what card the worker has."""
        try:
            self._pipe.send((tasks.card, (largest,)))
            kind, *rest = self._receive()
        except (EOFError, OSError) as error:
            self._child.kill()
            raise WorkerError("The process that was to use the card died: take --device cpu.") from error
        if kind == "end":
            self._child.kill()
            raise rest[0]
        return dict(rest[0])

    def _receive(self) -> Any:
        return pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # from our own process

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":  # noqa: ARG002
        """Hand out a run: the call is one of `tasks.train_one`."""
        run = args[0]
        assert fn is tasks.train_one  # noqa: S101  # a card makes no other calls
        assert isinstance(run, Run)  # noqa: S101
        future: Future[Any] = Future()
        with self._changed:
            self._waiting.append((run, future))
            self._changed.notify()
        return future

    def _serve(self) -> None:
        """Train what waits, again and again, until the crew is killed."""
        block_interrupts()
        while calls := self._gathered():
            self._train([run for run, _ in calls], [future for _, future in calls])

    def _gathered(self) -> list[tuple[Run, "Future[Any]"]]:
        """Wait for runs until no more come; return them, or none once the crew is killed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._killed)
            while not self._killed:
                known = len(self._waiting)
                self._changed.wait(_GATHER_SECONDS)
                if len(self._waiting) == known:
                    break
            calls, self._waiting = self._waiting, []
            return [] if self._killed else calls

    def _train(self, runs: Sequence[Run], futures: "Sequence[Future[Any]]") -> None:
        """Have the worker train runs, and settle the future of each as it ends."""
        error: BaseException | None
        try:
            if not self._child.is_alive():
                self._pipe, self._child = start_worker(_work)
            self._pipe.send((tasks.train_together, (runs,)))
            while (message := self._receive())[0] != "end":
                if message[0] == "epochs":
                    self._hear(*message[1:])
                else:
                    _, number, result, error = message
                    _settle(futures[number], result, error)
            error = message[1]
        except (EOFError, OSError):
            error = WorkerLostError("its worker process died (killed, or out of memory)")
        except WorkerError as failure:
            error = failure
        for future in futures:
            if not future.done():
                _settle(future, None, error or RuntimeError("the process with the card forgot this run"))

    def kill(self) -> None:
        """End the worker now."""
        with interrupt_held_back(), self._changed:
            self._killed = True
            self._changed.notify()
            self._child.kill()
            self._child.join()


def _settle(future: "Future[Any]", result: Any, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _work(pipe: Connection) -> None:
    """Answer calls for as long as the driver lives; this is all that the process with the card does.

    An answer is ``("epochs", done, all)``, ``("run", number, result, error)``, ``("card", about)``, or, last,
    ``("end", error)``.
    """
    end_with_parent()
    while True:
        try:
            fn, arguments = pickle.loads(pipe.recv_bytes())  # noqa: S301  # from our own parent
        except EOFError:  # the driver is gone
            return
        try:
            if fn is tasks.card:
                pipe.send(("card", tasks.card(*arguments)))
                continue
            for number, result, error in fn(*arguments, lambda done, total: pipe.send(("epochs", done, total))):
                pipe.send(("run", number, result, error and _sendable(error)))
            pipe.send(("end", None))
        except BaseException as error:  # noqa: BLE001  # whatever is raised, even SystemExit, is the answer
            pipe.send(("end", _sendable(error)))


def _sendable(error: BaseException) -> Any:
    """Return an error that can be pickled, with its traceback."""
    return pickle.loads(pickled(error))[1]  # noqa: S301  # from this very process


class Both:
    """A card, and another crew for the runs that no card can train.

    Parameters
    ----------
    card, others
        The two.
    """

    room = _MANY

    def __init__(self, card: OneCard, others: Crew) -> None:
        self._card, self._others = card, others

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Hand out a run."""
        run = args[0]
        assert isinstance(run, Run)  # noqa: S101
        return (self._card if is_for_card(run) else self._others).submit(fn, *args, **kwargs)

    def kill(self) -> None:
        """End both."""
        self._card.kill()
        self._others.kill()
