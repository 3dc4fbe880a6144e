"""What the doctor finds in a results folder, and that a repair loses nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import synthetic

from mnist_ablate import cli
from mnist_ablate.checks.doctor import Finding, doctor, examine
from mnist_ablate.errors import ResultsError
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import FOOTER_KEY, write_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 24 sound runs."""
    return synthetic.make(tmp_path / "results")


def first(folder: Path) -> str:
    """Return the id of the first run."""
    return Store(folder).stored()[0]


def rewritten(folder: Path, change: Any) -> Path:
    """Write the first run's file again, whole and with a right digest, after `change` of its rows and document."""
    store = Store(folder)
    table, document = store.read_run(first(folder))
    rows = table.to_pylist()
    change(rows, document)
    document.pop("digest")
    write_table(store.run_file(first(folder)), table.from_pylist(rows, schema=table.schema), document)
    return store.run_file(first(folder))


def damaged(folder: Path) -> list[Finding]:
    """Return the findings that are damage."""
    return doctor(folder).damaged


def test_a_sound_folder_has_nothing_to_find(folder: Path) -> None:
    """A sound folder has no findings, and prints as one sentence."""
    diagnosis = doctor(folder)
    assert (diagnosis.findings, diagnosis.moved, diagnosis.exit_status) == ([], None, 0)
    assert str(diagnosis) == repr(diagnosis) == f"{folder}: no damaged files."


@pytest.mark.parametrize("part", ["runs", "predictions"])
def test_every_flipped_bit_is_found(folder: Path, part: str) -> None:
    """One flipped bit anywhere in either file of a run is damage."""
    file = folder / part / f"{first(folder)}.parquet"
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), max(1, len(content) // 7)):
        content[place] ^= 4
        file.write_bytes(content)
        assert [finding.file for finding in damaged(folder)] == [file]
        content[place] ^= 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows, _: rows[0].update(val_loss=-0.1), "val_loss of epoch 1 is -0.1"),
        (lambda rows, _: rows[1].update(test_accuracy=1.01), "test_accuracy of epoch 2 is 1.01"),
        (lambda rows, _: rows[0].update(train_loss=float("nan")), "train_loss of epoch 1 is nan"),
        (lambda rows, _: rows[0].update(status="fine"), "status of epoch 1 is 'fine'"),
        (lambda rows, _: rows.pop(), "epochs are not 1 to 2"),
        (lambda rows, _: [row.update(l2=0.5) for row in rows], "levels do not match"),
        (lambda rows, _: rows[1].update(epoch=3), "epochs are not in order"),
        (lambda _, document: document["specification"].update(seed=77), "specification does not match its name"),
        (lambda _, document: document.pop("specification"), "specification does not match its name"),
        (lambda _, document: document.update(schema_version=99), "schema version 99"),
    ],
)
def test_what_cannot_be_is_found(folder: Path, change: Any, words: str) -> None:
    """An intact file with impossible content is named, with what is wrong."""
    file = rewritten(folder, change)
    (finding,) = damaged(folder)
    assert finding.file == file
    assert words in finding.message


def test_notes_are_no_damage(folder: Path) -> None:
    """Missing runs and orphaned predictions are noted, and not called damaged."""
    Store(folder).run_file(first(folder)).unlink()
    messages = [finding.message for finding in examine(folder)]
    assert damaged(folder) == []
    assert any("1 planned run not stored" in message for message in messages)
    assert any("1 files of predictions have no run" in message for message in messages)


def test_mixed_versions_are_noted(tmp_path: Path) -> None:
    """Two versions of torch, or two processors, are noted where bits may depend on them: not if all runs are fused."""
    other = synthetic.MACHINE | {"torch": "2.4.0", "processor": "another"}
    for engine, version, noted in (("autograd", 2, True), ("fused", 1, True), ("fused", 2, False)):
        folder, study = tmp_path / f"{engine}-{version}", synthetic.factorial().with_options(engine=engine)
        synthetic.make(folder, study, machines=[synthetic.MACHINE, other], protocol_version=version)
        messages = " ".join(finding.message for finding in examine(folder))
        assert ("more than one version of torch: 2.14.1 (12 runs), 2.4.0 (12 runs)" in messages) == noted
        assert ("more than one kind of processor" in messages) == noted


def test_a_folder_of_protocol_1_is_sound(tmp_path: Path) -> None:
    """Of a folder of protocol 1 a note says so, and nothing else; a run of protocol 2 in it is left out and named."""
    folder = synthetic.make(tmp_path / "old", protocol_version=1)
    assert examine(folder) == [Finding("note", load(folder).of_other_protocol)]
    new = Store(synthetic.make(tmp_path / "new"))
    Store(folder).run_file(new.stored()[0]).write_bytes(new.run_file(new.stored()[0]).read_bytes())
    assert any("a run of another study or protocol, left out" in finding.message for finding in examine(folder))


def test_half_written_files_are_found(folder: Path) -> None:
    """A temporary file that a killed process left is damage."""
    (folder / "runs" / ".x.parquet.123.tmp").write_bytes(b"PAR1")
    (finding,) = damaged(folder)
    assert "half written" in finding.message


