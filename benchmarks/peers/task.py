"""What peers start from: images, splits, orders and initial weights of our runs; `common.Task` describes it."""

from collections.abc import Sequence

import numpy as np
from common import Task

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.settings import Settings
from mnist_ablate.training.model import mlp
from mnist_ablate.training.protocol import TRAIN_SAMPLE, order_of_images


def task_of(images: Images, seeds: Sequence[int], epochs: int) -> Task:
    """Return what our runs of these seeds start from, a model for each; seeds may repeat."""
    splits = {seed: data.split(len(images.train_labels), seed, 0.2) for seed in set(seeds)}
    orders = {
        seed: [rows[order_of_images(seed, epoch, len(rows))] for epoch in range(1, epochs + 1)]
        for seed, (rows, _) in splits.items()
    }
    states = {seed: mlp(Settings(), seed).state_dict() for seed in splits}
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return {
        **{name: getattr(images, name) for name in names},
        "orders": np.array([orders[seed] for seed in seeds], np.int32),
        "sample_rows": np.array([splits[seed][0][:TRAIN_SAMPLE] for seed in seeds], np.int32),
        "val_rows": np.array([splits[seed][1] for seed in seeds], np.int32),
        **{name: np.stack([states[seed][name].numpy() for seed in seeds]) for name in states[seeds[0]]},
    }
