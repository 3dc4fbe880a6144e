"""Level by level: limits, spread over levels, and speed."""

from typing import Any

import synthetic

from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report.format import estimate, interval
from mnist_ablate.report.sections.levels import section, speed, summaries

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
    analysis = analyse(synthetic.results(
        parse_study(LIMITS),
        val_accuracy=lambda run: 0.95 if run.settings.learning_rate < limit[run.settings.batch_norm] else 0.1,
    ))  # fmt: skip
    (table,) = summaries(analysis)
    assert [(row["others"], row["level"]) for row in table.rows] == [
        ("without BatchNorm", "0.01"),
        ("BatchNorm", "0.1"),
    ]
    assert table.headings["level"] == "Highest learning rate that trains, median"
    assert table.name == "highest-learning_rate"
    assert analysis.speed is not None
    rows = speed(analysis.speed).rows
    assert {row["median"] for row in rows} == {"> 5"}
    assert {row["reached"] for row in rows} == {"0 of 3"}
    made = section(analysis)
    assert made
    assert list(made.tables) == ["highest-learning_rate", "speed"]


def test_the_spread_over_levels_is_shown_with_its_interval() -> None:
    """A geometric mean has the digits of its interval, beside the spread from seeds alone."""
    spread = LIMITS["hypotheses"][0] | {"summary": "log_sd", "response": "test_accuracy"}
    study = parse_study(LIMITS | {"hypotheses": [spread]})
    analysis = analyse(synthetic.results(
        study, test_accuracy=lambda run: 0.9 + run.settings.learning_rate * (run.seed + 1) / 50
    ))  # fmt: skip
    (table,) = summaries(analysis)
    ((_, frame),) = analysis.over_levels
    for row, (_, numbers) in zip(table.rows, frame.iterrows(), strict=True):
        assert row["mean"] == estimate(numbers["mean"], numbers["low"], numbers["high"], sign=False)
        assert row["mean_interval"] == interval(numbers["low"], numbers["high"], sign=False)
