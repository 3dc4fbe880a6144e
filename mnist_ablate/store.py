"""The results folder: one atomic Parquet file per run, in the schema that everything else reads.

``runs/<run_id>.parquet`` has one row per epoch and, in its footer, one JSON document: the run's full
specification, what made it, and digests. ``predictions/<run_id>.parquet`` has one row per test image. The
file in ``runs`` is written last: its presence means that the run is complete. Of many runs, ``index.parquet`` has
the rows and documents once more, to be read at once. A compact folder, for keeping and for sending, has all runs in
``runs.parquet`` and all wrong answers in ``mistakes.parquet`` instead. Nothing here needs torch.
"""

import hashlib
import io
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic_core import from_json

from mnist_ablate.design import Level, Run, Study, cells, parse_study
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError, StudyError

SCHEMA_VERSION = 1
FOOTER_KEY = b"mnist_ablate"
INDEX_FROM = 1000
"""Runs that the index lacks from which on it is written: to parse the files of fewer takes less than a second."""

EPOCH_COLUMNS = {
    "epoch": pa.int16(),
    "status": pa.string(),
    "train_loss": pa.float64(),
    "train_loss_eval": pa.float64(),
    "val_loss": pa.float64(),
    "val_accuracy": pa.float64(),
    "test_loss": pa.float64(),
    "test_accuracy": pa.float64(),
    "train_seconds": pa.float64(),
    "eval_seconds": pa.float64(),
}
PREDICTION_SCHEMA = pa.schema(
    {"test_index": pa.int32(), "label": pa.uint8(), "prediction": pa.uint8(), "confidence": pa.float32()}
)
MISTAKE_SCHEMA = pa.schema(
    {"cell": pa.dictionary(pa.int32(), pa.string()), "seed": pa.int64()}
    | {name: PREDICTION_SCHEMA.field(name).type for name in PREDICTION_SCHEMA.names}
)
_LEVEL_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}

Document = dict[str, Any]


def run_table(run: Run, rows: list[dict[str, Any]]) -> pa.Table:
    """Make the table of a run: who it is, its levels, and a row of `EPOCH_COLUMNS` for each epoch."""
    who = {"run_id": run.run_id, "study": run.study, "cell": run.cell, "seed": run.seed, **run.levels}
    return pa.Table.from_pylist([who | row for row in rows], schema=_schema(run.levels))


def _schema(levels: Mapping[str, Level]) -> pa.Schema:
    return pa.schema(_WHO | {name: _LEVEL_TYPES[type(level)] for name, level in levels.items()} | EPOCH_COLUMNS)


