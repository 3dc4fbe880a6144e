"""The results folder: one atomic Parquet file per run, in the schema that everything else reads.

``runs/<run_id>.parquet`` has one row per epoch and, in its footer, one JSON document: the run's full
specification, what made it, and digests. ``predictions/<run_id>.parquet`` has one row per test image. The
file in ``runs`` is written last: its presence means that the run is complete. Nothing here needs torch.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mnist_ablate.design import Run, Study, cells, parse_study
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError

SCHEMA_VERSION = 1
FOOTER_KEY = b"mnist_ablate"

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
_LEVEL_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}

Document = dict[str, Any]


def run_table(run: Run, rows: list[dict[str, Any]]) -> pa.Table:
    """Make the table of a run: who it is, its levels, and a row of `EPOCH_COLUMNS` for each epoch."""
    who = {"run_id": run.run_id, "study": run.study, "cell": run.cell, "seed": run.seed, **run.levels}
    types = {"run_id": pa.string(), "study": pa.string(), "cell": pa.string(), "seed": pa.int64()}
    types |= {name: _LEVEL_TYPES[type(level)] for name, level in run.levels.items()}
    return pa.Table.from_pylist([who | row for row in rows], schema=pa.schema(types | EPOCH_COLUMNS))


def write_table(path: Path, table: pa.Table, document: Document) -> None:
    """Write `table` with `document` and a digest in the footer: all of it or, on any failure, nothing.

    The digest is the SHA-256 of the file's bytes with zeros in the digest's own place. Without it, a flipped bit
    in a Parquet file often reads back as another number and no error.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(document | {"digest": _NO_DIGEST}).encode()})
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    write_atomically(path, content.replace(_digest_entry(_NO_DIGEST), _digest_entry(digest), 1))


_NO_DIGEST = "0" * 64
_DIGEST_ENTRY = re.compile(rb'"digest": "([0-9a-f]{64})"')


def _digest_entry(digest: str) -> bytes:
    return f'"digest": "{digest}"'.encode()


def _is_sound(content: bytes) -> bool:
    """Tell whether `content` is, to the bit, what `write_table` wrote."""
    entries = list(_DIGEST_ENTRY.finditer(content))
    if len(entries) != 1:
        return False
    start, stop = entries[0].span()
    blank = content[:start] + _digest_entry(_NO_DIGEST) + content[stop:]
    return hashlib.sha256(blank).hexdigest().encode() == entries[0][1]


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
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); the run will be done again") from error
    if not _is_sound(content):
        raise DamagedFileError(f"{path}: damaged (its digest does not agree); the run will be done again")
    table = pq.read_table(pa.BufferReader(content))
    return table.replace_schema_metadata(None), json.loads(table.schema.metadata[FOOTER_KEY])


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


