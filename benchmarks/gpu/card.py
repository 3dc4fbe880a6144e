"""Measure a graphics card: the main job, bits, races, bounds, packs, other programs, a profile. ``nox -s gpu``.

This process never touches the card. Each part is a process of its own with a limit of time, and what it measures is
stored as it comes (`bench.py`). A kernel that hangs or breaks the card's context costs the rest of its part, and a row
says in which step. What is measured of this project is in `parts.py`. docs/gpu.md says what to bring and what comes
back. The exit status is 1 if something is wrong, 2 if nothing can be measured.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from bench import HERE, ROOT, Bench, Table, end, line_of, start
from telling import UNAVAILABLE

LIMIT = 360.0
"""Seconds for everything. What is not reached can be measured by a second call."""
PEERS = (
    ("JAX, vmap and scan", "jax_packed.py", 80, 150),
    ("torch, bmm and CUDA graphs", "torch_packed.py", 80, 75),
    ("torch, one model, CUDA graphs", "torch_packed.py", 1, 60),
)
"""Each with its script, how many models it trains at once, and its limit in seconds."""
CHECKS = {"racecheck": "racecheck, which sees shared memory alone", "memcheck": "memcheck", "synccheck": "synccheck"}
"""Compute-sanitizer's tools. What a kernel's phases share lies in global memory, which none watches for races."""


# ---- Parts ----


def main_job(bench: Bench) -> None:
    """Train and store the main job five times, and once as the whole command."""
    bench.part("main", 120)


def bits(bench: Bench) -> None:
    """Compare runs with the digests of processors, alone and among others."""
    bench.part("bits", 150)


def races(bench: Bench) -> None:
    """Have NVIDIA's sanitizer look at a tiny study, where it is installed."""
    sanitizer = _tool("compute-sanitizer")
    if not sanitizer:
        bench.table.add("races", "compute-sanitizer", "not installed")
        return
    for check, what in CHECKS.items():
        command = [sanitizer, "--tool", check, "--error-exitcode", "9", sys.executable, str(HERE / "tiny.py")]
        ended = bench.run("races", command, 40)
        summary = [line.strip("= ") for line in ended.said if "SUMMARY" in line][-1:]
        said = "; ".join(filter(None, [*summary, ended.why])) or "no summary"
        bench.table.add("races", what, said, failed=bool(ended.why and ended.status is not None))


def bounds(bench: Bench) -> None:
    """Measure how fast the card copies, and how near to that training comes."""
    bench.part("bounds", 40)


def packs(bench: Bench) -> None:
    """Train from one run to a thousand at once."""
    bench.part("packs", 120)


def peers(bench: Bench) -> None:
    """Train as many models with JAX and torch on the same card, with the same evaluations."""
    if bench.part("task", 60, of="peers").why:
        return
    for name, script, models, seconds in PEERS:
        command = bench.script(script, "--name", name, "--task", bench.scratch / "task.npz", "--models", models)
        if script.startswith("jax"):
            command[0] = bench.jax_python
        bench.noted("peers", command, seconds, what=name, wrong=False)


def profile(bench: Bench) -> None:
    """Have NVIDIA's profiler look at the main job's first steps, where it is installed."""
    profiler, report = _tool("ncu"), bench.table.file.with_suffix(".ncu-rep")
    if not profiler:
        bench.table.add("profile", "ncu", "not installed")
        return
    report.unlink(missing_ok=True)
    runs, steps = (2, 2) if bench.quick else (80, 30)
    what = f"{runs} runs, {steps} steps"
    command = [profiler, "--clock-control", "none", "--set", "full", "--export", str(report)]
    script = [sys.executable, str(HERE / "tiny.py"), "--runs", str(runs), "--steps", str(steps)]
    if bench.noted("profile", [*command, *script], 75, what=what, wrong=False).status is None:
        return
    if not report.exists():
        bench.table.add("profile", what, "ncu has written no report")
        return
    bench.table.add("profile", f"{what}, {report.name}", report.stat().st_size / 1e6, "MB")
    for page in ("details", "source"):  # for readers without NVIDIA's programs
        with suppress(subprocess.TimeoutExpired), report.with_suffix(f".{page}.csv").open("wb") as file:
            show = [profiler, "--import", str(report), "--csv", "--page", page]
            subprocess.run(show, stdout=file, stderr=subprocess.DEVNULL, timeout=20, check=False)  # noqa: S603


