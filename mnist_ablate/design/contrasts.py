"""What can be asked of a study: hypotheses, and the contrasts of cells that they are about.

A contrast is a weighted sum of the cells of one seed, such as the mean of the cells with dropout minus the mean of
those without. It is written as in R's model formulas and turned into one weight per cell.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mnist_ablate.design.responses import SEEDS, SummaryName

Level = bool | int | float | str
Place = Literal["average", "reference"]
Population = Literal["seeds", "seeds and images"]


@dataclass(frozen=True)
class Factor:
    """Something that a study varies: its levels, the first of which is the reference."""

    name: str
    levels: tuple[Level, ...]

    @property
    def reference(self) -> Level:
        """The level that the others are compared with."""
        return self.levels[0]

    @property
    def scores(self) -> NDArray[np.float64] | None:
        """Positions of the levels on the scale of a trend, shape (levels,); None if they are not numbers.

        Positive numbers are on a scale of doublings (log2), so that a trend is the change per doubling; if one is 0 or
        below, all are used as given.
        """
        if any(isinstance(level, bool | str) for level in self.levels) or len(self.levels) < 2:
            return None
        values = np.array(self.levels, dtype=float)
        return np.log2(values) if (values > 0).all() else values

    @property
    def step(self) -> str:
        """The unit of a trend: ``"doubling"`` or ``"unit"``, see `scores`."""
        return "doubling" if min(map(float, self.levels)) > 0 else "unit"

    def label(self, level: Level) -> str:
        """Return the part of a cell's name: empty at the reference, the factor alone if it is on or off."""
        if level == self.reference:
            return ""
        if len(self.levels) == 2 and not self.reference:
            return self.name
        return f"{self.name}={show(level)}"

    def effect(self, level: Level) -> str:
        """Write the difference between a level and the reference as an effect, see `Contrast`."""
        return self.name if len(self.levels) == 2 else f"{self.name}[{show(level)}]"


def show(level: Level) -> str:
    """Return a level as the shortest text that no other level shares."""
    short = f"{level:g}" if isinstance(level, float) else str(level)
    return short if not isinstance(level, float) or float(short) == level else repr(level)


@dataclass(frozen=True)
class Term:
    """What a contrast does with one factor.

    Parameters
    ----------
    factor
        Its name.
    kind
        ``"difference"`` is a level minus the reference, ``"trend"`` the least-squares slope over all levels.
    level
        The level of a difference, as it was written; empty for the second of two levels.
    """

    factor: str
    kind: Literal["difference", "trend"]
    level: str = ""

    def weights(self, factor: Factor) -> NDArray[np.float64]:
        """Return the weight of each level, shape (levels,).

        Raises
        ------
        ValueError
            If the factor has no such level, or levels without a trend.
        """
        if self.kind == "trend":
            return self._slope(factor)
        weights = np.zeros(len(factor.levels))
        weights[0], weights[self._index(factor)] = -1, 1
        return weights

    def _slope(self, factor: Factor) -> NDArray[np.float64]:
        if factor.scores is None:
            raise ValueError(f"trend({factor.name}): a trend needs levels that are numbers")
        centred = factor.scores - factor.scores.mean()
        return np.asarray(centred / (centred**2).sum())

    def _index(self, factor: Factor) -> int:
        written = [show(level) for level in factor.levels]
        if not self.level and len(written) == 2:
            return 1
        if self.level in written[1:]:
            return written.index(self.level)
        choices = [f"{factor.name}[{level}]" for level in written[1:]]
        if len(written) > 2:
            choices.append(f"trend({factor.name})")
        raise ValueError(f"{factor.name}: which level? allowed: {', '.join(choices)}")


