"""Where runs are trained."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from mnist_ablate.errors import WorkerError
from mnist_ablate.execution import executors
from mnist_ablate.execution.executors import InlineExecutor, Processes, ended


@pytest.mark.parametrize("make", [InlineExecutor, lambda: Processes(2)], ids=["inline", "processes"])
def test_executors_share_one_interface(make: Callable[[], Executor]) -> None:
    """Each gives results and exceptions through futures, as the standard library's do."""
    with make() as executor:
        futures = [executor.submit(pow, 2, n) for n in range(5)]
        failing = executor.submit(int, "x")
        assert [future.result() for future in futures] == [1, 2, 4, 8, 16]
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result()


def test_inline_leaves_ctrl_c_alone() -> None:
    """Ctrl-C during a call in this process ends the program, not just the call."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupted)


def test_a_killed_worker_breaks_the_pool_and_is_told() -> None:
    """A worker that dies shows as `BrokenProcessPool`, as the standard library has it."""
    with Processes(1) as executor:
        assert isinstance(executor.submit(os._exit, 1).exception(), BrokenProcessPool)


def test_kill_does_not_wait() -> None:
    """`kill` ends workers in the middle of what they do."""
    executor = Processes(2)
    pids = [executor.submit(os.getpid).result() for _ in range(4)]
    executor.submit(time.sleep, 600)
    executor.kill()
    assert not any(alive(pid) for pid in pids)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_worker_that_hangs_is_not_waited_for() -> None:
    """A worker that is stopped when all is finished does not hold up the end, nor is it left."""
    with ended(Processes(1)) as crew:
        pid = crew.submit(os.getpid).result()
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


def half_an_answer(executor: Processes) -> None:
    """Let a worker die while it writes its answer: the pool has read how long that is, and waits for it."""
    pid = executor.submit(os.getpid).result()
    queue: Any = executor._result_queue
    os.write(queue._writer.fileno(), struct.pack("!i", 1000))
    executor.submit(time.sleep, 600)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="its pipes know messages")
def test_killed_in_the_middle_of_an_answer() -> None:
    """Workers are stopped, also where one of them has written half an answer, and the pool waits for the other half."""
    executor = Processes(1)
    half_an_answer(executor)
    kill = threading.Thread(target=executor.kill, daemon=True)
    kill.start()
    kill.join(30)
    assert not kill.is_alive()


@pytest.mark.skipif(os.name == "nt", reason="its pipes know messages")
def test_a_worker_that_dies_in_the_middle_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls end as those of a broken pool, though the pool waits for the rest of the answer; not at once."""
    monkeypatch.setattr(executors, "_UNSEEN_SECONDS", 1.0)
    executor = Processes(2)
    half_an_answer(executor)
    future = executor.submit(time.sleep, 600)
    executor.check()
    assert not future.done()
    deadline = time.monotonic() + 30
    while not future.done() and time.monotonic() < deadline:
        time.sleep(0.1)
        executor.check()
    assert future.done()
    with pytest.raises((BrokenProcessPool, CancelledError)):
        future.result()


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread")])
def test_no_room_for_a_worker_is_one_of_ours(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memory, process or thread left for a worker, the message says so, and what helps."""

    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refused)
    executor = Processes(1)
    with pytest.raises(WorkerError, match=r"(memory|thread)\).*fewer --workers"):
        executor.submit(os.getpid)
    executor.kill()


def test_no_thread_for_the_calls_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started that feeds the workers, the message is the same, and there is no traceback."""

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    executor: Any = Processes(1)
    monkeypatch.setattr(executor._call_queue, "_start_thread", refused)
    with pytest.raises(WorkerError, match=r"thread\).*fewer --workers"):
        executor.submit(os.getpid)
    executor.kill()


def alive(pid: int) -> bool:
    """Tell whether the process is there, and not only waiting to be reaped."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this platform cannot pin a process")
def test_workers_have_cores_of_their_own() -> None:
    """As many workers as cores stay on one each; fewer are left to the system."""
    cores = os.sched_getaffinity(0)
    for workers, expected in ((len(cores), [1]), (len(cores) + 1, [len(cores)])):
        with Processes(workers) as executor:
            futures = [executor.submit(os.sched_getaffinity, 0) for _ in range(4 * workers)]
            assert {len(future.result()) for future in futures} == set(expected)


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process that is stopped")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=ON_LINUX)])
def test_workers_end_with_a_driver_that_is_killed(stopped: bool, tmp_path: Path) -> None:
    """After `kill -9` of the driver no worker is left, even one in the middle of a call, or one that hangs."""
    script = tmp_path / "driver.py"
    script.write_text(
        "import os, time\n"
        "from mnist_ablate.execution.executors import Processes\n"
        "executor = Processes(1)\n"  # no `if __name__ == '__main__'`: workers do not import the script
        "print(executor.submit(os.getpid).result(), flush=True)\n"
        "executor.submit(time.sleep, 600)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as driver:  # noqa: S603
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        assert alive(worker)
        if stopped:
            os.kill(worker, signal.SIGSTOP)
        driver.kill()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
def test_workers_leave_ctrl_c_to_the_driver() -> None:
    """A worker that gets SIGINT, as every process of a terminal does on Ctrl-C, goes on."""
    with Processes(1) as executor:
        worker = executor.submit(os.getpid).result()
        future = executor.submit(time.sleep, 0.3)
        os.kill(worker, signal.SIGINT)
        assert future.exception() is None
        assert executor.submit(os.getpid).result() == worker
