"""The registry of what can be measured of a run, and how it is shown. A new response is one entry here.

Results store a response as it was measured. `Response.shown` alone converts it to the unit of the pages.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mnist_ablate.language import at_start, later_as, told_as

if TYPE_CHECKING:  # workers, which know the names of probes, start without pandas
    import pandas as pd

LOSS_CAP = math.log(10)
"""The loss of guessing among ten digits, in nats: what a run that diverged counts as. A larger loss of a run that did
not is a loss like any other."""
_GUESSED = 10.0
"""The accuracy of guessing, in percent."""


@dataclass(frozen=True)
class Response:
    """One number of a run after an epoch.

    Parameters
    ----------
    label
        In English words; `name` and `in_sentence` are in the language of the page.
    unit
        Of a difference between two values; `unit_name` is in the language of the page.
    digits
        After the decimal point, in tables.
    better
        +1 if higher is better, -1 if lower is, 0 if neither.
    source
        Where it comes from: ``"column"`` of the results, ``"curve"`` (computed from the epochs of a run), ``"table"``
        (a column of runs that were made elsewhere), or the probe that measures it, by its name.
    scale
        What a stored value is multiplied by to be shown: 100 for a fraction that is shown in percent, whose differences
        are then in percentage points.
    log_of
        The stored number of which it is the logarithm, or empty; a number that is not above 0 has none.
    yes_no
        Whether each run has a yes (1) or a no (0).
    range
        The least and the largest value that there can be, in the unit of the pages; None where that is not known.
    guessing
        What a run that diverged counts as, in the unit of the pages: as a network that guesses. None where such a run
        has no value.
    """

    label: str
    unit: str
    digits: int
    better: Literal[-1, 0, 1]
    source: str = "column"
    scale: float = 1.0
    log_of: str = ""
    guessing: float | None = None
    yes_no: bool = False
    range: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The label, for an axis or a heading; a name from elsewhere stays as it is."""
        return self.label if self.source == "table" else told_as("name", self.label)

    @property
    def in_sentence(self) -> str:
        """The label within a sentence, with the article that a language may need."""
        if self.source == "table":
            return self.label
        said = told_as("in a sentence", self.label)
        return f"the {said}" if said == self.label and said.startswith("gap") else said

    @property
    def kept(self) -> str:
        """The label in English, which `told` says again within a sentence: for what is computed once and kept."""
        return self.label if self.source == "table" else later_as("in a sentence", self.label)

    @property
    def at_start(self) -> str:
        """The label at the start of a sentence."""
        return self.label if self.source == "table" else at_start(self.in_sentence)

    @property
    def unit_name(self) -> str:
        """The unit of a difference between two values."""
        return told_as("unit", self.unit) if self.unit else ""

    @property
    def value_unit(self) -> str:
        """Of a value, where `unit` is that of a difference."""
        return "%" if self.unit == "points" else self.unit_name

    @property
    def named(self) -> str:
        """The name with the unit of a value, for an axis or a heading."""
        return f"{self.name}, {self.value_unit}" if self.unit else self.name

    @property
    def heading(self) -> str:
        """The name with the unit of a value, at the head of a column."""
        return self.named if self.source == "table" else at_start(self.named)

    @property
    def in_unit(self) -> str:
        """The unit after a number, with a space in front, or nothing."""
        return f" {self.unit_name}" if self.unit else ""


def _accuracy(label: str) -> Response:
    return Response(label, "points", 2, 1, scale=100.0, guessing=_GUESSED)


def _points(label: str, source: str, better: Literal[-1, 1] = 1) -> Response:
    return Response(label, "points", 2, better, source, scale=100.0)


def _loss(label: str) -> Response:
    return Response(label, "nats", 4, -1, guessing=LOSS_CAP)


def _log(label: str, source: str, better: Literal[-1, 0] = 0, log_of: str = "") -> Response:
    return Response(label, "log ratio", 3, better, source, log_of=log_of)


