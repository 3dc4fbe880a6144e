"""Numbers of the reference results' pages, worked out again with pandas from the Parquet files alone."""

import functools
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pages import Page
from scipy import stats

ROOT = Path(__file__).parent.parent
STUDIES = sorted(file.parent.name for file in (ROOT / "results" / "reference").glob("*/study.json"))
PAGES = [name for name in STUDIES if (ROOT / "reports" / "reference" / name).exists()]  # the gate has no page
TECHNIQUES = [name for name in PAGES if name != "variance"]  # which varies chance alone, so has no effects


def last_epochs(name: str) -> pd.DataFrame:
    """Read the last epoch of each run, accuracy in percent."""
    runs = pd.read_parquet(ROOT / "results" / "reference" / name / "runs.parquet")
    runs = runs.sort_values("epoch").groupby(["cell", "seed"], as_index=False).last()
    return runs.assign(accuracy=100 * runs["test_accuracy"])


@functools.cache
def page(name: str) -> Page:
    """Read a page."""
    return Page((ROOT / "reports" / "reference" / name / "index.html").read_text(encoding="utf-8"))


def table(name: str, which: str) -> pd.DataFrame:
    """Read a table that a page offers for download, without the rows that a diverged run has a part in."""
    rows = pd.read_csv(io.StringIO(page(name).offered(which)))
    return rows[rows["n_diverged"] == 0]


@functools.cache
def shown(name: str) -> str:
    """Return the words of a page, with plain signs."""
    return page(name).text.replace("\N{MINUS SIGN}", "-")


def as_shown(value: float) -> str:
    """Return points as a page writes them."""
    return f"{value:+.2f}"


def interval(z: pd.Series) -> tuple[float, float]:
    """Return the 95 % t interval of a mean."""
    half = float(stats.t.ppf(0.975, len(z) - 1)) * float(z.std()) / len(z) ** 0.5
    return float(z.mean()) - half, float(z.mean()) + half


def test_there_is_something_to_check() -> None:
    """The reference results with pages are found, and those that have effects over all combinations."""
    assert {"factorial", "notebook", "norms"} <= set(PAGES)
    assert {"factorial", "capacity"} <= set(MAIN)


@pytest.mark.parametrize("name", PAGES)
def test_a_cell(name: str) -> None:
    """The last cell's mean, its spread between seeds, and its paired difference to the reference with an interval."""
    row = table(name, "cells").iloc[-1]
    seeds = last_epochs(name).pivot(index="seed", columns="cell", values="accuracy")
    z = (seeds[row["cell"]] - seeds[row["reference"]]).dropna()
    low, high = interval(z)
    assert row["mean"] == pytest.approx(seeds[row["cell"]].mean(), abs=1e-9)
    assert row["sd"] == pytest.approx(seeds[row["cell"]].std(), abs=1e-9)
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([z.mean(), low, high], abs=1e-9)
    assert all(as_shown(number) in shown(name) for number in (z.mean(), low, high))


@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_a_technique_alone_does_to_the_gap(name: str) -> None:
    """The gap between validation and training loss, seed by seed, of a cell with one technique less the reference's."""
    rows = table(name, "effects-gap")
    kind = "simple" if "simple" in set(rows["kind"]) else "main"  # of a study's only factor
    row = rows[rows["kind"] == kind].iloc[-1]
    runs = last_epochs(name)
    runs["gap"] = (runs["val_loss"] - runs["train_loss_eval"])[runs["status"] == "ok"]
    seeds = runs.pivot(index="seed", columns="cell", values="gap")
    z = (seeds[row["label"].removesuffix(" alone")] - seeds[table(name, "cells")["reference"].iloc[0]]).dropna()
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx([z.mean(), *interval(z)], abs=1e-9)
    assert f"{z.mean():+.4f}" in shown(name)


MAIN = [name for name in TECHNIQUES if table(name, "effects-test-accuracy")["kind"].isin(["main", "level"]).any()]


@pytest.mark.parametrize("name", MAIN)
def test_an_effect(name: str) -> None:
    """A factor's effect in every seed: the mean at one level less that at the reference, over all other factors."""
    runs, effects = last_epochs(name), table(name, "effects-test-accuracy")
    row = effects[effects["kind"].isin(["main", "level"])].iloc[-1]
    factor, _, level = row["label"].partition("=")
    runs["level"] = runs[factor].astype(str).str.lower()
    (reference,) = runs.loc[runs["cell"] == table(name, "cells")["reference"].iloc[0], "level"].unique()
    means = runs.groupby(["seed", "level"])["accuracy"].mean().unstack()
    (at,) = [level] if level else set(means) - {reference}
    z = (means[at] - means[reference]).dropna()
    low, high = interval(z)
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx([z.mean(), low, high], abs=1e-9)
    assert all(as_shown(number) in shown(name) for number in (z.mean(), low, high))


# ---- What decides, worked out again ----


def decided(name: str, hypothesis: str) -> "pd.Series[Any]":
    """Read the numbers behind a verdict from the page of its study."""
    verdicts = pd.read_csv(io.StringIO(page(name).offered("verdicts")))
    return verdicts[verdicts["id"] == hypothesis].iloc[0]


def half_width(z: pd.Series, alpha: float) -> float:
    """Return half the 1 - alpha t interval of a mean."""
    return float(stats.t.isf(alpha / 2, len(z) - 1) * z.std() / len(z) ** 0.5)


