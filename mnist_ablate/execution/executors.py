"""Where runs are trained: in this process, in worker processes, or with an executor of the caller's."""

import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for_futures
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, ParamSpec, Protocol, TypeVar

from mnist_ablate.errors import WorkerError

P = ParamSpec("P")
T = TypeVar("T")


class Crew(Protocol):
    """What the driver trains with: an executor that says how many calls it can take, and that can be ended at once."""

    @property
    def room(self) -> int:
        """How many calls to keep in flight: enough to keep it busy, and few to lose with it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand out a call."""

    def kill(self) -> None:
        """End now, without waiting for unfinished calls."""


C = TypeVar("C", bound=Crew)


@contextmanager
def ended(crew: C) -> Iterator[C]:
    """Kill `crew` at the end of the block.

    Kill workers instead of asking them to stop: a hung one would never answer.
    """
    try:
        yield crew
    finally:
        crew.kill()


class InlineExecutor(Executor):
    """Make each call in this process as soon as it is submitted: for debugging and for tests."""

    room = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # the future hands any error to whoever asks for the result
            future.set_exception(error)
        return future

    def kill(self) -> None:
        """Do nothing: every call has finished."""


IN_FLIGHT = 100
"""Calls that the caller's executor gets at once by default."""


class Lent(Executor):
    """An executor of the caller's, which stays open.

    Parameters
    ----------
    executor
        Anything with the interface of ``concurrent.futures.Executor``.
    room
        How many calls it gets at once.
    """

    def __init__(self, executor: Executor, room: int = IN_FLIGHT) -> None:
        self._executor = executor
        self._unfinished: set[Future[Any]] = set()
        self.room = room

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Pass the call on.

        Raises
        ------
        BrokenExecutor
            If the executor no longer takes calls.
        """
        try:
            future = self._executor.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            raise
        except RuntimeError as error:  # what the standard library raises after `shutdown`
            raise BrokenExecutor(f"the executor takes no runs: {error}") from error
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def kill(self) -> None:
        """Cancel the calls that have not begun, and leave the others to the executor."""
        for future in list(self._unfinished):
            future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the executor open: it belongs to the caller."""


class WorkerLostError(BrokenProcessPool):
    """The worker process died during this call; the calls of other workers go on."""


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    core: int | None
    future: Future[Any] | None = None
    """Of the call that it has; None while it is idle."""


