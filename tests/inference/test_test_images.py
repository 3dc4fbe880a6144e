"""Mistakes on test images, and the standard error over seeds and images, against brute force and known truth."""

import itertools
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mnist_ablate.design.contrasts import Contrast
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference import test_images as mistakes
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.effects import Effect
from mnist_ablate.inference.intervals import FloatArray
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load

STUDY = parse_study(
    {"name": "pair", "seeds": 3, "protocol": {"epochs": 1}, "factors": {"l2": [0.0, 1.0], "dropout": [0.0, 0.5]}}
)
LABELS = [0, 1, 2, 3, 4, 5]
L2 = Effect("main", "l2", Contrast("l2"))
# What the runs say of the six images, where it is wrong.
WRONG: dict[synthetic.CellSeed, dict[int, int]] = {
    ("baseline", 0): {0: 6, 1: 7, 5: 3},
    ("baseline", 1): {0: 6, 1: 7},
    ("baseline", 2): {0: 6, 2: 7},
    ("dropout", 0): {0: 6, 1: 7, 4: 9},
    ("dropout", 1): {0: 8, 1: 7},
    ("dropout", 2): {0: 6},
    ("l2", 0): {0: 8, 1: 7},
    ("l2", 1): {0: 6, 4: 9},
    ("l2", 2): {0: 6},
    ("l2+dropout", 0): {0: 6},
    ("l2+dropout", 1): {0: 6, 1: 7},
    ("l2+dropout", 2): {0: 6, 3: 9},
}


