"""The results folder: what goes in comes out, or is known to be damaged; nothing half-written is ever read."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import synthetic

from mnist_ablate import store as store_module
from mnist_ablate.design import Run, parse_study, plan
from mnist_ablate.doctor import examine
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError
from mnist_ablate.store import (
    EPOCH_COLUMNS,
    FOOTER_KEY,
    PREDICTION_SCHEMA,
    Results,
    Store,
    load,
    read_table,
    run_table,
    write_atomically,
    write_compact,
    write_table,
)

STUDY = synthetic.factorial(2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with all runs of `STUDY`."""
    return synthetic.make(tmp_path / "results", STUDY)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a small table, written."""
    path = tmp_path / "table.parquet"
    table = pa.table({"seed": pa.array([1, 2], pa.int64()), "loss": [0.25, 0.125], "status": ["ok", "diverged"]})
    write_table(path, table, {"what": "a test", "n": 2})
    return path


def rows_of(run: Run) -> list[dict[str, object]]:
    """Return planted rows of a run."""
    return synthetic.epochs(run, 97.5, 0.15)


def test_round_trip(tmp_path: Path) -> None:
    """Rows, their types and the document come back as they were written, with the specification in the document."""
    run = plan(STUDY)[-1]
    with Store(tmp_path).opened(STUDY) as store:
        store.write_run(run, rows_of(run), synthetic.predictions(run), {"provenance": {"torch": "x"}})
    table, document = store.read_run(run.run_id)
    assert table.equals(run_table(run, rows_of(run)))
    assert table.column_names == ["run_id", "study", "cell", "seed", "l2", "dropout", "batch_norm", *EPOCH_COLUMNS]
    assert [table.schema.field(name).type for name in ("l2", "batch_norm")] == [pa.float64(), pa.bool_()]
    assert document["specification"] == run.specification
    assert document["provenance"] == {"torch": "x"}


def test_load(folder: Path) -> None:
    """Loading gives all runs in the order of the design, the last epoch of each, and their predictions."""
    results = load(folder)
    assert results.study == STUDY
    assert results.problems == []
    assert list(dict.fromkeys(results.epochs["cell"])) == [run.cell for run in plan(STUDY)[:8]]
    assert len(results.epochs) == 8 * 2 * 2
    assert len(results.final) == 8 * 2
    assert set(results.final["epoch"]) == {2}
    run = plan(STUDY)[3]
    assert results.predictions(run.run_id)["label"].tolist() == synthetic.predictions(run)["label"].tolist()


def test_flipped_value_is_seen(file: Path) -> None:
    """A sound Parquet file whose values are not those that were written is damaged."""
    table = pq.read_table(file)
    other = table.set_column(1, "loss", pa.array([0.25, 0.126]))
    pq.write_table(other.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(DamagedFileError, match="digest does not agree"):
        read_table(file)


def test_every_truncation_is_seen(file: Path) -> None:
    """A file cut after any number of bytes is damaged; none is read as something else."""
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_table(file)


def test_flipped_bits_are_seen(file: Path) -> None:
    """A file with one bit flipped, in any byte, is damaged, though Parquet often reads it as other numbers."""
    whole = file.read_bytes()
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        with pytest.raises(DamagedFileError):
            read_table(file)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a Parquet file at all"])
def test_other_files_are_damaged(file: Path, content: bytes) -> None:
    """A file that is no Parquet file is damaged, and the message names it and what happens next."""
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"table\.parquet: damaged .* will be done again"):
        read_table(file)


def test_foreign_parquet_is_damaged(file: Path) -> None:
    """A Parquet file without our footer, or with one that is not ours, is damaged."""
    for metadata in ({}, {FOOTER_KEY: b"no JSON"}, {FOOTER_KEY: b"[]"}, {FOOTER_KEY: b"{}"}):
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), file)
        with pytest.raises(DamagedFileError):
            read_table(file)


def test_damaged_run_is_left_out_and_named(folder: Path) -> None:
    """A run cut in half is left out of what is loaded, and named; the others are there."""
    victim = min((folder / "runs").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    results = load(folder)
    assert len(results.final) == 15
    assert len(results.problems) == 1
    assert victim.name in results.problems[0]


def test_run_under_anothers_name_is_damaged(folder: Path) -> None:
    """A file copied over another run's is not taken for it."""
    one, other = sorted((folder / "runs").glob("*.parquet"))[:2]
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedFileError, match="another run"):
        Store(folder).read_run(other.stem)


