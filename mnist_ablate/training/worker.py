"""What a process that trains does: train a run, return its final weights, or evaluate given ones."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate import data
from mnist_ablate.design.own_code import code_of, own_function
from mnist_ablate.design.plan import Run
from mnist_ablate.errors import DataError, TrainingError
from mnist_ablate.training import cuda
from mnist_ablate.training.own_training import train_own
from mnist_ablate.training.protocol import RunResult, evaluate_weights, train, try_out
from mnist_ablate.training.provenance import Provenance, provenance

if TYPE_CHECKING:
    from mnist_ablate.training.engines.card.study import Trainer

Trained = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]
"""The rows of a run, its predictions and its document: what `mnist_ablate.store.folder.Store.write_run` takes."""

Outcome = tuple[int, Trained | None, Exception | None]
"""The number of a run among those that are trained together, and its result or its error."""

Weights = dict[str, NDArray[np.generic]]

_ONE_AT_A_TIME = threading.Lock()
"""Held while a run trains: thread count, flushing of subnormals and torch's generator belong to the whole process."""


def _images(run: Run) -> data.Images:
    """Return the images of a run, loaded once for all that have the same."""
    if not run.settings.own_dataset:
        return _load(run.settings.dataset)
    try:
        return _load(run.images)
    except DataError:  # this machine has not got them
        made = data.keep(run.settings.dataset, run.folder)
        if made != (run.arrays or made):
            raise TrainingError(
                f"dataset = {run.settings.dataset!r}: gives other arrays here than where the study began (SHA-256 "
                f"{made[:12]}... instead of {run.arrays[:12]}...). It must give the same arrays each time."
            ) from None
        return _load(made)


@lru_cache(maxsize=2)
def _load(name: str) -> data.Images:
    return data.load_kept(name) if data.is_kept(name) else data.load(name)


def train_one(run: Run, nudge: int = 0, device: str = "cpu") -> Trained:
    """Train `run` in this process, on images that are loaded once; `device` is that of `protocol.train`.

    `nudge` is that of `protocol.train`, or for a training of the user's own the `luck` of `own_training.train_own`.
    Threads of one process train one run after the other: the results are right, and come no faster.
    """
    made_by = provenance()  # first: what cannot be told must not cost a trained run
    options: dict[str, Any] = {"nudge": nudge} if nudge else {}
    if device != "cpu":
        made_by, options = made_by | cuda.check(), options | {"device": device}
    if run.settings.functions:
        made_by = made_by | {"code": _code(run)}
    with _ONE_AT_A_TIME:
        images = _images(run)
        started = _now()
        if run.settings.train:
            rows = train_own(run, images, nudge)
            document = {
                "provenance": made_by | {"engine": run.engine, "started": started},
                "data_sha256": images.sha256,
                "metrics": sorted(metric.name for metric in run.metrics),
            }
            return rows, {}, document | ({"nudge": nudge} if nudge else {})
        if run.settings.model:
            own_function(run.settings.model, run.folder, planned=run.planned_code)
        result = train(run, images, **options)
    rows, predictions, document = _trained(run, result, images, made_by | {"engine": run.engine, "started": started})
    return rows, predictions, document | ({"nudge": nudge} if nudge else {})


def _code(run: Run) -> str:
    """Name the files of the user's that a run needs, with the first digits of their SHA-256."""
    code = run.planned_code
    if not code:  # as it is here
        named = (code_of(name, run.folder) for name in run.settings.functions.values())
        code = {file: sha256 for files in named for file, sha256 in files.items()}
    return " ".join(f"{file} {sha256[:12]}" for file, sha256 in sorted(code.items()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _trained(run: Run, result: RunResult, images: data.Images, made_by: Provenance) -> Trained:
    document = {
        "provenance": made_by,
        "data_sha256": images.sha256,
        "weights_sha256": result.weights_sha256,
        "first_losses": result.first_losses,
        **({"probes": result.probes} if run.probes else {}),
    }
    return result.rows, result.predictions, document


def torch_card(run: Run) -> tuple[str, int]:
    """Return what card torch has, and how many processes that train runs like this one have room in its memory.

    Raises
    ------
    DeviceError
        If there is no card, or not even room for one.
    """
    about = cuda.check()
    return str(about["card"]), cuda.room(lambda: try_out(run, _images(run), "cuda"))


def card(run: Run) -> Provenance:
    """Return what card trains in this process, and by which driver, if `run` fits in its memory.

    Raises
    ------
    DeviceError
        If there is none that can.
    """
    trainer, about = _trainer()
    trainer.check(run, _images(run))
    return about


@lru_cache(maxsize=1)
def _trainer() -> "tuple[Trainer, Provenance]":
    """Take the card into this process, with the kernels compiled for it."""
    from mnist_ablate.training.engines.card.driver import Card  # only where a card was asked for
    from mnist_ablate.training.engines.card.study import Trainer

    card = Card()
    about: Provenance = {"device": "cuda", "card": card.name, "cuda_driver": card.driver_version}
    return Trainer(card), about


def train_together(runs: Sequence[Run], say: Callable[[int, int], None]) -> Iterator[Outcome]:
    """Train runs of the engine ``fused`` on this process's card; yield the outcome of each as it ends.

    Parameters
    ----------
    runs
        The runs.
    say
        Hears how many model-epochs are done, and of how many.
    """
    made_by = provenance()
    trainer, about = _trainer()
    numbers = {run.run_id: number for number, run in enumerate(runs)}
    total, before = sum(run.settings.epochs for run in runs), 0
    for name in sorted({run.settings.dataset for run in runs}):
        of_name = [run for run in runs if run.settings.dataset == name]
        images = _images(of_name[0])
        place = made_by | about | {"engine": "fused", "started": _now()}

        def said(done: int, _all: int, before: int = before) -> None:
            say(before + done, total)

        for run, outcome in trainer.train(of_name, images, said):
            if isinstance(outcome, Exception):
                yield numbers[run.run_id], None, outcome
            else:
                yield numbers[run.run_id], _trained(run, outcome, images, place), None
        before += sum(run.settings.epochs for run in of_name)


def final_weights(run: Run) -> Weights:
    """Train `run` and return its final weights and running statistics by name."""
    return train(run, _images(run)).weights


def evaluate(run: Run, weights: Weights) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Evaluate `weights` as those of `run`; return the numbers by name and the prediction for each test image."""
    numbers, predictions = evaluate_weights(run, _images(run), weights)
    return numbers, predictions["prediction"]
