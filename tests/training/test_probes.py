"""Probes, each recomputed by hand; none changes a bit of its run."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnist_ablate.data import Images
from mnist_ablate.design.plan import EngineName, Run
from mnist_ablate.design.responses import PROBES, Probe
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines import make_engine
from mnist_ablate.training.model import mlp
from mnist_ablate.training.probes import (
    REMOVALS,
    Shifts,
    Subject,
    _mean_of_thinned,
    calibration,
    expected_calibration_error,
    gradients,
    loss,
    moments,
    moved,
    network_of,
    probabilities,
    removal,
    sampling,
    weights,
)
from mnist_ablate.training.protocol import train

EVERY = get_args(Probe)


def subject(settings: Settings | None = None, seed: int = 0) -> Subject:
    """Make an untrained network with some random images to look at."""
    settings = settings or Settings(width=20)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(60, 784, generator=generator), torch.randint(0, 10, (60,), generator=generator)
    return Subject(mlp(settings, seed).eval(), seed, (images[:30], labels[:30]), (images, labels))


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_probes_change_no_bit(engine: EngineName, small: Images) -> None:
    """A run with all probes has the identity, the numbers and the weights of the run without, and has all responses."""
    settings = Settings(epochs=2, width=16, batch_size=50, dropout=0.2, batch_norm=True)
    plain = Run("s", "c", (), 0, settings, engine)
    probed = replace(plain, probes=EVERY)
    assert plain.run_id == probed.run_id
    one, two = train(plain, small), train(probed, small)
    assert one.weights_sha256 == two.weights_sha256
    assert one.first_losses == two.first_losses
    assert one.rows[-1]["test_loss"] == two.rows[-1]["test_loss"]
    assert one.probes == {}
    assert {probe: tuple(numbers) for probe, numbers in two.probes.items()} == dict(PROBES)
    assert all(value is not None for numbers in two.probes.values() for value in numbers.values())
    assert train(probed, small).probes == two.probes


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_the_copy_is_the_network(engine: EngineName, small: Images) -> None:
    """The network that probes look at gives what the engine gives in evaluation."""
    settings = Settings(width=16, batch_size=50, batch_norm=True, dropout=0.5)
    made = make_engine(engine, settings, 0)
    images, labels = torch.from_numpy(small.train_images), torch.from_numpy(small.train_labels.astype(np.int64))
    for start in (0, 50):
        made.train(images, labels, [torch.arange(start, start + 50)])
    copy = network_of(made.weights(), settings, 0)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(copy(images[:40].float() / 255), labels[:40], reduction="none")
    np.testing.assert_allclose(losses, made.answers(images, labels, torch.arange(40), 40).losses, atol=1e-5)


def test_moments_are_those_before_and_after_normalisation() -> None:
    """Linear outputs are taken as they are, and what enters the activation behind BatchNorm."""
    of = subject(Settings(width=5, batch_norm=True))
    images = of.sample[0]
    network = of.network
    with torch.no_grad():
        linear = network[0](images)
        entering = network[1](linear)
    found = moments(network, images)
    assert len(found["linear"]) == len(found["activation"]) == 2
    np.testing.assert_allclose(found["linear"][0][0], linear.double().mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["activation"][0][1], entering.double().std(0, correction=0), rtol=1e-6)


def test_movement_by_hand() -> None:
    """In units of the spread before, the median over units: one next to no spread rules nothing, one without is out."""
    before = [(torch.tensor([0.0, 1.0, 5.0, 5.0]).double(), torch.tensor([1.0, 2.0, 0.0, 1e-9]).double())]
    now = [(torch.tensor([1.0, 0.0, 9.0, 6.0]).double(), torch.tensor([1.0, 3.0, 1.0, 1.0]).double())]
    assert moved(before, now) == (1.0, 0.5)


def test_shifts_are_means_over_pairs_of_epochs() -> None:
    """Scaling and moving pre-activations is seen with its size; one epoch has no pair."""
    of = subject(Settings(width=4, depth=1))
    shifts = Shifts()
    shifts.add(of.network, of.sample[0])
    assert math.isnan(shifts.numbers["log_shift_linear"])
    sd = moments(of.network, of.sample[0])["linear"][0][1]
    with torch.no_grad():
        of.network.get_parameter("linear1.bias").add_(sd.float() * 3)
    shifts.add(of.network, of.sample[0])
    shifts.add(of.network, of.sample[0])
    assert shifts.numbers["log_shift_linear"] == pytest.approx(math.log(1.5), abs=1e-4)
    assert shifts.numbers["log_shift_activation"] == shifts.numbers["log_shift_linear"]


def test_gradient_norm_is_that_of_backward() -> None:
    """The norm over all parameters of the gradient on the sample."""
    of = subject()
    twin = mlp(Settings(width=20), 0)
    torch.autograd.backward(nn.functional.cross_entropy(twin(of.sample[0]), of.sample[1]))
    squares = sum(float((p.grad.double() ** 2).sum()) for p in twin.parameters() if p.grad is not None)
    assert gradients(of)["log_gradient_norm"] == pytest.approx(0.5 * math.log(squares), rel=1e-6)
    assert all(p.grad is None for p in of.network.parameters())


def test_weights_by_hand() -> None:
    """Equal sizes are wholly even; one weight alone is 1 / n; biases do not count."""
    of = subject(Settings(width=3, depth=1))
    every = 784 * 3 + 30
    with torch.no_grad():
        for module in of.network:
            if isinstance(module, nn.Linear):
                module.weight.fill_(-0.5)
    found = weights(of)
    assert found["log_weight_norm"] == pytest.approx(0.5 * math.log(0.25 * every))
    assert found["log_weight_evenness"] == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        of.network.get_parameter("linear1.weight").zero_()
        of.network.get_parameter("output.weight").zero_()[0, 0] = 2
    assert weights(of)["log_weight_evenness"] == pytest.approx(-math.log(every))


def test_calibration_error_by_hand() -> None:
    """Two bins: confidence 0.9 with half right, 0.6 with all right; weighted by their images."""
    found = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = torch.tensor([0, 1, 1, 1])
    assert expected_calibration_error(found, labels) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    sure = torch.tensor([[1.0, 0.0]])
    assert expected_calibration_error(sure, torch.tensor([0])) == 0
    assert expected_calibration_error(sure, torch.tensor([1])) == 1
    assert 0 <= calibration(subject())["ece"] <= 1


class _Constant(nn.Module):
    """Looks at one unit alone: the answer is 1 if it is on, else 0."""

    in_features = 10

    def forward(self, x: Tensor) -> Tensor:
        """Answer digit 1 where unit 0 is on."""
        return torch.stack([torch.full((len(x),), 0.5), x[:, 0]], dim=1)


def test_removal_takes_just_so_many_units_and_what_hangs_on_them() -> None:
    """A network that rests on one unit loses all where that unit is removed, which is so in its share of the draws."""
    network = nn.Sequential()
    network.add_module("linear1", nn.Linear(784, 10))
    network.add_module("relu1", nn.ReLU())
    network.add_module("output", _Constant())
    with torch.no_grad():
        network.get_parameter("linear1.weight").zero_()
        network.get_parameter("linear1.bias").fill_(1)
    images, labels = torch.zeros(7, 784), torch.ones(7, dtype=torch.int64)
    lost = [removal(Subject(network, seed, (images, labels), (images, labels))) for seed in range(60)]
    share = {name: np.mean([of[name] for of in lost]) for name in lost[0]}
    assert {round(of["accuracy_lost_10"] * REMOVALS, 6) % 1 for of in lost} == {0.0}
    assert share["accuracy_lost_10"] == pytest.approx(0.1, abs=0.05)
    assert share["accuracy_lost_50"] == pytest.approx(0.5, abs=0.1)
    assert all(of["accuracy_lost_10"] <= of["accuracy_lost_20"] <= of["accuracy_lost_50"] for of in lost)


WITH_ALL = Settings(width=8, depth=3, batch_norm=True, dropout=0.2, init_scale=6.0)


@pytest.mark.parametrize("settings", [Settings(width=12), WITH_ALL])
def test_the_worst_unit_is_found_by_removing_each(settings: Settings) -> None:
    """The accuracy lost without the unit that matters most is that of clamping every hidden unit in turn."""
    of = subject(settings)
    images, labels = of.test
    with torch.no_grad():
        labels = of.network(images).argmax(dim=1)  # all right at first, so that units can cost something
        lost = []
        for place, (name, module) in enumerate(of.network.named_children()):
            if isinstance(module, nn.Linear) and name != "linear1":
                hidden = of.network[:place](images)
                for unit in range(settings.width):
                    without = hidden.clone()
                    without[:, unit] = 0
                    lost.append(1 - (of.network[place:](without).argmax(dim=1) == labels).double().mean().item())
    assert len(lost) == settings.width * settings.depth
    found = removal(replace(of, test=(images, labels)))["accuracy_lost_worst"]
    assert found == pytest.approx(max(lost), abs=0.034)  # two of 60 images may be ties to rounding
    assert max(lost) > 0.05


def test_removal_leaves_the_network_whole() -> None:
    """The network is the same before and after."""
    of = subject()
    before = probabilities(of.network, of.test[0])
    removal(of)
    assert torch.equal(before, probabilities(of.network, of.test[0]))


def test_sampling_is_the_mean_of_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sample it is that one thinned network; without dropout nothing differs; the network stays as it is."""
    assert set(sampling(subject()).values()) == {0.0}
    monkeypatch.setattr("mnist_ablate.training.probes.SAMPLES", 1)
    settings = Settings(width=20, dropout=0.5)
    of, twin = subject(settings), subject(settings)
    plain = loss(probabilities(of.network, of.test[0]), of.test[1])
    found = sampling(of)
    thinned = _mean_of_thinned(twin)
    assert found["loss_gain_of_50"] == pytest.approx(loss(thinned, of.test[1]) - plain)
    assert found["loss_gain_of_50"] != 0
    assert loss(probabilities(of.network, of.test[0]), of.test[1]) == plain


def test_a_diverged_run_has_probes_without_numbers(small: Images) -> None:
    """What is not finite is None, and nothing breaks."""
    settings: dict[str, Any] = {"epochs": 2, "width": 16, "batch_size": 50, "learning_rate": 1e30}
    found = train(Run("s", "c", (), 0, Settings(**settings), "fused", EVERY), small).probes
    assert found["weights"]["log_weight_norm"] is None
    assert set(found) == set(EVERY)
