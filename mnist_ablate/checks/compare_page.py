"""What a comparison of two results folders found: for the terminal, as ``compare.md`` and as ``compare.html``."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mnist_ablate.checks.compare import ALPHA, MEAN, Comparison, Finding
from mnist_ablate.design.settings import in_words
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.effects import describe
from mnist_ablate.inference.verdicts import LEAST_SEEDS
from mnist_ablate.report.format import MINUS, NOTHING, interval, number, percent, plural
from mnist_ablate.report.page import environment
from mnist_ablate.report.tables import Table
from mnist_ablate.store.sealed import write_atomically

OUT = Path("reports/compare")
"""Where the page goes by default."""
_DIGITS = 2  # more than a response is reported with: what is looked for is small


@dataclass(frozen=True)
class Written:
    """Where a comparison was written."""

    html: Path
    markdown: Path


# ---- In a sentence ----


def sentence(comparison: Comparison) -> str:
    """Say what was found, in a sentence."""
    return {
        "bit-identical": _identical,
        "equivalent": _equivalent,
        "different": _different,
        "too little to tell": _unsure,
    }[comparison.verdict](comparison)


def _identical(comparison: Comparison) -> str:
    runs = plural(sum(one.seeds for one in comparison.bits), "run")
    return f"Bit-identical: every number of every epoch and the final weights of {runs} are the same in A and B."


def _equivalent(comparison: Comparison) -> str:
    n = len(comparison.of("equivalent"))
    return (
        f"Equivalent: bits differ, and {plural(n, 'difference')} of {len(comparison.findings)} lie within the margin."
    )


def _different(comparison: Comparison) -> str:
    found = comparison.of("different")
    others = f" {plural(len(found) - 1, 'more comparison')} differ." if len(found) > 1 else ""
    mine = [one for one in comparison.bits if found[0].cell in (one.cell, MEAN) and one.since]
    since = f" Its numbers part in {mine[0].since}." if mine else ""
    return f"Different: {_difference(found[0])}.{since}{others}"


def _unsure(comparison: Comparison) -> str:
    found = comparison.of("too little to tell")
    return (
        f"Too little to tell: {len(found)} of {plural(len(comparison.findings), 'comparison')} are neither within the "
        f"margin nor surely different. {_remedy(found)}"
    )


def _remedy(found: list[Finding]) -> str:
    """Say how many seeds would tell, or why that cannot be said."""
    fewest = min(one.sample.n for one in found)
    enough = [one.needed.likely for one in found]
    if all(n is not None for n in enough):
        return f"About {max(n for n in enough if n is not None)} seeds would tell, if there is no difference."
    if fewest < LEAST_SEEDS:
        return f"There are {plural(fewest, 'seed')} in common, and at least {LEAST_SEEDS} are needed."
    return "Differences that are the same in every seed show no spread, and say nothing of other seeds."


def _difference(finding: Finding) -> str:
    """Say by how much a response differs."""
    how = describe(finding.response)
    digits = how.digits + _DIGITS
    size = "more than" if finding.matters else "it is open whether more than"
    return (
        f"{how.label} ({in_words(finding.cell)}) differs by {number(finding.sample.mean, digits, sign=True)} "
        f"{how.unit} ({interval(*finding.interval, digits)}), {size} the {finding.margin:g} that matter"
    )


# ---- Tables ----


def findings_table(comparison: Comparison) -> Table:
    """Tabulate every comparison with its verdict."""
    rows, numbers = [], []
    for one in comparison.findings:
        how, (low, high) = describe(one.response), one.inner
        digits = how.digits + _DIGITS
        numbers.append(finding_numbers(one))
        rows.append({
            "cell": in_words(one.cell),
            "response": how.label,
            "verdict": one.verdict,
            "n": str(one.sample.n),
            "difference": f"{number(one.sample.mean, digits, sign=True)} {how.unit}" if one.sample.n else NOTHING,
            "interval": interval(low, high, digits),
            "margin": f"±{one.margin:g}",
            "needed": _needed(one),
        })  # fmt: skip
    alpha = comparison.findings[0].alpha
    headings = {
        "cell": "Cell",
        "response": "Response",
        "verdict": "Verdict",
        "n": "Seeds",
        "difference": f"B {MINUS} A",
        "interval": f"{percent(1 - 2 * alpha)} interval",
        "margin": "Margin",
        "needed": "Seeds that would tell",
    }
    caption = (
        "The difference of the two folders after the last epoch, seed by seed: mean over seeds, and the interval that "
        "must lie within the margin for 'equivalent'. Seeds that would tell: if there is no difference."
    )
    return Table("comparisons", caption, headings, rows, pd.DataFrame(numbers))


def finding_numbers(finding: Finding) -> dict[str, object]:
    """Give all numbers of a comparison, with all digits."""
    (low, high), (inner_low, inner_high) = finding.interval, finding.inner
    needed = finding.needed
    return {
        "cell": finding.cell, "response": finding.response, "verdict": finding.verdict, "n": finding.sample.n,
        "difference": finding.sample.mean, "sd": finding.sample.sd, "low": low, "high": high,
        "inner_low": inner_low, "inner_high": inner_high, "margin": finding.margin, "alpha": finding.alpha,
        "seeds_likely": float(needed.likely or "nan"), "seeds_cautious": float(needed.cautious or "nan"),
    }  # fmt: skip


def _needed(finding: Finding) -> str:
    if finding.verdict != "too little to tell":
        return NOTHING
    needed = finding.needed
    if needed.likely is None:
        return f"at least {LEAST_SEEDS}" if finding.sample.n < LEAST_SEEDS else "no spread to say it by"
    if needed.likely <= finding.sample.n:
        return "more, if it is not too near the margin"
    return f"{needed.likely} ({needed.cautious or NOTHING})"


def bits_table(comparison: Comparison) -> Table:
    """Tabulate, cell by cell, how many runs are the same to the bit, and where the others part."""
    rows = [
        {
            "cell": in_words(one.cell),
            "same": f"{one.seeds - len(one.partings)} of {one.seeds}",
            "since": one.since or NOTHING,
            "example": one.example or NOTHING,
        }
        for one in comparison.bits
    ]
    headings = {"cell": "Cell", "same": "Runs with the same bits", "since": "Numbers part in", "example": "For example"}
    caption = "Every number of every epoch and the digest of the final weights, run by run."
    frame = pd.DataFrame(rows).assign(cell=[one.cell for one in comparison.bits])
    return Table("bits", caption, headings, rows, frame)


def causes_table(comparison: Comparison) -> Table | None:
    """Tabulate what the provenance differs in; None where it does not."""
    rows = [{"what": what, "a": a, "b": b} for what, a, b in comparison.causes]
    headings = {"what": "What", "a": "A", "b": "B"}
    caption = "What was recorded of the runs and is not the same in both folders: the probable cause where bits differ."
    return Table("causes", caption, headings, rows, pd.DataFrame(rows)) if rows else None


# ---- Text, Markdown, page ----


def _lead(comparison: Comparison) -> str:
    return f"A is {comparison.a.as_posix()}, B is {comparison.b.as_posix()}."


def rule(comparison: Comparison) -> str:
    """Say by what rule the verdicts were made."""
    n, alpha = len(comparison.findings), comparison.findings[0].alpha
    return (
        f"Runs are paired by cell and seed. Of the {plural(n, 'comparison')}, each is equivalent if its "
        f"{percent(1 - 2 * alpha)} t interval lies within the margin (two one-sided tests), else different if 0 is "
        f"outside the {percent(1 - alpha)} interval; from {LEAST_SEEDS} seeds on. The probability of any false verdict "
        f"among all is at most {percent(ALPHA)}. The margins are the smallest differences that matter: those of the "
        "study's file or of the program, or given with the command."
    )


def _no_cause(comparison: Comparison) -> str:
    """Say it where bits differ and nothing that was recorded does."""
    if comparison.causes or comparison.verdict == "bit-identical":
        return ""
    return (
        "Nothing that was recorded of the runs differs. Changes that are not committed are not told apart; train some "
        "runs again with `verify` to see whether each folder is what its specification gives."
    )


def text(comparison: Comparison) -> str:
    """Write a comparison for a terminal."""
    listed = (bits_table(comparison), findings_table(comparison), causes_table(comparison))
    blocks = [_lead(comparison), *(table.text for table in listed if table)]
    blocks += [f"Note: {notice}" for notice in comparison.notices]
    return "\n\n".join([*filter(None, [*blocks, _no_cause(comparison)]), sentence(comparison)]).replace(MINUS, "-")


def to_markdown(comparison: Comparison) -> str:
    """Write a comparison in Markdown."""
    listed = (bits_table(comparison), findings_table(comparison), causes_table(comparison))
    blocks = [f"## {comparison.verdict.capitalize()}", sentence(comparison), _lead(comparison)]
    blocks += [f"> **Note.** {notice}" for notice in comparison.notices]
    blocks += [f"{table.caption}\n\n{table.markdown}" for table in listed if table]
    return "\n\n".join([*filter(None, [*blocks, _no_cause(comparison)]), rule(comparison)]) + "\n"


def page(comparison: Comparison) -> str:
    """Write a comparison as a page that needs nothing else."""
    return (
        environment()
        .get_template("compare.html")
        .render(
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
    folder = Path(out)
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
