"""How time and memory grow with the number of runs, the network's width and the batch size: ``nox -s growth``.

For the number of runs, `growth_stub` replaces training: everything else is measured. For width and batch size, one
epoch of real MNIST is trained. Every measurement is a process of its own, so its peak memory is its own.

Writes ``results/reference/growth.parquet``, and the tables of ``benchmarks/README.md``.
"""

import argparse
import gc
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
from marks import between, table  # noqa: E402

RESULTS = ROOT / "results" / "reference" / "growth.parquet"
README = Path(__file__).parent / "README.md"

SIZES = (8, 104, 1_000, 10_000)
LARGEST = 100_000
"""Planned once, and run in one process; its folder takes 10 GB while it is measured."""
WIDTHS = (64, 128, 256, 512, 1024)
BATCHES = (16, 32, 64, 128, 256, 512)
PROTOCOL = {"width": 256, "batch_size": 64}
"""The factorial study's settings; one is held while the other varies."""
WHATS = {
    "plan": "plan",
    "run": "run, all but the training",
    "resume": "run again: all is done",
    "load": "load",
    "report": "report, loaded before",
}
Row = dict[str, Any]


# ---- Measurements, each in a process of its own ----


def _study(runs: int) -> Any:
    from mnist_ablate.design.study import load_study

    return load_study("factorial").with_options(seeds=runs // 8)


def _prepare(what: str, runs: int, workers: int | None, folder: str) -> Callable[[], object]:
    """Import what is needed, and return the call to be timed."""
    study = _study(runs)
    if what == "plan":
        from mnist_ablate.design.plan import plan

        return lambda: plan(study)
    if what in ("run", "resume"):
        import growth_stub

        from mnist_ablate import data
        from mnist_ablate.execution import runner
        from mnist_ablate.training import tasks

        changed: Any = tasks
        changed.train_one = growth_stub.train_one
        data.fetch = lambda *_, **__: data.Fetched("mnist", Path(), "stub")
        return lambda: runner.run(study, workers=workers, out=folder, progress=False)
    from mnist_ablate.report import write
    from mnist_ablate.store.results import load

    if what == "load":
        return lambda: load(folder)
    results = load(folder)
    assert len(results.epochs) == runs * study.protocol.epochs
    return lambda: write(results, Path(folder) / "report")


def measure(what: str, runs: int, workers: int | None, folder: str) -> Row:
    """Time one call in this process, which does nothing else."""
    call = _prepare(what, runs, workers, folder)
    gc.collect()
    before = _peak_memory_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    call()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    memory = {"start_memory_mb": before, "peak_memory_mb": _peak_memory_mb()}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "seconds_per_run": seconds / runs} | memory


def measure_epoch(engine: str, width: int, batch_size: int) -> Row:
    """Train one epoch of the baseline on MNIST; the least of three counts, since disturbance only adds."""
    from mnist_ablate import data
    from mnist_ablate.design.plan import plan
    from mnist_ablate.training.protocol import train

    images = data.load("mnist")

    def epoch(width: int, batch_size: int) -> tuple[float, float]:
        study = _study(8).with_options(engine=engine, seeds=1, epochs=1, width=width, batch_size=batch_size)
        row = train(plan(study)[0], images).rows[0]
        return row["train_seconds"] + row["eval_seconds"], row["train_seconds"]

    epoch(64, 512)  # compiles
    seconds, train_seconds = min(epoch(width, batch_size) for _ in range(3))
    return {"seconds": seconds, "train_seconds": train_seconds, "peak_memory_mb": _peak_memory_mb()}


