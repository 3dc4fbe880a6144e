"""What all peers share: their task, how they are started and timed, and the line they print.

Each script is one process. It prepares itself (imports, data, compilation, a warm-up), says ``ready`` if it is told to
wait, and then trains; only the training is timed. This module needs nothing but numpy.
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
"""The cells that peers are timed in: no technique, and both techniques that cost time."""
STEPS, BATCH, WIDTH = 750, 64, 256
CHUNK = 500
"""Images in a forward pass of an evaluation."""
TRAIN_SAMPLE = 10_000
FIRST_LOSSES = 50
DROPOUT, LEARNING_RATE = 0.2, 1e-3

Task = dict[str, NDArray[Any]]
"""What our own runs start from; the first axis of what differs between seeds is the model.

- ``train_images``, ``test_images``: uint8 (n, 784); ``train_labels``, ``test_labels``: uint8 (n,).
- ``orders``: rows of the training images in the order of the batches, int32 (models, epochs, 48000).
- ``sample_rows``, ``val_rows``: rows for training and validation losses, int32 (models, 10000) and (models, 12000).
- ``linear1.weight`` and so on: initial weights, float32 (models, ...), layers stored (out, in) as torch does.
- ``folder``: the folder of the unpacked images.
"""


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch: step losses (models, steps), and the mean of each evaluation, one value per model."""

    losses: NDArray[np.floating[Any]]
    evaluation: dict[str, list[float]]


Train = Callable[[Task, argparse.Namespace], Iterator[Epoch | None]]
"""Prepares itself and yields None; then trains, and yields each epoch as it ends."""


def main(train: Train, arrangements: Sequence[str], versions: dict[str, str]) -> None:
    """Be a peer's script: read the arguments, train, print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True, help="the .npz file that run.py writes")
    parser.add_argument("--arrangement", choices=arrangements, default=arrangements[0])
    parser.add_argument("--cell", choices=CELLS, default=CELLS[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--model", type=int, default=0, help="which of the task's models")
    parser.add_argument("--cpu", type=int, help="the processor to stay on; by default any")
    parser.add_argument("--wait", action="store_true", help="say 'ready', and train when a line comes in")
    options = parser.parse_args()
    options.regularised = options.cell != "baseline"
    if options.cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {options.cpu})
    with np.load(options.task) as file:
        task = {name: file[name] for name in file.files}
    run = train(task, options)
    next(run)
    if options.wait:
        print("ready", flush=True)
        sys.stdin.readline()
    began, ended, epochs = time.monotonic(), [], []
    for epoch in run:
        assert epoch is not None
        ended.append(time.monotonic())
        epochs.append(epoch)
    losses = np.stack([epoch.losses for epoch in epochs]).astype(np.float64)  # (epochs, models, steps)
    line = {
        "cell": options.cell,
        "models": losses.shape[1],
        "began": began,
        "ended": ended[-1],
        "epoch_seconds": (np.diff([began, *ended]) / losses.shape[1]).tolist(),
        "train_loss": losses.mean(axis=2).T.tolist(),
        "first_losses": losses[0, :, :FIRST_LOSSES].tolist(),
        "evaluation": [epoch.evaluation for epoch in epochs],
        "versions": versions,
    }
    print(json.dumps(line), flush=True)
