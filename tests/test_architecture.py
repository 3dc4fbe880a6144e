"""The shape of the package; `nox -s lint` checks the directions of imports (``importlinter`` in pyproject.toml)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_ablate

PACKAGE = Path(mnist_ablate.__file__).parent
TESTS = Path(__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
NEEDS_TORCH = {name for name in MODULES if name.startswith("training.")} - {"training.__init__", "training.tasks"}


def test_only_training_needs_torch() -> None:
    """Everything but the modules that train can be imported without torch, the commands too."""
    modules = sorted(f"mnist_ablate.{name.removesuffix('.__init__')}" for name in MODULES - NEEDS_TORCH)
    code = f"import {', '.join(m for m in modules if not m.endswith('__'))}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_the_package_itself_imports_nothing() -> None:
    """`import mnist_ablate` is instant, and leaves `python -m mnist_ablate.report` to import the report first."""
    code = "import mnist_ablate, sys; sys.exit(any(m.startswith('mnist_ablate.') or m == 'torch' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_says_what_must_hold(path: Path) -> None:
    """Each test has a docstring."""
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    wanting = [f.name for f in functions if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert wanting == []


def test_tests_follow_the_tree() -> None:
    """Each folder of tests is a folder of the package, but for the tests of benchmarks and of pages in a browser."""
    ours = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert ours - {"benchmarks", "browser"} == {p.name for p in PACKAGE.iterdir() if p.is_dir()} - {
        "studies",
        "__pycache__",
    }
