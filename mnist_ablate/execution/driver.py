"""Hands runs out to workers, takes their results back and stores them; what fails is said at once, the others go on."""

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mnist_ablate.design.plan import Run
from mnist_ablate.errors import ExecutorLostError, InterruptedRunError, MnistAblateError, RunsFailedError, WorkerError
from mnist_ablate.execution.executors import Crew, WorkerLostError, ended
from mnist_ablate.execution.progress import Progress
from mnist_ablate.store.folder import Store
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Trained

_POLL_SECONDS = 0.5  # how often a wait for results looks up, so that every platform sees Ctrl-C
_WRITERS = 8
"""Threads that store results: a disk takes several files in hardly more time than one."""


@dataclass
class Driver:
    """Hand runs to workers, no more than keep them busy, and store what comes back.

    Parameters
    ----------
    store
        Where to store the results.
    progress
        Hears of each run.
    make_crew
        Return what trains a number of runs.
    declared
        What was laid down before the runs, to be stored with each.
    fail_fast
        Stop at the first run that fails.
    """

    store: Store
    progress: Progress
    make_crew: Callable[[int], Crew]
    declared: dict[str, Any]
    fail_fast: bool
    failed: list[Run] = field(default_factory=list)
    lost: list[Run] = field(default_factory=list)
    """Runs whose worker died once."""
    retried: int = 0
    """How many of the `lost` have been tried again."""

    def drive(self, batches: Sequence[Sequence[Run]], enough: Callable[[], bool] | None = None) -> int:
        """Train and store `batches`, one after the other, and return how many.

        When a batch is stored, `enough` is asked, in a thread of its own, whether it was the last; workers go on with
        the next batch meanwhile. A batch with a failure is the last one.

        Raises
        ------
        RunsFailedError, StorageError, WorkerError, InterruptedRunError, ExecutorLostError
            See `mnist_ablate.run`.
        """
        left, stops = deque(map(_Batch, batches)), False
        try:
            while left and not stops and not self.failed:
                stops = self._train(left, enough)
                # Now one at a time: this finds the run that kills its worker, and leaves all memory to a large one.
                while self.retried < len(self.lost) and not stops:
                    self.retried += 1
                    self._train(deque([_Batch([self.lost[self.retried - 1]])]), None)
        except KeyboardInterrupt:
            raise InterruptedRunError(f"Stopped. {self._kept}") from None
        finished = len(batches) - len(left)
        if self.failed and not stops:
            runs = sum(map(len, batches[: finished + 1]))
            raise self._failure(f"{len(self.failed)} of {runs} runs failed")
        return finished

    def _train(self, batches: "deque[_Batch]", enough: Callable[[], bool] | None) -> bool:
        """Train `batches`, take out each that is finished, and return whether `enough` says that this was the last.

        Return early, with the first batch still there, where runs failed or are to be tried again.
        """
        runs = sum(len(batch.queue) for batch in batches)
        with ThreadPoolExecutor(1) as aside, ended(self.make_crew(runs)) as crew:
            answer: Future[bool] | None = None
            try:
                while batches:
                    ahead = enough is not None and not self._trouble
                    _hand_out(crew, list(batches)[: 1 + ahead])
                    futures: list[Future[Any]] = [future for batch in batches for future in batch.flying]
                    wait([*futures, *filter(None, [answer])], _POLL_SECONDS, FIRST_COMPLETED)
                    self._take_all(batches)
                    if batches[0].queue or batches[0].flying:
                        continue
                    if enough is None:
                        batches.popleft()
                    elif answer is None and any(run in batches[0].runs for run in self._trouble):
                        if not any(batch.flying for batch in batches):
                            return False
                    elif answer is None:
                        answer = aside.submit(enough)
                    elif answer.done():
                        batches.popleft()
                        if answer.result():
                            return True
                        answer = None
            except BrokenExecutor as error:
                with suppress(BrokenExecutor):
                    self._take_all(batches)
                raise ExecutorLostError(f"{str(error) or type(error).__name__}. {self._kept}") from error
        return False

    @property
    def _trouble(self) -> list[Run]:
        """The runs that failed or are to be tried again."""
        return [*self.failed, *self.lost[self.retried :]]

    def _take_all(self, batches: "Iterable[_Batch]") -> None:
        """Take all finished calls, in the order in which they were handed out, and store their results side by side."""
        done = [(future, batch.flying) for batch in batches for future in batch.flying if future.done()]
        with ThreadPoolExecutor(_WRITERS) as writers:
            try:
                storing = [writers.submit(self._store, flying[future], future) for future, flying in done]
                for (future, flying), stored in zip(done, storing, strict=True):
                    self._take(future, flying, stored)
            finally:
                writers.shutdown(cancel_futures=True)

    def _store(self, run: Run, future: "Future[Trained]") -> None:
        """Store the result of a finished call, if it has one."""
        rows, predictions, document = future.result()
        self.store.write_run(run, rows, predictions, document | {"declared": self.declared})

    def _take(self, future: "Future[Trained]", flying: dict["Future[Trained]", Run], stored: Future[None]) -> None:
        """Note that the result of a finished call is stored, that the call failed, or that its worker died.

        Raises
        ------
        BrokenExecutor
            If the whole executor is lost; the run stays in `flying`.
        WorkerError
            If no worker can be started.
        """
        run = flying[future]
        try:
            rows, _, _ = future.result()
        except WorkerLostError:
            self._lose(run)
        except (BrokenExecutor, WorkerError):
            raise
        except CancelledError as error:
            raise BrokenExecutor("The executor has cancelled a run") from error
        except Exception as error:  # noqa: BLE001  # a run may fail in any way, and the others go on
            cause = str(error) if isinstance(error, MnistAblateError) else f"{type(error).__name__}: {error}"
            self._fail(run, cause, "".join(traceback.format_exception(error)))
        else:
            stored.result()
            mark = " DIVERGED" if rows[-1]["status"] == "diverged" else ""
            self.progress.step(f"{_name(run)}: {_found(run, rows[-1])}{mark}")
        del flying[future]

    def _lose(self, run: Run) -> None:
        if run in self.lost:
            self._fail(run, "its worker process died twice (killed, or out of memory)")
        else:
            self.lost.append(run)
            self.progress.say(f"A worker process died (killed, or out of memory); to be tried again: {_name(run)}")

    def _fail(self, run: Run, cause: str, details: str = "") -> None:
        self.failed.append(run)
        file = self.store.write_failure(run, f"{cause}\n{details}")
        self.progress.say(f"FAILED {_name(run)}: {cause} (more in {file})")
        self.progress.step(f"{_name(run)}: failed")
        if self.fail_fast:
            raise self._failure("A run failed, and --fail-fast was given")

    def _failure(self, what: str) -> RunsFailedError:
        return RunsFailedError(
            f"{what}; finished runs are kept in {self.store.folder}. Run the same command again to retry the others.",
            self.store.folder,
        )

    @property
    def _kept(self) -> str:
        return f"Finished runs are kept in {self.store.folder}: run the same command again to go on."