def _peak_memory_mb() -> float:
    """Return the most memory this process has held; `getrusage` counts the parent's before `exec` too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _in_process(function: str, *arguments: object) -> Row:
    command = [sys.executable, __file__, "--call", json.dumps([function, *arguments])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 # our own code
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


# ---- The plan of measurements ----


def _runs_part(quick: bool) -> Iterator[Row]:
    for runs in SIZES[:2] if quick else SIZES:
        yield from _one_size(runs, (1, 2, 0), counts=3)


def _largest_part(quick: bool) -> Iterator[Row]:
    if not quick:
        yield from _one_size(LARGEST, (0,), counts=1)


def _one_size(runs: int, workers: tuple[int, ...], counts: int) -> Iterator[Row]:
    """Measure everything for a number of runs; reading again is the least of `counts`, since disturbance only adds."""
    with tempfile.TemporaryDirectory(prefix="growth-") as parent:
        folder = Path(parent) / "results"

        def row(what: str, number: int | None = None) -> Row:
            measured = _in_process("measure", what, runs, number, str(folder))
            return {"what": what, "runs": runs, "workers": number} | measured

        yield row("plan")
        for number in workers:
            shutil.rmtree(folder, ignore_errors=True)
            yield row("run", number)
        for what in ("resume", "load"):
            yield min((row(what) for _ in range(counts)), key=lambda found: float(found["seconds"]))
        yield row("report")


def _widths_part(quick: bool) -> Iterator[Row]:
    width, batch = PROTOCOL["width"], PROTOCOL["batch_size"]
    points = dict.fromkeys([*((w, batch) for w in WIDTHS), *((width, b) for b in BATCHES)])
    for engine in ("autograd", "fused"):
        for w, b in [(64, 512)] if quick else points:
            measured = _in_process("measure_epoch", engine, w, b)
            yield {"what": "epoch", "engine": engine, "width": w, "batch_size": b} | measured


PARTS = {"runs": _runs_part, "largest": _largest_part, "widths": _widths_part}


# ---- The tables ----


def markdown(frame: pd.DataFrame) -> str:
    """Return the tables: one of the runs, one of the epochs."""
    runs, epochs = frame[frame["part"] != "widths"], frame[frame["part"] == "widths"]
    runs = runs.assign(ms=1000 * runs["seconds_per_run"])
    formats = {
        "runs": ",.0f", "workers": ".0f", "seconds": ".3g", "cpu_seconds": ".3g", "ms": ".3g", "peak_memory_mb": ",.0f"
    }  # fmt: skip
    rows = []
    for what, label in WHATS.items():
        for row in runs[runs["what"] == what].sort_values(["workers", "runs"]).to_dict("records"):
            rows.append([label, *("" if pd.isna(row[name]) else f"{row[name]:{how}}" for name, how in formats.items())])
    head = ["What", "Runs", "Workers", "Seconds", "Processor seconds", "ms a run", "Peak memory, MB"]
    wide = epochs.pivot_table("seconds", ["width", "batch_size"], "engine").map("{:.3g}".format)
    of_epochs = [[f"{width:.0f}", f"{batch:.0f}", *seconds] for (width, batch), *seconds in wide.itertuples()]
    parts = [table(head, rows), table(["Units a layer", "Batch size", *wide.columns], of_epochs, left=())]
    return "\n\n".join([*parts, f"Processor: {', '.join(frame['processor'].unique())}."])


def _publish(frame: pd.DataFrame) -> None:
    frame.to_parquet(RESULTS, index=False)
    text = README.read_text(encoding="utf-8")
    README.write_text(between("results/reference/growth.parquet", markdown(frame), text), encoding="utf-8")


def main() -> None:
    """Measure, and publish; parts that were not measured stay as they are published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test: two small sizes, nothing published")
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        name, *rest = json.loads(arguments.call)
        print(json.dumps(measure(*rest) if name == "measure" else measure_epoch(*rest)))
        return
    from mnist_ablate.training.provenance import provenance

    known, rows, parts = provenance(), [], [arguments.part] if arguments.part else list(PARTS)
    machine = {"processor": known["processor"], "torch": known["torch"], "python": platform.python_version()}
    for part in parts:
        for measured in PARTS[part](arguments.quick):
            row = {"part": part} | measured
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
            rows.append(row | machine)
    if not arguments.quick:
        before = pd.read_parquet(RESULTS)
        others = before[~before["part"].isin(parts)]
        _publish(pd.concat([others, pd.DataFrame(rows, columns=before.columns)], ignore_index=True))


if __name__ == "__main__":
    main()
