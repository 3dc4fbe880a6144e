"""The project's main job against its peers and the floor: ``nox -s peers``.

Each round runs the whole main job and every peer once, in an order drawn for that round, so that whatever else the
machine does disturbs all of them alike. Ratios are taken within rounds. Peers are timed in two of the eight cells, with
no technique and with dropout and BatchNorm; their figure is the mean of both. That is the mean of all eight cells as
far as the techniques' costs add up, and the main job's figure is a mean over all eight.

Two pinned processes at once count as two model-epochs in the time that both take. The preparation of peers (imports,
data, JAX's compilation and its first epoch) is not counted; that of the main job is. Our kernels, which a machine
compiles once and keeps, are compiled before the first round.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import psutil
from common import CELLS, FIRST_LOSSES, Task
from task import task_of

from mnist_ablate import data
from mnist_ablate.design.plan import PROTOCOL_VERSION
from mnist_ablate.design.study import load_study
from mnist_ablate.store.results import load
from mnist_ablate.training.provenance import provenance

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "docs"))
from performance import DIFFERENCES, OURS, REFERENCE, agreement, aims, apart, machines, merged, readable  # noqa: E402

MODELS = 8
QUIET = 5.0
"""Percent of the processors' time that other programs may use before we mention it."""
CELLS_OF_MAIN_JOB = 8
PINNED = {"plain_torch", "jax_pinned", "floor"}
"""Peers that run one process per core, all at once."""
SCRIPTS = {
    "notebook": "notebook.py",
    "plain_torch": "plain_torch.py",
    "floor": "floor.py",
    **dict.fromkeys(("jax_all_cores", "jax_vmap8", "jax_pinned"), "jax_mlp.py"),
}
Row = dict[str, Any]


def main() -> int:
    """Measure, write and print; the exit status is 1 if a peer does not train as we do."""
    parser = argparse.ArgumentParser(description="The main job against its peers and the floor.")
    parser.add_argument("--jax-python", default=sys.executable, help="a Python that has JAX")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--seeds", type=int, help="of the main job; default 10")
    parser.add_argument("--epochs", type=int, help="default 5")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 seed, 1 epoch; written only with --out")
    parser.add_argument("--out", type=Path, help="default results/reference/performance.parquet")
    everything = [OURS, *SCRIPTS]
    parser.add_argument("--only", nargs="+", choices=everything, help="some of them; written only with --out")
    options = parser.parse_args()
    if options.out is None and not options.quick and not options.only:
        options.out = REFERENCE
    for name, usual in (("rounds", 3), ("seeds", 10), ("epochs", 5)):
        if getattr(options, name) is None:
            setattr(options, name, 1 if options.quick else usual)
    with tempfile.TemporaryDirectory() as folder:
        options.folder, options.task = Path(folder), Path(folder) / "task.npz"
        np.savez(options.task, **_task(options.epochs))  # type: ignore[arg-type]
        names = [name for name in everything if name in (options.only or everything)]
        if OURS in names:
            _main_job(options.folder / "compiled", seeds=1, epochs=1)
        frame = pd.DataFrame([row for i in range(options.rounds) for row in _round(options, i, names)])
    _complete(frame, options)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.out == REFERENCE:
            frame = merged(pd.read_parquet(REFERENCE), frame)
        frame.to_parquet(options.out, index=False)
        print(f"Written to {options.out}")
    frame = machines(frame)[0]
    if OURS not in names:
        print(frame.groupby("arrangement")["seconds_per_model_epoch"].median().to_string())
        return 0
    print(f"On {frame['processor'].iloc[0]}:", readable(frame), agreement(frame), *aims(frame), sep="\n")
    complaints = apart(frame)
    print(*complaints, sep="\n")
    return 1 if complaints else 0


def _task(epochs: int) -> Task:
    """Return what our runs of the first seeds start from."""
    folder = data.fetch("mnist").folder
    first = load_study("factorial").first_seed
    task = task_of(data.load("mnist"), range(first, first + MODELS), epochs)
    return {**task, "folder": np.array(str(folder))}


def _round(options: argparse.Namespace, i: int, names: list[str]) -> list[Row]:
    """Run each arrangement once, in an order drawn for this round, and compare losses with ours."""
    rows = {}
    for name in random.Random(i).sample(names, len(names)):  # noqa: S311  # no secret
        busy = psutil.cpu_percent(interval=1)
        rows[name] = (_ours(options, i) if name == OURS else _peer(options, name)) | {"busy_before": busy / 100}
        note = f" (other programs kept the machine {busy:.0f} % busy before it)" if busy > QUIET else ""
        print(f"round {i + 1}: {name} {rows[name]['seconds_per_model_epoch']:.3f} s per model-epoch{note}", flush=True)
    ours = rows.get(OURS)
    for name, row in rows.items():
        row |= {"arrangement": name, "round": i + 1}
        if ours and name.startswith(("jax", "plain_torch")):
            pairs = [("first_losses", 1), ("first_losses", MODELS), ("train_losses", MODELS)]
            row |= {
                column: _largest(row[what][:n], ours[what])
                for column, (what, n) in zip(DIFFERENCES, pairs, strict=True)
            }
    return list(rows.values())


