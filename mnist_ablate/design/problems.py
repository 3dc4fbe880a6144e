"""All mistakes of a study file at once: contradictions between its keys, and pydantic's errors in terms of the file."""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from mnist_ablate.design.contrasts import Contrast, Factor, Hypothesis, Level, collapse
from mnist_ablate.design.design import REFERENCE, Design
from mnist_ablate.design.metrics import Metric, empty_ranges
from mnist_ablate.design.plan import Cell, cells
from mnist_ablate.design.responses import RESPONSES, SEEDS, SUMMARIES, probe_of
from mnist_ablate.design.settings import KNOWN_FACTORS, Settings, in_words
from mnist_ablate.design.steps import EXAMPLE, LEAST_FIRST, MOST_LOOKS, Steps

if TYPE_CHECKING:  # a study validates itself
    from mnist_ablate.design.study import Study

RESULT_COLUMNS = frozenset({
    "run_id", "study", "cell", "seed", "epoch", "status", "train_loss", "train_loss_eval", "val_loss",
    "val_accuracy", "test_loss", "test_accuracy", "train_seconds", "eval_seconds",
})  # fmt: skip
"""Columns of every result, which no factor may be named after."""
_ROW_COLUMNS = frozenset({"run_id", "study", "cell", "seed", "epoch", "status", "train_seconds", "eval_seconds"})
"""Columns of every result, which no metric of the user's own may be named after."""
_TAKEN = RESULT_COLUMNS | {"own", "mean", REFERENCE}
"""Names that mean something else: a setting, an effect, a cell."""
_LONGEST_NAME = 100
"""Bytes of a factor's name, which is part of the names of files."""
_LARGEST = 2**63
"""Whole numbers are stored in 64 bits."""


def contradictions(document: dict[str, Any]) -> Iterator[str]:
    """Yield contradictions between the keys of a study file; single values may be wrong as well."""
    factors = _table(document.get("factors"))
    if not factors:
        yield f"factors: at least one is needed; allowed: {', '.join(KNOWN_FACTORS)}"
    for name, levels in factors.items():
        if levels == [] or levels == ():
            yield f"factors.{name} = []: allowed: at least one level"
        yield from _repeats(f"factors.{name}", levels)
    yield from _own_factors(document, factors)
    for name in _table(document.get("protocol")):
        if name in factors:
            yield f"protocol.{name}: {name} is a factor too; keep one of them"
    if document.get("exclude") and document.get("cells"):
        yield "exclude and cells cannot both be given: leave out of cells what should not run"
    yield from _unknown_levels(document, factors)
    yield from _own_metrics(document, factors)
    yield from _unknown_responses(document)
    yield from growing(document)


def _own_metrics(document: dict[str, Any], factors: dict[str, Any]) -> Iterator[str]:
    """Yield metrics without a training of the user's own, such a training without metrics, and names that cannot be."""
    metrics = document.get("metrics")
    named = (_table(document.get("protocol")).get("train"), *_listed(factors.get("train")))
    trainings = [name for name in named if name]
    if not metrics and trainings:
        yield 'metrics: a training of your own needs at least one, as [metrics.accuracy] with better = "higher"'
    if metrics and not trainings:
        yield "metrics: only for a training of your own; allowed with protocol.train, or in the study file of a table"
    if trainings and "" in _listed(factors.get("train")):
        yield "factors.train: a training of your own beside ours; allowed: trainings of your own alone"
    if trainings and document.get("engine"):
        yield f"engine = {_toml(document['engine'])}: has nothing to do where protocol.train trains; leave it out"
    for name in _table(metrics):
        if not (name.isidentifier() and re.fullmatch(r"\w+", name)) or name in _ROW_COLUMNS | {
            "own",
            "mean",
            REFERENCE,
        }:
            yield (
                f"metrics.{name}: not a name for a metric; allowed: a Python identifier, and not "
                f"{', '.join(sorted(_ROW_COLUMNS))}, own, mean or {REFERENCE}"
            )
        if name in factors:
            yield f"metrics.{name}: {name} is a factor too; rename one of them"
        if _table(_table(metrics)[name]).get("censored"):
            yield f"metrics.{name}.censored: names a column of a table; leave it out"


