"""Faults of files and disks: files damaged, lost, or made read-only; disks that are full at every write of a study."""

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from scene import Bench, Ended, Outcome, Scene, command, fault
from writes import watched

from mnist_ablate.checks import doctor
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.training import tasks

SEALED = ("study", "run", "predictions")
"""Damage to these must be seen. The index counts only where it agrees with the runs; no result depends on the rest."""
ALL_STORED, HALF_STORED, RUNNING = "all stored", "half stored", "while it runs"


# ---- Damaged files ----


def cut(file: Path, rng: random.Random) -> str:
    """Cut a file anywhere, also before its first byte."""
    size = file.stat().st_size
    length = rng.choice([0, rng.randrange(size or 1)])
    os.truncate(file, length)
    return f"cut to {length} of {size} bytes"


def zero(file: Path, rng: random.Random) -> str:
    """Overwrite all bytes, or a block of 512 as a disk may, with zeros."""
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
        return "empty: no bit to flip"
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"bit {bit} of {8 * len(content)} flipped"


def rename(file: Path, rng: random.Random) -> str:
    """Rename a file: to the name of a neighbour, or to one that means nothing."""
    neighbours = [other for other in sorted(file.parent.glob("*.parquet")) if other != file] if file.suffix else []
    target = rng.choice([*neighbours[:3], file.with_name(f"{rng.randrange(16**20):020x}{file.suffix}")])
    file.rename(target)
    return f"renamed to {target.name}"


DAMAGES = {"file cut": cut, "file zeroed": zero, "bit flipped": flip, "file renamed": rename}


def choose(scene: Scene) -> Path:
    """Pick an existing file of the part that the scene names."""
    store = Store(scene.folder)
    run_id = scene.rng.choice(store.stored() or [scene.bench.runs[0].run_id])
    return {
        "study": store.study_file,
        "run": store.run_file(run_id),
        "predictions": store.predictions_file(run_id),
        "index": store.index_file,
        "failure": store.failure_file(scene.bench.runs[-1].run_id),
        "lock": scene.folder / ".lock",
    }[scene.part]


def prepare(scene: Scene) -> None:
    """Make the folder that is to be disturbed: all, half or none of its runs are stored."""
    runs = len(scene.bench.runs)
    scene.bench.copy(scene.folder, {ALL_STORED: runs, HALF_STORED: runs // 2, RUNNING: 0}[scene.stage])
    store = Store(scene.folder)
    if scene.part == "failure":
        store.write_failure(scene.bench.runs[-1], "a reason\nand more of it")
    if scene.part == "index":
        shutil.copy(Store(scene.bench.sound_folder).index_file, store.index_file)
    (scene.folder / ".lock").touch()


def damaged(scene: Scene) -> Outcome:
    """Damage a file before a command or while it runs; note whether `load` or `doctor` sees it."""
    prepare(scene)
    details: list[str] = []

    def damage() -> None:
        file = choose(scene)
        details.append(f"{file.name}: {DAMAGES[scene.kind](file, scene.rng)}")

    if scene.stage == RUNNING:
        runs = scene.rng.randint(1, len(scene.bench.runs) - 1)
        store = Store(scene.folder)

        def at_write(point: str, _number: int, _file: Any) -> None:
            if point == "open" and not details and len(store.stored()) == runs:
                damage()

        with watched(at_write):
            ended = command(*scene.bench.run_command(scene.folder))
    else:
        damage()
        ended = command("doctor", str(scene.folder))
    unseen = scene.part in SEALED and not _is_seen(scene.folder)
    return {"detail": details[0], "status": ended.status, "told": ended.text, "unseen": int(unseen)}


def _is_seen(folder: Path) -> bool:
    """Return whether `load` or `doctor` says that something is wrong."""
    try:
        return bool(load(folder).problems) or any(finding.message for finding in doctor.examine(folder))
    except MnistAblateError:
        return True


for kind in DAMAGES:
    fault(kind, (ALL_STORED, HALF_STORED, RUNNING), (*SEALED, "lock"))(damaged)
    # A failure's file name is the only thing that tells which run it belongs to, so it is not renamed.
    fault(kind, (ALL_STORED, HALF_STORED), ("index",) if kind == "file renamed" else ("index", "failure"))(damaged)


# ---- Read-only files ----


def _do(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)  # noqa: S603


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Make a file or folder immutable, which binds root too."""
    _do("chattr", "+i", path)
    try:
        yield
    finally:
        _do("chattr", "-i", path)


@contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    """Mount a folder over itself, read-only."""
    _do("mount", "--bind", "-o", "ro", path, path)
    try:
        yield
    finally:
        _do("umount", path)


@fault("read-only", [HALF_STORED],
       (*SEALED, "failure", "lock", "half-written file", "folder of runs", "whole folder"))  # fmt: skip
def made_read_only(scene: Scene) -> Outcome:
    """Run a half-stored study where something cannot be written; where that is a result, it is damaged too."""
    prepare(scene)
    how: Callable[[Path], Any] = immutable
    if scene.part == "whole folder":
        how, path = mounted_read_only, scene.folder
    elif scene.part == "folder of runs":
        path = scene.folder / scene.rng.choice(["runs", "predictions", "failures"])
    elif scene.part == "half-written file":
        path = scene.folder / "runs" / f".{scene.bench.runs[-1].run_id}.parquet.1.tmp"
        path.write_bytes(b"half")
    else:
        path = choose(scene)
        if scene.part in ("run", "predictions"):
            flip(path, scene.rng)
    with how(path):
        ended = command(*scene.bench.run_command(scene.folder))
    return {"detail": f"{path.name}: {how.__name__}", "status": ended.status, "told": ended.text}


# ---- Full disks ----

_SIZE, _INODES = 8 << 20, 200


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of a few megabytes at `folder`; at the end, leave its files there without it."""
    folder.mkdir(parents=True)
    _do("mount", "-t", "tmpfs", "-o", f"size={_SIZE},nr_inodes={_INODES}", "none", folder)
    copy = folder.with_name(folder.name + ".copy")
    try:
        yield
        (folder / "ballast").unlink(missing_ok=True)
        shutil.rmtree(folder / "ballast.d", ignore_errors=True)
        shutil.copytree(folder, copy)
    finally:
        _do("umount", folder)
    folder.rmdir()
    copy.rename(folder)


def fill_space(folder: Path, rng: random.Random) -> None:
    """Leave no space, or a few kilobytes: less than a file of predictions needs."""
    state = os.statvfs(folder)
    room = rng.choice([0, rng.randrange(8192)])
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_bsize - room))


