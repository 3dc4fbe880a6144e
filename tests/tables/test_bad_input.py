"""What can be in place of a table: one clear message each, with a remedy. Nothing in a table runs or is markup."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.errors import StudyError, TableError
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.sources.options import Options

STUDY = {"table": {"seed": "seed"}, "factors": {"lr": [0.1, 0.2]}, "metrics": {"acc": {}}}


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> "tuple[object, tuple[str, str]]":
        return open, (str(Path(sys.executable).parent / "never"), "r")


def read(file: Path, text: "str | bytes") -> None:
    """Write a file, and read it as a table of learning rates, seeds and accuracies."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    runs.make(sources.read(file), design.parse(STUDY, "study", "study"))


HEAD = "lr,seed,acc\n"
ROWS = "0.1,0,0.5\n0.2,0,0.6\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty. Give a table with a row for each run."),
        (" \n\n", "empty. Give a table with a row for each run."),
        (HEAD, "has no rows. Give a table with a row for each run."),
        ("lr,seed,acc,acc\n0.1,0,1,2\n", "two columns have the same name (acc). Rename or remove one."),
        ("lr,seed,acc\nmean,std,last\n0.1,0,0.5\n0.2,0,0.6\n", "has two header lines"),
        (HEAD + "0.1,0,0.5,9\n", "Give every row as many cells as the header."),
        (HEAD + ROWS + "0.1,1,=A1+A2\n", "acc, row 3: formulas (=A1+A2). Save the values of the cells"),
        (HEAD + "=1+1,1,0.5\n", "lr, row 1: formulas (=1+1)."),
        (HEAD + ROWS + "0.1,1,good\n", "acc, row 3: not a number (good). Correct it, or leave the cell empty"),
        ('lr;seed;acc\n0.1;0;"0,5"\n0.2;0;0,6\n', 'a comma in a number (0,5). Write [table] decimal = ","'),
        (HEAD + ROWS + "0.1,,0.5\n", "seed, row 3: no seed. Fill it in, or leave such rows out."),
        (HEAD + ROWS + ",1,0.5\n", "lr, row 3: empty. Fill in the level, or remove such rows."),
        (HEAD + ROWS + "0.3,1,0.5\n", "lr, row 3: 0.3, and the study file has 0.1, 0.2. Add the level to factors.lr"),
        (HEAD + ROWS + "none,1,0.5\n", "none, and the study file has 0.1, 0.2."),
        (HEAD + ROWS + "0.1,0,0.7\n", "rows 1, 3 are of the same cell and seed (lr = 0.1, seed 0). Remove what is too"),
        ("rate,seed,acc\n0.1,0,1\n", "has no column 'lr'; it has rate, seed, acc."),
        ("lr,seed,acc\n0.1,0,0.5\n0.2,0,caf\xe9\n".encode("latin-1"), "line 3 has the byte 0xe9. Save it as UTF-8, or"),
        (b"lr,seed,acc\n0.1,\0,1\n", "not text: it holds zeros. Save the table as CSV in UTF-8."),
        (b"PK\x03\x04 spreadsheet", "a spreadsheet or an archive. Save the table as CSV or Parquet."),
        (b"PAR1 damaged", "a damaged Parquet file"),
        (pickle.dumps(Trap()), "a pickle, which may run code when it is read. Save the table as CSV or Parquet."),
    ],
)  # fmt: skip
def test_bad_content_has_one_message(content: "str | bytes", message: str, tmp_path: Path) -> None:
    """The message names the file, the row or column, and the remedy, in one line."""
    with pytest.raises(TableError) as refused:
        read(tmp_path / "runs.csv", content)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path)) or "decimal" in message
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["runs.pkl", "runs.pickle", "runs.joblib", "model.pt"])
def test_a_pickle_is_never_read(name: str, tmp_path: Path) -> None:
    """By its name it is refused before it is opened, whatever is in it."""
    with pytest.raises(TableError, match=r"a pickle may run code when it is read. Save the table as CSV or Parquet"):
        read(tmp_path / name, HEAD + ROWS)


