"""A table as it was found: cells without meaning yet, with what its format says of its columns."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.language import later_count

Role = Literal["factor", "metric", "seed", "run", "epoch", "status", "started", "repeat", "nested", "data", "ignored"]
"""What a column is; ``"data"`` is the name of a data set."""
_MOST_NAMED = 8
_ROW = "row of the table"


@dataclass(frozen=True, eq=False)
class Source:
    """A table as it was found.

    Parameters
    ----------
    path
        The file or folder; of a frame, a name for it.
    kind
        What wrote it, in words.
    frame
        One row per run, or per run and epoch. Cells are text as in a file, or have the types of a frame. The index
        counts rows as a person would, see `rows`.
    text
        Whether all cells are text.
    roles
        What the format says of its columns; all others are anybody's guess.
    sha256
        Of the content; empty for a frame.
    written
        When the file was last changed, None where that is not known.
    """

    path: Path
    kind: str
    frame: pd.DataFrame
    text: bool
    roles: Mapping[str, Role] = field(default_factory=dict)
    sha256: str = ""
    written: datetime | None = None

    def __post_init__(self) -> None:
        names = list(self.frame.columns)
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            raise TableError(f"{self.path}: two columns have the same name ({named(twice)}). Rename or remove one.")
        if self.frame.empty:
            raise TableError(f"{self.path}: has no rows. Give a table with a row for each run.")

    def long(self, columns: Sequence[str], names: str, values: str) -> "Source":
        """Return a wide table as a long one: a row for each value of `columns`, which keeps the number of its row.

        Parameters
        ----------
        columns
            The columns that are values of one metric.
        names, values
            The columns that their names and their cells make.
        """
        clash = [name for name in (names, values) if name in self.frame and name not in columns]
        if clash:
            raise TableError(
                f"{self.path}: the table has a column {named(clash)} already. Give [table.wide] another name."
            )
        others = [name for name in self.frame if name not in columns]
        frame = self.frame.reset_index(names=_ROW).melt([_ROW, *others], list(columns), names, values)
        return replace(self, frame=frame.set_index(_ROW))


def named(items: Iterable[object], most: int = _MOST_NAMED) -> str:
    """Write some items for a message, the first few of many."""
    everything = list(items)
    more = f" and {len(everything) - most:,} more" if len(everything) > most else ""
    return ", ".join(map(shortened, everything[:most])) + more


def shortened(item: object, most: int = 60) -> str:
    """Write an item on one line, cut where it is long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(item)).split())
    return text if len(text) <= most else f"{text[:most]}..."


def rows(index: Iterable[object]) -> str:
    """Name rows: 'row 3', 'rows 3, 7'."""
    numbers = list(index)
    return later_count(len(numbers), "row {which}", "rows {which}", which=named(numbers))


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files, in their order; of one file, that of its bytes."""
    sha256 = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                sha256.update(block)
    return sha256.hexdigest()


def last_written(files: Iterable[Path]) -> datetime | None:
    """Return when the last of `files` was changed."""
    times = [file.stat().st_mtime for file in files]
    return datetime.fromtimestamp(max(times), UTC) if times else None
