"""Estimands: what the stored runs say of each cell and of each contrast of cells, frame to frame.

The seed is the unit of replication. All cells of a study share their seeds, so a contrast is taken within a seed,
which gives one number per seed; its interval is Student's t over seeds, and no common variance is assumed.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.design.contrasts import Contrast, Factor, Hypothesis, Level, collapse
from mnist_ablate.design.plan import cells, plan
from mnist_ablate.design.responses import PROBES, probe_of
from mnist_ablate.design.settings import CHANCE
from mnist_ablate.design.study import Study
from mnist_ablate.inference.estimands import log_epochs_to, summarise
from mnist_ablate.store.results import Results

CONFIDENCE = 0.95
LOSS_CAP = math.log(10)
"""The loss of guessing among ten digits, in nats. A larger one, or one that is not finite, counts as this: a run
that diverged must not be all that a mean shows, nor drop out of it."""

FloatArray = NDArray[np.float64]
Kind = Literal["main", "interaction", "simple", "level", "trend", "mean"]


@dataclass(frozen=True)
class Response:
    """How a response is reported.

    Parameters
    ----------
    label
        In words.
    unit
        Of a difference of two values.
    digits
        After the point, in tables.
    better
        +1 if higher is better, -1 if lower is, 0 if neither.
    """

    label: str
    unit: str
    digits: int
    better: int


RESPONSES = {
    "test_accuracy": Response("test accuracy", "points", 2, 1),
    "val_accuracy": Response("validation accuracy", "points", 2, 1),
    "gap": Response("gap between validation and training loss", "nats", 4, 0),
    "val_loss": Response("validation loss", "nats", 4, -1),
    "test_loss": Response("test loss", "nats", 4, -1),
    "train_loss_eval": Response("training loss", "nats", 4, -1),
    "train_loss": Response("training loss while training", "nats", 4, -1),
}
"""What a contrast can be about: columns of the results, and ``gap``, which is ``val_loss`` - ``train_loss_eval``."""


FURTHER_RESPONSES = {
    "log_epochs_to_97": Response("log of epochs to 97 % validation accuracy", "log ratio", 3, -1),
    "log_shift_linear": Response("log of how far linear outputs move in an epoch", "log ratio", 3, -1),
    "log_spread_linear": Response("log of how far the spread of linear outputs moves", "log ratio", 3, -1),
    "log_shift_activation": Response("log of how far what enters the activation moves", "log ratio", 3, -1),
    "log_spread_activation": Response(
        "log of how far the spread of what enters the activation moves", "log ratio", 3, -1
    ),
    "log_gradient_norm": Response("log of the gradient's norm", "log ratio", 3, 0),
    "log_weight_norm": Response("log of the weights' norm", "log ratio", 3, 0),
    "log_weight_evenness": Response("log of how evenly the weights are spread", "log ratio", 3, 0),
    "accuracy_lost_10": Response("accuracy lost without 10 % of the hidden units", "points", 2, -1),
    "accuracy_lost_20": Response("accuracy lost without 20 % of the hidden units", "points", 2, -1),
    "accuracy_lost_50": Response("accuracy lost without 50 % of the hidden units", "points", 2, -1),
    "accuracy_gain_of_50": Response("accuracy of the mean of 50 thinned networks above plain", "points", 2, 1),
    "loss_gain_of_50": Response("loss of the mean of 50 thinned networks above plain", "nats", 4, -1),
    "ece_gain_of_50": Response("calibration error of the mean of 50 thinned networks above plain", "fraction", 4, -1),
    "ece": Response("expected calibration error", "fraction", 4, -1),
}
"""What only some studies measure: it follows from curves that reach far enough, or needs a probe."""


def describe(response: str) -> Response:
    """Tell how any response that a hypothesis may name is reported."""
    return (RESPONSES | FURTHER_RESPONSES)[response]


def in_units(frame: pd.DataFrame, response: str) -> "pd.Series[float]":
    """Return a response in the unit in which it is reported.

    The one place where fractions become percent. Accuracies: percent; losses: nats, at most `LOSS_CAP`; ``gap``:
    the difference of two such losses. What probes say of accuracies: percentage points.
    """
    if response == "gap":
        return in_units(frame, "val_loss") - in_units(frame, "train_loss_eval")
    values: pd.Series[float] = frame[response].astype(float)
    if "accuracy" in response:
        return 100 * values
    return values.fillna(LOSS_CAP).clip(upper=LOSS_CAP) if "loss" in response and not probe_of(response) else values


def cell_names(study: Study) -> list[str]:
    """List the cells that `study` runs, in the order of the design."""
    return list(dict.fromkeys(run.cell for run in plan(study.model_copy(update={"seeds": 1}))))


def reference_cell(study: Study) -> str:
    """Name the cell that the others are compared with: all factors at their reference, else the first cell."""
    names = cell_names(study)
    return "baseline" if "baseline" in names else names[0]


def mean_interval(values: FloatArray) -> tuple[float, float, float]:
    """Mean of `values`, shape (n,), and the ends of its 95 % t interval.

    Ends are NaN where n = 1, all three where n = 0. Without spread the interval is the mean alone.
    """
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, math.nan, math.nan
    # scipy warns of lost precision where there is no spread; equal to rounding error is equal here.
    if np.allclose(values, values[0], rtol=1e-12, atol=1e-12):
        return mean, mean, mean
    interval = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return mean, float(interval.low), float(interval.high)


def seed_table(results: Results, response: str = "test_accuracy") -> pd.DataFrame:
    """Response after the last epoch: a row per seed, a column per cell of the design, NaN where there is no run."""

    def make() -> pd.DataFrame:
        final = _measured(results, response)
        table = final.assign(value=in_units(final, response)).pivot(index="seed", columns="cell", values="value")
        return table.reindex(columns=cell_names(results.study))

    return once(results, ("seeds", response), make)


def once(results: Results, what: tuple[str, ...], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return what `make` makes of `results`, made at the first call alone: a page asks for one table many times."""
    known = _TABLES.setdefault(results, {})
    if what not in known:
        known[what] = make()
    return known[what].copy()


