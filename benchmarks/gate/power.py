"""Measure what the gate sees: train every planted bug, and clean copies whose bits differ, over fresh seeds.

``nox -s gate-power``. Resumable: what is in ``results/gate-power/items`` is not made again. The package is copied
once, when it starts, so that it may be edited meanwhile. Items go seed set by seed set: whatever is there when it
is stopped is balanced. ``power_summary.py`` judges what is there.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bugs import BUGS, KERNELS, TRAIN, Bug

ROOT = Path(__file__).parent.parent.parent
SETS, SEEDS, FIRST_SEED = 10, 2, 2000
GOLDEN_SETS = 20
"""More seed sets, of clean golden runs alone: they cost seconds, and false alarms are what they are for."""
REPEATS = 3
_FUSED = 'error_model="numpy", fastmath={"contract"})'
# Clean changes to the arithmetic alone.
THREADS = Bug("", "", ((TRAIN, "    torch.set_num_threads(1)\n", "    torch.set_num_threads(2)\n"),))
NO_FUSED_PRODUCTS = Bug("", "", ((KERNELS, _FUSED, 'error_model="numpy")'),))
OTHER_SUMS = Bug("", "", ((KERNELS, _FUSED, 'error_model="numpy", fastmath={"contract", "reassoc"})'),))
AVX2 = {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
PLAIN = {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


@dataclass(frozen=True)
class Item:
    """A copy of the package, an environment and options to train one seed set with."""

    name: str
    bug: Bug | None = None
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    python: str = sys.executable


def items(index: int, other_python: str | None) -> Iterator[Item]:
    """List what seed set `index` is trained with: the reference, clean copies, bugs."""
    yield Item("reference")
    for nudge in range(1, REPEATS if index < SETS else 1):
        yield Item(f"reference-{nudge}", options=("--nudge", str(nudge)))
    yield Item("clean-reversed", options=("--reversed",))
    yield Item("clean-plain", environment=tuple(PLAIN.items()))
    yield Item("clean-no-fused-products", bug=NO_FUSED_PRODUCTS)
    yield Item("clean-other-sums", bug=OTHER_SUMS)
    yield Item("clean-autograd", options=("--engine", "autograd"), environment=tuple(AVX2.items()))
    if other_python:
        yield Item("clean-versions", environment=tuple(AVX2.items()), python=other_python)
    if index >= SETS:
        return
    for bug in BUGS:
        yield Item(bug.name, bug=bug)
    if index == SETS - 1:  # once only: two threads on a small network take many times as long as one
        yield Item("clean-threads", bug=THREADS, options=("--engine", "autograd"), environment=tuple(AVX2.items()))


_PLANTING = threading.Lock()


def plant(base: Path, folder: Path, bug: Bug | None) -> None:
    """Copy the package to `folder` with its compiled cache, and apply the edits of `bug`."""
    with _PLANTING:
        if not folder.exists():
            _plant(base, folder, bug)


def _plant(base: Path, folder: Path, bug: Bug | None) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(base, unfinished)
    for name, old, new in bug.edits if bug else ():
        file = unfinished / "mnist_ablate" / name
        text = file.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{bug and bug.name}: {name} has {text.count(old)} times:\n{old}")
        file.write_text(text.replace(old, new), encoding="utf-8")
    unfinished.rename(folder)


def make(item: Item, index: int, work: Path) -> None:
    """Train one item of one seed set in a process of its own, unless it is there."""
    out = work / "items" / f"{index:02}-{item.name}.json.gz"
    if out.exists():
        return
    copy = work / "copies" / (item.name if item.bug or item.environment or item.python != sys.executable else "clean")
    plant(work / "base", copy, item.bug)
    seeds = [str(FIRST_SEED + SEEDS * index + i) for i in range(SEEDS)]
    environment = os.environ | dict(item.environment) | {"PYTHONPATH": str(copy)}
    options = (*item.options, "--golden-only") if index >= SETS else item.options
    script, checkpoint = Path(__file__).with_name("item.py"), work / "base" / "checkpoint.npz"
    command = [item.python, str(script), str(out), str(checkpoint), *seeds]
    began = time.monotonic()
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        out.with_suffix(".failed").write_text(done.stderr)
    print(
        f"{time.strftime('%H:%M:%S')} {out.name}: {time.monotonic() - began:.0f} s, status {done.returncode}",
        flush=True,
    )


def snapshot(work: Path, checkpoint: Path) -> None:
    """Copy the package and the stored network, once."""
    base = work / "base"
    if base.exists():
        return
    fresh = work / "base.unfinished"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(ROOT / "mnist_ablate", fresh / "mnist_ablate")
    shutil.copy(checkpoint, fresh / "checkpoint.npz")
    info = fresh / "mnist_ablate-0.1.0.dist-info"  # so that the copy knows its version in any environment
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mnist-ablate\nVersion: 0.1.0\n")
    fresh.rename(base)


def main() -> None:
    """Make all items, as many at a time as there are cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "gate-power")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "results" / "reference" / "gate" / "checkpoint.npz")
    parser.add_argument("--sets", type=int, default=SETS + GOLDEN_SETS, help="seed sets")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", help="names of items")
    parser.add_argument("--other-python", help="an interpreter with other versions of torch and Numba")
    arguments = parser.parse_args()
    (arguments.work / "items").mkdir(parents=True, exist_ok=True)
    snapshot(arguments.work, arguments.checkpoint)
    with ThreadPoolExecutor(arguments.workers) as executor:
        jobs = [
            executor.submit(make, item, index, arguments.work)
            for index in range(arguments.sets)
            for item in items(index, arguments.other_python)
            if not arguments.only or item.name in arguments.only
        ]
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
