"""What `card.py` measures of this project, each part in a process of its own: ``parts.py PART --scratch DIR``."""

import argparse
import ctypes
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import digests
import numpy as np
from task import task_of
from telling import UNAVAILABLE, in_words, tell, tell_about, trying

from mnist_ablate import data
from mnist_ablate.data import CLASSES, PIXELS, Images, training_size
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, load_study
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.store.bits import parting
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.training.engines.card.compiler import Compiler
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.study import Found, Trainer
from mnist_ablate.training.protocol import RunResult, train
from mnist_ablate.training.worker import _trained

ROOT = Path(__file__).parents[2]
SHOWN = 8
"""How many wrong runs are looked into."""
TINY = """
name = "tiny"
[protocol]
width = 20
validation_fraction = 0.01
train_images = 200
[factors]
batch_norm = [false, true]
"""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    study: str
    seeds: int
    epochs: int
    repeats: int
    packs: tuple[int, ...]
    digests: tuple[str, ...]
    """Names of runs whose digests are compared."""
    companies: tuple[int, ...]
    """How many runs train at once with them."""
    copied: int
    """Bytes."""
    models: int
    """Which peers train."""


FULL = Scale("factorial", 10, 5, 5, (1, 10, 80, 132, 264, 1000), tuple(digests.runs()), (1, 80, 500), 2**30, 80)
QUICK = Scale("tiny.toml", 1, 1, 2, (1, 3), ("depth 3, odd width", "batch of one"), (1, 3), 2**20, 2)
"""Measures nothing; shows that each line works, where a processor stands in for a card."""


