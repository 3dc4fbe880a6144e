"""JAX on the card: `benchmarks/peers/jax_mlp.py` with all models under ``vmap``, epochs under ``lax.scan``."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "peers"))
import jax_mlp


def main() -> None:
    """Train, and print one line of JSON; compilation is not counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--models", type=int, default=80)
    parser.add_argument("--cell", default="baseline")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    options.arrangement, options.regularised, options.model = "jax_vmap8", options.cell != "baseline", 0
    jax_mlp.VMAPPED = options.models
    with np.load(options.task) as file:
        task = {name: file[name] for name in file.files}
    course = jax_mlp.train(task, options)
    next(course)
    began = time.perf_counter()
    *_, last = course
    assert last is not None
    found = {
        "models": options.models,
        "seconds": time.perf_counter() - began,
        "test_accuracy": float(np.mean(last.evaluation["test_accuracy"])),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
