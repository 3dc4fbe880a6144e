"""What was measured, as frames: seeds by cells, and cells by epochs, in the units of the pages.

The seed is the unit of replication. All cells of a study share their seeds, so a row of `seed_table` is one block.
"""

import math

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import REFERENCE, cells, plan
from mnist_ablate.design.responses import PROBES, RESPONSES, shown
from mnist_ablate.design.study import Study
from mnist_ablate.inference.estimands import CENSORED, OF_CURVES
from mnist_ablate.inference.intervals import Sample, half_width, mean_interval
from mnist_ablate.store.results import Results


def cell_names(study: Study) -> list[str]:
    """List the cells that `study` runs, in the order of the design."""
    return list(dict.fromkeys(run.cell for run in plan(study.model_copy(update={"seeds": 1}))))


def reference_cell(study: Study) -> str:
    """Return the cell that the others are compared with: all factors at their reference, or else the first cell."""
    names = cell_names(study)
    return REFERENCE if REFERENCE in names else names[0]


def run_under(study: Study) -> dict[str, str]:
    """Return the name under which each cell is run: cells with the same settings are run once, as the first of them."""
    first_with: dict[str, str] = {}
    return {cell.name: first_with.setdefault(repr(cell.settings), cell.name) for cell in cells(study)}


def seed_table(results: Results, response: str = "test_accuracy", epoch: int | None = None) -> pd.DataFrame:
    """Return a response after the last epoch, or after `epoch`.

    Returns
    -------
    pandas.DataFrame
        A row per seed, a column per cell of the design, NaN where there is no run.
    """
    rows = results.final if epoch is None else results.epochs[results.epochs["epoch"] == epoch]
    if response in OF_CURVES:
        rows = rows.assign(**{response: rows["run_id"].map(OF_CURVES[response](results.epochs))})
    elif RESPONSES[response].source in PROBES:
        rows = rows.join(results.probes.reindex(columns=[RESPONSES[response].log_of or response]), on="run_id")
    table = rows.assign(value=shown(rows, response)).pivot(index="seed", columns="cell", values="value")
    return table.reindex(columns=cell_names(results.study))


def diverged_table(results: Results) -> pd.DataFrame:
    """Return whether each run diverged: a row per seed, a column per cell; False where there is no run."""
    final = results.final
    table = final.assign(diverged=final["status"] == "diverged").pivot(index="seed", columns="cell", values="diverged")
    return table.reindex(columns=cell_names(results.study)).eq(True)


def ran_table(results: Results) -> pd.DataFrame:
    """Return whether there is a run: a row per seed, a column per cell."""
    table = results.final.assign(ran=True).pivot(index="seed", columns="cell", values="ran")
    return table.reindex(columns=cell_names(results.study)).eq(True)


def censored_table(results: Results, response: str) -> pd.DataFrame:
    """Return whether each value of a response is only the least that it can be, in the shape of `ran_table`."""
    if response not in CENSORED:
        return ran_table(results) & False
    rows = results.final.assign(censored=results.final["run_id"].map(CENSORED[response](results.epochs)))
    table = rows.pivot(index="seed", columns="cell", values="censored")
    return table.reindex(columns=cell_names(results.study)).eq(True)


def spread_between_seeds(table: pd.DataFrame) -> float:
    """Return the standard deviation over seeds within a cell: the root of the mean variance of the columns."""
    variances = table.var(ddof=1)
    return math.sqrt(variances.mean()) if variances.notna().any() else math.nan


