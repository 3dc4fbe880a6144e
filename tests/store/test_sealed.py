"""Files that show their damage."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import flip

from mnist_ablate.errors import DamagedFileError, StorageError
from mnist_ablate.store.sealed import FOOTER_KEY, read_table, write_atomically, write_table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of a small table."""
    path = tmp_path / "table.parquet"
    table = pa.table({"seed": pa.array([1, 2], pa.int64()), "loss": [0.25, 0.125], "status": ["ok", "diverged"]})
    write_table(path, table, {"what": "a test", "n": 2})
    return path


def test_flipped_value_is_seen(file: Path) -> None:
    """A readable Parquet file with other values than those written is damaged."""
    table = pq.read_table(file)
    other = table.set_column(1, "loss", pa.array([0.25, 0.126]))
    pq.write_table(other.replace_schema_metadata(table.schema.metadata), file)
    with pytest.raises(DamagedFileError, match="digest does not agree"):
        read_table(file)


def test_every_truncation_is_seen(file: Path) -> None:
    """A file cut after any number of bytes is damaged."""
    for length in reversed(range(file.stat().st_size)):
        os.truncate(file, length)
        with pytest.raises(DamagedFileError):
            read_table(file)


def test_flipped_bits_are_seen(file: Path) -> None:
    """A file with one flipped bit in any byte is damaged, even where Parquet would read other numbers."""
    for i in range(file.stat().st_size):
        flip(file, 8 * i + i % 8)
        with pytest.raises(DamagedFileError):
            read_table(file)
        flip(file, 8 * i + i % 8)
    read_table(file)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a Parquet file at all"])
def test_other_files_are_damaged(file: Path, content: bytes) -> None:
    """A file that is not Parquet is damaged, and the message names it and what happens next."""
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"table\.parquet: damaged .* will be done again"):
        read_table(file)


def test_foreign_parquet_is_damaged(file: Path) -> None:
    """A Parquet file without our footer, or with a malformed one, is damaged."""
    for metadata in ({}, {FOOTER_KEY: b"no JSON"}, {FOOTER_KEY: b"[]"}, {FOOTER_KEY: b"{}"}):
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), file)
        with pytest.raises(DamagedFileError):
            read_table(file)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the old file stays, no temporary file is left, and the message says what to do."""
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*--out"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    """If the folder is missing or a file, StorageError is raised."""
    (tmp_path / "file").write_text("")
    for parent in ("gone", "file"):
        with pytest.raises(StorageError):
            write_atomically(tmp_path / parent / "below", b"x")
