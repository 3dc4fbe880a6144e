"""torch on a graphics card, for the engine ``autograd``: what card there is, and what torch must be told.

torch's arithmetic on a card is its own. A run has the same bits again on the same kind of card with the same versions,
and not those of a processor.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from mnist_ablate.errors import DeviceError, TrainingError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_CONTEXT = 600 * 2**20
"""Bytes of a card's memory that a process takes before its first tensor, for its kernels: an estimate, on the safe
side."""
_NO_SUCH = "does not have a deterministic implementation"
"""What torch says of an operation that may give other bits each time."""


def check() -> dict[str, str | int | bool]:
    """Return what card torch trains on, for the provenance of a run.

    Raises
    ------
    DeviceError
        If there is none.
    """
    if torch.version.cuda is None:
        raise DeviceError(
            "device = cuda: the installed torch is built without CUDA. Install a torch that has it, or take "
            "--device cpu."
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if not found:
        cause = f" ({str(said[0].message).splitlines()[0]})" if said else ""
        raise DeviceError(
            f"device = cuda: torch finds no card{cause}. See what nvidia-smi says and CUDA_VISIBLE_DEVICES allows, or "
            "take --device cpu."
        )
    return {"device": "cuda", "card": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}


def room(try_out: Callable[[], None]) -> int:
    """Return how many processes that do the same as `try_out` have room in the memory that is free, at least one.

    Raises
    ------
    DeviceError
        If not even one has.
    """
    free, _ = torch.cuda.mem_get_info()
    torch.cuda.reset_peak_memory_stats()
    try:
        try_out()
    except MemoryError as error:
        raise DeviceError(
            f"device = cuda: {error}. End what else uses the card, take a smaller batch_size, or take --device cpu."
        ) from error
    except Exception:  # noqa: BLE001  # what is wrong with a model is said when its runs are trained
        return 1
    return int(max(free // (torch.cuda.max_memory_reserved() + _CONTEXT), 1))


@contextmanager
def steady() -> Iterator[None]:
    """Have torch take no operation that may give other bits each time, and full float32 products; restore it after.

    Raises
    ------
    MemoryError
        If the card's memory is full.
    TrainingError
        If an operation has only a form that may give other bits each time.
    """
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # torch refuses products without; it counts before the first
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = False, True, False
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(f"the card's memory is full: {_first_sentence(error)}") from error
    except RuntimeError as error:
        if _NO_SUCH in str(error):
            raise TrainingError(
                f"{str(error).partition(_NO_SUCH)[0].strip()} gives other bits each time on a card. Replace it in your "
                "model, or take --device cpu."
            ) from error
        if type(error) is not RuntimeError:  # one of torch's, which the process that hands out runs has not loaded
            raise RuntimeError(str(error)) from error
        raise
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = flags


def _first_sentence(error: Exception) -> str:
    return str(error).partition(". ")[0].splitlines()[0]
