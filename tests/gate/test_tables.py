"""Runs that another program trained: reading them, what a reference of them is, and what is refused."""

import json
from pathlib import Path

import gate_tables as tables
import numpy as np
import pandas as pd
import pytest

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.errors import GateReferenceError, ResultsError, TableError
from mnist_ablate.gate.judge import judge
from mnist_ablate.gate.reference import Reference, load_reference
from mnist_ablate.gate.shifts import shift_limits
from mnist_ablate.gate.tables import judge_values, read_runs


def runs(seeds: int = 8, repeats: int = 3, by: float = 0.0, cells: str = "ab") -> pd.DataFrame:
    """Return runs of two metrics, whose repeats differ by luck."""
    rows = [
        (cell, seed, metric, repeat, np.random.default_rng([seed, repeat, ord(cell), len(metric)]).normal(50, 1) + by)
        for cell in cells
        for seed in range(seeds)
        for metric in ("accuracy", "loss")
        for repeat in range(repeats)
    ]
    return pd.DataFrame(rows, columns=["cell", "seed", "response", "repeat", "value"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_read_as_it_was_written(in_folder: Path, ending: str) -> None:
    """Values come back to the bit, cells as text, also where they look like numbers or like nothing."""
    table = runs().replace({"cell": {"a": "1", "b": "NA"}})
    table.to_csv("t.csv", index=False)
    table.to_parquet("t.parquet", index=False)
    pd.testing.assert_frame_equal(
        read_runs(in_folder / f"t.{ending}")[list(table)], table, check_exact=True, check_dtype=False
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("cell,seed\na,0\n", "has no column value"),
        ("cell,seed,value\n", "has no rows"),
        ("cell,seed,value\na,0,high\n", r"row 1, value = 'high': allowed: a number"),
        ("cell,seed,value\na,0,1\na,0.5,1\n", r"row 2, seed = '0.5': allowed: a whole number"),
        ("", "not a table"),
        ('cell,seed,value\n"a,0,1\n', "not a table"),
    ],
)
def test_a_table_that_cannot_be_read(in_folder: Path, content: str, told: str) -> None:
    """The message names the file, the row and the remedy, and the command ends with 2."""
    Path("t.csv").write_text(content)
    with pytest.raises(TableError, match=rf"t\.csv.*{told}"):
        read_runs(in_folder / "t.csv")
    assert cli.main(["gate", "t.csv", "--reference", "nowhere"]) == 2


def test_other_files_are_no_tables(in_folder: Path) -> None:
    """A missing file, other bytes under the name of a Parquet file, and text of another encoding are refused."""
    Path("t.parquet").write_bytes(b"PAR1 and more")
    Path("t.csv").write_bytes(b"cell,seed,value\n\xff\xfe,0,1\n")
    for name in ("t.parquet", "t.csv", "missing.csv", "missing.parquet"):
        with pytest.raises(TableError, match=name):
            read_runs(in_folder / name)


def test_accepting_needs_a_folder_and_a_table(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--accept TABLE` wants --reference, and no results folder; it never takes the place of a study's reference."""
    runs().to_csv("t.csv", index=False)
    assert cli.main(["gate", "t.csv", "--accept", "--why", "x"]) == 2
    assert "--reference DIR" in capsys.readouterr().err
    assert cli.main(["gate", str(in_folder), "--accept", "--reference", "r", "--why", "x"]) == 2
    assert "not a table" in capsys.readouterr().err
    assert cli.main(["gate", "t.csv", "--accept", "--reference", "r"]) == 3
    assert "needs a reason" in capsys.readouterr().err
    tables.reference(document={"protocol_version": 2, "history": []}).save(in_folder / "ours")
    document = json.loads(Path("ours/reference.json").read_text()) | {"study": {"name": "x"}}
    del document["digest"]
    Path("ours/reference.json").write_text(json.dumps(document))
    assert cli.main(["gate", "t.csv", "--accept", "--reference", "ours", "--why", "x"]) == 3
    assert "has the reference of a study" in capsys.readouterr().err


def test_accepted_from_python(tmp_path: Path) -> None:
    """`accept_reference` takes a frame, keeps the reason, and what it writes judges other runs."""
    mnist_ablate.accept_reference(runs(), "first", reference=tmp_path)
    known = mnist_ablate.load_reference(tmp_path)
    assert [entry["why"] for entry in known.document["history"]] == ["first"]
    assert known.elsewhere
    assert mnist_ablate.gate(runs(repeats=1), reference=known).outcome == "pass"
    verdict = mnist_ablate.gate(runs(repeats=1, by=9.0), reference=known)
    assert verdict.outcome == "fail"
    assert "points" not in verdict.sentence
    assert "nat" not in verdict.sentence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.iloc[:-1], "has 2 repeats, and another run has 3"),
        (lambda table: table.assign(value=table["value"].where(table.index > 0, np.inf)), "is not finite"),
    ],
)
def test_what_cannot_be_accepted(change: object, told: str) -> None:
    """Runs that were repeated unequally often, or did not go well, are no reference."""
    with pytest.raises(GateReferenceError, match=told):
        Reference.of_tables(change(runs()))  # type: ignore[operator]


def test_repeats_pair_seeds_and_else_seeds_are_chance() -> None:
    """With repeats that differ, runs are compared within seeds; without, or with equal ones, they are not."""
    assert Reference.of_tables(runs()).paired
    once = runs(repeats=1)
    assert not Reference.of_tables(once).paired
    again = pd.concat([once, once.assign(repeat=1)])
    assert not Reference.of_tables(again).paired
    seeds = judge(once, Reference.of_tables(once)).shifts
    assert set(seeds["df"]) == {7.0}
    assert judge(once, Reference.of_tables(once)).outcome == "pass"


def test_a_part_has_its_share_of_the_budget() -> None:
    """Parts of a reference share its budget, so that all tests together raise no more false alarms."""
    known = Reference.of_tables(runs(cells="abc"))
    part = known.of_cells(["b"], ["loss"])
    assert part.rules.budget == pytest.approx(known.rules.budget / 6)
    assert list(part.contrasts) == ["mean"]
    assert set(part.bank["cell"]) == set(part.evidence.runs["cell"]) == {"b"}
    whole, alone = (set(shift_limits(one, 8)["df"]) for one in (known.of_cells("abc", ["loss"]), part))
    assert whole == alone == {16.0}
    with pytest.raises(GateReferenceError, match=r"no metric auc; it has accuracy, loss"):
        known.of_cells(["b"], ["auc"])


def test_metrics_that_differ_are_refused() -> None:
    """Runs that lack a metric of the reference, or have one of their own, are not passed in silence."""
    known = Reference.of_tables(runs())
    now = runs(repeats=1)
    for table, told in (
        (now.query("response == 'loss'"), "no runs of the metrics accuracy"),
        (now.replace({"response": {"loss": "losses"}}), "no runs of the metrics loss"),
        (pd.concat([now, now.query("response == 'loss'").assign(response="x")]), "has no metrics x"),
        (pd.concat([now, now.query("cell == 'a'").assign(cell="c")]), "has no cells c"),
    ):
        with pytest.raises(GateReferenceError, match=told):
            judge(table, known)


def test_cells_with_metrics_of_their_own() -> None:
    """Where one cell has accuracies and another losses, each is judged alone: there is no mean over both."""
    table = runs().query("(cell == 'a') == (response == 'loss')")
    verdict = judge(table.query("repeat == 0"), Reference.of_tables(table))
    assert verdict.outcome == "pass"
    assert list(verdict.shifts.index) == [("a", "loss"), ("b", "accuracy")]
    worse = table.query("repeat == 0").assign(value=lambda one: one["value"] - 9 * (one["cell"] == "b"))
    assert "accuracy" in judge(worse, Reference.of_tables(table)).sentence


def test_values_of_a_test(tmp_path: Path) -> None:
    """Values by cell, seed and metric are judged by their part of a reference; a study's reference is refused."""
    mnist_ablate.accept_reference(runs(), "first", reference=tmp_path / "r")
    values = {("a", seed, "loss"): 50.0 for seed in range(8)}
    verdict, part = judge_values(values, tmp_path / "r")
    assert verdict.outcome in ("pass", "cannot tell")
    assert list(verdict.shifts.index) == [("mean", "loss")]
    assert part.document == load_reference(tmp_path / "r").document
    assert part.rules.budget == pytest.approx(0.001 / 4)
    one = {key: value for key, value in values.items() if key[1] == 3}
    _, part = judge_values(one, tmp_path / "r")
    assert part.rules.budget == pytest.approx(0.001 / 4 / 8)
    with pytest.raises(ResultsError):
        judge_values(values, tmp_path / "nowhere")
    tables.reference(document={"protocol_version": 2, "history": []}).save(tmp_path / "ours")
    with pytest.raises(GateReferenceError, match="reference of a study"):
        judge_values(values, tmp_path / "ours")


def test_thresholds_are_in_the_units_of_the_values() -> None:
    """A threshold for runs made elsewhere is compared as it is written, whatever the metric is called."""
    table = runs().replace({"response": {"accuracy": "test_accuracy"}})
    for least, outcome in ((49.0, "pass"), (51.0, "fail")):
        rules = Reference.of_tables(table).rules.model_copy(update={"thresholds": {"test_accuracy": least}})
        level = judge(table.query("repeat == 0"), Reference.of_tables(table, rules=rules)).levels[-1]
        assert (level.name, level.outcome) == ("thresholds", outcome)
