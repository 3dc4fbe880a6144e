"""Measure where bits of results stay and where they part, and how much that changes results.

Trains the study beside this file once for each kind of processor, engine, number of threads and (with
``--other-python``) versions, and compares each with a base. Resumable: what is in ``--work`` is not trained again.
Writes ``results/reference/reproducibility.parquet``.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import places

RESULTS = places.ROOT / "results" / "reference" / "reproducibility.parquet"
# As the gate's clean runs: what other kinds of processor would do, by what the libraries allow to be turned off.
AVX2 = {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
PLAIN = {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


@dataclass(frozen=True)
class Variant:
    """A place to train in, and what it is compared with."""

    name: str
    base: str
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable


def variants(others: list[str]) -> Iterator[Variant]:
    """List them, each after its base."""
    autograd = ("--engine", "autograd")
    yield Variant("fused", "")
    yield Variant("fused, again, 2 workers", "fused", ("--workers", "2"))
    yield Variant("fused, AVX2 only", "fused", environment=AVX2)
    yield Variant("fused, no vector instructions", "fused", environment=PLAIN)
    yield Variant("autograd", "fused", autograd)
    yield Variant("autograd, again, 2 workers", "autograd", (*autograd, "--workers", "2"))
    # Threads that wait must not spin: on a machine with other work that would take hours, and changes no bit.
    waiting = {"OMP_WAIT_POLICY": "passive"}
    yield Variant("autograd, 2 threads", "autograd", (*autograd, "--threads", "2"), waiting)
    yield Variant("autograd, AVX2 only", "autograd", autograd, AVX2)
    yield Variant("autograd, no vector instructions", "autograd", autograd, PLAIN)
    for i, python in enumerate(others, start=1):
        yield Variant(f"fused, other versions {i}", "fused", python=python)
        yield Variant(f"autograd, other versions {i}", "autograd", autograd, python=python)


def main() -> None:
    """Train what is missing, compare all, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=places.ROOT / "results" / "reproducibility")
    parser.add_argument("--other-python", nargs="*", default=[], help="interpreters with other versions")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", nargs="*", help="names of variants to train; the table has all that there is")
    arguments = parser.parse_args()
    found = []
    for variant in variants(arguments.other_python):
        folder = arguments.work / variant.name.replace(", ", "-").replace(" ", "-")
        if not arguments.only or variant.name in arguments.only:
            options = variant.options if "--workers" in variant.options else (*variant.options, "--workers", "1")
            seeds = f"--seeds={arguments.seeds}"
            problem = places.train(variant.python, folder, [*options, seeds], variant.environment)
            if problem:
                raise SystemExit(f"{variant.name}: {problem}")
            print(variant.name, flush=True)
        if variant.base and (folder / "runs").exists():
            found += places.measured(variant.name, variant.base, folder, arguments.work / variant.base)
    places.write(found, RESULTS)


if __name__ == "__main__":
    main()
