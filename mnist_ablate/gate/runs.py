"""What the gate trains: its runs, the golden runs, the stored network, and all that makes a new reference."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.plan import Run, cells, plan
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import MnistAblateError, ResultsError, RunsFailedError
from mnist_ablate.execution.executors import InlineExecutor, Processes, ended
from mnist_ablate.execution.runner import default_workers, with_engine
from mnist_ablate.gate import judge as gate
from mnist_ablate.gate import page as gate_report
from mnist_ablate.gate.reference import (
    Evidence,
    evidence_of,
    load_reference,
    with_seeds,
)
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import write_atomically
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Trained, Weights

Say = Callable[[str], None]

GOLDEN_FRACTION = 0.97
"""Of the images, how many golden runs hold out: few steps make a whole run, while rounding is still rounding."""
GOLDEN_SEED = 1000
"""Seed of the golden runs: not 0, so that a seed that is ignored somewhere shows."""
STRANGERS = 3
"""Times as many seeds are trained where runs of the same seed are strangers to the reference's."""
_MARK = "emptied-by-the-gate.txt"
_CHECKPOINT_WIDTH = 64  # narrow, because it is stored in the repository


@contextmanager
def pool(workers: int | None, environment: Mapping[str, str] | None = None) -> Iterator[Executor]:
    """Open worker processes, which see `environment`; 0 trains in this process, without it."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ended(InlineExecutor() if workers == 0 else Processes(workers or default_workers())) as executor:
            yield executor
    finally:
        os.environ.clear()
        os.environ.update(before)


def golden_study(study: Study) -> Study:
    """Return the golden runs of `study`: every cell once, whole but short."""
    varies = {factor.name for factor in study.design}
    return study.with_options(seeds=1, validation_fraction=None if "validation_fraction" in varies else GOLDEN_FRACTION)


def checkpoint_run(study: Study) -> Run:
    """Return the run whose final weights are stored: the last cell, all techniques on, in a narrow network."""
    run = plan(study.model_copy(update={"seeds": 1}))[-1]
    width = min(run.settings.width, _CHECKPOINT_WIDTH)
    return replace(run, settings=run.settings.model_copy(update={"width": width}))


def submit(executor: Executor, runs: Iterable[Run], nudge: int = 0) -> dict[Future["Trained"], Run]:
    """Hand out runs to be trained."""
    return {executor.submit(tasks.train_one, run, nudge): run for run in runs}


def store(folder: Path, study: Study, futures: Mapping[Future["Trained"], Run]) -> Results:
    """Store runs as they are trained, and return all that the folder holds.

    Raises
    ------
    RunsFailedError
        If a run cannot be trained.
    """
    with Store(folder).opened(study) as store:
        for future in as_completed(futures):
            run = futures[future]
            try:
                trained = future.result()
            except MnistAblateError:
                raise
            except (Exception, BrokenProcessPool) as error:
                raise RunsFailedError(
                    f"{run.cell}, seed {run.seed} cannot be trained: {type(error).__name__}: {error}",
                    folder,
                ) from error
            store.write_run(run, *trained)
    return load(folder)


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
        Results folder, emptied first: nothing that older code made may count.
    seeds
        In place of the study's.
    workers
        As in `runner.run`.
    failed
        Asked after the golden runs, some seconds from the start: True ends it there.
    say
        Is told how far it is.

    Returns
    -------
    Evidence
        Without runs, if `failed` said so.

    Raises
    ------
    RunsFailedError
        If a run cannot be trained.
    ResultsError
        If `out` holds something else.
    """
    study, golden = prepare(study, out)
    with pool(workers) as executor:
        golden_runs = submit(executor, with_seeds(golden, [GOLDEN_SEED]))
        network = _network(executor, study, reference)
        chosen = range(study.seeds) if seeds is None else seeds
        runs = submit(executor, with_seeds(study, chosen))
        short = store(out / "golden", golden, golden_runs)
        numbers, predictions = network.result()
        _keep_network(out, numbers, predictions)
        first = replace(evidence_of(short, short), checkpoint=numbers, predictions=predictions)
        specification = study.model_dump(mode="json", exclude_unset=True)
        first = replace(first, runs=first.runs.iloc[:0], digests={}, study=specification)
        say(f"golden runs: {len(golden_runs)} done")
        if failed(first):
            for future in runs:
                future.cancel()
            return first
        whole = evidence_of(store(out, study, runs), short)
    return replace(whole, checkpoint=numbers, predictions=predictions)


