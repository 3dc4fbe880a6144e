"""The public face: what `import mnist_ablate` offers, when it is loaded, and with which types."""

import inspect
import pydoc
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import synthetic

import mnist_ablate
from mnist_ablate import errors
from mnist_ablate.checks.compare import Comparison
from mnist_ablate.checks.doctor import Diagnosis
from mnist_ablate.checks.plan import Plan, Power
from mnist_ablate.checks.verify import Verification
from mnist_ablate.gate.judge import Verdict
from mnist_ablate.training import estimate

DOCUMENT = Path(__file__).parent.parent / "docs" / "python.md"
FUNCTIONS = [name for name in mnist_ablate.__all__ if inspect.isfunction(getattr(mnist_ablate, name))]

if TYPE_CHECKING:  # mypy fails here if a lazy name loses its type
    from typing import assert_type

    from mnist_ablate.report import Report
    from mnist_ablate.store.results import Results

    assert_type(mnist_ablate.run("factorial", seeds=2), Results)
    assert_type(mnist_ablate.load("results/factorial"), Results)
    assert_type(mnist_ablate.report("results/factorial"), Report)
    assert_type(mnist_ablate.gate(reference=Path("reference")), Verdict)
    assert_type(mnist_ablate.compare("a", "b", {"gap": 0.01}), Comparison)
    assert_type(mnist_ablate.verify("results/factorial", 8), Verification)
    assert_type(mnist_ablate.doctor("results/factorial"), Diagnosis)
    assert_type(mnist_ablate.plan(mnist_ablate.load_study("factorial"), seeds=2), Plan)
    assert_type(mnist_ablate.power("factorial", "results/factorial"), Power)
    assert_type(mnist_ablate.analyse(mnist_ablate.load()).speed, pd.DataFrame | None)
    assert_type(mnist_ablate.__version__, str)


def python(code: str) -> str:
    """Run `code` in a Python of its own with warnings as errors; return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def test_exported_members() -> None:
    """Everything in `__all__` can be had, is listed in `dir()`, and is what the documentation lists."""
    assert list(mnist_ablate.__all__) == sorted(mnist_ablate.__all__)
    assert set(mnist_ablate.__all__) <= set(dir(mnist_ablate))
    assert all(getattr(mnist_ablate, name) is not None for name in mnist_ablate.__all__)
    documented = re.findall(r"^### `(?:mnist_ablate\.)?(\w+)", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == mnist_ablate.__all__


def test_what_is_not_public_is_an_attribute_error() -> None:
    """A name that does not exist is refused as by any module."""
    with pytest.raises(AttributeError, match="module 'mnist_ablate' has no attribute 'fly'"):
        _ = mnist_ablate.fly  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    """`import mnist_ablate`, `dir()` and the version load nothing; using all names loads no torch.

    `report` and `gate` are functions, and stay so when the folders of these names are imported afterwards.
    """
    code = """if True:
        import sys
        import mnist_ablate
        dir(mnist_ablate), mnist_ablate.__version__
        print([name for name in sys.modules if name.startswith("mnist_ablate.") or name == "torch"])
        for name in mnist_ablate.__all__:
            getattr(mnist_ablate, name)
        print("torch" in sys.modules)
        import mnist_ablate.gate, mnist_ablate.report
        print(type(mnist_ablate.gate).__name__, type(mnist_ablate.report).__name__)
    """
    assert python(code).splitlines() == ["[]", "False", "function function"]


def test_folders_do_not_hide_functions() -> None:
    """`report` and `gate` are functions if the folders come first, too; the folders can be imported from."""
    code = """if True:
        import mnist_ablate.gate, mnist_ablate.report
        print(type(mnist_ablate.gate).__name__, type(mnist_ablate.report).__name__)
        from mnist_ablate.gate import page
        from mnist_ablate.report import Report
        print(type(page).__name__, type(Report).__name__)
    """
    assert python(code).splitlines() == ["function function", "module type"]
    for name in ("gate", "report"):
        assert isinstance(import_module(f"mnist_ablate.{name}"), ModuleType)
        assert inspect.isfunction(pydoc.locate(f"mnist_ablate.{name}"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_documented(name: str) -> None:
    """Each public function has types for all parameters, and a docstring with what it takes and raises."""
    function = getattr(mnist_ablate, name)
    signature = inspect.signature(function)
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert signature.return_annotation is not inspect.Signature.empty
    text = inspect.getdoc(function) or ""
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    described = ", ".join(re.findall(r"^\w+(?:, \w+)*$", section, re.MULTILINE)).split(", ")
    assert all(p in described or f"`{p}`" in text for p in signature.parameters if len(signature.parameters) > 1)
    raised = re.findall(r"\b\w+Error\b", text.partition("Raises\n------\n")[2])
    assert all(hasattr(errors, error) for error in raised)


def test_public_functions_print_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person calls in a notebook returns a value that shows itself, prints nothing, and never exits."""
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    folder = synthetic.make(tmp_path / "results", synthetic.factorial(6, 1))
    plan = mnist_ablate.plan(synthetic.factorial(6, 1), workers=2, out=folder)
    values: list[tuple[Any, str]] = [
        (plan, "8 cells x 6 seeds = 48 runs; 48 stored"),
        (mnist_ablate.plan("factorial", seeds=7, workers=2, out=tmp_path / "new"), "56 to do: about 0:28:00 with 2"),
        (mnist_ablate.power("factorial", folder), "The pilot has epochs = 1 instead of 5"),
        (mnist_ablate.doctor(folder), "no damaged files"),
        (mnist_ablate.compare(folder, mnist_ablate.load(folder)), "Bit-identical: "),
        (mnist_ablate.gate(_table(0), reference=_reference()), "Pass: "),
    ]
    for value, text in values:
        assert text in repr(value)
    assert (plan.missing, len(plan.runs), plan.seconds) == ([], 48, 0.0)
    assert capsys.readouterr() == ("", "")


