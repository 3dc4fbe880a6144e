"""The fast engine: the multilayer perceptron with hand-written gradients. The equations are in `kernels`."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_ablate.data import CLASSES, PIXELS
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import drop_threshold, stream, variant, words16
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines.compilation import cache_folder, load_or_compile
from mnist_ablate.training.engines.kernels import (
    Adam,
    Floats,
    Layer,
    Parameter,
    Pixels,
    Sparse,
    list_pixels,
    predict,
    train_steps,
)
from mnist_ablate.training.model import mlp

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # torch.optim.Adam's
_TOGETHER = 8
"""Steps in one call, which costs 25 microseconds. With more, dropout words would push weights out of the cache."""
_COMPILED: set[tuple[int, Any]] = set()
"""Depths and types of networks whose kernels this process has."""


class FusedEngine:
    """The multilayer perceptron of `training.model`, without autograd: see `training.engines.Engine`.

    Parameters
    ----------
    settings, seed
        As for `mnist_ablate.training.model.mlp`, whose initial weights it has.
    dtype
        float32; float64 to check the gradients.

    Raises
    ------
    TrainingError
        If the settings need something that only autograd can do.
    """

    def __init__(self, settings: Settings, seed: int, dtype: Any = np.float32) -> None:
        if settings.for_autograd:
            names = ", ".join(settings.for_autograd)
            raise TrainingError(f'engine = "fused": has no code for {names}: take "autograd".')
        self._settings = settings
        self._dtype = dtype
        self._taken = 0
        self._layers = _layers(settings, seed, dtype)
        self._keep = self._constant(1 - settings.dropout)
        constants = (settings.l2, _BETA1, _BETA2, 1 - _BETA1, 1 - _BETA2, 0, 0, _EPS)
        self._adam = Adam(*(self._constant(value) for value in constants))
        masks = variant(seed, "dropout", settings.dropout_seed)
        self._no_words = (np.empty((_TOGETHER, 0, 0), np.uint16),) * settings.depth
        self._seen: list[tuple[Tensor, Pixels]] = []
        self._dropout: list[np.random.PCG64] = []
        self._compile()  # before there are dropout streams, from which it must not draw
        self._dropout = [stream(masks, f"dropout/{i}") for i in range(1, settings.depth + 1) if settings.dropout]

    def _compile(self) -> None:
        """Load or compile the kernels for networks of this depth and type, once in a process, before any clock runs."""
        kind = (self._settings.depth, self._dtype)
        if kind not in _COMPILED:
            load_or_compile(self._call_kernels, cache_folder())
            _COMPILED.add(kind)

    def _call_kernels(self) -> None:
        """Call each kernel on no images, with the types that training and evaluation have."""
        images, none = torch.empty((0, PIXELS), dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        self._steps(images, none, none.reshape(0, 1))
        self.logits(images, none)
        self._seen.clear()

    def train(self, images: Tensor, labels: Tensor, batches: Iterable[Tensor]) -> list[float]:
        """Take a step of training on each batch, up to one whose loss is not finite; return their losses, in nats.

        Raises
        ------
        ValueError
            If a batch is larger than `batch_size`, for which there is room.
        """
        losses: list[float] = []
        for alike in _alike(batches):
            losses += self._steps(images, labels, alike)
            if not math.isfinite(losses[-1]):
                break
        return losses

    def _steps(self, images: Tensor, labels: Tensor, batches: Tensor) -> list[float]:
        """Take steps on batches of one size: (steps, batch)."""
        settings, (steps, n) = self._settings, batches.shape
        if n > settings.batch_size:
            raise ValueError(f"a batch of {n}, where batch_size is {settings.batch_size}")
        losses: NDArray[np.float64] = np.empty(steps)
        taken = train_steps(
            self._pixels(images),
            labels.numpy(),
            batches.numpy(),
            self._layers,
            self._dropout_words(steps, n),
            np.int32(drop_threshold(settings.dropout)),
            self._keep,
            settings.batch_norm,
            self._adam_of(steps),
            losses,
        )
        self._taken += steps
        return list(losses[:taken].tolist())

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the outputs in evaluation mode for `rows` of `images`: (rows, classes)."""
        outputs = np.empty((len(rows), CLASSES), self._dtype)
        predict(self._pixels(images), rows.numpy(), self._layers, self._no_words, self._settings.batch_norm, outputs)
        return torch.from_numpy(outputs)

    def weights(self) -> dict[str, NDArray[np.generic]]:
        """Return a copy of every parameter and running statistic, named, shaped and ordered as in torch."""
        return {name: values.copy() for name, values in self._named().items()}

    def load(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace all that `weights` returns by values of the same names and shapes.

        Raises
        ------
        KeyError, ValueError
            If one is missing, or has another shape.
        """
        for name, values in self._named().items():
            if weights[name].shape != values.shape:
                raise ValueError(f"{name}: shape {weights[name].shape}, where the network has {values.shape}")
            values[...] = weights[name]

    def _named(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays themselves, not copies, by torch's names."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for i, layer in enumerate(self._layers, 1):
            hidden = i <= self._settings.depth
            name = f"linear{i}" if hidden else "output"
            weight = layer.weight.value.T if hidden else layer.weight.value
            arrays |= {f"{name}.weight": weight, f"{name}.bias": layer.bias.value[0]}
            if hidden and self._settings.batch_norm:
                norm = {"weight": layer.scale.value, "bias": layer.shift.value}
                norm |= {"running_mean": layer.mean, "running_var": layer.variance}
                arrays |= {f"batch_norm{i}.{key}": values[0] for key, values in norm.items()}
        return arrays

    def _pixels(self, images: Tensor) -> Pixels:
        """Return the list of the pixels of `images`, made once: a run has only a few tensors of images."""
        for seen, pixels in self._seen:
            if seen is images:
                return pixels
        self._seen.append((images, _listed(images.numpy())))
        return self._seen[-1][1]

    def _dropout_words(self, steps: int, n: int) -> tuple[NDArray[np.uint16], ...]:
        shape = (n, self._settings.width)
        return tuple(words16(bits, shape, steps) for bits in self._dropout) or self._no_words

    def _adam_of(self, steps: int) -> Adam:
        """Return Adam's constants for the next steps."""
        now = range(self._taken + 1, self._taken + steps + 1)
        rate = self._constant(*(self._settings.learning_rate / (1 - _BETA1**t) for t in now))
        return self._adam._replace(rate=rate, correction=self._constant(*(1 / math.sqrt(1 - _BETA2**t) for t in now)))

    def _constant(self, *values: float) -> Floats:
        with np.errstate(over="ignore"):  # a value too large for the type becomes infinite, and the run diverges
            return np.array(values, self._dtype)


def _alike(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Stack consecutive batches of the same size, up to `_TOGETHER`: (steps, batch)."""
    for _, same in itertools.groupby(batches, len):
        while some := list(itertools.islice(same, _TOGETHER)):
            yield torch.stack(some)


def _listed(images: NDArray[np.uint8]) -> Pixels:
    # Room for white images: the system provides only the memory that is written to.
    room = images.size + 1
    pixels = Pixels(np.empty(len(images) + 1, np.int64), np.empty(room, np.uint16), np.empty(room, np.uint8))
    list_pixels(images.view(np.uint64), images, pixels)
    return pixels


def _layers(settings: Settings, seed: int, dtype: Any) -> tuple[Layer, ...]:
    """Return the layers, with the initial weights of `model.mlp`."""
    *hidden, output = (module for module in mlp(settings, seed) if isinstance(module, nn.Linear))
    first = [_layer(settings.batch_size, linear, linear.weight.T, dtype) for linear in hidden]
    first[0] = first[0]._replace(x=_room(0, hidden[0].in_features, dtype))
    return (*first, _layer(settings.batch_size, output, output.weight, dtype))


def _layer(n: int, linear: nn.Linear, weight: Tensor, dtype: Any) -> Layer:
    inputs, outputs = linear.in_features, linear.out_features
    return Layer(
        weight=_parameter(weight.detach().numpy(), dtype),
        bias=_parameter(linear.bias.detach().numpy()[None], dtype),
        scale=_parameter(np.ones((1, outputs)), dtype),
        shift=_parameter(np.zeros((1, outputs)), dtype),
        mean=_room(1, outputs, dtype),
        variance=_room(1, outputs, dtype) + dtype(1),
        x=_room(n, inputs, dtype),
        rows=_sparse(n, n * inputs, dtype),
        columns=_sparse(inputs, n * inputs, dtype),
        z=_room(n, outputs, dtype),
        normed=_room(n, outputs, dtype),
        spread=_room(1, outputs, dtype),
        dz=_room(n, outputs, dtype),
        row=_room(1, max(weight.shape[1], outputs), dtype),
    )


def _parameter(value: Floats, dtype: Any) -> Parameter:
    rows, columns = value.shape
    made = Parameter(*(_room(rows, columns, dtype) for _ in Parameter._fields))
    made.value[:] = value
    return made


def _sparse(lines: int, values: int, dtype: Any) -> Sparse:
    # One more than needed, because the search writes a value before it knows whether to keep it.
    return Sparse(np.zeros(lines + 1, np.int64), np.zeros(values + 1, np.uint32), np.zeros(values + 1, dtype))


def _room(rows: int, columns: int, dtype: Any) -> Floats:
    """Return a matrix of zeros that begins at a cache line, as torch's do and numpy's may not.

    With vectors that straddle two lines, training takes a quarter longer.
    """
    room: Floats = torch.zeros((rows, columns), dtype=torch.from_numpy(np.empty(0, dtype)).dtype).numpy()
    return room
