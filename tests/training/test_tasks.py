"""What workers are asked to do."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.training import tasks, worker

RUN = Run("s", "c", (), 0, Settings(epochs=1, width=4, batch_size=100), "fused")


@pytest.fixture(autouse=True)
def _small_images(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train on small images."""
    monkeypatch.setattr(worker, "_images", lambda _: small)


def loaded(code: str, *modules: str) -> list[str]:
    """List which of `modules` a new process has loaded after `code`."""
    code = f"{code}; import sys; print(*(name for name in {modules!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return done.stdout.split()


def test_a_worker_starts_with_little() -> None:
    """What a worker loads before it trains has neither torch nor what only drivers and reports need."""
    code = "import mnist_ablate.training.tasks, mnist_ablate.execution.executors, mnist_ablate.design.study"
    assert loaded(code, "torch", "pandas", "pyarrow", "scipy", "matplotlib", "joblib") == []


def test_what_trains_loads_torch_alone() -> None:
    """To train, a worker loads torch, and still nothing that only drivers and reports need."""
    modules = "torch", "pandas", "pyarrow", "matplotlib", "joblib"
    assert loaded("import mnist_ablate.training.worker", *modules) == ["torch"]


def test_a_driver_reads_results_without_torch(tmp_path: Path) -> None:
    """What comes back from a worker is plain: to unpickle it loads no torch, for which both would wait."""
    answer = tmp_path / "answer"
    answer.write_bytes(pickle.dumps(tasks.train_one(RUN)))
    assert loaded(f"import pickle; pickle.load(open({str(answer)!r}, 'rb'))", "torch", "numpy") == ["numpy"]


def test_the_nudge_is_handed_on() -> None:
    """A task trains as `worker.train_one` does, nudge included."""
    assert tasks.train_one(RUN, 2)[2]["weights_sha256"] == worker.train_one(RUN, 2)[2]["weights_sha256"]
    assert tasks.train_one(RUN, 2)[2]["weights_sha256"] != tasks.train_one(RUN)[2]["weights_sha256"]


def test_a_network_that_does_not_fit_says_nothing() -> None:
    """Weights of another shape are evaluated to nothing, which the gate's golden level takes for a failure."""
    weights = tasks.final_weights(RUN)
    numbers, predictions = tasks.evaluate_or_nothing(RUN, weights)
    assert numbers["test_accuracy"] == 100 * worker.train_one(RUN)[0][-1]["test_accuracy"]
    assert len(predictions) == 100
    for wrong in ({}, {name: values[..., :1] for name, values in list(weights.items())[:1]}):
        assert tasks.evaluate_or_nothing(RUN, wrong)[0] == {}
