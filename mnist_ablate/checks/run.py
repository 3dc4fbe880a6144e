"""`run`: train the runs of a study. With `until_settled` the runner trains, and the inference says when to stop."""

from concurrent.futures import Executor
from pathlib import Path

from mnist_ablate.design.study import Study
from mnist_ablate.errors import StudyError
from mnist_ablate.execution import runner
from mnist_ablate.store.results import Results


def run(
    study: str | Path | Study = "factorial",
    *,
    seeds: int | None = None,
    until_settled: bool = False,
    epochs: int | None = None,
    dataset: str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    fail_fast: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
) -> Results:
    """Train the runs of a study that are not stored yet, and return all stored runs.

    Parameters
    ----------
    study
        A bundled study's name, the path of a study file, or a `Study`.
    seeds, epochs, dataset, engine
        Used instead of what the study says.
    until_settled
        Go on, look by look, until every hypothesis is settled, or the study stops for another reason that it declares.
        Without this, a study whose seeds grow has those of its first look.
    workers
        Processes to train in, by default one for each physical core that this process may use. 0 trains in this
        process, for debugging. With `executor`, the number of runs that it gets at once, by default 100.
    executor
        Train there instead: anything with the interface of ``concurrent.futures.Executor`` whose processes can
        import this package and have the images. It stays open. Threads of one process train one run at a time.
    scheduler
        Train on the workers of the Dask scheduler at this address, such as ``"tcp://host:8786"``. They may come and
        go, need no shared disk, and get the images if they have none.
    device
        ``"cuda"`` trains on a graphics card: what the engine ``fused`` can train all at once, with the same bits, and
        models of your own with torch, `workers` at once if they fit; ``"cpu"`` trains on processors; ``"auto"`` on a
        card if there is one that gives the same bits, unless `workers`, `executor` or `scheduler` say who trains.
    fail_fast
        Stop at the first run that fails.
    out
        The results folder, by default ``results/<study>``.
    progress
        Show the number of runs done and the time left.

    Raises
    ------
    StudyError, DataError, ResultsError, ClusterError, DeviceError
        If the study, its data, the folder, the cluster or the card cannot be used; nothing has been trained then.
    RunsFailedError
        At the end, if a run failed; the others are stored.
    StorageError
        At once, if a result cannot be written.
    WorkerError
        If no worker process can be started.
    InterruptedRunError
        On Ctrl-C.
    ExecutorLostError
        If `executor` breaks or the scheduler is lost; finished runs are stored.
    """
    if until_settled and seeds is not None:
        raise StudyError(f"seeds = {seeds}, until settled: give one of them.")
    return runner.run(
        study, seeds=seeds, epochs=epochs, dataset=dataset, engine=engine, workers=workers, executor=executor,
        scheduler=scheduler, device=device, fail_fast=fail_fast, out=out, progress=progress,
        decide=_decide if until_settled else None,
    )  # fmt: skip


def _decide(results: Results) -> tuple[bool, str]:
    """Return whether the study of `results` stops at its look, and a sentence about it."""
    from mnist_ablate.inference.analysis import Analysis  # statistics load slowly, and workers are busy by then

    standing = Analysis(results).standing
    return bool(standing.stop), str(standing)
