"""What a run costs: relative to other runs, and in seconds on this machine, from a short trial.

The driver orders runs by their cost, so this module loads torch only for a trial.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.plan import Run

# Besides the products of a batch, a step costs a pass of Adam over all weights, as much as this many images ...
_PASS_IMAGES = 25
# ... and function calls, as much as this many products, whatever the sizes. Both were measured with `autograd`.
_CALLS_PRODUCTS = 6e6

_TRIAL_STEPS = 30
_TRIAL_TEST_IMAGES = 500
_INK = 0.19
"""Share of MNIST's pixels that are not black, on which the speed of the engine ``fused`` depends."""
_TEST_PROBES = ("removal", "sampling", "calibration")
"""Probes that evaluate all test images."""


def cost(run: Run) -> float:
    """Return roughly how many products the training steps of `run` take; only ratios between runs count."""
    settings = run.settings
    if settings.train:
        return settings.epochs  # nothing else is known
    sizes = _form(run).sizes
    weights = settings.width * (sizes.inputs + settings.width * (settings.depth - 1) + sizes.classes)
    steps = settings.epoch_steps or math.ceil(_training_images(run) / settings.batch_size)
    return settings.epochs * steps * (weights * (settings.batch_size + _PASS_IMAGES) + _CALLS_PRODUCTS)


def _training_images(run: Run) -> int:
    return data.training_size(run.settings, _form(run).train_n)


class Form(NamedTuple):
    """How many images a data set has, to train on and to test on, and what they are."""

    train_n: int
    test_n: int
    sizes: data.Sizes
    shape: tuple[int, ...] = (data.PIXELS,)
    dtype: str = "uint8"


def _form(run: Run) -> Form:
    return form_of(run.images)


@lru_cache(maxsize=16)
def form_of(images: str) -> Form:
    """Return the form of a data set, by its name, or the SHA-256 of the arrays of one of the user's own.

    Raises
    ------
    DataError
        If the user's arrays are not there, or are not for a classifier.
    """
    if not data.is_kept(images):
        files = data.DATASETS[images]
        return Form(files[0].shape[0], files[2].shape[0], data.MNIST)
    own = data.load_kept(images)
    return Form(len(own.train_images), len(own.test_images), own.sizes, own.train_images.shape[1:],
                own.train_images.dtype.name)  # fmt: skip


def core_seconds(runs: list[Run]) -> float:
    """Estimate the seconds that `runs` take on one core, from a trial of each cell: a few steps on random images.

    NaN for a training of the user's own, of which nobody knows what a few steps are.
    """
    per_cell: dict[str, float] = {}
    if any(run.settings.train for run in runs):
        return math.nan
    for run in runs[:1]:
        _try(run)  # the first training in a process is slower
    for run in runs:
        if run.cell not in per_cell:
            per_cell[run.cell] = _try(run)
    return sum(per_cell[run.cell] for run in runs)


def _try(run: Run) -> float:
    """Estimate the seconds of `run` from a trial of its own."""
    from mnist_ablate.training.protocol import TRAIN_SAMPLE, train

    train_n, test_n, *_ = _form(run)
    settings, used, held_out = run.settings, _training_images(run), run.settings.validation_fraction
    brief = settings.model_copy(update={"epochs": 1, "train_images": 0, "epoch_steps": _TRIAL_STEPS})
    trial = replace(run, settings=brief, probes=())
    images = _random_images(trial)
    row = train(trial, images).rows[0]
    tried_n = len(images.train_labels)
    tried = min((1 - held_out) * tried_n, TRAIN_SAMPLE) + held_out * tried_n + _TRIAL_TEST_IMAGES
    evaluated = min(used, TRAIN_SAMPLE) + held_out * train_n + test_n
    train_seconds = row["train_seconds"] * cost(run) / cost(trial)
    eval_seconds = row["eval_seconds"] * settings.epochs * evaluated / tried
    return float(train_seconds + eval_seconds) + _probe_seconds(run, images, test_n)


def _random_images(trial: Run) -> data.Images:
    """Make as many images as the trial needs, with as much ink as MNIST's."""
    settings = trial.settings
    part = 1 - settings.validation_fraction
    n = math.ceil(_TRIAL_STEPS * settings.batch_size / part)
    if settings.batch_norm and round(n * part) % settings.batch_size == 1:  # BatchNorm cannot take a batch of one
        n += math.ceil(2 / part)
    form = _form(trial)
    shape = (n + _TRIAL_TEST_IMAGES, *form.shape)
    generator = np.random.default_rng(0)
    images: NDArray[Any] = generator.integers(0, 256, shape, dtype=np.uint8)
    images[generator.random(shape) > _INK] = 0
    if form.dtype != "uint8":
        images = images.astype(np.float32) / np.float32(255)
    labels = (np.arange(len(images)) % form.sizes.classes).astype(np.uint8)
    return data.Images.from_arrays("trial", images[:n], labels[:n], images[n:], labels[n:], classes=form.sizes.classes)


def _probe_seconds(run: Run, images: data.Images, test_n: int) -> float:
    """Estimate the seconds of the probes of `run`, from a trial of each on an untrained network."""
    if not run.probes:
        return 0.0
    from mnist_ablate.training import probes
    from mnist_ablate.training.arithmetic import arithmetic
    from mnist_ablate.training.engines import make_engine
    from mnist_ablate.training.perceptron import Perceptron
    from mnist_ablate.training.protocol import steady_arithmetic

    sizes = _form(run).sizes
    untrained = make_engine(run.engine, run.settings, run.seed, run.folder, sizes).weights()
    network = Perceptron(untrained, run.settings, arithmetic(run.engine))
    n = len(images.test_labels)
    x, labels = probes.part(
        np.resize(images.test_images, (probes.SAMPLE, sizes.inputs)),
        np.resize(images.test_labels, probes.SAMPLE).astype(np.int64),
    )
    subject = probes.Subject(network, run.seed, (x, labels), (x[:n], labels[:n]))
    seconds = 0.0
    with steady_arithmetic(run.engine):
        for probe in run.probes:
            if probe == "preactivations":  # after each epoch
                seconds += run.settings.epochs * _timed(probes.moments, network, x)
            else:
                scale = test_n / n if probe in _TEST_PROBES else 1
                seconds += scale * _timed(probes.look, [probe], subject)
    return seconds


def _timed(fn: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    fn(*arguments)
    return time.perf_counter() - began
