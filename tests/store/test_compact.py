"""Many runs in one file: the index, and compact folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import synthetic

from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import DamagedFileError, ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.store import compact as compact_module
from mnist_ablate.store import folder as folder_module
from mnist_ablate.store.compact import write_compact, write_index
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load, read
from mnist_ablate.store.sealed import read_sound, read_table, write_table

STUDY = synthetic.factorial(2, 2)


@pytest.fixture
def indexed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return `folder` with an index of its runs."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", 1)
    write_index(load(folder))
    return folder


def same(a: Results, b: Results) -> bool:
    """Return whether all that was loaded is equal, types included."""
    return (
        a.epochs.equals(b.epochs)
        and a.epochs.dtypes.equals(b.epochs.dtypes)
        and list(a.documents.items()) == list(b.documents.items())
        and a.problems == b.problems
    )


def completed(folder: Path) -> tuple[set[str], list[str]]:
    """Return which runs of the study are complete, and which files are damaged."""
    store = Store(folder)
    return store.completed(plan(STUDY), store.read_runs(STUDY))


def no_parsing(*_: object) -> None:
    """Fail, in place of the parsing that the index saves."""
    raise AssertionError("a run's file was parsed")


def test_the_index_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading with an index returns the same as without, NaN of a diverged run included, and parses no run's file."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", 1)
    synthetic.make(tmp_path, STUDY, diverged=[("l2", 1)])
    before = load(tmp_path)
    write_index(before)
    monkeypatch.setattr(Store, "_parse_run", no_parsing)
    assert same(before, load(tmp_path))
    assert before.epochs["train_loss"].isna().sum() == 2
    assert completed(tmp_path) == ({run.run_id for run in plan(STUDY)}, [])


def test_the_index_is_the_runs_in_one_file(indexed: Path) -> None:
    """Read with pandas, the index has the schema's columns, then the document of each run."""
    frame = pd.read_parquet(indexed / "index.parquet")
    results = load(indexed)
    pd.testing.assert_frame_equal(frame.drop(columns="document"), results.epochs)
    documents = [json.loads(text) for text in frame["document"].dropna()]
    assert len(documents) == 16
    assert all(results.documents[frame["run_id"][2 * i]] == document for i, document in enumerate(documents))


