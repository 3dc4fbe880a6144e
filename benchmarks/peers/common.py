"""What all peers share: the task they are given, the way they are started and timed, the line they print.

A script here is one process. It prepares itself (imports, data, compilation, a warm-up), says ``ready`` where it
is asked to wait, and then trains; only what comes after counts. This module needs numpy and nothing else.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS = ("baseline", "dropout+batch_norm")
"""The cells that peers are timed in: nothing on, and both techniques that cost time."""
STEPS = 750
BATCH = 64
WIDTH = 256
CHUNK = 500
"""Images in a forward pass of an evaluation."""
TRAIN_SAMPLE = 10_000
FIRST_LOSSES = 50
DROPOUT = 0.2
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Task:
    """What the project's own runs start from, for some models; the first axis of most arrays is the model.

    Parameters
    ----------
    train_images, test_images
        uint8 (n, 784).
    train_labels, test_labels
        uint8 (n,).
    orders
        Rows of the training images, epoch by epoch in the order of the batches: int32 (models, epochs, 48000).
    sample_rows, val_rows
        Rows that training and validation losses are taken on: int32 (models, 10000) and (models, 12000).
    weights
        Initial weights by parameter name, each float32 (models, ...), layers stored (out, in) as torch does.
    facts
        The processor's name, and the folder of the unpacked images.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    orders: NDArray[np.int32]
    sample_rows: NDArray[np.int32]
    val_rows: NDArray[np.int32]
    weights: dict[str, NDArray[np.float32]]
    facts: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the task to an .npz file."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        weights = {f"weights/{name}": value for name, value in self.weights.items()}
        everything: dict[str, Any] = arrays | weights | {"facts": np.array(json.dumps(self.facts))}
        np.savez(path, **everything)

    @classmethod
    def load(cls, path: Path) -> "Task":
        """Read what `save` wrote."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(str(arrays.pop("facts")))
        names = [name for name in arrays if name.startswith("weights/")]
        weights = {name.removeprefix("weights/"): arrays.pop(name) for name in names}
        return cls(**arrays, weights=weights, facts=facts)


@dataclass(frozen=True)
class Options:
    """What a script is asked to do; `model` says which of the task's models, `cpu` where, None: anywhere."""

    task: Path
    arrangement: str
    cell: str
    epochs: int
    model: int
    cpu: int | None
    wait: bool

    @property
    def regularised(self) -> bool:
        """Whether dropout and BatchNorm are on."""
        return self.cell != "baseline"


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave: step losses (models, steps), and the mean of each evaluation, one value per model."""

    losses: NDArray[np.floating[Any]]
    evaluation: dict[str, list[float]]


Train = Callable[[Task, Options], Iterator[Epoch | None]]
"""Prepares itself and yields None; then trains, and yields each epoch as it ends."""


def main(train: Train, arrangements: Sequence[str], versions: Callable[[], dict[str, str]]) -> None:
    """Be a peer's script: read the arguments, train, print one line of JSON."""
    options = _parse(arrangements)
    pin(options.cpu)
    task = Task.load(options.task)
    run = train(task, options)
    next(run)
    if options.wait:
        print("ready", flush=True)
        sys.stdin.readline()
    began = time.monotonic()
    epochs, ended = [], []
    for epoch in run:
        assert epoch is not None
        ended.append(time.monotonic())
        epochs.append(epoch)
    print(json.dumps(_line(options, task, began, ended, epochs) | {"versions": versions()}), flush=True)


def _parse(arrangements: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True, help="the .npz file that run.py writes")
    parser.add_argument("--arrangement", choices=arrangements, default=arrangements[0])
    parser.add_argument("--cell", choices=CELLS, default=CELLS[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--model", type=int, default=0)
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--wait", action="store_true", help="say 'ready', and train when a line comes in")
    return Options(**vars(parser.parse_args()))


def pin(cpu: int | None) -> None:
    """Stay on one processor, where the platform allows that."""
    if cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {cpu})


def _line(options: Options, task: Task, began: float, ended: list[float], epochs: list[Epoch]) -> dict[str, Any]:
    """Say what was measured; losses are lists over models, then over epochs or steps."""
    models = len(epochs[0].losses)
    losses = np.stack([epoch.losses for epoch in epochs]).astype(np.float64)  # (epochs, models, steps)
    return {
        "arrangement": options.arrangement,
        "cell": options.cell,
        "models": models,
        "began": began,
        "ended": ended[-1],
        "seconds_per_model_epoch": (ended[-1] - began) / (models * len(epochs)),
        "epoch_seconds": (np.diff([began, *ended]) / models).tolist(),
        "train_loss": losses.mean(axis=2).T.tolist(),
        "first_losses": losses[0, :, :FIRST_LOSSES].tolist(),
        "evaluation": [epoch.evaluation for epoch in epochs],
        "processor": task.facts["processor"],
    }
