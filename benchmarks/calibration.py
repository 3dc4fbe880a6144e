"""Do the statistics of the reports keep their promises? A simulation: ``nox -s calibration``.

It draws seeds that never ran: each is a vector of all cells and responses with the covariance of the reference
results, and with Gaussian or other noise. We choose the true effects, so we know which verdicts are false. `verdicts`
is the rule of the reports for many samples at once; every run first compares it with `decide`, thousands of times.

Writes ``results/reference/calibration.parquet``, a row per count, and docs/calibration.md; for studies that go on until
they are settled, ``results/reference/sequential.parquet``, see `sequential`, and, over new test images, too,
``results/reference/sequential-images.parquet``, see `sequential_images`; for runs that were made elsewhere,
``results/reference/made-elsewhere.parquet``, see `made_elsewhere`. For docs/compare.md it counts false verdicts of
`compare` on simulated folders: ``results/reference/compare-rates.parquet``.
"""

import argparse
import bisect
import itertools
import math
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from mnist_ablate.checks import compare
from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.study import load_study
from mnist_ablate.inference import effects, measured, test_images
from mnist_ablate.inference import power as powers
from mnist_ablate.inference import verdicts as rule
from mnist_ablate.inference.intervals import CONFIDENCE, Sample
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.inference.sequential import tails
from mnist_ablate.inference.verdicts import VERDICTS
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import read_table, write_table

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
import calibration_page  # noqa: E402

REFERENCE = ROOT / "results" / "reference" / "factorial"
RESULTS = ROOT / "results" / "reference" / "calibration.parquet"
SEQUENTIAL = ROOT / "results" / "reference" / "sequential.parquet"
IMAGES = ROOT / "results" / "reference" / "sequential-images.parquet"
ELSEWHERE = ROOT / "results" / "reference" / "made-elsewhere.parquet"
COMPARE_RATES = ROOT / "results" / "reference" / "compare-rates.parquet"

Floats = NDArray[np.float64]
Hits = NDArray[np.bool_]
Row = dict[str, Any]
DRAWS, IMAGE_DRAWS = 10_000, 1_000
"""Studies per setting; fewer where each has a matrix of seeds and images."""
SEED = 20240229
SIZES = (6, 10, 20)
TRUTHS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""True effects in units of the smallest effect that matters, in the direction of the claim."""
LAST_LOOKS = (40, 120)
PILOT = 10
"""Seeds of the pilots whose numbers of seeds needed are tried."""
_CHUNK = 500
_CHECKED = 100
"""Samples per noise, size, hypothesis and kind on which `verdicts` is compared with `decide`: about 50,000 verdicts."""


# ---- Seeds that never ran ----


@dataclass(frozen=True)
class Population:
    """What seeds are drawn from.

    Parameters
    ----------
    hypotheses
        The family of m hypotheses.
    alpha
        Each hypothesis's share of the family's alpha.
    root
        Shape (d, d): times its transpose, the covariance of the d cells and responses.
    weights
        The weights of the cells in each contrast, in the direction of its claim, shape (m, d).
    means
        What was measured of each contrast, in the same direction, shape (m,).
    n
        Seeds of the results that the covariance comes from.
    """

    hypotheses: tuple[Hypothesis, ...]
    alpha: float
    root: Floats
    weights: Floats
    means: Floats
    n: int

    @property
    def ids(self) -> list[str]:
        """The names of the hypotheses."""
        return [hypothesis.id for hypothesis in self.hypotheses]

    @property
    def loadings(self) -> Floats:
        """What turns vectors of standard noise into contrasts, shape (m, d)."""
        return np.asarray(self.weights @ self.root)

    @property
    def sds(self) -> Floats:
        """The true standard deviation of each contrast, shape (m,)."""
        return np.asarray(np.sqrt((self.loadings**2).sum(axis=1)))


def population(results: Results) -> Population:
    """Take the covariance of `results` and the hypotheses of their study that are on contrasts of cells."""
    family = tuple(hypothesis for hypothesis in results.study.hypotheses if not hypothesis.summary)
    tables = {h.response: measured.seed_table(results, h.response) for h in family}
    columns = pd.concat(tables, axis=1).dropna()
    weights = np.zeros((len(family), columns.shape[1]))
    for row, hypothesis in enumerate(family):
        sign = -1 if hypothesis.kind == "decrease" else 1
        for cell, weight in effects.contrast_weights(results.study, hypothesis.contrast).items():
            weights[row, columns.columns.get_loc((hypothesis.response, cell))] = sign * weight
    covariance = np.cov(columns.T)
    sds = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sds, sds))
    root = sds[:, None] * (vectors * np.sqrt(values.clip(min=0))) @ vectors.T  # of the correlations, symmetric
    alpha = results.study.alpha / len(results.study.hypotheses)
    means = weights @ columns.mean().to_numpy()
    return Population(family, alpha, np.asarray(root), weights, means, len(columns))


Noise = Callable[[Population, np.random.Generator, tuple[int, int]], Floats]


def _gaussian(people: Population, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.asarray(rng.standard_normal((*shape, len(people.root))) @ people.loadings.T)


def _t3(people: Population, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Student's t with 3 degrees of freedom in every contrast: the whole vector of a seed is far out or near."""
    scale = np.sqrt(rng.chisquare(3, (*shape, 1)))  # the variance 3 of t cancels the √3 of its definition
    return _gaussian(people, rng, shape) / scale


