"""The schema of results."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import read_table, write_table


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table, _: table.drop_columns(["run_id"]), "the column run_id is missing"),
        (lambda table, _: table.drop_columns(["l2"]), "not the columns of the study"),
        (lambda table, _: table.set_column(3, "seed", pa.array(["0"] * len(table))), "seed is not of type int64"),
        (lambda table, _: table.set_column(3, "seed", pa.nulls(len(table), pa.int64())), "seed is not of type int64"),
        (lambda table, _: table.slice(0, 0), "no rows"),
        (lambda table, document: document.update(specification=[1]) or table, "its specification is no table"),
        (lambda table, document: document.update(provenance="x") or table, "its provenance is no table"),
        (lambda table, document: document.update(probes={"x": 1}) or table, "its probes are no tables of numbers"),
        (lambda table, document: document["specification"].update(seed=None) or table, "its seed"),
        (
            lambda table, document: document["specification"].update(protocol_version="2") or table,
            "its protocol_version",
        ),
        (lambda table, document: document.update(declared={"looks": "5"}) or table, "its looks"),
        (lambda table, document: document.update(first_losses=[[1]]) or table, "its first losses"),
        (lambda table, document: document.update(weights_sha256=[1]) or table, "a digest in it is no text"),
        (lambda table, _: pa.concat_tables([table, table]), "its epochs are not in order, each once"),
    ],
)
def test_a_file_that_is_whole_and_no_run_is_left_out(folder: Path, change: Any, told: str) -> None:
    """A file with a right digest but without a run's table and document is left out and named; the others are read."""
    store = Store(folder)
    file = store.run_file(store.stored()[0])
    table, document = read_table(file)
    document.pop("digest")
    write_table(file, change(table, document), document)
    results = load(folder)
    assert len(results.documents) == 15
    assert told in results.problems[0]