_TABLES: WeakKeyDictionary[Results, dict[tuple[str, ...], pd.DataFrame]] = WeakKeyDictionary()


def _measured(results: Results, response: str) -> pd.DataFrame:
    """Give the last epoch of each run with what `response` needs: what follows from the curve, and from probes."""
    final = results.final
    if response == "log_epochs_to_97":
        return final.assign(**{response: final["run_id"].map(log_epochs_to(results.epochs))})
    return final.join(results.probes.reindex(columns=[response]), on="run_id") if probe_of(response) else final


def cell_table(results: Results, response: str = "test_accuracy") -> pd.DataFrame:
    """Summarise each cell, and its difference to the reference cell paired by seed.

    Parameters
    ----------
    results
        What `mnist_ablate.store.results.load` returns.
    response
        A column of the results, taken after the last epoch.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design, in its order; a cell without a run has n = 0.

        ``cell``, ``reference``
            Its name, and that of the cell it is compared with.
        ``n``, ``n_planned``, ``n_diverged``
            Runs with a value, seeds of the study, runs that diverged (they stay in, with their last evaluation).
        ``mean``, ``mean_low``, ``mean_high``, ``sd``, ``min``, ``max``
            Over seeds, with the 95 % t interval of the mean; accuracies in percent.
        ``n_pairs``, ``difference``, ``low``, ``high``
            Mean over the seeds that both cells have of (cell - reference), with its 95 % t interval;
            NaN in the reference cell itself. Accuracies in percentage points.
    """
    table = seed_table(results, response)
    reference = reference_cell(results.study)
    frame = pd.DataFrame([_summary(table, cell, reference) for cell in table.columns])
    final = results.final
    diverged = final[final["status"] == "diverged"].groupby("cell").size()
    frame.insert(2, "n_diverged", frame["cell"].map(diverged).fillna(0).astype(int))
    # A study run again with fewer seeds keeps the runs that it has.
    frame.insert(2, "n_planned", max(results.study.seeds, len(table)))
    return frame


def _summary(table: pd.DataFrame, cell: str, reference: str) -> dict[str, str | float]:
    values = table[cell].dropna().to_numpy(dtype=float)
    pairs = (table[cell] - table[reference]).dropna().to_numpy(dtype=float) if cell != reference else np.empty(0)
    mean, mean_low, mean_high = mean_interval(values)
    difference, low, high = mean_interval(pairs)
    return {
        "cell": cell,
        "n": len(values),
        "mean": mean,
        "mean_low": mean_low,
        "mean_high": mean_high,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "min": float(values.min()) if len(values) else math.nan,
        "max": float(values.max()) if len(values) else math.nan,
        "reference": reference,
        "n_pairs": len(pairs),
        "difference": difference,
        "low": low,
        "high": high,
    }


