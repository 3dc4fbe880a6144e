"""A comparison of two results folders in words: for the terminal, as ``compare.md`` and as ``compare.html``."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mnist_ablate.checks.compare import ALPHA, MEAN, Comparison, Finding
from mnist_ablate.design.settings import in_words
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.power import LEAST_SEEDS
from mnist_ablate.paths import user_path
from mnist_ablate.report.format import MINUS, NOTHING, interval, number, percent, plural
from mnist_ablate.report.page import environment
from mnist_ablate.report.tables import Table
from mnist_ablate.store.sealed import write_atomically

OUT = Path("reports/compare")
"""Default folder of the page."""
_DIGITS = 2  # more than a response is usually shown with: the differences are small


@dataclass(frozen=True)
class Written:
    """The files of a comparison."""

    html: Path
    markdown: Path


# ---- In a sentence ----


def sentence(comparison: Comparison) -> str:
    """Return the verdict with what one needs to act on it, in one or two sentences."""
    if comparison.defects:
        runs = plural(sum(cell.seeds for cell in comparison.bits), "run")
        example = next(cell for cell in comparison.bits if cell.defects)
        return (
            f"Defect: bits differ in {comparison.defects} of {runs}, although the engine fused computes the same bits "
            "on every machine, with all versions. That is not chance: the arithmetic or a machine is at fault. In "
            f"{in_words(example.cell)}, {example.example}. By the margins: {comparison.by_numbers}."
        )
    findings = comparison.having(comparison.by_numbers)
    match comparison.by_numbers:
        case "bit-identical":
            runs = plural(sum(cell.seeds for cell in comparison.bits), "run")
            return f"Bit-identical: every number of every epoch and the final weights of {runs} are the same."
        case "equivalent":
            count = f"{plural(len(findings), 'difference')} of {len(comparison.findings)}"
            return f"Equivalent: {'bits differ, and ' if comparison.bits else ''}{count} lie within the margin."
        case "different":
            first, others = findings[0], len(findings) - 1
            bits = next((cell for cell in comparison.bits if first.cell in (cell.cell, MEAN) and cell.since), None)
            since = f" Its numbers part in {bits.since}." if bits else ""
            more = f" {plural(others, 'more comparison')} differ." if others else ""
            return f"Different: {_difference(first)}.{since}{more}"
        case _:
            return (
                f"Too little to tell: {len(findings)} of {plural(len(comparison.findings), 'comparison')} are neither "
                f"within the margin nor clearly different. {_remedy(findings)}"
            )


def _remedy(findings: list[Finding]) -> str:
    """Return how many seeds would tell, or why that is unknown."""
    fewest = min(finding.sample.n for finding in findings)
    needed = [finding.needed.likely for finding in findings]
    if all(n is not None for n in needed):
        return f"About {max(n for n in needed if n is not None)} seeds would tell if there is no difference."
    if fewest < LEAST_SEEDS:
        return f"The folders have {plural(fewest, 'seed')} in common; at least {LEAST_SEEDS} are needed."
    return "Differences that are the same in every seed have no spread, and say nothing about other seeds."


def _difference(finding: Finding) -> str:
    response = finding.measured
    digits = response.digits + _DIGITS
    size = "more than" if finding.matters else "it is open whether more than"
    return (
        f"{response.label} ({in_words(finding.cell)}) differs by {number(finding.sample.mean, digits, sign=True)} "
        f"{response.unit} ({interval(*finding.interval, digits)}), {size} the {finding.margin:g} that matter"
    )


# ---- Tables ----


def findings_table(comparison: Comparison) -> Table:
    """Return every comparison with its verdict."""
    rows = []
    for finding in comparison.findings:
        response, sample = finding.measured, finding.sample
        digits = response.digits + _DIGITS
        rows.append({
            "cell": in_words(finding.cell),
            "response": response.label,
            "verdict": finding.verdict,
            "n": str(sample.n),
            "difference": f"{number(sample.mean, digits, sign=True)} {response.unit}" if sample.n else NOTHING,
            "interval": interval(*finding.interval, digits),
            "margin": f"±{finding.margin:g}",
            "needed": _needed(finding),
        })  # fmt: skip
    alpha = comparison.findings[0].alpha
    headings = {
        "cell": "Cell",
        "response": "Response",
        "verdict": "Verdict",
        "n": "Seeds",
        "difference": f"B {MINUS} A",
        "interval": f"{percent(1 - alpha)} interval",
        "margin": "Margin",
        "needed": "Seeds that would tell",
    }
    caption = (
        "The difference between the two folders after the last epoch: its mean over seeds, and the interval that "
        "decides. Seeds that would tell: if there is no difference."
    )
    numbers = pd.DataFrame([finding_numbers(finding) for finding in comparison.findings])
    return Table("comparisons", caption, headings, rows, numbers)


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
    if needed.likely is None:
        return f"at least {LEAST_SEEDS}" if finding.sample.n < LEAST_SEEDS else "unknown: no spread"
    if needed.likely <= finding.sample.n:
        return "more, unless it is close to the margin"
    return f"{needed.likely} ({needed.cautious or NOTHING})"


def bits_table(comparison: Comparison) -> Table | None:
    """Return, cell by cell, how many runs are the same to the bit, and where the others part; None across protocols."""
    if not comparison.bits:
        return None
    rows = [
        {
            "cell": in_words(cell.cell),
            "same": f"{cell.seeds - len(cell.partings)} of {cell.seeds}",
            "since": cell.since or NOTHING,
            "example": cell.example or NOTHING,
        }
        for cell in comparison.bits
    ]
    headings = {"cell": "Cell", "same": "Runs with the same bits", "since": "Numbers part in", "example": "For example"}
    caption = "Every number of every epoch and every probe, and the digest of the final weights, run by run."
    frame = pd.DataFrame(rows).assign(cell=[one.cell for one in comparison.bits])
    return Table("bits", caption, headings, rows, frame)


def causes_table(comparison: Comparison) -> Table | None:
    """Return what the provenance differs in; None if in nothing."""
    rows = [{"what": what, "a": a, "b": b} for what, a, b in comparison.causes]
    headings = {"what": "What", "a": "A", "b": "B"}
    caption = "What was recorded about the runs and differs between the folders: the probable cause if bits differ."
    return Table("causes", caption, headings, rows, pd.DataFrame(rows)) if rows else None


# ---- Text, Markdown, page ----


def _lead(comparison: Comparison) -> str:
    return f"A is {comparison.a.as_posix()}, B is {comparison.b.as_posix()}."


def rule(comparison: Comparison) -> str:
    """Return the rule behind the verdicts, in words."""
    n, alpha = len(comparison.findings), comparison.findings[0].alpha
    return (
        f"Runs are paired by cell and seed. Each of the {plural(n, 'comparison')} is equivalent if its "
        f"{percent(1 - alpha)} t interval lies within the margin, else different if it excludes 0; from {LEAST_SEEDS} "
        f"seeds on. The probability of any false verdict "
        f"among all is at most {percent(ALPHA)}. The margins are the smallest differences that matter: those of the "
        "study's file or of the program, unless others were given."
    )


def _no_cause(comparison: Comparison) -> str:
    """Return what to do if bits differ and nothing that was recorded does; empty otherwise."""
    if comparison.causes or comparison.verdict == "bit-identical":
        return ""
    return (
        "Nothing that was recorded about the runs differs. Uncommitted changes of the code cannot be told apart; use "
        "`verify` to train some runs again and see whether each folder is what its specification gives."
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
    """Return a comparison as Markdown."""
    blocks = [f"## {comparison.verdict.capitalize()}", sentence(comparison), _lead(comparison)]
    blocks += [f"> **Note.** {notice}" for notice in comparison.notices]
    blocks += [f"{table.caption}\n\n{table.markdown}" for table in _tables(comparison)]
    blocks += [_no_cause(comparison), rule(comparison)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def page(comparison: Comparison) -> str:
    """Return a comparison as a self-contained HTML page."""
    template = environment().get_template("compare.html")
    return template.render(
        title=f"{comparison.a.as_posix()} against {comparison.b.as_posix()}",
        verdict=comparison.verdict,
        sentence=sentence(comparison),
        lead=_lead(comparison),
        notices=comparison.notices,
        bits=bits_table(comparison),
        findings=findings_table(comparison),
        causes=causes_table(comparison),
        no_cause=_no_cause(comparison),
        rule=rule(comparison),
    )


def write(comparison: Comparison, out: str | Path = OUT) -> Written:
    """Write ``compare.html`` and ``compare.md`` into the folder `out`.

    Raises
    ------
    ResultsError
        If `out` cannot be a folder.
    StorageError
        If there is no space or no permission.
    """
    folder = user_path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot be written ({error.strerror}). Give another folder with --out."
        ) from error
    written = Written(folder / "compare.html", folder / "compare.md")
    write_atomically(written.html, page(comparison).encode())
    write_atomically(written.markdown, to_markdown(comparison).encode())
    return written
