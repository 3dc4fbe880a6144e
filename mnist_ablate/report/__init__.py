"""From a results folder to one self-contained page, a summary in Markdown, and its figures and tables as files.

``python -m mnist_ablate.report [RESULTS] [--out DIR]``. The page needs no network and no script: its style and
its pictures are in it. Every number on it comes from the results. Nothing here needs torch.
"""

import argparse
import base64
import html
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from mnist_ablate.errors import MnistAblateError, ResultsError
from mnist_ablate.inference.effects import (
    reference_cell,
    seed_table,
    spread_between_seeds,
    standard_effects,
)
from mnist_ablate.inference.verdicts import LEAST_SEEDS, Judgement, declarations, judge, looks_of
from mnist_ablate.notebook.printed import printed_losses
from mnist_ablate.report import chapters, tables, words
from mnist_ablate.report import verdict_words as answers
from mnist_ablate.report.pictures import HARD_IMAGES, draw_all
from mnist_ablate.report.svg import Picture
from mnist_ablate.report.tables import markdown, markdown_text
from mnist_ablate.report.words import number, percent
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import write_atomically


@dataclass(frozen=True)
class Report:
    """Where a report was written. In a notebook it displays itself.

    Parameters
    ----------
    html
        The page. Beside it are ``figures/`` (SVG and PNG) and ``tables/`` (CSV).
    summary
        The same in short, in Markdown, for a pull request.
    """

    html: Path
    summary: Path

    def __str__(self) -> str:
        return str(self.html)

    def _repr_html_(self) -> str:
        page = html.escape(self.html.read_text(encoding="utf-8"), quote=True)
        return f'<iframe title="Report" sandbox srcdoc="{page}" style="width:100%;height:45em;border:0"></iframe>'


def write(results: Results | str | Path = "results/factorial", out: str | Path | None = None) -> Report:
    """Write the report of `results`.

    Parameters
    ----------
    results
        A results folder, or what was read from one.
    out
        The folder to write to; by default ``reports/<name of the study>``.

    Returns
    -------
    Report
        Where ``index.html`` and ``summary.md`` are.

    Raises
    ------
    ResultsError
        If there are no results, or `out` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    results = results if isinstance(results, Results) else load(results)
    folder = Path(out) if out is not None else Path("reports") / results.study.name
    try:
        for part in ("figures", "tables"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot be written ({error.strerror}). Give another folder with --out."
        ) from error
    report = Report(folder / "index.html", folder / "summary.md")
    contents = _Contents.of(results)
    for table in contents.tables.values():
        write_atomically(folder / "tables" / f"{table.name}.csv", table.csv.encode())
    for name, picture in contents.pictures.items():
        write_atomically(folder / "figures" / f"{name}.svg", picture.svg.encode())
        write_atomically(folder / "figures" / f"{name}.png", picture.png)
    write_atomically(report.html, _page(results, contents).encode())
    write_atomically(report.summary, _summary(results, contents).encode())
    return report


def main(argv: list[str] | None = None) -> int:
    """Run the command ``python -m mnist_ablate.report``; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m mnist_ablate.report", description="Write the report of a study.")
    parser.add_argument(
        "results", nargs="?", default="results/factorial", metavar="RESULTS", help="results folder (%(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (reports/ and the name of the study)")
    arguments = parser.parse_args(argv)
    try:
        report = write(arguments.results, arguments.out)
    except MnistAblateError as error:
        print(error, file=sys.stderr)  # noqa: T201 # what a command is for
        return error.exit_status
    print(f"Report: {report.html}\nSummary: {report.summary}")  # noqa: T201
    return 0


# ---- Contents ----


@dataclass(frozen=True)
class _Contents:
    """What the page and the summary show."""

    judgements: list[Judgement]
    claims: list[answers.Claim]
    tables: dict[str, tables.Table]
    pictures: dict[str, Picture]

    @classmethod
    def of(cls, results: Results) -> "_Contents":
        judgements = judge(results)
        return cls(judgements, answers.claims(judgements), _tables(results, judgements), draw_all(results))