def curves(results: Results, response: str) -> pd.DataFrame:
    """Summarise a response over seeds, epoch by epoch.

    Parameters
    ----------
    results
        What `mnist_ablate.store.results.load` returns.
    response
        A column of the results.

    Returns
    -------
    pandas.DataFrame
        One row per cell of the design and epoch: ``cell``, ``epoch``, ``n``, ``n_diverged`` (by then), ``mean``,
        ``sd`` and ``half_width``, half the 95 % t interval of the mean: NaN where n = 1. A cell without a run has
        n = 0 in each of its epochs.
    """
    epochs = results.epochs.assign(
        value=in_units(results.epochs, response), diverged=results.epochs["status"] == "diverged"
    )
    groups = epochs.groupby(["cell", "epoch"])
    frame = groups.agg(
        n=("value", "count"), n_diverged=("diverged", "sum"), mean=("value", "mean"), sd=("value", "std")
    )
    frame = frame.reindex(_cell_epochs(results.study)).reset_index()
    frame[["n", "n_diverged"]] = frame[["n", "n_diverged"]].fillna(0).astype(int)
    t = stats.t.ppf((1 + CONFIDENCE) / 2, (frame["n"] - 1).clip(lower=1))
    frame["half_width"] = t * frame["sd"] / np.sqrt(frame["n"].clip(lower=1))
    return frame


def _cell_epochs(study: Study) -> pd.MultiIndex:
    """Every epoch that each cell is to have, in the order of the design."""
    runs = plan(study.model_copy(update={"seeds": 1}))
    pairs = [(run.cell, epoch) for run in runs for epoch in range(1, run.settings.epochs + 1)]
    return pd.MultiIndex.from_tuples(pairs, names=["cell", "epoch"])


# ---- Contrasts of cells ----


@dataclass(frozen=True)
class Effect:
    """A contrast as it is reported.

    Parameters
    ----------
    kind
        Main effect (averaged over the other factors' levels), interaction, simple effect (the others at their
        reference), a level against the reference, a trend, or the mean of a cell.
    label
        In words.
    contrast
        The contrast.
    """

    kind: Kind
    label: str
    contrast: Contrast


def standard_effects(study: Study) -> list[Effect]:
    """List the effects that every report of `study` shows, as far as its cells allow them.

    Main effects of factors with two levels, their interactions (up to three factors), the simple effect of each;
    for a factor with more levels, each level against the reference, and the trend where levels are numbers. None of a
    factor that draws a part of chance anew: its levels have no effect, but a variance.
    """
    factors = tuple(factor for factor in study.design if factor.name not in CHANCE)
    found = [*_main_effects(factors), *_interactions(factors), *_simple_effects(factors)]
    levels, ran = {cell.name: cell.levels for cell in cells(study)}, ran_as(study)
    return [effect for effect in found if _possible(effect.contrast, study.design, levels, ran)]


def _main_effects(factors: Iterable[Factor]) -> Iterator[Effect]:
    for factor in factors:
        if len(factor.levels) == 2:
            yield Effect("main", factor.name, Contrast(factor.name))
        for level in factor.levels[1:] if len(factor.levels) > 2 else ():
            yield Effect("level", factor.label(level), Contrast(_written(factor, level)))
        if len(factor.levels) > 2 and factor.scores is not None:
            yield Effect("trend", f"trend per {factor.step} of {factor.name}", Contrast(f"trend({factor.name})"))


def _written(factor: Factor, level: Level) -> str:
    return factor.name if len(factor.levels) == 2 else f"{factor.name}[{factor.label(level).partition('=')[2]}]"


def _interactions(factors: Iterable[Factor]) -> Iterator[Effect]:
    names = [factor.name for factor in factors if len(factor.levels) == 2]
    for n in (2, 3):
        for group in itertools.combinations(names, n):
            yield Effect("interaction", " × ".join(group), Contrast(":".join(group)))  # noqa: RUF001 # the sign of products


def _simple_effects(factors: tuple[Factor, ...]) -> Iterator[Effect]:
    for factor in factors if len(factors) > 1 else ():
        for level in factor.levels[1:]:
            yield Effect("simple", f"{factor.label(level)} alone", Contrast(_written(factor, level), "reference"))


def _possible(
    contrast: Contrast,
    factors: tuple[Factor, ...],
    levels: Mapping[str, Mapping[str, Level]],
    ran: Mapping[str, str],
) -> bool:
    """Tell whether a study has the cells of `contrast`, and they are not all one run, which has no effect to show."""
    try:
        return bool(_by_run(contrast.weights(factors, levels), ran))
    except ValueError:
        return False


