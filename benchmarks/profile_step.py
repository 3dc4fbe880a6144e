"""Where each microsecond of a training step of the fused engine goes: ``nox -s profile``.

Takes the steps of a real training kernel by kernel, and times each: with the data, the batches and the caches that
it has there. That these kernels make up the step is checked by its losses. Prints a table; ``--write`` puts it into
``benchmarks/README.md``.
"""

import argparse
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from mnist_ablate import data
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.streams import drop_threshold, permutation, stream
from mnist_ablate.training.engines import kernels
from mnist_ablate.training.engines.fused import FusedEngine, _alike
from mnist_ablate.training.protocol import steady_arithmetic
from mnist_ablate.training.provenance import provenance

README = Path(__file__).parent / "README.md"
_TABLE = re.compile(r"(?<=<!-- profile of a step -->\n).*?(?=<!-- end -->)", re.DOTALL)

CELLS = {"baseline": Settings(), "all techniques on": Settings(l2=1e-5, dropout=0.2, batch_norm=True)}
EPOCH, ROUNDS = 750, 15
"""Steps before anything is timed, and rounds into which those of the next epoch are divided."""
WORDS, CONSTANTS, DISPATCH = "Python: dropout words", "Python: Adam's constants", "Python: call of `train_steps`"
WHOLE = "whole step"
ADAM = ", its Adam"

Times = dict[str, float]
"""Microseconds, by the name of the part."""


class Timer:
    """Takes the time of calls, round by round; several calls of one name in a round are repetitions."""

    def __init__(self) -> None:
        self._rounds: list[dict[str, list[float]]] = []

    def new_round(self) -> None:
        """Begin a round."""
        self._rounds.append(defaultdict(list))

    def compiled(self, name: str, kernel: Callable[..., Any], *arguments: Any) -> Any:
        """Call `kernel`, and take its time less that of passing it its arguments."""
        return self._measure(name, kernel, nothing, arguments)

    def python(self, name: str, function: Callable[..., Any], *arguments: Any, steps: int = 1) -> Any:
        """Call `function`, and take its time for each of the steps that it is called for."""
        return self._measure(name, function, _nothing, arguments, steps)

    def _measure(
        self, name: str, function: Callable[..., Any], idle: Callable[..., Any], arguments: Any, steps: int = 1
    ) -> Any:
        idle(*arguments)  # once beforehand, so that both times are taken with the arguments in cache
        before = time.process_time_ns()
        idle(*arguments)
        began = time.process_time_ns()
        result = function(*arguments)
        self._rounds[-1][name].append((time.process_time_ns() - began - (began - before)) / steps)
        return result

    def times(self) -> Times:
        """Return for each name the median of the best round: a busy machine makes whole rounds slow."""
        return {name: min(statistics.median(found[name]) for found in self._rounds) / 1e3 for name in self._rounds[0]}


def _nothing(*_arguments: Any) -> None:
    pass


@njit
def nothing(*_arguments):  # type: ignore[no-untyped-def]
    """Take arguments: it is up to 20 microseconds until a compiled function has them."""


def steps_in_parts(engine: FusedEngine, images: Tensor, labels: Tensor, rows: Tensor, timer: Timer) -> list[float]:
    """Do what `FusedEngine._steps` and `kernels.train_steps` do, each part of it by the timer; return the losses."""
    settings, (steps, n) = engine._settings, rows.shape
    pixels, truth, batches = engine._pixels(images), labels.numpy(), rows.numpy()
    dropout = np.int32(drop_threshold(settings.dropout)), engine._keep
    words = timer.python(WORDS, engine._dropout_words, steps, n, steps=steps)
    adam = timer.python(CONSTANTS, engine._adam_of, steps, steps=steps)
    common = engine._layers, words, *dropout, settings.batch_norm
    timer.python(DISPATCH, nothing, pixels, truth, batches, *common, adam, np.empty(steps), steps=steps)
    engine._taken += steps
    constants = [adam._replace(rate=adam.rate[s : s + 1], correction=adam.correction[s : s + 1]) for s in range(steps)]
    return [step_in_parts(pixels, truth, batches[s], common, s, constants[s], timer) for s in range(steps)]


