"""Bad input: every reader gives a right answer or one of our own errors, never a traceback and never a hang.

Hypothesis damages sound input, keeps what a reader must not do as a failure, and shrinks it to the smallest input.
The suite tries 200 inputs of each kind, ``nox -s fuzz`` tries 10,000 and shows how often each outcome came.
"""

import contextlib
import copy
import gzip
import io
import json
import math
import resource
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import synthetic
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mnist_ablate import cli, data
from mnist_ablate.checks import doctor
from mnist_ablate.data.files import read_idx
from mnist_ablate.design.study import bundled_studies, load_study, parse_study
from mnist_ablate.errors import DamagedFileError, DataError, MnistAblateError, WorkerError
from mnist_ablate.execution.executors import InlineExecutor, Processes
from mnist_ablate.gate import accept, runs
from mnist_ablate.gate.reference import Reference, load_reference
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import words
from mnist_ablate.store import compact, results
from mnist_ablate.store.folder import Store
from mnist_ablate.store.schema import EPOCH_COLUMNS
from mnist_ablate.store.sealed import parse_table, read_table, sealed, write_table
from mnist_ablate.training import estimate

ROOT = Path(__file__).parents[1]
SECONDS, GIGABYTE = 10.0, 1 << 30
"""The processor time and the memory that reading one input may take; more is a hang, or a MemoryError."""
STATM = Path("/proc/self/statm")

# A long input makes a long report of a failure, which is fine.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr:hypothesis.errors.HypothesisWarning")
many = settings(max_examples=max(200, settings().max_examples))


class HangError(Exception):
    """Reading did not end."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Allow 10 seconds of processor time and, on Linux, a gigabyte more of memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if STATM.exists():
        has = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + GIGABYTE, before[1]))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def read(call: Callable[[], object]) -> None:
    """Have an input read; anything raised except our own errors escapes and fails the test."""
    outcome, message = "right answer", ""
    with limited():
        try:
            call()
        except MnistAblateError as error:
            outcome, message = type(error).__name__, str(error)
    assert "Traceback" not in message
    event(outcome)  # for --hypothesis-show-statistics


@pytest.fixture(scope="module", autouse=True)
def hangs() -> Iterator[None]:
    """Raise `HangError` in a reader that does not end."""

    def hang(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, hang)
    yield
    signal.signal(signal.SIGVTALRM, before)


# ---- Damage ----

_BYTES = (b"", b"\n", b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80")
_DEEP = tuple(bracket * 20_000 for bracket in (b"[", b"{", b"[{", b"(("))
_WORDS = (
    *("0", "-1", "1e308", "1e-320", "inf", "nan", "-0.0", "9" * 23, "1e5", "65536", "32768", "0x7f", "9" * 5000),
    *("true", '""', "[]", "{}", "1979-05-27", '"\\u0000"', '"../../x"', '"<script>"', "[[]]", "1_0", '"\u00e9"'),
)
_VALUES = st.sampled_from(
    (2**31, 2**63, 2**70, 10**400, -0.0, 1e308, math.inf, math.nan, "a" * 5000, "\0", "\ud800", "../../../etc/passwd")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | _VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """Overwrite, insert, remove or repeat bytes in up to four places, or nest them deeply."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        size = draw(st.integers(0, 8) | st.integers(0, len(content)))
        copied = st.builds(lambda at: bytes(content[at : at + 64]), st.integers(0, len(content)))
        content[start : start + size] = draw(st.binary(max_size=64) | copied | st.sampled_from((*_BYTES, *_DEEP)))
    return bytes(content)


@st.composite
def reworded(draw: st.DrawFn, texts: Sequence[str]) -> bytes:
    """Give keys of a TOML file other values, repeat its lines, or put them elsewhere."""
    lines = draw(st.sampled_from(texts)).splitlines()
    numbers = st.lists(st.floats(0, 1) | st.integers(0, 9), max_size=40).map(str)
    for _ in range(draw(st.integers(1, 4))):
        at, other = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        own = lines[at].partition("=")[0] if "=" in lines[at] else "x"
        key = draw(st.sampled_from((own, own, own, "seeds", "epochs", "l2", "alpha", "levels", "x")))
        value = f"{key} = {draw(st.sampled_from(_WORDS) | numbers)}"
        lines[at : at + draw(st.integers(0, 1))] = [draw(st.sampled_from((value, value, value, lines[other])))]
    return "\n".join(lines).encode(errors="surrogatepass")


