"""What the gate compares: what a version of the code did (`Evidence`), and the committed `Reference`.

Everything is a plain table, so that runs of this package, and any table with the columns cell, seed and value,
go the same way. Values are in the units of reports: accuracies in percent, losses in nats.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mnist_ablate.design.plan import PROTOCOL_VERSION, Run, plan
from mnist_ablate.design.responses import scale
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, GateReferenceError, ResultsError
from mnist_ablate.store.results import Results
from mnist_ablate.store.sealed import read_table, write_atomically, write_table

FORMAT = 1
"""Version of the reference's files: raised when older ones cannot be read as they were meant."""

RESPONSES = ("train_loss", "train_loss_eval", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
FIRST = "first train_loss"
"""The running training loss of the first epoch, a response beside those of the last."""

RUN_COLUMNS = ["cell", "seed", "response", "value"]
TRACE_COLUMNS = ["cell", "what", "at", "value"]


class Rules(BaseModel):
    """What a user may set, in ``gate.toml`` of the reference's folder, under ``[gate]``.

    Parameters
    ----------
    budget
        Probability of a false alarm of the whole gate.
    tolerances
        For a response, the shift that does not matter, in the units of reports. The gate never uses less than what
        chance alone can do.
    thresholds
        For a response, what its mean over all runs must reach: at least, or for a loss at most. Accuracies are
        fractions here, as people say them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: float = Field(default=0.001, gt=0, lt=0.5)
    tolerances: dict[str, float] = {}
    thresholds: dict[str, float] = {}


@dataclass(frozen=True)
class Evidence:
    """What a version of the code did.

    Parameters
    ----------
    runs
        One row per run and response: ``cell``, ``seed``, ``response``, ``value``.
    trace
        The golden runs, short and whole: ``cell``, ``what``, ``at``, ``value``. `what` is ``step`` with `at` the
        step from 1, or a response with `at` the epoch from 1. Empty where none were made.
    checkpoint
        The numbers that a stored network gives, by response; empty where it was not evaluated.
    predictions
        What that network says of each test image, uint8 (n,).
    digests
        SHA-256 of the final weights by ``cell/seed``.
    machine
        Versions and processor, as `mnist_ablate.training.provenance` has them.
    study
        The specification of the study; None for a table of the user's own.
    """

    runs: pd.DataFrame
    trace: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=TRACE_COLUMNS))
    checkpoint: Mapping[str, float] = field(default_factory=dict)
    predictions: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    digests: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    study: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reference:
    """What is compared with, and what is known of chance.

    Parameters
    ----------
    evidence
        What the accepted version of the code did. ``runs`` has a column ``repeat``: every run was trained several
        times with other rounding, and the mean is compared with.
    bank
        The null bank: `runs` of other seeds, with ``repeat``, between which nothing differs but rounding.
    limits
        For golden runs, how far from the reference they may lie: ``engine`` (``same`` as the reference's, or
        ``other``), ``group`` (of cells, see `gate_golden`), ``what``, ``at``, ``limit``.
    contrasts
        By name, the weight of each cell.
    rules
        What a user may set.
    document
        Reason, date, what the null bank was made of.
    """

    evidence: Evidence
    bank: pd.DataFrame
    limits: pd.DataFrame
    contrasts: Mapping[str, Mapping[str, float]]
    rules: Rules = field(default_factory=Rules)
    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_tables(cls, runs: pd.DataFrame, bank: pd.DataFrame, rules: Rules | None = None) -> Self:
        """Make a reference of any tables, for training that is not this package's.

        Parameters
        ----------
        runs
            The accepted runs: columns ``cell``, ``seed``, ``value``; optionally ``response``, and ``repeat`` where a
            run was made several times.
        bank
            Runs made at least twice with nothing changed but luck: the same columns, and ``repeat``.
        rules
            Budget, tolerances and thresholds.

        Raises
        ------
        GateReferenceError
            If a column is missing, a value is, or there are too few repeats to know chance by.
        """
        whole = long_table(runs)
        known = long_table(bank)
        if known.groupby(["cell", "seed", "response"])["repeat"].nunique().min() < 2:
            raise GateReferenceError("the null bank needs every run at least twice: rows with another `repeat`.")
        contrasts = cell_contrasts(whole["cell"].unique())
        document = {"protocol_version": PROTOCOL_VERSION, "history": []}
        return cls(Evidence(whole), known, pd.DataFrame(), contrasts, rules or Rules(), document)

    def save(self, folder: Path) -> None:
        """Write the reference's files into `folder`; ``gate.toml``, which is the user's, only where there is none.

        Raises
        ------
        StorageError
            If there is no space or no permission.
        """
        folder.mkdir(parents=True, exist_ok=True)
        evidence = self.evidence
        write_table(folder / "runs.parquet", _arrow(evidence.runs), {})
        write_table(folder / "golden.parquet", _arrow(evidence.trace), {})
        write_table(folder / "limits.parquet", _arrow(self.limits), {})
        write_table(folder / "bank.parquet", _arrow(self.bank), {})
        write_table(folder / "predictions.parquet", pa.table({"prediction": evidence.predictions}), {})
        document = {
            "format": FORMAT,
            **self.document,
            **{name: getattr(evidence, name) for name in ("study", "machine", "checkpoint", "digests")},
            "contrasts": self.contrasts,
        }
        write_atomically(folder / "reference.json", json.dumps(document, indent=1).encode())
        if not (folder / "gate.toml").exists():
            write_atomically(folder / "gate.toml", _RULES_FILE.encode())


_RULES_FILE = """\
# The gate's rules: yours to change, and kept when the reference is renewed.
[gate]
budget = 0.001 # probability of a false alarm, of all statistical checks together

[gate.tolerances] # a shift that does not matter: accuracies in percentage points, losses in nats
# Runs part at a step that differs from seed to seed, so what chance does to the first epoch's loss is not normal.
"first train_loss" = 0.001
# test_accuracy = 0.2

[gate.thresholds] # what the mean over all runs must reach: accuracies (fractions) at least, losses at most
# test_accuracy = 0.95
"""


def load_reference(folder: str | Path) -> Reference:
    """Read a reference.

    Raises
    ------
    ResultsError
        If there is none in `folder`.
    GateReferenceError
        If it is of another version of the format, or its rules cannot be read.
    DamagedFileError
        If a file is not what was written.
    """
    folder = Path(folder)
    document = _document(folder)
    tables = {name: _table(folder / f"{name}.parquet", columns) for name, columns in _TABLES.items()}
    if tables["runs"].empty or "prediction" not in tables["predictions"]:
        raise DamagedFileError(f"{folder}: damaged (it has no runs, or no predictions)")
    evidence = Evidence(
        runs=tables["runs"],
        trace=tables["golden"],
        predictions=tables["predictions"]["prediction"].to_numpy(np.uint8),
        **{name: document.pop(name) for name in ("study", "machine", "checkpoint", "digests")},
    )
    contrasts = document.pop("contrasts")
    return Reference(evidence, tables["bank"], tables["limits"], contrasts, load_rules(folder), document)


_TABLES = {
    "runs": RUN_COLUMNS,
    "golden": TRACE_COLUMNS,
    "limits": ["engine", "group", "what", "at", "limit"],
    "bank": [*RUN_COLUMNS, "repeat"],
    "predictions": ["prediction"],
}
_NUMBERS = ("seed", "value", "at", "limit", "repeat", "prediction")


class _File(BaseModel):
    """What ``reference.json`` must have beside its versions; more may be there."""

    model_config = ConfigDict(extra="allow")

    study: dict[str, Any] | None
    machine: dict[str, Any]
    checkpoint: dict[str, float]
    digests: dict[str, str]
    contrasts: dict[str, dict[str, float]]


def _document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ResultsError(
            f"{folder}: no reference there. Make one with `python -m mnist_ablate gate --accept --why TEXT`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{folder / 'reference.json'}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise DamagedFileError(f"{folder / 'reference.json'}: damaged (it is no table)")
    versions = {"format": FORMAT, "protocol_version": PROTOCOL_VERSION}
    if old := [f"{key} {document.get(key)}" for key, value in versions.items() if document.get(key) != value]:
        raise GateReferenceError(
            f"{folder}: an old reference ({', '.join(old)}; this version of the package has {versions}). "
            "Make it anew with `python -m mnist_ablate gate --accept --why TEXT`."
        )
    try:
        return _File.model_validate(document).model_dump()
    except ValidationError as error:
        raise DamagedFileError(f"{folder / 'reference.json'}: damaged ({_where(error)})") from error


def _where(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one of the reference's tables, which has these columns, or is empty."""
    frame: pd.DataFrame = read_table(path)[0].to_pandas()
    wrong = [name for name in columns if name not in frame or (name in _NUMBERS) != is_numeric_dtype(frame[name])]
    if wrong and len(frame):
        raise DamagedFileError(f"{path}: damaged (the column {wrong[0]} is missing, or of another type)")
    return frame


def load_rules(folder: Path) -> Rules:
    """Read ``gate.toml`` of `folder`; where there is none, all is at its default.

    Raises
    ------
    GateReferenceError
        If it cannot be read.
    """
    path = folder / "gate.toml"
    if not path.exists():
        return Rules()
    try:
        return Rules.model_validate(tomllib.loads(path.read_text(encoding="utf-8")).get("gate", {}))
    except (OSError, ValueError, RecursionError) as error:
        raise GateReferenceError(f"{path}: {error}") from error


def _arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def long_table(table: pd.DataFrame) -> pd.DataFrame:
    """Bring a table with ``cell``, ``seed`` and ``value`` into the form of `Evidence.runs`.

    Raises
    ------
    GateReferenceError
        If a column is missing, or a run is there twice.
    """
    missing = [name for name in ("cell", "seed", "value") if name not in table]
    if missing:
        raise GateReferenceError(f"columns {', '.join(missing)}: missing; needed: cell, seed, value")
    frame = table.copy()
    for name, default in (("response", "value"), ("repeat", 0)):
        if name not in frame:
            frame[name] = default
    if frame.duplicated(["cell", "seed", "response", "repeat"]).any():
        raise GateReferenceError("a cell has the same seed twice: tell repeats apart in a column `repeat`.")
    return frame[[*RUN_COLUMNS, "repeat"]].reset_index(drop=True)


def evidence_of(results: Results, golden: Results | None = None) -> Evidence:
    """Take from results folders what the gate looks at."""
    parts = [_in_units(results.final, response).assign(response=response) for response in RESPONSES]
    first = results.epochs[results.epochs["epoch"] == 1]
    parts.append(_in_units(first, "train_loss").assign(response=FIRST))
    documents = results.documents
    names = results.final.set_index("run_id")[["cell", "seed"]].astype(str).agg("/".join, axis=1)
    return Evidence(
        pd.concat(parts, ignore_index=True)[RUN_COLUMNS],
        trace=trace_of(golden) if golden else pd.DataFrame(columns=TRACE_COLUMNS),
        digests={names[run_id]: documents[run_id].get("weights_sha256", "") for run_id in names.index},
        machine=documents[names.index[0]]["provenance"] | {"data": documents[names.index[0]].get("data_sha256", "")},
        study=results.study.model_dump(mode="json", exclude_unset=True),
    )


def _in_units(frame: pd.DataFrame, response: str) -> pd.DataFrame:
    """Keep who a run is and its value; losses as they are, for one that is not finite must be seen."""
    return frame[["cell", "seed"]].assign(value=scale(response) * frame[response].astype(float))


def trace_of(golden: Results) -> pd.DataFrame:
    """Lay out golden runs as a trace: see `Evidence`."""
    cells = golden.final.set_index("run_id")["cell"]
    losses = {cells[run_id]: document["first_losses"] for run_id, document in golden.documents.items()}
    rows = [epoch for _, epoch in golden.epochs.iterrows()]
    return trace_table(losses, [(row["cell"], dict(row)) for row in rows])


def trace_table(losses: Mapping[str, Iterable[float]], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """Make a trace of the losses of the steps of each cell, and of (cell, row of an epoch)."""
    steps = [(cell, "step", at, loss) for cell, found in losses.items() for at, loss in enumerate(found, 1)]
    epochs = [(cell, name, row["epoch"], scale(name) * row[name]) for cell, row in rows for name in RESPONSES]
    return pd.DataFrame(steps + epochs, columns=TRACE_COLUMNS).astype({"at": int, "value": float})


def study_contrasts(study: Study) -> dict[str, dict[str, float]]:
    """Give the weights of the cells in the mean of all, and in each factor's main effect.

    A factor's contrast is the mean of the cells away from its reference level, less that of those at it.
    """
    runs = plan(study.model_copy(update={"seeds": 1}))
    contrasts = {"mean": {run.cell: 1 / len(runs) for run in runs}}
    for factor in study.design:
        contrasts[factor.name] = _effect({run.cell: run.levels[factor.name] != factor.reference for run in runs})
    return {name: weights for name, weights in contrasts.items() if weights}


def _effect(on: Mapping[str, bool]) -> dict[str, float]:
    """Weigh the cells of an effect; nothing where a factor has one level only."""
    n_on = sum(on.values())
    if n_on in (0, len(on)):
        return {}
    return {cell: 1 / n_on if is_on else -1 / (len(on) - n_on) for cell, is_on in on.items()}


def cell_contrasts(cells: Iterable[str]) -> dict[str, dict[str, float]]:
    """Give the weights for a table whose factors are not known: the mean of all cells, and each cell alone."""
    names = list(cells)
    alone = {name: {name: 1.0} for name in names} if len(names) > 1 else {}
    return {"mean": dict.fromkeys(names, 1 / len(names))} | alone


def same_study(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Tell whether two specifications train the same runs, by whatever engine."""
    ignored = ("engine", "title", "seeds")
    a, b = ({k: v for k, v in (study or {}).items() if k not in ignored} for study in (a, b))
    return a == b


def with_seeds(study: Study, seeds: Iterable[int]) -> list[Run]:
    """List the runs of `study` with given seeds in place of its own, seed by seed."""
    one = plan(study.model_copy(update={"seeds": 1}))
    return [replace(run, seed=seed) for seed in seeds for run in one]
