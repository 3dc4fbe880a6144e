"""Judge runs that were made elsewhere: a table in, the page, its summary and verdicts out."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_ablate.errors import StudyError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import ENGLISH, find
from mnist_ablate.paths import user_path
from mnist_ablate.report.page import Report, write
from mnist_ablate.report.verdict_words import BADGES
from mnist_ablate.store.sealed import write_text
from mnist_ablate.tables import design, runs, sources
from mnist_ablate.tables.design import TableDesign
from mnist_ablate.tables.propose import Proposal, propose
from mnist_ablate.tables.sources.options import Options

Table = pd.DataFrame | str | Path
Study = str | os.PathLike[str] | Mapping[str, Any] | TableDesign


@dataclass(frozen=True, eq=False)
class Judged:
    """A table, judged. In a notebook it shows its page.

    Parameters
    ----------
    analysis
        Frames, effects and verdicts.
    report
        Where the page and its summary are.
    proposal
        What the columns were taken for, where no study said so; else None.
    """

    analysis: Analysis
    report: Report
    proposal: Proposal | None

    def __str__(self) -> str:
        judgements = self.analysis.judgements
        verdicts = [f"{judgement.hypothesis.id}: {BADGES[judgement.verdict]}" for judgement in judgements]
        proposed = [str(self.proposal)] if self.proposal else []
        where = [f"Report: {self.report.html}", f"Summary: {self.report.summary}"]
        where += [f"Paper: {self.report.paper}"] if self.report.paper else []
        return "\n".join([*proposed, *verdicts, *self.analysis.results.problems, *where])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def judge(
    table: Table,
    study: Study | None = None,
    *,
    out: str | Path | None = None,
    lang: str = ENGLISH,
    latex: bool = False,
) -> Judged:
    """Judge runs that were made elsewhere, and write the page.

    Parameters
    ----------
    table
        A pandas frame, or the path of a CSV or Parquet file, an export of W&B or MLflow, a store of MLflow, or a folder
        of event files of TensorBoard or of CSV logs.
    study
        The study file of the table, or a dictionary with its keys. Without it, what the columns are is guessed, and
        there are no verdicts.
    out
        The folder to write to; by default ``reports/<name of the study>``, and there ``es`` for the page in Spanish.
    lang
        The language of the page, its pictures and its summary: ``"en"`` or ``"es"``.
    latex
        Write the folder ``paper``, too: tables in LaTeX, figures as PDF, and the methods, all in English.

    Raises
    ------
    LanguageError
        If there is no such language.
    TableError
        If the table cannot be read, or breaks a rule; the message names rows or columns and the remedy.
    StudyError
        If the study is not valid.
    ResultsError
        If `out` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    find(lang)
    name = _name(table)
    declared = study if isinstance(study, TableDesign) or study is None else design.load(study, name)
    proposal = None
    source = sources.read(table, _options(declared))
    if declared is None:
        proposal = propose(source, name)
        declared = design.parse(proposal.document, str(source.path), name)
    analysis = analyse(runs.make(source, declared))
    return Judged(analysis, write(analysis, out, lang=lang, latex=latex), proposal)


def write_proposal(table: Table, file: str | Path | None = None) -> tuple[Path, Proposal]:
    """Write what the columns of a table might be as a study file, and return the file and the proposal.

    Parameters
    ----------
    table
        As for `judge`.
    file
        The study file, by default ``<name of the table>.toml``; one that is there is not written over.
    """
    path = user_path(file) if file is not None else Path(f"{_name(table)}.toml")
    if path.exists():
        raise StudyError(f"{path}: is there already. Give another name with --study, or remove it.")
    proposal = propose(sources.read(table), _name(table))
    try:
        write_text(path, proposal.toml)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}). Give another with --study.") from error
    return path, proposal


def _name(table: Table) -> str:
    """Return the name of a study of a table."""
    stem = "table" if isinstance(table, pd.DataFrame) else user_path(table).absolute().stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60] or "table"


def _options(study: TableDesign | None) -> Options:
    if study is None:
        return Options()
    return Options(**{name: getattr(study.table, name) for name in Options.model_fields})
