"""Repeated confidence intervals: boundaries against published ones, intervals of a sample that grows."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from mnist_ablate.inference.intervals import FloatArray, MedianSample, Sample, TwoWaySample
from mnist_ablate.inference.sequential import (
    Repeated,
    RepeatedMedian,
    RepeatedTwoWay,
    boundaries,
    crossing,
    repeated,
    tails,
)


def equal(looks: int) -> FloatArray:
    """Return the information at equally spaced looks."""
    return np.arange(1, looks + 1) / looks


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        (0.0, {2: 2.178, 3: 2.289, 4: 2.361, 5: 2.413}),  # Pocock (1977)
        (0.5, {2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040}),  # O'Brien and Fleming (1979)
    ],
)
def test_constants_of_pocock_and_of_o_brien_and_fleming(shape: float, published: dict[int, float]) -> None:
    """Two-sided 5 % boundaries c (K/k)^shape have the constants of Jennison and Turnbull (2000), tables 2.1 and 2.3."""
    for looks, constant in published.items():
        t = equal(looks)
        solved = optimize.brentq(lambda c, t=t: 2 * float(crossing(c / t**shape, t).sum()) - 0.05, 1.5, 3)
        assert round(solved, 3) == constant


def test_boundaries_of_spending_functions() -> None:
    """Boundaries for one-sided 2.5 % at five looks are the published ones, to the printed digits."""
    t = equal(5)
    like_o_brien_fleming = 2 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt(t))  # Lan and DeMets (1983)
    assert boundaries(like_o_brien_fleming, t).round(3).tolist() == [4.877, 3.357, 2.680, 2.290, 2.031]
    assert boundaries(0.025 * t**3, t).round(4).tolist() == [3.5401, 2.9743, 2.6045, 2.3064, 2.0455]


def test_critical_values_of_the_bundled_study() -> None:
    """Nine hypotheses at 5 %, looks at 10, 20, ..., 120 seeds: Student's t by the significance-level approach."""
    tail = tails(0.05 / 9, tuple(range(10, 121, 10)))
    assert [round(float(stats.t.isf(p, n - 1)), 3) for n, p in tail.items()] == [
        10.129, 5.564, 4.647, 4.208, 3.927, 3.720, 3.555, 3.416, 3.294, 3.186, 3.088, 2.998,
    ]  # fmt: skip


@pytest.mark.parametrize("looks", [(10,), (6, 106, 107), tuple(range(6, 101)), tuple(range(901, 1001, 3))])
def test_boundaries_spend_what_they_may(looks: tuple[int, ...]) -> None:
    """However the looks lie, all of alpha is spent at the last, and t³ of it before."""
    t = np.array(looks) / looks[-1]
    z = np.asarray(stats.norm.isf(list(tails(0.02, looks).values())))
    assert np.cumsum(crossing(z, t)) == pytest.approx(0.01 * t**3, rel=1e-6)


def test_one_look_is_the_usual_interval() -> None:
    """A study with one look has Student's t interval, or that of order statistics, at its own level."""
    z = np.random.default_rng(0).normal(1, 1, 12)
    for sample in (Sample.of(z), MedianSample.of(z)):
        assert repeated([(12, sample)], (12,)).interval(0.01) == pytest.approx(sample.interval(0.01))


def grown(z: FloatArray, looks: tuple[int, ...], kind: type[Sample] = Sample) -> Repeated:
    """Return the sample of `z` as it is after the looks that it reaches."""
    return repeated([(n, kind.of(z[:n])) for n in looks if n <= len(z)], looks)


def test_intervals_are_those_of_t_and_never_widen() -> None:
    """Each look has mean ± critical value · s/√n, cut to the intervals of the looks before it."""
    looks, z = (10, 20, 30, 40), np.random.default_rng(1).normal(0.2, 1, 40)
    sample = grown(z, looks)
    expected = (-math.inf, math.inf)
    for (n, p), found in zip(tails(0.05, looks).items(), sample.intervals(0.05), strict=True):
        half = stats.t.ppf(1 - p, n - 1) * z[:n].std(ddof=1) / math.sqrt(n)
        expected = max(expected[0], z[:n].mean() - half), min(expected[1], z[:n].mean() + half)
        assert found == pytest.approx(expected)
    assert (sample.n, sample.mean) == pytest.approx((40, z.mean()))
    assert sample.interval(0.05) == sample.intervals(0.05)[-1]
    assert sample.before(2).intervals(0.05) == sample.intervals(0.05)[:2]


