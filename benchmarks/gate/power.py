"""Train every planted bug, and clean copies whose bits differ, over fresh seeds: ``nox -s gate-power``.

Resumable: what is in ``results/gate-power/items`` is not made again. The package is copied once at the start, so you
may edit it meanwhile. Items go seed set by seed set, so an interrupted measurement is balanced. ``power_judge.py``
judges what is there.
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

from bugs import ARITHMETIC, BUGS, LOSSES, PRODUCTS, TRAIN, Bug

ROOT = Path(__file__).parent.parent.parent
SETS, SEEDS, FIRST_SEED = 10, 2, 2000
GOLDEN_SETS = 20
"""More seed sets, of clean golden runs only: they cost seconds, and show false alarms."""
REPEATS = 3
# Clean copies: only their arithmetic differs. On every processor and with all versions, `fused` gives the same bits, so
# it takes other operations to change them; `autograd` also follows torch and the instructions it finds.
THREADS = Bug("", "", ((TRAIN, "    torch.set_num_threads(1)\n", "    torch.set_num_threads(2)\n"),))
_FMA = "    of_llvm = ir.FunctionType(kind, [kind] * len(arguments))\n"
_APART = """\
    if name == "fma":
        return builder.fadd(builder.fmul(*arguments[:2]), arguments[2])
"""
NO_FUSED_PRODUCTS = Bug("", "", ((ARITHMETIC, _FMA, _APART + _FMA),))
_CHAIN = "    for k in range(lists.start[line], lists.start[line + 1]):\n"
_PAIRS = """\
    first, stop = lists.start[line], lists.start[line + 1]
    for k in range(first, stop - 1, 2):
        product = lists.value[k] * load(matrix, lists.at[k], column, total)
        total = total + fma(lists.value[k + 1], load(matrix, lists.at[k + 1], column, total), product)
    for k in range(stop - (stop - first) % 2, stop):
"""
OTHER_SUMS = Bug("", "", ((PRODUCTS, _CHAIN, _PAIRS),))
_OURS = "import exp, flushed, inner, log\n"
_OF_C = "import flushed, inner, log\nfrom math import exp\n"
OTHER_EXPONENTIAL = Bug("", "", ((LOSSES, _OURS, _OF_C),))
AUTOGRAD = ("--engine", "autograd")
AVX2 = (("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "AVX2"))


@dataclass(frozen=True)
class Item:
    """A copy of the package, options and environment variables to train a seed set with."""

    name: str
    bug: Bug | None = None
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    python: str = sys.executable


def items(index: int, other_python: str | None) -> Iterator[Item]:
    """List the items of seed set `index`: the reference, clean copies, bugs."""
    yield Item("reference")
    for nudge in range(1, REPEATS if index < SETS else 1):
        yield Item(f"reference-{nudge}", options=("--nudge", str(nudge)))
    yield Item("clean-reversed", options=("--reversed",))
    yield Item("clean-no-fused-products", NO_FUSED_PRODUCTS)
    yield Item("clean-other-sums", OTHER_SUMS)
    yield Item("clean-other-exponential", OTHER_EXPONENTIAL)
    yield Item("clean-autograd", None, AUTOGRAD, AVX2)
    if other_python:
        yield Item("clean-autograd-versions", None, AUTOGRAD, python=other_python)
    if index < SETS:
        yield from (Item(bug.name, bug) for bug in BUGS)
    if index == SETS - 1:  # only once: two threads on a small network take many times as long as one
        yield Item("clean-threads", THREADS, AUTOGRAD, AVX2)


_PLANTING = threading.Lock()


def plant(base: Path, folder: Path, bug: Bug | None) -> None:
    """Copy the package to `folder` unless it exists, and apply the edits of `bug`.

    Raises
    ------
    SystemExit
        If the package does not have the text of an edit exactly once.
    """
    with _PLANTING:
        if folder.exists():
            return
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
    """Train one item of one seed set in a process of its own unless its file exists."""
    out = work / "items" / f"{index:02}-{item.name}.json.gz"
    if out.exists():
        return
    copy = work / "copies" / (item.name if item.bug or item.environment or item.python != sys.executable else "clean")
    plant(work / "base", copy, item.bug)
    seeds = [str(FIRST_SEED + SEEDS * index + i) for i in range(SEEDS)]
    environment = (
        os.environ | dict(item.environment) | {"PYTHONPATH": str(copy), "NUMBA_CACHE_DIR": str(copy / "numba")}
    )
    options = (*item.options, "--golden-only") if index >= SETS else item.options
    script, checkpoint = Path(__file__).with_name("item.py"), work / "base" / "checkpoint.npz"
    command = [item.python, str(script), str(out), str(checkpoint), *seeds, *options]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        out.with_suffix(".failed").write_text(done.stderr)
    took = f"{time.monotonic() - began:.0f} s, status {done.returncode}"
    print(f"{time.strftime('%H:%M:%S')} {out.name}: {took}", flush=True)


def snapshot(work: Path, checkpoint: Path) -> None:
    """Copy the package and the stored network, once."""
    if (work / "base").exists():
        return
    fresh = work / "base.unfinished"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(ROOT / "mnist_ablate", fresh / "mnist_ablate")
    shutil.copy(checkpoint, fresh / "checkpoint.npz")
    info = fresh / "mnist_ablate-0.1.0.dist-info"  # so that the copy knows its version in any environment
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mnist-ablate\nVersion: 0.1.0\n")
    fresh.rename(work / "base")


def main() -> None:
    """Make all items, one per core at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "gate-power")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "results" / "reference" / "gate" / "checkpoint.npz")
    parser.add_argument("--sets", type=int, default=SETS + GOLDEN_SETS, help="seed sets")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", help="names of items")
    parser.add_argument("--other-python", help="an interpreter with another version of torch")
    arguments = parser.parse_args()
    (arguments.work / "items").mkdir(parents=True, exist_ok=True)
    snapshot(arguments.work, arguments.checkpoint)
    every = [(item, index) for index in range(arguments.sets) for item in items(index, arguments.other_python)]
    with ThreadPoolExecutor(arguments.workers) as executor:
        chosen = [(i, n) for i, n in every if not arguments.only or i.name in arguments.only]
        for job in [executor.submit(make, item, index, arguments.work) for item, index in chosen]:
            job.result()


if __name__ == "__main__":
    main()
