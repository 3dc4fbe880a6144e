"""A run's place in the card's memory: which array lies where, and the records that tell the kernels."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_ablate.data import CLASSES, PIXELS
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import STRUCTURES, dtype
from mnist_ablate.training.engines.kernels.constants import GROUP_NORM, NO_NORM
from mnist_ablate.training.model import mlp
from mnist_ablate.training.protocol import Course

_ALIGNED = 256
_TILE = 64
_MASK = 2**64 - 1
_PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645  # of numpy's PCG64
THREADS = 256


def padded(size: int) -> int:
    """Return the next multiple of 16, to which rows and columns are padded with zeros."""
    return -(-size // 16) * 16


class Plan:
    """Where named arrays lie in a block of memory."""

    def __init__(self) -> None:
        self.size = 0
        self._arrays: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def place(self, name: str, *shape: int, kind: Any = np.float32) -> None:
        """Find a place for an array."""
        self._arrays[name] = self.size, shape, np.dtype(kind)
        self.size += -(-math.prod(shape) * np.dtype(kind).itemsize // _ALIGNED) * _ALIGNED

    def addresses(self, begin: int) -> dict[str, int]:
        """Return where each array lies in a block that begins at an address."""
        return {name: begin + offset for name, (offset, _, _) in self._arrays.items()}

    def arrays(self, block: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the arrays in a block of this process's memory."""
        return {
            name: block[offset : offset + math.prod(shape) * kind.itemsize].view(kind).reshape(shape)
            for name, (offset, shape, kind) in self._arrays.items()
        }


class Shared(NamedTuple):
    """Addresses of what runs share: the table of PCG64's jumps, and the images with their labels."""

    jumps: int
    train: tuple[int, int]
    test: tuple[int, int]


