"""What a run costs."""

import time
from dataclasses import replace
from typing import get_args

import pytest

from mnist_ablate.design.plan import Run
from mnist_ablate.design.responses import Probe
from mnist_ablate.design.settings import Settings
from mnist_ablate.training import estimate, probes

RUN = Run("s", "c", (), 0, Settings(epochs=1, width=4, batch_size=100), "fused")


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        ({"epochs": 1}, {"epochs": 2}),
        ({"width": 4}, {"width": 8}),
        ({"depth": 1}, {"depth": 2}),
        ({"batch_size": 100}, {"batch_size": 50}),
        ({"train_images": 1000}, {"train_images": 2000}),
        ({"epoch_steps": 10}, {"epoch_steps": 20}),
    ],
)
def test_cost_grows_with_the_work(cheap: dict[str, int], dear: dict[str, int]) -> None:
    """More epochs, wider and deeper networks, smaller batches, and more images or steps cost more."""
    costs = [estimate.cost(replace(RUN, settings=RUN.settings.model_copy(update=changes))) for changes in (cheap, dear)]
    assert 0 < costs[0] < costs[1]


def test_estimate_counts_runs_and_epochs() -> None:
    """The estimate is that of a trial of each cell, times the epochs and the runs."""
    one = estimate.core_seconds([RUN])
    many = estimate.core_seconds([replace(RUN, seed=seed) for seed in range(1000)])
    assert 0 < one < many
    assert estimate.core_seconds([]) == 0


def test_estimate_counts_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of the test images are scaled to all of them, those between epochs are taken once in each."""
    now = [0.0]

    def takes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(probes, "moments", lambda *_: takes(1))
    monkeypatch.setattr(probes, "look", lambda names, _: takes({"removal": 0.01, "weights": 2}[names[0]]))
    run = replace(RUN, settings=Settings(epochs=3, width=4, batch_size=100))
    probed = replace(run, probes=("preactivations", "removal", "weights"))
    without = estimate.core_seconds([run])
    # 3 epochs; 10,000 test images, of which the trial has 500; once.
    assert estimate.core_seconds([probed]) == pytest.approx(without + 3 * 1 + 20 * 0.01 + 2)


def test_estimate_takes_real_probes() -> None:
    """Every probe can be tried on the trial's network, of any kind that has them."""
    every = get_args(Probe)
    for settings in (RUN.settings, Settings(epochs=1, width=8, dropout=0.2, batch_norm=True)):
        plain = replace(RUN, settings=settings)
        assert estimate.core_seconds([replace(plain, probes=every)]) > 0
