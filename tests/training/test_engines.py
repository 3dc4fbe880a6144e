"""The engines: one interface, the same streams, the same losses; the gradients by hand are the right ones."""

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_ablate.data import Images
from mnist_ablate.design.plan import EngineName
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines import make_engine
from mnist_ablate.training.engines.autograd import AutogradEngine
from mnist_ablate.training.engines.fused import FusedEngine
from mnist_ablate.training.model import mlp
from mnist_ablate.training.protocol import steady_arithmetic

ON: dict[str, Any] = {"l2": 1e-3, "dropout": 0.2, "batch_norm": True}
COMBINATIONS = [dict(chosen) for n in range(4) for chosen in itertools.combinations(ON.items(), n)]
NEW_M = 1 - 0.9


def tensors(images: Images) -> tuple[Tensor, Tensor]:
    """Return the training images and labels as engines take them."""
    return torch.from_numpy(images.train_images), torch.from_numpy(images.train_labels.astype(np.int64))


def batches(n: int, size: int = 20) -> list[Tensor]:
    """Return `n` batches of rows, the last one short."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 500, (size,), generator=generator) for _ in range(n)]
    return [*drawn[:-1], drawn[-1][: size - 3]]


def double_engine(settings: Settings) -> AutogradEngine:
    """Make the autograd engine compute in float64."""
    engine = AutogradEngine(settings, 3)
    engine.model = mlp(settings, 3).double()
    engine.optimiser = torch.optim.Adam(engine.model.parameters(), lr=settings.learning_rate, weight_decay=settings.l2)
    return engine


@pytest.fixture
def _double_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the autograd engine scale pixels in float64."""
    monkeypatch.setattr(
        "mnist_ablate.training.engines.autograd.pixels", lambda images, rows: images[rows].to(torch.float64).div_(255)
    )


@pytest.mark.parametrize(("depth", "width"), [(2, 12), (3, 12), (2, 70)])
@pytest.mark.parametrize("on", COMBINATIONS, ids=lambda on: "+".join(on) or "baseline")
def test_gradients_are_those_of_autograd(on: dict[str, Any], depth: int, width: int, small: Images) -> None:
    """In float64 every gradient of a step is autograd's to 1e-10, for every combination of factors.

    A width of 12 is less than a block of the kernels, 70 is two blocks and a rest.
    """
    settings = Settings(width=width, batch_size=20, depth=depth, **on)
    images, labels = tensors(small)
    (rows,) = batches(1)
    engine = FusedEngine(settings, 3, np.float64)
    (loss,) = engine.train(images, labels, [rows])
    model = mlp(settings, 3).double().train()
    expected = cross_entropy(model(images[rows].double() / 255), labels[rows])
    torch.autograd.backward(expected)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    linears = [module for module in model if isinstance(module, nn.Linear)]
    norms = [module for module in model if isinstance(module, nn.BatchNorm1d)]
    for i, layer in enumerate(engine._layers):
        weight = layer.weight.m if i == depth else layer.weight.m.T
        pairs = [(weight, linears[i].weight), (layer.bias.m[0], linears[i].bias)]
        if i < len(norms):
            pairs += [(layer.scale.m[0], norms[i].weight), (layer.shift.m[0], norms[i].bias)]
        for mean_of_gradients, parameter in pairs:
            assert parameter.grad is not None
            start = (
                mlp(settings, 3).double().get_parameter(next(n for n, p in model.named_parameters() if p is parameter))
            )
            gradient = parameter.grad + settings.l2 * start
            np.testing.assert_allclose(mean_of_gradients / NEW_M, gradient.detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("_double_pixels")
@pytest.mark.parametrize("width", [32, 70])
@pytest.mark.parametrize("on", COMBINATIONS, ids=lambda on: "+".join(on) or "baseline")
def test_fifty_steps_are_those_of_autograd(on: dict[str, Any], width: int, small: Images) -> None:
    """In float64, 50 losses are those of autograd and torch's Adam to 1e-9; in float32 they follow them.

    In float32 rounding parts them slowly, faster with BatchNorm and weight decay, where Adam divides rounding
    error by its own size.
    """
    settings = Settings(width=width, batch_size=20, **on)
    images, labels = tensors(small)
    with steady_arithmetic():
        engines = double_engine(settings), FusedEngine(settings, 3, np.float64), FusedEngine(settings, 3)
        torchs, double, single = (np.array(engine.train(images, labels, batches(50))) for engine in engines)
    np.testing.assert_allclose(double, torchs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(single[:10], torchs[:10], rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, torchs, rtol=0, atol=5e-3)


@pytest.mark.usefixtures("_double_pixels")
@pytest.mark.parametrize("on", COMBINATIONS, ids=lambda on: "+".join(on) or "baseline")
def test_evaluation_is_that_of_autograd(on: dict[str, Any], small: Images) -> None:
    """After training, outputs in evaluation mode and every weight are autograd's to 1e-9 in float64.

    The gradient of a bias before a normalisation is 0; autograd's is rounding error, so it is set to 0 there.
    """
    settings = Settings(width=16, batch_size=20, **on)
    images, labels = tensors(small)
    torchs, ours = double_engine(settings), FusedEngine(settings, 3, np.float64)
    for name, parameter in torchs.model.named_parameters():
        if settings.batch_norm and name.startswith("linear") and name.endswith("bias"):
            parameter.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
    for rows in batches(20):
        torchs.train(images, labels, [rows])
        ours.train(images, labels, [rows])
    everything = torch.arange(500)
    np.testing.assert_allclose(
        ours.logits(images, everything).numpy(), torchs.logits(images, everything).numpy(), rtol=0, atol=1e-9
    )
    expected, found = torchs.weights(), ours.weights()
    for name, values in found.items():
        assert np.abs(values.astype(float) - expected[name].astype(float)).max() < 1e-9, name


@pytest.mark.parametrize("batch_norm", [False, True])
def test_black_and_white_images(batch_norm: bool) -> None:
    """Images without a pixel, with all of them, or with only the last are, in any number, as autograd has them."""
    images = torch.zeros((5, 784), dtype=torch.uint8)
    images[1] = 255
    images[3, -1] = 1
    settings = Settings(width=8, batch_size=2, batch_norm=batch_norm)
    torchs, ours = make_engine("autograd", settings, 0), FusedEngine(settings, 0)
    for rows in (torch.arange(5), torch.tensor([3]), torch.tensor([4, 1, 1])):
        torch.testing.assert_close(ours.logits(images, rows), torchs.logits(images, rows), rtol=0, atol=1e-5)


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


@pytest.mark.usefixtures("_double_pixels")
def test_batches_of_one_and_odd_widths(small: Images) -> None:
    """Widths that fill no vector and batches of one image train as torch does."""
    images, labels = tensors(small)
    settings = Settings(width=5, depth=2, batch_size=1, dropout=0.5)
    fused, torchs = FusedEngine(settings, 3, np.float64), double_engine(settings)
    for row in range(30):
        rows = torch.tensor([row])
        assert fused.train(images, labels, [rows]) == pytest.approx(torchs.train(images, labels, [rows]), abs=1e-9)


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
    assert not torch.equal(trained.logits(images, rows), fresh.logits(images, rows))
    fresh.load(trained.weights())
    assert torch.equal(trained.logits(images, rows), fresh.logits(images, rows))
    for wrong in ({}, trained.weights() | {"linear1.bias": np.zeros(1, np.float32)}):
        with pytest.raises((KeyError, ValueError, RuntimeError)):
            fresh.load(wrong)