def cell_table(table: pd.DataFrame, diverged: pd.DataFrame, reference: str, n_planned: int) -> pd.DataFrame:
    """Summarise each cell, and its difference to the reference cell paired by seed.

    Parameters
    ----------
    table
        A response: a row per seed, a column per cell.
    diverged
        Which runs diverged, likewise.
    reference
        The cell to compare with.
    n_planned
        Seeds of the study; more where the results hold more.

    Returns
    -------
    pandas.DataFrame
        One row per cell, in the order of the columns; a cell without a run has n = 0.

        ``cell``, ``reference``
            Its name, and that of the cell it is compared with.
        ``n``, ``n_planned``, ``n_diverged``
            Runs with a value, seeds planned, runs that diverged (they stay in, with their last evaluation).
        ``mean``, ``mean_low``, ``mean_high``, ``sd``, ``min``, ``max``
            Over seeds, with the 95 % t interval of the mean.
        ``n_pairs``, ``difference``, ``low``, ``high``
            Mean over the seeds that both cells have of (cell - reference), with its 95 % t interval; NaN in the
            reference cell itself.
    """
    rows = [_cell(table, cell, reference) for cell in table.columns]
    frame = pd.DataFrame(rows)
    frame.insert(2, "n_diverged", frame["cell"].map(diverged.sum()).astype(int))
    frame.insert(2, "n_planned", max(n_planned, len(table)))  # a study run again with fewer seeds keeps its runs
    return frame


def _cell(table: pd.DataFrame, cell: str, reference: str) -> dict[str, str | float]:
    values = table[cell].dropna().to_numpy(dtype=float)
    pairs = (table[cell] - table[reference]).dropna().to_numpy(dtype=float) if cell != reference else np.empty(0)
    sample, difference = Sample.of(values), Sample.of(pairs)
    (mean_low, mean_high), (low, high) = sample.interval(), difference.interval()
    return {
        "cell": cell,
        "n": sample.n,
        "mean": sample.mean,
        "mean_low": mean_low,
        "mean_high": mean_high,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values.min()) if len(values) else math.nan,
        "max": float(values.max()) if len(values) else math.nan,
        "reference": reference,
        "n_pairs": difference.n,
        "difference": difference.mean,
        "low": low,
        "high": high,
    }


def curves(results: Results, response: str) -> pd.DataFrame:
    """Summarise a response over seeds, epoch by epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design and epoch: ``cell``, ``epoch``, ``n``, ``n_diverged`` (by then), ``mean``,
        ``sd`` and ``half_width``, half the 95 % t interval of the mean: NaN where n = 1. A cell without a run has
        n = 0 in each of its epochs.
    """
    epochs = results.epochs.assign(
        value=shown(results.epochs, response), diverged=results.epochs["status"] == "diverged"
    )
    groups = epochs.groupby(["cell", "epoch"])
    frame = groups.agg(
        n=("value", "count"), n_diverged=("diverged", "sum"), mean=("value", "mean"), sd=("value", "std")
    )
    planned = plan(results.study.model_copy(update={"seeds": 1}))
    pairs = [(run.cell, epoch) for run in planned for epoch in range(1, run.settings.epochs + 1)]
    frame = frame.reindex(pd.MultiIndex.from_tuples(pairs, names=["cell", "epoch"])).reset_index()
    frame[["n", "n_diverged"]] = frame[["n", "n_diverged"]].fillna(0).astype(int)
    frame["half_width"] = half_width(frame["sd"] / np.sqrt(frame["n"].clip(lower=1)), (frame["n"] - 1).clip(lower=1))
    return frame


def last_epoch_changes(results: Results) -> pd.DataFrame:
    """Return the mean change of validation loss and accuracy in the last epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design: ``cell``, ``n`` (runs of two epochs or more), ``loss`` in nats and ``accuracy``
        in points, each with the ends of its 95 % t interval: ``loss_low``, ``loss_high``, ...
    """
    columns = {"loss": "val_loss", "accuracy": "val_accuracy"}
    epochs = results.epochs.assign(**{name: shown(results.epochs, column) for name, column in columns.items()})
    ends = epochs.groupby("run_id")["epoch"].transform("max")
    last, before = (epochs[epochs["epoch"] == end].set_index("run_id") for end in (ends, ends - 1))
    change = (last[[*columns]] - before[[*columns]]).assign(cell=last["cell"]).dropna()
    rows = []
    for cell in cell_names(results.study):
        runs = change[change["cell"] == cell]
        row: dict[str, object] = {"cell": cell, "n": len(runs)}
        for name in columns:
            names = (name, f"{name}_low", f"{name}_high")
            row |= zip(names, mean_interval(runs[name].to_numpy(dtype=float)), strict=True)
        rows.append(row)
    return pd.DataFrame(rows)
