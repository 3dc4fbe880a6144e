"""Small runs of the engine ``fused``, each with one digest that must come out on every machine.

``python digests.py`` trains them and prints their digests as JSON, with any Python that has the package;
``--check`` compares them with the committed ones; ``--write`` renews these, after a change of the protocol.
"""

import argparse
import hashlib
import json
import platform
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import torch

from mnist_ablate.data import CLASSES, Images
from mnist_ablate.data.catalogue import SIDE
from mnist_ablate.design.plan import PROTOCOL_VERSION, Run
from mnist_ablate.design.responses import PROBES
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import stream
from mnist_ablate.training.engines.compilation import compiled_for
from mnist_ablate.training.protocol import RunResult, train
from mnist_ablate.training.provenance import provenance

FEATURES = {
    "generic": "sse2",
    "haswell": "sse2 avx2 bmi bmi2 f16c fma lzcnt movbe",
    "skylake-avx512": "avx2 bmi2 fma movbe adx avx512f avx512bw avx512cd avx512dq avx512vl",
    "znver4": "avx2 bmi2 fma movbe adx avx512bf16 avx512bitalg avx512bw avx512cd avx512dq avx512f avx512ifma "
    "avx512vbmi avx512vbmi2 avx512vl avx512vnni avx512vpopcntdq gfni sse4a vaes vpclmulqdq",
}
"""LLVM's names of kinds of x86-64, and what a processor needs to run code for them. ``generic`` has no fused
multiply-add."""
FILE = Path(__file__).with_suffix(".json")
N_TRAIN, N_TEST = 1000, 200
ALL_TECHNIQUES: dict[str, Any] = {"l2": 1e-3, "dropout": 0.2, "batch_norm": True}

# Widths: of more than one block of the kernels, of less than one, of whole blocks and a rest.
_SHORT = {"epochs": 2, "batch_size": 40, "width": 100}
_RUNS: dict[str, dict[str, Any]] = {
    "baseline": {"width": 256},
    "all techniques": {"width": 256, **ALL_TECHNIQUES},
    "depth 3, odd width": {"depth": 3, "width": 37, "l2": 1e-3},
    "width 300": {"width": 300, "dropout": 0.5},
    "short last batch": {"train_images": 650, "batch_size": 48, **ALL_TECHNIQUES},
    "batch of one": {"batch_size": 1, "epoch_steps": 40, "dropout": 0.2},
    "label noise": {"label_noise": 0.3, "train_images": 500, "init": "kaiming"},
    "loss of batches": {"loss_mean": "batches", "batch_norm": True},
    # Subnormal numbers within sums: gradients, of biases that begin at 0, and weights from the start.
    "subnormal gradients": {"init": "kaiming", "init_scale": 1e-20},
    "subnormal weights": {"init_scale": 3e-37},
    # NaN, whose sign differs between kinds of processors.
    "diverges": {"learning_rate": 1e30},
    "layer norm": {"norm": "layer", "dropout": 0.2},
    "group norm": {"norm": "group", "width": 72},
    "norm after": {"batch_norm": True, "norm_place": "after"},
    "norm and dropout after": {**ALL_TECHNIQUES, "norm_place": "after", "dropout_place": "after"},
    "shared norm": {"batch_norm": True, "shared_norm": True},
    "AdamW": {"optimiser": "adamw", "l2": 1e-2},
    "SGD": {"optimiser": "sgd", "learning_rate": 0.1, "l2": 1e-3},
    "L1": {"l1": 1e-4},
    "dropout of pixels": {"input_dropout": 0.2},
    "evaluation in train mode": {**ALL_TECHNIQUES, "evaluation": "train", "loss_mean": "batches"},
}


_PROBED = ("baseline", "all techniques", "group norm", "shared norm", "diverges")
"""Runs whose network is probed."""

SETTINGS = {name: Settings(**(_SHORT | own)) for name, own in _RUNS.items()}
"""The settings of each run, of those, too, that the engine cannot train."""


def runs() -> dict[str, Run]:
    """Return the runs that the engine can train, by name."""
    able = {name: settings for name, settings in SETTINGS.items() if not settings.for_autograd}
    probes = {name: tuple(PROBES) if name in _PROBED else () for name in able}
    return {name: Run("digests", name, (), 0, settings, "fused", probes[name]) for name, settings in able.items()}


