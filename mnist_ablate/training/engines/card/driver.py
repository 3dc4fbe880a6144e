"""A graphics card by CUDA's driver interface, which comes with the driver: no package is needed to talk to it."""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_ablate.errors import DeviceError

LIBRARY = "libcuda.so.1"
LEAST_DRIVER = 12000
"""CUDA 12.0, for cards from Ampere on: 1000 times the version, as the driver tells its own."""
LEAST_CAPABILITY = 80
"""Compute capability 8.0, ten times: the first with the shared memory and registers that the kernels were made for."""
_OUT_OF_MEMORY = 2  # CUresult
_STACK_LIMIT = 0  # CUlimit
_STACK_BYTES = 2048
"""Of each thread: the kernels call functions by address, whose need of stack the driver cannot tell."""
_MAJOR, _MINOR, _MULTIPROCESSORS = 75, 76, 16  # CUdevice_attribute

_NO_CARD = (
    "device = cuda: the driver shows no card ({}). See what nvidia-smi says and CUDA_VISIBLE_DEVICES allows, or take "
    "--device cpu."
)


class Card:
    """The first graphics card that CUDA shows; `CUDA_VISIBLE_DEVICES` chooses another.

    Parameters
    ----------
    library
        The driver's library.

    Raises
    ------
    DeviceError
        If there is no card or driver, or one that is too old.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._cuda = ctypes.CDLL(library)
        except OSError:
            raise DeviceError(
                "device = cuda: this machine has no CUDA driver. Install NVIDIA's driver, or take --device cpu."
            ) from None
        if status := self._cuda.cuInit(0):
            raise DeviceError(_NO_CARD.format(self._name_of(status)))
        self.driver_version = self._number("cuDriverGetVersion")
        if self.driver_version < LEAST_DRIVER:
            raise DeviceError(
                f"device = cuda: the driver is for CUDA {_version(self.driver_version)}, and {_version(LEAST_DRIVER)} "
                "is needed. Install a newer driver, or take --device cpu."
            )
        if not self._number("cuDeviceGetCount"):
            raise DeviceError(_NO_CARD.format("it counts 0"))
        self._device = self._number("cuDeviceGet", ctypes.c_int(0))
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, ctypes.c_int(256), self._device_number)
        self.name = name.value.decode(errors="replace")
        self.capability = 10 * self._attribute(_MAJOR) + self._attribute(_MINOR)
        self.multiprocessors = self._attribute(_MULTIPROCESSORS)
        if self.capability < LEAST_CAPABILITY:
            raise DeviceError(
                f"device = cuda: {self.name} has compute capability {self.capability / 10:.1f}, and "
                f"{LEAST_CAPABILITY / 10:.1f} (Ampere) or newer is needed: take --device cpu."
            )
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device_number)
        self._call("cuCtxSetCurrent", context)
        self._call("cuCtxSetLimit", ctypes.c_int(_STACK_LIMIT), ctypes.c_size_t(_STACK_BYTES))

    @property
    def _device_number(self) -> ctypes.c_int:
        return ctypes.c_int(self._device)

    def _attribute(self, attribute: int) -> int:
        return self._number("cuDeviceGetAttribute", ctypes.c_int(attribute), self._device_number)

    def _number(self, function: str, *arguments: Any) -> int:
        """Return the whole number that a function writes to its first argument."""
        number = ctypes.c_int()
        self._call(function, ctypes.byref(number), *arguments)
        return number.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._cuda, function)(*arguments)
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"the card cannot allocate memory ({function})")
        if status:
            raise RuntimeError(f"{function}: {self._name_of(status)}")

    def _name_of(self, status: int) -> str:
        name = ctypes.c_char_p()
        self._cuda.cuGetErrorName(ctypes.c_int(status), ctypes.byref(name))
        return (name.value or b"").decode() or f"CUDA error {status}"

    def free_memory(self) -> int:
        """Return how many bytes can still be allocated."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    @contextlib.contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """Allocate bytes that are 0, and yield their address."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        try:
            self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(size))
            yield address.value
        finally:
            self._cuda.cuMemFree_v2(address)

    def upload(self, address: int, values: NDArray[Any]) -> None:
        """Copy an array to the card."""
        values = np.ascontiguousarray(values)
        if values.nbytes:
            place = values.ctypes.data_as(ctypes.c_void_p)
            self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), place, ctypes.c_size_t(values.nbytes))

    def download(self, address: int, values: NDArray[Any]) -> None:
        """Fill a contiguous array from the card."""
        if values.nbytes:
            place = values.ctypes.data_as(ctypes.c_void_p)
            self._call("cuMemcpyDtoH_v2", place, ctypes.c_uint64(address), ctypes.c_size_t(values.nbytes))

    def load(self, code: bytes, kernel: str) -> ctypes.c_void_p:
        """Load machine code; return one of its kernels."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(code))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(kernel.encode()))
        return function

    def start(self, kernel: ctypes.c_void_p, blocks: int, threads: int, address: int) -> None:
        """Start a kernel that takes an address; return at once."""
        argument = ctypes.c_uint64(address)
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(argument), ctypes.c_void_p))
        grid = [ctypes.c_uint(size) for size in (blocks, 1, 1, threads, 1, 1, 0)]
        self._call("cuLaunchKernel", kernel, *grid, None, arguments, None)

    def wait(self) -> None:
        """Wait until the card has finished."""
        self._call("cuCtxSynchronize")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
