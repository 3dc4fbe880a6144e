"""A design: what is compared, over which seeds, in what, and by which rules it is judged, whoever made the runs.

`mnist_ablate.design.study.Study` is a design with our protocol, which says how to make its runs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag

from mnist_ablate.design.contrasts import Factor, Hypothesis, Level
from mnist_ablate.design.responses import Response
from mnist_ablate.design.steps import Steps

VALUE_OBJECT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
REFERENCE = "baseline"
"""The name of the cell where every factor is at its reference."""


def cell_name(factors: Sequence[Factor], levels: Mapping[str, Level]) -> str:
    """Return the name of the cell with these levels: the labels of those that are not the reference."""
    labels = [factor.label(levels[factor.name]) for factor in factors]
    return "+".join(label for label in labels if label) or REFERENCE


_Number = Annotated[int, Field(ge=1, le=100_000), Tag("number")]
Seeds = Annotated[
    _Number | Annotated[Steps, Tag("table")],
    Discriminator(lambda given: "table" if isinstance(given, dict | Steps) else "number"),  # one message for a mistake
]


class Design(BaseModel):
    """What is compared and how it is judged: all that effects, verdicts, power and pages need of an experiment.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``; also the name of the results folder.
    title
        A line for people.
    seeds
        Number of seeds (blocks); or a table with `first`, `step` and `most`: the study may go on until it is settled.
    first_seed
        The seeds are `first_seed`, `first_seed` + 1, and so on.
    settle
        When a hypothesis is settled: by its ``"sign"``, as soon as there is a verdict; or by its ``"size"``, only when
        its interval lies on one side of the smallest effect that matters.
    futility
        A study stops, too, when each open hypothesis is less likely than this to be settled at `most` seeds.
    hypotheses
        Claims with the rules that decide on them: one family, with `alpha` for all verdicts together.
    alpha
        Probability of any false verdict in the family.
    """

    model_config = VALUE_OBJECT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    title: str = ""
    seeds: Seeds = 10
    first_seed: Annotated[int, Field(ge=0, le=10**9)] = 0
    settle: Literal["sign", "size"] = "sign"
    futility: Annotated[float, Field(ge=0, lt=1)] = 0.10
    hypotheses: Annotated[tuple[Hypothesis, ...], Field(strict=False)] = ()
    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.05

    _reached: int = PrivateAttr(0)

    # ---- What a kind of design says itself ----

    @property
    def varied(self) -> tuple[Factor, ...]:
        """The factors."""
        raise NotImplementedError

    @property
    def cell_levels(self) -> dict[str, dict[str, Level]]:
        """The levels of each cell, by its name, in the order of the design."""
        raise NotImplementedError

    @property
    def responses(self) -> Mapping[str, Response]:
        """What is measured of each run, and how it is shown."""
        raise NotImplementedError

    @property
    def metric(self) -> str:
        """The response that the page is about first."""
        raise NotImplementedError

    @property
    def run_under(self) -> dict[str, str]:
        """The name under which each cell is run; cells that are one and the same run share it."""
        return {name: name for name in self.cell_levels}

    @property
    def chance(self) -> Mapping[str, str]:
        """The factors that only redraw one part of chance, with what they draw: they have a variance and no effect."""
        return {}

    @property
    def pairing(self) -> Literal["construction", "labels", "none"]:
        """What pairs the cells: that all share their seeds by construction, the labels of the seeds, or nothing."""
        return "construction"

    @property
    def resampled(self) -> float:
        """Rows tested on for each row trained on, where seeds are folds of one data set; 0 where they are not."""
        return 0.0

    @property
    def searched(self) -> tuple[Factor, ...]:
        """The settings of a search, which have coefficients in place of cells; empty where cells are compared."""
        return ()

    @property
    def summarised(self) -> bool:
        """Whether only the number, mean and standard deviation of each cell's runs are known."""
        return False

    # ---- What follows ----

    @property
    def cell_names(self) -> list[str]:
        """The cells that are run, in the order of the design."""
        return list(dict.fromkeys(self.run_under.values()))

    @property
    def reference_cell(self) -> str:
        """The cell that others are compared with: all factors at their reference, or else the first cell."""
        names = self.cell_names
        return REFERENCE if REFERENCE in names else names[0]

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which there are verdicts: one, unless the study may go on until it is settled."""
        return self.seeds.looks if isinstance(self.seeds, Steps) else (self.seeds,)

    @property
    def n_seeds(self) -> int:
        """The number of seeds that the study has: that of its first look, unless it has gone on."""
        return self.seeds if isinstance(self.seeds, int) else self._reached or self.seeds.first

    def reaching(self, n_seeds: int) -> Self:
        """Return the study with `n_seeds` seeds; a study that may go on declares what it did before."""
        if isinstance(self.seeds, int):
            return self.model_copy(update={"seeds": n_seeds})
        study = self.model_copy()
        study._reached = n_seeds
        return study

    @property
    def hypotheses_sha256(self) -> str:
        """SHA-256 of what decides the verdicts: `alpha`, and the hypotheses without their wording."""
        words = {"statement", "claim"}
        rules = [hypothesis.model_dump(exclude=words, exclude_defaults=True) for hypothesis in self.hypotheses]
        return hashlib.sha256(json.dumps([self.alpha, rules], sort_keys=True).encode()).hexdigest()
