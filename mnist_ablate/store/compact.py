"""Many runs in one file: the index beside the runs' own files, and compact folders."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from mnist_ablate.errors import ResultsError
from mnist_ablate.paths import user_path
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results
from mnist_ablate.store.schema import MISTAKE_SCHEMA, SCHEMA_VERSION, documents_column, study_schema
from mnist_ablate.store.sealed import Document, write_table

INDEX_FROM = 1000
"""The index is written once it lacks this many runs: parsing the files of fewer takes less than a second."""

_VERSION: Document = {"schema_version": SCHEMA_VERSION}


def write_index(results: Results) -> None:
    """Write the index of a results folder if `INDEX_FROM` runs or more had to be read from files of their own.

    The index only saves parsing: a run is taken from it only if the digest of the run's own file is still the one in
    the indexed document. So the index may be old, damaged or missing.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    if results.unindexed >= INDEX_FROM:
        write_table(Store(results.folder).index_file, _in_one_table(results, results.documents), _VERSION)


def write_compact(results: Results, folder: str | Path, *, answers: bool = True) -> Path:
    """Write `results` as a compact folder, which `load` reads like any other, and return the folder.

    All runs are in one file. Of the predictions only the wrong ones are stored, with confidences rounded to a
    hundredth: this takes about a hundredth of the space. Without `answers` none are stored. A run's document loses the
    losses of the first steps and the digest of the run's own file.

    Raises
    ------
    ResultsError
        If `folder` cannot be made, or holds results that are not compact.
    StorageError
        If there is no space or no permission.
    """
    store = Store(user_path(folder))
    if (store.folder / "runs").exists():
        raise ResultsError(f"{folder}: holds results that are not compact. Give another folder.")
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be made ({error.strerror}). Give another folder.") from error
    if answers and results.mistakes is not None and results.labels is not None:
        of_ten = int(results.labels.max()) < 10  # else with spaces between numbers
        labels = {"labels": ("" if of_ten else " ").join(map(str, results.labels))}
        write_table(store.mistakes_file, _small(results.mistakes), _VERSION | labels, level=19)
    else:
        store.mistakes_file.unlink(missing_ok=True)  # the folder may hold those of other results
    documents = {
        run_id: {key: value for key, value in document.items() if key not in ("first_losses", "digest")}
        for run_id, document in results.documents.items()
    }
    store.write_study(results.study, results.protocol_version)
    write_table(store.compact_file, _in_one_table(results, documents), _VERSION)
    return store.folder


def _small(mistakes: pd.DataFrame) -> pa.Table:
    """Sort the wrong answers by image and round confidences: compressed, they take a quarter of the space."""
    frame = mistakes.astype({"cell": str}).sort_values(["test_index", "cell", "seed"]).round({"confidence": 2})
    return pa.Table.from_pandas(frame, MISTAKE_SCHEMA, preserve_index=False).replace_schema_metadata(None)


def _in_one_table(results: Results, documents: Mapping[str, Document]) -> pa.Table:
    """Return the epochs of all runs, and each run's document as JSON in its first row."""
    texts = {run_id: json.dumps(document) for run_id, document in documents.items()}
    schema = study_schema(results.study)
    name = documents_column(schema)
    frame = results.epochs.assign(**{name: results.epochs["run_id"].drop_duplicates().map(texts)})
    schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata(None)
