"""What a person sees while runs are trained: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from datetime import timedelta
from typing import Protocol

_SECONDS_BETWEEN_LINES = 30.0


class Progress(Protocol):
    """Hears of each run that ends."""

    def step(self, note: str) -> None:
        """Count one more run; `note` says how it went."""

    def epochs(self, done: int, total: int) -> None:
        """Hear how many epochs are done, of all runs that are trained side by side."""

    def say(self, message: str) -> None:
        """Show a message at once."""

    def close(self) -> None:
        """End: no more runs will come."""


class Silent:
    """Show nothing except messages that nobody should miss."""

    def step(self, note: str) -> None:
        """Show nothing."""

    def epochs(self, done: int, total: int) -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        """Show a message at once."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Do nothing."""


class _Forecast:
    """The time left, from the pace of the runs that end after each worker's first one.

    A worker's first run takes longer: the worker loads torch, and on a new machine it compiles the kernels or waits
    for them.
    """

    def __init__(self, total: int, workers: int) -> None:
        self.total, self._workers = total, workers
        self.done = 0
        self._began = time.monotonic()

    def step(self) -> str:
        """Count one more run; return the time left as words, or nothing while it is unknown."""
        self.done += 1
        now, timed = time.monotonic(), self.done - max(self._workers, 1)
        if timed <= 0:
            self._began = now
            return ""
        left = (now - self._began) / timed * (self.total - self.done)
        return f"{timedelta(seconds=round(left))} left"


class _Pace:
    """The time left where all runs are trained side by side, from the epochs after the first."""

    def __init__(self) -> None:
        self._began: tuple[int, float] | None = None

    def words(self, done: int, total: int) -> str:
        """Return how many epochs are done, and the time left where it is known."""
        now, said = time.monotonic(), f"{done} of {total} epochs"
        if self._began is None or done <= self._began[0]:
            self._began = done, now
            return said
        left = (now - self._began[1]) / (done - self._began[0]) * (total - done)
        return f"{said}, {timedelta(seconds=round(left))} left"


class Bar:
    """A bar with the number of runs done, the time left, and how the last run went."""

    def __init__(self, total: int, workers: int = 1) -> None:
        from tqdm.auto import tqdm  # in a notebook without ipywidgets it warns, which only those who watch should see

        shape = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, dynamic_ncols=True, bar_format=shape)
        self._forecast = _Forecast(total, workers)
        self._pace = _Pace()

    def epochs(self, done: int, total: int) -> None:
        """Show how many epochs are done."""
        self._bar.set_postfix_str(self._pace.words(done, total))

    def step(self, note: str) -> None:
        """Move the bar on."""
        left = self._forecast.step()
        self._bar.set_postfix_str(f"{left}; {note}" if left else note, refresh=False)
        self._bar.update()

    def say(self, message: str) -> None:
        """Show a message above the bar."""
        self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class Lines(Silent):
    """A line for the first run, one for the last, and now and then one between: for logs."""

    def __init__(self, total: int, workers: int = 1) -> None:
        self._forecast = _Forecast(total, workers)
        self._next = 0.0
        self._pace = _Pace()

    def epochs(self, done: int, total: int) -> None:
        """Print a line if the last one is old enough."""
        words, now = self._pace.words(done, total), time.monotonic()
        if now >= self._next:
            self.say(words)
            self._next = now + _SECONDS_BETWEEN_LINES

    def step(self, note: str) -> None:
        """Count the run; print a line if the last one is old enough."""
        left, now = self._forecast.step(), time.monotonic()
        done, total = self._forecast.done, self._forecast.total
        if now >= self._next or done == total:
            self.say(f"{done} of {total} runs{', ' if left else ''}{left}; {note}")
            self._next = now + _SECONDS_BETWEEN_LINES


def make_progress(total: int, workers: int = 1) -> Progress:
    """Return a bar where someone can watch it, lines elsewhere; the forecast leaves out each worker's first run."""
    notebook = "ipykernel" in sys.modules
    terminal = getattr(sys.stderr, "isatty", bool)()  # a program without a console has none, others plant their own
    return Bar(total, workers) if notebook or terminal else Lines(total, workers)
