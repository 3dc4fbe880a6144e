"""Gather the sections, render the page and its summary, and write the files."""

import html
import sys
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
from tqdm.auto import tqdm

from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.language import (
    ENGLISH,
    Language,
    find,
    folder_of,
    say,
    speaking,
    spoken,
    template_count,
    template_message,
)
from mnist_ablate.paths import user_path
from mnist_ablate.report import paper, verdict_words, words
from mnist_ablate.report.format import plural
from mnist_ablate.report.live import content
from mnist_ablate.report.paper import Paper
from mnist_ablate.report.section import Section
from mnist_ablate.report.sections import SECTIONS, cells, coefficients
from mnist_ablate.report.tables import Table, markdown_text
from mnist_ablate.store.results import Runs, load
from mnist_ablate.store.sealed import write_atomically, write_text


@dataclass(frozen=True)
class Report:
    """Where a report was written. In a notebook it displays itself.

    Parameters
    ----------
    html
        The page. Beside it are ``figures/`` (SVG and PNG) and ``tables/`` (CSV).
    summary
        A summary in Markdown, for a pull request.
    paper
        The files for a paper; None where nobody asked for them.
    live
        The page with sliders, where one was asked for.
    """

    html: Path
    summary: Path
    paper: Paper | None = None
    live: Path | None = None

    def __str__(self) -> str:
        return str(self.html)

    def _repr_html_(self) -> str:
        page = html.escape(self.html.read_text(encoding="utf-8"), quote=True)
        return f'<iframe title="Report" sandbox srcdoc="{page}" style="width:100%;height:45em;border:0"></iframe>'


def write(
    results: Runs | Analysis | str | Path = "results/factorial",
    out: str | Path | None = None,
    *,
    lang: str = ENGLISH,
    latex: bool = False,
    live: bool = False,
) -> Report:
    """Write the report of `results`.

    Parameters
    ----------
    results
        A results folder, what was read from one, or its analysis.
    out
        The folder to write to; by default ``reports/<name of the study>``, and there ``es`` for the page in Spanish.
    lang
        The language of the page, its pictures and its summary: ``"en"`` or ``"es"``.
    latex
        Write the folder ``paper``, too: tables in LaTeX, figures as PDF, and the methods, all in English.
    live
        Whether to write ``live.html`` beside the page, too: the verdicts, with sliders that change their rule. Its
        script is in the file and needs no network.

    Returns
    -------
    Report
        Where ``index.html``, ``summary.md`` and perhaps ``live.html`` are.

    Raises
    ------
    LanguageError
        If there is no such language.
    ResultsError
        If there are no results, `out` cannot be a folder, or a live page is asked for without hypotheses.
    StorageError
        If there is no space or no permission.
    """
    language = find(lang)
    analysis = analyse(results if isinstance(results, Runs | Analysis) else load(results))
    with speaking(language):
        folder = user_path(out) if out is not None else folder_of(Path("reports") / analysis.study.name, lang)
        report, sections = _write(analysis, folder, live=live)
    if not latex:
        return report
    with speaking(ENGLISH):  # a paper is in English, whatever the language of the page
        sections = sections if lang == ENGLISH else _sections(analysis)
        written = paper.write(analysis, words.title(analysis), sections, environment(), folder / "paper")
    return replace(report, paper=written)


