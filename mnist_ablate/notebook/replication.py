"""The notebook, replicated: where its numbers lie among runs of its cells, how sure its ranking is, what mistakes did.

Its cells are looked for in any study, see `printed.cells_of`: as it ran them, and with its mistakes
mended.
"""

import itertools
import math
from collections.abc import Mapping

import pandas as pd
from scipy import stats

from mnist_ablate.design.study import Study
from mnist_ablate.inference.intervals import CONFIDENCE, FloatArray, mean_interval
from mnist_ablate.inference.effects import in_units
from mnist_ablate.inference.estimands import agreement, place_of
from mnist_ablate.notebook.printed import MODES, PrintedCell, cells_of, printed_cells
from mnist_ablate.store.results import Results

SHOWN = ("as it ran", "mended")
"""The modes in which its numbers are looked for."""
_STEPS = (
    ("evaluated in train mode", "train mode, two BatchNorms", "mended"),
    ("one BatchNorm for both layers, evaluated in train mode", "as it ran", "train mode, two BatchNorms"),
    ("one BatchNorm for both layers, in evaluation mode", "evaluation mode, one BatchNorm", "mended"),
    ("both mistakes", "as it ran", "mended"),
)


def has_notebook(study: Study) -> bool:
    """Tell whether `study` has all of the notebook's cells, as it ran them or mended."""
    return any(len(cells_of(study, mode)) == len(printed_cells()) for mode in SHOWN)


def _numbers(one: PrintedCell) -> list[tuple[str, int, float]]:
    """List what was printed of a network: response, epoch, value."""
    losses = [
        (response, epoch, value)
        for response in ("train_loss", "val_loss")
        for epoch, value in enumerate(getattr(one, response), start=1)
    ]
    return [("test_accuracy", len(one.train_loss), one.test_accuracy), *losses]


def values(results: Results, response: str, epoch: int) -> pd.DataFrame:
    """Give a response after an epoch: a row per seed, a column per cell; accuracies in percent, losses in nats."""
    epochs = results.epochs[results.epochs["epoch"] == epoch]
    table = epochs.assign(value=in_units(epochs, response)).pivot(index="seed", columns="cell", values="value")
    return table.astype(float)


def places(results: Results) -> pd.DataFrame:
    """Tell where each number that the notebook printed lies among the runs of its cell.

    Returns
    -------
    pandas.DataFrame
        One row per mode of `SHOWN` and printed number that the study has runs for: ``mode``, ``name`` (of the network),
        ``cell``, ``response``, ``epoch``, ``printed``, ``n``, ``mean``, ``sd``, ``min``, ``max`` over runs, ``low`` and
        ``high`` (95 % prediction interval for one more run: mean ± t s √(1 + 1/n)), ``place`` (share of runs below it,
        ties counted half), ``outside`` (beyond every run).
    """
    rows = []
    for mode in SHOWN:
        cells = cells_of(results.study, mode)
        for one in printed_cells():
            for response, epoch, printed in _numbers(one) if one.name in cells else ():
                table = values(results, response, epoch)
                if cells[one.name] in table:
                    who = {"mode": mode, "name": one.name, "cell": cells[one.name]}
                    what = {"response": response, "epoch": epoch, "printed": printed}
                    rows.append(who | what | _place(table[cells[one.name]].dropna().to_numpy(dtype=float), printed))
    return pd.DataFrame(rows, columns=_PLACES)


_PLACES = ["mode", "name", "cell", "response", "epoch", "printed", "n", "mean", "sd", "min", "max", "low", "high",
           "place", "outside"]  # fmt: skip


def _place(found: FloatArray, printed: float) -> dict[str, float | bool]:
    n, mean = len(found), float(found.mean())
    sd = float(found.std(ddof=1)) if n > 1 else math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd * math.sqrt(1 + 1 / n) if n > 1 else math.nan
    low, high = float(found.min()), float(found.max())
    return {"n": n, "mean": mean, "sd": sd, "min": low, "max": high, "low": mean - half, "high": mean + half,
            "place": place_of(found, printed), "outside": not low <= printed <= high}  # fmt: skip


def expected_outside(frame: pd.DataFrame) -> float:
    """Give how many numbers of `places` one more run would be expected to have beyond all n: 2 / (n + 1) of each."""
    return float((2 / (frame["n"] + 1)).sum())


# ---- Rankings ----


def accuracies(results: Results, mode: str) -> pd.DataFrame | None:
    """Give test accuracy in percent after the notebook's last epoch: a row per seed, a column per network of its.

    Networks from best to worst, as it ranks them. None where the study lacks one of them, or the epoch.
    """
    cells, printed = cells_of(results.study, mode), printed_cells()
    table = values(results, "test_accuracy", len(printed[0].train_loss))
    if len(cells) < len(printed) or not set(cells.values()) <= set(table.columns):
        return None
    best_first = sorted(printed, key=lambda one: -one.test_accuracy)
    return pd.DataFrame({one.name: table[cells[one.name]] for one in best_first}).dropna()