def images() -> Images:
    """Draw digits of seven segments, shifted and noisy, a fifth of the pixels not black: the same on every machine."""
    n = N_TRAIN + N_TEST
    bits = stream(0, "digests/images")
    labels = (bits.random_raw(n) % np.uint64(CLASSES)).astype(np.uint8)
    shifts = (bits.random_raw(2 * n) % np.uint64(9)).astype(np.int64).reshape(n, 2)
    words = bits.random_raw(n * SIDE * SIDE).reshape(n, SIDE, SIDE)
    grey = (words & np.uint64(255)).astype(np.uint8)
    ink = np.stack([np.roll(_segments(label), shift, (0, 1)) for label, shift in zip(labels, shifts, strict=True)])
    pixels = np.where(ink, grey | np.uint8(128), grey) * (ink | (words >> np.uint64(59) == 0))  # specks: one in 32
    flat = pixels.reshape(n, -1)
    return Images.from_arrays("digests", flat[:N_TRAIN], labels[:N_TRAIN], flat[N_TRAIN:], labels[N_TRAIN:])


def _segments(label: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Draw a digit as a calculator does, at the upper left of an image."""
    drawn = np.zeros((SIDE, SIDE), np.bool_)
    places = {"a": (1, 1, 3, 14), "b": (1, 11, 10, 14), "c": (10, 11, 19, 14), "d": (17, 1, 19, 14),
              "e": (10, 1, 19, 4), "f": (1, 1, 10, 4), "g": (9, 1, 11, 14)}  # fmt: skip
    for segment in ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")[label]:
        top, left, bottom, right = places[segment]
        drawn[top:bottom, left:right] = True
    return drawn


def digest(result: RunResult) -> str:
    """Return the SHA-256 of every bit of a result: weights, epochs, first losses, probes and all predictions."""
    sha = hashlib.sha256(result.weights_sha256.encode())
    for row in result.rows:
        sha.update(row["status"].encode())
        sha.update(_doubles(row[name] for name in sorted(row) if name != "status" and not name.endswith("_seconds")))
    sha.update(_doubles(result.first_losses))
    for probe, numbers in sorted(result.probes.items()):
        sha.update(" ".join([probe, *numbers]).encode())
        sha.update(_doubles(float("nan") if number is None else number for number in numbers.values()))
    for name, values in result.predictions.items():
        sha.update(name.encode())
        sha.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


def _doubles(numbers: Iterable[float]) -> bytes:
    """Return the exact bits of numbers; every NaN is the same."""
    return b"".join(struct.pack("<d", number if number == number else float("nan")) for number in numbers)


@contextmanager
def flushing(on: bool, *, kept: bool = False) -> Iterator[None]:
    """Let the processor flush subnormal numbers, or not; if `kept`, whatever is asked of torch within."""
    set_mode = torch.set_flush_denormal
    set_mode(on)
    changed: Any = torch
    if kept:
        changed.set_flush_denormal = lambda _: True
    try:
        yield
    finally:
        changed.set_flush_denormal = set_mode
        set_mode(False)


def digests(names: Iterable[str] = ()) -> dict[str, str]:
    """Train the runs with these names, by default all, and return the digest of each."""
    known, drawn = runs(), images()
    return {name: digest(train(known[name], drawn)) for name in names or known}


def expected() -> dict[str, str]:
    """Return the committed digests."""
    digests: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))["digests"]
    return digests


def place() -> Mapping[str, Any]:
    """Return the provenance of this process, and the kind of processor that Numba compiles for."""
    _, target, features = compiled_for()
    return {**provenance(), "target": target, "features": features}


def compiling_for(target: str) -> dict[str, str]:
    """Return the variables that make Numba compile for a kind of processor.

    Without the second, the code would still use all features of this processor.
    """
    return {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}


def missing_for(target: str) -> str:
    """Return why this processor cannot run code for `target`, a key of `FEATURES`; empty if it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"a {platform.machine()} cannot run code for {target}"
    has = llvmlite.binding.get_host_cpu_features()
    lacks = [feature for feature in FEATURES[target].split() if not has.get(feature)]
    return f"this processor has no {', '.join(lacks)}" if lacks else ""


def main() -> None:
    """Print or write digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"renew {FILE.name}")
    parser.add_argument("--check", action="store_true", help="end with 1 if a digest is not the committed one")
    parser.add_argument("--flush", action="store_true", help="let the processor flush subnormal numbers before")
    parser.add_argument("--runs", nargs="*", default=(), metavar="NAME", help="only these runs")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with flushing(arguments.flush):
        found = digests(arguments.runs)
    if arguments.write:
        text = json.dumps({"protocol_version": PROTOCOL_VERSION, "digests": found}, indent=1)
        FILE.write_text(text + "\n", encoding="utf-8")
    seconds = time.perf_counter() - began
    print(json.dumps({"digests": found, "seconds": seconds, "place": place()}, indent=1))  # noqa: T201
    if arguments.check and (other := [name for name, made in found.items() if made != expected().get(name)]):
        raise SystemExit(f"not the committed digests: {', '.join(other)}")


if __name__ == "__main__":
    main()