def _unknown_responses(document: dict[str, Any]) -> Iterator[str]:
    """Yield hypotheses about what is not measured."""
    known = list(_table(document.get("metrics")) or RESPONSES)
    for i, hypothesis in enumerate(_listed(document.get("hypotheses"))):
        response = _table(hypothesis).get("response", known[0])
        if isinstance(response, str) and response not in known:
            yield f"hypotheses[{i}].response = {_toml(response)}: allowed: one of {', '.join(map(_toml, known))}"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _own_factors(document: dict[str, Any], factors: dict[str, Any]) -> Iterator[str]:
    """Yield mistakes of factors that are not settings: nothing to read them, or names or levels that cannot be."""
    protocol = _table(document.get("protocol"))
    read = any(protocol.get(key) or key in factors for key in ("model", "train"))
    for name, levels in factors.items():
        if name not in KNOWN_FACTORS and not read:
            allowed = ", ".join(KNOWN_FACTORS)
            yield f"factors.{name}: unknown key; allowed: {allowed}, or any with a protocol.model or protocol.train"
        elif name in _TAKEN or not (name.isidentifier() and re.fullmatch(r"\w+", name)):
            yield (
                f"factors.{name}: not a name for a factor; allowed: a Python identifier that is no column of results, "
                f"nor own, mean or {REFERENCE}"
            )
        elif len(name.encode()) > _LONGEST_NAME:
            yield f"factors.{name[:20]}...: a name of {len(name.encode())} bytes; allowed: at most {_LONGEST_NAME}"
        elif name not in KNOWN_FACTORS and isinstance(levels, list | tuple):
            yield from level_mistakes(name, levels)
    yield from _alike_factors(sorted(factors))


def level_mistakes(name: str, levels: Sequence[Any]) -> Iterator[str]:
    """Yield mistakes in the levels of a factor that is no setting."""
    if len(set(map(type, levels))) > 1:
        yield f"factors.{name} = {_toml(list(levels))}: levels of more than one type; allowed: one, as 0.0 with 0.5"
    elif all(isinstance(level, bool | int | float | str) for level in levels):  # pydantic names the others
        factor = Factor(name, tuple(levels))
        for i, level in enumerate(levels):
            if allowed := _allowed_instead(factor, level):
                yield f"factors.{name}[{i}] = {_toml(level)}: allowed: {allowed}"


def _allowed_instead(factor: Factor, level: Level) -> str:
    """Return what is allowed instead of a level that cannot be stored, shown or written in an effect, else nothing."""
    if isinstance(level, int) and not -_LARGEST <= level < _LARGEST:
        return "whole numbers of 64 bits"
    if isinstance(level, str) and any(unicodedata.category(character) == "Cc" for character in level):
        return "text without control characters"
    effect = factor.effect(level)
    try:
        (term,) = Contrast(effect).terms
        if level != factor.reference:
            term.weights(factor)
    except ValueError:
        return f"text that can be written in an effect, as in {factor.name}[text]"
    return ""


