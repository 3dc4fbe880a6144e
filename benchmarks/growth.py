"""How time and memory grow with the number of runs, the network's width and the batch: ``nox -s growth``.

For the number of runs, `growth_stub` stands in the place of training: what is measured is all the rest. For width
and batch size, real MNIST is trained for one epoch. Every measurement has a process of its own, whose peak memory
is then its own, too.

Writes ``growth.parquet``, a picture, and a table between markers in ``benchmarks/README.md``.
"""

import argparse
import gc
import json
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "reference" / "growth.parquet"
PICTURE = ROOT / "docs" / "growth.svg"
README = Path(__file__).parent / "README.md"
_TABLE = re.compile(r"(?<=<!-- table: results/reference/growth.parquet -->\n).*?(?=<!-- end -->)", re.DOTALL)

COLUMNS = (
    *("part", "what", "runs", "workers", "engine", "width", "batch_size"),
    *("seconds", "cpu_seconds", "seconds_per_run", "train_seconds", "start_memory_mb", "peak_memory_mb"),
    *("processor", "torch", "python"),
)
SIZES = (8, 104, 1_000, 10_000)
LARGEST = 100_000
"""Planned once, and driven in one process: the folder takes 10 GB for as long as it is measured."""
WIDTHS = (64, 128, 256, 512, 1024)
BATCHES = (16, 32, 64, 128, 256, 512)
PROTOCOL = (256, 64)
"""The width and the batch size that the factorial study has, held while the other one varies."""
WHATS = {
    "plan": "plan",
    "run": "run, all but the training",
    "resume": "run again: all is done",
    "load": "load",
    "report": "report, loaded before",
}
# Okabe and Ito's colours, told apart with any kind of colour vision; the marker says the same.
STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"))


# ---- What is measured, each in a process of its own ----


def _study(runs: int) -> Any:
    from mnist_ablate.design.study import load_study

    return load_study("factorial").with_options(seeds=runs // 8)


def _prepare(what: str, runs: int, workers: int | None, folder: str) -> Callable[[], object]:
    """Import all that is needed, and return the call to be timed."""
    if what == "plan":
        from mnist_ablate.design.plan import plan

        study = _study(runs)
        return lambda: plan(study)
    if what in ("run", "resume"):
        import growth_stub

        from mnist_ablate import data
        from mnist_ablate.execution import runner
        from mnist_ablate.training import tasks

        study = _study(runs)
        tasks.train_one = growth_stub.train_one  # type: ignore[assignment]
        data.fetch = lambda *_, **__: data.Fetched("mnist", Path(), "stub")
        return lambda: runner.run(study, workers=workers, out=folder, progress=False)
    from mnist_ablate.report import write
    from mnist_ablate.store.results import load

    if what == "load":
        return lambda: load(folder)
    results = load(folder)
    return lambda: write(results, Path(folder) / "report")


def measure(what: str, runs: int, workers: int | None, folder: str) -> dict[str, Any]:
    """Time one thing in this process, which does nothing else."""
    call = _prepare(what, runs, workers, folder)
    gc.collect()
    before = _peak_memory_mb()
    began, began_cpu = time.perf_counter(), time.process_time()
    call()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    memory = {"start_memory_mb": before, "peak_memory_mb": _peak_memory_mb()}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds} | memory


def measure_epoch(engine: str, width: int, batch_size: int) -> dict[str, Any]:
    """Train one epoch of the baseline on MNIST; the least of three counts, since disturbance only adds.

    A short one comes before, in which compilers do their work.
    """
    from mnist_ablate import data
    from mnist_ablate.design.plan import plan
    from mnist_ablate.training.protocol import train

    images = data.load("mnist")

    def epoch(width: int, batch_size: int) -> tuple[float, float]:
        study = _study(8).with_options(engine=engine, seeds=1, epochs=1, width=width, batch_size=batch_size)
        row = train(plan(study)[0], images).rows[0]
        return row["train_seconds"] + row["eval_seconds"], row["train_seconds"]

    epoch(64, 512)
    seconds, train_seconds = min(epoch(width, batch_size) for _ in range(3))
    return {"seconds": seconds, "train_seconds": train_seconds, "peak_memory_mb": _peak_memory_mb()}


