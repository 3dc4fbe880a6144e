"""The engine for any ``nn.Module``: gradients by autograd, steps by torch's fused optimisers."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_ablate.data import MNIST, Sizes
from mnist_ablate.design.own_code import looking_in, own_function
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import derive, stream, variant
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.model import Dropout, mlp

_OPTIMISERS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}

_CHUNK = 500
"""Images in a forward pass of an evaluation: few enough to stay in cache."""


def pixels(images: Tensor, rows: Tensor) -> Tensor:
    """Return `rows` of `images`; bytes are scaled to [0, 1]: the same values as torchvision's ``ToTensor``."""
    return images[rows].to(torch.float32).div_(255) if images.dtype == torch.uint8 else images[rows]


class AutogradEngine:
    """Any model trained by torch: the multilayer perceptron unless the settings name another. See `engines.Engine`.

    `folder` is the study file's, where a user's model is looked for first; `sizes` are those of the data set. `device`
    is what trains: torch's name for the processor or a card. Weights and the masks of our own dropout are drawn by the
    processor for both.

    A user's model may draw from torch's global generators, as ``nn.Dropout`` does. It has its own state of them, set
    around every step, so nothing else in the process can disturb it.
    """

    def __init__(
        self, settings: Settings, seed: int, folder: str = "", sizes: Sizes = MNIST, device: str = "cpu"
    ) -> None:
        self._device = torch.device(device)
        self._chance: list[Tensor] | None = None
        self._moved: list[tuple[Tensor, Tensor]] = []
        if settings.model:
            make = own_function(settings.model, folder)
            with self._own_chance(), looking_in(folder):
                torch.manual_seed(derive(seed, "model") % 2**63)
                self.model: nn.Module = make(settings, seed)
        else:
            self.model = mlp(settings, seed, sizes)
        self.model.to(self._device)
        self._settings = settings
        self._evaluation_masks = _evaluation_masks(settings, seed)
        self.optimiser: torch.optim.Optimizer = _OPTIMISERS[settings.optimiser](
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.l2, fused=True
        )

    def train(self, images: Tensor, labels: Tensor, batches: Iterable[Tensor]) -> list[float]:
        """Take a step of training on each batch, up to one whose loss is not finite; return their losses, in nats."""
        images, labels = self._here(images), self._here(labels)
        losses: list[Tensor] = []
        for rows in batches:
            losses.append(self._step_with_chance(images, labels, rows.to(self._device)))
            # To look at a card's loss is to wait for it, so steps after one that diverged are taken, and forgotten.
            if self._device == torch.device("cpu") and not math.isfinite(losses[-1].item()):
                break
        return _until_not_finite(torch.stack(losses).tolist() if losses else [])

    def _here(self, tensor: Tensor) -> Tensor:
        """Return images or labels on the device, moved there once: a run has only a few tensors of them."""
        for seen, moved in self._moved:
            if seen is tensor:
                return moved
        self._moved.append((tensor, tensor.to(self._device)))
        return self._moved[-1][1]

    @torch.enable_grad()
    def _step_with_chance(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        if self._chance is None:
            return self._step(images, labels, rows)
        with self._own_chance():
            return self._step(images, labels, rows)

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """Give torch's global generators the model's own state within the block, and keep it afterwards."""
        on_card = self._device.type == "cuda"
        with torch.random.fork_rng(devices=[self._device] if on_card else []):
            if self._chance is not None:
                torch.set_rng_state(self._chance[0])
                if on_card:
                    torch.cuda.set_rng_state(self._chance[1], self._device)
            yield
            self._chance = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if on_card else [])]

    def _step(self, images: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        self.model.train()
        loss = cross_entropy(self._outputs(images, rows), labels[rows])
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self._settings.l1:
            self._penalise()
        self.optimiser.step()
        return loss.detach()

    def _penalise(self) -> None:
        """Add the gradient of the L1 penalty (Tibshirani 1996): its weight times the sign of each parameter."""
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach().sign(), alpha=self._settings.l1)

    @torch.inference_mode()
    def answers(self, images: Tensor, labels: Tensor, rows: Tensor, size: int) -> Answers:
        """Return the network's answers to `rows` of `images`, in the mode of evaluation; see `engines.Engine`."""
        images, labels, rows = self._here(images), self._here(labels), rows.to(self._device)
        training = self._settings.evaluation == "train"
        parts = torch.split(rows, size if training else _CHUNK)
        log_probabilities = torch.cat([torch.log_softmax(self.logits(images, part), dim=1) for part in parts])
        losses = -log_probabilities.gather(1, labels[rows][:, None])[:, 0].double()
        log_confidence, prediction = log_probabilities.max(dim=1)
        return Answers(
            losses.cpu().numpy(), prediction.cpu().numpy().astype(np.uint8), log_confidence.exp().cpu().numpy()
        )

    @torch.inference_mode()
    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs for `rows` of `images`, float32 (rows, classes), in the mode of evaluation.

        In train mode the masks come from separate streams, so that those of training stay as they are; the running
        statistics of BatchNorm move.
        """
        if self._settings.evaluation == "eval":
            self.model.eval()
            return self._outputs(images, rows)
        self.model.train()
        with _drawing_from(self._evaluation_masks, self.model):
            return self._outputs(images, rows)

    def _outputs(self, images: Tensor, rows: Tensor) -> Tensor:
        inputs = pixels(images, rows)
        outputs: Tensor = self.model(inputs if self._settings.model else inputs.flatten(1))
        return outputs

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of every parameter and running statistic, by name, in a fixed order."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.model.state_dict().items()}

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace all that `weights` returns by values of the same names and shapes."""
        self.model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})


def _until_not_finite(losses: list[float]) -> list[float]:
    """Return the losses up to the first that is not finite."""
    ends = (i + 1 for i, loss in enumerate(losses) if not math.isfinite(loss))
    return losses[: next(ends, len(losses))]


def _evaluation_masks(settings: Settings, seed: int) -> list[np.random.BitGenerator]:
    """Return streams of dropout masks for evaluation in train mode, one for each place of dropout."""
    own = variant(seed, "dropout", settings.dropout_seed)
    return [stream(own, f"evaluation/dropout/{i}") for i in range(settings.depth + 1)]


@contextmanager
def _drawing_from(streams: list[np.random.BitGenerator], model: nn.Module) -> Iterator[None]:
    """Let the dropouts of `model` draw from `streams` within the block."""
    dropouts = [module for module in model.modules() if isinstance(module, Dropout)]
    own = [dropout.bits for dropout in dropouts]
    for dropout, bits in zip(dropouts, streams, strict=False):
        dropout.bits = bits
    try:
        yield
    finally:
        for dropout, bits in zip(dropouts, own, strict=True):
            dropout.bits = bits
