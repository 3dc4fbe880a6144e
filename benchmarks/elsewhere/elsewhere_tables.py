"""The tables of what was measured across versions and machines, in Markdown, from the Parquet files."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mnist_ablate.checks.compare import MEAN
from mnist_ablate.report.format import NOTHING, interval, joined, number, percent


def compat(frame: pd.DataFrame) -> str:
    """Tabulate the environments of ``nox -s compat``, and what each gave against the newest."""
    head = ["Environment", "torch", "NumPy", "Numba", *_HEAD]
    rows = [[name, *_versions(mine), *_found(mine)] for name, mine in frame.groupby("name", sort=False)]
    measured = frame[frame["runs"].notna()]
    note = f"Measured on {joined(measured['processor'].unique())}; each against {measured['base'].iloc[0]}."
    return f"{note}\n\n{_markdown(head, rows)}"


def reproducibility(frame: pd.DataFrame) -> str:
    """Tabulate what other processors, engines, threads and versions do to bits and to results."""
    head = ["Runs", "Against", "Versions", *_HEAD]
    rows = [
        [name, mine["base"].iloc[0], _torch(mine), *_found(mine)] for name, mine in frame.groupby("name", sort=False)
    ]
    return f"Measured on {joined(frame['processor'].unique())}.\n\n{_markdown(head, rows)}"


def engines(frame: pd.DataFrame) -> str:
    """Tabulate the accuracies that both engines give, with the seeds of the main job and with all."""
    accuracy = frame[frame["response"] == "test_accuracy"]
    few, many = (accuracy[accuracy["n"] == n].set_index("cell") for n in (accuracy["n"].min(), accuracy["n"].max()))
    n, most = few["n"].iloc[0], many["n"].iloc[0]
    head = ["Cell", f"fused, {n} seeds", f"autograd, {n} seeds", "Difference", f"Difference, {most} seeds", "Verdict"]
    rows = [
        [cell, number(few["fused"][cell]), number(few["autograd"][cell]), _alone(few.loc[cell]), _alone(many.loc[cell]),
         many["verdict"][cell]]
        for cell in few.index
    ]  # fmt: skip
    return f"Measured on {joined(frame['processor'].unique())}.\n\n{_markdown(head, rows)}"


def _alone(row: "pd.Series[Any]") -> str:
    """Write a difference with its own 95 % interval."""
    bounds = interval(row["low_alone"], row["high_alone"], 3)
    return f"{number(row['difference'], 3, sign=True)} ({bounds})"


def rates(frame: pd.DataFrame) -> str:
    """Tabulate how many simulated folders got a false verdict."""
    head = ["Noise", "Spread between seeds, margins", "True difference", "False would be", *_sizes(frame), "Promised"]
    keys = ["noise", "sd", "truth", "false_verdict"]
    rows = [
        [noise, f"{sd:g}", "the margin" if truth else "0", false, *map(_rate, mine.to_dict("records")),
         percent(mine["nominal"].iloc[0])]
        for (noise, sd, truth, false), mine in frame.groupby(keys, sort=False)
    ]  # fmt: skip
    return f"{frame['folders'].iloc[0]:,} folders each.\n\n{_markdown(head, rows)}"


def _sizes(frame: pd.DataFrame) -> list[str]:
    return [f"{n} seeds" for n in frame["n"].unique()]


def _rate(row: Mapping[Any, Any]) -> str:
    """Write a share with its 95 % interval."""
    share, low, high = (100 * value for value in (row["false"] / row["folders"], row["low"], row["high"]))
    return f"{share:.2f} % ({low:.2f} to {high:.2f})"


_HEAD = [
    "Runs with the same bits", "Losses part at step", "Test accuracy, points", "Validation loss, nats", "Verdict",
]  # fmt: skip


def _versions(mine: pd.DataFrame) -> list[str]:
    one = mine.iloc[0]
    return [str(one[key]) if not pd.isna(one[key]) and one[key] else NOTHING for key in ("torch", "numpy", "numba")]


def _torch(mine: pd.DataFrame) -> str:
    one = mine.iloc[0]
    return f"torch {one['torch']}, Numba {one['numba']}"


def _found(mine: pd.DataFrame) -> list[str]:
    """Say how many bits are the same, where the losses part, by how much the means of all cells differ."""
    one = mine.iloc[0]
    for column, word in (("not_tried", "not tried"), ("failed", "failed")):
        if column in mine and not pd.isna(one[column]) and one[column]:
            return [*[NOTHING] * 4, f"{word}: {one[column]}"]
    same = f"{one['runs_same_bits']:.0f} of {one['runs']:.0f}"
    step = f"{one['first_step']:.0f}" if one["first_step"] else NOTHING
    return [same, step, _mean(mine, "test_accuracy", 3), _mean(mine, "val_loss", 5), str(one["verdict_of_all"])]


def _mean(mine: pd.DataFrame, response: str, digits: int) -> str:
    """Write how much the mean of all cells differs, with the interval that decides on 'equivalent'."""
    (one,) = mine[(mine["cell"] == MEAN) & (mine["response"] == response)].to_dict("records")
    if one["verdict"] == "bit-identical":
        return "0"
    bounds = interval(one["inner_low"], one["inner_high"], digits)
    return f"{number(one['difference'], digits, sign=True)} ({bounds})"


def _markdown(head: list[str], rows: list[list[Any]]) -> str:
    rule = [":--", *["--:"] * (len(head) - 2), ":--"]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, rule, *rows])
