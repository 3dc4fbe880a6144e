"""Measure a graphics card: bits, the main job, packs of runs, peers and bounds. ``nox -s gpu``, or with any Python.

The machine needs no registry. ``--wheels DIR`` takes packages that it lacks from a folder; MNIST must be in the user's
cache, or come with ``--mnist DIR``. Each part is stored when it ends, so a card that is taken away, or a peer that is
missing, loses nothing else; none begins when six minutes are nearly over. docs/gpu.md is the runbook.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks" / "peers")]
PEERS = (
    ("JAX, vmap and scan", "jax_packed.py", 80),
    ("torch, bmm and CUDA graphs", "torch_packed.py", 80),
    ("torch, one model, CUDA graphs", "torch_packed.py", 1),
)
PACKS = (1, 10, 80, 132, 264, 1000)
SEEDS = 10
EPOCHS = 5
LIMIT = 360.0
"""Seconds for all parts together."""


@dataclass
class Table:
    """What was measured so far: stored after each part, and printed last."""

    file: Path
    about: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the six minutes are over."""
        return max(self.began + LIMIT - time.monotonic(), 1)

    def add(self, part: str, what: str, value: float | str, unit: str = "") -> None:
        """Note a number, or why there is none."""
        number, note = (float("nan"), value) if isinstance(value, str) else (float(value), "")
        self.rows.append({"part": part, "what": what, "value": number, "unit": unit, "note": note, **self.about})
        print(f"{part:10} {what:44} {value if note else format(number, ',.4g')} {unit}", flush=True)

    def store(self) -> None:
        """Write everything so far."""
        import pandas as pd

        self.file.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.rows).to_parquet(self.file, index=False)


def main() -> int:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="packages that this Python lacks")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="a folder with MNIST's files")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "gpu.parquet")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        if options.wheels:
            _install(options.wheels, Path(scratch) / "site")
        if options.mnist:
            command = [sys.executable, "-m", "mnist_ablate", "data", "--from", str(options.mnist)]
            subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603
        table = Table(options.out)
        try:
            scene = Scene.set(table, Path(scratch))
        except Exception as error:  # noqa: BLE001 # without a card nothing can be measured
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
        for name in options.only:
            if table.left < 20:
                table.add(name, "", "not reached within six minutes")
                continue
            try:
                PARTS[name](scene, table)
            except Exception as error:  # noqa: BLE001 # the other parts go on
                table.add(name, "", f"{type(error).__name__}: {error}"[:300])
            table.store()
    print()
    for row in table.rows:
        print(f"{row['part']:10} {row['what']:44} {row['note'] or format(row['value'], ',.4g')} {row['unit']}")
    print(f"{time.monotonic() - began:.0f} s in all; stored in {options.out}")
    wrong = [row for row in table.rows if row["unit"] == "digests that differ" and row["value"] != 0]
    return 1 if wrong else 0


def _install(wheels: Path, site: Path) -> None:
    files = [str(path) for path in sorted(wheels.glob("*.whl"))]
    quiet = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, *files], check=True)  # noqa: S603
    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])


@dataclass
class Scene:
    """The card with its kernels, the images, and a folder to store in."""

    card: Any
    trainer: Any
    images: Any
    scratch: Path

    @classmethod
    def set(cls, table: Table, scratch: Path) -> "Scene":
        """Prepare everything; the time that it takes is counted apart."""
        began = time.perf_counter()
        from mnist_ablate import data
        from mnist_ablate.training.engines.card.compiler import Compiler
        from mnist_ablate.training.engines.card.driver import Card
        from mnist_ablate.training.engines.card.study import Trainer

        imported = time.perf_counter()
        card = Card()
        table.about = {"card": card.name, "driver": card.driver_version, "nvrtc": Compiler().version,
                       "multiprocessors": card.multiprocessors, "python": sys.version.split()[0]}  # fmt: skip
        trainer = Trainer(card)
        compiled = time.perf_counter()
        images = data.load("mnist")
        table.add("start", "import", imported - began, "s")
        table.add("start", "compile the kernels, or load them", compiled - imported, "s")
        table.add("start", "read the images", time.perf_counter() - compiled, "s")
        return cls(card, trainer, images, scratch)