def fill_files(folder: Path, _rng: random.Random) -> None:
    """Use up all inodes."""
    (folder / "ballast.d").mkdir()
    try:
        for number in range(_INODES):
            (folder / "ballast.d" / str(number)).touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


FILLINGS: dict[str, Callable[[Path, random.Random], None]] = {"disk full": fill_space, "no more files": fill_files}
_RUNS = 6
WRITES = ["folder", "study", *(f"{part} {i}" for i in range(1, _RUNS + 1) for part in ("predictions", "run")), "index"]
"""The writes of the study in their order; "folder" is a disk that is full from the start."""


@contextmanager
def one_run_fails(bench: Bench) -> Iterator[None]:
    """Let the first run fail, so that its reason is written."""
    original = tasks.train_one

    def train_one(run: Any, nudge: int = 0, device: str = "cpu") -> Any:
        if run.run_id == bench.runs[0].run_id:
            raise RuntimeError("a fault")
        return original(run, nudge, device)

    tasks.train_one = train_one
    try:
        yield
    finally:
        tasks.train_one = original


@fault("no more files", ["at that write"], ("folder", "study", "predictions 1", "run 1", "failure", "index"))
@fault("disk full", ["at that write"], (*WRITES, "failure", "report"))
def full(scene: Scene) -> Outcome:
    """Run the study on a disk that is full from one of its writes on; then make room."""
    arguments, number = scene.bench.run_command(scene.folder), 2  # a failure is the second write, after the study
    if scene.part == "report":
        number = scene.rng.randint(1, 12)
    elif scene.part != "failure":
        number = WRITES.index(scene.part)
    with small_disk(scene.folder):
        if scene.part == "report":
            command(*arguments)
            arguments = [*arguments, "--report"]
        with one_run_fails(scene.bench) if scene.part == "failure" else nullcontext():
            ended, name = _filled_at(scene, number, arguments)
    return {"detail": name, "status": ended.status, "told": ended.text}


def _filled_at(scene: Scene, number: int, arguments: list[str]) -> tuple[Ended, str]:
    """Run a command whose disk fills before write `number` (0: at once); return also the name of that file."""
    names: list[str] = []

    def at_write(point: str, written: int, file: Any) -> None:
        if (point, written) == ("open", number):
            names.append(file.name)
            FILLINGS[scene.kind](scene.folder, scene.rng)

    if number == 0:
        FILLINGS[scene.kind](scene.folder, scene.rng)
    with watched(at_write):
        ended = command(*arguments)
    assert names or number == 0, f"the study made fewer than {number} writes"
    return ended, "".join(names)
