"""Train one set of seeds for ``power.py``, with the package that PYTHONPATH names, perhaps one with a planted bug."""

import argparse
import gzip
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import load_study
from mnist_ablate.gate import runs as gate_runs
from mnist_ablate.gate.reference import with_seeds
from mnist_ablate.training import tasks, worker
from mnist_ablate.training.engines.fused import FusedEngine, _Masks
from mnist_ablate.training.engines.kernels.rooms import Words


def main() -> None:
    """Train the golden runs, evaluate the stored network, train the gate's runs; write all of it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--nudge", type=int, default=0)
    parser.add_argument("--engine")
    parser.add_argument("--reversed", action="store_true")
    parser.add_argument("--golden-only", action="store_true")
    arguments = parser.parse_args()
    if arguments.reversed:
        _reverse_batches()
    study = load_study("gate").with_options(engine=arguments.engine)
    began = time.process_time()
    document: dict[str, Any] = {"golden": [], "runs": []}
    try:
        if not arguments.nudge:
            run = gate_runs.checkpoint_run(study.with_options(engine="fused"))
            numbers, predictions = tasks.evaluate_or_nothing(run, gate_runs.load_weights(arguments.checkpoint))
            document |= {"checkpoint": numbers, "predictions": np.asarray(predictions).tolist()}
            for run in plan(gate_runs.golden_study(study)):
                document["golden"].append(_train(replace(run, seed=arguments.seeds[0]), 0))
        document["golden_seconds"] = time.process_time() - began
        for run in [] if arguments.golden_only else with_seeds(study, arguments.seeds):
            document["runs"].append(_train(run, arguments.nudge))
    except Exception as error:  # noqa: BLE001  # a bug may make training fail in any way, which is a result
        document["error"] = f"{type(error).__name__}: {error}"
    document["seconds"] = time.process_time() - began
    temporary = arguments.out.with_suffix(".tmp")
    temporary.write_bytes(gzip.compress(json.dumps(document).encode()))
    temporary.rename(arguments.out)


def _train(run: Run, nudge: int) -> dict[str, Any]:
    rows, _, document = worker.train_one(run, nudge)
    results = {"cell": run.cell, "seed": run.seed, "rows": rows, "machine": document["provenance"]}
    return results | {"losses": document["first_losses"], "digest": document["weights_sha256"]}


def _reverse_batches() -> None:
    """Reverse the rows of every batch and their dropout masks: the same experiment with other sums."""
    train, draw = FusedEngine.train, _Masks.draw

    def reversed_train(self: FusedEngine, images: Tensor, labels: Tensor, batches: Iterable[Tensor]) -> list[float]:
        return train(self, images, labels, [rows.flip(0) for rows in batches])

    def reversed_draw(self: _Masks, n: int, steps: int) -> Words:
        pixels, units = draw(self, n, steps)
        return Words(_reversed(pixels), tuple(map(_reversed, units)))

    FusedEngine.train, _Masks.draw = reversed_train, reversed_draw  # type: ignore[method-assign]


def _reversed(words: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(words[:, ::-1])


if __name__ == "__main__":
    main()
