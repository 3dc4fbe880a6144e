"""Where do bits stay and where do they part, and how much does that change results? ``nox -s reproducibility``.

Trains the study beside this file for each kind of processor, engine, number of threads and (with ``--other-python``)
versions, and compares each with a base. Resumable: what is in ``--work`` is not trained again.
Writes ``results/reference/reproducibility.parquet``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from places import ROOT, Place, Row, folder_of

RESULTS = ROOT / "results" / "reference" / "reproducibility.parquet"
# Stand-ins for other processors: libraries can be told to use less of this one. The gate has the same clean copies.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
PLAIN = {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


def places(others: list[str]) -> Iterator[Place]:
    """List the places, each after its base."""
    two_workers, autograd = ("--workers", "2"), ("--engine", "autograd")
    yield Place("fused", "")
    yield Place("fused, again, 2 workers", "fused", two_workers)
    yield Place("fused, AVX2 only", "fused", environment=AVX2)
    yield Place("fused, no vector instructions", "fused", environment=PLAIN)
    yield Place("autograd", "fused", autograd)
    yield Place("autograd, again, 2 workers", "autograd", (*autograd, *two_workers))
    # Waiting threads must not spin: beside other work that takes hours, and it changes no bit.
    yield Place("autograd, 2 threads", "autograd", autograd, {"OMP_WAIT_POLICY": "passive"}, threads=2)
    yield Place("autograd, AVX2 only", "autograd", autograd, AVX2)
    yield Place("autograd, no vector instructions", "autograd", autograd, PLAIN)
    for i, python in enumerate(others, start=1):
        yield Place(f"fused, other versions {i}", "fused", python=python)
        yield Place(f"autograd, other versions {i}", "autograd", autograd, python=python)


def main() -> None:
    """Train what is missing, compare everything, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "reproducibility")
    parser.add_argument("--other-python", nargs="*", default=[], help="interpreters with other versions")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", nargs="*", help="names of places to train in; the table has all that exist")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the table")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for place in places(arguments.other_python):
        if not arguments.only or place.name in arguments.only:
            problem = place.train(arguments.work, [f"--seeds={arguments.seeds}"])
            if problem:
                raise SystemExit(f"{place.name}: {problem}")
            print(place.name, flush=True)
        if place.base and (folder_of(arguments.work, place.name) / "runs").exists():
            rows += place.compare(arguments.work)
    pd.DataFrame(rows).to_parquet(arguments.out, index=False)


if __name__ == "__main__":
    main()
