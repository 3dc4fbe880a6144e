"""The design of an experiment: a study is a file, a run is a value.

A `Study` names the factors and their levels; `plan` makes the Cartesian product of levels and seeds, less what
the study excludes. Every `Run` is known by a hash of all that decides its result, and of nothing else.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails

from mnist_ablate.design.contrasts import Factor, Hypothesis, Level, collapse
from mnist_ablate.design.responses import Probe, probe_of
from mnist_ablate.design.settings import KNOWN_FACTORS, DatasetName, Settings
from mnist_ablate.errors import StudyError

__all__ = [
    "KNOWN_FACTORS", "Cell", "DatasetName", "Factor", "Hypothesis", "Level", "Run", "Settings", "Study",
    "bundled_studies", "cells", "load_study", "parse_study", "plan", "study_sha256",
]  # fmt: skip

PROTOCOL_VERSION = 1
"""Part of every run's identity: raised when the same settings would give other results on purpose."""

EngineName = Literal["autograd", "fused"]

_VALUE_OBJECT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


RESULT_COLUMNS = frozenset({
    "run_id", "study", "cell", "seed", "epoch", "status", "train_loss", "train_loss_eval", "val_loss",
    "val_accuracy", "test_loss", "test_accuracy", "train_seconds", "eval_seconds",
})  # fmt: skip
"""Columns of every result, which no factor may be called."""


class _Table(BaseModel):
    """A table of levels by factor: whether a study may have a factor of its own is for `_contradictions` to say."""

    model_config = _VALUE_OBJECT | ConfigDict(extra="allow")


class _CellTable(_Table):
    __pydantic_extra__: dict[str, Level] = Field(init=False)


class _FactorTable(_Table):
    __pydantic_extra__: dict[str, Annotated[tuple[Level, ...], Field(strict=False)]] = Field(init=False)


# What a table of levels, and a table of factors, may hold follows from Settings: same names, types and ranges.
_LEVEL: dict[str, Any] = {
    name: Annotated[Settings.model_fields[name].annotation, *Settings.model_fields[name].metadata, Field(title=name)]
    for name in KNOWN_FACTORS
}
_CELL_FIELDS: dict[str, Any] = {name: (level, None) for name, level in _LEVEL.items()}
_FACTOR_FIELDS: dict[str, Any] = {
    name: (Annotated[tuple[level, ...], Field(strict=False)], ())  # type: ignore[valid-type]
    for name, level in _LEVEL.items()
}
_Cell: Any = create_model("_Cell", __base__=_CellTable, **_CELL_FIELDS)
_Factors: Any = create_model("_Factors", __base__=_FactorTable, **_FACTOR_FIELDS)