def test_an_index_with_more_columns_is_read(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of an earlier version, which also had a column of digests, still saves the parsing."""
    before, file = load(indexed), Store(indexed).index_file
    table, document = read_table(file)
    write_table(file, table.append_column("digest", pa.nulls(len(table), pa.string())), document)
    monkeypatch.setattr(Store, "_parse_run", no_parsing)
    assert same(before, load(indexed))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone", "foreign"])
def test_the_index_is_not_needed(indexed: Path, damage: str) -> None:
    """An index that is cut, changed, empty, missing or foreign is ignored."""
    before = load(indexed)
    file = Store(indexed).index_file
    content = file.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    changed = {"cut": content[:half], "flip": flipped, "empty": b"", "foreign": b"PAR1"}
    file.unlink() if damage == "gone" else file.write_bytes(changed[damage])
    assert same(before, load(indexed))
    assert len(completed(indexed)[0]) == 16


@pytest.mark.parametrize("wrong", ["an epoch twice", "an epoch too few", "no seed", "no documents", "no objects"])
def test_an_index_with_other_rows_is_not_used(indexed: Path, wrong: str) -> None:
    """An index with a right digest whose rows are not whole runs is ignored."""
    before, file = load(indexed), Store(indexed).index_file
    table, document = read_table(file)
    at = table.schema.get_field_index("seed")
    empty = pa.array([None, *table["seed"].to_pylist()[1:]], table["seed"].type)
    of = {"an epoch twice": pa.concat_tables([table, table[-1:]]),
          "an epoch too few": table.filter(pc.not_equal(table["epoch"], 1)),
          "no seed": table.set_column(at, table.schema.field(at), empty),
          "no documents": emptied(table, "document", pa.string()),
          "no objects": emptied(table, "document", pa.list_(pa.string()))}  # fmt: skip
    write_table(file, of[wrong], document)
    assert same(before, load(indexed))
    assert len(completed(indexed)[0]) == 16


def emptied(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """Return `table` with one column of type `kind` that has only nulls."""
    return table.set_column(table.schema.get_field_index(name), name, pa.nulls(len(table), kind))


def test_the_index_does_not_hide_damage(indexed: Path) -> None:
    """A run whose file has a flipped bit or is missing is left out, even if the index has it."""
    flipped, gone = sorted((indexed / "runs").iterdir())[:2]
    content = flipped.read_bytes()
    flipped.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    gone.unlink()
    results = load(indexed)
    assert {flipped.stem, gone.stem} == {run.run_id for run in plan(STUDY)} - set(results.documents)
    assert len(results.final) == 14
    assert len(results.problems) == 1
    assert flipped.name in results.problems[0]
    assert len(completed(indexed)[0]) == 14


def test_runs_that_are_complete_are_read_once(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study with nothing left to train opens each file once, and gets the results that `load` returns."""
    store, before = Store(indexed), load(indexed)
    opened: list[Path] = []

    def reading(path: Path) -> tuple[bytes, str]:
        opened.append(path)
        return read_sound(path)

    monkeypatch.setattr(folder_module, "read_sound", reading)
    stored = store.read_runs(STUDY)
    assert len(store.completed(plan(STUDY), stored)[0]) == 16
    assert same(before, read(store, stored))
    assert len(opened) == len(set(opened)) == 32


def test_the_index_may_be_old(indexed: Path) -> None:
    """Beside an old index, runs that were made again or later are read from their own files."""
    more = STUDY.with_options(seeds=3)
    run = plan(STUDY)[5]
    with Store(indexed).opened(more) as store:
        store.write_run(run, synthetic.epochs(run, 12.0, 0.0), synthetic.predictions(run), {"again": True})
        for new in plan(more)[16:]:
            store.write_run(new, synthetic.epochs(new, 97.5, 0.15), synthetic.predictions(new), {})
    old = load(indexed)
    assert old.documents[run.run_id]["again"]
    assert old.final.set_index("run_id")["test_accuracy"][run.run_id] == 0.12
    store.index_file.unlink()
    assert same(old, load(indexed))
    assert len(old.final) == 24


def test_the_index_does_not_bring_in_another_study(indexed: Path) -> None:
    """Indexed runs that do not belong to the folder's study are left out and named, as without an index."""
    Store(indexed).write_study(STUDY.with_options(epochs=9))
    with pytest.raises(ResultsError, match="a run of another study or protocol, left out"):
        load(indexed)


def test_a_compact_folder_keeps_its_protocol(tmp_path: Path) -> None:
    """Runs of protocol 1 stay so in a compact folder, and every planned one is found in it."""
    results = load(synthetic.make(tmp_path / "old", STUDY, protocol_version=1))
    compact = load(write_compact(results, tmp_path / "compact"))
    assert (compact.protocol_version, Store(tmp_path / "compact").protocol_version()) == (1, 1)
    assert analyse(compact).missing_runs == analyse(results).missing_runs == []


def test_few_runs_have_no_index(folder: Path) -> None:
    """A folder of few runs gets no index: their own files are read quickly enough."""
    store = Store(folder)
    write_index(load(folder))
    assert not store.index_file.exists()


def of_one_test_set(run: Run) -> dict[str, Any]:
    """Return answers to the same 20 images for every run: some are wrong, except in one run."""
    labels = np.arange(20, dtype=np.uint8) % 10
    wrong = np.random.default_rng(int(run.run_id, 16)).random(20) < (0.3 if (run.cell, run.seed) != ("l2", 1) else 0)
    return {
        "test_index": np.arange(20, dtype=np.int32), "label": labels,
        "prediction": np.where(wrong, 9 - labels, labels).astype(np.uint8), "confidence": np.full(20, 0.75, np.float32),
    }  # fmt: skip


@pytest.fixture
def loose(tmp_path: Path) -> Results:
    """Return results with predictions, a diverged run, a missing run, and declared hypotheses."""
    folder = synthetic.make(
        tmp_path / "loose", STUDY, answers=of_one_test_set, diverged=[("dropout", 0)], missing=[("batch_norm", 1)],
        declared={"study_sha256": "a", "hypotheses_sha256": STUDY.hypotheses_sha256, "looks": [2]},
    )  # fmt: skip
    return load(folder)


def test_compact_round_trip(loose: Results, tmp_path: Path) -> None:
    """A compact folder is three files, and holds the same study, epochs, documents, wrong answers and labels.

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
    """Results read from a compact folder make the same compact folder again, to the bit."""
    one = write_compact(loose, tmp_path / "one")
    two = write_compact(load(one), tmp_path / "two")
    for name in ("study.json", "runs.parquet", "mistakes.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_compact_folder_without_predictions(folder: Path, tmp_path: Path) -> None:
    """If runs were tested on different images, no wrong answers are stored, and old ones in the folder are removed."""
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
    """Wrong answers are stored unless the caller declines them; the results then say why they have none."""
    results = load(synthetic.make(tmp_path / "loose", STUDY, answers=of_one_test_set))
    back = load(write_compact(results, tmp_path / "compact", answers=False))
    assert results.mistakes is not None
    assert back.mistakes is None
    assert "stored without wrong answers" in back.no_mistakes
    pd.testing.assert_frame_equal(back.epochs, results.epochs)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_compact_folder(loose: Results, tmp_path: Path, damage: str) -> None:
    """A compact file that is not what was written, to the bit, is refused with a remedy."""
    file = write_compact(loose, tmp_path / "compact") / "runs.parquet"
    content = file.read_bytes()
    flipped = content[:99] + bytes([content[99] ^ 1]) + content[100:]
    file.write_bytes({"cut": content[: len(content) // 2], "flip": flipped, "empty": b""}[damage])
    with pytest.raises(DamagedFileError, match=r"runs\.parquet: damaged, and with it all runs. Get the folder again"):
        load(file.parent)


def test_a_compact_folder_without_rows(loose: Results, tmp_path: Path) -> None:
    """A compact file with a right digest but no run is refused."""
    file = write_compact(loose, tmp_path / "compact") / "runs.parquet"
    table, document = read_table(file)
    write_table(file, table[:0], document)
    with pytest.raises(DamagedFileError, match=r"runs\.parquet: damaged"):
        load(file.parent)


def test_damaged_mistakes_are_left_out(loose: Results, tmp_path: Path) -> None:
    """If the wrong answers are damaged, the runs are read without them."""
    folder = write_compact(loose, tmp_path / "compact")
    file = Store(folder).mistakes_file
    file.write_bytes(file.read_bytes()[:-9])
    assert len(load(folder).final) == 15
    assert load(folder).mistakes is None


def test_a_compact_folder_is_for_reading(loose: Results, tmp_path: Path) -> None:
    """No run can be stored in a compact folder, and no compact folder can replace a folder of runs or a file."""
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


@pytest.mark.parametrize("name", ["document", "digest", "value", "diverged", "seed_", "label", "level", "index"])
def test_a_factor_may_have_the_name_of_an_inner_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Columns of a study's own factors never meet ours: not in the index, nor in a compact folder."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", 1)
    factors = {name: ["a", "b"], "dropout": [0.0, 0.5]}
    study = parse_study({"name": "s", "seeds": 2, "protocol": {"model": "m:f", "epochs": 2}, "factors": factors})
    before = load(synthetic.make(tmp_path / "results", study))
    write_index(before)
    monkeypatch.setattr(folder_module.Store, "_parse_run", no_parsing)
    assert same(load(tmp_path / "results"), before)
    compact = load(write_compact(before, tmp_path / "compact"))
    assert compact.epochs.equals(before.epochs)
    assert list(compact.epochs[name].unique()) == ["a", "b"]
    assert analyse(compact).effects()["label"].tolist() == analyse(before).effects()["label"].tolist()
