"""Disturb a small study in every way that is known, resume it, and hold it against an undisturbed one.

``nox -s faults``. Resumable: each injection is a file in ``results/faults/items``, and what is there is not made
again. The table of all is ``results/reference/faults.parquet``. Needs Linux, the rights of root (small file systems
are mounted, files made immutable, networks cut off), libfaketime and iproute2; nothing outside ``results/faults`` is
disturbed, and the machine's clock stays as it is.
"""

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]
import clusters  # noqa: E402
import disk  # noqa: E402
import files  # noqa: E402
import processes  # noqa: E402
import tiny  # noqa: E402

SEEDS = 5
TABLE = ROOT / "results" / "reference" / "faults.parquet"

Fault = Callable[[tiny.Bench, Path, str, str, str, random.Random], dict[str, Any]]


@dataclass(frozen=True)
class Injection:
    """One fault: of which kind, to which part, at which stage, and with which seed for all that is random."""

    kind: str
    part: str
    stage: str
    seed: int
    do: Fault

    @property
    def name(self) -> str:
        """A name for its file."""
        words = (self.kind, self.part, self.stage, str(self.seed))
        return "-".join(word.replace(" ", "_") for word in words if word)


def _of_processes() -> Iterator[tuple[str, str, str, Fault]]:
    for stage in processes.STAGES:
        for kind in ("kill -9 of the driver", "kill -9 of a worker", "kill -9 of both"):
            yield kind, "", stage, processes.killed
        for kind in processes.SIGNALS:
            yield kind, "", stage, processes.signalled
        yield "clock set back", "", stage, processes.clock_set_back
        for part in ("driver", "workers"):
            yield "memory limit", part, stage, processes.out_of_memory
        for part in ("beside the first", "after a kill"):
            yield "two drivers", part, stage, processes.two_drivers
    for point in processes.POINTS:
        yield "kill -9 of the driver", point, "in a write", processes.killed_in_a_write
    for part in processes.HANGS:
        for stage in ("starting", "running"):
            yield "worker hangs", part, stage, processes.hung
    yield "memory limit", "all", "from the start", processes.out_of_memory
    yield "two drivers", "together", "from the start", processes.two_drivers


def _of_clusters() -> Iterator[tuple[str, str, str, Fault]]:
    for stage in processes.STAGES:
        yield "Dask scheduler lost", "", stage, clusters.lost_scheduler
        for part in clusters.WORKERS:
            yield "Dask worker lost", part, stage, clusters.lost_worker
        for part in clusters.STALLS:
            yield "network stalled", part, stage, clusters.stalled


def _of_files(bench: tiny.Bench) -> Iterator[tuple[str, str, str, Fault]]:
    for kind in files.DAMAGES:
        for part in files.PARTS:
            if (kind, part) == ("file renamed", "failure"):
                continue  # its name is all that tells whose reason it is
            for stage in files.STAGES[: 2 if part in ("index", "failure") else 3]:
                yield kind, part, stage, files.damaged
    for part in files.READ_ONLY:
        yield "read-only", part, "half stored", files.made_read_only
    for part in disk.writes(bench):
        yield "disk full", part, "at that write", disk.full
    for part in ("folder", "study", "predictions 1", "run 1", "failure", "index"):
        yield "no more files", part, "at that write", disk.full
    for part in ("study", "run", "predictions", "index"):
        yield "every bit flipped", part, "all stored", files.every_bit


def injections(bench: tiny.Bench) -> list[Injection]:
    """List all injections, seed by seed, so that whatever is there when it is stopped is balanced."""
    kinds = [*_of_processes(), *_of_files(bench), *_of_clusters()]
    return [Injection(*kind[:3], seed, kind[3]) for seed in range(SEEDS) for kind in kinds]


def inject(bench: tiny.Bench, injection: Injection) -> dict[str, Any]:
    """Do one injection in a folder of its own, resume, and compare."""
    folder = bench.work / "folders" / injection.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    rng = random.Random(injection.name)  # noqa: S311 # no secret
    found = injection.do(bench, folder, injection.kind, injection.part, injection.stage, rng)
    if not folder.exists():
        folder.mkdir()
    told, repaired = (tiny.Told(0, ""), False) if "flips" in found else bench.resume(folder)
    result = {
        **{name: getattr(injection, name) for name in ("kind", "part", "stage", "seed")},
        **{"hung": False, "left_over": 0, "flips": 0, "seen": None} | found,
        "unseen": found.get("unseen", int(found.get("seen") is False)),
        "traceback": "Traceback" in found["told"] or "Traceback" in told.text,
        "told": found["told"][-4000:],
        "resumed": told.status,
        "resumed_told": told.text[-2000:],
        "repaired": repaired,
        **bench.differences(bench.sound_folder if "flips" in found else folder),
        "seconds": time.monotonic() - began,
        "code": _code(),
        "python": platform.python_version(),
    }
    _clean(folder, bad=is_bad(result))
    return result


def is_bad(result: dict[str, Any]) -> bool:
    """Tell whether a result is not what must be."""
    wrong = ("lost", "double", "different", "left_over", "unseen", "hung", "traceback", "left")
    return any(result[name] for name in wrong) or result["resumed"] != 0


def _clean(folder: Path, bad: bool) -> None:
    """Take away what was disturbed, unless someone will want to look at it."""
    if not bad:
        shutil.rmtree(folder, ignore_errors=True)
        for file in folder.parent.glob(f"{folder.name}[-.]*"):
            file.unlink()


def _code() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def make(bench: tiny.Bench, injection: Injection) -> None:
    """Do one injection, unless its file is there."""
    out = bench.work / "items" / f"{injection.name}.json"
    if out.exists():
        return
    result = inject(bench, injection)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    temporary.rename(out)
    mark = "BAD " if is_bad(result) else ""
    print(
        f"{time.strftime('%H:%M:%S')} {mark}{injection.name}: {result['seconds']:.1f} s, {result['status']}", flush=True
    )


def table(bench: tiny.Bench) -> pd.DataFrame:
    """Put all items into a table, the last line of what was told in the place of all."""
    wanted = {f"{injection.name}.json" for injection in injections(bench)}
    items = [path for path in sorted((bench.work / "items").glob("*.json")) if path.name in wanted]
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in items]
    for row in rows:
        row["bad"] = is_bad(row)
        for name in ("told", "resumed_told"):
            row[name] = tiny.Told(0, row[name]).last_line.replace(str(bench.work), "")
    return pd.DataFrame(rows).astype({"hung": bool}).drop(columns=["second_status"], errors="ignore")


def main() -> None:
    """Do all injections that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "faults")
    parser.add_argument("--only", nargs="*", default=[], help="kinds; by default all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each, no more than these")
    parser.add_argument("--list", action="store_true", help="name what there is to do, and do nothing")
    arguments = parser.parse_args()
    bench = tiny.Bench(arguments.work.resolve())
    bench.prepare()
    (bench.work / "items").mkdir(exist_ok=True)
    chosen = [i for i in injections(bench) if i.seed < arguments.seeds and i.kind in (arguments.only or [i.kind])]
    if arguments.list:
        print("\n".join(injection.name for injection in chosen))
        return
    for injection in chosen:
        make(bench, injection)
    found = table(bench)
    print(f"{len(found)} injections, {found['bad'].sum()} not as they must be.")
    if not arguments.only and arguments.seeds == SEEDS:
        found.to_parquet(TABLE, index=False)
        print(f"Table: {TABLE}")


if __name__ == "__main__":
    from mnist_ablate.store import compact

    compact.INDEX_FROM = 1  # so that there is an index to disturb
    main()