def answers(run: Run, wrong: dict[synthetic.CellSeed, dict[int, int]] | None = None) -> dict[str, Any]:
    """Say what a run answers: the label, but where it is planted wrong."""
    said = (WRONG if wrong is None else wrong).get((run.cell, run.seed), {})
    return {
        "test_index": np.arange(6, dtype=np.int32),
        "label": np.array(LABELS, dtype=np.uint8),
        "prediction": np.array([said.get(i, label) for i, label in enumerate(LABELS)], dtype=np.uint8),
        "confidence": np.full(6, 0.5, dtype=np.float32),
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the 12 runs of `WRONG`."""
    return load(synthetic.make(tmp_path_factory.mktemp("planted"), STUDY, answers=answers))


def brute_force(values: FloatArray) -> dict[str, float]:
    """Do what `two_way` does, slowly and from the definitions."""
    n, n_images = values.shape
    mean = sum(values.flat) / values.size
    rows = [sum(row) / n_images for row in values]
    columns = [sum(column) / n for column in values.T]
    a = sum((r - mean) ** 2 for r in rows) / (n - 1) / n
    b = sum((c - mean) ** 2 for c in columns) / (n_images - 1) / n_images
    residuals = [values[i, j] - rows[i] - columns[j] + mean for i in range(n) for j in range(n_images)]
    c = sum(r**2 for r in residuals) / ((n - 1) * (n_images - 1)) / (n * n_images)
    variance = max(a + b - c, a, b)
    df = variance**2 / (a**2 / (n - 1) + b**2 / (n_images - 1) + c**2 / ((n - 1) * (n_images - 1)))
    low, high = stats.t(df, mean, math.sqrt(variance)).interval(0.95)
    return {
        "estimate": mean, "se_seeds": math.sqrt(a), "se_images": math.sqrt(max(b - c, 0)),
        "se_two_way": math.sqrt(variance), "df": df, "low_two_way": low, "high_two_way": high,
    }  # fmt: skip


_SHAPE = st.tuples(st.integers(2, 7), st.integers(2, 30), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 97.5]))


@given(_SHAPE)
def test_two_way_is_what_it_is_defined_as(drawn: tuple[int, int, int, float]) -> None:
    """Of any table, whatever its mean, two_way gives what the definitions give, value by value."""
    n, n_images, seed, mean = drawn
    values = mean + np.random.default_rng(seed).normal(size=(n, n_images))
    assert mistakes.two_way(values) == pytest.approx(brute_force(values), rel=1e-6)


def test_two_way_of_equal_parts() -> None:
    """Where seeds and images vary alike, each has its own share in the degrees of freedom: 4 / (1 + 1 + ...)."""
    values = np.array([[3.0, 1.0], [1.0, 0.0]])
    assert mistakes.two_way(values) == pytest.approx(brute_force(values))


@pytest.mark.parametrize(("sd_rows", "sd_columns", "sd_rest"), [(1.0, 6.0, 10.0), (3.0, 2.0, 5.0), (0.5, 12.0, 4.0)])
def test_the_variance_is_right_on_average(sd_rows: float, sd_columns: float, sd_rest: float) -> None:
    """Of tables with known parts, the mean v is the variance of the grand mean: rows / n + columns / N + rest / nN."""
    n, n_images, rng = 8, 60, np.random.default_rng(7)
    truth = sd_rows**2 / n + sd_columns**2 / n_images + sd_rest**2 / (n * n_images)
    found = []
    for _ in range(3000):
        rows, columns = rng.normal(0, sd_rows, (n, 1)), rng.normal(0, sd_columns, (1, n_images))
        found.append(mistakes.two_way(rows + columns + rng.normal(0, sd_rest, (n, n_images))))
    estimates = np.array([one["estimate"] for one in found])
    variances = np.array([one["se_two_way"] ** 2 for one in found])
    # v is at least A and at least B, which adds a little on average: hence 1 % beside the Monte Carlo error.
    assert variances.mean() == pytest.approx(truth, abs=4 * variances.std() / math.sqrt(3000) + 0.01 * truth)
    assert estimates.var() == pytest.approx(truth, rel=4 * math.sqrt(2 / 3000))
    covered = sum(one["low_two_way"] < 0 < one["high_two_way"] for one in found)
    assert 0.93 < covered / 3000 < 0.975


def test_all_images_alike() -> None:
    """Where all images are alike, the standard error is that of the seeds, with n - 1 degrees of freedom."""
    rows = np.array([0.5, 1.5, -0.25, 1.0])
    found = mistakes.two_way(np.repeat(rows[:, None], 50, axis=1))
    interval = stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    assert found["se_images"] == pytest.approx(0, abs=1e-9)
    assert found["se_two_way"] == pytest.approx(found["se_seeds"])
    assert found["se_seeds"] == pytest.approx(stats.sem(rows))
    assert found["df"] == pytest.approx(3)
    assert (found["low_two_way"], found["high_two_way"]) == pytest.approx((interval.low, interval.high))


def test_all_seeds_alike() -> None:
    """Where all seeds are alike, the standard error is that of the images, with N - 1 degrees of freedom."""
    columns = np.random.default_rng(2).normal(size=40)
    found = mistakes.two_way(np.tile(columns, (5, 1)))
    assert found["se_seeds"] == pytest.approx(0, abs=1e-9)
    assert found["se_two_way"] == pytest.approx(stats.sem(columns))
    assert found["se_images"] == pytest.approx(stats.sem(columns))
    assert found["df"] == pytest.approx(39)


def test_everything_alike_and_too_little() -> None:
    """A constant is known without error; one seed, or one image, has an estimate and no error."""
    constant = mistakes.two_way(np.full((4, 9), 2.5))
    assert (constant["se_two_way"], constant["low_two_way"], constant["high_two_way"]) == (0, 2.5, 2.5)
    for shape in ((1, 9), (9, 1)):
        found = mistakes.two_way(np.full(shape, 2.5))
        assert found.pop("estimate") == 2.5
        assert all(math.isnan(value) for value in found.values())


@given(st.integers(0, 1000), st.floats(-100, 100), st.sampled_from([-4.0, -0.5, 0.5, 3.0]))
def test_two_way_does_not_heed_order_shift_and_scale(seed: int, shift: float, scale: float) -> None:
    """Seeds and images in another order change nothing; a shift moves the estimate; a factor scales the errors."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, 12))
    before = mistakes.two_way(values)
    after = mistakes.two_way(scale * rng.permutation(rng.permutation(values), axis=1) + shift)
    for name in ("se_seeds", "se_images", "se_two_way"):
        assert after[name] == pytest.approx(abs(scale) * before[name], abs=1e-5)
    assert after["estimate"] == pytest.approx(scale * before["estimate"] + shift)
    assert after["df"] == pytest.approx(before["df"], rel=1e-4)


def test_effects_by_seed_and_image(planted: Results) -> None:
    """A contrast within a seed and an image is the contrast of right answers, worth 100 points each."""
    weights = {"baseline": -0.5, "dropout": -0.5, "l2": 0.5, "l2+dropout": 0.5}
    expected = np.zeros((3, 6))
    for (cell, weight), seed, image in itertools.product(weights.items(), range(3), range(6)):
        expected[seed, image] += 100 * weight * (image not in WRONG[cell, seed])
    found = mistakes.seed_image_effects(planted, Contrast("l2"))
    assert found is not None
    assert found == pytest.approx(expected)
    mean = mistakes.seed_image_effects(planted, Contrast("mean", "reference"))
    assert mean is not None
    assert mean.mean(axis=1) == pytest.approx([50, 100 * 4 / 6, 100 * 4 / 6])


def test_table_agrees_with_the_definitions(planted: Results) -> None:
    """The table has a row per standard effect, with what two_way gives of its seeds and images."""
    table = analyse(planted).two_way
    assert table is not None
    assert list(table["label"]) == ["l2", "dropout", "l2 \N{MULTIPLICATION SIGN} dropout", "l2 alone", "dropout alone"]
    values = mistakes.seed_image_effects(planted, Contrast("l2"))
    assert values is not None
    found = mistakes.two_way_table(planted, [L2])
    assert found is not None
    assert found.iloc[0].drop(["kind", "label", "n"]).to_dict() == pytest.approx(brute_force(values))
    assert found["n"].tolist() == [3]


def test_seeds_average_is_the_effect_on_accuracy(tmp_path: Path) -> None:
    """Where accuracies are those of the predictions, images' mean within a seed is the seed's effect on accuracy."""
    study = synthetic.factorial(3, 1)
    results = load(synthetic.make(tmp_path, study))
    for run_id in results.documents:
        said = results.predictions(run_id)
        results.epochs.loc[results.epochs["run_id"] == run_id, "test_accuracy"] = (
            said["label"] == said["prediction"]
        ).mean()
    # Labels differ between seeds in the synthetic predictions, so that these are not tables of one test set.
    assert results.mistakes is None
    same = load(synthetic.make(tmp_path / "same", study, answers=lambda run: _relabelled(run)))
    for run_id in same.documents:
        said = same.predictions(run_id)
        right = (said["label"] == said["prediction"]).mean()
        same.epochs.loc[same.epochs["run_id"] == run_id, "test_accuracy"] = right
    for effect in ("dropout", "l2:batch_norm"):
        values = mistakes.seed_image_effects(same, Contrast(effect))
        assert values is not None
        assert values.mean(axis=1) == pytest.approx(analyse(same).contrast(Contrast(effect)).to_numpy(), abs=1e-9)


def _relabelled(run: Run) -> dict[str, Any]:
    """Answer at random, of the same labels in all runs."""
    labels = np.arange(20, dtype=np.uint8) % 10
    rng = np.random.default_rng(int(run.run_id, 16))
    said = np.where(rng.random(20) < 0.7, labels, 9 - labels).astype(np.uint8)
    return {
        "test_index": np.arange(20, dtype=np.int32), "label": labels, "prediction": said,
        "confidence": np.ones(20, np.float32),
    }  # fmt: skip


def test_seeds_without_all_cells(tmp_path: Path) -> None:
    """Only seeds that have all the cells of a contrast count; with one left there is no error, with none no number."""
    gone = [("l2", 1), ("dropout", 2)]
    results = load(synthetic.make(tmp_path, STUDY, answers=answers, missing=gone))
    main = mistakes.seed_image_effects(results, Contrast("l2"))
    simple = mistakes.seed_image_effects(results, Contrast("l2", "reference"))
    assert main is not None
    assert simple is not None
    assert (main.shape, simple.shape) == ((1, 6), (2, 6))
    assert simple[1].tolist() == [0, 0, 100, 0, 0, 0]  # seed 2: image 2 is wrong in the baseline alone
    table = mistakes.two_way_table(results, [L2])
    assert table is not None
    assert table["estimate"].notna().all()
    assert table["se_two_way"].isna().all()
    gone += [("baseline", 0)]
    empty = load(synthetic.make(tmp_path / "empty", STUDY, answers=answers, missing=gone))
    table = mistakes.two_way_table(empty, [L2])
    assert table is not None
    assert table["n"].tolist() == [0]


def test_error_counts_by_hand(planted: Results) -> None:
    """A row per test image, also of those that are always right, and how many of a cell's three runs get it wrong."""
    frame = mistakes.error_counts(planted)
    assert frame is not None
    assert frame.columns.tolist() == ["label", "baseline", "dropout", "l2", "l2+dropout"]
    assert frame["label"].tolist() == LABELS
    assert frame.index.tolist() == list(range(6))
    for cell in ("baseline", "dropout", "l2", "l2+dropout"):
        counts = Counter(image for seed in range(3) for image in WRONG[cell, seed])
        assert frame[cell].tolist() == [counts[image] for image in range(6)]


def test_always_wrong_by_hand(planted: Results) -> None:
    """Image 0 is wrong in all 12 runs, ten times as a 6; image 1, wrong in seven, is not listed."""
    frame = mistakes.always_wrong(planted)
    assert frame is not None
    assert frame.to_dict("records") == [{"test_index": 0, "label": 0, "prediction": 6, "share": 10 / 12}]


def test_confusions_by_hand(planted: Results) -> None:
    """All wrong answers by kind, the commonest first, and equal ones by label."""
    frame = mistakes.confusions(planted)
    assert frame is not None
    counts = Counter((LABELS[i], said) for wrong in WRONG.values() for i, said in wrong.items())
    assert counts[1, 7] == 6
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(frame["label"], frame["prediction"], strict=True)) == [kind for kind, _ in expected]
    assert frame["per_run"].tolist() == pytest.approx([count / 12 for _, count in expected])
    assert frame["share"].sum() == pytest.approx(1)