@dataclass(frozen=True)
class Store:
    """The folder of one study's results."""

    folder: Path

    @property
    def _study_file(self) -> Path:
        return self.folder / "study.json"

    def run_file(self, run_id: str) -> Path:
        """Where the epochs of a run lie."""
        return self.folder / "runs" / f"{run_id}.parquet"

    def predictions_file(self, run_id: str) -> Path:
        """Where the predictions of a run lie."""
        return self.folder / "predictions" / f"{run_id}.parquet"

    def failure_file(self, run_id: str) -> Path:
        """Where the reason lies why a run failed."""
        return self.folder / "failures" / f"{run_id}.txt"

    @contextmanager
    def opened(self, study: Study) -> Iterator["Store"]:
        """Hold the folder for writing: make it, lock it, clear half-written files, and record the study.

        Raises
        ------
        BusyError
            If another process holds it.
        ResultsError
            If it cannot be written, or holds another study.
        """
        try:
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
            self._clear_half_written()
            self._record(study)
            yield self

    def _clear_half_written(self) -> None:
        for file in self.folder.glob("**/.*.tmp"):
            file.unlink()

    def _record(self, study: Study) -> None:
        """Store the study's specification, or hold it against the one that is there."""
        if self._study_file.exists():
            differences = _differences(self.study().model_dump(), study.model_dump())
            if differences:
                raise ResultsError(
                    f"{self.folder} holds other runs than these: {'; '.join(differences)}. "
                    "Give another folder with --out."
                )
        content = json.dumps(study.model_dump(mode="json", exclude_unset=True), indent=1)
        write_atomically(self._study_file, content.encode())

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
            document = json.loads(self._study_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ResultsError(
                f"{self.folder}: no results there (no study.json). Make some with `python -m mnist_ablate run`, "
                "or give the folder of a study, such as results/factorial."
            ) from error
        except (OSError, ValueError) as error:
            raise DamagedFileError(f"{self._study_file}: cannot be read ({_first_line(error)})") from error
        return parse_study(document, str(self._study_file))

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
        there = set(self.stored())
        whole, damaged = set(), []
        for run_id in (run.run_id for run in runs if run.run_id in there):
            try:
                self.read_run(run_id)
                read_table(self.predictions_file(run_id))
                whole.add(run_id)
            except DamagedFileError as error:
                damaged.append(str(error))
        return whole, damaged

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
        self.failure_file(run.run_id).unlink(missing_ok=True)

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
        """Say in one line each which runs failed, and why."""
        files = sorted((self.folder / "failures").glob("*.txt"))
        return [f"Failed: {file.read_text(encoding='utf-8').splitlines()[0]}" for file in files]

    def read_run(self, run_id: str) -> tuple[pa.Table, Document]:
        """Read the epochs of a run, and the document of its footer.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or is another run's.
        """
        table, document = read_table(self.run_file(run_id))
        if table.num_rows == 0 or table.column("run_id")[0].as_py() != run_id:
            raise DamagedFileError(
                f"{self.run_file(run_id)}: damaged (it holds another run); the run will be done again"
            )
        return table, document


def _differences(stored: Document, asked: Document) -> list[str]:
    """Name what two studies differ in, but for the title and the number of seeds, which change no run."""
    found = []
    for key in stored.keys() - {"title", "seeds"}:
        if isinstance(stored[key], dict):
            pairs = {name: (stored[key].get(name), asked[key].get(name)) for name in stored[key] | asked[key]}
            found += [f"{key}.{name} is {a!r} there, {b!r} here" for name, (a, b) in pairs.items() if a != b]
        elif stored[key] != asked[key]:
            found.append(f"{key} is {stored[key]!r} there, {asked[key]!r} here")
    return sorted(found)


@dataclass(frozen=True)
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

    def predictions(self, run_id: str) -> pd.DataFrame:
        """Read what a run said of each test image: `test_index`, `label`, `prediction`, `confidence`.

        Raises
        ------
        DamagedFileError
            If they are not there, or damaged.
        """
        frame: pd.DataFrame = read_table(Store(self.folder).predictions_file(run_id))[0].to_pandas()
        return frame

    def _repr_html_(self) -> str:
        """Show the final test accuracy of each cell, in percent, where a notebook displays a result."""
        accuracy = 100 * self.final.set_index("cell")["test_accuracy"]
        table = accuracy.groupby(level="cell", sort=False).agg(["count", "mean", "std"])
        return f"<p>{self.folder}: test accuracy in percent</p>" + table.round(2).to_html()


def load(folder: str | Path = "results/factorial") -> Results:
    """Read a results folder; what cannot be read is left out and named in ``problems``.

    Raises
    ------
    ResultsError
        If there is no study in `folder`, or no readable run.
    """
    store = Store(Path(folder))
    study = store.study()
    tables, documents, problems = [], {}, store.failures()
    for run_id in store.stored():
        try:
            table, document = store.read_run(run_id)
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        if _belongs(table, document, study):
            tables.append(table)
            documents[run_id] = document
        else:
            problems.append(f"{store.run_file(run_id)}: a run of another study, left out")
    if not tables:
        problem = f" {problems[0]}." if problems else ""
        raise ResultsError(f"{folder}: no finished run there.{problem} Run the study: `python -m mnist_ablate run`.")
    epochs = pa.concat_tables(tables).to_pandas()
    order = {cell.name: i for i, cell in enumerate(cells(study))}
    epochs = epochs.sort_values(["cell", "seed", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c)
    # Seeds that an earlier call asked for count as planned, too.
    study = study.with_options(seeds=max(study.seeds, int(epochs["seed"].max()) + 1))
    return Results(store.folder, study, epochs.reset_index(drop=True), documents, problems)


def _belongs(table: pa.Table, document: Document, study: Study) -> bool:
    """Tell whether a stored run is one that `study` has, for some seed."""
    (cell,), (seed,) = set(table["cell"].to_pylist()), set(table["seed"].to_pylist())
    names = tuple(factor.name for factor in study.design)
    planned = (
        Run(study.name, cell, names, seed, known.settings, study.engine) for known in cells(study) if known.name == cell
    )
    return any(document["specification"] == run.specification for run in planned)
