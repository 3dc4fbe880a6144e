"""Workers on other machines, by Dask: who may train, how the images get there, and what happens when some go.

The driver alone knows the results folder: a worker gets a run, and gives back its result. Nothing here needs torch,
nor Dask before a `Cluster` is made.
"""

import asyncio
import hashlib
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
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
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.errors import ClusterError, DataError, WorkerDiedError

P = ParamSpec("P")
T = TypeVar("T")

PACKAGE = Path(__file__).parents[1]
CONNECT_SECONDS = 10.0
"""A scheduler that has not answered by then is not there."""
ANSWER_SECONDS = 60.0
"""A scheduler that was there and does not answer for so long is lost."""
_LOOK_SECONDS = 1.0
_PER_WORKER = 2  # calls in flight for each worker: one that it does, and the next, so that it need not wait for us

Environment = dict[str, str]


# ---- What a worker must be ----


@dataclass(frozen=True)
class Needs:
    """What a worker must have before it may train.

    Parameters
    ----------
    environment
        What `environment` must give there.
    modules
        Modules of the user's, which make models.
    datasets
        Data sets that must be in its data folder.
    """

    environment: Environment
    modules: tuple[str, ...]
    datasets: tuple[DatasetName, ...]


def needs_of(runs: Iterable[Run]) -> Needs:
    """Tell what a worker needs to train `runs` as this process would."""
    settings = [run.settings for run in runs]
    modules = tuple(sorted({s.model.partition(":")[0] for s in settings if s.model}))
    return Needs(environment(modules), modules, tuple(sorted({s.dataset for s in settings})))


@lru_cache(maxsize=8)  # so it is what this process has imported, even if the files have changed since
def environment(modules: tuple[str, ...] = ()) -> Environment:
    """Name what must be the same where results are to be the same: versions, and digests of the code."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "numba")},
        "mnist_ablate's source": _digest(sorted(PACKAGE.rglob("*.py"))),
        **{f"the source of {name}": _module_digest(name) for name in modules},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _digest(files: Iterable[Path]) -> str:
    """Return the first digits of the SHA-256 of some files' names and lines."""
    sha = hashlib.sha256()
    for file in files:
        name = file.relative_to(PACKAGE).as_posix() if file.is_relative_to(PACKAGE) else file.name
        sha.update(f"{name}\0".encode())
        sha.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return sha.hexdigest()[:12]


def _module_digest(name: str) -> str:
    try:
        spec = find_spec(name)
    except ImportError:
        spec = None
    return _digest([Path(spec.origin)]) if spec and spec.origin else "none"


def _unfit(needs: Needs) -> str:
    """Say, on a worker, in what it differs from `needs`; empty where in nothing."""
    here, threads = environment(needs.modules), _threads()
    found = [
        f"{key}: {here.get(key, 'none')} there, {wanted} here"
        for key, wanted in needs.environment.items()
        if here.get(key) != wanted
    ]
    if threads != 1:
        found.append(f"{threads} threads, where 1 is needed (`dask worker --nthreads 1`)")
    return "; ".join(found)


def _threads() -> int:
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return threads


class _UnfitError(Exception):
    """A worker is not what it was when it was asked: another process has taken its address."""


