"""JAX on the card: `benchmarks/peers/jax_mlp.py` with all models under ``vmap``, epochs under ``lax.scan``."""

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from telling import UNAVAILABLE, tell, trying

sys.path.append(str(Path(__file__).parents[1] / "peers"))
CELLS = ("baseline", "dropout+batch_norm")
MODES = {"TF32": "tensorfloat32", "float32": "float32"}
"""How products are rounded, by JAX's names; it takes TF32 where nothing is said and the card has it."""


def main() -> int:
    """Train in each mode and cell, and tell each time; compilation is not counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--models", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two steps, on a processor, too")
    options = parser.parse_args()
    try:
        import jax

        jax_mlp: Any = importlib.import_module("jax_mlp")
    except ImportError as error:
        print(f"JAX cannot be imported: {error}")
        return UNAVAILABLE
    if jax.default_backend() != "gpu" and not options.quick:
        print(f"this JAX, {jax.__version__}, has no card: it would train on {jax.default_backend()}")
        return UNAVAILABLE
    jax.block_until_ready(jax.numpy.zeros(1))  # XLA reads its flags here, so none that `jax_mlp` sets for processors
    tell(options.name, f"jax {jax.__version__}")
    with np.load(options.task) as file:
        task = {name: file[name] for name in file.files}
    options.arrangement, options.model = "jax_vmap8", 0
    if options.quick:
        jax_mlp.STEPS, options.models, options.epochs = 2, 2, 1
        task["orders"] = task["orders"][:, :, : 2 * jax_mlp.BATCH]
    jax_mlp.VMAPPED = options.models
    for mode, precision in MODES.items():
        for cell in CELLS:
            what = f"{options.name}, {mode}, {cell}"
            with trying(what, failed=False), jax.default_matmul_precision(precision):
                options.regularised = cell != "baseline"
                course = jax_mlp.train(task, options)
                next(course)
                began = time.perf_counter()
                *_, last = course
                seconds = time.perf_counter() - began
                assert last is not None
                tell(f"{what}, {options.models} models", 5 * seconds / options.epochs, "s for 5 epochs")
                tell(f"{what}, test accuracy", float(np.mean(last.evaluation["test_accuracy"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