CRITICAL = dict(zip(range(10, 121, 10), (
    10.129, 5.564, 4.647, 4.208, 3.927, 3.720, 3.555, 3.416, 3.294, 3.186, 3.088, 2.998,
), strict=True))  # fmt: skip
"""Of t at each look of `factorial`, by its seeds: a one-sided 0.05 / 18, spent as the cube of the information."""


def repeated(intervals: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return what the intervals of all looks have in common."""
    lows, highs = zip(*intervals, strict=True)
    return max(lows), min(highs)


def test_what_decides_on_l2_and_the_gap() -> None:
    """L2 alone less none, seed by seed, with the interval that holds at all looks, which decides on its size."""
    row, runs = decided("factorial", "C2-gap"), last_epochs("factorial")
    gaps = runs.assign(gap=runs["val_loss"] - runs["train_loss_eval"]).pivot(index="seed", columns="cell", values="gap")
    z = gaps["l2"] - gaps["baseline"]

    def at(n: int) -> tuple[float, float]:
        mean, half = z.iloc[:n].mean(), CRITICAL[n] * z.iloc[:n].std() / n**0.5
        return mean - half, mean + half

    low, high = repeated(at(n) for n in CRITICAL if n <= len(z))
    assert row["estimate"] == pytest.approx(z.mean())
    assert row[["low", "high"]].tolist() == pytest.approx([low, high], abs=3e-4 * (high - low))
    assert row["alpha"] == pytest.approx(0.05 / len(pd.read_csv(io.StringIO(page("factorial").offered("verdicts")))))
    assert (row["verdict"] == "negligible") == (max(-low, high) < row["smallest"])


def test_what_decides_on_batch_norm_and_new_images() -> None:
    """BatchNorm alone less none on every image in every seed: the error of seeds, A, and that of images, B - C."""
    row, folder = decided("factorial", "C4-accuracy"), ROOT / "results" / "reference" / "factorial"
    wrong = pd.read_parquet(folder / "mistakes.parquet", columns=["cell", "seed", "test_index"])
    images = pd.RangeIndex(10_000)
    seeds = sorted(last_epochs("factorial")["seed"].unique())

    def right(cell: str) -> pd.DataFrame:
        of = wrong[wrong["cell"] == cell].assign(n=1)
        found = of.pivot(index="seed", columns="test_index", values="n").reindex(seeds, columns=images)
        return 100 - 100 * found.fillna(0)

    def at(z: Any) -> tuple[float, float]:
        n, m = z.shape
        rows, columns, mean = z.mean(axis=1), z.mean(axis=0), z.mean()
        a, b = rows.var(ddof=1) / n, columns.var(ddof=1) / m
        rest = z - rows[:, None] - columns + mean
        c = (rest**2).sum() / ((n - 1) * (m - 1)) / (n * m)
        half = CRITICAL[n] * a**0.5, stats.t.isf(stats.t.sf(CRITICAL[n], n - 1), m - 1) * max(b - c, 0) ** 0.5
        return mean - math.hypot(*half), mean + math.hypot(*half)

    z = (right("batch_norm") - right("baseline")).to_numpy()
    low, high = repeated(at(z[:n]) for n in CRITICAL if n <= len(z))
    assert row["population"] == "seeds and images"
    assert row["estimate"] == pytest.approx(z.mean())
    assert row[["low", "high"]].tolist() == pytest.approx([low, high], abs=3e-4 * (high - low))


def test_what_decides_on_the_initial_weights() -> None:
    """From a tenth to ten times the default: the log of the mean drop from the best scale, paired.

    It was settled at the first of three looks, which spends (1/3)^3 of alpha.
    """
    row, runs = decided("initialisation", "C6-drop-near"), last_epochs("initialisation")
    near = runs[runs["init_scale"].between(0.1, 10) & (runs["init"] == "default")]
    near = near.assign(accuracy=near["accuracy"].mask(near["status"] == "diverged", 10.0))
    groups = near.groupby(["seed", "batch_norm"])["accuracy"]
    drops = (groups.max() - groups.mean()).map(math.log).unstack()
    z = drops[True] - drops[False]
    half = half_width(z, row["alpha"] / 27)
    assert len(z) == 10
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx([z.mean(), z.mean() - half, z.mean() + half])


PARTS = {
    "split": "split_seed",
    "initial weights": "init_seed",
    "order of the images": "batch_seed",
    "dropout masks": "dropout_seed",
}


def half_square(differ: set[str]) -> float:
    """Return half the mean squared difference in accuracy of two runs of a seed that differ in just these draws."""
    runs = last_epochs("variance").set_index(["seed", *PARTS.values()])["accuracy"]
    other = runs
    for draw in differ:
        other = other.rename({0: 1, 1: 0}, level=draw)
    return float(((runs - other) ** 2).mean() / 2)


@pytest.mark.parametrize("source", PARTS)
def test_a_part_of_chance(source: str) -> None:
    """A part's variance: runs that differ in all draws, less runs that differ in all but this one.

    Half the squared difference of two runs has as its mean the variance of all that differs between them, alone or
    with others, so what is left is that of this draw alone.
    """
    parts = pd.read_csv(io.StringIO(page("variance").offered("variance")))
    variance = dict(zip(parts["source"], parts["variance"].astype(float), strict=True))
    everything = half_square(set(PARTS.values()))
    without = half_square(set(PARTS.values()) - {PARTS[source]})
    assert variance["all"] == pytest.approx(everything, abs=1e-9)
    assert variance[source] == pytest.approx(everything - without, abs=1e-9)
    assert f"{variance[source]:.4f}" in shown("variance")
