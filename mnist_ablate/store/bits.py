"""Whether two runs of one specification agree to the bit; if not, what differs first, and what may be the cause."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_ablate.language import figures, later, later_by
from mnist_ablate.store.schema import epoch_columns
from mnist_ablate.store.sealed import Document


def compared(metrics: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the columns that must agree to the last bit, of ours or of `metrics` of the user's own.

    Times are not a result.
    """
    return tuple(name for name in epoch_columns(metrics) if not name.endswith("_seconds"))


COMPARED = compared()
EXACT_FROM = 2
"""The version of the protocol from which the engine fused gives the same bits on every machine."""
BITS_DEPEND_ON = (
    "code",
    "torch",
    "numpy",
    "numba",
    "processor",
    "cpu_capability",
    "platform",
    "environment",
    "threads",
    "card",
)
"""Entries of the provenance that may change the bits of a run that is not exact."""

Rows = Iterable[Mapping[Any, Any]]


@dataclass(frozen=True)
class Parting:
    """What differs first between two runs.

    Parameters
    ----------
    sentence
        The difference, with both values.
    what
        ``"data"``, ``"step"``, ``"epochs"`` (their number), ``"epoch"``, ``"weights"`` or ``"probe"``.
    epoch
        The first epoch in which a number differs; None if none does.
    step
        The first step whose training loss differs, of the first steps, which are stored; None if none does.
    """

    sentence: str
    what: str
    epoch: int | None = None
    step: int | None = None


def parting(
    before: Document, rows: Rows, after: Document, rows_after: Rows, columns: Iterable[str] = COMPARED
) -> Parting | None:
    """Return what differs first between two runs: images, losses of steps, epochs, final weights, or probes.

    Parameters
    ----------
    before, after
        The documents of the two runs. Losses of steps are compared if both have them; a compact folder has none. So
        are the numbers of each probe.
    rows, rows_after
        Their epochs, in order.
    columns
        What to compare of an epoch.

    Returns
    -------
    Parting or None
        None if every bit is the same.
    """
    if before.get("data_sha256") != after.get("data_sha256"):
        return Parting(later("the images are not the same (data_sha256)"), "data")
    in_epochs = _in_epochs(list(rows), list(rows_after), columns)
    losses = zip(before.get("first_losses", ()), after.get("first_losses", ()), strict=False)
    for step, (old, new) in enumerate(losses, start=1):
        if not _same(old, new):
            sentence = later("the training loss of step {step} was {old} and is {new}", step=step, **_both(old, new))
            return Parting(sentence, "step", in_epochs.epoch if in_epochs else None, step)
    if in_epochs is None and before.get("weights_sha256") != after.get("weights_sha256"):
        return Parting(later("the final weights are not the same (weights_sha256)"), "weights")
    return in_epochs or _in_probes(before.get("probes", {}), after.get("probes", {}))


def _in_probes(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Parting | None:
    """Return what differs first between what the probes of two runs measured, where both have the same number."""
    for probe in sorted(before.keys() & after.keys()):
        for name in sorted(before[probe].keys() & after[probe].keys()):
            old, new = before[probe][name], after[probe][name]
            if not _same(old, new):
                words = {"name": name, "probe": probe} | _both(old, new)
                return Parting(later("{name} of the probe {probe} was {old} and is {new}", **words), "probe")
    return None


def _in_epochs(
    before: list[Mapping[Any, Any]], after: list[Mapping[Any, Any]], columns: Iterable[str]
) -> Parting | None:
    """Return what differs first between the epochs of two runs."""
    if len(before) != len(after):
        sentence = later("there were {old} epochs and are {new}", old=len(before), new=len(after))
        return Parting(sentence, "epochs")
    for old, new in zip(before, after, strict=True):
        for column in columns:
            if not _same(old[column], new[column]):
                words = {"column": column, "epoch": new["epoch"]} | _both(old[column], new[column])
                sentence = later("{column} of epoch {epoch} was {old} and is {new}", **words)
                return Parting(sentence, "epoch", int(new["epoch"]))
    return None


def _both(old: object, new: object) -> dict[str, object]:
    """Return two values with all their digits, as a page writes numbers."""
    return {"old": later_by(figures, repr(old)), "new": later_by(figures, repr(new))}


def _same(old: Any, new: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN."""
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    return both_nan or bool(old == new)


def is_exact(document: Document) -> bool:
    """Return whether a run has the same bits on every machine, so that any difference is a defect."""
    specification = document.get("specification", {})
    return specification.get("engine") == "fused" and bool(specification.get("protocol_version", 1) >= EXACT_FROM)


def reasons(before: Document, after: Document) -> list[str]:
    """List the differences in the provenance of two runs that may change bits; none may if the run is exact."""
    if is_exact(before):
        return []
    old, new = before.get("provenance", {}), after["provenance"]
    return [
        f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in BITS_DEPEND_ON if old.get(key) != new.get(key)
    ]
