"""From a plan to a results folder: skipping, failing, resuming. Here in one process; see also test_end_to_end."""

import functools
import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pytest

from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.errors import (
    ExecutorLostError,
    InterruptedRunError,
    ResultsError,
    RunsFailedError,
    StorageError,
    StudyError,
    WorkerError,
)
from mnist_ablate.execution import runner
from mnist_ablate.execution.executors import Crew, InlineExecutor, Processes, WorkerLostError
from mnist_ablate.execution.progress import Silent
from mnist_ablate.execution.workplace import Workplace, check_workers
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.measured import seed_table
from mnist_ablate.store import compact as compact_module
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load
from mnist_ablate.training import tasks, worker
from mnist_ablate.training.protocol import RunResult, train

P = ParamSpec("P")
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _small_mnist(small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    """Train on small images, in an empty folder."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))


def tiny(seeds: int = 2, **protocol: Any) -> Study:
    """Make a study of 4 cells that takes a moment."""
    return parse_study(
        {
            "name": "tiny",
            "seeds": seeds,
            "protocol": {"epochs": 1, "width": 4, "batch_size": 100} | protocol,
            "factors": {"dropout": [0.0, 0.5], "batch_norm": [False, True]},
        }
    )


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every training that really takes place."""
    names: list[str] = []
    original = train

    def noting(run: Run, images: Images) -> RunResult:
        names.append(f"{run.cell}/{run.seed}")
        return original(run, images)

    monkeypatch.setattr(worker, "train", noting)
    return names


def failing(monkeypatch: pytest.MonkeyPatch, cell: str, error: BaseException) -> None:
    """Let every run of `cell` fail."""
    original = tasks.train_one

    def breaks(run: Run) -> Any:
        if run.cell == cell:
            raise error
        return original(run)

    monkeypatch.setattr(tasks, "train_one", breaks)


def test_every_run_is_stored_in_the_schema() -> None:
    """All runs of the plan are there, with the schema's columns and the documents of their footers."""
    results = runner.run(tiny(), workers=0)
    runs = plan(tiny())
    assert results.folder == Path("results/tiny")
    assert set(results.epochs["run_id"]) == {run.run_id for run in runs}
    assert list(results.epochs.columns) == [
        "run_id", "study", "cell", "seed", "dropout", "batch_norm", "epoch", "status", "train_loss", "train_loss_eval",
        "val_loss", "val_accuracy", "test_loss", "test_accuracy", "train_seconds", "eval_seconds",
    ]  # fmt: skip
    document = results.documents[runs[0].run_id]
    assert document["specification"] == runs[0].specification
    assert document["provenance"]["engine"] == runs[0].engine == "fused"
    assert {"schema_version", "data_sha256", "weights_sha256", "first_losses", "digest"} <= set(document)
    predictions = results.predictions(runs[0].run_id)
    hits = (predictions["label"] == predictions["prediction"]).mean()
    assert hits == results.epochs.set_index("run_id").loc[runs[0].run_id, "test_accuracy"]


def test_what_is_stored_is_not_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call trains nothing; more seeds train only the new ones; fewer keep what is there."""
    names = trained(monkeypatch)
    runner.run(tiny(), workers=0)
    assert len(names) == 8
    runner.run(tiny(), workers=0)
    assert len(names) == 8
    runner.run(tiny(seeds=3), workers=0)
    assert [name.split("/")[1] for name in names[8:]] == ["2"] * 4
    assert len(runner.run(tiny(seeds=1), workers=0).documents) == 12


def test_a_failed_run_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failure is named at once with its cause, the rest is stored, and the next call tries it again."""
    with monkeypatch.context() as patch:
        failing(patch, "dropout", ValueError("planted"))
        with pytest.raises(RunsFailedError, match="2 of 8 runs failed; finished runs are kept in results/tiny"):
            runner.run(tiny(), workers=0)
    told = capsys.readouterr().err
    assert "FAILED dropout, seed 0: ValueError: planted" in told
    results = load("results/tiny")
    assert len(results.documents) == 6
    assert sorted(results.problems) == [f"Failed: dropout, seed {seed}: ValueError: planted" for seed in (0, 1)]
    (file, _) = sorted(Path("results/tiny/failures").iterdir())
    assert "Traceback" in file.read_text()
    names = trained(monkeypatch)
    assert runner.run(tiny(), workers=0).problems == []
    assert names == ["dropout/0", "dropout/1"]


def test_fail_fast_stops_at_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fail_fast` nothing is trained after a failure, and what was finished is kept."""
    names = trained(monkeypatch)
    failing(monkeypatch, "dropout", ValueError("planted"))
    with pytest.raises(RunsFailedError, match="A run failed, and --fail-fast was given"):
        runner.run(tiny(), workers=0, fail_fast=True)
    assert names == ["baseline/0", "batch_norm/0"]
    assert len(load("results/tiny").documents) == 2


def test_ctrl_c_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt says how to go on, and the next call goes on."""
    with monkeypatch.context() as patch:
        failing(patch, "dropout", KeyboardInterrupt())
        with pytest.raises(InterruptedRunError, match="kept in results/tiny: run the same command again"):
            runner.run(tiny(), workers=0)
    names = trained(monkeypatch)
    runner.run(tiny(), workers=0)
    assert len(names) == 6


def test_a_full_disk_stops_and_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a result cannot be written, one message says so and nothing half written stays."""
    runner.run(tiny(seeds=1), workers=0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mnist_ablate.store.sealed.os.fsync", full)
        with pytest.raises(StorageError, match=r"No space left on device.*make room"):
            runner.run(tiny(), workers=0)
    assert len(load("results/tiny").documents) == 4
    assert not list(Path("results").rglob("*.tmp"))
    assert len(runner.run(tiny(), workers=0).documents) == 8


def test_a_file_damaged_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stored and damaged while others were trained is bad news at the end, and made again next time."""
    original, first = tasks.train_one, plan(tiny())[0]

    def damages(run: Run) -> Any:
        if run.seed == 1:
            Store(Path("results/tiny")).run_file(first.run_id).write_bytes(b"")
        return original(run)

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "train_one", damages)
        with pytest.raises(RunsFailedError, match=r"1 stored run.* cannot be read back.*again"):
            runner.run(tiny(), workers=0)
    assert len(runner.run(tiny(), workers=0).documents) == 8


@pytest.mark.parametrize("part", ["runs", "predictions"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
@pytest.mark.parametrize("index_from", [1, 1000])
def test_a_damaged_file_is_done_again(
    part: str, damage: str, index_from: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run whose file is cut, changed, empty or gone is named and trained again, and no other, index or none."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", index_from)
    before = runner.run(tiny(), workers=0)
    victim = plan(tiny())[3]
    file = Path("results/tiny") / part / f"{victim.run_id}.parquet"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        half = len(content) // 2
        changed = {"cut": content[:half], "flip": content[:99] + bytes([content[99] ^ 1]) + content[100:], "empty": b""}
        file.write_bytes(changed[damage])
    capsys.readouterr()
    names = trained(monkeypatch)
    after = runner.run(tiny(), workers=0)
    assert names == ["dropout+batch_norm/0"]
    assert (str(file) in capsys.readouterr().err) == (damage != "gone" or part == "predictions")
    assert same_numbers(before, after)


def test_many_runs_are_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are indexed at the end of a study, also of one in which some failed, and an index brings nothing back."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", 4)
    index = Store(Path("results/tiny")).index_file
    with monkeypatch.context() as patch:
        failing(patch, "dropout", ValueError("planted"))
        with pytest.raises(RunsFailedError):
            runner.run(tiny(seeds=1), workers=0)
        assert not index.exists()
        with pytest.raises(RunsFailedError):
            runner.run(tiny(), workers=0)
        assert index.exists()
    first = index.read_bytes()
    assert len(runner.run(tiny(), workers=0).documents) == 8
    assert index.read_bytes() == first
    runner.run(tiny(seeds=3), workers=0)
    assert index.read_bytes() != first


def test_all_runs_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every run fails there is nothing to read, and the failure is what is told."""
    monkeypatch.setattr(compact_module, "INDEX_FROM", 1)
    failing(monkeypatch, "baseline", ValueError("planted"))
    study = parse_study({"name": "one", "seeds": 1, "factors": {"l2": [0.0]}})
    with pytest.raises(RunsFailedError, match="1 of 1 runs failed"):
        runner.run(study, workers=0)


def test_longest_runs_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wider networks, which cost more, are trained first; equal runs stay in the order of the plan, seed by seed."""
    names = trained(monkeypatch)
    protocol = {"epochs": 1, "batch_size": 100}
    factors = {"width": [4, 8], "dropout": [0.0, 0.5]}
    runner.run(parse_study({"name": "w", "seeds": 2, "protocol": protocol, "factors": factors}), workers=0)
    assert [name.split("/")[1] for name in names] == ["0", "0", "1", "1"] * 2
    assert ["width=8" in name for name in names] == [True] * 4 + [False] * 4


def same_numbers(a: Results, b: Results) -> bool:
    """Compare all rows but for the seconds."""
    seconds = ["train_seconds", "eval_seconds"]
    return a.epochs.drop(columns=seconds).equals(b.epochs.drop(columns=seconds))


def test_a_diverged_run_is_stored_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that diverges is a result, said at once and stored with its status."""
    results = runner.run(tiny(seeds=1, learning_rate=1e30), workers=0)
    assert "DIVERGED" in capsys.readouterr().err
    assert "diverged" in set(results.epochs["status"])


def test_a_run_that_does_not_fit_its_images_fails_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A last batch of one fails the BatchNorm cells with a message that tells the remedy, and only those."""
    with pytest.raises(RunsFailedError, match="2 of 4 runs failed"):
        runner.run(tiny(seeds=1, batch_size=57), workers=0)
    assert "choose another batch_size" in capsys.readouterr().err


def test_a_study_that_does_not_fit_its_data_set_is_refused(in_folder: Path) -> None:
    """A last batch of one of 48,000 images is refused when it is planned, with every cell that would have it."""
    for change, words in (({"batch_size": 47_999}, "leaves a last batch of one of 48000"),
                          ({"train_images": 48_001}, "leaves 48000 of 60000")):  # fmt: skip
        with pytest.raises(StudyError, match=words) as caught:
            runner.run(tiny(**change), workers=0)
        assert "tiny, batch_norm: " in str(caught.value)
    assert not (in_folder / "results").exists()


def test_probes_are_stored_with_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes asked for later make the runs again, with the same bits; all is read back, also from a compact folder."""
    names = trained(monkeypatch)
    plain = runner.run(tiny(), workers=0)
    assert plain.probes.empty
    probed = tiny().model_copy(update={"probes": ("weights", "calibration")})
    results = runner.run(probed, workers=0)
    assert len(names) == 16
    assert list(results.probes.columns) == ["log_weight_norm", "log_weight_evenness", "ece"]
    assert set(results.probes.index) == set(results.documents)
    for run_id, document in results.documents.items():
        assert document["weights_sha256"] == plain.documents[run_id]["weights_sha256"]
    runner.run(probed, workers=0)
    runner.run(tiny(), workers=0)
    assert len(names) == 16
    compact = load(write_compact(results, "compact"))
    assert compact.probes.sort_index().equals(results.probes.sort_index())
    found = seed_table(compact, "ece")
    one = compact.final[(compact.final["cell"] == "dropout") & (compact.final["seed"] == 1)]["run_id"].item()
    assert found.loc[1, "dropout"] == compact.documents[one]["probes"]["calibration"]["ece"]


def test_bad_options_train_nothing(in_folder: Path) -> None:
    """A wrong option is refused before a folder is made."""
    with pytest.raises(StudyError, match="workers = -1"):
        runner.run(tiny(), workers=-1)
    with pytest.raises(StudyError, match="seeds = 0"):
        runner.run(tiny(), seeds=0)
    assert not (in_folder / "results").exists()


def test_another_study_in_the_folder_is_refused() -> None:
    """Other epochs in the same folder are refused, naming the difference and --out; nothing is lost."""
    runner.run(tiny(seeds=1), workers=0)
    with pytest.raises(ResultsError, match=r"protocol.epochs is 1 there, 2 here.*--out"):
        runner.run(tiny(seeds=1), epochs=2, workers=0)
    assert len(runner.run(tiny(seeds=1), epochs=2, workers=0, out="elsewhere").documents) == 4
    assert len(load("results/tiny").documents) == 4


def test_without_numba_autograd_trains_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Numba is missing the study runs all the same, unless it asks for the engine that needs it."""
    monkeypatch.setattr("mnist_ablate.execution.runner.find_spec", lambda _: None)
    results = runner.run(tiny(seeds=1), workers=0)
    assert "Numba is not installed, so the slower engine autograd trains" in capsys.readouterr().err
    assert {document["specification"]["engine"] for document in results.documents.values()} == {"autograd"}
    with pytest.raises(StudyError, match=r"needs Numba, but Numba is not installed: pip install"):
        runner.run(tiny(seeds=1), engine="fused", workers=0)


@pytest.mark.parametrize(("value", "engine"), [("1", "autograd"), ("0", "fused"), ("yes", "fused")])
def test_without_numbas_compiler_autograd_trains(
    value: str, engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With NUMBA_DISABLE_JIT, as Numba reads it, autograd trains, and says so; fused is refused before training."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert runner.with_engine(tiny()).engine == engine
    told = capsys.readouterr().err
    if engine == "fused":
        assert told == ""
        return
    assert "NUMBA_DISABLE_JIT turns Numba's compiler off, so the slower engine autograd trains" in told
    with pytest.raises(StudyError, match=r'engine = "fused".*NUMBA_DISABLE_JIT.*unset it; or take "autograd"'):
        runner.run(tiny(seeds=1), engine="fused", workers=0)
    assert runner.with_engine(tiny().with_options(engine="autograd")).engine == "autograd"
    assert capsys.readouterr().err == ""


def test_one_folder_holds_one_engine() -> None:
    """Runs of another engine are refused in the same folder, naming both."""
    runner.run(tiny(seeds=1), workers=0)
    with pytest.raises(ResultsError, match=r'engine is "fused" there, "autograd" here.*--out'):
        runner.run(tiny(seeds=1), engine="autograd", workers=0)


def test_workers_default_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number there is a worker for each physical core, but never more than runs; one run lies ready."""
    cores = {True: 6, False: 12}
    monkeypatch.setattr("joblib.cpu_count", lambda only_physical_cores: cores[only_physical_cores])
    rooms = []
    for asked, runs in ((None, 100), (None, 4), (3, 100), (0, 9)):
        crew = Workplace(asked).crew_maker([], Silent())(runs)
        rooms.append((type(crew), crew.room))
        crew.kill()
    assert rooms == [(Processes, 7), (Processes, 5), (Processes, 4), (InlineExecutor, 1)]


def test_cores_are_counted_without_shared_memory() -> None:
    """Where /dev/shm cannot be written, the cores are counted, and nothing warns of what we do not use."""
    code = (
        "import _multiprocessing\n"
        "class Refused(_multiprocessing.SemLock):\n"
        "    def __new__(cls, *_, **__): raise OSError(30, 'Read-only file system')\n"
        "_multiprocessing.SemLock = Refused\n"
        "from mnist_ablate.execution.workplace import default_workers; print(default_workers() > 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.stdout, done.stderr) == ("True\n", "")


def use_crews(monkeypatch: pytest.MonkeyPatch, *crews: Crew) -> list[int]:
    """Train with `crews`, then in this process; return a list to which the number of runs for each crew is added."""
    sizes: list[int] = []
    left = iter(crews)

    def next_crew(_: object, runs: int) -> Crew:
        sizes.append(runs)
        return next(left, InlineExecutor())

    monkeypatch.setattr(Workplace, "_local_crew", next_crew)
    return sizes


class Dying(InlineExecutor):
    """Loses its worker with every run of the cell ``dropout``."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn`, unless its worker is to die."""
        run: Any = args[0]
        if run.cell != "dropout":
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        future.set_exception(WorkerLostError("planted"))
        return future


def test_runs_whose_workers_died_are_tried_once_more_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others go on; at the end each lost run is tried in a crew of its own, and fails if its worker dies again."""
    sizes = use_crews(monkeypatch, Dying(), InlineExecutor(), Dying())
    with pytest.raises(RunsFailedError, match="1 of 8 runs failed"):
        runner.run(tiny())
    assert sizes == [8, 1, 1]
    told = capsys.readouterr().err
    assert told.count("A worker process died (killed, or out of memory); to be tried again: dropout, seed") == 2
    assert "FAILED dropout, seed 1: its worker process died twice" in told
    assert len(runner.run(tiny()).documents) == 8


def test_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no room for a worker, the study stops with that message, and no run counts as failed."""

    def refused(_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(SpawnProcess, "start", refused)
    with pytest.raises(WorkerError, match="fewer --workers"):
        runner.run(tiny(), workers=2)
    assert not list(Path("results/tiny").glob("failures/*"))


def test_any_executor_will_do() -> None:
    """A pool of threads, which all share one process's settings, gives the bits of one worker, and is left open."""
    expected = runner.run(tiny(), workers=0, out="inline")
    with ThreadPoolExecutor(3) as pool:
        results = runner.run(tiny(), executor=pool, out="threads")
        assert pool.submit(pow, 2, 3).result() == 8
    assert same_numbers(expected, results)
    digests = [{i: of["weights_sha256"] for i, of in r.documents.items()} for r in (expected, results)]
    assert digests[0] == digests[1]


def test_what_an_executor_gives_is_stored_at_once() -> None:
    """One that calls as runs are submitted is given the next run when the last one is stored."""
    stored = []

    class Counting(InlineExecutor):
        def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
            stored.append(len(Store(Path("results/tiny")).stored()))
            return super().submit(fn, *args, **kwargs)

    runner.run(tiny(), executor=Counting())
    assert stored == list(range(8))


class Pairs(InlineExecutor):
    """Ends two runs at a time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Wait for a second call."""
        future: Future[T] = Future()
        self.waiting.append((future, functools.partial(fn, *args, **kwargs)))
        if len(self.waiting) == 2:
            for waiting, call in self.waiting:
                waiting.set_result(call())
            self.waiting.clear()
        return future


def test_results_that_come_together_are_stored_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of two results waits until the other is stored."""
    both, write = threading.Barrier(2, timeout=60), Store.write_run

    def writes(store: Store, *what: Any) -> None:
        both.wait()
        write(store, *what)

    monkeypatch.setattr(Store, "write_run", writes)
    assert len(runner.run(tiny(), executor=Pairs(), workers=2).documents) == 8


def test_an_executor_is_given_no_more_than_asked() -> None:
    """With an executor, `workers` is how many runs it has at once."""
    waiting, most = set[Future[Any]](), []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
            future = super().submit(fn, *args, **kwargs)
            waiting.add(future)
            most.append(len(waiting))
            future.add_done_callback(waiting.discard)
            return future

    with Counting(1) as pool:
        runner.run(tiny(), executor=pool, workers=2)
    assert max(most) <= 2


class Breaking(InlineExecutor):
    """Breaks at the third call: raises, cancels the run, or has been shut down."""

    def __init__(self, how: str) -> None:
        self.how, self.calls = how, 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn`, twice."""
        self.calls += 1
        if self.calls < 3:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        if self.how == "breaks":
            future.set_exception(BrokenExecutor("planted"))
        elif self.how == "cancels":
            future.cancel()
            future.set_running_or_notify_cancel()
        else:
            raise RuntimeError("cannot schedule new futures after shutdown")
        return future


@pytest.mark.parametrize("how", ["breaks", "cancels", "is shut down"])
def test_an_executor_that_breaks_is_told_and_what_is_finished_kept(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one message and status 3, and the same call goes on with what is missing."""
    with pytest.raises(ExecutorLostError, match="kept in results/tiny: run the same command again") as caught:
        runner.run(tiny(), executor=Breaking(how))
    assert caught.value.exit_status == 3
    assert len(load("results/tiny").documents) == 2
    names = trained(monkeypatch)
    assert len(runner.run(tiny(), workers=0).documents) == 8
    assert len(names) == 6


def test_fail_fast_takes_back_what_an_executor_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first failure, an executor of the caller's is left with nothing more to do."""
    failing(monkeypatch, "baseline", ValueError("planted"))
    with ThreadPoolExecutor(1) as pool, pytest.raises(RunsFailedError, match="fail-fast"):
        runner.run(tiny(seeds=20), executor=pool, fail_fast=True)
    assert len(Store(Path("results/tiny")).stored()) < 60


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "workers = -1: allowed: a whole number >= 0"),
        ({"workers": 0, "executor": InlineExecutor()}, "workers = 0: allowed: a whole number >= 1"),
        ({"executor": InlineExecutor(), "scheduler": "tcp://x:1"}, "executor and scheduler: give one"),
        ({"workers": 2, "scheduler": "tcp://x:1"}, "workers = 2, scheduler = 'tcp://x:1': give one"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], words: str) -> None:
    """Two places to train at once, or a number of workers that says nothing, are named before anything is done."""
    with pytest.raises(StudyError, match=re.escape(words)):
        runner.run(tiny(), **options)
    assert not Path("results").exists()


