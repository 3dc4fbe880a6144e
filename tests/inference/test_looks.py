"""At which look a study stands, why it stops there, and that nothing but the runs of whole looks decides that."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from scipy import stats

from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference import test_images
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.intervals import MedianSample, Sample, TwoWaySample
from mnist_ablate.inference.looks import Standing, _futures
from mnist_ablate.inference.sequential import Repeated, RepeatedTwoWay, tails
from mnist_ablate.store.results import Results, load

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


def stand(results: Results) -> Standing:
    """Return where the study of all of `results` stands."""
    return Analysis(results).standing


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
    assert analyse(results).results is results
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


def test_the_future_of_new_images_keeps_its_images() -> None:
    """More seeds make the error from seeds smaller, and leave that from images as it is."""
    sample = TwoWaySample(
        10, 0.3, 1.2, se_both=math.hypot(1.2 / math.sqrt(10), 0.2), df_both=20, se_images=0.2, images=50
    )
    futures = _futures(sample, 40)
    assert [f.mean for f in futures] == [f.mean for f in _futures(Sample(10, 0.3, 1.2), 40)]
    assert {f.se for f in futures} == {math.hypot(1.2 / math.sqrt(40), 0.2)}
    assert all(isinstance(f, TwoWaySample) and (f.n, f.sd, f.se_images) == (40, 1.2, 0.2) for f in futures)


def test_new_images_are_looked_at_with_the_seeds_of_each_look(tmp_path: Path) -> None:
    """Each look has the two-way sample of its own seeds, as if there were no others; one that lacks a cell is out."""
    claim = {"id": "new", "statement": "So it is", "effect": "dropout", "kind": "increase", "smallest": 0.1,
             "population": "seeds and images"}  # fmt: skip
    study = study_of(hypotheses=[claim], futility=0.0, settle="size")
    means = {"baseline": 90.0, "dropout": 90.1}
    declared, answers = synthetic.declaration(study), synthetic.rightly(means)
    grown = load(synthetic.make(tmp_path, study.reaching(12), answers=answers, declared=declared))
    (judgement,) = analyse(grown).judgements
    assert isinstance(judgement.sample, RepeatedTwoWay)
    first, second = (sample for _, sample in judgement.sample.samples)
    values = test_images.seed_image_effects(grown, study.hypotheses[0].contrast)
    assert values is not None
    assert (first, second) == (test_images.two_way_sample(values[:6]), test_images.two_way_sample(values))
    lacking = replace(grown, epochs=grown.epochs[(grown.epochs["seed"] != 2) | (grown.epochs["cell"] != "dropout")])
    (judgement,) = analyse(lacking).judgements
    assert judgement.sample.n == 5
    assert judgement.provisional == "its look at 6 seeds is incomplete: it rests on 5"


def test_failures_leave_a_hypothesis_open_at_their_look() -> None:
    """Too many runs without a number give no verdict at that look; the study gives up, or waits for rarer ones."""
    claim = {"id": "gap", "statement": "So it is", "effect": "dropout", "kind": "decrease", "smallest": 0.1}
    failing = [("dropout", 1), ("dropout", 2), ("baseline", 3)]

    def loss(run: Run) -> float:
        noise = float(np.random.default_rng([run.seed, len(run.cell)]).normal())
        return 1 - 0.5 * (run.cell == "dropout") + 0.01 * noise

    for futility, verdicts, stop in ((0.1, ["no verdict"], "futile"), (0.0, ["no verdict", "supported"], "settled")):
        steps = {"first": 12, "step": 24, "most": 60}
        study = study_of(steps, hypotheses=[claim | {"response": "gap"}], futility=futility).reaching(60)
        results = synthetic.results(study, diverged=failing, val_loss=loss, train_loss_eval=lambda _: 0.5)
        analysis = analyse(results)
        assert analysis.by_look["verdict"].tolist() == verdicts
        assert analysis.judgements[0].verdict == verdicts[-1]
        assert stand(results).stop == stop


def test_the_ratio_of_two_limits_holds_at_all_looks() -> None:
    """What a difference of places in a grid stands for is bounded by the same looks as the difference itself."""
    claim = {"id": "limit", "statement": "So it is", "over": "learning_rate", "summary": "highest",
             "response": "val_accuracy", "effect": "batch_norm", "kind": "increase", "smallest": 0.5}  # fmt: skip
    rates = {"batch_norm": [False, True], "learning_rate": [0.001, 0.01, 0.1]}
    study = study_of({"first": 10, "step": 10, "most": 30}, hypotheses=[claim], factors=rates, futility=0.0)

    def accuracy(run: Run) -> float:
        return 0.97 if run.settings.learning_rate < (0.05 if run.settings.batch_norm else 0.005) else 0.1

    (judgement,) = analyse(synthetic.results(study.reaching(20), val_accuracy=accuracy)).judgements
    assert judgement.ratio == pytest.approx((1.0, 100.0))
    (early,) = analyse(synthetic.results(study, val_accuracy=accuracy)).judgements
    assert early.ratio == (-math.inf, math.inf)  # the level of the first look allows no ends of a median


def test_the_bundled_study_can_be_followed(tmp_path: Path) -> None:
    """All hypotheses of `factorial` can be looked at, those about new test images by seeds and images."""
    study = load_study("factorial").with_options(epochs=1)
    results = load(synthetic.make(tmp_path, study, answers=synthetic.rightly(synthetic.MEANS)))
    kinds = {j.hypothesis.population: type(j.sample) for j in analyse(results).judgements}
    assert kinds == {"seeds": Repeated, "seeds and images": RepeatedTwoWay}
    assert analyse(results).standing.seeds == 10