def test_completed(folder: Path) -> None:
    """Complete are the runs whose two files are sound; damaged ones are named, missing ones are just not there."""
    runs = plan(STUDY)
    store = Store(folder)
    assert store.completed(runs) == ({run.run_id for run in runs}, [])
    store.run_file(runs[0].run_id).unlink()
    store.predictions_file(runs[1].run_id).unlink()
    store.run_file(runs[2].run_id).write_bytes(b"")
    whole, damaged = store.completed(runs)
    assert whole == {run.run_id for run in runs[3:]}
    assert len(damaged) == 2
    assert any(runs[1].run_id in sentence for sentence in damaged)


def test_completed_asks_only_for_what_is_planned(folder: Path) -> None:
    """Runs that are stored and not asked for are not looked at."""
    store = Store(folder)
    first, second = plan(STUDY)[:2]
    store.run_file(second.run_id).write_bytes(b"")
    assert store.completed([first]) == ({first.run_id}, [])


def test_predictions_under_anothers_name_are_damaged(folder: Path) -> None:
    """Predictions copied over another run's are not taken for them: the run is not complete."""
    store = Store(folder)
    one, other = plan(STUDY)[:2]
    file = store.predictions_file(other.run_id)
    file.write_bytes(store.predictions_file(one.run_id).read_bytes())
    with pytest.raises(DamagedFileError, match="holds another run's"):
        load(folder).predictions(other.run_id)
    whole, damaged = store.completed(plan(STUDY))
    assert other.run_id not in whole
    assert len(damaged) == 1
    assert str(file) in damaged[0]


@pytest.fixture
def indexed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return `folder` with an index of its runs."""
    monkeypatch.setattr(store_module, "INDEX_FROM", 1)
    Store(folder).write_index(load(folder))
    return folder


def same(a: Results, b: Results) -> bool:
    """Compare all that was loaded, types included."""
    return (
        a.epochs.equals(b.epochs)
        and a.epochs.dtypes.equals(b.epochs.dtypes)
        and list(a.documents.items()) == list(b.documents.items())
        and a.problems == b.problems
    )


def no_parsing(*_: object) -> None:
    """Stand in the place of what the index is to save."""
    raise AssertionError("a run's file was parsed")


def test_the_index_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an index, loading gives the same as without, a diverged run's NaN included, and parses no run's file."""
    monkeypatch.setattr(store_module, "INDEX_FROM", 1)
    store = Store(synthetic.make(tmp_path, STUDY, diverged=[("l2", 1)]))
    before = load(tmp_path)
    store.write_index(before)
    monkeypatch.setattr(Store, "_parse_run", no_parsing)
    assert same(before, load(tmp_path))
    assert before.epochs["train_loss"].isna().sum() == 2
    assert store.completed(plan(STUDY)) == ({run.run_id for run in plan(STUDY)}, [])


def test_the_index_is_the_runs_in_one_file(indexed: Path) -> None:
    """Whoever reads the index with pandas finds the schema's columns, then the digest and document of each run."""
    frame = pd.read_parquet(indexed / "index.parquet")
    results = load(indexed)
    pd.testing.assert_frame_equal(frame.drop(columns=["digest", "document"]), results.epochs)
    documents = [json.loads(text) for text in frame["document"].dropna()]
    assert len(documents) == 16
    assert all(results.documents[frame["run_id"][2 * i]] == document for i, document in enumerate(documents))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone", "foreign"])
