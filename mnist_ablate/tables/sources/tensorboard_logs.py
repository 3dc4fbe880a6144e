"""TensorBoard's event files, one folder for each run, read through the package `tensorboard`.

What varies is taken from TensorBoard's own hyperparameters, or else from the names of the folders, as in
``lr=0.1/seed=3``. A metric is its value at the last step.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Role, Source, digest, last_written
from mnist_ablate.tables.sources.names import from_path
from mnist_ablate.tables.sources.options import Options

_FILES = "*tfevents*"
_HPARAMS = "_hparams_/session_start_info"
_TIME = re.compile(r"\d+\.\d+")


def reads(path: Path) -> bool:
    """Return whether there is an event file, here or below."""
    return any(path.rglob(_FILES)) if path.is_dir() else "tfevents" in path.name


def read(path: Path, _: Options) -> Source:
    """Read the last values of all runs below a folder."""
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob(_FILES)) if path.is_dir() else [path]
    accumulate = _accumulator(path)
    of_runs: dict[Path, dict[str, str]] = {}
    for folder in sorted({file.parent for file in files}):
        place = folder.relative_to(root)
        while _TIME.fullmatch(place.name):  # torch writes hyperparameters into a folder below the run's own
            place = place.parent
        of_runs.setdefault(place, {}).update(_of_run(accumulate(str(folder), {"scalars": 0, "tensors": 0})))
    found = [
        {"run": place.as_posix()} | from_path(place) | values
        for place, values in of_runs.items()
        if any(name.startswith("metrics.") for name in values)
    ]
    if not found:
        raise TableError(f"{path}: its event files hold no scalars. Give a folder of runs that have logged some.")
    frame = pd.DataFrame(found, dtype=str).fillna("")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    fixed: dict[str, Role] = {"run": "run", "started": "started", "last step": "epoch"}
    metrics: dict[str, Role] = {str(name): "metric" for name in frame if str(name).startswith("metrics.")}
    known = {name: role for name, role in (fixed | metrics).items() if name in frame}
    return Source(path, "Event files of TensorBoard", frame, True, known, digest(files), last_written(files))


def _accumulator(path: Path) -> Any:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise TableError(
            f'{path}: event files need the package tensorboard. Install it: pip install "mnist-ablate[tensorboard]"'
        ) from error
    return EventAccumulator


def _of_run(events: Any) -> dict[str, str]:
    """Return the last value of each scalar, the hyperparameters, and the time of the first event."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util.tensor_util import make_ndarray

    events.Reload()
    tags, found, steps = events.Tags(), dict[str, str](), [-1]
    for tag in tags["scalars"]:
        last = max(events.Scalars(tag), key=lambda event: event.step)
        found[f"metrics.{tag}"] = repr(float(last.value))
        steps.append(last.step)
    for tag in tags["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data
        if plugin.plugin_name == "scalars":
            last = max(events.Tensors(tag), key=lambda event: event.step)
            found[f"metrics.{tag}"] = repr(float(make_ndarray(last.tensor_proto).item()))
            steps.append(last.step)
    if _HPARAMS in events.summary_metadata:
        content = events.summary_metadata[_HPARAMS].plugin_data.content
        settings = metadata.parse_session_start_info_plugin_data(content).hparams
        found |= {name: _plain(value) for name, value in settings.items()}
    if len(steps) > 1:
        found["last step"] = str(max(steps))
        found["started"] = datetime.fromtimestamp(events.FirstEventTimestamp(), UTC).isoformat()
    return found


def _plain(value: Any) -> str:
    kind = value.WhichOneof("kind")
    return "" if kind in (None, "null_value") else str(getattr(value, kind))
