"""Where runs are trained: anything with the interface of ``concurrent.futures.Executor``."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from types import ModuleType
from typing import Any, ParamSpec, Protocol, TypeVar

from mnist_ablate.errors import WorkerError

P = ParamSpec("P")
T = TypeVar("T")


class Crew(Protocol):
    """What a driver trains with: an executor that says how much to give it, and that can be left at once."""

    @property
    def room(self) -> int:
        """How many calls to give it at once: enough to keep it busy, and few to lose with it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand out a call."""

    def kill(self) -> None:
        """End, and wait for nothing that is not finished."""


C = TypeVar("C", bound=Crew)


@contextmanager
def ended(crew: C) -> Iterator[C]:
    """Give a crew, and end it at once when the caller has its answers, or anything goes wrong.

    To be asked to end, a worker must not hang, nor wait for a lock that another had when it was killed.
    """
    try:
        yield crew
    finally:
        crew.kill()


class InlineExecutor(Executor):
    """Calls in this process, one after the other, as they are submitted: for debugging, and for tests."""

    room = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # whatever it is, the future hands it to the one who asks
            future.set_exception(error)
        return future

    def kill(self) -> None:
        """Do nothing: no call is left when this is called."""


IN_FLIGHT = 100
"""Calls that an executor of the caller's is given at once, unless it is told otherwise."""


class Lent(Executor):
    """An executor of the caller's, which is used and left open.

    Parameters
    ----------
    executor
        Anything with the interface of ``concurrent.futures.Executor``.
    room
        Calls that it is given at once.
    """

    def __init__(self, executor: Executor, room: int = IN_FLIGHT) -> None:
        self._executor = executor
        self._given: set[Future[Any]] = set()
        self.room = room

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand the call on.

        Raises
        ------
        BrokenExecutor
            If the executor takes no calls any more.
        """
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            raise
        except RuntimeError as error:  # the standard library's, after `shutdown`
            raise BrokenExecutor(f"the executor takes no runs: {error}") from error
        self._given.add(future)
        future.add_done_callback(self._given.discard)
        return future

    def kill(self) -> None:
        """Take back the calls that have not begun; those that have are left to the executor."""
        for future in list(self._given):
            future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the executor open: it is the caller's."""


_UNSEEN_SECONDS = 5.0


class Processes(ProcessPoolExecutor):
    """Worker processes that end with this one, leave Ctrl-C to it, and can be stopped in the middle of a run.

    They are spawned, not forked: a fork of a process in which torch has threads may hang.

    Parameters
    ----------
    workers
        How many.
    """

    def __init__(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.room = workers + 1  # the next lies ready, so that no worker waits while a result is stored
        cores: SimpleQueue[int] = spawn.SimpleQueue()
        for core in _cores_of_their_own(workers):
            cores.put(core)
        self._sound = time.monotonic()  # when all workers were last seen alive
        super().__init__(workers, spawn, _start_worker, (cores,))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call; a worker is started for it if there are too few.

        Raises
        ------
        WorkerError
            If the system has no memory or no process left for it.
        """
        try:
            self._start_feeder()
            with _interrupt_held_back(), _no_main_module():
                return super().submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            raise
        except (OSError, MemoryError, RuntimeError) as error:  # the last is what Python has for want of a thread
            raise WorkerError(
                f"No worker process can be started ({error or 'no memory'}). What is finished is kept: give fewer "
                "--workers, or end other programs, and run the same command again."
            ) from error

    def _start_feeder(self) -> None:
        """Start the thread that feeds the workers here, where it is told when it cannot be started for want of memory.

        In the thread of the pool's own, which would start it, that is a traceback, and the end of all answers.
        """
        calls: Any = self._call_queue  # type: ignore[attr-defined]
        if calls is not None and calls._thread is None:
            calls._start_thread()

    def kill(self) -> None:
        """End the workers now, whatever they are doing, however often Ctrl-C is pressed meanwhile."""
        with _interrupt_held_back():
            processes = list((self._processes or {}).values())  # a public `kill_workers` comes with Python 3.14
            for process in processes:
                process.kill()
            for process in processes:  # `shutdown` would not, after an interrupt in the middle of it
                process.join()
            self._end_of_answers()
        self.shutdown(wait=True, cancel_futures=True)

    def _end_of_answers(self) -> None:
        """Let the pool see that no worker is left to go on with an answer, which it else reads, and waits, for ever."""
        if self._result_queue is not None:
            queue: Any = self._result_queue
            queue._writer.close()

    def check(self) -> None:
        """End all calls as those of a broken pool, if a worker has died and the pool does not see it.

        It does not while it reads the answer in the middle of which the worker was killed.

        Raises
        ------
        BrokenProcessPool
            If the pool's own thread has ended, so that calls may never do.
        """
        manager: Any = self._executor_manager_thread
        if manager is not None and not manager.is_alive():
            raise BrokenProcessPool("the pool has ended")
        if all(process.exitcode is None for process in list((self._processes or {}).values())):
            self._sound = time.monotonic()
        elif time.monotonic() - self._sound > _UNSEEN_SECONDS:
            self.kill()


def _cores_of_their_own(workers: int) -> list[int]:
    """Give each worker a core to stay on, if they are as many as the cores that this process may use.

    With fewer, two studies side by side would crowd on the same cores. Not every platform can pin a process.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores if len(cores) == workers else []


def _start_worker(cores: "SimpleQueue[int]") -> None:
    _end_with_parent()
    if not cores.empty():
        os.sched_setaffinity(0, {cores.get()})


_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def _end_with_parent() -> None:
    """Let a worker end as soon as its parent is gone, even by ``kill -9``: by a thread, and on Linux by the system.

    The system also ends a worker that hangs or is stopped, whose threads do nothing. It does so when the thread that
    started the worker ends; that is the one which calls `submit`, and stays until the executor is shut down.
    """
    parent = multiprocessing.parent_process()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Hold back SIGINT while a worker starts, which inherits that: Ctrl-C then reaches the driver alone.

    Here the signal is delivered at the end of the block, so none is lost.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the main module while a worker starts, which would import it.

    What workers call lies in this package, and a user's script need not be guarded by ``if __name__ == ...``.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