def test_looks_that_contradict_each_other_leave_nothing() -> None:
    """A drift that makes two looks' intervals disjoint gives an empty interval, whose ends are the wrong way round."""
    rng = np.random.default_rng(2)
    z = np.concatenate([rng.normal(5, 0.1, 20), rng.normal(-50, 0.1, 100)])
    low, high = grown(z, (20, 120)).interval(0.05)
    assert low > high


def test_medians_use_order_statistics() -> None:
    """At a look where no order statistic is safe enough the interval is infinite; later it is the binomial one."""
    looks, z = (6, 12, 18, 24), np.random.default_rng(3).normal(0, 1, 24)
    sample = grown(z, looks, MedianSample)
    assert isinstance(sample, RepeatedMedian)
    assert sample.intervals(0.01)[0] == (-math.inf, math.inf)
    tail = tails(0.01, looks)
    low, high = -math.inf, math.inf
    for n in looks:
        inside = [k for k in range(n // 2) if stats.binom.cdf(k, n, 0.5) <= tail[n]]
        if inside:
            ordered = np.sort(z[:n])
            low, high = max(low, ordered[inside[-1]]), min(high, ordered[n - 1 - inside[-1]])
    assert sample.interval(0.01) == (low, high)
    assert sample.p_sign() == MedianSample.of(z).p_sign()


def test_looks_that_say_nothing_take_nothing_away() -> None:
    """A look of one seed, or of equal ones, leaves later intervals as they would be; without any there is none."""
    z = np.random.default_rng(5).normal(0.2, 1, 18)
    alone = Repeated(18, z.mean(), z.std(ddof=1), samples=((18, Sample.of(z)),), looks=(6, 12, 18)).interval(0.05)
    for first in (Sample.of(z[:1]), Sample(12, 0.5, 0.0)):
        assert repeated([(12, first), (18, Sample.of(z))], (6, 12, 18)).interval(0.05) == alone
        assert np.isnan(repeated([(12, first)], (6, 12, 18)).interval(0.05)).all()


def two_way(z: FloatArray, of_images: float, se_images: float) -> TwoWaySample:
    """Return the effects `z` of seeds on very many images, whose choice adds `of_images`."""
    n, sd = len(z), float(z.std(ddof=1))
    return TwoWaySample(n, float(z.mean()) + of_images, sd, se_both=math.hypot(sd / math.sqrt(n), se_images),
                        df_both=n - 1, se_images=se_images, images=10_000)  # fmt: skip


def test_new_images_add_to_the_interval_of_each_look() -> None:
    """The half width of a look is the root of the squares of those of seeds and of images, at the look's level."""
    looks, z = (6, 12, 18), np.random.default_rng(6).normal(0.2, 1, 18)
    sample = repeated([(n, two_way(z[:n], 0.1, 0.3)) for n in looks[:1]], looks)
    assert isinstance(sample, RepeatedTwoWay)
    p = tails(0.05, looks)[6]
    half = math.hypot(stats.t.isf(p, 5) * z[:6].std(ddof=1) / math.sqrt(6), 0.3 * stats.t.isf(p, 9_999))
    assert sample.interval(0.05) == pytest.approx((z[:6].mean() + 0.1 - half, z[:6].mean() + 0.1 + half))


@pytest.mark.parametrize("share", [0.2, 1.0, 5.0])
def test_all_looks_hold_together_for_new_images(share: float) -> None:
    """The images are the same at all looks; intervals of seeds and images miss no more often than they may."""
    rng, looks, alpha, studies = np.random.default_rng(7), (6, 12, 18, 24, 30), 0.1, 2000
    se_images, missed = math.sqrt(share / 30), 0
    for z in rng.normal(0, 1, (studies, 30)):
        of_images = float(rng.normal(0, se_images))
        low, high = repeated([(n, two_way(z[:n], of_images, se_images)) for n in looks], looks).interval(alpha)
        missed += not low <= 0 <= high
    assert stats.binomtest(missed, studies, alpha, "greater").pvalue > 0.001


def test_all_looks_hold_together() -> None:
    """Whenever one looks, the intervals of Gaussian seeds miss the truth in no more studies than they may."""
    rng, looks, alpha, studies = np.random.default_rng(4), (6, 12, 18, 24, 30), 0.1, 4000
    missed = 0
    for z in rng.normal(0, 1, (studies, 30)):
        low, high = grown(z, looks).interval(alpha)
        missed += not low <= 0 <= high
    interval = stats.binomtest(missed, studies).proportion_ci(0.999)
    assert interval.low <= alpha <= interval.high + 0.005
