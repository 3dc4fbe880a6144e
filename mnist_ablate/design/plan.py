"""The plan of a study: its cells are combinations of levels, and a run is a cell with a seed.

A run is identified by a hash of everything that decides its result, and of nothing else.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mnist_ablate.design.contrasts import Level
from mnist_ablate.design.design import cell_name
from mnist_ablate.design.metrics import Expected
from mnist_ablate.design.responses import Probe
from mnist_ablate.design.settings import KNOWN_FACTORS, Settings

if TYPE_CHECKING:  # a study validates itself by its cells
    from mnist_ablate.design.study import Study

PROTOCOL_VERSION = 2
"""Part of every run's identity: raised when the same settings give other results on purpose."""

EngineName = Literal["autograd", "fused"]
OWN = "own"
"""What stands for the engine where a training of the user's own takes the steps."""


@dataclass(frozen=True)
class Cell:
    """One combination of levels."""

    name: str
    settings: Settings
    levels: dict[str, Level]


@dataclass(frozen=True)
class Own:
    """What there is of the user's own in a study, as it was found: see `mnist_ablate.execution.runner.with_own`.

    Parameters
    ----------
    code
        The SHA-256 of each file that a function needs, by the name of the function.
    arrays
        The SHA-256 of what each function of a data set returns, by its name.
    """

    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)

    def of(self, settings: Settings) -> tuple[tuple[tuple[str, str], ...], str]:
        """Return the files, with SHA-256, that a run with these settings needs, and the SHA-256 of its arrays."""
        files = {file: sha for name in settings.functions.values() for file, sha in self.code.get(name, {}).items()}
        return tuple(sorted(files.items())), self.arrays.get(settings.dataset, "")


@dataclass(frozen=True)
class Run:
    """One training: a cell and a seed, with everything that decides its result.

    Parameters
    ----------
    study, cell, factors, seed, settings, engine, probes
        As in the study; the engine is `OWN` for a training of the user's own.
    folder
        The study file's, where the user's functions are looked for; no part of the identity.
    protocol_version
        Only stored runs have another than this program's.
    metrics
        What a training of the user's own must yield, the main one first; no part of the identity.
    code, arrays
        See `Own.of`.
    recorded
        Whether `code` and `arrays` are only recorded, and no part of the identity.
    """

    study: str
    cell: str
    factors: tuple[str, ...]
    seed: int
    settings: Settings
    engine: str
    probes: tuple[Probe, ...] = ()
    folder: str = field(default="", compare=False)
    protocol_version: int = PROTOCOL_VERSION
    metrics: tuple[Expected, ...] = field(default=(), compare=False)
    code: tuple[tuple[str, str], ...] = ()
    arrays: str = ""
    recorded: bool = False

    @property
    def images(self) -> str:
        """The name of the data set; of the user's own, the SHA-256 of its arrays, if that is known."""
        return self.arrays or self.settings.dataset

    @property
    def planned_code(self) -> dict[str, str]:
        """The code that the user's functions must have; empty if any will do."""
        return {} if self.recorded else dict(self.code)

    @property
    def levels(self) -> dict[str, Level]:
        """The level of each factor."""
        known = self.settings.model_dump()
        return {name: known[name] if name in known else self.settings.own[name] for name in self.factors}

    @cached_property
    def specification(self) -> dict[str, Any]:
        """Everything that decides the result."""
        return {**self._identity, **self.settings.model_dump()}

    @cached_property
    def run_id(self) -> str:
        """The first 80 bits, in hexadecimal, of the SHA-256 of the specification without defaults.

        So adding a setting with today's behaviour as its default changes no run's identity.
        """
        decisive = self.settings.model_dump(exclude_defaults=True) | self._identity
        canonical = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:20]

    @property
    def _identity(self) -> dict[str, Any]:
        identity = {"protocol_version": self.protocol_version, "engine": self.engine, "seed": self.seed}
        own = {"code": dict(self.code), "arrays": self.arrays}
        return identity if self.recorded else identity | {key: value for key, value in own.items() if value}


def cells(study: "Study") -> list[Cell]:
    """Return the cells of `study`: those that it lists, or all combinations of levels, minus what it excludes.

    A level is as the factor lists it, even where a cell writes 1 for 1.0, and a cell that is listed twice is one.
    """
    factors = study.varied
    names = [factor.name for factor in factors]
    combinations: Iterable[tuple[Level, ...]] = itertools.product(*(factor.levels for factor in factors))
    if study.cells:
        tables = [cell.model_dump(exclude_unset=True) for cell in study.cells]
        listed = (tuple(table.get(factor.name, factor.reference) for factor in factors) for table in tables)
        combinations = dict.fromkeys(
            tuple(factor.levels[factor.levels.index(level)] for factor, level in zip(factors, levels, strict=True))
            for levels in listed
        )
    excluded = [table.model_dump(exclude_unset=True).items() for table in study.exclude]
    all_levels = [dict(zip(names, combination, strict=True)) for combination in combinations]
    return [
        Cell(cell_name(factors, levels), _settings(study.protocol, levels), levels)
        for levels in all_levels
        if not any(table <= levels.items() for table in excluded)
    ]


def _settings(shared: Settings, levels: dict[str, Level]) -> Settings:
    """Return the shared settings with a cell's levels; those of a study's own factors go to `own`."""
    known = {name: level for name, level in levels.items() if name in KNOWN_FACTORS}
    own = shared.own | {name: level for name, level in levels.items() if name not in known}
    return Settings(**shared.model_dump(exclude_unset=True) | known | ({"own": own} if own else {})).reduced()


def plan(study: "Study", protocol_version: int = PROTOCOL_VERSION) -> list[Run]:
    """Return every run of `study`, seed by seed, so that a study that is cut short leaves complete blocks.

    Cells whose settings train the same network are one run, under the name of the first. Another `protocol_version`
    gives the runs that a folder of that protocol holds.
    """
    block, distinct = list(runs_of(study, protocol_version)), dict[str, Run]()
    for seed in range(study.first_seed, study.first_seed + study.n_seeds):
        for run in block:
            of_seed = replace(run, seed=seed)
            distinct.setdefault(of_seed.run_id, of_seed)
    return list(distinct.values())


def runs_of(study: "Study", protocol_version: int = PROTOCOL_VERSION) -> Iterator[Run]:
    """Yield the run of each cell with the first seed."""
    engine, metrics = study.chosen_engine, study.expected
    for cell in cells(study):
        code, arrays = study.own.of(cell.settings)
        yield Run(
            study.name, cell.name, tuple(cell.levels), study.first_seed, cell.settings, engine, study.probes,
            study.folder, protocol_version, metrics, code, arrays, study.code == "recorded",
        )  # fmt: skip