def write_table(path: Path, table: pa.Table, document: Document, level: int = 1) -> None:
    """Write `table` with `document` and a digest in the footer: all of it or, on any failure, nothing.

    The digest is the SHA-256 of the file's bytes with zeros in the digest's own place. Without it, a flipped bit
    in a Parquet file often reads back as another number and no error. `level` is that of the compression.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, table.schema, compression="zstd", compression_level=level, store_schema=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(document | {"digest": _NO_DIGEST}).encode()})
    write_atomically(path, _sealed(buffer.getvalue()))


_NO_DIGEST = "0" * 64


def _sealed(content: bytes) -> bytes:
    """Put the digest of `content` in the place that it has for it."""
    place = _digest_place(content)
    return content[: place.start] + _digest(content).encode() + content[place.stop :]


def _digest_place(content: bytes) -> slice:
    """Find the bytes of the digest: the document is near the end of the file, and the digest at its end."""
    key = b'"digest": "'
    start = content.rfind(key) + len(key)
    return slice(start, start + len(_NO_DIGEST))


def _read_sound(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file that `write_table` wrote, and their digest, which is checked.

    Raises
    ------
    DamagedFileError
        If the file is not, to the bit, what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); the run will be done again") from error
    return content, check_seal(path, content)


def check_seal(path: Path, content: bytes) -> str:
    """Return the digest that `content`, the bytes of the file at `path`, has in it, if it is theirs.

    Raises
    ------
    DamagedFileError
        If the bytes are not, to the bit, what was written.
    """
    digest = _digest(content)
    if content[_digest_place(content)] != digest.encode():
        raise DamagedFileError(f"{path}: damaged (its digest does not agree); the run will be done again")
    return digest


def _digest(content: bytes) -> str:
    """Compute the digest that `content` must have in it."""
    place = _digest_place(content)
    sha = hashlib.sha256(memoryview(content)[: place.start])
    sha.update(_NO_DIGEST.encode())
    sha.update(memoryview(content)[place.stop :])
    return sha.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, flush it to the disk, then rename: a reader sees all or nothing.

    Raises
    ------
    StorageError
        If there is no space or no permission; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}). What is finished is kept: make room, or give "
            "another folder with --out, and run the same command again."
        ) from error


def read_table(path: Path) -> tuple[pa.Table, Document]:
    """Read back what `write_table` wrote, and check it against the digest.

    Raises
    ------
    DamagedFileError
        If the file is not whole, or not what was written.
    """
    return parse_table(path, _read_sound(path)[0])


# What pyarrow and json may fail with on bytes that are not what was written: a digest can be made for any bytes.
_NOT_OURS = (pa.ArrowException, OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)


def parse_table(path: Path, content: bytes) -> tuple[pa.Table, Document]:
    """Take apart `content`, the bytes of the file at `path`, whose digest is right.

    Raises
    ------
    DamagedFileError
        If they are no table with a document.
    """
    try:
        # Not `pq.read_table`, and not in threads: for files as small as a run's, that takes three times as long.
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            table, document = file.read(use_threads=False), json.loads(file.metadata.metadata[FOOTER_KEY])
        table.validate(full=True)
    except _NOT_OURS as error:
        raise DamagedFileError(f"{path}: damaged ({_first_line(error)}); the run will be done again") from error
    if not isinstance(document, dict):
        raise DamagedFileError(f"{path}: damaged (its document is no table); the run will be done again")
    return table.replace_schema_metadata(None), document


def _remove(file: Path) -> None:
    """Remove a file, if it is there.

    Raises
    ------
    StorageError
        If there is no permission.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{file}: cannot be removed ({error.strerror}). What is finished is kept: see to the file's permissions, "
            "and run the same command again."
        ) from error


def _first_of(file: Path) -> str:
    """Return the first line of a text that may be damaged; it is for people, and nothing depends on it."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        lines = [f"the reason cannot be read ({error.strerror})"]
    first = "".join(c if c.isprintable() else "?" for c in (lines or [""])[0])
    return first if first.strip("?") else f"the reason is not there any more ({file})"


_WHO = {"run_id": pa.string(), "study": pa.string(), "cell": pa.string(), "seed": pa.int64()}


def _malformed(table: pa.Table, document: Document) -> str:
    """Say what keeps a table and its document from being a run's; empty where nothing does."""
    for name, kind in (_WHO | EPOCH_COLUMNS).items():
        if table.column_names.count(name) != 1:
            return f"the column {name} is missing"
        if table.schema.field(name).type != kind or (table[name].null_count and name in (*_WHO, "epoch")):
            return f"the column {name} is not of type {kind}"
    if not table.num_rows:
        return "it has no rows"
    if table["epoch"].to_pylist() != list(range(1, table.num_rows + 1)):
        return "its epochs are not in order, each once"
    if any(len(table[name].unique()) > 1 for name in _WHO):
        return "it holds more than one run"
    return _malformed_document(document)


_TEXT_OR_NONE = (str, type(None))


def _malformed_document(document: Document) -> str:
    """Say what keeps a document from being a run's: readers rely on the shape of what is there, not on its presence."""
    for name in ("specification", "provenance", "declared", "probes"):
        if not isinstance(document.get(name, {}), dict):
            return f"its {name} is no table"
    declared, probes = document.get("declared", {}), document.get("probes", {})
    if not all(isinstance(of, dict) and _are_numbers(of.values()) for of in probes.values()):
        return "its probes are no tables of numbers"
    if not isinstance(document.get("specification", {}).get("seed", 0), int):
        return "its seed is no whole number"
    looks = declared.get("looks", [])
    if not isinstance(looks, list) or not all(type(look) is int for look in looks) or bool(declared) != bool(looks):
        return "its looks are no numbers of seeds"
    texts = [declared.get("study_sha256"), declared.get("hypotheses_sha256"), *map(document.get, _DIGESTS)]
    if not all(isinstance(text, _TEXT_OR_NONE) for text in texts):
        return "a digest in it is no text"
    losses = document.get("first_losses", [])
    return "" if isinstance(losses, list) and _are_numbers(losses) else "its first losses are no numbers"