def _largest(theirs: list[list[float]], ours: list[list[float]]) -> float:
    """Return the largest absolute difference of losses in the seeds that both have."""
    n = min(len(theirs), len(ours))
    return float(np.max(np.abs(np.array(theirs[:n]) - np.array(ours[:n]))))


def _ours(options: argparse.Namespace, i: int) -> Row:
    """Run the main job as a process, into a folder of its own."""
    out = options.folder / f"round-{i}"
    began = time.monotonic()
    _main_job(out, seeds=options.seeds, epochs=options.epochs)
    seconds = time.monotonic() - began
    results = load(out)
    baseline = results.epochs[results.epochs["cell"] == CELLS[0]]
    runs = [run.sort_values("epoch") for _, run in baseline.groupby("seed")][:MODELS]
    training = results.epochs[["train_seconds", "eval_seconds"]].to_numpy().sum()
    return {
        "seconds_per_model_epoch": seconds / (CELLS_OF_MAIN_JOB * options.seeds * options.epochs),
        "training_share": float(training / (seconds * len(_cores()))),
        "train_losses": [run["train_loss"].tolist() for run in runs],
        "first_losses": [results.documents[run["run_id"].iloc[0]]["first_losses"][:FIRST_LOSSES] for run in runs],
        "train_loss": runs[0]["train_loss"].tolist(),
        "versions": {},
    }


def _main_job(out: Path, *, seeds: int, epochs: int) -> None:
    command = [sys.executable, "-m", "mnist_ablate", "run", "factorial"]
    command += ["--seeds", str(seeds), "--epochs", str(epochs), "--out", str(out)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603


def _peer(options: argparse.Namespace, name: str) -> Row:
    """Time a peer in its cells; losses are those of the baseline."""
    cells = CELLS[:1] if name == "floor" else CELLS
    lines = {cell: _start_together(options, name, cell) for cell in cells}
    seconds = {}
    for cell, of_cell in lines.items():
        wall = max(line["ended"] for line in of_cell) - min(line["began"] for line in of_cell)
        seconds[cell] = float(wall / (options.epochs * sum(line["models"] for line in of_cell)))
    baseline = lines[CELLS[0]]
    train_losses = [losses for line in baseline for losses in line["train_loss"]]
    return {
        "seconds_per_model_epoch": float(np.mean(list(seconds.values()))),
        **{f"seconds_{cell.replace('+', '_')}": value for cell, value in seconds.items()},
        "epoch_seconds": (np.mean([line["epoch_seconds"] for line in baseline], axis=0) / len(baseline)).tolist(),
        "train_losses": train_losses,
        "first_losses": [losses for line in baseline for losses in line["first_losses"]],
        "train_loss": train_losses[0],
        "versions": baseline[0]["versions"],
    }


def _start_together(options: argparse.Namespace, name: str, cell: str) -> list[dict[str, Any]]:
    """Start a peer's processes, let all train once the last is ready, and return the line that each prints."""
    python = options.jax_python if name.startswith("jax") else sys.executable
    command = [python, str(HERE / SCRIPTS[name]), "--task", str(options.task), "--arrangement", name]
    command += ["--cell", cell, "--epochs", str(options.epochs), "--wait"]
    with ExitStack() as stack:
        processes: list[Any] = []
        for model, cpu in enumerate(_cores() if name in PINNED else [None]):
            where = ["--model", str(model % MODELS), *(["--cpu", str(cpu)] if cpu is not None else [])]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = subprocess.Popen([*command, *where], **pipes)  # noqa: S603
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)  # before it is waited for, should another fail
        for process in processes:
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"{' '.join(command)} failed; see above.")
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in processes]


def _cores() -> list[int | None]:
    """Return one processor of each physical core that this process may use; None where nothing can be pinned."""
    allowed: int = joblib.cpu_count(only_physical_cores=True)
    if sys.platform != "linux":
        return [None] * allowed
    first: dict[str, int | None] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    return [*first.values()][:allowed]


def _complete(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Add what all rows share, and drop what only the comparison needed."""
    versions = {name: value for of_row in frame.pop("versions") for name, value in of_row.items()}
    del frame["train_losses"], frame["first_losses"]
    facts = provenance()
    for name in ("processor", "python", "torch", "numpy", "git_commit", "git_dirty"):
        frame[name] = facts[name]
    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = ""
    shared = {"jax": versions.get("jax", ""), "numba": numba, "platform": platform.platform(), "cores": len(_cores())}
    shared |= {"seeds": options.seeds, "epochs": options.epochs, "protocol_version": PROTOCOL_VERSION}
    for name, value in shared.items():
        frame[name] = value


if __name__ == "__main__":
    sys.exit(main())
