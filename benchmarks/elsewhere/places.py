"""What the measurements across versions and machines share: train somewhere else, compare, keep a row per finding."""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_ablate.checks import compare
from mnist_ablate.checks.compare import Comparison
from mnist_ablate.checks.compare_page import finding_numbers
from mnist_ablate.store.results import Results, load

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MACHINE = ("python", "torch", "numpy", "numba", "processor", "cpu_capability", "environment", "threads", "engine")
"""What is kept of the provenance."""

Row = dict[str, Any]


def train(
    python: str | Path, out: Path, options: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> str:
    """Train the study with an interpreter and environment variables; return why it failed, or nothing.

    What is stored in `out` already is not trained again.
    """
    command = [str(python), str(HERE / "train.py"), str(out), *options]
    seen = os.environ | dict(environment or {})
    done = subprocess.run(command, env=seen, capture_output=True, text=True, check=False)  # noqa: S603
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def machine(results: Results) -> Row:
    """Give the provenance of results that were all made in one place.

    Raises
    ------
    ValueError
        If they were not.
    """
    found = [{key: of["provenance"].get(key, "") for key in MACHINE} for of in results.documents.values()]
    if any(one != found[0] for one in found):
        raise ValueError(f"{results.folder}: not all of its runs were made in one place")
    return found[0]


def rows(name: str, base: str, results: Results, comparison: Comparison) -> Iterator[Row]:
    """Give a row for each finding of a comparison with `base`: who, where, how many bits, which difference."""
    numbers = {
        "name": name,
        "base": base,
        "not_tried": "",
        "failed": "",
        **machine(results),
        "verdict_of_all": comparison.verdict,
        "runs": sum(one.seeds for one in comparison.bits),
        "runs_same_bits": sum(one.seeds - len(one.partings) for one in comparison.bits),
        "first_step": _first_step(comparison),
        "first_epoch": min((p.epoch for one in comparison.bits for p in one.partings.values() if p.epoch), default=0),
    }
    for finding in comparison.findings:
        yield numbers | finding_numbers(finding)


def _first_step(comparison: Comparison) -> int:
    """Give the first step at which a run parts; 0 where none of the first steps does."""
    steps = [found.step for one in comparison.bits for found in one.partings.values() if found.step]
    return min(steps, default=0)


def measured(name: str, base: str, folder: Path, base_folder: Path) -> list[Row]:
    """Compare two folders and give the rows."""
    results = load(folder)
    return list(rows(name, base, results, compare.compare(load(base_folder), results)))


def write(found: list[Row], file: Path) -> None:
    """Write rows as Parquet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(found).to_parquet(file, index=False)
