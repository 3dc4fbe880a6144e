"""The notebook, replicated: the numbers that it printed among runs of its cells, its ranking, and its mistakes."""

from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.notebook import replication
from mnist_ablate.notebook.printed import printed_cells
from mnist_ablate.report.format import NOTHING, estimate, interval, joined, number, out_of, plural
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated

_RESPONSES = {"test_accuracy": "test accuracy, %", "train_loss": "loss while training", "val_loss": "validation loss"}
_UNITS = {"test_accuracy": "test accuracy, points", "train_loss": "loss while training, nats",
          "val_loss": "validation loss, nats"}  # fmt: skip
_DIGITS = {"test_accuracy": 2, "train_loss": 4, "val_loss": 4}
_MODES = {"as it ran": "with the notebook's mistakes", "mended": "without the notebook's mistakes"}
_RANKINGS = {"printed": "as printed", "means": "by the means over seeds", "separable": "all that can be told apart"}


def section(analysis: Analysis) -> Section | None:
    """Return the comparison with the notebook; None unless the study has all of the notebook's cells."""
    if not replication.has_notebook(analysis.study) or replication.places(analysis).empty:
        return None
    frame = replication.places(analysis)
    accuracies, losses = frame[frame["response"] == "test_accuracy"], frame[frame["response"] != "test_accuracy"]
    rankings, mistakes = replication.rankings(analysis), replication.mistakes_did(analysis)
    return Section(
        "notebook",
        "The notebook, replicated and explained",
        TEMPLATE,
        tables={
            "accuracies": places(accuracies, "printed-accuracies") if len(accuracies) else None,
            "rankings": _rankings(rankings) if len(rankings) else None,
            "mistakes": _mistakes(mistakes, last=True) if len(mistakes) else None,
            "mistakes_by_epoch": _mistakes(mistakes, last=False) if len(mistakes) else None,
            "losses": places(losses, "printed-losses"),
        },
        pictures={
            "printed-accuracies": _accuracies_picture(analysis, accuracies) if len(accuracies) else None,
            "printed-losses": _losses_picture(analysis, losses),
        },
        values={"sentences": sentences(analysis)},
    )


# ---- Printed numbers among runs ----


def places(frame: pd.DataFrame, name: str) -> Table:
    """Tabulate where printed numbers lie: a row for each number, columns for each mode."""
    modes = list(dict.fromkeys(frame["mode"]))
    headings = {"number": "Network, number", "printed": "Printed"}
    for mode in modes:
        headings |= {f"{mode} mean": f"{mode.capitalize()}: mean (sd)", f"{mode} place": "Runs below it, %"}
    rows = []
    for (network, response, epoch), of_number in frame.groupby(["name", "response", "epoch"], sort=False):
        digits, after = _DIGITS[str(response)], f", epoch {epoch}" if response != "test_accuracy" else ""
        row = {"number": f"{network}, {_RESPONSES[str(response)]}{after}"}
        row["printed"] = number(of_number["printed"].iloc[0], digits)
        by_mode = {str(numbers["mode"]): numbers for _, numbers in of_number.iterrows()}
        for mode in modes:
            row[f"{mode} mean"] = _mean(by_mode[mode], digits) if mode in by_mode else NOTHING
            row[f"{mode} place"] = _place(by_mode[mode]) if mode in by_mode else NOTHING
        rows.append(row)
    caption = (
        "What the notebook printed, and where it lies among the runs of the same cell after the same epoch. 'As it "
        "ran': with its mistakes, evaluation in train mode and one BatchNorm for both layers; 'mended': without them. "
        "In a cell that neither mistake affects, both are the same runs. The CSV file has the 95 % prediction interval "
        "for one more run."
    )
    return Table(name, caption, headings, rows, frame)


def _mean(row: Row, digits: int) -> str:
    return f"{number(row['mean'], digits)} ({number(row['sd'], digits)})"


def _place(row: Row) -> str:
    if not row["outside"]:
        return f"{100 * row['place']:.0f}"
    return f"{'0, below' if row['place'] < 0.5 else '100, above'} all {row['n']}"


def _accuracies_picture(analysis: Analysis, frame: pd.DataFrame) -> Picture:
    lines = [
        f"{row['name']}, {row['mode']}: printed {row['printed']:.2f}, runs {row['min']:.2f} to {row['max']:.2f}, "
        f"mean {row['mean']:.2f}"
        for _, row in frame.iterrows()
    ]
    alt = f"Dot plot of the test accuracy of every run, with what the notebook printed. In percent: {'; '.join(lines)}."
    return picture(partial(plots.printed_accuracies, analysis), alt)


def _losses_picture(analysis: Analysis, frame: pd.DataFrame) -> Picture | None:
    modes = replication.whole_modes(analysis)
    if not modes:
        return None
    inside = (~frame.loc[frame["mode"] == modes[0], "outside"].astype(bool)).groupby(frame["name"], sort=False)
    counts = "; ".join(f"{name} {out_of(int(of_network.sum()), len(of_network))}" for name, of_network in inside)
    alt = (
        "Line plots of losses against epoch, a panel for each network: a band from the lowest run to the highest, "
        f"{modes[0]}, and the printed losses. Within the band: {counts}."
    )
    return picture(partial(plots.printed_losses, analysis, modes[0]), alt)


# ---- Rankings ----


