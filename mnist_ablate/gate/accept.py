"""A new reference for the gate: the accepted runs, the null bank, the limits of golden runs, and a stored network."""

import json
import math
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mnist_ablate.design.plan import PROTOCOL_VERSION, cells
from mnist_ablate.design.study import Study, load_study
from mnist_ablate.errors import GateReferenceError
from mnist_ablate.execution.workplace import check_workers, default_workers
from mnist_ablate.gate.golden import SHARE, departures, group_cells, limits, side_by_side
from mnist_ablate.gate.reference import (
    Evidence,
    Reference,
    evidence_of,
    load_rules,
    study_contrasts,
    trace_of,
    with_seeds,
)
from mnist_ablate.gate.runs import GOLDEN_SEED, Say, checkpoint_run, collect, pool, prepare, submit
from mnist_ablate.gate.tables import accepted as accepted_table
from mnist_ablate.paths import user_path
from mnist_ablate.store.results import Results
from mnist_ablate.training import tasks

if TYPE_CHECKING:
    from mnist_ablate.training.worker import Weights

REPEATS = 3
"""How often each run of a reference and of its null bank is trained, each time with different rounding; or, by a
training of the user's own, with different luck."""
BANK = range(1000, 1024)
"""Seeds of the null bank, which no gate uses."""
GOLDEN_SEEDS = (GOLDEN_SEED, 0, *BANK[1:11])
"""Seeds whose golden runs are trained with different rounding, to measure how far it takes them."""
ENVIRONMENTS = {
    "plain processor": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "AVX2 processor": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
}
"""Kinds of processor, with the variables that make the libraries compute for them."""


def accept_reference(
    study: str | Path | Study | pd.DataFrame = "gate",
    why: str | None = None,
    *,
    reference: str | Path = "results/reference/gate",
    out: str | Path = "results/gate",
    workers: int | None = None,
    say: Say = lambda _: None,
) -> Reference:
    """Train a new reference with its null bank, and write it to its folder.

    Parameters
    ----------
    study
        The study that the gate trains: the name of a bundled one, the path of a study file, or a `Study`; or a table
        of runs that another program trained, see `mnist_ablate.Reference.of_tables`.
    why
        The reason for the new reference, which is required and kept.
    reference
        The folder of the reference.
    out
        The folder of the runs, emptied first.
    workers
        Processes to train in, by default one per physical core; 0 trains in this process.
    say
        Receives the expected cost and messages about progress.

    Raises
    ------
    StudyError
        If the study is not valid.
    GateReferenceError
        Without a reason, or if a table cannot be a reference.
    RunsFailedError, NoVerdictError
        If a run cannot be trained.
    """
    check_workers(workers)
    reference, out = user_path(reference), user_path(out)
    if not isinstance(study, Study | pd.DataFrame):
        study = load_study(study)
    if not why or not why.strip():
        raise GateReferenceError("A new reference needs a reason, which is kept: --why TEXT.")
    history = [*_history(reference), {"why": why, "date": datetime.now(UTC).date().isoformat()}]
    if isinstance(study, pd.DataFrame):
        return accepted_table(study, reference, history)
    study, golden = prepare(study, out)
    say(cost(study, golden, workers))
    bank, evidence = _bank(study, out, workers, say)
    traces, contrasts = [], study_contrasts(study)
    limits = pd.DataFrame(columns=["engine", "group", "what", "at", "limit"])
    if golden is not None:
        traces = _golden_traces(golden, out, workers, say)
        weights = _checkpoint(study, reference, workers)
        with pool(workers) as executor:
            numbers, predictions = executor.submit(tasks.evaluate_or_nothing, checkpoint_run(study), weights).result()
        trace = traces[0][2]
        trace = trace[trace["seed"] == GOLDEN_SEED].drop(columns="seed")
        evidence = replace(evidence, trace=trace, checkpoint=numbers, predictions=predictions)
        limits = limits_of(traces, contrasts)
    document = {
        "protocol_version": PROTOCOL_VERSION,
        "history": history,
        "environments": sorted({name for name, _, _ in traces}),
    }
    accepted = Reference(evidence, bank, limits, contrasts, load_rules(reference), document)
    accepted.save(reference)
    return accepted


def _history(folder: Path) -> list[Any]:
    try:
        document = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    history: list[Any] = document.get("history", [])
    return history


def cost(study: Study, golden: Study | None, workers: int | None) -> str:
    """Return what a reference costs, as a sentence, estimated from a few steps of the engines that will train."""
    from mnist_ablate.training import estimate

    workers = default_workers() if workers is None else max(workers, 1)
    seeds = REPEATS * (study.n_seeds + len(BANK))
    if golden is None:
        return f"{seeds * len(cells(study))} runs of a training of your own, with {workers} workers"
    golden_seeds = Counter[str]()
    for _, _, variant, environment, _ in _variants(golden):
        golden_seeds[variant.chosen_engine] += len(_golden_seeds(environment))
    seconds = seeds * estimate.core_seconds(with_seeds(study, [0]))
    for engine, n in golden_seeds.items():
        seconds += n * estimate.core_seconds(with_seeds(golden.with_options(engine=engine), [0]))
    minutes = math.ceil(seconds / workers / 60)
    return (
        f"{seeds * len(cells(study))} runs with the engine {study.chosen_engine}, and their golden runs: about "
        f"{minutes} minutes with {workers} workers"
    )


