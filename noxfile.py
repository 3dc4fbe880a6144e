"""The project's jobs. ``nox -l`` lists them; they share one environment, ``.venv``."""

import hashlib
import os
import shutil
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typecheck", "tests"]

HERE = Path(__file__).parent
VENV = HERE / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
MADE_FROM = ("pyproject.toml", "constraints.txt")


@nox.session
def env(session: nox.Session) -> None:
    """Make .venv, or make it again where what it is made from has changed."""
    stamp = VENV / "made-from.sha256"
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in MADE_FROM)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        session.log(f"{VENV} is up to date")
        return
    session.run(sys.executable, "-m", "venv", "--clear", str(VENV), external=True)
    install = (
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        "constraints.txt",
    )
    session.run(*install, "--upgrade", "pip", external=True)
    session.run(*install, "--editable", ".[fast,torchvision]", "--group", "dev", external=True)
    stamp.write_text(wanted)


@nox.session(requires=["env"])
def ablation(session: nox.Session) -> None:
    """Run the factorial study on MNIST and write its report; arguments after -- go to `run`."""
    _run_to_the_end(session, "-m", "mnist_ablate", "run", "--report", *session.posargs)


def _run_to_the_end(session: nox.Session, *arguments: str) -> None:
    """Run Python, which on Ctrl-C gets the time to say what it kept: nox alone would allow it 0.3 s."""
    session.run(PYTHON, *arguments, external=True, interrupt_timeout=10, terminate_timeout=5)


@nox.session(requires=["env"])
def report(session: nox.Session) -> None:
    """Write the report of a results folder, by default results/factorial."""
    session.run(PYTHON, "-m", "mnist_ablate.report", *session.posargs, external=True)


@nox.session(requires=["env"])
def tests(session: nox.Session) -> None:
    """Run the test suite on all cores; arguments after -- go to pytest."""
    # A worker that is done takes tests from the others: some take a minute, most a moment.
    workers = ("--numprocesses", "logical", "--dist", "worksteal")
    session.run(PYTHON, "-m", "pytest", *workers, *session.posargs, external=True)


@nox.session(requires=["env"])
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and the directions of imports with import-linter."""
    session.run(PYTHON, "-m", "ruff", "check", external=True)
    session.run(PYTHON, "-m", "ruff", "format", "--check", external=True)
    session.run(str(Path(PYTHON).with_name("lint-imports")), external=True)


@nox.session(requires=["env"])
def typecheck(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    session.run(PYTHON, "-m", "mypy", external=True)


@nox.session(requires=["env"])
def readme(session: nox.Session) -> None:
    """Write the tables and pictures of the README and of the documents from result files; nothing is measured."""
    for script in ("readme", "gate_power"):
        session.run(PYTHON, f"docs/{script}.py", external=True)
    session.run(PYTHON, "benchmarks/calibration.py", "--page-only", external=True)


@nox.session(requires=["env"])
def messages(session: nox.Session) -> None:
    """Add what the pages say to the catalogues of other languages; the code of a new language may follow --."""
    session.run(PYTHON, "docs/messages.py", *session.posargs, external=True)


@nox.session(requires=["env"])
def docs(session: nox.Session) -> None:
    """Build the documentation site in reports/site, with warnings as errors; arguments after -- go to Sphinx."""
    options = ("--fail-on-warning", "--keep-going", "--quiet", "--doctree-dir", ".nox/doctrees")
    session.run(PYTHON, "-m", "sphinx", *options, *session.posargs, "docs", "reports/site", external=True)


@nox.session(requires=["env"])
def growth(session: nox.Session) -> None:
    """Measure how time and memory grow with runs, width and batch size; -- --quick for a look."""
    session.run(PYTHON, "benchmarks/growth.py", *session.posargs, external=True)


@nox.session(requires=["env"])
def calibration(session: nox.Session) -> None:
    """Try intervals, verdicts and power on simulated seeds; a results folder of your own may follow --."""
    session.run(PYTHON, "benchmarks/calibration.py", *session.posargs, external=True)


@nox.session(requires=["env"])
def bench(session: nox.Session) -> None:
    """Time each part alone; arguments after -- go to pytest, such as -k step or --benchmark-json FILE."""
    show = ("--benchmark-group-by=func", "--benchmark-sort=name", "--benchmark-columns=min,median,iqr,rounds")
    session.run(PYTHON, "-m", "pytest", "benchmarks/test_bench.py", *show, *session.posargs, external=True)


@nox.session(requires=["env"], venv_backend="venv", reuse_venv=True)
def peers(session: nox.Session) -> None:
    """Time the main job against a notebook's loop, PyTorch, JAX and the bare matrix products; -- --quick for a look."""
    session.install("--quiet", "--constraint", "benchmarks/peers/constraints.txt", "jax", "numpy")
    python = shutil.which("python", path=session.bin)
    session.run(PYTHON, "benchmarks/peers/run.py", "--jax-python", str(python), *session.posargs, external=True)