def step_in_parts(
    pixels: Any, truth: Any, batch: Any, common: tuple[Any, ...], s: int, adam: kernels.Adam, timer: Timer
) -> float:
    """Do what `kernels.train_step` does, each part of it by the timer; return the loss."""
    layers, words, threshold, keep, norm = common
    n = len(batch)

    *hidden, output = layers
    timed, dropout = timer.compiled, (threshold, keep[0])
    timed("`gather`", kernels.gather, pixels, batch, hidden[0].rows)
    for i, layer in enumerate(hidden):
        name, weight, bias = f"layer {i + 1}", layer.weight.value, layer.bias.value
        if i > 0:
            timed(f"{name}: `find_rows`", kernels.find_rows, layer.x, n, layer.rows)
        timed(f"{name}: `multiply`", kernels.multiply, layer.rows, n, weight, bias, layer.z)
        if norm:
            timed(f"{name}: `normalise`", kernels.normalise, layer, n)
        timed(f"{name}: `activate`", kernels.activate, layer, n, norm, words[i][s], *dropout, layers[i + 1].x)
    timed("output: `multiply_output`", kernels.multiply_output, output, n)
    loss: float = timed("output: `softmax_loss`", kernels.softmax_loss, output.z, truth, batch, output.dz)
    timed("output: `back_through_output`", kernels.back_through_output, output, n, *dropout, hidden[-1].dz)
    timed("output: `update_output`", kernels.update_output, output, n, adam)
    for i, layer in reversed(list(enumerate(hidden))):
        name = f"layer {i + 1}"
        if norm:
            timed(f"{name}: `back_through_norm`", kernels.back_through_norm, layer, n, adam)
        if i > 0:
            timed(f"{name}: `back_through`", kernels.back_through, layer, n, *dropout, hidden[i - 1].dz)
        timed(f"{name}: `find_columns`", kernels.find_columns, layer.rows, n, layer.columns)
        timed(f"{name}: `update_weight`", kernels.update_weight, layer, adam)
        timed(f"{name}: `update_bias`", kernels.update_bias, layer, n, norm, adam)
    return loss


def dense_in_parts(engine: FusedEngine, timer: Timer) -> None:
    """Do a step's matrix products without regard to zeros, under the names of the kernels, and Adam alone."""
    *hidden, output = engine._layers
    adam = engine._adam_of(1)
    for i, layer in enumerate(hidden, 1):
        x, dz, weight = map(torch.from_numpy, (inputs(layer), layer.dz, layer.weight.value))
        multiply(timer, f"layer {i}: `multiply`", x, weight)
        if i > 1:
            multiply(timer, f"layer {i}: `back_through`", dz, weight.T)
        multiply(timer, f"layer {i}: `update_weight`", x.T, dz)
        timer.compiled(f"layer {i}: `update_weight`{ADAM}", adam_alone, layer, adam)
    x, dz, weight = map(torch.from_numpy, (output.x, output.dz, output.weight.value))
    multiply(timer, "output: `multiply_output`", x, weight.T)
    multiply(timer, "output: `back_through_output`", dz, weight)
    multiply(timer, "output: `update_output`", dz.T, x)


def inputs(layer: kernels.Layer) -> NDArray[Any]:
    """Write out what a hidden layer had as inputs: (n, inputs)."""
    n, start = len(layer.z), layer.rows.start
    size = start[n]
    listed = (layer.rows.value[:size], layer.rows.at[:size], start[: n + 1])
    matrix: NDArray[Any] = csr_array(listed, shape=(n, len(layer.weight.value))).toarray()
    return matrix


def multiply(timer: Timer, name: str, a: Tensor, b: Tensor) -> None:
    """Multiply two matrices by torch, into room that is there already and in cache."""
    out = torch.zeros(a.shape[0], b.shape[1])
    timer.python(name, lambda: torch.mm(a, b, out=out))


@njit
def adam_alone(layer, adam):  # type: ignore[no-untyped-def]
    """Do what `kernels.update_weight` does beside the product; all columns of the default network lie in blocks."""
    block, whole = kernels.blocks(layer.dz)
    for p in range(layer.weight.value.shape[0]):
        for j in range(0, whole, block):
            kernels.adam_block(layer.weight, p, j, kernels.load(layer.row, 0, j), adam)


