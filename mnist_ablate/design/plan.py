"""Every run of a study: cells are combinations of levels, a run is a cell and a seed.

A run is known by a hash of all that decides its result, and of nothing else.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mnist_ablate.design.contrasts import Factor, Level
from mnist_ablate.design.responses import Probe
from mnist_ablate.design.settings import KNOWN_FACTORS, Settings

if TYPE_CHECKING:  # a study checks itself by its cells
    from mnist_ablate.design.study import Study

PROTOCOL_VERSION = 1
"""Part of every run's identity: raised when the same settings would give other results on purpose."""

EngineName = Literal["autograd", "fused"]


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


def cells(study: "Study") -> list[Cell]:
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


def plan(study: "Study") -> list[Run]:
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
