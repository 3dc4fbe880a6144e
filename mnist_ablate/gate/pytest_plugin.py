"""A gate for any training, as a plugin of pytest: the fixture `gate` takes values, and fails the test that has moved.

pytest imports this module in every session of whoever has the package installed. So it imports nothing heavy before a
test has given a value.
"""

import csv
import operator
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter  # no public name in older versions

COLUMNS = ("cell", "seed", "response", "repeat", "value")
"""Of a file of recorded values, as `mnist_ablate.gate.tables.read_runs` reads it."""

Key = tuple[str, int, str]
"""Cell, seed and metric."""


class Gate:
    """Takes the values of a test, which are judged together when the test is over.

    Parameters
    ----------
    repeat
        Which repeat is being recorded, counted from 0; 0 while values are judged. What must not matter to the result
        may depend on it, such as initial weights or the order of batches: it shows what chance does.
    """

    def __init__(self, repeat: int = 0) -> None:
        self.repeat = repeat
        self.values: dict[Key, float] = {}

    def __call__(self, cell: str, seed: SupportsIndex, value: SupportsFloat, metric: str = "value") -> None:
        """Take the value that a training gave.

        Parameters
        ----------
        cell
            What was trained, such as ``"small"``.
        seed
            Of the training. Values of one seed are compared with each other.
        value
            The result, such as the accuracy.
        metric
            What `value` is. Where its name does not say which way is better, as that of an accuracy or a loss does,
            ``[gate.better]`` in the reference's ``gate.toml`` says it.

        Raises
        ------
        ValueError
            If the test has given this value before.
        """
        key = (str(cell), operator.index(seed), str(metric))
        if key in self.values:
            raise ValueError(f"cell {key[0]}, seed {key[1]}: {key[2]} is given twice in this test.")
        self.values[key] = float(value)


# ---- Options ----


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the gate."""
    group = parser.getgroup("gate", "gate for trainings (mnist-ablate)")
    group.addoption("--gate-record", metavar="FILE", help="add the values to this CSV file, and judge nothing")
    group.addoption("--gate-page", metavar="FILE", help="write the verdicts to this Markdown file")
    parser.addini("gate_reference", "folder of the gate's reference, from the root folder", default="tests/gate")
    parser.addini("gate_cannot_tell", "what a test does when the gate cannot tell: fail or skip", default="fail")


_REPEAT = pytest.StashKey[int]()
_GATE = pytest.StashKey[Gate]()
_SAID = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, and gather what the tests say, in the one process that writes."""
    if config.getini("gate_cannot_tell") not in ("fail", "skip"):
        raise pytest.UsageError(f"gate_cannot_tell = {config.getini('gate_cannot_tell')}: allowed: fail or skip")
    record = config.getoption("--gate-record")
    config.stash[_REPEAT] = _next_repeat(Path(record)) if record else 0
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist has it
        config.pluginmanager.register(_Session(config), "mnist_ablate_gate_session")


def _next_repeat(file: Path) -> int:
    """Return the number of the repeat that goes into a file next."""
    if not file.exists():
        return 0
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
            return max((int(row["repeat"]) for row in reader), default=-1) + 1
    except (OSError, ValueError, TypeError) as error:
        raise pytest.UsageError(f"--gate-record {file}: cannot be added to ({error}). Name another file.") from error


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Take values of a training: ``gate(cell, seed, value, metric)``; the test fails if they have moved too far."""
    taken = request.node.stash[_GATE] = Gate(request.config.stash[_REPEAT])
    return taken


# ---- A test ----


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge what the test gave the gate, if nothing else was wrong with it."""
    result = yield
    gate = item.stash.get(_GATE, None)
    if gate is None:
        return result
    if not gate.values:
        pytest.fail("Cannot tell: the test gave the gate no value. Call gate(cell, seed, value).", pytrace=False)
    if item.config.getoption("--gate-record"):
        rows = [[cell, seed, metric, gate.repeat, value] for (cell, seed, metric), value in gate.values.items()]
        item.stash[_SAID] = {"rows": rows}
        return result
    said = item.stash[_SAID] = _judged(gate, item.config.rootpath / item.config.getini("gate_reference"))
    text = "\n".join([said["sentence"], *said["lines"]])
    if said["outcome"] == "fail":
        pytest.fail(text, pytrace=False)
    if said["outcome"] == "cannot tell":
        if item.config.getini("gate_cannot_tell") == "skip":
            pytest.skip(text)
        pytest.fail(text, pytrace=False)
    return result