def separable(table: pd.DataFrame) -> list[tuple[str, str]]:
    """List the pairs of columns, better first, whose difference within seeds is not 0: t, at 5 % for all together."""
    pairs = list(itertools.combinations([str(name) for name in table.columns], 2))
    found = []
    for one, other in pairs:
        difference = (table[one] - table[other]).to_numpy(dtype=float)
        mean, sd, n = difference.mean(), difference.std(ddof=1) if len(difference) > 1 else math.nan, len(difference)
        if n > 1 and abs(mean) > stats.t.ppf(1 - (1 - CONFIDENCE) / len(pairs) / 2, n - 1) * sd / math.sqrt(n):
            found.append((one, other) if mean > 0 else (other, one))
    return found


def rankings(results: Results) -> pd.DataFrame:
    """Tell how often one run of each of the notebook's cells ranks them in some way.

    Returns
    -------
    pandas.DataFrame
        Three rows per mode of `SHOWN` that the study has: ``mode``, ``ranking`` (``"printed"``; ``"means"``, that of
        the means over seeds; ``"separable"``, any that agrees with all pairs of means that are separable), ``order``
        (in words), ``n``, and of four independent runs and of four runs of one seed the share that ranks so, with its
        95 % interval: ``share``, ``low``, ``high``, ``share_paired``, ``low_paired``, ``high_paired``.
    """
    rows = []
    for mode in SHOWN:
        table = accuracies(results, mode)
        if table is None or table.empty:
            continue
        by_mean = [str(name) for name in table.mean().sort_values(ascending=False, kind="stable").index]
        printed, clear = [str(name) for name in table.columns], separable(table)
        for ranking, order, above in (
            ("printed", " > ".join(printed), list(itertools.pairwise(printed))),
            ("means", " > ".join(by_mean), list(itertools.pairwise(by_mean))),
            ("separable", _in_words(by_mean, clear), clear),
        ):
            who = {"mode": mode, "ranking": ranking, "order": order, "n": len(table)}
            rows.append(who | _shares(table, above))
    return pd.DataFrame(rows)


def _shares(table: pd.DataFrame, above: list[tuple[str, str]]) -> dict[str, float]:
    names = ("share", "low", "high")
    any_run = zip(names, agreement(table, above, paired=False), strict=True)
    same_seed = zip(names, agreement(table, above, paired=True), strict=True)
    return dict(any_run) | {f"{name}_paired": value for name, value in same_seed}


def _in_words(by_mean: list[str], clear: list[tuple[str, str]]) -> str:
    """Write the separable pairs: what is joined by ``=`` cannot be told apart, where that makes groups."""
    groups: list[list[str]] = []
    for name in by_mean:
        if groups and not any((other, name) in clear for other in groups[-1]):
            groups[-1].append(name)
        else:
            groups.append([name])
    implied = {(one, other) for i, group in enumerate(groups) for one in group
               for later in groups[i + 1 :] for other in later}  # fmt: skip
    if implied == set(clear):
        return " > ".join(" = ".join(group) for group in groups)
    return "; ".join(f"{one} > {other}" for one, other in clear) or "no two can be told apart"


# ---- What the mistakes did ----


def mistakes_did(results: Results) -> pd.DataFrame:
    """Estimate what the notebook's mistakes did to each of its numbers, seed by seed.

    Returns
    -------
    pandas.DataFrame
        One row per network, mistake that acts on it, and printed number: ``name``, ``mistake``, ``response``,
        ``epoch``, ``n``, ``estimate`` (with the mistake less without), ``sd``, ``low``, ``high`` (95 % t interval).
    """
    cells = {mode: cells_of(results.study, mode) for mode in MODES}
    rows = []
    for one in printed_cells():
        for mistake, wrong, right in _STEPS:
            pair = cells[wrong].get(one.name), cells[right].get(one.name)
            if None in pair or pair[0] == pair[1] or _repeats(cells, one.name, mistake):
                continue
            for response, epoch, _ in _numbers(one):
                table = values(results, response, epoch)
                if set(pair) <= set(table.columns):
                    z = (table[pair[0]] - table[pair[1]]).dropna().to_numpy(dtype=float)
                    what = {"name": one.name, "mistake": mistake, "response": response, "epoch": epoch}
                    rows.append(what | {"n": len(z)} | _difference(z))
    return pd.DataFrame(rows, columns=_DIFFERENCES)


_DIFFERENCES = ["name", "mistake", "response", "epoch", "n", "estimate", "sd", "low", "high"]


def _repeats(cells: Mapping[str, Mapping[str, str]], name: str, mistake: str) -> bool:
    """Tell whether both mistakes together come to one of them, as where there is no BatchNorm."""
    return mistake == "both mistakes" and cells["as it ran"].get(name) == cells["train mode, two BatchNorms"].get(name)


def _difference(z: FloatArray) -> dict[str, float]:
    estimate, low, high = mean_interval(z)
    return {"estimate": estimate, "sd": float(z.std(ddof=1)) if len(z) > 1 else math.nan, "low": low, "high": high}
