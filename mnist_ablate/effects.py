"""Estimands: what the stored runs say of each cell, frame to frame.

The seed is the unit of replication. All cells of a study share their seeds, so cells are compared within a
seed, and every interval is Student's t over seeds; no common variance is assumed.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.design import Study, plan
from mnist_ablate.store import Results

CONFIDENCE = 0.95
LOSS_CAP = math.log(10)
"""The loss of guessing among ten digits, in nats. A larger one, or one that is not finite, counts as this: a run
that diverged must not be all that a mean shows, nor drop out of it."""

FloatArray = NDArray[np.float64]


def in_units(frame: pd.DataFrame, response: str) -> "pd.Series[float]":
    """Return a response in the unit in which it is reported.

    The one place where fractions become percent. Accuracies: percent; losses: nats, at most `LOSS_CAP`.
    """
    values: pd.Series[float] = frame[response].astype(float)
    if response.endswith("accuracy"):
        return 100 * values
    return values.fillna(LOSS_CAP).clip(upper=LOSS_CAP) if "loss" in response else values


def cell_names(study: Study) -> list[str]:
    """List the cells that `study` runs, in the order of the design."""
    return list(dict.fromkeys(run.cell for run in plan(study.model_copy(update={"seeds": 1}))))


def reference_cell(study: Study) -> str:
    """Name the cell that the others are compared with: all factors at their reference, else the first cell."""
    names = cell_names(study)
    return "baseline" if "baseline" in names else names[0]


def mean_interval(values: FloatArray) -> tuple[float, float, float]:
    """Mean of `values`, shape (n,), and the ends of its 95 % t interval.

    Ends are NaN where n = 1, all three where n = 0. Without spread the interval is the mean alone.
    """
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, math.nan, math.nan
    # scipy warns of lost precision where there is no spread; equal to rounding error is equal here.
    if np.allclose(values, values[0], rtol=1e-12, atol=1e-12):
        return mean, mean, mean
    interval = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return mean, float(interval.low), float(interval.high)


def seed_table(results: Results, response: str = "test_accuracy") -> pd.DataFrame:
    """Response after the last epoch: a row per seed, a column per cell of the design, NaN where there is no run."""
    final = results.final
    table = final.assign(value=in_units(final, response)).pivot(index="seed", columns="cell", values="value")
    return table.reindex(columns=cell_names(results.study))


def cell_table(results: Results, response: str = "test_accuracy") -> pd.DataFrame:
    """Summarise each cell, and its difference to the reference cell paired by seed.

    Parameters
    ----------
    results
        What `mnist_ablate.store.load` returns.
    response
        A column of the results, taken after the last epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design, in its order; a cell without a run has n = 0.

        ``cell``, ``reference``
            Its name, and that of the cell it is compared with.
        ``n``, ``n_planned``, ``n_diverged``
            Runs with a value, seeds of the study, runs that diverged (they stay in, with their last evaluation).
        ``mean``, ``mean_low``, ``mean_high``, ``sd``, ``min``, ``max``
            Over seeds, with the 95 % t interval of the mean; accuracies in percent.
        ``n_pairs``, ``difference``, ``low``, ``high``
            Mean over the seeds that both cells have of (cell - reference), with its 95 % t interval;
            NaN in the reference cell itself. Accuracies in percentage points.
    """
    table = seed_table(results, response)
    reference = reference_cell(results.study)
    frame = pd.DataFrame([_summary(table, cell, reference) for cell in table.columns])
    final = results.final
    diverged = final[final["status"] == "diverged"].groupby("cell").size()
    frame.insert(2, "n_diverged", frame["cell"].map(diverged).fillna(0).astype(int))
    # A study run again with fewer seeds keeps the runs that it has.
    frame.insert(2, "n_planned", max(results.study.seeds, len(table)))
    return frame


def _summary(table: pd.DataFrame, cell: str, reference: str) -> dict[str, str | float]:
    values = table[cell].dropna().to_numpy(dtype=float)
    pairs = (table[cell] - table[reference]).dropna().to_numpy(dtype=float) if cell != reference else np.empty(0)
    mean, mean_low, mean_high = mean_interval(values)
    difference, low, high = mean_interval(pairs)
    return {
        "cell": cell,
        "n": len(values),
        "mean": mean,
        "mean_low": mean_low,
        "mean_high": mean_high,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values.min()) if len(values) else math.nan,
        "max": float(values.max()) if len(values) else math.nan,
        "reference": reference,
        "n_pairs": len(pairs),
        "difference": difference,
        "low": low,
        "high": high,
    }


def curves(results: Results, response: str) -> pd.DataFrame:
    """Summarise a response over seeds, epoch by epoch.

    Parameters
    ----------
    results
        What `mnist_ablate.store.load` returns.
    response
        A column of the results.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design and epoch: ``cell``, ``epoch``, ``n``, ``n_diverged`` (by then), ``mean``,
        ``sd`` and ``half_width``, half the 95 % t interval of the mean: NaN where n = 1. A cell without a run has
        n = 0 in each of its epochs.
    """
    epochs = results.epochs.assign(
        value=in_units(results.epochs, response), diverged=results.epochs["status"] == "diverged"
    )
    groups = epochs.groupby(["cell", "epoch"])
    frame = groups.agg(
        n=("value", "count"), n_diverged=("diverged", "sum"), mean=("value", "mean"), sd=("value", "std")
    )
    frame = frame.reindex(_cell_epochs(results.study)).reset_index()
    frame[["n", "n_diverged"]] = frame[["n", "n_diverged"]].fillna(0).astype(int)
    t = stats.t.ppf((1 + CONFIDENCE) / 2, (frame["n"] - 1).clip(lower=1))
    frame["half_width"] = t * frame["sd"] / np.sqrt(frame["n"].clip(lower=1))
    return frame


def _cell_epochs(study: Study) -> pd.MultiIndex:
    """Every epoch that each cell is to have, in the order of the design."""
    runs = plan(study.model_copy(update={"seeds": 1}))
    pairs = [(run.cell, epoch) for run in runs for epoch in range(1, run.settings.epochs + 1)]
    return pd.MultiIndex.from_tuples(pairs, names=["cell", "epoch"])
