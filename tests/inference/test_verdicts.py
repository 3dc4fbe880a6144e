"""Verdicts: every branch of the rule, powers and p values against others' code, what makes a verdict provisional."""

import functools
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.errors import StudyError
from mnist_ablate.inference import power, verdicts
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.combined import claim_verdict, differ, difference
from mnist_ablate.inference.intervals import FloatArray, MedianSample, Sample
from mnist_ablate.inference.power import Seeds, seeds_needed
from mnist_ablate.inference.verdicts import Judgement, Verdict, decide
from mnist_ablate.store.results import Results, load

T = float(stats.t.ppf(0.975, 9))  # half a 95 % interval of 10 seeds with a standard error of 1
KINDS = ("increase", "decrease", "negligible")


def sample(mean: float, se: float = 1.0, n: int = 10) -> Sample:
    """Make a sample with this standard error."""
    return Sample(n, mean, se * math.sqrt(n))


# Of 10 seeds at alpha 0.05 with a standard error of 1: [mean - 2.262, mean + 2.262].
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
        (0.0, T + 0.01, "negligible", "supported"),  # just inside
        (0.0, T - 0.01, "inconclusive", "inconclusive"),  # just not
        (3.0, 3 + T + 0.01, "negligible", "supported"),  # real (L > 0), but too small to matter
        (3.0, 3 + T - 0.01, "supported, size open", "inconclusive"),  # L > 0, and U at the smallest
        (-3.0, 3 + T + 0.01, "negligible", "supported"),
        (-3.0, 3 + T - 0.01, "refuted", "inconclusive"),
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
    """List every row of the rules' table that holds."""
    low, high = z.interval(alpha)
    if kind == "decrease":
        low, high = -high, -low
    inside = -smallest < low and high < smallest
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
    """The p of 'negligible' is twice that of pingouin's paired TOST, and below alpha just where the interval is in."""
    tost = _pingouin().tost
    z = np.random.default_rng(4).normal(size=14)
    z = mean + 0.12 * (z - z.mean()) / z.std(ddof=1)
    table = tost(z, np.zeros(14), bound=bound, paired=True)
    expected = float(table["p_val" if "p_val" in table else "pval"].iloc[0])  # the name changed with version 0.6
    found = Sample.of(z)
    assert found.p_equivalence(bound) == pytest.approx(min(1, 2 * expected), rel=1e-6)
    low, high = found.interval(0.05)
    assert (2 * expected < 0.05) == (-bound < low and high < bound)


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
        ends = test.confidence_interval(1 - alpha)
        assert judgement.alpha == pytest.approx(alpha)
        assert (judgement.low, judgement.high) == pytest.approx((ends.low, ends.high))
        assert (judgement.n_planned, judgement.provisional) == (10, "")
        assert judgement.is_real
        assert judgement.seeds_needed == seeds_needed(judgement.sample, judgement.hypothesis.kind, 0.1, alpha)
    tost = min(1.0, 2 * float(stats.ttest_1samp(z, 0.1, alternative="less").pvalue))
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


@functools.cache
def base() -> Judgement:
    """Judge a claim of an increase, of which 0.1 matters."""
    return analyse(planted(study_of())).judgements[0]


def of(verdict: Verdict) -> Judgement:
    """Make a judgement with a verdict."""
    return replace(base(), verdict=verdict)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "supported, size open"], "supported, size open"),
        (["supported", "negligible"], "in part"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported, size open", "no verdict"], "inconclusive"),
        (["supported", "refuted"], "in part"),
        (["inconclusive", "refuted", "negligible"], "inconclusive"),
        (["negligible", "refuted"], "refuted"),
        (["negligible", "negligible"], "negligible"),
        (["no verdict", "no verdict"], "no verdict"),
        (["no verdict", "inconclusive"], "inconclusive"),
        (["inconsistent", "inconsistent"], "inconsistent"),
        (["inconsistent", "supported"], "inconclusive"),
        (["inconsistent", "negligible", "supported"], "in part"),
    ],
)
def test_claims_of_several_parts(verdicts: list[Verdict], expected: str) -> None:
    """A claim is supported if every part is, in part if one is not, and open if any is, whatever their order."""
    parts = [of(verdict) for verdict in verdicts]
    assert claim_verdict(parts) == expected
    assert claim_verdict(parts[::-1]) == expected
    assert claim_verdict([*parts, None]) == "not run"
    assert claim_verdict([*parts, replace(parts[0], measured=False)]) == "not run"
    assert claim_verdict(parts, depends=True) == "it depends"


# ---- Two places ----


def place(z: FloatArray, alpha: float = 0.05) -> Judgement:
    """Judge the effects of seeds by that claim."""
    return replace(base(), sample=Sample.of(z)).at(alpha)


