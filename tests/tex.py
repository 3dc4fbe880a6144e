"""What LaTeX shows of text and tables that `mnist_ablate.report.latex` wrote."""

import re

UNDONE = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\textquotedbl{}": '"', r"\textasciigrave{}": "`", "{[}": "[",
    "{]}": "]", r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\%": "%", r"\_": "_", "{}": "",
    "$-$": "\N{MINUS SIGN}", "--": "\N{EN DASH}", r"\textsuperscript{2}": "\N{SUPERSCRIPT TWO}",
    r"$\pm$": "\N{PLUS-MINUS SIGN}", r"$\times$": "\N{MULTIPLICATION SIGN}", r"\dots{}": "\N{HORIZONTAL ELLIPSIS}",
}  # fmt: skip
COMMANDS = re.compile("|".join(map(re.escape, UNDONE)))


def shown(text: str) -> str:
    """Return what LaTeX shows of a text."""
    return COMMANDS.sub(lambda found: UNDONE[found[0]], text)


def rows(table: str) -> list[list[str]]:
    """Return the rows of a table as LaTeX shows them, without headings."""
    body = re.sub(r"\\begin\{tabular\}\[b\].*?\\end\{tabular\}", "", table, flags=re.DOTALL)
    body = body.partition(r"\endfoot" if "longtable" in table else r"\midrule")[2]
    return [[shown(cell) for cell in row.split(" & ")] for row in re.findall(r"^(.*) \\\\$", body, re.MULTILINE)]
