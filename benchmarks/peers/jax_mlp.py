"""JAX: jit and ``lax.scan`` over a whole epoch and its evaluations, in three arrangements.

``jax_all_cores`` trains one model with all threads, ``jax_vmap8`` trains eight at once, ``jax_pinned`` trains one on
one core with one thread (start it once per core). Images stay on the device, the state's buffers are donated.

We tried the following, and kept what was fastest in each arrangement:

- gathering uint8 rows in each step instead of permuting the epoch beforehand: the same on one core, but 10 % slower
  with all threads and no faster under vmap; images stored as float32 are slower than bytes in both;
- ``optax.adam``: 1 to 2 % slower than the Adam below; ``optax``'s cross-entropy: the same or slower;
- weights stored (in, out): slower than (out, in); scan unrolled 2, 3 or 5 steps: nothing beyond the noise;
- XLA's flags: 512-bit vectors gain 6 to 8 % on AVX-512 machines; fast-math, oneDNN, XNNPACK, YNNPACK and another
  scheduler gain nothing; without fusion emitters it is far slower;
- dropout: threefry's bits cost least; the generators ``rbg`` and ``unsafe_rbg`` are slower on a CPU;
- vmap on one pinned core: slower than one model.
"""

import math
import os
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import BATCH, CHUNK, DROPOUT, LEARNING_RATE, STEPS, WIDTH, Epoch, Task, main

LAYERS = ("linear1", "linear2", "output")
VMAPPED = 8
Arrays = dict[str, Any]
State = tuple[Arrays, Arrays, Arrays, Arrays, Any, Any]
"""Parameters, Adam's two moments, running statistics, steps taken, random key."""


def train(task: Task, options: Namespace) -> Iterator[Epoch | None]:
    """Train one model, or eight: see ``common.Train``."""
    flags = ["--xla_cpu_prefer_vector_width=512"]
    if options.arrangement == "jax_pinned":
        flags += ["--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
    os.environ["XLA_FLAGS"] = " ".join(flags)  # read when the first array is made
    vmapped = options.arrangement == "jax_vmap8"
    models = list(range(VMAPPED)) if vmapped else [options.model]
    data = tuple(jnp.asarray(task[f"{part}_{what}"]) for part in ("train", "test") for what in ("images", "labels"))
    rows = [jnp.asarray(task[name][models]) for name in ("sample_rows", "val_rows")]
    orders = [jnp.asarray(task["orders"][models, epoch].reshape(-1, STEPS, BATCH)) for epoch in range(options.epochs)]
    epoch = partial(_epoch, regularised=options.regularised, permute=options.arrangement == "jax_all_cores")
    if vmapped:
        epoch = jax.vmap(epoch, in_axes=(0, None, 0, 0, 0))
    else:
        rows, orders = [r[0] for r in rows], [order[0] for order in orders]
    compiled = jax.jit(epoch, donate_argnums=0)
    jax.block_until_ready(compiled(_start(task, models, vmapped), data, orders[0], *rows))  # compiles
    state = jax.block_until_ready(_start(task, models, vmapped))
    yield None
    for order in orders:
        state, losses, evaluation = compiled(state, data, order, *rows)
        means = {name: np.atleast_1d(values).tolist() for name, values in evaluation.items()}
        yield Epoch(np.asarray(losses).reshape(-1, STEPS), means)


def _start(task: Task, models: list[int], vmapped: bool) -> State:
    """Return the state before the first step; if vmapped, its first axis is the model."""
    n = len(models)
    parameters = {
        f"{layer}.{kind}": jnp.asarray(task[f"{layer}.{kind}"][models])
        for layer in LAYERS
        for kind in ("weight", "bias")
    }
    running: Arrays = {}
    for layer in LAYERS[:2]:
        parameters |= {f"{layer}.scale": jnp.ones((n, WIDTH)), f"{layer}.shift": jnp.zeros((n, WIDTH))}
        running |= {f"{layer}.mean": jnp.zeros((n, WIDTH)), f"{layer}.var": jnp.ones((n, WIDTH))}
    zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(2)]
    keys = jax.vmap(jax.random.key)(jnp.asarray(models))
    state = (parameters, zeros[0], zeros[1], running, jnp.zeros(n, jnp.int32), keys)
    return state if vmapped else jax.tree.map(lambda array: array[0], state)