_DIGESTS = ("data_sha256", "weights_sha256")


def _are_numbers(values: Iterable[object]) -> bool:
    """Tell whether all are numbers or None; by their types, for 10,000 runs have two million losses."""
    return set(map(type, values)) <= {int, float, type(None)}


def _sound_document(document: Document) -> Document:
    """Return a document that is a run's.

    Raises
    ------
    ValueError
        If it is none.
    """
    problem = _malformed_document(document) if isinstance(document, dict) else "it is no table"
    if problem:
        raise ValueError(problem)
    return document


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


@dataclass(frozen=True)
class Store:
    """The folder of one study's results."""

    folder: Path

    @property
    def study_file(self) -> Path:
        """Where the study's specification lies."""
        return self.folder / "study.json"

    def run_file(self, run_id: str) -> Path:
        """Where the epochs of a run lie."""
        return self.folder / "runs" / f"{run_id}.parquet"

    def predictions_file(self, run_id: str) -> Path:
        """Where the predictions of a run lie."""
        return self.folder / "predictions" / f"{run_id}.parquet"

    @property
    def index_file(self) -> Path:
        """Where many runs lie once more, in one file that is quickly read: see `write_index`."""
        return self.folder / "index.parquet"

    @property
    def compact_file(self) -> Path:
        """Where all runs of a compact folder lie: see `write_compact`."""
        return self.folder / "runs.parquet"

    @property
    def mistakes_file(self) -> Path:
        """Where all wrong answers of a compact folder lie."""
        return self.folder / "mistakes.parquet"

    def failure_file(self, run_id: str) -> Path:
        """Where the reason lies why a run failed."""
        return self.folder / "failures" / f"{run_id}.txt"

    @contextmanager
    def opened(self, study: Study, say: Callable[[str], None] = lambda _: None) -> Iterator["Store"]:
        """Hold the folder for writing: make it, lock it, clear half-written files, and record the study.

        Parameters
        ----------
        study
            What the folder is for.
        say
            Is given a sentence where the folder's own record of the study was damaged, and is made anew.

        Raises
        ------
        BusyError
            If another process holds it.
        ResultsError
            If it cannot be written, is compact, or holds another study.
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
            for file in self.folder.glob("**/.*.tmp"):
                _remove(file)
            self._record(study, say)
            yield self

    def _record(self, study: Study, say: Callable[[str], None]) -> None:
        """Store the study's specification, or hold it against the one that is there."""
        try:
            recorded = self.study() if self.study_file.exists() else None
        except DamagedFileError:
            recorded = None
            say(f"{self.study_file}: damaged; moved to {self.move_aside(self.study_file)}, and written anew")
        # Where the folder does not say what it is for, its runs do.
        found = differences(recorded.model_dump(), study.model_dump()) if recorded else self._strangers(study)
        if found:
            raise ResultsError(
                f"{self.folder} holds other runs than these: {'; '.join(found)}. Give another folder with --out."
            )
        self.write_study(study)

    def _strangers(self, study: Study) -> list[str]:
        """Say how many stored runs are sound and not of `study`."""
        strangers = [problem for problem in self.read_all(study)[2] if problem.endswith(_STRANGER)]
        return [f"{len(strangers)} of its runs are of another study, as {strangers[0]}"] if strangers else []

    def write_study(self, study: Study) -> None:
        """Store the study's specification, with a digest.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        document = study.model_dump(mode="json", exclude_unset=True) | {"digest": _NO_DIGEST}
        write_atomically(self.study_file, _sealed(json.dumps(document, indent=1).encode()))

    def move_aside(self, file: Path) -> Path:
        """Move a file of this folder into ``damaged/`` in it, under a name that nothing has yet; return where it is.

        Raises
        ------
        StorageError
            If it cannot be moved.
        """
        wanted = self.folder / "damaged" / file.relative_to(self.folder)
        names = (wanted.with_name(f"{wanted.name}{f'.{n}' * (n > 0)}") for n in itertools.count())
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            target = next(name for name in names if not name.exists())
            file.rename(target)
        except OSError as error:
            raise StorageError(f"{file}: cannot be moved aside ({error.strerror})") from error
        return target

    def study(self) -> Study:
        """Read the study that the folder holds.

        Raises
        ------
        ResultsError
            If there is none.
        DamagedFileError
            If its file cannot be read.
        """
        try:
            content = self.study_file.read_bytes()
            document = json.loads(content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultsError(
                f"{self.folder}: no results there (no study.json). Make some with `python -m mnist_ablate run`, "
                "or give the folder of a study, such as results/factorial."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedFileError(f"{self.study_file}: cannot be read ({_first_line(error)})") from error
        if not isinstance(document, dict):
            raise DamagedFileError(f"{self.study_file}: damaged (it is no study)")
        # Folders that were made by earlier versions have none.
        if document.pop("digest", None) not in (None, _digest(content)):
            raise DamagedFileError(f"{self.study_file}: damaged (its digest does not agree)")
        try:
            return parse_study(document, str(self.study_file))
        except StudyError as error:
            raise DamagedFileError(f"{self.study_file}: damaged, or of another version ({error})") from error

    def stored(self) -> list[str]:
        """List the ids of the runs whose files are there, sound or not, in order."""
        return sorted(path.stem for path in (self.folder / "runs").glob("*.parquet"))

    def completed(self, runs: Iterable[Run]) -> tuple[set[str], list[str]]:
        """Find which of `runs` are stored whole, with their predictions.

        Returns
        -------
        tuple
            The ids of the complete runs, and one sentence for each damaged file.
        """
        there, index = set(self.stored()), self._index()
        whole, damaged = set(), []
        for run in (run for run in runs if run.run_id in there):
            try:
                self._check(run.run_id, index)
                self._check_probes(run, index)
                whole.add(run.run_id)
            except DamagedFileError as error:
                damaged.append(str(error))
        return whole, damaged

    def _check(self, run_id: str, index: "_Index") -> None:
        """Check both files of a run to the last bit; parse only what the index does not know by its digest."""
        content, digest = _read_sound(self.run_file(run_id))
        if index.digests.get(run_id) != digest:
            self._parse_run(run_id, content)
        self.read_predictions(run_id)

    def _check_probes(self, run: Run, index: "_Index") -> None:
        """See that a run has all the probes that are asked for: others may have been when it was made."""
        if run.probes:
            lacking = set(run.probes) - set(self._look_up(run.run_id, index)[2].get("probes", {}))
            if lacking:
                raise DamagedFileError(
                    f"{self.run_file(run.run_id)}: without {', '.join(sorted(lacking))}; the run will be done again"
                )

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
        write_table(
            self.predictions_file(run.run_id),
            pa.table(dict(predictions), schema=PREDICTION_SCHEMA),
            {"schema_version": SCHEMA_VERSION, "run_id": run.run_id},
        )
        write_table(self.run_file(run.run_id), run_table(run, rows), document)
        _remove(self.failure_file(run.run_id))

    def write_failure(self, run: Run, message: str) -> Path:
        """Keep why `run` failed, until it succeeds; return the file.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        file = self.failure_file(run.run_id)
        write_atomically(file, f"{run.cell}, seed {run.seed}: {message}".encode())
        return file

    def failures(self) -> list[str]:
        """Say in one line each which runs failed, and why; not of runs that were made since."""
        files = sorted((self.folder / "failures").glob("*.txt"))
        return [f"Failed: {_first_of(file)}" for file in files if not self.run_file(file.stem).exists()]

    def read_run(self, run_id: str) -> tuple[pa.Table, Document]:
        """Read the epochs of a run, and the document of its footer.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or is another run's.
        """
        return self._parse_run(run_id, _read_sound(self.run_file(run_id))[0])

    def read_predictions(self, run_id: str) -> bytes:
        """Return the file of a run's predictions, checked and not parsed.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or is another run's.
        """
        file = self.predictions_file(run_id)
        content, _ = _read_sound(file)
        if content.rfind(run_id.encode()) < 0:  # the document, near the end and not compressed, names the run
            raise DamagedFileError(f"{file}: damaged (it holds another run's); the run will be done again")
        return content

    def parse_predictions(self, run_id: str) -> pa.Table:
        """Read a run's predictions.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or is another run's.
        """
        file = self.predictions_file(run_id)
        table, _ = parse_table(file, self.read_predictions(run_id))
        if table.schema != PREDICTION_SCHEMA:
            raise DamagedFileError(f"{file}: damaged (not the columns of predictions); the run will be done again")
        return table

    def _parse_run(self, run_id: str, content: bytes) -> tuple[pa.Table, Document]:
        table, document = parse_table(self.run_file(run_id), content)
        problem = _malformed(table, document)
        if not problem and set(table["run_id"].to_pylist()) != {run_id}:
            problem = "it holds another run"
        if problem:
            raise DamagedFileError(f"{self.run_file(run_id)}: damaged ({problem}); the run will be done again")
        return table, document

    def read_all(self, study: Study) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        """Read every stored run of `study`, from the index where it has the very bytes of the run's file.

        Returns
        -------
        tuple
            Tables of epochs, the document of each run, and one sentence for each file that is left out.
        """
        expected = _schema({factor.name: factor.reference for factor in study.design})
        if self.compact_file.exists():
            return self._read_compact(expected)
        try:
            return self._read_runs(study, expected, self._index())
        except _NOT_OURS:  # from what has an index's columns and digest, and is none
            return self._read_runs(study, expected, _Index(None))

    def _read_runs(
        self, study: Study, expected: pa.Schema, index: "_Index"
    ) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        planned = _runs_by_cell(study)
        indexed, tables, documents, problems = [], [], {}, []
        for run_id in self.stored():
            try:
                table, cell, document = self._look_up(run_id, index)
            except DamagedFileError as error:
                problems.append(str(error))
                continue
            if not _belongs(run_id, document.get("specification", {}).get("seed", -1), planned.get(cell, ())):
                problems.append(f"{self.run_file(run_id)}{_STRANGER}")
                continue
            if table is not None and table.schema != expected:
                problems.append(f"{self.run_file(run_id)}: damaged (not the columns of the study), left out")
                continue
            documents[run_id] = document
            if table is None:
                indexed.append(run_id)
            else:
                tables.append(table)
        rows = index.rows(indexed)
        for table in rows:
            _check_many(table, expected, set(indexed))
        return tables + rows, documents, problems

    def _look_up(self, run_id: str, index: "_Index") -> tuple[pa.Table | None, str, Document]:
        """Read a run: its epochs (None where the index has them), its cell, its document."""
        content, digest = _read_sound(self.run_file(run_id))
        if index.digests.get(run_id) == digest and run_id in index.heads:
            cell, text = index.heads[run_id]
            return None, cell, _sound_document(from_json(text))
        table, document = self._parse_run(run_id, content)
        return table, table["cell"][0].as_py(), document

    def _index(self) -> "_Index":
        try:
            return _Index(_read_sound(self.index_file)[0])
        except DamagedFileError:  # or not there: then every file is parsed
            return _Index(None)

    def write_index(self, results: "Results") -> None:
        """Put `results` into the index, if that saves parsing `INDEX_FROM` files or more.

        The index is never needed and never trusted: a run is taken from it only where the run's own file has, to
        the bit, the digest of the file that it was made from. So it may be old, damaged or gone.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        indexed = self._index().digests
        digests = {run_id: document["digest"] for run_id, document in results.documents.items()}
        if len(digests.items() - indexed.items()) < INDEX_FROM:
            return
        texts = {run_id: json.dumps(document) for run_id, document in results.documents.items()}
        write_table(self.index_file, _combined(results, digest=digests, document=texts), _VERSION)

    def _read_compact(self, expected: pa.Schema) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        try:
            table, _ = read_table(self.compact_file)
            first = table.filter(table["document"].is_valid())
            found = map(_sound_document, map(from_json, first["document"].to_pylist()))
            documents = dict(zip(first["run_id"].to_pylist(), found, strict=True))
            table = table.drop_columns(["document"])
            _check_many(table, expected, documents.keys())
        except (DamagedFileError, *_NOT_OURS) as error:
            raise DamagedFileError(
                f"{self.compact_file}: damaged, and with it all runs. Get the folder again."
            ) from error
        return [table], documents, []


def _check_many(table: pa.Table, expected: pa.Schema, run_ids: Set[str]) -> None:
    """See that a table of many runs has the columns of its study, each epoch once, and the runs with `run_ids`.

    Raises
    ------
    ValueError
        If not.
    """
    if table.schema != expected:
        raise ValueError("not the columns of the study")
    if any(table[name].null_count for name in (*_WHO, "epoch")):
        raise ValueError("an epoch of no run")
    counts = Counter(table["run_id"].to_pylist())
    whole = {(run_id, epoch) for run_id, n in counts.items() for epoch in range(1, n + 1)}
    if set(zip(table["run_id"].to_pylist(), table["epoch"].to_pylist(), strict=True)) != whole:
        raise ValueError("an epoch is missing, or there twice")
    if not counts or counts.keys() != run_ids:
        raise ValueError("there is no run, or one without rows or document")


_VERSION: Document = {"schema_version": SCHEMA_VERSION}
_STRANGER = ": a run of another study, left out"


def _combined(results: "Results", **texts: Mapping[str, str]) -> pa.Table:
    """Put all runs into one table; `texts` are columns of what a run has once, in its first row."""
    first = results.epochs["run_id"].drop_duplicates()
    frame = results.epochs.assign(**{name: first.map(of) for name, of in texts.items()})
    schema = _schema({factor.name: factor.reference for factor in results.study.design})
    for name in texts:
        schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(None)


def write_compact(results: "Results", folder: str | Path, *, answers: bool = True) -> Path:
    """Write `results` as a compact folder, which `load` reads as it reads any other, and return it.

    All runs are in one file, and of the predictions only the wrong ones are kept, with confidences to a hundredth:
    some hundredth of the space. Without `answers` there are none. Of a run's document, the losses of the first steps
    and the digest of the run's own file are left out.

    Raises
    ------
    ResultsError
        If `folder` cannot be made, or holds results that are not compact.
    StorageError
        If there is no space or no permission.
    """
    store = Store(Path(folder))
    if (store.folder / "runs").exists():
        raise ResultsError(f"{folder}: holds results that are not compact. Give another folder.")
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be made ({error.strerror}). Give another folder.") from error
    kept = {
        run_id: json.dumps({key: value for key, value in document.items() if key not in ("first_losses", "digest")})
        for run_id, document in results.documents.items()
    }
    mistakes, labels = (results.mistakes, results.labels) if answers else (None, None)
    if mistakes is not None and labels is not None:
        table = _small(mistakes)
        write_table(store.mistakes_file, table, _VERSION | {"labels": "".join(map(str, labels))}, level=19)
    else:
        store.mistakes_file.unlink(missing_ok=True)  # of what was in the folder before
    store.write_study(results.study)
    write_table(store.compact_file, _combined(results, document=kept), _VERSION)
    return store.folder


def _small(mistakes: pd.DataFrame) -> pa.Table:
    """Sort the wrong answers by image, and round confidences, which takes a quarter of the space as they come."""
    frame = mistakes.astype({"cell": str}).sort_values(["test_index", "cell", "seed"]).round({"confidence": 2})
    return pa.Table.from_pandas(frame, MISTAKE_SCHEMA, preserve_index=False).replace_schema_metadata(None)


@dataclass(frozen=True)
class _Index:
    """The index, as far as it is asked for.

    It has the rows of many runs' files, and in the first of each run's rows `digest` and `document`.

    Parameters
    ----------
    content
        The bytes of the file; None where there is none.
    """

    content: bytes | None

    def _heads(self, *columns: str) -> list[tuple[Any, ...]]:
        """Give some columns of the first row of each run; nothing, where that cannot be read."""
        if self.content is None:
            return []
        try:
            table = pq.ParquetFile(pa.BufferReader(self.content)).read(columns)
            if set(table.schema.types) != {pa.string()}:
                return []
            first = table.filter(table[columns[-1]].is_valid())
            return list(zip(*(first[name].to_pylist() for name in columns), strict=True))
        except _NOT_OURS:
            return []

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each run's file."""
        return dict(self._heads("run_id", "digest"))

    @cached_property
    def heads(self) -> dict[str, tuple[str, str]]:
        """The cell of each run, and its document as it was written."""
        return {run_id: (cell, document) for run_id, cell, document in self._heads("run_id", "cell", "document")}

    def rows(self, run_ids: list[str]) -> list[pa.Table]:
        """Take the rows of some runs, as they are in their files: one table, or none where there is no run."""
        if not run_ids:
            return []
        file = pq.ParquetFile(pa.BufferReader(self.content))
        table = file.read([name for name in file.schema_arrow.names if name not in ("digest", "document")])
        return [table.replace_schema_metadata(None).filter(pc.is_in(table["run_id"], pa.array(run_ids)))]


