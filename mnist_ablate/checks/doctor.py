"""Is a results folder sound? Everything that can be checked without training."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report.words import notices
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.schema import EPOCH_COLUMNS, SCHEMA_VERSION
from mnist_ablate.store.sealed import Document, read_table

Kind = Literal["damaged", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about a results folder that its user should know.

    Parameters
    ----------
    kind
        ``"damaged"``: a file that must not be relied on. ``"note"``: what is no damage, such as a missing run.
    message
        A sentence.
    file
        The damaged file, which a repair moves aside; None where there is none to move.
    """

    kind: Kind
    message: str
    file: Path | None = None


def examine(folder: str | Path) -> list[Finding]:
    """Check every file of a results folder, and what they say together.

    Raises
    ------
    ResultsError
        If there is no study in `folder`.
    """
    store = Store(Path(folder))
    try:
        study = store.study()
    except DamagedFileError as error:
        return [Finding("damaged", str(error), store.study_file), *_half_written(store), *_predictions(store)]
    if store.compact_file.exists():
        return [*_compact(store), *_together(store)]
    runs = {run.run_id: run for run in plan(study)}
    found = [*_half_written(store), *_runs(store, study), *_predictions(store)]
    broken = {finding.file for finding in found}
    sound = [run_id for run_id in store.stored() if store.run_file(run_id) not in broken]
    extra = [run_id for run_id in sound if run_id not in runs]
    found += [Finding("note", f"{len(extra)} runs have seeds beyond those that the study now names")] * bool(extra)
    return found + (list(_together(store)) if sound else [Finding("note", "no sound run is stored")])


def repair(folder: str | Path, findings: list[Finding]) -> list[Path]:
    """Move damaged files into ``damaged/`` in the results folder; nothing is deleted. Return where they are now.

    Raises
    ------
    StorageError
        If they cannot be moved.
    """
    store = Store(Path(folder))
    files = dict.fromkeys(finding.file for finding in findings)
    return [store.move_aside(file) for file in files if file is not None and file.exists()]


def _half_written(store: Store) -> Iterator[Finding]:
    for file in sorted(store.folder.glob("**/.*.tmp")):
        yield Finding("damaged", f"{file}: half written, by a process that was stopped", file)


def _compact(store: Store) -> Iterator[Finding]:
    try:
        load(store.folder)
    except DamagedFileError as error:
        yield Finding("damaged", str(error), store.compact_file)
    try:
        if store.mistakes_file.exists():
            read_table(store.mistakes_file)
    except DamagedFileError as error:
        yield Finding("damaged", _without_remedy(error), store.mistakes_file)


def _runs(store: Store, study: Study) -> Iterator[Finding]:
    for run_id in store.stored():
        file = store.run_file(run_id)
        try:
            table, document = store.read_run(run_id)
            problem = next(_problems(run_id, table, document, study), "")
        except DamagedFileError as error:
            yield Finding("damaged", _without_remedy(error), file)
        else:
            if problem:
                yield Finding("damaged", f"{file}: {problem}", file)


def _without_remedy(error: DamagedFileError) -> str:
    return str(error).removesuffix("; the run will be done again")


def _problems(run_id: str, table: pa.Table, document: Document, study: Study) -> Iterator[str]:
    """Find what is wrong with the content of a run's file that is whole."""
    if document.get("schema_version") != SCHEMA_VERSION:
        yield f"schema version {document.get('schema_version')!r}, where this program knows {SCHEMA_VERSION}"
        return
    absent = [
        name for name in (*EPOCH_COLUMNS, *(factor.name for factor in study.design)) if name not in table.column_names
    ]
    if absent:
        yield f"the column {absent[0]} is missing"
        return
    rows = table.to_pylist()
    run = _run_of(document, rows[0], study)
    if run is None or run.run_id != run_id:
        yield "its specification does not agree with its name"
    elif any(rows[0][name] != level for name, level in run.levels.items()):
        yield "its levels do not agree with its specification"
    elif [row["epoch"] for row in rows] != list(range(1, run.settings.epochs + 1)):
        yield f"its epochs are not 1 to {run.settings.epochs}"
    yield from (f"{name} of epoch {row['epoch']} is {row[name]!r}" for row in rows for name in _out_of_range(row))


def _run_of(document: Document, row: dict[str, Any], study: Study) -> Run | None:
    """Rebuild the run from what its file says of itself; None where that is no specification."""
    try:
        specification = dict(document["specification"])
        settings = Settings(**{name: specification[name] for name in Settings.model_fields if name in specification})
        names = tuple(factor.name for factor in study.design)
        return Run(row["study"], row["cell"], names, specification["seed"], settings, specification["engine"])
    except (KeyError, TypeError, ValueError):
        return None


_LOSSES = ("train_loss", "train_loss_eval", "val_loss", "test_loss")
_FRACTIONS = ("val_accuracy", "test_accuracy")
_SECONDS = ("train_seconds", "eval_seconds")


def _out_of_range(row: dict[str, Any]) -> Iterator[str]:
    """Name the columns of a row whose values cannot be."""
    diverged = row["status"] == "diverged"
    sound: dict[str, Callable[[float], bool]] = {
        **dict.fromkeys(_LOSSES, lambda value: value >= 0 and math.isfinite(value)),
        **dict.fromkeys(_FRACTIONS, lambda value: 0 <= value <= 1),
        **dict.fromkeys(_SECONDS, lambda value: value >= 0 and math.isfinite(value)),
    }
    if row["status"] not in ("ok", "diverged"):
        yield "status"
    for name, holds in sound.items():
        nan_is_right = diverged and name == "train_loss"
        if row[name] is None or (not holds(row[name]) and not nan_is_right):
            yield name


def _predictions(store: Store) -> Iterator[Finding]:
    stored = set(store.stored())
    for run_id in sorted(stored):
        file = store.predictions_file(run_id)
        try:
            store.read_predictions(run_id)
        except DamagedFileError as error:
            yield Finding("damaged", _without_remedy(error), file)
    orphans = [path for path in (store.folder / "predictions").glob("*.parquet") if path.stem not in stored]
    if orphans:
        yield Finding("note", f"{len(orphans)} files of predictions have no run, which was stopped or moved")


def _together(store: Store) -> Iterator[Finding]:
    """Say what the runs say together: what is missing, diverged, failed or mixed, and whether hypotheses changed."""
    try:
        results = load(store.folder)
    except (DamagedFileError, ResultsError) as error:  # no run of the study, or a compact file that is said already
        yield Finding("note", str(error))
        return
    left_out = [problem for problem in results.problems if "damaged" not in problem]
    yield from (Finding("note", message) for message in notices(analyse(results)) if message not in results.problems)
    yield from (Finding("note", message) for message in left_out)
    for key in ("torch", "mnist_ablate"):
        versions = Counter(str(of.get("provenance", {}).get(key, "")) for of in results.documents.values())
        if len(versions) > 1:
            found = ", ".join(f"{version or 'not recorded'} ({n} runs)" for version, n in versions.most_common())
            yield Finding("note", f"The runs were made with more than one version of {key}: {found}")
