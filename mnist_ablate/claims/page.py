"""The answers to the notebook's claims as one self-contained page, as a table in Markdown, and as an article.

Every number and every choice of words comes from the answers; see `mnist_ablate.claims.judge`.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mnist_ablate import plots
from mnist_ablate.claims.judge import (
    ClaimAnswer,
    Finding,
    Outcome,
    References,
    answer_all,
    everywhere_error,
    family_size,
    not_run,
    special_references,
    tally,
)
from mnist_ablate.inference.verdicts import Judgement, oriented
from mnist_ablate.plots import JudgedRow
from mnist_ablate.report import verdict_words
from mnist_ablate.report.format import NOTHING, joined, percent, plural
from mnist_ablate.report.page import environment
from mnist_ablate.report.svg import Picture, picture
from mnist_ablate.report.tables import markdown_text
from mnist_ablate.report.verdict_words import BADGES, deciding, estimate_text, interval_text, unit
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
    write_atomically(file, page(answer_all(References.read(references))).encode())
    return file


def page(answers: Sequence[ClaimAnswer]) -> str:
    """Return the page; its links lead to the pages of the studies below it."""
    pictures = {answer.claim.id: drawn for answer in answers if (drawn := _picture(answer))}
    return environment().get_template("claims.html").render(**_content(answers), pictures=pictures)


def findings(answers: Sequence[ClaimAnswer], pages: str) -> str:
    """Return the article in Markdown; `pages` is the path to the folder of the pages."""
    return environment().get_template("findings.md").render(**_content(answers), pages=pages)


def markdown_table(answers: Sequence[ClaimAnswer], pages: str) -> str:
    """Return the claims with verdict, estimate and seeds as a Markdown table; `pages` as in `findings`."""
    headings = ["Claim", "Verdict", "Estimate", "Interval that decides", "Seeds", "Seeds needed", "Study"]
    lines = []
    for answer in answers:
        row = _row(answer.headline)
        name = answer.headline.reference
        link = f"[{name}]({pages}/{name}/index.html)" if row["run"] else name
        claim = markdown_text(f"{answer.claim.id}: {answer.claim.claim}")
        numbers = [row[key] for key in ("estimate", "interval", "seeds", "needed")]
        lines.append([claim, f"**{BADGES[answer.verdict]}**", *numbers, link])
    align = ["left", "left", "right", "right", "right", "right", "left"]
    return tabulate(lines, headings, "pipe", colalign=align, disable_numparse=True)


# ---- The words of page and article ----


def _content(answers: Sequence[ClaimAnswer]) -> dict[str, Any]:
    return {
        "title": "What a course notebook claims, and what was measured",
        "tally": "; ".join(f"{n} {BADGES[verdict].lower()}" for verdict, n in tally(answers).items()),
        "claims": [_claim(answer) for answer in answers],
        "missing": not_run(answers),
        "family": family_size(),
        "alpha": percent(0.05),
        "everywhere": _everywhere(answers),
        "stricter": [_stricter(answer) for answer in answers if answer.strict != answer.verdict],
    }


def _claim(answer: ClaimAnswer) -> dict[str, Any]:
    """Return what page and article say about one claim."""
    return {
        "id": answer.claim.id,
        "claim": answer.claim.claim,
        "verdict": answer.verdict,
        "badge": BADGES[answer.verdict],
        "sentence": sentence(answer),
        "elsewhere": elsewhere(answer),
        "deciding": [_row(finding) for finding in answer.findings if finding.role == "decides"],
        "headline": _row(answer.headline),
        "rows": [_row(finding) for finding in answer.findings],
        "sure": sure(answer),
        "provisional": sorted({f.judgement.provisional for f in answer.findings if f.judgement} - {""}),
    }


def _row(finding: Finding) -> dict[str, Any]:
    """Return a finding in the words of a table, and in a sentence."""
    row = {
        "reference": finding.reference, "id": finding.hypothesis.id, "role": finding.role, "where": finding.where,
        "what": finding.what, "statement": _statement(finding), "run": finding.judgement is not None,
    }  # fmt: skip
    return row | (_not_run() if finding.judgement is None else _numbers(finding.judgement))


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
    return f"a factor of {math.exp(judgement.sample.mean):.2f}" if unit(judgement.hypothesis) == "log ratio" else ""


def sentence(answer: ClaimAnswer) -> str:
    """Describe in a sentence or two what the verdict means; empty where the sentence of the only part says it all."""
    if len(answer.claim.parts) == 1 and answer.verdict in (
        "supported",
        "supported, size open",
        "negligible",
        "refuted",
    ):
        return ""
    match answer.verdict:
        case "not run":
            missing = dict.fromkeys(f.reference for f in answer.where("not run", "decides"))
            return f"{_studies(list(missing))} not run yet, so there is no answer."
        case "it depends":
            return " ".join(_contrasted(answer))
        case "in part":
            holds, fails = (_whats(answer, outcome) for outcome in ("holds", "does not hold"))
            return f"It holds for {holds}, but not for {fails}."
        case "inconclusive":
            return f"Open: {_open(answer)}."
        case "refuted" if answer.claim.rule == "everywhere":
            return f"No: worse {_places(answer.where('does not hold', 'decides'))}."
        case "supported" if answer.claim.rule == "everywhere":
            return "Yes: better in at least one place, and nowhere worse by an amount that matters."
        case "refuted":
            return "No: nothing that decides it holds, and part of it is the other way round."
        case "negligible":
            return "No: what was measured is too small to matter."
        case "supported, size open":
            return "Yes, but the size of the effect is open."
    return "Yes: everything that decides it holds."


def _studies(names: Sequence[str]) -> str:
    return f"The stud{'y' if len(names) == 1 else 'ies'} {joined(names)} {'is' if len(names) == 1 else 'are'}"


def _whats(answer: ClaimAnswer, outcome: Outcome) -> str:
    return joined(finding.what for finding in answer.where(outcome, "decides"))


def _open(answer: ClaimAnswer) -> str:
    """Name the parts that are open, or the places where one thing was asked everywhere."""
    places = _places(answer.where("open", "decides"))
    return (places or "better nowhere") if answer.claim.rule == "everywhere" else _whats(answer, "open")


def _places(findings: Sequence[Finding]) -> str:
    return joined(finding.where for finding in findings)


def _contrasted(answer: ClaimAnswer) -> list[str]:
    """Describe where a part holds and where it does not, for each part that is the other way round somewhere."""
    sentences = []
    for what in dict.fromkeys(decided.what for decided, _ in answer.differing):
        holds, fails = (
            [f.where for f in answer.where(outcome, "decides", "elsewhere") if f.what == what]
            for outcome in ("holds", "does not hold")
        )
        sentences.append(f"{_capital(what)}: it holds {joined(holds)}; it does not hold {joined(fails)}.")
    return sentences


def elsewhere(answer: ClaimAnswer) -> str:
    """Describe what other conditions gave, part by part; empty if the claim has none."""
    whats = dict.fromkeys(finding.what for finding in answer.findings if finding.role == "elsewhere")
    return " ".join(filter(None, (_elsewhere(answer, what) for what in whats)))


def _elsewhere(answer: ClaimAnswer, what: str) -> str:
    outcomes = {outcome: [f for f in answer.where(outcome, "elsewhere") if f.what == what] for outcome in _VERBS}
    if what in {decided.what for decided, _ in answer.differing}:  # the verdict's sentence has said it
        outcomes["holds"], outcomes["does not hold"] = [], []
    parts = [f"{verb} {_places(outcomes[outcome])}" for outcome, verb in _VERBS.items() if outcomes[outcome]]
    missing = sum(finding.what == what for finding in answer.where("not run", "elsewhere"))
    if missing:
        parts.append(f"{plural(missing, 'other condition')} not run yet")
    return f"Elsewhere, {what}: {'; '.join(parts)}." if parts else ""


_VERBS: dict[Outcome, str] = {"holds": "it holds", "does not hold": "it does not hold", "open": "it is open"}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def sure(answer: ClaimAnswer) -> str:
    """Describe how many seeds the headline has, and how many it needs."""
    judgement = answer.headline.judgement
    if judgement is None:
        return ""
    row = _row(answer.headline)
    needed = "" if row["needed"] == NOTHING else f"; {row['needed']} would settle most questions like this one"
    return f"{plural(judgement.sample.n, 'seed')}{needed}."


def _stricter(answer: ClaimAnswer) -> str:
    return f"{answer.claim.id} ({BADGES[answer.verdict].lower()}) would be '{BADGES[answer.strict].lower()}'"


def _everywhere(answers: Sequence[ClaimAnswer]) -> list[dict[str, str]]:
    """Return the claims that ask one thing of several studies, with the highest chance of a false verdict on each."""
    everywhere = [answer for answer in answers if answer.claim.rule == "everywhere" and answer.verdict != "not run"]
    return [{"id": answer.claim.id, "error": percent(everywhere_error(answer))} for answer in everywhere]


# ---- Pictures ----


def _picture(answer: ClaimAnswer) -> Picture | None:
    """Draw all hypotheses on a claim; None if none was run."""
    if all(finding.judgement is None for finding in answer.findings):
        return None
    rows = [_judged_row(finding) for finding in answer.findings]
    return picture(partial(plots.judged, rows), _alt(answer))


def _judged_row(finding: Finding) -> JudgedRow:
    judgement, hypothesis = finding.judgement, finding.hypothesis
    heading, negligible = finding.what or "beside it", hypothesis.kind == "negligible"
    if judgement is None:
        return JudgedRow(heading, finding.where, finding.role == "decides", math.nan, math.nan, math.nan, negligible,
                         BADGES["not run"].lower())  # fmt: skip
    low, high = oriented(deciding(judgement)[:2], hypothesis.kind)
    mean = -judgement.sample.mean if hypothesis.kind == "decrease" else judgement.sample.mean
    estimate, low, high = (value / hypothesis.smallest for value in (mean, low, high))
    return JudgedRow(heading, finding.where, finding.role == "decides", estimate, low, high, negligible,
                     estimate_text(judgement))  # fmt: skip


def _alt(answer: ClaimAnswer) -> str:
    parts = []
    for finding in answer.findings:
        row = _row(finding)
        what = f"{finding.what}, {finding.where}" if finding.what else finding.where
        parts.append(f"{what}: {row['estimate']}, interval {row['interval']}" if row["run"] else f"{what}: not run yet")
    return f"Plot of the estimates on claim {answer.claim.id} with their intervals. {'; '.join(parts)}."
