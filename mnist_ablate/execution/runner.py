"""What `run` does: plan a study, leave out the runs that are stored, train the others, return them all."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import Any

from mnist_ablate import data
from mnist_ablate.design.own_code import check_present, code_of
from mnist_ablate.design.plan import Own, Run, cells, plan
from mnist_ablate.design.steps import EXAMPLE
from mnist_ablate.design.study import Study, load_study, study_sha256
from mnist_ablate.errors import DeviceError, ResultsError, RunsFailedError, StudyError, TrainingError, WorkerError
from mnist_ablate.execution import cluster
from mnist_ablate.execution.card import OneCard, SharedCard, has_driver, size, why_processors
from mnist_ablate.execution.driver import Driver
from mnist_ablate.execution.executors import IN_FLIGHT, Crew, InlineExecutor, Lent, Processes
from mnist_ablate.execution.progress import Progress, Silent, make_progress
from mnist_ablate.paths import user_path
from mnist_ablate.store.compact import write_index
from mnist_ablate.store.folder import Store, StoredRuns
from mnist_ablate.store.results import Results, load, read
from mnist_ablate.store.sealed import Document
from mnist_ablate.training import estimate

DEVICES = ("auto", "cpu", "cuda")
"""What trains: a card if there is one that can, processors, or a card."""

Decide = Callable[[Results], tuple[bool, str]]
"""Whether a study stops at a look, and a sentence about it."""


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
    device: str = "auto",
    fail_fast: bool = False,
    out: str | Path | None = None,
    progress: bool = True,
    decide: Decide | None = None,
) -> Results:
    """Train the runs of a study that are not stored yet, and return all stored runs.

    Parameters
    ----------
    study, seeds, epochs, dataset, engine, workers, executor, scheduler, device, fail_fast, out, progress
        See `mnist_ablate.run`, which also lists the errors.
    decide
        Train look by look: given the stored results whenever a look has all its runs, return whether the study stops
        there, and a sentence for people. What judges results is no part of what makes them, so it is handed in.
    """
    place = _Place(workers, executor, scheduler, device)
    chosen = study if isinstance(study, Study) else load_study(study)
    source = "" if isinstance(study, Study) else study_sha256(study)  # of the file as it is before the first run
    chosen = chosen.with_options(seeds=seeds, engine=engine, epochs=epochs, dataset=dataset)
    if executor is None:  # whose processes may have modules that this one lacks
        check_functions(chosen)
    chosen = with_engine(with_own(chosen))
    check_sizes(chosen)
    declared = {
        "study_sha256": source,
        "hypotheses_sha256": chosen.hypotheses_sha256,
        "looks": list(chosen.looks),
    }
    batches = [plan(chosen)] if decide is None else _by_look(chosen)
    store = Store(user_path(out) if out is not None else Path("results") / chosen.name)
    with store.opened(chosen, Silent().say):
        try:
            runs, stored = _train_missing(batches, store, declared, place, decide, fail_fast=fail_fast, show=progress)
        except RunsFailedError:
            with suppress(ResultsError):  # perhaps no run is stored
                write_index(load(store.folder))
            raise
        results = read(store, stored)
        write_index(results)
    unreadable = [run for run in runs if run.run_id not in results.documents]
    if unreadable:  # damaged while the others were trained
        example = f"{unreadable[0].cell}, seed {unreadable[0].seed}"
        raise RunsFailedError(
            f"{len(unreadable)} stored runs cannot be read back: {'; '.join(results.problems) or example}. "
            "Run the same command again to make them again.",
            results.folder,
        )
    return results


def _by_look(study: Study) -> list[list[Run]]:
    """Return the runs that each look of `study` adds.

    Raises
    ------
    StudyError
        If the study has a fixed number of seeds.
    """
    if isinstance(study.seeds, int):
        raise StudyError(
            f"{study.name}: has a fixed number of seeds, {study.seeds}, so it cannot go on until it is settled. "
            f"Declare seeds = {EXAMPLE} in its file before the first run."
        )
    runs = plan(study.reaching(study.looks[-1]))
    return [
        [run for run in runs if before <= run.seed - study.first_seed < n]
        for before, n in itertools.pairwise([0, *study.looks])
    ]


def with_engine(study: Study) -> Study:
    """Return `study` with its engine settled, as its results folder records it: without Numba it is autograd.

    Raises
    ------
    StudyError
        If the study asks for the fused engine, and Numba is not installed or its compiler is turned off, or the images
        are of the user's own, and not for it.
    """
    if study.trains_itself:
        return study
    for name, sha256 in study.own.arrays.items():
        form = estimate.form_of(sha256)
        if form.dtype == "uint8" and form.sizes.inputs <= data.MOST_INPUTS:
            continue
        if study.engine == "fused":
            given = f"{form.sizes.inputs:,} of {form.dtype}"
            raise StudyError(
                f'engine = "fused": takes at most {data.MOST_INPUTS:,} bytes (uint8) for each image, and '
                f'dataset = {name!r} gives {given}: take "autograd".'
            )
        return study.with_options(engine="autograd")
    if not find_spec("numba"):
        cause, remedy = "Numba is not installed", 'pip install "mnist-ablate[fast]"'
    elif _jit_disabled():
        cause, remedy = "the variable NUMBA_DISABLE_JIT turns Numba's compiler off", "unset it"
    else:
        return study.with_options(engine=study.chosen_engine)
    if study.engine == "fused":
        raise StudyError(f'engine = "fused": needs Numba, but {cause}: {remedy}; or take "autograd".')
    if study.chosen_engine == "fused":
        Silent().say(f"{cause[0].upper()}{cause[1:]}, so the slower engine autograd trains. The faster one: {remedy}")
    return study.with_options(engine="autograd")


def with_own(study: Study) -> Study:
    """Return `study` with the code of the user's functions, and the arrays of their data sets, as they are now.

    Raises
    ------
    DataError
        If a function of a data set fails, or its arrays cannot be kept.
    TrainingError
        If there is no such function.
    """
    if not study.functions:
        return study
    code = {name: code_of(name, study.folder) for name in study.functions}
    arrays = {name: data.keep(name, study.folder) for name, key in study.functions.items() if key == "dataset"}
    return study.with_own(Own(code, arrays))


def changes(runs: Iterable[Run], stored: StoredRuns, own: Own) -> list[str]:
    """Say what of the user's own has changed since some of `runs` were stored, and that these are trained again.

    `own` is what there is now.
    """
    changed: dict[str, list[Run]] = {}
    for run in runs:
        if document := stored.outdated.get((run.cell, run.seed)):
            changed.setdefault(_what_changed(run, document, own), []).append(run)
    return [f"{what}. To be trained again, of the stored runs: {_by_cell(again)}" for what, again in changed.items()]


def _what_changed(run: Run, document: Document, own: Own) -> str:
    """Say what has changed since a run was stored."""
    stated, now = document.get("specification", {}), dict(run.code)
    before = stated.get("code", {})
    functions = {f"{key} = {name!r}": own.code.get(name, {}) for key, name in run.settings.functions.items()}
    if not before and now:
        named = " and ".join(functions)
        return f'{named}: code was no part of the runs before (code = "recorded" in the study file keeps these)'
    if run.recorded:
        return 'The study file says code = "recorded" now, and its runs had their code in their identity'
    if files := sorted(file for file in now.keys() | before.keys() if now.get(file) != before.get(file)):
        users = [function for function, code in functions.items() if set(files) & set(code)] or list(functions)
        return f"{', '.join(files)} changed, used by {' and '.join(users)}"
    return f"dataset = {run.settings.dataset!r} gives other arrays than before"


def _by_cell(runs: Iterable[Run]) -> str:
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.cell, []).append(run.seed)
    return "; ".join(f"{cell} (seed{'s' * (len(some) > 1)} {_numbers(some)})" for cell, some in seeds.items())


def _numbers(seeds: list[int]) -> str:
    whole = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))


def _jit_disabled() -> bool:
    """Return whether Numba will not compile in the processes that train; it ignores what is not a number."""
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT", "0")) != 0
    except ValueError:
        return False


def check_sizes(study: Study) -> None:
    """Check that each cell of `study` fits the number of images in its data set.

    Raises
    ------
    StudyError
        With a line for each cell that does not fit.
    """
    mistakes = []
    for cell in cells(study):
        if cell.settings.train:  # which knows itself what it needs
            continue
        try:
            form = estimate.form_of(study.own.of(cell.settings)[1] or cell.settings.dataset)
            data.training_size(cell.settings, form.train_n)
        except TrainingError as error:
            mistakes.append(f"{study.name}, {cell.name}: {error}")
    if mistakes:
        raise StudyError("\n".join(mistakes))


def check_functions(study: Study) -> None:
    """Check that the modules of the user's functions are there.

    Raises
    ------
    StudyError
        With a line for each that is not.
    """
    mistakes = []
    for name, key in sorted(study.functions.items()):
        try:
            check_present(name, study.folder, key)
        except TrainingError as error:
            mistakes.append(f"{study.name}: {error}")
    if mistakes:
        raise StudyError("\n".join(mistakes))


def default_workers() -> int:
    """Return the number of physical cores that this process may use, by affinity and container limits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib is only asked to count, which needs no shared memory
        import joblib
    cores: int = joblib.cpu_count(only_physical_cores=True)
    return cores


