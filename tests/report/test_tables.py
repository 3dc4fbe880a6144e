"""A table for the terminal and for Markdown: aligned, and safe whatever its cells say."""

import numpy as np
import pandas as pd

from mnist_ablate.report.format import MINUS
from mnist_ablate.report.tables import Table, markdown_text

FRAME = pd.DataFrame({"name": ["a", "b", "c"], "value": [1.5, -2.0, 1 / 3]})
COLUMNS = {
    "name": ("Name", lambda row: row["name"]),
    "value": ("Value", lambda row: f"{row['value']:.2f}".replace("-", MINUS)),
}


def test_a_table_has_a_row_of_text_for_each_row_of_numbers() -> None:
    """Headings and text come from the columns, the CSV file from the frame, with all rows and digits."""
    table = Table.of("t", "What it shows.", FRAME, COLUMNS, most=2)
    assert table.headings == {"name": "Name", "value": "Value"}
    assert table.rows == [{"name": "a", "value": "1.50"}, {"name": "b", "value": f"{MINUS}2.00"}]
    assert table.csv.splitlines() == ["name,value", "a,1.5", "b,-2.0", "c,0.3333333333333333"]


def test_digits_do_not_depend_on_how_numpy_prints() -> None:
    """A user whose numpy prints as old ones did gets the same file."""
    table = Table.of("t", "", FRAME, COLUMNS)
    with np.printoptions(legacy="1.13", precision=1):
        assert table.csv.splitlines()[-1] == "c,0.3333333333333333"


def test_text_is_aligned_and_plain() -> None:
    """Names stand at the left and numbers at the right, and the minus is one that every terminal has."""
    assert Table.of("t", "", FRAME, COLUMNS).text.splitlines() == [
        "Name      Value",
        "a          1.50",
        "b         -2.00",
        "c          0.33",
    ]


def test_markdown_is_safe() -> None:
    """Markup in a cell is text, and does not break its row."""
    table = Table("t", "", {"a": "A", "b": "B"}, [{"a": "<b>|`x`\ny_z", "b": "1"}], pd.DataFrame())
    head, rule, row = table.markdown.splitlines()
    assert row == f"| {markdown_text('<b>|`x` y_z')} |   1 |"
    assert row.startswith("| \\<b\\>\\|\\`x\\` y\\_z |")
    assert set(rule) == set("|:-")
    assert len(head) == len(rule) == len(row)
