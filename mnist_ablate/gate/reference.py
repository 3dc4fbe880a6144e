"""What the gate compares: what a version of the code did (`Evidence`), and the committed `Reference`.

Everything is a plain table, so any table with the columns cell, seed and value can be judged like runs of this package.
Values are in the units of reports: accuracies in percent, losses in nats.
"""

import json
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mnist_ablate.design.metrics import Better, better_by_name
from mnist_ablate.design.plan import PROTOCOL_VERSION, Run, plan
from mnist_ablate.design.responses import scale
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, GateReferenceError, ResultsError
from mnist_ablate.paths import user_path
from mnist_ablate.store.results import Results
from mnist_ablate.store.sealed import NO_DIGEST, digest_of, read_table, sealed, write_atomically, write_table

FORMAT = 1
"""Version of the reference's files, raised when older ones would be misread."""

DEFAULT = Path("results/reference/gate")
"""Where the reference of a checkout is, seen from its root, and where `accept` writes a new one."""

RESPONSES = ("train_loss", "train_loss_eval", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
FIRST = "first train_loss"
"""The running training loss of the first epoch; all other responses are of the last epoch."""

RUN_COLUMNS = ["cell", "seed", "response", "value"]
TRACE_COLUMNS = ["cell", "what", "at", "value"]

_TABLE = "table"
"""What `Reference.document` has as its source where another program trained."""


class Rules(BaseModel):
    """What a user may set under ``[gate]`` in ``gate.toml``, in the reference's folder.

    Parameters
    ----------
    budget
        Probability of a false alarm of the whole gate.
    tolerances
        By response, the shift that does not matter, in the units of reports. The gate never uses less than what chance
        alone can do.
    thresholds
        By response, the least value of the mean over all runs, or the largest where lower is better. Accuracies are
        fractions here, as people say them.
    better
        By response, which way is better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: float = Field(default=0.001, gt=0, lt=0.5)
    tolerances: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    better: dict[str, Better] = {}


@dataclass(frozen=True)
class Evidence:
    """What a version of the code did.

    Parameters
    ----------
    runs
        One row per run and response: ``cell``, ``seed``, ``response``, ``value``.
    trace
        The golden runs, which are complete but short: ``cell``, ``what``, ``at``, ``value``. `what` is ``step`` with
        `at` the step from 1, or a response with `at` the epoch from 1. Empty if there are none.
    checkpoint
        The results of a stored network, by response; empty if it was not evaluated.
    predictions
        That network's prediction for each test image, uint8 (n,).
    digests
        SHA-256 of the final weights by ``cell/seed``.
    machine
        Engine, versions and processor, see `mnist_ablate.training.provenance`; also ``data``, the digest of the images,
        and the ``protocol_version``.
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
    """What the accepted version of the code did, and how much chance alone changes.

    Parameters
    ----------
    evidence
        What the accepted version did. ``runs`` has a column ``repeat``: every run was trained several times with
        different rounding, and new runs are compared with the mean.
    bank
        The null bank: ``runs`` of other seeds, whose repeats differ in nothing but rounding.
    limits
        How far golden runs may depart from the reference: ``engine`` (``same`` as the reference's, or ``other``),
        ``group`` (of cells, see `mnist_ablate.gate.golden`), ``what``, ``at``, ``limit``.
    contrasts
        By name, the weight of each cell.
    rules
        What a user may set.
    document
        The version of the protocol, the reasons and dates of all references so far, and the environments of the limits.
    """

    evidence: Evidence
    bank: pd.DataFrame
    limits: pd.DataFrame
    contrasts: Mapping[str, Mapping[str, float]]
    rules: Rules = field(default_factory=Rules)
    document: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_tables(cls, runs: pd.DataFrame, bank: pd.DataFrame | None = None, rules: Rules | None = None) -> Self:
        """Return a reference made from any tables, for training outside this package.

        Parameters
        ----------
        runs
            The accepted runs: columns ``cell``, ``seed``, ``value``; optionally ``response``, and ``repeat`` if runs
            were repeated.
        bank
            Runs that were repeated at least once with nothing changed but luck: the same columns, and ``repeat``. By
            default the accepted runs. If these have no repeats, or repeats change nothing, chance is what seeds do.
        rules
            Budget, tolerances and thresholds.

        Raises
        ------
        GateReferenceError
            If a column is missing, a bank has runs without a repeat, some accepted runs have more repeats than others,
            or a value is not finite.
        """
        accepted = long_table(runs)
        repeated = accepted if bank is None else long_table(bank)
        repeats = repeated.groupby(["cell", "seed", "response"])["repeat"].nunique()
        if bank is None:
            _check_accepted(accepted, repeats)
        elif repeats.min() < 2:
            raise GateReferenceError("The null bank needs every run at least twice: rows that differ in `repeat`.")
        contrasts = cell_contrasts(accepted["cell"].unique())
        document = {"protocol_version": PROTOCOL_VERSION, "history": [], "source": _TABLE}
        return cls(Evidence(accepted), repeated, pd.DataFrame(), contrasts, rules or Rules(), document)

    @property
    def elsewhere(self) -> bool:
        """Whether the user's own training made the values, so that they have units of their own."""
        return self.document.get("source") == _TABLE or bool((self.evidence.study or {}).get("metrics"))

    def declared(self, response: str) -> Better | None:
        """Return which way a response is better, as the rules or else the study declare it; None if neither does."""
        of_study = (self.evidence.study or {}).get("metrics", {}).get(response, {})
        found: Better | None = self.rules.better.get(response) or of_study.get("better")
        return found

    def better(self, response: str) -> Better:
        """Return which way a response is better, as it is declared, or else as its name says."""
        return self.declared(response) or ("lower" if "loss" in response else better_by_name(response))

    @property
    def paired(self) -> bool:
        """Whether runs are compared with those of the same seed.

        Not where repeats change no value: training is then a function of the seed, and any change of the code, however
        harmless, moves each seed by chance as another seed would.
        """
        values = self.bank.groupby(["cell", "seed", "response"])["value"]
        return bool((values.max() > values.min()).any())

    def of_cells(self, cells: Collection[str], responses: Collection[str]) -> Self:
        """Return the reference of some of its cells and responses, with their share of the budget of false alarms.

        Raises
        ------
        GateReferenceError
            If it has not all of them.
        """
        known = self.evidence.runs
        for what, wanted, column in (("cell", cells, "cell"), ("metric", responses, "response")):
            there = known[column].unique()
            if unknown := sorted(set(wanted) - set(there)):
                raise GateReferenceError(
                    f"The reference has no {what} {', '.join(unknown)}; it has {', '.join(map(str, there))}."
                )
        tables = [
            frame[frame["cell"].isin(list(cells)) & frame["response"].isin(list(responses))].reset_index(drop=True)
            for frame in (known, self.bank)
        ]
        share = len(_checks(tables[0])) / len(_checks(known))
        rules = self.rules.model_copy(
            update={
                "budget": self.rules.budget * share,
                "thresholds": {name: value for name, value in self.rules.thresholds.items() if name in responses},
            }
        )
        contrasts = cell_contrasts(tables[0]["cell"].unique())
        return replace(self, evidence=replace(self.evidence, runs=tables[0]), bank=tables[1], contrasts=contrasts,
                       rules=rules)  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the reference's files into `folder`; ``gate.toml`` belongs to the user and is never overwritten.

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
            "digest": NO_DIGEST,
        }
        write_atomically(folder / "reference.json", sealed(json.dumps(document, indent=1).encode()))
        if not (folder / "gate.toml").exists():
            write_atomically(folder / "gate.toml", (_RULES_OF_TABLES if self.elsewhere else _RULES_FILE).encode())


