"""A night's study: ten thousand small runs end to end, with the memory of every process: ``nox -s night``.

The runs are real and tiny, so that the number of runs is what is tried. The study runs as a user's does, with two
workers; the memory of the driver and of the workers is sampled meanwhile. Then the doctor examines the folder, and
the report is written. Writes ``results/reference/night.parquet``: the samples, and in its document what came of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import load_study
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import write_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "reference" / "night.parquet"
RUNS = 10_000
STUDY = """\
name = "night"
title = "Ten thousand small runs"
seeds = {seeds}
[protocol]
epochs = 1
width = 4
depth = 1
train_images = 256
validation_fraction = 0.005
[factors]
l2 = [0.0, 1e-4]
dropout = [0.0, 0.2]

[[hypotheses]]
id = "dropout"
statement = "Dropout makes the accuracy of a tiny network lower"
effect = "dropout"
kind = "decrease"
smallest = 0.1
"""
CELLS = 4


def children(pid: int) -> list[int]:
    """List the workers of a process."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def memory_mb(pid: int) -> float:
    """Tell the memory that a process holds, less what files back and others may share."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def samples(driver: "subprocess.Popen[bytes]", folder: Path, every: float) -> Iterator[dict[str, Any]]:
    """Sample the memory of a driver and its workers until it ends."""
    began, names = time.monotonic(), dict[int, str]()
    while driver.poll() is None:
        stored = len(os.listdir(folder / "runs")) if (folder / "runs").is_dir() else 0  # noqa: PTH208 # of many files
        row = {"seconds": time.monotonic() - began, "stored": stored}
        try:
            for pid in children(driver.pid):
                names.setdefault(pid, f"worker {len(names) + 1}")
            for pid, name in {driver.pid: "driver", **names}.items():
                yield row | {"process": name, "memory_mb": memory_mb(pid)}
        except (OSError, ValueError):  # one of them has ended
            pass
        time.sleep(every)


def timed(*arguments: str) -> tuple[float, "subprocess.CompletedProcess[str]"]:
    """Run a command of the program, and time it."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    return time.monotonic() - began, done


def night(work: Path, runs: int, every: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the study and all that follows; return the samples and what came of it."""
    study_file, folder = work / "night.toml", work / "results"
    study_file.write_text(STUDY.format(seeds=runs // CELLS), encoding="utf-8")
    began = time.monotonic()
    command = [sys.executable, "-m", "mnist_ablate", "run", str(study_file), "--workers", "2", "--out", str(folder)]
    with (work / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        found = pd.DataFrame(samples(driver, folder, every))
    seconds = time.monotonic() - began
    doctor_seconds, doctor = timed("mnist_ablate", "doctor", str(folder))
    report_seconds, report = timed("mnist_ablate.report", str(folder), "--out", str(work / "report"))
    results = load(folder)
    planned = {run.run_id for run in plan(load_study(study_file))}
    return found, {
        "runs": len(planned),
        "present": len(planned & results.documents.keys()),
        "rows": len(results.epochs),
        "rows_twice": int(results.epochs.duplicated(["run_id", "epoch"]).sum()),
        "problems": len(results.problems),
        "status": driver.returncode,
        "doctor_status": doctor.returncode,
        "doctor": doctor.stdout.strip().replace(str(folder), "the folder"),
        "report_status": report.returncode,
        "seconds": {"run": seconds, "doctor": doctor_seconds, "report": report_seconds},
        "machine": next(iter(results.documents.values()))["provenance"],
    }


def main() -> None:
    """Measure, and publish where all runs were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="a multiple of 4; with fewer nothing is published")
    parser.add_argument("--work", type=Path, help="a folder to keep; by default one that is removed")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="night-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        found, document = night(work, arguments.runs, arguments.every)
    finally:
        if arguments.work is None:
            shutil.rmtree(work)
    print(found.groupby("process")["memory_mb"].describe().round(1).to_string())
    print("\n".join(f"{key}: {value}" for key, value in document.items()))
    if arguments.runs == RUNS:
        write_table(RESULTS, pa.Table.from_pandas(found, preserve_index=False), document)
        print(f"Table: {RESULTS}")


if __name__ == "__main__":
    main()
