"""Every run: the table of cells has the numbers of its frame."""

from mnist_ablate.design.settings import in_words
from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.report.format import NOTHING, estimate, interval, number
from mnist_ablate.report.sections.cells import _alt, table


def test_cells_show_their_frame(whole: Analysis) -> None:
    """Each row has the numbers of its cell, and the reference is called so."""
    for row, (_, numbers) in zip(table(whole).rows, whole.cells().iterrows(), strict=True):
        assert (row["cell"], row["runs"], row["diverged"]) == (in_words(numbers["cell"]), "7", "0")
        assert (row["mean"], row["sd"]) == (number(numbers["mean"]), number(numbers["sd"]))
        low, high = numbers["low"], numbers["high"]
        assert row["interval"] == interval(low, high)
        expected = "reference" if row["cell"] == "baseline" else estimate(numbers["difference"], low, high)
        assert row["difference"] == expected


def test_missing_and_diverged_are_shown(holed: Analysis) -> None:
    """Fewer runs than planned, pairs and diverged runs are in the table."""
    row = table(holed).rows[1]
    assert (row["runs"], row["diverged"]) == ("2 of 3", "1")
    assert row["interval"].endswith("(2 pairs)")


def test_what_is_not_there_is_a_dash(poor: Analysis) -> None:
    """A cell without runs has dashes; one run has a mean and no spread."""
    there, gone = (list(row.values()) for row in table(poor).rows)
    assert there[3:] == [NOTHING, "reference", NOTHING, "0"]
    assert gone == ["dropout", "0 of 1", *[NOTHING] * 4, "0"]


def test_markdown_has_a_row_for_each_cell(whole: Analysis) -> None:
    """Every row has as many columns as the head, and the numbers of its cell."""
    lines = table(whole).markdown.splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1
    columns = [[text.strip() for text in line.strip("|").split("|")] for line in lines]
    assert columns[2][:2] == ["baseline", "7"]
    assert columns[2][2] == number(whole.cells()["mean"].iloc[0])
    assert [column[0] for column in columns[2:]] == [in_words(name) for name in whole.cell_names]


def test_text_is_aligned(whole: Analysis) -> None:
    """The table for a terminal is aligned, uses plain signs, and has a line per cell."""
    lines = table(whole).text.splitlines()
    assert len(lines) == 1 + 8
    assert len({len(line) for line in lines}) == 1
    assert "Diverged" in lines[0]
    table(whole).text.encode("cp1252")


def test_the_picture_tells_means_and_range(whole: Analysis) -> None:
    """The words name the best cell first, with its mean, and the range of single runs."""
    frame = whole.cells().sort_values("mean", ascending=False)
    best = frame.iloc[0]
    assert f"highest to lowest, in percent: {in_words(best['cell'])} {best['mean']:.2f};" in _alt(whole)
    assert f"between {frame['min'].min():.2f} and {frame['max'].max():.2f} percent" in _alt(whole)
