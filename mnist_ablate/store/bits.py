"""Are two runs of one specification the same to the bit? If not: what differs first, and what may be why."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mnist_ablate.store.schema import EPOCH_COLUMNS
from mnist_ablate.store.sealed import Document

COMPARED = tuple(name for name in EPOCH_COLUMNS if not name.endswith("_seconds"))
"""Columns that must be equal to the last bit; times are not a result."""
BITS_DEPEND_ON = ("torch", "numpy", "numba", "processor", "cpu_capability", "platform", "environment", "threads")
"""What the provenance records that may change the bits of a result."""

Rows = Iterable[Mapping[Any, Any]]


@dataclass(frozen=True)
class Parting:
    """What differs first between two runs.

    Parameters
    ----------
    sentence
        What it is, with both values.
    what
        ``"data"``, ``"step"``, ``"epochs"`` (their number), ``"epoch"`` or ``"weights"``.
    epoch
        The first epoch in which a number differs; None where none does.
    step
        The first step whose training loss differs, among the first steps that are stored; None where none does.
    """

    sentence: str
    what: str
    epoch: int | None = None
    step: int | None = None


def parting(before: Document, rows: Rows, after: Document, rows_after: Rows) -> Parting | None:
    """Find what differs first between two runs: images, losses of steps, numbers of epochs, final weights.

    Parameters
    ----------
    before, after
        The documents of the two runs. Losses of steps are compared where both have them (a compact folder has none).
    rows, rows_after
        Their epochs, in order.

    Returns
    -------
    Parting or None
        None where every bit is the same.
    """
    old, new = list(rows), list(rows_after)
    checks: tuple[Callable[[], Parting | None], ...] = (
        lambda: _digest("data", "the images", "data_sha256", before, after),
        lambda: _first_losses(before, after, _first_epoch(old, new)),
        lambda: _rows(old, new),
        lambda: _digest("weights", "the final weights", "weights_sha256", before, after),
    )
    return next((found for check in checks if (found := check())), None)


def _digest(what: str, name: str, key: str, before: Document, after: Document) -> Parting | None:
    return None if before.get(key) == after.get(key) else Parting(f"{name} are not the same ({key})", what)


def _first_losses(before: Document, after: Document, epoch: int | None) -> Parting | None:
    """Say at which step two runs part."""
    pairs = zip(before.get("first_losses", ()), after.get("first_losses", ()), strict=False)
    for step, (old, new) in enumerate(pairs, start=1):
        if not _same(old, new):
            return Parting(f"the training loss of step {step} was {old!r} and is {new!r}", "step", epoch, step)
    return None


def _rows(before: list[Mapping[Any, Any]], after: list[Mapping[Any, Any]]) -> Parting | None:
    """Say what differs first, epoch by epoch."""
    if len(before) != len(after):
        return Parting(f"there were {len(before)} epochs and are {len(after)}", "epochs")
    for old, new in zip(before, after, strict=True):
        for column in COMPARED:
            if not _same(old[column], new[column]):
                sentence = f"{column} of epoch {new['epoch']} was {old[column]!r} and is {new[column]!r}"
                return Parting(sentence, "epoch", int(new["epoch"]))
    return None


def _first_epoch(before: list[Mapping[Any, Any]], after: list[Mapping[Any, Any]]) -> int | None:
    found = _rows(before, after)
    return found.epoch if found else None


def _same(old: Any, new: Any) -> bool:
    """Compare two values, where NaN equals itself."""
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    return both_nan or bool(old == new)


def reasons(before: Document, after: Document) -> list[str]:
    """List what the provenance of two runs differs in, of all that may change bits."""
    old, new = before.get("provenance", {}), after["provenance"]
    return [
        f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in BITS_DEPEND_ON if old.get(key) != new.get(key)
    ]
