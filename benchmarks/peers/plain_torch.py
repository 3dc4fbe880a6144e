"""PyTorch written for speed: tensors in memory, autograd, fused Adam, one thread, subnormals flushed.

Batches are slices of a permutation. Rows are gathered as bytes and then scaled, which is faster than rows of float32.
Step losses stay tensors until the epoch ends. ``torch.compile`` gains nothing at this size.
"""

from argparse import Namespace
from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from common import BATCH, CHUNK, DROPOUT, LEARNING_RATE, WIDTH, Epoch, Task, main
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def train(task: Task, options: Namespace) -> Iterator[Epoch | None]:
    """Train one model: see ``common.Train``."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(options.model)
    training = torch.from_numpy(task["train_images"]), torch.from_numpy(task["train_labels"].astype(np.int64))
    test = torch.from_numpy(task["test_images"]), torch.from_numpy(task["test_labels"].astype(np.int64))
    orders, sample, val = (
        torch.from_numpy(task[name][options.model].astype(np.int64)) for name in ("orders", "sample_rows", "val_rows")
    )
    parts = {"train": (*training, sample), "val": (*training, val), "test": (*test, torch.arange(len(test[1])))}
    _epoch(*_model(task, options), *training, orders[0, : 50 * BATCH])  # a warm-up
    model, optimiser = _model(task, options)
    yield None
    for order in orders[: options.epochs]:
        losses = _epoch(model, optimiser, *training, order)
        evaluation: dict[str, list[float]] = {}
        for name, part in parts.items():
            evaluation |= _evaluate(model, name, *part)
        yield Epoch(losses[None].numpy(), evaluation)


def _model(task: Task, options: Namespace) -> tuple[nn.Sequential, torch.optim.Adam]:
    """Return the network with the task's initial weights, and its optimiser."""
    extra = [[nn.BatchNorm1d(WIDTH), nn.Dropout(DROPOUT)] if options.regularised else [] for _ in range(2)]
    hidden = [[nn.Linear(n, WIDTH), *extra[i], nn.ReLU()] for i, n in enumerate((784, WIDTH))]
    model = nn.Sequential(*chain(*hidden), nn.Linear(WIDTH, 10))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for name, layer in zip(("linear1", "linear2", "output"), layers, strict=True):
            layer.weight.copy_(torch.from_numpy(task[f"{name}.weight"][options.model]))
            layer.bias.copy_(torch.from_numpy(task[f"{name}.bias"][options.model]))
    return model, torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)


def _pixels(images: Tensor, rows: Tensor) -> Tensor:
    return images[rows].to(torch.float32).div_(255)


def _epoch(model: nn.Module, optimiser: torch.optim.Adam, images: Tensor, labels: Tensor, order: Tensor) -> Tensor:
    """Take an epoch's steps and return their losses, (steps,)."""
    model.train()
    losses = []
    for rows in torch.split(order, BATCH):
        loss = cross_entropy(model(_pixels(images, rows)), labels[rows])
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@torch.inference_mode()
def _evaluate(model: nn.Module, name: str, images: Tensor, labels: Tensor, rows: Tensor) -> dict[str, list[float]]:
    model.eval()
    loss, correct = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    for part in torch.split(rows, CHUNK):
        logits, truth = model(_pixels(images, part)), labels[part]
        loss += cross_entropy(logits, truth, reduction="sum")
        correct += (logits.argmax(dim=1) == truth).sum()
    return {f"{name}_loss": [loss.item() / len(rows)], f"{name}_accuracy": [correct.item() / len(rows)]}


if __name__ == "__main__":
    main(train, ["plain_torch"], {"torch": torch.__version__})
