"""What a process that trains does."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.training import worker
from mnist_ablate.training.protocol import RunResult, _flushes_subnormals, steady_arithmetic, train

RUN = Run("s", "c", (), 0, Settings(epochs=1, width=4, batch_size=100), "fused")


def test_a_run_comes_with_what_made_it(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides its rows and predictions a run has its provenance and digests, and those are its own."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    rows, predictions, document = worker.train_one(RUN)
    result = train(RUN, small)
    assert rows[0]["val_loss"] == result.rows[0]["val_loss"]
    assert (predictions["prediction"] == result.predictions["prediction"]).all()
    assert document["weights_sha256"] == result.weights_sha256
    assert document["first_losses"] == result.first_losses
    assert document["data_sha256"] == small.sha256
    assert document["provenance"]["engine"] == "fused"


def test_what_made_a_run_is_known_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be told what makes a run, nothing is trained."""
    monkeypatch.setattr(worker, "provenance", lambda: 1 / 0)
    monkeypatch.setattr(worker, "train", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(ZeroDivisionError):
        worker.train_one(RUN)


def test_a_thread_of_a_pool_trains_as_the_main_one_does(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pool's thread, too, a run has one thread, and its mode for subnormal numbers in that very thread."""
    seen = []

    def looking(run: Run, images: Images) -> RunResult:
        with steady_arithmetic("autograd"):
            seen.append((threading.current_thread().name, torch.get_num_threads(), _flushes_subnormals()))
        return train(run, images)

    monkeypatch.setattr(worker, "train", looking)
    monkeypatch.setattr(worker, "_images", lambda _: small)
    before = torch.get_num_threads(), _flushes_subnormals()
    with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
        _, _, document = pool.submit(worker.train_one, RUN).result()
    assert seen == [("pool_0", 1, True)]
    assert (torch.get_num_threads(), _flushes_subnormals()) == before
    assert document["weights_sha256"] == train(RUN, small).weights_sha256


def test_one_run_at_a_time_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of one process wait for each other: a run ends before the next one begins."""
    inside, most = [], []

    def slow(run: Run, _: object) -> RunResult:
        inside.append(run)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(run)
        raise ValueError("planted")

    monkeypatch.setattr(worker, "train", slow)
    monkeypatch.setattr(worker, "_images", lambda _: None)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(worker.train_one, RUN) for _ in range(8)]
    assert all(isinstance(future.exception(), ValueError) for future in futures)
    assert most == [1] * 8


def test_a_nudged_run_says_so(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose initial weights were moved is not to be taken for the run itself: its document has the nudge."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    assert worker.train_one(RUN, 2)[2]["nudge"] == 2
    assert worker.train_one(RUN, 2)[2]["weights_sha256"] == train(RUN, small, nudge=2).weights_sha256
    assert "nudge" not in worker.train_one(RUN)[2]


def test_weights_go_out_and_come_back(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final weights of a run, evaluated, give its accuracy and its predictions."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    numbers, said = worker.evaluate(RUN, worker.final_weights(RUN))
    rows, predictions, _ = worker.train_one(RUN)
    assert numbers["test_accuracy"] == rows[-1]["test_accuracy"]
    assert (said == predictions["prediction"]).all()