@nox.session(requires=["env"])
def gpu(session: nox.Session) -> None:
    """Measure a graphics card: the main job, bits, races, packs of runs, peers; six minutes, see docs/gpu.md."""
    session.run(PYTHON, "benchmarks/gpu/card.py", *session.posargs, external=True)


@nox.session(requires=["env"])
def browser(session: nox.Session) -> None:
    """Open the report in Chromium: no complaint, no request, accessible; screenshots go to reports/browser."""
    only = ("tests/browser", "--override-ini", "addopts=--import-mode=importlib")
    session.run(PYTHON, "-m", "pytest", *only, *session.posargs, external=True)


@nox.session(requires=["env"])
def package(session: nox.Session) -> None:
    """Build both distributions, install the wheel, and use it as another user elsewhere, from `plan` to `gate`."""
    only = ("tests/package", "--override-ini", "addopts=--import-mode=importlib")
    session.run(PYTHON, "-m", "pytest", *only, *session.posargs, external=True)


@nox.session(requires=["env"], venv_backend="venv", reuse_venv=True)
def lowest(session: nox.Session) -> None:
    """Run the tests with every dependency except torch at the lowest version allowed; arguments after -- go to pytest.

    Torch and the tools come from .venv, and `nox -s compat` has the lowest torch.
    """
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    bounds = [*project["dependencies"], *extras["fast"], *extras["cluster"]]
    lowest = [line.replace(">=", "==") for line in bounds if not line.startswith("torch")]
    session.install("--quiet", *lowest, "pyparsing<3.1")  # newer ones warn of how matplotlib 3.8 calls them
    own, shared = (next(Path(folder).rglob("site-packages")) for folder in (session.virtualenv.location, VENV))
    (own / "tools.pth").write_text(f"import site; site.addsitedir({str(shared)!r})\n", encoding="utf-8")
    # Old libraries warn of newer ones, which is not our concern; nor are the plugins for pytest of newer ones.
    options = ("-p", "xdist.plugin", "--numprocesses", "logical", "--override-ini", "filterwarnings=default")
    session.run("python", "-m", "pytest", *options, *session.posargs, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})


@nox.session(requires=["env"])
def verify(session: nox.Session) -> None:
    """Train stored runs again and compare them bit for bit; by default 8 of results/factorial."""
    what = session.posargs or ["results/factorial", "--sample", "8"]
    _run_to_the_end(session, "-m", "mnist_ablate", "verify", *what)


@nox.session(requires=["env"])
def reference(session: nox.Session) -> None:
    """Make the reference results and their pages, all or those after --; with -- --pages the pages alone."""
    _run_to_the_end(session, "docs/reference.py", *session.posargs)


@nox.session(requires=["env"])
def regression(session: nox.Session) -> None:
    """Tell whether training has got worse since the reference was accepted; arguments after -- go to `gate`."""
    _run_to_the_end(session, "-m", "mnist_ablate", "gate", *session.posargs)


@nox.session(requires=["env"])
def faults(session: nox.Session) -> None:
    """Disturb a study in every known way and resume it: hours, as root; -- --seeds 1 for fewer, --only KIND."""
    _run_to_the_end(session, "benchmarks/faults/faults.py", *session.posargs)


@nox.session(requires=["env"])
def fuzz(session: nox.Session) -> None:
    """Give every reader 10,000 bad inputs of each kind; arguments after -- go to pytest."""
    fuzz = ("tests/test_bad_input.py", "-p", "no:xdist", "--hypothesis-profile", "fuzz", "--hypothesis-show-statistics")
    _run_to_the_end(session, "-m", "pytest", *fuzz, *session.posargs)


@nox.session(name="gate-power", requires=["env"])
def gate_power(session: nox.Session) -> None:
    """Measure which planted bugs the gate sees: hours, resumes where it stopped; -- --sets N for fewer."""
    _run_to_the_end(session, "benchmarks/gate/power.py", *session.posargs)
    for script in ("benchmarks/gate/power_judge.py", "docs/gate_power.py"):
        session.run(PYTHON, script, external=True)


@nox.session(requires=["env"])
def compat(session: nox.Session) -> None:
    """Train with the oldest and newest torch and Python, each in its own environment, and compare; -- --seeds N."""
    _run_to_the_end(session, "benchmarks/elsewhere/compat.py", *session.posargs)


@nox.session(requires=["env"])
def reproducibility(session: nox.Session) -> None:
    """Compare digests across vector instructions, modes, versions and ARM64 by qemu; -- --only lists the places."""
    _run_to_the_end(session, "benchmarks/elsewhere/reproducibility.py", *session.posargs)


@nox.session(requires=["env"])
def rounding(session: nox.Session) -> None:
    """Measure what the rounding of other engines, processors and threads does to results; -- --seeds N."""
    _run_to_the_end(session, "benchmarks/elsewhere/rounding.py", *session.posargs)