class Scene:
    """The card with its kernels, the images, and a folder to store in."""

    def __init__(self, scratch: Path, scale: Scale) -> None:
        self.scratch, self.scale = scratch, scale

    @cached_property
    def card(self) -> Card:
        """The first card."""
        return Card()

    @cached_property
    def trainer(self) -> Trainer:
        """The kernels, which `start` has compiled."""
        return Trainer(self.card)

    @cached_property
    def images(self) -> Images:
        """MNIST."""
        return data.load("mnist")

    @property
    def name(self) -> str:
        """The study as `run` knows it."""
        return str(self.scratch / self.scale.study) if self.scale is QUICK else self.scale.study

    @cached_property
    def study(self) -> Study:
        """The main job."""
        return load_study(self.name).with_options(seeds=self.scale.seeds, epochs=self.scale.epochs, engine="fused")

    def ready(self) -> None:
        """Have everything before a clock starts."""
        assert self.trainer
        assert self.images

    def runs(self, n: int, **options: Any) -> list[Run]:
        """Return the first n runs of the main job, with more seeds if needed."""
        cells = len(plan(self.study)) // self.scale.seeds
        return [replace(run, probes=()) for run in plan(self.study.with_options(seeds=-(-n // cells), **options))][:n]


# ---- Start ----


def start(scene: Scene) -> None:
    """Say what card it is; time what comes before the first run."""
    imported = time.monotonic() - float(os.environ["BEGAN"])
    card = scene.card
    tell_about(card=card.name, driver=card.driver_version, nvrtc=Compiler().version,
               multiprocessors=card.multiprocessors, python=sys.version.split()[0])  # fmt: skip
    tell("start Python, import", imported, "s")
    began = time.perf_counter()
    assert scene.trainer
    tell("compile the kernels, or load them", time.perf_counter() - began, "s")
    began = time.perf_counter()
    assert scene.images
    tell("read the images", time.perf_counter() - began, "s")


def warm(_: Scene) -> None:
    """Have Numba compile what the processor computes: probes, and the runs that wrong ones are compared with."""
    os.nice(19)
    train(digests.runs()["all techniques"], digests.images())


# ---- The main job ----


def main_job(scene: Scene) -> None:
    """Train and store the study some times; compare the weights with those that are committed."""
    scene.ready()
    runs = [replace(run, probes=()) for run in plan(scene.study)]
    with Store(scene.scratch / "first").opened(scene.study):
        pass  # imports what storing needs
    for repeat in range(1, scene.scale.repeats + 1):
        job = f"{len(runs)} runs of {scene.scale.epochs} epochs, time {repeat}"
        with trying(job):
            found: list[Found] = []
            store = Store(scene.scratch / f"main-{repeat}")
            began = time.perf_counter()
            with store.opened(scene.study, print):
                for run, result in scene.trainer.train(runs, scene.images):
                    if isinstance(result, RunResult):
                        store.write_run(run, *_trained(run, result, scene.images, {}))
                    found.append((run, result))
            seconds = time.perf_counter() - began
            if failed := _failures(found):
                tell(job, failed, failed=True)
            else:
                tell(job, seconds, "s")
                tell(f"time {repeat}, while the card trained or evaluated", _on_card(found), "s")
            if repeat == 1:
                _compare(found, scene.images)
    with trying("the whole command, start-up included"):
        command = [sys.executable, "-m", "mnist_ablate", "run", scene.name, "--seeds", str(scene.scale.seeds)]
        command += ["--epochs", str(scene.scale.epochs), "--device", "cuda", "--out", str(scene.scratch / "whole")]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        tell("the whole command, start-up included", time.perf_counter() - began, "s")


def _failures(found: Iterable[Found]) -> str:
    """Return in words how many runs failed, and the first error; empty if none did."""
    failed = [(run, result) for run, result in found if isinstance(result, Exception)]
    return f"{len(failed)} failed; {_name(failed[0][0])}: {in_words(failed[0][1])}" if failed else ""


def _name(run: Run) -> str:
    return f"{run.cell}, seed {run.seed}"


def _on_card(found: Iterable[Found]) -> float:
    """Return the seconds in which at least one run trained or was evaluated, which begin together in each epoch."""
    rows = [result.rows for _, result in found if isinstance(result, RunResult)]
    epochs = zip(*rows, strict=False)
    return float(sum(max(row["train_seconds"] + row["eval_seconds"] for row in epoch) for epoch in epochs))


def _compare(found: Iterable[Found], images: Images) -> None:
    """Compare weights with the committed reference; say of wrong runs in what epoch which number differs first."""
    committed = load(ROOT / "results" / "reference" / "factorial")
    known = [(run, result) for run, result in found if run.run_id in committed.documents]
    wrong = 0
    for run, result in known:
        rows, _, document = _trained(run, result, images, {}) if isinstance(result, RunResult) else ([], {}, {})
        if document.get("weights_sha256") == committed.documents[run.run_id]["weights_sha256"]:
            continue
        wrong += 1
        if wrong <= SHOWN and isinstance(result, RunResult):
            before = committed.epochs[committed.epochs["run_id"] == run.run_id].sort_values("epoch").to_dict("records")
            found_first = parting(committed.documents[run.run_id], before, document, rows)
            tell(
                _name(run), f"from what is committed: {found_first.sentence if found_first else 'nothing'}", failed=True
            )
    tell(f"weights as committed, of {len(known)} runs", wrong, "that differ", failed=wrong > 0)


# ---- Bits ----


def bits(scene: Scene) -> None:
    """Compare runs with the digests that are committed for processors, alone and among others."""
    scene.ready()
    drawn, expected = digests.images(), digests.expected()
    ours = [digests.runs()[name] for name in scene.scale.digests]
    wrong: dict[str, tuple[Run, RunResult | Exception]] = {}
    for company in scene.scale.companies:
        right = 0
        packs = [[run] for run in ours] if company == 1 else [[*ours, *_crowd(ours, company - len(ours))]]
        for pack in packs:
            with trying(f"{pack[0].cell}, alone" if company == 1 else f"{company} at once"):
                for run, result in scene.trainer.train(pack, drawn):
                    if run not in ours:
                        continue
                    if isinstance(result, RunResult) and digests.digest(result) == expected[run.cell]:
                        right += 1
                    else:
                        wrong.setdefault(run.cell, (run, result))
        differ = len(ours) - right
        tell(f"{len(ours)} runs, {company} at once", differ, "digests that differ", failed=differ > 0)
    for cell, (run, wrong_result) in list(wrong.items())[:SHOWN]:
        with trying(cell):
            tell(cell, _why_wrong(run, wrong_result, drawn), failed=True)


def _crowd(some: list[Run], n: int) -> list[Run]:
    """Return n other runs of the same settings."""
    return [replace(some[k % len(some)], seed=1 + k // len(some), probes=()) for k in range(n)]


def _why_wrong(run: Run, result: RunResult | Exception, images: Images) -> str:
    """Return what failed, or in what step or number a run first differs from this machine's processor."""
    if isinstance(result, Exception):
        return in_words(result)
    here = train(run, images)
    if digests.digest(here) != digests.expected()[run.cell]:
        return "this machine's processor has not the committed digest, either"
    found = parting(_document(here), here.rows, _document(result), result.rows)
    return f"from the processor: {found.sentence if found else 'the predictions'}"


def _document(result: RunResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("first_losses", "weights_sha256", "probes")}


# ---- Bounds ----


def bounds(scene: Scene) -> None:
    """Measure how fast the card copies, and what share of that the training of 80 runs reaches."""
    scene.ready()
    card, size, times, pace = scene.card, scene.scale.copied, 20, math.nan
    with trying("copies, bytes read and written"), card.memory(size) as one, card.memory(size) as other:

        def copy() -> None:
            places = ctypes.c_uint64(other), ctypes.c_uint64(one), ctypes.c_size_t(size)
            card._call("cuMemcpyDtoDAsync_v2", *places, None)

        copy()
        card.wait()
        began = time.perf_counter()
        for _ in range(times):
            copy()
        card.wait()
        pace = 2 * size * times / (time.perf_counter() - began)
        tell("copies, bytes read and written", pace / 1e9, "GB/s")
    runs = scene.runs(8 * scene.scale.seeds, epochs=1)
    with trying(f"a step of {len(runs)} runs"):
        found = list(scene.trainer.train(runs, scene.images))
        seconds = max(result.rows[0]["train_seconds"] for _, result in found if isinstance(result, RunResult))
        settings = runs[0].settings
        steps = len(runs) * -(-training_size(settings, len(scene.images.train_labels)) // settings.batch_size)
        first, second, last = PIXELS * settings.width, settings.width**2, settings.width * CLASSES
        # Weights are read for the forward pass; weights and both moments are read and written in the update.
        moved = steps * 7 * 4 * (first + second + last)
        tell(f"a step of {len(runs)} runs", 1e3 * seconds * len(runs) / steps, "ms")
        tell("weights and moments moved", moved / seconds / 1e9, "GB/s")
        tell("share of what copies reach", moved / seconds / pace, "")
        products = steps * settings.batch_size * (2 * first + 3 * second + 3 * last)
        tell("fused multiply-adds", products / seconds / 1e12, "10^12/s")


# ---- Packs ----


def packs(scene: Scene) -> None:
    """Train few and many runs at once."""
    scene.ready()
    for n in scene.scale.packs:
        with trying(f"{n} runs at once"):
            runs = scene.runs(n)
            began = time.perf_counter()
            failed = _failures(scene.trainer.train(runs, scene.images))
            seconds = time.perf_counter() - began
            if failed:
                tell(f"{n} runs at once", failed, failed=True)
            else:
                tell(f"{n} runs at once", seconds, "s")
                tell(f"{n} runs at once, pace", n / seconds, "runs/s")


# ---- For peers ----


def task(scene: Scene) -> None:
    """Write what the models of peers start from, see `benchmarks/peers/task.py`."""
    first = scene.study.first_seed
    seeds = [first + k % 10 for k in range(scene.scale.models)]
    arrays: dict[str, Any] = task_of(scene.images, seeds, epochs=2)
    np.savez(scene.scratch / "task.npz", **arrays)


PARTS: dict[str, Callable[[Scene], None]] = {
    "start": start, "warm": warm, "main": main_job, "bits": bits, "bounds": bounds, "packs": packs, "task": task,
}  # fmt: skip


def main() -> int:
    """Measure a part; 2 if this machine cannot, with the reason in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--scratch", type=Path, required=True, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="measure next to nothing")
    options = parser.parse_args()
    (options.scratch / QUICK.study).write_text(TINY, encoding="utf-8")
    try:
        PARTS[options.part](Scene(options.scratch, QUICK if options.quick else FULL))
    except MnistAblateError as error:
        print(error)
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
