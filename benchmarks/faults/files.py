"""Faults of files: cut, zeroed, a bit flipped, renamed, made read-only; before a command, and in the middle of one."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tiny

from mnist_ablate.checks import doctor
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.sealed import check_seal

STAGES = ("all stored", "half stored", "while it runs")
PARTS = ("study", "run", "predictions", "index", "failure", "lock")
SEALED = ("study", "run", "predictions")
"""What must be seen when it is damaged. The index is taken only where it agrees with the runs; the others say nothing
that a result depends on."""


def choose(bench: tiny.Bench, folder: Path, part: str, rng: random.Random) -> Path:
    """Pick a file of `folder`, one that is there."""
    store = Store(folder)
    stored = store.stored()
    run_id = rng.choice(stored) if stored else bench.runs[0].run_id
    return {
        "study": folder / "study.json",
        "run": store.run_file(run_id),
        "predictions": store.predictions_file(run_id),
        "index": store.index_file,
        "failure": store.failure_file(bench.runs[-1].run_id),
        "lock": folder / ".lock",
    }[part]


def cut(file: Path, rng: random.Random) -> str:
    """Cut a file anywhere, also before its first byte."""
    content = file.read_bytes()
    length = rng.choice([0, rng.randrange(len(content) or 1)])
    file.write_bytes(content[:length])
    return f"cut to {length} of {len(content)} bytes"


def zero(file: Path, rng: random.Random) -> str:
    """Put zeros in the place of all bytes, or of a block of 512, as a disk may."""
    content = bytearray(file.read_bytes())
    start, stop = 0, len(content)
    if rng.random() < 0.5 and len(content) > 512:
        start = 512 * rng.randrange(len(content) // 512)
        stop = start + 512
    content[start:stop] = bytes(len(content[start:stop]))
    file.write_bytes(content)
    return f"zeros in bytes {start} to {stop} of {len(content)}"


def flip(file: Path, rng: random.Random) -> str:
    """Flip one bit anywhere."""
    content = bytearray(file.read_bytes())
    if not content:
        return "empty: there is no bit to flip"
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {8 * len(content)} flipped"


def rename(file: Path, rng: random.Random) -> str:
    """Give a file another name: that of a file beside it, or one that means nothing."""
    others = [other for other in sorted(file.parent.glob("*.parquet")) if other != file] if file.suffix else []
    target = rng.choice([*others[:3], file.with_name(f"{rng.randrange(16**20):020x}{file.suffix}")])
    file.rename(target)
    return f"renamed to {target.name}"


DAMAGES: dict[str, Callable[[Path, random.Random], str]] = {
    "file cut": cut,
    "file zeroed": zero,
    "bit flipped": flip,
    "file renamed": rename,
}


def prepare(bench: tiny.Bench, folder: Path, part: str, stage: str) -> None:
    """Make the folder that a fault is done to; where it runs, one in which no run is stored yet."""
    bench.copy(folder, {"all stored": len(bench.runs), "half stored": len(bench.runs) // 2}.get(stage, 0))
    store = Store(folder)
    if part == "failure":
        store.write_failure(bench.runs[-1], "a reason\nand more of it")
    if part == "index":
        store.index_file.write_bytes((bench.sound_folder / "index.parquet").read_bytes())
    (folder / ".lock").touch()


@contextmanager
def after_writes(n: int, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` once the `n`-th run from now is stored."""
    original, done = Store.write_run, [0]

    def write_run(self: Store, *arguments: Any) -> None:
        original(self, *arguments)
        done[0] += 1
        if done[0] == n:
            act()

    Store.write_run = write_run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Store.write_run = original  # type: ignore[method-assign]


def damaged(bench: tiny.Bench, folder: Path, kind: str, part: str, stage: str, rng: random.Random) -> dict[str, Any]:
    """Damage a file of `folder`, before a command or while it runs; say whether `load` and the doctor see it."""
    prepare(bench, folder, part, stage)
    detail: list[str] = []

    def act() -> None:
        file = choose(bench, folder, part, rng)
        detail.append(f"{file.name}: {DAMAGES[kind](file, rng)}")

    if stage == "while it runs":
        with after_writes(rng.randint(1, len(bench.runs) - 1), act):
            told = tiny.command(*bench.run_command(folder))
    else:
        act()
        told = tiny.command("doctor", str(folder))
    seen = _seen(folder) if part in SEALED else None
    return {"detail": detail[0], "status": told.status, "told": told.text, "seen": seen}


def _seen(folder: Path) -> bool:
    """Tell whether `load` or the doctor says that something is wrong."""
    try:
        return bool(load(folder).problems) or any(finding.message for finding in doctor.examine(folder))
    except MnistAblateError:
        return True


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file or folder immutable, which stops root, too."""
    subprocess.run(["chattr", "+i", str(path)], check=True, capture_output=True)  # noqa: S603, S607
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True, capture_output=True)  # noqa: S603, S607


@contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    """Mount a folder over itself, for reading only."""
    subprocess.run(["mount", "--bind", "-o", "ro", str(path), str(path)], check=True)  # noqa: S603, S607
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)  # noqa: S603, S607


READ_ONLY = ("study", "run", "predictions", "failure", "lock", "half-written file", "folder of runs", "whole folder")


def made_read_only(
    bench: tiny.Bench, folder: Path, _kind: str, part: str, _stage: str, rng: random.Random
) -> dict[str, Any]:
    """Run the study where something cannot be written, which is half stored and has a damaged file of that kind."""
    prepare(bench, folder, part, "half stored")
    if part == "whole folder":
        how, path = mounted_read_only, folder
    elif part == "folder of runs":
        how, path = read_only, folder / rng.choice(["runs", "predictions", "failures"])
    elif part == "half-written file":
        how, path = read_only, folder / "runs" / f".{bench.runs[-1].run_id}.parquet.1.tmp"
        path.write_bytes(b"half")
    else:
        how, path = read_only, choose(bench, folder, part, rng)
        if part in ("run", "predictions"):
            flip(path, rng)
    with how(path):
        told = tiny.command(*bench.run_command(folder))
    return {"detail": f"{path.name}: {how.__name__}", "status": told.status, "told": told.text}


def every_bit(
    bench: tiny.Bench, folder: Path, _kind: str, part: str, _stage: str, rng: random.Random
) -> dict[str, Any]:
    """Flip every bit of a file, one after another (of predictions, one of each byte), and count those not seen."""
    file = choose(bench, bench.sound_folder, part, rng)
    content = bytearray(file.read_bytes())
    passes = partial(_is_study, folder) if part == "study" else partial(_is_sound, file)
    unseen = tried = 0
    for at in range(len(content)):
        for bit in [rng.randrange(8)] if part == "predictions" else range(8):
            content[at] ^= 1 << bit
            tried += 1
            unseen += passes(bytes(content))
            content[at] ^= 1 << bit
    assert passes(bytes(content))
    told = f"{tried - unseen} of {tried} flipped bits seen"
    return {"detail": f"{file.name}: {told}", "status": 1, "told": told, "unseen": unseen, "flips": tried}


def _is_sound(file: Path, content: bytes) -> bool:
    try:
        check_seal(file, content)
    except MnistAblateError:
        return False
    return True


def _is_study(folder: Path, content: bytes) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_bytes(content)
    try:
        Store(folder).study()
    except MnistAblateError:
        return False
    return True
