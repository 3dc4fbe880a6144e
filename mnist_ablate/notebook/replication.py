"""The notebook, replicated: where its numbers lie among our runs, how certain its ranking is, what its mistakes did.

Any study may have the notebook's cells, with its mistakes or mended: see `mnist_ablate.notebook.printed.cells_of`.
"""

import itertools
import math
from collections.abc import Mapping

import pandas as pd

from mnist_ablate.design.design import Design
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.estimands import agreement, place_of
from mnist_ablate.inference.intervals import ALPHA, FloatArray, Sample, half_width, mean_interval
from mnist_ablate.language import mark
from mnist_ablate.notebook.printed import MODES, PrintedCell, cells_of, printed_cells
from mnist_ablate.store.results import Runs

SHOWN = (mark("as it ran"), mark("mended"))
"""The modes in which we compare the notebook's numbers with runs."""
_STEPS = (
    (mark("evaluated in train mode"), "train mode, two BatchNorms", "mended"),
    (mark("one BatchNorm for both layers, evaluated in train mode"), "as it ran", "train mode, two BatchNorms"),
    (mark("one BatchNorm for both layers, in evaluation mode"), "evaluation mode, one BatchNorm", "mended"),
    (mark("both mistakes"), "as it ran", "mended"),
)
"""Each mistake, the mode that has it, and the mode that differs in this mistake alone."""


def has_notebook(study: Design) -> bool:
    """Return whether `study` has all of the notebook's cells in one of the modes `SHOWN`."""
    return any(len(cells_of(study, mode)) == len(printed_cells()) for mode in SHOWN)


def whole_modes(runs: Runs | Analysis) -> list[str]:
    """Return the modes of `SHOWN` in which every one of the notebook's networks has runs."""
    frame = places(runs)
    return [mode for mode in SHOWN if frame[frame["mode"] == mode]["name"].nunique() == len(printed_cells())]


def _numbers(network: PrintedCell) -> list[tuple[str, int, float]]:
    """List what the notebook printed of a network: response, epoch, value."""
    losses = [
        (response, epoch, value)
        for response in ("train_loss", "val_loss")
        for epoch, value in enumerate(getattr(network, response), start=1)
    ]
    return [("test_accuracy", len(network.train_loss), network.test_accuracy), *losses]


def values(runs: Runs | Analysis, response: str, epoch: int) -> pd.DataFrame:
    """Return a response after an epoch: a row per seed, a column per cell that has runs of that many epochs.

    Accuracies in percent, losses in nats.
    """
    return analyse(runs).seeds(response, epoch).dropna(axis="columns", how="all")


def places(runs: Runs | Analysis) -> pd.DataFrame:
    """Return where each number that the notebook printed lies among the runs of its cell.

    Returns
    -------
    pandas.DataFrame
        One row per mode of `SHOWN` and printed number that the study has runs for: ``mode``, ``name`` (of the network),
        ``cell``, ``response``, ``epoch``, ``printed``, ``n``, ``mean``, ``sd``, ``min``, ``max`` over runs, ``low`` and
        ``high`` (95 % prediction interval for one more run: mean ± t s √(1 + 1/n)), ``place`` (share of runs below it,
        ties counted half), ``outside`` (beyond every run).
    """
    analysis = analyse(runs)
    return analysis.keep("notebook places", lambda: _places(analysis))


