"""A Parquet file."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Source, digest, last_written, named
from mnist_ablate.tables.sources import frames
from mnist_ablate.tables.sources.options import Options


def reads(path: Path) -> bool:
    """Return whether this is a Parquet file, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as content:
        return content.read(4) == b"PAR1"


def read(path: Path, _: Options) -> Source:
    """Read a Parquet file."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: a damaged Parquet file ({str(error).splitlines()[0]}). Write it again.") from error
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{path}: two columns have the same name ({named(twice)}). Rename or remove one.")
    # Without the metadata of pandas, which could ask for other types.
    frame = table.replace_schema_metadata(None).to_pandas(ignore_metadata=True)
    source = frames.read(frame, path, "A Parquet file")
    return replace(source, sha256=digest([path]), written=last_written([path]))