def test_a_path_is_no_table(tmp_path: Path) -> None:
    """A missing file, and a folder without logs, are named with what can be given."""
    with pytest.raises(TableError, match=r"no such file or folder. Give the path of a table."):
        sources.read(tmp_path / "nowhere.csv")
    with pytest.raises(TableError, match=r"a folder without logs that can be read. Give a CSV or Parquet file, or a"):
        sources.read(tmp_path)


def test_odd_but_sound_files_are_read(tmp_path: Path) -> None:
    """Marks of UTF-8 and UTF-16, semicolons, tabs, declared encodings and decimal commas give the same numbers."""
    plain = HEAD + ROWS
    written = [plain.replace(",", ";"), plain.replace(",", "\t"), plain.replace("\n", "\r\n"), f"\n{plain}"]
    contents = [text.encode() for text in written] + [plain.encode("utf-8-sig"), plain.encode("utf-16")]
    for i, content in enumerate(contents):
        file = tmp_path / f"{i}.csv"
        file.write_bytes(content)
        made = runs.make(sources.read(file), design.parse(STUDY, "study", "study"))
        assert list(made.final["acc"]) == [0.5, 0.6]
    file.write_bytes("lr;seed;acc;caf\xe9\n0,1;0;0,5;x\n0,2;0;0,6;y\n".encode("cp1252"))
    given = STUDY | {"table": {"seed": "seed", "decimal": ",", "encoding": "cp1252"}}
    study = design.parse(given, "study", "study")
    made = runs.make(sources.read(file, Options(encoding="cp1252")), study)
    assert list(made.final["acc"]) == [0.5, 0.6]


def test_huge_and_odd_seeds(tmp_path: Path) -> None:
    """A seed beyond 64 bits keeps all its digits as a name; one that is a float with lost digits is refused."""
    big = 2**70
    text = "lr,seed,acc\n" + "".join(f"{lr},{big + i},0.{i}\n" for lr in (0.1, 0.2) for i in (0, 1))
    (tmp_path / "runs.csv").write_text(text)
    made = runs.make(sources.read(tmp_path / "runs.csv"), design.parse(STUDY, "study", "study"))
    assert made.seed_names == {0: str(big), 1: str(big + 1)}
    frame = pd.DataFrame({"lr": [0.1, 0.2], "seed": [float(big), float(big)], "acc": [0.5, 0.6]})
    with pytest.raises(TableError, match=r"is a seed stored as a float, which has lost digits. Store seeds as whole"):
        runs.make(sources.read(frame), design.parse(STUDY, "study", "study"))


def test_mixed_types_are_refused() -> None:
    """A factor whose cells are numbers and text, or lists, is refused by its types."""
    frame = pd.DataFrame({"lr": [0.1, "0.1"], "seed": [0, 1], "acc": [0.5, 0.6]}, dtype=object)
    with pytest.raises(TableError, match=r"lr: values of several types \(float, str\). Give all cells one type."):
        runs.make(sources.read(frame), design.parse(STUDY, "study", "study"))
    lists = pd.DataFrame({"lr": [[1], [2]], "seed": [0, 1], "acc": [0.5, 0.6]})
    with pytest.raises(TableError, match=r"has no column 'lr'; it has seed, acc"):
        runs.make(sources.read(lists), design.parse(STUDY, "study", "study"))
    columns = pd.MultiIndex.from_tuples([("acc", "mean"), ("acc", "std")])
    with pytest.raises(TableError, match=r"its columns have 2 lines of names. Give them one."):
        sources.read(pd.DataFrame([[1, 2]], columns=columns))


def test_parquet_is_read_without_what_pandas_wrote_about_it(tmp_path: Path) -> None:
    """A file of Parquet gives the same runs, and its metadata, which could name any type, is not followed."""
    table = pa.table({"lr": [0.1, 0.2], "seed": [0, 0], "acc": [0.5, np.nan]})
    table = table.replace_schema_metadata({b"pandas": b'{"columns": [{"name": "lr", "numpy_type": "object"}]}'})
    pq.write_table(table, tmp_path / "runs.parquet")
    made = runs.make(sources.read(tmp_path / "runs.parquet"), design.parse(STUDY, "study", "study"))
    assert list(made.final["status"]) == ["ok", "failed"]


