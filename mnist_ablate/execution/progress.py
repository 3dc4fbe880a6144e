"""What a person sees while runs are trained: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from datetime import timedelta
from typing import Protocol

from tqdm.auto import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress(Protocol):
    """Is told of each run that ends."""

    def step(self, note: str) -> None:
        """One more run is done; `note` says how it went."""

    def say(self, message: str) -> None:
        """Show a message at once."""

    def close(self) -> None:
        """No more runs will come."""


class Silent:
    """Shows nothing but messages that are not to be missed."""

    def step(self, note: str) -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        """Show a message at once."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A bar with runs done, time left, and how the last run went."""

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="run", dynamic_ncols=True, smoothing=0.1)

    def step(self, note: str) -> None:
        """Move the bar on."""
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update()

    def say(self, message: str) -> None:
        """Show a message above the bar."""
        self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


class Lines(Silent):
    """A line for the first run, for the last, and now and then between: for logs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._next = 0.0

    def step(self, note: str) -> None:
        """Count the run; print a line if the last one is long enough ago."""
        self._done += 1
        passed = time.monotonic() - self._began
        if passed >= self._next or self._done == self._total:
            left = timedelta(seconds=round(passed / self._done * (self._total - self._done)))
            self.say(f"{self._done} of {self._total} runs, {left} left; {note}")
            self._next = passed + _SECONDS_BETWEEN_LINES


def make_progress(total: int) -> Progress:
    """Choose a bar where someone can watch it, lines where not."""
    notebook = "ipykernel" in sys.modules
    return Bar(total) if notebook or sys.stderr.isatty() else Lines(total)
