"""A new reference, from runs to files: what it holds, and that the gate works with it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.study import load_study
from mnist_ablate.errors import DamagedFileError, GateReferenceError, StorageError
from mnist_ablate.execution import runner
from mnist_ablate.gate import accept, runs
from mnist_ablate.gate.accept import accept_reference
from mnist_ablate.gate.reference import load_reference
from mnist_ablate.gate.runs import gate
from mnist_ablate.store.results import load
from mnist_ablate.training import estimate, worker
from mnist_ablate.training.protocol import train

TINY = """
name = "tiny"
seeds = 2
[protocol]
epochs = 2
width = 6
batch_size = 20
[factors]
dropout = [0.0, 0.5]
batch_norm = [false, true]
"""


@pytest.fixture(scope="module")
def folder(small: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with a reference of a tiny study, trained on small images in this process."""
    where = tmp_path_factory.mktemp("gate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setattr(worker, "_images", lambda _: small)
        patch.setattr(data, "fetch", lambda name, *_, **__: data.Fetched(name, where, "planted"))
        patch.setattr(accept, "BANK", range(1000, 1004))
        patch.setattr(accept, "GOLDEN_SEEDS", (1000, 0))
        patch.setattr(runs, "GOLDEN_FRACTION", 0.8)
        Path("tiny.toml").write_text(TINY)
        said: list[str] = []
        accept_reference(
            load_study("tiny.toml"), "the reason", reference=Path("ref"), out=Path("out"), workers=0, say=said.append
        )
        assert said[0].startswith("72 runs with the engine fused, and their golden runs: about ")
        yield where


def test_a_reference_has_all_that_the_gate_needs(folder: Path) -> None:
    """Runs and bank have every repeat of every seed, and no seed in common; reason and machine are kept."""
    known = load_reference(folder / "ref")
    accepted, bank = known.evidence.runs, known.bank
    assert sorted(accepted["seed"].unique()) == [0, 1]
    assert sorted(bank["seed"].unique()) == [1000, 1001, 1002, 1003]
    assert set(accepted["repeat"]) == set(bank["repeat"]) == {0, 1, 2}
    assert not accepted.duplicated(["cell", "seed", "response", "repeat"]).any()
    assert accepted.groupby(["cell", "seed", "response"])["value"].nunique().max() > 1  # repeats do differ
    assert len(known.evidence.digests) == 8
    assert known.document["history"][0]["why"] == "the reason"
    assert known.evidence.machine["engine"] == "fused"
    assert set(known.contrasts) == {"mean", "dropout", "batch_norm"}
    assert set(known.limits["engine"]) == {"same", "other"}
    assert (known.limits["limit"] > 0).all()
    expected = {(cell, "step", at) for cell in known.contrasts["mean"] for at in range(1, 11)}
    assert expected <= set(known.evidence.trace[["cell", "what", "at"]].itertuples(index=False, name=None))


def test_the_reasons_are_all_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewed reference keeps the reasons of those before it; without a reason nothing is trained."""
    shutil.copytree(folder / "ref", folder / "renewed")
    monkeypatch.setattr(accept, "ENVIRONMENTS", {})
    monkeypatch.setattr(accept, "GOLDEN_SEEDS", (1000,))
    monkeypatch.setattr(accept, "BANK", range(1000, 1002))
    options = {"reference": folder / "renewed", "out": folder / "out", "workers": 0, "say": lambda _: None}
    accept_reference(load_study("tiny.toml"), "another", **options)  # type: ignore[arg-type]
    document = json.loads((folder / "renewed" / "reference.json").read_text())
    assert [entry["why"] for entry in document["history"]] == ["the reason", "another"]
    monkeypatch.setattr(accept, "prepare", None)
    for why in (None, "", "  "):
        with pytest.raises(GateReferenceError, match="--why"):
            accept_reference(load_study("tiny.toml"), why, **options)  # type: ignore[arg-type]


def test_the_code_as_it_is_passes_by_its_bits(folder: Path) -> None:
    """With a fresh reference, the gate passes by its bits; judging its folder again gives the same verdict."""
    verdict = gate(reference=folder / "ref", out=folder / "now", workers=0)
    assert verdict.outcome == "pass"
    assert "every bit of 8 runs" in verdict.sentence
    assert verdict.page == folder / "now" / "gate.md"
    assert verdict.page.read_text().startswith("# Regression gate: pass")
    verdict.page.unlink()
    again = gate(folder / "now", reference=folder / "ref")
    assert again.page == verdict.page
    assert again.page.exists()
    assert again.sentence == verdict.sentence
    pd.testing.assert_frame_equal(again.shifts, verdict.shifts)


def test_values_are_judged_without_a_page(folder: Path) -> None:
    """Results and tables are judged like a folder, but by their runs alone; a page is written only where asked for."""
    known = load_reference(folder / "ref")
    gate(reference=folder / "ref", out=folder / "values", workers=0)
    results = load(folder / "values")
    table = known.evidence.runs.query("repeat == 0").drop(columns="repeat")
    shifts = gate(folder / "values", reference=known).shifts
    of_no_study = replace(known, evidence=replace(known.evidence, study=None))
    for verdict in (gate(results, reference=known), gate(table, reference=of_no_study)):
        assert verdict.page is None
        pd.testing.assert_frame_equal(verdict.shifts, shifts)
    assert gate(results, reference=known, out=folder / "page").page == folder / "page" / "gate.md"
    with pytest.raises(GateReferenceError, match="the folder of a reference"):
        gate(reference=known)


def test_a_planted_mistake_ends_it_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that is off by 1 % fails by the golden runs, before the others are trained."""
    step, trained = train, []

    def wrong(run, images, **rest):  # type: ignore[no-untyped-def]
        trained.append(run)
        settings = run.settings.model_copy(update={"learning_rate": 0.00101})
        return step(type(run)(run.study, run.cell, run.factors, run.seed, settings, run.engine), images, **rest)

    monkeypatch.setattr(worker, "train", wrong)
    verdict = gate(reference=folder / "ref", out=folder / "bad", workers=0)
    assert (verdict.outcome, verdict.exit_status) == ("fail", 1)
    assert "loss of step 2" in verdict.sentence
    assert not (folder / "bad" / "runs").exists()
    assert verdict.page is not None
    assert "**FAIL**" in verdict.page.read_text()


def test_training_that_fails_is_on_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a run cannot be trained, the verdict is a regression that names run and cause, on the page too."""
    monkeypatch.setattr(worker, "train", lambda *_, **__: 1 / 0)
    verdict = gate(reference=folder / "ref", out=folder / "bad", workers=0)
    assert verdict.exit_status == 1
    assert verdict.page is not None
    assert "cannot be trained: ZeroDivisionError" in verdict.page.read_text()
    assert "<failure" in verdict.page.with_suffix(".xml").read_text()


def test_the_stored_network_is_evaluated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored network reveals a mistake that is in evaluation alone."""
    evaluate = worker.evaluate
    monkeypatch.setattr(
        worker, "evaluate", lambda run, weights: (evaluate(run, weights)[0], 9 - evaluate(run, weights)[1])
    )
    verdict = gate(reference=folder / "ref", out=folder / "bad", workers=0)
    assert verdict.outcome == "fail"
    assert "the stored network predicts something else" in verdict.sentence


def test_without_numba_the_gate_trains_with_autograd(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reference of the engine fused is judged by autograd where Numba cannot be had, which is said."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    trained = []
    monkeypatch.setattr(worker, "train", lambda run, *_, **__: trained.append(run.engine) or train(run, *_, **__))  # type: ignore[func-returns-value]
    gate(reference=folder / "ref", out=folder / "slow", workers=0)
    assert set(trained) == {"autograd"}
    assert "NUMBA_DISABLE_JIT turns Numba's compiler off, so the slower engine autograd" in capsys.readouterr().err


def test_a_reference_without_its_network_gives_no_verdict(folder: Path) -> None:
    """If the reference has lost the stored network, that is damage of the reference, found before training."""
    shutil.copytree(folder / "ref", folder / "lost")
    (folder / "lost" / "checkpoint.npz").unlink()
    with pytest.raises(DamagedFileError, match=r"lost/checkpoint\.npz: cannot be read"):
        gate(reference=folder / "lost", out=folder / "none", workers=0)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


@pytest.mark.parametrize(
    ("files", "damage", "told"),
    [
        ("network.json", _cut, r"network\.json: cannot be read"),
        ("network.json", Path.unlink, r"network\.json: cannot be read"),
        ("golden/runs/*", _cut, r"golden/runs/.*: damaged"),
        ("golden/runs/*", Path.unlink, "golden: not complete"),
        ("runs/*", _cut, r"runs/.*: damaged"),
    ],
)
def test_damaged_results_give_no_verdict(
    folder: Path, tmp_path: Path, files: str, damage: Callable[[Path], None], told: str
) -> None:
    """A folder in which a file is damaged or missing is not judged: what it lacks is no regression."""
    gate(reference=folder / "ref", out=tmp_path / "sound", workers=0)
    damage(sorted((tmp_path / "sound").glob(files))[0])
    with pytest.raises(DamagedFileError, match=f"{told}.*Train again"):
        gate(tmp_path / "sound", reference=folder / "ref")


def test_a_regression_is_one_even_without_its_page(folder: Path, tmp_path: Path) -> None:
    """Where the page cannot be written, a regression is still returned; any other verdict ends with the cause."""
    known = load_reference(folder / "ref")
    table = known.evidence.runs.query("repeat == 0").drop(columns="repeat")
    of_no_study = replace(known, evidence=replace(known.evidence, study=None))
    (tmp_path / "file").write_text("")
    said: list[str] = []
    worse = table.assign(value=table["value"] - 50)
    verdict = gate(worse, reference=of_no_study, out=tmp_path / "file", say=said.append)
    assert (verdict.exit_status, verdict.page) == (1, None)
    assert "file" in said[0]
    with pytest.raises((OSError, StorageError)):
        gate(table, reference=of_no_study, out=tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs limits of POSIX")
def test_a_full_disk_is_no_regression(folder: Path) -> None:
    """Where results cannot be written, the error says so, and there is no verdict."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(StorageError, match="cannot be written"):
            gate(reference=folder / "ref", out=folder / "full", workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("engine", "minutes"), [("fused", 3 * (2 + 24) + 3 * 12 + 4 * (12 + 2 * 3)), ("autograd", 4 * 120)]
)
def test_the_cost_is_that_of_the_engines_that_train(engine: str, minutes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of cells counts, golden or not, each with its own engine; here autograd takes four times as long."""
    monkeypatch.setattr(accept, "BANK", range(24))
    monkeypatch.setattr(accept, "GOLDEN_SEEDS", tuple(range(12)))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 240 if runs[0].engine == "autograd" else 60)
    study = runner.with_engine(load_study("gate").with_options(engine=engine))
    cost = accept.cost(study, runs.golden_study(study), 0)
    assert cost == (f"624 runs with the engine {engine}, and their golden runs: about {minutes} minutes with 1 workers")


def test_limits_are_those_of_the_worst_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden runs vary rounding and engine, and autograd's processor; the first variant changes nothing."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    golden = runs.golden_study(load_study("gate"))
    variants = list(accept._variants(golden))
    assert variants[0][1:] == ("same", golden, {}, 0)
    assert {nudge for _, _, _, _, nudge in variants} == {0, 1, 2}
    assert {study.chosen_engine for _, kind, study, _, _ in variants if kind == "other"} == {"autograd"}
    assert {study.chosen_engine for _, _, study, environment, _ in variants if environment} == {"autograd"}
    own = list(accept._variants(golden.with_options(engine="autograd")))
    assert {kind for _, kind, _, _, _ in own} == {"same"}
    assert len([environment for _, _, _, environment, _ in own if environment]) == 2
    assert golden.protocol.validation_fraction == runs.GOLDEN_FRACTION


def test_weights_are_read_as_they_were_written(folder: Path) -> None:
    """The stored network is a narrow one of the last cell, its weights finite numbers."""
    weights = runs.load_weights(folder / "ref" / "checkpoint.npz")
    assert runs.checkpoint_run(load_study("gate")).settings.width == 64
    assert runs.checkpoint_run(load_study("tiny.toml")).cell == "dropout+batch_norm"
    assert all(np.isfinite(values).all() for values in weights.values())
