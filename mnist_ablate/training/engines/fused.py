"""The fast engine: the multilayer perceptron with hand-written gradients. The equations are in `kernels`."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_ablate.data import MNIST, MOST_INPUTS, Sizes
from mnist_ablate.design.settings import GROUPS, Settings
from mnist_ablate.design.streams import words16
from mnist_ablate.errors import TrainingError
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.engines.compilation import cache_folder, load_or_compile
from mnist_ablate.training.engines.kernels.blocks import BAND
from mnist_ablate.training.engines.kernels.lists import list_pixels
from mnist_ablate.training.engines.kernels.rooms import (
    Floats,
    Layer,
    Lists,
    Parameter,
    Pixels,
    Rule,
    Sparse,
    Words,
    padded,
    parts,
    room,
    together,
)
from mnist_ablate.training.engines.kernels.steps import answer, train_steps
from mnist_ablate.training.engines.trial import lists_are_faster
from mnist_ablate.training.model import linear, mlp

_TOGETHER = 2048
"""Images of the steps in one call, which costs 40 microseconds; the room for words of dropout grows with them."""
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
    sizes
        Of the data set.

    Raises
    ------
    TrainingError
        If the settings or the images need something that only autograd can do.
    """

    def __init__(self, settings: Settings, seed: int, dtype: Any = np.float32, sizes: Sizes = MNIST) -> None:
        if settings.for_autograd:
            names = ", ".join(settings.for_autograd)
            raise TrainingError(f'engine = "fused": has no code for {names}: take "autograd".')
        if sizes.inputs > MOST_INPUTS:
            raise TrainingError(f'engine = "fused": takes at most {MOST_INPUTS:,} inputs: take "autograd".')
        self._settings = settings
        self._dtype = dtype
        self._sizes = sizes
        self._layers = _layers(settings, seed, dtype, sizes)
        self._network = form.network(settings, dtype, sizes.classes)
        self._rule = form.rule(settings, dtype)
        self._pace = form.Pace(settings)
        self._seen: list[tuple[Tensor, Pixels]] = []
        self._training_masks = self._evaluation_masks = _Masks(settings, [], sizes.inputs)
        self._compile()  # before there are dropout streams, from which it must not draw
        training, evaluation = form.streams(settings, seed)
        self._training_masks, self._evaluation_masks = (
            _Masks(settings, of_use, sizes.inputs) for of_use in (training, evaluation)
        )

    def _compile(self) -> None:
        """Load or compile the kernels for networks of this depth and type, once in a process, before any clock runs."""
        kind = (self._settings.depth, self._dtype)
        if kind not in _COMPILED:
            load_or_compile(self._call_kernels, cache_folder())
            _COMPILED.add(kind)
        self._network = self._network._replace(listed=self._lists())

    def _lists(self) -> bool:
        """Return whether to list active hidden units: where ReLU or dropout come last, and if it is faster here."""
        return self._dtype == np.float32 and not self._network.norm_after and lists_are_faster(_typical, _plain_adam)

    def _call_kernels(self) -> None:
        """Call each kernel on no images, with the types that training and evaluation have."""
        images, none = torch.empty((0, self._sizes.inputs), dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        self._steps(images, none, none.reshape(0, 1))
        self.answers(images, none, none)
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
        steps, n = batches.shape
        if n > self._settings.batch_size:
            raise ValueError(f"a batch of {n}, where batch_size is {self._settings.batch_size}")
        losses: NDArray[np.float64] = np.empty(steps)
        rates, corrections = (form.numbers(self._dtype, *values) for values in self._pace.take(steps))
        taken = train_steps(
            self._pixels(images),
            labels.numpy(),
            batches.numpy(),
            self._layers,
            self._training_masks.draw(n, steps),
            self._network,
            self._rule._replace(rate=rates, correction=corrections),
            losses,
        )
        return list(losses[:taken].tolist())

    def answers(self, images: Tensor, labels: Tensor, rows: Tensor, size: int = 0) -> Answers:
        """Evaluate the network on `rows` of `images`; in train mode `size` of them are a batch."""
        n, training = len(rows), self._settings.evaluation == "train"
        found = Answers(np.zeros(n), np.zeros(n, np.uint8), np.zeros(n, self._dtype))
        size = size if training and size else max(n, 1)
        for first in range(0, max(n, 1), size):
            part = slice(first, first + size)
            chosen = rows.numpy()[part]
            answer(
                self._pixels(images),
                labels.numpy(),
                chosen,
                self._layers,
                self._evaluation_masks.draw(len(chosen) if training else 0, 1),
                self._network,
                training,
                *(values[part] for values in found),
            )
        return found

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
        """Return the arrays themselves, without padding, by torch's names."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, place in form.parameters(self._settings, self._sizes).items():
            field = getattr(self._layers[place.layer], place.field)
            values = field.value if isinstance(field, Parameter) else field
            part = values[: place.rows, : place.columns]
            arrays[name] = part.T if place.field == "weight" else part[0]
        return arrays

    def _pixels(self, images: Tensor) -> Pixels:
        """Return the list of the pixels of `images`, made once: a run has only a few tensors of images."""
        for seen, pixels in self._seen:
            if seen is images:
                return pixels
        if images.dtype != torch.uint8:
            raise TrainingError('engine = "fused": takes images of bytes (uint8) alone: take "autograd".')
        self._seen.append((images, _listed(images.flatten(1).numpy())))
        return self._seen[-1][1]


def _plain_adam() -> Rule:
    one = form.numbers(np.float32, 1.0)
    return form.rule(Settings(), np.float32)._replace(rate=one, correction=one)


class _Masks:
    """The random words of dropout, from a stream for each place: the pixels, if any are dropped, then each layer."""

    def __init__(self, settings: Settings, streams: list[np.random.PCG64], inputs: int) -> None:
        self._width, self._depth, self._inputs = settings.width, settings.depth, inputs
        self._of_pixels = streams[:1] if settings.input_dropout else []
        self._of_units = streams[len(self._of_pixels) :]

    def draw(self, n: int, steps: int) -> Words:
        """Draw words for some steps on batches of `n`."""
        none = np.empty((steps, 0, 0), np.uint16)
        # Contiguous, or Numba would compile the kernels once more for those that are not.
        pixels = [np.ascontiguousarray(words16(bits, (n, self._inputs), steps)) for bits in self._of_pixels]
        units = tuple(np.ascontiguousarray(words16(bits, (n, self._width), steps)) for bits in self._of_units)
        return Words(pixels[0] if pixels else none, units or (none,) * self._depth)


def _alike(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Stack consecutive batches of the same size, for up to `_TOGETHER` images: (steps, batch)."""
    for size, same in itertools.groupby(batches, len):
        while some := list(itertools.islice(same, max(_TOGETHER // size, 1))):
            yield torch.stack(some)


def _listed(images: NDArray[np.uint8]) -> Pixels:
    if images.shape[1] % 8:  # black pixels, which are not listed
        images = np.pad(images, ((0, 0), (0, -images.shape[1] % 8)))
    # Room for white images: the system provides only the memory that is written to.
    most, of_image = images.size + 1, parts(images.shape[1])
    start = np.empty(len(images) * of_image + 1, np.int64)
    pixels = Pixels(start, np.empty(most, np.uint16), np.empty(most, np.uint8), of_image)
    list_pixels(images.view(np.uint64), images, pixels)
    return pixels


def _layers(settings: Settings, seed: int, dtype: Any, sizes: Sizes) -> tuple[Layer, ...]:
    """Return the layers, with the initial weights of `model.mlp`."""
    linears = [module for module in mlp(settings, seed, sizes) if isinstance(module, nn.Linear)]
    layers = [_layer(settings, linear, dtype, first=i == 0) for i, linear in enumerate(linears)]
    if settings.shared_norm and settings.batch_norm:
        names = ("scale", "shift", "mean", "variance", "d_scale", "d_shift")
        shared = {name: getattr(layers[0], name) for name in names}
        layers = [*(layer._replace(**shared) for layer in layers[:-1]), layers[-1]]
    return together(tuple(layers))


def _layer(settings: Settings, linear: nn.Linear, dtype: Any, *, first: bool) -> Layer:
    n, inputs, outputs = settings.batch_size, linear.in_features, linear.out_features
    by_image = settings.norm in ("layer", "group")
    return Layer(
        weight=_parameter(linear.weight.detach().numpy().T, room(inputs, outputs, dtype)),
        bias=_parameter(linear.bias.detach().numpy(), _row(outputs, dtype)),
        none=_row(outputs, dtype),
        scale=_parameter(np.ones(outputs), _row(outputs, dtype)),
        shift=_parameter(np.zeros(outputs), _row(outputs, dtype)),
        mean=_row(outputs, dtype),
        variance=_row(outputs, dtype) + dtype(1),
        d_scale=_row(outputs, dtype),
        d_shift=_row(outputs, dtype),
        x=room(0 if first else n, inputs, dtype),
        lists=_lists(n, inputs, dtype),
        z=room(n, outputs, dtype),
        normed=room(n, outputs, dtype),
        spread=room(n, GROUPS, dtype) if by_image else _row(outputs, dtype),
        dz=room(n, outputs, dtype),
        flipped=room(0 if first else outputs, inputs, dtype),
        work=np.zeros((BAND, padded(outputs)), dtype),
    )


def _parameter(value: Floats, zeros: Floats) -> Parameter:
    made = Parameter(zeros, zeros.copy(), zeros.copy())
    made.value[: len(np.atleast_2d(value)), : value.shape[-1]] = value
    return made


def _typical() -> Layer:
    """Return a layer between hidden layers of the default network, to try the kernels with."""
    settings = Settings()
    return together(_layer(settings, linear(settings.width, settings.width, 0, "trial"), np.float32, first=False))


def _lists(n: int, inputs: int, dtype: Any) -> Lists:
    n, inputs = padded(n), padded(inputs)  # where a run diverges, padding may be NaN, and is listed
    of_image = parts(inputs)
    rows, columns = _sparse(n, n * inputs, dtype, of_image), _sparse(inputs, n * inputs, dtype, 1)
    return Lists(rows, columns, np.zeros(inputs, np.bool_))


def _sparse(rows: int, values: int, dtype: Any, of_row: int) -> Sparse:
    start = np.zeros(rows * of_row + 1, np.uint32)
    # One more than needed, because the search writes a value before it knows whether to keep it.
    return Sparse(start, np.zeros(values + 1, np.uint32), np.zeros(values + 1, dtype), of_row)


def _row(columns: int, dtype: Any) -> Floats:
    """Return a matrix of one row of zeros, padded to whole blocks."""
    return np.zeros((1, padded(columns)), dtype)
