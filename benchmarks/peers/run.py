"""The project's main job against its peers and the floor: ``nox -s peers``.

In each round the whole main job and every peer are run once, in an order drawn for that round, so that what the
machine does besides falls on all of them alike. Ratios are taken within rounds. Peers are timed in two cells of
the eight, with nothing and with dropout and BatchNorm on, and the mean of both is theirs: it is that of all eight
cells as far as the techniques' costs add up, and the main job's figure is a mean over all eight.

Two pinned processes at once count as two model-epochs in the time that both take. The preparation of peers
(imports, data, JAX's compilation and its first epoch) is left out; that of the main job is counted.
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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from common import CELLS, FIRST_LOSSES, TRAIN_SAMPLE, Task
from summary import OURS, REFERENCE, agreement, aims, readable

from mnist_ablate import data
from mnist_ablate.design import streams as seeds
from mnist_ablate.design.settings import Settings
from mnist_ablate.store.results import load
from mnist_ablate.training.model import mlp
from mnist_ablate.training.provenance import provenance

HERE = Path(__file__).parent
MODELS = 8
QUIET = 0.05
"""Share of the processors' time that others may use without a word about it."""
CELLS_OF_MAIN_JOB = 8
FIRST_LOSSES_TOLERANCE = 1e-4
"""Nats, in each of the first 50 steps of seed 0: this is what shows that a peer does the same, from the same start, in
the same order. Measured: 3e-7, rounding alone; with all in float64 PyTorch and JAX agree to 1e-15."""
WORST_FIRST_LOSSES_TOLERANCE = 1e-3
"""The same in all seeds that both have. In one of eight (6, JAX) rounding decides at step 28: 1.0e-4 from there."""
TRAIN_LOSS_TOLERANCE = 5e-3
"""Nats, in each epoch's mean. After some hundred steps float32 runs part: Adam divides a gradient by its own size, so
where that is next to nothing, rounding decides the direction of a whole step. Measured are differences up to 1e-3,
which is also what two seeds differ by in the fifth epoch: this shows that a peer goes on learning, and no more."""


@dataclass(frozen=True)
class Peer:
    """A script in one arrangement; `pinned`: one process per core, all at once."""

    name: str
    script: str
    pinned: bool = False
    cells: Sequence[str] = CELLS


