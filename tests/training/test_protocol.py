"""The protocol of a run, on small images, and against plain torch."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_ablate.data import Images, replace_labels, split
from mnist_ablate.design.plan import EngineName, Run
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import keep_mask, permutation, stream
from mnist_ablate.errors import TrainingError
from mnist_ablate.training import protocol as train_module
from mnist_ablate.training.engines import make_engine
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.engines.autograd import AutogradEngine
from mnist_ablate.training.model import Dropout, mlp
from mnist_ablate.training.protocol import evaluate, evaluate_weights, steady_arithmetic, train

ON: dict[str, Any] = {"l2": 1e-5, "dropout": 0.2, "batch_norm": True}
CELLS = [dict(chosen) for n in range(4) for chosen in itertools.combinations(ON.items(), n)]


@pytest.fixture(params=get_args(EngineName))
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Run the test with each engine."""
    name: EngineName = request.param
    return name


def run_of(seed: int = 0, engine: EngineName = "autograd", **settings: Any) -> Run:
    """Make a short run with a narrow network."""
    return Run("s", "c", (), seed, Settings(**{"epochs": 2, "width": 16, "batch_size": 32} | settings), engine)


def numbers(result: train_module.RunResult) -> list[dict[str, Any]]:
    """Return the rows without the seconds, the only thing that may differ between two runs alike."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in result.rows]


class PlainDropout(nn.Module):
    """What a reader would write, with masks that are handed to it."""

    def __init__(self, masks: Iterator[NDArray[np.bool_]]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        """Apply the next mask as `torch.nn.Dropout` does."""
        return x * (torch.from_numpy(next(self.masks)).float() / (1 - 0.2))


def plain_losses(on: dict[str, Any], images: Images, steps: int) -> list[float]:
    """Train as a tutorial does: `nn.Module`, autograd, `torch.optim.Adam`; same weights, batches and masks.

    With BatchNorm the gradient of a bias before it is nothing but rounding error, which Adam blows up to full
    steps, and the losses part by 1e-4 within 50 steps as soon as anything rounds differently. So Adam is the
    fused one here too, on one thread without subnormals.
    """

    def masks(layer: int) -> Iterator[NDArray[np.bool_]]:
        bits = stream(7, f"dropout/{layer}")
        while True:
            yield keep_mask(bits, (64, 256), 0.2)

    layers: list[nn.Module] = []
    for i, inputs in ((1, 784), (2, 256)):
        layers.append(nn.Linear(inputs, 256))
        layers += [nn.BatchNorm1d(256)] if "batch_norm" in on else []
        layers += [PlainDropout(masks(i))] if "dropout" in on else []
        layers.append(nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    ours = mlp(Settings(**on), 7)
    for mine, its in zip(model.parameters(), ours.parameters(), strict=True):
        mine.data.copy_(its.data)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001, weight_decay=on.get("l2", 0), fused=True)
    rows, _ = split(len(images.train_labels), 7, 0.2)
    order = rows[permutation(stream(7, "batches/1"), len(rows))]
    losses = []
    for step in range(steps):
        batch = order[64 * step : 64 * step + 64]
        x = torch.from_numpy(images.train_images[batch] / np.float32(255))
        loss = nn.CrossEntropyLoss()(model(x), torch.from_numpy(images.train_labels[batch].astype(np.int64)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.mnist
@pytest.mark.parametrize("on", CELLS, ids=lambda on: "+".join(on) or "baseline")
def test_losses_are_those_of_plain_torch(on: dict[str, Any], mnist: Images) -> None:
    """The first 50 losses are those of the same training written plainly in torch, to 1e-5, in every cell."""
    images = replace(mnist, train_images=mnist.train_images[:4000], train_labels=mnist.train_labels[:4000])
    run = Run("s", "c", (), 7, Settings(epochs=1, **on), "autograd")
    with steady_arithmetic("autograd"):
        plain = plain_losses(on, images, 50)
    assert train(run, images).first_losses == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("on", CELLS, ids=lambda on: "+".join(on) or "baseline")
def test_a_run_is_a_function_of_its_specification(on: dict[str, Any], small: Images, engine: EngineName) -> None:
    """The same run gives the same bits, whatever was drawn, set or trained in the process before."""
    first = train(run_of(engine=engine, **on), small)
    torch.manual_seed(99)
    torch.rand(3)
    train(run_of(seed=1, engine=engine, dropout=0.5), small)
    torch.set_num_threads(2)
    second = train(run_of(engine=engine, **on), small)
    assert numbers(first) == numbers(second)
    assert first.weights_sha256 == second.weights_sha256
    assert first.first_losses == second.first_losses
    assert all((first.predictions[name] == second.predictions[name]).all() for name in first.predictions)


def test_settings_of_the_session_change_no_bit(small: Images, engine: EngineName) -> None:
    """A notebook's default device and type, half precision, and NumPy's errors change nothing of a run in it."""
    plain = train(run_of(engine=engine), small)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu"), torch.no_grad(), np.errstate(all="raise"):
            inside = train(run_of(engine=engine), small)
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert numbers(inside) == numbers(plain)
    assert inside.weights_sha256 == plain.weights_sha256


def test_every_factor_and_seed_changes_the_trajectory(small: Images, engine: EngineName) -> None:
    """No factor is silently inactive: each cell, and each seed, has its own losses and weights."""
    results = [train(run_of(engine=engine, **on), small) for on in CELLS]
    results.append(train(run_of(seed=1, engine=engine), small))
    assert len({result.weights_sha256 for result in results}) == 9
    assert len({tuple(result.first_losses) for result in results}) == 9


@pytest.mark.parametrize("on", CELLS[1:], ids="+".join)
def test_factors_change_no_batch(on: dict[str, Any], small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turning a technique on leaves every batch of the same seed as it is; another seed has other batches."""
    assert batches(run_of(**on), small, monkeypatch) == batches(run_of(), small, monkeypatch)
    assert batches(run_of(seed=1), small, monkeypatch) != batches(run_of(), small, monkeypatch)


