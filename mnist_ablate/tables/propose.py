"""What the columns of a table might be: a proposal, as the text of a study file that a person settles."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from mnist_ablate.design.contrasts import Level, show
from mnist_ablate.errors import TableError
from mnist_ablate.tables import values
from mnist_ablate.tables.design import MOST_LEVELS
from mnist_ablate.tables.runs import DATA_SETS
from mnist_ablate.tables.source import Role, Source, named, shortened

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
_HIGHER = {"acc", "accuracy", "f1", "auc", "auroc", "auprc", "ap", "map", "bleu", "rouge", "score", "reward", "return",
           "r2", "iou", "miou", "dice", "precision", "recall", "psnr", "ssim", "mrr", "ndcg", "success", "solved",
           "correct", "elbo", "top1", "top5", "em"}  # fmt: skip
_LOWER = {"loss", "error", "err", "perplexity", "ppl", "rmse", "mse", "mae", "wer", "cer", "fid", "nll", "kl", "ece",
          "brier", "regret", "gap"}  # fmt: skip
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
        lines += _example(factors, metrics)
        return "\n".join([*lines, *(f"# {shortened(note, 500)}" for note in self.notes)]) + "\n"

    def __str__(self) -> str:
        table, factors, metrics = (self.document[key] for key in ("table", "factors", "metrics"))
        columns = table.get("columns", {})
        lines = [
            f"  factor {name}{_of(columns, name)}: {named(map(show, levels), 12)}" for name, levels in factors.items()
        ]
        lines += [f"  metric {name}{_of(columns, name)}: {m['better']} is better" for name, m in metrics.items()]
        lines += [f"  {role}: {shortened(table[role])}" for role in _SHOWN if table.get(role)]
        return "\n".join(["Proposed from the table:", *lines, *(f"  {note}" for note in self.notes)])


_SHOWN = ("seed", "run", "epoch", "status", "started", "repeat", "nested", "only")
_COMMENT = (
    "How a table is judged. Correct what is wrong, then: judge TABLE --study THIS_FILE",
    "Write hypotheses, and the number of seeds, before the runs: only then is a verdict more than post hoc.",
)


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


def _example(factors: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    factor = next((name for name, levels in factors.items() if len(levels) == 2), next(iter(factors), ""))
    if not factor:
        return [""]
    levels, (metric, shown) = factors[factor], next(iter(metrics.items()))
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
    decimal = (
        ","
        if source.text and any(values.has_decimal_commas(source.frame[column].head(_HEAD)) for column in source.frame)
        else ""
    )
    roles = {str(column): _role(source, str(column), decimal) for column in source.frame}
    metrics = _metrics(source, roles, decimal)
    factors, notes = {}, list[str]()
    columns: dict[str, str] = {}
    for column in [column for column, role in roles.items() if role == "factor"]:
        found = values.levels(source, column, decimal)
        distinct = list(dict.fromkeys(found))
        if len(distinct) == 1:
            notes.append(f"{shortened(column)} is {shortened(show(distinct[0]))} in all runs.")
        elif len(distinct) > MOST_LEVELS:
            notes.append(f"{shortened(column)} is left out: it has {len(distinct):,} values, too many to compare.")
        else:
            factors[_slug(column, columns)] = _ordered(distinct)
    shown = {_slug(column, columns): _metric(source, column, decimal) for column in metrics}
    table: dict[str, Any] = {"decimal": decimal} if decimal else {}
    table |= {role: column for role in ("seed", "status", "started", "repeat") if (column := _first(roles, role))}
    nested = [column for column, role in roles.items() if role == "nested"]
    table |= ({"nested": nested} if nested and "seed" in table else {}) | _log(source, roles, table, decimal)
    data = [column for column, role in roles.items() if role == "data"]
    only = {column: _most(source, column) for column in data if source.frame[column].nunique() > 1}
    notes += [f"Several data sets in {shortened(column)}: change [table.only] to judge the others." for column in only]
    left = [c for c, role in roles.items() if role == "metric" and c not in metrics]
    notes += [f"Numbers that are left out: {named(left)}."] if left else []
    stamp = {"sha256": source.sha256} if source.sha256 else {}
    table |= stamp | {"declared": (now or datetime.now(UTC)).replace(microsecond=0)}
    table |= ({"only": only} if only else {}) | {"columns": {k: v for k, v in columns.items() if k != v}}
    table |= {"wide": wide} if wide else {}
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
    if number and words & (_HIGHER | _LOWER):
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


def _metrics(source: Source, roles: Mapping[str, Role], decimal: str) -> list[str]:
    found = [c for c, role in roles.items() if role == "metric" and _is_number(source, c, decimal)]
    if not found:
        there = named(source.frame.columns, 30)
        raise TableError(f"{source.path}: no column looks like a metric; it has {there}. Write a study file that "
                         "names it, with [table] and [metrics.NAME].")  # fmt: skip

    def place(column: str) -> int:
        words = re.split(r"[\W_]+", column.lower())
        named_first = next((i for i, word in enumerate(_FIRST) if word in words), len(_FIRST))
        return named_first + (20 if "train" in words or "training" in words else 0)

    return sorted(found, key=place)[:_MOST_METRICS]


def _metric(source: Source, column: str, decimal: str) -> dict[str, Any]:
    words = set(re.split(r"[\W_]+", column.lower()))
    better = "higher" if words & _HIGHER else "lower" if words & _LOWER else "neither"
    numbers = values.numbers(source, column, decimal).dropna()
    found: dict[str, Any] = {"better": better}
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


# ---- Wide tables ----


def _unfolded(source: Source) -> tuple[Source, dict[str, Any]]:
    """Return a wide table as a long one, where its columns are seeds, with how that is declared."""
    if source.roles or any(re.fullmatch(_BY_NAME[0][1], str(c), re.IGNORECASE) for c in source.frame):
        return source, {}
    columns = [str(column) for column in source.frame if _SEED_COLUMN.fullmatch(str(column))]
    if len(columns) < 3 or not all(_is_number(source, column, "") for column in columns):
        return source, {}
    wide = {"columns": columns, "names": "seed", "values": "metric"}
    others = [column for column in source.frame if column not in columns]
    frame = source.frame.melt(others, columns, "seed", "metric")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Source(source.path, source.kind, frame, source.text, {"seed": "seed", "metric": "metric"}, source.sha256,
                  source.written), wide  # fmt: skip