def _runs(n: int, epochs: int = EPOCHS) -> list[Any]:
    """Return the first n runs of the main study, with more seeds if needed."""
    from mnist_ablate.design.plan import plan
    from mnist_ablate.design.study import load_study

    study = load_study("factorial").with_options(seeds=-(-n // 8), epochs=epochs, engine="fused")
    return [replace(run, probes=()) for run in plan(study)][:n]


# ---- (a) Bits ----


def bits(scene: Scene, table: Table) -> None:
    """Compare 16 runs with the digests that are committed for processors: alone, in 80 and in 500."""
    import digests

    drawn, known = digests.images(), digests.runs()
    sixteen = [known[name] for name in list(known)[:16]]
    for company in (1, 80, 500):
        packs = [[run] for run in sixteen] if company == 1 else [[*sixteen, *_crowd(sixteen, company - 16)]]
        wrong = 0
        for pack in packs:
            for run, result in scene.trainer.train(pack, drawn):
                if run in sixteen:
                    wrong += isinstance(result, Exception) or digests.digest(result) != digests.expected()[run.cell]
        table.add("bits", f"16 runs, {company} at once", wrong, "digests that differ")


def _crowd(some: Sequence[Any], n: int) -> list[Any]:
    """Return n other runs of the same settings."""
    return [replace(some[k % len(some)], seed=1 + k // len(some), probes=()) for k in range(n)]


# ---- (b) The main job ----


def main_job(scene: Scene, table: Table) -> None:
    """Train and store 80 runs of 5 epochs, five times; compare their weights with the committed reference."""
    from mnist_ablate.design.study import load_study
    from mnist_ablate.store.folder import Store
    from mnist_ablate.store.results import load
    from mnist_ablate.training.worker import _trained

    runs = _runs(8 * SEEDS)
    stored = load(ROOT / "results" / "reference" / "factorial").documents
    for repeat in range(5):
        store = Store(scene.scratch / f"main-{repeat}")
        study = load_study("factorial").with_options(seeds=SEEDS, engine="fused")
        wrong = 0
        began = time.perf_counter()
        with store.opened(study, print):
            for run, result in scene.trainer.train(runs, scene.images):
                if isinstance(result, Exception):
                    raise result
                rows, predictions, document = _trained(run, result, scene.images, {})
                store.write_run(run, rows, predictions, document)
                known = stored.get(run.run_id)
                wrong += known is not None and known["weights_sha256"] != result.weights_sha256
        table.add("main job", f"80 runs of 5 epochs, time {repeat + 1}", time.perf_counter() - began, "s")
        if repeat == 0:
            known_runs = sum(run.run_id in stored for run in runs)
            table.add("main job", f"weights as committed, of {known_runs} runs", wrong, "digests that differ")
    command = [sys.executable, "-m", "mnist_ablate", "run", "--device", "cuda", "--out", str(scene.scratch / "whole")]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, timeout=min(60, table.left), stdout=subprocess.DEVNULL)  # noqa: S603
    table.add("main job", "the whole command, start-up included", time.perf_counter() - began, "s")


# ---- (c) Packs ----


def packs(scene: Scene, table: Table) -> None:
    """Train 1 to 1,000 runs at once."""
    for n in PACKS:
        runs = _runs(n)
        began = time.perf_counter()
        ended = sum(not isinstance(result, Exception) for _, result in scene.trainer.train(runs, scene.images))
        seconds = time.perf_counter() - began
        table.add("packs", f"{n} runs at once", seconds, "s")
        table.add("packs", f"{n} runs at once, pace", ended / seconds, "runs/s")
        table.store()


# ---- (d) Peers ----


def peers(scene: Scene, table: Table) -> None:
    """Train as many models with JAX and torch on the same card, with the same evaluations."""
    import numpy as np

    task = scene.scratch / "task.npz"
    np.savez(task, **_task(scene.images, 80))
    for name, script, models in PEERS:
        for cell in ("baseline", "dropout+batch_norm"):
            command = [sys.executable, str(HERE / script), "--task", str(task), "--models", str(models), "--cell", cell]
            try:
                done = subprocess.run(  # noqa: S603
                    [*command, "--epochs", "2"], capture_output=True, text=True, timeout=min(40, table.left), check=True
                )
                line = json.loads(done.stdout.splitlines()[-1])
            except (subprocess.SubprocessError, ValueError, IndexError) as error:
                said = getattr(error, "stderr", None)
                last = (said or "").strip().splitlines()[-1:] or [str(error)]
                table.add("peers", f"{name}, {cell}", last[0][:200])
                continue
            table.add(
                "peers", f"{name}, {cell}, {line['models']} models", line["seconds"] / 2 * EPOCHS, "s for 5 epochs"
            )
            table.add("peers", f"{name}, {cell}, test accuracy", line["test_accuracy"], "")
        table.store()


def _task(images: Any, models: int) -> dict[str, Any]:
    """Return what the first seeds start from, as `benchmarks/peers/common.py` describes it."""
    import numpy as np

    from mnist_ablate import data
    from mnist_ablate.design.settings import Settings
    from mnist_ablate.training.model import mlp
    from mnist_ablate.training.protocol import TRAIN_SAMPLE, order_of_images

    seeds = [k % SEEDS for k in range(models)]
    splits = {seed: data.split(len(images.train_labels), seed, 0.2) for seed in set(seeds)}
    orders = {seed: [splits[seed][0][order_of_images(seed, epoch, 48_000)] for epoch in (1, 2)] for seed in set(seeds)}
    states = {seed: mlp(Settings(), seed).state_dict() for seed in set(seeds)}
    return {
        **{name: getattr(images, name) for name in ("train_images", "train_labels", "test_images", "test_labels")},
        "orders": np.array([orders[seed] for seed in seeds], np.int32),
        "sample_rows": np.array([splits[seed][0][:TRAIN_SAMPLE] for seed in seeds], np.int32),
        "val_rows": np.array([splits[seed][1] for seed in seeds], np.int32),
        **{name: np.stack([states[seed][name].numpy() for seed in seeds]) for name in states[0]},
    }


# ---- (e) Bounds ----


def bounds(scene: Scene, table: Table) -> None:
    """Measure how fast the card copies, and what share of that the training of 80 runs reaches."""
    import ctypes

    card, size, times = scene.card, 2**30, 20
    with card.memory(size) as one, card.memory(size) as other:

        def copy() -> None:
            card._call(
                "cuMemcpyDtoDAsync_v2", ctypes.c_uint64(other), ctypes.c_uint64(one), ctypes.c_size_t(size), None
            )

        copy()
        card.wait()
        began = time.perf_counter()
        for _ in range(times):
            copy()
        card.wait()
        pace = 2 * size * times / (time.perf_counter() - began)
    table.add("bounds", "copies, bytes read and written", pace / 1e9, "GB/s")
    runs = _runs(80, epochs=1)
    results = [result for _, result in scene.trainer.train(runs, scene.images)]
    seconds = max(result.rows[0]["train_seconds"] for result in results)
    # Weights are read for the forward pass; weights and both moments are read and written in the update.
    moved = 80 * 750 * 7 * 4 * (784 * 256 + 256 * 256 + 256 * 10)
    products = 80 * 750 * 64 * (2 * 784 * 256 + 3 * 256 * 256 + 3 * 256 * 10)
    table.add("bounds", "a step of 80 runs", 1e3 * seconds / 750, "ms")
    table.add("bounds", "weights and moments moved", moved / seconds / 1e9, "GB/s")
    table.add("bounds", "share of what copies reach", moved / seconds / pace, "")
    table.add("bounds", "fused multiply-adds", products / seconds / 1e12, "10^12/s")


def races(_scene: Scene, table: Table) -> None:
    """Have NVIDIA's sanitizer look for races in a tiny study, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        table.add("races", "compute-sanitizer", "not installed")
        return
    for check in ("racecheck", "memcheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, str(HERE / "tiny.py")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=min(60, table.left), check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            table.add("races", check, "not finished within a minute")
            continue
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line][-1:] or [f"exit {done.returncode}"]
        table.add("races", check, summary[0].strip("= ")[:200])


PARTS: dict[str, Callable[[Scene, Table], None]] = {
    "bits": bits, "main": main_job, "packs": packs, "bounds": bounds, "peers": peers, "races": races,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
