"""Probes, each recomputed by hand; none changes a bit of its run, and all have the same bits on every machine."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import digests
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mnist_ablate.data import Images
from mnist_ablate.design.plan import EngineName, Run
from mnist_ablate.design.responses import PROBES, Probe
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import keep_mask, stream, uniform
from mnist_ablate.training.arithmetic import arithmetic, total
from mnist_ablate.training.engines import make_engine
from mnist_ablate.training.model import mlp, parts
from mnist_ablate.training.perceptron import CHUNK, Perceptron
from mnist_ablate.training.probes import (
    REMOVALS,
    Shifts,
    Subject,
    _mean_of_thinned,
    calibration,
    expected_calibration_error,
    gradients,
    look,
    loss,
    moments,
    moved,
    removal,
    sampling,
    weights,
)
from mnist_ablate.training.protocol import train

EVERY = get_args(Probe)


NETWORKS = {
    "plain": Settings(width=20),
    "deep": Settings(width=17, depth=3, input_dropout=0.1, dropout=0.3),
    "batch_norm": Settings(width=16, batch_norm=True, dropout=0.2),
    "layer_norm": Settings(width=20, norm="layer", dropout=0.2),
    "group_norm": Settings(width=64, norm="group"),
    "batch_norm after": Settings(width=16, batch_norm=True, norm_place="after", dropout=0.2),
    "all after": Settings(width=16, norm="layer", norm_place="after", dropout=0.2, dropout_place="after"),
    "shared_norm": Settings(width=16, depth=3, batch_norm=True, shared_norm=True),
}


def values(settings: Settings, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the weights of an untrained network, by name; normalisations have scales and statistics as if trained."""
    found = {name: tensor.numpy().copy() for name, tensor in mlp(settings, seed).state_dict().items()}
    for name, array in found.items():
        if "norm" in name and array.ndim:
            of = name.replace("2.", "1.").replace("3.", "1.") if settings.shared_norm else name
            array += uniform(stream(seed, f"test/{of}"), array.shape, 0.5)
    return found


def in_torch(settings: Settings, seed: int = 0) -> nn.Sequential:
    """Return the same network in torch, in float64 and evaluation mode."""
    network = mlp(settings, seed)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in values(settings, seed).items()})
    return network.double().eval()


