"""The tables of a report: for the page, for Markdown, for the terminal, and as CSV with all digits."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mnist_ablate.data import CLASS_NAMES
from mnist_ablate.inference.effects import (
    cell_names,
    cell_table,
    describe,
    effect_table,
    in_units,
    mean_interval,
    reference_cell,
)
from mnist_ablate.inference.test_images import always_wrong, confusions, two_way_table
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.report.verdict_words import BADGES
from mnist_ablate.report.words import MINUS, NOTHING, number, of, p_value, percent, span, time_span
from mnist_ablate.store.results import Results


@dataclass(frozen=True)
class Table:
    """A table as it is shown, and the numbers behind it.

    Parameters
    ----------
    name
        Of its CSV file.
    caption
        What it shows.
    headings
        By column; the first column names the rows.
    rows
        Text by column.
    frame
        The numbers with all digits, for the CSV file.
    """

    name: str
    caption: str
    headings: dict[str, str]
    rows: list[dict[str, str]]
    frame: pd.DataFrame

    @property
    def csv(self) -> str:
        """The numbers as comma-separated values."""
        return self.frame.to_csv(index=False, lineterminator="\n")


def table_rows(frame: pd.DataFrame, columns: dict[str, Callable[["pd.Series[float]"], str]]) -> list[dict[str, str]]:
    """Write the rows of a frame: each column of text by its function of the row."""
    return [{name: write(row) for name, write in columns.items()} for _, row in frame.iterrows()]


# ---- Cells ----


def cells(results: Results) -> Table:
    """Tabulate test accuracy by cell, and the difference to the reference cell."""
    frame = cell_table(results)
    reference = reference_cell(results.study)
    headings = {
        "cell": "Cell",
        "runs": "Runs",
        "mean": "Test accuracy, %",
        "sd": "sd",
        "difference": f"Difference to {reference}, points",
        "interval": "95 % interval",
        "diverged": "Diverged",
    }
    rows = table_rows(frame, {
        "cell": lambda row: str(row["cell"]),
        "runs": lambda row: of(int(row["n"]), int(row["n_planned"])),
        "mean": lambda row: number(row["mean"]),
        "sd": lambda row: number(row["sd"]),
        "difference": _difference,
        "interval": _interval,
        "diverged": lambda row: str(row["n_diverged"]),
    })  # fmt: skip
    caption = (
        "Accuracy on the test images after the last epoch: mean and standard deviation (sd) over seeds, and the "
        f"difference to {reference}, seed by seed, in percentage points."
    )
    return Table("cells", caption, headings, rows, frame)


def _difference(row: "pd.Series[float]") -> str:
    return "reference" if row["cell"] == row["reference"] else number(row["difference"], sign=True)


def _interval(row: "pd.Series[float]") -> str:
    # Which pairs there are is worth saying only where the numbers of runs do not say it.
    pairs = "" if row["n_pairs"] == row["n_planned"] or pd.isna(row["low"]) else f" ({row['n_pairs']} pairs)"
    return span(row["low"], row["high"]) + pairs


def text_table(results: Results) -> str:
    """Lay out the table of cells for a terminal."""
    return plain(cells(results))


def plain(table: Table) -> str:
    """Lay out any table for a terminal."""
    lines = [list(table.headings.values()), *(list(row.values()) for row in table.rows)]
    # A terminal may know fewer characters than a page.
    lines = [[text.replace(MINUS, "-") for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )


def markdown_table(results: Results) -> str:
    """Lay out the table of cells in Markdown."""
    return markdown(cells(results))


def markdown(table: Table) -> str:
    """Lay out any table in Markdown."""
    rule = [":--", *["--:"] * (len(table.headings) - 1)]
    lines = [table.headings.values(), *(row.values() for row in table.rows)]
    head, *body = [[markdown_text(text).replace(r"\_", "_") for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def markdown_text(text: str) -> str:
    """Make `text` safe inside a line of Markdown: one line, and no character that means something there."""
    return re.sub(r"([\\`*_\[\]<>#|&])", r"\\\1", " ".join(text.split()))


_LOSSES = {
    "train_loss": "While training",
    "train_loss_eval": "Training images",
    "val_loss": "Validation images",
    "test_loss": "Test images",
    "gap": "Gap",
}


def losses(results: Results) -> Table:
    """Tabulate mean losses after the last epoch."""
    means = {name: cell_table(results, name).set_index("cell")["mean"] for name in _LOSSES}
    frame = pd.DataFrame(means).reindex(cell_names(results.study)).reset_index(names="cell")
    rows = table_rows(frame, {"cell": lambda row: str(row["cell"])} | {name: _loss(name) for name in _LOSSES})
    caption = (
        "Mean loss over seeds in the last epoch, in nats. 'While training' is the mean over the batches of that epoch, "
        "seen while the weights still moved; the others are taken after it. The gap is validation less training images."
    )
    return Table("losses", caption, {"cell": "Cell"} | _LOSSES, rows, frame)


def _loss(name: str) -> Callable[["pd.Series[float]"], str]:
    return lambda row: number(row[name], 4)


def last_epoch(results: Results) -> Table:
    """Tabulate what the last epoch changed, cell by cell, which tells whether there is more to learn."""
    columns = ["val_loss", "val_accuracy"]
    epochs = results.epochs.assign(**{name: in_units(results.epochs, name) for name in columns})
    ends = epochs.groupby("run_id")["epoch"].transform("max")
    last = epochs[epochs["epoch"] == ends].set_index("run_id")
    before = epochs[epochs["epoch"] == ends - 1].set_index("run_id")
    change = (last[columns] - before[columns]).assign(cell=last["cell"]).dropna()
    rows, numbers = [], []
    for cell in cell_names(results.study):
        mine = change[change["cell"] == cell]
        loss, accuracy = (mean_interval(mine[name].to_numpy(dtype=np.float64)) for name in columns)
        numbers.append({"cell": cell, "n": len(mine)} | dict(zip(("loss", "loss_low", "loss_high"), loss, strict=True))
                       | dict(zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True)))  # fmt: skip
        rows.append({"cell": cell, "loss": number(loss[0], 4, sign=True), "loss_interval": span(*loss[1:], digits=4),
                     "accuracy": number(accuracy[0], sign=True), "accuracy_interval": span(*accuracy[1:])})  # fmt: skip
    headings = {"cell": "Cell", "loss": "Validation loss, nats", "loss_interval": "95 % interval",
                "accuracy": "Validation accuracy, points", "accuracy_interval": "95 % interval"}  # fmt: skip
    caption = "What the last epoch changed on validation images, run by run: mean over seeds."
    return Table("last-epoch", caption, headings, rows, pd.DataFrame(numbers))


# ---- Effects ----


def effects(results: Results, response: str = "test_accuracy") -> Table:
    """Tabulate the standard effects on a response."""
    frame, how = effect_table(results, response), describe(response)
    headings = {
        "label": "Effect",
        "kind": "Kind",
        "n": "Seeds",
        "estimate": f"Estimate, {how.unit}",
        "interval": "95 % interval",
        "in_spreads": "In spreads between seeds",
        "p": "p (t)",
        "p_sign_flip": "p (sign flips)",
    }
    rows = table_rows(frame, {
        "label": lambda row: str(row["label"]),
        "kind": lambda row: str(row["kind"]),
        "n": _seeds,
        "estimate": lambda row: number(row["estimate"], how.digits, sign=True),
        "interval": lambda row: span(row["low"], row["high"], how.digits),
        "in_spreads": lambda row: number(row["in_spreads"], 1, sign=True),
        "p": lambda row: p_value(row["p"]),
        "p_sign_flip": lambda row: p_value(row["p_sign_flip"]),
    })  # fmt: skip
    caption = (
        f"Effects on {how.label} after the last epoch, each taken within every seed. 95 % intervals are for one effect "
        "at a time, and decide on nothing: with many of them, one in twenty misses the truth by chance. "
        "A spread is the standard deviation between the seeds of a cell, over the cells that the effect compares."
    )
    return Table(f"effects-{response.replace('_', '-')}", caption, headings, rows, frame)


def _seeds(row: "pd.Series[float]") -> str:
    diverged = f", {row['n_diverged']} diverged" if row["n_diverged"] else ""
    return of(int(row["n"]), int(row["n_planned"])) + diverged


def verdicts(judgements: Sequence[Judgement]) -> Table:
    """Tabulate the verdicts with all that they rest on."""
    frame = pd.DataFrame([_verdict_numbers(judgement) for judgement in judgements])
    frame = frame.astype(dict.fromkeys(("seeds_likely", "seeds_cautious"), "Int64"))
    rows = [_verdict_words(judgement) for judgement in judgements]
    headings = {
        "id": "Hypothesis",
        "verdict": "Verdict",
        "n": "Seeds",
        "estimate": "Estimate",
        "interval": f"{percent(1 - judgements[0].alpha)} interval",
        "smallest": "Smallest that matters",
        "p_holm": "p (Holm)",
        "needed": "Seeds needed",
    }
    caption = (
        "Every hypothesis, in points for accuracies and nats for losses. p decides on nothing. Seeds needed: the "
        "likely number, and the one at the upper 80 % limit of the spread between seeds. The CSV file has more columns."
    )
    return Table("verdicts", caption, headings, rows, frame)


def _verdict_numbers(judgement: Judgement) -> dict[str, object]:
    hypothesis, needed = judgement.hypothesis, judgement.seeds_needed
    names = (
        "alpha",
        "low",
        "high",
        "inner_low",
        "inner_high",
        "p",
        "p_holm",
        "p_sign_flip",
        "n_planned",
        "provisional",
    )
    return {
        "id": hypothesis.id, "claim": hypothesis.claim, "statement": hypothesis.statement,
        "response": hypothesis.response, "effect": hypothesis.effect, "kind": hypothesis.kind,
        "smallest": hypothesis.smallest, "verdict": judgement.verdict, "n": judgement.sample.n,
        "estimate": judgement.sample.mean, "sd": judgement.sample.sd,
    } | {name: getattr(judgement, name) for name in names} | {
        "seeds_likely": needed.likely, "seeds_cautious": needed.cautious,
    }  # fmt: skip


def _verdict_words(judgement: Judgement) -> dict[str, str]:
    digits, needed = describe(judgement.hypothesis.response).digits, judgement.seeds_needed
    return {
        "id": judgement.hypothesis.id,
        "verdict": BADGES[judgement.verdict],
        "n": of(judgement.sample.n, judgement.n_planned),
        "estimate": number(judgement.sample.mean, digits, sign=True),
        "interval": span(judgement.low, judgement.high, digits),
        "smallest": f"{judgement.hypothesis.smallest:g}",
        "p_holm": p_value(judgement.p_holm),
        "needed": NOTHING if needed.likely is None else f"{needed.likely} ({needed.cautious or NOTHING})",
    }


# ---- Test images ----


def two_way(results: Results) -> Table | None:
    """Tabulate what seeds and what test images add to the uncertainty; None without stored predictions."""
    frame = two_way_table(results)
    if frame is None:
        return None
    numbers = ("estimate", "se_seeds", "se_images", "se_two_way", "df", "low_two_way", "high_two_way")
    frame = frame.reindex(columns=["kind", "label", "n", *numbers])  # none of them where no seed has all the cells
    headings = {"label": "Effect", "estimate": "Estimate, points", "seeds": "Error from seeds",
                "images": "Error from test images", "both": "95 % interval over both"}  # fmt: skip
    rows = table_rows(frame, {
        "label": lambda row: str(row["label"]),
        "estimate": lambda row: number(row["estimate"], sign=True),
        "seeds": lambda row: number(row["se_seeds"], 3),
        "images": lambda row: number(row["se_images"], 3),
        "both": lambda row: span(row["low_two_way"], row["high_two_way"]),
    })  # fmt: skip
    caption = (
        "Standard errors of effects on test accuracy, in points: from the choice of seeds, on these test images, and "
        "from the choice of test images; and the interval that allows for both, for digits that nobody has seen."
    )
    return Table("test-images", caption, headings, rows, frame)


def confused(results: Results, most: int = 10) -> Table | None:
    """Tabulate which classes are taken for which most often; None without stored predictions."""
    frame = confusions(results)
    if frame is None:
        return None
    names = CLASS_NAMES[results.study.protocol.dataset]
    headings = {"pair": "Label, answer", "per_run": "Mistakes in a run", "share": "Of all mistakes, %"}
    rows = table_rows(frame.head(most), {
        "pair": lambda row: f"{names[int(row['label'])]}, {names[int(row['prediction'])]}",
        "per_run": lambda row: number(row["per_run"], 1),
        "share": lambda row: number(100 * row["share"], 1),
    })  # fmt: skip
    caption = "The commonest mistakes, over all runs of all cells. The CSV file has all of them."
    return Table("confusions", caption, headings, rows, frame)


def hard(results: Results, most: int = 24) -> Table | None:
    """Tabulate the test images that every run gets wrong; None without stored predictions or where there is none."""
    frame = always_wrong(results)
    if frame is None or frame.empty:
        return None
    names = CLASS_NAMES[results.study.protocol.dataset]
    headings = {"image": "Test image", "label": "Label", "prediction": "Commonest answer", "share": "Runs with it, %"}
    rows = table_rows(frame.head(most), {
        "image": lambda row: f"{row['test_index']:.0f}",
        "label": lambda row: names[int(row["label"])],
        "prediction": lambda row: names[int(row["prediction"])],
        "share": lambda row: number(100 * row["share"], 0),
    })  # fmt: skip
    more = f" The first {most} of {len(frame)}; the CSV file has all of them." if len(frame) > most else ""
    return Table("always-wrong", f"Test images that every run of every cell gets wrong.{more}", headings, rows, frame)


# ---- Where the results come from ----


def provenance(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """List each key of the runs' provenance with its distinct values and the number of runs of each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for document in results.documents.values():
        declared = document.get("declared", {})
        known = {"data_sha256": document.get("data_sha256"), **document.get("provenance", {})}
        known |= {"study_sha256": declared.get("study_sha256"), "hypotheses_sha256": declared.get("hypotheses_sha256")}
        for key, value in known.items():
            counts[key][_recorded(value)] += 1
    started = counts.pop("started", Counter())
    table = [
        (_LABELS.get(key, key), [(value, of(n, len(results.documents))) for value, n in values.most_common()])
        for key, values in counts.items()
    ]
    return [*table, ("Started", [(time_span(started), str(started.total()))])] if started else table


def _recorded(value: object) -> str:
    """Name a value of the provenance; one that says nothing is a dash."""
    if isinstance(value, bool):
        return ("no", "yes")[value]
    return (value if isinstance(value, str) else json.dumps(value)) if value not in ("", None) else NOTHING


_LABELS = {
    "data_sha256": "Data, SHA-256",
    "study_sha256": "Study file, SHA-256",
    "hypotheses_sha256": "Hypotheses, SHA-256",
    "mnist_ablate": "mnist_ablate",
    "git_commit": "Git commit",
    "git_dirty": "Uncommitted changes",
    "environment": "Environment variables",
    "cpu_capability": "Vector instructions",
    "processor": "Processor",
    "platform": "Platform",
    "threads": "Threads in a run",
    "engine": "Engine",
    "python": "Python",
}
