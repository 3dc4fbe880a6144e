"""Verdicts: every branch of the rule, powers and p values against others' code, what makes a verdict provisional."""

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference import power, verdicts
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.power import Seeds, seeds_needed
from mnist_ablate.inference.verdicts import Verdict, claim_verdict, decide
from mnist_ablate.store.results import Results

T = float(stats.t.ppf(0.975, 9))  # half a 95 % interval of 10 seeds with a standard error of 1
T_INNER = float(stats.t.ppf(0.95, 9))  # half a 90 % one
KINDS = ("increase", "decrease", "negligible")


def sample(mean: float, se: float = 1.0, n: int = 10) -> Sample:
    """Make a sample with this standard error."""
    return Sample(n, mean, se * math.sqrt(n))


# Of 10 seeds at alpha 0.05 with a standard error of 1: [mean - 2.262, mean + 2.262], and 1.833 for 'inside'.
@pytest.mark.parametrize(
    ("mean", "smallest", "effect", "negligible"),
    [
        (T + 1.01, 1.0, "supported", "refuted"),  # L just above the smallest that matters
        (T + 0.99, 1.0, "supported, size open", "inconclusive"),  # 0 < L <= smallest <= U
        (T + 0.01, 1.0, "supported, size open", "inconclusive"),
        (T - 0.01, 1.0, "inconclusive", "inconclusive"),  # L < 0
        (0.0, 1.0, "inconclusive", "inconclusive"),
        (-T + 0.01, 1.0, "inconclusive", "inconclusive"),
        (-T - 0.01, 1.0, "refuted", "inconclusive"),  # U < 0, but perhaps not by what matters
        (-T - 1.01, 1.0, "refuted", "refuted"),
        (0.0, T_INNER + 0.01, "negligible", "supported"),  # just inside
        (0.0, T_INNER - 0.01, "inconclusive", "inconclusive"),  # just not
        (3.0, 3 + T_INNER + 0.01, "negligible", "supported"),  # real (L > 0), but too small to matter
        (3.0, 3 + T_INNER - 0.01, "supported, size open", "inconclusive"),  # L > 0, and U at the smallest
        (-3.0, 3 + T_INNER + 0.01, "negligible", "supported"),
        (-3.0, 3 + T_INNER - 0.01, "refuted", "inconclusive"),
    ],
)
def test_every_rule(mean: float, smallest: float, effect: Verdict, negligible: Verdict) -> None:
    """Just on either side of every limit the verdict is the one of the rule, for each kind of claim."""
    assert decide(sample(mean), "increase", smallest, 0.05) == effect
    assert decide(sample(-mean), "decrease", smallest, 0.05) == effect
    assert decide(sample(mean), "negligible", smallest, 0.05) == negligible
    assert decide(sample(-mean), "negligible", smallest, 0.05) == negligible


_MEAN, _SE, _SMALLEST = st.floats(-5, 5), st.floats(0.001, 5), st.floats(0.01, 5)
_N, _ALPHA = st.integers(6, 200), st.floats(0.0005, 0.2)


def by_the_table(z: Sample, kind: str, smallest: float, alpha: float) -> set[str]:
    """List every row of the rules' table that holds, 'inside' by the interval of the two one-sided tests."""
    low, high = z.interval(alpha)
    if kind == "decrease":
        low, high = -high, -low
    inner_low, inner_high = z.interval(2 * alpha)
    inside = -smallest < inner_low and inner_high < smallest
    if kind == "negligible":
        rows = {"supported": inside, "refuted": not inside and (low > smallest or high < -smallest)}
    else:
        rows = {
            "supported": low > smallest,
            "supported, size open": 0 < low <= smallest and not inside,
            "negligible": inside,
            "refuted": high < 0 and not inside,
        }
    return {verdict for verdict, holds in rows.items() if holds} or {"inconclusive"}


@given(_MEAN, _SE, _N, _SMALLEST, _ALPHA, st.sampled_from(KINDS))
def test_exactly_one_rule_holds(mean: float, se: float, n: int, smallest: float, alpha: float, kind: str) -> None:
    """Whatever the numbers, exactly one row of the table holds, and it is the verdict."""
    z = sample(mean, se, n)
    assert by_the_table(z, kind, smallest, alpha) == {decide(z, kind, smallest, alpha)}


@given(_MEAN, _SE, _N, _SMALLEST, _ALPHA)
def test_a_mirror_changes_nothing(mean: float, se: float, n: int, smallest: float, alpha: float) -> None:
    """Mirrored data with the mirrored claim have the same verdict."""
    z, mirrored = sample(mean, se, n), sample(-mean, se, n)
    assert decide(z, "increase", smallest, alpha) == decide(mirrored, "decrease", smallest, alpha)
    assert decide(z, "negligible", smallest, alpha) == decide(mirrored, "negligible", smallest, alpha)