def test_places_differ_where_the_difference_leaves_out_0() -> None:
    """The interval is scipy's Welch interval at the smaller alpha; places differ where it leaves out 0."""
    rng = np.random.default_rng(2)
    near, far = rng.normal(0.07, 0.2, 60), rng.normal(0.07, 0.2, 400)
    here, there = place(near - near.mean() + 0.11), place(far - far.mean() + 0.05, 0.01)
    assert (here.verdict, there.verdict) == ("supported, size open", "negligible")
    low, high = difference(here, there)
    welch = stats.ttest_ind(far - far.mean() + 0.05, near - near.mean() + 0.11, equal_var=False)
    ends = welch.confidence_interval(0.99)
    assert (low, high) == pytest.approx((ends.low, ends.high))
    assert not differ(here, there)  # one holds and one does not, and yet they may be alike
    elsewhere = place(far - far.mean() - 0.05, 0.01)
    assert differ(here, elsewhere)
    assert differ(elsewhere, here)
    assert not differ(here, place(near + 1))  # both hold


def test_the_same_truth_rarely_makes_it_depend() -> None:
    """With a true effect of 0.07 in two places, of 60 and 400 seeds, hardly any pair depends, and many are opposed."""
    rng, opposed, depends = np.random.default_rng(5), 0, 0
    for _ in range(300):
        pair = [place(rng.normal(0.07, 0.2, n), 0.05 / 9) for n in (60, 400)]
        opposed += {pair[0].verdict, pair[1].verdict} == {"supported, size open", "negligible"}
        depends += differ(*pair)
    assert opposed > 30
    assert depends <= 5


def test_bounds_and_medians_are_compared_by_their_intervals() -> None:
    """A difference to a bound has no end on the side where nothing is known."""
    zero = place(np.random.default_rng(2).normal(size=20))
    low, high = difference(zero, replace(base(), sample=Sample(20, 3, 1, "least")))
    assert (low > 0, high) == (True, math.inf)
    medians = replace(base(), sample=MedianSample.of(np.full(20, 5.0)))
    assert difference(medians, medians) == (0, 0)


# ---- What is a bound, what has failed, and new images ----


def rates() -> Study:
    """Make a study of learning speed with and without BatchNorm."""
    common = {"statement": "-", "effect": "batch_norm", "smallest": 0.1, "response": "log_epochs_to_97"}
    claims = [common | {"id": kind, "kind": kind} for kind in KINDS]
    document = {"name": "speed", "seeds": 8, "protocol": {"epochs": 4}, "factors": {"batch_norm": [False, True]}}
    return parse_study(document | {"hypotheses": claims})


def speeds(study: Study, arrive: dict[str, float]) -> Results:
    """Make runs that reach 97 % after some epochs, or never."""
    rows = []
    for run in plan(study):
        for epoch in range(1, run.settings.epochs + 1):
            accuracy = 0.1 + 0.87 * epoch / (arrive[run.cell] + run.seed / 100)
            rows.append({"run_id": run.run_id, "cell": run.cell, "seed": run.seed, "epoch": epoch, "status": "ok",
                         "val_accuracy": accuracy})  # fmt: skip
    return Results(Path(), study, pd.DataFrame(rows), {})


def test_a_censored_arm_gives_a_bound() -> None:
    """Where plain runs never arrive, BatchNorm is faster by at least what is seen, and the effect never negligible."""
    up, down, none = analyse(speeds(rates(), {"baseline": 9, "batch_norm": 2})).judgements
    assert {j.sample.bound for j in (up, down, none)} == {"most"}
    assert {j.low for j in (up, down, none)} == {-math.inf}
    assert up.high == pytest.approx(math.log(2 / 4), abs=0.1)
    assert (up.verdict, down.verdict, none.verdict) == ("refuted", "supported", "refuted")
    up, down, none = analyse(speeds(rates(), {"baseline": 9, "batch_norm": 3.9})).judgements
    assert abs(down.sample.mean) < 0.1
    assert none.verdict == "inconclusive"  # all seen effects are small, but they are bounds
    assert down.verdict != "negligible"


def test_two_censored_arms_say_nothing() -> None:
    """Where no run arrives, neither end is known and nothing is settled."""
    judged = analyse(speeds(rates(), {"baseline": 9, "batch_norm": 9})).judgements
    assert {(j.sample.bound, j.verdict) for j in judged} == {("none", "inconclusive")}
    assert {(j.low, j.high) for j in judged} == {(-math.inf, math.inf)}
    assert {j.seeds_needed for j in judged} == {Seeds(None, None)}


def test_without_censored_runs_it_is_an_estimate() -> None:
    """Where all runs arrive, both ends are those of the t interval."""
    down = analyse(speeds(rates(), {"baseline": 3, "batch_norm": 2})).judgements[1]
    assert down.sample.bound == ""
    z = np.log([(2 + s / 100) / (3 + s / 100) for s in range(8)])
    ends = stats.ttest_1samp(z, 0).confidence_interval(1 - 0.05 / 3)
    assert (down.low, down.high) == pytest.approx((ends.low, ends.high), abs=1e-3)


