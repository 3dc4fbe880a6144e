"""The engines: one interface, the same streams, the same losses; the gradients by hand are the right ones."""

import itertools
import re
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.data import Images, Sizes
from mnist_ablate.design.plan import EngineName, Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines import make_engine
from mnist_ablate.training.engines.autograd import AutogradEngine
from mnist_ablate.training.engines.fused import FusedEngine
from mnist_ablate.training.model import mlp
from mnist_ablate.training.protocol import RunResult, steady_arithmetic, train

ON: dict[str, Any] = {"l2": 1e-3, "dropout": 0.2, "batch_norm": True}
COMBINATIONS = [dict(chosen) for n in range(4) for chosen in itertools.combinations(ON.items(), n)]
AFTER: dict[str, Any] = {"norm_place": "after", "dropout": 0.3}
SETTINGS: list[dict[str, Any]] = [
    *COMBINATIONS,
    *({"width": width} for width in (5, 37, 70, 300)),  # 5 is less than a block of the kernels; others leave a rest
    *({"width": width, **ON} for width in (37, 70, 300)),
    *({"depth": depth, "width": 37, **ON} for depth in (1, 3)),
    {"batch_size": 1, "width": 5, "dropout": 0.5},
    {"optimiser": "sgd", "learning_rate": 0.1},
    {"optimiser": "sgd", "learning_rate": 0.1, "l2": 1e-2, "l1": 1e-3},
    {"optimiser": "adamw", "l2": 0.1},
    {"l1": 1e-3},
    {"input_dropout": 0.3},
    {"norm": "layer"},
    {"norm": "group"},
    {"norm": "layer", **AFTER},
    {"norm": "group", **AFTER},
    {"batch_norm": True, **AFTER},
    {"batch_norm": True, **AFTER, "dropout_place": "after"},
    {"batch_norm": True, "shared_norm": True, "dropout": 0.3},
    {"batch_norm": True, "shared_norm": True, "norm_place": "after"},
    {"evaluation": "train", "dropout": 0.2, "input_dropout": 0.1},
    {"evaluation": "train", "batch_norm": True},
    {"evaluation": "train", "batch_norm": True, "shared_norm": True},
]
"""Every setting of a network and of its training, alone and with those that it meets in the kernels."""


def named(settings: dict[str, Any]) -> str:
    """Return a name for a test."""
    return "-".join(f"{name}={value}" for name, value in settings.items()) or "baseline"


def tensors(images: Images) -> tuple[Tensor, Tensor]:
    """Return the training images and labels as engines take them."""
    return torch.from_numpy(images.train_images), torch.from_numpy(images.train_labels.astype(np.int64))


def batches(n: int, size: int = 20) -> list[Tensor]:
    """Return `n` batches of rows, the last one short."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 500, (size,), generator=generator) for _ in range(n)]
    return [*drawn[:-1], drawn[-1][: max(size - 3, 1)]]


def in_float64(settings: Settings) -> AutogradEngine:
    """Return autograd's engine, made to compute in float64.

    The gradient of a bias before batch normalisation is 0. Autograd's is rounding error, so it is set to 0.
    """
    engine = AutogradEngine(settings, 3)
    engine.model = mlp(settings, 3).double()
    kind: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimiser]
    engine.optimiser = kind(engine.model.parameters(), lr=settings.learning_rate, weight_decay=settings.l2)
    for name, parameter in engine.model.named_parameters():
        if settings.batch_norm and settings.norm_place == "before" and re.fullmatch(r"linear\d\.bias", name):
            parameter.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
    return engine


@pytest.fixture
def _double_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the autograd engine scale pixels in float64."""
    monkeypatch.setattr(
        "mnist_ablate.training.engines.autograd.pixels", lambda images, rows: images[rows].to(torch.float64).div_(255)
    )


