"""How many seeds a hypothesis needs, against statsmodels, the formulas and simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import synthetic
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import parse_study
from mnist_ablate.inference import power
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.intervals import MedianSample, Sample, TwoWaySample
from mnist_ablate.inference.power import Seeds, seeds_needed
from mnist_ablate.inference.sequential import repeated, tails
from mnist_ablate.inference.verdicts import decide


@pytest.mark.parametrize(("effect", "sd", "n"), [(0.1, 0.15, 12), (0.1, 0.07, 10), (-0.05, 0.2, 30), (0.02, 0.3, 8)])
def test_power_of_a_sign_is_statsmodels(effect: float, sd: float, n: int) -> None:
    """The power is statsmodels' two-sided one, less the part that finds the effect with the wrong sign."""
    alpha = 0.05 / 7
    wrong = stats.nct.cdf(stats.t.ppf(alpha / 2, n - 1), n - 1, abs(effect) / sd * math.sqrt(n))
    both = TTestPower().power(effect / sd, n, alpha)
    assert power.sign_power(effect, sd, n, alpha) + wrong == pytest.approx(both, abs=1e-7)  # SciPy 1.11's t: 1e-8


def inside(sd: float, n: int, smallest: float, alpha: float) -> float:
    """Integrate how often the interval of a true effect of 0 is inside over the spread that is seen."""
    t, scale = stats.t.ppf(1 - alpha / 2, n - 1), math.sqrt(n - 1)

    def at(u: float) -> float:
        room = smallest / sd * math.sqrt(n) - t * u
        return max(0.0, 2 * float(stats.norm.cdf(room)) - 1) * float(stats.chi.pdf(u * scale, n - 1)) * scale

    return float(integrate.quad(at, 0, 5, points=[smallest / sd * math.sqrt(n) / t, 1], limit=200)[0])


@pytest.mark.parametrize("sd", [0.07, 0.15, 0.22, 0.4])
def test_seeds_needed_are_the_formulas(sd: float) -> None:
    """Seeds for a sign are statsmodels', for 'inside' those of the integral, and one less does not do."""
    alpha, smallest = 0.05 / 7, 0.1
    of_sign = math.ceil(TTestPower().solve_power(smallest / sd, alpha=alpha, power=0.9))
    of_size = next(n for n in range(6, 1000) if inside(sd, n, smallest, alpha) >= 0.9)
    pilot = Sample(10, 5.0, sd)
    assert seeds_needed(pilot, "negligible", smallest, alpha).likely == of_size
    assert seeds_needed(pilot, "increase", smallest, alpha).likely == max(of_sign, of_size)
    assert seeds_needed(replace(pilot, bound="most"), "increase", smallest, alpha).likely == max(6, of_sign)
    assert seeds_needed(pilot, "decrease", smallest, alpha) == seeds_needed(
        replace(pilot, mean=-0.3), "increase", smallest, alpha
    )


def test_the_cautious_number_is_of_a_larger_spread() -> None:
    """Of 10 seeds the 80 % upper limit of the spread is 1.29 times what was seen; the number is that spread's."""
    pilot = Sample(10, 0.0, 0.15)
    factor = math.sqrt(9 / stats.chi2.ppf(0.2, 9))
    assert factor == pytest.approx(1.29, abs=0.005)
    found = seeds_needed(pilot, "increase", 0.1, 0.05 / 7)
    assert found.cautious == seeds_needed(replace(pilot, sd=0.15 * factor), "increase", 0.1, 0.05 / 7).likely


def test_limits_of_the_number_of_seeds() -> None:
    """Never fewer than a verdict needs; None beyond 100,000, and not before."""
    assert seeds_needed(Sample(10, 0.0, 1e-4), "increase", 0.1, 0.05) == Seeds(6, 6)
    assert seeds_needed(Sample(10, 0.0, 1e3), "increase", 0.1, 0.05) == Seeds(None, None)
    sd = 0.1 * math.sqrt(99_500) / (stats.norm.ppf(0.975) + stats.norm.ppf(0.95))
    assert seeds_needed(Sample(10, 0.0, sd), "negligible", 0.1, 0.05).likely == pytest.approx(99_500, abs=5)


