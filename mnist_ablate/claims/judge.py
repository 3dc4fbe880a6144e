"""The claims of the course notebook, answered from the reference results of several studies.

``claims.toml`` says which hypotheses decide on a claim, and by which rule. The verdicts of each study are a family of
their own, see `inference.verdicts`. 'Supported' requires that every deciding hypothesis holds: an intersection-union
test (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24), whose error is at
most that of its weakest part, without further correction. 'It depends' requires that an interval of the difference
between the two places leaves out 0; 'in part' says which verdicts differ.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mnist_ablate.design.contrasts import Hypothesis
from mnist_ablate.design.settings import DatasetName
from mnist_ablate.design.study import Study, bundled_studies, load_study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.inference.combined import ClaimVerdict, Outcome, claim_verdict, differ, outcome_of
from mnist_ablate.inference.verdicts import Judgement, share_of_alpha
from mnist_ablate.store.results import Results, load

_T = TypeVar("_T")
Role = Literal["decides", "elsewhere", "dose", "beside"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(_Strict):
    """Reference results that are not those of the bundled study of the same name."""

    study: str
    dataset: DatasetName
    title: str


class Place(_Strict):
    """A hypothesis, as ``study/id``, and in a few words the condition it speaks of.

    A former question may have been `asked` otherwise: these fields of the hypothesis had other values.
    """

    hypothesis: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[A-Za-z0-9_.-]+$")]
    where: str
    asked: Mapping[str, Any] = {}

    @property
    def reference(self) -> str:
        """The results that answer it."""
        return self.hypothesis.partition("/")[0]

    @property
    def question(self) -> str:
        """The hypothesis' id, with what of it was asked otherwise."""
        id_ = self.hypothesis.partition("/")[2]
        return f"{id_} {dict(self.asked)}" if self.asked else id_


class Part(_Strict):
    """One part of a claim: the hypothesis that decides on it, the same question under other conditions, and doses.

    A dose is another amount of the treatment. It changes no verdict.
    """

    what: str
    decides: Place
    elsewhere: tuple[Place, ...] = ()
    dose: tuple[Place, ...] = ()


class Former(_Strict):
    """What decided on a claim until first results had been seen, and why another question does now."""

    why: str
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]


class Claim(_Strict):
    """A claim with the hypotheses that answer it.

    Parameters
    ----------
    id, claim
        The notebook's claim, in our own words.
    parts
        What decides on it, in order.
    beside
        Hypotheses that are shown beside it and change no verdict.
    formerly
        What decided until first results had been seen; None where the question is still the same.
    """

    id: str
    claim: str
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    beside: tuple[Place, ...] = ()
    formerly: Former | None = None

    @property
    def before(self) -> "Claim | None":
        """The claim as it was asked until first results had been seen; None where the question is still the same."""
        if self.formerly is None:
            return None
        return self.model_copy(update={"parts": self.formerly.parts, "beside": ()})

    @property
    def places(self) -> Iterator[tuple[Part | None, Role, Place]]:
        """List its hypotheses with the part that they speak of, in order."""
        for part in self.parts:
            yield part, "decides", part.decides
            for place in part.elsewhere:
                yield part, "elsewhere", place
            for place in part.dose:
                yield part, "dose", place
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


def reference_names() -> list[str]:
    """List the studies with reference results: the bundled ones except the gate's, and the special ones."""
    return sorted({*bundled_studies(), *special_references()} - {"gate"})


def hypothesis_of(place: Place) -> Hypothesis:
    """Return the hypothesis of the bundled study that `place` names, as it is asked there.

    Raises
    ------
    StudyError
        If there is no such study.
    ResultsError
        If the study has no such hypothesis.
    """
    known = {h.id: h for h in _bundled(place.reference).hypotheses}
    hypothesis = _found(place.reference, place.hypothesis.partition("/")[2], known)
    return Hypothesis.model_validate(hypothesis.model_dump() | dict(place.asked)) if place.asked else hypothesis


