"""What the documents say of graphics cards, from what `benchmarks/gpu/card.py` measured, if it has run yet."""

import math

import pandas as pd
import performance
from marks import table
from matplotlib.figure import Figure

from mnist_ablate import plots
from mnist_ablate.plots import style
from mnist_ablate.report.format import duration

NOT_YET = "Not measured yet."
RUNS = (80, 1_000, 100_000)
EPOCHS = 5
PROCESSORS, CARDS = 100, 8
"""Machines of a cluster."""
OURS = "this project"


def markdown(rows: pd.DataFrame | None) -> str:
    """Return what was measured, a line each, a table for each card; None where nothing was."""
    if rows is None:
        return NOT_YET
    return "\n\n".join(_of_card(of_card) for _, of_card in rows.groupby("card", sort=False))


def _of_card(rows: pd.DataFrame) -> str:
    card = rows.iloc[0]
    of = f"{card['card']}, {card['multiprocessors']} multiprocessors, driver for CUDA {card['driver'] / 1000:g}"
    lines = [
        [row["part"], row["what"], row["note"] or f"{row['value']:,.4g} {row['unit']}".strip()]
        for row in rows.to_dict("records")
    ]
    return f"{of}:\n\n" + table(["Part", "What", "Measured"], lines, left=(0, 1))


def first_card(rows: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the rows of the first card on which the main job was timed; None where there is none."""
    timed = [] if rows is None else list(rows[_is_main_job(rows)]["card"])
    return rows[rows["card"] == timed[0]] if rows is not None and timed else None


def _is_main_job(rows: pd.DataFrame) -> "pd.Series[bool]":
    return (rows["part"] == "main") & (rows["unit"] == "s") & rows["what"].str.startswith("80 runs")


def main_job(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return how many seconds 80 runs of five epochs take, ours first, then peers; those that failed are left out."""
    ours = rows[_is_main_job(rows)]["value"].median()
    peers = rows[(rows["part"] == "peers") & (rows["unit"] == "s for 5 epochs")]
    names = peers["what"].str.rsplit(", ", n=2).str[0]
    models = peers["what"].str.extract(r"(\d+) models$", expand=False).astype(float)
    of_peers = (peers["value"] * 80 / models).groupby(names, sort=False).median()
    found: pd.Series[float] = pd.concat([pd.Series({OURS: ours}), of_peers])
    return found


def headline(rows: pd.DataFrame | None) -> str:
    """Return the README's lines, table and picture."""
    rows = first_card(rows)
    if rows is None:
        return "How fast that is on a card is not measured yet."
    seconds = main_job(rows)
    peers = seconds.drop(OURS)
    fastest = (
        f" The fastest of them, {peers.idxmin()}, takes {peers.min() / seconds[OURS]:.1f} times as long." if len(peers)
        else ""
    )  # fmt: skip
    lines = [[name, f"{value:.1f}", f"{value / seconds[OURS]:.1f}"] for name, value in seconds.items()]
    return (
        f"On {rows['card'].iloc[0]} the main job, 80 runs of five epochs, takes {seconds[OURS]:.1f} s, start-up "
        "aside. Peers train as many models with the same evaluations on the same card, in full float32 and in TF32, "
        f"whose products have factors of 11 bits; this project's arithmetic is full float32.{fastest}\n\n"
        f"{table(['80 runs of five epochs', 'seconds', 'times as long'], lines)}\n\n"
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="docs/gpu-dark.svg">\n'
        '  <img alt="Seconds that 80 runs take on a card, with this project and others." src="docs/gpu-light.svg">\n'
        "</picture>"
    )


def figure(rows: pd.DataFrame, *, theme: plots.ThemeName = "light", width: float = plots.WIDTH) -> Figure:
    """Draw how many seconds 80 runs of five epochs take, on a logarithmic axis."""
    seconds, colours = main_job(rows), plots.THEMES[theme]
    figure, axes = style.canvas(colours, width, 0.8 + 0.42 * len(seconds))
    axes.set_xscale("log")
    axes.set_xlim(0.5 * seconds.min(), 3 * seconds.max())
    axes.set_ylim(len(seconds) - 0.4, -0.6)
    for i, (name, value) in enumerate(seconds.items()):
        ours = name == OURS
        axes.plot(value, i, "D" if ours else "o", color=colours.blue if ours else colours.orange, markersize=7)
        axes.annotate(f"{value:.1f} s", (value, i), (8, 0), textcoords="offset points", va="center", fontsize=9,
                      color=colours.ink)  # fmt: skip
    axes.set_xlabel("seconds for 80 runs of five epochs")
    style.name_rows(axes, [str(name) for name in seconds.index], limit=80)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    return figure


def costs(rows: pd.DataFrame | None, processors: pd.DataFrame) -> str:
    """Return what runs of five epochs take on a processor, on a card, and on a cluster of each, start-up aside.

    Parameters
    ----------
    rows
        What was measured on a card.
    processors
        What `nox -s peers` measured.
    """
    rows, measured = first_card(rows), performance.machines(processors)[0]
    first = measured.iloc[0]
    cores = int(first["cores"])
    of_run = cores * EPOCHS * performance.summary(measured)["median"][performance.OURS]  # on one core

    def shared(runs: int, machines: int) -> float:
        return float(math.ceil(runs / (machines * cores)) * of_run)

    lines = [
        [f"one machine: {first['processor']}, {cores} cores", *(duration(shared(n, 1)) for n in RUNS)],
        [f"{PROCESSORS} such machines", *(duration(shared(n, PROCESSORS)) for n in RUNS)],
        ["one card", *(_on_cards(rows, n, 1) for n in RUNS)],
        [f"{CARDS} such cards", *(_on_cards(rows, n, CARDS) for n in RUNS)],
    ]
    return table(["Runs of five epochs", *(f"{n:,}" for n in RUNS)], lines)


def _on_cards(rows: pd.DataFrame | None, runs: int, cards: int) -> str:
    """Return what runs take on some cards: as long as the smallest pack that holds them, or several of the largest."""
    packs = None if rows is None else rows[(rows["part"] == "packs") & (rows["unit"] == "s")]
    if packs is None or packs.empty:
        return NOT_YET[0].lower() + NOT_YET[1:-1]
    sizes = packs["what"].str.extract(r"^(\d+) ", expand=False).astype(int)
    seconds = dict(zip(sizes, packs["value"], strict=True))
    of_card = math.ceil(runs / cards)
    for size in sorted(seconds):
        if of_card <= size:
            return duration(seconds[size])
    return duration(of_card / max(seconds) * seconds[max(seconds)])
