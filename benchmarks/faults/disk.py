"""Faults of the disk: no space, or no room for another file, at every write of a study.

The results folder lies on a small file system in memory, which is filled just before a chosen write; what of the
file still fits is random. This needs the right to mount.
"""

import errno
import importlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tiny

from mnist_ablate.errors import MnistAblateError
from mnist_ablate.store import folder as store
from mnist_ablate.store import sealed
from mnist_ablate.store.sealed import write_atomically
from mnist_ablate.training import tasks

# The name `mnist_ablate.report` is also that of a function.
report: Any = importlib.import_module("mnist_ablate.report")
WRITERS: tuple[Any, ...] = (sealed, store, report)

_SIZE = 8 << 20
_INODES = 200


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of a few megabytes at `folder`, and afterwards leave its files there without it."""
    folder.mkdir(parents=True)
    options = f"size={_SIZE},nr_inodes={_INODES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)  # noqa: S603, S607
    kept = folder.with_name(folder.name + ".kept")
    try:
        yield
        shutil.copytree(folder, kept)
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607
    folder.rmdir()
    kept.rename(folder)


def fill_space(folder: Path, room: int) -> None:
    """Leave about `room` bytes of the file system."""
    state = os.statvfs(folder)
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_bsize - room))


def fill_files(folder: Path, _room: int) -> None:
    """Leave no room for another file."""
    (folder / "ballast.d").mkdir()
    try:
        for n in range(_INODES):
            (folder / "ballast.d" / str(n)).touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


FILLINGS: dict[str, Callable[[Path, int], None]] = {"disk full": fill_space, "no more files": fill_files}


def empty(folder: Path) -> None:
    """Make room again."""
    (folder / "ballast").unlink(missing_ok=True)
    shutil.rmtree(folder / "ballast.d", ignore_errors=True)


def writes(bench: tiny.Bench) -> list[str]:
    """Name the writes of a study in their order."""
    runs = [f"{part} {i}" for i in range(1, len(bench.runs) + 1) for part in ("predictions", "run")]
    return ["folder", "study", *runs, "index", "failure", "report"]


@contextmanager
def filled_at(folder: Path, number: int, filling: str, rng: random.Random) -> Iterator[list[str]]:
    """Fill the disk before write `number` from now (0: at once); give the name of that file when it is known."""
    original, seen, names = write_atomically, [0], list[str]()

    def write(path: Path, content: bytes) -> None:
        seen[0] += 1
        if seen[0] == number:
            names.append(path.name)
            FILLINGS[filling](folder, rng.choice([0, rng.randrange(len(content))]))
        original(path, content)

    if number == 0:
        FILLINGS[filling](folder, 0)
    for module in WRITERS:
        module.write_atomically = write
    try:
        yield names
    finally:
        for module in WRITERS:
            module.write_atomically = original


@contextmanager
def one_run_fails(run_id: str) -> Iterator[None]:
    """Let one run fail, whose reason is then written."""
    original = tasks.train_one

    def train_one(run: Any, nudge: int = 0) -> Any:
        if run.run_id == run_id:
            raise RuntimeError("a fault")
        return original(run, nudge)

    tasks.train_one = train_one
    try:
        yield
    finally:
        tasks.train_one = original


def full(bench: tiny.Bench, folder: Path, kind: str, part: str, _stage: str, rng: random.Random) -> dict[str, Any]:
    """Run the study on a disk that is full from one of its writes on; then make room."""
    with small_disk(folder):
        if part == "report":
            told = _report(bench, folder, kind, rng)
        elif part == "failure":
            with one_run_fails(bench.runs[0].run_id), filled_at(folder, 2, kind, rng) as names:
                told = tiny.command(*bench.run_command(folder))
        else:
            with filled_at(folder, writes(bench).index(part), kind, rng) as names:
                told = tiny.command(*bench.run_command(folder))
        empty(folder)
    detail = "" if part == "report" else ", ".join(names)
    return {"detail": detail, "status": told.status, "told": told.text}


def _report(bench: tiny.Bench, folder: Path, kind: str, rng: random.Random) -> tiny.Told:
    with suppress(MnistAblateError):
        tiny.command(*bench.run_command(folder))
    with filled_at(folder, rng.randint(1, 12), kind, rng):
        return tiny.command(*bench.run_command(folder), "--report")
