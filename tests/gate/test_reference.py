"""The gate's reference: made of tables, saved and loaded, and what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gate_tables as tables
import pandas as pd
import pyarrow as pa
import pytest
import synthetic

from mnist_ablate.design.plan import PROTOCOL_VERSION
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import DamagedFileError, GateReferenceError, ResultsError
from mnist_ablate.gate import reference
from mnist_ablate.gate.reference import (
    FIRST,
    FORMAT,
    RESPONSES,
    Reference,
    cell_contrasts,
    default_reference,
    evidence_of,
    load_reference,
    load_rules,
    long_table,
    same_study,
    study_contrasts,
    with_seeds,
)
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import write_table


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the folder of a saved reference."""
    tables.reference(document={"protocol_version": PROTOCOL_VERSION, "history": []}).save(tmp_path)
    return tmp_path


def test_the_default_is_here_or_in_the_package(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout's reference, or one that the user has made here, goes before that of the package, if it has one."""
    assert default_reference() == reference.DEFAULT == Path("results/reference/gate")
    monkeypatch.setattr(reference, "__file__", str(in_folder / "reference.py"))
    (in_folder / "accepted").mkdir()
    assert default_reference() == in_folder / "accepted"
    reference.DEFAULT.mkdir(parents=True)
    assert default_reference() == reference.DEFAULT


def test_a_reference_comes_back_as_it_was(saved: Path) -> None:
    """Every table, number and digest that was saved is loaded again, to the bit."""
    was, now = tables.reference(), load_reference(saved)
    for name in ("runs", "trace"):
        pd.testing.assert_frame_equal(getattr(was.evidence, name), getattr(now.evidence, name), check_dtype=False)
    pd.testing.assert_frame_equal(was.bank, now.bank, check_dtype=False)
    pd.testing.assert_frame_equal(was.limits, now.limits, check_dtype=False)
    assert was.contrasts == now.contrasts
    assert was.evidence.checkpoint == now.evidence.checkpoint
    assert was.evidence.digests == now.evidence.digests
    assert (was.evidence.predictions == now.evidence.predictions).all()
    assert now.rules.tolerances == {FIRST: 0.001}


def test_the_rules_are_the_users_and_stay(saved: Path) -> None:
    """`gate.toml` is written if it is missing, read with its thresholds, and never overwritten."""
    text = (saved / "gate.toml").read_text().replace("# test_accuracy = 0.95", "test_accuracy = 0.95")
    (saved / "gate.toml").write_text(text)
    assert load_rules(saved).thresholds == {"test_accuracy": 0.95}
    tables.reference().save(saved)
    assert (saved / "gate.toml").read_text() == text
    (saved / "gate.toml").write_text("[gate]\nbuget = 0.1\n")
    with pytest.raises(GateReferenceError, match="buget"):
        load_rules(saved)


def test_what_is_not_a_reference_is_refused(saved: Path, tmp_path: Path) -> None:
    """A missing, an outdated and a damaged reference are refused, each with its own class and a remedy."""
    with pytest.raises(ResultsError, match="--accept --why"):
        load_reference(tmp_path / "nothing")
    document = json.loads((saved / "reference.json").read_text())
    old = {"protocol_version": 1, "study": {"name": "x"}}
    for change, told in (({"format": FORMAT - 1}, "of format 0"), (old, "of protocol 1")):
        (saved / "reference.json").write_text(json.dumps(document | change))
        with pytest.raises(GateReferenceError, match=f"a reference {told}, .* needs one .* --accept --why") as error:
            load_reference(saved)
        assert error.value.exit_status == 3
    (saved / "reference.json").write_text("{")
    with pytest.raises(DamagedFileError):
        load_reference(saved)
    tables.reference(document={"protocol_version": PROTOCOL_VERSION}).save(saved)
    content = (saved / "bank.parquet").read_bytes()
    (saved / "bank.parquet").write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(DamagedFileError):
        load_reference(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "[]",
        lambda document: document.pop("contrasts"),
        lambda document: document.update(contrasts={"mean": {"a": "x"}}),
        lambda document: document.update(digests=[]),
        lambda document: document.update(checkpoint=None),
        lambda _: "[" * 100_000,
    ],
)
def test_a_reference_of_another_shape_is_damaged(saved: Path, change: Any) -> None:
    """Any other content of ``reference.json`` is one of our errors, which names the file."""
    document = json.loads((saved / "reference.json").read_text())
    del document["digest"]  # which would show any change
    text = change(document)
    (saved / "reference.json").write_text(text if isinstance(text, str) else json.dumps(document))
    with pytest.raises(DamagedFileError, match=r"reference\.json"):
        load_reference(saved)


@pytest.mark.parametrize("content", [b"\xff", b"a = " + b"[" * 100_000, b"[gate]\nbudget = " + b"9" * 5000])
def test_rules_that_cannot_be_read_are_refused(saved: Path, content: bytes) -> None:
    """Rules that are not text, or nested or long beyond reason, are refused, naming the file."""
    (saved / "gate.toml").write_bytes(content)
    with pytest.raises(GateReferenceError, match=r"gate\.toml"):
        load_rules(saved)


@pytest.mark.parametrize("name", ["runs", "bank", "predictions"])
def test_tables_with_other_columns_are_damaged(saved: Path, name: str) -> None:
    """An intact table with other columns than its place demands is damaged."""
    write_table(saved / f"{name}.parquet", pa.table({"x": [1]}), {})
    with pytest.raises(DamagedFileError):
        load_reference(saved)


