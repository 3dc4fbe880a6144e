"""Readers of tables, a file each. A new one is a file with `Reader` functions, and its line in `READERS`."""

from pathlib import Path

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.paths import user_path
from mnist_ablate.tables.source import Source
from mnist_ablate.tables.sources import csv_logs, frames, mlflow_stores, parquet, tensorboard_logs, text
from mnist_ablate.tables.sources.options import Options

READERS = (mlflow_stores, tensorboard_logs, csv_logs, parquet, text)
"""Asked in this order, by ``reads(path)``; the first that says yes has ``read(path, options)``."""


def read(table: pd.DataFrame | str | Path, options: Options | None = None) -> Source:
    """Read a table.

    Parameters
    ----------
    table
        A frame, or the path of a file or folder.
    options
        How a file is written, where that cannot be seen.

    Raises
    ------
    TableError
        If it cannot be read, with the remedy.
    """
    options = options or Options()
    if isinstance(table, pd.DataFrame):
        return frames.read(table)
    path = user_path(table)
    try:
        return _read(path, options)
    except MemoryError as error:
        raise TableError(f"{path}: too large for this computer's memory. Leave out columns, or rows.") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror or error}). Give the path of a table.") from error


def _read(path: Path, options: Options) -> Source:
    if not path.exists():
        raise TableError(f"{path}: no such file or folder. Give the path of a table.")
    for reader in READERS:
        if reader.reads(path):
            source: Source = reader.read(path, options)
            return source
    if path.is_dir():
        raise TableError(
            f"{path}: a folder without logs that can be read. Give a CSV or Parquet file, or a folder of MLflow, "
            "TensorBoard, or CSV logs."
        )
    raise TableError(f"{path}: not a table. Give a CSV or Parquet file.")
