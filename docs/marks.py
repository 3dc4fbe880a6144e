"""Documents whose tables are made from result files."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def between(source: str, table: str, text: str) -> str:
    """Put `table` between the two marks that `text` has for what is made from `source`.

    Raises
    ------
    SystemExit
        If `text` does not have the marks exactly once.
    """
    place = re.compile(rf"(<!-- table: {re.escape(source)} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, times = place.subn(lambda marks: f"{marks[1]}{table.strip()}\n{marks[2]}", text)
    if times != 1:
        raise SystemExit(f"the marks of the table from {source} must be there once, not {times} times")
    return text


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], left: Iterable[int] = (0,)) -> str:
    """Return a Markdown table; columns whose numbers are in `left` are aligned to the left, the others to the right.

    Cells are not padded, so a changed number changes one line.
    """
    align = ["left" if column in set(left) else "right" for column in range(len(headings))]
    cells = [[str(cell) for cell in row] for row in rows]
    padded = tabulate(cells, headings, tablefmt="pipe", colalign=align if cells else None, disable_numparse=True)
    return re.sub(r"\|(:?)-+(:?)(?=\|)", r"| \1--\2 ", re.sub(r" {2,}", " ", padded))