class OnCard:
    """A run's arrays on the card.

    What an epoch needs (`inputs`) and what it finds (`outputs`) lie beside those of other runs, so that they are copied
    at once; `size` is what all the others take.

    Parameters
    ----------
    course
        The run.
    """

    def __init__(self, course: Course) -> None:
        self.run, self._task, self._steps = course.run, course.task, course.steps
        settings, steps = self.run.settings, self._steps
        self._network = form.network(settings, np.float32)
        self._room = max(padded(settings.batch_size), _TILE)
        self._state = _state(settings.depth, settings.width)
        self._begin, self._rest, self.inputs, self.outputs = Plan(), Plan(), Plan(), Plan()
        place = self._begin.place
        place("layers", settings.depth + 1, kind=dtype("Layer"))
        place("training_streams", settings.depth + 1, kind=dtype("Stream"))
        place("evaluation_streams", settings.depth + 1, kind=dtype("Stream"))
        if settings.label_noise:
            place("labels", len(self._task.train[1]), kind=np.uint8)
        self.inputs.place("batches", steps * settings.batch_size, kind=np.int32)
        self.inputs.place("sizes", steps, kind=np.int32)
        self.inputs.place("rate", steps)
        self.inputs.place("correction", steps)
        self.outputs.place("losses", steps, kind=np.float64)
        for i, (_, _, rows) in enumerate(self._task.parts):
            place(f"rows{i}", len(rows), kind=np.int32)
            self.outputs.place(f"losses{i}", len(rows), kind=np.float64)
            self.outputs.place(f"confidences{i}", len(rows))
            self.outputs.place(f"predictions{i}", len(rows), kind=np.uint8)
        self._place_rest()

    @property
    def size(self) -> int:
        """How many bytes its own arrays take."""
        return self._state.size + self._begin.size + self._rest.size

    def _place_rest(self) -> None:
        """Place what only the card sees."""
        settings, network, room, place = self.run.settings, self._network, self._room, self._rest.place
        for i, (inputs, outputs) in enumerate(_shapes(settings.depth, settings.width)):
            hidden, normed = i < settings.depth, network.norm != NO_NORM and i < settings.depth
            for moment in _MOMENTS:
                place(f"weight{i}{moment}", inputs, outputs)
                for name in _VECTORS:
                    place(f"{name}{i}{moment}", outputs)
            place(f"d_scale{i}", outputs)
            place(f"d_shift{i}", outputs)
            if i:
                place(f"x{i}", room, inputs)
            place(f"z{i}", room, outputs)
            place(f"dz{i}", room, outputs)
            if normed:
                place(f"normed{i}", room, outputs)
                place(f"spread{i}", room * network.groups if network.norm == GROUP_NORM else outputs)
            if network.threshold and hidden:
                place(f"words{i}", room * settings.width + 8, kind=np.uint16)
        if network.pixel_threshold:
            place("pixel_words", room * PIXELS + 8, kind=np.uint16)
        place("next", 1, kind=dtype("Wide"))
        place("powers", room * CLASSES, kind=np.float64)
        place("together", room, kind=np.float64)
        place("batch_losses", room, kind=np.float64)

    def settle(self, card: Card, begin: int, inputs: int, outputs: int, shared: Shared) -> NDArray[Any]:
        """Take a place in the card's memory, copy there what the run begins with, and return its record.

        Parameters
        ----------
        card
            The card.
        begin, inputs, outputs
            Addresses of the run's own arrays, which are all zeros, and of its `inputs` and `outputs`.
        shared
            What it shares.
        """
        settings, self._address = self.run.settings, begin
        of_begin = begin + self._state.size
        self.at = (
            self._state.addresses(begin)
            | self._begin.addresses(of_begin)
            | self._rest.addresses(of_begin + self._begin.size)
            | self.inputs.addresses(inputs)
            | self.outputs.addresses(outputs)
        )
        state, broken = _first_state(
            settings.depth, settings.width, settings.init, settings.init_scale, settings.init_seed, self.run.seed
        )
        block = np.zeros(self._begin.size, np.uint8)
        arrays = self._begin.arrays(block)
        arrays["layers"][:] = [self._layer(i, broken[i]) for i in range(settings.depth + 1)]
        streams = form.streams(settings, self.run.seed)
        for name, of_kind in zip(("training_streams", "evaluation_streams"), streams, strict=True):
            arrays[name][: len(of_kind)] = [_stream(bits) for bits in of_kind]
        for i, (_, _, rows) in enumerate(self._task.parts):
            arrays[f"rows{i}"][:] = rows.numpy()
        if "labels" in arrays:
            arrays["labels"][:] = self._task.train[1].numpy()
        card.upload(begin, state)
        card.upload(of_begin, block)
        return self._record(shared)

    def _own(self, field: str, i: int) -> str:
        """Return the name of an array of layer i, which may be the first layer's."""
        shared = self._network.shared and field in _SHARED and i < self.run.settings.depth
        return f"{field}{0 if shared else i}"

    def _layer(self, i: int, broken: bool) -> tuple[Any, ...]:
        """Return the record of a layer."""
        depth, width = self.run.settings.depth, self.run.settings.width
        stride_in, stride = _shapes(depth, width)[i]
        values: dict[str, Any] = {
            "inputs": width if i else PIXELS, "outputs": width if i < depth else CLASSES,
            "x_stride": stride_in, "stride": stride, "flipped_stride": stride_in, "first": i == 0, "broken": broken,
        }  # fmt: skip
        for field, kind in STRUCTURES["Layer"].items():
            name = self._own(field, i)
            if kind == "Parameter":
                values[field] = tuple(self.at[name + part] for part in ("", *_MOMENTS))
            else:
                values.setdefault(field, self.at.get(name, 0))
        return tuple(values[field] for field in STRUCTURES["Layer"])

    def _record(self, shared: Shared) -> NDArray[Any]:
        """Return the run's record."""
        settings, network, at = self.run.settings, self._network, self.at
        rule, train = form.rule(settings, np.float32), (shared.train[0], at.get("labels", shared.train[1]))
        values: dict[str, Any] = {
            "depth": settings.depth, "width": network.width, "norm": network.norm,
            "groups": network.groups, "norm_after": network.norm_after, "drop_after": network.drop_after,
            "shared": network.shared, "threshold": network.threshold, "gain": network.gain[0],
            "pixel_threshold": network.pixel_threshold, "pixel_gain": network.pixel_gain[0],
            "evaluates_training": settings.evaluation == "train",
            "kind": rule.kind, "still": rule.still, "eps": rule.eps[0],
            **{name: getattr(rule, name)[0] for name in _CONSTANTS},
            "steps": self._steps, "batch": settings.batch_size, "room": self._room,
            "jumps": shared.jumps, "train": train,
        }  # fmt: skip
        for i, (images, (_, _, rows)) in enumerate(zip((train, train, shared.test), self._task.parts, strict=True)):
            found = (at[f"{name}{i}"] for name in ("losses", "predictions", "confidences"))
            values[f"part{i}"] = (*images, at[f"rows{i}"], len(rows), *found)
        return np.array(tuple(values.get(field, at.get(field, 0)) for field in STRUCTURES["Run"]), dtype("Run"))

    def state(self, card: Card) -> NDArray[np.uint8]:
        """Return the parameters and running statistics, as they lie on the card."""
        state = np.empty(self._state.size, np.uint8)
        card.download(self._address, state)
        return state

    def weights(self, state: NDArray[np.uint8] | None) -> dict[str, NDArray[np.generic]]:
        """Return all parameters and running statistics as an engine does; zeros if there is no `state`."""
        arrays = self._state.arrays(np.zeros(self._state.size, np.uint8) if state is None else state)
        weights: dict[str, NDArray[np.generic]] = {}
        for name, place in form.parameters(self.run.settings).items():
            values = arrays[self._own(place.field, place.layer)]
            if place.field == "weight":
                weights[name] = np.ascontiguousarray(values[: place.rows, : place.columns].T)
            else:
                weights[name] = values[: place.columns].copy()
        return weights


