"""The claims of the course notebook, answered from the reference results of several studies.

``claims.toml`` says which hypotheses decide on a claim, and by which rule. The verdicts of each study are a family of
their own, see `inference.verdicts`. 'Supported' requires that every deciding hypothesis holds: an intersection-union
test (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24), whose error is at
most that of its weakest part, without further correction. 'It depends' and 'in part' say which verdicts differ, and
test nothing.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.design.study import load_study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.estimands import everywhere
from mnist_ablate.inference.verdicts import Judgement, Verdict, decide, oriented
from mnist_ablate.store.results import load

_T = TypeVar("_T")
Role = Literal["decides", "elsewhere", "beside"]
Outcome = Literal["holds", "does not hold", "open", "not run"]
ClaimVerdict = Literal[
    "supported", "supported, size open", "negligible", "refuted", "in part", "it depends", "inconclusive", "not run"
]  # fmt: skip
_HOLDS: dict[Verdict, Outcome] = {
    "supported": "holds", "supported, size open": "holds", "negligible": "does not hold", "refuted": "does not hold",
    "inconclusive": "open", "no verdict": "open", "inconsistent": "open",
}  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(_Strict):
    """Reference results that are not those of the bundled study of the same name."""

    study: str
    dataset: DatasetName
    title: str


class Place(_Strict):
    """A hypothesis, as ``study/id``, and in a few words the condition it speaks of."""

    hypothesis: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[A-Za-z0-9_.-]+$")]
    where: str


class Part(_Strict):
    """One part of a claim: the hypothesis that decides on it, and the same question under other conditions."""

    what: str
    decides: Place
    elsewhere: tuple[Place, ...] = ()


class Claim(_Strict):
    """A claim with the hypotheses that answer it.

    Parameters
    ----------
    id, claim
        The notebook's claim, in our own words.
    parts
        What decides on it, in order; tables show the estimate of the first.
    beside
        Hypotheses that are shown beside it and change no verdict.
    rule
        Whether ``"every part"`` must hold, or one effect must hold ``"everywhere"``; see ``claims.toml``.
    """

    id: str
    claim: str
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    beside: tuple[Place, ...] = ()
    rule: Literal["every part", "everywhere"] = "every part"

    @property
    def places(self) -> Iterator[tuple[Part | None, Role, Place]]:
        """List its hypotheses with the part that they speak of, in order."""
        for part in self.parts:
            yield part, "decides", part.decides
            for place in part.elsewhere:
                yield part, "elsewhere", place
        for place in self.beside:
            yield None, "beside", place


@lru_cache(maxsize=1)
def _document() -> dict[str, object]:
    return tomllib.loads(files("mnist_ablate.claims").joinpath("claims.toml").read_text(encoding="utf-8"))


def claims() -> tuple[Claim, ...]:
    """Return the claims, in order."""
    listed = _document()["claims"]
    assert isinstance(listed, list)  # noqa: S101 # so that the types are known
    return tuple(Claim.model_validate(entry) for entry in listed)


def special_references() -> dict[str, Reference]:
    """Return the reference results that are not those of a bundled study of the same name, by name."""
    listed = _document()["references"]
    assert isinstance(listed, dict)  # noqa: S101 # as above
    return {name: Reference.model_validate(entry) for name, entry in listed.items()}


def hypothesis_of(place: Place) -> Hypothesis:
    """Return the hypothesis of the bundled study that `place` names.

    Raises
    ------
    StudyError
        If there is no such study.
    ResultsError
        If the study has no such hypothesis.
    """
    reference, _, wanted = place.hypothesis.partition("/")
    return _found(reference, wanted, {h.id: h for h in _declared(reference)})


@lru_cache
def _declared(reference: str) -> tuple[Hypothesis, ...]:
    special = special_references().get(reference)
    return tuple(load_study(special.study if special else reference).hypotheses)


def _found(reference: str, wanted: str, known: Mapping[str, _T]) -> _T:
    if wanted not in known:
        raise ResultsError(
            f"{reference}: has no hypothesis {wanted}, which claims.toml names; it has {', '.join(known) or 'none'}. "
            "Name another there, or make these results again."
        )
    return known[wanted]


# ---- Answers ----


@dataclass(frozen=True)
class Finding:
    """What one hypothesis says about a claim.

    Parameters
    ----------
    reference
        The folder of the reference results, which is also that of their page.
    role, what, where
        Its role for the claim, the part it speaks of, and under which condition.
    hypothesis
        The hypothesis, as it is declared.
    judgement
        The verdict; None where there are no reference results.
    outcome
        Whether the claim holds there.
    """

    reference: str
    role: Role
    what: str
    where: str
    hypothesis: Hypothesis
    judgement: Judgement | None
    outcome: Outcome


@dataclass(frozen=True)
class ClaimAnswer:
    """A claim with its verdict and its findings.

    Parameters
    ----------
    claim
        The claim.
    verdict
        By the rules of ``claims.toml``.
    findings
        One for each hypothesis, in the claim's order; tables show the estimate of the first.
    strict
        The verdict if all hypotheses of all claims were one family.
    """

    claim: Claim
    verdict: ClaimVerdict
    findings: tuple[Finding, ...]
    strict: ClaimVerdict

    @property
    def headline(self) -> Finding:
        """The finding whose estimate tables show."""
        return self.findings[0]

    def where(self, outcome: Outcome, *roles: Role) -> list[Finding]:
        """List the findings with an `outcome`, in some roles."""
        return [f for f in self.findings if f.outcome == outcome and f.role in roles]

    @property
    def differing(self) -> list[tuple[Finding, Finding]]:
        """Pairs of a deciding finding and one elsewhere that contradicts it."""
        return _differing(self.findings)


@dataclass(frozen=True)
class References:
    """The verdicts of all reference results in a folder.

    Parameters
    ----------
    judgements
        By the name of the results, then by the hypothesis' id.
    """

    judgements: Mapping[str, Mapping[str, Judgement]]

    @classmethod
    def read(cls, folder: str | Path) -> "References":
        """Judge the results in `folder` that claims name; results that are missing count as not run."""
        names = dict.fromkeys(name for claim in claims() for name in _references_of(claim))
        there = [name for name in names if (Path(folder) / name / "study.json").exists()]
        judged = {name: analyse(load(Path(folder) / name)).judgements for name in there}
        return cls({name: {judgement.hypothesis.id: judgement for judgement in of} for name, of in judged.items()})

    def at_page_level(self) -> "References":
        """Decide again with all hypotheses that claims name as one family, run or not: each at alpha over their number.

        A hypothesis has alpha / m from its study, m being the study's number of hypotheses, so alpha is m times that.
        """
        return References({
            name: {id_: _at(judgement, judgement.alpha * len(of) / family_size()) for id_, judgement in of.items()}
            for name, of in self.judgements.items()
        })  # fmt: skip


def family_size() -> int:
    """Count the hypotheses that claims name."""
    return len({place.hypothesis for claim in claims() for _, _, place in claim.places})


def _at(judgement: Judgement, alpha: float) -> Judgement:
    sample, hypothesis = judgement.sample, judgement.hypothesis
    (low, high), (inner_low, inner_high) = sample.interval(alpha), sample.interval(2 * alpha)
    verdict = decide(sample, hypothesis.kind, hypothesis.smallest, alpha)
    return replace(judgement, alpha=alpha, verdict=verdict, low=low, high=high, inner_low=inner_low,
                   inner_high=inner_high)  # fmt: skip


def _references_of(claim: Claim) -> list[str]:
    return [place.hypothesis.partition("/")[0] for _, _, place in claim.places]


def answer_all(found: References) -> list[ClaimAnswer]:
    """Answer every claim, in order.

    Raises
    ------
    ResultsError
        If results have no such hypothesis as a claim names.
    """
    strict = found.at_page_level()
    return [answer(claim, found, strict) for claim in claims()]


def answer(claim: Claim, found: References, strict: References) -> ClaimAnswer:
    """Answer a claim from what was `found`; `strict` has the same at the level of the whole page."""
    findings, again = _findings(claim, found), _findings(claim, strict)
    return ClaimAnswer(claim, claim_verdict(claim.rule, findings), findings, claim_verdict(claim.rule, again))


def _findings(claim: Claim, found: References) -> tuple[Finding, ...]:
    return tuple(_finding(claim, found, part, role, place) for part, role, place in claim.places)


def _finding(claim: Claim, found: References, part: Part | None, role: Role, place: Place) -> Finding:
    reference, _, wanted = place.hypothesis.partition("/")
    hypothesis, judged = hypothesis_of(place), found.judgements.get(reference)
    judgement = None if judged is None else _found(reference, wanted, judged)
    outcome = _outcome(judgement, claim.rule if role == "decides" else "every part")
    return Finding(reference, role, part.what if part else "", place.where, hypothesis, judgement, outcome)


def _outcome(judgement: Judgement | None, rule: str) -> Outcome:
    """Return whether the claim holds there; 'everywhere' asks of each place only that it is not worse."""
    if judgement is None:
        return "not run"
    if rule == "every part":
        return _HOLDS[judgement.verdict]
    low, high = _oriented(judgement)
    return "does not hold" if high < 0 else "holds" if low > -judgement.hypothesis.smallest else "open"


def _oriented(judgement: Judgement) -> tuple[float, float]:
    return oriented((judgement.low, judgement.high), judgement.hypothesis.kind)


def claim_verdict(rule: str, findings: Sequence[Finding]) -> ClaimVerdict:
    """Return the verdict on a claim by the rules of ``claims.toml``; what is beside it changes nothing."""
    deciding = [finding for finding in findings if finding.role == "decides"]
    judgements = [finding.judgement for finding in deciding if finding.judgement is not None]
    if len(judgements) < len(deciding):
        return "not run"
    if rule == "everywhere":
        return _everywhere(judgements)
    outcomes = {finding.outcome for finding in deciding}
    if _differing(findings):
        return "it depends"
    if {"holds", "does not hold"} <= outcomes:
        return "in part"
    return "inconclusive" if "open" in outcomes else _alike({judgement.verdict for judgement in judgements})


def _everywhere(judgements: Sequence[Judgement]) -> ClaimVerdict:
    smallest = min(judgement.hypothesis.smallest for judgement in judgements)
    verdict = everywhere([_oriented(judgement) for judgement in judgements], smallest)
    return "supported" if verdict == "supported" else "refuted" if verdict == "refuted" else "inconclusive"


def _alike(verdicts: set[Verdict]) -> ClaimVerdict:
    """Name the verdict on parts that all hold, or of which none does."""
    if "refuted" in verdicts:
        return "refuted"
    if "negligible" in verdicts:
        return "negligible"
    return "supported, size open" if "supported, size open" in verdicts else "supported"


def _differing(findings: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """Pair what decides on a part with what is the other way round elsewhere."""
    pairs = []
    decided = None
    for finding in findings:
        if finding.role == "decides":
            decided = finding
        elif finding.role == "elsewhere" and decided and _opposed(decided, finding):
            pairs.append((decided, finding))
    return pairs


def _opposed(one: Finding, other: Finding) -> bool:
    return {one.outcome, other.outcome} == {"holds", "does not hold"}


def not_run(answers: Iterable[ClaimAnswer]) -> list[str]:
    """List the reference results that claims ask for and that are not there."""
    return list(dict.fromkeys(f.reference for a in answers for f in a.findings if f.outcome == "not run"))


def tally(answers: Iterable[ClaimAnswer]) -> dict[ClaimVerdict, int]:
    """Count the verdicts, the most frequent first."""
    return dict(Counter(answer.verdict for answer in answers).most_common())


def everywhere_error(answer: ClaimAnswer) -> float:
    """Bound the probability of a false verdict on 'everywhere': half the sum of its hypotheses' shares of alpha.

    Where the effect is nowhere below 0, only an interval that lies too low makes a verdict false; where it is, only one
    that lies too high. An interval misses on one side with half its share.
    """
    return sum(f.judgement.alpha for f in answer.findings if f.role == "decides" and f.judgement is not None) / 2
