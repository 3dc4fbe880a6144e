"""The claims: their hypotheses exist, each verdict follows from its rule, and what is not run is said to be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from mnist_ablate.claims import judge as claims
from mnist_ablate.claims.judge import (
    Claim,
    Finding,
    Part,
    Place,
    References,
    Role,
)
from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.responses import RESPONSES
from mnist_ablate.design.study import bundled_studies, load_study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.combined import Outcome
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.verdicts import Judgement, Verdict
from mnist_ablate.store.results import load

UNIT = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0, -0.7, 0.7, -0.2, 0.2])
HELPS = Hypothesis(id="H", statement="It helps", effect="dropout", kind="increase", smallest=0.1)
OUTCOMES: dict[str, Outcome] = {"supported": "holds", "supported, size open": "holds", "negligible": "does not hold",
                                "refuted": "does not hold", "inconclusive": "open", "not run": "not run"}  # fmt: skip


def judged(mean: float, sd: float = 0.01, alpha: float = 0.01) -> Judgement:
    """Judge `HELPS`, of which 0.1 matters, by ten seeds."""
    sample = Sample.of(mean + sd * UNIT)
    nan = float("nan")
    accuracy = RESPONSES["test_accuracy"]
    return Judgement(HELPS, "no verdict", sample, alpha, nan, nan, 0.01, 0.01, 0.01, 10, "", accuracy).at(alpha)


SAID: dict[str, Judgement | None] = {
    "supported": judged(0.5), "supported, size open": judged(0.1, 0.02), "negligible": judged(0.02),
    "refuted": judged(-0.5), "inconclusive": judged(0.05, 1.0), "not run": None,
}  # fmt: skip
HARDLY = judged(0.06, 0.08)
"""Supported by a little, and perhaps no other than what is negligible."""


def finding(role: Role, said: str, what: str = "accuracy") -> Finding:
    """Make a finding with a verdict."""
    judgement, outcome = (HARDLY, "holds") if said == "hardly" else (SAID[said], OUTCOMES[said])
    return Finding("study", role, what, "here", HELPS, judgement, outcome)


def decided(*said: str) -> list[Finding]:
    """Make parts that decide, with these verdicts."""
    return [finding("decides", verdict, f"part {i}") for i, verdict in enumerate(said)]


# ---- The file ----


def named() -> dict[str, set[str]]:
    """Give the hypotheses that each claim names."""
    return {claim.id: {place.hypothesis for _, _, place in claim.places} for claim in claims.claims()}


def test_there_are_thirteen_claims() -> None:
    """They are C1 to C13, in order."""
    assert [claim.id for claim in claims.claims()] == [f"C{n}" for n in range(1, 14)]


@pytest.mark.parametrize("claim", claims.claims(), ids=lambda claim: claim.id)
def test_every_hypothesis_that_a_claim_names_exists(claim: Claim) -> None:
    """Each is in its bundled study under its id; no claim names one twice."""
    listed = [place for _, _, place in claim.places]
    assert all(claims.hypothesis_of(place).id == place.hypothesis.partition("/")[2] for place in listed)
    assert len({place.hypothesis for place in listed}) == len(listed)


@pytest.mark.parametrize("name", [*bundled_studies(), *claims.special_references()])
def test_every_hypothesis_on_a_claim_is_named_by_it(name: str) -> None:
    """A hypothesis C3-noise is named by C3, and so on, for all bundled studies and special references."""
    special = claims.special_references().get(name)
    for hypothesis in load_study(special.study if special else name).hypotheses:
        claim = hypothesis.id.partition("-")[0]
        if claim[0] == "C":
            assert f"{name}/{hypothesis.id}" in named()[claim]


def test_conditions_are_on_the_response_of_their_part() -> None:
    """What is elsewhere, and another dose, has the direction and the smallest effect of what decides."""
    for claim in claims.claims():
        for part in claim.parts:
            found = [claims.hypothesis_of(place) for place in (part.decides, *part.elsewhere, *part.dose)]
            direct = {(h.kind, h.smallest) for h in found}
            assert len(direct) == 1, (claim.id, part.what)


def test_what_decided_formerly_is_still_asked() -> None:
    """A former question of a claim is one of its hypotheses still, and is not the one that decides now."""
    changed = [claim for claim in claims.claims() if claim.formerly]
    assert changed
    for claim in changed:
        before = claim.before
        assert before is not None
        assert {place.hypothesis for _, _, place in before.places} <= named()[claim.id]
        assert [(p.decides, p.elsewhere) for p in before.parts] != [(p.decides, p.elsewhere) for p in claim.parts]
        for _, _, place in before.places:
            today = claims.hypothesis_of(place.model_copy(update={"asked": {}}))
            assert (claims.hypothesis_of(place) != today) == bool(place.asked)


def test_what_is_asked_today_is_asked_by_the_study() -> None:
    """Only a former question may differ from the hypothesis of its study."""
    assert not [place for claim in claims.claims() for _, _, place in claim.places if place.asked]


def test_the_former_verdict_is_by_the_former_question() -> None:
    """A claim whose question changed has the verdict of each; one that was always asked so has no former one."""
    ids = {place.hypothesis.partition("/") for claim in claims.claims() for _, _, place in claim.places}
    found: dict[str, dict[str, Judgement]] = {}
    for study, _, id_ in ids:
        said = "negligible" if id_ == "C6-spread" else "supported"
        found.setdefault(study, {})[id_] = judged(*{"negligible": (0.02,), "supported": (0.5,)}[said])
    former: dict[str, dict[str, Judgement]] = {}
    for claim in claims.claims():
        for _, _, place in claim.before.places if claim.before else ():
            former.setdefault(place.reference, {})[place.question] = judged(0.5 if claim.id == "C3" else 0.02)
    answers = {answer.claim.id: answer for answer in claims.answer_all(References(found, former=former))}
    assert (answers["C3"].verdict, answers["C3"].former) == ("supported", "supported")
    assert (answers["C4"].verdict, answers["C4"].former) == ("supported", "negligible")
    assert (answers["C6"].verdict, answers["C6"].former) == ("supported", "negligible")
    assert (answers["C8"].verdict, answers["C8"].former) == ("supported", "supported")
    assert (answers["C1"].verdict, answers["C1"].former) == ("supported", None)


def test_an_unknown_hypothesis_is_refused() -> None:
    """A name that the study does not have is an error that says which it has."""
    with pytest.raises(ResultsError, match=r"factorial: has no hypothesis C99.*C1-gap.*Name another"):
        claims.hypothesis_of(Place(hypothesis="factorial/C99", where="nowhere"))


# ---- The rules ----


def verdict_of(findings: list[Finding]) -> str:
    """Return the verdict on a claim from its findings."""
    return claims._verdict(findings)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "supported, size open"], "supported, size open"),
        (["negligible"], "negligible"),
        (["negligible", "negligible"], "negligible"),
        (["negligible", "refuted"], "refuted"),
        (["refuted"], "refuted"),
        (["supported", "refuted"], "in part"),
        (["supported", "negligible", "inconclusive"], "in part"),
        (["supported", "inconclusive"], "inconclusive"),
        (["refuted", "inconclusive"], "inconclusive"),
        (["supported", "not run"], "not run"),
        (["refuted", "supported", "not run"], "not run"),
    ],
)
def test_parts_make_the_verdict(said: list[str], verdict: str) -> None:
    """The verdict on a claim follows from those on its parts, whatever their order."""
    assert verdict_of(decided(*said)) == verdict
    assert verdict_of(decided(*said[::-1])) == verdict


@pytest.mark.parametrize(
    ("here", "elsewhere", "verdict"),
    [
        ("supported", "refuted", "it depends"),
        ("supported", "negligible", "it depends"),
        ("negligible", "supported, size open", "it depends"),
        ("supported", "supported, size open", "supported"),
        ("supported", "inconclusive", "supported"),
        ("supported", "not run", "supported"),
        ("negligible", "refuted", "negligible"),
        ("inconclusive", "refuted", "inconclusive"),
        ("not run", "refuted", "not run"),
        ("hardly", "negligible", "supported, size open"),
        ("hardly", "refuted", "it depends"),
    ],
)
def test_conditions_make_it_depend(here: str, elsewhere: str, verdict: str) -> None:
    """It depends where the other condition is decided the other way round and certainly differs, and only then."""
    assert verdict_of([finding("decides", here), finding("elsewhere", elsewhere)]) == verdict


def test_a_condition_is_compared_with_its_own_part() -> None:
    """What is elsewhere speaks of the part before it, not of another."""
    one, other = decided("supported", "negligible")
    assert verdict_of([one, finding("elsewhere", "supported"), other]) == "in part"
    assert verdict_of([one, other, finding("elsewhere", "supported")]) == "it depends"


@pytest.mark.parametrize("role", ["beside", "dose"])
@pytest.mark.parametrize("said", OUTCOMES)
def test_what_is_beside_and_doses_change_nothing(said: str, role: Role) -> None:
    """Whatever stands beside a claim or comes of another dose, its verdict stays."""
    for verdict in OUTCOMES:
        alone = decided(verdict)
        assert verdict_of([*alone, finding(role, said)]) == verdict_of(alone)


@given(said=st.lists(st.sampled_from(list(OUTCOMES)), min_size=1, max_size=4))
def test_supported_needs_all(said: list[str]) -> None:
    """A claim is supported, with or without its size, exactly where each of its parts is."""
    verdict = verdict_of(decided(*said))
    assert verdict.startswith("supported") == all(OUTCOMES[one] == "holds" for one in said)


def answered(*findings: Finding) -> claims.ClaimAnswer:
    """Answer a claim by findings."""
    part = Part(what="accuracy", decides=Place(hypothesis="s/H", where="here"))
    claim = Claim(id="C0", claim="It helps", parts=(part,))
    return claims.ClaimAnswer(claim, claims._verdict(findings), findings, claims._verdict(findings))


@pytest.mark.parametrize(
    ("here", "there", "rests_on"),
    [
        (["supported", "supported"], ["inconclusive"], [0, 1]),
        (["supported", "refuted"], ["not run"], [0, 1]),
        (["negligible", "refuted"], ["not run"], [1]),
        (["supported", "inconclusive"], ["not run"], [1]),
        (["supported", "not run"], ["supported"], [1]),
        (["supported"], ["refuted"], [0, 1]),
        (["supported"], ["refuted", "supported", "negligible"], [0, 1, 3]),
    ],
)
def test_a_verdict_stands_beside_what_it_rests_on(here: list[str], there: list[str], rests_on: list[int]) -> None:
    """What is refuted, open or not measured stands alone; what depends stands with both sides; else all parts."""
    findings = [*decided(*here), *(finding("elsewhere", said, "elsewhere") for said in there)]
    assert answered(*findings).deciding == [findings[i] for i in rests_on]


def test_seeds_needed_are_those_of_the_part_that_needs_most() -> None:
    """The most over all parts, and over what makes it depend; none where a part has no number."""
    few, many = finding("decides", "supported"), finding("decides", "inconclusive")
    assert few.judgement is not None
    assert many.judgement is not None
    least, most = few.judgement.seeds_needed.likely, many.judgement.seeds_needed.likely
    assert (least or 0) < (most or 0)
    assert answered(few, many).seeds_needed == answered(many, few).seeds_needed == most
    assert answered(few, finding("elsewhere", "refuted")).seeds_needed == least
    assert answered(few, finding("beside", "inconclusive")).seeds_needed == least
    assert answered(finding("decides", "not run")).seeds_needed is None


# ---- From results ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make results of the factorial study alone, with eight seeds."""
    folder = tmp_path_factory.mktemp("references")
    study = synthetic.factorial(8, 2)
    declared = {"study_sha256": "f" * 64, "hypotheses_sha256": study.hypotheses_sha256, "looks": [8]}
    answers = synthetic.rightly(synthetic.MEANS)
    synthetic.make(folder / "factorial", study, declared=declared, answers=answers)
    return folder


