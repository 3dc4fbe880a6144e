"""Estimators for runs that were made elsewhere, against scipy and statsmodels, and by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from mnist_ablate.design.responses import Response
from mnist_ablate.inference.intervals import Sample, discordant_interval, newcombe_interval, sign_flip_p
from mnist_ablate.inference.samples import (
    Discordant,
    FewValues,
    ResampledSample,
    SkewedSample,
    TwoProportions,
    UnpairedSample,
    is_paired,
    sample_of,
)
from mnist_ablate.tables.design import TableDesign, parse

NUMBER = Response("score", "", 2, 1, "table")
YES_NO = Response("solved", "points", 2, 1, "table", 100.0, yes_no=True)
DIFFERENCE = {"b": 1.0, "a": -1.0}


def design(**table: object) -> TableDesign:
    """Return the design of a table with two cells, a and b."""
    return parse({"table": {"seed": "seed"} | table, "metrics": {"score": {}}}, "planted", "planted")


def cells(a: "list[float]", b: "list[float]", first: int = 0) -> pd.DataFrame:
    """Return two cells as a row per seed; the seeds of b begin at `first`."""
    return pd.DataFrame({"a": pd.Series(a, dtype=float), "b": pd.Series(b, index=range(first, first + len(b)))})


def sample(table: pd.DataFrame, response: Response = NUMBER, **declared: object) -> Sample:
    """Return the difference of the two cells."""
    return sample_of(design(**declared), DIFFERENCE, table, table.notna(), response)


def test_labels_alone_decide_what_is_paired() -> None:
    """Half of the seeds in common pair two cells, fewer do not, and equal values in other seeds never do."""
    values = [1.0, 2.0, 3.0, 5.0, 8.0, 13.0]
    for first, paired in ((0, True), (3, True), (4, False), (6, False)):
        table = cells(values, values, first)
        assert is_paired(design(), ["a", "b"], table.notna()) is paired
    assert not is_paired(design(pairing="none"), ["a", "b"], cells(values, values).notna())


def test_an_unpaired_difference_is_welchs() -> None:
    """Estimate, interval and p of two cells without common seeds are those of scipy's Welch test."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 8), rng.normal(1, 3, 14)
    found = sample(cells(list(a), list(b), 100))
    welch = stats.ttest_ind(b, a, equal_var=False)
    interval = welch.confidence_interval(0.99)
    assert isinstance(found, UnpairedSample)
    assert found.n == 8
    assert found.mean == pytest.approx(b.mean() - a.mean())
    assert found.df == pytest.approx(welch.df)
    assert found.interval(0.01) == pytest.approx((interval.low, interval.high))
    assert found.p_sign() == pytest.approx(welch.pvalue)


def test_an_unpaired_contrast_covers_its_truth() -> None:
    """Over 2,000 drawn tables of 7 runs in four cells of unlike spreads, 95 % intervals miss as often as they say."""
    rng, hits = np.random.default_rng(1), 0
    weights = {"a": -0.5, "b": -0.5, "c": 0.5, "d": 0.5}
    for _ in range(2000):
        columns = {name: rng.normal(0, sd, 7) for name, sd in zip("abcd", (1, 1, 3, 0.2), strict=True)}
        low, high = UnpairedSample.of_cells(weights, columns).interval()
        hits += low < 0 < high
    assert stats.binomtest(hits, 2000, 0.95).pvalue > 0.001


def test_a_yes_or_no_of_each_seed_has_mcnemars_test() -> None:
    """The p is that of statsmodels' exact test, and the interval leaves out 0 where that is below 0.9 alpha."""
    a, b = [0.0] * 12 + [100.0] * 8, [100.0] * 10 + [0.0] * 2 + [100.0] * 7 + [0.0]
    found = sample(cells(a, b), YES_NO)
    assert isinstance(found, Discordant)
    assert (found.up, found.down) == (10, 1)
    assert found.mean == pytest.approx(45.0)
    exact = mcnemar([[0, 10], [1, 9]], exact=True).pvalue
    assert found.p_sign() == pytest.approx(exact)
    assert found.interval(exact / 0.9 * 1.001)[0] > 0
    assert found.interval(exact / 0.9 * 0.999)[0] < 0


@pytest.mark.parametrize(("up", "down"), [(0.3, 0.1), (0.02, 0.02), (0.5, 0.0), (0.0, 0.0)])
def test_the_interval_of_a_paired_yes_or_no_covers(up: float, down: float) -> None:
    """It misses the true difference in at most 5 % of 2,000 drawn samples of 15 seeds."""
    draws = np.random.default_rng(2).multinomial(15, [up, down, 1 - up - down], 2000)
    ends = [discordant_interval(int(more), int(less), 15) for more, less, _ in draws]
    misses = sum(not low <= up - down <= high for low, high in ends)
    assert stats.binomtest(misses, 2000, 0.05, alternative="greater").pvalue > 0.001


def test_two_proportions_have_newcombes_interval() -> None:
    """It is that of statsmodels, in percent, for cells without common seeds."""
    a, b = [100.0] * 3 + [0.0] * 9, [100.0] * 9 + [0.0] * 2
    found = sample(cells(a, b, 100), YES_NO)
    theirs = confint_proportions_2indep(9, 11, 3, 12, method="newcomb", alpha=0.02)
    assert isinstance(found, TwoProportions)
    assert found.interval(0.02) == pytest.approx([100 * end for end in theirs])
    assert newcombe_interval(9, 11, 3, 12, found.p_sign())[0] == pytest.approx(0, abs=1e-6)


def test_few_distinct_differences_are_compared_by_their_median() -> None:
    """Five distinct differences are the limit, and the interval is that of order statistics."""
    b = [1.0, 2.0, 3.0, 4.0, 5.0] * 3
    found = sample(cells([0.0] * 15, b))
    assert isinstance(found, FewValues)
    assert found.mean == 3
    ordered = np.sort(b)
    assert found.interval() == (ordered[3], ordered[11])
    assert "5 values" in found.note
    assert type(sample(cells([0.0] * 18, [*b, 6.0, 6.0, 6.0]))) is Sample


def test_skewed_differences_need_flips_that_agree() -> None:
    """A t interval that leaves out 0 reaches to it where flips of signs do not agree, and is flagged."""
    z = np.array([0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 3.0, -0.01])
    found = sample(cells([0.0] * 8, list(z)))
    assert isinstance(found, SkewedSample)
    p = sign_flip_p(z)
    low, high = found.interval(0.9)
    assert (low, high) == Sample.of(z).interval(0.9)
    assert found.interval(p)[0] <= 0
    assert "far from Gaussian" in found.note


def test_folds_have_the_corrected_variance() -> None:
    """Nadeau and Bengio: the variance of the mean is s² (1 / n + test / train)."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 10), rng.normal(0, 1, 10)
    found = sample(cells(list(a), list(b)), resampled=1 / 9)
    assert isinstance(found, ResampledSample)
    se = (b - a).std(ddof=1) * math.sqrt(1 / 10 + 1 / 9)
    assert found.interval() == pytest.approx(stats.t.interval(0.95, 9, (b - a).mean(), se))


def test_flips_of_many_signs_are_gaussian() -> None:
    """Beyond 10,000 values p is the limit of random flips, to their own error."""
    z = np.random.default_rng(4).normal(0.012, 1, 10_001)
    assert sign_flip_p(z) == pytest.approx(sign_flip_p(z[:10_000]), abs=0.05)
    assert sign_flip_p(np.zeros(10_001)) == 1