def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of docs/python.md run as they stand, except those that train or take long, which others cover."""
    monkeypatch.chdir(DOCUMENT.parents[1])
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    slow = re.compile(r"mnist_ablate\.(run|verify|report)\(")
    assert len(blocks) - sum(slow.search(block) is not None for block in blocks) >= 12
    for block in blocks:
        code = "import mnist_ablate" if slow.search(block) else block.replace("/tmp", str(tmp_path))  # noqa: S108
        exec(code, names)  # noqa: S102  # our own document
    assert names["comparison"].verdict == "bit-identical"
    assert (tmp_path / "effects.png").exists()


def test_errors_of_public_functions_are_ours(tmp_path: Path) -> None:
    """What cannot be had is one of our errors, by its class."""
    nothing = tmp_path / "nothing"
    for call in (
        lambda: mnist_ablate.load(nothing),
        lambda: mnist_ablate.report(nothing),
        lambda: mnist_ablate.verify(nothing),
        lambda: mnist_ablate.doctor(nothing),
        lambda: mnist_ablate.compare(nothing, nothing),
        lambda: mnist_ablate.gate(reference=nothing),
        lambda: mnist_ablate.load_reference(nothing),
        lambda: mnist_ablate.power("factorial", nothing),
    ):
        with pytest.raises(errors.ResultsError, match="nothing"):
            call()
    with pytest.raises(errors.StudyError, match="seeds = 0"):
        mnist_ablate.plan("factorial", seeds=0)
    with pytest.raises(errors.GateReferenceError, match="needs a reason"):
        mnist_ablate.accept_reference()


def test_the_tree_of_errors_is_the_drawn_one() -> None:
    """The tree in the docstring of `errors` has every class at its place, with its exit status."""

    def drawn(error: type[errors.MnistAblateError], depth: int = 0) -> list[str]:
        line = f"{4 * depth * ' ' + error.__name__:<32}{error.exit_status}"
        return [line, *(line for child in error.__subclasses__() for line in drawn(child, depth + 1))]

    tree = textwrap.dedent((errors.__doc__ or "").split("\n\n")[2]).splitlines()
    assert tree == drawn(errors.MnistAblateError)
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(classes) == len(tree)


def _table(repeat: int) -> pd.DataFrame:
    rng = np.random.default_rng(repeat)
    rows = [(cell, seed, repeat, rng.normal(90, 0.1)) for cell in ("small", "large") for seed in range(10)]
    return pd.DataFrame(rows, columns=["cell", "seed", "repeat", "value"])


def _reference() -> mnist_ablate.Reference:
    accepted = pd.concat([_table(1), _table(2), _table(3)])
    return mnist_ablate.Reference.of_tables(accepted, bank=accepted)


def test_the_citation_has_the_version() -> None:
    """`CITATION.cff` and `pyproject.toml` name the version that `__version__` says."""
    root = DOCUMENT.parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert mnist_ablate.__version__ == project["version"]