_VECTORS = ("bias", "scale", "shift")
_MOMENTS = (".m", ".v")
_SHARED = ("scale", "shift", "mean", "variance", "d_scale", "d_shift")
_CONSTANTS = ("l1", "decay", "shrink", "keep_m", "keep_v", "new_m", "new_v")


def _shapes(depth: int, width: int) -> list[tuple[int, int]]:
    """Return inputs and outputs of each layer, padded."""
    hidden = [padded(width)] * depth
    return list(zip([padded(PIXELS), *hidden], [*hidden, padded(CLASSES)], strict=True))


@functools.lru_cache(maxsize=64)
def _state(depth: int, width: int) -> Plan:
    """Return where parameters and running statistics lie."""
    state = Plan()
    for i, (inputs, outputs) in enumerate(_shapes(depth, width)):
        state.place(f"weight{i}", inputs, outputs)
        for name in (*_VECTORS, "mean", "variance"):
            state.place(f"{name}{i}", outputs)
        if i:
            state.place(f"flipped{i}", outputs, inputs)
    return state


@functools.lru_cache(maxsize=256)  # of runs that are trained side by side many begin alike
def _first_state(
    depth: int, width: int, init: Any, init_scale: float, init_seed: int, seed: int
) -> tuple[NDArray[np.uint8], list[bool]]:
    """Return a state as it is at first, which only these settings decide, and which layers are not finite."""
    settings = Settings(depth=depth, width=width, init=init, init_scale=init_scale, init_seed=init_seed)
    plan = _state(depth, width)
    state = np.zeros(plan.size, np.uint8)
    arrays, broken = plan.arrays(state), []
    linears = [part for part in mlp(settings, seed) if isinstance(part, nn.Linear)]
    for i, linear in enumerate(linears):
        weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
        broken.append(not (np.isfinite(weight).all() and np.isfinite(bias).all()))
        outputs, inputs = weight.shape
        arrays[f"weight{i}"][:inputs, :outputs], arrays[f"bias{i}"][:outputs] = weight.T, bias
        if i:
            arrays[f"flipped{i}"][:outputs, :inputs] = weight
        if i < depth:
            arrays[f"scale{i}"][:outputs], arrays[f"variance{i}"][:] = 1, 1
    return state, broken


def _wide(number: int) -> tuple[int, int]:
    return number >> 64 & _MASK, number & _MASK


def _stream(bits: np.random.PCG64) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return state and increment of a stream."""
    state: Any = bits.state["state"]
    return _wide(state["state"]), _wide(state["inc"])


def jumps() -> NDArray[Any]:
    """Return the factors with which PCG64 takes 0, 1, ..., `THREADS` steps at once."""
    power, total, table = 1, 0, []
    for _ in range(THREADS + 1):
        table.append((_wide(power), _wide(total)))
        power, total = power * _PCG_MULTIPLIER % 2**128, (total * _PCG_MULTIPLIER + 1) % 2**128
    return np.array(table, dtype("Jump"))
