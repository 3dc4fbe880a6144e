"""The notebooks for classes: they run, both languages have the same code, and nothing is stored that a run makes."""

import ast
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "notebooks"
PAIRS = {
    "predict-then-run": "predecir-y-entrenar",
    "reading-an-ablation": "leer-una-ablacion",
    "your-own-factor": "tu-propio-factor",
}
ENGLISH = [f"en/{part}{name}.ipynb" for name in PAIRS for part in ("", "solutions/")]
SPANISH = [f"es/{part}{name}.ipynb" for name in PAIRS.values() for part in ("", "solutions/")]
WITHOUT_TORCH = [name for name in ENGLISH + SPANISH if "reading" in name or "leer" in name]
TRAINING = [name for name in ENGLISH + SPANISH if name not in WITHOUT_TORCH]
SMALL = {"EPOCHS": 1, "SEEDS": 2, "IMAGES": 500, "WORKERS": 0}
"""What a test puts after the cell `parameters`, as far as the notebook has these names."""

HIDE_TORCH = """
import sys


class WithoutTorch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'")


sys.meta_path.insert(0, WithoutTorch)
"""


def read(name: str) -> Any:
    """Read a notebook."""
    return nbformat.read(FOLDER / name, as_version=4)  # type: ignore[no-untyped-call]


def code(name: str) -> list[str]:
    """Return the cells of code."""
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def run(notebook: Any, folder: Path) -> Any:
    """Run a notebook in a kernel that starts in `folder`; a cell that raises fails the test."""
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
    return client.execute()


def with_first(notebook: Any, source: str, *, after: str = "") -> Any:
    """Return a notebook with one more cell of code: the first, or the one after the cell `after`."""
    place = [cell.id for cell in notebook.cells].index(after) + 1 if after else 0
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source, id="inserted"))  # type: ignore[no-untyped-call]
    return notebook


def said(notebook: Any, stream: str) -> str:
    """Return all that a run notebook has written to a stream."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.text for output in outputs if output.get("name") == stream)


# ---- As they are stored ----


def test_these_are_all_notebooks() -> None:
    """Every notebook of the folder is one that these tests know, in both languages."""
    found = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.ipynb")}
    assert found == {*ENGLISH, *SPANISH}
    assert len(ENGLISH) == len(SPANISH) == 6


@pytest.mark.parametrize("name", ENGLISH + SPANISH)
def test_a_notebook_is_stored_clean(name: str) -> None:
    """A notebook is valid, has stable names for its cells and the plain kernel, and stores nothing that a run makes."""
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(len(id_) > 2 and not any(letter.isdigit() for letter in id_) for id_ in ids)  # no random ones
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert set(cell.metadata) <= {"tags"}


@pytest.mark.parametrize(("english", "spanish"), [*zip(ENGLISH, SPANISH, strict=True)])
def test_both_languages_have_the_same_code(english: str, spanish: str) -> None:
    """Cells have the same names and kinds in both languages, and code differs in its words alone."""
    first, second = read(english), read(spanish)
    assert [(cell.id, cell.cell_type) for cell in first.cells] == [(cell.id, cell.cell_type) for cell in second.cells]
    for one, other in zip(code(english), code(spanish), strict=True):
        assert without_words(one) == without_words(other)


def without_words(source: str) -> str:
    """Return the syntax of code with empty strings, except for strings that hold code themselves."""

    class Empty(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:  # ast's own name
            if isinstance(node.value, str):
                return ast.Constant(without_words(node.value) if "\ndef " in node.value else "")
            return node

        def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
            self.generic_visit(node)
            return ast.JoinedStr([value for value in node.values if not isinstance(value, ast.Constant)])

        def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.FormattedValue:
            return ast.FormattedValue(self.visit(node.value), node.conversion, node.format_spec)

    return ast.unparse(Empty().visit(ast.parse(source)))


def test_other_code_is_seen_and_other_words_are_not() -> None:
    """The comparison of two languages sees a changed number, also within code in a string, and no changed word."""
    code = 'x = 1  # one\nprint(f"made: {x:.2f} of 3", "all")\nM = """\ndef f():\n    return 1\n"""'
    translated = code.replace("one", "uno").replace("made:", "hechos:").replace("all", "todos").replace("of", "de")
    assert translated != code
    assert without_words(translated) == without_words(code)
    for old, new in (("x = 1", "x = 2"), ("return 1", "return 2"), ("{x:.2f}", "{x:.3f}"), ("print", "repr")):
        assert without_words(code.replace(old, new)) != without_words(code)


@pytest.mark.parametrize("name", [name for name in ENGLISH + SPANISH if "solutions" not in name])
def test_every_exercise_has_a_solution(name: str) -> None:
    """A notebook ends with three to five exercises, and its solutions have a heading for each."""
    language, file = name.split("/")
    exercises = [line for line in read(name).cells[-1].source.splitlines() if line[:1].isdigit()]
    cells = read(f"{language}/solutions/{file}").cells
    headings = [cell.source.splitlines()[0] for cell in cells if cell.source.startswith("## ")]
    titles = [line.split("**")[1].rstrip(".") for line in exercises]
    assert 3 <= len(titles) <= 5
    assert [heading.split(". ", 1)[1] for heading in headings if ". " in heading] == titles


@pytest.mark.parametrize("name", ENGLISH + SPANISH)
def test_links_lead_somewhere(name: str) -> None:
    """Each link of a notebook finds its file."""
    texts = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = [part.partition(")")[0] for part in texts.split("](")[1:]]
    assert links
    assert all((FOLDER / name).parent.joinpath(link).exists() for link in links)


# ---- Run ----


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_reading_needs_no_torch(name: str) -> None:
    """The notebook on stored runs and its solutions run in their own folder, on a machine without torch."""
    hidden = with_first(read(name), HIDE_TORCH)
    done = run(hidden, (FOLDER / name).parent)
    assert said(done, "stdout")
    assert "Warning" not in said(done, "stderr")


@pytest.mark.mnist
@pytest.mark.parametrize("name", TRAINING)
def test_training_notebooks_run(name: str, mnist: object) -> None:
    """A notebook that trains runs from the repository's folder without a complaint, and leaves nothing there.

    Here it trains less than in a class.
    """
    assert mnist
    notebook, before = read(name), set(ROOT.iterdir())
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    asked = [f"{key} = {value}" for key, value in SMALL.items() if f"{key} =" in parameters.source]
    assert asked
    done = run(with_first(notebook, "\n".join(asked), after="parameters"), ROOT)
    assert said(done, "stdout")
    assert "Warning" not in said(done, "stderr")
    assert set(ROOT.iterdir()) == before


@pytest.mark.parametrize("name", [TRAINING[0], TRAINING[-1]])
def test_without_torch_a_training_notebook_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where torch is missing, or the notebook lies outside a clone, the setup cell says so and what helps."""
    (setup,) = (cell for cell in read(name).cells if cell.id == "setup")
    found: dict[str, object] = {}
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.chdir(FOLDER)
    with pytest.raises(ModuleNotFoundError, match=r"torch.*pip install"):
        exec(setup.source, found)  # noqa: S102 # our own notebook
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="REPOSITORY"):
        exec(setup.source, found)  # noqa: S102
