"""Where runs are trained: in this process, in worker processes, or with an executor of the caller's."""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

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
    """The worker process died during this call; the others go on."""


class Processes(ThreadPoolExecutor):
    """Worker processes that end with this one, ignore Ctrl-C, can be killed at any time, and are replaced if they die.

    Each thread of the pool hands its calls to a process of its own, through a pipe of its own: a worker that dies in
    the middle of an answer disturbs no other. Workers are spawned, not forked: a fork of a process in which torch has
    threads may hang.

    Parameters
    ----------
    workers
        How many processes; each starts when there is a call for it.
    """

    def __init__(self, workers: int) -> None:
        if multiprocessing.current_process().daemon:  # such as those of multiprocessing.Pool
            raise WorkerError("A worker of a multiprocessing pool cannot start workers: use workers=0 there.")
        self.room = workers + 1  # one call waits here, so that no worker idles while a result is stored
        self._cores = _cores_of_their_own(workers)
        self._own = threading.local()  # a thread's pipe and core
        self._children: list[BaseProcess] = []
        self._start_lock = threading.Lock()
        self._killed = False
        super().__init__(workers, initializer=block_interrupts)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a call.

        Raises
        ------
        WorkerError
            If the system has no thread left for it; the future has this error if there is no process or memory left.
        BrokenProcessPool
            If the workers have been killed.
        """
        try:
            return super().submit(cast(Callable[..., T], self._call), pickle.dumps((fn, args, kwargs)))
        except (RuntimeError, MemoryError) as error:
            raise BrokenProcessPool("the workers have been killed") if self._killed else _no_room(error) from error

    def _call(self, call: bytes) -> Any:
        """Have this thread's worker do a call."""
        if getattr(self._own, "pipe", None) is None:
            self._own.pipe = self._start_worker()
        try:
            self._own.pipe.send_bytes(call)
            answer = self._own.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self._own.pipe = None
            raise WorkerLostError("its worker process died (killed, or out of memory)") from error
        result, failure = pickle.loads(answer)  # noqa: S301  # from our own process
        if failure is not None:
            raise failure
        return result

    def _start_worker(self) -> Connection:
        """Start a process for this thread; return our end of its pipe, which ends when the process does."""
        if not hasattr(self._own, "core"):
            self._own.core = self._cores.pop() if self._cores else None
        with self._start_lock:
            if self._killed:
                raise WorkerLostError("the workers have been killed")
            ours, child = start_worker(_work, self._own.core)
            self._children.append(child)
            return ours

    def kill(self) -> None:
        """End the workers now, whatever they are doing, however often Ctrl-C is pressed meanwhile."""
        with interrupt_held_back():
            with self._start_lock:
                self._killed = True
            for child in self._children:
                child.kill()
            super().shutdown(cancel_futures=True)
            for child in self._children:
                child.join()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, by default after all calls."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.kill()


def start_worker(target: Callable[..., None], *arguments: Any) -> tuple[Connection, BaseProcess]:
    """Start a process that runs `target` with its end of a pipe and `arguments`; return our end, and the process.

    Raises
    ------
    WorkerError
        If the system has no process or memory left for it.
    """
    with _no_main_module():
        try:
            if os.name == "posix":  # the first process needs it, and starting it unblocks interrupts
                resource_tracker.ensure_running()
                block_interrupts()
            spawn = multiprocessing.get_context("spawn")
            ours, theirs = spawn.Pipe()
            child = spawn.Process(target=target, args=(theirs, *arguments))
            child.start()
        except (OSError, MemoryError, RuntimeError) as error:
            raise _no_room(error) from error
        theirs.close()
        return ours, child


def _no_room(error: BaseException) -> WorkerError:
    return WorkerError(
        f"No worker process can be started ({error or 'no memory'}). Finished runs are kept. Use fewer --workers, or "
        "--workers 0 for none, or end other programs; then run the same command again."
    )


def _cores_of_their_own(workers: int) -> list[int]:
    """Return a core for each worker to stay on, if there are as many workers as cores that this process may use.

    With fewer workers, two studies side by side would crowd on the same cores. Not every platform can pin a process.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores if len(cores) == workers else []


def _work(pipe: Connection, core: int | None) -> None:
    """Answer calls for as long as the driver lives; this is all that a worker process does."""
    end_with_parent()
    if core is not None:
        os.sched_setaffinity(0, {core})
    while True:
        try:
            call = pipe.recv_bytes()
        except EOFError:  # the driver is gone
            return
        try:
            fn, args, kwargs = pickle.loads(call)  # noqa: S301  # from our own parent
            answer = pickle.dumps((fn(*args, **kwargs), None))
        except BaseException as error:  # noqa: BLE001  # whatever a run raises, even SystemExit, is its answer
            answer = pickled(error)
        pipe.send_bytes(answer)


def pickled(error: BaseException) -> bytes:
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


def end_with_parent() -> None:
    """End this worker as soon as its parent is gone, even by ``kill -9``: by a thread, and on Linux by the kernel too.

    The kernel also ends a worker that hangs or is stopped, whose threads do nothing. It acts when the thread that
    started the worker ends, which is when the executor ends.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def block_interrupts() -> None:
    """Block SIGINT in this thread, and so in the workers that it starts: Ctrl-C reaches the main thread alone."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def interrupt_held_back() -> Iterator[None]:
    """Block SIGINT, which arrives at the end of the block."""
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
