"""The schema of results: the columns of a run's epochs and of its predictions, and what a run's document must be."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from mnist_ablate.design.contrasts import Level
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study
from mnist_ablate.store.sealed import Document

SCHEMA_VERSION = 1
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
IDENTITY = {"run_id": pa.string(), "study": pa.string(), "cell": pa.string(), "seed": pa.int64()}


def run_table(run: Run, rows: list[dict[str, Any]]) -> pa.Table:
    """Make the table of a run: what identifies it, its levels, and a row of its columns for each epoch."""
    identity = {"run_id": run.run_id, "study": run.study, "cell": run.cell, "seed": run.seed, **run.levels}
    schema = _schema_of(run.levels, (metric.name for metric in run.metrics))
    return pa.Table.from_pylist([identity | row for row in rows], schema=schema)


def study_schema(study: Study) -> pa.Schema:
    """Return the columns of the epochs of a study's runs."""
    return _schema_of({factor.name: factor.reference for factor in study.varied}, study.metrics)


def _schema_of(levels: Mapping[str, Level], metrics: Iterable[str]) -> pa.Schema:
    of_levels = {name: _LEVEL_TYPES[type(level)] for name, level in levels.items()}
    return pa.schema(IDENTITY | of_levels | epoch_columns(metrics))


def epoch_columns(metrics: Iterable[str]) -> dict[str, pa.DataType]:
    """Return the columns of an epoch: `EPOCH_COLUMNS`, or those of a training of the user's own with its metrics."""
    names = sorted(metrics)
    if not names:
        return EPOCH_COLUMNS
    own = ["epoch", "status", *names, "train_seconds"]
    return {name: EPOCH_COLUMNS[name] if name in ("epoch", "status") else pa.float64() for name in own}


def documents_column(schema: pa.Schema) -> str:
    """Return the name of the column of documents in a table of many runs: one that no factor in `schema` has."""
    return "document" if "document" not in schema.names else "document of the run"  # no factor has spaces in its name


def malformed(table: pa.Table, document: Document) -> str:
    """Return why a table and its document are not those of a run; empty if they are."""
    for name, kind in (IDENTITY | epoch_columns(_metrics(document))).items():
        if table.column_names.count(name) != 1:
            return f"the column {name} is missing"
        if table.schema.field(name).type != kind or (table[name].null_count and name in (*IDENTITY, "epoch")):
            return f"the column {name} is not of type {kind}"
    if not table.num_rows:
        return "it has no rows"
    if table["epoch"].to_pylist() != list(range(1, table.num_rows + 1)):
        return "its epochs are not in order, each once"
    if any(len(table[name].unique()) > 1 for name in IDENTITY):
        return "it holds more than one run"
    return _malformed_document(document)


def _metrics(document: object) -> list[str]:
    """Return the metrics of the user's own that a document names; none where it names no names."""
    named = document.get("metrics") if isinstance(document, dict) else None
    return named if isinstance(named, list) and all(isinstance(name, str) for name in named) else []


def malformed_runs(table: pa.Table, documents: Mapping[str, Document], expected: pa.Schema) -> str:
    """Return why a table of many runs does not hold the whole runs that have `documents`; empty if it does."""
    if table.schema != expected:
        return "not the columns of the study"
    if any(table[name].null_count for name in (*IDENTITY, "epoch")):
        return "an epoch of no run"
    run_ids, epochs = table["run_id"].to_pylist(), table["epoch"].to_pylist()
    counts = Counter(run_ids)
    if set(zip(run_ids, epochs, strict=True)) != {(run_id, i + 1) for run_id, n in counts.items() for i in range(n)}:
        return "an epoch is missing, or there twice"
    if not counts or counts.keys() != documents.keys():
        return "there is no run, or one without rows or document"
    return next(filter(None, map(_malformed_document, documents.values())), "")


_TEXT_OR_NONE = (str, type(None))
_DIGESTS = ("data_sha256", "weights_sha256")


def _malformed_document(document: object) -> str:
    """Return why this is not a run's document; empty if it is.

    Readers rely on the types of what is there, not on its presence.
    """
    if not isinstance(document, dict):
        return "its document is no table"
    for name in ("specification", "provenance", "declared", "probes"):
        if not isinstance(document.get(name, {}), dict):
            return f"its {name} is no table"
    if document.get("metrics", []) != _metrics(document):
        return "its metrics are no names"
    code, arrays = (document.get("specification", {}).get(key, empty) for key, empty in (("code", {}), ("arrays", "")))
    if not isinstance(code, dict) or not all(isinstance(sha256, str) for sha256 in [*code.values(), arrays]):
        return "the digests of its code are no text"
    declared, probes = document.get("declared", {}), document.get("probes", {})
    if not all(isinstance(values, dict) and _are_numbers(values.values()) for values in probes.values()):
        return "its probes are no tables of numbers"
    for name in ("seed", "protocol_version"):
        if not isinstance(document.get("specification", {}).get(name, 0), int):
            return f"its {name} is no whole number"
    looks = declared.get("looks", [])
    if not isinstance(looks, list) or not all(type(look) is int for look in looks) or bool(declared) != bool(looks):
        return "its looks are no numbers of seeds"
    texts = [declared.get("study_sha256"), declared.get("hypotheses_sha256"), *map(document.get, _DIGESTS)]
    if not all(isinstance(text, _TEXT_OR_NONE) for text in texts):
        return "a digest in it is no text"
    losses = document.get("first_losses", [])
    return "" if isinstance(losses, list) and _are_numbers(losses) else "its first losses are no numbers"


def _are_numbers(values: Iterable[object]) -> bool:
    """Return whether all values are numbers or None; compares types, because 10,000 runs have two million losses."""
    return set(map(type, values)) <= {int, float, type(None)}
