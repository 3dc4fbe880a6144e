"""MLflow's local stores: a folder ``mlruns``, and an SQLite database. Both are read without MLflow itself.

A parameter is a setting, a metric its last value, and runs that were deleted are left out.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Role, Source, digest, last_written
from mnist_ablate.tables.sources.csv_logs import flat_yaml
from mnist_ablate.tables.sources.options import Options

_STATUS = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
"""Numbers in the files of a folder."""


def reads(path: Path) -> bool:
    """Return whether this is a store of MLflow."""
    if path.is_dir():
        return (path / "meta.yaml").is_file() or any(path.glob("*/*/params")) or any(path.glob("*/*/metrics"))
    return path.is_file() and bool(_tables(path) & {"latest_metrics"})


def read(path: Path, _: Options) -> Source:
    """Read all runs of a store, as text."""
    try:
        found = list(_of_folder(path) if path.is_dir() else _of_database(path))
    except sqlite3.Error as error:
        raise TableError(f"{path}: a damaged database ({error}). Restore it, or export its runs as CSV.") from error
    if not found:
        raise TableError(f"{path}: a store of MLflow without runs. Give one with runs that are not deleted.")
    frame = pd.DataFrame(found, dtype=str).fillna("")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    fixed: dict[str, Role] = {"run": "run", "status": "status", "started": "started", "experiment": "ignored"}
    metrics: dict[str, Role] = {str(name): "metric" for name in frame if str(name).startswith("metrics.")}
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    return Source(path, "A store of MLflow", frame, True, fixed | metrics, digest(files), last_written(files))


# ---- A folder ----


def _of_folder(path: Path) -> Iterator[dict[str, str]]:
    """Yield the runs of a folder of experiments, or of one experiment."""
    for meta in sorted(path.rglob("meta.yaml")):
        about = flat_yaml(meta.read_text(encoding="utf-8", errors="replace"))
        if "run_id" not in about or about.get("lifecycle_stage", "active") != "active" or ".trash" in meta.parts:
            continue
        status = about.get("status", "")
        run = {"run": about["run_id"], "experiment": about.get("experiment_id", ""),
               "status": _STATUS.get(status, status), "started": _time(about.get("start_time", ""))}  # fmt: skip
        for file in _entries(meta.parent / "params"):
            run[f"params.{file.relative_to(meta.parent / 'params').as_posix()}"] = _content(file)
        for file in _entries(meta.parent / "metrics"):
            lines = [line.split() for line in _content(file).splitlines() if line.strip()]
            if lines:  # time, value, step
                last = max(lines, key=lambda line: (int(line[2]) if len(line) > 2 else 0, int(line[0])))
                run[f"metrics.{file.relative_to(meta.parent / 'metrics').as_posix()}"] = last[1]
        yield run


def _entries(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()] if folder.is_dir() else []


def _content(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()


# ---- A database ----

_RUNS = "SELECT run_uuid, experiment_id, status, start_time FROM runs WHERE lifecycle_stage = 'active' ORDER BY rowid"
_PARAMS = "SELECT run_uuid, key, value FROM params"
_METRICS = "SELECT run_uuid, key, CASE is_nan WHEN 1 THEN 'nan' ELSE value END FROM latest_metrics"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading alone."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        yield database


def _tables(path: Path) -> set[str]:
    with path.open("rb") as content:
        if content.read(16) != b"SQLite format 3\0":
            return set()
    with contextlib.suppress(sqlite3.Error), _opened(path) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return set()


def _of_database(path: Path) -> Iterator[dict[str, str]]:
    with _opened(path) as database:
        runs = {
            run: {"run": run, "experiment": str(experiment), "status": status or "", "started": _time(str(started))}
            for run, experiment, status, started in database.execute(_RUNS)
        }
        for prefix, query in (("params", _PARAMS), ("metrics", _METRICS)):
            for run, key, value in database.execute(query):
                if run in runs:
                    runs[run][f"{prefix}.{key}"] = repr(value) if isinstance(value, float) else str(value)
    yield from runs.values()


def _time(milliseconds: str) -> str:
    """Write a time that MLflow counts in milliseconds."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat() if milliseconds.isdigit() else ""
