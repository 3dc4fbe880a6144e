"""Runs, wherever they were made, and reading a results folder: `load` returns all that it holds as one `Results`."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mnist_ablate.design.design import Design
from mnist_ablate.design.metrics import digits_by_spread
from mnist_ablate.design.plan import PROTOCOL_VERSION, cells, plan
from mnist_ablate.design.responses import shown
from mnist_ablate.design.study import Study
from mnist_ablate.errors import DamagedFileError, ResultsError
from mnist_ablate.language import later
from mnist_ablate.paths import user_path
from mnist_ablate.store.folder import CellSeed, Store, StoredRuns
from mnist_ablate.store.schema import MISTAKE_SCHEMA
from mnist_ablate.store.sealed import Document, read_table

Mistakes = tuple[pd.DataFrame, NDArray[np.uint8]]
"""Every wrong answer, and the labels of the test images."""


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a design, wherever they were made.

    Parameters
    ----------
    folder
        Where they were read from.
    study
        Their design.
    epochs
        One row per run and epoch: ``run_id``, ``cell``, ``seed``, ``epoch``, ``status`` (``"ok"`` in all runs that are
        whole), and a column for each response that is stored; sorted by cell (in the order of the design), seed and
        epoch.
    documents
        What is known of each run beside its numbers, by `run_id`.
    problems
        A sentence for each run that failed, and for each file that could not be read.
    """

    folder: Path
    study: Design
    epochs: pd.DataFrame
    documents: Mapping[str, Document] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def final(self) -> pd.DataFrame:
        """The last epoch of each run: one row per run."""
        return self.epochs[self.epochs["epoch"] == self.epochs.groupby("run_id")["epoch"].transform("max")]

    @property
    def history(self) -> pd.DataFrame | None:
        """What was measured of each run, epoch by epoch, in the columns of `epochs`; None where only its end is."""
        return self.epochs

    @property
    def epoch_name(self) -> str:
        """What an epoch is called."""
        return "epoch"

    @property
    def of_other_protocol(self) -> str:
        """What can be done with runs of another protocol than this program's, in a sentence; empty for its own."""
        if self.protocol_version == PROTOCOL_VERSION:
            return ""
        return (
            f"{self.folder} was made by protocol {self.protocol_version} and this version of mnist-ablate trains "
            f"protocol {PROTOCOL_VERSION}, so its bits cannot be verified: `report` and `compare` still read it, and "
            "`run --out DIR` trains the study again."
        )

    @property
    def last_epochs(self) -> dict[str, int]:
        """The last epoch of each cell, in the order of the design."""
        last = self.epochs.groupby("cell")["epoch"].max()
        return {cell: int(last[cell]) for cell in self.study.cell_names if cell in last.index}

    @property
    def planned(self) -> list[CellSeed]:
        """The runs of the design, whether or not they are there."""
        raise NotImplementedError

    @property
    def missing(self) -> list[CellSeed]:
        """The planned runs that are not there."""
        raise NotImplementedError

    @property
    def seed_names(self) -> Mapping[int, str]:
        """The name of each seed; empty where seeds are numbers."""
        return {}

    @property
    def facts(self) -> Mapping[str, str]:
        """What else is known of all runs, by heading."""
        return {}

    @property
    def declared_looks(self) -> tuple[int, ...]:
        """The numbers of seeds for verdicts that were declared, where no document of a run says so."""
        return ()

    @property
    def afterwards(self) -> str:
        """Why nothing that was declared counts as declared before the runs; empty where it may."""
        return ""

    @cached_property
    def probes(self) -> pd.DataFrame:
        """What probes measured: one row per run that has any, indexed by ``run_id``, and one column per response."""
        rows = {
            run_id: {name: value for measured in document["probes"].values() for name, value in measured.items()}
            for run_id, document in self.documents.items()
            if any(document.get("probes", {}).values())
        }
        return pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis("run_id")

    @property
    def mistakes(self) -> pd.DataFrame | None:
        """Every wrong answer after the last epoch; None where answers are not known."""
        return None

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """The labels of the test images, shape (images,); None if `mistakes` is None."""
        return None

    @property
    def no_mistakes(self) -> str:
        """Why `mistakes` is None; empty if it is not."""
        return later("single answers are not known")