def _tool(name: str) -> str:
    """Return where a tool of NVIDIA's is; empty if it is not installed."""
    places = [Path("/usr/local/cuda/bin") / name, *sorted(Path("/opt/nvidia/nsight-compute").glob(f"*/{name}"))]
    return shutil.which(name) or next((str(place) for place in places if place.exists()), "")


PARTS: dict[str, Callable[[Bench], None]] = {
    "main": main_job, "bits": bits, "races": races, "bounds": bounds, "packs": packs, "peers": peers,
    "profile": profile,
}  # fmt: skip
"""In this order, so that what matters most comes first."""


# ---- The whole ----


def main() -> int:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="packages that this Python lacks")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="a folder with MNIST's four files, packed or not")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference" / "gpu.parquet", metavar="FILE",
                        help="what earlier calls have measured of other parts stays in it")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help=f"by default {LIMIT:.0f}")
    parser.add_argument("--jax-python", default=sys.executable, metavar="PATH", help="the Python that has JAX for CUDA")
    parser.add_argument("--quick", action="store_true", help="measure next to nothing: see whether all works")
    options = parser.parse_args()
    ends, out = time.monotonic() + options.limit, options.out.absolute()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        try:
            _prepare(options.wheels, options.mnist, scratch)
            out.parent.mkdir(parents=True, exist_ok=True)
            table = Table.read(out)
        except Exception as error:  # noqa: BLE001
            print(f"Nothing was measured: {error}", file=sys.stderr)
            return 2
        with out.with_suffix(".log").open("a", encoding="utf-8") as log, (scratch / "warm").open("wb") as nowhere:
            bench = Bench(table, log, scratch, ends, options.quick, options.jax_python)
            warm = start(bench.script("parts.py", "warm", "--scratch", scratch), nowhere)  # beside what follows
            try:
                return _measure(bench, options.only)
            finally:
                end(warm)
                print(f"{time.monotonic() - ends + options.limit:.0f} s in all")


def _prepare(wheels: Path | None, mnist: Path | None, scratch: Path) -> None:
    """Install the packages and images that were brought."""
    if wheels:
        site, files = scratch / "site", [str(path) for path in sorted(wheels.glob("*.whl"))]
        quiet = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *quiet, *files], check=True)  # noqa: S603
        sys.path.insert(0, str(site))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    if lacking := _lacking():
        print(f"This Python lacks {', '.join(lacking)}; --wheels takes what is brought.", file=sys.stderr)
    if mnist:
        command = [sys.executable, "-m", "mnist_ablate", "data", "--from", str(mnist.absolute())]
        subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603


def _lacking() -> list[str]:
    """Return the packages that this Python lacks of those that the project needs, and that these need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted, seen, lacking = [*project["dependencies"], *project["optional-dependencies"]["fast"]], set(), []
    while wanted:
        name = re.split(r"[^\w.-]", wanted.pop(0))[0]
        if name not in seen:
            seen.add(name)
            try:
                wanted += [line for line in requires(name) or [] if ";" not in line]
            except PackageNotFoundError:
                lacking.append(name)
    return lacking


def _measure(bench: Bench, parts: Sequence[str]) -> int:
    """Run parts; return the exit status."""
    begun = bench.run("start", bench.script("parts.py", "start", "--scratch", bench.scratch), 240)
    if begun.status == UNAVAILABLE:
        reason = begun.why.removeprefix("device = cuda: ").partition(". ")[0].removesuffix(".")
        print(f"Nothing was measured: {reason}.", file=sys.stderr)
        return 2
    if begun.why:
        print(*begun.said[-15:], sep="\n", file=sys.stderr)
        bench.table.add("start", bench.step or "before the first run", begun.why, failed=True)
        return 1
    for name in parts:
        try:
            PARTS[name](bench)
        except Exception as error:  # noqa: BLE001 # the other parts go on
            bench.table.add(name, "", f"{type(error).__name__}: {error}"[:300], failed=True)
    print("", *map(line_of, bench.table.rows), f"stored in {bench.table.file}", sep="\n")
    return 1 if any(row["failed"] for row in bench.table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