_TERM = re.compile(r"(?:trend\((?P<trend>\w+)\)|(?P<factor>\w+)(?:\[(?P<level>.+)\])?)", re.DOTALL)
_COLON = re.compile(r":(?![^\[\]]*\])")  # but not inside a level, such as module:function


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the cells of one seed.

    Parameters
    ----------
    effect
        ``"mean"``; or a term such as ``dropout`` (the second of two levels minus the first), ``dropout[0.5]`` (a
        level minus the reference) or ``trend(width)``; or terms joined by ``:``, their interaction: how much one
        effect changes with the other.
    at
        What happens to the factors that are in no term: ``"average"`` averages over their levels, ``"reference"``
        holds all at their reference, and a table holds those that it names at a level and averages over the others.
    """

    effect: str
    at: Place | tuple[tuple[str, Level], ...] = "average"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the effect.

        Raises
        ------
        ValueError
            If `effect` cannot be parsed.
        """
        if self.effect == "mean":
            return ()
        terms = []
        for part in _COLON.split(self.effect):
            match = _TERM.fullmatch(part.strip())
            if match is None:
                raise ValueError(
                    f'effect = "{self.effect}": allowed: "mean", or terms such as dropout, dropout[0.5] or '
                    "trend(dropout), joined by a colon"
                )
            if match["trend"]:
                terms.append(Term(match["trend"], "trend"))
            else:
                terms.append(Term(match["factor"], "difference", match["level"] or ""))
        return tuple(terms)

    def weights(self, factors: Sequence[Factor], cells: Mapping[str, Mapping[str, Level]]) -> dict[str, float]:
        """Return the weight of each cell that the contrast needs.

        Parameters
        ----------
        factors
            The factors of the study.
        cells
            The levels of each cell, by its name.

        Returns
        -------
        dict
            Weights by cell, none of them 0.

        Raises
        ------
        ValueError
            If it names what the study does not have, or needs a combination of levels that the study does not run.
        """
        per_factor = self._per_factor({factor.name: factor for factor in factors})
        wanted = math.prod(int(np.count_nonzero(list(by_level.values()))) for by_level in per_factor.values())
        products = {
            name: float(np.prod([per_factor[factor][level] for factor, level in levels.items()]))
            for name, levels in cells.items()
        }
        weights = {name: weight for name, weight in products.items() if weight != 0}
        if len(weights) < wanted:
            raise ValueError(f'effect = "{self.effect}": needs {wanted} cells, but this study runs {len(weights)}')
        return weights

    def _per_factor(self, factors: Mapping[str, Factor]) -> dict[str, dict[Level, float]]:
        """Return the weight of each level of each factor; the weight of a cell is their product."""
        terms, held = {term.factor: term for term in self.terms}, self._held(factors)
        unknown = [name for name in [*terms, *held] if name not in factors]
        if unknown:
            raise ValueError(f"{unknown[0]}: not a factor of this study; allowed: {', '.join(factors)}")
        if len(terms) < len(self.terms) or set(terms) & set(dict(self.at) if isinstance(self.at, tuple) else ()):
            raise ValueError(f'effect = "{self.effect}": each factor once, in the effect or in at')
        return {
            name: dict(zip(factor.levels, _level_weights(factor, terms.get(name), held), strict=True))
            for name, factor in factors.items()
        }

    def _held(self, factors: Mapping[str, Factor]) -> dict[str, Level]:
        if self.at == "reference":
            return {name: factor.reference for name, factor in factors.items()}
        return {} if self.at == "average" else dict(self.at)


def _level_weights(factor: Factor, term: Term | None, held: Mapping[str, Level]) -> NDArray[np.float64]:
    if term:
        return term.weights(factor)
    if factor.name not in held:
        return np.full(len(factor.levels), 1 / len(factor.levels))
    if held[factor.name] not in factor.levels:
        allowed = ", ".join(map(show, factor.levels))
        raise ValueError(f"at.{factor.name} = {held[factor.name]}: not a level of it; allowed: {allowed}")
    return np.array([float(level == held[factor.name]) for level in factor.levels])


@dataclass(frozen=True)
class Collapsed:
    """A design without one factor: groups of cells that differ in that factor alone.

    Parameters
    ----------
    factors
        The other factors.
    levels
        Their levels in each group; a group has the name of its first cell.
    groups
        The cells of each group, by the levels of the removed factor in increasing order.
    """

    factors: tuple[Factor, ...]
    levels: dict[str, dict[str, Level]]
    groups: dict[str, dict[Level, str]]


