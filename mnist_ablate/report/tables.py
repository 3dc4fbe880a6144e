"""A table as the page shows it, and its renderings for the terminal, for Markdown and as CSV with all digits."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from tabulate import tabulate

from mnist_ablate.language import say
from mnist_ablate.report.format import MINUS, estimate, interval

Row: TypeAlias = "pd.Series[Any]"
Columns: TypeAlias = dict[str, tuple[str, Callable[[Row], str]]]
"""Of a table, by name: a heading, and a function from a row of numbers to its text."""


@dataclass(frozen=True)
class Table:
    """A table as it is shown, and the numbers behind it.

    Parameters
    ----------
    name
        The name of its CSV file.
    caption
        What it shows.
    headings
        By column; the first column names the rows.
    rows
        Text by column.
    frame
        The numbers with all digits, for the CSV file.
    words
        The columns, beside the first, that hold words: on the page these are on the left and may break.
    in_file
        What that file has besides, in a sentence: for those who have it, and not for a paper.
    """

    name: str
    caption: str
    headings: dict[str, str]
    rows: list[dict[str, str]]
    frame: pd.DataFrame
    words: frozenset[str] = frozenset()
    in_file: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        caption: str,
        frame: pd.DataFrame,
        columns: Columns,
        most: int | None = None,
        *,
        in_file: str = "",
    ) -> "Table":
        """Return a table of the rows of `frame`, or of the first `most`."""
        headings = {key: heading for key, (heading, _) in columns.items()}
        rows = [{key: text(row) for key, (_, text) in columns.items()} for _, row in frame[:most].iterrows()]
        return cls(name, caption, headings, rows, frame, in_file=in_file)

    @property
    def csv(self) -> str:
        """The numbers as comma-separated values."""
        with np.printoptions(legacy=False):  # the user's may be old, and round to 12 digits
            return self.frame.to_csv(index=False, lineterminator="\n")

    @property
    def text(self) -> str:
        """The table for a terminal, which may lack the wide minus."""
        return self._tabulated("plain", list(self.headings.values()), lambda text: text).replace(MINUS, "-")

    @property
    def markdown(self) -> str:
        """The table in Markdown."""
        return self._tabulated("pipe", [markdown_text(heading) for heading in self.headings.values()], markdown_text)

    def _tabulated(self, style: str, headings: list[str], write: Callable[[str], str]) -> str:
        rows = [[write(text) for text in row.values()] for row in self.rows]
        align = ["left", *["right"] * (len(headings) - 1)]
        return tabulate(rows, headings, style, colalign=align, disable_numparse=True)


def estimated(
    heading: str,
    digits: int | Callable[[Row], int] = 2,
    *,
    value: str = "estimate",
    ends: tuple[str, str] = ("low", "high"),
    sign: bool = True,
    scale: float = 1,
) -> Columns:
    """Return two columns, an estimate and its 95 % interval, which have the same digits in each row.

    Parameters
    ----------
    heading
        Of the estimate.
    digits
        After the point, or a function of the row that returns them.
    value, ends
        The columns of the frame with the estimate and with the ends of its interval.
    sign
        Whether to write the sign of positive numbers.
    scale
        What the numbers are multiplied by.
    """

    def numbers(row: Row) -> tuple[float, float, int]:
        return scale * row[ends[0]], scale * row[ends[1]], digits if isinstance(digits, int) else digits(row)

    return {
        value: (heading, lambda row: estimate(scale * row[value], *numbers(row), sign=sign)),
        f"{value}_interval": (say("95 % interval"), lambda row: interval(*numbers(row), sign=sign)),
    }


def markdown_text(text: str) -> str:
    """Make `text` safe inside a line of Markdown: one line, and no character that means something there."""
    return re.sub(r"([\\`*_\[\]<>#|&])", r"\\\1", " ".join(text.split()))
