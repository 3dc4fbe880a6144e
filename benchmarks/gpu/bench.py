"""Runs the processes of `card.py`, each with a limit of time, and stores what they tell as it comes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from telling import UNAVAILABLE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEAST = 10.0
"""Seconds that must be left for a process to begin."""
ABOUT = {"card": "", "driver": 0, "nvrtc": 0, "multiprocessors": 0, "python": ""}


# ---- What was measured ----


@dataclass
class Table:
    """The rows of this call and of earlier ones, stored after each."""

    file: Path
    earlier: list[dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=lambda: dict(ABOUT))

    @classmethod
    def read(cls, file: Path) -> "Table":
        """Take what earlier calls have stored."""
        import pyarrow.parquet as pq

        return cls(file, pq.read_table(file).to_pylist() if file.exists() else [])

    def add(self, part: str, what: str, value: float | str, unit: str = "", failed: bool = False) -> None:
        """Add a number, or why there is none, in place of what earlier calls have of this part and card."""
        number, note = (float("nan"), value) if isinstance(value, str) else (float(value), "")
        row = {"part": part, "what": what, "value": number, "unit": unit, "note": note, "failed": failed, **self.about}
        self.earlier = [old for old in self.earlier if any(old[key] != row[key] for key in ("part", "card"))]
        self.rows.append(row)
        print(line_of(row), flush=True)
        self._store()

    def has(self, part: str) -> bool:
        """Return whether an earlier call has measured a part on this card."""
        return any((row["part"], row["card"]) == (part, self.about["card"]) for row in self.earlier)

    def _store(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        half = self.file.with_suffix(".half")
        pq.write_table(pa.Table.from_pylist(self.earlier + self.rows), half)
        half.replace(self.file)  # which is whole at any time


def line_of(row: dict[str, Any]) -> str:
    """Return a row as it is printed."""
    said = row["note"] or f"{row['value']:,.4g} {row['unit']}"
    return f"{'!' if row['failed'] else ' '} {row['part']:8} {row['what']:52} {said}"


# ---- Processes ----


@dataclass(frozen=True)
class Ended:
    """How a process ended: why it failed, empty if it did not; what it said beside its measurements."""

    why: str = ""
    said: Sequence[str] = ()
    status: int | None = None
    """None if it never began."""


@dataclass
class Bench:
    """Runs processes, one after the other, and takes what they tell."""

    table: Table
    log: TextIO
    scratch: Path
    ends: float
    quick: bool
    jax_python: str = sys.executable
    step: str = ""

    def run(self, part: str, command: Sequence[str], seconds: float) -> Ended:
        """Run a process until it ends or its time is over; add a row for each measurement that it tells."""
        began, self.step = time.monotonic(), ""
        seconds = min(seconds * (10 if self.quick else 1), self.ends - began)  # a look may be on a slow machine
        if seconds < LEAST:
            return Ended("not reached within the limit")
        print(f"==== {part}: {' '.join(command)}", file=self.log, flush=True)
        said: list[str] = []
        with (self.scratch / "output").open("wb") as output, (self.scratch / "output").open("rb") as new:
            process = start(command, output)
            late, rest = False, b""
            try:
                while not late:
                    running = process.poll() is None  # asked before the last look at what it says
                    *lines, rest = (rest + new.read()).split(b"\n")
                    self._take(part, lines, said)
                    if not running:
                        break
                    late = time.monotonic() > began + seconds
                    time.sleep(0.05)
            finally:
                end(process, late)
            self._take(part, (rest + new.read()).split(b"\n"), said)
        why = f"not finished within {seconds:.0f} s" if late else _why(process.returncode, said)
        return Ended(why, said, -signal.SIGKILL if late else process.returncode)

    def _take(self, part: str, lines: Iterable[bytes], said: list[str]) -> None:
        """Take lines that a process has written: those of `telling.py`, and others."""
        for line in lines:
            text = line.decode(errors="replace")
            try:
                told = json.loads(text) if text.startswith("{") else {}
            except ValueError:
                told = {}
            match told:
                case {"about": about}:
                    self.table.about = about
                case {"step": step}:
                    self.step = step
                case {"what": _, "value": _, "unit": _, "failed": _}:
                    self.table.add(part, **told)
                case _ if text:
                    said.append(text)
                    print(text, file=self.log, flush=True)

    def noted(self, part: str, command: Sequence[str], seconds: float, what: str = "", wrong: bool = True) -> Ended:
        """Run a process, and say in a row how and in which step it failed; `wrong` if that counts as a failure."""
        ended = self.run(part, command, seconds)
        begun = ended.status is not None
        if ended.why and (begun or not self.table.has(part)):
            wrong = wrong and begun and ended.status != UNAVAILABLE
            self.table.add(part, self.step or what or "at its start", ended.why, failed=wrong)
        if ended.why and begun and ended.status != UNAVAILABLE:
            print(*(f"    {line[:160]}" for line in ended.said[-15:]), sep="\n", flush=True)
        return ended

    def part(self, name: str, seconds: float, of: str = "") -> Ended:
        """Run a function of `parts.py`."""
        return self.noted(of or name, self.script("parts.py", name, "--scratch", self.scratch), seconds)

    def script(self, name: str, *arguments: object) -> list[str]:
        """Return the command that runs a script of this folder."""
        return [sys.executable, str(HERE / name), *map(str, arguments), *["--quick"] * self.quick]


def start(command: Sequence[str], output: BinaryIO) -> "subprocess.Popen[bytes]":
    """Start a process in a group of its own, which says where it was if it is ended."""
    paths = [str(path) for path in (ROOT, ROOT / "tests", ROOT / "benchmarks" / "peers")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    more = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONFAULTHANDLER": "1", "BEGAN": str(time.monotonic())}
    return subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, env=os.environ | more, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        process_group=0,
    )  # fmt: skip


def end(process: "subprocess.Popen[bytes]", ask: bool = False) -> None:
    """End a process and all that it has started; if asked, Python says first where it is."""
    for sent, seconds in [(signal.SIGABRT, 3)] * ask + [(signal.SIGKILL, 10)]:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def _why(status: int | None, said: Sequence[str]) -> str:
    """Return why a process failed; empty if it did not."""
    if not status:
        return ""
    if status < 0:
        return f"ended by signal {-status}, {signal.strsignal(-status)}"
    errors = [line for line in said if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    last = [*said[-1:], *errors[-1:]][-1:]
    return (last or [""])[0][:300] if status == UNAVAILABLE else f"exit status {status}: {''.join(last)[:300]}"
