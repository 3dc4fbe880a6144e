"""The results folder: what is written is read back or known to be damaged, and nothing half-written is ever read."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
import synthetic
from damage import flip

from mnist_ablate.checks.doctor import examine
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import BusyError, DamagedFileError, ResultsError, StorageError
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.schema import EPOCH_COLUMNS, PREDICTION_SCHEMA, run_table
from mnist_ablate.store.sealed import sealed

STUDY = synthetic.factorial(2, 2)


def completed(folder: Path, study: Study = STUDY) -> tuple[set[str], list[str]]:
    """Read the runs of `study` in a folder, and return which are complete and which files are damaged."""
    store = Store(folder)
    return store.completed(plan(study), store.read_runs(study))


def rows_of(run: Run) -> list[dict[str, object]]:
    """Return the planted rows of a run."""
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


def test_damaged_run_is_left_out_and_named(folder: Path) -> None:
    """A run whose file is cut in half is left out and named; the others are loaded."""
    victim = min((folder / "runs").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    results = load(folder)
    assert len(results.final) == 15
    assert len(results.problems) == 1
    assert victim.name in results.problems[0]


def test_run_under_anothers_name_is_damaged(folder: Path) -> None:
    """A file copied over another run's file is damaged."""
    one, other = sorted((folder / "runs").glob("*.parquet"))[:2]
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedFileError, match="another run"):
        Store(folder).read_run(other.stem)


def test_completed(folder: Path) -> None:
    """A run is complete if both its files are sound; damaged files are named, missing runs are not."""
    runs = plan(STUDY)
    store = Store(folder)
    assert completed(folder) == ({run.run_id for run in runs}, [])
    store.run_file(runs[0].run_id).unlink()
    store.predictions_file(runs[1].run_id).unlink()
    store.run_file(runs[2].run_id).write_bytes(b"")
    whole, damaged = completed(folder)
    assert whole == {run.run_id for run in runs[3:]}
    assert len(damaged) == 2
    assert any(runs[1].run_id in sentence for sentence in damaged)


def test_completed_asks_only_for_what_is_planned(folder: Path) -> None:
    """A damaged run that is not asked for is not mentioned, and predictions not asked for are not opened."""
    store = Store(folder)
    first, second = plan(STUDY)[:2]
    store.run_file(second.run_id).write_bytes(b"")
    store.predictions_file(plan(STUDY)[2].run_id).unlink()
    assert store.completed([first], store.read_runs(STUDY)) == ({first.run_id}, [])


def test_predictions_under_anothers_name_are_damaged(folder: Path) -> None:
    """Predictions copied over another run's are damaged, and that run is not complete."""
    store = Store(folder)
    one, other = plan(STUDY)[:2]
    file = store.predictions_file(other.run_id)
    file.write_bytes(store.predictions_file(one.run_id).read_bytes())
    with pytest.raises(DamagedFileError, match="holds another run's"):
        load(folder).predictions(other.run_id)
    whole, damaged = completed(folder)
    assert other.run_id not in whole
    assert len(damaged) == 1
    assert str(file) in damaged[0]


def test_half_written_files_are_cleared(folder: Path) -> None:
    """Opening the folder removes the temporary files that a killed process left."""
    left = folder / "runs" / ".abc.parquet.123.tmp"
    left.write_bytes(b"half")
    with Store(folder).opened(STUDY):
        assert not left.exists()
    assert len(Store(folder).stored()) == 16


def test_two_processes(folder: Path) -> None:
    """While one process writes, another that opens the folder fails at once; afterwards it succeeds."""
    code = """if True:
        import sys
        from pathlib import Path
        from mnist_ablate.errors import BusyError
        from mnist_ablate.store.folder import Store
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
    """The same holds within one process, and reading is always possible."""
    with Store(folder).opened(STUDY):
        with pytest.raises(BusyError), Store(folder).opened(STUDY):
            pass
        assert len(load(folder).final) == 16


def test_other_study_is_refused(folder: Path) -> None:
    """A study that differs in more than seeds and title is refused, with the difference and a way out."""
    other = STUDY.with_options(epochs=9)
    with pytest.raises(ResultsError, match=r"protocol\.epochs is 2 there, 9 here.*--out"), Store(folder).opened(other):
        pass
    document = {"name": "factorial", "seeds": 2, "protocol": {"epochs": 2}, "factors": {"dropout": [0.0, 0.5]}}
    other = parse_study(document, "other")
    said = (
        r"batch_norm is \[false, true\] there, not given here; factors\.dropout is \[0.*2\] there, \[0\.0, 0\.5\] here"
    )
    with pytest.raises(ResultsError, match=said), Store(folder).opened(other):
        pass
    assert Store(folder).study() == STUDY


def test_more_seeds_are_welcome(folder: Path) -> None:
    """The same study with more seeds uses the same folder, and its runs still count."""
    more = STUDY.with_options(seeds=5)
    with Store(folder).opened(more):
        assert len(completed(folder, more)[0]) == 16
    assert Store(folder).study().seeds == 5


@pytest.mark.parametrize("below", ["file", "file/results"])
def test_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    """A results folder that is a file or lies below one is refused, with its path and a way out."""
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


def test_damaged_study_file(folder: Path) -> None:
    """A study file that is not JSON is named as damaged."""
    (folder / "study.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"study\.json: cannot be read"):
        load(folder)


def test_every_flipped_bit_of_the_study_file_is_seen(folder: Path) -> None:
    """Every single flipped bit in the study's file is seen: in a level, a rule, a title, the digest or its name."""
    file = folder / "study.json"
    for bit in range(8 * file.stat().st_size):
        flip(file, bit)
        with pytest.raises(DamagedFileError):
            Store(folder).study()
        flip(file, bit)
    assert Store(folder).study() == STUDY