def test_repair_moves_and_deletes_nothing(folder: Path) -> None:
    """A repair moves damaged files aside unchanged, never over each other, and leaves the rest sound."""
    store, run_id = Store(folder), first(folder)
    whole = store.run_file(run_id).read_bytes()
    for _ in range(2):
        store.run_file(run_id).write_bytes(whole[:99])
        (moved,) = doctor(folder, repair=True).moved or [Path()]
        assert moved.read_bytes() == whole[:99]
    assert len(list((folder / "damaged" / "runs").iterdir())) == 2
    assert damaged(folder) == []
    assert len(load(folder).documents) == 23


def test_a_damaged_study_file_is_found_and_moved(folder: Path) -> None:
    """A damaged study file is named with other damage, and all of it is moved aside."""
    store = Store(folder)
    store.study_file.write_text("{")
    store.predictions_file(first(folder)).write_bytes(b"")
    assert [finding.file for finding in damaged(folder)] == [store.study_file, store.predictions_file(first(folder))]
    assert len(doctor(folder, repair=True).moved or ()) == 2
    assert sorted(path.name for path in (folder / "damaged").iterdir()) == ["predictions", "study.json"]


def test_a_compact_folder(tmp_path: Path) -> None:
    """Both files of a compact folder are checked to the last bit."""
    labels = np.zeros(3, np.uint8)
    answer = {"test_index": np.arange(3, dtype=np.int32), "label": labels, "prediction": labels + 1}
    answer |= {"confidence": np.full(3, 0.5, np.float32)}
    folder = synthetic.make(tmp_path / "results", answers=lambda _: answer)
    compact = write_compact(load(folder), tmp_path / "compact")
    assert damaged(compact) == []
    for name in ("runs.parquet", "mistakes.parquet"):
        content = (compact / name).read_bytes()
        (compact / name).write_bytes(content[:-9])
        assert [finding.file for finding in damaged(compact)] == [compact / name]
        (compact / name).write_bytes(content)


def test_a_folder_of_another_study(folder: Path) -> None:
    """Runs of another study than the folder's are noted, and not called damaged."""
    Store(folder).write_study(synthetic.factorial(epochs=9))
    assert damaged(folder) == []
    assert any("a run of another study" in finding.message for finding in examine(folder))


def test_no_folder(tmp_path: Path) -> None:
    """A folder without a study is refused."""
    with pytest.raises(ResultsError, match="no results there"):
        examine(tmp_path)


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's status is 0 for a sound folder, and 1 for a damaged one until it is repaired."""
    assert cli.main(["doctor", str(folder)]) == 0
    Store(folder).run_file(first(folder)).write_bytes(b"")
    assert cli.main(["doctor", str(folder)]) == 1
    assert cli.main(["doctor", str(folder), "--repair"]) == 1
    assert "moved to" in capsys.readouterr().out
    assert cli.main(["doctor", str(folder)]) == 0


def test_the_fixture_writes_what_it_says(folder: Path) -> None:
    """The helper `rewritten` really changes the document, so the findings are about content."""
    file = rewritten(folder, lambda _, document: document.update(mark=1))
    assert json.loads(pq.read_metadata(file).metadata[FOOTER_KEY])["mark"] == 1


FOREIGN = ("._x.parquet", "x (conflicted copy).parquet", ".DS_Store", "Thumbs.db", ".syncthing.x.parquet.tmp")


@pytest.mark.parametrize("part", ["runs", "predictions", "failures"])
def test_files_of_other_programs_are_foreign(folder: Path, part: str) -> None:
    """What a file manager or a synchroniser leaves is called foreign, changes nothing, and is set aside by a repair."""
    for name in FOREIGN:
        (folder / part / name).write_bytes(b"\0\5")
    copy = Store(folder).run_file(first(folder))
    (folder / part / f"{copy.stem} (1).parquet").write_bytes(copy.read_bytes())
    diagnosis = doctor(folder)
    assert {finding.kind for finding in diagnosis.findings} == {"foreign"}
    assert (len(diagnosis.findings), diagnosis.exit_status) == (6, 0)
    assert "FOREIGN" in str(diagnosis)
    assert "of another program, and not read; --repair moves it aside" in str(diagnosis)
    assert load(folder).problems == []
    with Store(folder).opened(load(folder).study):
        assert (folder / part / FOREIGN[-1]).exists()  # another program's temporary file is not ours to remove
    assert len(doctor(folder, repair=True).moved or ()) == 6
    assert doctor(folder).findings == []
    assert len(load(folder).documents) == 24


def test_what_a_repair_moved_aside_is_not_found_again(folder: Path) -> None:
    """A half-written file is damage once: after a repair the folder is sound."""
    (folder / "runs" / ".x.parquet.123.tmp").write_bytes(b"PAR1")
    assert len(doctor(folder, repair=True).moved or ()) == 1
    assert doctor(folder).findings == []