def _places(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for mode in SHOWN:
        cells = cells_of(analysis.study, mode)
        for network in printed_cells():
            for response, epoch, printed in _numbers(network) if network.name in cells else ():
                table, cell = values(analysis, response, epoch), cells[network.name]
                if cell in table:
                    number = {"mode": mode, "name": network.name, "cell": cell, "response": response, "epoch": epoch}
                    rows.append(number | {"printed": printed} | _place(_column(table, cell), printed))
    return pd.DataFrame(rows, columns=_PLACES)


_PLACES = ["mode", "name", "cell", "response", "epoch", "printed", "n", "mean", "sd", "min", "max", "low", "high",
           "place", "outside"]  # fmt: skip


def _column(table: pd.DataFrame, cell: str) -> FloatArray:
    return table[cell].dropna().to_numpy(dtype=float)


def _place(sample: FloatArray, printed: float) -> dict[str, float | bool]:
    n, mean = len(sample), float(sample.mean())
    sd = float(sample.std(ddof=1)) if n > 1 else math.nan
    half = float(half_width(sd * math.sqrt(1 + 1 / n), n - 1)) if n > 1 else math.nan
    low, high = float(sample.min()), float(sample.max())
    return {"n": n, "mean": mean, "sd": sd, "min": low, "max": high, "low": mean - half, "high": mean + half,
            "place": place_of(sample, printed), "outside": not low <= printed <= high}  # fmt: skip


def expected_outside(frame: pd.DataFrame) -> float:
    """Return how many numbers of `places` one more run is expected to have beyond all n runs: 2 / (n + 1) of each."""
    return float((2 / (frame["n"] + 1)).sum())


# ---- Rankings ----


def accuracies(runs: Runs | Analysis, mode: str) -> pd.DataFrame | None:
    """Return test accuracy in percent after the notebook's last epoch: a row per seed, a column per network.

    Networks from best to worst, as the notebook ranks them. None if the study lacks one of them, or the epoch.
    """
    analysis = analyse(runs)
    cells, printed = cells_of(analysis.study, mode), printed_cells()
    table = values(analysis, "test_accuracy", len(printed[0].train_loss))
    if len(cells) < len(printed) or not set(cells.values()) <= set(table.columns):
        return None
    best_first = sorted(printed, key=lambda network: -network.test_accuracy)
    return pd.DataFrame({network.name: table[cells[network.name]] for network in best_first}).dropna()


def separable(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs of columns, better first, whose mean difference within seeds is not 0.

    Student's t, with Bonferroni's correction: 5 % for all pairs together.
    """
    pairs = list(itertools.combinations([str(name) for name in table.columns], 2))
    clear = []
    for first, second in pairs:
        difference = (table[first] - table[second]).to_numpy(dtype=float)
        low, high = Sample.of(difference).interval(ALPHA / len(pairs))
        if low > 0 or high < 0:
            clear.append((first, second) if low > 0 else (second, first))
    return clear


def rankings(runs: Runs | Analysis) -> pd.DataFrame:
    """Return how often one run of each of the notebook's cells ranks them in some way.

    Returns
    -------
    pandas.DataFrame
        Three rows per mode of `SHOWN` that the study has: ``mode``, ``ranking`` (``"printed"``; ``"means"``, that of
        the means over seeds; ``"separable"``, any that agrees with all pairs of means that are separable), ``order``
        (in words), ``n``, and the share of four independent runs and of four runs of one seed that rank so, with its
        95 % interval: ``share``, ``low``, ``high``, ``share_paired``, ``low_paired``, ``high_paired``.
    """
    analysis = analyse(runs)
    return analysis.keep("notebook rankings", lambda: _rankings(analysis))


def _rankings(analysis: Analysis) -> pd.DataFrame:
    rows = []
    for mode in SHOWN:
        table = accuracies(analysis, mode)
        if table is None or table.empty:
            continue
        by_mean = [str(name) for name in table.mean().sort_values(ascending=False, kind="stable").index]
        printed, clear = [str(name) for name in table.columns], separable(table)
        for ranking, order, above in (
            ("printed", " > ".join(printed), list(itertools.pairwise(printed))),
            ("means", " > ".join(by_mean), list(itertools.pairwise(by_mean))),
            ("separable", _in_words(by_mean, clear), clear),
        ):
            row = {"mode": mode, "ranking": ranking, "order": order, "n": len(table)}
            rows.append(row | _shares(table, above))
    return pd.DataFrame(rows)


def _shares(table: pd.DataFrame, above: list[tuple[str, str]]) -> dict[str, float]:
    names = ("share", "low", "high")
    any_run = zip(names, agreement(table, above, paired=False), strict=True)
    same_seed = zip(names, agreement(table, above, paired=True), strict=True)
    return dict(any_run) | {f"{name}_paired": value for name, value in same_seed}


def _in_words(by_mean: list[str], clear: list[tuple[str, str]]) -> str:
    """Write the separable pairs as one ranking, with ``=`` between inseparable networks, or else pair by pair."""
    groups: list[list[str]] = []
    for name in by_mean:
        if groups and not any((other, name) in clear for other in groups[-1]):
            groups[-1].append(name)
        else:
            groups.append([name])
    implied = {(better, worse) for i, group in enumerate(groups) for better in group
               for later in groups[i + 1 :] for worse in later}  # fmt: skip
    if implied == set(clear):
        return " > ".join(" = ".join(group) for group in groups)
    return "; ".join(f"{better} > {worse}" for better, worse in clear) or mark("no two can be told apart")


# ---- What the mistakes did ----


def mistakes_did(runs: Runs | Analysis) -> pd.DataFrame:
    """Estimate what the notebook's mistakes did to each of its numbers, within each seed.

    Returns
    -------
    pandas.DataFrame
        One row per network, mistake that acts on it, and printed number: ``name``, ``mistake``, ``response``,
        ``epoch``, ``n``, ``estimate`` (with the mistake minus without), ``sd``, ``low``, ``high`` (95 % t interval).
    """
    analysis = analyse(runs)
    return analysis.keep("notebook mistakes", lambda: _mistakes_did(analysis))


def _mistakes_did(analysis: Analysis) -> pd.DataFrame:
    cells = {mode: cells_of(analysis.study, mode) for mode in MODES}
    rows = []
    for network in printed_cells():
        for mistake, wrong, right in _STEPS:
            pair = cells[wrong].get(network.name), cells[right].get(network.name)
            if None in pair or pair[0] == pair[1] or _repeats(cells, network.name, mistake):
                continue
            for response, epoch, _ in _numbers(network):
                table = values(analysis, response, epoch)
                if set(pair) <= set(table.columns):
                    z = (table[pair[0]] - table[pair[1]]).dropna().to_numpy(dtype=float)
                    row = {"name": network.name, "mistake": mistake, "response": response, "epoch": epoch}
                    rows.append(row | {"n": len(z)} | _difference(z))
    return pd.DataFrame(rows, columns=_DIFFERENCES)


_DIFFERENCES = ["name", "mistake", "response", "epoch", "n", "estimate", "sd", "low", "high"]


def _repeats(cells: Mapping[str, Mapping[str, str]], name: str, mistake: str) -> bool:
    """Return whether both mistakes together are the same as one of them, as in a network without BatchNorm."""
    return mistake == "both mistakes" and cells["as it ran"].get(name) == cells["train mode, two BatchNorms"].get(name)


def _difference(z: FloatArray) -> dict[str, float]:
    estimate, low, high = mean_interval(z)
    return {"estimate": estimate, "sd": float(z.std(ddof=1)) if len(z) > 1 else math.nan, "low": low, "high": high}