def test_the_index_is_not_needed(indexed: Path, damage: str) -> None:
    """An index that is cut, changed, empty, gone or no Parquet file of ours is as none."""
    before = load(indexed)
    file = Store(indexed).index_file
    content = file.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    changed = {"cut": content[:half], "flip": flipped, "empty": b"", "foreign": b"PAR1"}
    file.unlink() if damage == "gone" else file.write_bytes(changed[damage])
    assert same(before, load(indexed))
    assert len(Store(indexed).completed(plan(STUDY))[0]) == 16


@pytest.mark.parametrize("wrong", ["an epoch twice", "an epoch too few", "no seed", "no documents", "no digests"])
def test_an_index_with_other_rows_is_not_used(indexed: Path, wrong: str) -> None:
    """An index whose digest is right, and whose rows are not those of whole runs, is as none."""
    before, file = load(indexed), Store(indexed).index_file
    table, document = read_table(file)
    at = table.schema.get_field_index("seed")
    empty = pa.array([None, *table["seed"].to_pylist()[1:]], table["seed"].type)
    of = {"an epoch twice": pa.concat_tables([table, table[-1:]]),
          "an epoch too few": table.filter(pc.not_equal(table["epoch"], 1)),
          "no seed": table.set_column(at, table.schema.field(at), empty),
          "no documents": emptied(table, "document", pa.string()),
          "no digests": emptied(table, "digest", pa.list_(pa.string()))}  # fmt: skip
    write_table(file, of[wrong], document)
    assert same(before, load(indexed))
    assert len(Store(indexed).completed(plan(STUDY))[0]) == 16


