"""Damage to files."""

from pathlib import Path


def flip(file: Path, bit: int) -> None:
    """Flip one bit of a file in place; rewriting the whole file would wait for the disk each time."""
    with file.open("r+b") as raw:
        raw.seek(bit // 8)
        (byte,) = raw.read(1)
        raw.seek(bit // 8)
        raw.write(bytes([byte ^ 1 << bit % 8]))
