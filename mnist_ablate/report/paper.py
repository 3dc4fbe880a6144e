"""What a paper needs of a report: its tables in LaTeX, its figures as PDF, and the methods, from the same sections."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report import latex, method_words
from mnist_ablate.report.section import Section
from mnist_ablate.store.sealed import write_atomically, write_text


@dataclass(frozen=True)
class Paper:
    """Where the files for a paper were written.

    Parameters
    ----------
    document
        A LaTeX document that shows all of it. Beside it are ``tables/`` (LaTeX) and ``figures/`` (PDF).
    methods
        The methods in plain text; ``methods.tex`` beside it has them in LaTeX.
    """

    document: Path
    methods: Path

    def __str__(self) -> str:
        folder = self.document.parent
        return (
            f"{self.document}, which shows the tables in {folder / 'tables'} and the figures in {folder / 'figures'}; "
            f"methods in {self.methods} and methods.tex"
        )


def write(
    analysis: Analysis, title: str, sections: Sequence[Section], jinja: jinja2.Environment, folder: Path
) -> Paper:
    """Write the files for a paper.

    Parameters
    ----------
    analysis
        What the runs say.
    title
        Of the report.
    sections
        Of the report.
    jinja
        What renders their templates.
    folder
        Where to write to.

    Raises
    ------
    ResultsError
        If `folder` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    try:
        for part in ("figures", "tables"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written ({error.strerror}). Use --out for another folder.") from error
    parts, texts = list[latex.Part](), list[str]()
    for section in sections:
        tables = {table.name: latex.tabular(table) for table in section.tables.values() if table}
        for name, text in tables.items():
            write_text(folder / "tables" / f"{name}.tex", text)
        drawn = {name: picture for name, picture in section.pictures.items() if picture}
        for name, picture in drawn.items():
            write_atomically(folder / "figures" / f"{name}.pdf", picture.pdf)
        captions = _captions(section, jinja)
        figures = {name: captions.get(name) or picture.alt for name, picture in drawn.items()}
        texts += tables.values()
        if tables or figures:
            parts.append(latex.Part(section.heading, tuple(tables), figures))
    methods = method_words.paragraphs(analysis)
    in_latex = "\n\n".join(map(latex.escape, methods)) + "\n"
    paper = Paper(folder / "paper.tex", folder / "methods.txt")
    write_text(paper.methods, "\n\n".join(" ".join(paragraph.split()) for paragraph in methods) + "\n")
    write_text(folder / "methods.tex", in_latex)
    write_text(paper.document, latex.document(title, parts, [*texts, in_latex]))
    return paper


def _captions(section: Section, jinja: jinja2.Environment) -> dict[str, str]:
    """Return the captions of a section's pictures, as the page has them, in plain text."""
    found: dict[str, str] = {}

    def figure(_: object, name: str, caller: Callable[[], str]) -> str:
        text = html.unescape(re.sub(r"<[^>]+>", "", str(caller())))
        found[name] = " ".join(text.split())
        return ""

    def table(*_: object, **__: object) -> str:
        return ""

    template = jinja.from_string(section.template, globals={"figure": figure, "table": table})
    template.render(tables=section.tables, pictures=section.pictures, **section.values)
    return found