def _write(analysis: Analysis, folder: Path, *, live: bool) -> tuple[Report, list[Section]]:
    sliders = live_page(analysis) if live else ""
    try:
        for part in ("figures", "tables"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written ({error.strerror}). Use --out for another folder.") from error
    report = Report(folder / "index.html", folder / "summary.md", live=folder / "live.html" if live else None)
    sections = _sections(analysis)
    for section in sections:
        for table in filter(None, section.tables.values()):
            write_atomically(folder / "tables" / f"{table.name}.csv", table.csv.encode())
        for name, picture in section.pictures.items():
            if picture:
                write_atomically(folder / "figures" / f"{name}.svg", picture.svg.encode())
                write_atomically(folder / "figures" / f"{name}.png", picture.png)
    write_text(report.html, _page(analysis, sections, files=True))
    write_text(report.summary, _summary(analysis))
    if report.live:
        write_text(report.live, sliders)
    return report, sections


def live_page(analysis: Analysis) -> str:
    """Return the page with sliders, in the language that is being spoken."""
    return environment().get_template("live.html").render(_head(analysis) | content(analysis))


def page(analysis: Analysis, *, lang: str | Language = ENGLISH) -> str:
    """Return the page alone: it says how to get its figures and tables as files."""
    with speaking(lang):
        return _page(analysis, _sections(analysis), files=False)


def summary(analysis: Analysis, *, lang: str | Language = ENGLISH) -> str:
    """Return the summary alone."""
    with speaking(lang):
        return _summary(analysis)


_PATIENCE = 5.0
"""Seconds without a word, before a terminal or a notebook shows a bar."""


def _sections(analysis: Analysis) -> list[Section]:
    watched = sys.stderr is not None and ("ipykernel" in sys.modules or sys.stderr.isatty())
    steps = tqdm(SECTIONS, "Report", unit="section", delay=_PATIENCE, leave=False, disable=not watched)
    return [section for make in steps if (section := make(analysis))]


def environment() -> jinja2.Environment:
    """Return what renders the templates: it escapes all that goes into a page, and a missing value is an error."""
    jinja = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_ablate.report"),
        autoescape=jinja2.select_autoescape(("html",), default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    translations: Any = jinja  # the extension adds the method
    translations.install_gettext_callables(template_message, template_count, newstyle=True)
    jinja.filters["markdown"] = markdown_text
    jinja.filters["csv_uri"] = _csv_uri
    jinja.globals["language"] = spoken().code
    macros: Any = jinja.get_template("macros.html").module
    jinja.globals |= {name: getattr(macros, name) for name in _MACROS}
    return jinja


_MACROS = ("css", "figure", "first_of", "found_list", "table", "words_of_verdicts")
"""The macros that every template and section may call."""


def _csv_uri(table: Table) -> str:
    return "data:text/csv;charset=utf-8," + urllib.parse.quote(table.csv, safe=",;:=+*/().-_ ").replace(" ", "%20")


def _page(analysis: Analysis, sections: list[Section], *, files: bool) -> str:
    jinja = environment()
    bodies = {
        section.id: jinja.from_string(section.template).render(
            tables=section.tables, pictures=section.pictures, **section.values
        )
        for section in sections
    }
    claims = verdict_words.claims(analysis.judgements)
    found = verdict_words.found([(claim.verdict, f"claim-{n}", claim.title) for n, claim in enumerate(claims, 1)])
    return jinja.get_template("page.html").render(
        _head(analysis), found=found, sections=sections, bodies=bodies, files=files
    )


def _summary(analysis: Analysis) -> str:
    claims = verdict_words.claims(analysis.judgements)
    table = coefficients.table if analysis.study.searched else cells.table
    return environment().get_template("summary.md").render(
        _head(analysis),
        notices=words.notices(analysis),
        claims=claims,
        table=table(analysis).markdown,
        searched=bool(analysis.study.searched),
        few_seeds=int(analysis.seeds().count().max()) < LEAST_SEEDS,
        paired=analysis.paired,
        declares_none=say("The study declares no hypotheses, so there are no verdicts."),
        ours=analysis.ours is not None,
        least=plural(LEAST_SEEDS, analysis.unit),
    )  # fmt: skip


def _head(analysis: Analysis) -> dict[str, Any]:
    """Return what stands above both the page and the summary."""
    return {
        "title": words.title(analysis),
        "kicker": words.kicker(analysis),
        "again": words.again(analysis),
        "lead": words.lead(analysis),
        "state": words.state(analysis),
        "folder": analysis.results.folder.as_posix(),
    }
