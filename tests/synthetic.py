"""Results without training: folders in the real format, with planted accuracies."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import PROTOCOL_VERSION, Run, plan
from mnist_ablate.design.study import Study, load_study
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results
from mnist_ablate.store.schema import EPOCH_COLUMNS

# Mean test accuracy after the last epoch, in percent, near what the protocol gives.
MEANS = {
    "baseline": 97.50,
    "l2": 97.52,
    "dropout": 97.68,
    "batch_norm": 97.83,
    "l2+dropout": 97.66,
    "l2+batch_norm": 97.84,
    "dropout+batch_norm": 97.92,
    "l2+dropout+batch_norm": 97.91,
}
MACHINE: dict[str, Any] = {
    "mnist_ablate": "0.1.0",
    "python": "3.11.2",
    "torch": "2.14.1",
    "numpy": "2.4.6",
    "git_commit": "0f1e2d3c4b5a69788796a5b4c3d2e1f001234567",
    "git_dirty": False,
    "processor": "Intel(R) Xeon(R) Processor @ 2.80GHz",
    "cpu_capability": "AVX512",
    "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
    "threads": 1,
    "engine": "autograd",
}
DATA_SHA256 = "c0ffee" + "0" * 58
IMAGES = 20

CellSeed = tuple[str, int]
Value = Callable[[Run], float]


def factorial(seeds: int = 3, epochs: int = 2) -> Study:
    """Return the bundled 2 x 2 x 2 study, cut short."""
    return bundled("factorial", seeds, epochs)


def bundled(name: str, seeds: int, epochs: int | None = None) -> Study:
    """Return a bundled study with seeds 0, 1, and so on, which are easy to plant numbers by."""
    return load_study(name).with_options(seeds=seeds, epochs=epochs).model_copy(update={"first_seed": 0})


def make(
    folder: Path,
    study: Study | None = None,
    *,
    means: Mapping[str, float] = MEANS,
    sd: float = 0.15,
    missing: Collection[CellSeed] = (),
    diverged: Collection[CellSeed] = (),
    machines: Sequence[Mapping[str, Any]] = (MACHINE,),
    answers: Callable[[Run], dict[str, Any]] | None = None,
    declared: Mapping[str, Any] | None = None,
    protocol_version: int = PROTOCOL_VERSION,
) -> Path:
    """Store the runs of `study` (by default factorial) in `folder`, without the `missing` ones; return `folder`.

    A run's final test accuracy is the planted mean of its cell, plus what its seed adds in every cell, plus noise,
    each with variance sd² / 2, rounded to whole images in 10,000. Runs alternate between `machines`. `answers` are the
    predictions, by default those of `predictions`; `declared`, if given, is in every run's document. With another
    `protocol_version` the folder is as a program of that protocol leaves it.
    """
    study = study or factorial()
    with Store(folder).opened(study) as store:
        store.write_study(study, protocol_version)
        for i, run in enumerate(plan(study, protocol_version)):
            if (run.cell, run.seed) not in missing:
                machine = {"started": f"2025-11-23T16:{i % 60:02}:00+00:00"} | dict(machines[i % len(machines)])
                document = {"provenance": machine, "data_sha256": DATA_SHA256, "weights_sha256": "0" * 64}
                document |= {} if declared is None else {"declared": dict(declared)}
                rows = epochs(run, means.get(run.cell, 97.5), sd, diverged=(run.cell, run.seed) in diverged)
                store.write_run(run, rows, (answers or predictions)(run), document)
    return folder


def epochs(run: Run, mean: float, sd: float, *, diverged: bool = False) -> list[dict[str, Any]]:
    """Return the rows of a run that approaches `mean` percent; a diverged one stays at chance from its first epoch."""
    seed_effect = np.random.default_rng(run.seed).normal()
    of_any_protocol = replace(run, protocol_version=1)  # so that planted numbers stay when it changes
    run_effect = np.random.default_rng(int(of_any_protocol.run_id, 16)).normal()
    chance = sd * math.sqrt(0.5) * (seed_effect + run_effect)
    last = run.settings.epochs
    rows = []
    for epoch in range(1, last + 1):
        remaining = math.exp(-0.9 * (epoch - 1)) - math.exp(-0.9 * (last - 1))
        accuracy = 0.098 if diverged else round((mean + chance) / 100 - 0.02 * remaining, 4)
        loss = 300.0 if diverged else (100 - mean - chance) / 100 * 3.4
        rows.append(
            {
                "epoch": epoch,
                "status": "diverged" if diverged else "ok",
                "train_loss": math.nan if diverged else loss * 0.5 + 0.25 * remaining,
                "train_loss_eval": loss * 0.3 + 0.11 * remaining,
                "val_loss": loss + 0.075 * remaining,
                "val_accuracy": accuracy,
                "test_loss": loss + 0.07 * remaining,
                "test_accuracy": accuracy,
                "train_seconds": 6.25,
                "eval_seconds": 0.5,
            }
        )
    return rows


def predictions(run: Run) -> dict[str, Any]:
    """Return a run's answers to `IMAGES` test images."""
    generator = np.random.default_rng([run.seed, 1])
    labels = generator.integers(0, 10, IMAGES).astype(np.uint8)
    return {
        "test_index": np.arange(IMAGES, dtype=np.int32),
        "label": labels,
        "prediction": np.where(generator.random(IMAGES) < 0.9, labels, 0).astype(np.uint8),
        "confidence": generator.random(IMAGES).astype(np.float32),
    }


