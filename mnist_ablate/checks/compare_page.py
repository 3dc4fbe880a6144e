"""A comparison of two results folders in words: for the terminal, as ``compare.md`` and as ``compare.html``."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mnist_ablate.checks.compare import ALPHA, MEAN, Comparison, Finding, Outcome
from mnist_ablate.design.settings import in_words
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.language import (
    ENGLISH,
    at_start,
    count,
    figures,
    find,
    folder_of,
    mark_as,
    say,
    speaking,
    told,
    told_as,
)
from mnist_ablate.paths import user_path
from mnist_ablate.report.format import MINUS, NOTHING, interval, number, percent, plural
from mnist_ablate.report.page import environment
from mnist_ablate.report.tables import Table
from mnist_ablate.store.sealed import write_atomically

OUT = Path("reports/compare")
"""Default folder of the page in English; those in other languages are in folders below it."""
_DIGITS = 2  # more than a response is usually shown with: the differences are small
OUTCOMES = (
    mark_as("comparison", "bit-identical"), mark_as("comparison", "equivalent"), mark_as("comparison", "different"),
    mark_as("comparison", "too little to tell"), mark_as("comparison", "defect"),
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """The files of a comparison."""

    html: Path
    markdown: Path


# ---- In a sentence ----


def sentence(comparison: Comparison) -> str:
    """Return the verdict with what one needs to act on it, in one or two sentences."""
    runs = plural(sum(cell.seeds for cell in comparison.bits), "run")
    if comparison.defects:
        example = next(cell for cell in comparison.bits if cell.defects)
        return say(
            "Defect: bits differ in {defects} of {runs}, although the engine fused computes the same bits on every "
            "machine, with all versions. That is not chance: the arithmetic or a machine is at fault. In {cell}, "
            "{example}. By the margins: {verdict}.",
            defects=comparison.defects, runs=runs, cell=_cell(example.cell), example=example.example,
            verdict=outcome(comparison.by_numbers),
        )  # fmt: skip
    findings = comparison.having(comparison.by_numbers)
    n, of = len(findings), len(comparison.findings)
    match comparison.by_numbers:
        case "bit-identical":
            return say(
                "Bit-identical: every number of every epoch and the final weights of {runs} are the same.", runs=runs
            )
        case "equivalent" if comparison.bits:
            return count(
                n,
                "Equivalent: bits differ, and {n} difference of {of} lies within the margin.",
                "Equivalent: bits differ, and {n} differences of {of} lie within the margin.",
                of=of,
            )
        case "equivalent":
            return count(
                n,
                "Equivalent: {n} difference of {of} lies within the margin.",
                "Equivalent: {n} differences of {of} lie within the margin.",
                of=of,
            )
        case "different":
            return " ".join(filter(None, _different(comparison, findings)))
        case _:
            open_ones = count(
                n,
                "Too little to tell: {n} of {of} comparisons is neither within the margin nor clearly different.",
                "Too little to tell: {n} of {of} comparisons are neither within the margin nor clearly different.",
                of=of,
            )
            return f"{open_ones} {_remedy(findings)}"


def outcome(verdict: Outcome) -> str:
    """Write a verdict in the language of the page."""
    return told_as("comparison", verdict)


def _cell(name: str) -> str:
    return told(name) if name == MEAN else in_words(name)


def _different(comparison: Comparison, findings: list[Finding]) -> list[str]:
    """Return the largest difference in a sentence, where it begins, and how many others there are."""
    first, others = findings[0], len(findings) - 1
    response = first.measured
    digits = response.digits + _DIGITS
    words = {
        "response": response.in_sentence, "cell": _cell(first.cell), "margin": _margin(first),
        "difference": number(first.sample.mean, digits, sign=True) + response.in_unit,
        "interval": interval(*first.interval, digits),
    }  # fmt: skip
    if first.matters:
        told_first = say(
            "Different: {response} ({cell}) differs by {difference} ({interval}), more than the {margin} that matter.",
            **words,
        )
    else:
        told_first = say(
            "Different: {response} ({cell}) differs by {difference} ({interval}), it is open whether more than the "
            "{margin} that matter.",
            **words,
        )
    since = next((cell.since for cell in comparison.bits if first.cell in (cell.cell, MEAN) and cell.since), "")
    return [
        told_first,
        say("Its numbers part in {since}.", since=since) if since else "",
        count(others, "{n} more comparison differs.", "{n} more comparisons differ.") if others else "",
    ]


def _margin(finding: Finding) -> str:
    return figures(f"{finding.margin:g}")


def _remedy(findings: list[Finding]) -> str:
    """Return how many seeds would tell, or why that is unknown."""
    fewest = min(finding.sample.n for finding in findings)
    needed = [finding.needed.likely for finding in findings]
    if all(n is not None for n in needed):
        n = max(n for n in needed if n is not None)
        return say("About {n} seeds would tell if there is no difference.", n=n)
    if fewest < LEAST_SEEDS:
        words = {"seeds": plural(fewest, "seed"), "least": LEAST_SEEDS}
        return say("The folders have {seeds} in common; at least {least} are needed.", **words)
    return say("Differences that are the same in every seed have no spread, and say nothing about other seeds.")


# ---- Tables ----


def findings_table(comparison: Comparison) -> Table:
    """Return every comparison with its verdict."""
    rows = []
    for finding in comparison.findings:
        response, sample = finding.measured, finding.sample
        digits = response.digits + _DIGITS
        rows.append({
            "cell": _cell(finding.cell),
            "response": response.name,
            "verdict": outcome(finding.verdict),
            "n": str(sample.n),
            "difference": number(sample.mean, digits, sign=True) + response.in_unit if sample.n else NOTHING,
            "interval": interval(*finding.interval, digits),
            "margin": f"±{_margin(finding)}",
            "needed": _needed(finding),
        })  # fmt: skip
    alpha = comparison.findings[0].alpha
    headings = {
        "cell": say("Cell"),
        "response": say("Response"),
        "verdict": say("Verdict"),
        "n": say("Seeds"),
        "difference": f"B {MINUS} A",
        "interval": say("{share} interval", share=percent(1 - alpha)),
        "margin": say("Margin"),
        "needed": say("Seeds that would tell"),
    }
    caption = say(
        "The difference between the two folders after the last epoch: its mean over seeds, and the interval that "
        "decides. Seeds that would tell: if there is no difference."
    )
    numbers = pd.DataFrame([finding_numbers(finding) for finding in comparison.findings])
    return Table("comparisons", caption, headings, rows, numbers, frozenset({"response", "verdict"}))


def finding_numbers(finding: Finding) -> dict[str, object]:
    """Return all numbers of a comparison, with all digits."""
    (low, high), needed = finding.interval, finding.needed
    return {
        "cell": finding.cell, "response": finding.response, "verdict": finding.verdict, "n": finding.sample.n,
        "difference": finding.sample.mean, "sd": finding.sample.sd, "low": low, "high": high,
        "margin": finding.margin, "alpha": finding.alpha,
        "seeds_likely": float(needed.likely or "nan"), "seeds_cautious": float(needed.cautious or "nan"),
    }  # fmt: skip


def _needed(finding: Finding) -> str:
    if finding.verdict != "too little to tell":
        return NOTHING
    needed = finding.needed
    if needed.likely is None and finding.sample.n < LEAST_SEEDS:
        return say("at least {size}", size=LEAST_SEEDS)
    if needed.likely is None:
        return say("unknown: no spread")
    if needed.likely <= finding.sample.n:
        return say("more, unless it is close to the margin")
    return f"{needed.likely} ({needed.cautious or NOTHING})"


def bits_table(comparison: Comparison) -> Table | None:
    """Return, cell by cell, how many runs are the same to the bit, and where the others part; None across protocols."""
    if not comparison.bits:
        return None
    rows = _bits_rows(comparison)
    headings = {
        "cell": say("Cell"), "same": say("Runs with the same bits"), "since": say("Numbers part in"),
        "example": say("For example"),
    }  # fmt: skip
    caption = say("Every number of every epoch and every probe, and the digest of the final weights, run by run.")
    with speaking(ENGLISH):  # in the file, whatever the page's language
        frame = pd.DataFrame(_bits_rows(comparison)).assign(cell=[cell.cell for cell in comparison.bits])
    return Table("bits", caption, headings, rows, frame, frozenset({"since", "example"}))


def _bits_rows(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {
            "cell": _cell(cell.cell),
            "same": say("{n} of {planned}", n=cell.seeds - len(cell.partings), planned=cell.seeds),
            "since": cell.since or NOTHING,
            "example": cell.example or NOTHING,
        }
        for cell in comparison.bits
    ]


def causes_table(comparison: Comparison) -> Table | None:
    """Return what the provenance differs in; None if in nothing."""
    rows = [{"what": told(what), "a": told(a), "b": told(b)} for what, a, b in comparison.causes]
    headings = {"what": say("What"), "a": "A", "b": "B"}
    caption = say(
        "What was recorded about the runs and differs between the folders: the probable cause if bits differ."
    )
    frame = pd.DataFrame(comparison.causes, columns=list(headings))
    return Table("causes", caption, headings, rows, frame, frozenset({"a", "b"})) if rows else None


# ---- Text, Markdown, page ----


def _lead(comparison: Comparison) -> str:
    return say("A is {a}, B is {b}.", a=comparison.a.as_posix(), b=comparison.b.as_posix())


def rule(comparison: Comparison) -> str:
    """Return the rule behind the verdicts, in words."""
    return count(
        len(comparison.findings),
        "Runs are paired by cell and seed. The {n} comparison is equivalent if its {share} t interval lies within the "
        "margin, else different if it excludes 0; from {least} seeds on. The probability of a false verdict is at "
        "most {alpha}. The margins are the smallest differences that matter: those of the study's file or of the "
        "program, unless others were given.",
        "Runs are paired by cell and seed. Each of the {n} comparisons is equivalent if its {share} t interval lies "
        "within the margin, else different if it excludes 0; from {least} seeds on. The probability of any false "
        "verdict among all is at most {alpha}. The margins are the smallest differences that matter: those of the "
        "study's file or of the program, unless others were given.",
        share=percent(1 - comparison.findings[0].alpha), least=LEAST_SEEDS, alpha=percent(ALPHA),
    )  # fmt: skip


def _no_cause(comparison: Comparison) -> str:
    """Return what to do if bits differ and nothing that was recorded does; empty otherwise."""
    if comparison.causes or comparison.verdict == "bit-identical":
        return ""
    return say(
        "Nothing that was recorded about the runs differs. Uncommitted changes of the code cannot be told apart: the "
        "command verify trains some runs again, and says whether a folder is what its specification gives."
    )


def _tables(comparison: Comparison) -> list[Table]:
    tables = (bits_table(comparison), findings_table(comparison), causes_table(comparison))
    return [table for table in tables if table]


def text(comparison: Comparison) -> str:
    """Return a comparison as text for a terminal."""
    blocks = [_lead(comparison), *(table.text for table in _tables(comparison))]
    blocks += [f"Note: {notice}" for notice in comparison.notices]
    blocks += [_no_cause(comparison), sentence(comparison)]
    return "\n\n".join(filter(None, blocks)).replace(MINUS, "-")


def to_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown, in the language that is being spoken."""
    blocks = [f"## {at_start(outcome(comparison.verdict))}", sentence(comparison), _lead(comparison)]
    blocks += [f"> **{say('Note.')}** {told(notice)}" for notice in comparison.notices]
    blocks += [f"{table.caption}\n\n{table.markdown}" for table in _tables(comparison)]
    blocks += [_no_cause(comparison), rule(comparison)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def page(comparison: Comparison) -> str:
    """Return a comparison as a self-contained HTML page, in the language that is being spoken."""
    template = environment().get_template("compare.html")
    return template.render(
        title=say("{a} against {b}", a=comparison.a.as_posix(), b=comparison.b.as_posix()),
        verdict=comparison.verdict,
        badge=outcome(comparison.verdict),
        sentence=sentence(comparison),
        lead=_lead(comparison),
        notices=[told(notice) for notice in comparison.notices],
        bits=bits_table(comparison),
        findings=findings_table(comparison),
        causes=causes_table(comparison),
        no_cause=_no_cause(comparison),
        rule=rule(comparison),
    )


def write(comparison: Comparison, out: str | Path | None = None, *, lang: str = ENGLISH) -> Written:
    """Write ``compare.html`` and ``compare.md`` into the folder `out`.

    Parameters
    ----------
    comparison
        The comparison.
    out
        The folder; by default ``reports/compare``, and there ``es`` for Spanish.
    lang
        The language of both files: ``"en"`` or ``"es"``.

    Raises
    ------
    LanguageError
        If there is no such language.
    ResultsError
        If `out` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    language = find(lang)
    folder = user_path(out) if out is not None else folder_of(OUT, lang)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot be written ({error.strerror}). Give another folder with --out."
        ) from error
    written = Written(folder / "compare.html", folder / "compare.md")
    with speaking(language):
        write_atomically(written.html, page(comparison).encode())
        write_atomically(written.markdown, to_markdown(comparison).encode())
    return written
