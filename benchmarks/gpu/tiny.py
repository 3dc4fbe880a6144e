"""Train few runs for few steps on the card, all kernels, for compute-sanitizer and ncu."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests")]
import digests  # noqa: E402

from mnist_ablate.design.plan import plan  # noqa: E402
from mnist_ablate.design.study import load_study  # noqa: E402
from mnist_ablate.training.engines.card.driver import Card  # noqa: E402
from mnist_ablate.training.engines.card.study import Trainer  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--runs", type=int, default=0, help="of the main study; by default two, smaller, with small batches"
)
parser.add_argument("--steps", type=int, default=2)
options = parser.parse_args()
if options.runs:
    study = load_study("factorial").with_options(seeds=-(-options.runs // 8), epochs=1, engine="fused")
    runs = plan(study)[: options.runs]
    changes = {"epoch_steps": options.steps}
else:
    runs = [digests.runs()[name] for name in ("baseline", "all techniques")]
    changes = {
        "epochs": 1,
        "epoch_steps": options.steps,
        "validation_fraction": 0.1,
        "batch_size": 16,
        "train_images": 32,
    }
runs = [replace(run, settings=run.settings.model_copy(update=changes), probes=()) for run in runs]
for run, result in Trainer(Card()).train(runs, digests.images()):
    if isinstance(result, Exception):
        raise result
    print(run.cell, result.weights_sha256)
