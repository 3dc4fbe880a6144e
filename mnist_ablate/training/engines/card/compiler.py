"""Machine code for a card, made by NVRTC, NVIDIA's compiler in a library; kept beside the processor's kernels."""

import ctypes
import hashlib
import importlib.util
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_ablate.errors import DeviceError
from mnist_ablate.training.engines.card.source import OPTIONS, source
from mnist_ablate.training.engines.compilation import cache_folder

MISSING = (
    'device = cuda: NVIDIA\'s compiler NVRTC is not installed: pip install "mnist-ablate[cuda]"; or take --device cpu.'
)


class Compiler:
    """NVRTC.

    Raises
    ------
    DeviceError
        If it is not installed.
    """

    def __init__(self) -> None:
        self._nvrtc = _library()
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = 1000 * major.value + 10 * minor.value
        """As the driver tells its own: 13000 is 13.0."""

    def _call(self, function: str, *arguments: Any) -> None:
        if status := getattr(self._nvrtc, function)(*arguments):
            self._nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise RuntimeError(f"{function}: {self._nvrtc.nvrtcGetErrorString(status).decode()}")

    def compile(self, text: str, *options: str, kind: str = "CUBIN") -> tuple[bytes, str]:
        """Return machine code, or PTX if `kind` says so, and what the compiler says.

        Raises
        ------
        RuntimeError
            If there are mistakes, with the compiler's words.
        """
        program = ctypes.c_void_p()
        create = (ctypes.c_char_p(text.encode()), ctypes.c_char_p(b"kernels.cu"), 0, None, None)
        self._call("nvrtcCreateProgram", ctypes.byref(program), *create)
        try:
            chosen = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._nvrtc.nvrtcCompileProgram(program, len(options), chosen)
            log = self._get("ProgramLog", program).rstrip(b"\0").decode()
            if status:
                raise RuntimeError(log)
            return self._get(kind, program), log
        finally:
            self._nvrtc.nvrtcDestroyProgram(ctypes.byref(program))

    def _get(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, text)
        return text.raw


def machine_code(capability: int, driver_version: int) -> bytes:
    """Return the kernels for cards of a compute capability, ten times; compiled once for this machine.

    Raises
    ------
    DeviceError
        If there is no compiler, or one that is too new for the driver.
    """
    compiler = Compiler()
    if compiler.version // 1000 > driver_version // 1000:
        needed, has = compiler.version // 1000, driver_version // 1000
        raise DeviceError(
            f"device = cuda: the driver is for CUDA {has}, and the installed NVRTC for {needed}. Install a newer "
            f"driver, or NVRTC for CUDA {has} (pip install nvidia-cuda-nvrtc-cu{has}), or take --device cpu."
        )
    text, options = source(), (*OPTIONS, f"--gpu-architecture=sm_{capability}")
    name = hashlib.sha256("\0".join([text, *options, str(compiler.version)]).encode()).hexdigest()[:16]
    folder = cache_folder()
    kept = folder / f"card-{name}.cubin" if folder else None
    with suppress(OSError):
        if kept and (code := kept.read_bytes()).endswith(_END):
            return code
    code = compiler.compile(text, *options)[0] + _END
    with suppress(OSError):
        if kept:
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_bytes(code)
            part.replace(kept)
    return code


_END = b"whole"
"""Written behind machine code, where nobody reads: a file without it was cut off."""


def _library() -> ctypes.CDLL:
    """Load NVRTC: the one of Python's packages, or the system's."""
    for path in [*_packaged(), "libnvrtc.so"]:
        with suppress(OSError):
            return ctypes.CDLL(str(path))
    raise DeviceError(MISSING)


def _packaged() -> list[Path]:
    """Return NVRTC's files in Python's packages, the newest version first."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*")]
    return sorted(files, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)], reverse=True)
