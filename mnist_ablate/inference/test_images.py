"""Which test images the networks get wrong, and what the choice of those images adds to the uncertainty.

An interval over seeds holds for these test images. Accuracy on new images varies with the images, too:
`two_way_table` has the standard error over both, from the stored predictions.
"""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Contrast
from mnist_ablate.inference.effects import Effect, contrast_weights
from mnist_ablate.inference.intervals import FloatArray, TwoWaySample, half_width
from mnist_ablate.store.results import Runs


def seed_image_effects(results: Runs, contrast: Contrast) -> FloatArray | None:
    """Take a contrast of accuracy within each seed and test image.

    Returns
    -------
    numpy.ndarray or None
        Percentage points, shape (seeds that have all the cells, test images); None without stored predictions.
    """
    mistakes, labels = results.mistakes, results.labels
    if mistakes is None or labels is None:
        return None
    weights = contrast_weights(results.study, contrast)
    seeds = _common_seeds(results, list(weights))
    # All answers are right except those stored as wrong: start from all right and subtract.
    values = np.full((len(seeds), len(labels)), 100 * sum(weights.values()))
    place = pd.Series(np.arange(len(seeds)), index=seeds)
    failed = results.final[results.final["status"] == "diverged"]
    for cell, weight in weights.items():
        guessing = [seed for seed in failed["seed"][failed["cell"] == cell] if seed in place.index]
        wrong = mistakes[(mistakes["cell"] == cell) & mistakes["seed"].isin(set(seeds) - set(guessing))]
        values[place[wrong["seed"]], wrong["test_index"]] -= 100 * weight
        values[place[guessing]] -= 90 * weight  # a run that diverged counts as one that guesses
    return values


def _common_seeds(results: Runs, cells: list[str]) -> list[int]:
    """List the seeds that all of `cells` have."""
    final = results.final
    if results.study.responses[results.study.metric].guessing is None:  # a run that diverged has no value
        final = final[final["status"] == "ok"]
    counts = final[final["cell"].isin(cells)].groupby("seed")["cell"].nunique()
    return [int(seed) for seed in counts.index[counts == len(cells)]]


def two_way(values: FloatArray) -> dict[str, float]:
    """Return the standard error of the grand mean of `values`, shape (n seeds, N images), where both are samples.

    With A = s²(row means) / n, B = s²(column means) / N and C = s²(residuals) / (n N), the variance is A + B - C, at
    least A and at least B (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1); degrees of
    freedom after Satterthwaite (1946).

    Returns
    -------
    dict
        ``estimate``; ``se_seeds`` = √A, on these images; ``se_images`` = √max(B - C, 0), what the choice of images
        adds; ``se_two_way``, ``df``, ``low_two_way``, ``high_two_way``: the 95 % t interval. NaN where n = 1.
    """
    n, n_images = values.shape
    estimate = float(values.mean())
    if n < 2 or n_images < 2:
        return {"estimate": estimate} | dict.fromkeys(
            ("se_seeds", "se_images", "se_two_way", "df", "low_two_way", "high_two_way"), math.nan
        )
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    residual = _residual_sum(values, rows, columns, estimate) / ((n - 1) * (n_images - 1))
    a, b, c = rows.var(ddof=1) / n, columns.var(ddof=1) / n_images, residual / (n * n_images)
    variance = max(a + b - c, a, b)
    se = math.sqrt(variance)
    df = _satterthwaite(variance, [(a, n - 1), (b, n_images - 1), (c, (n - 1) * (n_images - 1))])
    half = float(half_width(se, df)) if se else 0.0
    return {
        "estimate": estimate,
        "se_seeds": math.sqrt(a),
        "se_images": math.sqrt(max(b - c, 0)),
        "se_two_way": se,
        "df": df,
        "low_two_way": estimate - half,
        "high_two_way": estimate + half,
    }