def emptied(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """Return `table` with nothing in one column, of type `kind`."""
    return table.set_column(table.schema.get_field_index(name), name, pa.nulls(len(table), kind))


def test_the_index_does_not_hide_damage(indexed: Path) -> None:
    """A run whose file has a flipped bit, or is gone, is left out though the index has it."""
    flipped, gone = sorted((indexed / "runs").iterdir())[:2]
    content = flipped.read_bytes()
    flipped.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    gone.unlink()
    results = load(indexed)
    assert {flipped.stem, gone.stem} == {run.run_id for run in plan(STUDY)} - set(results.documents)
    assert len(results.final) == 14
    assert len(results.problems) == 1
    assert flipped.name in results.problems[0]
    assert len(Store(indexed).completed(plan(STUDY))[0]) == 14


def test_the_index_may_be_old(indexed: Path) -> None:
    """A run that was done again, and runs that came later, are read from their own files beside an old index."""
    more = STUDY.with_options(seeds=3)
    run = plan(STUDY)[5]
    with Store(indexed).opened(more) as store:
        store.write_run(run, synthetic.epochs(run, 12.0, 0.0), synthetic.predictions(run), {"again": True})
        for new in plan(more)[16:]:
            store.write_run(new, rows_of(new), synthetic.predictions(new), {})
    old = load(indexed)
    assert old.documents[run.run_id]["again"]
    assert old.final.set_index("run_id")["test_accuracy"][run.run_id] == 0.12
    store.index_file.unlink()
    assert same(old, load(indexed))
    assert len(old.final) == 24


def test_the_index_does_not_bring_in_another_study(indexed: Path) -> None:
    """Indexed runs that the folder's study does not have are left out and named, as without an index."""
    other = STUDY.with_options(epochs=9)
    (indexed / "study.json").write_text(other.model_dump_json(exclude_unset=True))
    with pytest.raises(ResultsError, match="a run of another study, left out"):
        load(indexed)


def test_few_runs_have_no_index(folder: Path) -> None:
    """A small folder stays as it is: one file per run is quick enough."""
    store = Store(folder)
    store.write_index(load(folder))
    assert not store.index_file.exists()


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk what was there stays, no temporary file is left, and the message says what to do."""
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*--out"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    """Where the folder is gone, or is a file, the failure is one of ours."""
    (tmp_path / "file").write_text("")
    for parent in ("gone", "file"):
        with pytest.raises(StorageError):
            write_atomically(tmp_path / parent / "below", b"x")


def test_half_written_files_are_cleared(folder: Path) -> None:
    """What a killed process left under a temporary name is removed by the next that opens the folder."""
    left = folder / "runs" / ".abc.parquet.123.tmp"
    left.write_bytes(b"half")
    with Store(folder).opened(STUDY):
        assert not left.exists()
    assert len(Store(folder).stored()) == 16


def test_two_processes(folder: Path) -> None:
    """While one process writes, another that opens the folder is told so at once; afterwards it may."""
    code = """if True:
        import sys
        from pathlib import Path
        from mnist_ablate.errors import BusyError
        from mnist_ablate.store import Store
        store = Store(Path(sys.argv[1]))
        try:
            with store.opened(store.study()):
                print("opened")
        except BusyError as error:
            print(error)
    """

    def second() -> str:
        command = [sys.executable, "-c", code, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 # our own code

    with Store(folder).opened(STUDY):
        message = second()
        assert "another process is writing there" in message
        assert "--out" in message
    assert second() == "opened\n"


def test_busy_in_one_process(folder: Path) -> None:
    """The same holds within a process, such as two notebooks' cells; and reading is never kept out."""
    with Store(folder).opened(STUDY):
        with pytest.raises(BusyError), Store(folder).opened(STUDY):
            pass
        assert len(load(folder).final) == 16


def test_other_study_is_refused(folder: Path) -> None:
    """A study that differs in anything but seeds and title is refused, with the difference and a way out."""
    other = STUDY.with_options(epochs=9)
    with pytest.raises(ResultsError, match=r"protocol\.epochs is 2 there, 9 here.*--out"), Store(folder).opened(other):
        pass
    assert Store(folder).study() == STUDY


def test_more_seeds_are_welcome(folder: Path) -> None:
    """The same study with more seeds goes into the same folder, whose runs still count."""
    more = STUDY.with_options(seeds=5)
    with Store(folder).opened(more) as store:
        assert len(store.completed(plan(more))[0]) == 16
    assert Store(folder).study().seeds == 5


@pytest.mark.parametrize("below", ["file", "file/results"])
def test_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    """A results folder that is a file, or below one, is refused with its path and a way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file.*cannot be written.*--out"), Store(tmp_path / below).opened(STUDY):
        pass


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without permission to write is refused in the same words."""

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(ResultsError, match=r"cannot be written \(Permission denied\)"), Store(tmp_path).opened(STUDY):
        pass


@pytest.mark.parametrize("make", [False, True])
def test_no_study_there(tmp_path: Path, make: bool) -> None:
    """A folder that is not there, or is empty: one message with the path and how to make results."""
    path = tmp_path / "results"
    if make:
        path.mkdir()
    with pytest.raises(ResultsError, match=r"results: no results there .*mnist_ablate run"):
        load(path)


def test_no_run_there(tmp_path: Path) -> None:
    """A study without a readable run is no result, and says why."""
    with Store(tmp_path).opened(STUDY) as store:
        pass
    with pytest.raises(ResultsError, match="no finished run there"):
        load(tmp_path)
    store.run_file("0" * 20).write_bytes(b"")
    with pytest.raises(ResultsError, match="damaged"):
        load(tmp_path)


def test_damaged_study_file(folder: Path) -> None:
    """A study file that is not JSON is named as damaged."""
    (folder / "study.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"study\.json: cannot be read"):
        load(folder)


def test_every_flipped_bit_of_the_study_file_is_seen(folder: Path) -> None:
    """One bit of the study's own file is enough, wherever it is: a level, a rule, a title, the digest, its name."""
    file = folder / "study.json"
    content = bytearray(file.read_bytes())
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedFileError):
            Store(folder).study()
    file.write_bytes(content)
    assert Store(folder).study() == STUDY


def test_a_study_file_without_a_digest_is_read(folder: Path) -> None:
    """Folders that were made before study files had digests are as good as they were."""
    document = json.loads((folder / "study.json").read_text())
    assert len(document.pop("digest")) == 64
    (folder / "study.json").write_text(json.dumps(document))
    assert Store(folder).study() == STUDY


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"name": 3}', "", "\0" * 99])
def test_what_is_no_study_is_damaged(folder: Path, content: str) -> None:
    """Whatever else is in the study's file is one of our failures, which names the file."""
    (folder / "study.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"study\.json"):
        Store(folder).study()


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_lost_study_file_is_made_anew(folder: Path, how: str) -> None:
    """The same study goes on in a folder whose record of it is damaged or gone: it is kept aside, and written again."""
    file, said = folder / "study.json", list[str]()
    file.write_text("{") if how == "damaged" else file.unlink()
    with Store(folder).opened(STUDY, said.append):
        pass
    assert len(load(folder).documents) == 16
    assert (folder / "damaged" / "study.json").exists() == (how == "damaged") == bool(said)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_lost_study_file_lets_no_other_study_in(folder: Path, how: str) -> None:
    """Where the record is lost, the runs say what the folder is for: another study is refused, and none is mixed."""
    file = folder / "study.json"
    file.write_text("{") if how == "damaged" else file.unlink()
    with (
        pytest.raises(ResultsError, match=r"16 of its runs are of another study.*--out"),
        Store(folder).opened(STUDY.with_options(epochs=9)),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\xff\xfe", b"l2, seed 0: a reason\nmore"])
def test_reasons_of_failures_may_be_damaged(folder: Path, content: bytes) -> None:
    """A reason that is cut, zeroed or no text hides no result: the others are read, and the failure is told."""
    run = plan(STUDY)[0]
    Store(folder).run_file(run.run_id).unlink()
    Store(folder).failure_file(run.run_id).write_bytes(content)
    (problem,) = load(folder).problems
    assert problem.startswith("Failed: ")
    assert problem.isprintable()


def test_a_run_that_was_made_has_not_failed(folder: Path) -> None:
    """A process killed between storing a run and removing its old failure leaves no failure to be told."""
    Store(folder).write_failure(plan(STUDY)[0], "as it was")
    assert load(folder).problems == []


@pytest.mark.parametrize("what", ["half-written file", "failure"])
def test_what_cannot_be_removed_is_one_of_ours(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file may not be removed, the message names it and the remedy."""
    run = plan(STUDY)[0]
    (folder / "runs" / ".x.parquet.1.tmp").write_bytes(b"half")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "unlink", denied)
    calls: dict[str, Callable[[], object]] = {
        "failure": lambda: Store(folder).write_run(
            run, rows_of(run), {name: [] for name in PREDICTION_SCHEMA.names}, {}
        ),
        "half-written file": lambda: Store(folder).opened(STUDY).__enter__(),
    }
    with pytest.raises(StorageError, match=r"cannot be removed \(Operation not permitted\).*permissions"):
        calls[what]()


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A path that no file can have is refused as any other that cannot be written."""
    with pytest.raises(ResultsError, match=r"File name too long.*--out"), Store(tmp_path / ("x" * 300)).opened(STUDY):
        pass


def resealed(file: Path, content: bytes) -> None:
    """Write any bytes with a digest that is right."""
    file.write_bytes(store_module._sealed(content))


def test_bytes_behind_a_right_digest_are_damaged(folder: Path) -> None:
    """A run's file that was changed and given a digest anew is refused, or holds a run's columns; nothing escapes."""
    store = Store(folder)
    file = store.run_file(store.stored()[0])
    content = bytearray(file.read_bytes())
    refused = 0
    for at in range(0, len(content), 23):
        content[at] ^= 255
        resealed(file, bytes(content))
        content[at] ^= 255
        try:
            table, _ = store.read_run(file.stem)
            assert set(EPOCH_COLUMNS) <= set(table.column_names)
        except DamagedFileError:
            refused += 1
    assert refused > 20


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
        (lambda table, document: document.update(declared={"looks": "5"}) or table, "its looks"),
        (lambda table, document: document.update(first_losses=[[1]]) or table, "its first losses"),
        (lambda table, document: document.update(weights_sha256=[1]) or table, "a digest in it is no text"),
        (lambda table, _: pa.concat_tables([table, table]), "its epochs are not in order, each once"),
    ],
)
def test_a_file_that_is_whole_and_no_run_is_left_out(folder: Path, change: Any, told: str) -> None:
    """A file with a right digest whose table or document is not a run's is left out and named; the others are read."""
    store = Store(folder)
    file = store.run_file(store.stored()[0])
    table, document = read_table(file)
    document.pop("digest")
    write_table(file, change(table, document), document)
    results = load(folder)
    assert len(results.documents) == 15
    assert told in results.problems[0]


def test_opening_a_folder_runs_no_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled objects in the place of any file are damaged files, and a model that is named is not imported."""
    mark = tmp_path / "was run"
    (tmp_path / "hostile.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = folder / "study.json"
    sound = file.read_bytes()
    file.write_text(json.dumps(json.loads(sound) | {"protocol": {"model": "hostile:make"}, "digest": None}))
    assert examine(folder)
    with suppress(ResultsError):
        load(folder)
    file.write_bytes(sound)
    bomb = (
        b"cpathlib\nPath\n(V"
        + str(mark).encode()
        + b"\ntR."
        + b"cos\nsystem\n(Vtouch '"
        + str(mark).encode()
        + b"'\ntR."
    )
    for name in ("runs", "predictions"):
        for path in sorted((folder / name).iterdir())[:2]:
            resealed(path, bomb)
    resealed(folder / "index.parquet", bomb)
    assert len(load(folder).documents) == 14
    assert examine(folder)
    assert not mark.exists()


def test_a_study_cannot_lead_out_of_its_folder(folder: Path) -> None:
    """A study's name is the name of a folder, and none above or elsewhere."""
    document = json.loads((folder / "study.json").read_text())
    document.pop("digest")
    for name in ("../x", "/tmp/x", "a/b", "..", "", "x\0", "a\\b"):  # noqa: S108
        (folder / "study.json").write_text(json.dumps(document | {"name": name}))
        with pytest.raises(DamagedFileError, match="name"):
            Store(folder).study()


# ---- Compact folders ----


def of_one_test_set(run: Run) -> dict[str, Any]:
    """Answer on the same 20 images in all runs; some wrongly, and one run none."""
    labels = np.arange(20, dtype=np.uint8) % 10
    wrong = np.random.default_rng(int(run.run_id, 16)).random(20) < (0.3 if (run.cell, run.seed) != ("l2", 1) else 0)
    return {
        "test_index": np.arange(20, dtype=np.int32), "label": labels,
        "prediction": np.where(wrong, 9 - labels, labels).astype(np.uint8), "confidence": np.full(20, 0.75, np.float32),
    }  # fmt: skip


@pytest.fixture
def loose(tmp_path: Path) -> Results:
    """Return results with predictions, a diverged and a missing run, and what was declared."""
    folder = synthetic.make(
        tmp_path / "loose", STUDY, answers=of_one_test_set, diverged=[("dropout", 0)], missing=[("batch_norm", 1)],
        declared={"study_sha256": "a", "hypotheses_sha256": STUDY.hypotheses_sha256, "looks": [2]},
    )  # fmt: skip
    return load(folder)


def test_compact_round_trip(loose: Results, tmp_path: Path) -> None:
    """A compact folder reads as the same study, epochs, documents, wrong answers and labels, and is three files.

    Wrong answers are sorted by image, with confidences to a hundredth.
    """
    folder = write_compact(loose, tmp_path / "compact")
    back = load(folder)
    assert {path.name for path in folder.iterdir()} == {"study.json", "runs.parquet", "mistakes.parquet"}
    assert (back.folder, back.study, back.problems) == (folder, loose.study, [])
    pd.testing.assert_frame_equal(back.epochs, loose.epochs)
    assert back.epochs["train_loss"].isna().sum() == 2
    assert loose.mistakes is not None
    assert back.mistakes is not None
    assert len(back.mistakes) > 50
    key = ["test_index", "cell", "seed"]
    wanted = loose.mistakes.astype({"cell": str}).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(back.mistakes.astype({"cell": str}), wanted.round({"confidence": 2}))
    assert loose.labels is not None
    assert back.labels is not None
    assert back.labels.tolist() == loose.labels.tolist() == [*range(10), *range(10)]
    left = {
        run_id: {key: value for key, value in document.items() if key not in ("first_losses", "digest")}
        for run_id, document in loose.documents.items()
    }
    assert dict(back.documents) == left
    assert len(left) == 15


def test_compact_of_compact_is_the_same(loose: Results, tmp_path: Path) -> None:
    """What was read from a compact folder makes the same compact folder."""
    one = write_compact(loose, tmp_path / "one")
    two = write_compact(load(one), tmp_path / "two")
    for name in ("study.json", "runs.parquet", "mistakes.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_compact_folder_without_predictions(folder: Path, tmp_path: Path) -> None:
    """Where predictions are not of one test set there are no mistakes, also none of what was in the folder before."""
    results = load(folder)
    assert results.mistakes is None
    target = tmp_path / "compact"
    write_compact(load(synthetic.make(tmp_path / "other", STUDY, answers=of_one_test_set)), target)
    assert load(target).mistakes is not None
    back = load(write_compact(results, target))
    assert back.mistakes is None
    assert back.labels is None
    pd.testing.assert_frame_equal(back.epochs, results.epochs)


def test_a_compact_folder_without_answers(tmp_path: Path) -> None:
    """Where wrong answers are not asked for they are not kept, and all else is; a report says why it has none."""
    results = load(synthetic.make(tmp_path / "loose", STUDY, answers=of_one_test_set))
    back = load(write_compact(results, tmp_path / "compact", answers=False))
    assert results.mistakes is not None
    assert back.mistakes is None
    assert "kept without wrong answers" in back.no_mistakes
    pd.testing.assert_frame_equal(back.epochs, results.epochs)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_compact_folder(loose: Results, tmp_path: Path, damage: str) -> None:
    """A compact file that is not, to the bit, what was written is refused, with a remedy that helps."""
    file = write_compact(loose, tmp_path / "compact") / "runs.parquet"
    content = file.read_bytes()
    flipped = content[:99] + bytes([content[99] ^ 1]) + content[100:]
    file.write_bytes({"cut": content[: len(content) // 2], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(DamagedFileError, match=r"runs\.parquet: damaged, and with it all runs. Get the folder again"):
        load(file.parent)


def test_a_compact_folder_without_rows(loose: Results, tmp_path: Path) -> None:
    """A compact file whose digest is right, and which has no run, is refused."""
    file = write_compact(loose, tmp_path / "compact") / "runs.parquet"
    table, document = read_table(file)
    write_table(file, table[:0], document)
    with pytest.raises(DamagedFileError, match=r"runs\.parquet: damaged"):
        load(file.parent)


def test_damaged_mistakes_are_left_out(loose: Results, tmp_path: Path) -> None:
    """Where the wrong answers are damaged the runs are read all the same, without them."""
    folder = write_compact(loose, tmp_path / "compact")
    file = Store(folder).mistakes_file
    file.write_bytes(file.read_bytes()[:-9])
    assert len(load(folder).final) == 15
    assert load(folder).mistakes is None


def test_a_compact_folder_is_for_reading(loose: Results, tmp_path: Path) -> None:
    """Runs cannot be stored in a compact folder, nor a compact folder be made of one that has runs, nor of a file."""
    folder = write_compact(loose, tmp_path / "compact")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ResultsError, match=r"a compact folder, for reading only.*--out"), Store(folder).opened(STUDY):
        pass
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(ResultsError, match="holds results that are not compact"):
        write_compact(loose, loose.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"file: cannot be made .*Give another folder"):
        write_compact(loose, tmp_path / "file")


def test_other_hypotheses_are_welcome(folder: Path) -> None:
    """A study with other hypotheses, alpha or looks goes into the same folder, which has them from then on."""
    document = STUDY.model_dump(exclude_unset=True)
    other = parse_study(document | {"hypotheses": document["hypotheses"][:1], "alpha": 0.1, "looks": [1, 2]})
    with Store(folder).opened(other) as store:
        assert len(store.completed(plan(other))[0]) == 16
    assert load(folder).study == other
