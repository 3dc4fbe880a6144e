"""A CSV file, as any program writes it, and the exports of W&B and MLflow, which are CSV files, too."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Role, Source, digest, last_written, named, shortened
from mnist_ablate.tables.sources.names import from_name
from mnist_ablate.tables.sources.options import Options

_OTHERS = {
    b"\x80": "a pickle, which may run code when it is read",
    b"PK\x03\x04": "a spreadsheet or an archive",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet",
    b"\x1f\x8b": "compressed",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of numpy",
    b"SQLite format 3\0": "a database without runs of MLflow",
}
"""What other files begin with."""
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz")
_SEPARATORS = (",", ";", "\t")
_HEAD = 20
"""Rows that show whether a second header follows the first."""


def reads(path: Path) -> bool:
    """Return whether this may be a text file: any that no other reader knows."""
    return path.is_file()


def read(path: Path, options: Options) -> Source:
    """Read a text file, all cells as text."""
    if path.suffix.lower() in _PICKLES:
        raise TableError(f"{path}: a pickle may run code when it is read. Save the table as CSV or Parquet.")
    content = path.read_bytes()
    for start, what in _OTHERS.items():
        if content.startswith(start):
            raise TableError(f"{path}: {what}. Save the table as CSV or Parquet.")
    if not content.strip():
        raise TableError(f"{path}: empty. Give a table with a row for each run.")
    source = Source(path, "A CSV file", parse(_decoded(path, content, options.encoding), path, options.separator), True)
    source = replace(source, sha256=digest([path]), written=last_written([path]))
    return _history(_known(source))


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    marked = next((name for mark, name in marks.items() if content.startswith(mark)), encoding)
    try:
        text = content.decode(marked)
    except LookupError as error:
        raise TableError(f'encoding = "{encoding}": not known; allowed: such as "utf-8" or "cp1252"') from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TableError(
            f"{path}: not text in {encoding.upper()}: line {line} has the byte {content[error.start]:#04x}. Save it as "
            'UTF-8, or name its encoding in the study file, as in [table] encoding = "cp1252".'
        ) from error
    if "\0" in text:
        raise TableError(f"{path}: not text: it holds zeros. Save the table as CSV in UTF-8.")
    return text


def parse(text: str, path: Path, separator: str = "") -> pd.DataFrame:
    """Return the cells of a text file; the index numbers rows from 1, without the header."""
    first = text.lstrip("\r\n").splitlines()[0]
    separator = separator or max(_SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        header = next(row for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise TableError(f"{path}: not a CSV file ({error}). Save the table as CSV.") from error
    header = [name.strip() or f"column {i}" for i, name in enumerate(header, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: two columns have the same name ({named(twice)}). Rename or remove one.")
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, header=None, names=header, skiprows=reader.line_num,
                            index_col=False, dtype=str, keep_default_na=False, na_filter=False)  # fmt: skip
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame(columns=header)
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        cause = shortened(str(error).removeprefix("Error tokenizing data. C error: "), 120)
        raise TableError(f"{path}: not a table: {cause}. Give every row as many cells as the header.") from error
    frame = frame.fillna("")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    _second_header(frame, path)
    return frame


def _second_header(frame: pd.DataFrame, path: Path) -> None:
    """Refuse a table whose first row is another header: text in columns that otherwise have numbers alone."""
    head = frame.iloc[1 : 1 + _HEAD]
    numeric = [name for name in frame if len(head) and pd.to_numeric(head[name], errors="coerce").notna().all()]
    text = [name for name in numeric if pd.isna(pd.to_numeric(frame[name].iloc[0], errors="coerce"))]
    if len(text) >= max(2, len(numeric) / 2) and not any(_is_missing(frame[name].iloc[0]) for name in text):
        found = named(f'"{frame[name].iloc[0]}"' for name in text)
        raise TableError(f"{path}: has two header lines (row 1 holds {found}). Keep one, with a name for each column.")


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in ("", "nan", "na", "none", "null", "inf", "-inf")


# ---- Exports ----

_WANDB: dict[str, Role] = {
    "Name": "run", "State": "status", "Notes": "ignored", "User": "ignored", "Tags": "ignored", "Created": "started",
    "Runtime": "ignored", "Sweep": "ignored", "ID": "run", "_runtime": "ignored", "_timestamp": "ignored",
    "_step": "ignored", "_wandb": "ignored", "Group": "ignored", "Job Type": "ignored", "Updated": "ignored",
    "End Time": "ignored", "Hostname": "ignored", "GPU Type": "ignored", "Commit": "ignored",
}  # fmt: skip
_MLFLOW: dict[str, Role] = {
    "run_id": "run", "Run ID": "run", "status": "status", "Status": "status", "start_time": "started",
    "Start Time": "started", "end_time": "ignored", "Duration": "ignored", "artifact_uri": "ignored",
    "experiment_id": "ignored", "Name": "ignored", "Source Type": "ignored", "Source Name": "ignored",
    "User": "ignored", "Version": "ignored", "Models": "ignored",
}  # fmt: skip


def _known(source: Source) -> Source:
    """Return the table with what its columns are, where it is an export of W&B or MLflow."""
    names = set(source.frame.columns)
    if {"Name", "State"} <= names:
        run = "ID" if "ID" in names else "Name"
        roles = {name: role for name, role in _WANDB.items() if name in names and (role != "run" or name == run)}
        roles |= {name: "ignored" for name in ("Name", "ID") if name in names and name != run}
        return replace(source, kind="W&B's table of runs", roles=roles)
    if {"run_id", "experiment_id", "status"} <= names or {"Run ID", "Status", "Start Time"} <= names:
        roles = {name: role for name, role in _MLFLOW.items() if name in names}
        roles |= {str(name): "metric" for name in source.frame if str(name).startswith("metrics.")}
        roles |= {str(name): "ignored" for name in source.frame if str(name).startswith("tags.")}
        return replace(source, kind="MLflow's table of runs", roles=roles)
    return source


_OF_RUN = re.compile(r"(?P<run>.+) - (?P<metric>[^-]+?)(?P<bound>__MIN|__MAX)?")


def _history(source: Source) -> Source:
    """Return W&B's export of a chart, a column for each run and metric, as a row for each run and step."""
    matches = {name: _OF_RUN.fullmatch(str(name)) for name in source.frame.columns[1:]}
    if source.frame.columns[0] not in ("Step", "_step", "epoch", "global_step") or not all(matches.values()):
        return source
    step, parts = str(source.frame.columns[0]), []
    of_runs: dict[str, dict[str, str]] = {}
    for name, match in matches.items():
        if match and not match["bound"]:
            of_runs.setdefault(match["run"], {})[str(name)] = match["metric"].strip()
    for run, metrics in of_runs.items():
        part = source.frame[[step, *metrics]].rename(columns=metrics)
        parts.append(part.assign(**({"run": run} | from_name(run))))
    frame = pd.concat(parts, ignore_index=True).fillna("")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    roles: dict[str, Role] = {step: "epoch", "run": "run"}
    roles |= {metric: "metric" for metrics in of_runs.values() for metric in metrics.values()}
    return replace(source, kind="W&B's export of a chart", frame=frame, roles=roles)
