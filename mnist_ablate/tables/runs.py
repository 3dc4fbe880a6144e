"""From a table and its design to runs, by the rules for runs that were made elsewhere.

What is averaged, left out, counted as a failure or refused is decided here, before any statistics, and by labels alone.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Factor, Level, show
from mnist_ablate.design.metrics import digits_by_spread
from mnist_ablate.design.search import (
    RUNS_PER_COEFFICIENT,
    RUNS_PER_LEVEL,
    coefficients,
    combinations_of_others,
    model_matrix,
    setting_column,
)
from mnist_ablate.errors import TableError
from mnist_ablate.language import later, mark
from mnist_ablate.store.folder import CellSeed
from mnist_ablate.store.results import Runs
from mnist_ablate.tables import summaries, values
from mnist_ablate.tables.design import Columns, Summary, TableDesign
from mnist_ablate.tables.source import Source, named, rows, shortened

_BEST = "best|max|min|peak|highest|lowest"
CHOSEN_ON_TEST = re.compile(rf"(?i)(.*[\W_])?(({_BEST})[\W_]?.*test.*|test.*[\W_]({_BEST}))([\W_].*)?")
"""Names of metrics that are the best of several values on test data."""
_MEASURED = re.compile(
    r"(?i)(metrics?[./_]|summary[./_])?((train(ing)?|val(id(ation)?)?|test|eval|dev|final|last|best)[\W_]?)?"
    r"(acc(uracy)?|loss|error|err|perplexity|ppl|f1|auc|auroc|rmse|mse|mae|nll|ece|runtime|duration|"
    r"elapsed|seconds|wall_?time|grad(ient)?_norm|weight_norm)"
)
"""Names of what is known of a run only once it is trained."""
_FOLDS = re.compile(r"(?i)(^|[\W_])(cv|k?_?folds?|split|resample|bootstrap)([\W_]|\d|$)")
DATA_SETS = re.compile(r"(?i)(.*[\W_])?(data_?sets?|benchmark|tasks?|corpus)(_?name)?")
"""Names of columns that say which data set a run is of."""


@dataclass(frozen=True, eq=False)
class TableRuns(Runs):
    """The runs of a table.

    Parameters
    ----------
    study
        The design, with the cells and the number of seeds that the table has.
    names
        The name of each seed that is no whole number.
    looks
        The numbers of seeds for verdicts that the study file declares.
    reason
        Why nothing that was declared counts as declared before the runs; empty where it does.
    known
        What else is known of the table, by heading.
    logged
        Of runs that were logged epoch by epoch, all rows: ``cell``, ``seed``, ``epoch``, ``status`` and the metrics.
    """

    study: TableDesign
    names: Mapping[int, str] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    reason: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    logged: pd.DataFrame | None = None

    @property
    def history(self) -> pd.DataFrame | None:
        """The metrics of each run, epoch by epoch; None where a row is a run."""
        return self.logged

    @property
    def epoch_name(self) -> str:
        """The column of the epochs."""
        return self.study.table.epoch

    @property
    def seed_names(self) -> Mapping[int, str]:
        """The name of each seed; empty where seeds are numbers."""
        return self.names

    @property
    def facts(self) -> Mapping[str, str]:
        """What else is known of all runs, by heading."""
        return self.known

    @property
    def declared_looks(self) -> tuple[int, ...]:
        """The numbers of seeds for verdicts that the study file declares."""
        return self.looks

    @property
    def afterwards(self) -> str:
        """Why nothing that was declared counts as declared before the runs; empty where it may."""
        return self.reason

    @cached_property
    def planned(self) -> list[CellSeed]:
        """The runs that there are, and those that are missing."""
        there = zip(self.epochs["cell"], self.epochs["seed"], strict=True)
        return [*there, *self.missing]

    @cached_property
    def missing(self) -> list[CellSeed]:
        """For each seed, the cells that lack it; none where cells have seeds of their own."""
        if self.study.pairing == "none" or not _share_seeds(self.epochs["seed"], self.epochs["cell"]):
            return []
        ran = self.epochs.assign(ran=True).pivot(index="seed", columns="cell", values="ran").eq(True)
        ran = ran.reindex(columns=self.study.cell_names, fill_value=False)
        return [(str(cell), int(str(seed))) for cell in ran for seed in ran.index[~ran[cell]]]


def _share_seeds(seeds: "pd.Series[int]", cells: "pd.Series[Any]") -> bool:
    """Return whether at least half of the seeds are each in at least half of the cells, and in two."""
    counts = cells.groupby(seeds).nunique()
    return bool(2 * (counts >= max(2, cells.nunique() / 2)).sum() >= len(counts))


def make(source: Source, design: TableDesign) -> TableRuns:
    """Return the runs of a table.

    Raises
    ------
    TableError
        If a rule is broken; the message names rows or columns and the remedy.
    """
    source, notes = _chosen(_long(source, design.table), design)
    _check_columns(source, design)
    _check_metrics(source, design)
    if design.table.summary is not None:
        return _made(source, design, summaries.stand_ins(source, design, cells_of(source, design)), notes)
    rows_of, names = _rows(source, design)
    frame = _averaged(source, _of_runs(source, rows_of, design), design)
    logged = _logged(source, rows_of, design) if design.table.epoch and not design.table.search else None
    return _made(source, design, frame, notes, names, logged)


def _made(
    source: Source, design: TableDesign, frame: pd.DataFrame, notes: list[str], names: Mapping[int, str] | None = None,
    logged: pd.DataFrame | None = None,
) -> TableRuns:  # fmt: skip
    """Return the runs, a row each in `frame`, by the cells of the design."""
    if design.table.search:
        frame, names = frame.assign(seed=np.arange(len(frame))), {}
        resolved = design.of_search(_settings(source, design, frame), len(frame))
        _check_search(source, resolved, frame)
    else:
        shared = design.pairing == "labels" and _share_seeds(frame["seed"], frame["cell_code"])
        n_seeds = frame["seed"].nunique() if shared else int(frame["cell_code"].value_counts().max())
        resolved = design.of_table(dict.fromkeys(frame["levels"]), n_seeds)
        _check_contrasts(source, resolved)
    kept = [str(name) for name in frame if str(name).removeprefix("censored ") in design.metrics]
    kept += [setting_column(factor.name) for factor in resolved.searched]
    order = {name: i for i, name in enumerate(resolved.cell_levels)}
    cell_of = {tuple(levels.values()): name for name, levels in resolved.cell_levels.items()}
    epochs = pd.DataFrame({
        "run_id": np.arange(len(frame)), "cell": frame["levels"].map(cell_of), "seed": frame["seed"], "epoch": 1,
        "status": np.where(frame["failed"], "failed", "ok"),
    } | {name: frame[name] for name in kept})  # fmt: skip
    epochs = epochs.sort_values(["cell", "seed"], key=lambda c: c.map(order) if c.name == "cell" else c)
    notes += [*_confounded(resolved), *_other_table(source, design)]
    resolved = _with_digits(resolved, epochs)
    if logged is not None:
        of_codes = frame.drop_duplicates("cell_code").set_index("cell_code")["levels"].map(cell_of)
        logged = logged.assign(cell=logged["cell_code"].map(of_codes)).drop(columns="cell_code")
    return TableRuns(source.path, resolved, epochs.reset_index(drop=True), problems=notes, names=names or {},
                     looks=design.looks, reason=_afterwards(source, design), known=_facts(source, design),
                     logged=logged)  # fmt: skip


# ---- Rows ----


def _long(source: Source, table: Columns) -> Source:
    """Return a wide table as a long one: a row for each of its values."""
    if table.wide is None:
        return source
    _need(source, table.wide.columns)
    return source.long(table.wide.columns, table.wide.names, table.wide.values)


def _need(source: Source, columns: Sequence[str]) -> None:
    lacking = [column for column in columns if column not in source.frame]
    if lacking:
        there = named(source.frame.columns, 30)
        raise TableError(f"{source.path}: has no column {named(map(repr, lacking))}; it has {there}.")


def _chosen(source: Source, design: TableDesign) -> tuple[Source, list[str]]:
    """Leave out the rows that are not asked for, unfinished, or of seeds that were tuned on, and say so."""
    table, frame, notes = design.table, source.frame, list[str]()
    for column, level in table.only.items():
        _need(source, [column])
        mine = _levels(source, column, design) == level
        if not mine.any():
            raise TableError(f"{source.path}: no row has {column} = {shortened(level)}, as [table.only] asks.")
        source = replace(source, frame=source.frame[mine.to_numpy()])
    if len(source.frame) < len(frame):
        n = f"{len(frame) - len(source.frame):,}"
        notes.append(later("{n} rows left out: the study file asks for others.", n=n))
    for column, gone, why in (
        (table.status, table.unfinished, mark("of runs that are not over")),
        (table.seed, tuple(map(show, table.tuned_on)), mark("of seeds that settings were chosen on")),
    ):
        if column and gone:
            _need(source, [column])
            is_seed = column == table.seed
            lost = values.are_seeds(source, column, gone) if is_seed else values.truths(source, column, gone)
            if lost.all():
                raise TableError(f"{source.path}: all rows are {why}. Give a table with others.")
            if lost.any():
                n, which = f"{int(lost.sum()):,}", rows(lost.index[lost])
                notes.append(later("{n} rows {why} are left out: {which}.", n=n, why=why, which=which))
                source = replace(source, frame=source.frame[~lost.to_numpy()])
    return source, notes


def _levels(source: Source, column: str, design: TableDesign) -> "pd.Series[Level]":
    return values.levels(source, column, design.table.decimal)


def _check_columns(source: Source, design: TableDesign) -> None:
    table = design.table
    roles = [table.seed, table.run, table.epoch, table.status, table.started, table.repeat, *table.nested]
    censored = [metric.censored for metric in design.metrics.values()]
    used = [design.column(name) for name in (*design.factors, *design.metrics)]
    if table.summary is not None:
        used += [*table.summary.spread.values(), *([table.summary.n] if isinstance(table.summary.n, str) else [])]
    _need(source, [column for column in (*used, *roles, *censored) if column])
    if table.seed and _FOLDS.search(table.seed) and not table.resampled:
        raise TableError(
            f"{source.path}: {table.seed}: folds of one data set share training data and are no independent seeds. "
            f'Name the column of the seeds, with [table] nested = ["{table.seed}"]; or, of folds alone, write '
            "resampled = 0.25 (rows tested on for each row trained on) for Nadeau and Bengio's variance."
        )
    for name in source.frame:
        if source.roles.get(str(name)) == "data" or (DATA_SETS.fullmatch(str(name)) and str(name) not in table.only):
            found = source.frame[name].astype(str).unique()
            if len(found) > 1 and str(name) not in table.nested:
                raise TableError(
                    f"{source.path}: {name}: runs on {len(found)} data sets ({named(found)}), which no contrast may "
                    f'mix. Judge each alone, as with [table.only] {name} = "{shortened(found[0])}".'
                )


def _check_metrics(source: Source, design: TableDesign) -> None:
    """Refuse a metric that was chosen on test data, and a setting that is measured."""
    for name in design.metrics:
        if CHOSEN_ON_TEST.fullmatch(design.column(name)):
            raise TableError(
                f"{source.path}: {design.column(name)}: the best of several values on test data is too good, the more "
                "so the more there are. Log the value after the last epoch, or where the validation data are best."
            )
    for name, levels in design.factors.items():
        column = design.column(name)
        if all(type(level) in (int, float) for level in levels) and is_measured(source, column):
            raise TableError(
                f"{source.path}: {column}: is measured after the settings take effect, and a comparison that holds it "
                "fixed hides what they do. Leave it out of [factors], or make it one of the metrics."
            )


def is_measured(source: Source, column: str) -> bool:
    """Return whether a column of numbers looks like a result of training and not like a setting of it."""
    return source.roles.get(column) == "metric" or bool(_MEASURED.fullmatch(column.strip()))


def _rows(source: Source, design: TableDesign) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return a frame with `levels`, `cell_code`, `seed`, `unit`, `failed` and the metrics of each row."""
    table, frame = design.table, cells_of(source, design)
    names: dict[int, str] = {}
    if table.seed:
        frame["seed"], names = values.seeds(source, table.seed)
    for name, metric in design.metrics.items():
        frame[name] = values.numbers(source, design.column(name), table.decimal)
        frame[f"absent {name}"] = _absent(source, design.column(name))
        if metric.censored:
            frame[f"censored {name}"] = values.truths(source, metric.censored)
    frame["failed"] = values.truths(source, table.status, table.failed) if table.status else False
    return frame, names