def two_way_sample(values: FloatArray) -> TwoWaySample:
    """Summarise `values`, shape (n seeds, N images), for verdicts on seeds and images."""
    n, n_images = values.shape
    if n == 0:
        return TwoWaySample(0, math.nan, math.nan)
    found = two_way(values)
    return TwoWaySample(n, found["estimate"], found["se_seeds"] * math.sqrt(n), se_both=found["se_two_way"],
                        df_both=found["df"], se_images=found["se_images"], images=n_images)  # fmt: skip


def _residual_sum(values: FloatArray, rows: FloatArray, columns: FloatArray, mean: float) -> float:
    """Return the residual sum of squares as the total minus rows and columns, which needs no second large array."""
    total = float(np.einsum("ij,ij->", values, values)) - values.size * mean**2
    explained = values.shape[1] * ((rows - mean) ** 2).sum() + values.shape[0] * ((columns - mean) ** 2).sum()
    return max(total - float(explained), 0.0)


def _satterthwaite(variance: float, parts: Iterable[tuple[float, int]]) -> float:
    spread = sum(part**2 / df for part, df in parts)
    return variance**2 / spread if spread else math.inf


def two_way_table(results: Runs, effects: Iterable[Effect]) -> pd.DataFrame | None:
    """Estimate effects on test accuracy with the standard error over seeds and test images.

    Returns
    -------
    pandas.DataFrame or None
        One row per effect: ``kind``, ``label``, ``n``, and the keys of `two_way`, in percentage points; None without
        stored predictions.
    """
    if results.mistakes is None:
        return None
    rows = []
    for effect in effects:
        values = seed_image_effects(results, effect.contrast)
        n = 0 if values is None else len(values)
        numbers = two_way(values) if values is not None and n else {}
        rows.append({"kind": effect.kind, "label": effect.label, "n": n} | numbers)
    return pd.DataFrame(rows)


def error_counts(results: Runs) -> pd.DataFrame | None:
    """Count, for each test image, how many runs of each cell get it wrong.

    Returns
    -------
    pandas.DataFrame or None
        A row per test image, ``label`` and a column per cell; None without stored predictions.
    """
    mistakes, labels = results.mistakes, results.labels
    if mistakes is None or labels is None:
        return None
    counts = mistakes.groupby(["test_index", "cell"], observed=True).size().unstack(fill_value=0)
    names = list(dict.fromkeys(results.final["cell"]))
    frame = counts.reindex(index=range(len(labels)), columns=names, fill_value=0)
    frame.columns.name = None
    frame.insert(0, "label", labels)
    return frame


def always_wrong(results: Runs) -> pd.DataFrame | None:
    """Return the test images that every run of every cell gets wrong.

    Returns
    -------
    pandas.DataFrame or None
        ``test_index``, ``label``, ``prediction`` (the commonest), ``share`` (of the runs that answer so), in the order
        of the test set; None without stored predictions.
    """
    mistakes = results.mistakes
    if mistakes is None:
        return None
    runs = len(results.final)
    counts = mistakes.groupby("test_index").size()
    of_all = mistakes[mistakes["test_index"].isin(counts.index[counts == runs])]
    answers = of_all.groupby(["test_index", "label", "prediction"]).size().rename("runs").reset_index()
    answers = answers.sort_values(["test_index", "runs", "prediction"], ascending=[True, False, True])
    first = answers.drop_duplicates("test_index").reset_index(drop=True)
    return first.assign(share=first.pop("runs") / runs)


def confusions(results: Runs) -> pd.DataFrame | None:
    """Count which classes are taken for which, over all runs.

    Returns
    -------
    pandas.DataFrame or None
        ``label``, ``prediction``, ``per_run`` (mistakes of this kind in a mean run), ``share`` (of all mistakes), most
        frequent first; None without stored predictions.
    """
    mistakes = results.mistakes
    if mistakes is None:
        return None
    counts = mistakes.groupby(["label", "prediction"]).size().rename("count").reset_index()
    counts = counts.sort_values(["count", "label", "prediction"], ascending=[False, True, True]).reset_index(drop=True)
    count = counts.pop("count")
    return counts.assign(per_run=count / len(results.final), share=count / max(len(mistakes), 1))
