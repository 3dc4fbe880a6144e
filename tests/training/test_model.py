"""The multilayer perceptron."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import stream
from mnist_ablate.training.model import Dropout, linear, mlp

ON: dict[str, Any] = {"l2": 1e-5, "dropout": 0.2, "batch_norm": True}
COMBINATIONS = [dict(chosen) for n in range(4) for chosen in itertools.combinations(ON.items(), n)]


def test_baseline_has_the_known_size() -> None:
    """784-256-256-10 has 269,322 parameters."""
    assert sum(p.numel() for p in mlp(Settings(), 0).parameters()) == 269_322


def test_order_of_a_hidden_layer() -> None:
    """A hidden layer is linear, batch normalisation, dropout, ReLU; each layer has a normalisation of its own."""
    model = mlp(Settings(dropout=0.2, batch_norm=True, depth=2), 0)
    kinds = [type(module) for module in model]
    assert kinds == [nn.Linear, nn.BatchNorm1d, Dropout, nn.ReLU] * 2 + [nn.Linear]
    assert model.get_submodule("batch_norm1") is not model.get_submodule("batch_norm2")


def test_depth_and_width() -> None:
    """Depth and width are what the settings say."""
    shapes = [tuple(p.shape) for name, p in mlp(Settings(depth=3, width=7), 0).named_parameters() if "weight" in name]
    assert shapes == [(7, 784), (7, 7), (7, 7), (10, 7)]


@pytest.mark.parametrize("on", COMBINATIONS, ids=lambda on: "+".join(on) or "baseline")
def test_techniques_change_no_initial_weight(on: dict[str, Any]) -> None:
    """Turning a technique on leaves every initial weight of the same seed as it is."""
    baseline = mlp(Settings(), 5).state_dict()
    model = mlp(Settings(**on), 5).state_dict()
    assert all(torch.equal(model[name], values) for name, values in baseline.items())


def test_seeds_have_their_own_weights() -> None:
    """Two seeds share no weights, nor do two layers of the same shape."""
    first, second = mlp(Settings(depth=3), 0).state_dict(), mlp(Settings(depth=3), 1).state_dict()
    assert not any(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["linear2.weight"], first["linear3.weight"])


def test_initialisation_is_torchs_default() -> None:
    """Weights and biases are uniform on +-1/sqrt(inputs), as `torch.nn.Linear` draws them."""
    ours, torchs = linear(784, 256, 0, "linear1"), nn.Linear(784, 256)
    for mine, its in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
        bound = 1 / 28
        assert mine.abs().max().item() <= bound
        assert mine.abs().max().item() == pytest.approx(its.abs().max().item(), rel=0.05)
        assert mine.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize(("init", "bound"), [("kaiming", (6 / 784) ** 0.5), ("xavier", (6 / 1040) ** 0.5)])
def test_initialisation_by_the_papers(init: str, bound: float) -> None:
    """Weights are torch's of the same name in range and spread, and biases are 0; a scale multiplies them all."""
    ours = linear(784, 256, 0, "linear1", Settings(init=init))  # type: ignore[arg-type]
    theirs = torch.empty(256, 784)
    if init == "kaiming":
        nn.init.kaiming_uniform_(theirs, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(theirs)
    assert bound * 0.999 < ours.weight.abs().max().item() <= bound
    assert ours.weight.std().item() == pytest.approx(theirs.std().item(), rel=0.01)
    assert not ours.bias.any()
    scaled = linear(784, 256, 0, "linear1", Settings(init=init, init_scale=4.0))  # type: ignore[arg-type]
    assert torch.equal(scaled.weight, 4 * ours.weight)


def test_order_of_a_hidden_layer_after_the_activation() -> None:
    """What is placed after the activation follows it: normalisation, then dropout."""
    settings = {"dropout": 0.2, "batch_norm": True, "depth": 1, "norm_place": "after"}
    orders = {}
    for place in ("before", "after"):
        modules = mlp(Settings(dropout_place=place, **settings), 0)  # type: ignore[arg-type]
        orders[place] = [type(module) for module in modules][1:-1]
    assert orders == {
        "before": [Dropout, nn.ReLU, nn.BatchNorm1d],
        "after": [nn.ReLU, nn.BatchNorm1d, Dropout],
    }


def test_layer_and_group_norm() -> None:
    """Each image has mean 0 and variance 1 over all units of the layer, or over those of each of its 8 groups."""
    for norm, groups in (("layer", 1), ("group", 8)):
        model = mlp(Settings(norm=norm, width=32), 0)  # type: ignore[arg-type]
        images = torch.rand(5, 784, generator=torch.Generator().manual_seed(0))
        out = model[:2](images).view(5, groups, -1)
        assert out.mean(dim=2).abs().max().item() < 1e-5
        assert out.var(dim=2, correction=0).sub(1).abs().max().item() < 0.02  # the norms add 1e-5 to a variance


def test_input_dropout_comes_first_and_shared_norm_is_one() -> None:
    """Dropout of the input is before the first layer; a shared BatchNorm is one module under every layer's name."""
    model = mlp(Settings(input_dropout=0.2, batch_norm=True, shared_norm=True), 0)
    assert isinstance(model[0], Dropout)
    assert model.get_submodule("batch_norm1") is model.get_submodule("batch_norm2")
    assert len(list(mlp(Settings(batch_norm=True, shared_norm=True), 0).parameters())) == 8


def test_initialisation_draws_nothing_from_torch() -> None:
    """Building a model leaves torch's global generator where it was."""
    before = torch.get_rng_state()
    mlp(Settings(dropout=0.2, batch_norm=True), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_drops_scales_and_rests() -> None:
    """In training the kept units are scaled by 1 / (1 - rate), with a new mask each time; in evaluation it rests."""
    dropout = Dropout(0.2, stream(0, "dropout/1"))
    x = torch.ones(64, 256)
    first, second = dropout(x), dropout(x)
    assert set(first.unique().tolist()) == {0.0, 1.25}
    assert first.mean().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(first, second)
    assert dropout.eval()(x) is x
