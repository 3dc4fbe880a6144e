"""The answers to the notebook's claims as one self-contained page, as pictures, and as a table in Markdown.

Every number and every choice of words comes from the answers; see `mnist_ablate.claims.judge`.
"""

import math
import re
from collections.abc import Sequence
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
    family_size,
    not_run,
    special_references,
    tally,
)
from mnist_ablate.inference.verdicts import Judgement, Outcome, oriented
from mnist_ablate.plots import JudgedRow
from mnist_ablate.report import verdict_words
from mnist_ablate.report.format import NOTHING, joined, percent
from mnist_ablate.report.page import environment
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import markdown_text
from mnist_ablate.report.verdict_words import BADGES, estimate_text, interval_text, unit
from mnist_ablate.report.words import DATASETS
from mnist_ablate.store.sealed import write_atomically


def write(references: str | Path, out: str | Path) -> Path:
    """Write the answers page.

    Parameters
    ----------
    references
        The folder of reference results, with a folder for each study; any of them may be missing.
    out
        The folder for ``index.html``; the pages of the studies lie in folders below it.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    ResultsError
        If a claim names a hypothesis that the results do not have.
    StorageError
        If there is no space or no permission.
    """
    file = Path(out) / "index.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = References.read(references)
    write_atomically(file, page(answer_all(found), found).encode())
    return file


def page(answers: Sequence[ClaimAnswer], found: References) -> str:
    """Return the page of the answers from what was `found`; its links lead to the pages of the studies below it."""
    content = _content(answers, found) | {"pictures": pictures(answers)}
    return environment().get_template("claims.html").render(**content)


def pictures(answers: Sequence[ClaimAnswer]) -> dict[str, Picture]:
    """Return the picture of each claim of which anything was run, by the claim's id."""
    return {answer.claim.id: drawn for answer in answers if (drawn := _picture(answer))}


def markdown_table(answers: Sequence[ClaimAnswer], pages: str) -> str:
    """Return the claims as a Markdown table, each with what its verdict rests on; `pages` as in `findings`."""
    headings = ["Claim", "Verdict", "Rests on", "Estimate", "Interval that decides", "Seeds", "Seeds needed", "Study"]
    lines = []
    for answer in answers:
        rows = [_row(finding) for finding in answer.deciding]
        names = [(row["reference"], row["run"]) for row in rows]
        links = [f"[{name}]({pages}/{name}/index.html)" if run else name for name, run in names]
        claim = markdown_text(f"{answer.claim.id}: {answer.claim.claim}")
        numbers = ["<br>".join(row[key] for row in rows) for key in ("place", "estimate", "interval", "seeds")]
        verdict = f"**{BADGES[answer.verdict]}**{', provisional' if _provisional(answer) else ''}"
        lines.append([claim, verdict, *numbers, _needed(answer), "<br>".join(links)])
    align = ["left", "left", "left", "right", "right", "right", "right", "left"]
    return tabulate(lines, headings, "pipe", colalign=align, disable_numparse=True)


def guarantees(answers: Sequence[ClaimAnswer], found: References) -> str:
    """Say how often verdicts may be false, which would change if all were one family, and what is not independent."""
    families = len({f.reference for answer in answers for f in answer.findings if f.judgement})
    bound = percent(min(1.0, _FAMILY_ALPHA * families))
    changed = [_stricter(answer) for answer in answers if answer.strict != answer.verdict]
    others = f"these verdicts would be others: {'; '.join(changed)}" if changed else "every verdict would be the same"
    runs, alpha = sum(map(len, found.networks.values())), percent(_FAMILY_ALPHA)
    said = [
        f"In each study the chance that any verdict is false is at most {alpha}.",
        f"There are {families} studies, so the chance that any of all verdicts is false is only known to be at most "
        f"{bound}.",
        f"If all {family_size()} hypotheses were one family with {alpha} for all of them together, {others}.",
        f"Of the {runs:,} runs, {found.shared:,} are in more than one study, as the same network to the bit, so "
        "studies that agree are not independent replications." if found.shared else "",
    ]  # fmt: skip
    return " ".join(filter(None, said))


_FAMILY_ALPHA = 0.05


# ---- The words of the page ----


def _content(answers: Sequence[ClaimAnswer], found: References) -> dict[str, Any]:
    return {
        "title": "What a course notebook claims, and what was measured",
        "tally": "; ".join(f"{n} {BADGES[verdict].lower()}" for verdict, n in tally(answers).items()),
        "claims": [_claim(answer) for answer in answers],
        "missing": not_run(answers),
        "guarantees": guarantees(answers, found),
    }


