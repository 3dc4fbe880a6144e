"""What the columns of a table might be: a proposal, as the text of a study file that a person settles."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Factor, Level, show
from mnist_ablate.design.metrics import better_by_name
from mnist_ablate.design.search import (
    RUNS_PER_COEFFICIENT,
    RUNS_PER_LEVEL,
    coefficients,
    combinations_of_others,
    model_matrix,
)
from mnist_ablate.errors import TableError
from mnist_ablate.tables import values
from mnist_ablate.tables.design import MOST_LEVELS, NUMBERS
from mnist_ablate.tables.runs import CHOSEN_ON_TEST, DATA_SETS, is_measured
from mnist_ablate.tables.source import Role, Source, named, shortened
from mnist_ablate.tables.summaries import MEAN_AND_SPREAD

_MOST_METRICS = 6
_HEAD = 10_000
"""Rows that show whether a column has numbers."""
_BY_NAME: tuple[tuple[Role, str], ...] = (
    ("seed", r"(.*[\W_])?(random|rng|global|manual|torch|np)?_?seed"),
    ("status", r"(run_?)?(state|status)"),
    ("started", r"created(_?at)?|started(_?at)?|start_?time|date"),
    ("epoch", r"epochs?|(global_?)?steps?|iter(ation)?s?"),
    ("repeat", r"repeat|repetition|rep|replicate|replica"),
    ("nested", r"(cv|k)?_?folds?|eval(uation)?(_?(id|index|seed))?|episode(_?(id|index|seed))?"),
    ("run", r"(run|trial|experiment)?_?(id|uuid|name)|run|trial"),
    ("ignored", r"unnamed.*|index|column \d+|.*(runtime|duration|elapsed|seconds|wall_?time|timestamp|hostname|commit|"
                r"\bpath|url|notes|tags|user(name)?).*"),
)  # fmt: skip
_SETTINGS = {"lr", "rate", "decay", "dropout", "momentum", "width", "depth", "batch", "size", "layers", "units",
             "hidden", "alpha", "beta", "gamma", "temperature", "warmup", "optimizer", "optimiser", "model", "l1",
             "l2"}  # fmt: skip
_OFF = ("baseline", "base", "none", "off", "no", "false", "control", "default", "plain", "vanilla", "")
_SEED_COLUMN = re.compile(r"(?i)(seed|run|rep|trial)?[\W_]?(\d+)")
_FIRST = ("test", "val", "valid", "validation", "eval", "dev")


@dataclass(frozen=True)
class Proposal:
    """What the columns of a table might be.

    Parameters
    ----------
    document
        A study, in the keys of its file.
    notes
        What a person should know of each column, in sentences.
    """

    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def toml(self) -> str:
        """The proposal as a study file."""
        document, lines = dict(self.document), [f"# {note}" for note in _COMMENT]
        table, factors, metrics = (dict(document.pop(key, {})) for key in ("table", "factors", "metrics"))
        lines += [f"{_key(key)} = {_value(value)}" for key, value in document.items()]
        lines += _section("table", table)
        lines += ["", "[factors] # the first level is the reference"]
        lines += [f"{_key(name)} = {_value(levels)}" for name, levels in factors.items()]
        for i, (name, metric) in enumerate(metrics.items()):
            lines += _section(f"metrics.{_key(name)}", metric, " # the page is about this one first" if not i else "")
        lines += _example(factors, metrics, search=bool(table.get("search")))
        return "\n".join([*lines, *(f"# {shortened(note, 500)}" for note in self.notes)]) + "\n"

    def __str__(self) -> str:
        table, factors, metrics = (self.document[key] for key in ("table", "factors", "metrics"))
        columns = table.get("columns", {})
        lines = [
            f"  {'setting' if table.get('search') else 'factor'} {name}{_of(columns, name)}: {_shown(levels)}"
            for name, levels in factors.items()
        ]
        lines += [f"  metric {name}{_of(columns, name)}: {m['better']} is better" for name, m in metrics.items()]
        lines += [f"  {role}: {shortened(table[role])}" for role in _SHOWN if table.get(role)]
        return "\n".join(["Proposed from the table:", *lines, *(f"  {note}" for note in self.notes)])


_SHOWN = ("seed", "run", "epoch", "status", "started", "repeat", "nested", "only", "summary")
_COMMENT = (
    "How a table is judged. Correct what is wrong, then: judge TABLE --study THIS_FILE",
    "Write hypotheses, and the number of seeds, before the runs: only then is a verdict more than post hoc.",
)


def _shown(levels: Any) -> str:
    return "any numbers" if levels == NUMBERS else named(map(show, levels), 12)


def _of(columns: Mapping[str, str], name: str) -> str:
    return f" (column {shortened(columns[name])})" if name in columns else ""


def _section(name: str, content: Mapping[str, Any], comment: str = "") -> list[str]:
    tables = {key: value for key, value in content.items() if isinstance(value, dict) and value}
    plain = {key: value for key, value in content.items() if not isinstance(value, dict)}
    lines = ["", f"[{name}]{comment}", *(f"{_key(key)} = {_value(value)}" for key, value in plain.items())]
    for key, table in tables.items():
        lines += _section(f"{name}.{_key(key)}", table)
    return lines


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def _example(factors: Mapping[str, Any], metrics: Mapping[str, Any], *, search: bool) -> list[str]:
    factor = next((name for name, levels in factors.items() if len(levels) == 2), next(iter(factors), ""))
    if not factor:
        return [""]
    levels, (metric, shown) = factors[factor], next(iter(metrics.items()))
    if levels == NUMBERS or (search and Factor(factor, tuple(levels)).scores is not None):
        effect = f"trend({factor})"
    else:
        effect = factor if len(levels) == 2 else f"{factor}[{show(levels[1])}]"
    kind = "decrease" if shown["better"] == "lower" else "increase"
    example = ["[[hypotheses]]", 'id = "H1"', f"statement = {_value(f'{factor} makes {metric} better')}",
               f"response = {_value(metric)}", f"effect = {_value(effect)}", f'kind = "{kind}"',
               f"smallest = {_smallest(shown)} # the smallest effect that matters, in its unit"]  # fmt: skip
    return ["", *(f"# {line}" for line in example)]


def _smallest(metric: Mapping[str, Any]) -> float:
    return 0.5 if metric.get("scale") == 100.0 else 0.01


# ---- Roles ----


def propose(source: Source, name: str, now: datetime | None = None) -> Proposal:
    """Propose what the columns of a table are.

    Parameters
    ----------
    source
        The table.
    name
        Of the study.
    now
        When the proposal is made.

    Raises
    ------
    TableError
        If nothing looks like a metric.
    """
    source, wide = _unfolded(source)
    source, summary = _without_spreads(source)
    decimal = (
        ","
        if source.text and any(values.has_decimal_commas(source.frame[column].head(_HEAD)) for column in source.frame)
        else ""
    )
    roles = {str(column): _role(source, str(column), decimal) for column in source.frame}
    metrics, notes = _metrics(source, roles, decimal)
    settings = {c: values.levels(source, c, decimal) for c, role in roles.items() if role == "factor"}
    search, said = _search(source, settings, roles)
    notes += said
    columns: dict[str, str] = {}
    factors = search or {}
    for column, found in settings.items() if search is None else ():
        distinct = list(dict.fromkeys(found))
        if len(distinct) > MOST_LEVELS:
            notes.append(f"{shortened(column)} is left out: it has {len(distinct):,} values, too many to compare.")
        elif len(distinct) > 1:
            factors[column] = _ordered(distinct)
    factors = {_slug(column, columns): levels for column, levels in factors.items()}
    shown = {_slug(column, columns): _metric(source, column, decimal) for column in metrics}
    if summary is not None:
        shown = {name: {k: v for k, v in of.items() if k != "yes_no"} for name, of in shown.items()}
    table: dict[str, Any] = ({"decimal": decimal} if decimal else {}) | ({"search": True} if search else {})
    table |= {role: column for role in ("seed", "status", "started", "repeat") if (column := _first(roles, role))}
    nested = [column for column, role in roles.items() if role == "nested"]
    table |= ({"nested": nested} if nested and "seed" in table else {}) | _log(source, roles, table, decimal)
    data = [column for column, role in roles.items() if role == "data"]
    only = {column: _most(source, column) for column in data if source.frame[column].nunique() > 1}
    notes += [f"Several data sets in {shortened(column)}: change [table.only] to judge the others." for column in only]
    left = [c for c, role in roles.items() if role == "metric" and c not in metrics and not CHOSEN_ON_TEST.fullmatch(c)]
    notes += [f"Numbers that are left out: {named(left)}."] if left else []
    stamp = {"sha256": source.sha256} if source.sha256 else {}
    table |= stamp | {"declared": (now or datetime.now(UTC)).replace(microsecond=0)}
    table |= ({"only": only} if only else {}) | {"columns": {k: v for k, v in columns.items() if k != v}}
    table |= {"wide": wide} if wide else {}
    if summary is not None:
        table |= {"summary": summary.declared({name: columns[name] for name in shown})}
        notes += summary.notes
    return Proposal({"name": name, "table": table, "factors": factors, "metrics": shown}, notes)


def _role(source: Source, column: str, decimal: str) -> Role:
    if column in source.roles:
        return source.roles[column]
    plain = _plain(column)
    if DATA_SETS.fullmatch(plain):
        return "data"
    for role, pattern in _BY_NAME:
        if re.fullmatch(pattern, plain, re.IGNORECASE):
            return role
    cells = source.frame[column]
    if pd.api.types.is_datetime64_any_dtype(cells):
        return "ignored"
    words = set(re.split(r"[\W_]+", plain.lower()))
    number, many = _is_number(source, column, decimal), cells.nunique() > MOST_LEVELS
    if number and better_by_name(plain) != "neither":
        return "metric"
    if number and many and not words & _SETTINGS:
        return "metric"
    return "factor" if number or not many else "ignored"


def _is_number(source: Source, column: str, decimal: str) -> bool:
    """Return whether the first rows of a column are numbers; a later cell that is none is refused by its row."""
    try:
        head = replace(source, frame=source.frame[[column]].head(_HEAD))
        return bool(values.numbers(head, column, decimal).notna().any())
    except TableError:
        return False


def _plain(column: str) -> str:
    """Return the name of a column without what tools put in front."""
    return re.sub(r"^(params|metrics|config|hparams|hyperparameters)[./_]", "", column.strip())


def _slug(column: str, columns: dict[str, str]) -> str:
    """Return a name for a column, that is not taken, and note which column it is."""
    name = re.sub(r"\W+", "_", _plain(column)).strip("_") or "column"
    name = name if not name[0].isdigit() else f"x{name}"
    name = f"{name}_" if name in ("mean", "seed", "cell", "epoch", "status", "run_id", "baseline", "study") else name
    while name in columns:
        name += "_"
    columns[name] = column
    return name


def _first(roles: Mapping[str, Role], wanted: Role | str) -> str:
    return next((column for column, role in roles.items() if role == wanted), "")


def _most(source: Source, column: str) -> Level:
    """Return the value that most rows have."""
    found = values.levels(source, column)
    level: Level = found.value_counts().index[0]
    return level


# ---- Metrics and factors ----


def _metrics(source: Source, roles: Mapping[str, Role], decimal: str) -> tuple[list[str], list[str]]:
    """Return the metrics, the first of which the page is about, and what is to be said of others."""
    every = [c for c, role in roles.items() if role == "metric" and _is_number(source, c, decimal)]
    found = [c for c in every if not CHOSEN_ON_TEST.fullmatch(c)] or every
    chosen = [c for c in every if c not in found]
    notes = [f"Left out, since they are the best of several values on test data: {named(chosen)}."] if chosen else []
    if not found:
        there = named(source.frame.columns, 30)
        raise TableError(f"{source.path}: no column looks like a metric; it has {there}. Write a study file that "
                         "names it, with [table] and [metrics.NAME].")  # fmt: skip

    def place(column: str) -> int:
        words = re.split(r"[\W_]+", column.lower())
        named_first = next((i for i, word in enumerate(_FIRST) if word in words), len(_FIRST))
        return named_first + (20 if "train" in words or "training" in words else 0)

    return sorted(found, key=place)[:_MOST_METRICS], notes


def _metric(source: Source, column: str, decimal: str) -> dict[str, Any]:
    words = set(re.split(r"[\W_]+", column.lower()))
    numbers = values.numbers(source, column, decimal).dropna()
    found: dict[str, Any] = {"better": better_by_name(column)}
    if set(numbers.unique()) == {0.0, 1.0}:
        return found | {"yes_no": True, "unit": "points", "scale": 100.0, "range": [0.0, 1.0]}
    if words & {"acc", "accuracy"} and numbers.between(0, 1).all():
        return found | {"unit": "points", "scale": 100.0, "range": [0.0, 1.0]}
    return found


def _ordered(levels: Iterable[Level]) -> list[Level]:
    """Return levels with the likeliest reference first: what is off, or else the least number, or what comes first."""
    found = list(levels)
    if all(not isinstance(level, str) for level in found):
        return sorted(found)
    return sorted(found, key=lambda level: str(level).lower() not in _OFF)


def _log(source: Source, roles: Mapping[str, Role], table: Mapping[str, Any], decimal: str) -> dict[str, Any]:
    """Propose how a table is read that has a row for each epoch."""
    run, epoch = _first(roles, "run"), _first(roles, "epoch")
    by = [run] if run else [table["seed"]] if "seed" in table else []
    by += [column for column, role in roles.items() if role in ("factor", "nested", "repeat")] if by != [run] else []
    if not epoch or not by or not (source.frame.duplicated(by).any() or epoch in source.roles):
        return {}
    numbers = values.numbers(source, epoch, decimal)
    last = numbers.groupby([source.frame[column].astype(str) for column in by]).max()
    found: dict[str, Any] = {"epoch": epoch} | ({"run": run} if run else {})
    common = last.mode()
    if len(last) > 2 and (last == common.iloc[0]).mean() >= 0.5 and (last < common.iloc[0]).any():
        found["epochs"] = float(common.iloc[0])
    return found


# ---- Searches ----


def _search(
    source: Source, settings: Mapping[str, "pd.Series[Level]"], roles: Mapping[str, Role]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Propose a search, where settings have too many values for cells, or nearly every run has settings of its own.

    Returns
    -------
    tuple
        What each setting takes, None where the runs are no search or too few for one, and what is to be said of it.
    """
    levels = {column: list(dict.fromkeys(found)) for column, found in settings.items()}
    notes = [f"{shortened(c)} is {shortened(show(of[0]))} in all runs." for c, of in levels.items() if len(of) == 1]
    one = np.ones(len(source.frame), dtype=bool)
    if _first(roles, "epoch"):  # a run has several rows
        by = [_first(roles, "run")] if _first(roles, "run") else [*settings, *filter(None, [_first(roles, "seed")])]
        one = ~source.frame.duplicated(by).to_numpy()
    factors = {c: Factor(c, tuple(_ordered(of))) for c, of in levels.items() if len(of) > 1}
    factors = {c: f for c, f in factors.items() if f.scores is not None or len(f.levels) <= MOST_LEVELS}
    if not _is_search({c: settings[c][one] for c in factors}, factors, int(one.sum())):
        return None, notes
    for column, of in levels.items():
        if len(of) > 1 and (column not in factors or is_measured(source, column)):
            factors.pop(column, None)
            notes.append(f"{shortened(column)} is left out: it is no setting that a coefficient could be of.")
    terms = coefficients(factors.values())
    matrix = model_matrix(list(factors.values()), {c: settings[c][one] for c in factors})
    for place, others in combinations_of_others(matrix).items():
        if factors.pop(terms[place - 1].setting, None):
            follows = named(terms[other - 1].setting for other in others)
            notes.append(
                f"{shortened(terms[place - 1].setting)} is left out: its values follow from those of {follows}."
            )
    least = RUNS_PER_COEFFICIENT * (1 + len(coefficients(factors.values())))
    few = any((settings[c][one] == level).sum() < RUNS_PER_LEVEL
              for c, f in factors.items() if f.scores is None for level in f.levels)  # fmt: skip
    if not factors or int(one.sum()) < least or few:
        return None, [
            *notes,
            f"Coefficients of all settings would need {least:,} runs, and {RUNS_PER_LEVEL} of each level.",
        ]
    notes.append("Settings have many values, so they have coefficients in place of contrasts ([table] search).")
    return {c: list(f.levels) if len(f.levels) <= MOST_LEVELS else NUMBERS for c, f in factors.items()}, notes