class Study(BaseModel):
    """A question put to the machine: factors with levels, the seeds to repeat them over, what all runs share.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``: the study's folder.
    title
        A line for people.
    seeds
        Number of seeds (blocks); the seeds are 0, 1, ..., `seeds` - 1.
    engine
        What does the training steps, the same in all cells; by default the fastest that can do them all.
    protocol
        The settings that all runs share.
    factors
        The settings that vary, each with its levels, the reference first.
    exclude
        Combinations of levels that are not to be run; a table excludes every cell that agrees with all of it.
    cells
        The cells to run, in place of all combinations; a factor that a cell does not name is at its reference.
    probes
        What else is measured of each trained network, see `training.probes`; changes no run and no identity.
    hypotheses
        What is claimed, with the rules that decide: a family, with `alpha` for all its verdicts together.
    alpha
        Probability of any false verdict in the family.
    looks
        Numbers of seeds at which verdicts may be read, at most three, `seeds` the last; each look spends an equal
        part of `alpha`. By default there is one look, when all seeds are there.
    """

    model_config = _VALUE_OBJECT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    title: str = ""
    seeds: Annotated[int, Field(ge=1, le=100_000)] = 10
    engine: EngineName | None = None
    protocol: Settings = Settings()
    factors: _Factors
    exclude: Annotated[tuple[_Cell, ...], Field(strict=False)] = ()
    cells: Annotated[tuple[_Cell, ...], Field(strict=False)] = ()
    probes: Annotated[tuple[Probe, ...], Field(strict=False)] = ()
    hypotheses: Annotated[tuple[Hypothesis, ...], Field(strict=False)] = ()
    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    looks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, max_length=3)] = ()

    @property
    def design(self) -> tuple[Factor, ...]:
        """The factors, in the order of `Settings`, then the study's own."""
        given = [name for name in KNOWN_FACTORS if name in self.factors.model_fields_set]
        return tuple(Factor(name, getattr(self.factors, name)) for name in [*given, *(self.factors.model_extra or {})])

    @property
    def chosen_engine(self) -> EngineName:
        """The engine that it names, else the fastest that can train all its cells."""
        return self.engine or ("autograd" if self._for_autograd else "fused")

    @property
    def _for_autograd(self) -> list[str]:
        """Names of the settings of its cells that only autograd can train."""
        return list(dict.fromkeys(name for cell in cells(self) for name in cell.settings.for_autograd))

    @property
    def hypotheses_sha256(self) -> str:
        """SHA-256 of the rules of the verdicts: `alpha`, and the hypotheses but for their words."""
        words = {"statement", "claim"}
        rules = [hypothesis.model_dump(exclude=words, exclude_defaults=True) for hypothesis in self.hypotheses]
        return hashlib.sha256(json.dumps([self.alpha, rules], sort_keys=True).encode()).hexdigest()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        mistakes = list(_contradictions(self.model_dump(exclude_unset=True)))
        if not mistakes and not cells(self):
            mistakes = ["exclude: leaves no cell to run"]
        elif not mistakes:
            mistakes = list(_untestable(self))
        if not mistakes and self.engine == "fused" and self._for_autograd:
            mistakes = [f'engine = "fused": has no code for {", ".join(self._for_autograd)}; allowed here: "autograd"']
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def with_options(self, *, seeds: int | None = None, engine: str | None = None, **protocol: Any) -> "Study":
        """Return the study with other seeds, engine or shared settings (`protocol`); None leaves one as it is.

        Raises
        ------
        StudyError
            If an option is out of range, or is one of the study's factors.
        """
        document = self.model_dump(exclude_unset=True)
        document["protocol"] = document.get("protocol", {}) | _given(protocol)
        if seeds is not None and seeds != self.seeds:  # its looks were for another number
            document.pop("looks", None)
        return parse_study(document | _given({"seeds": seeds, "engine": engine}), f"options for {self.name}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _contradictions(document: dict[str, Any]) -> Iterator[str]:
    """Find what is wrong between the keys of a study file, whose single values may be wrong as well."""
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
        yield "exclude and cells cannot both be given: leave out of cells what is not to be run"
    yield from _strangers(document, factors)


def _own_factors(document: dict[str, Any], factors: dict[str, Any]) -> Iterator[str]:
    """Find factors that are no settings, in a study without a model to read them, or under impossible names."""
    model = _table(document.get("protocol")).get("model") or "model" in factors
    for name, levels in factors.items():
        if name not in KNOWN_FACTORS and not model:
            yield f"factors.{name}: unknown key; allowed: {', '.join(KNOWN_FACTORS)}, or any with a protocol.model"
        elif name in RESULT_COLUMNS or not name.isidentifier() or name == "own":
            yield f"factors.{name}: not a name for a factor; allowed: a Python identifier that is no column of results"
        elif isinstance(levels, list | tuple) and len(set(map(type, levels))) > 1 and name not in KNOWN_FACTORS:
            yield f"factors.{name} = {_toml(list(levels))}: levels of more than one type; allowed: one, as 0.0 with 0.5"


def _repeats(key: str, levels: Any) -> Iterator[str]:
    for i, level in enumerate(levels if isinstance(levels, list | tuple) else ()):
        if level in levels[:i]:
            yield f"{key}[{i}] = {_toml(level)}: repeated; allowed: each level once"


def _strangers(document: dict[str, Any], factors: dict[str, Any]) -> Iterator[str]:
    """Find levels in the tables `exclude` and `cells` that the factors do not have."""
    for table in ("exclude", "cells"):
        entries = document.get(table)
        for i, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
            for name, level in _table(entry).items():
                if name not in factors:
                    yield f"{table}[{i}].{name}: not a factor of this study; allowed: {', '.join(sorted(factors))}"
                elif isinstance(factors.get(name), list | tuple) and level not in factors[name]:
                    allowed = ", ".join(map(_toml, factors[name]))
                    yield f"{table}[{i}].{name} = {_toml(level)}: not a level of it; allowed: {allowed}"


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _untestable(study: Study) -> Iterator[str]:
    """Find hypotheses that the cells of `study` cannot answer, and looks at other seeds than it has."""
    levels = {cell.name: cell.levels for cell in cells(study)}
    for i, hypothesis in enumerate(study.hypotheses):
        probe = probe_of(hypothesis.response)
        if probe and probe not in study.probes:
            yield f'hypotheses[{i}].response = "{hypothesis.response}": needs "{probe}" among the probes of the study'
        try:
            _check_contrast(hypothesis, study.design, levels)
        except ValueError as error:
            yield f"hypotheses[{i}].{error}"
    if study.probes and any(cell.settings.model for cell in cells(study)):
        yield "probes: know the perceptron only; leave them out with a model"
    ids = [hypothesis.id for hypothesis in study.hypotheses]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield f'hypotheses: id = "{name}": repeated; allowed: each id once'
    if study.looks and (sorted(set(study.looks)) != list(study.looks) or study.looks[-1] != study.seeds):
        yield f"looks = {list(study.looks)}: allowed: increasing numbers of seeds, the last of them {study.seeds}"


def _check_contrast(hypothesis: Hypothesis, factors: tuple[Factor, ...], levels: dict[str, dict[str, Level]]) -> None:
    if hypothesis.over:
        left = collapse(hypothesis.over, factors, levels)
        factors, levels = left.factors, left.levels
    hypothesis.contrast.weights(factors, levels)


def _toml(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)


@dataclass(frozen=True)
class Cell:
    """One combination of levels."""

    name: str
    settings: Settings
    levels: dict[str, Level]


@dataclass(frozen=True)
class Run:
    """One training: a cell and a seed. Its `run_id` is a hash of what decides its result."""

    study: str
    cell: str
    factors: tuple[str, ...]
    seed: int
    settings: Settings
    engine: EngineName
    probes: tuple[Probe, ...] = ()

    @property
    def levels(self) -> dict[str, Level]:
        """The level of each factor."""
        known = self.settings.model_dump()
        return {name: known[name] if name in known else self.settings.own[name] for name in self.factors}

    @cached_property
    def specification(self) -> dict[str, Any]:
        """All that decides the result."""
        what = self.settings.model_dump()
        return {"protocol_version": PROTOCOL_VERSION, "engine": self.engine, "seed": self.seed, **what}

    @cached_property
    def run_id(self) -> str:
        """The first 80 bits, in hexadecimal, of the SHA-256 of the specification less what is at its default.

        So a setting that is added later, with today's behaviour as its default, changes no run's identity.
        """
        decisive = self.settings.model_dump(exclude_defaults=True)
        decisive |= {"protocol_version": PROTOCOL_VERSION, "engine": self.engine, "seed": self.seed}
        canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def cells(study: Study) -> list[Cell]:
    """List the cells of `study`: the product of the levels less what is excluded, or the cells it names."""
    factors = study.design
    listed: Iterable[tuple[Level, ...]] = itertools.product(*(factor.levels for factor in factors))
    if study.cells:
        wanted = [cell.model_dump(exclude_unset=True) for cell in study.cells]
        listed = (tuple(cell.get(factor.name, factor.reference) for factor in factors) for cell in wanted)
    excluded = [entry.model_dump(exclude_unset=True).items() for entry in study.exclude]
    tables = [dict(zip((factor.name for factor in factors), levels, strict=True)) for levels in listed]
    kept = [table for table in tables if not any(entry <= table.items() for entry in excluded)]
    return [Cell(_cell_name(factors, table), _settings(study.protocol, table), table) for table in kept]


def _settings(shared: Settings, levels: dict[str, Level]) -> Settings:
    """Put levels in place of the shared settings, and those of a study's own factors under `own`."""
    known = {name: level for name, level in levels.items() if name in KNOWN_FACTORS}
    own = shared.own | {name: level for name, level in levels.items() if name not in known}
    return Settings(**shared.model_dump(exclude_unset=True) | known | ({"own": own} if own else {})).reduced()


def _cell_name(factors: Sequence[Factor], levels: dict[str, Level]) -> str:
    labels = [factor.label(levels[factor.name]) for factor in factors]
    return "+".join(label for label in labels if label) or "baseline"


def plan(study: Study) -> list[Run]:
    """List every run of `study`, seed by seed, so that a study that is cut short leaves whole blocks.

    Cells whose settings come to the same are one run, under the first cell's name.
    """
    listed, engine = cells(study), study.chosen_engine
    distinct: dict[str, Run] = {}
    for seed in range(study.seeds):
        for cell in listed:
            run = Run(study.name, cell.name, tuple(cell.levels), seed, cell.settings, engine, study.probes)
            distinct.setdefault(run.run_id, run)
    return list(distinct.values())


def bundled_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _bundle().iterdir() if path.name.endswith(".toml"))


