"""Results over many levels: a response against each level, limits, spread, speed, and parts of the variance."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Factor, Hypothesis, Level, show
from mnist_ablate.design.design import REFERENCE, Design
from mnist_ablate.design.plan import cells
from mnist_ablate.design.responses import SEEDS, SUMMARIES
from mnist_ablate.design.study import Study
from mnist_ablate.inference.effects import groups_over
from mnist_ablate.inference.estimands import is_censored, log_epochs_to, summarise, variance_parts
from mnist_ablate.inference.intervals import FloatArray, Sample, median_interval
from mnist_ablate.language import mark
from mnist_ablate.store.results import Results

# ---- A response against the levels of a factor ----


def graded(study: Design) -> list[Factor]:
    """List the factors with three or more levels, all of them numbers, except those that draw chance anew."""
    return [f for f in study.varied if len(f.levels) > 2 and f.scores is not None and f.name not in study.chance]


def by_level(study: Design, numbers: pd.DataFrame) -> pd.DataFrame:
    """Arrange the rows of `mnist_ablate.inference.measured.cell_table` by the levels of the graded factors.

    Returns
    -------
    pandas.DataFrame
        One row per factor, line and level, levels increasing: ``factor``, ``line`` (the other factors' levels, less
        those at their reference), ``level``, ``cell``, ``n``, ``n_diverged``, ``mean``, ``low`` and ``high`` (95 % t
        interval). Combinations that have fewer than three of the levels are left out.
    """
    known = numbers.set_index("cell")[["n", "n_diverged", "mean", "mean_low", "mean_high"]]
    rows = known.set_axis(["n", "n_diverged", "mean", "low", "high"], axis="columns").to_dict(orient="index")
    points = [
        {"factor": factor.name, "line": line, "level": level, "cell": cell} | rows[cell]
        for factor in graded(study)
        for line, by_level in _lines(study, factor).items()
        for level, cell in by_level.items()
    ]
    return pd.DataFrame(points, columns=["factor", "line", "level", "cell", "n", "n_diverged", "mean", "low", "high"])


def _lines(study: Design, factor: Factor) -> dict[str, dict[Level, str]]:
    """Return the cells that differ in `factor` alone, by level, for each line that has three of them."""
    collapsed, groups = groups_over(study, factor.name)
    lines = {_others(collapsed.factors, collapsed.levels[name]): by_level for name, by_level in groups.items()}
    return {line: by_level for line, by_level in lines.items() if len(by_level) > 2}


def _others(factors: tuple[Factor, ...], levels: Mapping[str, Level]) -> str:
    """Name levels of `factors`, leaving out those at their reference."""
    parts = [label for factor in factors if (label := factor.label(levels[factor.name]))]
    if parts or not factors:
        return "+".join(parts) or "all cells"
    return f"without {factors[0].name}" if len(factors) == 1 and not factors[0].reference else REFERENCE


# ---- Summaries over levels ----


def summarised(study: Design) -> list[Hypothesis]:
    """List the hypotheses of `study` that summarise over a factor's levels, one for each kind of summary."""
    asked = [h for h in study.hypotheses if h.summary and h.over != SEEDS]
    kinds = {(h.over, h.summary, h.response, h.within): h for h in reversed(asked)}
    return list(reversed(kinds.values()))


def over_levels(study: Design, hypothesis: Hypothesis, table: pd.DataFrame) -> pd.DataFrame:
    """Summarise over a factor's levels, for each combination of the others.

    Parameters
    ----------
    study
        The design.
    hypothesis
        Which factor, and which summary.
    table
        Its response: a row per seed, a column per cell.

    Returns
    -------
    pandas.DataFrame
        One row per combination: ``others``, ``n`` (seeds), and for a summary in steps the ``levels`` with the number of
        seeds of each, their median ``level`` (the lower of two), ``n_end`` (seeds in which no level of the grid
        fails: the limit lies beyond it); for others, which are logarithms, the geometric ``mean`` with ``low`` and
        ``high`` (95 % t interval), and ``sd_seeds``, the standard deviation over seeds at the reference level.
    """
    collapsed, groups = groups_over(study, hypothesis.over, hypothesis.within)
    groups = {name: by_level for name, by_level in groups.items() if len(by_level) > 2}
    name = hypothesis.summary or ""
    summary = SUMMARIES[name]
    numbers = summarise(table, groups, name)
    reference = next(factor.reference for factor in study.varied if factor.name == hypothesis.over)
    rows = []
    for group, by_level in groups.items():
        z = numbers[group].dropna().to_numpy(dtype=float)
        alone = table[by_level[reference]].std(ddof=1) if reference in by_level else math.nan
        row = _steps(z, list(by_level)) if summary.steps else _mean(z, float(alone))
        rows.append({"others": _others(collapsed.factors, collapsed.levels[group]), "n": len(z)} | row)
    return pd.DataFrame(rows)