def _contaminated(people: Population, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """3 % of the seeds are five times as far out as the others."""
    scale = np.where(rng.random((*shape, 1)) < 0.03, 5.0, 1.0) / math.sqrt(0.97 + 0.03 * 25)
    return _gaussian(people, rng, shape) * scale


def _skewed_runs(people: Population, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Exponential noise (skewness 2) in each cell and response."""
    return np.asarray((rng.standard_exponential((*shape, len(people.root))) - 1) @ people.loadings.T)


def _skewed_effects(people: Population, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Exponential contrasts, which differences of runs never are: Gaussian ones, transformed (a copula)."""
    return np.asarray((-stats.norm.logsf(_gaussian(people, rng, shape) / people.sds) - 1) * people.sds)


NOISES: dict[str, Noise] = {
    "gaussian": _gaussian,
    "t3": _t3,
    "skewed_runs": _skewed_runs,
    "skewed_effects": _skewed_effects,
    "contaminated": _contaminated,
}


def seeds_of(people: Population, noise: str, n: int, draws: int) -> Iterator[Floats]:
    """Draw `draws` studies of `n` seeds in chunks: contrasts with mean 0, shape (chunk, n, m)."""
    rng = np.random.default_rng([SEED, list(NOISES).index(noise), n])
    for start in range(0, draws, _CHUNK):
        yield NOISES[noise](people, rng, (min(_CHUNK, draws - start), n))


def means_and_sds(people: Population, noise: str, n: int, draws: int) -> tuple[Floats, Floats]:
    """Draw studies; return the mean and the standard deviation of each contrast, shape (draws, m) each."""
    chunks = [(z.mean(axis=1), z.std(axis=1, ddof=1)) for z in seeds_of(people, noise, n, draws)]
    means, sds = zip(*chunks, strict=True)
    return np.concatenate(means), np.concatenate(sds)


# ---- The rule, for many samples at once ----


def verdicts(mean: Floats, sd: Floats, n: int, kind: str, smallest: float, alpha: float) -> NDArray[np.int8]:
    """Decide as `mnist_ablate.inference.verdicts.decide` does, for samples of equal size.

    Parameters
    ----------
    mean, sd
        Of the samples, shape (draws,), in the direction in which they were measured.
    n, kind, smallest, alpha
        See `decide`.

    Returns
    -------
    numpy.ndarray
        Indices into `VERDICTS`, shape (draws,).
    """
    if n < LEAST_SEEDS:
        return np.full(mean.shape, VERDICTS.index("no verdict"), np.int8)
    middle, se = (-mean if kind == "decrease" else mean), sd / math.sqrt(n)
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * se
    low, high = middle - half, middle + half
    inside = (-smallest < low) & (high < smallest)
    if kind == "negligible":
        conditions = {"supported": inside, "refuted": (low > smallest) | (high < -smallest)}
    else:
        conditions = {
            "negligible": inside,
            "refuted": high < 0,
            "supported": low > smallest,
            "supported, size open": low > 0,
        }
    conditions = {"inconclusive": ~(sd > 0)} | conditions
    indices = [np.int8(VERDICTS.index(verdict)) for verdict in conditions]
    return np.select(list(conditions.values()), indices, np.int8(VERDICTS.index("inconclusive")))


def check_rule(people: Population) -> int:
    """Compare `verdicts` with `decide` sample by sample; return the number of comparisons.

    Raises
    ------
    AssertionError
        If they differ once.
    """
    compared = 0
    for noise, n in itertools.product(NOISES, (LEAST_SEEDS - 1, *SIZES)):
        mean, sd = means_and_sds(people, noise, n, _CHECKED)
        for j, hypothesis in enumerate(people.hypotheses):
            shifted = mean[:, j] + np.resize(np.array(TRUTHS) * hypothesis.smallest, len(mean))
            samples = [Sample(n, float(m), float(s)) for m, s in zip(shifted, sd[:, j], strict=True)]
            for kind in ("increase", "decrease", "negligible"):
                of_rule = (kind, hypothesis.smallest, people.alpha)
                fast = [VERDICTS[index] for index in verdicts(shifted, sd[:, j], n, *of_rule)]
                assert fast == [rule.decide(sample, *of_rule) for sample in samples]
                compared += len(fast)
    return compared


def is_false(verdict: str, kind: str, truth: float) -> bool:
    """Return whether a verdict is false at the true effect `truth`, in units of the smallest that matters.

    An effect of exactly that size matters.
    """
    matters = abs(truth) >= 1
    if kind == "negligible":
        return {"supported": matters, "refuted": not matters}.get(verdict, False)
    wrong = {"supported": truth < 1, "supported, size open": truth <= 0, "negligible": matters, "refuted": truth >= 0}
    return wrong.get(verdict, False)


# ---- Counts ----


def counted(quantity: str, k: int, of: int, nominal: float, **where: object) -> Row:
    """Return a row: `k` of `of`, with the 95 % interval of the probability (Clopper and Pearson)."""
    interval = stats.binomtest(k, of).proportion_ci()
    share = {"k": k, "R": of, "estimate": k / of, "low": float(interval.low), "high": float(interval.high)}
    empty = {"hypothesis": "", "noise": "", "n": 0, "truth": math.nan}
    return {"quantity": quantity} | empty | where | share | {"nominal": nominal}


def counts(quantity: str, hits: Hits, nominal: ArrayLike, ids: Sequence[str], **where: object) -> list[Row]:
    """Count hits, shape (draws, m): a row per hypothesis, whose nominal share may be its own."""
    totals, nominals = hits.sum(axis=0), np.broadcast_to(np.asarray(nominal, dtype=float), len(ids))
    return [
        counted(quantity, int(k), len(hits), float(share), hypothesis=name, **where)
        for name, k, share in zip(ids, totals, nominals, strict=True)
    ]


def coverage(people: Population, noise: str, n: int, mean: Floats, sd: Floats) -> list[Row]:
    """Count how often the 95 % interval holds the true effect; whichever it is, the count is the same."""
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return counts("coverage", np.abs(mean) <= half, CONFIDENCE, people.ids, noise=noise, n=n)


def reached(people: Population, wanted: Callable[[Hypothesis], Iterable[str]], truth: float, n: int,
            mean: Floats, sd: Floats) -> Hits:  # fmt: skip
    """Return where each hypothesis gets one of its `wanted` verdicts at the true effect `truth`, shape (draws, m)."""
    columns = []
    for j, hypothesis in enumerate(people.hypotheses):
        kind = "negligible" if hypothesis.kind == "negligible" else "increase"  # contrasts point as claims do
        shifted = mean[:, j] + truth * hypothesis.smallest
        given = verdicts(shifted, sd[:, j], n, kind, hypothesis.smallest, people.alpha)
        columns.append(np.isin(given, [VERDICTS.index(verdict) for verdict in wanted(hypothesis)]))
    return np.stack(columns, axis=1)


def false_verdicts(people: Population, noise: str, n: int, mean: Floats, sd: Floats) -> list[Row]:
    """Count false verdicts of each hypothesis and of the family, at each true effect and at the worst ones.

    At the worst, every hypothesis has the true effect with most false verdicts. One half of the draws shows which one
    that is, the other half is counted.
    """
    rows, where, family_alpha = [], {"noise": noise, "n": n}, people.alpha * len(people.hypotheses)
    wrong = np.stack([
        reached(people, lambda h, truth=truth: [v for v in VERDICTS if is_false(v, h.kind, truth)],  # type: ignore[misc]
                truth, n, mean, sd)
        for truth in TRUTHS
    ])  # fmt: skip
    for truth, hits in zip(TRUTHS, wrong, strict=True):
        rows += counts("false verdict", hits, people.alpha, people.ids, **where, truth=truth)
        family = hits.any(axis=1, keepdims=True)
        rows += counts("false verdict in the family", family, family_alpha, [""], **where, truth=truth)
    half = wrong.shape[1] // 2
    worst = wrong[:, :half].sum(axis=1).argmax(axis=0)
    family = np.any(wrong[worst, half:, np.arange(len(people.hypotheses))], axis=0, keepdims=True).T
    return [*rows, *counts("false verdict in the family, each at its worst", family, family_alpha, [""], **where)]


def power(people: Population, noise: str, n: int, mean: Floats, sd: Floats) -> list[Row]:
    """Count true verdicts where power is promised: at an effect of the smallest size, and at no effect."""
    given = list(zip(people.hypotheses, people.sds, strict=True))
    nothing = reached(people, lambda h: ["supported" if h.kind == "negligible" else "negligible"], 0, n, mean, sd)
    promise = [max(powers.equivalence_power(float(s), n, h.smallest, people.alpha), 0.0) for h, s in given]
    where = {"noise": noise, "n": n}
    rows = counts("power to see that nothing is there", nothing, promise, people.ids, **where, truth=0.0)
    seen = reached(people, lambda _: ("supported", "supported, size open"), 1, n, mean, sd)
    promise = [powers.sign_power(h.smallest, float(s), n, people.alpha) for h, s in given]
    claims = np.array([h.kind != "negligible" for h in people.hypotheses])
    names, of_claims = list(itertools.compress(people.ids, claims)), np.array(promise)[claims]
    return rows + counts("power to see an effect", seen[:, claims], of_claims, names, **where, truth=1.0)


def power_at_seeds_needed(people: Population, noise: str, draws: int) -> Iterator[Row]:
    """Count the same with as many seeds as `seeds_needed` asks for when it knows the true spread."""
    for name, n in zip(people.ids, _needed(people), strict=True):
        for row in power(people, noise, n, *means_and_sds(people, noise, n, draws)) if n else ():
            if row["hypothesis"] == name:
                yield row | {"quantity": f"{row['quantity']}, with the seeds needed", "nominal": powers.POWER}


def _needed(people: Population) -> list[int | None]:
    """Return the seeds that each hypothesis needs if its true spread is known."""
    return [_seeds(h, people.alpha, float(sd)).likely for h, sd in zip(people.hypotheses, people.sds, strict=True)]


@lru_cache
def _seeds(hypothesis: Hypothesis, alpha: float, sd: float) -> powers.Seeds:
    return powers.seeds_needed(Sample(PILOT, 0, sd), hypothesis.kind, hypothesis.smallest, alpha)


def _cautious(hypothesis: Hypothesis, alpha: float, sd: float) -> float:
    return _seeds(hypothesis, alpha, float(sd)).cautious or math.inf


def pilots(people: Population, noise: str, draws: int) -> Iterator[Row]:
    """Count pilots whose cautious number of seeds is enough, as 80 % should be; skip hypotheses that cannot fail."""
    _, sds = means_and_sds(people, noise, PILOT, draws)
    for j, (hypothesis, needed) in enumerate(zip(people.hypotheses, _needed(people), strict=True)):
        if needed and needed > LEAST_SEEDS:
            grid = np.linspace(0, people.sds[j], 2**20)  # a larger spread never asks for fewer seeds
            asks = partial(_cautious, hypothesis, people.alpha)
            enough = sds[:, j : j + 1] >= grid[1 + bisect.bisect_left(grid[1:], float(needed), key=asks)]
            quantity = "cautious number of seeds is enough"
            yield from counts(quantity, enough, 0.8, [hypothesis.id], noise=noise, n=PILOT)


# ---- Looking more than once ----


def looking(people: Population, noise: str, draws: int, last: int) -> Iterator[Row]:
    """Count studies that find an effect where there is none, at 5 %, by how often they look before seed `last`."""
    tens = tails(0.05, tuple(range(10, last + 1, 10)))
    schemes: dict[str, Mapping[int, float]] = {
        "one look": {last: 0.05},
        "a look every 10 seeds, alpha spent": {n: 2 * tail for n, tail in tens.items()},
        "a look after every seed": dict.fromkeys(range(LEAST_SEEDS, last + 1), 0.05),
    }
    chunks = [[ever_significant(z, looks) for looks in schemes.values()] for z in seeds_of(people, noise, last, draws)]
    for name, hits in zip(schemes, map(np.concatenate, zip(*chunks, strict=True)), strict=True):
        yield from counts(f"false effect, {name}", hits, 0.05, people.ids, noise=noise, n=last, truth=0.0)


def ever_significant(z: Floats, looks: Mapping[int, float]) -> Hits:
    """Return whether the two-sided t test of 0 is significant at any look.

    Parameters
    ----------
    z
        Effects, shape (draws, seeds, m).
    looks
        The level of the test at each look, by its number of seeds.

    Returns
    -------
    numpy.ndarray
        Shape (draws, m).
    """
    seeds, alphas = (np.array(part) for part in (list(looks), list(looks.values())))
    n = seeds[:, None]
    sums, squares = (np.cumsum(part, axis=1)[:, seeds - 1] for part in (z, z**2))
    se = np.sqrt((squares - sums**2 / n) / (n - 1) / n)
    return np.asarray((np.abs(sums / n) > stats.t.isf(alphas[:, None] / 2, n - 1) * se).any(axis=1))


# ---- New seeds and new images ----


@dataclass(frozen=True)
class Components:
    """Standard deviations of a contrast of accuracy: between seeds, between images, and of their interaction."""

    seeds: float
    images: float
    both: float

    @classmethod
    def of(cls, values: Floats) -> "Components":
        """Estimate them from `values`, shape (seeds, images), by mean squares; a negative variance counts as 0."""
        n, n_images = values.shape
        rows, columns = values.mean(axis=1), values.mean(axis=0)
        residual = values - rows[:, None] - columns + values.mean()
        both = float((residual**2).sum()) / ((n - 1) * (n_images - 1))
        of_seeds, of_images = rows.var(ddof=1) - both / n_images, columns.var(ddof=1) - both / n
        return cls(math.sqrt(max(of_seeds, 0)), math.sqrt(max(of_images, 0)), math.sqrt(both))


def crossed(rng: np.random.Generator, n: int, n_images: int, parts: Components) -> Floats:
    """Draw from a crossed Gaussian model of seeds, images and their interaction, with mean 0."""
    seeds, images = parts.seeds * rng.standard_normal((n, 1)), parts.images * rng.standard_normal(n_images)
    return np.asarray(seeds + images + parts.both * rng.standard_normal((n, n_images)))


def resampled(rng: np.random.Generator, n: int, values: Floats) -> Floats:
    """Draw seeds and images of the reference with replacement, and subtract the mean of the reference."""
    rows, columns = rng.integers(0, len(values), n), rng.integers(0, values.shape[1], values.shape[1])
    return np.asarray(values[np.ix_(rows, columns)] - values.mean())


def new_images(results: Results, draws: int) -> Iterator[Row]:
    """Count how often intervals hold the effect on new seeds and new images."""
    for hypothesis in results.study.hypotheses:
        if hypothesis.response == "test_accuracy":
            values = test_images.seed_image_effects(results, hypothesis.contrast)
            if values is not None:
                for n in SIZES:
                    yield from new_images_one(values, hypothesis.id, n, draws)


def new_images_one(values: Floats, name: str, n: int, draws: int) -> Iterator[Row]:
    """Count the same for one contrast, shape (seeds, images), and `n` seeds."""
    rng, parts = np.random.default_rng([SEED, n]), Components.of(values)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    for noise in ("crossed", "resampled"):
        hits = np.zeros((2, draws, 1), bool)
        for i in range(draws):
            drawn = crossed(rng, n, values.shape[1], parts) if noise == "crossed" else resampled(rng, n, values)
            found = test_images.two_way(drawn)
            hits[0, i] = found["low_two_way"] <= 0 <= found["high_two_way"]
            hits[1, i] = abs(found["estimate"]) <= quantile * found["se_seeds"]
        for quantity, of_interval in zip(calibration_page.IMAGE_INTERVALS, hits, strict=True):
            yield from counts(quantity, of_interval, CONFIDENCE, [name], noise=noise, n=n)


# ---- False verdicts of `compare` ----

CELLS, RESPONSES = 8, 3
FAMILY = RESPONSES * (CELLS + 1)
"""Comparisons of two folders: each response of each cell, and of the mean of all cells."""
DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "skewed runs": lambda rng, s: (rng.standard_exponential(s) - rng.standard_exponential(s)) / math.sqrt(2),
    "skewed differences": lambda rng, shape: rng.standard_exponential(shape) - 1,
}
"""Noise of a difference, with mean 0 and variance 1. Differences of two equally skewed runs are symmetric."""


def compared(mean: Floats, sd: Floats, n: int, alpha: float) -> NDArray[np.str_]:
    """Decide as `mnist_ablate.checks.compare.judge` does at a margin of 1, for samples of equal size."""
    equivalent = verdicts(mean, sd, n, "negligible", 1.0, alpha) == VERDICTS.index("supported")
    no_difference = verdicts(mean, sd, n, "increase", 0.0, alpha) == VERDICTS.index("inconclusive")
    return np.select([equivalent, ~no_difference], ["equivalent", "different"], "too little to tell")


def check_compared() -> int:
    """Compare `compared` with `compare.judge` sample by sample; return the number of comparisons.

    Raises
    ------
    AssertionError
        If they differ once.
    """
    rng = np.random.default_rng(8)
    mean, sd, alpha = rng.uniform(-2, 2, 1000), rng.uniform(0.01, 2, 1000), compare.ALPHA / FAMILY
    for n in SIZES:
        samples = [Sample(n, float(m), float(s)) for m, s in zip(mean, sd, strict=True)]
        assert compared(mean, sd, n, alpha).tolist() == [compare.judge(sample, 1.0, alpha) for sample in samples]
    return len(SIZES) * len(mean)


def compare_rates(draws: int) -> pd.DataFrame:
    """Count folders with a false verdict, by noise, number of seeds, spread and true difference (in margins)."""
    check_compared()
    rows = []
    for (i, noise), n, sd, truth in itertools.product(enumerate(DIFFERENCES), SIZES, (0.05, 0.5), (0.0, 1.0)):
        rng = np.random.default_rng([8, i, n, round(1000 * sd), round(truth)])
        false, wrong = 0, "equivalent" if truth else "different"
        for start in range(0, draws, _CHUNK):
            z = truth + sd * DIFFERENCES[noise](rng, (min(_CHUNK, draws - start), n, RESPONSES, CELLS))
            z = np.concatenate([z, z.mean(axis=-1, keepdims=True)], axis=-1).reshape(len(z), n, FAMILY)
            given = compared(z.mean(axis=1), z.std(axis=1, ddof=1), n, compare.ALPHA / FAMILY)
            false += int((given == wrong).any(axis=1).sum())
        count = counted("", false, draws, compare.ALPHA)
        shares = {"folders": draws, "false": false} | {name: count[name] for name in ("low", "high", "nominal")}
        rows.append({"noise": noise, "n": n, "sd": sd, "truth": truth, "false_verdict": wrong} | shares)
    return pd.DataFrame(rows)


# ---- All of it ----


def simulate(results: Results, draws: int, image_draws: int) -> pd.DataFrame:
    """Count everything: a row per quantity, hypothesis, noise, number of seeds and true effect."""
    people, rows = population(results), list[Row]()
    for noise, n in itertools.product(NOISES, SIZES):
        mean, sd = means_and_sds(people, noise, n, draws)
        for count in (coverage, false_verdicts, power):
            rows += count(people, noise, n, mean, sd)
    for noise in NOISES:
        rows += [*power_at_seeds_needed(people, noise, draws), *pilots(people, noise, draws)]
        for last in LAST_LOOKS:
            rows += looking(people, noise, draws, last)
        print(f"{noise}: counted", flush=True)
    rows += new_images(results, image_draws)
    return pd.DataFrame(rows).astype({"n": "int64"})


def about(results: Results, decided: int) -> dict[str, Any]:
    """Return what the simulation was made from and with."""
    people = population(results)
    return {
        "study": results.study.name,
        "hypotheses_sha256": results.study.hypotheses_sha256,
        "reference_runs": len(results.final),
        "reference_seeds": people.n,
        "hypotheses": {
            h.id: {"sd": sd, "smallest": h.smallest} for h, sd in zip(people.hypotheses, people.sds, strict=True)
        },
        "alpha": results.study.alpha,
        "seed": SEED,
        "compared": decided,
        "python": platform.python_version(),
        **{package: version(package) for package in ("mnist-ablate", "numpy", "scipy")},
    }


PARTS = ("verdicts", "compare", "sequential", "images", "elsewhere")
"""What is counted."""


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, then write the counts and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=REFERENCE, metavar="RESULTS", help="reference results")
    parser.add_argument("--study", default="factorial", help="the study whose hypotheses are tried")
    parser.add_argument("--draws", type=int, default=DRAWS, help="studies per setting")
    parser.add_argument("--image-draws", type=int, default=IMAGE_DRAWS, help="the same for new images")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="file of the counts; those of other parts go beside it"
    )
    parser.add_argument("--compare-out", type=Path, default=COMPARE_RATES, help="file of the false verdicts of compare")
    parser.add_argument("--only", choices=PARTS, action="append", help="count this part; all others stay as they are")
    parser.add_argument("--page-only", action="store_true", help="only write docs/calibration.md, from the counts")
    arguments = parser.parse_args(argv)
    for part in () if arguments.page_only else arguments.only or PARTS:
        count(part, arguments)
    if arguments.out == RESULTS:
        table, document = read_table(RESULTS)
        others = (read_table(file)[0].to_pandas() for file in (SEQUENTIAL, IMAGES, ELSEWHERE))
        calibration_page.write(table.to_pandas(), document, *others)
    print(f"Counts: {arguments.out.parent}, {arguments.compare_out}")


def count(part: str, arguments: argparse.Namespace) -> None:
    """Simulate one part, and write its counts."""
    import made_elsewhere  # which import this file
    import sequential
    import sequential_images

    out, draws = arguments.out, arguments.draws
    if part == "verdicts":
        results = powers.as_pilot(load(arguments.results), load_study(arguments.study))
        decided = check_rule(population(results))
        print(f"{decided:,} verdicts: all as `decide` gives them")
        frame = simulate(results, draws, arguments.image_draws)
        document = about(results, decided) | {"draws": draws, "image_draws": arguments.image_draws}
        write_table(out, pa.Table.from_pandas(frame, preserve_index=False), document)
    elif part == "compare":
        compare_rates(draws).to_parquet(arguments.compare_out, index=False)
    elif part == "images":
        sequential_images.write(arguments.results.parent, draws, out.with_name(IMAGES.name))
    elif part == "elsewhere":
        made_elsewhere.write(draws, out.with_name(ELSEWHERE.name))
    else:
        study = load_study(arguments.study)
        if len(study.looks) > 1:
            sequential.write(load(arguments.results), study, draws, out.with_name(SEQUENTIAL.name))


if __name__ == "__main__":
    main()