def _bundle() -> Any:
    return files("mnist_ablate.studies")


def load_study(name_or_path: str | Path) -> Study:
    """Read a bundled study by its name, or a study file by its path.

    Raises
    ------
    StudyError
        If there is no such study, or the file is not valid; the message lists every mistake.
    """
    source = str(name_or_path)
    try:
        document = tomllib.loads(_study_file(source).read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(bundled_studies())
        raise StudyError(
            f"{source}: no such study ({error.strerror}). Give the path of a TOML file, or one of: {known}."
        ) from error
    except (ValueError, RecursionError) as error:  # not TOML, not text, a number of thousands of digits, too deep
        raise StudyError(f"{source}: not a TOML file: {error}") from error
    return parse_study(document, source)


def _study_file(source: str) -> Any:
    return _bundle() / f"{source}.toml" if source in bundled_studies() else Path(source)


def study_sha256(name_or_path: str | Path) -> str:
    """Return the SHA-256 of the file that `load_study` reads, in hexadecimal."""
    return hashlib.sha256(_study_file(str(name_or_path)).read_bytes()).hexdigest()


def parse_study(document: dict[str, Any], source: str = "study") -> Study:
    """Make a `Study` of a dictionary with the keys of a study file; `source` names it in messages.

    Raises
    ------
    StudyError
        With one line per mistake, of the first `_SHOWN`: source, key, value and what is allowed.
    """
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        found = [_explain(detail) for detail in error.errors()]
        mistakes = list(dict.fromkeys([*_contradictions(document), *itertools.chain(*found)]))
        more = [f"and {len(mistakes) - _SHOWN:,} more"] if len(mistakes) > _SHOWN else []
        raise StudyError("\n".join(f"{source}: {mistake}" for mistake in mistakes[:_SHOWN] + more)) from error
    except UnicodeEncodeError as error:  # half a surrogate pair, which JSON can hold
        raise StudyError(f"{source}: {error.object!r}: allowed: text in Unicode") from error
    except OverflowError as error:
        raise StudyError(f"{source}: a whole number that is too large for a level of a factor ({error})") from error


_SHOWN = 20


def _explain(detail: ErrorDetails) -> list[str]:
    """Put one of pydantic's findings in terms of the file: key, value, what is allowed."""
    location = detail["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if location[:1] == ("hypotheses",) and location[2:3] == ("at",):  # a choice of text or table: pydantic reports both
        return [f'hypotheses[{location[1]}].at: allowed: "average", "reference" or a table of levels']
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = Study if len(location) == 1 else Hypothesis if location[0] == "hypotheses" else Settings
        return [f"{key}: unknown key; allowed: {', '.join(known.model_fields)}"]
    if detail["type"] == "missing":
        return [f"{key}: missing"]
    if detail["type"] == "value_error":
        return [f"{key}: {line}".removeprefix(": ") for line in message.splitlines()]
    return [f"{key} = {_toml(detail['input'])}: allowed: {_allowed(location) or message}"]


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


def _allowed(location: tuple[int | str, ...]) -> str:
    """Describe what the key at `location` may hold; empty for a table or an array."""
    *_, name = (part for part in location if isinstance(part, str))
    model: type[BaseModel] = Study if name in Study.model_fields else Settings
    model = Hypothesis if location[0] == "hypotheses" else model
    schema = _properties(model).get(name, {})
    schema = schema.get("anyOf", [schema])[0]
    schema = schema.get("items", schema) if isinstance(location[-1], int) else schema
    if "enum" in schema:
        return "one of " + ", ".join(map(_toml, schema["enum"]))
    bounds = [f"{sign} {schema[bound]}" for bound, sign in _BOUND.items() if bound in schema]
    return " ".join([_KIND[schema["type"]], " and ".join(bounds)]).strip() if schema.get("type") in _KIND else ""