def _steps(z: FloatArray, levels: list[Level]) -> dict[str, object]:
    counts = {int(place): int((z == place).sum()) for place in np.unique(z)}
    names = {place: show(levels[place]) if place >= 0 else "none" for place in counts}
    middle = int(np.sort(z)[(len(z) - 1) // 2]) if len(z) else -1
    return {
        "levels": "; ".join(f"{names[place]}: {n}" for place, n in counts.items()),
        "level": levels[middle] if middle >= 0 else math.nan,
        "n_end": counts.get(len(levels) - 1, 0),
    }


def _mean(z: FloatArray, alone: float) -> dict[str, object]:
    sample = Sample.of(z)
    mean, low, high = map(math.exp, (sample.mean, *sample.interval()))
    return {"mean": mean, "low": low, "high": high, "sd_seeds": alone}


# ---- Speed ----


def has_speed(study: Study) -> bool:
    """Return whether `study` measures learning speed: a hypothesis asks, or it evaluates within a pass."""
    asks = any(hypothesis.response == "log_epochs_to_97" for hypothesis in study.hypotheses)
    return asks or any(cell.settings.epoch_steps for cell in cells(study))


def speed(results: Results) -> pd.DataFrame:
    """Return when the runs of each cell reach 97 % validation accuracy; a run that never does counts as the latest.

    Returns
    -------
    pandas.DataFrame
        One row per cell: ``cell``, ``n``, ``n_reached``, ``median`` epochs, ``low`` and ``high`` (95 % interval of the
        median, by order statistics), infinite where the runs end before; ``epochs`` that the runs last, and
        ``steps`` in an epoch, 0 for a pass through the images.
    """
    final, under = results.final.set_index("run_id"), results.study.run_under
    times = log_epochs_to(results.epochs).where(~is_censored(results.epochs), math.inf).map(math.exp)
    steps = {under[cell.name]: cell.settings.epoch_steps for cell in cells(results.study)}
    rows = []
    for cell in results.study.cell_names:
        mine = times[final.index[final["cell"] == cell]].to_numpy(dtype=float)
        low, high = median_interval(mine, 0.05) if len(mine) else (math.nan, math.nan)
        rows.append({"cell": cell, "n": len(mine), "n_reached": int(np.isfinite(mine).sum()),
                     "median": _median(mine), "low": max(low, 0.0), "high": high,
                     "epochs": final.loc[final["cell"] == cell, "epoch"].max(), "steps": steps[cell]})  # fmt: skip
    return pd.DataFrame(rows)


def _median(times: FloatArray) -> float:
    """Return the median, infinite where it lies among runs that never arrive."""
    if len(times) == 0:
        return math.nan
    middle = np.sort(times)[[(len(times) - 1) // 2, len(times) // 2]]
    return float(middle.mean()) if np.isfinite(middle).all() else math.inf


# ---- Parts of variance ----

_RESAMPLES = 4_000


def chance_factors(study: Design) -> tuple[Factor, ...]:
    """Return the factors of `study` if all are parts of chance with two levels and no cell is left out; else none."""
    fits = all(factor.name in study.chance and len(factor.levels) == 2 for factor in study.varied)
    whole = len(study.cell_levels) == len(study.cell_names) == 2 ** len(study.varied)
    return study.varied if fits and whole else ()


def components(study: Design, table: pd.DataFrame) -> pd.DataFrame:
    """Divide the variance of a response between runs among the parts of chance; see `estimands.variance_parts`.

    Parameters
    ----------
    study
        The design, which must have `chance_factors`.
    table
        The response: a row per seed, a column per cell.

    Returns
    -------
    pandas.DataFrame
        A row per part of chance, for all interactions of two, for those of more (which hold what no part explains), and
        for their sum: ``source``, ``n`` (seeds), ``variance``, ``sd`` (its root; 0 where the estimate is negative, NaN
        where the whole interval is), ``share`` of the sum, and the ends of each one's 95 % interval
        (``variance_low``, ...), percentiles over seeds drawn again.
    """
    parts = _gathered(variance_parts(table, study.cell_levels, chance_factors(study)), study.chance)
    n = len(parts)
    again = (
        np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n if n > 1 else np.empty((0, n))
    )
    drawn, estimates = again @ parts.to_numpy(), dict(zip(map(str, parts), parts.mean(), strict=True))
    rows = []
    for i, source in enumerate(estimates):
        mine, value = drawn[:, i], float(estimates[source])
        share = value / estimates["all"] if estimates["all"] > 0 else math.nan
        numbers = {"variance": (value, mine), "sd": (math.sqrt(max(value, 0.0)), np.sqrt(mine.clip(min=0))),
                   "share": (share, mine / np.where(drawn[:, -1] > 0, drawn[:, -1], math.nan))}  # fmt: skip
        with_ends = _with_ends(numbers)
        if with_ends["variance_high"] < 0:  # it has no root, and 0 would read as certainty
            with_ends |= dict.fromkeys(("sd", "sd_low", "sd_high"), math.nan)
        rows.append({"source": source, "n": n} | with_ends)
    return pd.DataFrame(rows)


def _gathered(parts: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Sum the interactions of two parts of chance, those of more, and everything."""
    order = {str(name): str(name).count(":") + 1 for name in parts}
    single = [name for name, k in order.items() if k == 1]
    found = parts[single].rename(columns=names)
    found[mark("interactions of two")] = parts[[name for name, k in order.items() if k == 2]].sum(axis=1)
    if len(single) > 2:
        found[mark("interactions of three or more")] = parts[[name for name, k in order.items() if k > 2]].sum(axis=1)
    return found.assign(all=parts.sum(axis=1))


def _with_ends(numbers: Mapping[str, tuple[float, FloatArray]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (value, drawn) in numbers.items():
        low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (math.nan, math.nan)
        found |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found