# What a verdict may become with a bigger alpha: the same, or one that says more, and never the contrary.
_MAY_BECOME = {
    "increase": {
        "supported": {"supported"},
        "supported, size open": {"supported, size open", "supported", "negligible"},
        "negligible": {"negligible"},
        "refuted": {"refuted", "negligible"},
        "inconclusive": {"inconclusive", "supported", "supported, size open", "negligible", "refuted"},
    },
    "negligible": {
        "supported": {"supported"},
        "refuted": {"refuted"},
        "inconclusive": {"inconclusive", "supported", "refuted"},
    },
}


@given(_MEAN, _SE, _N, _SMALLEST, st.tuples(_ALPHA, _ALPHA), st.sampled_from(["increase", "negligible"]))
def test_a_bigger_alpha_contradicts_nothing(
    mean: float, se: float, n: int, smallest: float, alphas: tuple[float, float], kind: str
) -> None:
    """What a small alpha decides, a bigger one decides so too, or more closely: never the contrary."""
    small, big = (decide(sample(mean, se, n), kind, smallest, alpha) for alpha in sorted(alphas))
    assert big in _MAY_BECOME[kind][small]


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_seeds_and_no_spread(kind: str) -> None:
    """Below six seeds there is no verdict, however clear the numbers; without spread it is inconclusive."""
    for n in range(6):
        assert decide(Sample(n, 50.0, 0.001), kind, 0.1, 0.05) == "no verdict"
    assert decide(Sample(6, 50.0, 0.001), "increase", 0.1, 0.05) == "supported"
    assert decide(Sample(10, 50.0, 0.0), kind, 0.1, 0.05) == "inconclusive"
    assert decide(Sample.of(np.full(10, 0.1) * (1 + 1e-16)), kind, 0.1, 0.05) == "inconclusive"


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12).filter(lambda z: np.ptp(z) > 1e-3), _ALPHA)
def test_intervals_and_p_are_scipys(z: list[float], alpha: float) -> None:
    """The interval and the p of a sign are scipy's; 0 is outside the interval where p is below alpha."""
    found, test = Sample.of(np.array(z)), stats.ttest_1samp(z, 0)
    expected = test.confidence_interval(1 - alpha)
    assert found.interval(alpha) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.p_sign() == pytest.approx(test.pvalue, abs=1e-12)
    low, high = found.interval(found.p_sign())
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_what_one_seed_or_none_leaves_undefined(n: int) -> None:
    """Without a second seed there is neither spread nor interval nor p, and nothing warns."""
    found = Sample.of(np.full(n, 2.0))
    numbers = [found.sd, found.se, *found.interval(0.05), found.p_sign(), found.p_equivalence(0.1)]
    assert all(math.isnan(number) for number in numbers)
    assert seeds_needed(found, "increase", 0.1, 0.05) == Seeds(None, None)
    assert math.isnan(Sample(5, 1.0, 0.0).p_sign())


@pytest.mark.parametrize(("mean", "bound"), [(0.02, 0.1), (-0.05, 0.1), (0.12, 0.1), (0.0, 0.3)])
def test_tost_is_pingouins(mean: float, bound: float) -> None:
    """The p of 'negligible' is the paired TOST's of pingouin, and below alpha just where the inner interval is in."""
    tost = _pingouin().tost
    z = np.random.default_rng(4).normal(size=14)
    z = mean + 0.12 * (z - z.mean()) / z.std(ddof=1)
    table = tost(z, np.zeros(14), bound=bound, paired=True)
    expected = float(table["p_val" if "p_val" in table else "pval"].iloc[0])  # the name changed with version 0.6
    found = Sample.of(z)
    assert found.p_equivalence(bound) == pytest.approx(expected, rel=1e-6)
    low, high = found.interval(2 * 0.05)
    assert (expected < 0.05) == (-bound < low and high < bound)


def _pingouin() -> Any:
    """Import it without what it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pingouin
    return pingouin


def test_holm_is_pingouins_and_published() -> None:
    """Holm's p are pingouin's, and those of a published example: 0.01, 0.04, 0.03, 0.005 to 0.03, 0.06, 0.06, 0.02."""
    assert verdicts.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = list(np.random.default_rng(1).random(9) ** 3)
    assert verdicts.holm(p) == pytest.approx(list(_pingouin().multicomp(p, method="holm")[1]))
    found = verdicts.holm([0.01, math.nan, 0.04])  # the missing one counts in the family of three
    assert found[::2] == pytest.approx([0.03, 0.08])
    assert math.isnan(found[1])
    assert verdicts.holm([]) == []


@pytest.mark.parametrize("truth", [0.0, 0.1, -0.1])
def test_false_verdicts_are_rarer_than_alpha(truth: float) -> None:
    """Of 4,000 studies in which the claim's truth is on a limit, no more than alpha get a false verdict."""
    alpha, rng, false = 0.05, np.random.default_rng(3), 0
    wrong = {0.0: {"supported", "supported, size open", "refuted"}, 0.1: {"negligible", "refuted"}, -0.1: {
        "negligible", "supported", "supported, size open"}}[truth]  # fmt: skip
    for row in rng.normal(truth, 0.1, (4000, 12)):
        false += decide(Sample(12, row.mean(), row.std(ddof=1)), "increase", 0.1, alpha) in wrong
    assert stats.binomtest(false, 4000).proportion_ci(0.999).low <= alpha