def _claim(answer: ClaimAnswer) -> dict[str, Any]:
    """Return what the page says about one claim."""
    return {
        "id": answer.claim.id,
        "claim": answer.claim.claim,
        "verdict": answer.verdict,
        "badge": BADGES[answer.verdict],
        "sentence": sentence(answer),
        "elsewhere": elsewhere(answer),
        "parts": [_row(f) for f in answer.findings if f.role == "decides" or any(f is one for one in answer.deciding)],
        "rests_on": [_row(finding) for finding in answer.deciding],
        "needed": _needed(answer),
        "rows": [_row(finding) for finding in answer.findings],
        "sure": sure(answer),
        "provisional": _provisional(answer),
    }


def _provisional(answer: ClaimAnswer) -> list[str]:
    """List why the verdicts on a claim are provisional, with the studies of which that is so."""
    studies: dict[str, list[str]] = {}
    reasons = {f.reference: f.judgement.provisional for f in answer.findings if f.judgement and f.role != "beside"}
    for name, reason in reasons.items():
        studies.setdefault(re.sub(r"^\d+ of the runs", "runs", reason), []).append(name)
    return [f"{joined(names)}: {reason}" for reason, names in studies.items() if reason]


def _needed(answer: ClaimAnswer) -> str:
    return NOTHING if answer.seeds_needed is None else str(answer.seeds_needed)


def _row(finding: Finding) -> dict[str, Any]:
    """Return a finding in the words of a table, and in a sentence."""
    row = {
        "reference": finding.reference, "id": finding.hypothesis.id, "role": finding.role, "where": finding.where,
        "what": finding.what, "statement": _statement(finding), "run": finding.outcome != "not run",
        "place": f"{finding.what}, {finding.where}" if finding.what else finding.where,
    }  # fmt: skip
    unknown = finding.judgement is None or finding.outcome == "not run"
    return row | (_not_run() if unknown or finding.judgement is None else _numbers(finding.judgement))


def _statement(finding: Finding) -> str:
    """Return the statement, with the data set if it is not the study's own."""
    special = special_references().get(finding.reference)
    return finding.hypothesis.statement.rstrip(".") + (f", on {DATASETS[special.dataset]}" if special else "")


def _not_run() -> dict[str, Any]:
    numbers = dict.fromkeys(("estimate", "factor", "interval", "seeds", "needed"), NOTHING)
    return numbers | {"verdict": "not run", "badge": BADGES["not run"]}


def _numbers(judgement: Judgement) -> dict[str, Any]:
    needed = judgement.seeds_needed.likely
    return {
        "estimate": estimate_text(judgement),
        "factor": _factor(judgement),
        "interval": interval_text(judgement),
        "seeds": str(judgement.sample.n),
        "needed": NOTHING if needed is None else str(needed),
        "verdict": judgement.verdict,
        "badge": BADGES[judgement.verdict],
        "sentence": verdict_words.answer(judgement).sentence,
    }


def _factor(judgement: Judgement) -> str:
    """Write a difference of logarithms as a factor; empty for other units."""
    return f"a factor of {math.exp(judgement.sample.mean):.2f}" if unit(judgement) == "log ratio" else ""


def sentence(answer: ClaimAnswer) -> str:
    """Describe in a sentence or two what the verdict means; empty where the sentence of the only part says it all."""
    alone = len(answer.claim.parts) == 1
    match answer.verdict:
        case "not run":
            missing = dict.fromkeys(f.reference for f in answer.where("not run", "decides"))
            return f"Not measured yet, in {joined(missing)}: {_whats(answer, 'not run')}. So there is no answer."
        case "it depends":
            return " ".join(_contrasted(answer))
        case "in part":
            holds, fails = (_whats(answer, outcome) for outcome in ("holds", "does not hold"))
            unsettled = _whats(answer, "open")
            return f"It holds for {holds}, but not for {fails}{f'; open is {unsettled}' if unsettled else ''}."
        case "inconclusive" | "no verdict" | "inconsistent":
            return f"Open: {_whats(answer, 'open')}."
        case _ if alone:
            return ""
        case "refuted":
            return "No: nothing that decides it holds, and part of it is the other way round."
        case "negligible":
            return "No: what was measured is too small to matter."
        case "supported, size open":
            return "Yes, but the size of the effect is open."
    return "Yes: everything that decides it holds."


def _whats(answer: ClaimAnswer, outcome: Outcome) -> str:
    return joined(finding.what for finding in answer.where(outcome, "decides"))