class Processes(Executor):
    """Worker processes that end with this one, ignore Ctrl-C, can be killed at any time, and are replaced if they die.

    Each worker has a pipe of its own, so one that dies in the middle of an answer disturbs no other. Workers are
    spawned, not forked: a fork of a process in which torch has threads may hang.

    Parameters
    ----------
    workers
        How many processes; each starts when there is a call for it.
    """

    def __init__(self, workers: int) -> None:
        self.room = workers + 1  # one call waits here, so that no worker idles while a result is stored
        self._limit = workers
        self._cores = _cores_of_their_own(workers)
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[Future[Any], bytes]] = deque()
        self._lock = threading.Lock()  # for the workers and the calls that wait
        self._server: threading.Thread | None = None
        self._open = True
        self._bell, self._button = multiprocessing.Pipe(duplex=False)  # to wake the server

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call; start a worker for it if all are busy and there are fewer than asked for.

        Raises
        ------
        WorkerError
            If the system has no memory, process or thread left for the worker.
        BrokenProcessPool
            If the workers have been killed.
        """
        future: Future[T] = Future()
        call = pickle.dumps((fn, args, kwargs))
        with _interrupt_held_back():
            try:
                with self._lock:
                    if not self._open:
                        raise BrokenProcessPool("the worker processes have been ended")
                    self._start_what_is_missing()
                    self._waiting.append((future, call))
            except BrokenProcessPool:
                raise
            except (OSError, MemoryError, RuntimeError) as error:  # RuntimeError: Python cannot start a thread
                raise WorkerError(
                    f"No worker process can be started ({error or 'no memory'}). What is finished is kept: give fewer "
                    "--workers, or end other programs, and run the same command again."
                ) from error
            self._button.send_bytes(b"call")
        return future

    def _start_what_is_missing(self) -> None:
        """Start the server thread if there is none, and a worker if one more call needs it."""
        if self._server is None:
            server = threading.Thread(target=self._serve, daemon=True)
            server.start()
            self._server = server
            atexit.register(self.kill)  # otherwise Python would wait for the workers before it ends
        idle = sum(worker.future is None for worker in self._workers)
        if idle > len(self._waiting) or len(self._workers) == self._limit:
            return
        taken = {worker.core for worker in self._workers}
        core = next((core for core in self._cores if core not in taken), None)
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_work, args=(theirs, core))
        with _no_main_module():
            process.start()
        theirs.close()  # now our end of the pipe tells when the worker dies
        self._workers.append(_Worker(process, ours, core))

    def kill(self) -> None:
        """End the workers now, whatever they are doing, however often Ctrl-C is pressed meanwhile."""
        with _interrupt_held_back():
            self._open = False
            for worker in list(self._workers):  # without the lock: the server may hold it until a hung worker dies
                worker.process.kill()
            if self._server is not None:
                self._button.send_bytes(b"end")
                self._server.join()
            for worker in self._workers:
                worker.process.join()
            atexit.unregister(self.kill)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, by default after all calls."""
        with ended(self):
            with self._lock:
                futures = [future for future, _ in self._waiting]
                futures += [worker.future for worker in self._workers if worker.future is not None]
            if wait and not cancel_futures:
                wait_for_futures(futures)

    # ---- The server thread ----

    def _serve(self) -> None:
        """Give calls to idle workers and answers to futures, until the workers are killed."""
        try:
            while self._open:
                with self._lock:
                    self._hand_out()
                    workers = {worker.pipe: worker for worker in self._workers}
                for ready in wait([self._bell, *workers]):
                    if ready is self._bell:
                        self._bell.recv_bytes()
                    else:
                        self._take_answer(workers[ready])  # type: ignore[index]  # no sockets or handles here
        finally:  # also if this thread has no memory left
            self._open = False
            with self._lock:
                for worker in self._workers:
                    _lose(worker.future)
                self._lose_waiting()

    def _hand_out(self) -> None:
        for worker in self._workers:
            while worker.future is None and self._waiting:
                future, call = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    worker.future = future
                    with suppress(OSError):  # it has died, and the end of its pipe will be seen
                        worker.pipe.send_bytes(call)

    def _take_answer(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            with self._lock:
                self._workers.remove(worker)
                if not self._workers:
                    self._lose_waiting()
            worker.process.join()
            _lose(worker.future)
            return
        with self._lock:
            future, worker.future = worker.future, None
            self._hand_out()  # before anything else, so that the worker does not wait
        assert future is not None  # noqa: S101  # a worker answers calls only
        try:
            result, error = pickle.loads(answer)  # noqa: S301  # from our own process
        except Exception as unreadable:  # noqa: BLE001  # the future hands any error to whoever asks for the result
            result, error = None, unreadable
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _lose_waiting(self) -> None:
        while self._waiting:
            future, _ = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                _lose(future)


def _lose(future: Future[Any] | None) -> None:
    """Tell the caller that the worker of a call has died."""
    if future is not None:
        future.set_exception(WorkerLostError("its worker process died (killed, or out of memory)"))


def _cores_of_their_own(workers: int) -> list[int]:
    """Return a core for each worker to stay on, if there are as many workers as cores that this process may use.

    With fewer workers, two studies side by side would crowd on the same cores. Not every platform can pin a process.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores if len(cores) == workers else []


def _work(pipe: Connection, core: int | None) -> None:
    """Answer calls for as long as the driver lives; this is all that a worker process does."""
    _end_with_parent()
    if core is not None:
        os.sched_setaffinity(0, {core})
    while True:
        call = pipe.recv_bytes()
        try:
            fn, args, kwargs = pickle.loads(call)  # noqa: S301  # from our own parent
            answer = pickle.dumps((fn(*args, **kwargs), None))
        except BaseException as error:  # noqa: BLE001  # whatever a run raises, even SystemExit, is its answer
            answer = _pickled(error)
        pipe.send_bytes(answer)


def _pickled(error: BaseException) -> bytes:
    """Pickle an error with its traceback as a note, or the traceback alone where pickle cannot restore the error."""
    lines = "".join(traceback.format_exception(error))
    error.add_note(lines)
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)  # noqa: S301  # from this very process
    except Exception:  # noqa: BLE001  # what fails depends on the error's own class
        answer = pickle.dumps((None, RuntimeError(lines)))
    return answer


_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def _end_with_parent() -> None:
    """End this worker as soon as its parent is gone, even by ``kill -9``: by a thread, and on Linux by the kernel too.

    The kernel also ends a worker that hangs or is stopped, whose threads do nothing. It acts when the thread that
    started the worker ends: the one that calls `submit`, which outlives the executor.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Block SIGINT, which arrives at the end of the block.

    A worker that starts meanwhile inherits the blocked signal, so Ctrl-C reaches the driver alone.
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
    """Hide the main module from a worker that starts, which would import it.

    Workers call only what lies in this package, so a user's script needs no ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