def test_without_any_results(tmp_path: Path) -> None:
    """Every claim is not run yet, and every study is named."""
    answers = claims.answer_all(References.read(tmp_path))
    assert {answer.verdict for answer in answers} == {"not run"}
    assert claims.tally(answers) == {"not run": 13}
    assert set(claims.not_run(answers)) == {place.partition("/")[0] for places in named().values() for place in places}


def test_with_one_study(folder: Path) -> None:
    """What the study decides is answered with its own judgements, what others decide is not run yet."""
    answers = {answer.claim.id: answer for answer in claims.answer_all(References.read(folder))}
    assert {id_ for id_, answer in answers.items() if answer.verdict != "not run"} == {"C1", "C2", "C3", "C4", "C7"}
    of_study = {judgement.hypothesis.id: judgement for judgement in analyse(load(folder / "factorial")).judgements}
    assert [f.judgement for f in answers["C4"].deciding] == [of_study["C4-accuracy"]]
    assert "factorial" not in claims.not_run(answers.values())
    assert [f.where for f in answers["C4"].where("not run", "elsewhere")] == [
        "after 50 epochs", "on Fashion-MNIST", "on Fashion-MNIST, averaged over L2 and dropout",
    ]  # fmt: skip


def test_results_are_judged_by_the_hypotheses_of_now(tmp_path: Path) -> None:
    """Results of other hypotheses are judged by those of the bundled study, and the verdicts are provisional."""
    then = synthetic.factorial(8, 2)
    less = then.model_copy(update={"hypotheses": then.hypotheses[:2]})
    declared = {"study_sha256": "f" * 64, "hypotheses_sha256": less.hypotheses_sha256, "looks": [8]}
    synthetic.make(tmp_path / "factorial", less, declared=declared)
    judged_now = References.read(tmp_path).judgements["factorial"]
    assert list(judged_now) == [hypothesis.id for hypothesis in then.hypotheses]
    assert {j.provisional for j in judged_now.values()} == {
        "64 of the runs were made before the hypotheses became what they are now"
    }


