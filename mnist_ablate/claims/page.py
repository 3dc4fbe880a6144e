"""The answers to the notebook's claims as one self-contained page, as pictures, and as a table in Markdown.

Every number and every choice of words comes from the answers; see `mnist_ablate.claims.judge`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mnist_ablate import plots
from mnist_ablate.claims.judge import (
    ClaimAnswer,
    Finding,
    References,
    answer_all,
    as_declared,
    family_size,
    not_run,
    reference_names,
    special_references,
    tally,
)
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.combined import Outcome
from mnist_ablate.inference.verdicts import Judgement
from mnist_ablate.language import ENGLISH, Language, at_start, count, find, mark_as, say, speaking, told, told_as, whole
from mnist_ablate.plots import JudgedRow
from mnist_ablate.report import page as study_page
from mnist_ablate.report import verdict_words
from mnist_ablate.report.format import NOTHING, joined, percent
from mnist_ablate.report.page import environment
from mnist_ablate.report.sections.answers import judged_row
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import markdown_text
from mnist_ablate.report.verdict_words import badge, counted, estimate_text, interval_text
from mnist_ablate.report.words import DATASETS
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import write_atomically


def write_all(
    references: str | Path, out: str | Path, *, studies: Iterable[str] | None = None, lang: str = ENGLISH
) -> Path:
    """Write the pages of studies, and above them the answers page, whose links lead there.

    Parameters
    ----------
    references
        The folder of reference results, with a folder for each study.
    out
        The folder for the answers page.
    studies
        The names of the studies whose pages are written, if they have results; by default all.
    lang
        The language of the pages: ``"en"`` or ``"es"``.

    Returns
    -------
    pathlib.Path
        The answers page.

    Raises
    ------
    LanguageError, ResultsError, StorageError
        As `write`; and if no study has results there.
    """
    language = find(lang)
    there = [name for name in studies or reference_names() if (Path(references) / name / "study.json").exists()]
    if not there:
        raise ResultsError(
            f"{references}: has no reference results. Give a folder that has a folder for each study, such as "
            "results/reference in a checkout."
        )
    for name in there:
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        analysis = analyse(as_declared(name, load(Path(references) / name)))
        write_atomically(folder / "index.html", study_page.page(analysis, lang=language).encode())
    return write(references, out, lang=lang)


def write(references: str | Path, out: str | Path, *, lang: str = ENGLISH) -> Path:
    """Write the answers page.

    Parameters
    ----------
    references
        The folder of reference results, with a folder for each study; any of them may be missing.
    out
        The folder for ``index.html``; the pages of the studies lie in folders below it.
    lang
        The language of the page: ``"en"`` or ``"es"``.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    LanguageError
        If there is no such language.
    ResultsError
        If a claim names a hypothesis that the results do not have.
    StorageError
        If there is no space or no permission.
    """
    language = find(lang)
    file = Path(out) / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = References.read(references)
    html = page(answer_all(found), found, folder=Path(references).as_posix(), lang=language)
    write_atomically(file, html.encode())
    return file


def page(
    answers: Sequence[ClaimAnswer],
    found: References,
    *,
    folder: str = "results/reference",
    lang: str | Language = ENGLISH,
) -> str:
    """Return the page of the answers from what was `found` in `folder`; its links lead to the pages below it."""
    with speaking(lang):
        content = _content(answers, found) | {"pictures": pictures(answers), "folder": f"{folder}/"}
        return environment().get_template("claims.html").render(**content)


def pictures(answers: Sequence[ClaimAnswer]) -> dict[str, Picture]:
    """Return the picture of each claim of which anything was run, by the claim's id."""
    return {answer.claim.id: drawn for answer in answers if (drawn := _picture(answer))}


