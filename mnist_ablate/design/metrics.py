"""Metrics that are not ours, as a study file declares them: columns of a table, or what a training yields."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field

from mnist_ablate.design.design import VALUE_OBJECT
from mnist_ablate.design.responses import Response

if TYPE_CHECKING:  # workers start without pandas
    import pandas as pd


Better = Literal["higher", "lower", "neither"]
"""Which way of a metric is better."""
_HIGHER = {"acc", "accuracy", "f1", "auc", "auroc", "auprc", "ap", "map", "bleu", "rouge", "score", "reward", "return",
           "r2", "iou", "miou", "dice", "precision", "recall", "psnr", "ssim", "mrr", "ndcg", "success", "solved",
           "correct", "elbo", "top1", "top5", "em"}  # fmt: skip
_LOWER = {"loss", "error", "err", "perplexity", "ppl", "rmse", "mse", "mae", "wer", "cer", "fid", "nll", "kl", "ece",
          "brier", "regret", "gap"}  # fmt: skip


def better_by_name(name: str) -> Better:
    """Guess from its name which way a metric is better; ``"neither"`` where the name says nothing."""
    words = set(re.split(r"[\W_]+", name.lower()))
    return "higher" if words & _HIGHER else "lower" if words & _LOWER else "neither"


class Metric(BaseModel):
    """A section ``[metrics.NAME]``: what a number is, and how it is shown.

    Parameters
    ----------
    label
        In words; by default the name.
    unit
        Of a difference.
    better
        Which way is better.
    scale
        What a value is multiplied by to be shown: 100 for fractions that are shown in percent.
    digits
        After the point; by default as many as the spread between runs asks for.
    yes_no
        Whether each run has a yes (1) or a no (0).
    range
        The least and the largest value that there can be, as stored: what a failed run can do at the worst.
    censored
        A column of a table that says, with true or 1, that a value is only the least that it can be.
    """

    model_config = VALUE_OBJECT

    label: str = ""
    unit: str = ""
    better: Better = "neither"
    scale: Annotated[float, Field(gt=0)] = 1.0
    digits: Annotated[int, Field(ge=0, le=12)] | None = None
    yes_no: bool = False
    range: Annotated[tuple[float, float], Field(strict=False)] | None = None
    censored: str = ""

    def response(self, label: str) -> Response:
        """Return the metric as a response, which has a `label` if nothing else is said."""
        ends = self.range and (self.scale * self.range[0], self.scale * self.range[1])
        better: Any = {"higher": 1, "lower": -1, "neither": 0}[self.better]
        digits = 2 if self.digits is None else self.digits
        return Response(self.label or label, self.unit, digits, better, "table", self.scale,
                        yes_no=self.yes_no, range=ends)  # fmt: skip

    def expected(self, name: str) -> "Expected":
        """Return what a training must yield."""
        low, high = self.range or (-math.inf, math.inf)
        return Expected(name, low, high, self.yes_no)


class Expected(NamedTuple):
    """A number that a training must yield after each epoch, and what it may be."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    yes_no: bool = False


def empty_ranges(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Yield the metrics whose range has no values."""
    for name, metric in metrics.items():
        if metric.range and metric.range[0] >= metric.range[1]:
            yield f"metrics.{name}.range = {list(metric.range)}: allowed: the least and the largest value"


def digits_by_spread(metrics: Mapping[str, Metric], final: "pd.DataFrame", *, more: int = 0) -> dict[str, int]:
    """Return the digits of each metric: those that it names, or two more than the spread between runs has zeros.

    `final` has a row per run, with `cell` and a column per metric. `more` digits are added to what the spread asks for.
    """
    digits = {}
    for name, metric in metrics.items():
        spread = float(metric.scale * final.groupby("cell")[name].std(ddof=1).mean())
        places = more + 1 - math.floor(math.log10(spread)) if math.isfinite(spread) and spread > 0 else 2 + more
        digits[name] = min(max(places, 0), 8) if metric.digits is None else metric.digits
    return digits


def about_the_first(document: Any) -> Any:
    """Make the hypotheses of a study's document that name no metric about the first one."""
    if not isinstance(document, dict) or not isinstance(document.get("metrics"), dict) or not document["metrics"]:
        return document
    first, hypotheses = next(iter(document["metrics"])), document.get("hypotheses", ())
    if not isinstance(hypotheses, list | tuple):
        return document
    return document | {"hypotheses": [{"response": first} | h if isinstance(h, dict) else h for h in hypotheses]}