# ---- A study's verdicts ----


def study_of(n: int = 10, **more: Any) -> Study:
    """Make a study of two cells with a claim of each kind."""
    common = {"statement": "So it is", "effect": "dropout", "smallest": 0.1}
    claims = [common | {"id": kind, "kind": kind} for kind in KINDS]
    document = {"name": "claims", "seeds": n, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.5]}}
    return parse_study(document | {"hypotheses": claims} | more)


def accuracy(run: Run) -> float:
    """Plant an effect of 0.5 points, with a spread of some 0.05."""
    rng = np.random.default_rng([run.seed, len(run.cell)])
    return (97 + 0.5 * (run.cell == "dropout") + 0.04 * float(rng.normal())) / 100


def planted(study: Study, **options: Any) -> Results:
    """Plant it."""
    return synthetic.results(study, test_accuracy=accuracy, **options)


def test_judgements_by_hand() -> None:
    """Verdict, intervals and p of each claim are those of its seeds' differences at alpha over the family."""
    study = study_of()
    results = planted(study)
    table = 100 * results.epochs.pivot(index="seed", columns="cell", values="test_accuracy")
    z, alpha = (table["dropout"] - table["baseline"]).to_numpy(), 0.05 / 3
    judgements = analyse(results).judgements
    assert [judgement.verdict for judgement in judgements] == ["supported", "refuted", "refuted"]
    assert [judgement.hypothesis for judgement in judgements] == list(study.hypotheses)
    test = stats.ttest_1samp(z, 0)
    for judgement in judgements:
        ends, inner = test.confidence_interval(1 - alpha), test.confidence_interval(1 - 2 * alpha)
        assert judgement.alpha == pytest.approx(alpha)
        assert (judgement.low, judgement.high) == pytest.approx((ends.low, ends.high))
        assert (judgement.inner_low, judgement.inner_high) == pytest.approx((inner.low, inner.high))
        assert (judgement.n_planned, judgement.provisional) == (10, "")
        assert judgement.is_real
        assert judgement.seeds_needed == seeds_needed(judgement.sample, judgement.hypothesis.kind, 0.1, alpha)
    tost = float(stats.ttest_1samp(z, 0.1, alternative="less").pvalue)
    assert [judgement.p for judgement in judgements] == pytest.approx([test.pvalue, test.pvalue, tost])
    assert [judgement.p_holm for judgement in judgements] == pytest.approx(
        verdicts.holm([float(test.pvalue)] * 2 + [tost])
    )
    assert judgements[0].p_sign_flip == 2**-9
    assert math.isnan(judgements[2].p_sign_flip)


def test_another_number_of_seeds_is_provisional() -> None:
    """Seven seeds of ten, or more than were declared, give a verdict that says what was declared."""
    study = study_of()
    part = planted(study, missing=[("dropout", seed) for seed in (1, 5, 7)])
    expected = "it rests on 7 seeds, and 10 were declared before the first run"
    assert {judgement.provisional for judgement in analyse(part).judgements} == {expected}
    assert analyse(planted(study_of(12, alpha=0.1))).judgements[0].alpha == pytest.approx(0.1 / 3)


def test_changed_rules_are_provisional() -> None:
    """A verdict by rules that are not those the runs were made under says so, with how many runs."""
    before = study_of(alpha=0.1)
    declared = {"study_sha256": "0", "hypotheses_sha256": before.hypotheses_sha256, "looks": [10]}
    results = planted(study_of(), declared=declared)
    expected = "20 of the runs were made before the hypotheses became what they are now"
    assert {judgement.provisional for judgement in analyse(results).judgements} == {expected}


def test_nothing_declared_is_provisional() -> None:
    """Runs that do not say what was declared before them give provisional verdicts, at the study's alpha."""
    judgements = analyse(planted(study_of(), declared={})).judgements
    assert {judgement.provisional for judgement in judgements} == {"the runs do not say what was declared before them"}
    assert judgements[0].alpha == pytest.approx(0.05 / 3)