def _alike_factors(names: list[str]) -> Iterator[str]:
    """Yield factors whose names read alike, or are one name where a file system ignores case."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(unicodedata.normalize("NFKC", in_words(name)).casefold(), name)
        if first != name:
            yield f"factors.{name}: reads like {first}; rename one of them"


def alike_cells(study_cells: Sequence[Cell]) -> Iterator[str]:
    """Yield pairs of cells whose names are equal, or read alike."""
    seen: dict[str, Cell] = {}
    for cell in study_cells:
        first = seen.setdefault(" ".join(unicodedata.normalize("NFC", in_words(cell.name)).split()), cell)
        if first is not cell:
            pair = " and ".join(
                ", ".join(f"{name} = {_toml(level)}" for name, level in one.levels.items()) for one in (first, cell)
            )
            yield f'factors: two cells would both be called "{cell.name}": {pair}; rename a level or a factor'


def _repeats(key: str, levels: Any) -> Iterator[str]:
    for i, level in enumerate(levels if isinstance(levels, list | tuple) else ()):
        if level in levels[:i]:
            yield f"{key}[{i}] = {_toml(level)}: repeated; allowed: each level once"


def _unknown_levels(document: dict[str, Any], factors: dict[str, Any]) -> Iterator[str]:
    """Yield levels in the tables `exclude` and `cells` that the factors do not have."""
    for table in ("exclude", "cells"):
        entries = document.get(table)
        for i, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
            for name, level in _table(entry).items():
                if name not in factors:
                    yield f"{table}[{i}].{name}: not a factor of this study; allowed: {', '.join(sorted(factors))}"
                elif isinstance(factors.get(name), list | tuple) and level not in factors[name]:
                    allowed = ", ".join(map(_toml, factors[name]))
                    yield f"{table}[{i}].{name} = {_toml(level)}: not a level of it; allowed: {allowed}"


def growing(document: dict[str, Any]) -> Iterator[str]:
    """Yield mistakes in how the number of seeds grows, and rules to stop by where it does not."""
    seeds = document.get("seeds")
    if not isinstance(seeds, dict):
        for key in ("settle", "futility"):
            if key in document:
                yield f"{key}: needs a number of seeds that grows; allowed: seeds = {EXAMPLE}"
        return
    if not document.get("hypotheses"):
        yield "seeds: there is nothing to settle without hypotheses; allowed: a whole number, or add some"
    first, step, most = (seeds.get(key) for key in ("first", "step", "most"))
    if type(first) is type(step) is type(most) is int and first >= LEAST_FIRST and step > 0:
        steps = max(most - first, 0) // step
        if most != first + steps * step:
            near = f"{first + steps * step} or {first + (steps + 1) * step}"
            yield f"seeds.most = {most}: allowed: first plus a whole number of steps, as {near}"
        elif steps >= MOST_LOOKS:
            yield f"seeds.step = {step}: makes {steps + 1} looks; allowed: at most {MOST_LOOKS}"


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def untestable(study: "Study") -> Iterator[str]:
    """Yield hypotheses that the cells or the seeds of `study` cannot answer, and probes that cannot look."""
    levels = {cell.name: cell.levels for cell in cells(study)}
    for i, hypothesis in enumerate(study.hypotheses):
        probe = None if study.metrics else probe_of(hypothesis.response)
        yield from _of_own_metrics(study, i)
        if probe and probe not in study.probes:
            yield f'hypotheses[{i}].response = "{hypothesis.response}": needs "{probe}" among the probes of the study'
        yield from _undecidable(study, i, levels)
    if study.probes and any(cell.settings.model or cell.settings.train for cell in cells(study)):
        yield "probes: know the perceptron only; leave them out with a model or a training of your own"
    yield from empty_ranges(study.metrics)
    yield from repeated_ids(study)


def _of_own_metrics(study: "Study", i: int) -> Iterator[str]:
    """Yield what a hypothesis about a metric of the user's own cannot ask."""
    hypothesis = study.hypotheses[i]
    if study.metrics and hypothesis.summary and hypothesis.summary != "log_sd":
        yield f'hypotheses[{i}].summary = "{hypothesis.summary}": allowed with metrics of your own: "log_sd"'
    if study.metrics and hypothesis.population != "seeds":
        yield f'hypotheses[{i}].population = "{hypothesis.population}": allowed with metrics of your own: "seeds"'


def table_mistakes(design: Design) -> Iterator[str]:
    """Yield what is wrong with the hypotheses of a table, and pairs of cells that read alike."""
    levels = design.cell_levels
    if len(levels) < math.prod(len(factor.levels) for factor in design.varied):
        yield "factors: two cells would have the same name; rename a level or a factor"
    for i, hypothesis in enumerate(design.hypotheses):
        if hypothesis.response not in design.responses:
            allowed = ", ".join(design.responses)
            yield f'hypotheses[{i}].response = "{hypothesis.response}": not a metric; allowed: {allowed}'
        if hypothesis.summary and hypothesis.summary != "log_sd":
            yield f'hypotheses[{i}].summary = "{hypothesis.summary}": allowed for a table: "log_sd"'
        yield from _undecidable(design, i, levels)
    yield from repeated_ids(design)


def _undecidable(design: Design, i: int, levels: dict[str, dict[str, Level]]) -> Iterator[str]:
    """Yield why the cells cannot answer a hypothesis, and why nobody can look at it before all seeds are there."""
    try:
        _check_contrast(design.hypotheses[i], design.varied, levels)
    except ValueError as error:
        yield f"hypotheses[{i}].{error}"
    yield from _not_monitored(design, i)


def repeated_ids(design: Design) -> Iterator[str]:
    """Yield ids that several hypotheses have."""
    ids = [hypothesis.id for hypothesis in design.hypotheses]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield f'hypotheses: id = "{name}": repeated; allowed: each id once'


