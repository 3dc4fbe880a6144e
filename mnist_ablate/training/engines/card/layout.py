"""What lies where in the card's memory: structures that Python fills and the kernels read.

Each is written down once, below. `dtype` has them as numpy sees them, `declarations` as C does. Every field takes eight
bytes, so both agree on places.
"""

import functools
from typing import Any

import numpy as np

PARTS = 3
"""Parts that are evaluated after an epoch: a sample of the training images, validation and test images."""

STRUCTURES: dict[str, dict[str, str]] = {
    "Wide": {"high": "Bits64", "low": "Bits64"},
    "Jump": {"power": "Wide", "sum": "Wide"},
    "Stream": {"state": "Wide", "increment": "Wide"},
    "Parameter": {"value": "float *", "m": "float *", "v": "float *"},
    "Images": {"images": "const Byte *", "labels": "const Byte *"},
    # Some images, and the network's answers to them.
    "Part": {
        "images": "const Byte *", "labels": "const Byte *", "rows": "const int *", "n": "long long",
        "losses": "double *", "predictions": "Byte *", "confidences": "float *",
    },
    # As `rooms.Layer`, with x of stride `x_stride` and the others of stride `stride`.
    "Layer": {
        "weight": "Parameter", "bias": "Parameter", "scale": "Parameter", "shift": "Parameter",
        "mean": "float *", "variance": "float *", "d_scale": "float *", "d_shift": "float *",
        "x": "float *", "z": "float *", "normed": "float *", "spread": "float *", "dz": "float *",
        "flipped": "float *",  # the weights transposed (outputs, inputs); none in the first layer
        "words": "Word *",  # of dropout, for the batch
        "inputs": "long long", "outputs": "long long",
        "x_stride": "long long", "stride": "long long", "flipped_stride": "long long",
        "first": "long long",
        "broken": "long long",  # whether a weight or bias was ever not finite
        "wild": "long long",  # whether a gradient of an output was ever not finite
    },
    "Run": {
        # The form of the network, as `rooms.Network`.
        "layers": "Layer *", "depth": "long long", "width": "long long", "norm": "long long", "groups": "long long",
        "norm_after": "long long", "drop_after": "long long", "shared": "long long",
        "threshold": "long long", "gain": "double", "pixel_threshold": "long long", "pixel_gain": "double",
        "evaluates_training": "long long",
        # The optimiser, as `rooms.Rule`; the last two have a value for each step.
        "kind": "long long", "still": "long long", "l1": "double", "decay": "double", "shrink": "double",
        "keep_m": "double", "keep_v": "double", "new_m": "double", "new_v": "double", "eps": "double",
        "rate": "const float *", "correction": "const float *",
        # An epoch: how many images each step takes, and which.
        "train": "Images", "batches": "const int *", "sizes": "const int *", "steps": "long long",
        "losses": "double *", "taken": "long long",
        "train_nanoseconds": "long long", "eval_nanoseconds": "long long",
        "batch": "long long",  # images of a whole batch
        "room": "long long",  # images for which there is room
        # Chance.
        "training_streams": "Stream *", "evaluation_streams": "Stream *", "next": "Wide *", "jumps": "const Jump *",
        "pixel_words": "Word *",
        # Room for the losses of a batch.
        "powers": "double *", "together": "double *", "batch_losses": "double *",
        **{f"part{i}": "Part" for i in range(PARTS)},
    },
}  # fmt: skip

_NUMBERS = {"long long": "<i8", "double": "<f8", "Bits64": "<u8"}


@functools.cache
def dtype(name: str) -> np.dtype[Any]:
    """Return a structure as numpy sees it; addresses are integers."""
    return np.dtype([(field, _field(kind)) for field, kind in STRUCTURES[name].items()])


def _field(kind: str) -> Any:
    if kind in STRUCTURES:
        return dtype(kind)
    return _NUMBERS.get(kind, "<u8")


def declarations() -> str:
    """Return all structures in C."""
    return "".join(
        f"struct {name} {{\n{''.join(f'    {kind} {field};' + chr(10) for field, kind in fields.items())}}};\n"
        for name, fields in STRUCTURES.items()
    )
