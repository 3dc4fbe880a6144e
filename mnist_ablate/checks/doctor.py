"""Is a results folder sound? Check everything that needs no training."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mnist_ablate.design.metrics import Expected
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.paths import user_path
from mnist_ablate.report.words import notices
from mnist_ablate.store.bits import is_exact
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.schema import SCHEMA_VERSION, epoch_columns
from mnist_ablate.store.sealed import Document, read_table

Kind = Literal["damaged", "foreign", "note"]


@dataclass(frozen=True)
class Finding:
    """Something the user of a results folder should know.

    Parameters
    ----------
    kind
        ``"damaged"`` for a file that cannot be trusted, ``"foreign"`` for one that another program left and that is
        not read, ``"note"`` for anything else, such as a missing run.
    message
        A sentence.
    file
        The damaged or foreign file, which a repair moves aside; None for a note.
    """

    kind: Kind
    message: str
    file: Path | None = None


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `doctor` found in a results folder.

    Parameters
    ----------
    folder
        The results folder.
    findings
        Damage, foreign files and notes.
    moved
        Where a repair moved the damaged and foreign files; None without a repair.
    """

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    moved: list[Path] | None = None

    @property
    def damaged(self) -> list[Finding]:
        """The findings that are damage."""
        return [finding for finding in self.findings if finding.kind == "damaged"]

    @property
    def exit_status(self) -> int:
        """1 if a file is damaged, repaired or not; otherwise 0."""
        return 1 if self.damaged else 0

    def __str__(self) -> str:
        lines = [f"{finding.kind.upper()}: {finding.message}" for finding in self.findings]
        lines += [f"moved to {path}" for path in self.moved or ()]
        remedy = ""
        if self.damaged and self.moved is None:
            remedy = " Move them aside with --repair (in Python: repair=True); `run` then trains those runs again."
        return "\n".join([*lines, f"{self.folder}: {len(self.damaged) or 'no'} damaged files.{remedy}"])

    __repr__ = __str__


def doctor(folder: str | Path = "results/factorial", *, repair: bool = False) -> Diagnosis:
    """Check a results folder without training anything.

    Parameters
    ----------
    folder
        The results folder, compact or not.
    repair
        Move damaged and foreign files into ``damaged/`` in the folder. Nothing is deleted, and `mnist_ablate.run`
        then trains the damaged runs again.

    Raises
    ------
    ResultsError
        If there is no study in `folder`.
    StorageError
        If files cannot be moved.
    """
    folder = user_path(folder)
    findings = examine(folder)
    store, files = Store(folder), dict.fromkeys(finding.file for finding in findings)
    moved = [store.move_aside(file) for file in files if file and file.exists()] if repair else None
    return Diagnosis(folder, findings, moved)


def examine(folder: str | Path) -> list[Finding]:
    """Return everything there is to say about a results folder: file by file, then about the runs together.

    Raises
    ------
    ResultsError
        If there is no study in `folder`.
    """
    store = Store(user_path(folder))
    try:
        study = store.study()
    except DamagedFileError as error:
        return [Finding("damaged", str(error), store.study_file), *_strays(store), *_predictions(store)]
    if store.compact_file.exists():
        return [*_compact(store), *_all_runs(store)]
    findings = [*_strays(store), *_runs(store, study), *_predictions(store, study)]
    damaged = {finding.file for finding in findings}
    sound = [run_id for run_id in store.stored() if store.run_file(run_id) not in damaged]
    if not sound:
        return [*findings, Finding("note", "no sound run is stored")]
    planned = {run.run_id for run in plan(study.reaching(study.looks[-1]), store.protocol_version())}
    outdated = len(store.read_runs(study).outdated) if study.functions else 0
    if outdated:
        findings.append(Finding("note", f"{outdated} runs were made with other code or arrays of yours, and not used"))
    extra = sum(run_id not in planned for run_id in sound) - outdated
    if extra:
        findings.append(Finding("note", f"{extra} runs have seeds beyond those that the study names now"))
    return [*findings, *_all_runs(store)]


