"""The calibration: its rule is that of the verdicts, its noise has the shape it claims, its counts are right."""

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy import stats

from mnist_ablate.design.contrasts import Contrast
from mnist_ablate.inference import effects, test_images
from mnist_ablate.inference import verdicts as rule
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.store.results import Results, load
from mnist_ablate.store.sealed import read_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """Import benchmarks/calibration.py, which is not part of the package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("calibration")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 8 cells x 12 seeds."""
    return load(synthetic.make(tmp_path_factory.mktemp("results"), synthetic.factorial(12, 2)))


@pytest.fixture(scope="module")
def people(script: ModuleType, results: Results) -> Any:
    """Return the population of `results`."""
    return script.population(results)


def test_the_rule_is_that_of_the_verdicts(script: ModuleType, people: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast rule gives what `decide` gives on thousands of samples, and another rule is noticed."""
    monkeypatch.setattr(script, "_CHECKED", 12)
    assert script.check_rule(people) == 5 * 4 * 12 * 9 * 3
    monkeypatch.setattr(rule, "decide", lambda *_: "supported")
    with pytest.raises(AssertionError):
        script.check_rule(people)


def test_the_rule_gives_every_verdict(script: ModuleType) -> None:
    """Samples made for each verdict get it, also with too few seeds and without spread."""
    mean, sd = np.array([1.0, 0.5, 0.05, -1.0, 0.2, 1.0]), np.array([0.1, 0.5, 0.1, 0.1, 2.0, 0.0])
    found = script.verdicts(mean, sd, 10, "increase", 0.3, 0.05)
    names = [rule.VERDICTS[place] for place in found]
    assert names == ["supported", "supported, size open", "negligible", "refuted", "inconclusive", "inconclusive"]
    assert {rule.VERDICTS[p] for p in script.verdicts(mean, sd, 5, "increase", 0.3, 0.05)} == {"no verdict"}
    turned = script.verdicts(-mean, sd, 10, "decrease", 0.3, 0.05)
    assert np.array_equal(turned, found)


@pytest.mark.parametrize(
    ("verdict", "kind", "false_at"),
    [
        ("supported", "increase", [-1, -0.5, 0, 0.5]),
        ("supported, size open", "increase", [-1, -0.5, 0]),
        ("negligible", "increase", [-1, 1, 2]),
        ("refuted", "increase", [0, 0.5, 1, 2]),
        ("inconclusive", "increase", []),
        ("supported", "negligible", [-1, 1, 2]),
        ("refuted", "negligible", [-0.5, 0, 0.5]),
    ],
)
def test_what_is_false(script: ModuleType, verdict: str, kind: str, false_at: list[float]) -> None:
    """A verdict is false at exactly those true effects that contradict it."""
    assert [truth for truth in script.TRUTHS if script.is_false(verdict, kind, truth)] == false_at


def test_the_population_is_that_of_the_results(people: Any, results: Results) -> None:
    """Every contrast has the spread of the results, and points where its claim does."""
    assert people.hypotheses == results.study.hypotheses
    for j, hypothesis in enumerate(people.hypotheses):
        z = analyse(results).contrast(hypothesis.contrast, hypothesis.response)
        assert people.sds[j] == pytest.approx(z.std(), rel=1e-6)
    assert people.alpha == pytest.approx(0.05 / 9)
    dropout_on_gap = [h.id for h in people.hypotheses].index("C3-gap")
    assert people.weights[dropout_on_gap].sum() == pytest.approx(0)
    plain = effects.contrast_weights(results.study, Contrast("dropout"))["dropout"]
    assert people.weights[dropout_on_gap].max() == pytest.approx(abs(plain))


@pytest.mark.parametrize("noise", ["gaussian", "t3", "skewed_runs", "skewed_effects", "contaminated"])
def test_noise_has_the_mean_and_the_spread_of_the_results(script: ModuleType, people: Any, noise: str) -> None:
    """Every kind of noise has mean 0 and the contrasts' standard deviations; the same call gives the same numbers."""
    z = np.concatenate(list(script.seeds_of(people, noise, 20, 4_000))).reshape(-1, 9)
    assert (abs(z.mean(axis=0)) < 0.02 * people.sds).all()
    # The variance of t3 has no variance of its own, so a sample's converges slowly.
    assert z.std(axis=0) == pytest.approx(people.sds, rel=0.3 if noise == "t3" else 0.04)
    again = next(script.seeds_of(people, noise, 20, 4_000))
    assert np.array_equal(again.reshape(-1, 9), z[: again.shape[0] * 20])


def test_noise_has_the_shape_it_claims(script: ModuleType, people: Any) -> None:
    """Effects are t with 3 degrees of freedom, exponential, or mostly Gaussian with 3 % far out."""
    drawn = {noise: next(script.seeds_of(people, noise, 40, 500))[..., 0].ravel() / people.sds[0]
             for noise in script.NOISES}  # fmt: skip
    assert stats.kstest(drawn["gaussian"], "norm").pvalue > 0.001
    assert stats.kstest(drawn["t3"] * math.sqrt(3), "t", args=(3,)).pvalue > 0.001
    assert stats.kstest(drawn["skewed_effects"] + 1, "expon").pvalue > 0.001
    assert 0 < stats.skew(drawn["skewed_runs"] * np.sign(stats.skew(drawn["skewed_runs"]))) < 2
    assert stats.kurtosis(drawn["contaminated"]) > 5


def test_rows_count_and_carry_the_exact_interval(script: ModuleType) -> None:
    """A row has the share and the interval of Clopper and Pearson, by the beta distribution."""
    row = script.counted("x", 30, 100, 0.25, noise="gaussian")
    assert row["estimate"] == 0.3
    assert row["low"] == pytest.approx(stats.beta.ppf(0.025, 30, 71))
    assert row["high"] == pytest.approx(stats.beta.ppf(0.975, 31, 70))


def test_gaussian_studies_keep_their_promises(script: ModuleType, people: Any) -> None:
    """With Gaussian noise coverage is 95 %, the family's false verdicts are within alpha, power is as promised."""
    mean, sd = script.means_and_sds(people, "gaussian", 10, 4_000)
    given = (people, "gaussian", 10, mean, sd)
    assert all(abs(row["estimate"] - 0.95) < 0.015 for row in script.coverage(*given))
    for row in script.false_verdicts(*given):
        assert row["estimate"] < row["nominal"] + 4 * math.sqrt(row["nominal"] / row["R"])
    for row in script.power(*given):
        if row["nominal"] > 0.5:
            assert abs(row["estimate"] - row["nominal"]) < 0.03


def test_looks_are_t_tests(script: ModuleType) -> None:
    """A look is scipy's one-sample t test of the seeds so far; several looks find what any of them finds."""
    z = np.random.default_rng(0).normal(size=(300, 12, 2))
    for n in (6, 12):
        wanted = stats.ttest_1samp(z[:, :n], 0, axis=1).pvalue < 0.05
        assert np.array_equal(script.ever_significant(z, {n: 0.05}), wanted)
    both = script.ever_significant(z, {6: 0.05, 12: 0.01})
    assert np.array_equal(both, script.ever_significant(z, {6: 0.05}) | script.ever_significant(z, {12: 0.01}))


def test_components_are_found_again(script: ModuleType) -> None:
    """Planted spreads between seeds and images are recovered; resampled matrices have mean 0."""
    rng = np.random.default_rng(0)
    planted = script.Components(0.5, 2.0, 4.0)
    values = script.crossed(rng, 400, 1_000, planted)
    found = script.Components.of(values)
    assert (found.seeds, found.images, found.both) == pytest.approx((0.5, 2.0, 4.0), rel=0.12)
    means = [test_images.two_way(script.resampled(rng, 5, values[:5] + 7))["estimate"] for _ in range(200)]
    assert abs(np.mean(means)) < 0.1


def test_new_images_are_counted(script: ModuleType) -> None:
    """Both models and both intervals have a row, and the two-way interval holds the effect most often."""
    values = script.crossed(np.random.default_rng(1), 20, 300, script.Components(0.2, 5.0, 5.0))
    rows = {(row["noise"], row["quantity"]): row for row in script.new_images_one(values, "x", 10, 200)}
    for noise in ("crossed", "resampled"):
        two_way = rows[noise, "two-way coverage of new seeds and images"]["estimate"]
        seeds_only = rows[noise, "coverage of new seeds and images by the interval over seeds"]["estimate"]
        assert two_way > 0.88
        assert two_way > seeds_only + 0.05


def test_the_script_writes_counts(
    script: ModuleType, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a results folder come counts with their provenance, and a document that says what was not tried."""
    counts, rates = tmp_path / "counts.parquet", tmp_path / "rates.parquet"
    monkeypatch.setattr(script, "_CHECKED", 5)
    monkeypatch.setattr("sequential._CHECKED", 1)
    given = [str(results.folder), "--draws", "60", "--image-draws", "3"]
    script.main([*given, "--out", str(counts), "--compare-out", str(rates)])
    table, document = read_table(counts)
    frame = table.to_pandas()
    assert document["reference_runs"] == 96
    assert set(frame["noise"]) == set(script.NOISES)
    assert ((frame["low"] <= frame["estimate"]) & (frame["estimate"] <= frame["high"])).all()
    page = script.calibration_page
    text = page.page(page.PAGE.read_text(encoding="utf-8"), frame, document)
    assert "New images: not tried" in text  # the seeds of `results` have different test images
    assert "60 studies for each kind of noise" in text
    assert (pd.read_parquet(rates)["folders"] == 60).all()
    assert (pd.read_parquet(tmp_path / "sequential.parquet")["studies"] == 60).all()


def test_the_document_is_that_of_the_counts(script: ModuleType) -> None:
    """docs/calibration.md is, to the byte, what the committed counts give."""
    page = script.calibration_page
    table, document = read_table(script.RESULTS)
    text = page.PAGE.read_text(encoding="utf-8")
    others = [
        *page.say_sequential(pd.read_parquet(script.SEQUENTIAL)),
        *page.say_images(pd.read_parquet(script.IMAGES)),
        *page.say_elsewhere(pd.read_parquet(script.ELSEWHERE)),
    ]
    assert page.page(text, table.to_pandas(), document, others) == text
    assert len(page.draw_power(table.to_pandas(), "light").axes[0].lines) == 3


def test_misses_are_found_and_said(script: ModuleType) -> None:
    """A share far below its promise is a miss in the document, one that chance explains is not."""
    page = script.calibration_page
    rows = [script.counted("coverage", k, 1_000, 0.95, hypothesis=name, noise="t3", n=6)
            for name, k in (("good", 945), ("bad", 900))]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert list(page.misses(frame, "less")["hypothesis"]) == ["bad"]
    assert page.misses(frame, "greater").empty
    text, missed = page.say_coverage(frame)
    assert missed
    assert "90.0" in text


def test_comparisons_follow_the_rule_of_compare(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated folders are compared as `compare.judge` does, on thousands of samples; another rule is noticed."""
    assert script.check_compared() == 3000
    monkeypatch.setattr(script.compare, "judge", lambda *_: "equivalent")
    with pytest.raises(AssertionError):
        script.check_compared()


def test_gaussian_folders_keep_the_promise(script: ModuleType) -> None:
    """In the committed counts, folders with Gaussian differences have no more false verdicts than promised."""
    frame = pd.read_parquet(script.COMPARE_RATES)
    gaussian = frame[frame["noise"] == "gaussian"]
    assert len(gaussian) == 12
    assert (gaussian["low"] <= gaussian["nominal"]).all()
    assert gaussian["false"].max() > 0