def subject(settings: Settings | None = None, seed: int = 0, engine: EngineName = "fused", n: int = 60) -> Subject:
    """Make an untrained network with some random images to look at."""
    settings = settings or Settings(width=20)
    bits = stream(0, "test/images")
    images = (uniform(bits, (n, 784), 1.0) + 1) / 2
    labels = (bits.random_raw(n) % np.uint64(10)).astype(np.int64)
    network = Perceptron(values(settings, seed), settings, arithmetic(engine))
    return Subject(network, seed, (images[: n // 2], labels[: n // 2]), (images, labels))


def changed(of: Subject, **changes: NDArray[Any]) -> Subject:
    """Return a subject with other weights, by their names with ``_`` for the point."""
    network = of.network
    new = network.weights | {name.replace("_", "."): array.astype(np.float32) for name, array in changes.items()}
    return replace(of, network=Perceptron(new, network.settings, network.arithmetic))


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
    network = Perceptron(made.weights(), settings, arithmetic(engine))
    ours = network.probabilities(network.outputs(small.train_images[:40] / np.float32(255)))
    theirs = made.answers(images, labels, torch.arange(40), 40)
    np.testing.assert_allclose(-np.log(ours[np.arange(40), labels[:40].numpy()]), theirs.losses, rtol=1e-5)
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.predictions)
    np.testing.assert_allclose(ours.max(axis=1), theirs.confidences, rtol=1e-5)


@pytest.mark.parametrize("engine", get_args(EngineName))
@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_outputs_are_torchs(settings: Settings, engine: EngineName) -> None:
    """Logits, of one chunk of images and more, are those of torch in float64 to the rounding of float32."""
    of = subject(settings, engine=engine, n=CHUNK + 3)
    with torch.no_grad():
        theirs = in_torch(settings)(torch.from_numpy(of.test[0]).double()).numpy()
    found = of.network.outputs(of.test[0])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-5)
    if engine == "fused":  # the same bits, however many images there are
        np.testing.assert_array_equal(found[:5], of.network.outputs(of.test[0][:5]))


@pytest.mark.parametrize("engine", get_args(EngineName))
@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_gradients_are_those_of_autograd(settings: Settings, engine: EngineName) -> None:
    """In float64, the gradient of each parameter is that of torch's autograd to 1e-9, relative to the largest."""
    of, network = subject(settings, engine=engine), in_torch(settings)
    ours = Perceptron(values(settings), settings, arithmetic(engine), np.float64)
    images, labels = of.sample[0].astype(np.float64), of.sample[1]
    torch.autograd.backward(nn.functional.cross_entropy(network(torch.from_numpy(images)), torch.from_numpy(labels)))
    theirs = {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
    found = ours.gradients(images, labels)
    assert found.keys() == theirs.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-9 * np.abs(gradient).max(), err_msg=name)


def test_parts_are_torchs() -> None:
    """The parts that the network goes through are those of the module, in order."""
    for settings in NETWORKS.values():
        assert list(dict(mlp(settings, 0)._modules)) == parts(settings)


def test_a_total_is_the_sum() -> None:
    """However many numbers there are, none is lost: the sums of columns, along the first axis."""
    for n in range(1, 20):
        np.testing.assert_array_equal(total(np.arange(2.0 * n).reshape(n, 2)), [n * (n - 1), n * n])


def test_moments_are_those_before_and_after_normalisation() -> None:
    """Linear outputs are taken as they are, and what enters the activation behind BatchNorm."""
    of = subject(Settings(width=5, batch_norm=True))
    network = in_torch(Settings(width=5, batch_norm=True))
    with torch.no_grad():
        linear = network[0](torch.from_numpy(of.sample[0]).double())
        entering = network[1](linear)
    found = moments(of.network, of.sample[0])
    assert len(found["linear"]) == len(found["activation"]) == 2
    np.testing.assert_allclose(found["linear"][0][0], linear.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["activation"][0][1], entering.std(0, correction=0), rtol=1e-5)


def test_movement_by_hand() -> None:
    """In units of the spread before, the median over units: one next to no spread rules nothing, one without is out."""
    before = [(np.array([0.0, 1.0, 5.0, 5.0]), np.array([1.0, 2.0, 0.0, 1e-9]))]
    now = [(np.array([1.0, 0.0, 9.0, 6.0]), np.array([1.0, 3.0, 1.0, 1.0]))]
    assert moved(before, now) == (1.0, 0.5)
    even = [(np.array([0.0, 0.0]), np.array([1.0, 1.0]))], [(np.array([1.0, 2.0]), np.array([1.0, 2.0]))]
    assert moved(*even) == (1.5, 0.5)


def test_shifts_are_means_over_pairs_of_epochs() -> None:
    """Scaling and moving pre-activations is seen with its size; one epoch has no pair."""
    of = subject(Settings(width=4, depth=1))
    shifts = Shifts()
    shifts.add(of.network, of.sample[0])
    assert math.isnan(shifts.numbers(of.network)["log_shift_linear"])
    sd = moments(of.network, of.sample[0])["linear"][0][1]
    after = changed(of, linear1_bias=of.network.weights["linear1.bias"] + sd * 3).network
    shifts.add(after, of.sample[0])
    shifts.add(after, of.sample[0])
    found = shifts.numbers(after)
    assert found["log_shift_linear"] == pytest.approx(math.log(1.5), abs=1e-4)
    assert found["log_shift_activation"] == found["log_shift_linear"]


def test_gradient_norm_is_that_of_backward() -> None:
    """The norm over all parameters of the gradient on the sample."""
    of, twin = subject(), in_torch(Settings(width=20))
    images, labels = map(torch.from_numpy, of.sample)
    torch.autograd.backward(nn.functional.cross_entropy(twin(images.double()), labels))
    squares = sum(float((p.grad**2).sum()) for p in twin.parameters() if p.grad is not None)
    assert gradients(of)["log_gradient_norm"] == pytest.approx(0.5 * math.log(squares), rel=1e-6)


def test_weights_by_hand() -> None:
    """Equal sizes are wholly even; one weight alone is 1 / n; biases do not count; of zeros there is no logarithm."""
    of = subject(Settings(width=3, depth=1))
    every = 784 * 3 + 30
    first, last = np.full((3, 784), -0.5), np.full((10, 3), -0.5)
    found = weights(changed(of, linear1_weight=first, output_weight=last))
    assert found["log_weight_norm"] == pytest.approx(0.5 * math.log(0.25 * every))
    assert found["log_weight_evenness"] == pytest.approx(0, abs=1e-9)
    last[:] = 0
    zeros = changed(of, linear1_weight=0 * first, output_weight=last)
    assert all(map(math.isnan, look(["weights"], zeros)["weights"].values()))
    last[0, 0] = 2
    one = weights(changed(of, linear1_weight=0 * first, output_weight=last))
    assert one["log_weight_evenness"] == pytest.approx(-math.log(every))


def test_calibration_error_by_hand() -> None:
    """Two bins: confidence 0.9 with half right, 0.6 with all right; weighted by their images."""
    found = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    assert expected_calibration_error(found, labels) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    sure = np.array([[1.0, 0.0]])
    assert expected_calibration_error(sure, np.array([0])) == 0
    assert expected_calibration_error(sure, np.array([1])) == 1
    assert 0 <= calibration(subject())["ece"] <= 1


def test_removal_takes_just_so_many_units_and_what_hangs_on_them() -> None:
    """A network that rests on one unit loses all where that unit is removed, which is so in its share of the draws."""
    of = subject(Settings(width=10, depth=1))
    output, bias = np.zeros((10, 10)), np.full(10, -1.0)
    output[1, 0], bias[:2] = 1, (0.5, 0)  # the answer is 1 if unit 0 is on, else 0
    of = changed(
        of, linear1_weight=np.zeros((10, 784)), linear1_bias=np.ones(10), output_weight=output, output_bias=bias
    )
    images, labels = np.zeros((7, 784), np.float32), np.ones(7, np.int64)
    lost = [removal(replace(of, seed=seed, test=(images, labels))) for seed in range(60)]
    share = {name: np.mean([of[name] for of in lost]) for name in lost[0]}
    assert {round(of["accuracy_lost_10"] * REMOVALS, 6) % 1 for of in lost} == {0.0}
    assert share["accuracy_lost_10"] == pytest.approx(0.1, abs=0.05)
    assert share["accuracy_lost_50"] == pytest.approx(0.5, abs=0.1)
    assert all(of["accuracy_lost_10"] <= of["accuracy_lost_20"] <= of["accuracy_lost_50"] for of in lost)


WITH_ALL = Settings(width=8, depth=3, batch_norm=True, dropout=0.2, init_scale=6.0)


@pytest.mark.parametrize("settings", [Settings(width=12), WITH_ALL])
def test_the_worst_unit_is_found_by_removing_each(settings: Settings) -> None:
    """The accuracy lost without the unit that matters most is that of clamping every hidden unit in turn."""
    of, network = subject(settings), in_torch(settings)
    images = torch.from_numpy(of.test[0]).double()
    with torch.no_grad():
        labels = network(images).argmax(dim=1)  # all right at first, so that units can cost something
        lost = []
        for place, (name, module) in enumerate(network.named_children()):
            if isinstance(module, nn.Linear) and name != "linear1":
                hidden = network[:place](images)
                for unit in range(settings.width):
                    without = hidden.clone()
                    without[:, unit] = 0
                    lost.append(1 - (network[place:](without).argmax(dim=1) == labels).double().mean().item())
    assert len(lost) == settings.width * settings.depth
    found = removal(replace(of, test=(of.test[0], labels.numpy())))["accuracy_lost_worst"]
    assert found == pytest.approx(max(lost), abs=0.034)  # two of 60 images may be ties to rounding
    assert max(lost) > 0.05


def test_probes_leave_the_network_whole() -> None:
    """The network gives the same before and after all probes, and so do the probes."""
    of = subject(Settings(width=12, dropout=0.5, batch_norm=True))
    before = of.network.outputs(of.test[0])
    first = look(EVERY, of)
    assert np.array_equal(before, of.network.outputs(of.test[0]))
    assert look(EVERY, of) == first


@pytest.mark.parametrize("name", ["deep", "batch_norm", "all after"])
def test_sampling_is_the_mean_of_probabilities(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sample it is that one thinned network, here with torch; without dropout nothing differs."""
    assert set(sampling(subject()).values()) == {0.0}
    monkeypatch.setattr("mnist_ablate.training.probes.SAMPLES", 1)
    settings = NETWORKS[name]
    of, network = subject(settings), in_torch(settings)
    x, labels, place = torch.from_numpy(of.test[0]).double(), torch.from_numpy(of.test[1]), 0
    with torch.no_grad():
        plain = torch.softmax(network(x), dim=1)
        for part, module in network.named_children():
            if "dropout" in part:
                rate = settings.input_dropout if part == "input_dropout" else settings.dropout
                keep = keep_mask(stream(of.seed, f"probe/sampling/{place}"), tuple(x.shape), rate)
                x, place = x * torch.from_numpy(keep) / (1 - rate), place + 1
            else:
                x = module(x)
        thinned = torch.softmax(x, dim=1)
    assert place > 1
    np.testing.assert_allclose(_mean_of_thinned(of), thinned, rtol=1e-4, atol=1e-6)
    losses = [-answers.gather(1, labels[:, None]).log().mean().item() for answers in (plain, thinned)]
    assert sampling(of)["loss_gain_of_50"] == pytest.approx(losses[1] - losses[0], abs=1e-6)
    assert losses[1] != losses[0]


def test_a_label_without_probability_has_a_finite_loss() -> None:
    """Where a probability is 0, the loss is that of the smallest number."""
    network = subject().network
    assert loss(network, np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(sys.float_info.min))


def test_a_diverged_run_has_probes_without_numbers(small: Images) -> None:
    """What is not finite is None, and nothing breaks."""
    settings: dict[str, Any] = {"epochs": 2, "width": 16, "batch_size": 50, "learning_rate": 1e30}
    found = train(Run("s", "c", (), 0, Settings(**settings), "fused", EVERY), small).probes
    assert found["weights"]["log_weight_norm"] is None
    assert set(found) == set(EVERY)


def every_number() -> dict[str, str]:
    """Return the bits of all numbers of all probes of some untrained networks."""
    found: dict[str, str] = {}
    for name, settings in NETWORKS.items():
        of, shifts = subject(settings, n=CHUNK + 40), Shifts()
        for seed in (0, 1):
            shifts.add(Perceptron(values(settings, seed), settings, of.network.arithmetic), of.sample[0])
        taken = look(EVERY, of) | {"preactivations": shifts.numbers(of.network)}
        assert set(taken) == set(EVERY)
        found |= {f"{name}, {key}": value.hex() for numbers in taken.values() for key, value in numbers.items()}
    return found


def test_vector_instructions_change_nothing(tmp_path: Path) -> None:
    """All numbers have the same bits with kernels compiled for AVX2, and numpy without any vector instructions."""
    if lack := digests.missing_for("haswell"):
        pytest.skip(lack)
    simd: Any = np.show_config(mode="dicts")
    numpys = {"NPY_DISABLE_CPU_FEATURES": " ".join(simd["SIMD Extensions"].get("found", []))}
    folders = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | digests.compiling_for("haswell") | numpys
    variables |= {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": folders}
    code = "import json, test_probes as t; print(json.dumps(t.every_number()))"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == every_number()
