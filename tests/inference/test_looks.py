"""At which look a study stands, why it stops there, and that nothing but the runs of whole looks decides that."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import synthetic
from scipy import stats

from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.intervals import MedianSample, Sample
from mnist_ablate.inference.looks import _futures, at_look, stand
from mnist_ablate.inference.sequential import tails
from mnist_ablate.store.results import Results

STEPS = {"first": 6, "step": 6, "most": 30}


def study_of(seeds: Any = STEPS, kinds: tuple[str, ...] = ("increase", "negligible"), **keys: Any) -> Study:
    """Make a study of two cells with a claim of each kind."""
    common = {"statement": "So it is", "effect": "dropout", "smallest": 0.1}
    claims = [common | {"id": kind, "kind": kind} for kind in kinds]
    document = {"name": "grows", "seeds": seeds, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.5]}}
    return parse_study(document | {"hypotheses": claims} | keys)


def planted(study: Study, seeds: int, effect: float, sd: float = 0.1, **options: Any) -> Results:
    """Plant an effect in points, with Gaussian noise, in the first `seeds` seeds."""

    def accuracy(run: Run) -> float:
        noise = float(np.random.default_rng(run.seed).normal())
        return (97 + (effect + sd * noise) * (run.cell == "dropout")) / 100

    return synthetic.results(study.reaching(seeds), test_accuracy=accuracy, **options)


def test_it_stands_at_the_last_whole_look() -> None:
    """Seeds beyond the last look that has all its runs wait; one that lacks a run ends what counts."""
    study = study_of(futility=0.0, kinds=("increase",))
    for seeds, missing, look in ((6, [], 6), (14, [], 12), (14, [("dropout", 11)], 6), (29, [("baseline", 13)], 12)):
        standing = stand(planted(study, seeds, 0.1, missing=missing))
        assert (standing.seeds, standing.complete, standing.stop) == (look, True, "")
    standing = stand(planted(study, 14, 0.1, missing=[("baseline", 5)]))
    assert (standing.seeds, standing.complete, standing.open, standing.stop) == (6, False, ("increase",), "")


def test_it_stops_when_all_is_settled() -> None:
    """The study stops at the first look that settles everything, even if later looks are stored."""
    study = study_of()
    for seeds in (12, 30):
        standing = stand(planted(study, seeds, 0.5, 0.2))
        assert (standing.seeds, standing.open, standing.stop) == (12, (), "settled")
    assert stand(planted(study, 6, 0.5, 0.2)).open == ("increase", "negligible")


def test_it_can_go_on_until_the_size_is_settled() -> None:
    """By sign a study stops when there is an effect; by size it goes on until the smallest that matters is passed."""
    results = planted(study_of(kinds=("increase",)), 30, 0.15)
    assert (stand(results).seeds, stand(results).stop) == (12, "settled")
    assert analyse(results).judgements[0].verdict == "supported, size open"
    by_size = replace(results, study=study_of(kinds=("increase",), settle="size", futility=0.0).reaching(30))
    assert (stand(by_size).seeds, stand(by_size).open, stand(by_size).stop) == (30, (), "settled")


def test_it_stops_when_it_is_futile() -> None:
    """A study that is unlikely to be settled with its most seeds stops; without that rule it goes on to them."""
    results = planted(study_of(kinds=("negligible",)), 30, 0.1, sd=0.3)
    standing = stand(results)
    assert (standing.open, standing.stop) == (("negligible",), "futile")
    assert standing.seeds < 30
    stubborn = replace(results, study=study_of(kinds=("negligible",), futility=0.0).reaching(30))
    assert (stand(stubborn).seeds, stand(stubborn).stop) == (30, "most")


def test_a_fixed_number_has_one_look() -> None:
    """A study with a fixed number of seeds stands there, and all its runs count."""
    results = planted(study_of(12), 12, 0.1, missing=[("dropout", 3)])
    assert at_look(results) is results
    assert stand(planted(study_of(12), 12, 0.5)).stop == "settled"


def test_runs_beyond_the_look_change_nothing() -> None:
    """Verdicts, intervals and cells are those of the look's runs alone, whatever else is stored."""
    study = study_of(futility=0.0, kinds=("increase",))
    alone, more = (analyse(planted(study, seeds, 0.1)) for seeds in (12, 17))
    assert alone.judgements == more.judgements
    assert alone.cells().equals(more.cells())
    assert more.results.final["seed"].max() == 11
    assert (more.n_planned, more.missing_runs) == (24, [])