def _runs_by_cell(study: Study) -> dict[str, list[Run]]:
    """Give the runs of each cell of `study` with seed 0, for `_belongs`."""
    names, engine, found = tuple(factor.name for factor in study.design), study.chosen_engine, defaultdict(list)
    for cell in cells(study):
        found[cell.name].append(Run(study.name, cell.name, names, 0, cell.settings, engine))
    return found


def _belongs(run_id: str, seed: int, runs: Iterable[Run]) -> bool:
    """Tell whether `run_id` is one of `runs` with another seed: by ids, which a setting that is added later leaves."""
    return any(replace(run, seed=seed).run_id == run_id for run in runs)


def differences(
    stored: Mapping[str, Any], asked: Mapping[str, Any], places: tuple[str, str] = ("there", "here")
) -> list[str]:
    """Name what two studies differ in, but for what changes no run: title, number of seeds, and what is claimed.

    Parameters
    ----------
    stored, asked
        The studies, as documents.
    places
        What the two are called in the sentences.
    """
    found, (there, here) = [], places
    for key in stored.keys() - {"title", "seeds", "probes", "hypotheses", "alpha", "looks"}:
        if isinstance(stored[key], dict):
            pairs = {name: (stored[key].get(name), asked[key].get(name)) for name in stored[key] | asked[key]}
            found += [f"{key}.{name} is {a!r} {there}, {b!r} {here}" for name, (a, b) in pairs.items() if a != b]
        elif stored[key] != asked[key]:
            found.append(f"{key} is {stored[key]!r} {there}, {asked[key]!r} {here}")
    return sorted(found)


