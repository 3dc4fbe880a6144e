"""LaTeX: text made safe, tables with booktabs, and a document that shows all of a report.

A table needs the packages booktabs, and longtable where it is long; nothing here is specific to a class or a journal.
"""

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mnist_ablate.report.tables import Table

_WRITTEN = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}",  # after the end of a row, a bracket would be an option
    "\N{NO-BREAK SPACE}": "~", "\N{EN DASH}": "--", "\N{EM DASH}": "---", "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``", "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{SUPERSCRIPT TWO}": r"\textsuperscript{2}", "\N{SUPERSCRIPT THREE}": r"\textsuperscript{3}",
    "\N{MINUS SIGN}": "$-$", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MIDDLE DOT}": r"$\cdot$", "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{NOT EQUAL TO}": r"$\neq$", "\N{ALMOST EQUAL TO}": r"$\approx$", "\N{INFINITY}": r"$\infty$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$", "\N{SQUARE ROOT}": r"$\surd$",
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$", "\N{GREEK SMALL LETTER BETA}": r"$\beta$",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
    "\N{GREEK SMALL LETTER DELTA}": r"$\delta$", "\N{GREEK SMALL LETTER EPSILON}": r"$\epsilon$",
    "\N{GREEK SMALL LETTER ETA}": r"$\eta$", "\N{GREEK SMALL LETTER THETA}": r"$\theta$",
    "\N{GREEK SMALL LETTER LAMDA}": r"$\lambda$", "\N{GREEK SMALL LETTER MU}": r"$\mu$",
    "\N{GREEK SMALL LETTER RHO}": r"$\rho$", "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "\N{GREEK SMALL LETTER TAU}": r"$\tau$", "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{GREEK CAPITAL LETTER SIGMA}": r"$\Sigma$",
}  # fmt: skip
_LIGATURES = re.compile(r"([-,'])(?=\1)")
"""What LaTeX would join: two hyphens to a dash, two commas or two apostrophes to a quotation mark."""
_EUROPEAN = range(0xA1, 0x180)
"""Letters that LaTeX knows in the encoding T1, with few exceptions."""
_NOT_EUROPEAN = set("ĦħĸĿŀŉŦŧſ")


def escape(text: str) -> str:
    """Write any text so that LaTeX shows it: on one line, and nothing in it is a command.

    Letters that are no European ones stay as they are: LuaLaTeX and XeLaTeX show them, see also `document`.
    """
    plain = unicodedata.normalize("NFC", " ".join(text.split()))
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = "".join("?" if unicodedata.category(letter).startswith("C") else letter for letter in plain)
    return "".join(_WRITTEN.get(letter, letter) for letter in _LIGATURES.sub("\\1\0", plain)).replace("\0", "{}")


def _foreign(texts: Iterable[str]) -> list[str]:
    """List the letters that pdfLaTeX does not know, sorted."""
    letters = {letter for text in texts for letter in text if not letter.isascii()}
    known = {letter for letter in letters if ord(letter) in _EUROPEAN} - _NOT_EUROPEAN
    return sorted(letters - known)


# ---- Tables ----

_LONG = 45
"""Rows of a table that fits on a page."""
_FIRST = 34
"""Letters in a line of the first column."""
_HEADING = 14
"""Letters in a line of a heading, where no cell below is wider."""
_SIZES = ((92, "small"), (104, "footnotesize"))
"""How many letters fit on a line, and in which size."""
_SMALLEST = r"scriptsize\setlength{\tabcolsep}{4pt}"