_RULES_FILE = """\
# The gate's rules: yours to change, and kept when the reference is renewed.
[gate]
budget = 0.001 # probability of a false alarm of all statistical checks together

[gate.tolerances] # shifts that do not matter: accuracies in percentage points, losses in nats
# Rounding shows at a different step in each seed, so its effect on the first epoch's loss is not Gaussian.
"first train_loss" = 0.001
# test_accuracy = 0.2

[gate.thresholds] # for the mean over all runs: accuracies (fractions) at least, losses at most
# test_accuracy = 0.95
"""

_RULES_OF_TABLES = """\
# The gate's rules: yours to change, and kept when the reference is renewed.
[gate]
budget = 0.001 # probability of a false alarm of all checks together

[gate.tolerances] # shifts that do not matter, by metric, in the units of your values
# accuracy = 0.002

[gate.thresholds] # for the mean over all runs: at least, or at most where lower is better
# accuracy = 0.95

[gate.better] # "higher", "lower" or "neither", by metric; needed where the name does not say it
# wins = "higher"
"""


def default_reference() -> Path:
    """Return ``results/reference/gate``, or where that is missing, the folder of the reference in the package."""
    in_package = Path(__file__).parent / "accepted"  # only in a wheel
    return in_package if in_package.exists() and not DEFAULT.exists() else DEFAULT


