"""Results for reading: what a results folder holds, read at once, and as a compact folder written again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mnist_ablate.design.plan import cells
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, ResultsError
from mnist_ablate.store.folder import Store
from mnist_ablate.store.schema import MISTAKE_SCHEMA, SCHEMA_VERSION, schema_of
from mnist_ablate.store.sealed import Document, read_table, write_table

INDEX_FROM = 1000
"""Runs that the index lacks from which on it is written: to parse the files of fewer takes less than a second."""

_VERSION: Document = {"schema_version": SCHEMA_VERSION}


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
    return read(Store(Path(folder)))


def read(store: Store, checked: Mapping[str, str] = MappingProxyType({})) -> Results:
    """Read as `load` does; `checked` as of `mnist_ablate.store.folder.Store.read_all`."""
    study = store.study()
    tables, documents, left_out = store.read_all(study, checked)
    problems = store.failures() + left_out
    if not tables:
        problem = f" {problems[0]}." if problems else ""
        raise ResultsError(
            f"{store.folder}: no finished run there.{problem} Run the study: `python -m mnist_ablate run`."
        )
    epochs = pa.concat_tables(tables).to_pandas()
    order = {cell.name: i for i, cell in enumerate(cells(study))}
    epochs = epochs.sort_values(["cell", "seed", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c)
    # Seeds that an earlier call asked for count as planned, too.
    n_seeds = max(study.seeds, int(epochs["seed"].max()) + 1)
    study = study if n_seeds == study.seeds else study.with_options(seeds=n_seeds)
    return Results(store.folder, study, epochs.reset_index(drop=True), documents, problems)


def write_index(results: Results) -> None:
    """Put `results` into the index of their folder, if that saves parsing `INDEX_FROM` files or more.

    The index is never needed and never trusted: a run is taken from it only where the run's own file has, to
    the bit, the digest of the file that it was made from. So it may be old, damaged or gone.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    store = Store(results.folder)
    digests = {run_id: document["digest"] for run_id, document in results.documents.items()}
    if len(digests.items() - store.indexed().items()) < INDEX_FROM:
        return
    texts = {run_id: json.dumps(document) for run_id, document in results.documents.items()}
    write_table(store.index_file, _combined(results, digest=digests, document=texts), _VERSION)


def write_compact(results: Results, folder: str | Path, *, answers: bool = True) -> Path:
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


def _combined(results: Results, **texts: Mapping[str, str]) -> pa.Table:
    """Put all runs into one table; `texts` are columns of what a run has once, in its first row."""
    first = results.epochs["run_id"].drop_duplicates()
    frame = results.epochs.assign(**{name: first.map(of) for name, of in texts.items()})
    schema = schema_of({factor.name: factor.reference for factor in results.study.design})
    for name in texts:
        schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(None)