@dataclass(frozen=True, eq=False)
class Results:
    """What a results folder holds, for reading.

    Parameters
    ----------
    folder
        Where it was read from.
    study
        The study of the folder.
    epochs
        One row per run and epoch, in the columns of the schema, sorted by cell (in the order of the design),
        seed and epoch.
    documents
        The JSON document of each run, by `run_id`.
    problems
        A sentence for each run that failed, and for each file that could not be read.
    """

    folder: Path
    study: Study
    epochs: pd.DataFrame
    documents: Mapping[str, Document]
    problems: list[str] = field(default_factory=list)

    @cached_property
    def final(self) -> pd.DataFrame:
        """The last epoch of each run: one row per run."""
        return self.epochs[self.epochs["epoch"] == self.epochs.groupby("run_id")["epoch"].transform("max")]

    @cached_property
    def probes(self) -> pd.DataFrame:
        """What probes found in each run: one row per run that has any, indexed by ``run_id``, a column per response."""
        found = {run_id: document.get("probes", {}) for run_id, document in self.documents.items()}
        rows = {
            run_id: {name: value for part in of.values() for name, value in part.items()}
            for run_id, of in found.items()
        }
        frame = pd.DataFrame.from_dict(
            {run_id: row for run_id, row in rows.items() if row}, orient="index", dtype=float
        )
        return frame.rename_axis("run_id")

    def predictions(self, run_id: str) -> pd.DataFrame:
        """Read what a run said of each test image: `test_index`, `label`, `prediction`, `confidence`.

        Raises
        ------
        DamagedFileError
            If they are not there, or damaged.
        """
        store = Store(self.folder)
        frame: pd.DataFrame = store.parse_predictions(run_id).to_pandas()
        return frame

    @cached_property
    def _answers(self) -> tuple[pd.DataFrame, NDArray[np.uint8]] | str:
        """Give the mistakes and the labels, or say why there are none."""
        store = Store(self.folder)
        try:
            if store.compact_file.exists():
                kept = store.mistakes_file.exists()
                return _read_mistakes(store.mistakes_file) if kept else f"{self.folder} is kept without wrong answers"
            return _read_answers(store, self.final)
        except DamagedFileError as error:
            return str(error).partition("; the run")[0]

    @property
    def no_mistakes(self) -> str:
        """Say why `mistakes` is None; empty where it is not."""
        return self._answers if isinstance(self._answers, str) else ""

    @property
    def mistakes(self) -> pd.DataFrame | None:
        """Every wrong answer after the last epoch: `cell`, `seed`, `test_index`, `label`, `prediction`, `confidence`.

        None where predictions are not stored, or are not all of the same test images.
        """
        return None if isinstance(self._answers, str) else self._answers[0]

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """The labels of the test images, shape (images,); None where `mistakes` is."""
        return None if isinstance(self._answers, str) else self._answers[1]

    def _repr_html_(self) -> str:
        """Show the final test accuracy of each cell, in percent, where a notebook displays a result."""
        accuracy = 100 * self.final.set_index("cell")["test_accuracy"]
        table = accuracy.groupby(level="cell", sort=False).agg(["count", "mean", "std"])
        return f"<p>{self.folder}: test accuracy in percent</p>" + table.round(2).to_html()