def cells_of(source: Source, design: TableDesign) -> pd.DataFrame:
    """Return a frame with `levels` and `cell_code` of each row; of a search, with a column for each setting, too."""
    index = source.frame.index
    codes, columns = np.zeros(len(index), dtype=np.int64), []
    frame = pd.DataFrame(index=index)
    for name, declared in design.factors.items():
        column = design.column(name)
        columns.append(declared)
        if declared:
            found = _levels(source, column, design)
            places = found.map({level: i for i, level in enumerate(declared)} if _alike(declared, found) else {})
            if places.isna().any():
                _refuse_level(source, column, name, declared, found[places.isna()])
            codes = codes * len(declared) + places.to_numpy(dtype=np.int64)
            if design.table.search:
                frame[setting_column(name)] = found
        else:
            numbers = frame[setting_column(name)] = _numbers(source, column, design)
            place, distinct = pd.factorize(numbers)
            codes = np.asarray(pd.factorize(codes * len(distinct) + place)[0], dtype=np.int64)
    combinations = [()] if design.table.search else list(itertools.product(*columns))
    frame["cell_code"] = codes
    cells = np.empty(len(combinations), dtype=object)
    cells[:] = combinations
    frame["levels"] = cells[np.zeros_like(codes) if design.table.search else codes]
    return frame