def test_what_was_asked_otherwise_is_judged_so(folder: Path) -> None:
    """A former question has its own population or average, and today's share of alpha."""
    found = References.read(folder)
    today, former = found.judgements["factorial"], found.former["factorial"]
    assert former["C3-accuracy {'population': 'seeds'}"].hypothesis.population == "seeds"
    assert today["C3-accuracy"].hypothesis.population == "seeds and images"
    effect = former["C2-gap {'at': 'average'}"]
    study = load(folder / "factorial").study
    assert (effect.hypothesis.at, today["C2-gap"].hypothesis.at) == ("average", "reference")
    assert effect.sample.mean != today["C2-gap"].sample.mean
    assert [one.alpha for one in former.values()] == pytest.approx([study.alpha / len(today)] * len(former))


def test_former_questions_have_all_runs_of_a_study_that_grew() -> None:
    """They would have been settled with fewer seeds, but today's questions say where the study stopped."""
    reference = Path(__file__).parents[2] / "results" / "reference" / "factorial"
    analysis = analyse(claims.as_declared("factorial", load(reference)))
    assert analysis.trained is not None
    former = claims.judged_formerly("factorial", analysis.trained)
    n = analysis.study.n_seeds
    assert n > analysis.study.looks[0]
    assert {question: judgement.sample.n for question, judgement in former.items()} == dict.fromkeys(former, n)
    today = {judgement.hypothesis.id: judgement for judgement in analysis.judgements}
    assert former["C4-accuracy {'population': 'seeds'}"].sample.mean == pytest.approx(today["C4-accuracy"].sample.mean)


