"""What was measured, as frames: seeds by cells, and cells by epochs, in the units of the pages.

The seed is the unit of replication. All cells of a study share their seeds, so a row of `seed_table` is one block.
"""

import math

import numpy as np
import pandas as pd

from mnist_ablate.design.design import Design
from mnist_ablate.design.responses import PROBES, shown
from mnist_ablate.inference.estimands import CENSORED, OF_CURVES
from mnist_ablate.inference.intervals import Sample, half_width, mean_interval
from mnist_ablate.inference.samples import sample_of
from mnist_ablate.store.results import Runs


def seed_table(results: Runs, response: str, epoch: int | None = None) -> pd.DataFrame:
    """Return a response after the last epoch, or after `epoch`.

    Returns
    -------
    pandas.DataFrame
        A row per seed, a column per cell of the design, NaN where there is no run.
    """
    rows = results.final if epoch is None else results.epochs[results.epochs["epoch"] == epoch]
    meaning = results.study.responses[response]
    if meaning.source == "curve" and response in OF_CURVES:
        rows = rows.assign(**{response: rows["run_id"].map(OF_CURVES[response](results.epochs))})
    elif meaning.source in PROBES:
        rows = rows.join(results.probes.reindex(columns=[meaning.log_of or response]), on="run_id")
    values = shown(rows, response, results.study.responses)
    table = rows.assign(value=values).pivot(index="seed", columns="cell", values="value")
    return table.reindex(columns=results.study.cell_names)


def diverged_table(results: Runs) -> pd.DataFrame:
    """Return whether each run diverged or failed: a row per seed, a column per cell; False where there is no run."""
    final = results.final
    table = final.assign(diverged=final["status"] != "ok").pivot(index="seed", columns="cell", values="diverged")
    return table.reindex(columns=results.study.cell_names).eq(True)


def ran_table(results: Runs) -> pd.DataFrame:
    """Return whether there is a run: a row per seed, a column per cell."""
    table = results.final.assign(ran=True).pivot(index="seed", columns="cell", values="ran")
    return table.reindex(columns=results.study.cell_names).eq(True)


def censored_table(results: Runs, response: str) -> pd.DataFrame:
    """Return whether each value of a response is only the least that it can be, in the shape of `ran_table`."""
    column = f"censored {response}"  # of a table
    if column in results.final:
        rows = results.final.assign(censored=results.final[column])
    elif response in CENSORED and results.study.responses[response].source == "curve":
        rows = results.final.assign(censored=results.final["run_id"].map(CENSORED[response](results.epochs)))
    else:
        return ran_table(results) & False
    table = rows.pivot(index="seed", columns="cell", values="censored")
    return table.reindex(columns=results.study.cell_names).eq(True)


def spread_between_seeds(table: pd.DataFrame) -> float:
    """Return the standard deviation over seeds within a cell: the root of the mean variance of the columns."""
    variances = table.var(ddof=1)
    return math.sqrt(variances.mean()) if variances.notna().any() else math.nan


def cell_table(
    study: Design, response: str, table: pd.DataFrame, ran: pd.DataFrame, diverged: pd.DataFrame
) -> pd.DataFrame:
    """Summarise each cell, and its difference to the reference cell paired by seed.

    Parameters
    ----------
    study
        The design.
    response
        The name of a response.
    table
        The response: a row per seed, a column per cell.
    ran, diverged
        Which runs there are, and which of them diverged or failed, likewise.

    Returns
    -------
    pandas.DataFrame
        One row per cell, in the order of the columns; a cell without a run has n = 0.

        ``cell``, ``reference``
            Its name, and that of the cell it is compared with.
        ``n``, ``n_planned``, ``n_diverged``
            Runs with a value, seeds planned (more where there are more), runs that diverged or failed.
        ``mean``, ``mean_low``, ``mean_high``, ``sd``, ``min``, ``max``
            Over seeds, with the 95 % t interval of the mean. Of summaries, the least and the largest are not known.
        ``n_pairs``, ``difference``, ``low``, ``high``
            Mean over the seeds that both cells have of (cell - reference), with its 95 % interval; NaN in the reference
            cell itself. Where nothing is paired, the difference of the two means.
    """
    rows = [_cell(study, response, table, ran, cell) for cell in table.columns]
    frame = pd.DataFrame(rows)
    frame.insert(2, "n_diverged", frame["cell"].map(diverged.sum()).astype(int))
    planned = max(study.n_seeds, len(table))  # a study run again with fewer seeds keeps its runs
    frame.insert(2, "n_planned", frame["cell"].map(ran.sum()) if study.pairing == "none" else planned)
    return frame


