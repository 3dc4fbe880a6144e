"""Disturb a small study in every way that we know, resume it, and compare it with an undisturbed one.

``nox -s faults``. Resumable: each injection is a file in ``results/faults/items`` and is not repeated. The table of
all injections is ``results/reference/faults.parquet``. Needs Linux, root (it mounts small file systems, makes files
immutable and cuts networks off), libfaketime and iproute2. It disturbs nothing outside ``results/faults`` and leaves
the machine's clock alone.
"""

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]
import clusters  # noqa: E402, F401  # importing a module of faults registers them
import files  # noqa: E402, F401
import processes  # noqa: E402, F401
from scene import FAULTS, Bench, Ended, Fault, Outcome, Scene  # noqa: E402

SEEDS = 5
TABLE = ROOT / "results" / "reference" / "faults.parquet"
Injection = tuple[str, str, str, int, Fault]
"""Kind, part, stage, seed of everything random, and the function that does it."""


def name_of(injection: Injection) -> str:
    """Return the name of an injection's file."""
    return "-".join(str(word).replace(" ", "_") for word in injection[:4] if word != "")


def injections() -> list[Injection]:
    """List all injections seed by seed, so that an interrupted benchmark is balanced."""
    return [(kind, part, stage, seed, do) for seed in range(SEEDS) for kind, part, stage, do in FAULTS]


def inject(bench: Bench, injection: Injection) -> Outcome:
    """Disturb a study in a folder of its own, resume it, and compare."""
    kind, part, stage, seed, do = injection
    name = name_of(injection)
    folder = bench.work / "folders" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    outcome = do(Scene(bench, folder, kind, part, stage, random.Random(name)))  # noqa: S311 # no secret
    folder.mkdir(exist_ok=True)
    resumed, repaired = bench.resume(folder)
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603, S607
    result = {
        "kind": kind,
        "part": part,
        "stage": stage,
        "seed": seed,
        **{"hung": False, "left_over": 0, "unseen": 0} | outcome,
        "traceback": "Traceback" in outcome["told"] or "Traceback" in resumed.text,
        "told": outcome["told"][-4000:],
        "resumed": resumed.status,
        "resumed_told": resumed.text[-2000:],
        "repaired": repaired,
        **bench.differences(folder),
        "seconds": time.monotonic() - began,
        "code": commit.stdout.strip(),
        "python": platform.python_version(),
    }
    if not is_bad(result):  # otherwise someone will want to look at the folder
        shutil.rmtree(folder)
        for file in folder.parent.glob(f"{name}[-.]*"):
            file.unlink()
    return result


def is_bad(result: Outcome) -> bool:
    """Return whether anything about a result is wrong."""
    wrong = ("lost", "double", "different", "left_over", "unseen", "hung", "traceback", "left")
    return any(result[name] for name in wrong) or result["resumed"] != 0


def make(bench: Bench, injection: Injection) -> None:
    """Do one injection unless its file exists."""
    out = bench.work / "items" / f"{name_of(injection)}.json"
    if out.exists():
        return
    result = inject(bench, injection)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    temporary.rename(out)
    mark = "BAD " if is_bad(result) else ""
    print(f"{time.strftime('%H:%M:%S')} {mark}{out.stem}: {result['seconds']:.1f} s, {result['status']}", flush=True)


def table(bench: Bench) -> pd.DataFrame:
    """Tabulate all injections, with the last line of what each command printed."""
    paths = sorted(bench.work / "items" / f"{name_of(injection)}.json" for injection in injections())
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    for row in rows:
        row["bad"] = is_bad(row)
        for name in ("told", "resumed_told"):
            row[name] = Ended(0, row[name]).last_line.replace(str(bench.work), "")
    return pd.DataFrame(rows).astype({"hung": bool})


def main() -> None:
    """Do all missing injections and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "faults")
    parser.add_argument("--only", nargs="*", default=[], help="kinds; by default all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="injections of each fault")
    parser.add_argument("--list", action="store_true", help="only name the injections")
    arguments = parser.parse_args()
    bench = Bench(arguments.work.resolve())
    chosen = [i for i in injections() if i[3] < arguments.seeds and i[0] in (arguments.only or [i[0]])]
    if arguments.list:
        print("\n".join(map(name_of, chosen)))
        return
    bench.prepare()
    (bench.work / "items").mkdir(exist_ok=True)
    for injection in chosen:
        make(bench, injection)
    measured = table(bench)
    print(f"{len(measured)} injections, {measured['bad'].sum()} of them with a wrong result.")
    if not arguments.only and arguments.seeds == SEEDS:
        measured.to_parquet(TABLE, index=False)
        print(f"Table: {TABLE}")


if __name__ == "__main__":
    from mnist_ablate.store import compact

    compact.INDEX_FROM = 1  # so that there is an index to disturb
    main()