@st.composite
def changed(draw: st.DrawFn, documents: Sequence[Any]) -> Any:
    """Remove, rename, repeat or replace up to three things in nested dictionaries and lists."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        parent, key = places[draw(st.integers(0, len(places) - 1))] if places else ({}, "")
        match draw(st.sampled_from(("remove", "rename", "repeat", "replace"))) if places else "":
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(("", "x", "digest", "own", "seed", "\0", "<b>")))] = parent.pop(key)
            case "repeat":
                parent[key] = [parent[key]] * draw(st.sampled_from((0, 1, 2, 50)))
            case _:
                parent[key] = draw(JSON)
    return document


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def rearranged(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """Take a column of a table away, give it another type or nothing in it, or cut or repeat the rows."""
    at = draw(st.integers(0, table.num_columns - 1))
    as_text = pa.array([str(value) for value in table.column(at).to_pylist()])
    return draw(st.sampled_from((
        table,
        table.remove_column(at),
        table.set_column(at, table.column_names[at], as_text),
        table.set_column(at, table.column_names[at], pa.nulls(table.num_rows)),
        table.slice(0, draw(st.integers(0, table.num_rows))),
        pa.concat_tables([table] * draw(st.sampled_from((2, 100)))),
    )))  # fmt: skip


# ---- Study files ----

_TEXTS = [
    (ROOT / "mnist_ablate" / "studies" / f"{name}.toml").read_text(encoding="utf-8") for name in bundled_studies()
]
_DOCUMENTS = [load_study(name).model_dump(mode="json", exclude_unset=True) for name in bundled_studies()]


def _stored_and_read(study: Any) -> None:
    """Store a study that was read: it must be read back as the same."""
    stored = json.loads(json.dumps(study.model_dump(mode="json", exclude_unset=True)))
    assert parse_study(stored) == study


@many
@given(content=damaged([text.encode() for text in _TEXTS]) | reworded(_TEXTS))
def test_study_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A study file with other bytes, words or lines is refused, or read as a study that can be stored."""
    file = tmp_path_factory.getbasetemp() / "study.toml"
    file.write_bytes(content)
    read(lambda: _stored_and_read(load_study(file)))


@many
@given(document=changed(_DOCUMENTS))
def test_study_documents(document: dict[str, Any]) -> None:
    """A study from Python with anything in place of its values is refused, or can be stored."""
    read(lambda: _stored_and_read(parse_study(document)))


# ---- Images ----

_SHAPES = {"images-idx3": (3, 28, 28), "labels-idx1": (5,)}


def _idx(shape: tuple[int, ...]) -> bytes:
    header = struct.pack(f">2x2B{len(shape)}I", 8, len(shape), *shape)
    return header + bytes(np.arange(math.prod(shape), dtype=np.int64).astype(np.uint8) % 10)


