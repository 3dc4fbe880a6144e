"""Hands runs out to workers, takes their results back and stores them; what fails is said at once, the others go on."""

import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
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
    failures: int = 0
    lost: list[Run] = field(default_factory=list)
    """Runs whose worker died once."""

    def drive(self, runs: list[Run]) -> None:
        """Train and store `runs`.

        Raises
        ------
        RunsFailedError, StorageError, WorkerError, InterruptedRunError, ExecutorLostError
            See `mnist_ablate.execution.runner.run`.
        """
        try:
            self._train(deque(runs))
            # Now one at a time: this finds the run that kills its worker, and leaves all memory to a large one.
            for run in list(self.lost):
                self._train(deque([run]))
        except KeyboardInterrupt:
            raise InterruptedRunError(f"Stopped. {self._kept}") from None
        if self.failures:
            raise self._failure(f"{self.failures} of {len(runs)} runs failed")

    def _train(self, queue: deque[Run]) -> None:
        """Train the runs of `queue`."""
        flying: dict[Future[Trained], Run] = {}
        with ended(self.make_crew(len(queue))) as crew:
            try:
                while queue or flying:
                    _hand_out(crew, queue, flying)
                    for future in wait(flying, _POLL_SECONDS, FIRST_COMPLETED).done:
                        self._take(future, flying)
            except BrokenExecutor as error:
                for future in [future for future in flying if future.done()]:
                    with suppress(BrokenExecutor):
                        self._take(future, flying)
                raise ExecutorLostError(f"{str(error) or type(error).__name__}. {self._kept}") from error

    def _take(self, future: "Future[Trained]", flying: dict["Future[Trained]", Run]) -> None:
        """Store the result of a finished call, note its failure, or note that its worker died.

        Raises
        ------
        BrokenExecutor
            If the whole executor is lost; the run stays in `flying`.
        WorkerError
            If no worker can be started.
        """
        run = flying[future]
        try:
            rows, predictions, document = future.result()
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
            self.store.write_run(run, rows, predictions, document | {"declared": self.declared})
            mark = " DIVERGED" if rows[-1]["status"] == "diverged" else ""
            self.progress.step(f"{_name(run)}: test accuracy {rows[-1]['test_accuracy']:.2%}{mark}")
        del flying[future]

    def _lose(self, run: Run) -> None:
        if run in self.lost:
            self._fail(run, "its worker process died twice (killed, or out of memory)")
        else:
            self.lost.append(run)
            self.progress.say(f"A worker process died (killed, or out of memory); to be tried again: {_name(run)}")

    def _fail(self, run: Run, cause: str, details: str = "") -> None:
        self.failures += 1
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


def _hand_out(crew: Crew, queue: deque[Run], flying: dict["Future[Trained]", Run]) -> None:
    """Give runs to `crew` while it has room, and stop at one that is finished at once: its result comes first."""
    room = crew.room
    while queue and len(flying) < room:
        future = crew.submit(tasks.train_one, queue[0])
        flying[future] = queue.popleft()
        if future.done():
            break
    if not flying:
        time.sleep(_POLL_SECONDS)  # no room yet


def _name(run: Run) -> str:
    return f"{run.cell}, seed {run.seed}"
