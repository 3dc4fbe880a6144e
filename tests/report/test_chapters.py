"""Parts of the page that only some studies have: their tables and sentences, and that they come from the numbers."""

from typing import Any

import pytest
import synthetic

from mnist_ablate.design.plan import Run
from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference import levels
from mnist_ablate.notebook import replication
from mnist_ablate.report import chapters
from mnist_ablate.report.words import number
from mnist_ablate.store.results import Results

SEEDS = 7


def accuracy(run: Run) -> float:
    """Give an accuracy that depends on technique, mistake and seed."""
    s = run.settings
    worse = 0.006 * (s.evaluation == "train") * (1 + s.batch_norm)
    return (
        0.97 + 0.002 * bool(s.dropout) + 0.004 * s.batch_norm - worse + (run.seed * (3 + s.batch_norm) % SEEDS) / 1000
    )


@pytest.fixture(scope="module")
def notebook() -> Results:
    """Return planted results of the notebook's study."""
    return synthetic.results(load_study("notebook").with_options(seeds=SEEDS), test_accuracy=accuracy)


def test_every_printed_number_has_its_row(notebook: Results) -> None:
    """The tables have four accuracies, the losses of the epochs that there are, and the numbers of their frames."""
    tables = chapters.replication_tables(notebook)
    assert len(tables["printed_accuracies"].rows) == 4
    assert len(tables["printed_losses"].rows) == 8  # of the one epoch, the last, two losses in four networks
    frame = replication.places(notebook).query("response == 'test_accuracy' and mode == 'mended'")
    by_name = synthetic.records(frame, "name")
    for row in tables["printed_accuracies"].rows:
        numbers = by_name[row["number"].partition(",")[0]]
        assert row["printed"] == number(numbers["printed"])
        assert row["mended mean"] == f"{number(numbers['mean'])} ({number(numbers['sd'])})"
    for table in tables.values():
        assert all(list(row) == list(table.headings) and all(row.values()) for row in table.rows)
    assert len({table.name for table in tables.values()}) == len(tables)


def test_words_have_the_numbers_of_the_tables(notebook: Results) -> None:
    """Each mode has a sentence that counts what lies outside, and one with the shares of the rankings."""
    outside, _, ran, mended = chapters.replication_words(notebook)
    frame = replication.places(notebook).query("mode == 'as it ran'")
    assert f"{len(frame) - int(frame['outside'].sum())} lie within what {SEEDS} runs" in outside
    shares = replication.rankings(notebook).set_index(["mode", "ranking"])["share"]
    assert f"in {number(100 * shares['as it ran', 'printed'], 1)} %" in ran
    assert f"in {number(100 * shares['mended', 'separable'], 1)} %" in mended


def test_mistakes_are_tabulated_for_all_their_numbers(notebook: Results) -> None:
    """The planted cost of train mode is in the table, in points."""
    table = chapters.replication_tables(notebook)["notebook_mistakes"]
    costs = {row["who"]: row["estimate"] for row in table.rows if "accuracy" in row["number"]}
    assert costs["dropout, evaluated in train mode"] == number(-0.6, sign=True)
    assert costs["BatchNorm, evaluated in train mode"] == number(-1.2, sign=True)


def test_other_studies_have_no_such_parts() -> None:
    """Without the notebook's cells, parts of chance, limits, speed or probes, there is nothing of them."""
    results = synthetic.results(parse_study({"name": "s", "seeds": 2, "factors": {"width": [16, 32]}}))
    assert chapters.replication_tables(results) == {}
    assert chapters.replication_words(results) == []
    assert chapters.variance_table(results) is None
    assert chapters.variance_words(results) == ""
    assert chapters.limits_tables(results) == []
    assert chapters.speed_table(results) is None
    assert chapters.probe_table(results) is None


def test_variance_in_words_and_table() -> None:
    """The sentence has the shares of the table, the greatest first; without any spread it says so."""
    study = load_study("variance").with_options(seeds=SEEDS)
    results = synthetic.results(
        study, test_accuracy=lambda run: accuracy(run) + run.settings.init_seed * run.seed / 1e4
    )
    table, frame = chapters.variance_table(results), levels.components(results)
    assert table
    assert [row["sd"] for row in table.rows] == [number(sd, 3) for sd in frame["sd"]]
    first = frame[:-1].sort_values("share", ascending=False).iloc[0]
    assert f"runs: {first['source']} {number(100 * first['share'], 0)} %" in chapters.variance_words(results)
    assert "no spread" in chapters.variance_words(synthetic.results(study))


LIMITS: dict[str, Any] = {
    "name": "s",
    "seeds": 3,
    "protocol": {"epoch_steps": 50},
    "factors": {"batch_norm": [False, True], "learning_rate": [0.01, 0.1, 1.0]},
    "hypotheses": [
        {"id": "a", "statement": "-", "response": "val_accuracy", "over": "learning_rate", "effect": "batch_norm"}
        | {"summary": "highest", "kind": "increase", "smallest": 0.5}
    ],
}


def test_limits_and_censored_times_are_shown() -> None:
    """The level itself is shown, not its place in the grid; a time that no run reaches is above the last epoch."""
    limit = {False: 0.05, True: 0.5}
    results = synthetic.results(
        parse_study(LIMITS),
        val_accuracy=lambda run: 0.95 if run.settings.learning_rate < limit[run.settings.batch_norm] else 0.1,
    )
    (table,) = chapters.limits_tables(results)
    assert [row["level"] for row in table.rows] == ["0.01", "0.1"]
    speed = chapters.speed_table(results)
    assert speed
    assert {row["median"] for row in speed.rows} == {"> 5"}
    assert {row["reached"] for row in speed.rows} == {"0 of 3"}


def test_probes_count_the_seeds_that_they_have() -> None:
    """A run without numbers takes its seed out of the effects on them, and the table says so."""
    study = parse_study({"name": "s", "seeds": 5, "probes": ["weights"], "factors": {"dropout": [0.0, 0.2]}})
    results = synthetic.results(study)
    for i, document in enumerate(results.documents.values()):
        document["probes"] = {"weights": dict.fromkeys(PROBES["weights"], None if i == 0 else float(i))}
    table = chapters.probe_table(results)
    assert table
    assert [row["n"] for row in table.rows] == ["4 of 5", "4 of 5"]
    assert table.rows[0]["what"] == "log of the weights' norm, log ratio"
