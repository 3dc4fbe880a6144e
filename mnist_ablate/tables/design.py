"""The design of a table: what its study file says in ``[table]``, ``[factors]`` and ``[metrics]``, and how to read one.

Factors and metrics have names of their own; `Columns.columns` says which column is meant where that has another.
"""

import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from mnist_ablate.design.contrasts import Factor, Hypothesis, Level
from mnist_ablate.design.design import VALUE_OBJECT, Design, cell_name
from mnist_ablate.design.metrics import Metric, about_the_first, empty_ranges
from mnist_ablate.design.problems import growing, level_mistakes, repeated_ids, table_mistakes
from mnist_ablate.design.responses import Response
from mnist_ablate.design.search import CELL, coefficients
from mnist_ablate.errors import StudyError
from mnist_ablate.paths import user_path
from mnist_ablate.tables.source import named
from mnist_ablate.tables.sources.options import Options

MOST_LEVELS = 12
"""A factor with more levels is no factor of a design but a setting of a search."""
NUMBERS = "numbers"
"""What a study file says in place of levels: a setting of a search takes any numbers."""
_MOST_CELLS = 5_000
_NAME = re.compile(r"[^\W\d]\w*")
_TAKEN = {"mean", "seed", "cell", "epoch", "status", "run_id", "baseline", "study"}
_Texts = Annotated[tuple[str, ...], Field(strict=False)]
_Levels = Annotated[tuple[Level, ...], Field(strict=False)]
_Setting = Annotated[_Levels, BeforeValidator(lambda levels: () if levels == NUMBERS else levels)]
"""Levels; none of them where any number is one."""


class Wide(BaseModel):
    """Columns that are the values of one metric, each for another level or seed.

    Parameters
    ----------
    columns
        Their names.
    names
        What the names of the columns are: the factor or the seed column that they make.
    values
        The metric that their cells make.
    """

    model_config = VALUE_OBJECT

    columns: _Texts
    names: str
    values: str


class Summary(BaseModel):
    """A table with a row for each cell in place of one for each run.

    Parameters
    ----------
    n
        The column of the number of runs, or the number that all cells have.
    spread
        For each metric the column of its spread; one that has none is written as ``97.2 ± 0.3``.
    is_error
        Whether the spread is the standard error of the mean, and not the standard deviation of the runs.
    """

    model_config = VALUE_OBJECT

    n: str | Annotated[int, Field(ge=1, le=100_000)]
    spread: dict[str, str] = Field(default_factory=dict)
    is_error: bool = False


class Columns(Options):
    """The section ``[table]``: how a table is read, and what its columns are.

    Parameters
    ----------
    encoding, separator, decimal
        How a text file is written.
    sha256
        Of the table that was at hand when this was written.
    declared
        When this was written: only what is older than the runs was declared before them.
    seed
        The column of what pairs runs across cells; empty if nothing does.
    pairing
        ``"labels"``: cells are compared within seeds. ``"none"``: seeds say nothing, so runs are independent.
    run
        The column that tells runs apart, where a run has several rows.
    epoch
        The column of the epoch or step, of which the last counts.
    epochs
        The last epoch that a whole run has; a run that ends before it failed.
    status, failed
        The column of a run's state, and the states, in any case, of runs that failed.
    unfinished
        The states of runs that are not over, which are left out.
    started
        The column of when a run started.
    repeat
        The column that tells apart rows of one cell and seed, which are averaged.
    nested
        Columns of what is nested in a run, such as folds, which is averaged first.
    resampled
        Rows tested on for each row trained on, where seeds are folds or resamples of one data set.
    only
        Rows to take: those with these values.
    tuned_on
        Seeds that settings were chosen on, which are left out.
    search
        Whether settings were drawn, or have too many values to compare: they have coefficients in place of contrasts.
    summary
        How a table is read that has means and standard deviations in place of runs.
    columns
        The column of a factor or metric, where that has another name.
    wide
        Columns that are values of one metric.
    """

    sha256: str = ""
    declared: datetime | date | None = None
    seed: str = ""
    pairing: Literal["labels", "none"] = "labels"
    run: str = ""
    epoch: str = ""
    epochs: float | None = None
    status: str = ""
    failed: _Texts = ("failed", "crashed", "killed", "error", "diverged")
    unfinished: _Texts = ("running", "pending", "scheduled", "preempting")
    started: str = ""
    repeat: str = ""
    nested: _Texts = ()
    resampled: Annotated[float, Field(ge=0)] = 0.0
    only: dict[str, Level] = Field(default_factory=dict)
    tuned_on: _Levels = ()
    search: bool = False
    summary: Summary | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    wide: Wide | None = None


class TableHypothesis(Hypothesis):
    """A hypothesis about a metric of a table."""

    response: str = ""


