"""From a plan to a results folder: what is stored is skipped, what fails is said at once, the others go on."""

import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from mnist_ablate import data
from mnist_ablate.design.plan import Run, cells, plan
from mnist_ablate.design.study import Study, load_study, study_sha256
from mnist_ablate.errors import (
    ExecutorLostError,
    InterruptedRunError,
    MnistAblateError,
    ResultsError,
    RunsFailedError,
    StudyError,
    TrainingError,
)
from mnist_ablate.execution import cluster
from mnist_ablate.execution.executors import IN_FLIGHT, Crew, InlineExecutor, Lent, Processes, ended
from mnist_ablate.execution.progress import Progress, Silent, make_progress
from mnist_ablate.store.compact import write_index
from mnist_ablate.store.folder import Store, StoredRuns
from mnist_ablate.store.results import Results, load, read
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Trained

_POLL_SECONDS = 0.5  # the wait for a run returns this often, so that Ctrl-C is seen on every platform


def run(
    study: str | Path | Study = "factorial",
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    dataset: str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
    fail_fast: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """Train every run of a study that is not stored yet, and return all that is stored then.

    Parameters
    ----------
    study
        A bundled study's name, the path of a study file, or a `Study`.
    seeds, epochs, dataset, engine
        In place of what the study says.
    workers
        Processes to train in, by default one for each physical core that this process may use. 0 trains in this
        process, for debugging. With `executor`, how many runs it is given at once, by default 100.
    executor
        Where to train instead: anything with the interface of ``concurrent.futures.Executor`` whose processes can
        import this package and have the images. It is left open. In one process, runs are trained one at a time.
    scheduler
        The address of a Dask scheduler, as ``"tcp://host:8786"``, whose workers train instead. They may come and go,
        need no shared disk, and get the images if they have none.
    fail_fast
        Stop at the first run that fails.
    out
        The results folder, by default ``results/<study>``.
    progress
        Show how far it is.

    Raises
    ------
    StudyError, DataError, ResultsError, ClusterError
        If the study, its data, the folder or the cluster cannot be used; nothing has been trained then.
    RunsFailedError
        At the end, if a run failed; the others are stored.
    StorageError
        At once, if a result cannot be written.
    InterruptedRunError
        On Ctrl-C.
    ExecutorLostError
        If `executor` breaks, or the scheduler is lost; what is finished is stored.
    """
    where = _Where(workers, executor, scheduler)
    chosen = study if isinstance(study, Study) else load_study(study)
    source = "" if isinstance(study, Study) else study_sha256(study)  # of the file as it is before the first run
    chosen = chosen.with_options(seeds=seeds, engine=engine, epochs=epochs, dataset=dataset)
    chosen = with_engine(chosen)
    check_sizes(chosen)
    runs = plan(chosen)
    store = Store(Path(out) if out is not None else Path("results") / chosen.name)
    with store.opened(chosen, Silent().say):
        try:
            stored = _train_missing(runs, store, _declared(chosen, source), where, fail_fast=fail_fast, show=progress)
        except RunsFailedError:
            with suppress(ResultsError):  # perhaps none succeeded
                write_index(load(store.folder))
            raise
        results = read(store, stored)
        write_index(results)
    _check_read_back(runs, results)
    return results


def _check_read_back(runs: list[Run], results: Results) -> None:
    """See that every run can be read: its file may have been damaged while the others were trained.

    Raises
    ------
    RunsFailedError
        If one cannot.
    """
    gone = [run for run in runs if run.run_id not in results.documents]
    if gone:
        raise RunsFailedError(
            f"{len(gone)} stored runs cannot be read back: {'; '.join(results.problems) or _name(gone[0])}. "
            "Run the same command again to make them again.",
            results.folder,
        )


def with_engine(study: Study) -> Study:
    """Settle the engine of `study`, which its results folder records: without Numba all is left to autograd.

    Raises
    ------
    StudyError
        If the study asks for the fused engine, and Numba is not installed.
    """
    if study.chosen_engine == "autograd" or find_spec("numba"):
        return study.with_options(engine=study.chosen_engine)
    remedy = 'pip install "mnist-ablate[fast]"'
    if study.engine == "fused":
        raise StudyError(f'engine = "fused": needs Numba, which is not installed: {remedy}; or take "autograd".')
    Silent().say(f"Numba is not installed, so the slower engine autograd trains. The faster one: {remedy}")
    return study.with_options(engine="autograd")


def check_sizes(study: Study) -> None:
    """Find what does not fit the number of images that its data sets have, before anything is trained.

    Raises
    ------
    StudyError
        With a line for each thing that does not fit.
    """
    mistakes = []
    for cell in cells(study):
        _, train_labels, *_ = data.DATASETS[cell.settings.dataset]
        try:
            data.training_size(cell.settings, train_labels.shape[0])
        except TrainingError as error:
            mistakes.append(f"{study.name}, {cell.name}: {error}")
    if mistakes:
        raise StudyError("\n".join(mistakes))


def _train_missing(
    runs: list[Run], store: Store, declared: dict[str, Any], where: "_Where", *, fail_fast: bool, show: bool
) -> StoredRuns | None:
    """Train what is missing; return the stored runs, which have just been read, if nothing is."""
    before = store.read_runs(store.study())
    done, damaged = store.completed(runs, before)
    missing = [run for run in runs if run.run_id not in done]
    stored = None if missing else before
    del before  # many runs take memory, and are read anew after training
    progress = make_progress(len(missing)) if show and missing else Silent()
    for message in damaged:
        progress.say(message)
    if show and done:
        progress.say(f"{len(done)} of {len(runs)} runs are stored already in {store.folder}")
    try:
        for name in sorted({run.settings.dataset for run in missing}):
            fetched = data.fetch(name, say=progress.say)
            if show:
                progress.say(f"{name}: {fetched.source}")
        _Driver(store, progress, where.crews(missing, progress), fail_fast, declared).drive(_longest_first(missing))
    finally:
        progress.close()
    return stored


def _declared(study: Study, source: str) -> dict[str, Any]:
    """Say what was laid down when a run was made: the file, the hypotheses, the numbers of seeds for their verdicts."""
    looks = list(study.looks or (study.seeds,))
    return {"study_sha256": source, "hypotheses_sha256": study.hypotheses_sha256, "looks": looks}


@dataclass(frozen=True)
class _Where:
    """Where runs are to be trained, as `run` is told.

    Raises
    ------
    StudyError
        If what is asked for is not there, or contradicts itself.
    ClusterError
        If a scheduler is given, and Dask is not installed.
    """

    workers: int | None
    executor: Executor | None
    scheduler: str | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < (self.executor is not None):
            allowed = f"a whole number >= {int(self.executor is not None)}"
            raise StudyError(f"workers = {self.workers}: allowed: {allowed}")
        if self.executor is not None and self.scheduler is not None:
            raise StudyError("executor and scheduler: give one of them.")
        if self.scheduler is not None and self.workers is not None:
            raise StudyError(
                f"workers = {self.workers}, scheduler = {self.scheduler!r}: give one of them. As many train as the "
                "scheduler has workers."
            )
        if self.scheduler is not None:
            cluster.check_installed()

    def crews(self, runs: list[Run], progress: Progress) -> Callable[[int], Crew]:
        """Return what makes a crew for some runs: workers of this machine anew, the others always the same."""
        crew: Crew
        if self.executor is not None:
            crew = Lent(self.executor, self.workers or IN_FLIGHT)
        elif self.scheduler is not None and runs:
            crew = cluster.Cluster(self.scheduler, cluster.needs_of(runs), progress.say)
        else:
            return self._of_this_machine
        return lambda _: crew

    def _of_this_machine(self, runs: int) -> Crew:
        return InlineExecutor() if self.workers == 0 else Processes(min(self.workers or default_workers(), runs))


def default_workers() -> int:
    """Count the physical cores that this process may use: affinity and container limits are heeded."""
    cores: int = joblib.cpu_count(only_physical_cores=True)
    return cores


def _longest_first(runs: list[Run]) -> list[Run]:
    """Sort `runs` so that the last to end are short, and no core idles for long at the end.

    Runs of equal cost stay as they are planned, seed by seed: a study that is cut short has whole blocks then.
    """
    return sorted(runs, key=_cost, reverse=True)


# A step makes Adam pass over all weights, which takes as long as this many images do, ...
_PASS_IMAGES = 25
# ... and calls that take the same whatever the size, as long as this many products do: both measured with `autograd`.
_CALLS_PRODUCTS = 6e6
_IMAGES = 60_000


def _cost(run: Run) -> float:
    """Estimate roughly how long `run` takes, in products: only the order counts."""
    settings = run.settings
    part = settings.train_images or _IMAGES * (1 - settings.validation_fraction)
    steps = settings.epochs * (settings.epoch_steps or part / settings.batch_size)
    weights = settings.width * (data.PIXELS + settings.width * (settings.depth - 1) + data.CLASSES)
    return steps * (weights * (settings.batch_size + _PASS_IMAGES) + _CALLS_PRODUCTS)


@dataclass
class _Driver:
    """Hands runs to workers, no more than keep them busy, and stores what comes back.

    Parameters
    ----------
    crews
        Makes what trains a number of runs.
    fail_fast
        Stop at the first run that fails.
    declared
        What was laid down before the runs, to be kept with each.
    """

    store: Store
    progress: Progress
    crews: Callable[[int], Crew]
    fail_fast: bool
    declared: dict[str, Any]
    failed: int = 0

    def drive(self, runs: list[Run]) -> None:
        """Train `runs`.

        Raises
        ------
        RunsFailedError, StorageError, InterruptedRunError, ExecutorLostError
            See `run`.
        """
        try:
            self._drive(runs)
        except KeyboardInterrupt:
            raise InterruptedRunError(f"Stopped. {self._kept}") from None
        if self.failed:
            raise self._failure(f"{self.failed} of {len(runs)} runs failed")

    def _drive(self, runs: list[Run]) -> None:
        waiting, suspects = deque(runs), deque[Run]()
        while waiting or suspects:
            # Suspects go one at a time: if the workers die again, it is known which run kills them.
            if suspects:
                for run in self._train(deque([suspects.popleft()])):
                    self._failed(run, "its worker process died twice (killed, or out of memory)")
            else:
                suspects.extend(self._train(waiting))

    def _train(self, queue: deque[Run]) -> list[Run]:
        """Train the runs of `queue` until it is empty or the workers die; return what was lost with them."""
        with ended(self.crews(len(queue))) as crew:
            return self._train_with(crew, queue)

    def _train_with(self, crew: Crew, queue: deque[Run]) -> list[Run]:
        flying: dict[Future[Trained], Run] = {}
        try:
            while queue or flying:
                _hand_out(crew, queue, flying)
                for future in wait(flying, _POLL_SECONDS, FIRST_COMPLETED).done:
                    self._finish(flying[future], future)
                    del flying[future]
                if isinstance(crew, Processes):
                    crew.check()
        except BrokenExecutor as error:
            lost = self._salvage(flying)
            if not isinstance(crew, Processes):  # these can be made anew
                raise ExecutorLostError(f"{str(error) or type(error).__name__}. {self._kept}") from error
            names = ", ".join(_name(run) for run in lost)
            self.progress.say(f"A worker process died (killed, or out of memory); once more: {names}")
            crew.kill()  # the pool itself would only ask those that are left to end, and wait
            return lost
        return []

    def _salvage(self, flying: dict["Future[Trained]", Run]) -> list[Run]:
        """Store what was finished when the workers died, and return the runs that were not."""
        lost = []
        for future, run in flying.items():
            try:
                if not future.done():
                    raise BrokenExecutor  # and nobody is left to end it
                self._finish(run, future)
            except BrokenExecutor:
                lost.append(run)
        return lost

    @property
    def _kept(self) -> str:
        return f"What is finished is kept in {self.store.folder}: run the same command again to go on."

    def _finish(self, run: Run, future: "Future[Trained]") -> None:
        """Store the result of `run`, or note its failure; a broken executor is for the caller."""
        try:
            rows, predictions, document = future.result()
        except BrokenExecutor:
            raise
        except CancelledError as error:
            raise BrokenExecutor("The executor has cancelled a run") from error
        except Exception as error:  # noqa: BLE001  # a run may fail in any way, and the others go on
            cause = str(error) if isinstance(error, MnistAblateError) else f"{type(error).__name__}: {error}"
            self._failed(run, cause, "".join(traceback.format_exception(error)))
            return
        self.store.write_run(run, rows, predictions, document | {"declared": self.declared})
        last = rows[-1]
        mark = " DIVERGED" if last["status"] == "diverged" else ""
        self.progress.step(f"{_name(run)}: test accuracy {last['test_accuracy']:.2%}{mark}")

    def _failed(self, run: Run, cause: str, details: str = "") -> None:
        self.failed += 1
        file = self.store.write_failure(run, f"{cause}\n{details}")
        self.progress.say(f"FAILED {_name(run)}: {cause} (more in {file})")
        self.progress.step(f"{_name(run)}: failed")
        if self.fail_fast:
            raise self._failure("A run failed, and --fail-fast was given")

    def _failure(self, what: str) -> RunsFailedError:
        return RunsFailedError(
            f"{what}; finished runs are kept in {self.store.folder}. "
            "Run the same command again to try once more what is missing.",
            self.store.folder,
        )


def _hand_out(crew: Crew, queue: deque[Run], flying: dict["Future[Trained]", Run]) -> None:
    """Give `crew` runs for as long as it has room, and none has come back that is to be stored first."""
    room = crew.room
    while queue and len(flying) < room:
        future = crew.submit(tasks.train_one, queue[0])
        flying[future] = queue.popleft()
        if future.done():
            break
    if not flying:
        time.sleep(_POLL_SECONDS)  # there is nothing to wait for but room


def _name(run: Run) -> str:
    return f"{run.cell}, seed {run.seed}"