def load_reference(folder: str | Path) -> Reference:
    """Read a reference from its folder.

    Raises
    ------
    ResultsError
        If there is none.
    GateReferenceError
        If its format or protocol is of another version, or its rules cannot be read.
    DamagedFileError
        If a file cannot be read as it was written.
    """
    folder = user_path(folder)
    document = _document(folder)
    tables = {name: _table(folder / f"{name}.parquet", columns) for name, columns in _TABLES.items()}
    if tables["runs"].empty or "prediction" not in tables["predictions"]:
        raise damaged(folder, "damaged (it has no runs, or no predictions)")
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
    """The required keys of ``reference.json``, besides its versions."""

    model_config = ConfigDict(extra="allow")

    study: dict[str, Any] | None
    machine: dict[str, Any]
    checkpoint: dict[str, float]
    digests: dict[str, str]
    contrasts: dict[str, dict[str, float]]


def _document(folder: Path) -> dict[str, Any]:
    file = folder / "reference.json"
    try:
        content = file.read_bytes()
        document = json.loads(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ResultsError(
            f"{folder}: no reference there. Make one with `python -m mnist_ablate gate --accept --why TEXT`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(file, f"cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise damaged(file, "damaged (not a JSON object)")
    versions = {"format": FORMAT}
    if document.get("study") is not None:  # tables of the user's own are of no protocol
        versions["protocol_version"] = PROTOCOL_VERSION
    for key, needed in versions.items():
        if document.get(key) != needed:
            what = key.removesuffix("_version")
            raise GateReferenceError(
                f"{folder}: a reference of {what} {document.get(key)}, and this version of mnist-ablate needs one of "
                f"{what} {needed}: make it with `python -m mnist_ablate gate --accept --why TEXT`."
            )
    if document.pop("digest", None) not in (None, digest_of(content)):  # earlier versions wrote none
        raise damaged(file, "damaged (its digest does not agree)")
    try:
        return _File.model_validate(document).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise damaged(file, f"damaged ({place})") from error


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one of the reference's tables, which must have these columns unless it is empty."""
    try:
        frame: pd.DataFrame = read_table(path)[0].to_pandas()
    except DamagedFileError as error:
        raise damaged(path, str(error).removeprefix(f"{path}: ").partition(";")[0]) from error
    wrong = [name for name in columns if name not in frame or (name in _NUMBERS) != is_numeric_dtype(frame[name])]
    if wrong and len(frame):
        raise damaged(path, f"damaged (the column {wrong[0]} is missing, or of another type)")
    return frame


def damaged(path: Path, cause: str) -> DamagedFileError:
    """Return the error for a file of a reference that is missing or damaged."""
    return DamagedFileError(
        f"{path}: {cause}. Restore the reference, or make a new one with "
        "`python -m mnist_ablate gate --accept --why TEXT`."
    )


def load_rules(folder: Path) -> Rules:
    """Read ``gate.toml`` in `folder`; without one, return the defaults.

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
    """Return a table with ``cell``, ``seed`` and ``value`` in the form of `Evidence.runs`, with ``repeat``.

    Raises
    ------
    GateReferenceError
        If a column is missing, or a run is there twice.
    """
    missing = [name for name in ("cell", "seed", "value") if name not in table]
    if missing:
        raise GateReferenceError(f"The table has no column {', '.join(missing)}; needed: cell, seed, value.")
    frame = table.copy()
    for name, default in (("response", "value"), ("repeat", 0)):
        if name not in frame:
            frame[name] = default
    if frame.duplicated(["cell", "seed", "response", "repeat"]).any():
        raise GateReferenceError("A cell has the same seed twice: number the repeats in a column `repeat`.")
    return frame[[*RUN_COLUMNS, "repeat"]].reset_index(drop=True)


def _check_accepted(runs: pd.DataFrame, repeats: "pd.Series[int]") -> None:
    """Refuse accepted runs that are not finite, or not repeated alike: what chance does would be measured wrongly."""
    wrong = runs[~runs["value"].astype(float).abs().lt(math.inf)]
    if len(wrong):
        first = wrong.iloc[0]
        raise GateReferenceError(
            f"{first['cell']}, seed {first['seed']}: {first['response']} is not finite. A reference needs runs "
            "that went well."
        )
    counted = repeats.reset_index(name="n")
    most = int(counted["n"].max())
    for _, row in counted[counted["n"] < most].head(1).iterrows():
        raise GateReferenceError(
            f"{row['cell']}, seed {row['seed']}, has {row['n']} repeats, and another run has {most}. Record all runs "
            "equally often."
        )


def _checks(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[["cell", "response"]].drop_duplicates()


def evidence_of(results: Results, golden: Results | None = None) -> Evidence:
    """Return what the gate looks at in the results of its runs and golden runs."""
    names, units = results.study.metrics or RESPONSES, results.study.responses
    parts = [_in_units(results.final, name, units[name].scale).assign(response=name) for name in names]
    if not results.study.metrics:
        first = results.epochs[results.epochs["epoch"] == 1]
        parts.append(_in_units(first, "train_loss").assign(response=FIRST))
    documents = results.documents
    runs = results.final.set_index("run_id")[["cell", "seed"]].astype(str).agg("/".join, axis=1)
    return Evidence(
        pd.concat(parts, ignore_index=True)[RUN_COLUMNS],
        trace=trace_of(golden) if golden else pd.DataFrame(columns=TRACE_COLUMNS),
        digests={runs[run_id]: documents[run_id].get("weights_sha256", "") for run_id in runs.index},
        machine=documents[runs.index[0]]["provenance"]
        | {"data": documents[runs.index[0]].get("data_sha256", ""), "protocol_version": results.protocol_version},
        study=results.study.model_dump(mode="json", exclude_unset=True),
    )


def _in_units(frame: pd.DataFrame, response: str, units: float = 1.0) -> pd.DataFrame:
    """Return cell, seed and value; a loss that is not finite stays so, because the gate must see it."""
    return frame[["cell", "seed"]].assign(value=units * frame[response].astype(float))


def trace_of(golden: Results) -> pd.DataFrame:
    """Return golden runs as a trace, see `Evidence`."""
    cells = golden.final.set_index("run_id")["cell"]
    losses = {cells[run_id]: document["first_losses"] for run_id, document in golden.documents.items()}
    return trace_table(losses, [(row["cell"], dict(row)) for _, row in golden.epochs.iterrows()])


def trace_table(losses: Mapping[str, Iterable[float]], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> pd.DataFrame:
    """Return a trace made from the step losses of each cell, and from pairs of a cell and the row of an epoch."""
    steps = [(cell, "step", at, loss) for cell, of_cell in losses.items() for at, loss in enumerate(of_cell, 1)]
    epochs = [(cell, name, row["epoch"], scale(name) * row[name]) for cell, row in rows for name in RESPONSES]
    return pd.DataFrame(steps + epochs, columns=TRACE_COLUMNS).astype({"at": int, "value": float})


def study_contrasts(study: Study) -> dict[str, dict[str, float]]:
    """Return the weights of the cells in the mean of all, and in the main effect of each factor with several levels.

    A main effect is the mean of the cells away from the factor's reference level minus that of the cells at it.
    """
    runs = plan(study.model_copy(update={"seeds": 1}))
    contrasts = {"mean": {run.cell: 1 / len(runs) for run in runs}}
    for factor in study.varied:
        away = [run.cell for run in runs if run.levels[factor.name] != factor.reference]
        n, rest = len(away), len(runs) - len(away)
        if n and rest:
            contrasts[factor.name] = {run.cell: 1 / n if run.cell in away else -1 / rest for run in runs}
    return contrasts


def cell_contrasts(cells: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the weights for a table without known factors: the mean of all cells, and each of several cells alone."""
    names = list(cells)
    single = {name: {name: 1.0} for name in names} if len(names) > 1 else {}
    return {"mean": dict.fromkeys(names, 1 / len(names))} | single


def same_study(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Return whether two specifications train the same runs, engine and number of seeds aside."""
    ignored = ("engine", "title", "seeds")
    a, b = ({key: value for key, value in (study or {}).items() if key not in ignored} for study in (a, b))
    return a == b


def with_seeds(study: Study, seeds: Iterable[int]) -> list[Run]:
    """Return the runs of `study` for the given seeds instead of its own, seed by seed."""
    block = plan(study.model_copy(update={"seeds": 1}))
    return [replace(run, seed=seed) for seed in seeds for run in block]
