"""What the measurements in ``results/reference/performance.parquet`` come to: a table, a picture, three aims."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mnist_ablate import plots
from mnist_ablate.plots import style

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "performance.parquet"
OURS = "ours"
LABELS = {
    "notebook": "a notebook's loop: DataLoader, ToTensor, default threads",
    "plain_torch": "PyTorch, tensors in memory, fused Adam, one process a core",
    "jax_vmap8": "JAX, jit and scan, vmap over 8 models, all cores",
    "jax_all_cores": "JAX, jit and scan, all cores",
    "jax_pinned": "JAX, jit and scan, one process a core",
    "ours": "this project: the whole main job, start-up counted",
    "floor": "floor: the bare matrix products, one process a core",
}
"""What each arrangement is, in the order of the table."""
JAX = ("jax_all_cores", "jax_vmap8", "jax_pinned")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Reduce measurements to a row per arrangement.

    Parameters
    ----------
    frame
        One row per arrangement and round, with `arrangement`, `round` and `seconds_per_model_epoch`.

    Returns
    -------
    Columns `median`, `min` and `max` in seconds per model-epoch, and `ratio`, `ratio_min`, `ratio_max`: how many
    times as long as the project takes, each ratio taken within a round, then its median and range.
    """
    wide = frame.pivot(index="round", columns="arrangement", values="seconds_per_model_epoch")
    wide = wide[[name for name in LABELS if name in wide.columns]]
    ratio = wide.div(wide[OURS], axis=0)
    columns = {"median": wide.median(), "min": wide.min(), "max": wide.max()}
    return pd.DataFrame(columns | {"ratio": ratio.median(), "ratio_min": ratio.min(), "ratio_max": ratio.max()})


@dataclass(frozen=True)
class Aim:
    """What the project aims at, what it reached, and whether that is enough; both are numbers, such as 10 times."""

    text: str
    wanted: float
    reached: float

    @property
    def holds(self) -> bool:
        """Whether the aim is reached; not, where it was not measured."""
        return self.reached >= self.wanted

    def __str__(self) -> str:
        if math.isnan(self.reached):
            return f"not measured: {self.text}"
        return f"{'holds' if self.holds else 'MISSED'}: {self.text}; reached {self.reached:.2f}"


def aims(frame: pd.DataFrame) -> list[Aim]:
    """Compare with the notebook's loop, the best JAX arrangement (by its median), the floor, and with no overhead."""
    table = summary(frame)
    ratio = {str(name): float(value) for name, value in table["ratio"].items()}
    median = {str(name): float(value) for name, value in table["median"].items()}
    best = min((name for name in JAX if name in median), key=lambda name: median[name], default="")
    return [
        Aim("at least 10 times as fast as the notebook's loop", 10.0, ratio.get("notebook", math.nan)),
        Aim("at least 1.3 times as fast as JAX's best arrangement", 1.3, ratio.get(best, math.nan)),
        Aim("at least 0.6 of the speed of the bare matrix products", 0.6, ratio.get("floor", math.nan)),
        Aim("at least 0.95 of the cores' time is training and evaluation", 0.95, training_share(frame).median()),
    ]


def training_share(frame: pd.DataFrame) -> "pd.Series[float]":
    """Return which part of all cores' time, from start to end, the main job trained and evaluated: one per round."""
    share: pd.Series[float] = frame.loc[frame["arrangement"] == OURS, "training_share"]
    return share


def markdown(frame: pd.DataFrame) -> str:
    """Write the table, and what it was measured on, for the README."""
    first = frame.iloc[0]
    lines = [
        f"Measured on {first['processor']}, {first['cores']} cores, with Python {first['python']}, "
        f"PyTorch {first['torch']} and JAX {first['jax']}: {_count(frame['round'].nunique(), 'round')}; "
        f"the main job is 8 cells, {_count(first['seeds'], 'seed')}, {_count(first['epochs'], 'epoch')}.",
        "",
        "| Seconds per model-epoch | median | lowest to highest | times as long as this project |",
        "| :-- | --: | --: | --: |",
    ]
    for name, row in summary(frame).iterrows():
        ratio = "1" if name == OURS else f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        seconds = f"{row['median']:.3f} | {row['min']:.3f} to {row['max']:.3f}"
        lines.append(f"| {LABELS[str(name)]} | {seconds} | {ratio} |")
    share = 100 * training_share(frame)
    lines += [
        "",
        f"Of the main job's time on all cores {share.median():.1f} % ({share.min():.1f} to {share.max():.1f}) is "
        "training and evaluation; the rest is start-up, planning, writing, and a core that idles at the end.",
    ]
    return "\n".join(lines) + "\n"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def figure(frame: pd.DataFrame, *, theme: plots.ThemeName = "light", width: float = plots.WIDTH) -> Figure:
    """Draw the median and the range of each arrangement, on a logarithmic axis of seconds per model-epoch."""
    table, colours = summary(frame), plots.THEMES[theme]
    figure, axes = style.canvas(colours, width, 0.8 + 0.42 * len(table))
    axes.set_xscale("log")
    axes.set_xlim(0.75 * table["min"].min(), 6 * table["max"].max())
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.axvline(float(table["median"][OURS]), color=colours.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0.9)
    for i, (name, row) in enumerate(table.iterrows()):
        colour = {OURS: colours.blue, "floor": colours.muted}.get(str(name), colours.orange)
        axes.plot([row["min"], row["max"]], [i, i], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(row["median"], i, "D" if name == OURS else "o", color=colour, markersize=7)
        text = f"{row['median']:.2f} s" + ("" if name == OURS else f", {row['ratio']:.2g} times")
        look: dict[str, Any] = {
            "color": colours.ink,
            "bbox": {"facecolor": colours.paper, "edgecolor": "none", "pad": 0.5},
        }
        axes.annotate(text, (row["max"], i), (8, 0), textcoords="offset points", va="center", fontsize=9, **look)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds per model-epoch: median of the rounds, and their range")
    style.name_rows(axes, [LABELS[str(name)] for name in table.index], limit=80)
    axes.grid(axis="x", color=colours.grid, linewidth=0.8)
    return figure


def agreement(frame: pd.DataFrame) -> str:
    """Say how far the peers' losses in the baseline cell are from ours, at most."""
    columns = ["first_losses_difference", "worst_first_losses_difference", "train_loss_difference"]
    worst = frame.reindex(columns=["arrangement", *columns]).groupby("arrangement").max().dropna()
    parts = [f"{name} {', '.join(f'{value:.1e}' for value in row)}" for name, *row in worst.itertuples()]
    what = "first 50 steps of seed 0, of all seeds, epoch means"
    return f"Losses differ from ours by at most ({what}): {'; '.join(parts) or 'not compared'}"


def readable(frame: pd.DataFrame) -> str:
    """Return the table for a terminal."""
    table = summary(frame)
    table.index = pd.Index([LABELS[str(name)] for name in table.index], name="seconds per model-epoch")
    return table.map(lambda value: "" if np.isnan(value) else f"{value:.3f}").to_string()
