"""How long a million rows take to become a page, and how much memory: ``python benchmarks/judge.py [ROWS]``.

Two tables of that many rows, as CSV: one of runs, eight cells by as many seeds as it takes, and one of logs, a hundred
epochs of each run. Each is judged in a process of its own, which prints its seconds and its peak of memory.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

EPOCHS = 100


def runs(rows: int) -> pd.DataFrame:
    """Return a table of runs: three factors, a seed, two metrics."""
    rng, seeds = np.random.default_rng(0), rows // 8
    cells = np.arange(8 * seeds) % 8
    luck = rng.normal(size=seeds)[np.arange(8 * seeds) // 8]
    return pd.DataFrame({
        "dropout": np.where(cells & 1, 0.2, 0.0), "norm": np.where(cells & 2, "batch", "none"), "wide": (cells & 4) > 0,
        "seed": np.arange(8 * seeds) // 8, "val_acc": 0.9 + 0.01 * (luck + rng.normal(size=8 * seeds)),
        "val_loss": 0.3 + 0.1 * rng.normal(size=8 * seeds),
    })  # fmt: skip


def logs(rows: int) -> pd.DataFrame:
    """Return a table of logs: a row for each epoch of each run."""
    frame = runs(rows // EPOCHS)
    return frame.loc[frame.index.repeat(EPOCHS)].assign(epoch=np.tile(np.arange(EPOCHS), len(frame)))


def judge(file: str) -> None:
    """Judge a table, and print how long that took and how much memory."""
    started = time.perf_counter()
    import mnist_ablate

    judged = mnist_ablate.judge(file, out=Path(file).with_suffix(""))
    seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    size = judged.report.html.stat().st_size / 2**20
    print(f"{Path(file).stem}: {seconds:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of a processor), "
          f"{used.ru_maxrss / 2**20:.2f} GB, page of {size:.1f} MB", flush=True)  # fmt: skip


def main(rows: int) -> None:
    """Write both tables, and judge each."""
    with tempfile.TemporaryDirectory() as folder:
        for name, table in (("runs", runs(rows)), ("logs", logs(rows))):
            file = Path(folder) / f"{name}.csv"
            table.to_csv(file, index=False)
            subprocess.run([sys.executable, __file__, "--judge", str(file)], check=True)  # noqa: S603


if __name__ == "__main__":
    if sys.argv[1:2] == ["--judge"]:
        judge(sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