RESPONSES: Mapping[str, Response] = MappingProxyType({
    "test_accuracy": _accuracy("test accuracy"),
    "val_accuracy": _accuracy("validation accuracy"),
    "gap": Response("gap between validation and training loss", "nats", 4, 0, "curve"),
    "val_loss": _loss("validation loss"),
    "test_loss": _loss("test loss"),
    "train_loss_eval": _loss("training loss"),
    "train_loss": _loss("training loss while training"),
    "log_epochs_to_97": _log("log of epochs to 97 % validation accuracy", "curve", -1),
    "log_shift_linear": _log("log of how far linear outputs move in an epoch", "preactivations", -1),
    "log_spread_linear": _log("log of how far the spread of linear outputs moves", "preactivations", -1),
    "log_shift_activation": _log("log of how far what enters the activation moves", "preactivations", -1),
    "log_spread_activation": _log("log of how far the spread of what enters the activation moves",
                                   "preactivations", -1),
    "log_gradient_norm": _log("log of the gradient's norm", "gradients"),
    "log_weight_norm": _log("log of the weights' norm", "weights"),
    "log_weight_evenness": _log("log of how evenly the weights are spread", "weights"),
    "accuracy_lost_10": _points("accuracy lost without 10 % of the hidden units", "removal", -1),
    "accuracy_lost_20": _points("accuracy lost without 20 % of the hidden units", "removal", -1),
    "accuracy_lost_50": _points("accuracy lost without 50 % of the hidden units", "removal", -1),
    "accuracy_lost_worst": _points("accuracy lost without the one hidden unit that matters most", "removal", -1),
    "log_accuracy_lost_10": _log("log of the accuracy lost without 10 % of the hidden units", "removal", -1,
                                 "accuracy_lost_10"),
    "log_accuracy_lost_20": _log("log of the accuracy lost without 20 % of the hidden units", "removal", -1,
                                 "accuracy_lost_20"),
    "log_accuracy_lost_50": _log("log of the accuracy lost without 50 % of the hidden units", "removal", -1,
                                 "accuracy_lost_50"),
    "log_accuracy_lost_worst": _log("log of the accuracy lost without the one hidden unit that matters most", "removal",
                                    -1, "accuracy_lost_worst"),
    "accuracy_gain_of_50": _points("accuracy of the mean of 50 thinned networks above plain", "sampling"),
    "loss_gain_of_50": Response("loss of the mean of 50 thinned networks above plain", "nats", 4, -1, "sampling"),
    "ece_gain_of_50": Response("calibration error of the mean of 50 thinned networks above plain", "fraction", 4, -1,
                               "sampling"),
    "ece": Response("expected calibration error", "fraction", 4, -1, "calibration"),
})  # fmt: skip
"""What a hypothesis can be about. ``gap`` is ``val_loss`` minus ``train_loss_eval``; a run that diverged has none."""


@dataclass(frozen=True)
class Summary:
    """One number in place of the levels of a factor, within each seed; `mnist_ablate.inference.estimands` computes it.

    Parameters
    ----------
    sentence
        Its name in a sentence, with a place for the name of the factor. This and all other words are English; pages
        translate them.
    unit
        Of a difference between two values.
    table
        The name of its table.
    heading, caption
        Of its table, with a place for the name of the factor.
    steps
        Whether values are whole steps of the grid of levels, of which medians are compared; else means of logarithms
        are.
    """

    sentence: str
    unit: str
    table: str
    heading: str
    caption: str
    steps: bool = False


