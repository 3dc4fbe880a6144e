"""Does `factorial` come out the same with ``autograd``? Trains it, and compares it with the committed ``fused`` runs.

Resumable: what is in ``--work`` is not trained again. Writes ``results/reference/engines.parquet``.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from places import ROOT, Row, machine_of

from mnist_ablate.checks.compare import MEAN, compare
from mnist_ablate.checks.compare_page import finding_numbers
from mnist_ablate.cli import main as mnist_ablate
from mnist_ablate.inference.measured import seed_table
from mnist_ablate.store.results import Results, load

FUSED = ROOT / "results" / "reference" / "factorial"
RESULTS = ROOT / "results" / "reference" / "engines.parquet"


def rows(ours: Results, theirs: Results, n: int) -> Iterator[Row]:
    """Compare the first `n` seeds of `fused` and ``autograd``: a row per finding, with each engine's mean."""
    seeds = theirs.epochs["seed"]
    theirs = replace(theirs, epochs=theirs.epochs[seeds < seeds.min() + n])
    machine = machine_of(theirs)
    for finding in compare(ours, theirs).findings:
        row = machine | finding_numbers(finding)
        if finding.cell != MEAN:
            by_seed = [seed_table(results, finding.response)[finding.cell] for results in (ours, theirs)]
            both = pd.concat(by_seed, axis=1, keys=["fused", "autograd"], join="inner")
            row |= {str(engine): mean for engine, mean in both.mean().items()}
        low, high = finding.sample.interval(0.05)
        yield row | {"low_alone": low, "high_alone": high}


def main() -> None:
    """Train; compare with as many seeds as the main job has, and with more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "engines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 40], help="how many seeds to compare")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the table")
    arguments = parser.parse_args()
    options = ["--engine", "autograd", "--seeds", str(max(arguments.seeds)), "--out", str(arguments.work)]
    if status := mnist_ablate(["run", "factorial", *options]):
        raise SystemExit(status)
    ours, theirs = load(FUSED), load(arguments.work)
    found = [row for n in arguments.seeds for row in rows(ours, theirs, n)]
    pd.DataFrame(found).to_parquet(arguments.out, index=False)


if __name__ == "__main__":
    main()