def _peak_memory_mb() -> float:
    """Tell the most memory that this process has held; `getrusage` would count the parent's before `exec`, too."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _in_process(function: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--call", json.dumps([function, *arguments])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 # our own code
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- The plan of measurements ----


def _runs_part(quick: bool) -> Iterator[dict[str, Any]]:
    for runs in SIZES[:2] if quick else SIZES:
        yield from _one_size(runs, (1, 2, 0), counts=3)


def _largest_part(quick: bool) -> Iterator[dict[str, Any]]:
    if not quick:
        yield from _one_size(LARGEST, (0,), counts=1)


def _one_size(runs: int, workers: tuple[int, ...], counts: int) -> Iterator[dict[str, Any]]:
    """Measure everything for a number of runs; the folder of the last number of workers is read.

    Of reading it again, the least of so many counts is given, since disturbance only adds.
    """
    with tempfile.TemporaryDirectory(prefix="growth-") as parent:
        folder = Path(parent) / "results"
        yield _row("plan", runs, None, str(folder))
        for number in workers:
            shutil.rmtree(folder, ignore_errors=True)
            yield _row("run", runs, number, str(folder))
        for what in ("resume", "load"):
            rows = [_row(what, runs, None, str(folder)) for _ in range(counts)]
            yield min(rows, key=lambda row: float(row["seconds"]))
        yield _row("report", runs, None, str(folder))


def _row(what: str, runs: int, workers: int | None, folder: str) -> dict[str, Any]:
    found = _in_process("measure", what, runs, workers, folder)
    per_run = {"seconds_per_run": found["seconds"] / runs}
    return {"what": what, "runs": runs, "workers": workers} | found | per_run


def _widths_part(quick: bool) -> Iterator[dict[str, Any]]:
    from mnist_ablate.design.plan import EngineName

    width, batch_size = PROTOCOL
    points = dict.fromkeys([*((w, batch_size) for w in WIDTHS), *((width, b) for b in BATCHES)])
    for engine in get_args(EngineName):
        for w, b in [(64, 512)] if quick else points:
            found = _in_process("measure_epoch", engine, w, b)
            yield {"what": "epoch", "engine": engine, "width": w, "batch_size": b} | found


PARTS = {"runs": _runs_part, "largest": _largest_part, "widths": _widths_part}


# ---- What is shown ----


def draw(frame: pd.DataFrame) -> Figure:
    """Draw seconds and memory against the number of runs, and seconds an epoch against width and batch size."""
    figure = Figure(figsize=(8.6, 7.4), layout="constrained")
    (seconds, memory), (width, batch) = figure.subplots(2, 2)
    runs, epochs = frame[frame["part"] != "widths"], frame[frame["part"] == "widths"]
    for axes, column in ((seconds, "seconds"), (memory, "peak_memory_mb")):
        for i, (what, label) in enumerate(WHATS.items()):
            chosen = runs[(runs["what"] == what) & (runs["workers"].fillna(0) == 0)]
            _line(axes, i, chosen, "runs", column, label)
    chosen = runs[(runs["what"] == "run") & (runs["workers"] == 2)]
    seconds.plot(chosen["runs"], chosen["seconds"], "s:", color=STYLES[1][0], markersize=4, label="run, with 2 workers")
    for axes, column, other in ((width, "width", "batch_size"), (batch, "batch_size", "width")):
        for i, (engine, own) in enumerate(epochs.groupby("engine")):
            held = PROTOCOL[other == "batch_size"]
            _line(axes, i, own[own[other] == held], column, "seconds", f"{engine}")
    _axes(seconds, "runs in the folder", "seconds")
    _axes(memory, "runs in the folder", "peak memory of the process, MB")
    _axes(width, f"units in each hidden layer (batch {PROTOCOL[1]})", "seconds for an epoch", WIDTHS)
    _axes(batch, f"batch size ({PROTOCOL[0]} units)", "seconds for an epoch", BATCHES)
    for axes, place in ((seconds, "outside upper center"), (width, "outside lower center")):
        figure.legend(*axes.get_legend_handles_labels(), loc=place, ncols=3, frameon=False)
    return figure


def _line(axes: Axes, style: int, frame: pd.DataFrame, x: str, y: str, label: str) -> None:
    colour, marker = STYLES[style]
    ordered = frame.sort_values(x)
    axes.plot(ordered[x], ordered[y], marker=marker, color=colour, markersize=5, label=label)


def _axes(axes: Axes, x: str, y: str, ticks: tuple[int, ...] = ()) -> None:
    if not any(len(line.get_xdata()) for line in axes.get_lines()):  # type: ignore[arg-type]
        axes.set_visible(False)  # its part was never measured, and nothing has no logarithm
        return
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if axes.get_ylim()[1] < 1000 * axes.get_ylim()[0]:  # few powers of ten: more ticks
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if ticks:
        axes.set_xticks(ticks)
        axes.set_xticks([], minor=True)
    axes.grid(color="#e3e5e8")
    axes.spines[["top", "right"]].set_visible(False)


def table(frame: pd.DataFrame) -> str:
    """Lay out the measurements of the runs in Markdown."""
    headings = ("what", "runs", "workers", "seconds", "of the CPU", "ms a run", "peak memory, MB")
    lines = [f"| {' | '.join(headings)} |", f"|:--{(len(headings) - 1) * '|--:'}|"]
    runs = frame[frame["part"] != "widths"]
    for what, label in WHATS.items():
        for row in runs[runs["what"] == what].sort_values(["workers", "runs"]).to_dict("records"):
            numbers = {
                "runs": ",.0f", "workers": ".0f", "seconds": ".3g", "cpu_seconds": ".3g", "ms": ".3g",
                "peak_memory_mb": ",.0f",
            }  # fmt: skip
            known = row | {"ms": 1000 * row["seconds_per_run"]}
            cells = ["" if pd.isna(known[name]) else f"{known[name]:{how}}" for name, how in numbers.items()]
            lines.append(f"| {' | '.join([label, *cells])} |")
    processors = ", ".join(frame["processor"].unique())
    return "\n".join([*lines, "", f"Processor: {processors}."])


def _publish(frame: pd.DataFrame) -> None:
    frame.to_parquet(RESULTS, index=False)
    with mpl.rc_context({"svg.hashsalt": "mnist-ablate", "svg.fonttype": "none"}):  # the same file every time
        draw(frame).savefig(PICTURE, metadata={"Date": None})
    text = README.read_text(encoding="utf-8")
    README.write_text(_TABLE.sub(lambda _: table(frame) + "\n", text), encoding="utf-8")


def main() -> None:
    """Measure, and publish what was measured; a part that was not measured stays as it is published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke test: two small sizes, nothing published")
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        name, *rest = json.loads(arguments.call)
        print(json.dumps({"measure": measure, "measure_epoch": measure_epoch}[name](*rest)))
        return
    _measure_all([arguments.part] if arguments.part else list(PARTS), arguments.quick)


def _measure_all(parts: list[str], quick: bool) -> None:
    rows = []
    for part in parts:
        for found in PARTS[part](quick):
            row = {"part": part} | found
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
            rows.append(row | _machine())
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if not quick:
        before = pd.read_parquet(RESULTS) if RESULTS.exists() else frame
        _publish(pd.concat([before[~before["part"].isin(parts)], frame], ignore_index=True))


def _machine() -> dict[str, str]:
    from mnist_ablate.training.provenance import provenance

    known = provenance()
    return {"processor": str(known["processor"]), "torch": str(known["torch"]), "python": platform.python_version()}


if __name__ == "__main__":
    main()