def _read_mistakes(file: Path) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Read the wrong answers of a compact folder, and the labels."""
    table, document = read_table(file)
    labels = document.get("labels")
    if table.column_names != MISTAKE_SCHEMA.names or not isinstance(labels, str) or not labels.isdecimal():
        raise DamagedFileError(f"{file}: damaged (it holds no wrong answers)")
    return table.to_pandas().astype({"cell": "category"}), np.array([*map(int, labels)], dtype=np.uint8)


def _read_answers(store: Store, final: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.uint8]] | str:
    """Read the predictions of all runs: the wrong ones, and the labels; or say why they cannot be put together."""
    tables, labels = [], None
    for run_id, cell, seed in zip(final["run_id"], final["cell"], final["seed"], strict=True):
        table = store.parse_predictions(run_id)
        of_run = table["label"].to_numpy()
        if labels is not None and not np.array_equal(labels, of_run):
            return "the runs were not all tested on the same images"
        labels = of_run
        wrong = table.filter(pc.not_equal(table["label"], table["prediction"]))
        who = {"cell": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(wrong), np.int32)), pa.array([cell])),
               "seed": pa.array(np.full(len(wrong), seed))}  # fmt: skip
        tables.append(pa.table(who | {name: wrong[name] for name in wrong.column_names}, schema=MISTAKE_SCHEMA))
    assert labels is not None  # noqa: S101 # `load` gives no results without a run
    return pa.concat_tables(tables).unify_dictionaries().to_pandas(), labels


def load(folder: str | Path = "results/factorial") -> Results:
    """Read a results folder; what cannot be read is left out and named in ``problems``.

    Raises
    ------
    ResultsError
        If there is no study in `folder`, or no readable run.
    """
    store = Store(Path(folder))
    study = store.study()
    tables, documents, left_out = store.read_all(study)
    problems = store.failures() + left_out
    if not tables:
        problem = f" {problems[0]}." if problems else ""
        raise ResultsError(f"{folder}: no finished run there.{problem} Run the study: `python -m mnist_ablate run`.")
    epochs = pa.concat_tables(tables).to_pandas()
    order = {cell.name: i for i, cell in enumerate(cells(study))}
    epochs = epochs.sort_values(["cell", "seed", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c)
    # Seeds that an earlier call asked for count as planned, too.
    n_seeds = max(study.seeds, int(epochs["seed"].max()) + 1)
    study = study if n_seeds == study.seeds else study.with_options(seeds=n_seeds)
    return Results(store.folder, study, epochs.reset_index(drop=True), documents, problems)
