"""LaTeX: any text is shown and none of it is a command, and a table has the numbers of the page."""

import re
import shutil
import subprocess
from pathlib import Path

import hypothesis
import pandas as pd
import pytest
import tex
from hypothesis import strategies as st

from mnist_ablate.report import latex
from mnist_ablate.report.tables import Table

ODD = r"""\input{x} $1_000 & 50% #1 ~a^b^^41 {x} [y] <z> | "q" `q` -- --- ,, '' a_b*"""


@hypothesis.given(st.text(st.characters(max_codepoint=126)))
@hypothesis.example(ODD)
def test_any_text_is_shown_and_does_nothing(text: str) -> None:
    """What is left besides the known commands has no character that means anything, and it reads as it was."""
    written = latex.escape(text)
    rest = tex.COMMANDS.sub("!", written)
    assert not re.search(r"[\\{}$&#%_~^<>|\"`\[\]\n]|--|,,|''", rest)
    assert tex.shown(written) == re.sub(r"[\x00-\x1f\x7f]", "?", " ".join(text.split()))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\nb\tc", "a b c"),
        ("\u22120.10 to +0.20", "$-$0.10 to +0.20"),  # the wide minus of the pages
        ("0\u20139 \u00b1 2\u00d72", r"0--9 $\pm$ 2$\times$2"),
        ("Köln, e\u0301té, Łódź", "Köln, été, Łódź"),
        ("a\u202eb\u200bc", "abc"),  # what turns or hides text is left out
        ("\ud800 \x07", "? ?"),
        ("\u5b66\u7fd2", "\u5b66\u7fd2"),
    ],
)
def test_other_letters(text: str, written: str) -> None:
    """Signs of the pages become commands, European letters stay, and what cannot be printed does not reach LaTeX."""
    assert latex.escape(text) == written


def table(rows: int = 3, name: str = "cells") -> Table:
    """Return a table with odd text."""
    texts = [{"cell": f"[c{i}] a_b", "mean": f"9{i}.5", "interval": f"\u2212{i}.1 to +{i}.2"} for i in range(rows)]
    headings = {"cell": "Cell", "mean": "Mean accuracy on the test images, %", "interval": "95 % interval"}
    return Table(name, "What it shows: 100 % & more.", headings, texts, pd.DataFrame())


@pytest.mark.parametrize("rows", [0, 3, 100])
def test_a_table_has_all_rows(rows: int) -> None:
    """Short or long, it has the rules of booktabs, a caption, a label, and each row once."""
    shown = table(rows)
    text = latex.tabular(shown)
    assert ("longtable" in text) == (rows == 100)
    assert {r"\toprule", r"\midrule", r"\bottomrule"} <= set(re.findall(r"\\\w+rule", text))
    assert r"\caption{What it shows: 100 \% \& more.}\label{tab:cells}" in text
    assert tex.rows(text) == [list(row.values()) for row in shown.rows]
    assert r"Mean accuracy\\on the test\\images, \%" in text
    assert text.count("{") == text.count("}")


def test_long_names_are_wrapped() -> None:
    """A name as long as a line makes its column a paragraph; a wide table has smaller letters."""
    shown = table()
    assert r"\begin{tabular}{lrr}" in latex.tabular(shown)
    shown.rows[0]["cell"] = "word " * 20
    assert r">{\raggedright\arraybackslash}p{" in latex.tabular(shown)
    assert r"\small" in latex.tabular(shown)
    shown.rows[0]["interval"] = "x" * 90
    assert r"\scriptsize" in latex.tabular(shown)


def test_the_document_shows_all_parts() -> None:
    """Each table and figure of each part is in the document, under its heading; unknown letters are declared."""
    parts = [latex.Part("First & last", ("cells",), {"effects": "See \u5b66."}), latex.Part("Empty", (), {})]
    text = latex.document("A_b", parts, ["\u03b6", "ä"])
    assert r"\section*{First \& last}" in text
    assert r"\input{tables/cells}" in text
    assert r"keepaspectratio]{figures/effects.pdf}" in text
    declared = re.findall(r"\\DeclareUnicodeCharacter\{(\w+)\}", text)
    assert declared == ["03B6", "5B66"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed: the document is not compiled")
def test_latex_compiles_it(tmp_path: Path) -> None:
    """A real LaTeX makes a document of any text without an error."""
    (tmp_path / "tables").mkdir()
    letters = "".join(map(chr, [*range(0x20, 0x17F), *range(0x370, 0x400), 0x5B66, 0x1F600, 0x2212, 0xB1, 0x2026]))
    shown = table(100)
    for i in range(90):
        shown.rows[i]["cell"] = latex.escape.__name__ + ODD if i == 0 else letters[8 * i : 8 * i + 8]
    texts = {"cells": latex.tabular(shown), "small": latex.tabular(table(3, "small"))}
    for name, text in texts.items():
        (tmp_path / "tables" / f"{name}.tex").write_text(text, encoding="utf-8")
    methods = latex.escape(letters + ODD)
    (tmp_path / "methods.tex").write_text(methods, encoding="utf-8")
    document = latex.document(ODD, [latex.Part(ODD, tuple(texts), {})], [*texts.values(), methods])
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
    assert (tmp_path / "paper.pdf").exists()