def collapse(
    over: str,
    factors: Sequence[Factor],
    cells: Mapping[str, Mapping[str, Level]],
    within: tuple[float, float] | None = None,
) -> Collapsed:
    """Return a design without its factor `over`, of which only the levels `within` two ends count.

    Raises
    ------
    ValueError
        If there is no such factor, or it has not at least two such levels.
    """
    allowed = [*(factor.name for factor in factors), SEEDS]
    if over not in allowed[:-1]:
        raise ValueError(f'over = "{over}": not a factor of this study; allowed: {", ".join(allowed)}')
    if within is not None:
        numbers = [level for factor in factors if factor.name == over and factor.scores is not None
                   for level in factor.levels if within[0] <= float(level) <= within[1]]  # fmt: skip
        if len(numbers) < 2:
            raise ValueError(f"within = {list(within)}: allowed: the ends of at least two levels of {over} (numbers)")
        cells = {cell: levels for cell, levels in cells.items() if levels[over] in numbers}
    members: dict[tuple[tuple[str, Level], ...], dict[Level, str]] = {}
    for cell, levels in cells.items():
        others = tuple((name, level) for name, level in levels.items() if name != over)
        members.setdefault(others, {})[levels[over]] = cell
    groups = {next(iter(by_level.values())): dict(sorted(by_level.items())) for by_level in members.values()}
    return Collapsed(
        tuple(factor for factor in factors if factor.name != over),
        {name: dict(others) for name, others in zip(groups, members, strict=True)},
        groups,
    )


class Hypothesis(BaseModel):
    """A claim, written down before the run with the rule that decides on it.

    Parameters
    ----------
    id
        Short and unique in the study.
    statement
        A sentence for people, which is true if the claim is.
    claim
        What it is a part of: hypotheses with equal `claim` are parts of one claim.
    response
        A column of the results; ``"gap"``, validation loss less training loss, both in evaluation mode;
        ``"log_epochs_to_97"``, see `inference.estimands.log_epochs_to`; or what one of the study's probes gives. Of a
        study with metrics of its own, one of these.
    over, summary
        A factor, whose levels are first put into one number within each seed, see
        `mnist_ablate.inference.estimands.summarise`. The contrast is then one of the other factors. Over ``"seed"`` a
        standard deviation is that between the seeds of each cell, see `spread_of_seeds` there.
    within
        The least and the largest level of `over` that count; by default all do.
    effect, at
        The contrast of cells, see `Contrast`.
    kind
        ``"increase"`` or ``"decrease"``: the response is higher, or lower. ``"negligible"``: the effect is smaller
        than `smallest` in either direction.
    smallest
        The smallest effect that matters, in the unit of the response: percentage points for accuracies, nats for
        losses.
    population
        What it speaks of. ``"seeds"``: other seeds, on the images at hand. ``"seeds and images"``: other seeds on new
        test images, of which those at hand are a sample; for test accuracy alone, whose answers are stored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    statement: Annotated[str, Field(min_length=1)]
    claim: str = ""
    response: str = "test_accuracy"
    over: str = ""
    summary: SummaryName | None = None
    within: Annotated[tuple[float, float] | None, Field(strict=False)] = None
    effect: str
    at: Place | dict[str, Level] = "average"
    kind: Literal["increase", "decrease", "negligible"]
    smallest: Annotated[float, Field(gt=0)]
    population: Population = "seeds"

    @model_validator(mode="after")
    def _keys_fit(self) -> "Hypothesis":
        if bool(self.over) != bool(self.summary):
            raise ValueError("over and summary belong together: give both, or neither")
        if self.over == SEEDS and self.summary != "log_sd":
            raise ValueError(f'summary = "{self.summary}": allowed over = "{SEEDS}": "log_sd"')
        if self.within and (self.over in ("", SEEDS) or self.within[0] >= self.within[1]):
            raise ValueError(f"within = {list(self.within)}: allowed with over a factor: its least and largest level")
        if self.summary in ("lowest", "fastest") and self.response != "log_epochs_to_97":
            raise ValueError(f'summary = "{self.summary}": needs response = "log_epochs_to_97"')
        if self.population != "seeds" and (self.response != "test_accuracy" or self.over):
            raise ValueError(
                f'population = "{self.population}": needs response = "test_accuracy" and no over, since only the '
                'answers to test images are stored one by one; allowed here: "seeds"'
            )
        return self

    @property
    def contrast(self) -> Contrast:
        """The contrast of cells that it is about."""
        return Contrast(self.effect, tuple(self.at.items()) if isinstance(self.at, dict) else self.at)
