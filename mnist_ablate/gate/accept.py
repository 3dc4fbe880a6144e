"""A new reference for the gate: the accepted runs, the null bank, the limits of golden runs, a stored network."""

import json
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import PROTOCOL_VERSION, cells
from mnist_ablate.design.study import Study
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.execution.runner import default_workers
from mnist_ablate.gate import golden as gate_golden
from mnist_ablate.gate.reference import (
    Evidence,
    Reference,
    evidence_of,
    load_rules,
    study_contrasts,
    trace_of,
    with_seeds,
)
from mnist_ablate.gate.runs import GOLDEN_SEED, Say, checkpoint_run, pool, prepare, store, submit
from mnist_ablate.store.results import Results
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Weights

REPEATS = 3
"""Times that each run of a reference and of its null bank is trained, each with other rounding."""
BANK = range(1000, 1024)
"""Seeds of the null bank, which no gate uses."""
GOLDEN_SEEDS = (GOLDEN_SEED, 0, *BANK[1:11])
"""Seeds whose golden runs are trained with other rounding, to see how far it takes them."""
ENVIRONMENTS = {
    "plain processor": {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "AVX2 processor": {"NUMBA_CPU_NAME": "haswell", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
}
"""Kinds of processor that the libraries can be told to compute for, and the variables that tell them."""


def accept(
    study: Study, why: str | None, *, reference: Path, out: Path, workers: int | None = None, say: Say
) -> Reference:
    """Train a new reference with its null bank, and write it to its folder.

    Parameters
    ----------
    study
        The gate's study.
    why
        The reason, which is kept.
    reference, out
        Where the reference goes, and where the runs do, which is emptied first.
    workers
        As in `runner.run`.
    say
        Is told what it costs and how far it is.

    Raises
    ------
    GateReferenceError
        Without a reason.
    RunsFailedError
        If a run cannot be trained.
    """
    if not why or not why.strip():
        raise GateReferenceError("a new reference needs a reason, which is kept: --why TEXT")
    study, golden = prepare(study, out)
    say(cost(study, golden, workers))
    bank, evidence = _bank(study, out, workers, say)
    traces = _golden_traces(golden, out, workers, say)
    weights = _checkpoint(study, reference, workers)
    with pool(workers) as executor:
        numbers, predictions = executor.submit(tasks.evaluate_or_nothing, checkpoint_run(study), weights).result()
    trace = traces[0][2]
    trace = trace[trace["seed"] == GOLDEN_SEED].drop(columns="seed")
    evidence = replace(evidence, trace=trace, checkpoint=numbers, predictions=predictions)
    contrasts = study_contrasts(study)
    entry = {"why": why, "date": datetime.now(UTC).date().isoformat()}
    document = {
        "protocol_version": PROTOCOL_VERSION,
        "history": [*_history(reference), entry],
        "environments": sorted({name for name, _, _ in traces}),
    }
    made = Reference(evidence, bank, limits_of(traces, contrasts), contrasts, load_rules(reference), document)
    made.save(reference)
    return made


def _history(folder: Path) -> list[Any]:
    try:
        found: list[Any] = json.loads((folder / "reference.json").read_text(encoding="utf-8")).get("history", [])
    except (OSError, ValueError):
        return []
    return found


def cost(study: Study, golden: Study, workers: int | None) -> str:
    """Say what a reference costs, from a trial of a few steps on this machine."""
    from mnist_ablate.training import estimate

    workers = workers or default_workers()
    runs = REPEATS * (study.seeds + len(BANK)) * len(cells(study))
    seconds = estimate.core_seconds(with_seeds(study, [0])) * REPEATS * (study.seeds + len(BANK))
    seconds += estimate.core_seconds(with_seeds(golden, [0])) * REPEATS * len(GOLDEN_SEEDS)
    return (
        f"{runs} runs and their golden runs: about {math.ceil(seconds / workers / 60)} minutes with {workers} workers"
    )


def _bank(study: Study, scratch: Path, workers: int | None, say: Say) -> tuple[pd.DataFrame, Evidence]:
    """Train the null bank and the reference's runs, each `REPEATS` times; return the bank and the evidence."""
    tables, kept = [], []
    for repeat in range(REPEATS):
        with pool(workers) as executor:
            runs = submit(executor, with_seeds(study, [*range(study.seeds), *BANK]), repeat)
            evidence = evidence_of(store(scratch / f"repeat-{repeat}", study, runs))
        kept.append(evidence)
        tables.append(evidence.runs.assign(repeat=repeat))
        say(f"null bank: {repeat + 1} of {REPEATS} repeats done")
    table = pd.concat(tables, ignore_index=True)
    digests = {key: sha for key, sha in kept[0].digests.items() if int(key.rpartition("/")[2]) < study.seeds}
    ours = table["seed"] < study.seeds
    document = study.model_dump(mode="json", exclude_unset=True)
    evidence = replace(kept[0], runs=table[ours].reset_index(drop=True), digests=digests, study=document)
    return table[~ours].reset_index(drop=True), evidence


Trace = tuple[str, str, pd.DataFrame]
"""Name of an environment, ``same`` or ``other`` engine, and golden runs by seed."""


def _golden_traces(golden: Study, scratch: Path, workers: int | None, say: Say) -> list[Trace]:
    """Train golden runs with other rounding and for other processors; the first is the reference's own."""
    found: list[Trace] = []
    for name, kind, study, environment, nudge in _variants(golden):
        with pool(workers, environment) as executor:
            runs = submit(
                executor, with_seeds(study, GOLDEN_SEEDS if nudge or not environment else GOLDEN_SEEDS[:3]), nudge
            )
            results = store(scratch / f"golden-{len(found)}", study, runs)
        found.append((name, kind, seed_traces(results)))
        say(f"golden runs, {name}: done")
    return found


def _variants(golden: Study) -> Iterator[tuple[str, str, Study, dict[str, str], int]]:
    """List what golden runs are trained with: name, engine's kind, study, environment, nudge."""
    for nudge in range(REPEATS):
        yield f"moved by {nudge} units in the last place" if nudge else "as it is", "same", golden, {}, nudge
    environments = ENVIRONMENTS if platform.machine() in ("x86_64", "AMD64") else {}
    for name, environment in environments.items():
        yield name, "same", golden, environment, 0
    if golden.chosen_engine == "fused":
        other = golden.with_options(engine="autograd")
        yield "autograd", "other", other, {}, 0
        for name, environment in environments.items():
            yield f"autograd, {name}", "other", other, environment, 0


def seed_traces(results: Results) -> pd.DataFrame:
    """Lay out the golden runs of several seeds: `Evidence.trace` with a column ``seed``."""
    tables = []
    for seed, epochs in results.epochs.groupby("seed"):
        documents = {run_id: results.documents[run_id] for run_id in epochs["run_id"].unique()}
        tables.append(trace_of(replace(results, epochs=epochs, documents=documents)).assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def limits_of(traces: list[Trace], contrasts: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Set the limits of golden runs by what all environments and seeds made of them: see `gate_golden.limits`."""
    _, _, base = traces[0]
    members = gate_golden.groups(contrasts)
    found = []
    for _, kind, trace in traces:
        for seed, mine in trace.groupby("seed"):
            clean = gate_golden.compare(mine.drop(columns="seed"), base[base["seed"] == seed].drop(columns="seed"))
            reached = gate_golden.departures(clean, members, share=gate_golden.SHARE)
            found.append(reached.assign(engine=kind))
    return gate_golden.limits(pd.concat(found, ignore_index=True), members)


def _checkpoint(study: Study, folder: Path, workers: int | None) -> "Weights":
    """Train the network that is stored, and store it; one that is there already stays, as a fixed point."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checkpoint.npz"
    with pool(None if workers is None else min(workers, 1)) as executor:
        weights = executor.submit(tasks.final_weights, checkpoint_run(study)).result()
    with file.open("wb") as out:
        np.savez_compressed(out, **weights)  # type: ignore[arg-type]
    return weights
