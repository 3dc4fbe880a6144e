"""A graphics card that is none: its kernels compiled for the processor, behind functions like those of CUDA's driver.

The threads of a block take turns, in an order that a test chooses. A kernel with a race depends on the order, one that
lacks a barrier finds what another thread has not written yet.
"""

import ctypes
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.layout import dtype
from mnist_ablate.training.engines.card.memory import THREADS
from mnist_ablate.training.engines.card.source import source

HERE = Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")
WHY_NOT = "" if COMPILER and sysconfig.get_platform().startswith("linux") else "needs a C++ compiler on Linux"
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror")


def build(folder: Path, *edits: tuple[str, str]) -> Path:
    """Compile the kernels as a driver's library in `folder`, with some texts replaced that they have once."""
    text = source((HERE / "threads.h").read_text("utf-8")) + (HERE / "launch.h").read_text("utf-8")
    for old, new in edits:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    file, library = folder / "kernels.cpp", folder / "libcuda.so.1"
    file.write_text(text, encoding="utf-8")
    fused = ["-mfma"] if "fma" in Path("/proc/cpuinfo").read_text("utf-8").split() else []  # else by a function
    command = [str(COMPILER), *FLAGS, *fused, "-shared", "-fPIC", "-o", str(library), str(file)]
    subprocess.run(command, check=True)  # noqa: S603
    return library


class HostCard(Card):
    """The card; the kernels of its library were compiled with `build`."""

    def __init__(self, library: Path) -> None:
        super().__init__(str(library))
        assert self._cuda.size_of_run() == dtype("Run").itemsize
        self.take_turns(range(THREADS))

    def take_turns(self, order: Sequence[int]) -> None:
        """Let threads run in an order."""
        assert sorted(order) == list(range(THREADS))
        self._cuda.set_order((ctypes.c_int * THREADS)(*order))

    def have(self, free_mib: int) -> None:
        """Have only so much memory."""
        self._cuda.set_memory(free_mib)

    def each(self, function: str, *arrays: NDArray[Any]) -> None:
        """Call one of the kernels' functions of numbers, such as ``exp``, for arrays of equal length."""
        places = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
        getattr(self._cuda, f"host_{function}")(*places, ctypes.c_int(arrays[-1].size))