def test_evidence_of_a_results_folder(tmp_path: Path) -> None:
    """Runs of a folder become a row for each run and response, accuracies in percent, with study and digests."""
    results = load(synthetic.make(tmp_path, synthetic.factorial(seeds=2)))
    evidence = evidence_of(results)
    assert len(evidence.runs) == 16 * (len(RESPONSES) + 1)
    row = results.final[(results.final["cell"] == "dropout") & (results.final["seed"] == 1)].iloc[0]
    own = evidence.runs[(evidence.runs["cell"] == "dropout") & (evidence.runs["seed"] == 1)]
    values = own.set_index("response")["value"]
    assert values["test_accuracy"] == pytest.approx(100 * row["test_accuracy"])
    assert values["val_loss"] == row["val_loss"]
    assert values[FIRST] > values["train_loss"]
    assert set(evidence.digests) == {f"{run.cell}/{run.seed}" for run in with_seeds(results.study, [0, 1])}
    assert evidence.machine["protocol_version"] == PROTOCOL_VERSION
    assert evidence.study is not None
    assert same_study(evidence.study, synthetic.factorial().model_dump(mode="json", exclude_unset=True))


def test_a_diverged_run_is_seen(tmp_path: Path) -> None:
    """The loss of a diverged run stays NaN, because the gate must see it."""
    folder = synthetic.make(tmp_path, synthetic.factorial(seeds=1), diverged=[("l2", 0)])
    runs = evidence_of(load(folder)).runs
    assert math.isnan(runs[(runs["cell"] == "l2") & (runs["response"] == "train_loss")]["value"].iloc[0])


def test_studies_are_the_same_whatever_trains_them() -> None:
    """Engine, title and number of seeds do not make another study; a setting does."""
    study = load_study("gate").model_dump(mode="json", exclude_unset=True)
    assert same_study(study, study | {"engine": "autograd", "title": "x", "seeds": 9})
    assert not same_study(study, study | {"protocol": {"epochs": 3}})
    assert not same_study(study, None)


def test_contrasts_of_a_study() -> None:
    """The mean weighs all cells alike; a factor's contrast sums to 0, and is left out where it has one level."""
    contrasts = study_contrasts(load_study("gate"))
    assert list(contrasts) == ["mean", "l2", "dropout", "batch_norm"]
    assert sum(contrasts["mean"].values()) == pytest.approx(1)
    assert all(sum(contrasts[name].values()) == pytest.approx(0) for name in ("l2", "dropout", "batch_norm"))
    assert contrasts["dropout"]["l2+dropout"] == 0.25
    one = parse_study({"name": "x", "factors": {"dropout": [0.0, 0.2, 0.5], "l2": [0.0]}})
    assert set(study_contrasts(one)) == {"mean", "dropout"}
    assert cell_contrasts(["a"]) == {"mean": {"a": 1.0}}
    assert cell_contrasts(["a", "b"])["b"] == {"b": 1.0}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (pd.DataFrame({"cell": ["a"], "value": [1.0]}), "no column seed"),
        (pd.DataFrame({"cell": ["a", "a"], "seed": [0, 0], "value": [1.0, 2.0]}), "`repeat`"),
    ],
)
def test_tables_that_say_too_little_are_refused(table: pd.DataFrame, told: str) -> None:
    """A missing column and a repeated run are named."""
    with pytest.raises(GateReferenceError, match=told):
        long_table(table)


def test_a_null_bank_needs_repeats() -> None:
    """A null bank without repeats is refused: it says nothing about chance."""
    table = tables.runs(range(3))
    with pytest.raises(GateReferenceError, match="at least twice"):
        Reference.of_tables(table, table)
    assert Reference.of_tables(table, tables.runs(range(3), 2)).contrasts["mean"]


def test_a_reference_of_tables_can_be_kept(tmp_path: Path) -> None:
    """A reference of any tables is saved and loaded like the package's own."""
    was = Reference.of_tables(tables.runs(range(3)), tables.runs(range(3), 2))
    was.save(tmp_path)
    now = load_reference(tmp_path)
    pd.testing.assert_frame_equal(was.bank, now.bank, check_dtype=False)
    assert now.limits.empty
    assert now.evidence.study is None
    replace(was, document={"protocol_version": 1}).save(tmp_path)  # of a program that trained another protocol
    assert load_reference(tmp_path).evidence.study is None


def test_seeds_can_be_chosen() -> None:
    """Runs of given seeds are those that the study would have with more seeds."""
    study = load_study("gate")
    assert [run.seed for run in with_seeds(study, [7, 5])] == [7] * 8 + [5] * 8
    assert with_seeds(study, [1])[0].run_id == replace(with_seeds(study, [0])[0], seed=1).run_id


def test_one_wrong_digit_is_damage(saved: Path) -> None:
    """A number that has changed is damage, not a regression; older references have no digest to show it."""
    file = saved / "reference.json"
    file.write_text(file.read_text().replace('"test_loss": 0.1', '"test_loss": 0.2'))
    with pytest.raises(DamagedFileError, match=r"reference\.json: damaged .* Restore the reference"):
        load_reference(saved)
    document = json.loads(file.read_text())
    del document["digest"]
    file.write_text(json.dumps(document))
    assert load_reference(saved).evidence.checkpoint["test_loss"] == 0.2