def gaps(n: int, diverged: list[tuple[str, int]]) -> Judgement:
    """Judge an effect of -0.5 on the gap, which runs that diverged do not have."""
    claim = {"id": "gap", "statement": "-", "effect": "dropout", "kind": "decrease", "smallest": 0.1, "response": "gap"}
    study = study_of(n, hypotheses=[claim])

    def loss(run: Run) -> float:
        return (
            1 - 0.5 * (run.cell == "dropout") + 0.01 * float(np.random.default_rng([run.seed, len(run.cell)]).normal())
        )

    results = synthetic.results(study, diverged=diverged, val_loss=loss, train_loss_eval=lambda _: 0.5)
    return analyse(results).judgements[0]


def test_runs_without_a_number_are_failures() -> None:
    """One of forty is left out; more than 5 %, or more on one side than on the other, give no verdict, and say why."""
    few = gaps(40, [("dropout", 3)])
    assert (few.verdict, few.sample.n, few.lacking, few.provisional) == ("supported", 39, "", "")
    many = gaps(40, [("dropout", s) for s in range(3)] + [("baseline", s) for s in range(3, 6)])
    assert many.verdict == "no verdict"
    assert many.lacking.startswith("6 of 80 runs that it needs have no gap")
    assert many.lacking.endswith("too many to leave out.")
    unlike = gaps(200, [("dropout", s) for s in range(12)])
    assert (unlike.verdict, unlike.sample.n) == ("no verdict", 188)
    assert unlike.lacking.endswith("more on one side than on the other.")
    assert gaps(8, [(cell, s) for cell in ("baseline", "dropout") for s in range(8)]).measured is False


def test_results_that_are_older_than_a_hypothesis_say_so() -> None:
    """A hypothesis on a cell, or a probe, that the results lack is not measured, and others are judged."""
    study = study_of()
    newer = Hypothesis(id="new", statement="-", effect="batch_norm", kind="increase", smallest=0.1)
    probe = Hypothesis(id="ece", statement="-", effect="dropout", kind="increase", smallest=0.1, response="ece")
    results = planted(study)
    changed = study.model_copy(update={"hypotheses": (*study.hypotheses, newer, probe)})
    *others, new, ece = analyse(replace(results, study=changed)).judgements
    assert [j.measured for j in others] == [True] * 3
    assert (new.measured, new.verdict, ece.measured, ece.verdict) == (False, "no verdict", False, "no verdict")
    assert ece.lacking == "These results have no expected calibration error."


def guesses(run: Run) -> dict[str, Any]:
    """Answer 40 images, some of them wrong."""
    labels = np.arange(40, dtype=np.uint8) % 10
    wrong = np.random.default_rng([run.seed, len(run.cell)]).random(40) < np.linspace(0, 3, 40) / len(run.cell)
    return {"test_index": np.arange(40, dtype=np.int32), "label": labels, "confidence": np.full(40, 0.5, np.float32),
            "prediction": np.where(wrong, (labels + 1) % 10, labels).astype(np.uint8)}  # fmt: skip


def test_new_images_make_the_interval_wider(tmp_path: Path) -> None:
    """Over seeds and images the interval is that of the two-way table at the family's level."""
    common = {"statement": "-", "effect": "dropout", "kind": "increase", "smallest": 0.1}
    populations = {"few": "seeds", "new": "seeds and images"}
    claims = [common | {"id": id_, "population": population} for id_, population in populations.items()]
    study = study_of(12, hypotheses=claims)
    results = load(synthetic.make(tmp_path, study, answers=guesses))
    few, new = analyse(results).judgements
    table = analyse(results).two_way
    assert table is not None
    two_way = table[table["label"] == "dropout"].iloc[0]
    half = stats.t.isf(0.05 / 2 / 2, two_way["df"]) * two_way["se_two_way"]
    assert (new.low, new.high) == pytest.approx((two_way["estimate"] - half, two_way["estimate"] + half))
    assert math.isnan(new.p_sign_flip)
    assert not few.images_dominate
    assert new.images_dominate == (two_way["se_images"] > two_way["se_seeds"])
    unknown = analyse(synthetic.results(study, test_accuracy=accuracy)).judgements[1]
    assert unknown.verdict == "no verdict"
    assert "answers to single test images are not stored" in unknown.lacking


@pytest.mark.parametrize(
    "changes", [{"response": "val_loss"}, {"over": "dropout", "summary": "log_sd", "effect": "l2"}]
)
def test_new_images_need_stored_answers(changes: dict[str, str]) -> None:
    """Only test accuracy can be asked of new images; the message says what is allowed."""
    claim = {"id": "a", "statement": "-", "effect": "dropout", "kind": "increase", "smallest": 0.1}
    with pytest.raises(StudyError, match='population = "seeds and images": needs response = "test_accuracy"'):
        study_of(hypotheses=[claim | {"population": "seeds and images"} | changes])


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