def markdown_table(answers: Sequence[ClaimAnswer], pages: str) -> str:
    """Return the claims as a Markdown table, each with what its verdict rests on; `pages` is their pages' folder."""
    headings = ["Claim", "Verdict", "Rests on", "Estimate", "Interval that decides", "Seeds", "Seeds needed", "Study"]
    lines = []
    for answer in answers:
        rows = [_row(finding) for finding in answer.deciding]
        names = [(row["reference"], row["run"]) for row in rows]
        links = [f"[{name}]({pages}/{name}/index.html)" if run else name for name, run in names]
        claim = markdown_text(f"{answer.claim.id}: {answer.claim.claim}")
        numbers = ["<br>".join(row[key] for row in rows) for key in ("place", "estimate", "interval", "seeds")]
        verdict = f"**{badge(answer.verdict)}**{', provisional' if provisional(answer) else ''}"
        lines.append([claim, verdict, *numbers, _needed(answer), "<br>".join(links)])
    align = ["left", "left", "left", "right", "right", "right", "right", "left"]
    return tabulate(lines, headings, "pipe", colalign=align, disable_numparse=True)


def guarantees(answers: Sequence[ClaimAnswer], found: References, *, brief: bool = False) -> str:
    """Say how often verdicts may be false, and which questions were changed after first results.

    Unless `brief`, also which verdicts would be others, if all were one family and by the former questions, and what is
    not independent.
    """
    families = len({f.reference for answer in answers for f in answer.findings if f.judgement})
    changed = [_stricter(answer) for answer in answers if answer.strict != answer.verdict]
    words = {"alpha": percent(_FAMILY_ALPHA), "bound": percent(min(1.0, _FAMILY_ALPHA * families)),
             "studies": families, "family": family_size(), "others": "; ".join(changed)}  # fmt: skip
    said = [
        say(
            "In each study the chance that any verdict is false is at most {alpha}, where differences between seeds "
            "are not far from Gaussian.",
            **words,
        ),
        say(
            "Added up over {studies} studies, the chance that at least one verdict is false is at most {bound}; it may "
            "be much smaller.",
            **words,
        ),
    ]
    reasked = [(answer, answer.former) for answer in answers if answer.former and answer.former != "not run"]
    if reasked:
        said.append(say(
            "After first results had been seen, the questions on {claims} were changed, and what decides them was run "
            "again with other seeds. So these verdicts rest on new runs, but on the same test images.",
            claims=_changed([a.claim.id for a in answers], [answer.claim.id for answer, _ in reasked]),
        ))  # fmt: skip
    if brief:
        return " ".join(said)
    if changed:
        said.append(say(
            "If all {family} hypotheses were one family with {alpha} for all of them together, these verdicts would be "
            "others: {others}.",
            **words,
        ))  # fmt: skip
    else:
        said.append(say(
            "If all {family} hypotheses were one family with {alpha} for all of them together, every verdict would be "
            "the same.",
            **words,
        ))  # fmt: skip
    others = [
        say("{claim} '{verdict}'", claim=answer.claim.id, verdict=badge(former).lower())
        for answer, former in reasked
        if former != answer.verdict
    ]
    if others:
        said.append(say(
            "By the former questions these verdicts would be others: {others}.",
            others="; ".join(others),
        ))  # fmt: skip
    if found.shared:
        said.append(say(
            "Of the {runs} runs, {shared} are in more than one study, as the same network to the bit, so studies that "
            "agree are not independent replications.",
            runs=whole(sum(map(len, found.networks.values()))), shared=whole(found.shared),
        ))  # fmt: skip
    return " ".join(said)


_FAMILY_ALPHA = 0.05


def _changed(claims: Sequence[str], changed: Sequence[str]) -> str:
    """Name the claims whose questions were changed, or those few whose questions were not."""
    same = [claim for claim in claims if claim not in changed]
    if same and len(same) < len(changed):
        return say("all claims but {claims}", claims=joined(same))
    return joined(changed)


# ---- The words of the page ----


