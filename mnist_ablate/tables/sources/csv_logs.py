"""A folder of logs in CSV files, one for each run, as Lightning's and Keras's ``CSVLogger`` write them.

Lightning writes ``metrics.csv`` and ``hparams.yaml`` into a folder for each run. Keras writes a file of epochs and
metrics, so what varies must be in the name of the file or of its folders, as in ``lr=0.1/seed=3.csv``.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Role, Source, digest, last_written
from mnist_ablate.tables.sources import text
from mnist_ablate.tables.sources.names import from_path
from mnist_ablate.tables.sources.options import Options

_EPOCHS = ("epoch", "step")


def reads(path: Path) -> bool:
    """Return whether this is a folder with such a file."""
    return path.is_dir() and any(True for _ in _files(path))


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*.csv")) if file.is_file() and _is_log(file))


def _is_log(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = next(csv.reader(lines), [])
    return any(name.strip() in _EPOCHS for name in header)


def read(path: Path, options: Options) -> Source:
    """Read the logs of all runs below a folder, as text."""
    files, parts, settings = list(_files(path)), [], set[str]()
    for file in files:
        content = file.read_text(encoding="utf-8-sig", errors="replace")
        if len(content.split("\n", 1)) < 2 or not content.split("\n", 1)[1].strip():
            continue  # a run that ended before its first epoch
        frame = text.parse(content, file, options.separator)
        own = _settings(file, path)
        settings |= own.keys()
        clash = [name for name in own if name in frame]
        frame = frame.assign(**{name: value for name, value in own.items() if name not in clash})
        parts.append(frame.assign(run=file.relative_to(path).with_suffix("").as_posix()))
    if not parts:
        raise TableError(f"{path}: its logs have no rows. Give a folder of runs that have logged something.")
    frame = pd.concat(parts, ignore_index=True)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    epoch = next(name for name in _EPOCHS if name in frame)
    roles: dict[str, Role] = {"run": "run", "step": "ignored", epoch: "epoch"}
    roles |= {str(name): "metric" for name in frame if name not in settings and name not in roles}
    known = {name: role for name, role in roles.items() if name in frame}
    kind = "Logs of Lightning's CSVLogger" if files[0].name == "metrics.csv" else "CSV logs, one for each run"
    return Source(path, kind, frame.fillna(""), True, known, digest(files), last_written(files))


def _settings(file: Path, root: Path) -> dict[str, str]:
    """Return what the names of a file and its folders say of a run, and Lightning's file of hyperparameters."""
    relative = file.relative_to(root)
    named = from_path(relative.parent if file.name == "metrics.csv" else relative.with_suffix(""))
    hparams = file.with_name("hparams.yaml")
    return named | (flat_yaml(hparams.read_text(encoding="utf-8", errors="replace")) if hparams.is_file() else {})


_PAIR = re.compile(r"([A-Za-z_][\w./-]*):[ \t]+(.+?)[ \t]*")


def flat_yaml(content: str) -> dict[str, str]:
    r"""Return the plain values at the top of a YAML file, as text; tables, lists and anything with a tag are left out.

    >>> flat_yaml("lr: 0.1\nname: 'a b'\nmodel: !!python/object/apply:os.system [ls]\n")
    {'lr': '0.1', 'name': 'a b'}
    """
    found = {}
    for line in content.splitlines():
        match = _PAIR.fullmatch(line)
        if match and match[2][0] not in "!&*{[|>#":
            found[match[1]] = match[2].strip("'\"")
    return found
