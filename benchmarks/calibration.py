"""Do the statistics of the reports hold what they promise? By simulation: ``nox -s calibration``.

Seeds are drawn that never ran: each a vector of all cells and responses, with the covariance that the reference
results have, and with noise that is Gaussian or is not. True effects are then what we say they are, so that every
verdict can be called true or false. What is simulated is the rule of the reports: `verdicts` is `hypotheses.decide`
for many samples at once, and `check_rule` compares the two on thousands of samples in every run of this script.

Writes ``results/reference/calibration.parquet``, a row per thing that was counted, and the page made of it.
"""

import argparse
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import calibration_page
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.study import load_study
from mnist_ablate.inference import effects
from mnist_ablate.inference import test_images as mistakes
from mnist_ablate.inference import verdicts as hypotheses
from mnist_ablate.inference.verdicts import LEAST_SEEDS, VERDICTS, Sample
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import read_table, write_atomically, write_table

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference" / "factorial"
RESULTS = ROOT / "results" / "reference" / "calibration.parquet"
PAGE = ROOT / "reports" / "reference" / "calibration.html"

FloatArray = NDArray[np.float64]
DRAWS = 10_000
"""Studies per setting: at 95 %, a standard error of 0.2 %."""
IMAGE_DRAWS = 1_000
"""The same where each has a matrix of seeds and images."""
SEED = 20240229
SIZES = (6, 10, 20)
TRUTHS = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""True effects in units of the smallest that matters, in the direction of the claim."""
LAST_LOOKS = (40, 120)
PILOT = 10
"""Seeds of the pilot whose `hypotheses.Seeds` are tried."""
_CHUNK = 500
_CHECKED = 100
"""Samples of each noise, size, hypothesis and kind on which the rule is checked: some 50,000 verdicts."""


# ---- Seeds that never ran ----


@dataclass(frozen=True)
class Population:
    """What seeds are drawn from.

    Parameters
    ----------
    hypotheses
        The family, m of them.
    alpha
        What each has of the family's alpha.
    root
        Shape (d, d), see `root_of`; times its transpose the covariance of the d cells and responses.
    weights
        Of the cells in each contrast, in the direction of its claim, shape (m, d).
    n
        Seeds of the results that the covariance is from.
    """

    hypotheses: tuple[Hypothesis, ...]
    alpha: float
    root: FloatArray
    weights: FloatArray
    n: int

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the contrasts, shape (m, m)."""
        half = self.weights @ self.root
        return np.asarray(half @ half.T)

    @property
    def sds(self) -> FloatArray:
        """The true standard deviation of each contrast, shape (m,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def smallest(self) -> FloatArray:
        """The smallest effect that matters to each hypothesis, shape (m,)."""
        return np.array([hypothesis.smallest for hypothesis in self.hypotheses])


def population(results: Results) -> Population:
    """Take the covariance of `results` and the family of its study."""
    family = results.study.hypotheses
    tables = {h.response: effects.seed_table(results, h.response) for h in family}
    columns = pd.concat(tables, axis=1).dropna()
    weights = np.zeros((len(family), columns.shape[1]))
    for row, hypothesis in enumerate(family):
        sign = -1 if hypothesis.kind == "decrease" else 1
        for cell, weight in effects.contrast_weights(results.study, hypothesis.contrast).items():
            weights[row, columns.columns.get_loc((hypothesis.response, cell))] = sign * weight
    alpha = results.study.alpha / len(family)
    return Population(family, alpha, root_of(np.cov(columns.T)), weights, len(columns))


def root_of(covariance: FloatArray) -> FloatArray:
    """Give L, shape (d, d), with L Lᵀ = `covariance`: the sds times the symmetric root of the correlations."""
    sds = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(sds, sds))
    return np.asarray(sds[:, None] * (vectors * np.sqrt(values.clip(min=0))) @ vectors.T)


Noise = Callable[[Population, np.random.Generator, tuple[int, int]], FloatArray]


def _gaussian(of: Population, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    return _contrasts(of, rng.standard_normal((*shape, len(of.root))))


def _t3(of: Population, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Student's t with 3 degrees of freedom in every contrast: a seed's whole vector is far out, or near."""
    scale = np.sqrt(rng.chisquare(3, (*shape, 1)))  # t3 has the variance 3, which the √3 of its definition cancels
    return _gaussian(of, rng, shape) / scale