def check_workers(workers: object, least: int = 0) -> None:
    """Check a number of workers; None stands for the default.

    Raises
    ------
    StudyError
        If it is no whole number, or too small.
    """
    if workers is not None and (not isinstance(workers, Integral) or isinstance(workers, bool) or workers < least):
        raise StudyError(f"workers = {workers!r}: allowed: a whole number >= {least}")


@dataclass(frozen=True)
class _Place:
    """Where to train, as the options of `run` say.

    Raises
    ------
    StudyError
        If the options contradict each other, or allow no worker.
    ClusterError
        If there is a scheduler and Dask is not installed.
    """

    workers: int | None
    executor: Executor | None
    scheduler: str | None
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = 0 if self.executor is None else 1
        check_workers(self.workers, least)
        if self.executor is not None and self.scheduler is not None:
            raise StudyError("executor and scheduler: give one of them.")
        if self.scheduler is not None and self.workers is not None:
            raise StudyError(
                f"workers = {self.workers}, scheduler = {self.scheduler!r}: give one of them. As many train as the "
                "scheduler has workers."
            )
        if self.device not in DEVICES:
            raise StudyError(f"device = {self.device!r}: allowed: {', '.join(DEVICES)}")
        elsewhere = "executor" if self.executor is not None else "scheduler" if self.scheduler is not None else ""
        if self.device == "cuda" and elsewhere:
            raise StudyError(f"device = 'cuda', {elsewhere}: give one of them. Workers elsewhere train on processors.")
        if self.scheduler is not None:
            cluster.check_installed()

    def processes(self, runs: int) -> int:
        """Return how many processes of this machine train `runs` runs; 0 is this process, or workers elsewhere."""
        if self.executor is not None or self.scheduler is not None:
            return 0
        return min(default_workers() if self.workers is None else self.workers, runs)

    def crew_maker(self, runs: list[Run], progress: Progress) -> Callable[[int], Crew]:
        """Return what makes a crew for a number of runs: each time new processes, or always the one other crew."""
        say = progress.say
        crew: Crew
        if self.executor is not None:
            crew = Lent(self.executor, self.workers or IN_FLIGHT)
        elif self.scheduler is not None and runs:
            crew = cluster.Cluster(self.scheduler, cluster.needs_of(runs), say)
        elif runs and (with_card := self._with_card(runs, progress)):
            return with_card
        else:
            return self._local_crew
        return lambda _: crew

    def _with_card(self, runs: list[Run], progress: Progress) -> Callable[[int], Crew] | None:
        """Return what makes a crew with a card, or None where processors train `runs`; say which, in a line.

        Raises
        ------
        DeviceError
            If a card was asked for, and there is none that can train.
        """
        if self.device == "cpu" or (self.device == "auto" and (self.workers is not None or not has_driver())):
            return None
        largest, reasons = max(runs, key=size), sorted({*map(why_processors, runs)} - {""})
        if reasons:
            progress.say(f"Processors train all runs: {'; '.join(reasons)}.")
            return None
        if runs[0].engine != "fused":  # a study has one engine
            if self.device == "cuda":
                return self._with_torch(runs, largest, progress)
            progress.say("Processors train all runs: torch has other bits on a card, which --device cuda asks for.")
            return None
        try:
            card = OneCard(progress, largest)
        except (DeviceError, WorkerError) as error:
            if self.device == "cuda":
                raise
            progress.say(f"Processors train all runs. {error}")
            return None
        progress.say(f"{card.about['card']} trains {len(runs)} runs")
        ready = [card]
        return lambda _: ready.pop() if ready else OneCard(progress, largest)

    def _with_torch(self, runs: list[Run], largest: Run, progress: Progress) -> Callable[[int], Crew]:
        name, room = SharedCard.look(largest)
        processes = min(self.processes(len(runs)) or 1, room)
        progress.say(f"{name} trains {len(runs)} runs, {processes} at once")
        return lambda n: SharedCard(min(processes, n))

    def _local_crew(self, runs: int) -> Crew:
        n = self.processes(runs)
        return Processes(n) if n else InlineExecutor()