@lru_cache
def _bundled(reference: str) -> Study:
    special = special_references().get(reference)
    return load_study(special.study if special else reference)


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
        One for each hypothesis, in the claim's order.
    strict
        The verdict if all hypotheses of all claims were one family.
    former
        The verdict by what decided formerly; None where nothing changed.
    """

    claim: Claim
    verdict: ClaimVerdict
    findings: tuple[Finding, ...]
    strict: ClaimVerdict
    former: ClaimVerdict | None = None

    @property
    def deciding(self) -> list[Finding]:
        """The findings that the verdict rests on: what stands beside it."""
        parts = [finding for finding in self.findings if finding.role == "decides"]
        wanted: dict[ClaimVerdict, Outcome] = {
            "not run": "not run", "inconclusive": "open", "no verdict": "open", "inconsistent": "open",
        }  # fmt: skip
        if self.verdict == "it depends":
            return [f for f in self.findings if any(f is one for pair in self.differing for one in pair)]
        if self.verdict == "refuted":
            return [finding for finding in parts if finding.judgement and finding.judgement.verdict == "refuted"]
        return [f for f in parts if f.outcome == wanted.get(self.verdict, f.outcome)]

    @property
    def seeds_needed(self) -> int | None:
        """The most seeds that anything it rests on needs to be settled in nine cases out of ten.

        None where for one of them no number is known.
        """
        decide = [*(finding for finding in self.findings if finding.role == "decides"), *self.deciding]
        parts = [finding.judgement for finding in decide if finding.judgement is not None]
        needed = [judgement.seeds_needed.likely for judgement in parts]
        return None if None in needed else max((n for n in needed if n is not None), default=None)

    def where(self, outcome: Outcome, *roles: Role) -> list[Finding]:
        """List the findings with an `outcome`, in some roles."""
        return [f for f in self.findings if f.outcome == outcome and f.role in roles]

    @property
    def differing(self) -> list[tuple[Finding, Finding]]:
        """Pairs of a deciding finding and one elsewhere that contradicts it, and certainly differs from it."""
        return _differing(self.findings)


@dataclass(frozen=True)
class References:
    """The verdicts of all reference results in a folder.

    Parameters
    ----------
    judgements
        By the name of the results, then by the hypothesis' id.
    networks
        The digests of the final weights of all runs, by the name of the results.
    former
        As `judgements`, of what was formerly asked otherwise, by its question.
    """

    judgements: Mapping[str, Mapping[str, Judgement]]
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    former: Mapping[str, Mapping[str, Judgement]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path) -> "References":
        """Judge the results in `folder` that claims name; results that are missing count as not run."""
        names = dict.fromkeys(name for claim in claims() for name in _references_of(claim))
        there = [name for name in names if (Path(folder) / name / "study.json").exists()]
        found = {name: as_declared(name, load(Path(folder) / name)) for name in there}
        networks = {
            name: [str(document.get("weights_sha256", "")) for document in results.documents.values()]
            for name, results in found.items()
        }
        analyses = {name: analyse(results) for name, results in found.items()}
        judged = {name: {one.hypothesis.id: one for one in of.judgements} for name, of in analyses.items()}
        former = {name: judged_formerly(name, of.trained) for name, of in analyses.items() if of.trained}
        return cls(judged, networks, former)

    @property
    def shared(self) -> int:
        """The number of runs whose network is, to the bit, also that of a run of other results."""
        studies = Counter(network for of in self.networks.values() for network in set(of))
        return sum(studies[network] > 1 for of in self.networks.values() for network in of)

    def at_page_level(self) -> "References":
        """Decide again with all hypotheses that claims name as one family, run or not: each at alpha over their number.

        A hypothesis has alpha / m from its study, m being the study's number of hypotheses, so alpha is m times that.
        """
        again = {
            name: {id_: judgement.at(judgement.alpha * len(of) / family_size()) for id_, judgement in of.items()}
            for name, of in self.judgements.items()
        }
        return replace(self, judgements=again)


def judged_formerly(name: str, analysed: Results) -> dict[str, Judgement]:
    """Judge the runs that were analysed by what was asked otherwise until first results had been seen.

    Each question has the share of alpha, and all runs, that today's have: today's say at which look the study stopped.
    """
    befores = [claim.before for claim in claims() if claim.before]
    places = [place for claim in befores for _, _, place in claim.places if place.asked and place.reference == name]
    asked = {place.question: hypothesis_of(place) for place in places}
    alpha = share_of_alpha(analysed.study) * len(asked)
    then = analysed.study.model_copy(update={"hypotheses": tuple(asked.values()), "alpha": alpha})
    return dict(zip(asked, Analysis(replace(analysed, study=then)).judgements, strict=True))


def as_declared(name: str, results: Results) -> Results:
    """Return reference results with the hypotheses that their bundled study has now, which may be others than then."""
    now = _bundled(name)
    laid_down = {"hypotheses": now.hypotheses, "alpha": now.alpha, "cells": now.cells}
    study = results.study.model_copy(update=laid_down)
    return replace(results, study=study)


def family_size() -> int:
    """Count the hypotheses that claims name."""
    return len({place.hypothesis for claim in claims() for _, _, place in claim.places})


def _references_of(claim: Claim) -> list[str]:
    return [place.reference for _, _, place in claim.places]


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
    before = claim.before
    former = _verdict(_findings(before, found)) if before else None
    return ClaimAnswer(claim, _verdict(findings), findings, _verdict(again), former)


def _verdict(findings: Sequence[Finding]) -> ClaimVerdict:
    parts = [finding.judgement for finding in findings if finding.role == "decides"]
    return claim_verdict(parts, depends=bool(_differing(findings)))


def _findings(claim: Claim, found: References) -> tuple[Finding, ...]:
    return tuple(_finding(found, part, role, place) for part, role, place in claim.places)


def _finding(found: References, part: Part | None, role: Role, place: Place) -> Finding:
    hypothesis, judged = hypothesis_of(place), (found.former if place.asked else found.judgements).get(place.reference)
    judgement = None if judged is None else _found(place.reference, place.question, judged)
    outcome = outcome_of(judgement)
    return Finding(place.reference, role, part.what if part else "", place.where, hypothesis, judgement, outcome)


def _differing(findings: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """Pair what decides on a part with what is the other way round elsewhere, and certainly differs."""
    pairs = []
    decided = None
    for finding in findings:
        if finding.role == "decides":
            decided = finding
        elif finding.role == "elsewhere" and decided and _differ(decided, finding):
            pairs.append((decided, finding))
    return pairs


def _differ(here: Finding, there: Finding) -> bool:
    return here.judgement is not None and there.judgement is not None and differ(here.judgement, there.judgement)


def not_run(answers: Iterable[ClaimAnswer]) -> list[str]:
    """List the reference results that claims ask for and that are not there."""
    return list(dict.fromkeys(f.reference for a in answers for f in a.findings if f.outcome == "not run"))


def tally(answers: Iterable[ClaimAnswer]) -> dict[ClaimVerdict, int]:
    """Count the verdicts, the most frequent first."""
    return dict(Counter(answer.verdict for answer in answers).most_common())
