"""The package in an environment of its own, as another user may use it: ``nox -s package``.

The environment is in a folder with a space in its name, only root may write to it, and the dependencies are those of
``.venv``. Where no root runs this, or no Python is there for all users, the user is the same.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mnist_ablate import data

ROOT = Path(__file__).parents[2]
OTHER = 12345
"""A user without a name."""
STUDY = """
name = "tiny"
seeds = 2
[protocol]
epochs = 1
width = 16
train_images = 500
[factors]
dropout = [0.0, 0.2]
"""


@dataclass(frozen=True)
class Installed:
    """The installed wheel, and how to use it: `folder` is the user's, and `user` is empty for the same user.

    `source` is the source distribution that the wheel was built from.
    """

    source: Path
    environment: Path
    folder: Path
    variables: dict[str, str]
    user: dict[str, Any]

    def program(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `mnist-ablate` in the user's folder."""
        return subprocess.run(  # noqa: S603
            [str(self.environment / "bin" / "mnist-ablate"), *arguments],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False, **self.user,
        )  # fmt: skip

    def says(self, *arguments: str) -> str:
        """Run `mnist-ablate`, which must end well, and return what it prints."""
        done = self.program(*arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


def _python(user: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a Python of this version which the user can run, and the user."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (os.path.realpath(sys.executable), shutil.which(version, path=os.defpath)):
        if python and user:
            try:
                subprocess.run([python, "-c", ""], check=True, **user)  # noqa: S603
            except (OSError, subprocess.CalledProcessError):
                continue
            return python, user
    return sys.executable, {}


@pytest.fixture(scope="module")
def where() -> Iterator[Path]:
    """Make a folder that others can enter, unlike pytest's, and remove it, also what cannot be written to."""
    folder = Path(tempfile.mkdtemp(prefix="with a space "))
    folder.chmod(0o755)
    yield folder
    for path in (path for path in folder.rglob("*") if path.is_dir()):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(where: Path) -> Iterator[Installed]:
    """Build a source distribution, the wheel from it, install it, and give the user a folder and a home."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(where), str(ROOT)], check=True)  # noqa: S603
    (source,), (wheel,) = where.glob("*.tar.gz"), where.glob("*.whl")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    python, user = _python({"user": OTHER, "group": OTHER, "extra_groups": []} if root else {})
    environment, home, folder = where / "environment", where / "home", where / "folder of theirs"
    subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)  # noqa: S603
    install = ["--python", str(environment), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)  # noqa: S603
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(
        sysconfig.get_path("purelib")
    )  # .pth files there, as of a checkout, are not read
    data.fetch("mnist")
    shutil.copytree(data.data_folder() / "mnist", where / "data" / "mnist")
    for made in (home, folder):
        made.mkdir()
        if user:
            os.chown(made, OTHER, OTHER)
    (folder / "tiny.toml").write_text(STUDY)
    for path in (*site.rglob("*"), site, *(where / "data").rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    before = _files(site)
    variables = {"HOME": str(home), "PATH": os.defpath, "MNIST_ABLATE_DATA": str(where / "data")}
    yield Installed(source, environment, folder, variables, user)
    assert _files(site) == before  # nothing that `pip uninstall` would leave behind


def _files(site: Path) -> set[str]:
    return {str(path) for path in site.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}


def test_a_study_from_plan_to_report(installed: Installed) -> None:
    """`plan`, `run`, `report`, `verify` and `doctor` work in a folder that knows nothing of a checkout."""
    assert "4 runs" in installed.says("plan", "tiny.toml")
    installed.says("run", "tiny.toml", "--workers", "1")
    installed.says("verify", "results/tiny")
    installed.says("doctor", "results/tiny")
    report = [str(installed.environment / "bin" / "python"), "-m", "mnist_ablate.report", "results/tiny"]
    subprocess.run(report, cwd=installed.folder, env=installed.variables, check=True, **installed.user)  # noqa: S603
    assert (installed.folder / "reports" / "tiny" / "index.html").stat().st_size > 100_000


def test_the_compiled_code_is_the_users(installed: Installed) -> None:
    """What Numba compiled lies in the user's cache, from where the next process loads it without a word."""
    installed.says("run", "tiny.toml", "--workers", "0", "--out", "once")
    again = installed.program("run", "tiny.toml", "--workers", "0", "--out", "twice")
    assert "Compiling" not in again.stderr
    cache = Path(installed.variables["HOME"]) / ".cache" / "mnist-ablate" / "numba"
    assert len(list(cache.rglob("*.nbc"))) > 20


def test_the_gate_has_its_reference(installed: Installed) -> None:
    """Outside a checkout the gate compares with the reference in the wheel, and finds no regression."""
    assert re.match(r"Pass", installed.says("gate"))
    assert (installed.folder / "results" / "gate" / "gate.md").exists()
    assert installed.program("gate", "--reference", "none").returncode == 2


def test_pytest_has_the_fixture(installed: Installed) -> None:
    """Where the wheel is installed, pytest has `gate` without being told, and a test of theirs can use it."""
    (installed.folder / "test_theirs.py").write_text("def test_it(gate):\n    gate('a', 0, 1.0)\n")
    done = subprocess.run(  # noqa: S603
        [str(installed.environment / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=installed.folder, env=installed.variables, capture_output=True, text=True, check=False, **installed.user,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"Cannot tell: .*tests/gate has no reference", done.stdout)


def test_the_tests_pass_in_the_source_distribution(installed: Installed, tmp_path: Path) -> None:
    """Unpacked elsewhere, the source distribution has all files of git, and its tests of the public face pass."""
    with tarfile.open(installed.source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    git = ["git", "ls-files"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603
    assert [name for name in listed if not (unpacked / name).exists()] == []
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/test_public.py", "tests/design"]
    assert subprocess.run(tests, cwd=unpacked, check=False).returncode == 0  # noqa: S603