def contrast_weights(study: Study, contrast: Contrast) -> dict[str, float]:
    """Give the weight of each cell that `contrast` needs, by the name under which the cell is run.

    Raises
    ------
    ValueError
        If the study has no such contrast.
    """
    levels = {cell.name: cell.levels for cell in cells(study)}
    return _by_run(contrast.weights(study.design, levels), ran_as(study))


def _by_run(weights: Mapping[str, float], ran: Mapping[str, str]) -> dict[str, float]:
    """Sum the weights of cells that are one run, and leave out what comes to nothing."""
    found = dict[str, float]()
    for name, weight in weights.items():
        found[ran[name]] = found.get(ran[name], 0.0) + weight
    return {name: weight for name, weight in found.items() if weight != 0}


def ran_as(study: Study) -> dict[str, str]:
    """Give each cell the name under which it is run: cells that come to the same are one, under the first's name."""
    listed = cells(study)
    return {cell.name: next(one.name for one in listed if one.settings == cell.settings) for cell in listed}


def seed_effects(results: Results, contrast: Contrast, response: str = "test_accuracy") -> "pd.Series[float]":
    """Take a contrast within each seed that has all the cells it needs.

    Returns
    -------
    pandas.Series
        One value per such seed, indexed by seed, in the unit of `in_units`.
    """
    return _within_seeds(seed_table(results, response), contrast_weights(results.study, contrast))


def _within_seeds(table: pd.DataFrame, weights: Mapping[str, float]) -> "pd.Series[float]":
    """Sum the cells of `table`, a row per seed, by their weights; seeds that lack one of them are left out."""
    return (table[list(weights)].dropna() * pd.Series(weights, dtype=float)).sum(axis=1)


def hypothesis_effects(results: Results, hypothesis: Hypothesis) -> "pd.Series[float]":
    """Take what a hypothesis is about within each seed that has all it needs; see `seed_effects`."""
    if not hypothesis.over or hypothesis.summary is None:
        return seed_effects(results, hypothesis.contrast, hypothesis.response)
    listed = cells(results.study)
    ran = ran_as(results.study)
    left = collapse(hypothesis.over, results.study.design, {cell.name: cell.levels for cell in listed})
    groups = {name: {level: ran[cell] for level, cell in of.items()} for name, of in left.groups.items()}
    table = summarise(seed_table(results, hypothesis.response), groups, hypothesis.summary)
    return _within_seeds(table, hypothesis.contrast.weights(left.factors, left.levels))


def spread_between_seeds(
    results: Results, response: str = "test_accuracy", cells: Iterable[str] | None = None
) -> float:
    """Give the standard deviation of a response over seeds within a cell: the root of the mean variance of `cells`."""
    table = seed_table(results, response)
    variances = (table if cells is None else table[list(cells)]).var(ddof=1)
    return math.sqrt(variances.mean()) if variances.notna().any() else math.nan


def effect_table(
    results: Results, response: str = "test_accuracy", effects: Iterable[Effect] | None = None
) -> pd.DataFrame:
    """Estimate effects on a response after the last epoch.

    Parameters
    ----------
    results
        What `mnist_ablate.store.results.load` returns.
    response
        One of `RESPONSES`.
    effects
        By default `standard_effects` of the study.

    Returns
    -------
    pandas.DataFrame
        One row per effect: ``kind``, ``label``, ``response``, ``n`` (seeds that have all its cells), ``n_planned``,
        ``n_diverged`` (runs among them), ``estimate``, ``sd``, ``se``, ``low`` and ``high`` (95 % t interval), ``p``
        (t test of 0), ``p_sign_flip`` (see `sign_flip_p`), ``in_spreads`` (estimate over
        `spread_between_seeds` of its cells).
        Accuracies in percentage points, losses in nats. What too few seeds leave undefined is NaN.
    """
    if effects is None:
        standard = standard_effects(results.study)
        return once(results, ("effects", response), lambda: _effect_rows(results, response, standard))
    return _effect_rows(results, response, effects)


def _effect_rows(results: Results, response: str, effects: Iterable[Effect]) -> pd.DataFrame:
    table, diverged = seed_table(results, response), diverged_table(results)
    rows = []
    for effect in effects:
        weights = contrast_weights(results.study, effect.contrast)
        z, spread = _within_seeds(table, weights), spread_between_seeds(results, response, weights)
        used = diverged[list(weights)].reindex(z.index)
        rows.append(
            {"kind": effect.kind, "label": effect.label, "response": response, "n": len(z)}
            | {"n_planned": max(results.study.seeds, len(z)), "n_diverged": int(used.eq(True).to_numpy().sum())}
            | t_summary(np.asarray(z, dtype=np.float64))
            | {"in_spreads": float(z.mean() / spread) if len(z) and spread else math.nan}
        )
    return pd.DataFrame(rows)