def rightly(means: Mapping[str, float]) -> Callable[[Run], dict[str, Any]]:
    """Return answers to the same test images in all runs, as many of them right as the planted `means` say.

    In a seed, the images that one cell gets wrong are among those of a worse cell.
    """
    n = 4000

    def answer(run: Run) -> dict[str, Any]:
        labels = np.arange(n, dtype=np.uint8) % 10
        said, wrong = labels.copy(), np.random.default_rng(run.seed).permutation(n)
        chosen = wrong[: round(n * (100 - means[run.cell]) / 100) + int(run.run_id, 16) % 3]
        said[chosen] = (said[chosen] + 1) % 10
        return {"test_index": np.arange(n, dtype=np.int32), "label": labels, "prediction": said,
                "confidence": np.full(n, 0.5, np.float32)}  # fmt: skip

    return answer


def results(
    study: Study,
    *,
    missing: Collection[CellSeed] = (),
    diverged: Collection[CellSeed] = (),
    declared: Mapping[str, Any] | None = None,
    **values: Value,
) -> Results:
    """Return results in memory: each run has its last epoch alone, with planted `values` in some columns.

    `declared` is in every run's document, by default what the runner would have written.
    """
    if declared is None:
        declared = declaration(study)
    rows, documents = [], {}
    for i, run in enumerate(run for run in plan(study) if (run.cell, run.seed) not in missing):
        status = "diverged" if (run.cell, run.seed) in diverged else "ok"
        row = {"run_id": run.run_id, "study": run.study, "cell": run.cell, "seed": run.seed, **run.levels}
        row |= dict.fromkeys(EPOCH_COLUMNS, 0.5) | {"epoch": run.settings.epochs, "status": status}
        rows.append(row | {name: value(run) for name, value in values.items()})
        started = f"2025-11-23T{i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}+00:00"
        documents[run.run_id] = {"provenance": {"started": started}, "declared": dict(declared)}
    return Results(Path("planted"), study, pd.DataFrame(rows), documents)


def declaration(study: Study) -> dict[str, Any]:
    """Return what the runner stores of `study` with each run."""
    return {"study_sha256": "f" * 64, "hypotheses_sha256": study.hypotheses_sha256, "looks": list(study.looks)}


def records(frame: pd.DataFrame, *names: str) -> dict[Any, dict[str, Any]]:
    """Return the rows of a frame as dictionaries, by the values of `names`: a tuple, or one value for one name."""
    return {
        tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]: row
        for row in ({str(key): value for key, value in found.items()} for found in frame.to_dict(orient="records"))
    }