def _judged(gate: Gate, folder: Path) -> dict[str, Any]:
    """Judge values, and say what came out in plain types, which a worker of pytest-xdist can send."""
    from mnist_ablate.errors import MnistAblateError, ResultsError
    from mnist_ablate.gate.page import distances, markdown
    from mnist_ablate.gate.tables import judge_values

    try:
        verdict, reference = judge_values(gate.values, folder)
    except ResultsError:
        sentence = (
            f"Cannot tell: {folder} has no reference. Record one: `pytest --gate-record values.csv`, several times, "
            f"then `python -m mnist_ablate gate values.csv --accept --reference {folder} --why TEXT`."
        )
        return {"outcome": "cannot tell", "sentence": sentence, "lines": [], "page": sentence}
    except MnistAblateError as error:
        sentence = f"Cannot tell: {error}"
        return {"outcome": "cannot tell", "sentence": sentence, "lines": [], "page": sentence}
    seeds, known = (len({row[1] for row in gate.values}), reference.evidence.runs["seed"].nunique())
    lines = [f"{seeds} of {known} seeds", *distances(verdict)]
    page = markdown(verdict, reference.document, in_units=False)
    return {"outcome": verdict.outcome, "sentence": str(verdict.sentence), "lines": lines, "page": page}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send what the gate said along with the report of the test."""
    report = yield
    said = item.stash.get(_SAID, None)
    if said is not None and call.when == "call":
        report.gate = said  # type: ignore[attr-defined] # a report takes any attribute
    return report


# ---- A session ----


class _Session:
    """Gathers what the gate said of all tests, writes the files, and prints a section."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.said: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        self.note = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what the gate said of a test, the last time that it ran."""
        if hasattr(report, "gate"):
            self.said[report.nodeid] = report.gate
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the values or the verdicts."""
        record, page = (self.config.getoption(name) for name in ("--gate-record", "--gate-page"))
        try:
            if record:
                self.note = self._record(Path(record))
            elif page and self.said:
                verdicts = (f"`{test}`\n\n{said['page']}" for test, said in self.said.items())
                Path(page).parent.mkdir(parents=True, exist_ok=True)
                Path(page).write_text("\n".join(verdicts), encoding="utf-8")
        except (OSError, ValueError) as error:
            self.note = f"not written: {error}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _record(self, file: Path) -> str:
        """Add the values of all tests to a file, and say so."""
        if self.failed:
            return f"nothing recorded: {self.failed[0]} failed. A reference needs a session that went well."
        rows = list(self._rows())
        if not rows:
            return "nothing recorded: no test gave the gate a value."
        file.parent.mkdir(parents=True, exist_ok=True)
        new = not file.exists()
        with file.open("a", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerows([list(COLUMNS)] * new + rows)
        repeat = rows[0][COLUMNS.index("repeat")]
        return f"{len(rows)} values recorded in {file}, as repeat {repeat}. Accept them with " \
               f"`python -m mnist_ablate gate {file} --accept --reference DIR --why TEXT`."  # fmt: skip

    def _rows(self) -> Iterator[list[Any]]:
        """Yield the recorded rows.

        Raises
        ------
        ValueError
            If two tests gave the same value.
        """
        given: dict[tuple[Any, ...], str] = {}
        for test, said in self.said.items():
            for row in said.get("rows", ()):
                before = given.setdefault(tuple(row[:3]), test)
                if before != test:
                    raise ValueError(
                        f"{before} and {test} both gave cell {row[0]}, seed {row[1]}, {row[2]}. Name their cells apart."
                    )
                yield row

    def pytest_terminal_summary(self, terminalreporter: "TerminalReporter") -> None:
        """Say of each check how far from its limit it is."""
        judged = {test: said for test, said in self.said.items() if "sentence" in said}
        if not judged and not self.note:
            return
        terminalreporter.section("gate")
        for test, said in judged.items():
            terminalreporter.write_line(f"{test}: {said['sentence']}")
            for line in said["lines"]:
                terminalreporter.write_line(f"    {line}")
        if self.note:
            terminalreporter.write_line(self.note)
