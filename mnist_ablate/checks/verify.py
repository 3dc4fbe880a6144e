"""Is a stored result what its specification gives? Runs are trained again and compared bit for bit."""

import random
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mnist_ablate import data
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.errors import StudyError
from mnist_ablate.execution import runner
from mnist_ablate.execution.executors import InlineExecutor, Processes, ended
from mnist_ablate.execution.progress import Silent, make_progress
from mnist_ablate.store.bits import parting, reasons
from mnist_ablate.store.results import Results
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Trained


@dataclass(frozen=True)
class Check:
    """A run that was trained again.

    Parameters
    ----------
    run
        The run.
    difference
        What differs first, or empty if every bit is the same.
    reasons
        What differs between where it was made and where it was made again, and may be why.
    """

    run: Run
    difference: str
    reasons: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        name = f"{self.run.cell}, seed {self.run.seed}"
        if not self.difference:
            return f"{name}: same bits"
        why = f" It may be because of {'; '.join(self.reasons)}." if self.reasons else ""
        return f"{name}: {self.difference}.{why}"


def verify(
    results: Results, sample: int | None = None, *, workers: int | None = None, progress: bool = True
) -> list[Check]:
    """Train stored runs again from their specification, and compare every number of every epoch and the weights.

    Parameters
    ----------
    results
        What `mnist_ablate.store.results.load` returns.
    sample
        How many of the runs, always the same ones; by default all.
    workers
        As of `mnist_ablate.execution.runner.run`.
    progress
        Show how far it is.

    Returns
    -------
    list of Check
        One per run, in the order of the plan.

    Raises
    ------
    StudyError
        If `sample` is not positive.
    DataError
        If a data set cannot be had.
    """
    runs = _chosen(results, sample)
    for name in sorted({run.settings.dataset for run in runs}):
        data.fetch(name, say=lambda _: None)
    n = min(runner.default_workers() if workers is None else workers, len(runs))
    shown = make_progress(len(runs)) if progress else Silent()
    try:
        checks = {}
        with ended(Processes(n) if n else InlineExecutor()) as executor:
            for check in _train_again(results, runs, executor):
                checks[check.run.run_id] = check
                shown.step(str(check))
    finally:
        shown.close()
    return [checks[run.run_id] for run in runs]


def _chosen(results: Results, sample: int | None) -> list[Run]:
    stored = [run for run in plan(results.study) if run.run_id in results.documents]
    if sample is None:
        return stored
    if sample < 1:
        raise StudyError(f"sample = {sample}: allowed: a whole number >= 1")
    picked = set(random.Random(0).sample(range(len(stored)), min(sample, len(stored))))  # noqa: S311 # a fair choice
    return [run for i, run in enumerate(stored) if i in picked]


def _train_again(results: Results, runs: list[Run], executor: Executor) -> Iterator[Check]:
    flying = {executor.submit(tasks.train_one, run): run for run in runs}
    for future in as_completed(flying):
        run = flying.pop(future)
        yield _compare(run, results, future.result())


def _compare(run: Run, results: Results, again: "Trained") -> Check:
    """Hold a stored run against the same run trained again."""
    rows, _, document = again
    before = results.documents[run.run_id]
    stored = results.epochs[results.epochs["run_id"] == run.run_id].sort_values("epoch")
    found = parting(before, stored.to_dict("records"), document, rows)
    return Check(run, found.sentence, reasons(before, document)) if found else Check(run, "")


def exit_status(checks: list[Check]) -> int:
    """0 if all bits are the same, 1 if some differ for no known reason, 3 if all that differ have a reason."""
    different = [check for check in checks if check.difference]
    return 0 if not different else 3 if all(check.reasons for check in different) else 1
