"""Arithmetic that differs from the rules of the kernels changes the bits of a run, even where nobody would notice."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_ablate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gate"))
import power
from bugs import ARITHMETIC, LOSSES, Bug, Edit

PACKAGE = Path(mnist_ablate.__file__).parent
RUN = """
from conftest import small_images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.protocol import train

settings = Settings(epochs=2, width=16, depth=1, batch_size=32)
result = train(Run("s", "c", (), 0, settings, "fused"), small_images())
print(result.weights_sha256, result.first_losses, [row["test_loss"] for row in result.rows])
"""

((_, FMA, APART),) = power.NO_FUSED_PRODUCTS.edits
(OTHER_SUMS,) = power.OTHER_SUMS.edits
FUSED_AT_WILL: Edit = (
    ARITHMETIC,
    FMA,
    APART.replace("]), arguments[2])", '], flags=["contract"]), arguments[2], ["contract"])'),
)
OTHER_EXP: Edit = (
    LOSSES,
    "import compiled, exp, flushed, log\n",
    "import compiled, flushed, log\nfrom math import exp\n",
)


def result_of(folder: Path, environment: dict[str, str]) -> str:
    """Return the numbers of a short run, trained by the package in `folder` in a process of its own."""
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", RUN],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def right() -> str:
    """Return the numbers of the run as it should be."""
    return result_of(PACKAGE.parent, {})


@pytest.mark.parametrize(
    ("fault", "environment"),
    [
        # What a compiler may do that is free to fuse: it does where the processor can, so bits depend on the processor.
        pytest.param(
            FUSED_AT_WILL,
            {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
            id="fused at will",
            marks=pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others can always fuse"),
        ),
        pytest.param(OTHER_SUMS, {}, id="sums in another order"),
        pytest.param(OTHER_EXP, {}, id="the C library's exponential"),
    ],
)
def test_other_arithmetic_shows(fault: Edit, environment: dict[str, str], right: str, tmp_path: Path) -> None:
    """A sum in another order, a product that is rounded, another exponential: each changes what a run prints."""
    shutil.copytree(PACKAGE, tmp_path / "base" / "mnist_ablate", ignore=shutil.ignore_patterns("__pycache__"))
    power.plant(tmp_path / "base", tmp_path / "copy", Bug("fault", "", (fault,)))
    assert result_of(tmp_path / "copy", environment | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}) != right