def _numbers(source: Source, column: str, design: TableDesign) -> "pd.Series[float]":
    """Return a setting that takes any numbers."""
    found = values.numbers(source, column, design.table.decimal)
    if found.isna().any():
        where = rows(found.index[found.isna()])
        raise TableError(f"{source.path}: {column}, {where}: no finite number. Fill it in, or remove such rows.")
    return found


def _alike(declared: tuple[Level, ...], found: "pd.Series[Level]") -> bool:
    """Return whether levels are of one kind: True is 1 to Python, and to no person."""
    return isinstance(declared[0], bool) == isinstance(found.iloc[0], bool)


def _refuse_level(
    source: Source, column: str, name: str, declared: tuple[Level, ...], found: "pd.Series[Level]"
) -> None:
    others = named(dict.fromkeys(show(level) for level in found))
    allowed = named(show(level) for level in declared)
    raise TableError(
        f"{source.path}: {column}, {rows(found.index)}: {others}, and the study file has {allowed}. Add the level to "
        f"factors.{name}, or take some rows alone with [table.only]."
    )


def _absent(source: Source, column: str) -> "pd.Series[bool]":
    cells = source.frame[column]
    return cells.str.strip() == "" if source.text else cells.isna()


# ---- Runs ----


def _of_runs(source: Source, frame: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return a row for each run: of one that was logged epoch by epoch, the last value of each metric."""
    table = design.table
    frame["row"] = frame.index
    if not table.epoch:
        return frame
    epoch = values.numbers(source, table.epoch, table.decimal)
    if epoch.isna().any():
        raise TableError(f"{source.path}: {table.epoch}, {rows(epoch.index[epoch.isna()])}: no epoch. Fill it in.")
    frame["epoch"] = epoch
    by = [source.frame[column].astype(str) for column in (table.run, table.repeat, *table.nested) if column]
    by += [frame["cell_code"], *([frame["seed"]] if table.seed else [])]
    if not table.run and not table.seed:
        raise TableError(f"{source.path}: has a row for each {table.epoch}, and nothing says of which run. Name the "
                         "column of the run, or of the seed.")  # fmt: skip
    frame["run"] = pd.Series(list(zip(*by, strict=True)), index=frame.index) if len(by) > 1 else by[0]
    frame["run"] = pd.factorize(frame["run"])[0]
    frame = frame.sort_values(["run", "epoch"], kind="stable")
    last = frame.drop_duplicates("run", keep="last").set_index("run")
    for name in design.metrics:
        logged = frame[~frame[f"absent {name}"]].drop_duplicates("run", keep="last").set_index("run")
        behind = (last["epoch"] - logged["epoch"].reindex(last.index)).fillna(np.inf)
        # A metric that ends before that of other runs has ended with its run: its last value is no result.
        last[name] = logged[name].reindex(last.index).where(behind <= behind.min())
        if f"censored {name}" in frame:
            last[f"censored {name}"] = logged[f"censored {name}"].reindex(last.index).eq(True)
    last["failed"] = frame.groupby("run")["failed"].any() | (
        last["epoch"] < table.epochs if table.epochs is not None else False
    )
    return last.set_index("row", drop=False)


def _averaged(source: Source, frame: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return a row for each cell and seed, after averaging what is nested in it or repeats it."""
    table, metrics = design.table, list(design.metrics)
    for name, metric in design.metrics.items():
        frame[name] = frame[name].mask(frame["failed"])
        _check_values(source, frame, design, name)
        if metric.yes_no and (wrong := ~frame[name].isin([0.0, 1.0]) & frame[name].notna()).any():
            where = rows(frame.index[wrong])
            raise TableError(f"{source.path}: {design.column(name)}, {where}: neither 0 nor 1. Remove yes_no from the "
                             "study file, or correct the table.")  # fmt: skip
    frame["failed"] = frame["failed"] | frame[metrics].isna().all(axis=1)
    inner = [column for column in (*table.nested, table.repeat) if column]
    unit = [source.frame.loc[frame.index, table.run].astype(str)] if table.run and not table.seed and inner else []
    if not table.seed and not unit:
        if inner:
            raise TableError(f"{source.path}: {named(inner)}: nothing says of which run. Name the column of the run, "
                             "or of the seed.")  # fmt: skip
        return frame.assign(seed=frame.groupby("cell_code").cumcount())
    if unit:
        frame["seed"] = pd.factorize(pd.Series(list(zip(frame["cell_code"], unit[0], strict=True))))[0]
    keys = ["cell_code", "seed"]
    _check_twice(source, frame, design, inner)
    if not inner:
        return frame
    groups = frame.groupby(keys, sort=False)
    settings = [setting_column(name) for name in design.factors] if design.table.search else []
    together = groups[["levels", "failed", *settings]].agg(
        dict.fromkeys(["levels", *settings], "first") | {"failed": "any"}
    )
    for name in metrics:
        lost = frame[name].isna().groupby([frame[key] for key in keys], sort=False).any()
        together[name] = groups[name].mean().mask(lost)
        if f"censored {name}" in frame:
            together[f"censored {name}"] = groups[f"censored {name}"].any()
    together["failed"] = together["failed"] | together[metrics].isna().all(axis=1)
    together = together.reset_index()
    if unit:
        together["seed"] = together.groupby("cell_code").cumcount()
    return together


def _check_twice(source: Source, frame: pd.DataFrame, design: TableDesign, inner: Sequence[str]) -> None:
    """Refuse two rows of one cell and seed that nothing tells apart."""
    told = [source.frame.loc[frame.index, column].astype(str) for column in inner]
    keys = pd.DataFrame({"cell": frame["cell_code"], "seed": frame["seed"]} | dict(enumerate(told)), index=frame.index)
    twice = keys.duplicated(keep=False)
    if not twice.any():
        return
    first = keys[twice].iloc[0]
    same = (keys == first).all(axis=1)
    row = frame.loc[same].iloc[0]
    settings = [row[setting_column(n)] for n in design.factors] if design.table.search else row["levels"]
    levels = ", ".join(f"{n} = {show(v)}" for n, v in zip(design.factors, settings, strict=True))
    seed = source.frame.loc[frame.index[same][0], design.table.seed] if design.table.seed else first["seed"]
    more = int(twice.sum() - same.sum())
    raise TableError(
        f"{source.path}: {rows(frame.index[same])} are of the same cell and seed ({levels or 'one cell'}, seed "
        f"{shortened(seed)}){f', and {more:,} more rows are like that' if more else ''}. Remove what is too much, or "
        'name a column that tells such rows apart, and they are averaged: [table] repeat = "...".'
    )


def _check_values(source: Source, frame: pd.DataFrame, design: TableDesign, name: str) -> None:
    """Refuse values outside of the range that the study file gives."""
    ends = design.metrics[name].range
    outside = ((frame[name] < ends[0]) | (frame[name] > ends[1])) if ends else pd.Series(data=False, index=frame.index)
    if ends and outside.any():
        raise TableError(
            f"{source.path}: {design.column(name)}, {rows(frame.index[outside])}: beyond the range of {ends[0]:g} to "
            f"{ends[1]:g} in the study file. Correct one of them."
        )


def _logged(source: Source, frame: pd.DataFrame, design: TableDesign) -> pd.DataFrame:
    """Return what was logged of each unit, seed or run, epoch by epoch, after averaging what is nested in it."""
    table, metrics = design.table, list(design.metrics)
    unit = frame["seed"] if table.seed else pd.factorize(source.frame[table.run].astype(str))[0]
    rows_of = frame[["cell_code", "epoch", *metrics]].assign(seed=unit)
    return rows_of.groupby(["cell_code", "seed", "epoch"], sort=False, as_index=False).mean().assign(status="ok")


# ---- The design ----


def _check_contrasts(source: Source, design: TableDesign) -> None:
    """Refuse hypotheses whose cells the table lacks, and name what is confounded."""
    for hypothesis in design.hypotheses:
        try:
            hypothesis.contrast.weights(design.varied, design.cell_levels)
        except ValueError as error:
            terms = {term.factor for term in hypothesis.contrast.terms}
            pairs = [pair for pair in _aliases(design) if terms & set(pair)]
            why = "".join(
                f" {one} and {other} cannot be told apart: their levels change together." for one, other in pairs
            )
            raise TableError(
                f"{source.path}: hypothesis {hypothesis.id}: {error}.{why} Make the runs that are missing, or hold the "
                "other factors at a level, as in at = { ... }."
            ) from error


def _settings(source: Source, design: TableDesign, frame: pd.DataFrame) -> dict[str, tuple[Level, ...]]:
    """Return the levels of each setting of a search that the table has."""
    found: dict[str, tuple[Level, ...]] = {}
    for name, declared in design.factors.items():
        column, there = design.column(name), pd.unique(frame[setting_column(name)])
        levels = (
            tuple(level for level in declared if level in set(there)) if declared else tuple(sorted(map(float, there)))
        )
        if len(levels) == 1:
            raise TableError(
                f"{source.path}: {column}: is {show(levels[0])} in all runs, so nothing is known of what it does. "
                "Leave it out of [factors]."
            )
        if declared and Factor(name, levels).scores is None and levels[0] != declared[0]:
            raise TableError(
                f"{source.path}: {column}: no run has {show(declared[0])}, the level that others are compared with. "
                f"Put another first in factors.{name}."
            )
        found[name] = levels
    return found


def _check_search(source: Source, design: TableDesign, frame: pd.DataFrame) -> None:
    """Refuse a search with too few runs, or with settings that its runs do not tell apart."""
    terms, there = coefficients(design.searched), frame[~frame["failed"]]
    least = RUNS_PER_COEFFICIENT * (1 + len(terms))
    if len(there) < least:
        raise TableError(
            f"{source.path}: {len(there):,} runs with values, and {least} are needed: {RUNS_PER_COEFFICIENT} for each "
            f"of {1 + len(terms)} coefficients (the intercept, {named(term.label for term in terms)}). Leave settings "
            "out of [factors], put levels together, or make more runs."
        )
    for factor in design.searched:
        counts = there[setting_column(factor.name)].value_counts()
        few = [level for level in factor.levels if counts.get(level, 0) < RUNS_PER_LEVEL]
        if factor.scores is None and few:
            raise TableError(
                f"{source.path}: {design.column(factor.name)}: fewer than {RUNS_PER_LEVEL} runs with "
                f"{named(show(level) for level in few)}. Put levels together, or remove such rows."
            )
    matrix = model_matrix(design.searched, {f.name: there[setting_column(f.name)] for f in design.searched})
    place, others = next(iter(combinations_of_others(matrix).items()), (0, []))
    if place:
        raise TableError(
            f"{source.path}: {terms[place - 1].label} cannot be told apart from "
            f"{named(terms[other - 1].label for other in others)}: its values follow from theirs in all runs. Leave "
            "one of them out of [factors]."
        )


def _aliases(design: TableDesign) -> Iterator[tuple[str, str]]:
    """Yield pairs of factors whose levels change together in all cells."""
    cells = list(design.cell_levels.values())
    for one, other in itertools.combinations([f.name for f in design.varied if len(f.levels) > 1], 2):
        pairs = {(levels[one], levels[other]) for levels in cells}
        if len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
            yield one, other


def _confounded(design: TableDesign) -> list[str]:
    return [
        later(
            "{one} and {other} are confounded: their levels change together in all runs, so nothing here tells one "
            "from the other.",
            one=one, other=other,
        )
        for one, other in _aliases(design)
    ]  # fmt: skip


def _with_digits(design: TableDesign, epochs: pd.DataFrame) -> TableDesign:
    """Return the design with digits for each metric that has none."""
    # Settings spread the runs of a search, and coefficients are known better than single runs.
    more = int(design.table.search)
    digits = digits_by_spread(design.metrics, epochs, more=more)
    metrics = {name: metric.model_copy(update={"digits": digits[name]}) for name, metric in design.metrics.items()}
    return design.model_copy(update={"metrics": metrics})


# ---- When ----


def _afterwards(source: Source, design: TableDesign) -> str:
    """Return why the rule does not count as written before the runs; empty if it was, by what file and table say."""
    declared = _moment(design.table.declared)
    if declared is None:
        return later(
            "nothing says when its rule was written (declared, in the study file's [table]), so it counts as post hoc"
        )
    started = values.earliest(source, design.table.started) if design.table.started else None
    known = started or (source.written if source.written and source.written <= declared else None)
    if known is None:
        return later(
            "nothing says when the runs started (started, in the study file's [table]), so its rule is post hoc"
        )
    if known <= declared:
        times = {"known": f"{known:%Y-%m-%d %H:%M}", "declared": f"{declared:%Y-%m-%d %H:%M}"}
        if started:
            return later("post hoc: the first run started {known} UTC, and the rule {declared}", **times)
        return later("post hoc: the table was written {known} UTC, and the rule {declared}", **times)
    if "seeds" not in design.model_fields_set:
        return later("the study file names no number of seeds, which may have been chosen by what was seen")
    return ""


def _read_as(summary: Summary) -> str:
    """Say what a table of means has, as the study file declares it."""
    match (summary.is_error, isinstance(summary.n, int)):
        case True, True:
            return later("means with standard errors, of {n} runs each", n=summary.n)
        case True, False:
            return later("means with standard errors, of the number of runs in {column}", column=summary.n)
        case False, True:
            return later("means with standard deviations, of {n} runs each", n=summary.n)
    return later("means with standard deviations, of the number of runs in {column}", column=summary.n)


def _moment(declared: datetime | date | None) -> datetime | None:
    """Return a time in UTC; a day counts as its end."""
    if declared is None:
        return None
    moment = declared if isinstance(declared, datetime) else datetime.combine(declared, time.max)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _other_table(source: Source, design: TableDesign) -> list[str]:
    if not design.table.sha256 or not source.sha256 or design.table.sha256 == source.sha256:
        return []
    return [later("The table is not the one that the study file was written for: its SHA-256 is another.")]


def _facts(source: Source, design: TableDesign) -> dict[str, str]:
    table = design.table
    found = {
        "Table": source.path.as_posix(), "Kind": source.kind, "SHA-256": source.sha256,
        "Last changed": f"{source.written:%Y-%m-%d %H:%M} UTC" if source.written else "",
        "Rule written": f"{_moment(table.declared):%Y-%m-%d %H:%M} UTC" if table.declared else "",
        "Seed": table.seed, "Repeats": table.repeat, "Nested": ", ".join(table.nested),
        "Metrics": ", ".join(design.column(name) for name in design.metrics),
        "Settings searched": ", ".join(map(design.column, design.factors)) if table.search else "",
        "Read as": _read_as(table.summary) if table.summary else "",
    }  # fmt: skip
    return {name: text for name, text in found.items() if text}
