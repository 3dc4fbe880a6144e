"""Where runs are trained: by how many processes of this machine, on a card, or by workers elsewhere."""

import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from numbers import Integral

from mnist_ablate.design.plan import Run
from mnist_ablate.errors import DeviceError, StudyError, WorkerError
from mnist_ablate.execution import cluster
from mnist_ablate.execution.card import OneCard, SharedCard, has_driver, size, why_processors
from mnist_ablate.execution.executors import IN_FLIGHT, Crew, InlineExecutor, Lent, Processes
from mnist_ablate.execution.progress import Progress

DEVICES = ("auto", "cpu", "cuda")
"""What trains: a card if there is one that can, processors, or a card."""


def default_workers() -> int:
    """Return the number of physical cores that this process may use, by affinity and container limits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib is only asked to count, which needs no shared memory
        import joblib
    cores: int = joblib.cpu_count(only_physical_cores=True)
    return cores


def check_workers(workers: object, least: int = 0) -> None:
    """Check a number of workers; None stands for the default.

    Raises
    ------
    StudyError
        If it is no whole number, or too small.
    """
    if workers is not None and (not isinstance(workers, Integral) or isinstance(workers, bool) or workers < least):
        raise StudyError(f"workers = {workers!r}: allowed: a whole number >= {least}")


@dataclass(frozen=True)
class Workplace:
    """Where to train, as the options of `run` and `verify` say.

    Raises
    ------
    StudyError
        If the options contradict each other, or allow no worker.
    ClusterError
        If there is a scheduler and Dask is not installed.
    """

    workers: int | None = None
    executor: Executor | None = None
    scheduler: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = 0 if self.executor is None else 1
        check_workers(self.workers, least)
        if self.executor is not None and self.scheduler is not None:
            raise StudyError("executor and scheduler: give one of them.")
        if self.scheduler is not None and self.workers is not None:
            raise StudyError(
                f"workers = {self.workers}, scheduler = {self.scheduler!r}: give one of them. As many train as the "
                "scheduler has workers."
            )
        if self.device not in DEVICES:
            raise StudyError(f"device = {self.device!r}: allowed: {', '.join(DEVICES)}")
        elsewhere = "executor" if self.executor is not None else "scheduler" if self.scheduler is not None else ""
        if self.device == "cuda" and elsewhere:
            raise StudyError(f"device = 'cuda', {elsewhere}: give one of them. Workers elsewhere train on processors.")
        if self.scheduler is not None:
            cluster.check_installed()

    def processes(self, runs: int) -> int:
        """Return how many processes of this machine train `runs` runs; 0 is this process, or workers elsewhere."""
        if self.executor is not None or self.scheduler is not None:
            return 0
        return min(default_workers() if self.workers is None else self.workers, runs)

    def crew_maker(self, runs: list[Run], progress: Progress) -> Callable[[int], Crew]:
        """Return what makes a crew for a number of runs: each time new processes, or always the one other crew."""
        say = progress.say
        crew: Crew
        if self.executor is not None:
            crew = Lent(self.executor, self.workers or IN_FLIGHT)
        elif self.scheduler is not None and runs:
            crew = cluster.Cluster(self.scheduler, cluster.needs_of(runs), say)
        elif runs and (with_card := self._with_card(runs, progress)):
            return with_card
        else:
            return self._local_crew
        return lambda _: crew

    def _with_card(self, runs: list[Run], progress: Progress) -> Callable[[int], Crew] | None:
        """Return what makes a crew with a card, or None where processors train `runs`; say which, in a line.

        Raises
        ------
        DeviceError
            If a card was asked for, and there is none that can train.
        """
        if self.device == "cpu" or (self.device == "auto" and (self.workers is not None or not has_driver())):
            return None
        largest, reasons = max(runs, key=size), sorted({*map(why_processors, runs)} - {""})
        if reasons:
            progress.say(f"Processors train all runs: {'; '.join(reasons)}.")
            return None
        if runs[0].engine != "fused":  # a study has one engine
            if self.device == "cuda":
                return self._with_torch(runs, largest, progress)
            progress.say("Processors train all runs: torch has other bits on a card, which --device cuda asks for.")
            return None
        try:
            card = OneCard(progress, largest)
        except (DeviceError, WorkerError) as error:
            if self.device == "cuda":
                raise
            progress.say(f"Processors train all runs. {error}")
            return None
        progress.say(f"{card.about['card']} trains {len(runs)} runs")
        ready = [card]
        return lambda _: ready.pop() if ready else OneCard(progress, largest)

    def _with_torch(self, runs: list[Run], largest: Run, progress: Progress) -> Callable[[int], Crew]:
        name, room = SharedCard.look(largest)
        processes = min(self.processes(len(runs)) or 1, room)
        progress.say(f"{name} trains {len(runs)} runs, {processes} at once")
        return lambda n: SharedCard(min(processes, n))

    def _local_crew(self, runs: int) -> Crew:
        n = self.processes(runs)
        return Processes(n) if n else InlineExecutor()
