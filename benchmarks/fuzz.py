"""Give the readers bad input, a hundred thousand each: ``nox -s fuzz``.

A reader must give a right answer or one of our own errors: never a traceback, never more than a second or a gigabyte.
Inputs are sound ones that were changed at random, bytes and values alike; each follows from its number. They are read
in blocks, each in a process of its own, which is written to ``results/fuzz`` when it is done and not made again.
The table is ``results/reference/fuzz.parquet``.
"""

import argparse
import contextlib
import copy
import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mnist_ablate import cli, data
from mnist_ablate.checks import doctor, verify
from mnist_ablate.data import catalogue
from mnist_ablate.data.files import read_idx
from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import bundled_studies, load_study, parse_study
from mnist_ablate.errors import MnistAblateError
from mnist_ablate.execution import runner
from mnist_ablate.execution.executors import InlineExecutor
from mnist_ablate.gate import accept as gate_accept
from mnist_ablate.gate import reference as gate_reference
from mnist_ablate.gate import runs as gate_runs
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import words
from mnist_ablate.store import compact as compact_module
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import load
from mnist_ablate.store.schema import EPOCH_COLUMNS, PREDICTION_SCHEMA
from mnist_ablate.store.sealed import FOOTER_KEY, parse_table, read_table, sealed

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "results" / "reference" / "fuzz.parquet"
INPUTS, BLOCK = 100_000, 2_000
SECONDS, MEGABYTES = 1.0, 1024.0
"""What a reader may take for one input, of the processor and of memory."""
_ALARM = 120
Reader = Callable[[random.Random], None]
"""Makes an input, has it read, and checks the answer; it raises what reading raises."""


class WrongAnswerError(AssertionError):
    """Something was read, and it is not what was written."""


class HangError(Exception):
    """Reading did not end."""


# ---- Changing what is sound ----

