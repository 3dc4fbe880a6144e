"""The notebook, replicated: every printed number has its row, and the sentences have the numbers of the tables."""

import pytest
import synthetic

from mnist_ablate.design.plan import Run
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.notebook import replication
from mnist_ablate.report.format import number
from mnist_ablate.report.section import Section
from mnist_ablate.report.sections.notebook import section, sentences
from mnist_ablate.report.tables import Table

SEEDS = 7


def accuracy(run: Run) -> float:
    """Return an accuracy that depends on technique, mistake and seed."""
    s = run.settings
    worse = 0.006 * (s.evaluation == "train") * (1 + s.batch_norm)
    return (
        0.97 + 0.002 * bool(s.dropout) + 0.004 * s.batch_norm - worse + (run.seed * (3 + s.batch_norm) % SEEDS) / 1000
    )


@pytest.fixture(scope="module")
def notebook() -> Analysis:
    """Analyse planted results of the notebook's study."""
    return analyse(synthetic.results(synthetic.bundled("notebook", SEEDS), test_accuracy=accuracy))


@pytest.fixture(scope="module")
def made(notebook: Analysis) -> Section:
    """Return the section on them."""
    section_ = section(notebook)
    assert section_
    return section_


def table(made: Section, name: str) -> Table:
    """Return a table that must be there."""
    table_ = made.tables[name]
    assert table_
    return table_


def test_a_longer_training_is_not_compared() -> None:
    """A study of the same cells that trains for longer than the notebook did has no such section."""
    study = synthetic.bundled("notebook", SEEDS)
    longer = study.model_copy(update={"protocol": study.protocol.model_copy(update={"epochs": 6})})
    assert section(analyse(synthetic.results(longer, test_accuracy=accuracy))) is None


def test_every_printed_number_has_its_row(notebook: Analysis, made: Section) -> None:
    """The tables have four accuracies, the losses of the epochs that there are, and the numbers of their frames."""
    assert len(table(made, "accuracies").rows) == 4
    assert len(table(made, "losses").rows) == 8  # of the one epoch, the last, two losses in four networks
    frame = replication.places(notebook).query("response == 'test_accuracy' and mode == 'mended'")
    by_name = synthetic.records(frame, "name")
    for row in table(made, "accuracies").rows:
        numbers = by_name[row["number"].partition(",")[0]]
        assert row["printed"] == number(numbers["printed"])
        assert row["mended mean"] == f"{number(numbers['mean'])} ({number(numbers['sd'])})"
    tables = [table(made, name) for name in made.tables]
    for one in tables:
        assert all(list(row) == list(one.headings) and all(row.values()) for row in one.rows)
    assert len({one.name for one in tables}) == len(tables) == 5


def test_words_have_the_numbers_of_the_tables(notebook: Analysis) -> None:
    """Each mode has a sentence that counts what lies outside, and one with the shares of the rankings."""
    outside, _, ran, mended = sentences(notebook)
    frame = replication.places(notebook).query("mode == 'as it ran'")
    within = f"{len(frame) - int(frame['outside'].sum())} of {len(frame)} printed numbers lie within what {SEEDS} runs"
    assert outside.startswith(f"Among runs with the notebook's mistakes, {within}")
    assert f"about {replication.expected_outside(frame):.1f} would lie outside" in outside
    shares = replication.rankings(notebook).set_index(["mode", "ranking"])["share"]
    assert f"in {number(100 * shares['as it ran', 'printed'], 1)} %" in ran
    assert f"in {number(100 * shares['mended', 'separable'], 1)} %" in mended


def test_mistakes_are_tabulated_for_all_their_numbers(made: Section) -> None:
    """The planted cost of train mode is in the table, in points."""
    rows = table(made, "mistakes").rows
    costs = {row["who"]: row["estimate"] for row in rows if "accuracy" in row["number"]}
    assert costs["dropout, evaluated in train mode"] == number(-0.6, sign=True)
    assert costs["BatchNorm, evaluated in train mode"] == number(-1.2, sign=True)
    assert len(table(made, "mistakes_by_epoch").rows) >= len(rows)


def test_the_picture_of_losses_counts_what_lies_within(notebook: Analysis, made: Section) -> None:
    """Its words say of each network how many of the printed losses lie between the lowest and the highest run."""
    picture = made.pictures["printed-losses"]
    assert picture
    frame = replication.places(notebook).query("response != 'test_accuracy' and mode == 'as it ran'")
    for name, rows in frame.groupby("name"):
        inside = len(rows) - int(rows["outside"].sum())
        assert f"{name} {inside if inside == len(rows) else f'{inside} of {len(rows)}'}" in picture.alt