def _train_missing(
    batches: Sequence[list[Run]],
    store: Store,
    declared: dict[str, Any],
    place: _Place,
    decide: Decide | None,
    *,
    fail_fast: bool,
    show: bool,
) -> tuple[list[Run], StoredRuns | None]:
    """Train the runs of `batches` that `store` lacks, until it is decided to stop.

    Return the runs of the batches until then, and the stored runs, which were just read, if there were none to train.
    """
    runs = [run for batch in batches for run in batch]
    before = store.read_runs(store.study())
    done, damaged = store.completed(runs, before)
    missing = [run for run in runs if run.run_id not in done]
    stored, changed = None if missing else before, changes(missing, before, store.study().own)
    del before  # many runs take memory, and are read again after training
    progress = make_progress(len(missing), place.processes(len(missing))) if show and missing else Silent()
    for message in [*damaged, *changed]:
        progress.say(message)
    if show and done:
        progress.say(f"{len(done)} of {len(runs)} runs are stored already in {store.folder}")
    try:
        for name in sorted({run.settings.dataset for run in missing if not run.settings.own_dataset}):
            fetched = data.fetch(name, say=progress.say)
            if show:
                progress.say(f"{name}: {fetched.source}")
        driver = Driver(store, progress, place.crew_maker(missing, progress), declared, fail_fast)
        # The longest first, so that no core idles for long at the end. Runs of equal cost stay in the order of the
        # plan, seed by seed, so that a study which is stopped has whole blocks.
        ordered = [
            sorted((r for r in batch if r.run_id not in done), key=estimate.cost, reverse=True) for batch in batches
        ]

        said = ""

        def enough() -> bool:
            nonlocal said
            assert decide is not None  # noqa: S101 # it is asked below only then
            stops, sentence = decide(read(store))
            if show and sentence != said:  # later looks may have all their runs, too, and were told already
                progress.say(sentence)
            said = sentence
            return stops

        finished = driver.drive(ordered, enough if decide else None)
    finally:
        progress.close()
    return [run for batch in batches[:finished] for run in batch], stored
