"""Train the study beside this file in different places and compare the results: for compat.py and rounding.py.

``python places.py THREADS run ...`` is ``mnist_ablate`` with this number of threads in each run.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_ablate.store.results import Results

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MACHINE = ("python", "torch", "numpy", "numba", "processor", "cpu_capability", "environment", "threads", "engine")
"""The part of the provenance that is stored."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """An interpreter, options and environment variables to train with, and the name of the place to compare with."""

    name: str
    base: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    threads: int = 1

    def train(self, work: Path, options: Iterable[str]) -> str:
        """Train what is missing; return why it failed, or an empty string."""
        program = ["-m", "mnist_ablate"] if self.threads == 1 else [str(HERE / "places.py"), str(self.threads)]
        workers = "0" if self.threads > 1 else "1"
        options = ["--workers", workers, *options, *self.options]  # the last of equal options counts
        command = [self.python, *program, "run", str(HERE / "study.toml"), "--out", str(folder_of(work, self.name))]
        variables = os.environ | dict(self.environment)
        done = subprocess.run([*command, *options], env=variables, capture_output=True, text=True, check=False)  # noqa: S603
        return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]

    def compare(self, work: Path) -> Iterator[Row]:
        """Compare the results with the base's: a row per finding, with bits, difference and provenance."""
        from mnist_ablate.checks import compare
        from mnist_ablate.checks.compare_page import finding_numbers
        from mnist_ablate.store.results import load

        results = load(folder_of(work, self.name))
        comparison = compare.compare(load(folder_of(work, self.base)), results)
        partings = [parting for bits in comparison.bits for parting in bits.partings.values()]
        runs = sum(bits.seeds for bits in comparison.bits)
        row = {"name": self.name, "base": self.base, "not_tried": "", "failed": "", **machine_of(results)}
        row |= {"verdict_of_all": comparison.verdict, "runs": runs, "runs_same_bits": runs - len(partings)}
        row["first_step"] = min((parting.step for parting in partings if parting.step), default=0)
        row["first_epoch"] = min((parting.epoch for parting in partings if parting.epoch), default=0)
        for finding in comparison.findings:
            yield row | finding_numbers(finding)


def machine_of(results: "Results") -> Row:
    """Return the provenance that is stored, which all runs must share."""
    machines = [{key: d["provenance"].get(key, "") for key in MACHINE} for d in results.documents.values()]
    if any(machine != machines[0] for machine in machines):
        raise ValueError(f"{results.folder}: its runs were made in several places")
    return machines[0]


def folder_of(work: Path, name: str) -> Path:
    """Return the results folder of a place."""
    return work / name.replace(", ", "-").replace(" ", "-")


def main() -> int:
    """Be ``mnist_ablate`` with more threads, and say so in the provenance; works for runs in this process only."""
    import torch

    from mnist_ablate.cli import main as program
    from mnist_ablate.training import provenance, worker

    threads, set_threads, known = int(sys.argv[1]), torch.set_num_threads, provenance.provenance()
    changed: Any = torch
    changed.set_num_threads = lambda _: set_threads(threads)
    changed = worker
    changed.provenance = lambda: known | {"threads": threads}
    return program(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