def _strays(store: Store) -> Iterator[Finding]:
    for file in store.half_written():
        yield Finding("damaged", f"{file}: half written by a process that was stopped", file)
    for file in store.foreign():
        yield Finding("foreign", f"{file}: of another program, and not read; --repair moves it aside", file)


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
    """Yield what is wrong with the content of an intact file."""
    if document.get("schema_version") != SCHEMA_VERSION:
        yield f"schema version {document.get('schema_version')!r}, but this program reads {SCHEMA_VERSION}"
        return
    columns = (*epoch_columns(study.metrics), *(factor.name for factor in study.varied))
    if missing := [name for name in columns if name not in table.column_names]:
        yield f"the column {missing[0]} is missing"
        return
    rows = table.to_pylist()
    run = _stated_run(document, rows[0], study)
    if run is None or run.run_id != run_id:
        yield "its specification does not match its name"
    elif any(rows[0][name] != level for name, level in run.levels.items()):
        yield "its levels do not match its specification"
    elif [row["epoch"] for row in rows] != list(range(1, run.settings.epochs + 1)):
        yield f"its epochs are not 1 to {run.settings.epochs}"
    wrong = _out_of_range if not study.metrics else partial(_no_metrics, metrics=study.expected)
    yield from (f"{name} of epoch {row['epoch']} is {row[name]!r}" for row in rows for name in wrong(row))


def _stated_run(document: Document, row: dict[str, Any], study: Study) -> Run | None:
    """Return the run that a file claims to hold; None if its specification is not valid."""
    try:
        specification = dict(document["specification"])
        settings = Settings(**{name: specification[name] for name in Settings.model_fields if name in specification})
        names = tuple(factor.name for factor in study.varied)
        version, engine = specification["protocol_version"], specification["engine"]
        code = tuple(sorted(specification.get("code", {}).items()))
        return Run(row["study"], row["cell"], names, specification["seed"], settings, engine,
                   protocol_version=version, code=code, arrays=specification.get("arrays", ""))  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None


_LOSSES = ("train_loss", "train_loss_eval", "val_loss", "test_loss")
_FRACTIONS = ("val_accuracy", "test_accuracy")
_SECONDS = ("train_seconds", "eval_seconds")


def _out_of_range(row: dict[str, Any]) -> Iterator[str]:
    """Yield the columns of a row that have impossible values."""
    diverged = row["status"] == "diverged"
    valid: dict[str, Callable[[float], bool]] = {
        **dict.fromkeys(_LOSSES, lambda value: value >= 0 and math.isfinite(value)),
        **dict.fromkeys(_FRACTIONS, lambda value: 0 <= value <= 1),
        **dict.fromkeys(_SECONDS, lambda value: value >= 0 and math.isfinite(value)),
    }
    if row["status"] not in ("ok", "diverged"):
        yield "status"
    for name, is_valid in valid.items():
        may_be_nan = diverged and name == "train_loss"
        if row[name] is None or not (is_valid(row[name]) or may_be_nan):
            yield name


def _no_metrics(row: dict[str, Any], metrics: Sequence[Expected]) -> Iterator[str]:
    """Yield the metrics of a row of a training of the user's own that have impossible values."""
    if row["status"] != "ok":
        yield "status"
    for name, low, high, _ in metrics:
        if row[name] is None or not (math.isfinite(row[name]) and low <= row[name] <= high):
            yield name


def _predictions(store: Store, study: Study | None = None) -> Iterator[Finding]:
    if study and study.trains_itself:
        return
    for run_id in store.stored():
        file = store.predictions_file(run_id)
        try:
            store.read_predictions(run_id)
        except DamagedFileError as error:
            yield Finding("damaged", _without_remedy(error), file)
    if orphans := store.orphans():
        yield Finding("note", f"{len(orphans)} files of predictions have no run: it was stopped, or moved")


def _all_runs(store: Store) -> Iterator[Finding]:
    """Yield notes about all runs: missing, diverged, failed, mixed or of another protocol; and changed hypotheses."""
    try:
        results = load(store.folder)
    except (DamagedFileError, ResultsError) as error:  # no run of the study, or a damaged compact file
        yield Finding("note", str(error))
        return
    messages = [message for message in notices(analyse(results)) if message not in results.problems]
    messages += [problem for problem in results.problems if "damaged" not in problem]  # damage is reported by file
    messages += filter(None, [results.of_other_protocol])
    yield from (Finding("note", message) for message in messages)
    exact = all(map(is_exact, results.documents.values()))  # with any version of torch
    for key in ("mnist_ablate",) if exact else ("torch", "mnist_ablate"):
        versions = Counter(str(run.get("provenance", {}).get(key, "")) for run in results.documents.values())
        if len(versions) > 1:
            counts = ", ".join(f"{version or 'not recorded'} ({n} runs)" for version, n in versions.most_common())
            yield Finding("note", f"The runs were made with more than one version of {key}: {counts}")