def _is_search(settings: Mapping[str, "pd.Series[Level]"], factors: Mapping[str, Factor], n: int) -> bool:
    """Return whether there are numbers with too many values for cells, or most runs are the only one of their cell."""
    if any(len(factor.levels) > MOST_LEVELS for factor in factors.values()):
        return True
    if n < 2 * RUNS_PER_COEFFICIENT or not settings:
        return False
    return bool(len(pd.DataFrame(dict(settings)).drop_duplicates()) > n / 2)


# ---- Tables of means ----

_SPREAD = re.compile(r"(?i)(?P<name>.*?)[\W_]*(?P<kind>std_?(dev|err)?|sd|stdev|sem?|stderr)(?P<after>[\W_].+)?")
_NUMBER_OF_RUNS = re.compile(r"(?i)n|(n|num|number)?[\W_]?(of)?[\W_]?(runs|seeds|trials|repeats)|count")
_UNITS = re.compile(r"(?i).*(seed|run|trial).*")


@dataclass(frozen=True)
class _Spreads:
    """What a table of means says of numbers of runs and of spreads, by the columns of the means."""

    n: str
    of: Mapping[str, str]
    errors: bool

    @property
    def notes(self) -> list[str]:
        """What a person should know."""
        what = "standard errors" if self.errors else "standard deviations"
        notes = [f"Rows are means with {what}: if that is wrong, change is_error in [table.summary]."]
        unknown = "No column says of how many runs: n = 1 stands in its place. Correct it, or there are no intervals."
        return notes if self.n else [*notes, unknown]

    def declared(self, columns: Mapping[str, str]) -> dict[str, Any]:
        """Return the section of a study file, for the columns of metrics."""
        spread = {name: self.of[column] for name, column in columns.items() if self.of.get(column)}
        return {"n": self.n or 1, "is_error": self.errors} | ({"spread": spread} if spread else {})