def _content(answers: Sequence[ClaimAnswer], found: References) -> dict[str, Any]:
    return {
        "title": say("What a course notebook claims, and what was measured"),
        "tally": "; ".join(counted(verdict, n) for verdict, n in tally(answers).items()),
        "claims": [_claim(answer) for answer in answers],
        "found": verdict_words.found([(answer.verdict, answer.claim.id, _title(answer)) for answer in answers]),
        "missing": not_run(answers),
        "guarantees": guarantees(answers, found),
    }


def _title(answer: ClaimAnswer) -> str:
    title = f"{answer.claim.id}: {told(answer.claim.claim)}"
    return say("{claim} (provisional)", claim=title) if provisional(answer) else title


def _claim(answer: ClaimAnswer) -> dict[str, Any]:
    """Return what the page says about one claim."""
    return {
        "id": answer.claim.id,
        "claim": told(answer.claim.claim),
        "verdict": answer.verdict,
        "badge": badge(answer.verdict),
        "sentence": sentence(answer),
        "elsewhere": elsewhere(answer),
        "formerly": formerly(answer),
        "parts": [_row(f) for f in answer.findings if f.role == "decides" or any(f is one for one in answer.deciding)],
        "rests_on": [_row(finding) for finding in answer.deciding],
        "needed": _needed(answer),
        "rows": [_row(finding) for finding in answer.findings],
        "sure": sure(answer),
        "provisional": provisional(answer),
    }


def provisional(answer: ClaimAnswer) -> list[str]:
    """List why the verdicts on a claim are provisional, with the studies of which that is so."""
    studies: dict[str, list[str]] = {}
    roles = ("decides", "elsewhere")
    reasons = {f.reference: f.judgement.provisional for f in answer.findings if f.judgement and f.role in roles}
    for name, reason in reasons.items():
        changed = re.match(r"\d+ of the runs were made before the hypotheses became what they are now$", reason)
        common = say("runs were made before the hypotheses became what they are now") if changed else told(reason)
        studies.setdefault(common, []).append(name)
    return [f"{joined(names)}: {reason}" for reason, names in studies.items() if reason]


def _needed(answer: ClaimAnswer) -> str:
    return NOTHING if answer.seeds_needed is None else str(answer.seeds_needed)


ROLES = (mark_as("role", "decides"), mark_as("role", "elsewhere"), mark_as("role", "dose"), mark_as("role", "beside"))


def _row(finding: Finding) -> dict[str, Any]:
    """Return a finding in the words of a table, and in a sentence."""
    row = {
        "reference": finding.reference, "id": finding.hypothesis.id, "role": finding.role,
        "role_name": told_as("role", finding.role), "where": told(finding.where), "what": told(finding.what),
        "statement": _statement(finding), "run": finding.outcome != "not run", "place": _place(finding),
    }  # fmt: skip
    unknown = finding.judgement is None or finding.outcome == "not run"
    return row | (_not_run() if unknown or finding.judgement is None else _numbers(finding.judgement))


def _place(finding: Finding) -> str:
    return f"{told(finding.what)}, {told(finding.where)}" if finding.what else told(finding.where)


def _statement(finding: Finding) -> str:
    """Return the statement, with the data set if it is not the study's own."""
    special, statement = special_references().get(finding.reference), told(finding.hypothesis.statement).rstrip(".")
    if special is None:
        return statement
    return say("{statement}, on {dataset}", statement=statement, dataset=DATASETS[special.dataset])


def _not_run() -> dict[str, Any]:
    numbers = dict.fromkeys(("estimate", "interval", "seeds", "needed"), NOTHING)
    return numbers | {"verdict": "not run", "badge": badge("not run")}


def _numbers(judgement: Judgement) -> dict[str, Any]:
    needed = judgement.seeds_needed.likely
    return {
        "estimate": estimate_text(judgement),
        "interval": interval_text(judgement),
        "seeds": str(judgement.sample.n),
        "needed": NOTHING if needed is None else str(needed),
        "verdict": judgement.verdict,
        "badge": badge(judgement.verdict),
        "sentence": verdict_words.answer(judgement).sentence,
    }