@dataclass(frozen=True, eq=False)
class Results(Runs):
    """What a results folder holds.

    Parameters
    ----------
    folder
        The folder it was read from.
    study
        The study of the folder.
    epochs
        One row per run and epoch, in the columns of the schema, sorted by cell (in the order of the design),
        seed and epoch.
    documents
        The JSON document of each run, by `run_id`: specification, provenance, what its probes measured, digests.
    problems
        A sentence for each run that failed, and for each file that could not be read.
    unindexed
        How many runs were read from files of their own because the folder's index lacks them.
    """

    study: Study
    unindexed: int = 0

    @cached_property
    def protocol_version(self) -> int:
        """The version of the protocol of the runs; this program's if their documents have no specification."""
        specifications = (document.get("specification", {}) for document in self.documents.values())
        return next((one["protocol_version"] for one in specifications if "protocol_version" in one), PROTOCOL_VERSION)

    @property
    def last_epochs(self) -> dict[str, int]:
        """The last epoch of each cell, in the order of the design, whether or not it has runs."""
        return {run.cell: run.settings.epochs for run in plan(self.study.model_copy(update={"seeds": 1}))}

    @property
    def planned(self) -> list[CellSeed]:
        """The runs of the study, whether or not they are stored."""
        return [(run.cell, run.seed) for run in plan(self.study)]

    @property
    def missing(self) -> list[CellSeed]:
        """The planned runs that are not stored."""
        planned = plan(self.study, self.protocol_version)
        return [(run.cell, run.seed) for run in planned if run.run_id not in self.documents]

    def predictions(self, run_id: str) -> pd.DataFrame:
        """Read a run's answers to all test images: `test_index`, `label`, `prediction`, `confidence`.

        Raises
        ------
        DamagedFileError
            If they are missing or damaged.
        """
        frame: pd.DataFrame = Store(self.folder).parse_predictions(run_id).to_pandas()
        return frame

    @property
    def mistakes(self) -> pd.DataFrame | None:
        """Every wrong answer after the last epoch: `cell`, `seed`, `test_index`, `label`, `prediction`, `confidence`.

        None if predictions are not stored, or not all for the same test images: `no_mistakes` says which.
        """
        return None if isinstance(self._answers, str) else self._answers[0]

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        """The labels of the test images, shape (images,); None if `mistakes` is None."""
        return None if isinstance(self._answers, str) else self._answers[1]

    @property
    def no_mistakes(self) -> str:
        """Why `mistakes` is None; empty if it is not."""
        return self._answers if isinstance(self._answers, str) else ""

    @cached_property
    def _answers(self) -> Mistakes | str:
        """The wrong answers and the labels, read at their first use, or why there are none."""
        store = Store(self.folder)
        if self.study.trains_itself:
            return later("a training of your own stores none")
        try:
            if not store.compact_file.exists():
                return _gather_mistakes(store, self.final)
            if not store.mistakes_file.exists():
                return later("{folder} was stored without wrong answers", folder=self.folder)
            mistakes, labels = _read_mistakes(store.mistakes_file)
            return mistakes[mistakes["seed"].isin(self.final["seed"])], labels
        except DamagedFileError as error:
            return str(error).partition("; the run")[0]

    def _repr_html_(self) -> str:
        """Show the main response of each cell after the last epoch where a notebook displays the results."""
        response = self.study.responses[self.study.metric]
        values = shown(self.final, self.study.metric, self.study.responses)
        table = values.groupby(self.final["cell"], sort=False).agg(["count", "mean", "std"])
        number = f"{{:.{response.digits}f}}{'%' * (response.value_unit == '%')}"
        formatters = dict.fromkeys(("mean", "std"), number.format)
        return f"<p>{self.folder}: {html.escape(response.label)}</p>" + table.to_html(formatters=formatters)


