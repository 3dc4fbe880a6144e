"""Where the spread between runs comes from: the sentence has the shares of the table."""

import pytest
import synthetic

from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report.format import MINUS, NOTHING, number
from mnist_ablate.report.sections.variance import shares, table

SEEDS = 7


def test_variance_in_words_and_table() -> None:
    """The sentence has the shares of the table, the greatest first; without any spread it says so."""
    study = synthetic.bundled("variance", SEEDS)
    analysis = analyse(synthetic.results(
        study,
        test_accuracy=lambda run: 0.97 + (run.seed * 3 % SEEDS) / 1000 + run.settings.init_seed * run.seed / 1e4,
    ))  # fmt: skip
    frame = analysis.components
    assert frame is not None
    for row, (_, numbers) in zip(table(analysis).rows, frame.iterrows(), strict=True):
        assert float(row["sd"]) == round(numbers["sd"], len(row["sd"].partition(".")[2]))
        assert float(row["share"].replace(MINUS, "-")) == pytest.approx(100 * numbers["share"], abs=0.05)
    assert [row["share_interval"] == NOTHING for row in table(analysis).rows] == [*[False] * 6, True]
    first = frame[:-1].sort_values("share", ascending=False).iloc[0]
    assert f"runs: {first['source']} {number(100 * first['share'], 0)} %" in shares(analysis)
    assert "No true share" not in shares(analysis)
    vars(analysis)["components"] = frame.assign(share=2 * frame["share"] - 0.5)
    assert f"No true share is below 0 or above 100 %: {SEEDS} seeds say little about such a part." in shares(analysis)
    assert "no spread" in shares(analyse(synthetic.results(study)))