def _contaminated(of: Population, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """3 % of the seeds five times as far out as the others."""
    scale = np.where(rng.random((*shape, 1)) < 0.03, 5.0, 1.0) / math.sqrt(0.97 + 0.03 * 25)
    return _gaussian(of, rng, shape) * scale


def _skewed_runs(of: Population, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Exponential noise (skewness 2) in what each cell and response gets of its own."""
    return _contrasts(of, rng.standard_exponential((*shape, len(of.root))) - 1)


def _skewed_effects(of: Population, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Every contrast is exponential itself, which differences of runs are not: Gaussian ones, bent (a copula)."""
    return np.asarray((-stats.norm.logsf(_gaussian(of, rng, shape) / of.sds) - 1) * of.sds)


def _contrasts(of: Population, own: FloatArray) -> FloatArray:
    """Turn vectors of standard noise into vectors of cells, and these into contrasts: (..., d) to (..., m)."""
    return np.asarray(own @ (of.weights @ of.root).T)


NOISES: dict[str, Noise] = {
    "gaussian": _gaussian,
    "t3": _t3,
    "skewed_runs": _skewed_runs,
    "skewed_effects": _skewed_effects,
    "contaminated": _contaminated,
}


def seeds_of(of: Population, noise: str, n: int, draws: int) -> Iterator[FloatArray]:
    """Draw `draws` studies of `n` seeds, some at a time: contrasts with a mean of 0, shape (some, n, m)."""
    rng = np.random.default_rng([SEED, list(NOISES).index(noise), n])
    for start in range(0, draws, _CHUNK):
        yield NOISES[noise](of, rng, (min(_CHUNK, draws - start), n))


def means_and_sds(of: Population, noise: str, n: int, draws: int) -> tuple[FloatArray, FloatArray]:
    """Draw studies and keep what a t interval needs of them: means and sds, shape (draws, m) each."""
    kept = [(z.mean(axis=1), z.std(axis=1, ddof=1)) for z in seeds_of(of, noise, n, draws)]
    means, sds = zip(*kept, strict=True)
    return np.concatenate(means), np.concatenate(sds)


# ---- The rule, for many samples at once ----


def verdicts(mean: FloatArray, sd: FloatArray, n: int, kind: str, smallest: float, alpha: float) -> NDArray[np.int8]:
    """Decide as `hypotheses.decide` does, for samples of equal size.

    Parameters
    ----------
    mean, sd
        Of the samples, shape (draws,), in the direction in which they were measured.
    n, kind, smallest, alpha
        As there.

    Returns
    -------
    numpy.ndarray
        Places in `hypotheses.VERDICTS`, shape (draws,).
    """
    if n < LEAST_SEEDS:
        return np.full(mean.shape, VERDICTS.index("no verdict"), np.int8)
    middle, se = (-mean if kind == "decrease" else mean), sd / math.sqrt(n)
    half, inner = (float(stats.t.ppf(1 - a / 2, n - 1)) * se for a in (alpha, 2 * alpha))
    low, high = middle - half, middle + half
    inside = (-smallest < middle - inner) & (middle + inner < smallest)
    if kind == "negligible":
        rules = {"supported": inside, "refuted": (low > smallest) | (high < -smallest)}
    else:
        rules = {
            "negligible": inside,
            "refuted": high < 0,
            "supported": low > smallest,
            "supported, size open": low > 0,
        }
    rules = {"inconclusive": ~(sd > 0)} | rules
    places = [np.int8(VERDICTS.index(verdict)) for verdict in rules]
    return np.select(list(rules.values()), places, np.int8(VERDICTS.index("inconclusive")))


def check_rule(of: Population) -> int:
    """Compare `verdicts` with `hypotheses.decide`, sample by sample, and give the number of comparisons.

    Raises
    ------
    AssertionError
        If the two differ once.
    """
    compared = 0
    for noise, n in product(NOISES, (LEAST_SEEDS - 1, *SIZES)):
        mean, sd = means_and_sds(of, noise, n, _CHECKED)
        for j, hypothesis in enumerate(of.hypotheses):
            shifts = np.resize(np.array(TRUTHS) * hypothesis.smallest, len(mean))
            for kind in ("increase", "decrease", "negligible"):
                rule = (kind, hypothesis.smallest, of.alpha)
                found = verdicts(mean[:, j] + shifts, sd[:, j], n, *rule)
                samples = zip(mean[:, j] + shifts, sd[:, j], strict=True)
                wanted = [hypotheses.decide(Sample(n, float(m), float(s)), *rule) for m, s in samples]
                assert [VERDICTS[place] for place in found] == wanted
                compared += len(found)
    return compared


def is_false(verdict: str, kind: str, truth: float) -> bool:
    """Tell whether a verdict is false where the true effect is `truth`, in units of the smallest that matters.

    An effect of exactly that size is large enough to matter.
    """
    matters = abs(truth) >= 1
    if kind == "negligible":
        return {"supported": matters, "refuted": not matters}.get(verdict, False)
    wrong = {"supported": truth < 1, "supported, size open": truth <= 0, "negligible": matters, "refuted": truth >= 0}
    return wrong.get(verdict, False)


def _among(found: NDArray[np.int8], wanted: Iterable[str]) -> NDArray[np.bool_]:
    return np.isin(found, [VERDICTS.index(verdict) for verdict in wanted])


# ---- What is counted ----

Row = dict[str, Any]


def counted(quantity: str, k: int, of: int, nominal: float, **where: object) -> Row:
    """Make a row: `k` times in `of`, with the 95 % interval of the probability (Clopper and Pearson)."""
    interval = stats.binomtest(k, of).proportion_ci()
    share = {"k": k, "R": of, "estimate": k / of, "low": float(interval.low), "high": float(interval.high)}
    empty = {"hypothesis": "", "noise": "", "n": 0, "truth": math.nan}
    return {"quantity": quantity} | empty | where | share | {"nominal": nominal}


def coverage(of: Population, noise: str, n: int, mean: FloatArray, sd: FloatArray) -> Iterator[Row]:
    """Count how often the 95 % interval has the true effect in it, which is the same for every true effect."""
    half = float(stats.t.ppf((1 + effects.CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    hits = (np.abs(mean) <= half).sum(axis=0)
    for hypothesis, k in zip(of.hypotheses, hits, strict=True):
        where = {"hypothesis": hypothesis.id, "noise": noise, "n": n}
        yield counted("coverage", int(k), len(mean), effects.CONFIDENCE, **where)


def false_verdicts(of: Population, noise: str, n: int, mean: FloatArray, sd: FloatArray) -> Iterator[Row]:
    """Count false verdicts of each hypothesis and of the family, at each true effect; and each at its worst."""
    wrong = {truth: _wrong(of, n, truth, mean, sd) for truth in TRUTHS}
    for truth, table in wrong.items():
        where = {"noise": noise, "n": n, "truth": truth}
        for hypothesis, k in zip(of.hypotheses, table.sum(axis=0), strict=True):
            yield counted("false verdict", int(k), len(mean), of.alpha, hypothesis=hypothesis.id, **where)
        k = int(table.any(axis=1).sum())
        yield counted("false verdict in the family", k, len(mean), of.alpha * len(of.hypotheses), **where)
    yield _at_their_worst(of, np.stack(list(wrong.values())), noise=noise, n=n)


def _at_their_worst(of: Population, wrong: NDArray[np.bool_], **where: object) -> Row:
    """Count studies with a false verdict where every hypothesis has the true effect that is worst for it.

    Which one that is, is seen in one half of the draws; the other half is counted. `wrong` has the shape
    (truths, draws, m).
    """
    half = wrong.shape[1] // 2
    worst = wrong[:, :half].sum(axis=1).argmax(axis=0)
    k = int(wrong[worst, half:, np.arange(len(of.hypotheses))].any(axis=0).sum())
    quantity, nominal = "false verdict in the family, each at its worst", of.alpha * len(of.hypotheses)
    return counted(quantity, k, wrong.shape[1] - half, nominal, **where)


def _found(of: Population, j: int, n: int, truth: float, mean: FloatArray, sd: FloatArray) -> NDArray[np.int8]:
    """Decide on hypothesis `j` at a true effect; contrasts are in the direction of the claim already."""
    hypothesis = of.hypotheses[j]
    kind = "negligible" if hypothesis.kind == "negligible" else "increase"
    return verdicts(mean[:, j] + truth * hypothesis.smallest, sd[:, j], n, kind, hypothesis.smallest, of.alpha)


def _wrong(of: Population, n: int, truth: float, mean: FloatArray, sd: FloatArray) -> NDArray[np.bool_]:
    """Tell which verdicts are false, shape (draws, m)."""
    columns = [
        _among(_found(of, j, n, truth, mean, sd), (v for v in VERDICTS if is_false(v, hypothesis.kind, truth)))
        for j, hypothesis in enumerate(of.hypotheses)
    ]
    return np.stack(columns, axis=1)


def power(of: Population, noise: str, n: int, mean: FloatArray, sd: FloatArray) -> Iterator[Row]:
    """Count true verdicts where power is promised: of an effect of the smallest size, and of none at all."""
    for j, hypothesis in enumerate(of.hypotheses):
        yield from _power_one(of, j, n, mean, sd, {"hypothesis": hypothesis.id, "noise": noise, "n": n})


def _power_one(of: Population, j: int, n: int, mean: FloatArray, sd: FloatArray, where: Row) -> Iterator[Row]:
    hypothesis, true_sd = of.hypotheses[j], float(of.sds[j])
    negligible = hypothesis.kind == "negligible"
    k = int(_among(_found(of, j, n, 0, mean, sd), ["supported" if negligible else "negligible"]).sum())
    promise = max(hypotheses.equivalence_power(true_sd, n, hypothesis.smallest, of.alpha), 0.0)
    yield counted("power to see that nothing is there", k, len(mean), promise, truth=0.0, **where)
    if not negligible:
        k = int(_among(_found(of, j, n, 1, mean, sd), ("supported", "supported, size open")).sum())
        promise = hypotheses.sign_power(hypothesis.smallest, true_sd, n, of.alpha)
        yield counted("power to see an effect", k, len(mean), promise, truth=1.0, **where)


def power_at_seeds_needed(of: Population, noise: str, draws: int) -> Iterator[Row]:
    """Count the same with as many seeds as `hypotheses.seeds_needed` asks for, told the true spread."""
    for j, n in enumerate(_needed(of)):
        if n:
            where = {"hypothesis": of.hypotheses[j].id, "noise": noise, "n": n}
            mean, sd = means_and_sds(of, noise, n, draws)
            for row in _power_one(of, j, n, mean, sd, where):
                yield row | {"quantity": f"{row['quantity']}, with the seeds needed", "nominal": hypotheses.POWER}


def _needed(of: Population) -> list[int | None]:
    """Ask how many seeds each hypothesis needs if its true spread were known."""
    return [_likely(h, of.alpha, float(sd)) for h, sd in zip(of.hypotheses, of.sds, strict=True)]


@lru_cache
def _likely(hypothesis: Hypothesis, alpha: float, sd: float) -> int | None:
    return hypotheses.seeds_needed(Sample(PILOT, 0, sd), hypothesis.kind, hypothesis.smallest, alpha).likely


def pilots(of: Population, noise: str, draws: int) -> Iterator[Row]:
    """Count pilots whose cautious number of seeds is enough, which 80 % are to be; those that cannot fail left out."""
    _, sds = means_and_sds(of, noise, PILOT, draws)
    for j, (hypothesis, needed) in enumerate(zip(of.hypotheses, _needed(of), strict=True)):
        if needed and needed > LEAST_SEEDS:
            k = int((sds[:, j] >= _least_sd(hypothesis, of.alpha, needed, float(of.sds[j]))).sum())
            where = {"hypothesis": hypothesis.id, "noise": noise, "n": PILOT}
            yield counted("cautious number of seeds is enough", k, draws, 0.8, **where)


@lru_cache
def _least_sd(hypothesis: Hypothesis, alpha: float, needed: int, sd: float) -> float:
    """Find the least sd of a pilot for which the cautious number is `needed`: more is asked for the larger it is."""
    low, high = 0.0, sd
    for _ in range(30):
        middle = (low + high) / 2
        cautious = hypotheses.seeds_needed(Sample(PILOT, 0, middle), hypothesis.kind, hypothesis.smallest, alpha)
        low, high = (low, middle) if (cautious.cautious or math.inf) >= needed else (middle, high)
    return high


# ---- Looking more than once ----


def looking(of: Population, noise: str, draws: int, last: int) -> Iterator[Row]:
    """Count studies that find an effect where there is none, at 5 %, by how often they looked before seed `last`."""
    thirds = tuple(math.ceil(last * share / 3) for share in (1, 2, 3))
    schemes = {
        "one look": ((last,), 0.05),
        "three looks, a third of alpha each": (thirds, 0.05 / 3),
        "a look after every seed": (tuple(range(LEAST_SEEDS, last + 1)), 0.05),
    }
    hits = {name: np.zeros(len(of.hypotheses), int) for name in schemes}
    for z in seeds_of(of, noise, last, draws):
        for name, (looks, alpha) in schemes.items():
            hits[name] += ever_significant(z, looks, alpha).sum(axis=0)
    for name, found in hits.items():
        for hypothesis, k in zip(of.hypotheses, found, strict=True):
            where = {"hypothesis": hypothesis.id, "noise": noise, "n": last, "truth": 0.0}
            yield counted(f"false effect, {name}", int(k), draws, 0.05, **where)


def ever_significant(z: FloatArray, looks: Sequence[int], alpha: float) -> NDArray[np.bool_]:
    """Tell whether the two-sided t test of 0 is significant at any look.

    Parameters
    ----------
    z
        Effects, shape (draws, seeds, m).
    looks
        Numbers of seeds.
    alpha
        Of each look.

    Returns
    -------
    numpy.ndarray
        Shape (draws, m).
    """
    n = np.array(looks)[:, None]
    sums, squares = (np.cumsum(part, axis=1)[:, np.array(looks) - 1] for part in (z, z**2))
    se = np.sqrt((squares - sums**2 / n) / (n - 1) / n)
    return np.asarray((np.abs(sums / n) > stats.t.ppf(1 - alpha / 2, n - 1) * se).any(axis=1))


# ---- New seeds and new images ----


@dataclass(frozen=True)
class Components:
    """Standard deviations of a contrast of accuracy: between seeds, between images, and of the two together."""

    seeds: float
    images: float
    both: float

    @classmethod
    def of(cls, values: FloatArray) -> "Components":
        """Estimate them from `values`, shape (seeds, images), by the mean squares; a negative variance counts as 0."""
        n, n_images = values.shape
        rows, columns = values.mean(axis=1), values.mean(axis=0)
        residual = values - rows[:, None] - columns + values.mean()
        both = float((residual**2).sum()) / ((n - 1) * (n_images - 1))
        of_seeds, of_images = rows.var(ddof=1) - both / n_images, columns.var(ddof=1) - both / n
        return cls(math.sqrt(max(of_seeds, 0)), math.sqrt(max(of_images, 0)), math.sqrt(both))


def crossed(rng: np.random.Generator, n: int, n_images: int, parts: Components) -> FloatArray:
    """Draw from a crossed model with Gaussian effects of seeds, of images and of both; its mean is 0."""
    seeds, images = parts.seeds * rng.standard_normal((n, 1)), parts.images * rng.standard_normal(n_images)
    return np.asarray(seeds + images + parts.both * rng.standard_normal((n, n_images)))


def resampled(rng: np.random.Generator, n: int, values: FloatArray) -> FloatArray:
    """Draw seeds and images from those of the reference, with replacement, less the mean of all of them."""
    rows, columns = (
        rng.integers(0, size, wanted) for size, wanted in zip(values.shape, (n, values.shape[1]), strict=True)
    )
    return np.asarray(values[np.ix_(rows, columns)] - values.mean())


def new_images(results: Results, draws: int) -> Iterator[Row]:
    """Count how often intervals have the effect on new seeds and new images in them."""
    for hypothesis in results.study.hypotheses:
        values = None
        if hypothesis.response == "test_accuracy":
            values = mistakes.seed_image_effects(results, hypothesis.contrast)
        if values is not None:
            for n in SIZES:
                yield from _new_images_one(values, hypothesis.id, n, draws)


def _new_images_one(values: FloatArray, name: str, n: int, draws: int) -> Iterator[Row]:
    rng, parts = np.random.default_rng([SEED, n]), Components.of(values)
    makers: dict[str, Callable[[], FloatArray]] = {
        "crossed": lambda: crossed(rng, n, values.shape[1], parts),
        "resampled": lambda: resampled(rng, n, values),
    }
    quantile = float(stats.t.ppf((1 + effects.CONFIDENCE) / 2, n - 1))
    for noise, make in makers.items():
        found = [mistakes.two_way(make()) for _ in range(draws)]
        where = {"hypothesis": name, "noise": noise, "n": n}
        k = sum(one["low_two_way"] <= 0 <= one["high_two_way"] for one in found)
        yield counted("two-way coverage of new seeds and images", k, draws, effects.CONFIDENCE, **where)
        k = sum(abs(one["estimate"]) <= quantile * one["se_seeds"] for one in found)
        yield counted(
            "coverage of new seeds and images by the interval over seeds", k, draws, effects.CONFIDENCE, **where
        )


# ---- All of it ----


def simulate(results: Results, draws: int, image_draws: int) -> pd.DataFrame:
    """Count everything: a row per quantity, hypothesis, noise, number of seeds and true effect."""
    of, rows = population(results), list[Row]()
    for noise, n in product(NOISES, SIZES):
        mean, sd = means_and_sds(of, noise, n, draws)
        for count in (coverage, false_verdicts, power):
            rows += count(of, noise, n, mean, sd)
    for noise in NOISES:
        rows += power_at_seeds_needed(of, noise, draws)
        rows += pilots(of, noise, draws)
        for last in LAST_LOOKS:
            rows += looking(of, noise, draws, last)
        print(f"{noise}: counted", flush=True)
    rows += new_images(results, image_draws)
    return pd.DataFrame(rows).astype({"n": "int64"})


def about(results: Results, compared: int) -> dict[str, Any]:
    """Say what the simulation was made from and with."""
    of = population(results)
    skews = [_skewness(row) for row in of.weights @ of.root]
    facts = {h.id: {"sd": sd, "smallest": h.smallest, "kind": h.kind, "skewness": skew}
             for h, sd, skew in zip(of.hypotheses, of.sds, skews, strict=True)}  # fmt: skip
    return {
        "study": results.study.name,
        "hypotheses_sha256": results.study.hypotheses_sha256,
        "reference_runs": len(results.final),
        "reference_seeds": of.n,
        "hypotheses": facts,
        "alpha": results.study.alpha,
        "seed": SEED,
        "compared": compared,
        "python": platform.python_version(),
        **{package: version(package) for package in ("mnist-ablate", "numpy", "scipy")},
    }


def _skewness(loadings: FloatArray) -> float:
    """Give the skewness of a sum of exponential variables with these weights."""
    return float(2 * (loadings**3).sum() / (loadings**2).sum() ** 1.5)


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, and write the counts and the page; or the page alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=REFERENCE, metavar="RESULTS", help="reference results")
    parser.add_argument("--study", default="factorial", help="whose hypotheses are asked")
    parser.add_argument("--draws", type=int, default=DRAWS, help="studies per setting")
    parser.add_argument("--image-draws", type=int, default=IMAGE_DRAWS, help="the same for new images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the counts go")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page goes")
    parser.add_argument("--page-only", action="store_true", help="make the page of the counts that are there")
    arguments = parser.parse_args(argv)
    if not arguments.page_only:
        results = hypotheses.as_pilot(load(arguments.results), load_study(arguments.study))
        compared = check_rule(population(results))
        print(f"the rule: {compared:,} verdicts, all as `hypotheses.decide` gives them")
        frame = simulate(results, arguments.draws, arguments.image_draws)
        document = about(results, compared) | {"draws": arguments.draws, "image_draws": arguments.image_draws}
        write_table(arguments.out, pa.Table.from_pandas(frame, preserve_index=False), document)
    table, document = read_table(arguments.out)
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.page, calibration_page.page(table.to_pandas(), document).encode())
    print(f"Counts: {arguments.out}\nPage:   {arguments.page}")


if __name__ == "__main__":
    main()