@pytest.fixture(params=[False, True], ids=["dense", "listed"])
def listed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let hidden layers multiply whole matrices, or list what is active."""
    monkeypatch.setattr(FusedEngine, "_lists", lambda _: request.param)
    return bool(request.param)


@pytest.mark.usefixtures("_double_pixels", "listed")
@pytest.mark.parametrize("on", SETTINGS, ids=named)
def test_training_is_that_of_autograd(on: dict[str, Any], small: Images) -> None:
    """In float64, losses of 30 steps, Adam's means of gradients, weights and evaluations are those of autograd to 1e-9.

    Adam hides a gradient that is too large by a factor; its means do not. Group normalisation after ReLU has groups
    with almost no variance, whose rounding doubles with every step.
    """
    settings = Settings(**{"width": 40, "batch_size": 20} | on)
    images, labels = tensors(small)
    drawn = batches(10 if settings.norm == "group" and settings.norm_place == "after" else 30, settings.batch_size)
    torchs, ours = in_float64(settings), FusedEngine(settings, 3, np.float64)
    assert ours.train(images, labels, drawn) == pytest.approx(torchs.train(images, labels, drawn), rel=0, abs=1e-9)
    rows = torch.arange(450)
    expected, found = (engine.answers(images, labels, rows, settings.batch_size) for engine in (torchs, ours))
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.confidences, expected.confidences, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    expected_weights: dict[str, Any] = torchs.weights()
    for name, values in ours.weights().items():
        np.testing.assert_allclose(expected_weights[name], values.astype(float), rtol=0, atol=1e-9, err_msg=name)
    if settings.optimiser != "sgd":
        for parameter, mean in zip(torchs.model.parameters(), means_of_gradients(ours), strict=True):
            np.testing.assert_allclose(mean, torchs.optimiser.state[parameter]["exp_avg"].numpy(), rtol=0, atol=1e-9)


def means_of_gradients(engine: FusedEngine) -> list[NDArray[Any]]:
    """Return Adam's means of the gradients, as torch shapes and orders the parameters; the weights are lost."""
    for layer in engine._layers:
        for parameter in (layer.weight, layer.bias, layer.scale, layer.shift):
            parameter.value[:] = parameter.m
    later = r"batch_norm[^1]" if engine._network.shared else "$"  # a shared parameter counts once
    return [m for name, m in engine.weights().items() if "running" not in name and not re.match(later, name)]


@pytest.mark.parametrize("on", COMBINATIONS, ids=named)
def test_single_precision_follows(on: dict[str, Any], small: Images) -> None:
    """In float32, 50 losses follow those of float64.

    Rounding parts them slowly, faster with BatchNorm and weight decay, where Adam divides rounding error by its own
    size.
    """
    settings = Settings(width=32, batch_size=20, **on)
    images, labels = tensors(small)
    with steady_arithmetic():
        single, double = (
            FusedEngine(settings, 3, dtype).train(images, labels, batches(50)) for dtype in (np.float32, np.float64)
        )
    np.testing.assert_allclose(single[:10], double[:10], rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, double, rtol=0, atol=5e-3)