@many
@given(name=st.sampled_from(list(_SHAPES)), content=damaged([_idx(shape) for shape in _SHAPES.values()]))
def test_image_files(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    """An IDX file with other bytes is refused, or read as exactly the bytes that it has."""
    file, shape = tmp_path_factory.getbasetemp() / name, _SHAPES[name]
    file.write_bytes(content)

    def right() -> None:
        assert struct.pack(f">2x2B{len(shape)}I", 8, len(shape), *shape) + read_idx(file, shape).tobytes() == content

    read(right)


@many
@given(content=damaged([gzip.compress(_idx(shape)) for shape in _SHAPES.values()]))
def test_packed_image_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A folder of gzip files that are damaged, or not the data set's, is refused."""
    folder = tmp_path_factory.getbasetemp() / "packed"
    folder.mkdir(exist_ok=True)
    for file in data.DATASETS["mnist"]:
        (folder / f"{file.name}.gz").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_ABLATE_DATA", str(folder / "data"))
        with limited(), pytest.raises(DataError):
            data.fetch("mnist", folder)


# ---- Results folders ----


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Make a results folder of 8 runs with an index, a compact one, and remember what their files hold."""
    parent = tmp_path_factory.mktemp("stored")
    store = Store(synthetic.make(parent / "results", synthetic.factorial(1, 2)))
    loaded = results.load(store.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "INDEX_FROM", 1)
        compact.write_index(loaded)
    small = compact.write_compact(loaded, parent / "compact")
    run = store.stored()[0]
    files = [store.run_file(run), store.predictions_file(run), store.index_file, *sorted(small.glob("*.parquet"))]
    return SimpleNamespace(store=store, run=run, sound={file: (file.read_bytes(), *read_table(file)) for file in files})


def _open(folder: Path) -> None:
    """Open a results folder in every way that does not train."""
    doctor.examine(folder)
    loaded = results.load(folder)
    assert loaded.mistakes is not None or loaded.no_mistakes
    assert all(words.notices(analyse(loaded)))
    assert set(EPOCH_COLUMNS) <= set(loaded.epochs.columns)
    assert not loaded.epochs.duplicated(["run_id", "epoch"]).any()


@many
@given(of=st.data(), which=st.sampled_from((0, 0, 0, 0, 1, 2, 3, 4)), how=st.sampled_from(("bytes", "sealed", "table")))
def test_results_folders(stored: SimpleNamespace, of: st.DataObject, which: int, how: str) -> None:
    """A file with other bytes is damaged; one with a right digest but other rows or values is read or named."""
    file = list(stored.sound)[which]
    content, table, document = stored.sound[file]
    if how == "table":
        write_table(file, of.draw(rearranged(table)), of.draw(changed([document])))
    else:
        other = of.draw(damaged([content]))
        file.write_bytes(sealed(other) if how == "sealed" else other)
    try:
        if which == 0:
            read(lambda: stored.store.read_run(stored.run))
            if how == "bytes" and other != content:
                with pytest.raises(DamagedFileError):
                    read_table(file)
        else:
            read(lambda: _open(file.parent if which > 2 else stored.store.folder))
    finally:
        file.write_bytes(content)


# ---- The gate's reference ----


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    """Save a small reference, and remember what its files hold."""
    rows = [{"cell": c, "seed": s, "repeat": n, "value": 97 + n / 100} for c in "ab" for s in (0, 1) for n in (0, 1)]
    folder = tmp_path_factory.mktemp("gate") / "reference"
    Reference.of_tables(pd.DataFrame(rows), pd.DataFrame(rows)).save(folder)
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


def _load_reference(folder: Path) -> None:
    loaded = load_reference(folder)
    assert {"cell", "seed", "value"} <= set(loaded.evidence.runs)
    assert isinstance(loaded.contrasts, dict)


@many
@given(of=st.data(), choice=st.integers(0, 99), whole=st.booleans())
def test_gate_references(reference: dict[Path, bytes], of: st.DataObject, choice: int, whole: bool) -> None:
    """A reference, one of whose files has other bytes, words, rows or values, is refused or read."""
    file = list(reference)[choice % len(reference)]
    content = reference[file]
    if file.suffix == ".parquet" and whole and (table := parse_table(file, content)[0]).num_columns:
        write_table(file, of.draw(rearranged(table)), parse_table(file, content)[1])
    elif file.suffix == ".json" and whole:
        file.write_text(json.dumps(of.draw(changed([json.loads(content)]))))
    elif file.suffix == ".toml" and whole:
        file.write_bytes(of.draw(reworded([content.decode()])))
    else:
        other = of.draw(damaged([content]))
        file.write_bytes(sealed(other) if whole else other)
    try:
        read(lambda: _load_reference(file.parent))
    finally:
        file.write_bytes(content)


# ---- The command line ----

_BEGINNINGS = (
    *(("run", "study.toml"), ("plan", "study.toml"), ("doctor", "here/results"), ("verify", "here/results")),
    *(("gate", "here/results"), ("data",), ("data", "mnist", "--from"), ("run", "study.toml", "--out"), ()),
)
_ARGUMENTS = (
    *("run", "plan", "data", "verify", "doctor", "gate", "--seeds", "--epochs", "--dataset", "--workers", "--engine"),
    *("--fail-fast", "--out", "--report", "--repair", "--sample", "--power", "--reference", "--study", "--accept"),
    *("--why", "--changed-on-purpose", "--from", "factorial", "gate", "mnist", "fashion-mnist", "fused", "autograd"),
    *("here", "here/results", "study.toml", "there", "0", "1", "2", "-1", "3.5", "", "-", "--", "--x", "-h", "1" * 30),
    *("9" * 5000, "x" * 300, "\u00e9", "\udce9", "\n", "a b", ".", "..", "here/../here", "=", "--seeds=2"),
    *("--out=there", "NaN", "\u0661"),
)
_STUDY = 'name = "fuzzed"\nseeds = 2\n[protocol]\nepochs = 2\n[factors]\nl2 = [0.0, 1e-4]\nbatch_norm = [false, true]\n'


@pytest.fixture(scope="module")
def in_place_of_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Work beside a study and a results folder, where training fails at once and nothing is fetched."""

    def no_training(*_: object, **__: object) -> None:
        raise WorkerError("nothing trains here")

    folder = tmp_path_factory.mktemp("commands")
    synthetic.make(folder / "here" / "results", synthetic.factorial(1, 2))
    (folder / "study.toml").write_text(_STUDY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Processes, "__init__", no_training)
        patch.setattr(InlineExecutor, "submit", no_training)
        patch.setattr(estimate, "core_seconds", lambda *_: 1.0)
        patch.setattr(data, "fetch", lambda *_, **__: SimpleNamespace(name="mnist", folder=folder, source="a stub"))
        patch.setattr(accept, "accept_reference", lambda *_, **__: None)
        patch.setattr(runs, "gate", lambda *_, **__: SimpleNamespace(exit_status=3, page="here"))
        yield


def _run_command(arguments: list[str]) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            status = cli.main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
    assert status in (0, 1, 2, 3)
    assert "Traceback" not in printed.getvalue()
    if status:
        raise MnistAblateError(printed.getvalue())


@many
@given(
    beginning=st.sampled_from(_BEGINNINGS),
    more=st.lists(
        st.sampled_from(_ARGUMENTS) | st.text(st.characters(exclude_characters="\0"), max_size=5), max_size=6
    ),
)
@pytest.mark.usefixtures("in_place_of_training")
def test_command_lines(beginning: tuple[str, ...], more: list[str]) -> None:
    """Any words after the program's name are obeyed or refused, with one of the four exit statuses."""
    read(lambda: _run_command([*beginning, *more]))