class TableDesign(Design):
    """The design of a table.

    Parameters
    ----------
    table
        How the table is read.
    factors
        The levels of each factor, the reference first; or ``"numbers"``, in a search.
    metrics
        What is judged; the page is about the first.
    """

    table: Columns = Columns()
    factors: dict[str, _Setting] = Field(default_factory=dict)
    metrics: dict[str, Metric] = Field(default_factory=dict)
    hypotheses: Annotated[tuple[TableHypothesis, ...], Field(strict=False)] = ()

    _combinations: tuple[tuple[Level, ...], ...] = PrivateAttr(())
    _found: dict[str, tuple[Level, ...]] = PrivateAttr(default_factory=dict)

    @property
    def varied(self) -> tuple[Factor, ...]:
        """The factors; a search has settings instead."""
        return () if self.table.search else tuple(Factor(name, levels) for name, levels in self.factors.items())

    @property
    def searched(self) -> tuple[Factor, ...]:
        """The settings of a search, with the levels that the table has; before it is read, with those of the file."""
        levels = self._found or {name: levels or (1.0, 2.0) for name, levels in self.factors.items()}
        return tuple(Factor(name, of) for name, of in levels.items()) if self.table.search else ()

    @property
    def summarised(self) -> bool:
        """Whether the table has means and standard deviations in place of runs."""
        return self.table.summary is not None

    @property
    def cell_levels(self) -> dict[str, dict[str, Level]]:
        """The levels of each cell that the table has, in the order of the factors; of all of them before it is read."""
        if self.table.search:
            return {CELL: {}}
        factors = self.varied
        every = self._combinations or itertools.product(*(factor.levels for factor in factors))
        cells = [dict(zip(self.factors, levels, strict=True)) for levels in every]
        return {cell_name(factors, levels): levels for levels in cells}

    @property
    def responses(self) -> Mapping[str, Response]:
        """The metrics."""
        return {name: metric.response(self.column(name)) for name, metric in self.metrics.items()}

    @property
    def metric(self) -> str:
        """The first metric."""
        return next(iter(self.metrics))

    @property
    def pairing(self) -> Literal["labels", "none"]:
        """What pairs the cells: the labels of the seeds, if there are any."""
        return self.table.pairing if self.table.seed and not self.table.search else "none"

    @property
    def resampled(self) -> float:
        """Rows tested on for each row trained on, where seeds are folds of one data set."""
        return self.table.resampled

    def column(self, name: str) -> str:
        """Return the column of a factor or metric."""
        return self.table.columns.get(name, name)

    def of_search(self, found: dict[str, tuple[Level, ...]], n_runs: int) -> "TableDesign":
        """Return the design of a search with the levels of its settings, and the number of runs, that a table has."""
        design = self.reaching(n_runs)
        design._found = found
        return design

    def of_table(self, combinations: Iterable[tuple[Level, ...]], n_seeds: int) -> "TableDesign":
        """Return the design with the cells and the number of seeds that a table has."""
        places = [{level: i for i, level in enumerate(levels)} for levels in self.factors.values()]
        design = self.reaching(n_seeds)
        design._combinations = tuple(
            sorted(combinations, key=lambda levels: [place[level] for place, level in zip(places, levels, strict=True)])
        )
        return design

    @model_validator(mode="before")
    @classmethod
    def _first_metric(cls, document: Any) -> Any:
        """Make hypotheses that name no metric about the first."""
        return about_the_first(document)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        mistakes = list(_mistakes(self)) or list((_search_mistakes if self.table.search else table_mistakes)(self))
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self


def _mistakes(design: TableDesign) -> Iterator[str]:
    if not design.metrics:
        yield "metrics: at least one is needed, as [metrics.accuracy]"
    for kind, names in (("factors", design.factors), ("metrics", design.metrics)):
        for name in names:
            if not _NAME.fullmatch(name) or name in _TAKEN or len(name) > 100:
                yield (
                    f"{kind}.{json.dumps(name)}: not a name here; allowed: letters, digits and _, and not "
                    f'{named(sorted(_TAKEN))}; with [table.columns] {kind[:-1]} = "..." for the column'
                )
    for name in sorted(set(design.factors) & set(design.metrics)):
        yield f"factors.{name}: a metric too; keep one of them"
    for name, levels in design.factors.items():
        if len(levels) > MOST_LEVELS and not design.table.search:
            yield (
                f"factors.{name}: {len(levels)} levels; allowed: at most {MOST_LEVELS}. Write [table] search = true "
                "for coefficients in place of contrasts, take some of its rows with [table.only], or join levels"
            )
        if not (levels or design.table.search) or len(set(levels)) < len(levels):
            yield f'factors.{name}: allowed: at least one level, each once; or "{NUMBERS}" where search = true'
        yield from level_mistakes(name, levels)
    if not design.table.search and math.prod(map(len, design.factors.values())) > _MOST_CELLS:
        yield f"factors: more than {_MOST_CELLS:,} combinations of levels; leave some factors out"
    yield from empty_ranges(design.metrics)
    for name in design.table.columns:
        if name not in design.factors and name not in design.metrics:
            yield f"table.columns.{name}: neither a factor nor a metric"
    if len(design.looks) > 1 and design.pairing == "none":
        yield "seeds: a number that grows needs seeds that pair the cells; allowed here: a whole number"
    yield from growing(design.model_dump(exclude_unset=True))
    if design.table.resampled and not design.table.seed:
        yield "table.resampled: needs the column of the folds, as seed"
    if design.table.tuned_on and not design.table.seed:
        yield "table.tuned_on: needs the column of the seeds, as seed"
    yield from _summary_mistakes(design)


