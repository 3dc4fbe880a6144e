"""Numba's compilation: announced to the user, and done once for all processes that share its cache."""

import functools
import hashlib
import multiprocessing
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import platformdirs
from filelock import FileLock
from numba.core import caching, registry
from numba.core.event import Event, Listener, install_listener

from mnist_ablate.errors import TrainingError

_config: Any = numba.config
_NumbaCache: Any = caching.FunctionCache
_IndexDataCacheFile: Any = caching.IndexDataCacheFile
_WAIT_SECONDS = 1800.0
"""Compile after this long even if another process still holds the lock: it may have been stopped."""
_MESSAGE = "Compiling the training kernels for this processor, {}: from ten seconds to a few minutes."
_ONCE = "once"
_EACH_TIME = "in each process, since Numba has no folder to write to (set NUMBA_CACHE_DIR)"
_SLOW = (
    "This processor has no fused multiply-add instruction: training has the same bits, and takes about a hundred "
    'times as long. Where you need no comparison with other machines, take the engine "autograd".'
)
_SAID: set[str] = set()
"""What this process has announced already."""


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder for compiled code, ``NUMBA_CACHE_DIR`` or one in the user's cache; None if it is not writable.

    Numba's own choice is beside the source, where `pip uninstall` would leave it behind.
    """
    try:
        folder = Path(_config.CACHE_DIR or platformdirs.user_cache_path("mnist-ablate") / "numba")
        if not (_config.CACHE_DIR or folder.is_absolute()):
            return None  # the user has no home
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):
        return None
    return folder


def compiled_for() -> tuple[str, str, str]:
    """Return LLVM's triple, processor and features that Numba compiles for."""
    triple, cpu, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return str(triple), str(cpu), str(features)


@functools.cache
def vector_lanes() -> int:
    """Return how many float32 a register of this processor multiplies and adds at once; 1 without such an instruction.

    Asked of LLVM, with the processor and features that Numba compiles for.
    """
    triple, cpu, features = compiled_for()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    code = f'target triple = "{triple}"\n' + _SIXTEEN_SUMS
    assembly = machine.emit_assembly(llvm.parse_assembly(code))
    return 16 // max(len(re.findall(r"\b(?:vfn?madd|fmla)", assembly)), 1) if "fmaf" not in assembly else 1


_SIXTEEN_SUMS = """
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @sums(<16 x float> %x) {
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  ret <16 x float> %y
}
"""


@functools.cache
def digest_of_code(folder: Path) -> str:
    """Return a digest of the Python files in a folder."""
    files = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() + b"\0" for file in files)).hexdigest()


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return `numba.njit` with `options`, which stores what it compiles in `cache_folder`."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        theirs = _config.CACHE_DIR  # where other functions of this process are stored
        if folder := cache_folder():
            _config.CACHE_DIR = str(folder)
            with suppress(RuntimeError):  # Numba was told to look elsewhere, and finds nothing there
                dispatcher._cache = _Cache(function)
            _config.CACHE_DIR = theirs
        return dispatcher

    return decorate


class _Cache(_NumbaCache):  # type: ignore[misc] # Numba ships no types
    """A function's cache which takes a damaged file as missing, and goes on if it cannot write, as on a full disk.

    A function calls others, which are compiled into it, but Numba looks only at the function's own file to see whether
    the stored code is still right. This cache looks at every file of the folder.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=digest_of_code(Path(function.__code__.co_filename).parent),
        )

    def load_overload(self, *arguments: Any) -> Any:
        """Return the stored code, or None."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # noqa: BLE001 # pickle may raise anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Store code if possible."""
        with suppress(OSError):
            super().save_overload(*arguments)


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

    Raises
    ------
    TrainingError
        If Numba's compiler is turned off.
    """
    if _config.DISABLE_JIT:
        raise TrainingError(
            'engine = "fused": NUMBA_DISABLE_JIT turns Numba\'s compiler off: unset it, or take "autograd".'
        )
    if vector_lanes() == 1:
        _say_once(_SLOW)
    try:
        with install_listener("numba:compile", _OnCompile(_not_cached)):
            load()
    except _NotCachedError:
        lock = FileLock((cache or Path()) / "mnist_ablate.lock")
        if cache is not None:
            with suppress(OSError, NotImplementedError):  # a read-only folder, a time-out, a file system without locks
                lock.acquire(timeout=_WAIT_SECONDS)
        try:
            message, say = (_ONCE, functools.cache(_announce)) if cache else (_EACH_TIME, _say_once)
            with install_listener("numba:compile", _OnCompile(lambda: say(_MESSAGE.format(message)))):
                load()
        finally:
            lock.release()


def _not_cached() -> None:
    raise _NotCachedError


def _say_once(message: str) -> None:
    """Say something once: in this process, and of the workers, in the first alone."""
    worker = multiprocessing.current_process().name.partition("SpawnProcess-")[2]
    if message not in _SAID and worker in ("", "1"):
        _SAID.add(message)
        _announce(message)


def _announce(message: str) -> None:
    """Write a line to stderr; on a terminal, over the progress bar, which the driver draws again below."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r{message:{width}}" if sys.stderr.isatty() else message, file=sys.stderr, flush=True)  # noqa: T201
