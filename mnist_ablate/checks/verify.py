"""Is a stored result what its specification gives? Train runs again and compare them bit for bit."""

import random
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_ablate import data
from mnist_ablate.design.own_code import code_of
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import load_study
from mnist_ablate.errors import OtherProtocolError, StudyError
from mnist_ablate.execution.executors import Crew, ended
from mnist_ablate.execution.progress import Silent, make_progress
from mnist_ablate.execution.workplace import Workplace
from mnist_ablate.store.bits import compared, is_exact, parting, reasons
from mnist_ablate.store.results import Results, load
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
        The first difference; empty if every bit is the same.
    reasons
        What differs between the two machines or versions, and may explain the difference.
    defect
        Whether such a run has the same bits on every machine, so that nothing may explain it.
    """

    run: Run
    difference: str
    reasons: list[str] = field(default_factory=list)
    defect: bool = False

    def __str__(self) -> str:
        name = f"{self.run.cell}, seed {self.run.seed}"
        if not self.difference:
            return f"{name}: same bits"
        why = f" A possible reason: {'; '.join(self.reasons)}." if self.reasons else ""
        if self.defect:
            why = " This is a defect: the engine fused computes the same bits on every machine, with all versions."
        return f"{name}: {self.difference}.{why}"


@dataclass(frozen=True, repr=False)
class Verification:
    """Runs that were trained again, in the order of the plan."""

    checks: list[Check]

    @property
    def different(self) -> list[Check]:
        """The runs whose bits differ."""
        return [check for check in self.checks if check.difference]

    @property
    def exit_status(self) -> int:
        """0 if all bits are the same, 1 if some differ for no known reason, 3 if every difference has a reason."""
        if not self.different:
            return 0
        return 3 if all(check.reasons for check in self.different) else 1

    def __str__(self) -> str:
        same = len(self.checks) - len(self.different)
        return "\n".join([*map(str, self.different), f"{same} of {len(self.checks)} runs are the same to the bit."])

    __repr__ = __str__


def verify(
    results: str | Path | Results = "results/factorial",
    sample: int | None = None,
    *,
    study: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Verification:
    """Train stored runs again from their specification, and compare all epochs, the weights and the probes to the bit.

    Parameters
    ----------
    results
        A results folder, or what `mnist_ablate.load` returned.
    sample
        How many runs to train, always the same ones; by default all.
    study
        The study's file: functions of your own are looked for beside it, as `run` does, and then in the current folder.
        By default in the current folder alone, since a results folder does not say where its study's file is.
    workers
        Processes to train in, by default one per physical core; 0 trains in this process.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``, as for `run`, whatever trained the runs before.
    progress
        Show progress on standard error.

    Raises
    ------
    StudyError
        If `sample` is not positive, `workers` no number of processes, `device` not allowed, or `study` no study.
    DeviceError
        If a card is asked for, and there is none that can train.
    ResultsError
        If there are no results.
    OtherProtocolError
        If they were made by another version of the protocol, or with other code of the user's.
    DataError
        If a data set cannot be fetched.
    """
    place = Workplace(workers, device=device)
    results = results if isinstance(results, Results) else load(results)
    if study is not None:
        results = replace(results, study=results.study.in_folder(load_study(study).folder))
    if results.of_other_protocol:
        raise OtherProtocolError(results.of_other_protocol)
    runs = _sampled(results, sample)
    _check_code(results)
    for name in sorted({run.settings.dataset for run in runs if not run.settings.own_dataset}):
        data.fetch(name, say=lambda _: None)
    shown = make_progress(len(runs), place.processes(len(runs))) if progress else Silent()
    checks = {}
    try:
        with ended(place.crew_maker(runs, shown)(len(runs))) as crew:
            for check in _train_again(results, runs, crew):
                checks[check.run.run_id] = check
                shown.step(str(check))
    finally:
        shown.close()
    return Verification([checks[run.run_id] for run in runs])


def _check_code(results: Results) -> None:
    """Check that the code of the user's functions is what the runs were trained with, if it is a part of them."""
    study = results.study
    code = {} if study.code == "recorded" else study.own.code
    for name, files in code.items():
        now = code_of(name, study.folder)
        changed = sorted(file for file in now.keys() | files.keys() if now.get(file) != files.get(file))
        if changed:
            raise OtherProtocolError(
                f"{results.folder}: {', '.join(changed)} changed since its runs were trained, or is not here, and "
                f"{study.functions.get(name, 'study')} = {name!r} needs it, so their bits cannot be verified. Bring it "
                "back, and say where it is with --study FILE, the study's file beside it; or let `run` train the runs "
                "again."
            )


def _sampled(results: Results, sample: int | None) -> list[Run]:
    stored = [run for run in plan(results.study) if run.run_id in results.documents]
    if sample is None:
        return stored
    if sample < 1:
        raise StudyError(f"sample = {sample}: allowed: a whole number >= 1")
    chosen = set(random.Random(0).sample(range(len(stored)), min(sample, len(stored))))  # noqa: S311 # no secret
    return [run for i, run in enumerate(stored) if i in chosen]


def _train_again(results: Results, runs: list[Run], crew: Crew) -> Iterator[Check]:
    futures = {crew.submit(tasks.train_one, run): run for run in runs}
    for future in as_completed(futures):
        run = futures.pop(future)  # so that its predictions can be freed
        yield _check(run, results, future.result())


def _check(run: Run, results: Results, again: "Trained") -> Check:
    rows, _, document = again
    stored = results.epochs[results.epochs["run_id"] == run.run_id].sort_values("epoch")
    stored_document = results.documents[run.run_id]
    columns = compared(results.study.metrics)
    difference = parting(stored_document, stored.to_dict("records"), document, rows, columns)
    if difference is None:
        return Check(run, "")
    defect = is_exact(stored_document) and difference.what != "data"
    return Check(run, difference.sentence, reasons(stored_document, document), defect)