def _without_spreads(source: Source) -> tuple[Source, _Spreads | None]:
    """Return a table of means without its numbers of runs and spreads, and these; None where it is of runs."""
    names = [str(column) for column in source.frame]
    written = [c for c in names if not pd.api.types.is_numeric_dtype(source.frame[c]) and _has_spreads(source.frame[c])]
    number = next((c for c in names if _NUMBER_OF_RUNS.fullmatch(c)), "")
    spreads, errors = {}, False
    for column in names:
        match = _SPREAD.fullmatch(column)
        mean = match and _mean_of(match["name"], match["after"] or "", names)
        if match and mean and mean != column:
            spreads[mean] = column
            errors |= match["kind"].lower() in ("se", "sem", "stderr", "std_err", "stderr")
    units = [c for c in names if _UNITS.fullmatch(c) and c != number]
    if source.roles or not (written or spreads) or (units and not written):
        return source, None
    frame = source.frame.drop(columns=[c for c in (*spreads.values(), number) if c])
    frame = frame.assign(**{c: _means(source.frame[c]) for c in written})
    roles: dict[str, Role] = dict.fromkeys([*written, *spreads], "metric")
    return replace(source, frame=frame, roles=roles), _Spreads(number, spreads, errors)


def _has_spreads(cells: "pd.Series[Any]") -> bool:
    texts = cells.astype(str).str.strip()
    texts = texts[texts != ""]
    marked = texts.str.contains(r"±|\+/?-|\\pm").all()
    return bool(len(texts) and marked and texts.str.fullmatch(MEAN_AND_SPREAD).all())