def t_summary(z: FloatArray) -> dict[str, float]:
    """Give the mean of `z`, shape (n,), with sd, se, 95 % t interval, and the p values of t and of sign flips."""
    estimate, low, high = mean_interval(z)
    sd = float(np.std(z, ddof=1)) if len(z) > 1 else math.nan
    p = float(stats.ttest_1samp(z, 0).pvalue) if len(z) > 1 and low != high else math.nan
    flips = sign_flip_p(z) if len(z) > 1 and low != high else math.nan
    return {"estimate": estimate, "sd": sd, "se": sd / math.sqrt(max(len(z), 1)), "low": low, "high": high} | {
        "p": p,
        "p_sign_flip": flips,
    }


_EXACT_FLIPS = 20
_RANDOM_FLIPS = 20_000
_FLIPS_AT_ONCE = 1000


def sign_flip_p(z: FloatArray) -> float:
    """Two-sided p of the hypothesis that `z`, shape (n,), is symmetric about 0: by flips of its signs.

    All 2^n of them up to n = 20; above, 20,000 random ones and the observed one (Phipson and Smyth 2010), always
    the same ones. Exact where the contrast is symmetric about 0, which its mean being 0 does not imply.
    """
    observed = abs(z.sum()) * (1 - 1e-12)  # sums in another order round differently
    if len(z) <= _EXACT_FLIPS:
        sums = z[:1]  # by symmetry, one sign can stay
        for value in z[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed))
    generator, total, as_far = np.random.default_rng(0), z.sum(), 1
    for _ in range(_RANDOM_FLIPS // _FLIPS_AT_ONCE):  # all at once would take gigabytes where there are many seeds
        flips = generator.integers(0, 2, (_FLIPS_AT_ONCE, len(z)), dtype=np.int8)
        as_far += int(np.count_nonzero(np.abs(2 * (flips.astype(float) @ z) - total) >= observed))
    return float(as_far / (1 + _RANDOM_FLIPS))


def diverged_table(results: Results) -> pd.DataFrame:
    """Return which runs diverged: a row per seed, a column per cell; NaN where there is no run."""
    final = results.final
    table = final.assign(diverged=final["status"] == "diverged").pivot(index="seed", columns="cell", values="diverged")
    return table.reindex(columns=cell_names(results.study))


def effects_by_epoch(results: Results, response: str = "test_accuracy") -> pd.DataFrame:
    """Estimate the main effects and levels after each epoch that all cells have.

    Returns
    -------
    pandas.DataFrame
        One row per effect and epoch: ``label``, ``epoch``, ``n``, ``estimate``, ``low``, ``high`` (95 % t interval).
    """
    last = int(results.epochs.groupby("run_id")["epoch"].max().min())
    listed = [effect for effect in standard_effects(results.study) if effect.kind in ("main", "level")]
    weights = {effect.label: contrast_weights(results.study, effect.contrast) for effect in listed}
    epochs = results.epochs.assign(value=in_units(results.epochs, response))
    rows = []
    for epoch in range(1, last + 1):
        table = epochs[epochs["epoch"] == epoch].pivot(index="seed", columns="cell", values="value")
        table = table.reindex(columns=cell_names(results.study))
        for label, of in weights.items():
            z = np.asarray(_within_seeds(table, of), dtype=np.float64)
            estimate, low, high = mean_interval(z)
            rows.append({"label": label, "epoch": epoch, "n": len(z), "estimate": estimate, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["label", "epoch", "n", "estimate", "low", "high"])


def probed(results: Results) -> pd.DataFrame | None:
    """Estimate the main effects on everything that the study's probes measured.

    Returns
    -------
    pandas.DataFrame or None
        The rows of `effect_table` for each response, with ``mean``, that of all runs of all cells; None without probes
        or effects.
    """
    listed = [effect for effect in standard_effects(results.study) if effect.kind in ("main", "level")]
    if not results.study.probes or not listed or results.probes.empty:
        return None
    tables = []
    for response in (name for probe in results.study.probes for name in PROBES[probe]):
        values = seed_table(results, response).to_numpy(dtype=float)
        mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        tables.append(effect_table(results, response, listed).assign(mean=mean))
    return pd.concat(tables, ignore_index=True)