PEERS = (
    Peer("notebook", "notebook.py"),
    Peer("plain_torch", "plain_torch.py", pinned=True),
    Peer("jax_all_cores", "jax_mlp.py"),
    Peer("jax_vmap8", "jax_mlp.py"),
    Peer("jax_pinned", "jax_mlp.py", pinned=True),
    Peer("floor", "floor.py", pinned=True, cells=CELLS[:1]),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """All that a round needs to know."""

    folder: Path
    jax_python: str
    seeds: int
    epochs: int

    @property
    def task(self) -> Path:
        """Where the task's file lies."""
        return self.folder / "task.npz"


def main() -> int:
    """Measure, write, print; exit status 1 where a peer does not train as we do."""
    options = _parse()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.jax_python, options.seeds, options.epochs)
        _make_task(options.epochs).save(bench.task)
        names = [name for name in (OURS, *(peer.name for peer in PEERS)) if name in options.only]
        frame = pd.DataFrame([row for i in range(options.rounds) for row in _round(bench, i, names)])
    _complete(frame, options)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(options.out, index=False)
        print(f"Written to {options.out}")
    if OURS not in names:
        print(frame.groupby("arrangement")["seconds_per_model_epoch"].median().to_string())
        return 0
    print(f"On {frame['processor'].iloc[0]}:", readable(frame), agreement(frame), *aims(frame), sep="\n")
    apart = _apart(frame)
    print(*apart, sep="\n")
    return 1 if apart else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The main job against its peers and the floor.")
    parser.add_argument("--jax-python", default=sys.executable, help="a Python that has JAX")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--seeds", type=int, help="of the main job; default 10")
    parser.add_argument("--epochs", type=int, help="default 5")
    parser.add_argument("--quick", action="store_true", help="1 round, 1 seed, 1 epoch; written only with --out")
    parser.add_argument("--out", type=Path, help="default results/reference/performance.parquet")
    everything = [OURS, *(peer.name for peer in PEERS)]
    parser.add_argument("--only", nargs="+", choices=everything, help="some of them; written only with --out")
    options = parser.parse_args()
    if options.out is None and not options.quick and not options.only:
        options.out = REFERENCE
    for name, usual, quick in (("rounds", 3, 1), ("seeds", 10, 1), ("epochs", 5, 1)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    options.only = options.only or everything
    return options


def _make_task(epochs: int) -> Task:
    """Lay down what our runs of the first seeds start from."""
    folder = data.fetch("mnist").folder
    images = data.load("mnist")
    train_rows, val_rows = zip(*(data.split(len(images.train_labels), i, 0.2) for i in range(MODELS)), strict=True)
    orders = [[rows[_order(i, epoch)] for epoch in range(1, epochs + 1)] for i, rows in enumerate(train_rows)]
    states = [mlp(Settings(), i).state_dict() for i in range(MODELS)]
    return Task(
        images.train_images,
        images.train_labels,
        images.test_images,
        images.test_labels,
        np.array(orders, dtype=np.int32),
        np.array([rows[:TRAIN_SAMPLE] for rows in train_rows], dtype=np.int32),
        np.array(val_rows, dtype=np.int32),
        {name: np.stack([state[name].numpy() for state in states]) for name in states[0]},
        {"processor": str(provenance()["processor"]), "folder": str(folder)},
    )


def _order(seed: int, epoch: int) -> Any:
    return seeds.permutation(seeds.stream(seed, f"batches/{epoch}"), 48_000)


def _round(bench: Bench, i: int, names: Sequence[str]) -> list[Row]:
    """Run each arrangement once, in an order drawn for this round, and compare losses with ours."""
    peers = {peer.name: peer for peer in PEERS}
    rows = {}
    for name in random.Random(i).sample(names, len(names)):  # noqa: S311  # an order of measurements, no secret
        busy = _busy()
        rows[name] = (_ours(bench, i) if name == OURS else _peer(bench, peers[name])) | {"busy_before": busy}
        note = f" (others kept the machine {busy:.0%} busy before it)" if busy > QUIET else ""
        print(f"round {i + 1}: {name} {rows[name]['seconds_per_model_epoch']:.3f} s per model-epoch{note}", flush=True)
    for name, row in rows.items():
        reference = rows.get(OURS) if name.startswith(("jax", "plain_torch")) else None
        row |= {"arrangement": name, "round": i + 1, **_differences(row, reference)}
    return list(rows.values())


def _busy() -> float:
    """Find the share of the processors' time that others use, from a second in which this program waits."""
    before = _ticks()
    time.sleep(1)
    after = _ticks()
    return float((after[0] - before[0]) / max(after[1] - before[1], 1))


def _ticks() -> tuple[int, int]:
    """Return the time that all processors were busy since the machine started, and all time, where Linux tells."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
    except OSError:
        return 0, 0
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _ours(bench: Bench, i: int) -> Row:
    """Run the main job, the whole process, into a folder of its own."""
    out = bench.folder / f"round-{i}"
    options = ["--seeds", str(bench.seeds), "--epochs", str(bench.epochs), "--out", str(out)]
    began = time.monotonic()
    command = [sys.executable, "-m", "mnist_ablate", "run", "factorial", *options]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    seconds = time.monotonic() - began
    results = load(out)
    baseline = results.epochs[results.epochs["cell"] == CELLS[0]]
    runs = [run.sort_values("epoch") for _, run in baseline.groupby("seed")][:MODELS]
    first = [results.documents[run["run_id"].iloc[0]]["first_losses"][:FIRST_LOSSES] for run in runs]
    training = results.epochs[["train_seconds", "eval_seconds"]].to_numpy().sum()
    return {
        "seconds_per_model_epoch": seconds / (CELLS_OF_MAIN_JOB * bench.seeds * bench.epochs),
        "training_share": float(training / (seconds * len(_cores()))),
        "train_losses": [run["train_loss"].tolist() for run in runs],
        "first_losses": first,
        "train_loss": runs[0]["train_loss"].tolist(),
        "versions": {},
    }


def _peer(bench: Bench, peer: Peer) -> Row:
    """Time a peer in its cells; losses are those of the baseline."""
    lines = {cell: _start_together(bench, peer, cell) for cell in peer.cells}
    seconds = {cell: _seconds(lines[cell], bench.epochs) for cell in peer.cells}
    baseline = lines[CELLS[0]]
    train_losses = [losses for line in baseline for losses in line["train_loss"]]
    per_epoch = np.mean([line["epoch_seconds"] for line in baseline], axis=0) / len(baseline)
    return {
        "seconds_per_model_epoch": float(np.mean(list(seconds.values()))),
        **{f"seconds_{cell.replace('+', '_')}": value for cell, value in seconds.items()},
        "epoch_seconds": per_epoch.tolist(),
        "train_losses": train_losses,
        "first_losses": [losses for line in baseline for losses in line["first_losses"]],
        "train_loss": train_losses[0],
        "versions": baseline[0]["versions"],
    }


def _seconds(lines: list[dict[str, Any]], epochs: int) -> float:
    """Divide the time that all processes of a peer took together by what they trained."""
    wall = max(line["ended"] for line in lines) - min(line["began"] for line in lines)
    return float(wall / (epochs * sum(line["models"] for line in lines)))


def _start_together(bench: Bench, peer: Peer, cell: str) -> list[dict[str, Any]]:
    """Start a peer's processes, let all train when the last is ready, and read the line that each prints."""
    python = bench.jax_python if peer.name.startswith("jax") else sys.executable
    command = [python, str(HERE / peer.script), "--task", str(bench.task), "--arrangement", peer.name]
    command += ["--cell", cell, "--epochs", str(bench.epochs), "--wait"]
    with ExitStack() as stack:
        processes = []
        for model, cpu in enumerate(_cores() if peer.pinned else [None]):
            where = ["--model", str(model % MODELS), *(["--cpu", str(cpu)] if cpu is not None else [])]
            whole = [*command, *where]
            process = subprocess.Popen(whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)  # before it is waited for, should another fail
        for process in processes:
            if _read(process) != "ready\n":
                raise SystemExit(f"{' '.join(command)} failed; see above.")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(_read(process)) for process in processes]