@dataclass
class _Batch:
    """Runs, those of them that are still to be handed out, and those that workers have."""

    runs: Sequence[Run]
    queue: deque[Run] = field(init=False)
    flying: "dict[Future[Trained], Run]" = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.queue = deque(self.runs)


def _hand_out(crew: Crew, batches: Sequence[_Batch]) -> None:
    """Give runs to `crew` while it has room, and stop at one that is finished at once: its result comes first.

    Runs of a second batch keep workers busy; a crew with room for one call has none to keep busy meanwhile.
    """
    most = crew.room
    for batch in batches if most > 1 else batches[:1]:
        while batch.queue and sum(len(batch.flying) for batch in batches) < most:
            future = crew.submit(tasks.train_one, batch.queue[0])
            batch.flying[future] = batch.queue.popleft()
            if future.done():
                return
    if batches[0].queue and not any(batch.flying for batch in batches):
        time.sleep(_POLL_SECONDS)  # no room yet


def _found(run: Run, row: Mapping[str, Any]) -> str:
    """Say what a run has found after an epoch."""
    if run.metrics:
        return f"{run.metrics[0].name} {row[run.metrics[0].name]:g}"
    return f"test accuracy {row['test_accuracy']:.2%}"


def _name(run: Run) -> str:
    return f"{run.cell}, seed {run.seed}"
