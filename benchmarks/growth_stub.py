"""Replaces training in `growth.py`: returns results of the real size at once.

A module of its own without torch, because worker processes import it.
"""

from typing import Any

import numpy as np

from mnist_ablate.design.plan import Run

TEST_IMAGES = 10_000
_EVALUATIONS = ("train_loss", "train_loss_eval", "val_loss", "val_accuracy", "test_loss", "test_accuracy")


def train_one(run: Run) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return numbers that differ from run to run, so they compress as badly as those of `tasks.train_one`."""
    rng = np.random.default_rng(int(run.run_id, 16))
    labels = np.random.default_rng(0).integers(0, 10, TEST_IMAGES, dtype=np.uint8)
    predictions = {
        "test_index": np.arange(TEST_IMAGES, dtype=np.int32),
        "label": labels,
        "prediction": np.where(rng.random(TEST_IMAGES) < 0.975, labels, 0).astype(np.uint8),
        "confidence": (1 - 0.6 * rng.beta(0.1, 3, TEST_IMAGES)).astype(np.float32),
    }
    rows = [_row(epoch, rng) for epoch in range(1, run.settings.epochs + 1)]
    return rows, predictions, _document(run, rng)


def _row(epoch: int, rng: np.random.Generator) -> dict[str, Any]:
    numbers = dict(zip(_EVALUATIONS, rng.uniform(0.97, 0.98, len(_EVALUATIONS)).tolist(), strict=True))
    return {"epoch": epoch, "status": "ok", **numbers, "train_seconds": 1.0, "eval_seconds": 0.1}


def _document(run: Run, rng: np.random.Generator) -> dict[str, Any]:
    provenance = {"mnist_ablate": "0", "torch": "0", "processor": "stub", "engine": run.engine, "git_commit": "0" * 40}
    return {
        "provenance": provenance | {"started": "2025-11-23T16:00:00+00:00"},
        "data_sha256": "0" * 64,
        "weights_sha256": rng.bytes(32).hex(),
        "first_losses": rng.exponential(0.5, 200).tolist(),
    }