HOSTILE = "<script>alert(1)</script>"


def test_no_name_of_a_table_is_markup(tmp_path: Path) -> None:
    """Names of columns, levels, seeds, the file and its title reach the page and the summary escaped."""
    levels = ["plain", f"{HOSTILE}&{{{{ 7 * 7 }}}}"]
    rows = [(level, f"{HOSTILE}{seed}", 0.5 + seed / 10 + i) for i, level in enumerate(levels) for seed in range(7)]
    frame = pd.DataFrame(rows, columns=["x", "seed", f"acc {HOSTILE}"]).drop(index=3)
    frame.loc[5, f"acc {HOSTILE}"] = np.nan
    study = {
        "title": HOSTILE, "table": {"seed": "seed", "columns": {"acc": f"acc {HOSTILE}"}}, "factors": {"x": levels},
        "metrics": {"acc": {"label": HOSTILE, "unit": f"{HOSTILE}"}},
        "hypotheses": [{"id": "H", "statement": HOSTILE, "claim": HOSTILE, "effect": "x", "kind": "increase",
                        "smallest": 0.1}],
    }  # fmt: skip
    judged = mnist_ablate.judge(frame, study, out=tmp_path / "out")
    page, summary = (file.read_text(encoding="utf-8") for file in (judged.report.html, judged.report.summary))
    assert "<script" not in page
    assert "<script" not in re.sub(r"\\<", "", summary)
    assert "{{ 7 * 7 }}" in page
    assert "&lt;script&gt;" in page
    for file in (tmp_path / "out" / "figures").glob("*.svg"):
        assert "<script" not in file.read_text(encoding="utf-8")


def test_the_command_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad table, a study of ours, a missing file and a file that is there end the command with one message."""
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "runs.csv").write_text(HEAD + ROWS)
    (tmp_path / "ours.toml").write_text('name = "x"\n[factors]\ndropout = [0.0]\n')
    bad = ["empty.csv", "nowhere.csv", "runs.csv --study ours.toml", "runs.csv --study no.toml",
           "runs.csv --init --study ours.toml", "."]  # fmt: skip
    for arguments in map(str.split, bad):
        paths = [str(tmp_path / word) if not word.startswith("-") else word for word in arguments]
        assert cli.main(["judge", *paths]) == 2
        out, message = capsys.readouterr()
        assert out == ""
        assert message.startswith("mnist-ablate: ")
        assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, "metrics: at least one is needed, as [metrics.accuracy]"),
        ({"factors": {"lr": list(range(13))}}, "factors.lr: 13 levels; allowed: at most 12."),
        ({"factors": {"learning rate": [1, 2]}}, 'factors."learning rate": not a name here'),
        ({"factors": {"acc": [1, 2]}}, "factors.acc: a metric too; keep one of them"),
        ({"table": {"covariates": ["x"]}}, "a covariate that is measured after the treatment hides what the"),
        ({"table": {"sead": "x"}}, "table.sead: unknown key"),
        ({"table": {"columns": {"x": "y"}}}, "table.columns.x: neither a factor nor a metric"),
        ({"metrics": {"acc": {"range": [1.0, 0.0]}}}, "metrics.acc.range = [1.0, 0.0]: allowed: the least and the la"),
        ({"hypotheses": [{"id": "H", "statement": "s", "effect": "dropout", "kind": "increase", "smallest": 1.0}]},
         "hypotheses[0].dropout: not a factor of this study; allowed: lr"),
        ({"hypotheses": [{"id": "H", "statement": "s", "effect": "lr", "kind": "increase", "smallest": 1.0,
                          "response": "loss"}]}, 'hypotheses[0].response = "loss": not a metric; allowed: acc'),
        ({"protocol": {}}, "not the study file of a table, which has a section [table]."),
    ],
)  # fmt: skip
def test_mistakes_of_a_study_file_are_named(changes: "dict[str, object]", message: str) -> None:
    """Each mistake is a line with the key and what is allowed."""
    with pytest.raises(StudyError) as refused:
        design.parse(STUDY | changes, "study", "study")
    assert message in str(refused.value)