def _places(findings: Sequence[Finding]) -> str:
    return joined(finding.where for finding in findings)


def _contrasted(answer: ClaimAnswer) -> list[str]:
    """Describe where a part holds and where it does not, for each part that is the other way round somewhere."""
    sentences = []
    for decided in (finding for finding in answer.findings if finding.role == "decides"):
        others = [there for here, there in answer.differing if here is decided]
        holds, fails = ([decided], others) if decided.outcome == "holds" else (others, [decided])
        if others:
            said = f"it holds {_places(holds)}; it does not hold {_places(fails)}"
            sentences.append(f"{_capital(decided.what)}: {said}, and the difference is more than chance.")
    return sentences


def elsewhere(answer: ClaimAnswer) -> str:
    """Describe what other conditions and other doses gave, part by part; empty if the claim has none."""
    said = []
    for decided in (finding for finding in answer.findings if finding.role == "decides"):
        for role, start in (("elsewhere", "Elsewhere"), ("dose", "Other doses")):
            told = [there for _, there in answer.differing]  # in the verdict's sentence
            rest = [f for f in answer.findings if f.role == role and f.what == decided.what and f not in told]
            parts = [part for outcome in _VERBS if (part := _of_outcome(outcome, decided, rest))]
            said += [f"{start}, {decided.what}: {'; '.join(parts)}."] if parts else []
    return " ".join(said)


def _of_outcome(outcome: Outcome, decided: Finding, findings: Sequence[Finding]) -> str:
    """Name the places with an outcome; one that contradicts what decides, without proof of a difference, says so."""
    mine = [finding for finding in findings if finding.outcome == outcome]
    if not mine:
        return ""
    opposed = {outcome, decided.outcome} == {"holds", "does not hold"} and mine[0].role == "elsewhere"
    return f"{_VERBS[outcome]} {_places(mine)}{', a difference that may be chance' if opposed else ''}"


_VERBS: dict[Outcome, str] = {"holds": "it holds", "does not hold": "it does not hold", "open": "it is open",
                              "not run": "it is not measured yet"}  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sure(answer: ClaimAnswer) -> str:
    """Describe how many seeds what the verdict rests on has, and how many its parts need."""
    seeds = sorted({f.judgement.sample.n for f in answer.deciding if f.judgement and f.outcome != "not run"})
    if not seeds:
        return ""
    needed = "" if answer.seeds_needed is None else f"; {answer.seeds_needed} would settle most questions like these"
    return f"{joined(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}{needed}."


def _stricter(answer: ClaimAnswer) -> str:
    return f"{answer.claim.id} ({BADGES[answer.verdict].lower()}) would be '{BADGES[answer.strict].lower()}'"


# ---- Pictures ----


def _picture(answer: ClaimAnswer) -> Picture | None:
    """Draw all hypotheses on a claim; None if none was run."""
    if all(finding.outcome == "not run" for finding in answer.findings):
        return None
    rows = [_judged_row(finding) for finding in answer.findings]
    return picture(partial(plots.judged, rows), _alt(answer))


def _judged_row(finding: Finding) -> JudgedRow:
    judgement, hypothesis = finding.judgement, finding.hypothesis
    heading, negligible = finding.what or "beside it", hypothesis.kind == "negligible"
    if judgement is None or finding.outcome == "not run":
        return JudgedRow(heading, finding.where, finding.role == "decides", math.nan, math.nan, math.nan, negligible,
                         BADGES["not run"].lower())  # fmt: skip
    low, high = oriented((judgement.low, judgement.high), hypothesis.kind)
    low, high = (low, high) if low <= high else (math.nan, math.nan)  # an empty one cannot be drawn
    mean = -judgement.sample.mean if hypothesis.kind == "decrease" else judgement.sample.mean
    estimate, low, high = (value / hypothesis.smallest for value in (mean, low, high))
    return JudgedRow(heading, finding.where, finding.role == "decides", estimate, low, high, negligible,
                     estimate_text(judgement))  # fmt: skip


def _alt(answer: ClaimAnswer) -> str:
    parts = []
    for finding in answer.findings:
        row = _row(finding)
        what = f"{finding.what}, {finding.where}" if finding.what else finding.where
        measured = f"{row['estimate']}, interval {row['interval']}" if row["run"] else BADGES["not run"].lower()
        parts.append(f"{what}: {measured}")
    return f"Plot of the estimates on claim {answer.claim.id} with their intervals. {'; '.join(parts)}."