def test_judgements_have_the_repeated_interval() -> None:
    """At a look, the interval is Student's t at the look's own level, cut to that of the look before."""
    study = study_of(kinds=("increase",), futility=0.0, first_seed=1000)
    results = planted(study, 12, 0.1)
    table = 100 * results.epochs.pivot(index="seed", columns="cell", values="test_accuracy")
    z = (table["dropout"] - table["baseline"]).to_numpy()
    low, high = -math.inf, math.inf
    for n, p in list(tails(0.05, study.looks).items())[:2]:
        half = stats.t.isf(p, n - 1) * z[:n].std(ddof=1) / math.sqrt(n)
        low, high = max(low, z[:n].mean() - half), min(high, z[:n].mean() + half)
    (judgement,) = analyse(results).judgements
    assert (judgement.low, judgement.high) == pytest.approx((low, high))
    assert (judgement.sample.n, judgement.alpha, judgement.provisional) == (12, 0.05, "")


def test_contradicting_looks_are_inconsistent() -> None:
    """Where early and late seeds differ as chance does not, the verdict says so, and nothing is settled."""
    noise = np.random.default_rng(0).normal(size=120)

    def drifting(run: Run) -> float:
        effect = (0.101 if run.seed < 20 else -0.5) + 0.001 * float(noise[run.seed])
        return (97 + effect * (run.cell == "dropout")) / 100

    late = synthetic.results(study_of({"first": 20, "step": 100, "most": 120}, kinds=("negligible",)).reaching(120),
                             test_accuracy=drifting)  # fmt: skip
    (judgement,) = analyse(late).judgements
    assert (judgement.verdict, judgement.low > judgement.high) == ("inconsistent", True)
    assert (stand(late).open, stand(late).stop) == (("negligible",), "most")


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ([6, 12, 18, 24, 30], ""),
        ([12], "a fixed number of 12 seeds was declared before the first run"),
        ([6, 12, 18], "its first run declared most = 18, which is 30 now"),
        (
            [8, 12, 16, 20, 24, 28],
            "its first run declared first = 8, which is 6 now and step = 4, which is 6 now and most = 28, "
            "which is 30 now",
        ),
        ([], "the runs do not say what was declared before them"),
    ],
)
def test_other_looks_than_declared_are_provisional(declared: list[int], reason: str) -> None:
    """A verdict says which of first, step and most are not those of the first run."""
    study = study_of(futility=0.0, kinds=("increase",))
    declaration = synthetic.declaration(study) | {"looks": declared} if declared else {}
    (judgement,) = analyse(planted(study, 12, 0.1, declared=declaration)).judgements
    assert judgement.provisional == reason


def test_an_incomplete_look_is_provisional() -> None:
    """Before the first look has all its runs, or where a fixed number took the place of looks, the verdict says so."""
    study = study_of(kinds=("increase",))
    (judgement,) = analyse(planted(study, 6, 0.1, missing=[("dropout", 2)])).judgements
    assert judgement.provisional == "its look at 6 seeds is incomplete: it rests on 5"
    fixed = planted(study.with_options(seeds=12), 12, 0.1, declared=synthetic.declaration(study))
    assert analyse(fixed).judgements[0].provisional == (
        "it rests on a fixed number of seeds, and first = 6, step = 6, most = 30 were declared before the first run"
    )


def test_the_future_of_a_mean_is_predicted_as_by_simulation() -> None:
    """Means of all seeds to come vary around the mean so far as they do without prior knowledge."""
    sample = Sample(10, 0.3, 1.2)
    rng = np.random.default_rng(0)
    variance = sample.sd**2 * 9 / rng.chisquare(9, 200_000)  # the posterior without prior knowledge
    mean = rng.normal(sample.mean, np.sqrt(variance / 10))
    rest = rng.normal(mean, np.sqrt(variance / 30))
    expected = np.quantile((10 * sample.mean + 30 * rest) / 40, [0.1, 0.5, 0.9])
    found = np.quantile([future.mean for future in _futures(sample, 40)], [0.1, 0.5, 0.9])
    assert found == pytest.approx(expected, abs=0.02)
    assert {(future.n, future.sd) for future in _futures(sample, 40)} == {(40, 1.2)}


def test_the_future_of_a_median_keeps_its_past() -> None:
    """Each future of a median has the seeds so far, and more of the same values."""
    past = MedianSample.of(np.array([0.0, 1, 1, 2, 2, 3]))
    for future in _futures(past, 20):
        assert isinstance(future, MedianSample)
        assert future.n == 20
        assert {0.0, 1.0, 2.0, 3.0} == set(future.values)