def _read(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _cores() -> list[int | None]:
    """Choose one processor of each physical core that this process may use; None where nothing can be pinned."""
    allowed: int = joblib.cpu_count(only_physical_cores=True)
    if sys.platform != "linux":
        return [None] * allowed
    first: dict[str, int | None] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    return [*first.values()][:allowed]


def _differences(row: Row, ours: Row | None) -> Row:
    """Compare losses with ours, in seed 0 and in all seeds that both have: the largest of the absolute differences."""
    if ours is None:
        return {}
    return {
        "first_losses_difference": _largest(row["first_losses"][:1], ours["first_losses"]),
        "worst_first_losses_difference": _largest(row["first_losses"], ours["first_losses"]),
        "train_loss_difference": _largest(row["train_losses"], ours["train_losses"]),
    }


def _largest(theirs: list[list[float]], ours: list[list[float]]) -> float:
    n = min(len(theirs), len(ours))
    return float(np.max(np.abs(np.array(theirs[:n]) - np.array(ours[:n]))))


def _complete(frame: pd.DataFrame, options: argparse.Namespace) -> None:
    """Add what all rows share, and drop what only the comparison needed."""
    versions = {name: value for found in frame.pop("versions") for name, value in found.items()}
    del frame["train_losses"], frame["first_losses"]
    facts = provenance()
    for name in ("processor", "python", "torch", "numpy", "git_commit", "git_dirty"):
        frame[name] = facts[name]
    frame["jax"] = versions.get("jax", "")
    frame["numba"] = _version("numba")
    frame["platform"] = platform.platform()
    frame["cores"] = len(_cores())
    frame["seeds"] = options.seeds
    frame["epochs"] = options.epochs


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _apart(frame: pd.DataFrame) -> list[str]:
    """Say which peers do not train as we do."""
    limits: dict[str, float] = {
        "first_losses_difference": FIRST_LOSSES_TOLERANCE,
        "worst_first_losses_difference": WORST_FIRST_LOSSES_TOLERANCE,
        "train_loss_difference": TRAIN_LOSS_TOLERANCE,
    }
    worst = frame.reindex(columns=["arrangement", *limits]).groupby("arrangement").max()
    return [
        f"{name} does not train as we do: {column} {worst.loc[name, column]:.1e}, allowed {limit:.0e}"
        for name in worst.index
        for column, limit in limits.items()
        if worst.loc[name, column] > limit
    ]


if __name__ == "__main__":
    sys.exit(main())
