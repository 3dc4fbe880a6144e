"""Tables of means and standard deviations: a row for each cell, and nothing of single runs.

Welch's comparison of cells needs their numbers of runs, means and variances alone. So each cell gets as many stand-ins
as it had runs, evenly spaced values that have its mean and its standard deviation, and what is made of them is what
would be made of the runs. Pages show none of them.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnist_ablate.errors import TableError
from mnist_ablate.tables import values
from mnist_ablate.tables.design import Summary, TableDesign
from mnist_ablate.tables.source import Source, rows, shortened

_NUMBER = r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[-+]?\d+)?"
MEAN_AND_SPREAD = rf"(?i)^\$?\s*({_NUMBER})\s*%?\s*(?:±|\+/?-|\\pm|\()\s*({_NUMBER})\s*%?\s*\)?\s*%?\s*\$?"
"""How a mean is written with its spread: ``97.2 ± 0.3``, ``97.2 +/- 0.3``, ``97.2 (0.3)``."""
_MOST_RUNS = 100_000
Whole = NDArray[np.int64]
Numbers = NDArray[np.float64]


def stand_ins(source: Source, design: TableDesign, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run that the means are of: the columns of `cells`, ``seed``, ``failed`` and the metrics.

    Parameters
    ----------
    source
        The table.
    design
        What its columns are.
    cells
        The cell of each row of the table.

    Raises
    ------
    TableError
        If a row has no mean or spread, no number of runs, or the cell of another row.
    """
    summary = design.table.summary
    assert summary is not None  # noqa: S101 # whoever calls has one
    twice = cells["cell_code"].duplicated(keep=False)
    if twice.any():
        same = cells.index[cells["cell_code"] == cells.loc[twice, "cell_code"].iloc[0]]
        raise TableError(
            f"{source.path}: {rows(same)} are of the same cell. Means cannot be put together here: keep one row, or "
            "name what tells them apart as a factor."
        )
    n = _numbers_of_runs(source, design, summary)
    at = np.repeat(np.arange(len(n)), n)
    place = np.arange(len(at)) - np.repeat(np.cumsum(n) - n, n)  # within the cell
    frame = cells.iloc[at].assign(seed=place, failed=False)
    z = _evenly(place, n[at])
    for name in design.metrics:
        mean, sd = _moments(source, design, summary, name, n)
        frame[name] = mean[at] + sd[at] * z
    return frame


def _evenly(place: Whole, n: Whole) -> Numbers:
    """Return the values at places 0 to n - 1 that are evenly spaced and have mean 0 and standard deviation 1."""
    return np.asarray((place - (n - 1) / 2) / np.sqrt(n * (n + 1) / 12))


def _numbers_of_runs(source: Source, design: TableDesign, summary: Summary) -> Whole:
    """Return how many runs the mean of each row is of."""
    if isinstance(summary.n, int):
        return np.full(len(source.frame), summary.n)
    found = values.numbers(source, summary.n, design.table.decimal)
    wrong = ~((found >= 1) & (found <= _MOST_RUNS) & (found % 1 == 0))
    if wrong.any():
        where = rows(found.index[wrong])
        raise TableError(f"{source.path}: {summary.n}, {where}: not a number of runs. Correct it, as in 10.")
    return np.asarray(found.to_numpy(dtype=np.int64))


def _moments(source: Source, design: TableDesign, summary: Summary, name: str, n: Whole) -> tuple[Numbers, Numbers]:
    """Return the mean and the standard deviation of a metric in each row."""
    column, decimal = design.column(name), design.table.decimal
    if name in summary.spread:
        mean = values.numbers(source, column, decimal)
        spread = values.numbers(source, summary.spread[name], decimal)
    else:
        mean, spread = _split(source, column, decimal)
    spread = spread.mask((n == 1) & spread.isna(), 0.0)
    for of, what in ((column, mean.isna()), (summary.spread.get(name, column), spread.isna() | (spread < 0))):
        if what.any():
            raise TableError(
                f"{source.path}: {of}, {rows(what.index[what])}: no mean with a spread of 0 or more. Fill it in, or "
                "remove such rows."
            )
    ends = design.metrics[name].range
    outside = ((mean < ends[0]) | (mean > ends[1])) if ends else mean.isna()
    if ends and outside.any():
        raise TableError(
            f"{source.path}: {column}, {rows(mean.index[outside])}: beyond the range of {ends[0]:g} to {ends[1]:g} in "
            "the study file. Correct one of them."
        )
    sd = np.asarray(spread, dtype=np.float64)
    return np.asarray(mean, dtype=np.float64), sd * np.sqrt(n) if summary.is_error else sd


def _split(source: Source, column: str, decimal: str) -> "tuple[pd.Series[float], pd.Series[float]]":
    """Return the two numbers of cells such as ``97.2 ± 0.3``."""
    cells = source.frame[column].astype(str).str.strip()
    found = cells.str.extract(f"{MEAN_AND_SPREAD}$")
    wrong = found.isna().any(axis=1)
    if not decimal:
        wrong |= found.apply(lambda part: part.str.contains(",", regex=False)).eq(True).any(axis=1)
    if wrong.any():
        example = shortened(cells[wrong].iloc[0])
        raise TableError(
            f"{source.path}: {column}, {rows(cells.index[wrong])}: not a mean with its spread ({example}). Write it as "
            f"in 97.2 ± 0.3, or name the column of the spread in [table.summary.spread]."
        )
    numbers = [found[i].str.replace(",", ".", regex=False).astype(float) for i in (0, 1)]
    return numbers[0], numbers[1]