def sentence(answer: ClaimAnswer) -> str:
    """Describe in a sentence or two what the verdict means; empty where the sentence of the only part says it all."""
    alone = len(answer.claim.parts) == 1
    match answer.verdict:
        case "not run":
            missing = dict.fromkeys(f.reference for f in answer.where("not run", "decides"))
            return say(
                "Not measured yet, in {studies}: {parts}. So there is no answer.",
                studies=joined(missing), parts=_whats(answer, "not run"),
            )  # fmt: skip
        case "it depends":
            return " ".join(_contrasted(answer))
        case "in part":
            holds, fails, unsettled = (_whats(answer, outcome) for outcome in ("holds", "does not hold", "open"))
            if unsettled:
                return say(
                    "It holds for {holds}, but not for {fails}; open is {unsettled}.",
                    holds=holds, fails=fails, unsettled=unsettled,
                )  # fmt: skip
            return say("It holds for {holds}, but not for {fails}.", holds=holds, fails=fails)
        case "inconclusive" | "no verdict" | "inconsistent":
            return say("Open: {parts}.", parts=_whats(answer, "open"))
        case _ if alone:
            return ""
        case "refuted":
            return say("No: nothing that decides it holds, and part of it is the other way round.")
        case "negligible":
            return say("No: what was measured is too small to matter.")
        case "supported, size open":
            return say("Yes, but the size of the effect is open.")
    return say("Yes: everything that decides it holds.")


def _whats(answer: ClaimAnswer, outcome: Outcome) -> str:
    return joined(told(finding.what) for finding in answer.where(outcome, "decides"))


def _places(findings: Sequence[Finding]) -> str:
    return joined(told(finding.where) for finding in findings)


def _contrasted(answer: ClaimAnswer) -> list[str]:
    """Describe where a part holds and where it does not, for each part that is the other way round somewhere."""
    sentences = []
    for decided in (finding for finding in answer.findings if finding.role == "decides"):
        others = [there for here, there in answer.differing if here is decided]
        holds, fails = ([decided], others) if decided.outcome == "holds" else (others, [decided])
        if others:
            sentences.append(say(
                "{part}: it holds {holds}; it does not hold {fails}, and the difference is more than chance.",
                part=at_start(told(decided.what)), holds=_places(holds), fails=_places(fails),
            ))  # fmt: skip
    return sentences


def elsewhere(answer: ClaimAnswer) -> str:
    """Describe what other conditions and other doses gave, part by part; empty if the claim has none."""
    told_already = [there for _, there in answer.differing]  # in the verdict's sentence
    said = []
    for decided in (finding for finding in answer.findings if finding.role == "decides"):
        part = told(decided.what)
        for role in ("elsewhere", "dose"):
            rest = [f for f in answer.findings if f.role == role and f.what == decided.what and f not in told_already]
            found = "; ".join(filter(None, (_of_outcome(outcome, decided, rest) for outcome in _OUTCOMES)))
            if found and role == "elsewhere":
                said.append(say("Elsewhere, {part}: {found}.", part=part, found=found))
            elif found:
                said.append(say("Other doses, {part}: {found}.", part=part, found=found))
    return " ".join(said)


def formerly(answer: ClaimAnswer) -> str:
    """Describe what decided until first results had been seen, and the verdict by it; empty if nothing changed."""
    former, verdict = answer.claim.formerly, answer.former
    if former is None or verdict in (None, "not run"):
        return ""
    words = {
        "parts": "; ".join(f"{told(part.what)}, {told(part.decides.where)}" for part in former.parts),
        "why": told(former.why), "verdict": badge(verdict).lower(),
    }  # fmt: skip
    if verdict == answer.verdict:
        return say(
            "Before first results were seen, this decided: {parts}. By it the verdict would be the same. {why}", **words
        )
    return say(
        "Before first results were seen, this decided: {parts}. By it the verdict would be '{verdict}'. {why}", **words
    )


