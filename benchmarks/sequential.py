"""Do studies that go on until they are settled keep their promises? A simulation, part of ``nox -s calibration``.

It draws the seeds of ``benchmarks/calibration.py`` and follows each study from look to look, many studies at once. Each
run first compares looks, verdicts and stops with those of `mnist_ablate.inference.looks`.

`write` makes ``results/reference/sequential.parquet``, a row per noise and true effect.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import calibration
import numpy as np
import pandas as pd
import pyarrow as pa
from calibration import NOISES, Floats, Hits, Population, counted, is_false, population, seeds_of
from numpy.typing import NDArray
from scipy import stats

from mnist_ablate.design.study import Study
from mnist_ablate.inference import power as powers
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.looks import _DRAWS, _OPEN, _Followed
from mnist_ablate.inference.sequential import repeated, tails
from mnist_ablate.store.results import Results
from mnist_ablate.store.sealed import write_table

Indices = NDArray[np.intp]
TRUTHS = (0.0, 0.5, 1.0, 2.0)
"""True effects of all hypotheses, in units of the smallest that matters, as claimed.

One more setting mixes them, and one takes for true what the results measured.
"""
_CHECKED = 20
"""Studies per noise whose stops are compared with those of the package."""


@dataclass(frozen=True)
class Rule:
    """What decides in a study: its family, its looks, and when it stops.

    Parameters
    ----------
    study
        A study whose seeds grow.
    people
        Its hypotheses, with their true spreads.
    """

    study: Study
    people: Population

    @property
    def looks(self) -> Floats:
        """The numbers of seeds, shape (looks, 1)."""
        return np.array(self.study.looks, dtype=float)[:, None]

    @property
    def smallest(self) -> Floats:
        """The smallest effects that matter, shape (m,)."""
        return np.array([hypothesis.smallest for hypothesis in self.people.hypotheses])

    @property
    def critical(self) -> Floats:
        """The critical values of t at the looks, shape (looks, 1)."""
        tail = np.array(list(tails(self.people.alpha, self.study.looks).values()))[:, None]
        return np.asarray(stats.t.isf(tail, self.looks - 1))

    def settled(self, low: Floats, high: Floats) -> dict[str, Hits]:
        """Return where the last axis, the hypotheses, has which verdict, by intervals in the direction of claims."""
        claims = np.array([h.kind != "negligible" for h in self.people.hypotheses])
        empty, inside = low > high, (-self.smallest < low) & (high < self.smallest)
        beyond = (low > self.smallest) | (high < -self.smallest)
        verdicts = {
            "negligible": claims & inside & ~empty,
            "refuted": np.where(claims, high < 0, beyond) & ~inside & ~empty,
            "supported": np.where(claims, (low > self.smallest) & ~inside, inside) & ~empty,
        }
        verdicts["supported, size open"] = claims & (low > 0) & ~(low > self.smallest) & ~inside & ~empty
        return verdicts


@dataclass(frozen=True)
class Course:
    """Studies without an effect, look by look: shape (studies, looks, hypotheses). True effects are added.

    Parameters
    ----------
    mean, sd
        Of the seeds so far.
    low, high
        Ends of the repeated intervals.
    """

    mean: Floats
    sd: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, rule: Rule, z: Floats) -> "Course":
        """Follow the effects `z`, shape (studies, seeds, hypotheses)."""
        at = np.array(rule.study.looks) - 1
        sums, squares = (np.cumsum(part, axis=1)[:, at] for part in (z, z**2))
        n = rule.looks
        mean = sums / n
        sd = np.sqrt((squares - sums * mean) / (n - 1))
        half = rule.critical * sd / np.sqrt(n)
        return cls(mean, sd, np.maximum.accumulate(mean - half, axis=1), np.minimum.accumulate(mean + half, axis=1))


@dataclass(frozen=True)
class Stops:
    """Where studies stop: the look, from 0, why (`settled`, `futile`, else the most seeds), and their verdicts."""

    look: Indices
    settled: Hits
    futile: Hits
    verdicts: dict[str, Hits]


def stops(rule: Rule, course: Course, truth: Floats) -> Stops:
    """Follow studies with true effects `truth`, shape (m,), to their stops."""
    verdicts = rule.settled(course.low + truth, course.high + truth)
    closed = np.logical_or.reduce([hits for name, hits in verdicts.items() if name not in _OPEN[rule.study.settle]])
    done = closed.all(axis=2)
    futile = np.zeros_like(done)
    for k in range(len(rule.looks) - 1):
        running = ~done[:, : k + 1].any(axis=1) & ~futile[:, :k].any(axis=1)
        i = np.flatnonzero(running)
        chance = _chance(rule, course, truth, i, k)
        futile[i, k] = (closed[i, k] | (chance < rule.study.futility)).all(axis=1)
    stopping = done | futile
    stopping[:, -1] = True
    look = stopping.argmax(axis=1)
    every = np.arange(len(look))
    at_stop = {name: hits[every, look] for name, hits in verdicts.items()}
    return Stops(look, done[every, look], futile[every, look] & ~done[every, look], at_stop)


def _chance(rule: Rule, course: Course, truth: Floats, i: Indices, k: int) -> Floats:
    """Return the predictive probability of each hypothesis of the studies `i` to be settled at the most seeds."""
    n, most = rule.looks[k, 0], rule.looks[-1, 0]
    scores = stats.t.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, n - 1)[:, None, None]
    sd = course.sd[i, k]
    mean = course.mean[i, k] + truth + sd * np.sqrt(1 / n - 1 / most) * scores
    half = rule.critical[-1] * sd / np.sqrt(most)
    low, high = course.low[i, k] + truth, course.high[i, k] + truth
    verdicts = rule.settled(np.maximum(low, mean - half), np.minimum(high, mean + half))
    kept = [hits for name, hits in verdicts.items() if name not in _OPEN[rule.study.settle]]
    return np.asarray(np.logical_or.reduce(kept).mean(axis=0))


def check(rule: Rule) -> int:
    """Compare stops with those of the package; return the number of studies compared.

    Raises
    ------
    AssertionError
        If they differ once.
    """
    compared, study = 0, rule.study.reaching(rule.study.looks[-1])
    signs = np.array([-1 if h.kind == "decrease" else 1 for h in study.hypotheses])
    for noise in NOISES:
        z = next(seeds_of(rule.people, noise, study.looks[-1], _CHECKED))
        for truth in mixed(rule, _CHECKED)[:4]:
            found = stops(rule, Course.of(rule, z), truth)
            for i in range(len(z)):
                grown = [[(n, Sample.of(effects[:n])) for n in study.looks] for effects in ((z[i] + truth) * signs).T]
                samples = [repeated(each, study.looks) for each in grown]
                followed = _Followed(study, [(sample, [""] * len(study.looks)) for sample in samples])
                standing = next(s for s in map(followed.at, range(len(study.looks))) if s.stop)
                stop = "settled" if found.settled[i] else "futile" if found.futile[i] else "most"
                assert (standing.seeds, standing.stop) == (study.looks[found.look[i]], stop), (noise, i)
                compared += 1
    return compared


def mixed(rule: Rule, n: int) -> list[Floats]:
    """Return `n` vectors of true effects, each hypothesis with one of `TRUTHS` that is drawn."""
    rng = np.random.default_rng(calibration.SEED)
    return [rng.choice(TRUTHS, len(rule.smallest)) * rule.smallest for _ in range(n)]


def simulate(rule: Rule, draws: int) -> Iterator[dict[str, object]]:
    """Count everything: a row per noise and true effect."""
    needed = [powers.seeds_needed(Sample(10, 0, float(sd)), h.kind, h.smallest, rule.people.alpha).likely
              for h, sd in zip(rule.people.hypotheses, rule.people.sds, strict=True)]  # fmt: skip
    fixed = max(n or 0 for n in needed)
    settings = [(f"{truth:g}", truth * rule.smallest) for truth in TRUTHS]
    for noise in NOISES:
        chunks = [Course.of(rule, z) for z in seeds_of(rule.people, noise, rule.study.looks[-1], draws)]
        missed = np.concatenate([((c.low > 0) | (c.high < 0)).any(axis=1) for c in chunks])  # at any look to the last
        for name, truth in [*settings, ("mixed", None), ("measured", rule.people.means)]:
            truths = mixed(rule, len(chunks)) if truth is None else [truth] * len(chunks)
            found = [stops(rule, c, t) for c, t in zip(chunks, truths, strict=True)]
            counts = _row(rule, chunks, truths, found, missed)
            yield {"noise": noise, "truth": name, "studies": draws, "fixed": fixed} | counts
        print(f"{noise}: counted", flush=True)


def _row(rule: Rule, chunks: list[Course], truths: list[Floats], found: list[Stops], missed: Hits) -> dict[str, object]:
    family = rule.people.alpha * len(rule.smallest)
    wrong, right, biases = [], [], []
    for course, truth, stop in zip(chunks, truths, found, strict=True):
        false, true = (np.zeros(stop.verdicts["refuted"].shape, bool) for _ in range(2))
        for verdict, hits in stop.verdicts.items():
            for j, hypothesis in enumerate(rule.people.hypotheses):
                if is_false(verdict, hypothesis.kind, float(truth[j] / rule.smallest[j])):
                    false[:, j] |= hits[:, j]
                elif verdict not in _OPEN[rule.study.settle]:
                    true[:, j] |= hits[:, j]
        wrong.append(false.any(axis=1))
        right.append(true)
        biases.append(course.mean[np.arange(len(stop.look)), stop.look] / rule.smallest)
    error, cover = np.concatenate(wrong), np.asarray(~missed.any(axis=1))
    seeds = rule.looks[np.concatenate([stop.look for stop in found]), 0]
    bias = np.concatenate(biases).mean(axis=0)
    row: dict[str, object] = {}
    for name, hits, nominal in (("error", error, family), ("coverage", cover, 1 - family)):
        count = counted(name, int(hits.sum()), len(hits), nominal)
        row |= {f"{name}_{key}": count[key] for key in ("k", "estimate", "low", "high", "nominal")}
    return row | {
        "settled": float(np.concatenate([stop.settled for stop in found]).mean()),
        "futile": float(np.concatenate([stop.futile for stop in found]).mean()),
        "mean_seeds": float(seeds.mean()), "max_seeds": int(seeds.max()),
        "bias": float(bias[np.abs(bias).argmax()]),
        "right": dict(zip(rule.people.ids, np.concatenate(right).mean(axis=0).tolist(), strict=True)),
    }  # fmt: skip


def write(results: Results, study: Study, draws: int, out: Path) -> None:
    """Simulate with the covariance of `results`, the hypotheses and the looks of `study`, and write the counts."""
    rule = Rule(study, population(powers.as_pilot(results, study)))
    print(f"{check(rule):,} studies: all stop as in the package")
    frame = pd.DataFrame(simulate(rule, draws))
    write_table(out, pa.Table.from_pandas(frame, preserve_index=False), {"study": study.name})
