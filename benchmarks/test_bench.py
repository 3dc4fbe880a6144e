"""Micro-benchmarks: ``nox -s bench``; arguments after -- go to pytest, such as ``-k step``.

Real MNIST, one thread, the arithmetic of a run. Not part of the test suite: nothing here fails for being slow.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from growth_stub import train_one
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import EngineName, Run, plan
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import permutation, stream, words16
from mnist_ablate.design.study import load_study
from mnist_ablate.report import write as write_report
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.training.engines import Engine, make_engine
from mnist_ablate.training.protocol import evaluate, steady_arithmetic, train

CELLS = {"baseline": Settings(epochs=1), "all-on": Settings(epochs=1, l2=1e-5, dropout=0.2, batch_norm=True)}
EVALUATED = 32_000
"""Images that a run evaluates after each epoch: 12,000 for validation, 10,000 for testing, 10,000 of training."""


@pytest.fixture(scope="module")
def mnist() -> Images:
    """Open MNIST, fetched if it is missing."""
    data.fetch("mnist")
    return data.load("mnist")


@pytest.fixture(scope="module")
def training(mnist: Images) -> tuple[Tensor, Tensor]:
    """Return images and labels to train on, as engines take them."""
    return torch.from_numpy(mnist.train_images), torch.from_numpy(mnist.train_labels.astype(np.int64))


@pytest.fixture(scope="module")
def batches() -> tuple[Tensor, ...]:
    """Return the 750 batches of an epoch."""
    order = permutation(stream(0, "bench"), 60_000)[:48_000]
    return torch.split(torch.from_numpy(order), Settings().batch_size)


@pytest.fixture(scope="module", params=["autograd", "fused"])
def engine_name(request: pytest.FixtureRequest) -> Iterator[EngineName]:
    """Yield each engine, the fused one if Numba is installed, with the arithmetic of its runs."""
    name: EngineName = request.param
    if name == "fused":
        pytest.importorskip("numba")
    with steady_arithmetic(name):
        yield name


@pytest.fixture(scope="module", params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    """Return the cell without techniques, and the one with all."""
    return str(request.param)


@pytest.fixture(scope="module")
def trained(engine_name: EngineName, cell: str, training: tuple[Tensor, Tensor], batches: tuple[Tensor, ...]) -> Engine:
    """Return an engine after an epoch, which has as many zeros and small numbers as it will have later."""
    engine = make_engine(engine_name, CELLS[cell], seed=0)
    engine.train(*training, batches)
    return engine


def test_step(
    benchmark: BenchmarkFixture, trained: Engine, training: tuple[Tensor, Tensor], batches: tuple[Tensor, ...]
) -> None:
    """A step of training on a batch of 64, from the second epoch on."""
    batch = itertools.cycle(batches)
    (loss,) = benchmark(lambda: trained.train(*training, [next(batch)]))
    assert math.isfinite(loss)


def test_evaluation(benchmark: BenchmarkFixture, trained: Engine, training: tuple[Tensor, Tensor]) -> None:
    """Evaluation of as many images as a run evaluates after each epoch."""
    assert benchmark(evaluate, trained, *training, torch.arange(EVALUATED)).accuracy > 0.9


def test_epoch(benchmark: BenchmarkFixture, engine_name: EngineName, cell: str, mnist: Images) -> None:
    """A run of one epoch: split, 750 steps, all evaluations."""
    run = Run("bench", cell, (), 0, CELLS[cell], engine_name)
    result = benchmark.pedantic(train, (run, mnist), rounds=3)  # type: ignore[no-untyped-call]
    assert len(result.rows) == 1


@pytest.mark.parametrize("way", ["by_lists", "whole"])
def test_hidden_layer(benchmark: BenchmarkFixture, way: str) -> None:
    """The products of a hidden layer, forward and backward, and the update of its weights, in the two ways."""
    fused, trial = (pytest.importorskip(f"mnist_ablate.training.engines.{name}") for name in ("fused", "trial"))
    layer, rule = fused._typical(), fused._plain_adam()
    trial.active(layer)
    benchmark(getattr(trial, way), layer, rule)
    assert np.isfinite(layer.z).all()


def test_dropout_words(benchmark: BenchmarkFixture) -> None:
    """The random words for the dropout of one hidden layer in one step."""
    assert benchmark(words16, stream(0, "bench"), (64, 256)).shape == (1, 64, 256)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 80 runs of the factorial study, as large as real ones."""
    study = load_study("factorial")
    with Store(tmp_path_factory.mktemp("finished")).opened(study) as folder:
        for run in plan(study):
            folder.write_run(run, *train_one(run))
    return folder.folder


def test_store_write(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Writing a run of 5 epochs with the predictions for 10,000 images, both flushed to the disk."""
    study = load_study("factorial")
    run = plan(study)[0]
    with Store(tmp_path).opened(study) as folder:
        benchmark(folder.write_run, run, *train_one(run))
        assert folder.stored() == [run.run_id]


def test_store_load(benchmark: BenchmarkFixture, finished: Path) -> None:
    """Loading 80 runs."""
    assert len(benchmark(load, finished).documents) == 80


def test_report(benchmark: BenchmarkFixture, finished: Path, tmp_path: Path) -> None:
    """The report of 80 loaded runs."""
    assert benchmark(write_report, load(finished), tmp_path).html.exists()
