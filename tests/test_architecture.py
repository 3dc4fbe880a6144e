"""The shape of the package: imports go downward, reading results needs no torch, every test says what must hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_ablate

PACKAGE = Path(mnist_ablate.__file__).parent
TESTS = Path(__file__).parent
# Each imports only from those before it.
LAYERS = [
    "errors", "seeds", "responses", "contrasts", "settings", "design", "data", "model", "engines.autograd",
    "engines.kernels", "engines.fused", "engines", "probes", "train", "provenance", "worker", "tasks",
    "sealed", "schema", "store", "results", "bits", "executors", "cluster", "progress", "runner",
    "estimands", "effects", "printed", "replication", "levels",
    "mistakes", "hypotheses", "plots.style", "plots.cells", "plots.contrasts", "plots.answers", "plots.judged",
    "plots.levels", "plots.replication", "plots", "words", "answers", "tables", "chapters", "pictures", "report",
    "claims", "claims_page", "verify", "doctor", "compare", "compare_report",
    "gate_reference", "gate_golden", "gate_shifts", "gate", "gate_report", "gate_runs", "gate_accept",
    "cli", "__main__",
]  # fmt: skip
READING_HALF = [
    "store", "results", "cluster", "runner", "effects", "mistakes", "hypotheses", "plots", "report", "claims",
    "claims_page", "verify", "doctor", "compare", "compare_report", "gate_reference", "gate_golden", "gate_shifts",
    "gate", "gate_report", "gate_runs", "gate_accept", "cli",
]  # fmt: skip


def module_name(path: Path) -> str:
    """Turn a file of the package into the name of its module, less the package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> set[str]:
    """List the modules of this package that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mnist_ablate":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_ablate."):
            found.add((node.module or "").removeprefix("mnist_ablate."))
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("mnist_ablate.") for alias in node.names if "mnist_ablate" in alias.name}
    return found


FILES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def test_every_module_has_its_place() -> None:
    """The list of layers names every module of the package, and no other."""
    assert set(FILES) - {"__init__", "studies"} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_go_downward(module: str) -> None:
    """A module imports only from those above it in the list."""
    assert imports(FILES[module]) <= set(LAYERS[: LAYERS.index(module)])


@pytest.mark.parametrize("module", READING_HALF)
def test_reading_needs_no_torch(module: str) -> None:
    """Importing what reads, judges and shows results does not import torch."""
    code = f"import mnist_ablate.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_the_package_itself_imports_nothing() -> None:
    """`import mnist_ablate` is instant, and leaves `python -m mnist_ablate.report` to import the report first."""
    code = "import mnist_ablate, sys; sys.exit(any(m.startswith('mnist_ablate.') or m == 'torch' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.py")), ids=lambda path: path.name)
def test_every_test_says_what_must_hold(path: Path) -> None:
    """Each test and fixture has a docstring."""
    functions = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    wanting = [f.name for f in functions if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert wanting == []


def test_every_module_has_its_tests() -> None:
    """Tests and modules go one to one; the modules of a package share a file."""
    exempt = {"__init__", "__main__", "studies", "errors", "engines.autograd", "engines.fused", "engines.kernels"}
    files = {name: name.partition(".")[0] for name in FILES if name not in exempt}
    missing = [name for name, file in files.items() if not (TESTS / f"test_{file}.py").exists()]
    assert missing == []
