"""The notebook, replicated: the numbers that it printed among runs of its cells, its ranking, and its mistakes."""

from functools import partial

import pandas as pd

from mnist_ablate import plots
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import at_start, count, mark, say, told
from mnist_ablate.notebook import replication
from mnist_ablate.notebook.printed import printed_cells
from mnist_ablate.report.format import NOTHING, estimate, interval, joined, number, out_of
from mnist_ablate.report.section import Section
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import Columns, Row, Table, estimated

_RESPONSES = {
    "test_accuracy": mark("test accuracy, %"), "train_loss": mark("loss while training"),
    "val_loss": mark("validation loss"),
}  # fmt: skip
_UNITS = {
    "test_accuracy": mark("test accuracy, points"), "train_loss": mark("loss while training, nats"),
    "val_loss": mark("validation loss, nats"),
}  # fmt: skip
_DIGITS = {"test_accuracy": 2, "train_loss": 4, "val_loss": 4}
_RANKINGS = {
    "printed": mark("as printed"), "means": mark("by the means over seeds"),
    "separable": mark("all that can be told apart"),
}  # fmt: skip


def section(analysis: Analysis) -> Section | None:
    """Return the comparison with the notebook; None unless the study has all of the notebook's cells."""
    if not replication.has_notebook(analysis.study):
        return None
    if analysis.results.final["epoch"].max() > max(len(network.train_loss) for network in printed_cells()):
        return None  # a longer training asks something else
    if replication.places(analysis).empty:
        return None
    frame = replication.places(analysis)
    accuracies, losses = frame[frame["response"] == "test_accuracy"], frame[frame["response"] != "test_accuracy"]
    rankings, mistakes = replication.rankings(analysis), replication.mistakes_did(analysis)
    return Section(
        "notebook",
        say("The notebook, replicated and explained"),
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
    headings = {"number": say("Network, number"), "printed": say("Printed")}
    for mode in modes:
        headings |= {f"{mode} mean": say("{mode}: mean (sd)", mode=at_start(told(mode))),
                     f"{mode} place": say("Runs below it, %")}  # fmt: skip
    rows = []
    for (network, response, epoch), of_number in frame.groupby(["name", "response", "epoch"], sort=False):
        digits, what = _DIGITS[str(response)], f"{network}, {told(_RESPONSES[str(response)])}"
        row = {"number": what if response == "test_accuracy" else say("{what}, epoch {epoch}", what=what, epoch=epoch)}
        row["printed"] = number(of_number["printed"].iloc[0], digits)
        by_mode = {str(numbers["mode"]): numbers for _, numbers in of_number.iterrows()}
        for mode in modes:
            row[f"{mode} mean"] = _mean(by_mode[mode], digits) if mode in by_mode else NOTHING
            row[f"{mode} place"] = _place(by_mode[mode]) if mode in by_mode else NOTHING
        rows.append(row)
    caption = say(
        "What the notebook printed, and where it lies among the runs of the same cell after the same epoch. 'As it "
        "ran': with its mistakes, evaluation in train mode and one BatchNorm for both layers; 'mended': without them. "
        "In a cell that neither mistake affects, both are the same runs."
    )
    in_file = say("The CSV file has the 95 % prediction interval for one more run.")
    return Table(name, caption, headings, rows, frame, in_file=in_file)


def _mean(row: Row, digits: int) -> str:
    return f"{number(row['mean'], digits)} ({number(row['sd'], digits)})"


def _place(row: Row) -> str:
    if not row["outside"]:
        return f"{100 * row['place']:.0f}"
    return say("0, below all {n}", n=row["n"]) if row["place"] < 0.5 else say("100, above all {n}", n=row["n"])


def _accuracies_picture(analysis: Analysis, frame: pd.DataFrame) -> Picture:
    lines = [
        say(
            "{network}, {mode}: printed {printed}, runs {least} to {most}, mean {mean}",
            network=row["name"], mode=told(row["mode"]), printed=number(row["printed"]), least=number(row["min"]),
            most=number(row["max"]), mean=number(row["mean"]),
        )
        for _, row in frame.iterrows()
    ]  # fmt: skip
    alt = say(
        "Dot plot of the test accuracy of every run, with what the notebook printed. In percent: {lines}.",
        lines="; ".join(lines),
    )
    return picture(partial(plots.printed_accuracies, analysis), alt)


def _losses_picture(analysis: Analysis, frame: pd.DataFrame) -> Picture | None:
    modes = replication.whole_modes(analysis)
    if not modes:
        return None
    inside = (~frame.loc[frame["mode"] == modes[0], "outside"].astype(bool)).groupby(frame["name"], sort=False)
    counts = "; ".join(f"{name} {out_of(int(of_network.sum()), len(of_network))}" for name, of_network in inside)
    alt = say(
        "Line plots of losses against epoch, a panel for each network: a band from the lowest run to the highest, "
        "{mode}, and the printed losses. Within the band: {counts}.",
        mode=told(modes[0]), counts=counts,
    )  # fmt: skip
    return picture(partial(plots.printed_losses, analysis, modes[0]), alt)


# ---- Rankings ----


def _rankings(frame: pd.DataFrame) -> Table:
    columns: Columns = {
        "what": (say("Ranking, best first"), lambda row: f"{told(_RANKINGS[row['ranking']])}: {told(row['order'])}"),
        "mode": (say("Runs"), lambda row: told(row["mode"])),
        **estimated(say("Four independent runs, %"), 1, value="share", sign=False, scale=100),
        **estimated(
            say("Four runs of one seed, %"),
            1,
            value="share_paired",
            ends=("low_paired", "high_paired"),
            sign=False,
            scale=100,
        ),
    }
    caption = say(
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
        "who": (say("Network, mistake"), lambda row: f"{row['name']}, {told(row['mistake'])}"),
        "number": (say("Number"), lambda row: _number_of(row, last=last)),
        "n": (say("Seeds"), lambda row: str(row["n"])),
        **estimated(say("Difference"), lambda row: _DIGITS[str(row["response"])]),
    }
    if last:
        caption = say(
            "What the notebook's mistakes did to its numbers: the run with the mistake minus the run of the same seed "
            "without it, mean over seeds, accuracy in points and losses in nats, after the last epoch. The baseline "
            "and L2 have neither dropout nor BatchNorm: there the mistakes change no bit."
        )
    else:
        caption = say(
            "What the notebook's mistakes did to its numbers: the run with the mistake minus the run of the same seed "
            "without it, mean over seeds, accuracy in points and losses in nats, after each epoch. The baseline and L2 "
            "have neither dropout nor BatchNorm: there the mistakes change no bit."
        )
    return Table.of("notebook-mistakes" if last else "notebook-mistakes-all", caption, rows, columns)


def _number_of(row: Row, *, last: bool) -> str:
    what = told(_UNITS[row["response"]])
    return what if last else say("{what}, epoch {epoch}", what=what, epoch=row["epoch"])


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
    words = {
        "inside": len(frame) - len(beyond), "all": len(frame),
        "runs": most if fewest == most else say("{low} to {high}", low=fewest, high=most),
        "expected": number(replication.expected_outside(frame), 1),
    }  # fmt: skip
    if mode == "mended":
        text = say(
            "Among runs without the notebook's mistakes, {inside} of {all} printed numbers lie within what {runs} runs "
            "of their cell gave. By chance alone about {expected} would lie outside.",
            **words,
        )
    else:
        text = say(
            "Among runs with the notebook's mistakes, {inside} of {all} printed numbers lie within what {runs} runs of "
            "their cell gave. By chance alone about {expected} would lie outside.",
            **words,
        )
    if beyond.empty:
        return text
    networks = joined(f"{name} ({_numbers(rows)})" for name, rows in beyond.groupby("name", sort=False))
    return f"{text} {say('Beyond all runs: {networks}.', networks=networks)}"


def _numbers(rows: pd.DataFrame) -> str:
    """Name printed numbers of a network: the response, and of losses the epochs."""
    parts = []
    for response, numbers in rows.groupby("response", sort=False):
        epochs = joined(numbers["epoch"])
        match response:
            case "test_accuracy":
                parts.append(say("accuracy"))
            case "train_loss":
                parts.append(count(len(numbers), "loss while training of epoch {epochs}",
                                   "loss while training of epochs {epochs}", epochs=epochs))  # fmt: skip
            case _:
                parts.append(count(len(numbers), "validation loss of epoch {epochs}",
                                   "validation loss of epochs {epochs}", epochs=epochs))  # fmt: skip
    return "; ".join(parts)


def _ranked(rankings: pd.DataFrame, mode: str) -> str:
    """Describe how likely the printed ranking is, and how often single runs are right."""
    rows = {str(row["ranking"]): row for _, row in rankings.iterrows()}
    printed, means, clear = (rows[name] for name in ("printed", "means", "separable"))
    words = {
        "printed": told(printed["order"]), "printed_share": _share(printed), "n": printed["n"],
        "means": told(means["order"]), "means_share": _share(means), "clear": told(clear["order"]),
        "clear_share": _share(clear),
    }  # fmt: skip
    if mode == "mended":
        return say(
            "Among runs without the notebook's mistakes, four independent ones rank the networks as the notebook did "
            "({printed}) in {printed_share} of cases. The means over {n} seeds rank them {means}, and four single runs "
            "do so in {means_share}. Those seeds are enough to establish {clear}, and four single runs agree with that "
            "in {clear_share}.",
            **words,
        )
    return say(
        "Among runs with the notebook's mistakes, four independent ones rank the networks as the notebook did "
        "({printed}) in {printed_share} of cases. The means over {n} seeds rank them {means}, and four single runs do "
        "so in {means_share}. Those seeds are enough to establish {clear}, and four single runs agree with that in "
        "{clear_share}.",
        **words,
    )


def _share(row: Row) -> str:
    low, high = 100 * row["low"], 100 * row["high"]
    bounds = "" if pd.isna(low) else f" ({interval(low, high, 1, sign=False)})"
    return f"{estimate(100 * row['share'], low, high, 1, sign=False)} %{bounds}"


TEMPLATE = """
    <p>{% trans %}The course notebook behind this study trained each network once, and printed one accuracy and ten
      losses for
      each. Here each printed number stands among runs that differ from it by chance alone.{% endtrans %}</p>
{% for sentence in sentences %}
    <p>{{ sentence }}</p>
{% endfor %}
{% if pictures["printed-accuracies"] %}
{% call figure(pictures, "printed-accuracies") %}
      {% trans %}Every dot is a run, the bar their mean, the hollow diamond what the notebook printed.{% endtrans %}

{% endcall %}
{{ table(tables.accuracies) }}
{% endif %}
{% if tables.rankings %}
{{ table(tables.rankings) }}
{% endif %}
{% if tables.mistakes %}
    <h3>{% trans %}What its mistakes did{% endtrans %}</h3>
{{ table(tables.mistakes) }}
    <details><summary>{% trans %}After each epoch{% endtrans %}</summary>
{{ table(tables.mistakes_by_epoch) }}
    </details>
{% endif %}
    <h3>{% trans %}Its losses{% endtrans %}</h3>
{% if pictures["printed-losses"] %}
{% call figure(pictures, "printed-losses") %}
      {% trans %}Bands reach from the lowest run to the highest, lines are means, and hollow marks are what the
      notebook printed.{% endtrans %}

{% endcall %}
{% endif %}
    <details><summary>{% trans %}Each of its losses{% endtrans %}</summary>
{{ table(tables.losses) }}
    </details>
"""
