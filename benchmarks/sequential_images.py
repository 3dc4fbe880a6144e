"""Do repeated intervals over seeds and images hold at all looks? A simulation, part of ``nox -s calibration``.

A hypothesis with ``population = "seeds and images"`` in a study that goes on until it is settled has an interval at
each look, and all of them together may miss the effect with alpha / m. All looks share one set of test images. For
every such hypothesis of the reference studies we draw studies whose seeds and images vary as much as the reference's.

`write` makes ``results/reference/sequential-images.parquet``, a row per hypothesis and way of drawing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import calibration
import numpy as np
import pandas as pd
import pyarrow as pa
from calibration import Components, Floats, Hits, crossed, resampled
from scipy import stats

from mnist_ablate.design.study import Study, bundled_studies
from mnist_ablate.inference import test_images
from mnist_ablate.inference.sequential import repeated, tails
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import write_table

_CHUNK = 50
"""Studies drawn at once: each has a number per look and image."""
_RESAMPLED = 300
"""Studies per hypothesis that are resampled: each takes as long as hundreds of the Gaussian model."""
_CHECKED = 5
"""Studies per hypothesis whose intervals are compared with those of the package."""


@dataclass(frozen=True)
class Looked:
    """Studies without an effect, look by look: shape (studies, looks).

    Parameters
    ----------
    mean
        Of the seeds so far.
    of_seeds, of_images
        Variance of the mean by the choice of seeds, and what the choice of images adds; not below 0.
    """

    mean: Floats
    of_seeds: Floats
    of_images: Floats

    @classmethod
    def of_all(cls, parts: Sequence["Looked"]) -> "Looked":
        """Put studies together."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def misses(self, looks: tuple[int, ...], images: int, alpha: float) -> Hits:
        """Return where the repeated interval of any look leaves out 0, shape (studies,)."""
        low, high = self.ends(looks, images, alpha)
        return np.asarray(((low > 0) | (high < 0)).any(axis=1))

    def ends(self, looks: tuple[int, ...], images: int, alpha: float) -> tuple[Floats, Floats]:
        """Return the ends of the interval at each look before it is cut to those of earlier looks."""
        tail, n = np.array(list(tails(alpha, looks).values())), np.array(looks)
        half = np.sqrt(
            stats.t.isf(tail, n - 1) ** 2 * self.of_seeds + stats.t.isf(tail, images - 1) ** 2 * self.of_images
        )
        return self.mean - half, self.mean + half


def followed(values: Floats, looks: tuple[int, ...]) -> Looked:
    """Look at one study, shape (seeds, images), as it grows."""
    parts = [test_images.two_way(values[:n]) for n in looks]
    mean, of_seeds, of_images = ([part[name] for part in parts] for name in ("estimate", "se_seeds", "se_images"))
    return Looked(np.array([mean]), np.array([of_seeds]) ** 2, np.array([of_images]) ** 2)


def gaussian(rng: np.random.Generator, studies: int, looks: tuple[int, ...], images: int, parts: Components) -> Looked:
    """Draw studies of the crossed Gaussian model, look by look, without their numbers for each seed and image.

    In a batch of seeds the interaction's means of images are independent of how its means of seeds lie around their
    common mean, so both can be drawn alone.
    """
    n, added = np.array(looks), np.diff(looks, prepend=0)
    own = parts.images * rng.standard_normal((studies, 1, images))
    batches = rng.standard_normal((studies, len(looks), images)) * (parts.both * np.sqrt(added))[:, None]
    columns = own + np.cumsum(batches, axis=1) / n[:, None]
    common = np.repeat(batches.mean(axis=2) / added, added, axis=1)
    around = rng.standard_normal((studies, n[-1])) * parts.both / math.sqrt(images)
    starts = n - added
    around -= np.repeat(np.add.reduceat(around, starts, axis=1) / added, added, axis=1)
    seeds = parts.seeds * rng.standard_normal((studies, n[-1]))
    rows = seeds + common + around
    sums, squares = (np.cumsum(part, axis=1)[:, n - 1] for part in (rows, rows**2))
    df = (n - 1) * (images - 1)
    residual = parts.both**2 * rng.chisquare(df, (studies, len(looks))) / df
    of_images = np.maximum(columns.var(axis=2, ddof=1) / images - residual / (n * images), 0)
    return Looked(own.mean(axis=2) + sums / n, (squares - sums**2 / n) / (n - 1) / n, of_images)


def check(values: Floats, looks: tuple[int, ...], alpha: float) -> int:
    """Compare intervals with those of the package; return the number of studies compared.

    Raises
    ------
    AssertionError
        If they differ once.
    """
    rng, parts = np.random.default_rng(calibration.SEED), Components.of(values)
    for _ in range(_CHECKED):
        drawn = crossed(rng, looks[-1], values.shape[1], parts)
        low, high = followed(drawn, looks).ends(looks, values.shape[1], alpha)
        sample = repeated([(n, test_images.two_way_sample(drawn[:n])) for n in looks], looks)
        assert np.allclose(sample.interval(alpha), (low.max(), high.min()), rtol=1e-9)
    return _CHECKED


def simulate(study: Study, name: str, values: Floats, alpha: float, draws: int) -> Iterator[calibration.Row]:
    """Count how often any look's interval misses the effect of the hypothesis `name`: a row per way of drawing."""
    rng, parts, (_, images) = np.random.default_rng(calibration.SEED), Components.of(values), values.shape
    looks = study.looks
    chunks = [gaussian(rng, min(_CHUNK, draws - i), looks, images, parts) for i in range(0, draws, _CHUNK)]
    again = [followed(resampled(rng, looks[-1], values), looks) for _ in range(_RESAMPLED)]
    for noise, drawn in (("crossed", chunks), ("resampled", again)):
        missed = Looked.of_all(drawn).misses(looks, images, alpha)
        yield calibration.counted(
            "miss", int(missed.sum()), len(missed), alpha,
            study=study.name, hypothesis=name, noise=noise, looks=len(looks), most=looks[-1],
        )  # fmt: skip


def write(references: Path, draws: int, out: Path) -> None:
    """Simulate for every reference study that was looked at as it grew, and write the counts."""
    rows: list[calibration.Row] = []
    compared = 0
    for name in bundled_studies():
        if not (references / name / "study.json").exists():
            continue
        results = load(references / name)
        study = results.study
        if len(study.looks) < 2:
            continue
        alpha = study.alpha / len(study.hypotheses)
        for hypothesis in study.hypotheses:
            if hypothesis.population == "seeds and images":
                values = test_images.seed_image_effects(results, hypothesis.contrast)
                assert values is not None, f"{name}: no stored answers"
                compared += check(values, study.looks, alpha)
                rows += simulate(study, hypothesis.id, values, alpha, draws)
                print(f"{name}/{hypothesis.id}: counted", flush=True)
    print(f"{compared} studies: all intervals as in the package")
    write_table(out, pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False), {"draws": draws})