def test_no_mistakes_at_all(tmp_path: Path) -> None:
    """Where every answer is right, tables are empty or zero, effects are 0, and nothing warns."""
    results = load(synthetic.make(tmp_path, STUDY, answers=partial(answers, wrong={})))
    always, kinds, counts = mistakes.always_wrong(results), mistakes.confusions(results), mistakes.error_counts(results)
    assert always is not None
    assert kinds is not None
    assert counts is not None
    assert (len(always), len(kinds)) == (0, 0)
    assert (counts.drop(columns="label") == 0).to_numpy().all()
    values = mistakes.seed_image_effects(results, Contrast("l2"))
    assert values is not None
    assert values == pytest.approx(np.zeros((3, 6)))


@pytest.mark.parametrize("why", ["gone", "other labels"])
def test_without_predictions_there_is_none(tmp_path: Path, why: str) -> None:
    """Where a run's predictions are not there, or are of other images, nothing is said of images."""
    folder = synthetic.make(tmp_path, STUDY, answers=answers if why == "gone" else None)
    results = load(folder)
    if why == "gone":
        Store(folder).predictions_file(results.final["run_id"].iloc[0]).unlink()
    assert results.mistakes is None
    assert results.labels is None
    assert mistakes.seed_image_effects(results, Contrast("l2")) is None
    assert analyse(results).two_way is None
    assert mistakes.error_counts(results) is None
    assert mistakes.always_wrong(results) is None
    assert mistakes.confusions(results) is None
