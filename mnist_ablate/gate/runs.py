"""The gate as a whole: train its runs, the golden runs and the stored network, judge them, write the verdict down."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.plan import Run, cells, plan
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import (
    DamagedFileError,
    GateReferenceError,
    MnistAblateError,
    NoVerdictError,
    ResultsError,
    RunsFailedError,
    StorageError,
)
from mnist_ablate.execution.executors import InlineExecutor, Processes, ended
from mnist_ablate.execution.runner import with_engine, with_own
from mnist_ablate.execution.workplace import check_workers, default_workers
from mnist_ablate.gate import page
from mnist_ablate.gate.judge import Verdict, broken, golden, judge
from mnist_ablate.gate.reference import (
    Evidence,
    Reference,
    damaged,
    default_reference,
    evidence_of,
    load_reference,
    with_seeds,
)
from mnist_ablate.gate.tables import is_table, read_runs
from mnist_ablate.language import ENGLISH, find
from mnist_ablate.paths import user_path
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import NOT_OURS, first_line, write_atomically
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Trained, Weights

T = TypeVar("T")
Say = Callable[[str], None]
"""Receives messages about progress."""

GOLDEN_FRACTION = 0.97
"""Share of images that golden runs hold out: a complete run takes few steps, before rounding can grow."""
GOLDEN_SEED = 1000
"""Seed of the golden runs; not 0, so that ignoring the seed somewhere shows."""
STRANGERS = 3
"""Factor on the number of seeds if runs cannot be compared with those of the same seed."""
_MARK = "emptied-by-the-gate.txt"
_CHECKPOINT_WIDTH = 64  # narrow, because it is stored in the repository


@contextmanager
def pool(workers: int | None, environment: Mapping[str, str] | None = None) -> Iterator[Executor]:
    """Open worker processes with the variables of `environment`; with 0 workers, train in this process without them."""
    check_workers(workers)
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ended(InlineExecutor() if workers == 0 else Processes(workers or default_workers())) as executor:
            yield executor
    finally:
        os.environ.clear()
        os.environ.update(before)


def golden_study(study: Study) -> Study:
    """Return the study of the golden runs of `study`: every cell once, complete but short."""
    varies = {factor.name for factor in study.varied}
    return study.with_options(seeds=1, validation_fraction=None if "validation_fraction" in varies else GOLDEN_FRACTION)


def checkpoint_run(study: Study) -> Run:
    """Return the run whose final weights are stored: the last cell, with all techniques on, in a narrow network."""
    run = plan(study.model_copy(update={"seeds": 1}))[-1]
    width = min(run.settings.width, _CHECKPOINT_WIDTH)
    return replace(run, settings=run.settings.model_copy(update={"width": width}))


def submit(executor: Executor, runs: Iterable[Run], nudge: int = 0) -> dict[Future["Trained"], Run]:
    """Submit runs for training; `nudge` changes their rounding."""
    return {executor.submit(tasks.train_one, run, nudge): run for run in runs}


def collect(folder: Path, study: Study, futures: Mapping[Future["Trained"], Run]) -> Results:
    """Store runs as they finish, and return all that the folder holds.

    Raises
    ------
    RunsFailedError
        If the code that trains raises.
    NoVerdictError
        If a run fails for any other reason.
    DamagedFileError
        If a stored run cannot be read back.
    """
    with Store(folder).opened(study) as store:
        for future in as_completed(futures):
            run = futures[future]
            store.write_run(run, *_result(future, f"{run.cell}, seed {run.seed} cannot be trained", folder))
    return _sound(load(folder))


def _result(future: "Future[T]", what_failed: str, folder: Path) -> T:
    """Return what a call returned; if it raised, say whether that was the code that trains, or its machine."""
    try:
        return future.result()
    except MnistAblateError:
        raise
    except Exception as error:
        cause = f"{what_failed}: {type(error).__name__}: {error}"
        if tasks.failed_outside(error):
            raise NoVerdictError(
                f"Cannot tell: {cause}. That is the machine and not the training: correct it, and try again."
            ) from error
        raise RunsFailedError(cause, folder) from error


def _sound(results: Results) -> Results:
    """Return `results` if no file of them is damaged."""
    if results.problems:
        raise DamagedFileError(f"{results.problems[0].partition(';')[0]}. Train again: `python -m mnist_ablate gate`.")
    return results


def measure(
    study: Study,
    reference: Path | None,
    out: Path,
    *,
    seeds: Iterable[int] | None = None,
    workers: int | None = None,
    failed: Callable[[Evidence], bool] = lambda _: False,
    say: Say = lambda _: None,
) -> Evidence:
    """Train the gate's runs with the code as it is.

    Parameters
    ----------
    study
        The gate's study.
    reference
        Folder of the reference, for the stored network; None without one.
    out
        Results folder, emptied first so that nothing made by older code counts.
    seeds
        Override the study's.
    workers
        As in `mnist_ablate.run`.
    failed
        Called after the golden runs, within seconds; if it returns True, no other runs are trained.
    say
        Receives messages about progress.

    Returns
    -------
    Evidence
        Without runs if `failed` returned True.

    Raises
    ------
    RunsFailedError, NoVerdictError, DamagedFileError
        See `collect`.
    ResultsError
        If `out` holds something that the gate did not make.
    """
    study, golden_design = prepare(study, out)
    if golden_design is None:
        with pool(workers) as executor:
            futures = submit(executor, with_seeds(study, range(study.n_seeds) if seeds is None else seeds))
            return evidence_of(collect(out, study, futures))
    with pool(workers) as executor:
        golden_futures = submit(executor, with_seeds(golden_design, [GOLDEN_SEED]))
        network = _network(executor, study, reference)
        futures = submit(executor, with_seeds(study, range(study.n_seeds) if seeds is None else seeds))
        golden_results = collect(out / "golden", golden_design, golden_futures)
        numbers, predictions = _result(network, "the stored network cannot be evaluated", out)
        _keep_network(out, numbers, predictions)
        first = replace(evidence_of(golden_results, golden_results), checkpoint=numbers, predictions=predictions)
        specification = study.model_dump(mode="json", exclude_unset=True)
        first = replace(first, runs=first.runs.iloc[:0], digests={}, study=specification)
        say(f"golden runs: {len(golden_futures)} done")
        if failed(first):
            for future in futures:
                future.cancel()
            return first
        evidence = evidence_of(collect(out, study, futures), golden_results)
    return replace(evidence, checkpoint=numbers, predictions=predictions)


def prepare(study: Study, out: Path) -> tuple[Study, Study | None]:
    """Choose the engine, fetch the images, empty the folder; return the study and that of its golden runs.

    A training of the user's own has none: nobody knows how to make its runs short, or their rounding other.
    """
    study = with_engine(with_own(study))
    for name in sorted({cell.settings.dataset for cell in cells(study) if not cell.settings.own_dataset}):
        data.fetch(name)
    _empty(out)
    return study, None if study.trains_itself else golden_study(study)


def _empty(out: Path) -> None:
    """Empty a folder that the gate made; refuse any other that is not empty."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).exists():
            raise ResultsError(f"{out}: not empty, and not a folder that the gate made. Name another with --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("The gate empties this folder before each use.\n", encoding="utf-8")


def _network(
    executor: Executor, study: Study, reference: Path | None
) -> "Future[tuple[dict[str, float], NDArray[np.uint8]]]":
    """Evaluate the stored network; without one, return empty results."""
    if reference is None:
        no_network: Future[tuple[dict[str, float], NDArray[np.uint8]]] = Future()
        no_network.set_result(({}, np.empty(0, np.uint8)))
        return no_network
    return executor.submit(tasks.evaluate_or_nothing, checkpoint_run(study), load_weights(reference / "checkpoint.npz"))


def load_weights(file: Path) -> "Weights":
    """Read the weights of a stored network.

    Raises
    ------
    DamagedFileError
        If they cannot be read.
    """
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as weights:
            return dict(weights)
    except Exception as error:  # zipfile and numpy raise whatever damage makes them do
        raise damaged(file, f"cannot be read ({first_line(error)})") from error


def _keep_network(out: Path, numbers: Mapping[str, float], predictions: NDArray[np.uint8]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    document = {"numbers": dict(numbers), "predictions": predictions.tolist()}
    write_atomically(out / "network.json", json.dumps(document).encode())


def read_evidence(folder: Path) -> Evidence:
    """Read what `measure` left in a results folder; a folder of `mnist_ablate.run` has no golden runs.

    Raises
    ------
    ResultsError
        If there are no results.
    DamagedFileError
        If a file is damaged or missing.
    """
    if not (folder / "golden" / "study.json").exists():
        return evidence_of(_sound(load(folder)))
    golden_results = _sound(load(folder / "golden"))
    evidence = evidence_of(_sound(load(folder)), golden_results)
    file = folder / "network.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        numbers, predictions = dict(document["numbers"]), np.array(document["predictions"], np.uint8)
    except NOT_OURS as error:
        raise DamagedFileError(
            f"{file}: cannot be read ({first_line(error)}). Train again: `python -m mnist_ablate gate`."
        ) from error
    if {cell.name for cell in cells(golden_results.study)} != set(golden_results.final["cell"]):
        raise DamagedFileError(f"{folder / 'golden'}: not complete. Train again: `python -m mnist_ablate gate`.")
    return replace(evidence, checkpoint=numbers, predictions=predictions)


def gate(
    results: str | Path | Results | pd.DataFrame | None = None,
    *,
    reference: str | Path | Reference | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    changed_on_purpose: bool = False,
    lang: str = ENGLISH,
    say: Say = lambda _: None,
) -> Verdict:
    """Judge whether training has got worse, or better for no reason, since the reference was accepted.

    Parameters
    ----------
    results
        What to judge: a results folder, what `mnist_ablate.load` returned, or any table with the columns ``cell``,
        ``seed``, ``value`` and optionally ``response``, a frame or the path of a CSV or Parquet file. By default the
        code as it is trains the reference's study.
    reference
        The folder of a reference, or a `Reference`. Training needs a folder. By default ``results/reference/gate``, or
        where that is missing, the reference that is in the package.
    out
        Where ``gate.md`` and ``gate.xml`` go. By default they go to `results` if it is a folder, and nowhere if it is a
        value. Training also puts its runs there, by default in ``results/gate``, which is emptied first.
    workers
        Processes to train in, by default one per physical core; 0 trains in this process.
    changed_on_purpose
        Random streams, initial weights or the order of arithmetic were changed on purpose. The course of golden runs
        is not judged, and runs cannot be compared with those of the same seed, so three times as many are trained.
    lang
        The language of ``gate.md``: ``"en"`` or ``"es"``. The verdict prints itself in English.
    say
        Receives messages about progress.

    Raises
    ------
    ResultsError, DamagedFileError
        If the reference or the results are missing or cannot be read.
    DataError, StorageError, WorkerError, NoVerdictError
        If something other than training fails.
    GateReferenceError
        If the reference cannot judge these results: it is outdated, or of another study.
    LanguageError
        If there is no such language.
    TableError
        If a table cannot be read.
    """
    language = find(lang)  # before anything is trained
    if isinstance(results, str | Path) and is_table(user_path(results)):
        results = read_runs(user_path(results))
    reference = default_reference() if reference is None else reference
    known = reference if isinstance(reference, Reference) else load_reference(reference)

    def golden_runs_fail(first: Evidence) -> bool:
        return golden(first, known, changed_on_purpose=changed_on_purpose).outcome == "fail"

    evidence: Evidence | pd.DataFrame
    try:
        if results is None:
            if isinstance(reference, Reference):
                raise GateReferenceError("Training needs the folder of a reference, for its stored network.")
            study = _of_any_engine(parse_study(dict(known.evidence.study or {}), str(reference)))
            stored_network = user_path(reference) if known.evidence.checkpoint else None
            seeds = range(study.n_seeds * (STRANGERS if changed_on_purpose else 1))
            out = user_path(out or "results/gate")
            evidence = measure(
                study, stored_network, out, seeds=seeds, workers=workers, failed=golden_runs_fail, say=say
            )
        elif isinstance(results, pd.DataFrame):
            evidence = results
        elif isinstance(results, Results):
            evidence = evidence_of(results)
        else:
            out = user_path(out or results)
            evidence = read_evidence(user_path(results))
        verdict = judge(evidence, known, changed_on_purpose=changed_on_purpose)
    except RunsFailedError as error:
        verdict = broken(str(error))
    try:
        return (
            verdict
            if out is None
            else replace(
                verdict,
                page=page.write(verdict, known.document, user_path(out), in_units=not known.elsewhere, lang=language),
            )
        )
    except (OSError, StorageError) as error:
        if verdict.outcome != "fail":
            raise
        say(str(error))  # a regression is one, even if its page cannot be written
        return verdict


def _of_any_engine(study: Study) -> Study:
    """Return `study` without the engine `fused`, which this machine may lack: the gate judges another engine too."""
    return study.model_copy(update={"engine": None}) if study.engine == "fused" else study
