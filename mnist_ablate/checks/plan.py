"""What a study would run and about how long that takes, and how many seeds its hypotheses need."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd

from mnist_ablate.design import plan as design
from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, load_study
from mnist_ablate.execution import runner, workplace
from mnist_ablate.paths import user_path
from mnist_ablate.store.folder import Store, StoredRuns
from mnist_ablate.store.results import Results, load


@dataclass(frozen=True, repr=False)
class Plan:
    """What a study would run, and about how long that takes.

    Parameters
    ----------
    study
        The study, with its engine.
    folder
        The results folder.
    runs
        Every run of the study, seed by seed.
    missing
        The runs that are not stored in `folder` yet.
    damaged
        A sentence for each stored run that cannot be read and would be trained again, and for each change of the user's
        code that makes runs be trained again; or the reason why `mnist_ablate.run` refuses the folder.
    workers
        Processes that would train.
    seconds
        What the missing runs take on this machine, estimated from a few training steps of each cell; NaN for a training
        of the user's own, of which that is not known.
    """

    study: Study
    folder: Path
    runs: list[Run]
    missing: list[Run]
    damaged: list[str]
    workers: int
    seconds: float

    @property
    def summary(self) -> str:
        """How many runs there are, how many are stored, and how long the others take."""
        cells, stored = len(design.cells(self.study)), len(self.runs) - len(self.missing)
        more = f" (--until-settled: up to {self.study.looks[-1]})" if len(self.study.looks) > 1 else ""
        runs = f"{cells} cells x {self.study.n_seeds} seeds{more} = {len(self.runs)} runs"
        lines = [
            f"{self.study.name}: {self.study.title}",
            f"  {runs}; {stored} stored in {self.folder}",
            f"  {len(self.missing)} to do: {self._how_long}",
            *(f"  {message}" for message in self.damaged),
        ]
        return "\n".join(lines)

    @property
    def _how_long(self) -> str:
        if math.isnan(self.seconds):
            return "how long a training of your own takes is not known before it runs"
        about = f"about {_duration(self.seconds)} with {self.workers} workers"
        return f"{about}, estimated from a few training steps on this machine"

    def __str__(self) -> str:
        factors = [f"  factor {factor.name}: {', '.join(map(str, factor.levels))}" for factor in self.study.varied]
        cells = [f"  cell {cell.name}" for cell in design.cells(self.study)]
        return "\n".join([self.summary, *factors, *cells])

    __repr__ = __str__


def plan(
    study: str | Path | Study = "factorial",
    *,
    seeds: int | None = None,
    epochs: int | None = None,
    dataset: str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
) -> Plan:
    """Return what `mnist_ablate.run` would train with the same arguments, without training it.

    Parameters
    ----------
    study
        The name of a bundled study, the path of a study file, or a `Study`.
    seeds, epochs, dataset, engine
        Override what the study says.
    workers
        Processes to train in; by default one per physical core.
    out
        The results folder; by default ``results/<study>``.

    Raises
    ------
    StudyError
        If the study or an option is not valid.
    """
    workplace.check_workers(workers)
    chosen = _study(study).with_options(seeds=seeds, epochs=epochs, dataset=dataset, engine=engine)
    runner.check_functions(chosen)
    chosen = runner.with_engine(runner.with_own(chosen))
    runner.check_sizes(chosen)
    folder = user_path(out) if out is not None else Path("results") / chosen.name
    runs = design.plan(chosen)
    store = Store(folder)
    refusal = store.other_protocol()
    there = StoredRuns([], {}) if refusal else store.read_runs(chosen)
    stored, damaged = (set[str](), [refusal]) if refusal else store.completed(runs, there)
    missing = [run for run in runs if run.run_id not in stored]
    damaged += runner.changes(missing, there, chosen.own)
    workers = workers or workplace.default_workers()
    return Plan(chosen, folder, runs, missing, damaged, workers, _core_seconds(missing) / workers)


@dataclass(frozen=True, repr=False)
class Power:
    """How many seeds each hypothesis of a study needs, judged by the spread in a pilot.

    Parameters
    ----------
    study
        The planned study.
    pilot
        Finished runs that have its cells.
    table
        One row per hypothesis: ``id``, ``n`` (seeds of the pilot), ``sd`` (of the effect, between seeds), ``smallest``
        (the smallest effect that matters), and two numbers of seeds for a clear answer with 90 % probability:
        ``likely`` if the true sd is that of the pilot, ``cautious`` if it is the upper 80 % limit of what the pilot
        allows; NaN where the pilot cannot say.
    workers
        Processes that would train.
    seconds
        What one seed takes on this machine, estimated from a few training steps of each cell.
    """

    study: Study
    pilot: Results
    table: pd.DataFrame
    workers: int
    seconds: float

    def __str__(self) -> str:
        from mnist_ablate.inference.power import POWER

        numbers = {"sd": "{:.4f}".format, "smallest": "{:g}".format, "likely": "{:.0f}".format}
        numbers["cautious"] = numbers["likely"]
        table = self.table.to_string(index=False, formatters=numbers, na_rep="-")
        lines = [
            f"{self.study.name}: seeds that each hypothesis needs, from the pilot {self.pilot.folder}",
            *(f"  {line}" for line in table.splitlines()),
            "  n: seeds of the pilot. sd: of the effect, between seeds. smallest: the smallest effect that matters.",
            f"  likely: gives a clear answer with {POWER:.0%} probability if the true sd is that of the pilot.",
            "  cautious: the same if the true sd is the upper 80 % limit of what the pilot's few seeds allow.",
        ]
        planned, had = self.study.protocol.model_dump(), self.pilot.study.protocol.model_dump()
        changed = [f"{name} = {had[name]} instead of {planned[name]}" for name in planned if had[name] != planned[name]]
        if changed:
            lines.append(f"  The pilot has {', '.join(changed)}, so the sd may differ, too.")
        if self.pilot.of_other_protocol:
            lines.append(f"  {self.pilot.of_other_protocol}")
        for name in ("likely", "cautious"):
            known = self.table[name].dropna()
            if len(known):
                seeds, which = int(known.max()), _of(len(known), len(self.table))
                cost = f": about {_duration(seeds * self.seconds)} with {self.workers} workers, from nothing"
                cost = "" if math.isnan(self.seconds) else cost
                lines.append(f"  {seeds} seeds settle {which} by the {name} number{cost}")
        return "\n".join([*lines, "  " + " ".join(self._advice)])

    __repr__ = __str__

    @property
    def _advice(self) -> Iterator[str]:
        """How to go on until all is settled, by the hypotheses that have a number, and which have none."""
        from mnist_ablate.inference.power import most_seeds

        without = self.table["likely"].isna()
        if not without.all():
            steps = f"{{ first = 10, step = 10, most = {most_seeds(self.table['likely'].max())} }}"
            yield f"To stop as soon as all is settled: seeds = {steps}, and run --until-settled."
        spread = self.table["sd"] > 0
        if names := ", ".join(self.table["id"][without & spread]):
            yield f"No feasible number of seeds makes certain: {names}."
        if names := ", ".join(self.table["id"][without & ~spread]):
            yield f"The pilot has no spread to judge by for: {names}."


def power(study: str | Path | Study, pilot: str | Path | Results) -> Power:
    """Return how many seeds the hypotheses of `study` need, judged by the spread in finished runs.

    Parameters
    ----------
    study
        The name of a bundled study, the path of a study file, or a `Study`; it must have hypotheses.
    pilot
        A results folder, or what `mnist_ablate.load` returned. It needs the study's cells, but not its seeds or epochs.

    Raises
    ------
    StudyError
        If the study is not valid.
    ResultsError
        If the study has no hypotheses, or the pilot lacks a cell that they need.
    """
    from mnist_ablate.inference.analysis import analyse  # statistics load slowly, and `plan` needs none
    from mnist_ablate.inference.power import as_pilot, power_table

    chosen, results = _study(study), pilot if isinstance(pilot, Results) else load(pilot)
    table = power_table(analyse(as_pilot(results, chosen)).judgements)
    table = table.astype({"likely": float, "cautious": float})  # NaN instead of None
    workers = workplace.default_workers()
    one_seed = design.plan(runner.with_engine(runner.with_own(chosen)).with_options(seeds=1))
    return Power(chosen, results, table, workers, _core_seconds(one_seed) / workers)


def _study(study: str | Path | Study) -> Study:
    return study if isinstance(study, Study) else load_study(study)


def _core_seconds(runs: list[Run]) -> float:
    from mnist_ablate.training import estimate  # torch, which only the trial needs

    return estimate.core_seconds(runs)


def _of(some: int, all_of_them: int) -> str:
    return "all" if some == all_of_them else f"{some} of {all_of_them}"


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
