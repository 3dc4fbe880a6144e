"""A run's place in the card's memory: which array lies where, and the records that tell the kernels."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_ablate.data import CLASSES, PIXELS
from mnist_ablate.design.plan import Run
from mnist_ablate.training.engines import form
from mnist_ablate.training.engines.answers import Answers
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import PARTS, STRUCTURES, dtype
from mnist_ablate.training.engines.kernels.constants import GROUP_NORM, NO_NORM
from mnist_ablate.training.protocol import Batches

_ALIGNED = 256
_TILE = 64
_MASK = 2**64 - 1
_PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645  # of numpy's PCG64
THREADS = 256


def padded(size: int) -> int:
    """Return the next multiple of 16, to which rows and columns are padded with zeros."""
    return -(-size // 16) * 16


class Plan:
    """Where arrays will lie: offsets from the begin of a block of memory whose address is not known yet."""

    def __init__(self) -> None:
        self.size = 0

    def place(self, count: int, kind: Any = np.float32) -> int:
        """Return the offset of an array."""
        offset, self.size = self.size, self.size + -(-count * np.dtype(kind).itemsize // _ALIGNED) * _ALIGNED
        return offset


class OnCard:
    """A run's arrays on the card.

    Parameters
    ----------
    run
        The run.
    steps, images
        Steps of an epoch, and how many images they take together.
    parts
        How many images each part of an evaluation has.
    """

    def __init__(self, run: Run, steps: int, images: int, parts: tuple[int, ...]) -> None:
        self.run, self._plan = run, Plan()
        self._network = form.network(run.settings, np.float32)
        self._rows = max(padded(run.settings.batch_size), _TILE)
        self._inputs = self._place_inputs(steps, images)
        self._outputs = self._place_outputs(steps, parts)
        self._layers = [self._place_layer(i) for i in range(run.settings.depth + 1)]
        if self._network.shared:
            shared = {name: value for name, value in self._layers[0].items() if name in _SHARED}
            self._layers[1:-1] = [layer | shared for layer in self._layers[1:-1]]
        place, rows = self._plan.place, self._rows
        self._streams = [place(run.settings.depth + 1, dtype("Stream")) for _ in range(2)]
        self._rest = {
            "next": place(1, dtype("Wide")),
            "pixel_words": place(rows * PIXELS + 8, np.uint16) if self._network.pixel_threshold else None,
            "powers": place(rows * CLASSES, np.float64),
            "together": place(rows, np.float64),
            "batch_losses": place(rows, np.float64),
        }
        self._layers_at = place(len(self._layers), dtype("Layer"))
        self._base = 0
        self._record: NDArray[Any] | None = None  # the same in each epoch

    @property
    def size(self) -> int:
        """How many bytes the arrays take."""
        return self._plan.size

    def _place_inputs(self, steps: int, images: int) -> np.dtype[Any]:
        """Place what changes from epoch to epoch together, so that it is copied at once."""
        fields = [("batches", "<i4", (images,)), ("sizes", "<i4", (steps,))]
        fields += [("rate", "<f4", (steps,)), ("correction", "<f4", (steps,))]
        self._inputs_at = self._plan.place(1, np.dtype(fields))
        return np.dtype(fields)

    def _place_outputs(self, steps: int, parts: tuple[int, ...]) -> np.dtype[Any]:
        """Place what an epoch has found together, too."""
        fields: list[Any] = [("losses", "<f8", (steps,))]
        fields += [(f"losses{i}", "<f8", (n,)) for i, n in enumerate(parts)]
        fields += [(f"confidences{i}", "<f4", (n,)) for i, n in enumerate(parts)]
        fields += [(f"predictions{i}", "u1", (n,)) for i, n in enumerate(parts)]
        self._outputs_at = self._plan.place(1, np.dtype(fields))
        self._rows_at = [self._plan.place(n, np.int32) for n in parts]
        return np.dtype(fields)

    def _place_layer(self, i: int) -> dict[str, Any]:
        """Return the fields of a layer's record, with offsets in place of addresses."""
        settings, network, place, rows = self.run.settings, self._network, self._plan.place, self._rows
        first, last = i == 0, i == settings.depth
        inputs, outputs = PIXELS if first else settings.width, CLASSES if last else settings.width
        wide, stride = padded(inputs), padded(outputs)
        normed = network.norm != NO_NORM and not last
        by_image = network.norm == GROUP_NORM

        def parameter(count: int) -> tuple[int, int, int]:
            return place(count), place(count), place(count)

        return {
            "weight": parameter(wide * stride),
            "bias": parameter(stride),
            "scale": parameter(stride),
            "shift": parameter(stride),
            **{name: place(stride) for name in ("mean", "variance", "d_scale", "d_shift")},
            "x": None if first else place(rows * wide),
            "z": place(rows * stride),
            "normed": place(rows * stride) if normed else None,
            "spread": place(rows * network.groups if by_image else stride) if normed else None,
            "dz": place(rows * stride),
            "flipped": None if first else place(stride * wide),
            "words": place(rows * settings.width + 8, np.uint16) if network.threshold and not last else None,
            "inputs": inputs,
            "outputs": outputs,
            "x_stride": wide,
            "stride": stride,
            "flipped_stride": wide,
            "first": int(first),
        }

    def settle(self, base: int, card: Card, linears: list[nn.Linear], rows: list[NDArray[np.int32]]) -> None:
        """Take a place in the card's memory, which is all zeros, and copy what a run begins with."""
        self._base, settings = base, self.run.settings
        records = np.zeros(len(self._layers), dtype("Layer"))
        for i, (record, fields, linear) in enumerate(zip(records, self._layers, linears, strict=True)):
            self._fill(record, "Layer", fields)
            weight, bias = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
            record["broken"] = not (np.isfinite(weight).all() and np.isfinite(bias).all())
            card.upload(int(record["weight"]["value"]), _in_room(weight))
            card.upload(int(record["bias"]["value"]), _in_room(bias[None]))
            if fields["flipped"] is not None:
                card.upload(int(record["flipped"]), _in_room(weight.T))
            if i < settings.depth:
                ones = _in_room(np.ones((1, settings.width), np.float32))
                card.upload(int(record["scale"]["value"]), ones)
                card.upload(int(record["variance"]), np.ones_like(ones))
        card.upload(base + self._layers_at, records)
        for at, streams in zip(self._streams, form.streams(settings, self.run.seed), strict=True):
            card.upload(base + at, np.array([_stream(bits) for bits in streams], dtype("Stream")))
        for at, part in zip(self._rows_at, rows, strict=True):
            card.upload(base + at, part)
        self._records = records

    def _fill(self, record: Any, kind: str, fields: Mapping[str, Any]) -> None:
        """Write fields into a record; what the structure says is an address gets the base added."""
        for name, value in fields.items():
            declared = STRUCTURES[kind][name]
            if value is None:
                continue
            if declared == "Parameter":
                record[name] = tuple(self._base + offset for offset in value)
            else:
                record[name] = self._base + value if declared.endswith("*") else value

    def begin_epoch(
        self,
        card: Card,
        batches: Batches,
        pace: tuple[Sequence[float], Sequence[float]],
        images: Mapping[str, int],
        labels: int,
        jumps: int,
    ) -> NDArray[Any]:
        """Copy the inputs of an epoch, and return the run's record.

        Parameters
        ----------
        card
            The card.
        batches
            The batches of the epoch.
        pace
            The optimiser's rate and correction for each step.
        images
            Addresses of ``train``, ``test`` and ``test_labels``.
        labels
            Address of the training labels.
        jumps
            Address of the table of PCG64's jumps.
        """
        inputs = np.zeros(1, self._inputs)
        inputs["batches"][0, : len(batches.rows)] = batches.rows.numpy()
        inputs["sizes"], inputs["rate"], inputs["correction"] = batches.sizes, *(_rounded(*values) for values in pace)
        card.upload(self._base + self._inputs_at, inputs)
        if self._record is None:
            self._record = self._made_record(len(batches.sizes), images, labels, jumps)
        return self._record

    def _made_record(self, steps: int, images: Mapping[str, int], labels: int, jumps: int) -> NDArray[Any]:
        settings, network, rule = self.run.settings, self._network, form.rule(self.run.settings, np.float32)
        at, out = _offsets(self._inputs, self._inputs_at), _offsets(self._outputs, self._outputs_at)
        record = np.zeros((), dtype("Run"))
        self._fill(record, "Run", {
            "layers": self._layers_at, "depth": settings.depth, "width": network.width, "norm": network.norm,
            "groups": network.groups, "norm_after": network.norm_after, "drop_after": network.drop_after,
            "shared": network.shared, "threshold": network.threshold, "gain": network.gain[0],
            "pixel_threshold": network.pixel_threshold, "pixel_gain": network.pixel_gain[0],
            "evaluates_training": settings.evaluation == "train",
            "kind": rule.kind, "still": rule.still, "eps": rule.eps[0],
            **{name: getattr(rule, name)[0] for name in _CONSTANTS},
            "rate": at["rate"], "correction": at["correction"], "batches": at["batches"], "sizes": at["sizes"],
            "steps": steps, "losses": out["losses"], "batch": settings.batch_size, "room": self._rows,
            "training_streams": self._streams[0], "evaluation_streams": self._streams[1], **self._rest,
        })  # fmt: skip
        record["jumps"] = jumps
        record["train"] = images["train"], labels
        for i in range(PARTS):
            test = i == PARTS - 1
            record[f"part{i}"] = (
                images["test" if test else "train"], images["test_labels"] if test else labels,
                self._base + self._rows_at[i], self._outputs[f"losses{i}"].shape[0],
                *(self._base + out[f"{name}{i}"] for name in ("losses", "predictions", "confidences")),
            )  # fmt: skip
        return record

    def end_epoch(self, card: Card, taken: int) -> tuple[list[float], list[Answers]]:
        """Return the losses of the steps that were taken, and the answers to each part."""
        found = np.empty(1, self._outputs)
        card.download(self._base + self._outputs_at, found)
        answers = [
            Answers(*(found[f"{name}{i}"][0] for name in ("losses", "predictions", "confidences")))
            for i in range(PARTS)
        ]
        return found["losses"][0, :taken].tolist(), answers

    def weights(self, card: Card) -> dict[str, NDArray[np.generic]]:
        """Return all parameters and running statistics, as an engine does."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, place in form.parameters(self.run.settings).items():
            field = self._records[place.layer][place.field]
            values = np.empty((place.rows, padded(place.columns)), np.float32)
            card.download(int(field["value"] if field.dtype.names else field), values)
            part = values[:, : place.columns]
            arrays[name] = np.ascontiguousarray(part.T) if place.field == "weight" else part[0].copy()
        return arrays


_SHARED = ("scale", "shift", "mean", "variance", "d_scale", "d_shift")
_CONSTANTS = ("l1", "decay", "shrink", "keep_m", "keep_v", "new_m", "new_v")


@functools.lru_cache(maxsize=64)
def _rounded(*values: float) -> NDArray[np.float32]:
    return form.numbers(np.float32, *values).astype(np.float32, copy=False)


def _offsets(fields: np.dtype[Any], begin: int) -> dict[str, int]:
    """Return where each field of a structure lies that begins at an offset."""
    assert fields.fields is not None  # noqa: S101  # it is a structure
    return {name: begin + field[1] for name, field in fields.fields.items()}


def _in_room(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a matrix, padded with zeros."""
    room = np.zeros(tuple(map(padded, values.shape)), np.float32)
    room[: len(values), : values.shape[1]] = values
    return room


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