SUMMARIES: Mapping[str, Summary] = MappingProxyType({
    "log_sd": Summary(
        "The log of the standard deviation over the levels of {factor}", "log ratio", "spread",
        "sd over {factor}, points",
        "How much the response depends on {factor}: the standard deviation over its levels within each seed, then the "
        "geometric mean over seeds. Beside it, the standard deviation over seeds at the reference level, which is "
        "chance alone.",
    ),
    "log_drop": Summary(
        "The log of the mean drop from the best level of {factor}", "log ratio", "drop",
        "Mean drop over {factor}, points",
        "How far the response falls from its own best as {factor} varies: the best level minus each level, the mean "
        "over levels within each seed, then the geometric mean over seeds. Beside it, the standard deviation over "
        "seeds at the reference level, which is chance alone.",
    ),
    "lowest": Summary(
        "The log of the epochs to 97 % validation accuracy, each at its own best {factor},", "log ratio", "lowest",
        "Epochs at the best {factor}",
        "How many epochs the fastest level of {factor} takes to a validation accuracy of 97 % in each seed; the "
        "geometric mean over seeds. Beside it, the standard deviation over seeds of the logarithm at the reference "
        "level.",
    ),
    "fastest": Summary(
        "The {factor} that is fastest to 97 %", "grid steps", "fastest", "Fastest {factor}, median",
        "The {factor} of the grid that takes the fewest epochs to a validation accuracy of 97 %, in each seed.",
        steps=True,
    ),
    "highest": Summary(
        "The highest {factor} that trains", "grid steps", "highest", "Highest {factor} that trains, median",
        "The highest {factor} of the grid that ends with a validation accuracy of 90 % or more, in each seed: the last "
        "level before the first failure, going up from the best level. If no level fails, the limit lies beyond the "
        "grid: the seed counts with the end of the grid, and the last column says how many seeds do.", steps=True,
    ),
})  # fmt: skip
"""What a hypothesis can put in place of a factor's levels."""

SEEDS = "seed"
"""What a hypothesis can take a standard deviation over instead of the levels of a factor: all seeds."""


def _by_probe() -> dict[str, tuple[str, ...]]:
    probes = dict.fromkeys(r.source for r in RESPONSES.values() if r.source not in ("column", "curve"))
    stored = {name: response for name, response in RESPONSES.items() if not response.log_of}
    return {probe: tuple(name for name, r in stored.items() if r.source == probe) for probe in probes}


PROBES: Mapping[str, tuple[str, ...]] = MappingProxyType(_by_probe())
"""The responses that each probe measures: see `mnist_ablate.training.probes`."""

if TYPE_CHECKING:  # to a type checker they are names
    Probe = str
    SummaryName = str
else:  # to pydantic, which checks study files, one of those above
    Probe = Literal[tuple(PROBES)]
    SummaryName = Literal[tuple(SUMMARIES)]


def probe_of(response: str) -> Probe | None:
    """Return the probe that measures `response`; None where no probe is needed."""
    return RESPONSES[response].source if response in RESPONSES and RESPONSES[response].source in PROBES else None


def shown(frame: "pd.DataFrame", response: str, responses: Mapping[str, Response] = RESPONSES) -> "pd.Series[float]":
    """Return a response of the rows of `frame` in the unit in which pages show it; our ``gap`` from its two losses.

    A row whose ``status`` is ``"diverged"`` counts as `Response.guessing`, whatever its last finite evaluation was.
    """
    diverged, meaning = frame["status"] == "diverged", responses[response]
    if meaning.log_of:
        known = shown(frame, meaning.log_of, responses)
        return known.where(known > 0).map(math.log, na_action="ignore")
    is_gap = response == "gap" and meaning.source == "curve"
    stored = frame["val_loss"] - frame["train_loss_eval"] if is_gap else frame[response]
    values = meaning.scale * stored.astype(float)
    if meaning.guessing is not None:
        return values.mask(diverged, meaning.guessing)
    return values.mask(diverged) if is_gap or meaning.source == "column" else values


def scale(response: str) -> float:
    """Return what a stored value of `response` is multiplied by to be shown; 1 for a response that is not ours."""
    return RESPONSES[response].scale if response in RESPONSES else 1.0