def _rankings(frame: pd.DataFrame) -> Table:
    columns: Columns = {
        "what": ("Ranking, best first", lambda row: f"{_RANKINGS[row['ranking']]}: {row['order']}"),
        "mode": ("Runs", lambda row: row["mode"]),
        **estimated("Four independent runs, %", 1, value="share", sign=False, scale=100),
        **estimated(
            "Four runs of one seed, %",
            1,
            value="share_paired",
            ends=("low_paired", "high_paired"),
            sign=False,
            scale=100,
        ),
    }
    caption = (
        "How often one run of each of the four networks ranks them in this way by test accuracy. Networks joined by = "
        "cannot be told apart: the interval of their difference within seeds, 95 % for all pairs together, contains 0. "
        "'All that can be told apart' counts every ranking that agrees with the other pairs."
    )
    return Table.of("rankings", caption, frame, columns)


# ---- Mistakes ----


def _mistakes(frame: pd.DataFrame, *, last: bool) -> Table:
    """Tabulate what the notebook's mistakes did to all of its numbers, or to those after the last epoch."""
    rows = frame[frame["epoch"] == len(printed_cells()[0].train_loss)] if last else frame
    columns: Columns = {
        "who": ("Network, mistake", lambda row: f"{row['name']}, {row['mistake']}"),
        "number": ("Number", lambda row: _UNITS[row["response"]] + ("" if last else f", epoch {row['epoch']}")),
        "n": ("Seeds", lambda row: str(row["n"])),
        **estimated("Difference", lambda row: _DIGITS[str(row["response"])]),
    }
    caption = (
        "What the notebook's mistakes did to its numbers: the run with the mistake minus the run of the same seed "
        f"without it, mean over seeds, accuracy in points and losses in nats, after {'the last' if last else 'each'} "
        "epoch. The baseline and L2 have neither dropout nor BatchNorm: there the mistakes change no bit."
    )
    return Table.of("notebook-mistakes" if last else "notebook-mistakes-all", caption, rows, columns)


# ---- Sentences ----


def sentences(analysis: Analysis) -> list[str]:
    """Describe the tables: for each mode what lies outside all runs, then how often runs rank the networks so."""
    frame, rankings, modes = (
        replication.places(analysis),
        replication.rankings(analysis),
        replication.whole_modes(analysis),
    )
    outside = [_outside(frame[frame["mode"] == mode], mode) for mode in modes]
    ranked = [_ranked(rankings[rankings["mode"] == mode], mode) for mode in modes] if len(rankings) else []
    return outside + ranked


def _outside(frame: pd.DataFrame, mode: str) -> str:
    """Count the printed numbers beyond all runs, beside how many one more run of each cell would have there."""
    beyond = frame[frame["outside"]]
    fewest, most = int(frame["n"].min()), int(frame["n"].max())
    runs = str(most) if fewest == most else f"{fewest} to {most}"
    text = (
        f"Among runs {_MODES[mode]}, {len(frame) - len(beyond)} of {plural(len(frame), 'printed number')} lie within "
        f"what {runs} runs of their cell gave. One more run of each cell would have about "
        f"{replication.expected_outside(frame):.1f} beyond all of them."
    )
    networks = (f"{name} ({_numbers(rows)})" for name, rows in beyond.groupby("name", sort=False))
    return f"{text} Beyond all runs: {joined(networks)}." if len(beyond) else text


def _numbers(rows: pd.DataFrame) -> str:
    """Name printed numbers of a network: the response, and of losses the epochs."""
    names = {"test_accuracy": "accuracy", "train_loss": "loss while training", "val_loss": "validation loss"}
    parts = []
    for response, numbers in rows.groupby("response", sort=False):
        plural_s = "s" if len(numbers) > 1 else ""
        epochs = "" if response == "test_accuracy" else f" of epoch{plural_s} {joined(numbers['epoch'])}"
        parts.append(names[str(response)] + epochs)
    return "; ".join(parts)


def _ranked(rankings: pd.DataFrame, mode: str) -> str:
    """Describe how likely the printed ranking is, and how often single runs are right."""
    rows = {str(row["ranking"]): row for _, row in rankings.iterrows()}
    printed, means, clear = (rows[name] for name in ("printed", "means", "separable"))
    return (
        f"Among runs {_MODES[mode]}, four independent ones rank the networks as the notebook did ({printed['order']}) "
        f"in {_share(printed)} of cases. The means over {printed['n']} seeds rank them {means['order']}, and four "
        f"single runs do so in {_share(means)}. Those seeds are enough to establish {clear['order']}, and four single "
        f"runs agree with that in {_share(clear)}."
    )


def _share(row: Row) -> str:
    low, high = 100 * row["low"], 100 * row["high"]
    bounds = "" if pd.isna(low) else f" ({interval(low, high, 1, sign=False)})"
    return f"{estimate(100 * row['share'], low, high, 1, sign=False)} %{bounds}"


TEMPLATE = """
    <p>The course notebook behind this study trained each network once, and printed one accuracy and ten losses for
      each. Here each printed number stands among runs that differ from it by chance alone.</p>
{% for sentence in sentences %}
    <p>{{ sentence }}</p>
{% endfor %}
{% if pictures["printed-accuracies"] %}
{% call figure(pictures, "printed-accuracies") %}
      Every dot is a run, the bar their mean, the hollow diamond what the notebook printed.
{% endcall %}
{{ table(tables.accuracies) }}
{% endif %}
{% if tables.rankings %}
{{ table(tables.rankings) }}
{% endif %}
{% if tables.mistakes %}
    <h3>What its mistakes did</h3>
{{ table(tables.mistakes) }}
    <details><summary>After each epoch</summary>
{{ table(tables.mistakes_by_epoch) }}
    </details>
{% endif %}
    <h3>Its losses</h3>
{% if pictures["printed-losses"] %}
{% call figure(pictures, "printed-losses") %}
      Bands reach from the lowest run to the highest, lines are means, and hollow marks are what the notebook printed.
{% endcall %}
{% endif %}
    <details><summary>Each of its losses</summary>
{{ table(tables.losses) }}
    </details>
"""