def _call(needs: Needs, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `fn` on a worker, if it is fit."""
    if unfit := _unfit(needs):
        raise _UnfitError(unfit)
    return fn(*args, **kwargs)


# ---- What is done on a worker before its first run ----

Files = dict[str, bytes]


def _prepare(needs: Needs) -> tuple[str, dict[DatasetName, str]]:
    """Check a worker, and let it fetch the images that it lacks.

    Returns
    -------
    tuple
        In what it differs, or empty; and for each data set that it cannot have, why.
    """
    if unfit := _unfit(needs):
        return unfit, {}
    failed = {}
    for name in needs.datasets:
        try:
            data.fetch(name)
        except DataError as error:
            failed[name] = str(error)
    return "", failed


def _receive(sent: dict[DatasetName, Files]) -> tuple[str, dict[DatasetName, str]]:
    """Put images that were sent into a worker's data folder, checked by SHA-256; return as `_prepare` does."""
    try:
        for name, files in sent.items():
            with tempfile.TemporaryDirectory() as folder:
                for file, content in files.items():
                    (Path(folder) / file).write_bytes(content)
                data.fetch(name, Path(folder))
    except (DataError, OSError) as error:
        return f"the images that were sent cannot be kept: {error}", {}
    return "", {}


def _files_of(name: DatasetName) -> Files:
    """Read the files of a data set, to be sent."""
    folder = data.fetch(name).folder
    return {file.name: (folder / file.name).read_bytes() for file in data.DATASETS[name]}


# ---- The driver's side ----


def check_installed() -> None:
    """Make sure that Dask is there.

    Raises
    ------
    ClusterError
        If it is not.
    """
    if not find_spec("distributed"):
        raise ClusterError('--scheduler needs Dask, which is not installed: pip install "mnist-ablate[cluster]"')


def _connect(address: str) -> Any:
    # Not an import statement: Dask's types come and go with its versions.
    distributed = import_module("distributed")
    try:
        return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="mnist-ablate")
    except (OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:  # the last on a machine that stalls
        raise ClusterError(
            f"{address}: no Dask scheduler answers there ({_first_line(error)}). Start one with `dask scheduler`, "
            "which prints its address, as tcp://host:8786."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _silence() -> dict[logging.Logger, int]:
    """Keep Dask from logging what this module says itself, in one sentence; return the levels to put back."""
    loud = ("distributed", "distributed.client", "tornado.application")
    before = {logger: logger.level for logger in map(logging.getLogger, loud)}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    return before


def _why_no_answer(error: BaseException) -> str:
    """Say why a worker could not even be asked."""
    if isinstance(error, ImportError | AttributeError):
        return f"has no mnist_ablate, or another version of it ({_first_line(error)})"
    if "deserialization" in str(error):
        return "the scheduler has no mnist_ablate, or other versions of Python or Dask: it needs the same, too"
    return f"{type(error).__name__}: {_first_line(error)}"


def _died(error: BaseException) -> WorkerDiedError | None:
    """Put into words that workers died under a call; None if that is not what `error` says."""
    if type(error).__name__ != "KilledWorker":
        return None
    times = getattr(error, "allowed_failures", 0) + 1
    return WorkerDiedError(f"{times} workers died while they had it (killed, or out of memory)")


@dataclass(eq=False)
class _Worker:
    """A worker, and what is known of it: `answer` is awaited; without one it is fit, or `unfit` says why not."""

    address: str
    answer: Future[tuple[str, dict[DatasetName, str]]] | None
    unfit: str = ""

    @property
    def ready(self) -> bool:
        """Whether it may train."""
        return self.answer is None and not self.unfit


@dataclass(eq=False)
class _Call:
    """A call in flight: what is called, the caller's future, Dask's, and the workers that it may go to."""

    what: Callable[[list[str]], Future[Any]]
    outer: Future[Any]
    inner: Future[Any] | None = None
    workers: frozenset[str] = field(default_factory=frozenset)


class Cluster(Executor):
    """The workers of a Dask scheduler, as an executor: those that are fit, those that come later, less those that go.

    Every worker is asked before its first call, and again at each, since another process may take its address.
    A call goes to fit workers only. Dask gives it to another one when its worker dies, and so does this class when
    all that it might go to are gone.

    Parameters
    ----------
    address
        Of the scheduler, as ``"tcp://host:8786"``.
    needs
        What a worker must have.
    say
        Is given a sentence about what a person should know.

    Raises
    ------
    ClusterError
        If no scheduler answers, or a worker that is there now is not fit; the message has every one.
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
        """Wait for a worker, and for the answers of all that are there."""
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
                "Nothing was trained. Give them the same versions and one thread, or take them away:\n"
                + "\n".join(unfit)
            )

    @property
    def room(self) -> int:
        """How many calls to give it at once; looks after the workers, too.

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
        """Hand out a call, once there is a worker for it."""
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
        """Take back what has not begun, and leave. What a worker is doing it goes on with, and nobody asks for it."""
        self._fail_all("the executor was shut down")
        with suppress(Exception):  # a scheduler that is gone cannot be told
            self._client.close(timeout=2)
        for logger, level in self._loud.items():
            logger.setLevel(level)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which goes on."""
        while wait and self._calls and not cancel_futures:
            self._look()
            time.sleep(0.05)
        self.kill()

    # ---- Workers come and go ----

    def _look(self) -> None:
        """See who is there, ask who is new, and give the calls of those that are gone to others."""
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
            # It cancels all calls when it loses the scheduler, even if it finds it again.
            if self._client.status == "running":
                return set(self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_SECONDS))
        except TimeoutError:
            reason = f"has not answered for {ANSWER_SECONDS:.0f} s"
        except (OSError, RuntimeError) as error:
            reason = f"has gone ({_first_line(error)})"
        raise self._fail_all(f"{self._address}: the scheduler {reason}")

    def _submit(self, fn: Callable[..., Any], *args: Any, workers: list[str]) -> Future[Any]:
        """Submit a call to some workers, as ``Client.get_executor(pure=False, workers=workers)`` does.

        But the futures of that are never done if the network stalls while a result is fetched.
        """
        there = self._client.submit(fn, *args, pure=False, workers=workers)
        here: Future[Any] = Future()
        here.add_done_callback(lambda _: there.cancel() if here.cancelled() and not there.cancelled() else None)
        self._client.loop.add_callback(self._take_over, there, here)
        return here

    async def _take_over(self, there: Any, here: Future[Any]) -> None:
        """Give `here` the outcome of Dask's future `there`, however often it must be asked for; in Dask's thread."""
        with suppress(InvalidStateError):  # it was cancelled meanwhile
            while not here.done():
                try:
                    result = await self._client.gather(there, asynchronous=True)
                    here.set_result(result)
                except (OSError, TimeoutError) as error:
                    if there.status == "error" or self._client.status != "running":
                        here.set_exception(error)
                    else:
                        await asyncio.sleep(_LOOK_SECONDS)
                except CancelledError:
                    here.cancel()
                except Exception as error:  # noqa: BLE001  # whatever it is, the future hands it on
                    here.set_exception(error)

    def _hear(self, worker: _Worker) -> None:
        """Take a worker's answer, if it has come; send images that it lacks."""
        if worker.answer is None or not worker.answer.done():
            return
        if worker.answer.cancelled():  # by another client, which has restarted the workers
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

    def _send(self, worker: _Worker, failed: Mapping[DatasetName, str]) -> None:
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
        """Give `call` to the workers that are fit now, and to no others."""
        before, call.inner, call.workers = call.inner, None, self._ready
        if before is not None:
            before.cancel()
        try:
            inner = call.inner = call.what(sorted(call.workers))
        except (OSError, RuntimeError) as error:
            raise self._fail_all(f"{self._address}: the scheduler has gone ({_first_line(error)})") from error
        inner.add_done_callback(lambda done: self._pass_on(call, done))

    def _pass_on(self, call: _Call, inner: Future[Any]) -> None:
        """Give the outcome of Dask's future to the caller's; runs in a thread of Dask's."""
        if call.inner is not inner or call not in self._calls:
            return  # the call has been given to others since
        if inner.cancelled():
            self._end(call, error=BrokenExecutor(f"{self._address}: the scheduler has gone, or has dropped all runs"))
        elif isinstance(error := inner.exception(), _UnfitError):
            self._changed |= call.workers  # all are asked again at the next look, and the call is given to one of them
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
        """End every call in flight, which nobody will answer; return the error to raise."""
        for call in list(self._calls):
            call.inner = None
            self._end(call, error=BrokenExecutor(reason))
        return BrokenExecutor(reason)