def _epoch(
    state: State, data: tuple[Any, ...], order: Any, sample: Any, val: Any, *, regularised: bool, permute: bool
) -> tuple[State, Any, dict[str, Any]]:
    """Take an epoch's steps and evaluate; return the state, the step losses and the evaluation's means."""
    images, labels, test_images, test_labels = data

    def step(state: State, batch: Any) -> tuple[State, Any]:
        x, y = batch if permute else (images[batch], labels[batch])
        return _step(state, x, y, regularised=regularised)

    state, losses = jax.lax.scan(step, state, (images[order], labels[order]) if permute else order)
    evaluate = partial(_evaluate, state[0], state[3], regularised)
    evaluation = evaluate("train", images, labels, sample) | evaluate("val", images, labels, val)
    return state, losses, evaluation | evaluate("test", test_images, test_labels, jnp.arange(len(test_labels)))


def _step(state: State, x: Any, y: Any, *, regularised: bool) -> tuple[State, Any]:
    """Take one step of Adam on a batch, uint8 (64, 784), and return its mean loss before the step."""
    parameters, first, second, running, t, key = state
    masks: list[Any] = []
    if regularised:
        key, *keys = jax.random.split(key, 3)
        bits = [jax.random.bits(k, (BATCH, WIDTH), jnp.uint16) for k in keys]
        masks = [jnp.where(b >= round(DROPOUT * 2**16), jnp.float32(1 / (1 - DROPOUT)), 0) for b in bits]

    def loss_of(parameters: Arrays) -> Any:
        logits, statistics = _forward(parameters, _pixels(x), masks=masks, running=None, regularised=regularised)
        return -(jax.nn.log_softmax(logits) * jax.nn.one_hot(y, 10)).sum(axis=1).mean(), statistics

    (loss, statistics), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters)
    t += 1
    # 1 - 0.999**t would keep four digits of float32, and losses would part by 1e-3 within 50 steps.
    rate = LEARNING_RATE / -jnp.expm1(t * math.log(0.9))
    correction = 1 / jnp.sqrt(-jnp.expm1(t * math.log(0.999)))
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) * correction + 1e-8), parameters, first, second
    )
    running = {name: 0.9 * old + 0.1 * statistics.get(name, old) for name, old in running.items()}
    return (parameters, first, second, running, t, key), loss


def _pixels(x: Any) -> Any:
    return x.astype(jnp.float32) / np.float32(255)


def _forward(
    parameters: Arrays, x: Any, *, masks: list[Any], running: Arrays | None, regularised: bool
) -> tuple[Any, Arrays]:
    """Return logits, and the batch's own statistics where `running` is None: training."""
    statistics: Arrays = {}
    for i, layer in enumerate(LAYERS):
        x = x @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
        if layer == "output":
            break
        if regularised:
            if running is None:
                mean = x.mean(axis=0)
                var = jnp.square(x - mean).mean(axis=0)
                statistics |= {f"{layer}.mean": mean, f"{layer}.var": var * (BATCH / (BATCH - 1))}
            else:
                mean, var = running[f"{layer}.mean"], running[f"{layer}.var"]
            scale = parameters[f"{layer}.scale"] * jax.lax.rsqrt(var + 1e-5)
            x = (x - mean) * scale + parameters[f"{layer}.shift"]
        if masks:
            x = x * masks[i]
        x = jnp.maximum(x, 0)
    return x, statistics


def _evaluate(
    parameters: Arrays, running: Arrays, regularised: bool, name: str, images: Any, labels: Any, rows: Any
) -> dict[str, Any]:
    def chunk(sums: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        x, truth = _pixels(images[part]), labels[part]
        logits, _ = _forward(parameters, x, masks=[], running=running, regularised=regularised)
        loss = -(jax.nn.log_softmax(logits) * jax.nn.one_hot(truth, 10)).sum()
        return (sums[0] + loss, sums[1] + (logits.argmax(axis=1) == truth).sum()), None

    sums, _ = jax.lax.scan(chunk, (jnp.float32(0), jnp.int32(0)), rows.reshape(-1, CHUNK))
    return {f"{name}_loss": sums[0] / rows.size, f"{name}_accuracy": sums[1] / rows.size}


if __name__ == "__main__":
    main(train, ["jax_all_cores", "jax_vmap8", "jax_pinned"], {"jax": jax.__version__})
