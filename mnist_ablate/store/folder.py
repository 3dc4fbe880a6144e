"""The results folder: one Parquet file per run, in the schema that everything else reads.

``runs/<run_id>.parquet`` has one row per epoch and, in its footer, one JSON document: the run's full specification,
its provenance and digests. ``predictions/<run_id>.parquet`` has one row per test image. The file in ``runs`` is
written last: its presence means that the run is complete. A folder of many runs also has ``index.parquet``, which
repeats their rows and documents so that they can be read at once. A compact folder, for archiving and sending, has all
runs in ``runs.parquet`` and all wrong answers in ``mistakes.parquet`` instead. Nothing here needs torch.
"""

import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from mnist_ablate.design.plan import PROTOCOL_VERSION, Own, Run, runs_of
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError, StudyError
from mnist_ablate.store.schema import (
    PREDICTION_SCHEMA,
    SCHEMA_VERSION,
    documents_column,
    malformed,
    malformed_runs,
    run_table,
    study_schema,
)
from mnist_ablate.store.sealed import (
    NO_DIGEST,
    NOT_OURS,
    Document,
    digest_of,
    first_line,
    parse_table,
    read_sound,
    read_table,
    remove,
    sealed,
    write_atomically,
    write_table,
)

_ASIDE = "damaged"
_OURS = {
    "runs": re.compile(r"[0-9a-f]{20}\.parquet"),
    "predictions": re.compile(r"[0-9a-f]{20}\.parquet"),
    "failures": re.compile(r"[0-9a-f]{20}\.txt"),
}
"""The names of our files in each part of the folder; all others are foreign."""
CellSeed = tuple[str, int]
"""A run, by its cell and its seed."""

_HALF_WRITTEN = re.compile(r"\..+\.\d+\.tmp")  # see `write_atomically`


