"""Runs on a graphics card: all at once in one process, or, where torch trains, one in each of several processes."""

import ctypes
import functools
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar, cast

from mnist_ablate import data
from mnist_ablate.design.plan import Run
from mnist_ablate.errors import WorkerError
from mnist_ablate.execution.executors import (
    Processes,
    WorkerLostError,
    block_interrupts,
    end_with_parent,
    ended,
    interrupt_held_back,
    pickled,
    start_worker,
)
from mnist_ablate.execution.progress import Progress
from mnist_ablate.training import tasks

P = ParamSpec("P")
T = TypeVar("T")
Call = tuple[Run, "Future[Any]"]
"""A run, and where its result goes."""

_DRIVER = "libcuda.so.1"
_GATHER_SECONDS = 0.05
"""The driver hands runs out one by one; all that come within so long of each other are trained at once."""
_MANY = 1_000_000
"""Calls that a card may have: more than any study has."""


def why_processors(run: Run) -> str:
    """Return why only processors can train `run`; empty if a card can."""
    if run.settings.train:
        return "a training of your own chooses its device itself"
    if run.engine == "fused" and run.settings.own_dataset:
        return "the kernels for cards take images of MNIST's size"
    return ""


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


class SharedCard(Processes):
    """Worker processes that share a card, for runs that torch trains; see `executors.Processes`."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Submit a call that trains on the card."""
        there = functools.partial(cast(Callable[..., T], fn), device="cuda")
        return super().submit(there, *args, **kwargs)

    def _call(self, call: bytes) -> Any:
        """Have this thread's worker do a call; after most errors a process cannot use its card again."""
        try:
            return super()._call(call)
        except BrokenExecutor:
            raise
        except (MemoryError, RuntimeError) as error:
            self._own.pipe.close()
            self._own.pipe = None
            if isinstance(error, MemoryError):  # alone it may have room enough
                raise WorkerLostError(str(error)) from error
            raise

    @staticmethod
    def look(largest: Run) -> tuple[str, int]:
        """Return what card torch has, and how many runs like this one may share it.

        Raises
        ------
        DeviceError
            If there is no card, or no room in its memory.
        """
        with ended(Processes(1)) as crew:
            return crew.submit(tasks.torch_card, largest).result()


class OneCard:
    """Trains all runs that it is given on one card; see `executors.Crew`.

    Parameters
    ----------
    progress
        Hears how many epochs are done, and what goes wrong with the card.
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

    def __init__(self, progress: Progress, largest: Run) -> None:
        self._progress = progress
        self._waiting: list[Call] = []
        self._changed = threading.Condition()
        self._killed = False
        with interrupt_held_back():  # only until it has started: this is the thread that Ctrl-C must reach
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
        """Train what waits, again and again, until the crew is killed.

        If the process dies, or its card fails, another one tries what is left, once, all together: the driver tries
        lost runs one at a time, which would leave most of the card idle.
        """
        block_interrupts()
        while calls := self._gathered():
            error = self._train(calls)
            left = _unfinished(calls)
            if left and not self._killed and not isinstance(error, WorkerError):
                self._progress.say(f"The card failed ({error}); runs to be tried again: {len(left)}")
                error = self._train(left)
            for _, future in _unfinished(calls):
                _settle(future, None, error)

    def _gathered(self) -> "list[Call]":
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

    def _train(self, calls: "Sequence[Call]") -> BaseException:
        """Have the worker train runs, and settle the future of each as it ends; return why any are left."""
        try:
            self._have_a_worker()
            self._pipe.send((tasks.train_together, ([run for run, _ in calls],)))
            while (message := self._receive())[0] != "end":
                if message[0] == "epochs":
                    self._progress.epochs(*message[1:])
                else:
                    _, number, result, error = message
                    _settle(calls[number][1], result, error)
        except (EOFError, OSError):
            failure: BaseException = WorkerLostError("its worker process died (killed, or out of memory)")
        except (WorkerLostError, WorkerError) as error:
            failure = error
        else:
            if message[1] is None:
                return RuntimeError("the process with the card forgot this run")
            failure = cast(BaseException, message[1])
        self._child.kill()  # after most errors a process cannot use its card again
        self._child.join()
        return failure

    def _have_a_worker(self) -> None:
        """Start another process where the last one has died.

        Raises
        ------
        WorkerLostError
            If the crew has been killed.
        """
        with self._changed:
            if self._killed:
                raise WorkerLostError("the worker has been killed")
            if not self._child.is_alive():
                self._pipe, self._child = start_worker(_work)

    def kill(self) -> None:
        """End the worker now."""
        with interrupt_held_back(), self._changed:
            self._killed = True
            self._changed.notify()
            self._child.kill()
            self._child.join()


def _unfinished(calls: "Sequence[Call]") -> "list[Call]":
    return [call for call in calls if not call[1].done()]


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
