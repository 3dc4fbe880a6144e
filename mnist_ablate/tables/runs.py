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

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.errors import TableError
from mnist_ablate.language import later, mark
from mnist_ablate.store.results import CellSeed, Runs
from mnist_ablate.tables import values
from mnist_ablate.tables.design import Columns, TableDesign
from mnist_ablate.tables.source import Source, named, rows, shortened

_BEST = "best|max|min|peak|highest|lowest"
_CHOSEN_ON_TEST = re.compile(rf"(?i)(.*[\W_])?(({_BEST})[\W_]?.*test.*|test.*[\W_]({_BEST}))([\W_].*)?")
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
    """

    study: TableDesign
    names: Mapping[int, str] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    reason: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

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
    _check_metrics(design)
    frame, names = _rows(source, design)
    frame = _of_runs(source, frame, design)
    frame = _averaged(source, frame, design)
    shared = design.pairing == "labels" and _share_seeds(frame["seed"], frame["cell_code"])
    n_seeds = frame["seed"].nunique() if shared else int(frame["cell_code"].value_counts().max())
    resolved = design.of_table(dict.fromkeys(frame["levels"]), n_seeds)
    _check_contrasts(source, resolved)
    kept = [str(name) for name in frame if str(name).removeprefix("censored ") in design.metrics]
    order = {name: i for i, name in enumerate(resolved.cell_levels)}
    cell_of = {tuple(levels.values()): name for name, levels in resolved.cell_levels.items()}
    epochs = pd.DataFrame({
        "run_id": np.arange(len(frame)), "cell": frame["levels"].map(cell_of), "seed": frame["seed"], "epoch": 1,
        "status": np.where(frame["failed"], "failed", "ok"),
    } | {name: frame[name] for name in kept})  # fmt: skip
    epochs = epochs.sort_values(["cell", "seed"], key=lambda c: c.map(order) if c.name == "cell" else c)
    notes += [*_confounded(resolved), *_other_table(source, design)]
    resolved = _with_digits(resolved, epochs)
    return TableRuns(source.path, resolved, epochs.reset_index(drop=True), problems=notes, names=names,
                     looks=design.looks, reason=_afterwards(source, design), known=_facts(source, design))  # fmt: skip


# ---- Rows ----


def _long(source: Source, table: Columns) -> Source:
    """Return a wide table as a long one: a row for each of its values."""
    if table.wide is None:
        return source
    wide = table.wide
    _need(source, wide.columns)
    clash = [name for name in (wide.names, wide.values) if name in source.frame and name not in wide.columns]
    if clash:
        raise TableError(
            f"{source.path}: the table has a column {named(clash)} already. Give [table.wide] another name."
        )
    others = [name for name in source.frame if name not in wide.columns]
    frame = source.frame.reset_index(names="row of the table").melt(
        ["row of the table", *others], list(wide.columns), wide.names, wide.values
    )
    return replace(source, frame=frame.set_index("row of the table"))


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
            lost = values.truths(source, column, gone)
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


def _check_metrics(design: TableDesign) -> None:
    for name in design.metrics:
        if _CHOSEN_ON_TEST.fullmatch(design.column(name)):
            raise TableError(
                f"{design.column(name)}: the best of several values on test data is too good, the more so the more "
                "there are. Log the value after the last epoch, or where the validation data are best."
            )


def _rows(source: Source, design: TableDesign) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return a frame with `levels`, `cell_code`, `seed`, `unit`, `failed` and the metrics of each row."""
    table, index = design.table, source.frame.index
    codes, columns = np.zeros(len(index), dtype=np.int64), []
    for name, declared in design.factors.items():
        found = _levels(source, design.column(name), design)
        places = found.map({level: i for i, level in enumerate(declared)} if _alike(declared, found) else {})
        if places.isna().any():
            _refuse_level(source, design.column(name), name, declared, found[places.isna()])
        codes = codes * len(declared) + places.to_numpy(dtype=np.int64)
        columns.append(declared)
    combinations = list(itertools.product(*columns))
    frame = pd.DataFrame({"cell_code": codes}, index=index)
    cells = np.empty(len(combinations), dtype=object)
    cells[:] = combinations
    frame["levels"] = cells[codes]
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
    together = groups[["levels", "failed"]].agg({"levels": "first", "failed": "any"})
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
    levels = ", ".join(
        f"{n} = {show(v)}" for n, v in zip(design.factors, frame.loc[same, "levels"].iloc[0], strict=True)
    )
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
    """Return the design with digits for each metric that has none: two more than the spread between runs has zeros."""
    metrics = {}
    for name, metric in design.metrics.items():
        spread = float(metric.scale * epochs.groupby("cell")[name].std(ddof=1).mean())
        places = 1 - int(np.floor(np.log10(spread))) if np.isfinite(spread) and spread > 0 else 2
        metrics[name] = (
            metric.model_copy(update={"digits": min(max(places, 0), 8)}) if metric.digits is None else metric
        )
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
    }  # fmt: skip
    return {name: text for name, text in found.items() if text}
