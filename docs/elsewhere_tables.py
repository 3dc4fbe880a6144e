"""Markdown tables of what was measured across versions, machines and engines, and of simulated comparisons."""

from typing import Any

import pandas as pd
from marks import table

from mnist_ablate.checks.compare import MEAN
from mnist_ablate.report.format import NOTHING, estimate, interval, joined, number, percent

_HEAD = ["Runs with the same bits", "Losses part at step", "Test accuracy, points", "Validation loss, nats", "Verdict"]


def compat(frame: pd.DataFrame) -> str:
    """Tabulate the environments of ``nox -s compat`` and their results against the newest."""
    rows = []
    for name, place in frame.groupby("name", sort=False):
        versions = [str(value) if pd.notna(value) and value else NOTHING for value in
                    place[["torch", "numpy", "numba"]].iloc[0]]  # fmt: skip
        rows.append([name, *versions, *_results(place)])
    measured = frame[frame["runs"].notna()]
    note = f"Measured on {joined(measured['processor'].unique())}; each against {measured['base'].iloc[0]}."
    return f"{note}\n\n{table(['Environment', 'torch', 'NumPy', 'Numba', *_HEAD], rows, left=(0, 8))}"


def reproducibility(frame: pd.DataFrame) -> str:
    """Tabulate which runs have the committed digests, a line for each environment and what came out there."""
    rows = []
    for name, place in frame.groupby("name", sort=False):
        tried = place[place["not_tried"] == ""]
        if tried.empty:
            rows.append([name, NOTHING, NOTHING, f"not tried: {place['not_tried'].iloc[0]}", NOTHING])
        for _, same in tried.groupby(["failed", "differ"], sort=False, dropna=False):
            used = [joined(same[key].dropna().unique()) for key in ("python", "torch", "numpy", "numba")]
            rows.append([name, " / ".join(used), *_digests(same.iloc[0]), joined(same["processor"].unique())])
    head = ["Environment", "Python / torch / NumPy / Numba", "Runs with the committed digest", "Others", "Seen on"]
    return table(head, rows, left=(0, 1, 3, 4))


def _digests(row: "pd.Series[Any]") -> list[str]:
    """Return how many runs have the committed digest, and which have not."""
    if row["failed"]:
        return [NOTHING, f"failed: {row['failed']}"]
    differ = row["differ"].split("; ") if row["differ"] else []
    which = "all" if len(differ) == row["runs"] else ", ".join(differ) or NOTHING
    return [f"{row['runs'] - len(differ):.0f} of {row['runs']:.0f}", which]


def rounding(frame: pd.DataFrame) -> str:
    """Tabulate what other engines, processors and threads do to bits and to results."""
    rows = []
    for name, place in frame.groupby("name", sort=False):
        base, torch, numba = place[["base", "torch", "numba"]].iloc[0]
        rows.append([name, base, f"torch {torch}, Numba {numba}", *_results(place)])
    head = ["Runs", "Against", "Versions", *_HEAD]
    return f"Measured on {joined(frame['processor'].unique())}.\n\n{table(head, rows, left=(0, 7))}"


def engines(frame: pd.DataFrame) -> str:
    """Tabulate the accuracies of both engines, with the seeds of the main job and with all seeds."""
    accuracy = frame[frame["response"] == "test_accuracy"]
    (n, few), (most, many) = ((n, of.set_index("cell")) for n, of in accuracy.groupby("n"))
    head = ["Cell", f"fused, {n} seeds", f"autograd, {n} seeds", "Difference", f"Difference, {most} seeds", "Verdict"]
    means = few[["fused", "autograd"]].map(number)
    rows = [[c, *means.loc[c], _alone(few.loc[c]), _alone(many.loc[c]), many.loc[c, "verdict"]] for c in few.index]
    return f"Measured on {joined(frame['processor'].unique())}.\n\n{table(head, rows, left=(0, 5))}"


def protocols(frame: pd.DataFrame) -> str:
    """Tabulate what protocol 2 changed in the results of protocol 1."""
    columns = {
        "test_accuracy": ("Test accuracy, points", 3),
        "val_loss": ("Validation loss, nats", 5),
        "gap": ("Gap, nats", 5),
    }
    by = frame.set_index(["cell", "response"])
    rows = []
    for cell in frame["cell"].unique():
        differences = [_mean(by.loc[(cell, name)], digits) for name, (_, digits) in columns.items()]
        rows.append([cell, str(by.loc[cell, "n"].iloc[0]), *differences, joined(by.loc[cell, "verdict"].unique())])
    return table(["Cell", "Seeds", *(title for title, _ in columns.values()), "Verdict"], rows, left=(0, 5))


def _alone(row: "pd.Series[Any]") -> str:
    """Return a difference with its own 95 % interval."""
    return _with_interval(row["difference"], row["low_alone"], row["high_alone"], 3)


def rates(frame: pd.DataFrame) -> str:
    """Tabulate how many simulated folders got a false verdict."""
    sizes = [f"{n} seeds" for n in frame["n"].unique()]
    head = ["Noise", "Spread between seeds, margins", "True difference", "False would be", *sizes, "Promised"]
    rows = []
    for (noise, sd, truth, false), of in frame.groupby(["noise", "sd", "truth", "false_verdict"], sort=False):
        shares = 100 * pd.DataFrame({"share": of["false"] / of["folders"], "low": of["low"], "high": of["high"]})
        cells = [f"{share:.2f} % ({low:.2f} to {high:.2f})" for share, low, high in shares.to_numpy()]
        promise = percent(of["nominal"].iloc[0])
        rows.append([noise, f"{sd:g}", "the margin" if truth else "0", false, *cells, promise])
    return f"{frame['folders'].iloc[0]:,} folders each.\n\n{table(head, rows, left=(0, len(head) - 1))}"


def _results(place: pd.DataFrame) -> list[str]:
    """Return how many runs have the same bits, where losses part, and how much the mean of all cells differs."""
    row = place.iloc[0]
    for column, word in (("not_tried", "not tried"), ("failed", "failed")):
        if pd.notna(row.get(column)) and row[column]:
            return [*[NOTHING] * 4, f"{word}: {row[column]}"]
    step = f"{row['first_step']:.0f}" if row["first_step"] else NOTHING
    means = {row["response"]: row for _, row in place[place["cell"] == MEAN].iterrows()}
    differences = [_mean(means[name], digits) for name, digits in (("test_accuracy", 3), ("val_loss", 5))]
    return [f"{row['runs_same_bits']:.0f} of {row['runs']:.0f}", step, *differences, str(row["verdict_of_all"])]


def _mean(row: "pd.Series[Any]", digits: int) -> str:
    """Return a difference with the interval that decides on 'equivalent'."""
    if row["verdict"] == "bit-identical":
        return "0"
    return _with_interval(row["difference"], row["low"], row["high"], digits)


def _with_interval(value: float, low: float, high: float, digits: int) -> str:
    return f"{estimate(value, low, high, digits)} ({interval(low, high, digits)})"