def test_a_study_file_without_a_digest_is_read(folder: Path) -> None:
    """Folders made before study files had digests are still read."""
    document = json.loads((folder / "study.json").read_text())
    assert len(document.pop("digest")) == 64
    (folder / "study.json").write_text(json.dumps(document))
    assert Store(folder).study() == STUDY


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"name": 3}', "", "\0" * 99])
def test_what_is_no_study_is_damaged(folder: Path, content: str) -> None:
    """Any other content of the study's file raises DamagedFileError, which names the file."""
    (folder / "study.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"study\.json"):
        Store(folder).study()


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_lost_study_file_is_made_anew(folder: Path, how: str) -> None:
    """If the folder's record of the study is damaged or missing, it is moved aside and written again."""
    file, said = folder / "study.json", list[str]()
    file.write_text("{") if how == "damaged" else file.unlink()
    with Store(folder).opened(STUDY, said.append):
        pass
    assert len(load(folder).documents) == 16
    assert (folder / "damaged" / "study.json").exists() == (how == "damaged") == bool(said)


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_a_lost_study_file_lets_no_other_study_in(folder: Path, how: str) -> None:
    """If the record of the study is lost, the stored runs still keep another study out."""
    file = folder / "study.json"
    file.write_text("{") if how == "damaged" else file.unlink()
    with (
        pytest.raises(ResultsError, match=r"16 of its runs are of another study.*--out"),
        Store(folder).opened(STUDY.with_options(epochs=9)),
    ):
        pass


def test_a_folder_of_protocol_1_takes_no_run_of_protocol_2(tmp_path: Path) -> None:
    """Runs of protocol 1 are read, but none are added: both protocols and the remedies are told, nothing changes."""
    folder = synthetic.make(tmp_path, STUDY, protocol_version=1)
    assert (load(folder).protocol_version, len(load(folder).documents)) == (1, 16)
    before = (folder / "study.json").read_bytes()
    with (
        pytest.raises(ResultsError, match=r"holds runs of protocol 1, .* trains protocol 2\. .*--out, or .* made it\."),
        Store(folder).opened(STUDY.with_options(seeds=3)),
    ):
        pass
    assert (folder / "study.json").read_bytes() == before


def test_a_folder_without_runs_takes_the_new_protocol(tmp_path: Path) -> None:
    """A folder of protocol 1 in which no run was finished is used for protocol 2."""
    Store(tmp_path).write_study(STUDY, 1)
    with Store(tmp_path).opened(STUDY) as store:
        assert store.protocol_version() == 2


def test_protocol_1_was_not_recorded(folder: Path) -> None:
    """A study's file that names no protocol is of protocol 1; one that names no number is damaged."""
    document = json.loads((folder / "study.json").read_text())
    del document["digest"]
    assert document.pop("protocol_version") == 2
    (folder / "study.json").write_text(json.dumps(document))
    assert Store(folder).protocol_version() == 1
    with pytest.raises(ResultsError, match="a run of another study or protocol, left out"):
        load(folder)
    (folder / "study.json").write_text(json.dumps(document | {"protocol_version": "2"}))
    with pytest.raises(DamagedFileError, match="protocol_version is no whole number"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\xff\xfe", b"l2, seed 0: a reason\nmore"])
def test_reasons_of_failures_may_be_damaged(folder: Path, content: bytes) -> None:
    """A reason that is cut, zeroed or not text hides no result: the runs are read, and the failure is reported."""
    run = plan(STUDY)[0]
    Store(folder).run_file(run.run_id).unlink()
    Store(folder).failure_file(run.run_id).write_bytes(content)
    (problem,) = load(folder).problems
    assert problem.startswith("Failed: ")
    assert problem.isprintable()


def test_a_run_that_was_made_has_not_failed(folder: Path) -> None:
    """If a process is killed between storing a run and removing its old failure, no failure is reported."""
    Store(folder).write_failure(plan(STUDY)[0], "as it was")
    assert load(folder).problems == []


@pytest.mark.parametrize("what", ["half-written file", "failure"])
def test_what_cannot_be_removed_is_one_of_ours(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be removed, the message names it and the remedy."""
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
    """A path that is too long is refused like any other that cannot be written."""
    with pytest.raises(ResultsError, match=r"File name too long.*--out"), Store(tmp_path / ("x" * 300)).opened(STUDY):
        pass


def resealed(file: Path, content: bytes) -> None:
    """Write any bytes, with the right digest."""
    file.write_bytes(sealed(content))


def test_bytes_behind_a_right_digest_are_damaged(folder: Path) -> None:
    """A changed file with a new, right digest is refused or has a run's columns; no other error escapes."""
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


def test_opening_a_folder_runs_no_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled objects in place of any file are damaged files, and a model named in a file is not imported."""
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
    """A study's name cannot lead to a parent folder or elsewhere."""
    document = json.loads((folder / "study.json").read_text())
    document.pop("digest")
    for name in ("../x", "/tmp/x", "a/b", "..", "", "x\0", "a\\b"):  # noqa: S108
        (folder / "study.json").write_text(json.dumps(document | {"name": name}))
        with pytest.raises(DamagedFileError, match="name"):
            Store(folder).study()


def test_other_hypotheses_are_welcome(folder: Path) -> None:
    """A study with other hypotheses, alpha or steps uses the same folder and replaces its record."""
    document = STUDY.model_dump(exclude_unset=True)
    other = parse_study(
        document | {"hypotheses": document["hypotheses"][:1], "alpha": 0.1, "seeds": {"first": 6, "step": 1, "most": 8}}
    )
    with Store(folder).opened(other):
        assert len(completed(folder, other)[0]) == 16
    assert load(folder).study == other