_OUTCOMES: tuple[Outcome, ...] = ("holds", "does not hold", "open", "not run")


def _of_outcome(outcome: Outcome, decided: Finding, findings: Sequence[Finding]) -> str:
    """Name the places with an outcome; one that contradicts what decides, without proof of a difference, says so."""
    mine = [finding for finding in findings if finding.outcome == outcome]
    if not mine:
        return ""
    opposed, places = {outcome, decided.outcome} == {"holds", "does not hold"}, _places(mine)
    chance = opposed and mine[0].role == "elsewhere"
    verdicts = {f.judgement.verdict for f in mine if f.judgement and f.hypothesis.kind != "negligible"}
    contrary = verdicts == {"refuted"}
    match outcome:
        case "holds" if chance:
            return say("it holds {places}, a difference that may be chance", places=places)
        case "holds":
            return say("it holds {places}", places=places)
        case "does not hold" if chance and contrary:
            return say("it is the other way round {places}, a difference that may be chance", places=places)
        case "does not hold" if chance:
            return say("it does not hold {places}, a difference that may be chance", places=places)
        case "does not hold" if contrary:
            return say("it is the other way round {places}", places=places)
        case "does not hold":
            return say("it does not hold {places}", places=places)
        case "open":
            return say("it is open {places}", places=places)
    return say("it is not measured yet {places}", places=places)


def sure(answer: ClaimAnswer) -> str:
    """Describe how many seeds what the verdict rests on has, and how many its parts need."""
    numbers = sorted({f.judgement.sample.n for f in answer.deciding if f.judgement and f.outcome != "not run"})
    if not numbers:
        return ""
    seeds = count(numbers[-1], "{seeds} seed", "{seeds} seeds", seeds=joined(map(str, numbers)))
    if answer.seeds_needed is None:
        return f"{seeds}."
    return say("{seeds}; {needed} would settle most questions like these.", seeds=seeds, needed=answer.seeds_needed)


def _stricter(answer: ClaimAnswer) -> str:
    return say(
        "{claim} ({verdict}) would be '{stricter}'",
        claim=answer.claim.id, verdict=badge(answer.verdict).lower(), stricter=badge(answer.strict).lower(),
    )  # fmt: skip


# ---- Pictures ----


def _picture(answer: ClaimAnswer) -> Picture | None:
    """Draw all hypotheses on a claim; None if none was run."""
    if all(finding.outcome == "not run" for finding in answer.findings):
        return None
    rows = [_judged_row(finding) for finding in answer.findings]
    return picture(partial(plots.judged, rows), _alt(answer))


def _judged_row(finding: Finding) -> JudgedRow:
    heading, where = told(finding.what) or say("beside it"), told(finding.where)
    decides = finding.role == "decides"
    if finding.judgement is None or finding.outcome == "not run":
        negligible = finding.hypothesis.kind == "negligible"
        return JudgedRow(heading, where, decides, math.nan, math.nan, math.nan, negligible, badge("not run").lower())
    return judged_row(finding.judgement, heading, where, decides=decides)


def _alt(answer: ClaimAnswer) -> str:
    parts = []
    for finding in answer.findings:
        row = _row(finding)
        if row["run"]:
            words = {"place": row["place"], "estimate": row["estimate"], "interval": row["interval"]}
            parts.append(say("{place}: {estimate}, interval {interval}", **words))
        else:
            parts.append(f"{row['place']}: {badge('not run').lower()}")
    return say(
        "Plot of the estimates on claim {claim} with their intervals. {estimates}.",
        claim=answer.claim.id, estimates="; ".join(parts),
    )  # fmt: skip
