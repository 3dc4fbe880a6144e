"""The results folder: one atomic Parquet file per run, in the schema that everything else reads.

``runs/<run_id>.parquet`` has one row per epoch and, in its footer, one JSON document: the run's full
specification, what made it, and digests. ``predictions/<run_id>.parquet`` has one row per test image. The
file in ``runs`` is written last: its presence means that the run is complete. Of many runs, ``index.parquet`` has
the rows and documents once more, to be read at once. A compact folder, for keeping and for sending, has all runs in
``runs.parquet`` and all wrong answers in ``mistakes.parquet`` instead. Nothing here needs torch.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic_core import from_json

from mnist_ablate.design.plan import Run, cells
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError, StudyError
from mnist_ablate.store.schema import (
    PREDICTION_SCHEMA,
    SCHEMA_VERSION,
    check_many,
    malformed,
    run_table,
    schema_of,
    sound_document,
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


def _first_of(file: Path) -> str:
    """Return the first line of a text that may be damaged; it is for people, and nothing depends on it."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        lines = [f"the reason cannot be read ({error.strerror})"]
    first = "".join(c if c.isprintable() else "?" for c in (lines or [""])[0])
    return first if first.strip("?") else f"the reason is not there any more ({file})"


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
        """Where many runs lie once more, in one file that is quickly read: see `results.write_index`."""
        return self.folder / "index.parquet"

    @property
    def compact_file(self) -> Path:
        """Where all runs of a compact folder lie: see `results.write_compact`."""
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
                remove(file)
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
        document = study.model_dump(mode="json", exclude_unset=True) | {"digest": NO_DIGEST}
        write_atomically(self.study_file, sealed(json.dumps(document, indent=1).encode()))

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
            raise DamagedFileError(f"{self.study_file}: cannot be read ({first_line(error)})") from error
        if not isinstance(document, dict):
            raise DamagedFileError(f"{self.study_file}: damaged (it is no study)")
        # Folders that were made by earlier versions have none.
        if document.pop("digest", None) not in (None, digest_of(content)):
            raise DamagedFileError(f"{self.study_file}: damaged (its digest does not agree)")
        try:
            return parse_study(document, str(self.study_file))
        except StudyError as error:
            raise DamagedFileError(f"{self.study_file}: damaged, or of another version ({error})") from error

    def stored(self) -> list[str]:
        """List the ids of the runs whose files are there, sound or not, in order."""
        return sorted(path.stem for path in (self.folder / "runs").glob("*.parquet"))

    def completed(self, runs: Iterable[Run]) -> tuple[dict[str, str], list[str]]:
        """Find which of `runs` are stored whole, with their predictions.

        Returns
        -------
        tuple
            The ids of the complete runs, each with the digest of its file, and one sentence for each damaged file.
        """
        there, index = set(self.stored()), self._index()
        whole, damaged = dict[str, str](), []
        for run in (run for run in runs if run.run_id in there):
            try:
                digest = self._check(run.run_id, index)
                self._check_probes(run, index, digest)
                whole[run.run_id] = digest
            except DamagedFileError as error:
                damaged.append(str(error))
        return whole, damaged

    def _check(self, run_id: str, index: "_Index") -> str:
        """Check both files of a run to the last bit, and return the first one's digest.

        Only what the index does not know by that digest is parsed.
        """
        content, digest = read_sound(self.run_file(run_id))
        if index.digests.get(run_id) != digest:
            self._parse_run(run_id, content)
        self.read_predictions(run_id)
        return digest

    def _check_probes(self, run: Run, index: "_Index", checked: str) -> None:
        """See that a run has all the probes that are asked for: others may have been when it was made.

        Its file, of digest `checked`, is read only if the index does not have it.
        """
        if run.probes:
            lacking = set(run.probes) - set(self._look_up(run.run_id, index, checked)[2].get("probes", {}))
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
        remove(self.failure_file(run.run_id))

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
        return self._parse_run(run_id, read_sound(self.run_file(run_id))[0])

    def read_predictions(self, run_id: str) -> bytes:
        """Return the file of a run's predictions, checked and not parsed.

        Raises
        ------
        DamagedFileError
            If the file is not whole, or is another run's.
        """
        file = self.predictions_file(run_id)
        content, _ = read_sound(file)
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
        problem = malformed(table, document)
        if not problem and set(table["run_id"].to_pylist()) != {run_id}:
            problem = "it holds another run"
        if problem:
            raise DamagedFileError(f"{self.run_file(run_id)}: damaged ({problem}); the run will be done again")
        return table, document

    def read_all(
        self, study: Study, checked: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        """Read every stored run of `study`, from the index where it has the very bytes of the run's file.

        Parameters
        ----------
        study
            Whose runs.
        checked
            What `completed` has just found of runs of this study: their files are not read again where the index has
            them.

        Returns
        -------
        tuple
            Tables of epochs, the document of each run, and one sentence for each file that is left out.
        """
        expected = schema_of({factor.name: factor.reference for factor in study.design})
        if self.compact_file.exists():
            return self._read_compact(expected)
        try:
            return self._read_runs(study, expected, self._index(), checked)
        except NOT_OURS:  # from what has an index's columns and digest, and is none
            return self._read_runs(study, expected, _Index(None), checked)

    def _read_runs(
        self, study: Study, expected: pa.Schema, index: "_Index", checked: Mapping[str, str]
    ) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        planned = _runs_by_cell(study)
        indexed, tables, documents, problems = [], [], {}, []
        for run_id in self.stored():
            try:
                table, cell, document = self._look_up(run_id, index, checked.get(run_id, ""))
            except DamagedFileError as error:
                problems.append(str(error))
                continue
            seed = document.get("specification", {}).get("seed", -1)
            if run_id not in checked and not _belongs(run_id, seed, planned.get(cell, ())):
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
            check_many(table, expected, set(indexed))
        return tables + rows, documents, problems

    def _look_up(self, run_id: str, index: "_Index", checked: str = "") -> tuple[pa.Table | None, str, Document]:
        """Read a run: its epochs (None where the index has them), its cell, its document.

        Its file is read unless the index has that of the digest `checked`.
        """
        indexed = index.digests.get(run_id) if run_id in index.heads else None
        if indexed is None or indexed != checked:
            content, digest = read_sound(self.run_file(run_id))
            if indexed != digest:
                table, document = self._parse_run(run_id, content)
                return table, table["cell"][0].as_py(), document
        cell, text = index.heads[run_id]
        return None, cell, sound_document(from_json(text))

    def indexed(self) -> dict[str, str]:
        """Give the digests of the runs' files that the index was made from; none, where there is no sound index."""
        return self._index().digests

    def _index(self) -> "_Index":
        try:
            return _Index(read_sound(self.index_file)[0])
        except DamagedFileError:  # or not there: then every file is parsed
            return _Index(None)

    def _read_compact(self, expected: pa.Schema) -> tuple[list[pa.Table], dict[str, Document], list[str]]:
        try:
            table, _ = read_table(self.compact_file)
            first = table.filter(table["document"].is_valid())
            found = map(sound_document, map(from_json, first["document"].to_pylist()))
            documents = dict(zip(first["run_id"].to_pylist(), found, strict=True))
            table = table.drop_columns(["document"])
            check_many(table, expected, documents.keys())
        except (DamagedFileError, *NOT_OURS) as error:
            raise DamagedFileError(
                f"{self.compact_file}: damaged, and with it all runs. Get the folder again."
            ) from error
        return [table], documents, []


_STRANGER = ": a run of another study, left out"


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
        except NOT_OURS:
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
