"""Numba's compilation: announced to the user, and done once for all processes that share its cache."""

import functools
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from numba.core.event import Event, Listener, install_listener

_WAIT_SECONDS = 1800.0
"""Compile after this long even if another process still holds the lock: it may have been stopped."""
_MESSAGE = "Compiling the training kernels for this processor, {}: from ten seconds to a few minutes."
_ONCE = "once"
_EACH_TIME = "in each process, since Numba has no folder to write to (set NUMBA_CACHE_DIR)"


class _NotCachedError(Exception):
    """Numba's cache has no code yet."""


class _OnCompile(Listener):
    """Call a function whenever this thread starts to compile, which means that the cache had no code."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action, self._thread = action, threading.get_ident()

    def on_start(self, event: Event) -> None:  # noqa: ARG002  # Numba's interface
        if threading.get_ident() == self._thread:
            self._action()

    def on_end(self, event: Event) -> None:
        """Do nothing."""


def load_or_compile(load: Callable[[], object], cache: Path | None) -> None:
    """Load compiled functions from Numba's cache; where it has none, compile them in one process only.

    The other processes wait for a file lock, which the system releases if its holder dies, and then load the code.
    Where no lock can be had, each process compiles for itself.

    Parameters
    ----------
    load
        Calls the functions. It may be interrupted and called a second time.
    cache
        Numba's cache folder, where the lock lies; None if Numba has no folder to write to.
    """
    try:
        with install_listener("numba:compile", _OnCompile(_not_cached)):
            load()
    except _NotCachedError:
        lock = FileLock((cache or Path()) / "mnist_ablate.lock")
        if cache is not None:
            with suppress(OSError, NotImplementedError):  # a read-only folder, a time-out, a file system without locks
                lock.acquire(timeout=_WAIT_SECONDS)
        try:
            message = _MESSAGE.format(_ONCE if cache else _EACH_TIME)
            with install_listener("numba:compile", _OnCompile(functools.cache(lambda: _announce(message)))):
                load()
        finally:
            lock.release()


def _not_cached() -> None:
    raise _NotCachedError


def _announce(message: str) -> None:
    """Write a line to stderr; on a terminal, over the progress bar, which the driver draws again below."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r{message:{width}}" if sys.stderr.isatty() else message, file=sys.stderr, flush=True)  # noqa: T201
