"""Named random streams, the same on every machine.

Each use of chance has its own stream, named by a seed and a label, so no factor of a study changes what another draws.
Only raw integers are taken from numpy's PCG64, whose output numpy promises to keep. They become floats, orders and
masks by exact steps, because the methods of ``numpy.random.Generator`` and the samplers of torch may change, or round
differently from one processor to the next.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, label: str) -> int:
    """Return the 128-bit integer that seeds the stream `label` of `seed`, from the SHA-256 of both."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}".encode()).digest()[:16], "little")


def variant(seed: int, part: str, number: int) -> int:
    """Return the seed for one part of chance, such as ``init``: `seed` itself for variant 0, another for any other."""
    return derive(seed, f"variant/{part}/{number}") if number else seed


def stream(seed: int, label: str) -> np.random.PCG64:
    """Return the bit generator of the stream `label` of `seed`, at its beginning."""
    return np.random.PCG64(derive(seed, label))


def permutation(bits: np.random.BitGenerator, n: int) -> NDArray[np.int64]:
    """Draw a permutation of ``range(n)``, shape (n,), which sorts n random 64-bit keys; equal ones keep their order."""
    keys = bits.random_raw(n)
    # To sort numbers takes a fraction of the time that `argsort` takes, so each key's last bits give way to its place.
    last = np.uint64(2 ** n.bit_length() - 1)
    ordered = np.sort(keys & ~last | np.arange(n, dtype=np.uint64))
    if (np.diff(ordered & ~last) == 0).any():  # some differ in their last bits, if at all
        return np.argsort(keys, kind="stable")
    return (ordered & last).astype(np.int64)


def uniform(bits: np.random.BitGenerator, shape: tuple[int, ...], bound: float) -> NDArray[np.float32]:
    """Draw float32 values of `shape`, uniform on [-bound, bound).

    A 24-bit integer k becomes the centred fraction k / 2**23 - 1, which float32 holds exactly; the product
    with `bound` is taken in float64 and rounded once.
    """
    integers = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (bound * (integers * 2.0**-23 - 1.0)).astype(np.float32).reshape(shape)


def words16(bits: np.random.BitGenerator, shape: tuple[int, ...], times: int = 1) -> NDArray[np.uint16]:
    """Draw uniform 16-bit integers, shape (times, *shape), four from each 64-bit word; each time starts a new word."""
    n = int(np.prod(shape))
    words: NDArray[np.uint16] = bits.random_raw(times * -(-n // 4)).astype("<u8", copy=False).view("<u2")
    return words.reshape(times, -1)[:, :n].reshape(times, *shape)


def keep_mask(bits: np.random.BitGenerator, shape: tuple[int, ...], rate: float) -> NDArray[np.bool_]:
    """Draw a dropout mask of `shape`: True (keep) with probability 1 - `rate`, to the nearest 2**-16."""
    mask: NDArray[np.bool_] = words16(bits, shape)[0] >= drop_threshold(rate)
    return mask


def drop_threshold(rate: float) -> int:
    """Return the 16-bit integer below which a unit is dropped."""
    return round(rate * 2**16)
