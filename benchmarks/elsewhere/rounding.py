"""How much does other rounding change results? ``nox -s rounding``.

Trains the study beside this file with each engine, and with ``autograd`` for other processors and with two threads,
and compares each with a base. Resumable: what is in ``--work`` is not trained again.
Writes ``results/reference/rounding.parquet``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from places import ROOT, Place, Row, folder_of

RESULTS = ROOT / "results" / "reference" / "rounding.parquet"
# Stand-ins for other processors: libraries can be told to use less of this one. The gate has such a clean copy.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


def places() -> Iterator[Place]:
    """List the places, each after its base."""
    two_workers, autograd = ("--workers", "2"), ("--engine", "autograd")
    yield Place("fused", "")
    yield Place("fused, again, 2 workers", "fused", two_workers)
    yield Place("autograd", "fused", autograd)
    yield Place("autograd, again, 2 workers", "autograd", (*autograd, *two_workers))
    # Waiting threads must not spin: beside other work that takes hours, and it changes no bit.
    yield Place("autograd, 2 threads", "autograd", autograd, {"OMP_WAIT_POLICY": "passive"}, threads=2)
    yield Place("autograd, AVX2 only", "autograd", autograd, AVX2)
    yield Place("autograd, no vector instructions", "autograd", autograd, PLAIN)


def main() -> None:
    """Train what is missing, compare everything, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "rounding")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", nargs="*", help="names of places to train in; the table has all that exist")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the table")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for place in places():
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
