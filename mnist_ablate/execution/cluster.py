"""Workers on other machines, by Dask: which of them may train, how they get the images, what happens when they go.

Only the driver knows the results folder: a worker gets a run and returns its result. Nothing here needs torch, and
Dask is needed only once a `Cluster` is made.
"""

import asyncio
import hashlib
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mnist_ablate import data
from mnist_ablate.design.own_code import code_of
from mnist_ablate.design.plan import Run
from mnist_ablate.errors import ClusterError, DataError, WorkerDiedError

P = ParamSpec("P")
T = TypeVar("T")

PACKAGE = Path(__file__).parents[1]
CONNECT_SECONDS = 10.0
"""Wait this long for a scheduler's first answer."""
ANSWER_SECONDS = 60.0
"""Take a scheduler for lost when it has not answered for this long."""
_LOOK_SECONDS = 1.0
_PER_WORKER = 2  # calls in flight for each worker: the one it does, and the next, so that it does not wait for us

Environment = dict[str, str]


# ---- What a worker must be ----


@dataclass(frozen=True)
class Needs:
    """What a worker must have before it may train.

    Parameters
    ----------
    environment
        What the function `environment` must return there.
    functions
        The user's functions that make models, or train.
    datasets
        Data sets that its data folder must hold; those of the user's own by the SHA-256 of their arrays.
    folder
        The study file's, where a user's modules are looked for, as in the worker's own current folder.
    """

    environment: Environment
    functions: tuple[str, ...]
    datasets: tuple[str, ...]
    folder: str = ""


def needs_of(runs: Sequence[Run]) -> Needs:
    """Return what a worker needs to train `runs` as this process would."""
    settings, folder = [run.settings for run in runs], max((run.folder for run in runs), default="")
    functions = tuple(sorted({name for s in settings for name in (s.model, s.train) if name}))
    return Needs(environment(functions, folder), functions, tuple(sorted({run.images for run in runs})), folder)


@lru_cache(maxsize=8)  # so that it describes what this process has imported, even if the files change
def environment(functions: tuple[str, ...] = (), folder: str = "") -> Environment:
    """Return what two machines must share to give the same results: versions, and digests of the code."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "numba")},
        "mnist_ablate's source": _digest(sorted(PACKAGE.rglob("*.py"))),
        **{_source_of(name): _own_digest(name, folder) for name in functions},
    }


def _source_of(name: str) -> str:
    return f"the source of {name}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _digest(files: Iterable[Path]) -> str:
    """Return the first digits of the SHA-256 of the names and lines of `files`."""
    sha = hashlib.sha256()
    for file in files:
        name = file.relative_to(PACKAGE).as_posix() if file.is_relative_to(PACKAGE) else file.name
        sha.update(f"{name}\0".encode())
        sha.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return sha.hexdigest()[:12]


def _own_digest(name: str, folder: str) -> str:
    """Return the first digits of the SHA-256 of all files that a function of the user's needs."""
    code = code_of(name, folder)
    return hashlib.sha256(repr(code).encode()).hexdigest()[:12] if code else "none"


def _unfit(needs: Needs) -> str:
    """Return how this worker differs from `needs`, or nothing if it is fit."""
    from distributed import get_worker

    here, threads = environment(needs.functions, needs.folder), get_worker().state.nthreads
    differences = [
        f"{key}: {here.get(key, 'none')} there, {wanted} here"
        for key, wanted in needs.environment.items()
        if here.get(key) != wanted
    ]
    if threads != 1:
        differences.append(f"{threads} threads, where 1 is needed (`dask worker --nthreads 1`)")
    return "; ".join(differences)


class _UnfitError(Exception):
    """A worker no longer fits: another process has taken its address."""