@dataclass(frozen=True, eq=False)
class StoredRuns:
    """The runs read from a folder.

    Parameters
    ----------
    tables
        The epochs of all runs, in any number of tables.
    documents
        The document of each run, by `run_id`.
    problems
        A sentence for each file left out, by `run_id`.
    unindexed
        How many runs were parsed from files of their own because the index lacks them.
    outdated
        The documents of runs of the study that were made with other code or arrays of the user's than the study has.
    """

    tables: list[pa.Table]
    documents: dict[str, Document]
    problems: dict[str, str] = field(default_factory=dict)
    unindexed: int = 0
    outdated: dict[CellSeed, Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Store:
    """The folder of one study's results."""

    folder: Path

    @property
    def study_file(self) -> Path:
        """The study's specification."""
        return self.folder / "study.json"

    def run_file(self, run_id: str) -> Path:
        """Return the file of a run's epochs."""
        return self.folder / "runs" / f"{run_id}.parquet"

    def predictions_file(self, run_id: str) -> Path:
        """Return the file of a run's predictions."""
        return self.folder / "predictions" / f"{run_id}.parquet"

    def failure_file(self, run_id: str) -> Path:
        """Return the file that says why a run failed."""
        return self.folder / "failures" / f"{run_id}.txt"

    @property
    def index_file(self) -> Path:
        """Many runs once more, in one file: see `mnist_ablate.store.compact.write_index`."""
        return self.folder / "index.parquet"

    @property
    def compact_file(self) -> Path:
        """All runs of a compact folder: see `mnist_ablate.store.compact.write_compact`."""
        return self.folder / "runs.parquet"

    @property
    def mistakes_file(self) -> Path:
        """All wrong answers of a compact folder."""
        return self.folder / "mistakes.parquet"

    @contextmanager
    def opened(self, study: Study, say: Callable[[str], None] = lambda _: None) -> Iterator["Store"]:
        """Open the folder for writing: make it, lock it, remove half-written files, and record the study.

        Parameters
        ----------
        study
            The study to store.
        say
            Called with a sentence if the folder's record of the study was damaged and has been replaced.

        Raises
        ------
        BusyError
            If another process is writing there.
        ResultsError
            If the folder cannot be written, is compact, or holds another study or runs of another protocol.
        """
        try:
            if self.compact_file.exists():
                raise ResultsError(f"{self.folder}: a compact folder, for reading only. Give another with --out.")
            for part in ("runs", "predictions", "failures"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", blocking=False)
            lock.acquire()
        except filelock.Timeout as error:
            raise BusyError(
                f"{self.folder}: another process is writing there. Wait for it, or give another folder with --out."
            ) from error
        except OSError as error:
            raise ResultsError(
                f"{self.folder}: cannot be written ({error.strerror}). Give another folder with --out."
            ) from error
        with lock:
            for file in self.half_written():
                remove(file)
            self._record(study, say)
            yield self

    def _record(self, study: Study, say: Callable[[str], None]) -> None:
        """Store the study's specification after comparing it with what the folder holds."""
        try:
            recorded = self.study() if self.study_file.exists() else None
        except DamagedFileError:
            recorded = None
            say(f"{self.study_file}: damaged; moved to {self.move_aside(self.study_file)} and written anew")
        if recorded and (refusal := self.other_protocol()):
            raise ResultsError(refusal)
        if recorded:
            conflicts = differences(recorded.model_dump(), study.model_dump())
        else:  # the runs themselves show which study they belong to
            strangers = [problem for problem in self.read_runs(study).problems.values() if problem.endswith(_STRANGER)]
            conflicts = [f"{len(strangers)} of its runs are of another study, as {strangers[0]}"] if strangers else []
        if conflicts:
            raise ResultsError(
                f"{self.folder} holds another study: {'; '.join(conflicts)}. Give another folder with --out."
            )
        self.write_study(study)

    def write_study(self, study: Study, protocol_version: int = PROTOCOL_VERSION) -> None:
        """Store the study's specification and the version of the protocol of its runs, with a digest.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        document = study.model_dump(mode="json", exclude_unset=True) | {"protocol_version": protocol_version}
        if study.functions:
            document["own"] = {"code": study.own.code, "arrays": study.own.arrays}
        document["digest"] = NO_DIGEST
        write_atomically(self.study_file, sealed(json.dumps(document, indent=1).encode()))

    def study(self) -> Study:
        """Read the study that the folder holds.

        Raises
        ------
        ResultsError
            If there is none.
        DamagedFileError
            If its file cannot be read.
        """
        document = self._study_document()
        del document["protocol_version"]
        own = _own_of(document.pop("own", {}))
        if own is None:
            raise DamagedFileError(f"{self.study_file}: damaged (the digests of its code are no text)")
        try:
            return parse_study(document, str(self.study_file)).with_own(own)
        except StudyError as error:
            raise DamagedFileError(f"{self.study_file}: damaged, or of another version ({error})") from error

    def protocol_version(self) -> int:
        """Return the version of the protocol of the folder's runs, or this program's if nothing readable records it."""
        try:
            version: int = self._study_document()["protocol_version"]
        except (ResultsError, DamagedFileError):
            return PROTOCOL_VERSION
        return version

    def other_protocol(self) -> str:
        """Return why this program can add no runs, if those in the folder are of another protocol; empty otherwise."""
        version = self.protocol_version()
        if version == PROTOCOL_VERSION or not self.stored():
            return ""
        return (
            f"{self.folder} holds runs of protocol {version}, and this version of mnist-ablate trains protocol "
            f"{PROTOCOL_VERSION}. Give another folder with --out, or continue with the version that made it."
        )

    def _study_document(self) -> Document:
        """Read the study's file: the keys of a study, and the version of the protocol of its runs."""
        try:
            content = self.study_file.read_bytes()
            document = json.loads(content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultsError(
                f"{self.folder}: no results there (no study.json). Make some with `python -m mnist_ablate run`, "
                "or give the folder of a study, such as results/factorial."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedFileError(f"{self.study_file}: cannot be read ({first_line(error)})") from error
        if not isinstance(document, dict):
            raise DamagedFileError(f"{self.study_file}: damaged (not a study)")
        # Earlier versions wrote no digest.
        if document.pop("digest", None) not in (None, digest_of(content)):
            raise DamagedFileError(f"{self.study_file}: damaged (its digest does not agree)")
        if type(document.setdefault("protocol_version", 1)) is not int:  # protocol 1 was not recorded
            raise DamagedFileError(f"{self.study_file}: damaged (its protocol_version is no whole number)")
        return document

    def move_aside(self, file: Path) -> Path:
        """Move a file of this folder to a new name under ``damaged/`` in it, and return the new path.

        Raises
        ------
        StorageError
            If it cannot be moved.
        """
        wanted = self.folder / _ASIDE / file.relative_to(self.folder)
        numbered = (wanted.with_name(f"{wanted.name}.{n}") for n in itertools.count(1))
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            target = next(name for name in itertools.chain([wanted], numbered) if not name.exists())
            file.rename(target)
        except OSError as error:
            raise StorageError(f"{file}: cannot be moved aside ({error.strerror})") from error
        return target

    def write_run(
        self, run: Run, rows: list[dict[str, Any]], predictions: Mapping[str, Any], document: Document
    ) -> None:
        """Store a finished run: its predictions first, then its epochs, whose presence means 'complete'.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        document = {"schema_version": SCHEMA_VERSION, "specification": run.specification} | document
        if predictions:  # a training of the user's own has none
            write_table(
                self.predictions_file(run.run_id),
                pa.table(dict(predictions), schema=PREDICTION_SCHEMA),
                {"schema_version": SCHEMA_VERSION, "run_id": run.run_id},
                repeating=("label", "prediction"),
            )
        write_table(self.run_file(run.run_id), run_table(run, rows), document)
        remove(self.failure_file(run.run_id))

    def write_failure(self, run: Run, message: str) -> Path:
        """Record why `run` failed, until it succeeds; return the file.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        file = self.failure_file(run.run_id)
        write_atomically(file, f"{run.cell}, seed {run.seed}: {message}".encode())
        return file

    def failures(self) -> list[str]:
        """Return one line for each run that failed and has not succeeded since, with the reason."""
        return [
            f"Failed: {_reason(self.failure_file(i))}" for i in self._ids("failures") if not self.run_file(i).exists()
        ]

    def stored(self) -> list[str]:
        """List the ids of the stored runs in order, whether or not their files are sound."""
        return self._ids("runs")

    def orphans(self) -> list[str]:
        """List the ids of predictions without a run."""
        return sorted({*self._ids("predictions")} - {*self._ids("runs")})

    def _ids(self, part: str) -> list[str]:
        return sorted(path.stem for path in self._files(part) if _OURS[part].fullmatch(path.name))

    def _files(self, part: str) -> list[Path]:
        folder = self.folder / part
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def foreign(self) -> list[Path]:
        """List what other programs left among the files of runs, such as ``._x.parquet`` and conflicted copies."""
        files = (path for part in _OURS for path in self._files(part) if not _OURS[part].fullmatch(path.name))
        return [path for path in files if not _HALF_WRITTEN.fullmatch(path.name)]

    def half_written(self) -> list[Path]:
        """List the temporary files of processes that were stopped, except those that were moved aside."""
        files = sorted(path for path in self.folder.glob("**/.*.tmp") if _HALF_WRITTEN.fullmatch(path.name))
        return [path for path in files if path.relative_to(self.folder).parts[0] != _ASIDE]

    def completed(self, runs: Iterable[Run], stored: StoredRuns) -> tuple[set[str], list[str]]:
        """Find which of `runs` are stored whole: with their predictions and with every probe asked for.

        Parameters
        ----------
        runs
            The runs asked for; no other file is opened.
        stored
            What `read_runs` has read for the study of `runs`.

        Returns
        -------
        tuple
            The ids of the complete runs, and one sentence for each damaged file.
        """
        complete, damaged = set[str](), []
        for run in runs:
            if run.run_id in stored.problems:
                damaged.append(stored.problems[run.run_id])
            elif run.run_id in stored.documents:
                try:
                    if not run.settings.train:
                        self.read_predictions(run.run_id)
                except DamagedFileError as error:
                    damaged.append(str(error))
                    continue
                if lacking := set(run.probes) - set(stored.documents[run.run_id].get("probes", {})):
                    names = ", ".join(sorted(lacking))
                    damaged.append(f"{self.run_file(run.run_id)}: without {names}; the run will be done again")
                else:
                    complete.add(run.run_id)
        return complete, damaged

    def read_run(self, run_id: str) -> tuple[pa.Table, Document]:
        """Read the epochs of a run, and the document in its footer.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or holds another run.
        """
        return self._parse_run(run_id, read_sound(self.run_file(run_id))[0])

    def _parse_run(self, run_id: str, content: bytes) -> tuple[pa.Table, Document]:
        table, document = parse_table(self.run_file(run_id), content)
        problem = malformed(table, document)
        if not problem and table["run_id"][0].as_py() != run_id:
            problem = "it holds another run"
        if problem:
            raise DamagedFileError(f"{self.run_file(run_id)}: damaged ({problem}); the run will be done again")
        return table, document

    def read_predictions(self, run_id: str) -> bytes:
        """Return the content of a run's predictions file, checked but not parsed.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or holds another run's predictions.
        """
        file = self.predictions_file(run_id)
        content, _ = read_sound(file)
        if content.rfind(run_id.encode()) < 0:  # the document, uncompressed near the end, names the run
            raise DamagedFileError(f"{file}: damaged (it holds another run's); the run will be done again")
        return content

    def parse_predictions(self, run_id: str) -> pa.Table:
        """Read a run's predictions.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or holds another run's predictions.
        """
        file = self.predictions_file(run_id)
        table, _ = parse_table(file, self.read_predictions(run_id))
        if table.schema != PREDICTION_SCHEMA:
            raise DamagedFileError(f"{file}: damaged (not the columns of predictions); the run will be done again")
        return table

    def read_runs(self, study: Study) -> StoredRuns:
        """Read every stored run of `study`.

        Every file is checked against its digest. It is parsed only if the index has no run with this digest.
        """
        schema = study_schema(study)
        try:
            index, indexed_documents = read_many(self.index_file, schema)
        except DamagedFileError:  # or missing
            index, indexed_documents = schema.empty_table(), {}
        first = index.filter(pc.equal(index["epoch"], 1))
        indexed_cells = dict(zip(first["run_id"].to_pylist(), first["cell"].to_pylist(), strict=True))
        of_study = {run.cell: run for run in runs_of(study, self.protocol_version())}
        planned = _planned(of_study.values())
        from_index, tables, documents, problems, outdated = [], [], {}, {}, {}
        for run_id in self.stored():
            file = self.run_file(run_id)
            try:
                content, digest = read_sound(file)
                table, document = None, indexed_documents.get(run_id, {})
                if document.get("digest") != digest:
                    table, document = self._parse_run(run_id, content)
                cell = indexed_cells[run_id] if table is None else table["cell"][0].as_py()
                seed = document.get("specification", {}).get("seed", -1)
                if planned(seed).get(cell) != run_id:
                    if not _is_outdated(run_id, of_study.get(cell), document):
                        raise DamagedFileError(f"{file}{_STRANGER}")
                    outdated[cell, seed] = document
                    continue
                if table is not None and table.schema != schema:
                    raise DamagedFileError(f"{file}: damaged (not the columns of the study), left out")
            except DamagedFileError as error:
                problems[run_id] = str(error)
                continue
            documents[run_id] = document
            if table is None:
                from_index.append(run_id)
            else:
                tables.append(table)
        unindexed = len(tables)
        tables.append(index.filter(pc.is_in(index["run_id"], pa.array(from_index, pa.string()))))
        return StoredRuns(tables, documents, problems, unindexed, outdated)

    def read_compact(self, study: Study) -> StoredRuns:
        """Read the runs of a compact folder.

        Raises
        ------
        DamagedFileError
            If their one file is not whole.
        """
        try:
            table, documents = read_many(self.compact_file, study_schema(study))
        except DamagedFileError as error:
            raise DamagedFileError(
                f"{self.compact_file}: damaged, and with it all runs. Get the folder again."
            ) from error
        return StoredRuns([table], documents)


_STRANGER = ": a run of another study or protocol, left out"


def _planned(block: Collection[Run]) -> Callable[[int], dict[str, str]]:
    """Return a function of a seed that returns the id of the run of each cell with that seed."""

    @cache
    def planned(seed: int) -> dict[str, str]:
        return {run.cell: replace(run, seed=seed).run_id for run in block}

    return planned


def _is_outdated(run_id: str, run: Run | None, document: Document) -> bool:
    """Return whether a stored run is `run`, with the seed, code and arrays that its document names."""
    stated = document.get("specification", {})
    if run is None or not run.settings.functions:
        return False
    code, arrays = tuple(sorted(stated.get("code", {}).items())), stated.get("arrays", "")
    return replace(run, seed=stated.get("seed", -1), code=code, arrays=arrays, recorded=False).run_id == run_id


def _own_of(stored: Any) -> Own | None:
    """Return what a study's file says of the user's own; None where it is no such thing."""
    code, arrays = (stored.get(key, {}) if isinstance(stored, dict) else None for key in ("code", "arrays"))
    if not isinstance(code, dict) or not isinstance(arrays, dict):
        return None
    files = [files for files in code.values() if isinstance(files, dict)]
    texts = [*arrays.values(), *(sha256 for of_function in files for sha256 in of_function.values())]
    sound = len(files) == len(code) and all(isinstance(text, str) for text in texts)
    return Own(code, arrays) if sound else None


def read_many(file: Path, schema: pa.Schema) -> tuple[pa.Table, dict[str, Document]]:
    """Read the epochs of many runs from one file, and the document of each run, which is in its first row.

    Raises
    ------
    DamagedFileError
        If the file is not whole, or does not hold whole runs with the columns of `schema`.
    """
    table, _ = read_table(file)
    try:
        name = documents_column(schema)
        first = table.select(["run_id", name]).filter(table[name].is_valid())
        documents = dict(zip(first["run_id"].to_pylist(), map(from_json, first[name].to_pylist()), strict=True))
        table = table.select(schema.names)
        problem = malformed_runs(table, documents, schema)
    except NOT_OURS as error:
        problem = first_line(error)
    if problem:
        raise DamagedFileError(f"{file}: damaged ({problem})")
    return table, documents


def _reason(file: Path) -> str:
    """Return the first line of a text file, which may be damaged: people read it, and nothing depends on it."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"the reason cannot be read ({error.strerror})"
    first = "".join(c if c.isprintable() else "?" for c in (lines or [""])[0])
    return first if first.strip("?") else f"the reason is lost ({file} is damaged)"


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """List how two studies, as documents, differ, except in what changes no run: title, seeds, hypotheses and such."""
    sentences = []
    stored, asked = ({**study, "metrics": sorted(study.get("metrics", ()))} for study in (stored, asked))
    for key in stored.keys() - {"title", "seeds", "probes", "hypotheses", "alpha", "settle", "futility", "code"}:
        if isinstance(stored[key], dict):
            pairs = {name: (stored[key].get(name), asked[key].get(name)) for name in stored[key] | asked[key]}
            sentences += [_apart(f"{key}.{name}", a, b) for name, (a, b) in pairs.items() if a != b]
        elif stored[key] != asked[key]:
            sentences.append(_apart(key, stored[key], asked[key]))
    return sorted(sentences)


def _apart(key: str, stored: object, asked: object) -> str:
    """Say how a key differs, with values as in a study file."""
    there, here = ("not given" if value in (None, (), {}) else json.dumps(value) for value in (stored, asked))
    return f"{key} is {there} there, {here} here"