def both_ways(run: Run, images: Images, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Train a run with whole matrices and with lists; return all that decides whether two runs are alike."""

    def without_seconds(result: RunResult) -> list[list[str]]:
        return [[repr(value) for name, value in row.items() if "seconds" not in name] for row in result.rows]

    found = []
    for way in (False, True):
        monkeypatch.setattr(FusedEngine, "_lists", lambda _, way=way: way)
        result = train(run, images)
        predictions = [values.tobytes() for values in result.predictions.values()]
        found.append((result.weights_sha256, repr(result.first_losses), without_seconds(result), predictions))
    return found


LISTED: list[dict[str, Any]] = [
    {"width": 300},
    {"width": 37, "depth": 3, **ON},
    {"width": 70, "dropout": 0.5, "init": "kaiming", "batch_norm": True},  # half of its biases begin at -0
    {"optimiser": "sgd", "learning_rate": 0.1, "l1": 1e-3, "depth": 3, "width": 40},
    {"norm": "group", "width": 40, "optimiser": "adamw", "l2": 0.1},
    {"evaluation": "train", "dropout": 0.2, "input_dropout": 0.1, "width": 24},
]


@pytest.mark.parametrize("on", LISTED, ids=named)
def test_lists_change_no_bit(on: dict[str, Any], small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether hidden layers multiply whole matrices or list what is active, every result has the same bits."""
    run = Run("s", "c", (), 0, Settings(**{"batch_size": 20, "epochs": 2} | on), "fused")
    dense, lists = both_ways(run, small, monkeypatch)
    assert dense == lists


@pytest.mark.parametrize("rate", [1e30, 1e39])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_lists_change_no_bit_of_a_run_that_diverges(
    optimiser: str, rate: float, small: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros times infinity are not left out unseen: both ways diverge at the same step, and say the same after it."""
    settings = Settings(optimiser=optimiser, learning_rate=rate, depth=3, width=24, batch_size=20, epochs=2)  # type: ignore[arg-type]
    dense, lists = both_ways(Run("s", "c", (), 0, settings, "fused"), small, monkeypatch)
    assert dense == lists
    assert "nan" in dense[1] or "inf" in dense[1]


def test_an_infinite_gradient_ends_a_run_both_ways(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias of minus infinity only kills a unit, but from there on whole matrices and lists part: the loss is NaN.

    Here the inputs of the last hidden layer are 0, and a unit of it has an infinite gradient. That times 0 makes
    weights NaN in whole matrices, and is left out of lists.
    """
    images, labels = tensors(small)
    settings = Settings(optimiser="sgd", learning_rate=0.1, width=16, depth=3, batch_size=1)
    found = []
    for way in (False, True):
        monkeypatch.setattr(FusedEngine, "_lists", lambda _, way=way: way)
        engine = FusedEngine(settings, 0)
        weights = {name: np.zeros_like(values) for name, values in engine.weights().items()}
        weights["linear3.bias"][0] = np.finfo(np.float32).tiny
        weights["output.weight"][:, 0] = np.where(np.arange(10) == labels[0].item(), -3e38, 3e38)
        engine.load(weights)
        found.append(engine.train(images, labels, [torch.tensor([0])] * 3))
    for losses in found:
        assert np.isfinite(losses).tolist() == [True, False]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("batch_norm", [False, True])
def test_black_and_white_images(batch_norm: bool) -> None:
    """Images without a pixel, with all of them, or with only the last are, in any number, as autograd has them."""
    images = torch.zeros((5, 784), dtype=torch.uint8)
    images[1] = 255
    images[3, -1] = 1
    settings = Settings(width=8, batch_size=2, batch_norm=batch_norm)
    torchs, ours = make_engine("autograd", settings, 0), FusedEngine(settings, 0)
    for rows in (torch.arange(5), torch.tensor([3]), torch.tensor([4, 1, 1])):
        expected, found = (engine.answers(images, torch.arange(5), rows, 2) for engine in (torchs, ours))
        np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.confidences, expected.confidences, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(("shape", "classes"), [((13,), 3), ((4, 6), 20), ((1,), 2), ((3, 20, 20), 256)])
@pytest.mark.parametrize("on", [{}, {"input_dropout": 0.3, **ON}], ids=["none", "all"])
def test_any_number_of_inputs_and_classes(shape: tuple[int, ...], classes: int, on: dict[str, Any]) -> None:
    """The engines agree on images of any shape, and on any number of classes, step by step and in what they answer."""
    generator = np.random.default_rng(0)
    labels = torch.from_numpy(generator.integers(0, classes, 60))
    images = torch.from_numpy(generator.integers(0, 256, (60, *shape), dtype=np.uint8))
    images[generator.random(images.shape) < 0.5] = 0
    settings, sizes = Settings(width=12, batch_size=20, **on), Sizes(int(np.prod(shape)), classes)
    torchs, ours = (make_engine(name, settings, 0, sizes=sizes) for name in ("autograd", "fused"))
    rows = list(torch.split(torch.arange(60), 20))
    with steady_arithmetic("fused"):
        losses = [engine.train(images, labels, rows) for engine in (torchs, ours)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
        expected, found = (engine.answers(images, labels, torch.arange(60), 20) for engine in (torchs, ours))
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=1e-3)
    assert ours.weights()["output.bias"].shape == (classes,)


def test_numbers_that_are_no_bytes_are_for_autograd() -> None:
    """Other numbers than bytes enter the network as they are; the fused engine refuses them, and too many inputs."""
    images, labels = torch.tensor([[0.5, -2.0], [1.0, 3.0]]), torch.tensor([0, 1])
    settings, sizes = Settings(width=4, batch_size=2), Sizes(2, 2)
    torchs = AutogradEngine(settings, 0, sizes=sizes)
    with torch.no_grad():
        np.testing.assert_array_equal(torchs.logits(images, torch.arange(2)), torchs.model(images))
    with pytest.raises(TrainingError, match=r'takes images of bytes \(uint8\) alone: take "autograd"'):
        FusedEngine(settings, 0, sizes=sizes).train(images, labels, [torch.arange(2)])
    with pytest.raises(TrainingError, match='takes at most 65,528 inputs: take "autograd"'):
        FusedEngine(settings, 0, sizes=Sizes(65_529, 2))


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_engines_start_from_the_same_weights(engine: str) -> None:
    """Every engine names, shapes and orders its weights alike, and starts from the weights of the seed."""
    settings = Settings(width=9, batch_norm=True, dropout=0.5)
    expected = {name: t.numpy() for name, t in mlp(settings, 5).state_dict().items() if "num_batches" not in name}
    found = {name: v for name, v in make_engine(engine, settings, 5).weights().items() if "num_batches" not in name}
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_not_a_number_is_not_hidden(engine: str, small: Images) -> None:
    """A weight that is not a number shows in the loss: zeros are left out of sums, NaN never."""
    images, labels = tensors(small)
    made = make_engine(engine, Settings(width=8, batch_size=20, learning_rate=1e38), 0)
    losses = made.train(images, labels, batches(5))
    assert not np.isfinite(losses).all()


def test_a_batch_too_large_is_refused(small: Images) -> None:
    """The fused engine has room for its batches and no more, and says so."""
    images, labels = tensors(small)
    with pytest.raises(ValueError, match="a batch of 9, where batch_size is 8"):
        FusedEngine(Settings(width=8, batch_size=8), 0).train(images, labels, [torch.arange(9)])


@pytest.mark.parametrize("name", get_args(EngineName))
@pytest.mark.parametrize("on", [{}, ON], ids=["none", "all"])
def test_weights_can_be_put_back(name: str, on: dict[str, Any], small: Images) -> None:
    """An engine with another's weights says the same; one that lacks a weight, or has another shape, is refused."""
    settings = Settings(width=12, batch_size=20, **on)
    images, labels = tensors(small)
    trained, fresh = make_engine(name, settings, 3), make_engine(name, settings, 4)
    for rows in batches(5):
        trained.train(images, labels, [rows])
    rows = torch.arange(50)
    losses = trained.answers(images, labels, rows, 20).losses
    assert not np.array_equal(losses, fresh.answers(images, labels, rows, 20).losses)
    fresh.load(trained.weights())
    assert np.array_equal(losses, fresh.answers(images, labels, rows, 20).losses)
    for wrong in ({}, trained.weights() | {"linear1.bias": np.zeros(1, np.float32)}):
        with pytest.raises((KeyError, ValueError, RuntimeError)):
            fresh.load(wrong)