def test_power_is_as_promised() -> None:
    """Of 4,000 studies with the promised seeds, 90 % settle it, for a true effect of the smallest size and for none."""
    alpha, sd, smallest, rng = 0.05 / 7, 0.15, 0.1, np.random.default_rng(9)
    n = seeds_needed(Sample(10, 0.0, sd), "increase", smallest, alpha).likely
    assert n is not None
    settled = {"increase": {"supported", "supported, size open"}, "negligible": {"supported"}}
    for kind, truth in (("increase", smallest), ("negligible", 0.0)):
        samples = rng.normal(truth, sd, (4000, n))
        means, sds = samples.mean(axis=1), samples.std(axis=1, ddof=1)
        low = means - stats.t.ppf(1 - alpha / 2, n - 1) * sds / math.sqrt(n)
        half = stats.t.ppf(1 - alpha / 2, n - 1) * sds / math.sqrt(n)
        hits = low > 0 if kind == "increase" else np.abs(means) + half < smallest
        assert hits.mean() > 0.9 - 3 * math.sqrt(0.09 / 4000)
        first = [decide(Sample.of(row), kind, smallest, alpha) in settled[kind] for row in samples[:50]]
        assert first == hits[:50].tolist()


def test_looks_ask_for_more_seeds() -> None:
    """A study that is looked at every 10 seeds needs a twelfth more; with them, 90 % are settled at the last look."""
    alpha, sd, smallest, looks = 0.05 / 9, 0.22, 0.1, tuple(range(10, 121, 10))
    pilot = Sample(10, 0.0, sd)
    once, often = (
        seeds_needed(sample, "negligible", smallest, alpha).likely or 0
        for sample in (pilot, repeated([(10, pilot)], looks))
    )
    assert 1.07 < often / once < 1.10
    z, tail = np.random.default_rng(2).normal(0, sd, (4000, often)), tails(alpha, looks)[120]
    half = stats.t.isf(tail, often - 1) * z.std(axis=1, ddof=1) / math.sqrt(often)
    assert (np.abs(z.mean(axis=1)) + half < smallest).mean() == pytest.approx(
        0.9, abs=3 * math.sqrt(0.09 / 4000) + 0.01
    )


def test_a_median_needs_an_interval_with_ends() -> None:
    """Of values that are all alike a median needs the seeds of which the outer two enclose it, and others more."""
    alpha = 0.05 / 4
    alike = MedianSample.of(np.full(20, 2.0))
    assert seeds_needed(alike, "increase", 0.5, alpha) == Seeds(8, 8)
    for n, ends in ((7, False), (8, True)):
        assert np.isfinite(MedianSample.of(np.arange(float(n))).interval(alpha)).all() == ends
    z = np.random.default_rng(1).normal(0, 1, 20)
    median, mean = (kind.of(z) for kind in (MedianSample, Sample))
    as_means = seeds_needed(replace(mean, sd=mean.sd * math.sqrt(math.pi / 2)), "increase", 0.5, alpha)
    assert seeds_needed(median, "increase", 0.5, alpha) == as_means


def test_images_put_an_end_to_what_seeds_can_do() -> None:
    """With an error from images that seeds do not lower, more seeds are needed, and above some error none suffice."""
    sd, alpha = 0.15, 0.05 / 7

    def needed(se_images: float) -> int | None:
        both = TwoWaySample(40, 0.0, sd, se_both=0.1, df_both=30, se_images=se_images, images=10_000)
        return seeds_needed(both, "increase", 0.1, alpha).likely

    alone = seeds_needed(Sample(40, 0.0, sd), "increase", 0.1, alpha).likely
    assert alone is not None
    assert abs((needed(0.0) or 0) - alone) <= 1
    assert (needed(0.01) or 0) > alone
    assert needed(0.05) is None  # 1.96 and 1.64 such errors alone are more than what matters


def test_a_pilot_has_what_its_probes_measured() -> None:
    """A hypothesis about a probe's number gets its seeds from the probes of the pilot, whatever that had declared."""
    hypothesis = {"id": "H", "statement": "So it is", "effect": "dropout", "kind": "decrease", "smallest": 0.05}
    document = {"name": "s", "seeds": 8, "probes": ["weights"], "factors": {"dropout": [0.0, 0.2]}}
    study = parse_study(document | {"hypotheses": [hypothesis | {"response": "log_weight_norm"}]})
    pilot = synthetic.results(parse_study(document))
    norms = {run.run_id: {"log_weight_norm": run.seed * (1.0 + bool(run.settings.dropout))} for run in plan(study)}
    probed = {run_id: of | {"probes": {"weights": norms[run_id]}} for run_id, of in pilot.documents.items()}
    (judgement,) = analyse(power.as_pilot(replace(pilot, documents=probed), study)).judgements
    assert judgement.sample.mean == pytest.approx(3.5)
    assert judgement.seeds_needed.likely is not None