def _summary_mistakes(design: TableDesign) -> Iterator[str]:
    """Yield what a table of means cannot have."""
    table = design.table
    if table.summary is None:
        return
    names = ("seed", "run", "epoch", "repeat", "nested", "status", "started", "wide", "search")
    for name in names:
        if getattr(table, name):
            yield f"table.{name}: not allowed with [table.summary]: its rows are cells, and no runs"
    for name, metric in design.metrics.items():
        if metric.yes_no or metric.censored:
            yield f"metrics.{name}: yes_no and censored are of single runs; not allowed with [table.summary]"
    for name in table.summary.spread:
        if name not in design.metrics:
            yield f"table.summary.spread.{name}: not a metric"
    for i, hypothesis in enumerate(design.hypotheses):
        if hypothesis.over:
            yield f"hypotheses[{i}].over: needs single runs; not allowed with [table.summary]"
        yield from _of_images(i, hypothesis)


def _of_images(i: int, hypothesis: Hypothesis) -> Iterator[str]:
    if hypothesis.population != "seeds":
        yield f"hypotheses[{i}].population: needs the answers to single test images; not allowed here"


def _search_mistakes(design: TableDesign) -> Iterator[str]:
    """Yield what a search cannot have, and hypotheses that name none of its coefficients."""
    if not design.factors:
        yield f'factors: a search needs at least one setting, as lr = "{NUMBERS}"'
    if design.table.resampled:
        yield "table.resampled: not allowed in a search: average the folds of a run, with nested"
    for name, metric in design.metrics.items():
        if metric.censored:
            yield f"metrics.{name}.censored: not allowed in a search: a coefficient of bounds is no bound"
    allowed = [term.effect for term in coefficients(design.searched)]
    for i, hypothesis in enumerate(design.hypotheses):
        if hypothesis.response not in design.metrics:
            allowed_here = ", ".join(design.metrics)
            yield f'hypotheses[{i}].response = "{hypothesis.response}": not a metric; allowed: {allowed_here}'
        if hypothesis.effect not in allowed:
            yield (
                f'hypotheses[{i}].effect = "{hypothesis.effect}": not a coefficient of this search; allowed: '
                f"{named(allowed, 12)}"
            )
        if hypothesis.over or hypothesis.at != "average":
            yield f"hypotheses[{i}]: over and at need cells; not allowed in a search"
        yield from _of_images(i, hypothesis)
    yield from repeated_ids(design)


def load(study: "str | os.PathLike[str] | Mapping[str, Any]", name: str) -> TableDesign:
    """Read the study file of a table, or a dictionary with its keys; `name` is that of a study that says none.

    Raises
    ------
    StudyError
        If it is not valid; the message has a line for each mistake.
    """
    if isinstance(study, Mapping):
        return parse(study, "study", name)
    file = user_path(study)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise StudyError(f"{file}: cannot be read ({error.strerror}). Write one with `judge TABLE --init`.") from error
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{file}: not a TOML file: {error}") from error
    return parse(document, str(file), name)


def parse(document: Mapping[str, Any], source: str, name: str) -> TableDesign:
    """Return the design that a dictionary with the keys of a study file describes."""
    if "protocol" in document or "table" not in document:
        raise StudyError(f"{source}: not the study file of a table, which has a section [table]. Write one with "
                         "`judge TABLE --init`.")  # fmt: skip
    try:
        return TableDesign.model_validate({"name": name} | dict(document))
    except ValidationError as error:
        lines = dict.fromkeys(line for detail in error.errors() for line in _explained(detail))
        raise StudyError("\n".join(f"{source}: {line}" for line in lines)) from error


def _explained(detail: Any) -> list[str]:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        if key.endswith("covariates"):
            return [
                f"{key}: not allowed: a covariate that is measured after the treatment hides what the treatment does"
            ]
        return [f"{key}: unknown key"]
    if detail["type"] == "value_error":
        return [f"{key}: {line}".removeprefix(": ") for line in message.splitlines()]
    return [f"{key}: {message[0].lower()}{message[1:]}"]
