"""Where runs are trained."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from mnist_ablate.errors import WorkerError
from mnist_ablate.execution.executors import InlineExecutor, Processes, WorkerLostError, ended


@pytest.mark.parametrize("make", [InlineExecutor, lambda: Processes(2)], ids=["inline", "processes"])
def test_executors_share_one_interface(make: Callable[[], Executor]) -> None:
    """Each gives results and exceptions through futures, as the standard library's do."""
    with make() as executor:
        futures = [executor.submit(pow, 2, n) for n in range(5)]
        failing = executor.submit(int, "x")
        assert [future.result() for future in futures] == [1, 2, 4, 8, 16]
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result()


def test_a_worker_of_a_pool_may_start_no_others() -> None:
    """In a worker of `multiprocessing.Pool`, one sentence says what to do instead, before anything is trained."""
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(WorkerError, match="use workers=0 there"):
        pool.apply(Processes, (1,))


def test_inline_leaves_ctrl_c_alone() -> None:
    """Ctrl-C during a call in this process ends the program, not just the call."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupted)


def test_a_killed_worker_is_told_and_replaced() -> None:
    """A worker that dies shows as `BrokenProcessPool`, as in the standard library; another one replaces it."""
    with Processes(1) as executor:
        first = executor.submit(os.getpid).result()
        assert isinstance(executor.submit(os._exit, 1).exception(), BrokenProcessPool)
        assert executor.submit(os.getpid).result() != first


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


HALF_AN_ANSWER = (
    "import os, struct, sys, time\n"
    "os.write(sys._getframe(1).f_locals['pipe'].fileno(), struct.pack('!i', 1000))\n"  # 1,000 bytes are to follow
)


@pytest.mark.skipif(os.name == "nt", reason="its pipes know messages")
def test_killed_in_the_middle_of_an_answer() -> None:
    """A worker is killed even if it has written half an answer, and the pool waits for the other half."""
    executor = Processes(1)
    future = executor.submit(exec, HALF_AN_ANSWER + "time.sleep(600)")
    kill = threading.Thread(target=executor.kill, daemon=True)
    kill.start()
    kill.join(30)
    assert not kill.is_alive()
    assert isinstance(future.exception(0), BrokenProcessPool)


@pytest.mark.skipif(os.name == "nt", reason="its pipes know messages")
def test_a_worker_that_dies_in_the_middle_of_an_answer() -> None:
    """Its call alone is lost, though the pool waited for the rest of the answer, and another worker takes its place."""
    with ended(Processes(2)) as executor:
        other = executor.submit(time.sleep, 0.5)
        lost = executor.submit(exec, HALF_AN_ANSWER + "os.kill(os.getpid(), 9)")
        assert isinstance(lost.exception(60), WorkerLostError)
        assert [executor.submit(pow, 2, 5).result(60) for _ in range(3)] == [32] * 3
        assert other.exception(60) is None


def test_a_call_that_waits_for_a_dead_worker_gets_another() -> None:
    """When the only worker dies, the call that waits for it is done by the next one."""
    with ended(Processes(1)) as executor:
        lost, waiting = executor.submit(os._exit, 1), executor.submit(pow, 2, 5)
        assert type(lost.exception(60)) is WorkerLostError
        assert waiting.result(60) == 32


def test_what_cannot_be_pickled_is_told() -> None:
    """An answer or an error that cannot be sent arrives as an error with its cause, and the worker goes on."""
    with ended(Processes(1)) as executor:
        unsendable = executor.submit(eval, "lambda: 0").exception(60)
        assert "pickle" in str(unsendable)
        code = "class Odd(Exception):\n    def __init__(self, a, b): super().__init__(a)\nraise Odd('planted', 2)"
        assert "planted" in str(executor.submit(exec, code).exception(60))
        error = executor.submit(int, "x").exception(60)
        assert "Traceback" in "".join(traceback.format_exception(error))
        pids = {executor.submit(os.getpid).result(60) for _ in range(2)}
        assert len(pids) == 1


def test_nothing_is_submitted_after_the_end() -> None:
    """A call to a pool that was killed is refused, and a call that it had not finished is told to be lost."""
    executor = Processes(1)
    future = executor.submit(time.sleep, 600)
    executor.kill()
    assert isinstance(future.exception(0), BrokenProcessPool)
    with pytest.raises(BrokenProcessPool):
        executor.submit(os.getpid)
    executor.kill()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (SpawnProcess, OSError(12, "Cannot allocate memory")),
        (SpawnProcess, RuntimeError("can't start new thread")),
        (threading.Thread, RuntimeError("can't start new thread")),
    ],
)
def test_no_room_for_a_worker_is_one_of_ours(kind: type, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no memory, process or thread left for a worker, the message says so, and what helps."""

    def refused(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(kind, "start", refused)
        executor = Processes(1)
        with pytest.raises(WorkerError, match=r"(memory|thread)\).*fewer --workers"):
            executor.submit(os.getpid).result(60)
    executor.kill()


def alive(pid: int) -> bool:
    """Return whether the process is there, and not only waiting to be reaped."""
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
def test_workers_leave_ctrl_c_to_the_driver(request: pytest.FixtureRequest) -> None:
    """A worker that gets SIGINT, as every process of a terminal does on Ctrl-C, goes on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a script ignores SIGINT
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with Processes(1) as executor:
        worker = executor.submit(os.getpid).result()
        future = executor.submit(time.sleep, 0.3)
        os.kill(worker, signal.SIGINT)
        assert future.exception() is None
        assert executor.submit(os.getpid).result() == worker