def test_shared_networks_are_counted() -> None:
    """A run counts as shared where another study, and not only its own, has the same weights."""
    networks = {"a": ["1", "2", "2", "3"], "b": ["3", "4"], "c": ["3"]}
    assert References({}, networks).shared == 3
    assert References({}, {"a": ["1", "1"]}).shared == 0


def test_old_results_are_refused(folder: Path) -> None:
    """Results without a hypothesis that a claim names are an error that names it."""
    found = References.read(folder)
    old = References({"factorial": {k: v for k, v in found.judgements["factorial"].items() if k != "C1-gap"}})
    with pytest.raises(ResultsError, match="factorial: has no hypothesis C1-gap"):
        claims.answer_all(old)


def test_one_family_of_the_whole_page(folder: Path) -> None:
    """At the level of the page each hypothesis has 0.05 over their number, and its interval is as wide as that asks."""
    found = References.read(folder)
    strict = found.at_page_level().judgements["factorial"]
    assert claims.family_size() == len(set.union(*named().values()))
    for id_, judgement in found.judgements["factorial"].items():
        again = strict[id_]
        assert again.alpha == pytest.approx(0.05 / claims.family_size())
        assert (again.low, again.high) == judgement.sample.interval(again.alpha)
        assert again.high - again.low > judgement.high - judgement.low
    verdicts: set[Verdict] = {judgement.verdict for judgement in strict.values()}
    assert verdicts <= set(OUTCOMES)


def test_the_strict_verdict_is_that_of_the_page(folder: Path) -> None:
    """What is decided narrowly at its study's level, and not at the page's, has another strict verdict."""
    narrow = judged(0.08, 0.13, alpha=0.05)
    assert narrow.verdict == "supported, size open"
    found = References.read(folder)
    only = {name: replace(narrow, hypothesis=of.hypothesis) for name, of in found.judgements["factorial"].items()}
    (answer,) = (a for a in claims.answer_all(References({"factorial": only})) if a.claim.id == "C4")
    assert answer.verdict == "supported, size open"
    assert answer.strict == "inconclusive"
