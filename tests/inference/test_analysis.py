"""The analysis computes each part once, and its parts are those of the modules below it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import synthetic

from mnist_ablate.inference import measured, test_images, verdicts
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.store.results import Results


@pytest.fixture
def results() -> Results:
    """Return 8 cells x 6 seeds x 2 epochs."""
    return synthetic.results(synthetic.factorial(6, 2))


def test_an_analysis_is_made_once(results: Results) -> None:
    """What is analysed already keeps what it has computed."""
    analysis = analyse(results)
    assert analyse(analysis) is analysis
    assert isinstance(analysis, Analysis)


def test_each_part_is_computed_once(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks twice for tables, effects and verdicts: each response and epoch is measured once."""
    asked: list[tuple[str, ...]] = []
    seed_table, judge = measured.seed_table, verdicts.judge

    def spy(function: Callable[..., Any], *arguments: Any) -> Any:
        asked.append(tuple(map(str, arguments[1:])) if function is seed_table else ("judge",))
        return function(*arguments)

    monkeypatch.setattr(measured, "seed_table", partial(spy, seed_table))
    monkeypatch.setattr(verdicts, "judge", partial(spy, judge))
    analysis = analyse(results)
    for _ in range(2):
        for response in ("test_accuracy", "gap"):
            assert len(analysis.cells(response)) == 8
            assert len(analysis.effects(response)) == 10
        assert len(analysis.effects_by_epoch()) == 6
        assert analysis.judgements == analysis.judgements
    assert len(set(asked)) == len(asked)
    assert {("test_accuracy", "None"), ("gap", "None"), ("test_accuracy", "1"), ("judge",)} < set(asked)


def test_without_predictions_there_is_nothing_on_images(results: Results) -> None:
    """Planted results have no predictions: what is about test images is None, and the rest is there."""
    analysis = analyse(results)
    assert analysis.two_way is analysis.confusions is analysis.always_wrong is analysis.error_counts is None
    assert test_images.confusions(results) is None
    assert len(analysis.effects()) == 10