def _not_monitored(study: Design, i: int) -> Iterator[str]:
    """Yield why nobody can look at a hypothesis before all seeds are there."""
    if not isinstance(study.seeds, Steps):
        return
    over, summary, response = study.hypotheses[i].over, study.hypotheses[i].summary, study.hypotheses[i].response
    least = math.ceil(math.log2(2 * len(study.hypotheses) / study.alpha))
    if over == SEEDS:
        yield (
            f'hypotheses[{i}].over = "{SEEDS}": cannot be monitored, because looks need a number of each seed that '
            "stays, and what a seed says of the spread changes with every seed that is added; allowed: a fixed number "
            "of seeds, as seeds = 120"
        )
    elif summary and SUMMARIES[summary].steps and study.seeds.most < least:
        yield (
            f'hypotheses[{i}].summary = "{summary}": cannot be monitored, because the interval of a median is infinite '
            f"up to {least - 1} seeds at this alpha; allowed: seeds.most >= {least}"
        )
    elif response in study.responses and study.responses[response].yes_no:
        yield (
            f'hypotheses[{i}].response = "{response}": cannot be monitored, because the exact test of a yes or no has '
            "no interval that holds at all looks; allowed: a fixed number of seeds, as seeds = 120"
        )


def _check_contrast(hypothesis: Hypothesis, factors: tuple[Factor, ...], levels: dict[str, dict[str, Level]]) -> None:
    if hypothesis.over and hypothesis.over != SEEDS:
        collapsed = collapse(hypothesis.over, factors, levels, hypothesis.within)
        factors, levels = collapsed.factors, collapsed.levels
    hypothesis.contrast.weights(factors, levels)


def _toml(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)


def explain(detail: ErrorDetails, study: type[BaseModel]) -> list[str]:
    """Return one of pydantic's errors in terms of the file: key, value, what is allowed."""
    location = detail["loc"]
    if location[:1] == ("seeds",):
        location = ("seeds", *location[2:])  # without the name of the alternative, a number or a table
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if location[:1] == ("hypotheses",) and location[2:3] == ("at",):  # text or a table: pydantic reports both
        return [f'hypotheses[{location[1]}].at: allowed: "average", "reference" or a table of levels']
    if len(location) == 4 and location[0] in ("factors", "cells", "exclude"):  # pydantic reports each type of a level
        return [f"{key.rpartition('.')[0]} = {_toml(detail['input'])}: allowed: true or false, a finite number or text"]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        if location == ("looks",):
            return [f"looks: no longer a key; allowed instead: seeds = {EXAMPLE}"]
        known = study if len(location) == 1 else _TABLES.get(location[0], Settings)
        return [f"{key}: unknown key; allowed: {', '.join(known.model_fields)}"]
    if detail["type"] == "missing":
        return [f"{key}: missing"]
    if detail["type"] == "value_error":
        return [f"{key}: {line}".removeprefix(": ") for line in message.splitlines()]
    if location == ("seeds",):
        return [f"seeds = {_toml(detail['input'])}: allowed: {_allowed(location, study)}, or {EXAMPLE}"]
    allowed = _SHAPE.get(detail["type"], "").format_map(detail.get("ctx", {})) or _allowed(location, study) or message
    return [f"{key} = {_toml(detail['input'])}: allowed: {allowed}"]


_TABLES: dict[int | str, type[BaseModel]] = {"hypotheses": Hypothesis, "seeds": Steps, "metrics": Metric}
# Words of our own: pydantic's differ between its versions.
_SHAPE = {"model_type": "a table", "tuple_type": "an array", "too_long": "at most {max_length} values"}
_KIND = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "text"}
_BOUND = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "pattern": "matching",
}


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def _allowed(location: tuple[int | str, ...], study: type[BaseModel]) -> str:
    """Return what the key at `location` may hold; empty for a table or an array."""
    *_, name = (part for part in location if isinstance(part, str))
    model: type[BaseModel] = study if name in study.model_fields else Settings
    model = _TABLES.get(location[0], model) if len(location) > 1 else model
    schema = _properties(model).get(name, {})
    schema = schema.get("anyOf", schema.get("oneOf", [schema]))[0]
    schema = schema.get("items", schema) if isinstance(location[-1], int) else schema
    if "allowed" in schema:
        return str(schema["allowed"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_toml, schema["enum"]))
    bounds = [f"{sign} {_whole(schema[bound])}" for bound, sign in _BOUND.items() if bound in schema]
    return " ".join([_KIND[schema["type"]], " and ".join(bounds)]).strip() if schema.get("type") in _KIND else ""


def _whole(bound: object) -> object:
    """Return 0 for 0.0, as newer versions of pydantic have it in a schema."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