def _tables(results: Results, judgements: list[Judgement]) -> dict[str, tables.Table]:
    """Make every table that the results allow, by the name under which the page asks for it."""
    several = bool(standard_effects(results.study))
    found = {
        "cells": tables.cells(results),
        "losses": tables.losses(results),
        "last_epoch": tables.last_epoch(results),
        "effects": tables.effects(results) if several else None,
        "effects_gap": tables.effects(results, "gap") if several else None,
        "effects_loss": tables.effects(results, "val_loss") if several else None,
        "verdicts": tables.verdicts(judgements) if judgements else None,
        "two_way": tables.two_way(results) if several else None,
        "confused": tables.confused(results),
        "hard": tables.hard(results, HARD_IMAGES),
        "variance": chapters.variance_table(results),
        "speed": chapters.speed_table(results),
        "probes": chapters.probe_table(results),
    }
    found |= chapters.replication_tables(results)
    found |= {f"over_levels_{i}": table for i, table in enumerate(chapters.limits_tables(results))}
    return {name: table for name, table in found.items() if table is not None}


def _content(results: Results, contents: _Contents) -> dict[str, Any]:
    """Gather what both the page and the summary say."""
    seeds = int(seed_table(results).count().max())
    return {
        "title": results.study.title or results.study.name,
        "dataset": words.levels(results.study, "dataset"),
        "lead": words.lead(results),
        "state": words.state(results),
        "notices": words.notices(results),
        "few_seeds": seeds if seeds < LEAST_SEEDS else None,
        "least_seeds": LEAST_SEEDS,
        "reference": reference_cell(results.study),
        "folder": results.folder.as_posix(),
        "no_mistakes": results.no_mistakes,
        "claims": contents.claims,
        "tally": answers.tally(contents.claims) if contents.claims else "",
    }


def _methods(results: Results, judgements: list[Judgement]) -> dict[str, Any]:
    """Gather the numbers that the page's explanations need."""
    accuracy = results.final["test_accuracy"].mean()
    n_images = len(results.labels) if results.labels is not None else None
    return {
        "alpha": percent(results.study.alpha),
        "family": len(judgements),
        "ratios": any(answers.unit(judgement.hypothesis) == "log ratio" for judgement in judgements),
        "share": percent(1 - judgements[0].alpha) if judgements else "",
        "inner_share": percent(1 - 2 * judgements[0].alpha) if judgements else "",
        "looks": looks_of(results.study, declarations(results)),
        "beforehand": not any(judgement.provisional for judgement in judgements),
        "spread": "" if math.isnan(spread := spread_between_seeds(results)) else number(spread),
        "binomial": number(100 * (accuracy * (1 - accuracy) / n_images) ** 0.5) if n_images else "",
        "n_images": f"{n_images:,}" if n_images else "",
        "printed": bool(len(printed_losses(results.study))),
    }


def environment() -> jinja2.Environment:
    """Make what fills in the templates: what is put into a page is escaped, and what is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mnist_ablate.report"),
        autoescape=jinja2.select_autoescape(("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["markdown"] = markdown_text
    made.filters["csv_uri"] = _csv_uri
    return made


def _csv_uri(table: tables.Table) -> str:
    return "data:text/csv;base64," + base64.b64encode(table.csv.encode()).decode()


def _page(results: Results, contents: _Contents) -> str:
    return (
        environment()
        .get_template("page.html")
        .render(
            **_content(results, contents),
            **_methods(results, contents.judgements),
            facts=words.facts(results),
            tables=contents.tables,
            pictures=contents.pictures,
            provenance=tables.provenance(results),
            replicated=chapters.replication_words(results),
            variance=chapters.variance_words(results),
            graded=[name for name in contents.pictures if name.startswith("levels-")],
            over_levels=[name for name in contents.tables if name.startswith("over_levels_")],
        )
    )


def _summary(results: Results, contents: _Contents) -> str:
    content = _content(results, contents)
    return environment().get_template("summary.md").render(**content, table=markdown(contents.tables["cells"]))


class _CallableModule(ModuleType):
    """A module that is called as its function `write`.

    ``mnist_ablate.report(...)`` is the documented name of the function, and importing this module makes
    ``mnist_ablate.report`` the module, whichever comes first. Python lets a module's class be replaced for
    such cases ("Customizing module attribute access" in its reference).
    """

    def __call__(self, results: Results | str | Path = "results/factorial", out: str | Path | None = None) -> Report:
        """Write the report of `results`; see `write`."""
        return write(results, out)


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    sys.exit(main())
