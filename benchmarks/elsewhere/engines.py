"""Do the two engines give the same results? The study `factorial` by each, compared cell by cell.

Once with the ten seeds of the main job, and once with all seeds. Resumable: what is in ``--work`` is not trained again.
Writes ``results/reference/engines.parquet``.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import places

from mnist_ablate.checks import compare
from mnist_ablate.checks.compare_page import finding_numbers
from mnist_ablate.execution import runner
from mnist_ablate.inference.effects import CONFIDENCE, seed_table
from mnist_ablate.store.results import Results

RESULTS = places.ROOT / "results" / "reference" / "engines.parquet"
MAIN_JOB = 10
"""Seeds of the study as it comes."""


def first_seeds(results: Results, n: int) -> Results:
    """Keep the first `n` seeds."""
    epochs = results.epochs[results.epochs["seed"] < n].reset_index(drop=True)
    kept = set(epochs["run_id"])
    documents = {run_id: document for run_id, document in results.documents.items() if run_id in kept}
    return replace(results, epochs=epochs, documents=documents)


def measured(fused: Results, autograd: Results) -> Iterator[places.Row]:
    """Give a row for each response of each cell: both means, the difference with two intervals, the verdict."""
    machine, found = places.machine(autograd), compare.compare(fused, autograd).findings
    means = {
        (engine, response): seed_table(results, response).mean()
        for engine, results in (("fused", fused), ("autograd", autograd))
        for response in {finding.response for finding in found}
    }
    for finding in found:
        both = {engine: means[engine, finding.response].get(finding.cell) for engine in ("fused", "autograd")}
        low, high = finding.sample.interval(1 - CONFIDENCE)
        yield machine | both | finding_numbers(finding) | {"low_alone": low, "high_alone": high}


def main() -> None:
    """Train what is missing, compare, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=places.ROOT / "results" / "engines")
    parser.add_argument("--seeds", type=int, default=40)
    arguments = parser.parse_args()
    fused, autograd = (
        runner.run("factorial", seeds=arguments.seeds, engine=engine, out=arguments.work / engine)
        for engine in ("fused", "autograd")
    )
    sizes = sorted({min(MAIN_JOB, arguments.seeds), arguments.seeds})
    found = [row for n in sizes for row in measured(first_seeds(fused, n), first_seeds(autograd, n))]
    places.write(found, RESULTS)


if __name__ == "__main__":
    main()