def _bank(study: Study, scratch: Path, workers: int | None, say: Say) -> tuple[pd.DataFrame, Evidence]:
    """Train the null bank and the reference's runs, each `REPEATS` times; return the bank and the evidence."""
    repeats = []
    for repeat in range(REPEATS):
        with pool(workers) as executor:
            runs = submit(executor, with_seeds(study, [*range(study.n_seeds), *BANK]), repeat)
            repeats.append(evidence_of(collect(scratch / f"repeat-{repeat}", study, runs)))
        say(f"null bank: {repeat + 1} of {REPEATS} repeats done")
    table = pd.concat([one.runs.assign(repeat=repeat) for repeat, one in enumerate(repeats)], ignore_index=True)
    accepted = table["seed"] < study.n_seeds
    digests = {key: digest for key, digest in repeats[0].digests.items() if int(key.rpartition("/")[2]) < study.n_seeds}
    document = study.model_dump(mode="json", exclude_unset=True)
    evidence = replace(repeats[0], runs=table[accepted].reset_index(drop=True), digests=digests, study=document)
    return table[~accepted].reset_index(drop=True), evidence


Trace = tuple[str, str, pd.DataFrame]
"""Name of an environment, ``same`` or ``other`` engine, and golden runs by seed."""


def _golden_traces(golden: Study, scratch: Path, workers: int | None, say: Say) -> list[Trace]:
    """Train golden runs with different rounding and for other processors; the first trace is the reference's own."""
    traces: list[Trace] = []
    for name, kind, study, environment, nudge in _variants(golden):
        with pool(workers, environment) as executor:
            runs = submit(executor, with_seeds(study, _golden_seeds(environment)), nudge)
            results = collect(scratch / f"golden-{len(traces)}", study, runs)
        traces.append((name, kind, seed_traces(results)))
        say(f"golden runs, {name}: done")
    return traces


def _golden_seeds(environment: Mapping[str, str]) -> tuple[int, ...]:
    """Return the seeds of the golden runs: for another kind of processor, the first three."""
    return GOLDEN_SEEDS[:3] if environment else GOLDEN_SEEDS


def _variants(golden: Study) -> Iterator[tuple[str, str, Study, dict[str, str], int]]:
    """Yield what golden runs are trained with: name, kind of engine, study, environment, nudge."""
    for nudge in range(REPEATS):
        yield f"moved by {nudge} units in the last place" if nudge else "as it is", "same", golden, {}, nudge
    kind, autograd = "same", golden
    if golden.chosen_engine == "fused":  # whose bits are the same on every processor
        kind, autograd = "other", golden.with_options(engine="autograd")
        yield "autograd", kind, autograd, {}, 0
    environments = ENVIRONMENTS if platform.machine() in ("x86_64", "AMD64") else {}
    for name, environment in environments.items():
        yield f"autograd, {name}", kind, autograd, environment, 0


def seed_traces(results: Results) -> pd.DataFrame:
    """Return the golden runs of several seeds: `Evidence.trace` with a column ``seed``."""
    tables = []
    for seed, epochs in results.epochs.groupby("seed"):
        documents = {run_id: results.documents[run_id] for run_id in epochs["run_id"].unique()}
        tables.append(trace_of(replace(results, epochs=epochs, documents=documents)).assign(seed=seed))
    return pd.concat(tables, ignore_index=True)


def limits_of(traces: list[Trace], contrasts: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the limits of golden runs, measured over all environments and seeds, see `mnist_ablate.gate.golden`."""
    _, _, base = traces[0]
    groups = group_cells(contrasts)
    clean = []
    for _, kind, table in traces:
        for seed, trace in table.groupby("seed"):
            compared = side_by_side(trace.drop(columns="seed"), base[base["seed"] == seed].drop(columns="seed"))
            clean.append(departures(compared, groups, share=SHARE).assign(engine=kind))
    return limits(pd.concat(clean, ignore_index=True), groups)


def _checkpoint(study: Study, folder: Path, workers: int | None) -> "Weights":
    """Train the network whose weights are kept with the reference, and store them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checkpoint.npz"
    with pool(None if workers is None else min(workers, 1)) as executor:
        weights = executor.submit(tasks.final_weights, checkpoint_run(study)).result()
    with file.open("wb") as out:
        np.savez_compressed(out, **weights)  # type: ignore[arg-type]
    return weights