def test_results_show_themselves() -> None:
    """A notebook shows the cells with their mean accuracy in percent."""
    results = runner.run(tiny(), workers=0, progress=False)
    shown = results._repr_html_()
    mean = 100 * results.final.loc[results.final["cell"] == "baseline", "test_accuracy"].mean()
    assert "<table" in shown
    assert f"{np.round(mean, 2)}" in shown


CLAIM = """
name = "tiny"
seeds = 1
[protocol]
epochs = 1
width = 4
batch_size = 100
[factors]
dropout = [0.0, 0.5]
[[hypotheses]]
id = "H"
statement = "Dropout helps"
effect = "dropout"
kind = "increase"
smallest = 0.1
"""


def test_what_is_declared_is_stored_with_every_run(in_folder: Path) -> None:
    """Each run says which file, rules and looks it was made under; later runs say what holds then, and none changes."""
    file = in_folder / "tiny.toml"
    file.write_text(CLAIM)
    before = runner.run(file, workers=0)
    expected = {
        "study_sha256": hashlib.sha256(CLAIM.encode()).hexdigest(),
        "hypotheses_sha256": load_study(file).hypotheses_sha256,
        "looks": [1],
    }
    assert [document["declared"] for document in before.documents.values()] == [expected] * 2
    file.write_text(CLAIM.replace("0.1", "0.2").replace("seeds = 1", "seeds = { first = 6, step = 2, most = 8 }"))
    after = runner.run(file, workers=0)
    assert len(after.documents) == 12
    assert after.study.hypotheses[0].smallest == 0.2
    for run_id, document in after.documents.items():
        if run_id in before.documents:
            assert document == before.documents[run_id]
        else:
            assert document["declared"]["looks"] == [6, 8]
            assert document["declared"]["hypotheses_sha256"] == after.study.hypotheses_sha256
            assert document["declared"]["study_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    judged = analyse(after).judgements[0]
    assert judged.provisional == "2 of the runs were made before the hypotheses became what they are now"


def test_changed_hypotheses_train_nothing(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other hypotheses are welcome in a folder, whose runs stay and are not made again."""
    file = in_folder / "tiny.toml"
    file.write_text(CLAIM)
    runner.run(file, workers=0)
    content = {path: path.read_bytes() for path in Path("results/tiny/runs").iterdir()}
    names = trained(monkeypatch)
    file.write_text(CLAIM.replace("increase", "decrease") + "\n")
    assert runner.run(file, workers=0).study.hypotheses[0].kind == "decrease"
    assert names == []
    assert {path: path.read_bytes() for path in Path("results/tiny/runs").iterdir()} == content


def test_a_study_without_a_file_declares_its_rules() -> None:
    """A study that was made in Python has no file to digest; its seeds are its one look."""
    document = next(iter(runner.run(tiny(seeds=1), workers=0).documents.values()))
    assert document["declared"] == {"study_sha256": "", "hypotheses_sha256": tiny().hypotheses_sha256, "looks": [1]}


@pytest.mark.parametrize("wrong", ["1", 1.0, True, [1], -1])
def test_workers_are_a_whole_number(wrong: Any) -> None:
    """Anything else is refused in one sentence, and numpy's whole numbers are taken."""
    with pytest.raises(StudyError, match=r"^workers = .*: allowed: a whole number >= 0$"):
        runner.run(tiny(), workers=wrong)
    check_workers(np.int64(1))
    results = runner.run(tiny(), seeds=np.int64(1), epochs=np.int32(1), workers=np.int64(0), progress=False)  # type: ignore[arg-type]
    assert len(results.documents) == 4
