"""Is a stored result what its specification gives? Runs are trained again and compared bit for bit."""

import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from mnist_ablate import data, runner
from mnist_ablate.design import Run, plan
from mnist_ablate.errors import StudyError
from mnist_ablate.executors import InlineExecutor, Processes
from mnist_ablate.progress import Silent, make_progress
from mnist_ablate.store import EPOCH_COLUMNS, Results

if TYPE_CHECKING:
    from mnist_ablate.worker import Trained

COMPARED = tuple(name for name in EPOCH_COLUMNS if not name.endswith("_seconds"))
"""Columns that must be equal to the last bit; times are not a result."""
BITS_DEPEND_ON = ("torch", "numpy", "numba", "processor", "cpu_capability", "platform", "environment", "threads")
"""What the provenance records that may change the bits of a result."""


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
        What `mnist_ablate.store.load` returns.
    sample
        How many of the runs, always the same ones; by default all.
    workers
        As of `mnist_ablate.runner.run`.
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
    executor = Processes(n) if n else InlineExecutor()
    shown = make_progress(len(runs)) if progress else Silent()
    try:
        checks = {}
        for check in _train_again(results, runs, executor):
            checks[check.run.run_id] = check
            shown.step(str(check))
    except BaseException:
        if isinstance(executor, Processes):
            executor.kill()
        raise
    finally:
        shown.close()
    executor.shutdown()
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
    flying = {executor.submit(runner.train_one, run): run for run in runs}
    for future in as_completed(flying):
        run = flying.pop(future)
        yield _compare(run, results, future.result())


def _compare(run: Run, results: Results, again: "Trained") -> Check:
    """Hold a stored run against the same run trained again."""
    rows, _, document = again
    before = results.documents[run.run_id]
    stored = results.epochs[results.epochs["run_id"] == run.run_id].sort_values("epoch")
    checks: tuple[Callable[[], str], ...] = (
        lambda: _digest("the images", "data_sha256", before, document),
        lambda: _first_losses(before, document),
        lambda: _rows(stored, rows),
        lambda: _digest("the final weights", "weights_sha256", before, document),
    )
    difference = next((found for check in checks if (found := check())), "")
    return Check(run, difference, _reasons(before, document) if difference else [])


def _digest(what: str, key: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    return "" if before.get(key) == after[key] else f"{what} are not the same ({key})"


def _first_losses(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Say at which step two runs part; a compact folder has no losses of steps."""
    for step, (old, new) in enumerate(
        zip(before.get("first_losses", ()), after["first_losses"], strict=False), start=1
    ):
        if not _same(old, new):
            return f"the training loss of step {step} was {old!r} and is {new!r}"
    return ""


def _rows(stored: pd.DataFrame, rows: list[dict[str, Any]]) -> str:
    """Say what differs first, epoch by epoch."""
    if len(stored) != len(rows):
        return f"there were {len(stored)} epochs and are {len(rows)}"
    for old, new in zip(stored.to_dict("records"), rows, strict=True):
        for column in COMPARED:
            if not _same(old[column], new[column]):
                return f"{column} of epoch {new['epoch']} was {old[column]!r} and is {new[column]!r}"
    return ""


def _same(old: Any, new: Any) -> bool:
    """Compare two values, where NaN equals itself."""
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    return both_nan or bool(old == new)


def _reasons(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List what the provenance of two runs differs in, of all that may change bits."""
    old, new = before.get("provenance", {}), after["provenance"]
    return [
        f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in BITS_DEPEND_ON if old.get(key) != new.get(key)
    ]


def exit_status(checks: list[Check]) -> int:
    """0 if all bits are the same, 1 if some differ for no known reason, 3 if all that differ have a reason."""
    different = [check for check in checks if check.difference]
    return 0 if not different else 3 if all(check.reasons for check in different) else 1
