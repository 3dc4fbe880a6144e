"""torch on a graphics card, where there is none: the processor stands in for the card, and torch's answers are planted.

What a card computes, and how fast, is not seen here.
"""

import os
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import DeviceError, TrainingError
from mnist_ablate.training import cuda, worker
from mnist_ablate.training.engines.autograd import AutogradEngine
from mnist_ablate.training.protocol import train, try_out

STAND_IN = "cpu:0"
"""The processor by another name, which takes the way of a device that is not the processor."""


class Own(nn.Module):
    """A model that draws from torch's own generator, and notes how torch was set."""

    seen: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 8), nn.Dropout(0.5), nn.Linear(8, 10))
        Own.seen = []

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        cudnn = torch.backends.cudnn
        Own.seen.append((
            torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.get_float32_matmul_precision(),
        ))  # fmt: skip
        logits: Tensor = self.layers(x)
        return logits


def build(_settings: Settings, _seed: int) -> nn.Module:
    """Return the model."""
    return Own()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run of a model of one's own."""
    monkeypatch.setattr("mnist_ablate.training.engines.autograd.own_function", lambda *_: build)
    settings = Settings(model="planted:build", epochs=2, batch_size=100, validation_fraction=0.2)
    return Run("s", "c", (), 0, settings, "autograd")


@pytest.fixture(autouse=True)
def _settings_as_before() -> Iterator[None]:
    """Find torch's settings as they were after each test."""
    cudnn = torch.backends.cudnn

    def settings() -> tuple[Any, ...]:
        return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    before = settings()
    yield
    assert settings() == before


def changed(run: Run, **settings: Any) -> Run:
    """Return the run with other settings."""
    return replace(run, settings=run.settings.model_copy(update=settings))


@pytest.mark.parametrize("change", [{}, {"learning_rate": 1e30}, {"model": "", "dropout": 0.5, "width": 8}])
def test_a_device_takes_the_same_course(run: Run, small: Images, change: dict[str, Any]) -> None:
    """Same weights to begin with, same batches, same masks: on a device that is the processor, a run is the same.

    A run that diverges takes more steps there, since nobody looks at each loss, and ends with the same rows.
    """
    run = changed(run, **change)
    there, here = train(run, small, device=STAND_IN), train(run, small)
    assert there.weights_sha256 == here.weights_sha256
    assert there.first_losses == pytest.approx(here.first_losses, rel=0, abs=0, nan_ok=True)
    rows = [[{k: v for k, v in row.items() if "seconds" not in k} for row in result.rows] for result in (there, here)]
    assert str(rows[0]) == str(rows[1])  # NaN is not equal to itself
    assert (there.rows[-1]["status"] == "diverged") == ("learning_rate" in change)


def test_torch_is_told_to_be_steady(run: Run, small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device torch takes deterministic operations in full float32 alone; on processors nothing of it is set."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    train(run, small)
    assert {steady for steady, *_ in Own.seen} == {False}
    train(run, small, device=STAND_IN)
    assert set(Own.seen) == {(True, ":4096:8", False, True, False, "highest")}


def test_each_run_has_its_own_state_of_the_cards_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model draws on a card depends on its own draws alone, whatever else draws there in between."""
    state = [torch.tensor(0)]

    def draw() -> int:
        state[0] = state[0] + 1
        return int(state[0])

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: state[0])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda new, *_: state.__setitem__(0, new))
    monkeypatch.setattr("mnist_ablate.training.engines.autograd.torch.random.fork_rng", _ForkOfNone)
    engine = AutogradEngine(Settings(width=4), 0)
    engine._device = torch.device("cuda")
    drawn = []
    for _ in range(3):
        with engine._own_chance():
            drawn.append(draw())
        state[0] = torch.tensor(1000)
    assert drawn == [1, 2, 3]


class _ForkOfNone:
    """In place of torch's fork of generators, which would ask for a card."""

    def __init__(self, devices: list[torch.device]) -> None:
        assert [device.type for device in devices] == ["cuda"]

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def plant(monkeypatch: pytest.MonkeyPatch, *, built: bool = True, available: bool = True, warns: str = "") -> None:
    """Let torch say that it has a card, or not."""

    def is_available() -> bool:
        if warns:
            warnings.warn(warns, stacklevel=1)
        return available

    monkeypatch.setattr(torch.version, "cuda", "13.0" if built else None)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test card")


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"built": False}, r"torch is built without CUDA\. Install a torch that has it, or take --device cpu"),
        ({"available": False}, r"torch finds no card\. See what nvidia-smi says .*, or take --device cpu"),
        ({"available": False, "warns": "The driver is too old\nmore"}, r"no card \(The driver is too old\)\. See"),
    ],
)
def test_why_torch_has_no_card(planted: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch without CUDA, no card, and a driver that torch warns of: each is one sentence with a remedy."""
    plant(monkeypatch, **planted)
    with pytest.raises(DeviceError, match=words):
        cuda.check()


def test_the_card_is_in_the_provenance(run: Run, small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run records device, card and CUDA; on a processor it records none of them."""
    with monkeypatch.context() as patch:
        plant(patch)
        about = cuda.check()
    assert about == {"device": "cuda", "card": "Test card", "cuda": "13.0"}
    monkeypatch.setattr(cuda, "check", lambda: about)
    monkeypatch.setattr(worker, "_images", lambda _: small)
    run = changed(run, model="")
    provenance = worker.train_one(run, device=STAND_IN)[2]["provenance"]
    assert about.items() <= provenance.items()
    assert {"device", "card", "cuda"} & set(worker.train_one(run)[2]["provenance"]) == set()


def test_how_many_runs_share_a_card(run: Run, small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit by what one takes, which a step and some evaluations show; one in any case."""
    tried: list[str] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2**30)

    def one() -> None:
        try_out(run, small, STAND_IN)
        tried.append("yes")

    assert cuda.room(one) == 8 * 2**30 // (2**30 + cuda._CONTEXT) == 5
    assert tried
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2**40)
    assert cuda.room(one) == 1

    def full() -> None:
        raise MemoryError("the card's memory is full: tried to allocate 80.00 GiB")

    with pytest.raises(DeviceError, match=r"is full: .*80\.00 GiB\. End what else .*, or take --device cpu"):
        cuda.room(full)

    def broken() -> None:
        raise ValueError("of the user's")

    assert cuda.room(broken) == 1


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError, "memory is full: CUDA out of memory$"),
        (
            RuntimeError("put_ does not have a deterministic implementation, but you set"),
            TrainingError,
            r"^put_ gives other bits each time on a card\. Replace it in your model, or take --device cpu\.$",
        ),
        (type("AcceleratorError", (RuntimeError,), {})("CUDA error: assert"), RuntimeError, "^CUDA error: assert$"),
        (ValueError("of the user's"), ValueError, "of the user's"),
    ],
)
def test_errors_of_a_card(raised: Exception, kind: type[Exception], words: str) -> None:
    """What torch raises on a card reaches a process without torch, and names cause and remedy."""
    with pytest.raises(kind, match=words) as caught, cuda.steady():
        raise raised
    assert type(caught.value) is kind
    sent = kind(*caught.value.args)  # what it came of stays behind, also where another library pickles that
    assert b"torch" not in pickle.dumps(sent)