_NUMBERS = (
    *("0", "-1", "1e308", "1e-320", "inf", "nan", "-0.0", "99999999999999999999999", "1e5", "65536", "32768", "0x7f"),
    *("9" * 5000, "true", '""', "[]", "{}", "1979-05-27", '"\\u0000"', '"../../x"', '"<script>"', "[[]]", "1_0"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), ""),
    *(
        "x",
        "a" * 5000,
        "\0",
        "\ud800",
        "../../../etc/passwd",
        "<script>",
        [],
        {},
        [[]],
        [{}],
        {"": {}},
        [1, "a"],
        99_999,
    ),
)


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Change bytes in some places: flip, overwrite, insert, remove, repeat, cut, or nest deeply."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + size] = rng.randbytes(size)
            case 2:
                changed[at:at] = rng.randbytes(size)
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[rng.randrange(len(changed) + 1) :][:64]
            case 5 if rng.random() < 0.2:
                del changed[at:]
            case 6 if rng.random() < 0.1:
                changed[at:at] = rng.choice((b"[", b"{", b"[{", b"((", b"\xff")) * rng.choice((10, 1000, 100_000))
            case 7:
                changed[at : at + 4] = rng.choice((b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
            case _:
                changed[at:at] = b"\n"
    return bytes(changed)


def words_changed(text: str, rng: random.Random) -> str:
    """Put another value in the place of a word, or another line in the place of a line."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                lines[i] = lines[j]
            case 1:
                lines.insert(i, lines[j])
            case 2:
                words = lines[i].split(" ")
                words[rng.randrange(len(words))] = rng.choice(_NUMBERS)
                lines[i] = " ".join(words)
            case 3 if "=" in lines[i]:
                lines[i] = f"{lines[i].partition('=')[0]} = {_value(rng)}"
            case _:
                lines[i] = f"{rng.choice(('seeds', 'epochs', 'l2', 'alpha', 'levels', 'x'))} = {_value(rng)}"
    return "\n".join(lines)


def _value(rng: random.Random) -> str:
    if rng.random() < 0.3:
        n = rng.choice((1, 3, 40, 2000))
        return "[" + ", ".join(str(rng.choice((rng.random(), rng.randrange(10), i))) for i in range(n)) + "]"
    return rng.choice(_NUMBERS)


def values_changed(document: Any, rng: random.Random) -> Any:
    """Return a copy of nested dictionaries and lists, with something in it replaced, removed, added or renamed."""
    changed = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(changed))
        if not places or rng.random() < 0.01:
            return copy.deepcopy(rng.choice(_VALUES))
        where, key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                del where[key]
            case 1 if isinstance(where, dict):
                where[rng.choice(("", "x", "digest", "own", "seed", "\0", "<b>"))] = where.pop(key)
            case 2:
                where[key] = [where[key]] * rng.choice((0, 1, 2, 50))
            case _:
                where[key] = copy.deepcopy(rng.choice(_VALUES))
    return changed


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


# ---- The readers ----


def studies(folder: Path) -> Reader:
    """Read study files: bundled ones with other bytes, words or values."""
    sound = [
        (ROOT / "mnist_ablate" / "studies" / f"{name}.toml").read_text(encoding="utf-8") for name in bundled_studies()
    ]
    documents = [load_study(name).model_dump(mode="json", exclude_unset=True) for name in bundled_studies()]
    file = folder / "study.toml"

    def read(rng: random.Random) -> None:
        kind = rng.randrange(3)
        if kind == 2:
            document = values_changed(rng.choice(documents), rng)
            _check_study(parse_study(document if isinstance(document, dict) else {"x": document}))
            return
        text = rng.choice(sound)
        file.write_bytes(bytes_changed(text.encode(), rng) if kind else words_changed(text, rng).encode())
        _check_study(load_study(file))

    return read


def _check_study(study: Any) -> None:
    """Store what was read, and see that it is read back as the same."""
    stored = json.loads(json.dumps(study.model_dump(mode="json", exclude_unset=True)))
    if parse_study(stored) != study:
        raise WrongAnswerError("a study that is stored is read back as another")


_SHAPES = ((3, 28, 28), (5,))


def idx(folder: Path) -> Reader:
    """Read IDX files: sound ones with other bytes, unpacked by `read_idx`, packed or not by `fetch`."""
    os.environ["MNIST_ABLATE_DATA"] = str(folder / "data")
    arrays = [
        np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape) % 10 for shape in (*_SHAPES, *_SHAPES)
    ]
    contents = [catalogue.idx_header(array.shape) + array.tobytes() for array in arrays]
    names = [file.name for file in catalogue.DATASETS["mnist"]]
    files = tuple(
        data.IdxFile(name, array.shape, hashlib.sha256(content).hexdigest())
        for name, array, content in zip(names, arrays, contents, strict=True)
    )
    catalogue.DATASETS = {"mnist": files, "fashion-mnist": files}
    source = folder / "source"
    source.mkdir()

    def read(rng: random.Random) -> None:
        if rng.random() < 0.1:
            _fetch(rng, source, dict(zip(names, contents, strict=True)))
            return
        which = rng.randrange(2)
        file, content = folder / "file", bytes_changed(contents[which], rng)
        file.write_bytes(content)
        found = read_idx(file, _SHAPES[which])
        if catalogue.idx_header(found.shape) + found.tobytes() != content:
            raise WrongAnswerError("other numbers than the file has")

    return read


def _fetch(rng: random.Random, source: Path, sound: dict[str, bytes]) -> None:
    for old in [*source.iterdir(), *(data.data_folder() / "mnist").glob("*ubyte")]:
        old.unlink()
    changed = rng.choice(list(sound))
    for name, content in sound.items():
        packed = rng.random() < 0.5
        stored = gzip.compress(content) if packed else content
        stored = bytes_changed(stored, rng) if name == changed else stored
        (source / (name + ".gz" * packed)).write_bytes(stored)
    data.fetch("mnist", source)
    data.load("mnist")


_RUNS = (
    """name = "fuzzed"\nseeds = 2\n[protocol]\nepochs = 2\n[factors]\nl2 = [0.0, 1e-4]\nbatch_norm = [false, true]\n"""
)


def _results(folder: Path) -> Store:
    """Make a results folder of two runs, without training."""
    study = parse_study(tomllib.loads(_RUNS))
    epoch = dict.fromkeys(EPOCH_COLUMNS, 0.5) | {"status": "ok"}
    predictions = {
        name: np.zeros(20, PREDICTION_SCHEMA.field(name).type.to_pandas_dtype()) for name in PREDICTION_SCHEMA.names
    }
    with Store(folder).opened(study) as opened:
        for run in plan(study)[:2]:
            document = {
                "provenance": {"torch": "2", "processor": "x"},
                "data_sha256": "0" * 64,
                "first_losses": [2.0, 1.5],
            }
            declared = {"declared": {"study_sha256": "", "hypotheses_sha256": study.hypotheses_sha256, "looks": [2]}}
            opened.write_run(run, [epoch | {"epoch": n} for n in (1, 2)], predictions, document | declared)
    return opened


def run_files(folder: Path) -> Reader:
    """Read a results folder, one of whose files has other bytes, the digest right again or not, or another document."""
    stored, compact = _results(folder / "results"), folder / "compact"
    loaded = load(stored.folder)
    compact_module.INDEX_FROM = 1
    compact_module.write_index(loaded)
    write_compact(loaded, compact)
    run_id = stored.stored()[0]
    run = stored.run_file(run_id)
    others = [stored.index_file, stored.predictions_file(run_id), *sorted(compact.glob("*.parquet"))]
    sound = {file: (file.read_bytes(), *read_table(file)) for file in (run, *others)}

    def read(rng: random.Random) -> None:
        file = run if rng.random() < 0.9 else rng.choice(others)
        content, table, document = sound[file]
        kind = rng.randrange(10)
        if kind < 3:
            file.write_bytes(bytes_changed(content, rng))
        elif kind < 6:
            file.write_bytes(sealed(bytes_changed(content, rng)))
        else:
            _write(file, _table_changed(table, rng), values_changed(document, rng))
        try:
            if file == run and rng.random() < 0.95:
                found, _ = stored.read_run(run_id)
                if kind < 3 and file.read_bytes() != content:
                    raise WrongAnswerError("a file that was changed is read")
                assert found.num_rows
            else:
                _open(compact if file.parent == compact else stored.folder)
        finally:
            file.write_bytes(content)

    return read


def _open(folder: Path) -> None:
    """Open a results folder in every way that does not train."""
    doctor.examine(folder)
    results = load(folder)
    assert results.mistakes is not None or results.no_mistakes
    assert len(words.notices(analyse(results))) >= 0
    if not set(EPOCH_COLUMNS) <= set(results.epochs.columns):
        raise WrongAnswerError("columns of the schema are missing")
    if results.epochs.duplicated(["run_id", "epoch"]).any():
        raise WrongAnswerError("an epoch is there twice")


def _write(file: Path, table: pa.Table, document: Any) -> None:
    """Write a table with any document, and a digest that is right."""
    text = json.dumps(document)[:-1] + (", " if document else "") + '"digest": "' + "0" * 64 + '"}'
    text = text if isinstance(document, dict) else json.dumps([document, {"digest": "0" * 64}])
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: text.encode()})
    file.write_bytes(sealed(buffer.getvalue()))


def _table_changed(table: pa.Table, rng: random.Random) -> pa.Table:
    """Leave a table as it is, or lose a column, change a type, empty it, repeat it, or put nothing in a column."""
    at = rng.randrange(table.num_columns)
    match rng.randrange(8):
        case 0:
            return table.remove_column(at)
        case 1:
            return table.set_column(
                at, table.column_names[at], pa.array([str(v) for v in table.column(at).to_pylist()])
            )
        case 2:
            return table.slice(0, rng.randrange(table.num_rows + 1))
        case 3:
            return pa.concat_tables([table] * rng.choice((2, 100)))
        case 4:
            return table.set_column(at, table.column_names[at], pa.nulls(table.num_rows))
        case _:
            return table


def references(folder: Path) -> Reader:
    """Read the gate's reference, one of whose files has other bytes, words or values."""
    rows = [
        {"cell": cell, "seed": seed, "repeat": n, "value": 97.0 + n / 100}
        for cell in "ab"
        for seed in (0, 1)
        for n in (0, 1)
    ]
    gate_reference.Reference.of_tables(pd.DataFrame(rows), pd.DataFrame(rows)).save(folder / "reference")
    sound = {path: path.read_bytes() for path in sorted((folder / "reference").iterdir())}

    def read(rng: random.Random) -> None:
        file = rng.choice(list(sound))
        file.write_bytes(_reference_changed(file, sound[file], rng))
        try:
            found = gate_reference.load_reference(folder / "reference")
            if not {"cell", "seed", "value"} <= set(found.evidence.runs) or not isinstance(found.contrasts, dict):
                raise WrongAnswerError("no table of runs")
        finally:
            file.write_bytes(sound[file])

    return read


def _reference_changed(file: Path, content: bytes, rng: random.Random) -> bytes:
    if file.suffix == ".toml":
        return words_changed(content.decode(), rng).encode() if rng.random() < 0.5 else bytes_changed(content, rng)
    if file.suffix == ".json":
        if rng.random() < 0.3:
            return bytes_changed(content, rng)
        return json.dumps(values_changed(json.loads(content), rng)).encode()
    if rng.random() < 0.4:
        table, document = parse_table(file, content)
        if table.num_columns:
            _write(file, _table_changed(table, rng), document)
            return file.read_bytes()
    changed = bytes_changed(content, rng)
    return sealed(changed) if rng.random() < 0.6 else changed


_WORDS = (
    *("run", "plan", "data", "verify", "doctor", "gate", "--seeds", "--epochs", "--dataset", "--workers", "--engine"),
    *("--fail-fast", "--out", "--report", "--repair", "--sample", "--power", "--reference", "--study", "--accept"),
    *("--why", "--changed-on-purpose", "--from", "factorial", "gate", "mnist", "fashion-mnist", "fused", "autograd"),
    *("here", "here/results", "study.toml", "there", "0", "1", "2", "-1", "3.5", "", "-", "--", "--x", "-h", "1" * 30),
    *("9" * 5000, "x" * 300, "\u00e9", "\udce9", "\n", "a b", ".", "..", "here/../here", "=", "--seeds=2"),
    *("--out=there", "NaN", "\u0661"),
)
_BEGINNINGS = (
    *(("run", "study.toml"), ("plan", "study.toml"), ("doctor", "here/results"), ("verify", "here/results")),
    *(("gate", "here/results"), ("data",), ("data", "mnist", "--from"), ("run", "study.toml", "--out"), ()),
)


def command_lines(folder: Path) -> Reader:
    """Give the program words in any order; what trains or fetches is replaced by nothing."""
    _results(folder / "here" / "results")
    (folder / "study.toml").write_text(_RUNS, encoding="utf-8")
    os.chdir(folder)
    _nothing_trains()

    def read(rng: random.Random) -> None:
        words = [*rng.choice(_BEGINNINGS), *rng.choices(_WORDS, k=rng.randrange(7))]
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                status = cli.main(words)
            except SystemExit as error:
                status = int(error.code or 0)
        if status not in (0, 1, 2, 3) or "Traceback" in told.getvalue():
            raise WrongAnswerError(f"status {status}: {told.getvalue()[-300:]}")
        if status:
            raise MnistAblateError(told.getvalue())

    return read


def _nothing_trains() -> None:
    """Put stubs in the place of all that trains, fetches or draws."""
    from mnist_ablate.training import estimate

    report = SimpleNamespace(html="here")
    for module, name, stub in (
        (runner, "_train_missing", None),
        (estimate, "core_seconds", 1.0),
        (data, "fetch", data.Fetched("mnist", Path("here"), "a stub")),
        (gate_accept, "accept", None),
        (gate_runs, "judge", (SimpleNamespace(sentence="a stub", exit_status=3), "here")),
        (cli, "write", report),
    ):
        setattr(module, name, lambda *_, stub=stub, **__: stub)
    vars(verify).update(
        _train_again=lambda _, runs, __: (verify.Check(run, "") for run in runs), Processes=lambda _: InlineExecutor()
    )


READERS: dict[str, Callable[[Path], Reader]] = {
    "study file (TOML)": studies,
    "images (IDX)": idx,
    "results folder (Parquet)": run_files,
    "the gate's reference": references,
    "command line": command_lines,
}


# ---- A block ----


def block(reader: str, first: int, size: int, progress: Path) -> dict[str, Any]:
    """Read the inputs from number `first` on, in this process."""
    outcomes: Counter[str] = Counter()
    examples: dict[str, str] = {}
    longest = 0.0
    slowest = first
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:  # noqa: S108
        read = READERS[reader](Path(folder))
        signal.signal(signal.SIGALRM, _hangs)
        counter = os.open(progress, os.O_WRONLY | os.O_CREAT)
        for number in range(first, first + size):
            os.pwrite(counter, f"{number:12}".encode(), 0)
            signal.alarm(_ALARM)
            began = time.process_time()
            outcome, example = _one(read, random.Random(f"{reader}/{number}"))  # noqa: S311 # no secret
            seconds = time.process_time() - began
            signal.alarm(0)
            if seconds > longest:
                longest, slowest = seconds, number
            if seconds > SECONDS:
                outcome, example = "hang", f"{seconds:.1f} s, then {outcome}"
            outcomes[outcome] += 1
            if example:
                examples.setdefault(f"{outcome} {number}", example)
        os.chdir("/")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bad = dict(list(examples.items())[:20])
    return {"outcomes": outcomes, "longest": longest, "slowest": slowest, "peak_mb": peak, "bad": bad}


def _hangs(*_: object) -> None:
    raise HangError


def _one(read: Reader, rng: random.Random) -> tuple[str, str]:
    """Read one input; return what came of it and, where that must not be, the traceback."""
    try:
        read(rng)
    except MnistAblateError as error:
        return (type(error).__name__, "") if "Traceback" not in str(error) else ("traceback", str(error))
    except HangError:
        return "hang", traceback.format_exc()[-1500:]
    except WrongAnswerError as error:
        return "wrong answer", str(error)
    except BaseException:  # noqa: BLE001 # whatever escapes is what is looked for
        return "traceback", traceback.format_exc()[-1500:]
    return "right", ""


def make(reader: str, first: int, size: int, work: Path) -> dict[str, Any]:
    """Read a block in a process of its own, unless its file is there; a process that dies is a result, too."""
    name = f"{list(READERS).index(reader)}-{first:07}-{size}"
    out = work / f"{name}.json"
    if not out.exists():
        progress = work / f"{name}.progress"
        command = [sys.executable, __file__, "--block", json.dumps([reader, first, size, str(progress)])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            at = int(progress.read_text() or first) if progress.exists() else first
            found: dict[str, Any] = {
                "outcomes": {"crash": 1, "not read": size - 1},
                "longest": 0.0,
                "slowest": at,
                "peak_mb": 0.0,
                "bad": {f"crash {at}": f"status {done.returncode}: {done.stderr[-1500:]}"},
            }
        else:
            found = json.loads(done.stdout.splitlines()[-1])
        progress.unlink(missing_ok=True)
        temporary = out.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
        temporary.rename(out)
        sizes = f"longest {found['longest']:.2f} s, {found['peak_mb']:.0f} MB"
        print(f"{time.strftime('%H:%M:%S')} {reader} from {first}: {found['outcomes']}, {sizes}", flush=True)
        for number, example in found["bad"].items():
            print(f"  {number}: {example}", flush=True)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


BAD = ("traceback", "wrong answer", "hang", "crash", "not read")


def summary(reader: str, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lay out the blocks of a reader: a row for each outcome."""
    outcomes: Counter[str] = sum((Counter(found["outcomes"]) for found in blocks), Counter())
    shared = {
        "reader": reader,
        "inputs": outcomes.total(),
        "longest_seconds": max(found["longest"] for found in blocks),
    }
    shared["peak_mb"] = max(found["peak_mb"] for found in blocks)
    return [{**shared, "outcome": name, "n": n} for name, n in sorted({**dict.fromkeys(BAD, 0), **outcomes}.items())]


def main() -> None:
    """Read all blocks that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "results" / "fuzz")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of each reader; with fewer nothing is published")
    parser.add_argument("--only", nargs="*", default=[], help="names of readers, or parts of them")
    parser.add_argument("--block", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.block:
        reader, first, size, progress = json.loads(arguments.block)
        print(json.dumps(block(reader, first, size, Path(progress))))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in READERS if not arguments.only or any(part in name for part in arguments.only)]
    size = min(BLOCK, arguments.inputs)
    rows = []
    for reader in chosen:
        rows += summary(
            reader, [make(reader, first, size, arguments.work) for first in range(0, arguments.inputs, size)]
        )
    found = pd.DataFrame(rows)
    print(found.to_string(index=False))
    if arguments.inputs == INPUTS and len(chosen) == len(READERS):
        found.to_parquet(TABLE, index=False)
        print(f"Table: {TABLE}")


if __name__ == "__main__":
    main()
