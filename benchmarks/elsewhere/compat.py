"""Does the suite work with the oldest and the newest torch and Python, and does it give the same? ``nox -s compat``.

Each pair of Python and torch gets an environment of its own in ``--work``, into which the package is installed, and
trains the study beside this file; each is compared with the newest. What cannot be had here is reported with the
reason. Resumable: environments and runs that are there are not made again. Writes
``results/reference/compat.parquet`` and exits with 1 where something fails or is different.
"""

import argparse
import itertools
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import places

RESULTS = places.ROOT / "results" / "reference" / "compat.parquet"


@dataclass(frozen=True)
class Environment:
    """A Python and a torch; `torch` is what pip is asked for, as ``torch==2.4``."""

    python: str
    torch: str

    @property
    def name(self) -> str:
        """Its name, also of its folders."""
        return f"Python {self.python}, {self.torch.replace('==', ' ')}"


def supported() -> tuple[list[str], list[str]]:
    """Read from pyproject.toml the oldest and the newest Python, and the oldest and the newest torch."""
    project = tomllib.loads((places.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one) for one in project["classifiers"])
    pythons = sorted((one[1] for one in found if one), key=lambda text: int(text.partition(".")[2]))
    (bound,) = (one.partition(">=")[2] for one in project["dependencies"] if one.startswith("torch>="))
    return list(dict.fromkeys((pythons[-1], pythons[0]))), ["torch", f"torch=={bound}"]


def interpreter(version: str) -> str | None:
    """Find a Python of a version: a command, or one of pyenv's."""
    of_pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    candidates = (shutil.which(f"python{version}"), *map(str, reversed(of_pyenv)))
    return next(
        (found for found in candidates if found and _run([found, "-m", "venv", "--help"]).returncode == 0), None
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def make(environment: Environment, folder: Path) -> str:
    """Make an environment and install the package, unless that is done; return why it cannot be, or nothing."""
    stamp = folder / "made-by-compat.txt"
    if stamp.exists():
        return ""
    python = interpreter(environment.python)
    if python is None:
        return f"there is no Python {environment.python} on this machine"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([python, "-m", "venv", "--clear", str(folder)], [*pip, environment.torch, f"{places.ROOT}[fast]"]):
        done = _run(command)
        if done.returncode:
            return _reason(done.stderr)
    stamp.write_text(environment.name)
    return ""


def _reason(stderr: str) -> str:
    """Take what pip gives as the reason: its last error that is not a hint."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    errors = [error for error in errors if not error.startswith("ResolutionImpossible")]
    return (errors or stderr.strip().splitlines() or ["no message"])[-1]


def measure(
    environments: list[Environment], work: Path, options: list[str], skip: Sequence[str] = ()
) -> Iterator[places.Row]:
    """Train in each environment and compare with the first that works; a row per finding, or per problem."""
    base: Environment | None = None
    for environment in environments:
        print(environment.name, flush=True)
        who = {"name": environment.name, "python": environment.python, "torch": environment.torch.partition("==")[2]}
        folder, out = (work / part / environment.name.replace(", ", "-").replace(" ", "-") for part in ("envs", "runs"))
        problem = "left out with --skip" if environment.name in skip else make(environment, folder)
        if problem:
            yield who | {"not_tried": problem}
            continue
        # What is tried is the package as it is installed there, not a checkout that the variable may name.
        problem = places.train(folder / "bin" / "python", out, options, {"PYTHONPATH": ""})
        if problem:
            yield who | {"failed": problem}
            continue
        base = base or environment
        base_out = work / "runs" / base.name.replace(", ", "-").replace(" ", "-")
        yield from places.measured(environment.name, base.name, out, base_out)


def main() -> int:
    """Measure, write the table, and tell whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=places.ROOT / "results" / "compat")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="environments to leave out, by name")
    arguments = parser.parse_args()
    pythons, torches = supported()
    environments = [Environment(*pair) for pair in itertools.product(pythons, torches)]
    options = [f"--{name}={getattr(arguments, name)}" for name in ("seeds", "epochs", "workers")]
    found = list(measure(environments, arguments.work, options, arguments.skip))
    places.write(found, RESULTS)
    bad = [row for row in found if row.get("failed") or row.get("verdict_of_all") == "different"]
    for name in dict.fromkeys(row["name"] for row in bad):
        print(f"{name}: failed or different, see {RESULTS}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