def batches(run: Run, images: Images, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Return the rows of every batch that `run` trains on."""
    seen: list[list[int]] = []

    class Recorder:
        def train(self, images: Tensor, labels: Tensor, batches: list[Tensor]) -> list[float]:  # noqa: ARG002
            seen.extend(rows.tolist() for rows in batches)
            return [1.0] * len(batches)

        def answers(self, images: Tensor, labels: Tensor, rows: Tensor, size: int) -> Answers:  # noqa: ARG002
            n = len(rows)
            return Answers(np.zeros(n), np.zeros(n, np.uint8), np.zeros(n))

        def weights(self) -> dict[str, NDArray[Any]]:
            return {}

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "make_engine", lambda *_, **__: Recorder())
        train(run, images)
    return seen


NEW: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [  # base, change, the parts of chance that it changes
    ({}, {"optimiser": "sgd"}, set()),
    ({"l2": 0.01}, {"optimiser": "adamw"}, set()),
    ({}, {"l1": 1e-3}, set()),
    ({}, {"input_dropout": 0.2}, set()),
    ({"batch_norm": True, "norm_place": "after"}, {"dropout_place": "after"}, set()),
    ({}, {"norm": "layer"}, set()),
    ({"norm": "layer"}, {"norm": "group"}, set()),
    ({"batch_norm": True}, {"norm_place": "after"}, set()),
    ({"batch_norm": True}, {"shared_norm": True}, set()),
    ({}, {"label_noise": 0.4}, set()),
    ({}, {"init": "kaiming"}, {"weights"}),
    ({"init": "kaiming"}, {"init": "xavier"}, {"weights"}),
    ({}, {"init_scale": 2.0}, {"weights"}),
    ({}, {"train_images": 100}, {"batches"}),
    ({}, {"split_seed": 1}, {"split", "batches"}),
    ({}, {"init_seed": 1}, {"weights"}),
    ({}, {"batch_seed": 1}, {"batches"}),
    ({}, {"dropout_seed": 1}, {"masks"}),
]


@pytest.mark.parametrize(
    ("base", "change", "parts"), NEW, ids=lambda value: str(value) if value and isinstance(value, dict) else "-"
)
def test_each_further_factor_acts_and_leaves_chance_alone(
    base: dict[str, Any], change: dict[str, Any], parts: set[str], small: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factor changes the trajectory, and of split, weights, batches and masks no other part than it is about."""
    one, two = (run_of(epochs=1, **{"dropout": 0.5} | base | more) for more in ({}, change))
    assert train(one, small).first_losses != train(two, small).first_losses
    before, after = (chance(run, small, monkeypatch) for run in (one, two))
    assert {part for part in before if before[part] != after[part]} == parts


def chance(run: Run, images: Images, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what chance gives a run, part by part."""
    seen = batches(run, images, monkeypatch)
    model = mlp(run.settings, run.seed)
    bits = [module.bits for module in model.modules() if isinstance(module, Dropout)][-2:]  # less that of the input
    task = train_module.Task.of(run, images)
    return {
        "split": sorted(task.val_rows.tolist()),
        "weights": model.get_parameter("linear1.weight").detach().flatten().tolist(),
        "batches": seen,
        "masks": [keep_mask(of_layer, (8,), 0.5).tolist() for of_layer in bits],
    }


@pytest.mark.parametrize("factor", [{"init": "kaiming"}, {"init_scale": 2.0}, {"init_seed": 1}, {"dropout_seed": 1}])
def test_engines_share_initial_weights_and_masks(factor: dict[str, Any], small: Images) -> None:
    """What `fused` takes from the network, weights and masks, it takes with every setting of them."""
    settings: dict[str, Any] = {"dropout": 0.5, **factor}
    results = [train(run_of(engine=engine, epochs=1, **settings), small) for engine in get_args(EngineName)]
    assert results[0].first_losses == pytest.approx(results[1].first_losses, abs=1e-4)


def test_epochs_of_some_steps_are_the_same_steps(small: Images, engine: EngineName) -> None:
    """Where epochs end changes nothing of the steps: 26 steps are 26 steps, in one pass, two or thirteen epochs."""
    whole = train(run_of(engine=engine), small)
    parts = train(run_of(engine=engine, epochs=13, epoch_steps=2), small)
    assert parts.first_losses == whole.first_losses
    assert parts.weights_sha256 == whole.weights_sha256
    assert len(parts.rows) == 13


def test_fewer_images_take_as_many_steps_as_asked(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `epoch_steps`, a part of the images is gone through again until there are enough steps."""
    seen = batches(run_of(train_images=40, epoch_steps=6, epochs=1), small, monkeypatch)
    assert [len(batch) for batch in seen] == [32, 8] * 3
    train_rows, _ = split(500, 0, 0.2)
    assert sorted(itertools.chain(*seen[:2])) == sorted(train_rows[:40])


def test_too_few_images_are_refused(small: Images) -> None:
    """More training images than the split leaves are refused with the number that there is."""
    with pytest.raises(TrainingError, match=r"train_images = 401, but the split leaves 400 of 500 images"):
        train(run_of(train_images=401), small)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_replaced_labels(share: float, small: Images) -> None:
    """Just that share of the rows has another label; others' labels stay; more noise keeps what less has replaced."""
    rows, rest = np.arange(400), np.arange(400, 500)
    labels = small.train_labels
    noisy = replace_labels(labels, rows, share, 3)
    assert (noisy[rows] != labels[rows]).sum() == round(400 * share)
    assert (noisy[rest] == labels[rest]).all()
    assert noisy.max() <= 9
    changed = noisy != labels
    assert (replace_labels(labels, rows, 1.0, 3)[changed] == noisy[changed]).all()


def test_noise_reaches_training_alone(small: Images) -> None:
    """Validation and test labels are true whatever the noise, and the images are those of the run without it."""
    clean, noisy = (train_module.Task.of(run_of(label_noise=share), small) for share in (0.0, 0.4))
    assert torch.equal(clean.train[1][clean.val_rows], noisy.train[1][clean.val_rows])
    assert torch.equal(clean.test[1], noisy.test[1])
    assert (clean.train[1] != noisy.train[1]).sum() == 160


def test_evaluation_in_train_mode_changes_no_step(small: Images) -> None:
    """The notebook's first mistake changes what is measured, and not a step of training."""
    settings: dict[str, Any] = {"dropout": 0.5, "batch_norm": True}
    right, wrong = (train(run_of(evaluation=mode, **settings), small) for mode in ("eval", "train"))
    assert right.first_losses == wrong.first_losses
    assert right.rows[-1]["val_loss"] != wrong.rows[-1]["val_loss"]
    assert right.rows[-1]["train_loss"] == wrong.rows[-1]["train_loss"]


def test_train_mode_normalises_each_batch_by_itself(small: Images) -> None:
    """In train mode a batch has mean 0 after BatchNorm whatever the running statistics are."""
    with steady_arithmetic("autograd"):
        engine = make_engine("autograd", Settings(batch_norm=True, width=8, evaluation="train"), 0)
        images = torch.from_numpy(small.train_images)
        found = []
        engine.model.get_submodule("batch_norm1").register_forward_hook(  # type: ignore[attr-defined]
            lambda _module, _inputs, output: found.append(output.mean(dim=0).abs().max().item())
        )
        engine.answers(images, torch.zeros(500, dtype=torch.int64), torch.arange(50), 50)
    assert found[0] < 1e-5


def test_mean_over_batches_is_that_of_the_notebook(small: Images) -> None:
    """Each batch counts once, whatever its size, in training and in evaluation; recomputed by hand."""
    per_image, per_batch = (train(run_of(epochs=1, loss_mean=mean), small) for mean in ("images", "batches"))
    losses = np.array(per_batch.first_losses)
    sizes = np.array([32] * 12 + [16])
    assert per_image.weights_sha256 == per_batch.weights_sha256
    assert per_batch.rows[0]["train_loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert per_image.rows[0]["train_loss"] == pytest.approx((losses * sizes).sum() / 400, rel=1e-12)
    run, task = run_of(epochs=1), train_module.Task.of(run_of(), small)
    with steady_arithmetic("autograd"):
        engine = make_engine("autograd", run.settings, run.seed)
        batches = next(train_module._batches(run, task, train_module.ordered))
        for batch in torch.split(batches.rows, batches.sizes):
            engine.train(*task.train, [batch])
        parts = [evaluate(engine, *task.train, rows).loss for rows in torch.split(task.val_rows, 32)]
    assert per_batch.rows[0]["val_loss"] == pytest.approx(np.mean(parts), rel=1e-6)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_one_step_by_hand(optimiser: str, small: Images) -> None:
    """The first step of each optimiser, with both penalties, is the one of its paper."""
    settings = Settings(optimiser=optimiser, l1=0.01, l2=0.1, width=8, learning_rate=0.1)  # type: ignore[arg-type]
    images, labels = torch.from_numpy(small.train_images), torch.from_numpy(small.train_labels.astype(np.int64))
    rows = torch.arange(50)
    with steady_arithmetic("autograd"):
        engine = make_engine("autograd", settings, 0)
        model = mlp(settings, 0)
        torch.autograd.backward(nn.functional.cross_entropy(model(images[rows].float() / 255), labels[rows]))
        engine.train(images, labels, [rows])
    weight = model.get_parameter("output.weight")
    assert weight.grad is not None
    start, gradient = weight.detach().double(), weight.grad.double()
    seen = gradient + 0.01 * start.sign() + (0 if optimiser == "adamw" else 0.1 * start)
    # Adam's first step is the gradient over its own size.
    step = seen if optimiser == "sgd" else seen / (seen.abs() + 1e-8)
    expected = start * (1 - 0.1 * 0.1 if optimiser == "adamw" else 1) - 0.1 * step
    np.testing.assert_allclose(engine.weights()["output.weight"].astype(float), expected.numpy(), atol=1e-5)


def test_each_epoch_sees_every_training_image_once(small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch goes once through the training part of the split, in an order of its own, the last batch short."""
    seen = batches(run_of(), small, monkeypatch)
    assert [len(batch) for batch in seen] == [32] * 12 + [16] + [32] * 12 + [16]
    first, second = list(itertools.chain(*seen[:13])), list(itertools.chain(*seen[13:]))
    train_rows, val_rows = split(500, 0, 0.2)
    assert sorted(first) == sorted(second) == sorted(train_rows)
    assert first != second
    assert not set(first) & set(val_rows)


def test_rows_hold_what_the_schema_says(small: Images) -> None:
    """Recomputed by hand from the same engine: means of losses weighted by batch, evaluations per example."""
    run = run_of(epochs=1, dropout=0.2, batch_norm=True)
    result = train(run, small)
    with steady_arithmetic("autograd"):
        engine = make_engine("autograd", run.settings, run.seed)
        images, labels = torch.from_numpy(small.train_images), torch.from_numpy(small.train_labels.astype(np.int64))
        train_rows, val_rows = split(500, 0, 0.2)
        order = torch.from_numpy(train_rows[permutation(stream(0, "batches/1"), 400)])
        losses = engine.train(images, labels, torch.split(order, 32))
    (row,) = result.rows
    assert result.first_losses == losses
    assert row["train_loss"] == pytest.approx((sum(losses[:-1]) * 32 + losses[-1] * 16) / 400, rel=1e-12)
    model = engine.model.eval()  # type: ignore[attr-defined]
    for name, rows in (("val", val_rows), ("train", train_rows)):
        with torch.no_grad():
            logits = model(images[rows].float() / 255).double()
        loss = nn.functional.cross_entropy(logits, labels[rows]).item()
        assert row["val_loss" if name == "val" else "train_loss_eval"] == pytest.approx(loss, rel=1e-5)
    hits = result.predictions["prediction"] == small.test_labels
    assert row["test_accuracy"] == hits.mean()
    assert (result.predictions["label"] == small.test_labels).all()
    assert ((result.predictions["confidence"] > 0.1) & (result.predictions["confidence"] <= 1)).all()


def test_training_learns(small: Images, engine: EngineName) -> None:
    """Images that can be learnt are learnt."""
    rows = train(run_of(epochs=6, engine=engine), small).rows
    assert rows[-1]["test_accuracy"] > 0.9
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["status"] for row in rows} == {"ok"}


def test_evaluation_changes_nothing(small: Images, engine: EngineName) -> None:
    """Evaluating neither moves a weight or a running statistic, nor uses up a mask."""
    with steady_arithmetic(engine):
        made = make_engine(engine, Settings(dropout=0.5, batch_norm=True, width=8, batch_size=100), 0)
        images, labels = torch.from_numpy(small.train_images), torch.from_numpy(small.train_labels.astype(np.int64))
        rows = torch.arange(100)
        made.train(images, labels, [rows])
        before = made.weights()
        first, second = evaluate(made, images, labels, rows), evaluate(made, images, labels, rows)
    assert first.loss == second.loss
    after = made.weights()
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.parametrize("bad_from", [1, 2])
def test_a_loss_that_is_not_finite_is_divergence(bad_from: int, small: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the epoch whose loss is not finite the rows say so, and repeat the last finite evaluation."""
    good = train(run_of(epochs=3), small).rows
    step, calls = AutogradEngine._step, itertools.count()

    def breaks(self: Any, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        loss = step(self, images, labels, rows)
        return loss * math.nan if next(calls) >= 13 * (bad_from - 1) + 5 else loss

    monkeypatch.setattr(AutogradEngine, "_step", breaks)
    result = train(run_of(epochs=3), small)
    assert [row["status"] for row in result.rows] == ["ok"] * (bad_from - 1) + ["diverged"] * (4 - bad_from)
    assert [row["epoch"] for row in result.rows] == [1, 2, 3]
    for row in result.rows[bad_from - 1 :]:
        assert math.isnan(row["train_loss"])
        if bad_from == 1:  # no epoch to repeat: the initial weights, which know nothing
            assert row["test_loss"] == pytest.approx(math.log(10), rel=0.1)
        else:
            assert row["test_loss"] == good[0]["test_loss"]
    assert (result.predictions["prediction"] == small.test_labels).mean() == result.rows[-1]["test_accuracy"]


def test_a_huge_learning_rate_diverges_and_says_so(small: Images, engine: EngineName) -> None:
    """A real divergence, not a planted one, ends as `diverged` with finite evaluations and no weights."""
    result = train(run_of(learning_rate=1e30, engine=engine), small)
    assert result.rows[-1]["status"] == "diverged"
    assert all(math.isfinite(row["val_loss"]) for row in result.rows)
    assert all(np.isnan(values).all() for values in result.weights.values())


def test_a_last_batch_of_one_cannot_be_normalised(small: Images) -> None:
    """A batch size that leaves one image over is refused with BatchNorm, and the message says why."""
    with pytest.raises(TrainingError, match=r"batch_size = 57 leaves a last batch of one .* choose another"):
        train(run_of(batch_size=57, batch_norm=True), small)
    assert train(run_of(batch_size=57), small).rows[-1]["status"] == "ok"


@pytest.mark.parametrize("before", [False, True])
def test_steady_arithmetic_is_put_back(before: bool, engine: EngineName) -> None:
    """Inside there is one thread, and subnormals are flushed for autograd alone; after it all is as before."""
    torch.set_num_threads(2)
    tiny = torch.tensor([1e-39])
    torch.set_flush_denormal(before)
    try:
        with contextlib.suppress(KeyError), steady_arithmetic(engine):
            assert torch.get_num_threads() == 1
            assert ((tiny * 0.5).item() == 0) == (engine == "autograd")
            raise KeyError
        assert torch.get_num_threads() == 2
        assert ((tiny * 0.5).item() == 0) == before
    finally:
        torch.set_flush_denormal(False)


def test_final_weights_evaluate_to_the_last_row(small: Images, engine: EngineName) -> None:
    """What a run ends with, evaluated again, gives the numbers of its last row and its predictions, to the bit."""
    run = run_of(engine=engine, batch_norm=True)
    result = train(run, small)
    found, predictions = evaluate_weights(run, small, result.weights)
    assert found == {name: result.rows[-1][name] for name in found}
    assert len(found) == 5
    assert (predictions["confidence"] == result.predictions["confidence"]).all()


def test_a_nudge_is_only_rounding(small: Images, engine: EngineName) -> None:
    """Initial weights moved by units in the last place give other bits, and the same losses but for rounding."""
    run = run_of(engine=engine, epochs=1)
    plain, nudged, more = (train(run, small, nudge=units) for units in (0, 1, 2))
    assert len({plain.weights_sha256, nudged.weights_sha256, more.weights_sha256}) == 3
    assert nudged.first_losses != plain.first_losses
    np.testing.assert_allclose(nudged.first_losses, plain.first_losses, atol=1e-4, rtol=0)
    np.testing.assert_allclose(nudged.first_losses[0], plain.first_losses[0], atol=1e-6, rtol=0)