def prepare(study: Study, out: Path) -> tuple[Study, Study]:
    """Settle the engine, bring the images, empty the folder; return the study and its golden runs."""
    study = with_engine(study)
    for name in sorted({cell.settings.dataset for cell in cells(study)}):
        data.fetch(name)
    _empty(out)
    return study, golden_study(study)


def _empty(out: Path) -> None:
    """Empty a folder that the gate made; any other stays as it is, and must be empty."""
    if out.exists() and any(out.iterdir()):
        if not (out / _MARK).exists():
            raise ResultsError(f"{out}: not empty, and not a folder that the gate made. Give another with --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("The gate empties this folder before each use.\n", encoding="utf-8")


def _network(
    executor: Executor, study: Study, reference: Path | None
) -> "Future[tuple[dict[str, float], NDArray[np.uint8]]]":
    """Evaluate the stored network; nothing is said where there is none."""
    file = reference / "checkpoint.npz" if reference else None
    if file is None or not file.exists():
        nothing: Future[tuple[dict[str, float], NDArray[np.uint8]]] = Future()
        nothing.set_result(({}, np.empty(0, np.uint8)))
        return nothing
    return executor.submit(tasks.evaluate_or_nothing, checkpoint_run(study), load_weights(file))


def load_weights(file: Path) -> "Weights":
    """Read the weights of a stored network."""
    with np.load(file, allow_pickle=False) as found:
        return dict(found)


def _keep_network(out: Path, numbers: Mapping[str, float], predictions: NDArray[np.uint8]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    document = {"numbers": dict(numbers), "predictions": predictions.tolist()}
    write_atomically(out / "network.json", json.dumps(document).encode())


def read_evidence(folder: Path) -> Evidence:
    """Read what `measure` left in a results folder; of a folder of `run` there are no golden runs.

    Raises
    ------
    ResultsError
        If there are no results.
    """
    golden = load(folder / "golden") if (folder / "golden" / "study.json").exists() else None
    evidence = evidence_of(load(folder), golden)
    if (folder / "network.json").exists():
        document = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        predictions = np.array(document["predictions"], np.uint8)
        evidence = replace(evidence, checkpoint=document["numbers"], predictions=predictions)
    return evidence


def judge(
    results: Path | None,
    *,
    reference: Path,
    out: Path,
    workers: int | None = None,
    changed_on_purpose: bool = False,
    say: Say,
) -> tuple[gate.Verdict, Path]:
    """Judge a results folder, or what the code as it is trains; return the verdict and the page that says more.

    Parameters
    ----------
    results
        Folder to judge in place of training.
    reference, out
        Folder of the reference, whose study is trained; folder of the runs, ``gate.md`` and ``gate.xml``.
    workers
        As in `runner.run`.
    changed_on_purpose
        As in `gate.check`. Runs are compared with strangers then, so that more of them are needed, and trained.
    say
        Is told how far it is.

    Raises
    ------
    ResultsError, GateReferenceError, DamagedFileError
        If there is no reference to compare with.
    """
    known = load_reference(reference)

    def failed(first: Evidence) -> bool:
        return gate.golden(first, known, changed_on_purpose=changed_on_purpose).outcome == "fail"

    def measured() -> Evidence:
        study = parse_study(dict(known.evidence.study or {}), str(reference))
        seeds = range(study.seeds * (STRANGERS if changed_on_purpose else 1))
        return measure(study, reference, out, seeds=seeds, workers=workers, failed=failed, say=say)

    try:
        evidence = measured() if results is None else read_evidence(results)
        verdict = gate.check(evidence, known, changed_on_purpose=changed_on_purpose)
    except RunsFailedError as error:
        verdict = gate.broken(str(error))
    return verdict, gate_report.write(verdict, known.document, results or out)
