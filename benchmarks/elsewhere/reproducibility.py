"""Do small runs of the engine ``fused`` have one digest everywhere? ``nox -s reproducibility``.

Trains the runs of ``tests/digests.py`` with code for several kinds of processors, in both modes of subnormal numbers,
with other versions and other variants of libraries, and as ARM64 by qemu, and compares their digests with the
committed ones. Resumable: what was made and compiled in ``--work`` stays there.

``results/reference/reproducibility.parquet`` grows: rows of this processor are replaced, those of others stay as long
as the committed digests stay. The exit status is 1 if a digest differs or training fails.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arm64
import compat
import numpy as np
import pandas as pd
from places import ROOT, Row

sys.path.append(str(ROOT / "tests"))
import digests

RESULTS = ROOT / "results" / "reference" / "reproducibility.parquet"
PLACE = ("platform", "target", "python", "torch", "numpy", "numba")
"""The part of a process's place that is stored."""
SEPARATOR = "; "
"""Between the names of runs in a cell of the table."""
VECTORS = {
    "generic": "SSE2, no fused multiply-add",
    "haswell": "AVX2",
    "skylake-avx512": "AVX-512, Skylake",
    "znver4": "AVX-512, Zen 4",
}


def _nothing() -> str:
    return ""


@dataclass(frozen=True)
class Environment:
    """A Python and what is special about it. `prepare` makes it, or returns why that cannot be done."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    python: tuple[str, ...] = (sys.executable,)
    cache: str = "native"
    prepare: Callable[[], str] = _nothing

    def measure(self, work: Path) -> Row:
        """Train the runs and compare their digests: a row of the table."""
        row = {"name": self.name, "processor": digests.place()["processor"], "expected": _sha256(digests.FILE)}
        row |= {"not_tried": "", "failed": ""}
        if problem := self.prepare():
            return row | {"not_tried": problem}
        cache = work / "numba" / self.cache
        variables = {"NUMBA_CACHE_DIR": str(cache.absolute()), "PYTHONPATH": str(ROOT), **self.variables}
        done = subprocess.run(  # noqa: S603
            [*self.python, digests.__file__, *self.options],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return row | {"failed": f"ended by signal {-done.returncode}" if done.returncode < 0 else last}
        found = json.loads(done.stdout)
        expected = digests.expected()
        differ = [name for name in expected if found["digests"].get(name) != expected[name]]
        place = {key: found["place"][key] for key in PLACE}
        return row | place | {"runs": len(expected), "differ": SEPARATOR.join(differ), "seconds": found["seconds"]}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def environments(work: Path, envs: Path, emulated: Path) -> Iterator[Environment]:
    """List the environments, those that need nothing new first."""
    yield Environment("this processor")
    for target, what in VECTORS.items():
        prepare = functools.partial(digests.missing_for, target)
        yield Environment(what, digests.compiling_for(target), cache=target, prepare=prepare)
    yield Environment("subnormal numbers flushed before (FTZ, DAZ)", options=("--flush",))
    for library, variables in _no_vectors().items():
        yield Environment(f"{library} without vector instructions", variables)
    yield from _versions(work, envs)
    yield from _emulated(emulated)


def _no_vectors() -> dict[str, dict[str, str]]:
    """Return the variables with which libraries do without this processor's vector instructions."""
    config: Any = np.show_config(mode="dicts")
    return {
        "C library": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F"},
        "NumPy": {"NPY_DISABLE_CPU_FEATURES": " ".join(config["SIMD Extensions"].get("found", ()))},
        "torch": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    }


def _versions(work: Path, envs: Path) -> Iterator[Environment]:
    """List the versions of Python and torch that compat.py tries, and old ones of Numba and NumPy."""
    for pair in itertools.product(*compat.supported()):
        name = compat.name_of(pair)
        folder = envs / compat.folder_name(name)
        prepare = functools.partial(compat.make, pair, folder)
        yield Environment(name, python=(str(folder / "bin" / "python"),), cache=folder.name, prepare=prepare)
    others = {
        "lowest Numba and NumPy": _lowest(),
        "Numba 0.60": ("numba==0.60.*", "numpy==1.26.*"),  # below what pyproject.toml allows, for its older LLVM
        "Numba 0.62": ("numba==0.62.*",),
    }
    for name, requirements in others.items():
        folder = work / "envs" / compat.folder_name(name)
        prepare = functools.partial(compat.overlay, requirements, folder)
        yield Environment(name, python=(str(folder / "bin" / "python"),), cache=folder.name, prepare=prepare)


def _lowest() -> tuple[str, str]:
    """Return the lowest Numba and NumPy that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [*project["optional-dependencies"]["fast"], *project["dependencies"]]
    numba, numpy = (next(line for line in bounds if line.startswith(name)) for name in ("numba>=", "numpy>="))
    return f"{numba.replace('>=', '==')}.*", f"{numpy.replace('>=', '==')}.*"


def _emulated(folder: Path) -> Iterator[Environment]:
    """List what qemu emulates: an ARM64 with and without SVE."""
    python, prepare = tuple(arm64.python(folder)), functools.partial(arm64.make, folder)
    paths = {"PYTHONPATH": os.pathsep.join((str(folder.absolute() / "site"), str(ROOT)))}
    plain = functools.partial(Environment, python=python, cache="arm64", prepare=prepare)
    yield plain("ARM64 by qemu", paths)
    sve = paths | digests.compiling_for("neoverse-v1")
    yield Environment("ARM64 with SVE by qemu", sve, python=python, cache="arm64-sve", prepare=prepare)


def grown(kept: Iterable[Mapping[Any, Any]], row: Row) -> list[Mapping[Any, Any]]:
    """Return the `kept` rows and `row`, without the one that it replaces and those that had other digests to meet."""
    here = (row["name"], row["processor"])
    still = [old for old in kept if old["expected"] == row["expected"] and (old["name"], old["processor"]) != here]
    return [*still, row]


def main() -> int:
    """Measure, add to the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "reproducibility")
    parser.add_argument("--envs", type=Path, default=ROOT / "results" / "compat" / "envs", help="those of compat.py")
    parser.add_argument("--arm64", type=Path, help="folder of the emulated ARM64, by default in --work")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these environments; --only alone lists them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the table")
    arguments = parser.parse_args()
    places = list(environments(arguments.work, arguments.envs, arguments.arm64 or arguments.work / "arm64"))
    names = [place.name for place in places]
    if arguments.only is not None and not (arguments.only and set(arguments.only) <= set(names)):
        print("The environments:", *names, sep="\n  ")
        return 2 if arguments.only else 0
    bad = 0
    for place in places:
        if not arguments.only or place.name in arguments.only:
            row = place.measure(arguments.work)
            said = row["not_tried"] or row["failed"] or row["differ"] or "all digests are the committed ones"
            print(f"{place.name}: {said}", flush=True)
            bad += bool(row["failed"] or row.get("differ"))
            kept = pd.read_parquet(arguments.out).to_dict("records") if arguments.out.exists() else []
            rows = sorted(grown(kept, row), key=lambda row: (*names, row["name"]).index(row["name"]))
            pd.DataFrame(rows).to_parquet(arguments.out, index=False)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
