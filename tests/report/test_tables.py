"""The tables: what they show is what the frames have, and what is not there is a dash."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.effects import LOSS_CAP, cell_table, effect_table
from mnist_ablate.inference.verdicts import judge
from mnist_ablate.report import tables
from mnist_ablate.report.words import NOTHING, number, span
from mnist_ablate.store.results import Results, load

PAIR = {"name": "pair", "seeds": 3, "protocol": {"epochs": 2}, "factors": {"dropout": [0.0, 0.2]}}


def answers(run: Run, hard: int = 2) -> dict[str, Any]:
    """Make predictions of the same images in all runs, all right but for the last `hard`."""
    labels = np.arange(40, dtype=np.uint8) % 10
    said = labels.copy()
    said[40 - hard :] = (said[40 - hard :] + 1) % 10
    said[0] = run.seed % 2
    return {"test_index": np.arange(40, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(40, 0.5, np.float32)}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the factorial study with 7 seeds, and predictions of the same images."""
    return load(synthetic.make(tmp_path_factory.mktemp("whole"), synthetic.factorial(7, 2), answers=answers))


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 3 seeds of two cells: one run missing, one diverged."""
    folder = tmp_path_factory.mktemp("holed")
    gone, lost = [("dropout", 0)], [("dropout", 1)]
    return load(synthetic.make(folder, parse_study(PAIR), missing=gone, diverged=lost, answers=answers))


def every(results: Results) -> list[tables.Table]:
    """Make every table of some results."""
    makers = (tables.cells, tables.losses, tables.last_epoch, tables.effects, tables.two_way, tables.confused)
    found = [*(make(results) for make in makers), tables.effects(results, "gap"), tables.hard(results)]
    judgements = judge(results)
    return [table for table in [*found, tables.verdicts(judgements) if judgements else None] if table]


@pytest.mark.parametrize("which", ["whole", "holed"])
def test_every_table_is_whole(which: str, request: pytest.FixtureRequest) -> None:
    """Every row has all columns, no text says 'nan' or 'None', and names of files differ."""
    found = every(request.getfixturevalue(which))
    assert len({table.name for table in found}) == len(found)
    for table in found:
        assert table.rows
        assert all(list(row) == list(table.headings) for row in table.rows)
        assert not [text for row in table.rows for text in row.values() if text in ("nan", "None", "")]


@pytest.mark.parametrize("which", ["whole", "holed"])
def test_csv_has_all_digits_and_reads_back(which: str, request: pytest.FixtureRequest) -> None:
    """The CSV text gives the frame again, to the last bit."""
    for table in every(request.getfixturevalue(which)):
        back = pd.read_csv(io.StringIO(table.csv), dtype=str)
        assert list(back) == list(table.frame)
        for name in table.frame.select_dtypes("number"):
            assert back[name].astype(float).tolist() == pytest.approx(
                table.frame[name].astype(float).tolist(), rel=0, abs=0, nan_ok=True
            )


def test_cells_show_their_frame(whole: Results) -> None:
    """Each row has the numbers of its cell, and the reference is called so."""
    for row, (_, numbers) in zip(tables.cells(whole).rows, cell_table(whole).iterrows(), strict=True):
        assert (row["cell"], row["runs"], row["diverged"]) == (numbers["cell"], "7", "0")
        assert row["mean"] == number(numbers["mean"])
        assert row["interval"] == span(numbers["low"], numbers["high"])
        expected = "reference" if row["cell"] == "baseline" else number(numbers["difference"], sign=True)
        assert row["difference"] == expected


def test_effects_show_their_frame(whole: Results) -> None:
    """Each row has the numbers of its effect, losses with four digits."""
    for response, digits in (("test_accuracy", 2), ("gap", 4)):
        table, frame = tables.effects(whole, response), effect_table(whole, response)
        for row, (_, numbers) in zip(table.rows, frame.iterrows(), strict=True):
            assert (row["label"], row["n"]) == (numbers["label"], "7")
            assert row["estimate"] == number(numbers["estimate"], digits, sign=True)
            assert row["interval"] == span(numbers["low"], numbers["high"], digits)


def test_missing_and_diverged_are_shown(holed: Results) -> None:
    """Fewer runs than planned, pairs and diverged runs are in the cells' table and in the effects'."""
    row = tables.cells(holed).rows[1]
    assert (row["runs"], row["diverged"]) == ("2 of 3", "1")
    assert row["interval"].endswith("(2 pairs)")
    assert tables.effects(holed).rows[0]["n"] == "2 of 3, 1 diverged"


def test_losses_of_diverged_runs_are_capped(tmp_path: Path) -> None:
    """A loss above that of guessing, or none, counts as that in means, and its change in the last epoch as none."""
    everything = [("dropout", seed) for seed in range(3)]
    results = load(synthetic.make(tmp_path, parse_study(PAIR), diverged=everything))
    row = tables.losses(results).rows[1]
    assert (row["train_loss"], row["val_loss"], row["gap"]) == (f"{LOSS_CAP:.4f}", f"{LOSS_CAP:.4f}", "0.0000")
    assert tables.last_epoch(results).rows[1]["loss"] == "+0.0000"


def test_what_is_not_there_is_a_dash(tmp_path: Path) -> None:
    """Of one cell of two, with one seed and one epoch, there is a mean and nothing else."""
    study = parse_study(PAIR | {"seeds": 1, "protocol": {"epochs": 1}})
    results = load(synthetic.make(tmp_path, study, missing=[("dropout", 0)], answers=answers))
    there, gone = (list(row.values()) for row in tables.cells(results).rows)
    assert there[3:] == [NOTHING, "reference", NOTHING, "0"]
    assert gone == ["dropout", "0 of 1", *[NOTHING] * 4, "0"]
    assert list(tables.effects(results).rows[0].values())[2:] == ["0 of 1", *[NOTHING] * 5]
    assert set(list(tables.losses(results).rows[1].values())[1:]) == {NOTHING}
    assert {text for row in tables.last_epoch(results).rows for text in list(row.values())[1:]} == {NOTHING}
    two_way = tables.two_way(results)
    assert two_way
    assert set(list(two_way.rows[0].values())[1:]) == {NOTHING}


def test_last_epoch_is_the_change_in_it(whole: Results) -> None:
    """The change is the last epoch less the one before, in nats and in points, over runs."""
    table = whole.epochs[whole.epochs["cell"] == "l2"].pivot(index="seed", columns="epoch", values="val_accuracy")
    change = 100 * (table[2] - table[1]).mean()
    row = next(row for row in tables.last_epoch(whole).rows if row["cell"] == "l2")
    assert row["accuracy"] == number(change, sign=True)


def test_verdicts_show_their_judgements(whole: Results) -> None:
    """A row per hypothesis, in its order, with whole numbers of seeds in the CSV file."""
    judgements = judge(whole)
    table = tables.verdicts(judgements)
    assert [row["id"] for row in table.rows] == [judgement.hypothesis.id for judgement in judgements]
    assert table.headings["interval"] == "99.44 % interval"
    assert [row["interval"] for row in table.rows] == [
        span(judgement.low, judgement.high, 2 if "accuracy" in judgement.hypothesis.response else 4)
        for judgement in judgements
    ]
    line = next(line for line in table.csv.splitlines() if line.startswith("C3-accuracy"))
    likely = next(judgement for judgement in judgements if judgement.hypothesis.id == "C3-accuracy").seeds_needed.likely
    assert line.split(",")[-2] == str(likely)


def test_mistakes(whole: Results) -> None:
    """The commonest mistakes per run, and the images that all runs get wrong, with the number that is not shown."""
    confused, hard = tables.confused(whole), tables.hard(whole, most=1)
    assert confused
    assert hard
    assert confused.rows[0] == {"pair": "8, 9", "per_run": "1.0", "share": number(100 * 56 / (3 * 56 - 4 * 8), 1)}
    assert [row["image"] for row in hard.rows] == ["38"]
    assert hard.caption.endswith("The first 1 of 2; the CSV file has all of them.")
    assert "first" not in (tables.hard(whole) or hard).caption


def test_without_predictions_there_are_no_tables_of_them(tmp_path: Path) -> None:
    """Where runs did not answer the same images, or got all right, there is no table of that."""
    results = load(synthetic.make(tmp_path / "a", parse_study(PAIR)))
    assert (tables.two_way(results), tables.confused(results), tables.hard(results)) == (None, None, None)


def test_markdown_table(whole: Results) -> None:
    """Every row of the Markdown table has as many columns as its head, and a row per cell."""
    lines = tables.markdown_table(whole).splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| baseline | 7 | 97.")
    assert any(line.startswith("| batch_norm | 7 |") for line in lines)


def test_markdown_is_safe() -> None:
    """Markup in a cell is text, and does not break its row."""
    table = tables.Table("t", "", {"a": "A"}, [{"a": "<b>|`x`\ny_z"}], pd.DataFrame())
    assert tables.markdown(table).splitlines()[2] == "| \\<b\\>\\|\\`x\\` y_z |"


def test_text_table(whole: Results) -> None:
    """The table for a terminal is aligned, uses plain signs, and has a line per cell."""
    lines = tables.text_table(whole).splitlines()
    assert len(lines) == 1 + 8
    assert len({len(line) for line in lines}) == 1
    assert "Diverged" in lines[0]
    tables.text_table(whole).encode("cp1252")


def test_provenance_counts_runs(tmp_path: Path) -> None:
    """Every value is listed with its runs, what says nothing is a dash, and truth is yes or no."""
    machines: list[dict[str, Any]] = [{"git_dirty": True, "threads": 1}, {"git_dirty": False, "threads": None}]
    listed = dict(tables.provenance(load(synthetic.make(tmp_path, parse_study(PAIR), machines=machines))))
    assert set(listed["Uncommitted changes"]) == {("yes", "3 of 6"), ("no", "3 of 6")}
    assert set(listed["Threads in a run"]) == {("1", "3 of 6"), (NOTHING, "3 of 6")}
    assert listed["Study file, SHA-256"] == [(NOTHING, "6")]