def _read_mistakes(file: Path) -> Mistakes:
    """Read the wrong answers of a compact folder."""
    table, document = read_table(file)
    labels = document.get("labels")
    text = labels if isinstance(labels, str) else ""
    numbers = text.split(" ") if " " in text else list(text)  # of more than ten classes, with spaces
    if (
        table.column_names != MISTAKE_SCHEMA.names
        or not numbers
        or not all(n.isdecimal() and int(n) < 256 for n in numbers)
    ):
        raise DamagedFileError(f"{file}: damaged (it holds no wrong answers)")
    return table.to_pandas().astype({"cell": "category"}), np.array([*map(int, numbers)], dtype=np.uint8)


def _gather_mistakes(store: Store, final: pd.DataFrame) -> Mistakes | str:
    """Read the wrong answers from the predictions of all runs; return a reason if the runs' test images differ."""
    tables, labels = [], None
    for run_id, cell, seed in zip(final["run_id"], final["cell"], final["seed"], strict=True):
        table = store.parse_predictions(run_id)
        labels_of_run = table["label"].to_numpy()
        if labels is not None and not np.array_equal(labels, labels_of_run):
            return later("the runs were not all tested on the same images")
        labels = labels_of_run
        wrong = table.filter(pc.not_equal(table["label"], table["prediction"]))
        identity = {"cell": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(wrong), np.int32)), pa.array([cell])),
                    "seed": pa.array(np.full(len(wrong), seed))}  # fmt: skip
        columns = identity | {name: wrong[name] for name in wrong.column_names}
        tables.append(pa.table(columns, schema=MISTAKE_SCHEMA))
    assert labels is not None  # noqa: S101 # `read` returns no results without a run
    return pa.concat_tables(tables).unify_dictionaries().to_pandas(), labels


def load(folder: str | Path = "results/factorial") -> Results:
    """Read a results folder; unreadable files are left out and named in ``problems``.

    Raises
    ------
    ResultsError
        If there is no study in `folder`, or no readable run.
    DamagedFileError
        If the study's own file is damaged, or the one file of a compact folder.
    """
    return read(Store(user_path(folder)))


def read(store: Store, stored: StoredRuns | None = None) -> Results:
    """Return the results in a folder as `load` does, without reading runs again that are in `stored` already."""
    study = store.study()
    if stored is None:
        stored = store.read_compact(study) if store.compact_file.exists() else store.read_runs(study)
    problems = [*store.failures(), *stored.problems.values()]
    if not stored.documents:
        problem = f" {problems[0]}." if problems else ""
        if stored.outdated:
            problem += f" {len(stored.outdated)} were made with other code of yours."
        raise ResultsError(
            f"{store.folder}: no finished run there.{problem} Run the study: `python -m mnist_ablate run`."
        )
    epochs = pa.concat_tables(stored.tables).to_pandas()
    order = {cell.name: i for i, cell in enumerate(cells(study))}
    epochs = epochs.sort_values(
        ["cell", "seed", "epoch"], key=lambda c: c.map(order) if c.name == "cell" else c, ignore_index=True
    )
    # Seeds that an earlier call asked for are part of the study, too.
    n_seeds = int(epochs["seed"].max()) + 1 - study.first_seed
    if n_seeds > study.n_seeds:
        study = study.reaching(n_seeds)
    if study.metrics:
        last = epochs[epochs["epoch"] == epochs.groupby("run_id")["epoch"].transform("max")]
        study = study.with_digits(digits_by_spread(study.metrics, last))
    return Results(store.folder, study, epochs, stored.documents, problems, unindexed=stored.unindexed)