def _call(needs: Needs, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `fn` on this worker if it is fit."""
    if unfit := _unfit(needs):
        raise _UnfitError(unfit)
    return fn(*args, **kwargs)


# ---- On a worker, before its first run ----

Files = dict[str, bytes]


def _prepare(needs: Needs) -> tuple[str, dict[str, str]]:
    """Check this worker, and fetch the images that it lacks.

    Returns
    -------
    tuple
        How it differs from `needs`, or nothing; and for each data set that it cannot fetch, why.
    """
    if unfit := _unfit(needs):
        return unfit, {}
    failed = {}
    for name in needs.datasets:
        try:
            if data.is_kept(name):
                data.load_kept(name)
            else:
                data.fetch(name)
        except DataError as error:
            failed[name] = str(error)
    return "", failed


def _receive(sent: dict[str, Files]) -> tuple[str, dict[str, str]]:
    """Put the images that the driver sent into the data folder, checked by SHA-256; return as `_prepare` does."""
    try:
        for name, files in sent.items():
            if data.is_kept(name):
                data.receive(name, files)
                continue
            with tempfile.TemporaryDirectory() as folder:
                for file, content in files.items():
                    (Path(folder) / file).write_bytes(content)
                data.fetch(name, Path(folder))
    except (DataError, OSError) as error:
        return f"the images that were sent cannot be kept: {error}", {}
    return "", {}


def _files_of(name: str) -> Files:
    """Read the files of a data set, to send them."""
    if data.is_kept(name):
        return data.kept_files(name)
    folder = data.fetch(name).folder
    return {file.name: (folder / file.name).read_bytes() for file in data.DATASETS[name]}


# ---- The driver's side ----


def check_installed() -> None:
    """Check that Dask is installed.

    Raises
    ------
    ClusterError
        If it is not.
    """
    if not find_spec("distributed"):
        raise ClusterError('--scheduler needs Dask, which is not installed: pip install "mnist-ablate[cluster]"')


def _connect(address: str) -> Any:
    # No import statement, because Dask ships types in some versions only.
    distributed = import_module("distributed")
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="mnist-ablate")
    except (OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:  # the last when it stalls
        raise ClusterError(
            f"{address}: no Dask scheduler answers there ({_first_line(error)}). Start one with `dask scheduler`, "
            "which prints its address, as tcp://host:8786."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _silence() -> dict[logging.Logger, int]:
    """Stop Dask from logging what this module says in one sentence; return the levels to restore."""
    loud = ("distributed", "distributed.client", "tornado.application")
    before = {logger: logger.level for logger in map(logging.getLogger, loud)}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    return before


def _why_no_answer(error: BaseException) -> str:
    """Return why a worker could not answer at all."""
    if isinstance(error, ImportError | AttributeError):
        return f"has no mnist_ablate, or another version of it ({_first_line(error)})"
    if "deserialization" in str(error):
        return "the scheduler has no mnist_ablate, or other versions of Python or Dask: it needs what workers have"
    return f"{type(error).__name__}: {_first_line(error)}"


def _died(error: BaseException) -> WorkerDiedError | None:
    """Return the failure that Dask's `error` stands for if workers died during a call, else None."""
    if type(error).__name__ != "KilledWorker":
        return None
    times = getattr(error, "allowed_failures", 0) + 1
    return WorkerDiedError(f"{times} workers died while they had it (killed, or out of memory)")


@dataclass(eq=False)
class _Worker:
    """A worker: it is still to answer whether it is fit (`answer`), or is fit, or `unfit` says why not."""

    address: str
    answer: Future[tuple[str, dict[str, str]]] | None
    unfit: str = ""

    @property
    def ready(self) -> bool:
        """Return whether it may train."""
        return self.answer is None and not self.unfit


@dataclass(eq=False)
class _Call:
    """A call in flight: how to submit it, the caller's future, Dask's, and the workers that it may go to."""

    what: Callable[[list[str]], Future[Any]]
    outer: Future[Any]
    inner: Future[Any] | None = None
    workers: frozenset[str] = field(default_factory=frozenset)


class Cluster(Executor):
    """The workers of a Dask scheduler, as an executor: those that are there, and those that come later.

    Every worker is checked before its first call, and again at each call, since another process may take its address.
    A call goes to fit workers only. When its worker dies, Dask gives the call to another; when all workers that it
    might go to are gone, this class gives it to new ones.

    Parameters
    ----------
    address
        The scheduler's, such as ``"tcp://host:8786"``.
    needs
        What a worker must have.
    say
        Shows a sentence to the user.

    Raises
    ------
    ClusterError
        If no scheduler answers, or a worker that is there now is not fit; the message names each.
    """

    def __init__(self, address: str, needs: Needs, say: Callable[[str], None]) -> None:
        self._address, self._needs, self._say = address, needs, say
        self._workers: dict[str, _Worker] = {}
        self._changed: set[str] = set()
        self._calls: set[_Call] = set()
        self._looked = self._alone = False
        self._next_look = 0.0
        self._client = _connect(address)
        self._loud = _silence()
        try:
            self._assemble()
        except BaseException:
            self.kill()
            raise

    def _assemble(self) -> None:
        """Wait until there is a worker, and all have answered."""
        while not self._workers or any(worker.answer for worker in self._workers.values()):
            try:
                self._look()
            except BrokenExecutor as error:
                raise ClusterError(f"{error}. Nothing was trained.") from error
            time.sleep(0.05)
        self._looked = True
        unfit = [f"- {worker.address}: {worker.unfit}" for worker in self._workers.values() if worker.unfit]
        if unfit:
            raise ClusterError(
                f"{self._address}: {len(unfit)} of {len(self._workers)} workers would not do what this machine does. "
                f"Nothing was trained. {self._remedy(unfit)}, or stop them:\n" + "\n".join(unfit)
            )

    def _remedy(self, unfit: Sequence[str]) -> str:
        lacks = [name for name in self._needs.functions if any(_source_of(name) in why for why in unfit)]
        if not lacks:
            return "Give them the same versions and one thread"
        files = sorted({file for name in lacks for file in code_of(name, self._needs.folder)})
        return (
            f"Give them the same versions, one thread and your code ({', '.join(files)}): start them in a folder that "
            "has it, or with that folder in PYTHONPATH, and anew whenever it changes"
        )

    @property
    def room(self) -> int:
        """How many calls to keep in flight; also looks at the workers now and then.

        Raises
        ------
        BrokenExecutor
            If the scheduler is lost.
        """
        if time.monotonic() >= self._next_look:
            self._look()
            self._next_look = time.monotonic() + _LOOK_SECONDS
        return _PER_WORKER * len(self._ready)

    @property
    def _ready(self) -> frozenset[str]:
        return frozenset(worker.address for worker in self._workers.values() if worker.ready)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand out a call as soon as there is a worker for it."""
        while not self.room:
            time.sleep(_LOOK_SECONDS)
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        what = partial(fn, *args, **kwargs)
        call = _Call(lambda workers: self._submit(_call, self._needs, what, workers=workers), outer)
        self._calls.add(call)
        self._place(call)
        return outer

    def kill(self) -> None:
        """Give up all calls and leave the cluster. Workers finish what they are doing, and nobody takes it."""
        self._fail_all("the executor was shut down")
        with suppress(Exception):  # the scheduler may be gone
            self._client.close(timeout=2)
        for logger, level in self._loud.items():
            logger.setLevel(level)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which keeps running."""
        while wait and self._calls and not cancel_futures:
            self._look()
            time.sleep(0.05)
        self.kill()

    # ---- Workers come and go ----

    def _look(self) -> None:
        """List the workers, check the new ones, and give the calls of those that are gone to others."""
        present = self._present()
        while self._changed:
            self._workers.pop(self._changed.pop(), None)
        for address in self._workers.keys() - present:
            del self._workers[address]
        for address in sorted(present - self._workers.keys()):
            self._workers[address] = _Worker(address, self._submit(_prepare, self._needs, workers=[address]))
        for worker in self._workers.values():
            self._hear(worker)
        if ready := self._ready:
            for call in list(self._calls):
                if not call.workers & ready:
                    self._place(call)
        if not present and not self._alone:
            self._say(f"{self._address}: the scheduler has no worker. Waiting for one.")
        self._alone = not present

    def _present(self) -> set[str]:
        """Ask the scheduler for the addresses of its workers."""
        reason = "has gone"
        try:
            # A client that loses the scheduler cancels all calls, even if it finds it again.
            if self._client.status == "running":
                return set(self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_SECONDS))
        except TimeoutError:
            reason = f"has not answered for {ANSWER_SECONDS:.0f} s"
        except (OSError, RuntimeError) as error:
            reason = f"has gone ({_first_line(error)})"
        raise self._fail_all(f"{self._address}: the scheduler {reason}")

    def _submit(self, fn: Callable[..., Any], *args: Any, workers: list[str]) -> Future[Any]:
        """Submit a call to `workers`, as ``Client.get_executor(pure=False, workers=workers)`` does.

        The futures of that executor never finish if the network stalls while it fetches a result.
        """
        theirs = self._client.submit(fn, *args, pure=False, workers=workers)
        ours: Future[Any] = Future()
        ours.add_done_callback(lambda _: theirs.cancel() if ours.cancelled() and not theirs.cancelled() else None)
        self._client.loop.add_callback(self._take_over, theirs, ours)
        return ours

    async def _take_over(self, theirs: Any, ours: Future[Any]) -> None:
        """Give `ours` the outcome of Dask's future, asking again while the network stalls; runs in Dask's thread."""
        with suppress(InvalidStateError):  # it was cancelled meanwhile
            while not ours.done():
                try:
                    result = await self._client.gather(theirs, asynchronous=True)
                    ours.set_result(result)
                except (OSError, TimeoutError) as error:
                    if theirs.status == "error" or self._client.status != "running":
                        ours.set_exception(error)
                    else:
                        await asyncio.sleep(_LOOK_SECONDS)
                except CancelledError:
                    ours.cancel()
                except Exception as error:  # noqa: BLE001  # the future hands any error to whoever asks for the result
                    ours.set_exception(error)

    def _hear(self, worker: _Worker) -> None:
        """Take the answer of a worker if it has come, and send it the images that it lacks."""
        if worker.answer is None or not worker.answer.done():
            return
        if worker.answer.cancelled():  # another client has restarted the workers
            self._changed.add(worker.address)
            return
        if error := worker.answer.exception():
            worker.answer, worker.unfit = None, _why_no_answer(error)
        else:
            unfit, failed = worker.answer.result()
            worker.answer, worker.unfit = None, unfit
            if failed:
                self._send(worker, failed)
        if worker.unfit and self._looked:
            self._say(f"{worker.address}: a new worker that is not used: {worker.unfit}")

    def _send(self, worker: _Worker, failed: Mapping[str, str]) -> None:
        for why in failed.values():
            self._say(f"{worker.address}: {why.splitlines()[0].rstrip('.')}. It is sent from here.")
        files = {name: _files_of(name) for name in failed}
        try:
            (sent,) = self._client.scatter([files], workers=[worker.address], hash=False)
        except (OSError, TimeoutError, ValueError, KeyError) as error:
            worker.unfit = f"the images cannot be sent: {_first_line(error)}"
        else:
            worker.answer = self._submit(_receive, sent, workers=[worker.address])

    # ---- Calls ----

    def _place(self, call: _Call) -> None:
        """Give `call` to the workers that are fit now, and take it from the others."""
        before, call.inner, call.workers = call.inner, None, self._ready
        if before is not None:
            before.cancel()
        try:
            inner = call.inner = call.what(sorted(call.workers))
        except (OSError, RuntimeError) as error:
            raise self._fail_all(f"{self._address}: the scheduler has gone ({_first_line(error)})") from error
        inner.add_done_callback(lambda done: self._pass_on(call, done))

    def _pass_on(self, call: _Call, inner: Future[Any]) -> None:
        """Give the outcome of Dask's future to the caller's; runs in Dask's thread."""
        if call.inner is not inner or call not in self._calls:
            return  # other workers have the call now
        if inner.cancelled():
            self._end(call, error=BrokenExecutor(f"{self._address}: the scheduler has gone, or has dropped all runs"))
        elif isinstance(error := inner.exception(), _UnfitError):
            self._changed |= call.workers  # check them again at the next look, which places the call anew
            call.workers = frozenset()
        elif error is not None:
            self._end(call, error=_died(error) or error)
        else:
            self._end(call, result=inner.result())

    def _end(self, call: _Call, *, result: Any = None, error: BaseException | None = None) -> None:
        self._calls.discard(call)
        if error is None:
            call.outer.set_result(result)
        else:
            call.outer.set_exception(error)

    def _fail_all(self, reason: str) -> BrokenExecutor:
        """End every call in flight with an error, and return the error to raise."""
        for call in list(self._calls):
            call.inner = None
            self._end(call, error=BrokenExecutor(reason))
        return BrokenExecutor(reason)
