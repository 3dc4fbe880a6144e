"""`nox -s gpu` without a card: how processes end and what is stored, and its parts with kernels on the processor."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import digests
import host_card
import numpy as np
import pandas as pd
import psutil
import pytest

from mnist_ablate.execution.card import has_driver
from mnist_ablate.store.results import load
from mnist_ablate.training.engines.card import compiler
from mnist_ablate.training.engines.card.study import Trainer
from mnist_ablate.training.protocol import RunResult

ROOT = Path(__file__).parents[2]
HERE = ROOT / "benchmarks" / "gpu"
pytestmark = pytest.mark.skipif(bool(host_card.WHY_NOT), reason=host_card.WHY_NOT)
TELLING = "import os, subprocess, sys, time; from telling import tell, tell_about, trying; "


def scripts(name: str, patch: pytest.MonkeyPatch) -> Any:
    """Import a script of `nox -s gpu`."""
    patch.setattr(sys, "path", [*sys.path, str(HERE), str(ROOT / "benchmarks" / "peers")])
    return importlib.import_module(name)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what runs processes, which find `telling.py`; time is over as soon as one begins a step called "hangs"."""
    module = scripts("bench", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    with (tmp_path / "gpu.log").open("w") as log:
        made = module.Bench(module.Table.read(tmp_path / "gpu.parquet"), log, tmp_path, time.monotonic() + 600, False)
        clock = SimpleNamespace(
            monotonic=lambda: time.monotonic() + 200 * (made.step == "hangs"), sleep=lambda _: time.sleep(0.02)
        )
        monkeypatch.setattr(module, "time", clock)
        yield made


def stored(bench: Any) -> list[tuple[str, str, str]]:
    """Return part, what and note or value of each stored row."""
    rows = pd.read_parquet(bench.table.file).to_dict("records")
    return [(row["part"], row["what"], row["note"] or f"{row['value']:g} {row['unit']}".strip()) for row in rows]


def python(code: str) -> list[str]:
    """Return a command that runs code, with `telling` and the usual modules imported."""
    return [sys.executable, "-c", TELLING + code]


ENDS = {
    "hangs": ("time.sleep(600)", "not finished within 100 s"),
    "crashes": ("os._exit(7)", "exit status 7: "),
    "a signal": ("os.kill(os.getpid(), 11)", "ended by signal 11, Segmentation fault"),
    "an error that is not caught": ("raise SystemExit('planted: no')", "exit status 1: planted: no"),
}


@pytest.mark.parametrize("how", ENDS)
def test_how_a_process_ends(how: str, bench: Any) -> None:
    """What it told before is stored, and a row names the step and the cause; the next process runs."""
    code, why = ENDS[how]
    ended = bench.noted("main", python(f"tell('one', 1.5, 's')\nwith trying('{how}'): {code}"), 100)
    assert ended.why == why
    assert bench.noted("bits", python("tell('three', 3)"), 100).why == ""
    assert stored(bench) == [("main", "one", "1.5 s"), ("main", how, why), ("bits", "three", "3")]
    assert [row["failed"] for row in bench.table.rows] == [False, True, False]


def test_what_a_process_started_ends_with_it(bench: Any) -> None:
    """After its limit nothing of it is left; the log says where it was."""
    code = "child = subprocess.Popen(['sleep', '600']); tell('child', child.pid)\nwith trying('hangs'): child.wait()"
    bench.noted("main", python(code), 100)
    child = int(bench.table.rows[0]["value"])
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert "Fatal Python error: Aborted" in Path(bench.log.name).read_text()


def wait_until(so: Callable[[], bool]) -> None:
    """Wait until something is so, at most a minute."""
    ends = time.monotonic() + 60
    while not so():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_an_exception_ends_a_step_and_no_more(bench: Any) -> None:
    """The row has the error's kind and words, the log the traceback."""
    bench.noted("main", python("\nwith trying('a'): [][1]\nwith trying('b'): tell('b', 2)"), 100)
    assert stored(bench) == [("main", "a", "IndexError: list index out of range"), ("main", "b", "2")]
    assert "Traceback" in Path(bench.log.name).read_text()


def test_what_cannot_be_measured_is_no_failure(bench: Any) -> None:
    """A library that is missing, or a part that is not reached, has a row that does not count as wrong."""
    bench.noted("peers", python("print('no such library'); sys.exit(3)"), 100, what="JAX")
    bench.ends -= 600
    bench.noted("profile", python("tell('never', 1)"), 100)
    assert stored(bench) == [
        ("peers", "JAX", "no such library"),
        ("profile", "at its start", "not reached within the limit"),
    ]
    assert not any(row["failed"] for row in bench.table.rows)


def test_a_second_call_adds_to_the_first(bench: Any, tmp_path: Path) -> None:
    """Rows of other parts and of other cards stay; a part that begins again replaces its own."""
    run: Callable[[str, str], object] = lambda part, code: bench.noted(part, python(code), 100)  # noqa: E731
    run("start", "tell_about(card='A', driver=13000, nvrtc=13000, multiprocessors=132, python='3.12')")
    run("main", "tell('x', 1); tell('y', 1)")
    run("peers", "tell('x', 2)")
    bench.table = type(bench.table).read(tmp_path / "gpu.parquet")
    run("start", "tell_about(card='A', driver=13000, nvrtc=13000, multiprocessors=132, python='3.12')")
    run("main", "tell('x', 3)")
    bench.ends -= 600
    run("peers", "tell('x', 4)")
    assert stored(bench) == [("peers", "x", "2"), ("main", "x", "3")]
    bench.ends += 600
    run("start", "tell_about(card='B', driver=13000, nvrtc=13000, multiprocessors=2, python='3.12')")
    run("main", "tell('x', 5)")
    assert stored(bench) == [("peers", "x", "2"), ("main", "x", "3"), ("main", "x", "5")]


# ---- The script ----


def measured(out: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the script, next to nothing of each part."""
    command = [sys.executable, str(HERE / "card.py"), "--quick", "--limit", "6000", "--out", str(out), *options]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.skipif(has_driver(), reason="this machine has a driver")
def test_no_card(tmp_path: Path) -> None:
    """Status 2, one sentence, no table."""
    done = measured(tmp_path / "gpu.parquet")
    assert (done.returncode, done.stderr) == (2, "Nothing was measured: this machine has no CUDA driver.\n")
    assert not (tmp_path / "gpu.parquet").exists()


def test_what_was_brought_is_wrong(tmp_path: Path) -> None:
    """A folder without MNIST's files, or a table that cannot be read, ends with status 2, and nothing is measured."""
    (tmp_path / "gpu.parquet").write_text("no table")
    done = measured(tmp_path / "gpu.parquet")
    assert (done.returncode, "Nothing was measured: " in done.stderr) == (2, True)
    empty = {"MNIST_ABLATE_DATA": str(tmp_path / "data")}
    done = measured(tmp_path / "other.parquet", "--mnist", str(tmp_path), **empty)
    assert (done.returncode, "neither train-images-idx3-ubyte nor" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a driver's library whose card is the processor; the kernels for a card are compiled beforehand."""
    code = f"from {compiler.__name__} import machine_code; machine_code(90, 13000)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return host_card.build(tmp_path_factory.mktemp("driver"))


@pytest.mark.mnist
def test_parts_on_a_card_that_is_none(driver: Path, tmp_path: Path) -> None:
    """The main job, bits, bounds and packs, each in its process, with a driver whose card is the processor."""
    parts = ["--only", "main", "bits", "bounds", "packs"]
    done = measured(tmp_path / "gpu.parquet", *parts, LD_LIBRARY_PATH=str(driver.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_parquet(tmp_path / "gpu.parquet")
    assert set(rows["card"]) == {"Test card"}
    assert not any(rows["failed"])
    found = {part: list(of_part["what"]) for part, of_part in rows.groupby("part", sort=False)}
    assert list(found) == ["start", "main", "bits", "bounds", "packs"]
    assert {"2 runs of 1 epochs, time 2", "the whole command, start-up included"} <= set(found["main"])
    assert found["bits"] == ["2 runs, 1 at once", "2 runs, 3 at once"]
    assert "share of what copies reach" in found["bounds"]
    assert found["packs"][-1] == "3 runs at once, pace"


# ---- What is said of wrong runs ----


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import parts.py."""
    return scripts("parts", monkeypatch)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what was told: value by name."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return {line["what"]: line["value"] for line in lines if "what" in line}


@pytest.fixture
def scene(driver: Path, tmp_path: Path, parts: Any) -> Any:
    """Return a card in this process."""
    made = parts.Scene(tmp_path, parts.QUICK)
    made.card = host_card.HostCard(driver)
    made.card.have(2048)
    made.trainer, made.images = Trainer(made.card, b""), digests.images()
    return made


def test_the_step_of_a_wrong_bit_is_named(
    parts: Any, scene: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adam's mean rounded twice changes a run's second loss or a later one, which is named; so is each wrong run."""
    edit = ("fma(rule.new_m, g[e], rule.keep_m * m[e])", "(rule.new_m * g[e] + rule.keep_m * m[e])")
    scene.card = host_card.HostCard(host_card.build(tmp_path, edit))
    scene.card.have(2048)
    scene.trainer, scene.scale = Trainer(scene.card, b""), replace(scene.scale, digests=("batch of one",))
    parts.bits(scene)
    found = told(capsys)
    assert found["1 runs, 1 at once"] == found["1 runs, 3 at once"] == 1
    assert found["batch of one"].startswith("from the processor: the training loss of step ")


def test_a_run_that_fails_is_named(
    parts: Any, scene: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's error is told with the run; an error of the card, with the step; others go on."""
    real = scene.trainer.train

    def fails(runs: Any, images: Any) -> Any:
        for run, result in real(runs, images):
            yield run, ValueError("planted") if run.cell == "batch of one" else result
        if len(runs) == 3:
            raise RuntimeError("cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED")

    monkeypatch.setattr(scene.trainer, "train", fails)
    parts.bits(scene)
    found = told(capsys)
    assert found["batch of one"] == "ValueError: planted"
    assert found["3 at once"] == "RuntimeError: cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED"
    assert found["2 runs, 1 at once"] == 1


def test_weights_that_are_not_those_committed(parts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run of the main job that is wrong, the first epoch and number that differ are named."""
    committed = load(ROOT / "results" / "reference" / "factorial")
    run = next(run for run in parts.plan(committed.study) if run.run_id in committed.documents)
    rows = committed.epochs[committed.epochs["run_id"] == run.run_id].sort_values("epoch").to_dict("records")
    rows[2]["val_loss"] += 1e-9
    document = committed.documents[run.run_id]
    result = RunResult(rows, {}, [], "other", {}, {})
    parts._compare([(run, result)], SimpleNamespace(sha256=document["data_sha256"]))
    found = told(capsys)
    assert found["weights as committed, of 1 runs"] == 1
    assert found[f"{run.cell}, seed {run.seed}"].startswith("from what is committed: val_loss of epoch 3 was ")


# ---- Programs of others ----


def tool(folder: Path, text: str) -> str:
    """Write a tool of NVIDIA's that only says something."""
    file = folder / "tool"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_a_sanitizer(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its summary is kept; errors that it finds count as a failure; without it, that is said."""
    card = scripts("card", monkeypatch)
    monkeypatch.setattr(card, "_tool", lambda _: "")
    card.races(bench)
    assert stored(bench) == [("races", "compute-sanitizer", "not installed")]
    says = 'echo "========= $2 SUMMARY: 1 error"; [ $2 != memcheck ] || exit 9'
    monkeypatch.setattr(card, "_tool", lambda _: tool(tmp_path, says))
    card.races(bench)
    assert stored(bench)[1:] == [
        ("races", "racecheck, which sees shared memory alone", "racecheck SUMMARY: 1 error"),
        ("races", "memcheck", "memcheck SUMMARY: 1 error; exit status 9: ========= memcheck SUMMARY: 1 error"),
        ("races", "synccheck", "synccheck SUMMARY: 1 error"),
    ]
    assert [row["failed"] for row in bench.table.rows[1:]] == [False, True, False]


def test_a_profiler(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its report and two pages lie beside the table; without it, or without a report, that is said and nothing else."""
    card = scripts("card", monkeypatch)
    for text, row in {
        "": ("ncu", "not installed"),
        "echo '==ERROR== ERR_NVGPUCTRPERM'; exit 1": (
            "80 runs, 30 steps",
            "exit status 1: ==ERROR== ERR_NVGPUCTRPERM",
        ),
        "[ $1 = --import ] && echo $5 || echo report > $6": ("80 runs, 30 steps, gpu.ncu-rep", "7e-06 MB"),
    }.items():
        monkeypatch.setattr(card, "_tool", lambda _, text=text: tool(tmp_path, text) if text else "")
        card.profile(bench)
        assert ("profile", *row) in stored(bench)
    assert not any(row["failed"] for row in bench.table.rows)
    assert (tmp_path / "gpu.source.csv").read_text() == "source\n"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Write a small task for two models."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "orders": rng.integers(0, 300, (2, 1, 128)),
        "sample_rows": rng.integers(0, 300, (2, 500)),
    }
    arrays["val_rows"] = arrays["sample_rows"]
    for name, n in (("train", 300), ("test", 500)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (n, 784), dtype=np.uint8)
        arrays[f"{name}_labels"] = rng.integers(0, 10, n, dtype=np.uint8)
    for name, (inputs, outputs) in {"linear1": (784, 256), "linear2": (256, 256), "output": (256, 10)}.items():
        arrays[f"{name}.weight"] = rng.normal(0, 0.05, (2, outputs, inputs)).astype(np.float32)
        arrays[f"{name}.bias"] = np.zeros((2, outputs), np.float32)
    np.savez(tmp_path / "task.npz", **arrays)
    return tmp_path / "task.npz"


def peer(bench: Any, script: str, task: Path, *options: str) -> list[tuple[str, str, str]]:
    """Run a peer's script as the bench does; return the rows."""
    command = [sys.executable, str(HERE / script), "--name", "Peer", "--task", str(task), "--models", "2", *options]
    bench.noted("peers", command, 100, what="Peer", wrong=False)
    return stored(bench)


def test_torch_in_each_mode(bench: Any, task: Path) -> None:
    """Both cells are timed in TF32 and in full float32, and named so."""
    names = [what for _, what, _ in peer(bench, "torch_packed.py", task, "--quick")]
    modes = [f"Peer, {mode}, {cell}" for mode in ("TF32", "float32") for cell in ("baseline", "dropout+batch_norm")]
    assert names == ["Peer", *(f"{what}, {of}" for what in modes for of in ("2 models", "test accuracy"))]


def test_a_peer_without_a_card(bench: Any, task: Path) -> None:
    """A torch without a card says so, and trains nothing on the processor."""
    if has_driver():
        pytest.skip("this machine has a driver")
    ((_, what, note),) = peer(bench, "torch_packed.py", task)
    assert (what, "has no card" in note) == ("Peer", True)


def test_jax(bench: Any, task: Path) -> None:
    """A JAX that is not installed, or has no card, is said; one with a card is for `nox -s gpu`."""
    if has_driver():
        pytest.skip("this machine has a driver")
    ((_, what, note),) = peer(bench, "jax_packed.py", task)
    assert (what, "JAX cannot be imported" in note or "has no card" in note) == ("Peer", True)
