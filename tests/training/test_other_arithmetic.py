"""Arithmetic that differs from the rules of the kernels changes the bits of a run, even where nobody would notice."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import digests
import pytest

import mnist_ablate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gate"))
import power
from bugs import ARITHMETIC, Bug, Edit

PACKAGE = Path(mnist_ablate.__file__).parent
RUN = """
import digests
print(digests.digest(digests.train(digests.runs()["baseline"], digests.images())))
"""

((_, FMA, APART),) = power.NO_FUSED_PRODUCTS.edits
(OTHER_SUMS,), (OTHER_EXPONENTIAL,) = power.OTHER_SUMS.edits, power.OTHER_EXPONENTIAL.edits
FLAG = 'flags=["contract"]'
FUSED_AT_WILL: Edit = (
    ARITHMETIC, FMA, APART.replace("[:2])", f"[:2], {FLAG})").replace("arguments[2])", f"arguments[2], {FLAG})")
)  # fmt: skip


def digest(folder: Path, environment: dict[str, str]) -> str:
    """Return the digest of a small run, trained by the package in `folder` in a process of its own."""
    paths = os.pathsep.join([str(folder), str(Path(digests.__file__).parent)])
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", RUN],
        cwd=folder,  # which comes before PYTHONPATH
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_arithmetic_does_not() -> None:
    """The package as it is has the digest that must come out."""
    assert digest(PACKAGE.parent, {}) == digests.expected()["baseline"]


@pytest.mark.parametrize(
    ("fault", "environment"),
    [
        # What a compiler may do that is free to fuse: it does where the processor can, so bits depend on the processor.
        pytest.param(
            FUSED_AT_WILL,
            digests.compiling_for("generic"),
            id="fused at will",
            marks=pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others can always fuse"),
        ),
        pytest.param(OTHER_SUMS, {}, id="sums in another order"),
        pytest.param(OTHER_EXPONENTIAL, {}, id="the C library's exponential"),
    ],
)
def test_other_arithmetic_shows(fault: Edit, environment: dict[str, str], tmp_path: Path) -> None:
    """A sum in another order, a product that is rounded, another exponential: each changes the digest."""
    shutil.copytree(PACKAGE, tmp_path / "base" / "mnist_ablate", ignore=shutil.ignore_patterns("__pycache__"))
    power.plant(tmp_path / "base", tmp_path / "copy", Bug("fault", "", (fault,)))
    found = digest(tmp_path / "copy", environment | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")})
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert found != digests.expected()["baseline"]