def test_the_first_run_declares() -> None:
    """Of looks that differ between runs, those of the run that started first count, wherever it is listed."""
    results = planted(study_of())
    last = list(results.documents)[-1]
    documents = dict(results.documents)
    documents[last] = {
        "provenance": {"started": "2020-01-01T00:00:00+00:00"},
        "declared": {"study_sha256": "e", "hypotheses_sha256": "e", "looks": [5, 20]},
    }
    found = analyse(replace(results, documents=documents)).declared
    assert found.looks == (5, 20)
    assert found.files == {"f" * 64: 19, "e": 1}
    assert found.rules == {results.study.hypotheses_sha256: 19, "e": 1}


def test_no_spread_few_seeds_and_no_cell() -> None:
    """Seeds that are alike are inconclusive without p; five seeds, or none, have no verdict; nothing warns."""
    alike = analyse(synthetic.results(study_of(), test_accuracy=lambda run: 0.9 + 0.01 * len(run.cell))).judgements
    assert {(j.verdict, j.sample.sd, math.isnan(j.p), math.isnan(j.p_holm)) for j in alike} == {
        ("inconclusive", 0.0, True, True)
    }
    assert {(j.verdict, j.flips_disagree) for j in analyse(planted(study_of(5))).judgements} == {("no verdict", False)}
    for n in (9, 10):
        few = analyse(planted(study_of(), missing=[("dropout", seed) for seed in range(n)])).judgements
        assert {(j.verdict, j.sample.n, j.flips_disagree, j.is_real) for j in few} == {
            ("no verdict", 10 - n, False, False)
        }


def test_disagreeing_flips() -> None:
    """Flips disagree where they and t lie on other sides of alpha, and never where they could not be below it."""
    base = analyse(planted(study_of())).judgements[0]
    assert base.alpha == pytest.approx(1 / 60)
    for p, flips, n, alpha, expected in [
        (0.01, 0.03, 10, 1 / 60, True),
        (0.03, 0.01, 10, 1 / 60, True),
        (0.01, 0.01, 10, 1 / 60, False),
        (0.03, 0.03, 10, 1 / 60, False),
        (0.01, 2**-5, 6, 1 / 60, False),  # the least p of six seeds is 0.031
        (0.01, 2**-5, 6, 2**-5, False),  # which is not below itself
        (0.01, 2**-5, 6, 0.04, False),
        (0.03, math.nan, 10, 1 / 60, False),
    ]:
        changed = replace(base, p=p, p_sign_flip=flips, alpha=alpha, sample=replace(base.sample, n=n))
        assert changed.flips_disagree == expected, (p, flips, n, alpha)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "supported, size open"], "supported, size open"),
        (["supported", "negligible"], "in part"),
        (["supported", "inconclusive"], "in part"),
        (["supported, size open", "no verdict"], "in part"),
        (["supported", "refuted"], "refuted"),
        (["inconclusive", "refuted", "negligible"], "refuted"),
        (["negligible", "negligible"], "negligible"),
        (["negligible", "inconclusive"], "inconclusive"),
        (["no verdict", "no verdict"], "no verdict"),
        (["no verdict", "inconclusive"], "inconclusive"),
    ],
)
def test_claims_of_several_parts(verdicts: list[Verdict], expected: str) -> None:
    """A claim is supported if every part is and refuted if any is, in whatever order its parts stand."""
    assert claim_verdict(verdicts) == expected
    assert claim_verdict(verdicts[::-1]) == expected


def test_power_table() -> None:
    """The table of a pilot has a row per hypothesis with its spread and the seeds it needs; none without spread."""
    results = planted(study_of())
    table = power.power_table(analyse(results).judgements)
    assert table.columns.tolist() == ["id", "n", "sd", "smallest", "likely", "cautious"]
    assert table["id"].tolist() == list(KINDS)
    expected = [judgement.seeds_needed.likely for judgement in analyse(results).judgements]
    assert table["likely"].tolist() == expected
    alike = power.power_table(analyse(synthetic.results(study_of(), test_accuracy=lambda _: 0.9)).judgements)
    assert alike[["likely", "cautious"]].isna().to_numpy().all()


@pytest.mark.parametrize(
    ("study", "effect", "per"),
    [
        ("capacity", "dropout:trend(width)", "doubling of width"),
        ("l2-strength", "trend(l2)", "unit of l2"),
        ("capacity", "dropout", ""),
    ],
)
def test_a_trend_is_for_each_of_its_steps(study: str, effect: str, per: str) -> None:
    """Levels above 0 are doublings apart, others units; what is no trend is a change as a whole."""
    stated = Hypothesis(id="H", statement="It changes", effect=effect, kind="increase", smallest=0.1)
    assert verdicts._per(load_study(study), stated) == per