def profile(settings: Settings, images: Tensor, labels: Tensor) -> tuple[Times, FusedEngine]:
    """Time the second epoch of a training, part by part and as a whole; return the engine as well."""
    engine, twin, timer = FusedEngine(settings, 0), FusedEngine(settings, 0), Timer()
    order = torch.from_numpy(permutation(stream(0, "profile"), len(images)))
    batches = torch.split(order, settings.batch_size)[:EPOCH]
    engine.train(images, labels, batches)
    twin.train(images, labels, batches)
    for r in range(ROUNDS):
        timer.new_round()
        whole, parts = [], []
        for alike in _alike(batches[r * EPOCH // ROUNDS : (r + 1) * EPOCH // ROUNDS]):
            whole += timer.python(WHOLE, twin.train, images, labels, alike, steps=len(alike))
            parts += steps_in_parts(engine, images, labels, alike, timer)
        if not np.allclose(whole, parts, rtol=1e-3):
            raise RuntimeError("these parts do not make up a step: have the calls of kernels.train_steps changed?")
    return timer.times(), engine


def dense_profile(engine: FusedEngine) -> Times:
    """Time the dense products of as many steps; `engine` is of no use afterwards."""
    timer = Timer()
    for _ in range(ROUNDS):
        timer.new_round()
        for _ in range(EPOCH // ROUNDS):
            dense_in_parts(engine, timer)
    return timer.times()


def markdown(cells: dict[str, Times], dense: Times) -> str:
    """Put the times into a table: a line for each part in the order of the step, a column for each cell."""
    longest = max(cells.values(), key=len)
    lines = [["microseconds", *cells, "dense product alone"], ["---", *["---:"] * (len(cells) + 1)]]
    for name in (name for name in longest if name != WHOLE):
        lines.append([name, *(_number(times.get(name)) for times in cells.values()), _number(dense.get(name))])
        if name + ADAM in dense:
            lines.append([f"{name}{ADAM} alone", *[""] * len(cells), _number(dense[name + ADAM])])
    products = sum(took for name, took in dense.items() if not name.endswith(ADAM))
    rest = [2 * times[WHOLE] - sum(times.values()) for times in cells.values()]
    lines.append(["what these parts leave over", *map(_number, rest), ""])
    lines.append([f"**{WHOLE}**", *(f"**{times[WHOLE]:.0f}**" for times in cells.values()), f"**{products:.0f}**"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(microseconds: float | None) -> str:
    return "" if microseconds is None else str(round(microseconds))


def shares(engine: FusedEngine) -> str:
    """Say which share of each hidden layer's inputs was not zero in the last batch."""
    found = (np.count_nonzero(x) / x.size for x in map(inputs, engine._layers[:-1]))
    return " and ".join(f"{100 * share:.0f} % of layer {i}'s" for i, share in enumerate(found, 1))


def main() -> None:
    """Profile the cells, and print or write the table."""
    parser = argparse.ArgumentParser(description="Where each microsecond of a training step of the fused engine goes.")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    write = parser.parse_args().write
    data.fetch("mnist")
    mnist = data.load("mnist")
    images, labels = torch.from_numpy(mnist.train_images), torch.from_numpy(mnist.train_labels.astype(np.int64))
    with steady_arithmetic():
        found = {cell: profile(settings, images, labels) for cell, settings in CELLS.items()}
        not_zero = "; ".join(f"{cell}, {shares(engine)}" for cell, (_, engine) in found.items())
        dense = dense_profile(found["baseline"][1])
    table = markdown({cell: times for cell, (times, _) in found.items()}, dense)
    where = f"{provenance()['processor']}, one core; torch {torch.__version__}, Numba {version('numba')}"
    text = f"{where}. Inputs that are not zero: {not_zero}.\n\n{table}\n"
    print(text)
    if write:
        page, places = _TABLE.subn(lambda _: text, README.read_text(encoding="utf-8"))
        assert places == 1, f"{README} has no place for the table"
        README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
