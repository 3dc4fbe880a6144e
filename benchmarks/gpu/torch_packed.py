"""torch on the card: models side by side by ``bmm``, a step of all of them captured in a CUDA graph.

Batches are gathered from bytes on the card, Adam is torch's fused one, dropout draws from torch's generator. On a
processor, for a look, nothing is captured.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from telling import UNAVAILABLE, tell, trying
from torch import Tensor
from torch.nn import functional

BATCH, STEPS, DROPOUT, CHUNK = 64, 750, 0.2, 2000
LAYERS = ("linear1", "linear2", "output")
CELLS = ("baseline", "dropout+batch_norm")
MODES = {"TF32": "high", "float32": "highest"}
"""How products are rounded, by torch's names."""


class Pack:
    """Some models and their optimiser."""

    def __init__(self, task: dict[str, Any], models: int, device: str, regularised: bool) -> None:
        self.models, self.device, self.regularised = models, device, regularised
        self.weights = {
            f"{layer}.{kind}": torch.tensor(task[f"{layer}.{kind}"][:models], device=device) for layer in LAYERS
            for kind in ("weight", "bias")
        }  # fmt: skip
        width = self.weights["linear1.bias"].shape[1]
        self.running: dict[str, Tensor] = {}
        if regularised:
            for layer in LAYERS[:2]:
                self.weights |= {f"{layer}.scale": torch.ones(models, width, device=device)}
                self.weights |= {f"{layer}.shift": torch.zeros(models, width, device=device)}
                self.running |= {f"{layer}.mean": torch.zeros(models, width, device=device)}
                self.running |= {f"{layer}.var": torch.ones(models, width, device=device)}
        for weight in self.weights.values():
            weight.requires_grad_()
        on_card = device == "cuda"
        self.adam = torch.optim.Adam(list(self.weights.values()), fused=on_card or None, capturable=on_card)

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """Return the logits (models, n, classes) of pixels (models, n, pixels), scaled to [0, 1]."""
        for layer in LAYERS:
            x = torch.baddbmm(self.weights[f"{layer}.bias"].unsqueeze(1), x, self.weights[f"{layer}.weight"].mT)
            if layer == "output":
                break
            if self.regularised:
                x = self._normalised(x, layer, training)
                x = functional.dropout(x, DROPOUT, training)
            x = functional.relu(x)
        return x

    def _normalised(self, x: Tensor, layer: str, training: bool) -> Tensor:
        mean, var = self.running[f"{layer}.mean"], self.running[f"{layer}.var"]
        if training:
            own_var, own_mean = torch.var_mean(x, 1, correction=0)
            with torch.no_grad():
                mean.lerp_(own_mean, 0.1)
                var.lerp_(own_var * (x.shape[1] / (x.shape[1] - 1)), 0.1)
            mean, var = own_mean, own_var
        scale = self.weights[f"{layer}.scale"] * torch.rsqrt(var + 1e-5)
        shift = self.weights[f"{layer}.shift"] - mean * scale
        return torch.addcmul(shift.unsqueeze(1), x, scale.unsqueeze(1))


def main() -> int:
    """Train in each mode and cell, and tell each time; capturing is not counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--models", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two steps, on a processor, too")
    options = parser.parse_args()
    device, steps, models = "cuda" if torch.cuda.is_available() else "cpu", STEPS, options.models
    if options.quick:
        steps, models, options.epochs = 2, min(2, models), 1
    elif device == "cpu":
        print(f"this torch, {torch.__version__}, has no card")
        return UNAVAILABLE
    tell(options.name, f"torch {torch.__version__}")
    with np.load(options.task) as file:
        task = {name: file[name] for name in file.files}
    for mode, precision in MODES.items():
        for cell in CELLS:
            what = f"{options.name}, {mode}, {cell}"
            with trying(what, failed=False):
                torch.set_float32_matmul_precision(precision)
                pack = Pack(task, models, device, cell != "baseline")
                seconds, accuracy = _train(pack, task, options.epochs, steps)
                tell(f"{what}, {models} models", 5 * seconds / options.epochs, "s for 5 epochs")
                tell(f"{what}, test accuracy", accuracy)
    return 0


def _train(pack: Pack, task: dict[str, Any], epochs: int, steps: int) -> tuple[float, float]:
    """Train; return the seconds, and the mean test accuracy after the last epoch."""
    models, device = pack.models, pack.device
    images, labels = (torch.tensor(task[f"train_{what}"], device=device) for what in ("images", "labels"))
    rows = torch.zeros(models, BATCH, dtype=torch.int64, device=device)
    losses = torch.zeros(models, device=device)

    def step() -> None:
        logits = pack.forward(images[rows].float() / 255, True)
        loss = functional.cross_entropy(logits.flatten(0, 1), labels[rows].long().flatten(), reduction="none")
        of_models = loss.reshape(models, BATCH).mean(1)
        pack.adam.zero_grad(set_to_none=True)
        torch.autograd.backward(of_models.sum())
        pack.adam.step()
        losses.copy_(of_models.detach())

    advance = _captured(pack, step) if device == "cuda" else step
    orders = torch.tensor(task["orders"][:models, :, : steps * BATCH].astype(np.int64), device=device)
    evaluate(pack, task, images, labels)
    _wait(device)
    began = time.perf_counter()
    accuracy = 0.0
    for epoch in range(epochs):
        for k in range(steps):
            rows.copy_(orders[:, epoch, k * BATCH : (k + 1) * BATCH])
            advance()
        accuracy = evaluate(pack, task, images, labels)
    _wait(device)
    return time.perf_counter() - began, accuracy


def _captured(pack: Pack, step: Any) -> Any:
    """Return what replays a step, whose weights are as they were."""
    before = {name: value.detach().clone() for name, value in (pack.weights | pack.running).items()}
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    pack.adam.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():
        for name, value in (pack.weights | pack.running).items():
            value.copy_(before[name])
        for state in pack.adam.state.values():
            for value in state.values():
                value.zero_()
    return graph.replay


@torch.no_grad()
def evaluate(pack: Pack, task: dict[str, Any], images: Tensor, labels: Tensor) -> float:
    """Evaluate as the protocol does, on a sample of the training, the validation and the test images."""
    n, accuracy = pack.models, 0.0
    test = torch.tensor(task["test_images"], device=pack.device), torch.tensor(task["test_labels"], device=pack.device)
    every = np.broadcast_to(np.arange(len(task["test_labels"])), (n, len(task["test_labels"])))
    parts = [(images, labels, task["sample_rows"][:n]), (images, labels, task["val_rows"][:n]), (*test, every)]
    for of_images, of_labels, part in parts:
        rows = torch.tensor(part.astype(np.int64), device=pack.device)
        losses, right = [], torch.zeros(n, device=pack.device)
        for some in torch.split(rows, CHUNK, 1):
            logits, answers = pack.forward(of_images[some].float() / 255, False), of_labels[some].long()
            losses.append(functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").cpu())
            right += (logits.argmax(2) == answers).sum(1)
        accuracy = float((right / rows.shape[1]).mean())
    return accuracy


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
