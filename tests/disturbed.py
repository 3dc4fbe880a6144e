"""Commands that a test starts and disturbs: when to do so, and which workers they have."""

import signal
import subprocess
import time
from pathlib import Path


def heed_ctrl_c() -> None:
    """Make a child heed SIGINT, which a background job of a script inherits as ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(driver: "subprocess.Popen[str]", out: Path, runs: int) -> None:
    """Wait until so many runs are stored."""
    while len(list((out / "runs").glob("*.parquet"))) < runs:
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        time.sleep(0.02)


def hear(driver: "subprocess.Popen[str]", words: str) -> str:
    """Wait until a command says some words on stderr; return what it has said."""
    assert driver.stderr is not None
    said = ""
    while words not in said:
        line = driver.stderr.readline()
        assert line, f"ended without {words!r}: {said}"
        said += line
    return said


def workers_of(driver: int) -> list[int]:
    """List the worker processes of a driver."""
    tasks = Path(f"/proc/{driver}/task").glob("*/children")
    children = [int(pid) for file in tasks for pid in file.read_text().split()]
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