def tabular(table: Table) -> str:
    """Write a table with its caption and label.

    Parameters
    ----------
    table
        The table; a cell has the text that the page shows.
    """
    keys = list(table.headings)
    widths = {key: max((len(row[key]) for row in table.rows), default=0) for key in keys}
    headings = {key: textwrap.wrap(table.headings[key], max(widths[key], _HEADING)) or [""] for key in keys}
    first = keys[0]
    wrapped = widths[first] > _FIRST
    columns = (rf">{{\raggedright\arraybackslash}}p{{{0.55 * _FIRST:.1f}em}}" if wrapped else "l") + "r" * (
        len(keys) - 1
    )
    wide = {key: max(widths[key], *map(len, headings[key])) for key in keys} | ({first: _FIRST} if wrapped else {})
    size = next((name for most, name in _SIZES if sum(wide.values()) + 2 * len(keys) <= most), _SMALLEST)
    head = " & ".join(_heading(lines, "r" if i else "l") for i, lines in enumerate(headings.values()))
    rows = [" & ".join(escape(row[key]) for key in keys) + r" \\" for row in table.rows]
    caption = rf"\caption{{{escape(table.caption)}}}\label{{tab:{table.name}}}"
    if len(rows) > _LONG:
        lines = [rf"{{\{size}", rf"\begin{{longtable}}{{{columns}}}", caption + r"\\", r"\toprule", head + r" \\",
                 r"\midrule", r"\endfirsthead", r"\toprule", head + r" \\", r"\midrule", r"\endhead", r"\bottomrule",
                 r"\endfoot", *rows, r"\end{longtable}}"]  # fmt: skip
    else:
        lines = [r"\begin{table}[htbp]", r"\centering", caption, rf"\{size}", rf"\begin{{tabular}}{{{columns}}}",
                 r"\toprule", head + r" \\", r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
                 r"\end{table}"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _heading(lines: Sequence[str], side: str) -> str:
    written = [escape(line) for line in lines]
    if len(written) == 1:
        return written[0]
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r"\\".join(written) + r"\end{tabular}"


# ---- The document ----


@dataclass(frozen=True)
class Part:
    """A section of the document.

    Parameters
    ----------
    heading
        What stands above it.
    tables
        The names of its tables.
    figures
        The captions of its figures, by the name of the file.
    """

    heading: str
    tables: tuple[str, ...]
    figures: dict[str, str]


_FIT = r"width=\linewidth,height=0.45\textheight,keepaspectratio"


def figure(name: str, caption: str) -> str:
    """Write a figure with its caption and label."""
    return "\n".join(
        [r"\begin{figure}[htbp]", r"\centering", rf"\includegraphics[{_FIT}]{{figures/{name}.pdf}}",
         rf"\caption{{{escape(caption)}}}\label{{fig:{name}}}", r"\end{figure}"]
    ) + "\n"  # fmt: skip


_PREAMBLE = r"""% Shows all tables and figures of a report. Run LaTeX three times: tables of several pages need it.
% Take from it what a paper needs:
% \input{tables/NAME} needs the packages array, booktabs and longtable, and a figure needs graphicx.
\documentclass{article}
\usepackage{iftex}
\ifPDFTeX
  \usepackage[utf8]{inputenc}
  \usepackage[T1]{fontenc}
  \usepackage{textcomp}
  \IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
<foreign>\else
  \usepackage{fontspec}
\fi
\usepackage[margin=2.2cm]{geometry}
\usepackage{array,booktabs,graphicx,longtable}
\setlength{\belowcaptionskip}{6pt}
"""


def document(title: str, parts: Sequence[Part], texts: Iterable[str]) -> str:
    """Write a document with the methods, and all tables and figures, a section for each part.

    Parameters
    ----------
    title
        Its title.
    parts
        What it shows.
    texts
        All that LaTeX will read: pdfLaTeX shows letters that it does not know by their number.
    """
    figures = {part.heading: [figure(*one) for one in part.figures.items()] for part in parts}
    written = [escape(title), *texts, *(text for drawn in figures.values() for text in drawn)]
    foreign = "".join(
        rf"  \DeclareUnicodeCharacter{{{ord(letter):04X}}}{{(U+{ord(letter):04X})}}" + "\n"
        for letter in _foreign(written)
    )
    body = [_PREAMBLE.replace("<foreign>", foreign) + rf"\title{{{escape(title)}}}" + "\n" + r"\date{}",
            r"\begin{document}", r"\maketitle", r"\section*{Methods}", r"\input{methods}"]  # fmt: skip
    for part in parts:
        body += [r"\clearpage", rf"\section*{{{escape(part.heading)}}}"]
        body += [rf"\input{{tables/{name}}}" for name in part.tables] + figures[part.heading]
    return "\n".join([*body, r"\end{document}"]) + "\n"
