"""Runs that another program trained: read from a file, judged, and accepted as a reference."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_ablate.errors import GateReferenceError, TableError
from mnist_ablate.gate.judge import Verdict, judge
from mnist_ablate.gate.reference import Reference, load_reference, load_rules

ENDINGS = (".csv", ".parquet")
"""Of the names of files that are tables."""


def is_table(path: Path) -> bool:
    """Return whether `path` is meant as a table, and not as a results folder."""
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def read_runs(path: Path) -> pd.DataFrame:
    """Read a table of runs: ``cell``, ``seed``, ``value``, and where there are any, ``response`` and ``repeat``.

    Raises
    ------
    TableError
        If it cannot be read, or a seed or value is no number; the message names the row.
    """
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # of pandas, pyarrow and the decoder
        cause = str(error).strip().splitlines()[0].rstrip(".")
        raise TableError(f"{path}: not a table ({cause}). Give a CSV or Parquet file of runs.") from error
    lacking = [name for name in ("cell", "seed", "value") if name not in frame]
    if lacking:
        raise TableError(
            f"{path}: has no column {', '.join(lacking)}. Needed: cell, seed, value; also known: response, repeat."
        )
    if frame.empty:
        raise TableError(f"{path}: has no rows. Record runs first.")
    readers: dict[str, Callable[[Any], Any]] = {
        "cell": str, "seed": _whole, "value": float, "response": str, "repeat": _whole,
    }  # fmt: skip
    columns = {name: _column(path, frame, name, read) for name, read in readers.items() if name in frame}
    return pd.DataFrame(columns)


def _whole(value: Any) -> int:
    number = int(value)
    if number != float(value):
        raise ValueError("not a whole number")
    return number


def _column(path: Path, frame: pd.DataFrame, name: str, read: Callable[[Any], Any]) -> list[Any]:
    values = []
    for row, value in enumerate(frame[name], start=1):
        try:
            values.append(read(value))
        except (ValueError, TypeError, OverflowError) as error:
            what = "a number" if name == "value" else "a whole number"
            raise TableError(f"{path}: row {row}, {name} = {value!r}: allowed: {what}.") from error
    return values


def accepted(table: pd.DataFrame, folder: Path, history: list[Any]) -> Reference:
    """Return the reference that accepts a table, with the rules in `folder`, which it writes.

    Raises
    ------
    GateReferenceError
        If the table cannot be a reference, or the folder has one of runs that this package trained.
    """
    if (folder / "reference.json").exists() and load_reference(folder).evidence.study is not None:
        raise GateReferenceError(
            f"{folder}: has the reference of a study, which a table would replace. Name another with --reference."
        )
    reference = Reference.of_tables(table, rules=load_rules(folder))
    reference = replace(reference, document={**reference.document, "history": history})
    reference.save(folder)
    return reference


def judge_values(values: Mapping[tuple[str, int, str], float], folder: Path) -> tuple[Verdict, Reference]:
    """Judge some values by what a reference has of their cells and metrics, with their share of the budget.

    Parameters
    ----------
    values
        By cell, seed and metric.
    folder
        The folder of the reference.

    Raises
    ------
    MnistAblateError
        If there is no reference that can judge them.
    """
    rows = [(cell, seed, metric, value) for (cell, seed, metric), value in values.items()]
    table = pd.DataFrame(rows, columns=["cell", "seed", "response", "value"])
    reference = load_reference(folder)
    if not reference.elsewhere or reference.evidence.study is not None:
        raise GateReferenceError(
            f"{folder}: the reference of a study, which `gate` without a table judges. Name another folder."
        )
    reference = reference.of_cells(table["cell"].unique(), table["response"].unique())
    # Other tests may have the other seeds, and their share of the budget.
    share = min(1.0, table["seed"].nunique() / reference.evidence.runs["seed"].nunique())
    rules = reference.rules.model_copy(update={"budget": reference.rules.budget * share})
    reference = replace(reference, rules=rules)
    return judge(table, reference), reference
