"""Train two tiny runs on the card, for compute-sanitizer: all kernels, few steps."""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]
import digests  # noqa: E402

from mnist_ablate.training.engines.card.driver import Card  # noqa: E402
from mnist_ablate.training.engines.card.study import Trainer  # noqa: E402

CHANGES = {"epochs": 1, "epoch_steps": 2, "validation_fraction": 0.1, "batch_size": 16, "train_images": 32}

known = digests.runs()
runs = [
    replace(known[name], settings=known[name].settings.model_copy(update=CHANGES), probes=())
    for name in ("baseline", "all techniques")
]
for run, result in Trainer(Card()).train(runs, digests.images()):
    if isinstance(result, Exception):
        raise result
    print(run.cell, result.weights_sha256)
