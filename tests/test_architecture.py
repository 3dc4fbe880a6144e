"""The shape of the package and its tests; `nox -s lint` checks the directions of imports (see pyproject.toml)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_ablate

PACKAGE = Path(mnist_ablate.__file__).parent
TESTS = Path(__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
LIGHT = {name for name in MODULES if not name.startswith("mnist_ablate.training.")} | {"mnist_ablate.training.tasks"}


def test_only_training_needs_torch() -> None:
    """Every module outside of training can be imported without torch."""
    names = ", ".join(sorted(name.removesuffix(".__init__") for name in LIGHT if not name.endswith("__main__")))
    code = f"import {names}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_says_what_must_hold(path: Path) -> None:
    """Each test has a docstring."""
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    wanting = [f.name for f in functions if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert wanting == []


def test_tests_follow_the_tree() -> None:
    """Each folder of the package has a folder of tests, and the other way round, with the named exceptions."""
    tested = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/test_*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert tested - {"benchmarks", "browser", "notebooks", "package"} == folders - {"studies"}
