"""The answers: what the section says follows from the judgements."""

import synthetic

from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.sections.answers import section


def test_the_section_has_every_claim_and_the_family(whole: Analysis) -> None:
    """All hypotheses are answered, the family counts them, and seven seeds are not called few."""
    values = section(whole).values
    answered = [answer.id for claim in values["claims"] for answer in claim.answers]
    assert sorted(answered) == sorted(hypothesis.id for hypothesis in whole.study.hypotheses)
    assert (values["family"], values["few"]) == (len(answered), None)
    assert values["tally"].startswith(f"Of {len(values['claims'])} claims in this study: ")


def test_ratios_are_explained_only_where_there_are_some() -> None:
    """A hypothesis on a log ratio needs its explanation; one on accuracies does not."""
    factors = {"batch_norm": [False, True], "learning_rate": [0.01, 0.1, 1.0]}
    plain = {"id": "a", "statement": "-", "effect": "batch_norm", "kind": "increase", "smallest": 0.5}
    ratio = plain | {"over": "learning_rate", "summary": "log_sd"}
    for hypothesis, ratios in ((plain, False), (ratio, True)):
        study = parse_study({"name": "s", "seeds": 2, "factors": factors, "hypotheses": [hypothesis]})
        values = section(analyse(synthetic.results(study))).values
        assert (values["ratios"], values["few"]) == (ratios, 2)
