"""A pandas frame."""

from pathlib import Path

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Source, named


def read(frame: pd.DataFrame, path: Path = Path("frame"), kind: str = "A pandas frame") -> Source:
    """Take a frame as a table; an index with a name becomes a column."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise TableError(f"{path}: its columns have {frame.columns.nlevels} lines of names. Give them one.")
    frame = frame.reset_index() if any(frame.index.names) else frame.reset_index(drop=True)
    frame = frame.rename(columns=str)
    nested = [
        str(name)
        for name, column in frame.items()
        if column.dtype == object and column.map(lambda value: isinstance(value, list | dict | set | tuple)).any()
    ]
    if nested:
        frame = frame.drop(columns=nested)
        if frame.columns.empty:
            raise TableError(f"{path}: its columns hold lists or tables ({named(nested)}). Give one value a cell.")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Source(path, kind, frame, text=False)
