"""Do the oldest and newest torch and Python work, and do they give the same results? ``nox -s compat``.

Each pair of Python and torch gets an environment in ``--work`` with the package installed, trains the study beside
this file, and is compared with the newest. A pair that cannot be had here is reported with the reason. Resumable:
existing environments and runs are not made again. Writes ``results/reference/compat.parquet``; the exit status is 1
if something fails or is different.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from places import ROOT, Place, Row

RESULTS = ROOT / "results" / "reference" / "compat.parquet"
Pair = tuple[str, str]
"""The version of Python, and what pip is asked for, such as ``torch==2.4``."""


def name_of(pair: Pair) -> str:
    """Return the name of an environment."""
    return f"Python {pair[0]}, {pair[1].replace('==', ' ')}"


def folder_name(name: str) -> str:
    """Return a name for the folder of an environment."""
    return re.sub(r"[ ,]+", "-", name)


def supported() -> tuple[list[str], list[str]]:
    """Read the newest and the oldest Python and torch from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minors = re.findall(r"Programming Language :: Python :: 3\.(\d+)", "\n".join(project["classifiers"]))
    (torch,) = (line.partition(">=")[2] for line in project["dependencies"] if line.startswith("torch>="))
    return [f"3.{minor}" for minor in (max(map(int, minors)), min(map(int, minors)))], ["torch", f"torch=={torch}"]


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def interpreter(version: str) -> str | None:
    """Find a Python of this version with venv: a command, or one of pyenv's."""
    of_pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    candidates = [python for python in (shutil.which(f"python{version}"), *map(str, of_pyenv)) if python]
    return next((python for python in candidates if _run(python, "-m", "venv", "--help").returncode == 0), None)


def make(pair: Pair, folder: Path) -> str:
    """Make an environment with the package unless it exists; return why it cannot be made, or an empty string."""
    python = interpreter(pair[0])
    if python is None:
        return f"there is no Python {pair[0]} on this machine"
    return _make(folder, python, (pair[1], f"{ROOT}[fast]"))


def overlay(requirements: Sequence[str], folder: Path) -> str:
    """Make an environment of this Python with other versions of some packages and all others as here; see `make`."""
    problem = _make(folder, sys.executable, requirements)
    if not problem:
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return problem


def _make(folder: Path, python: str, requirements: Sequence[str]) -> str:
    stamp = folder / "made-by-compat.txt"
    if stamp.exists():
        return ""
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    for command in ((python, "-m", "venv", "--clear", str(folder)), (*pip, *requirements)):
        done = _run(*command)
        if done.returncode:
            return reason(done.stderr)
    stamp.write_text(" ".join(requirements))
    return ""


def reason(stderr: str) -> str:
    """Return pip's last error that is not a hint."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    errors = [error for error in errors if not error.startswith("ResolutionImpossible")]
    return (errors or stderr.strip().splitlines() or ["no message"])[-1]


def measure(pairs: list[Pair], work: Path, options: list[str], skip: Sequence[str] = ()) -> Iterator[Row]:
    """Train in each environment and compare with the first that works: a row per finding, or per problem."""
    base = ""
    for pair in pairs:
        name = name_of(pair)
        print(name, flush=True)
        row = {"name": name, "python": pair[0], "torch": pair[1].partition("==")[2]}
        folder = work / "envs" / folder_name(name)
        if problem := "left out with --skip" if name in skip else make(pair, folder):
            yield row | {"not_tried": problem}
            continue
        # An empty PYTHONPATH: try the installed package, not a checkout.
        place = Place(name, base or name, environment={"PYTHONPATH": ""}, python=str(folder / "bin" / "python"))
        if problem := place.train(work / "runs", options):
            yield row | {"failed": problem}
            continue
        base = place.base
        yield from place.compare(work / "runs")


def main() -> int:
    """Measure, write the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "compat")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="names of environments to leave out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the table")
    arguments = parser.parse_args()
    options = [f"--{name}={getattr(arguments, name)}" for name in ("seeds", "epochs", "workers")]
    rows = list(measure(list(itertools.product(*supported())), arguments.work, options, arguments.skip))
    pd.DataFrame(rows).to_parquet(arguments.out, index=False)
    bad = {row["name"]: "" for row in rows if row.get("failed") or row.get("verdict_of_all") == "different"}
    for name in bad:
        print(f"{name}: failed or different, see {arguments.out}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