def _means(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    texts = cells.astype(str).str.strip()
    return texts.str.extract(f"{MEAN_AND_SPREAD}$")[0].fillna("")


def _mean_of(name: str, after: str, names: Iterable[str]) -> str:
    """Return the column of the means whose spread is in a column called by `name`, or by what comes `after`."""
    wanted = re.sub(r"[\W_]+", "", name + after).lower()
    plain = {re.sub(r"[\W_]+", "", re.sub(r"(?i)(^|[\W_])(mean|avg|average)([\W_]|$)", "_", c)).lower(): c
             for c in names if not _SPREAD.fullmatch(c)}  # fmt: skip
    return plain.get(wanted, "")


# ---- Wide tables ----


def _unfolded(source: Source) -> tuple[Source, dict[str, Any]]:
    """Return a wide table as a long one, where its columns are seeds, with how that is declared."""
    if source.roles or any(re.fullmatch(_BY_NAME[0][1], str(c), re.IGNORECASE) for c in source.frame):
        return source, {}
    columns = [str(column) for column in source.frame if _SEED_COLUMN.fullmatch(str(column))]
    if len(columns) < 3 or not all(_is_number(source, column, "") for column in columns):
        return source, {}
    metric = "metric" if "metric" not in source.frame else "value"
    long = replace(source.long(columns, "seed", metric), roles={"seed": "seed", metric: "metric"})
    return long, {"columns": columns, "names": "seed", "values": metric}
