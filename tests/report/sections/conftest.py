"""Results that the tests of several sections read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import synthetic

from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.store.results import load


def predict(run: Run) -> dict[str, Any]:
    """Predict the same 40 images in all runs: the last two are always wrong, the first in odd seeds."""
    labels = np.arange(40, dtype=np.uint8) % 10
    said = labels.copy()
    said[38:] = (said[38:] + 1) % 10
    said[0] = run.seed % 2
    return {"test_index": np.arange(40, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(40, 0.5, np.float32)}  # fmt: skip


@pytest.fixture(scope="session")
def answers() -> Callable[[Run], dict[str, Any]]:
    """Return the planted predictions of a run."""
    return predict


@pytest.fixture(scope="session")
def pair() -> Study:
    """Return a study of dropout alone: 2 cells x 3 seeds x 2 epochs."""
    return parse_study({"name": "pair", "seeds": 3, "protocol": {"epochs": 2}, "factors": {"dropout": [0.0, 0.2]}})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Analyse the factorial study with 7 seeds, and predictions of the same images."""
    folder = tmp_path_factory.mktemp("whole")
    return analyse(load(synthetic.make(folder, synthetic.factorial(7, 2), answers=predict)))


@pytest.fixture(scope="session")
def holed(tmp_path_factory: pytest.TempPathFactory, pair: Study) -> Analysis:
    """Analyse 3 seeds of two cells: one run missing, one diverged."""
    folder, gone, lost = tmp_path_factory.mktemp("holed"), [("dropout", 0)], [("dropout", 1)]
    return analyse(load(synthetic.make(folder, pair, missing=gone, diverged=lost, answers=predict)))


@pytest.fixture(scope="session")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Analyse one of two cells, with one seed and one epoch."""
    study = {"name": "poor", "seeds": 1, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.2]}}
    folder, gone = tmp_path_factory.mktemp("poor"), [("dropout", 0)]
    return analyse(load(synthetic.make(folder, parse_study(study), missing=gone, answers=predict)))