def _cell(study: Design, response: str, table: pd.DataFrame, ran: pd.DataFrame, cell: str) -> dict[str, str | float]:
    reference, values = study.reference_cell, table[cell].dropna().to_numpy(dtype=float)
    weights, sample, difference = {cell: 1.0, reference: -1.0}, Sample.of(values), Sample.of(np.empty(0))
    if cell != reference:
        difference = sample_of(study, weights, table, ran, study.responses[response])
    (mean_low, mean_high), (low, high) = sample.interval(), difference.interval()
    return {
        "cell": cell,
        "n": sample.n,
        "mean": sample.mean,
        "mean_low": mean_low,
        "mean_high": mean_high,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values.min()) if len(values) and not study.summarised else math.nan,
        "max": float(values.max()) if len(values) and not study.summarised else math.nan,
        "reference": reference,
        "n_pairs": difference.n,
        "difference": difference.mean,
        "low": low,
        "high": high,
    }


_MOST_EPOCHS = 200
"""Of more epochs that runs from elsewhere have logged, so many are summarised, evenly spaced."""


def logged_curves(results: Runs, response: str) -> pd.DataFrame:
    """Summarise a response of runs that were made elsewhere, epoch by epoch, in the columns of `curves`.

    A run counts as far as it was logged. Epochs that fewer than half of a cell's runs have are left out: runs that log
    at other steps than the rest would make a jagged line. Empty where runs were not logged epoch by epoch.
    """
    if results.history is None:
        return pd.DataFrame(columns=["cell", "epoch", "n", "n_diverged", "mean", "sd", "half_width"])
    frame = _by_epoch(results.history, results, response)
    frame = frame[(frame["n"] > 0) & (2 * frame["n"] >= frame.groupby("cell")["n"].transform("max"))]
    epochs = np.unique(frame["epoch"])
    kept = epochs[np.unique(np.linspace(0, len(epochs) - 1, min(_MOST_EPOCHS, len(epochs))).round().astype(int))]
    order = {cell: i for i, cell in enumerate(results.study.cell_names)}
    frame = frame[frame["epoch"].isin(kept)].sort_values(
        ["cell", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c, ignore_index=True
    )
    return _with_half_width(frame)


def _by_epoch(epochs: pd.DataFrame, results: Runs, response: str) -> pd.DataFrame:
    epochs = epochs.assign(value=shown(epochs, response, results.study.responses), diverged=epochs["status"] != "ok")
    groups = epochs.groupby(["cell", "epoch"])
    return groups.agg(
        n=("value", "count"), n_diverged=("diverged", "sum"), mean=("value", "mean"), sd=("value", "std")
    ).reset_index()


def _with_half_width(frame: pd.DataFrame) -> pd.DataFrame:
    n = frame["n"].clip(lower=1)
    return frame.assign(half_width=half_width(frame["sd"] / np.sqrt(n), (n - 1).clip(lower=1)))


def curves(results: Runs, response: str) -> pd.DataFrame:
    """Summarise a response over seeds, epoch by epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design and epoch: ``cell``, ``epoch``, ``n``, ``n_diverged`` (by then), ``mean``,
        ``sd`` and ``half_width``, half the 95 % t interval of the mean: NaN where n = 1. A cell without a run has
        n = 0 in each of its epochs.
    """
    frame = _by_epoch(results.epochs, results, response).set_index(["cell", "epoch"])
    pairs = [(cell, epoch) for cell, last in results.last_epochs.items() for epoch in range(1, last + 1)]
    frame = frame.reindex(pd.MultiIndex.from_tuples(pairs, names=["cell", "epoch"])).reset_index()
    frame[["n", "n_diverged"]] = frame[["n", "n_diverged"]].fillna(0).astype(int)
    return _with_half_width(frame)


def last_epoch_changes(results: Runs) -> pd.DataFrame:
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
    for cell in results.study.cell_names:
        runs = change[change["cell"] == cell]
        row: dict[str, object] = {"cell": cell, "n": len(runs)}
        for name in columns:
            names = (name, f"{name}_low", f"{name}_high")
            row |= zip(names, mean_interval(runs[name].to_numpy(dtype=float)), strict=True)
        rows.append(row)
    return pd.DataFrame(rows)
