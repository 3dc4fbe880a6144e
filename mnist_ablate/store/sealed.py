"""Files that show their damage: written whole or not at all, each with a digest of all its bytes."""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mnist_ablate.errors import DamagedFileError, StorageError

FOOTER_KEY = b"mnist_ablate"
Document = dict[str, Any]
NO_DIGEST = "0" * 64
# How pyarrow and json may fail on bytes that this program did not write: anyone can compute a digest for any bytes.
NOT_OURS = (pa.ArrowException, OSError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)


def write_table(
    path: Path, table: pa.Table, document: Document, level: int = 1, repeating: Sequence[str] | None = None
) -> None:
    """Write `table` with `document` and a digest in the footer; on failure, write nothing.

    The digest is the SHA-256 of the file's bytes with zeros in the digest's own place. Without it, a flipped bit in a
    Parquet file often reads back as another number, without an error. `level` is the compression level, and
    `repeating` names the columns that have few values, by default all: looking for such in others takes time and room.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        compression_level=level,
        use_dictionary=True if repeating is None else list(repeating),
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(document | {"digest": NO_DIGEST}).encode()})
    write_atomically(path, sealed(buffer.getvalue()))


def read_table(path: Path) -> tuple[pa.Table, Document]:
    """Read a file of `write_table`, and check it against its digest.

    Raises
    ------
    DamagedFileError
        If the file is not what was written.
    """
    return parse_table(path, read_sound(path)[0])


def parse_table(path: Path, content: bytes) -> tuple[pa.Table, Document]:
    """Return table and document from `content`, the bytes of the file at `path`, whose digest is right.

    Raises
    ------
    DamagedFileError
        If they are not a table with a document.
    """
    try:
        # `pq.read_table` and threads would take three times as long for files as small as a run's.
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            table, document = file.read(use_threads=False), json.loads(file.metadata.metadata[FOOTER_KEY])
        table.validate(full=True)
    except NOT_OURS as error:
        raise DamagedFileError(f"{path}: damaged ({first_line(error)}); the run will be done again") from error
    if not isinstance(document, dict):
        raise DamagedFileError(f"{path}: damaged (its document is no table); the run will be done again")
    return table.replace_schema_metadata(None), document


def sealed(content: bytes) -> bytes:
    """Return `content` with its digest in the place reserved for it."""
    place = _digest_place(content)
    return content[: place.start] + digest_of(content).encode() + content[place.stop :]


def _digest_place(content: bytes) -> slice:
    """Return the place of the digest: at the end of the document, which is near the end of the file."""
    key = b'"digest": "'
    start = content.rfind(key) + len(key)
    return slice(start, start + len(NO_DIGEST))


def read_sound(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file of `write_table`, and their digest, which is checked.

    Raises
    ------
    DamagedFileError
        If the file is not what was written, to the bit.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror}); the run will be done again") from error
    return content, check_seal(path, content)


def check_seal(path: Path, content: bytes) -> str:
    """Return the digest in `content`, the bytes of the file at `path`, after comparing it with the bytes.

    Raises
    ------
    DamagedFileError
        If the bytes are not what was written, to the bit.
    """
    digest = digest_of(content)
    if content[_digest_place(content)] != digest.encode():
        raise DamagedFileError(f"{path}: damaged (its digest does not agree); the run will be done again")
    return digest


def digest_of(content: bytes) -> str:
    """Compute the digest that belongs into `content`."""
    place = _digest_place(content)
    sha = hashlib.sha256(memoryview(content)[: place.start])
    sha.update(NO_DIGEST.encode())
    sha.update(memoryview(content)[place.stop :])
    return sha.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write `text` as `write_atomically` does; a name of a file that is no text goes into it with escapes.

    Raises
    ------
    StorageError
        If there is no space or no permission.
    """
    write_atomically(path, text.encode(errors="backslashreplace"))


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name, flush it to the disk, then rename: a reader sees all or nothing.

    Raises
    ------
    StorageError
        If there is no space or no permission; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}). Finished runs are kept: make room, or give "
            "another folder with --out, and run the same command again."
        ) from error


def remove(file: Path) -> None:
    """Remove a file if it exists.

    Raises
    ------
    StorageError
        If there is no permission.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{file}: cannot be removed ({error.strerror}). Finished runs are kept: correct the permissions of the "
            "file and its folder, and run the same command again."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
