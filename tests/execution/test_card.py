"""`run --device cuda`, with kernels on the processor behind a driver's interface: the whole way of a study."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import host_card
import pytest
from disturbed import hear, heed_ctrl_c, wait_for, workers_of

import mnist_ablate
from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import EngineName, Run, plan
from mnist_ablate.design.settings import Settings
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.errors import DeviceError, RunsFailedError, StudyError
from mnist_ablate.execution import card as card_module
from mnist_ablate.execution import runner, workplace
from mnist_ablate.execution.card import has_driver, why_processors
from mnist_ablate.store.results import Results, load
from mnist_ablate.training import worker
from mnist_ablate.training.engines.card import compiler
from mnist_ablate.training.engines.card import study as study_module
from mnist_ablate.training.engines.card.driver import Card
from mnist_ablate.training.engines.card.study import Trainer

PACKAGE = str(Path(mnist_ablate.__file__).parents[1])
ON_LINUX = pytest.mark.skipif(bool(host_card.WHY_NOT), reason=host_card.WHY_NOT)
STUDY = """
name = "small"
seeds = 1
[protocol]
width = 20
epochs = 2
validation_fraction = 0.01
batch_size = 50
train_images = 200
[factors]
batch_norm = [false, true]
dropout = [0.0, 0.2]
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a driver's library, for a process that finds it in LD_LIBRARY_PATH.

    The kernels are compiled for a card beforehand: NVRTC asks the driver for more than ours has.
    """
    code = f"from {compiler.__name__} import machine_code; machine_code(90, 13000)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    return host_card.build(tmp_path_factory.mktemp("driver")).parent


def command(
    driver: Path | None,
    folder: Path,
    *options: str,
    start: str = "run small.toml --out out",
    study: str = STUDY,
    before: str = "",
    **environment: str,
) -> "subprocess.Popen[str]":
    """Start a command in a folder, with a driver or without; Python looks for modules in the folder `before` first."""
    (folder / "small.toml").write_text(study, encoding="utf-8")
    paths = {"LD_LIBRARY_PATH": str(driver)} if driver else {}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "mnist_ablate", *start.split(), *options],
        cwd=folder,
        env=os.environ | paths | environment | {"PYTHONPATH": os.pathsep.join([*filter(None, [before]), PACKAGE])},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c if os.name == "posix" else None,
    )


def ran(driver: Path | None, folder: Path, *options: str, study: str = STUDY, **environment: str) -> tuple[int, str]:
    """Run to the end; return the exit status and what was said on stderr."""
    process = command(driver, folder, *options, study=study, **environment)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def weights(results: Results) -> Mapping[str, str]:
    """Return the digest of each run's weights."""
    return {run_id: document["weights_sha256"] for run_id, document in results.documents.items()}


@ON_LINUX
@pytest.mark.mnist
def test_a_study_on_a_card_is_that_of_processors(driver: Path, tmp_path: Path) -> None:
    """The same runs, the same bits, stored alike; the card is in the provenance alone, and resuming trains nothing."""
    status, said = ran(driver, tmp_path, "--device", "cuda")
    assert status == 0, said
    assert "Test card trains 4 runs" in said
    on_card = load(tmp_path / "out")
    on_cpu = runner.run(parse_study(tomllib.loads(STUDY)), workers=0, progress=False, out=tmp_path / "cpu")
    assert weights(on_card) == weights(on_cpu)
    less = ["train_seconds", "eval_seconds"]
    assert on_card.epochs.drop(columns=less).equals(on_cpu.epochs.drop(columns=less))
    assert {document["provenance"]["card"] for document in on_card.documents.values()} == {"Test card"}
    status, said = ran(driver, tmp_path, "--device", "cuda")
    assert (status, "4 of 4 runs are stored already" in said, "trains" in said) == (0, True, False)


@ON_LINUX
@pytest.mark.mnist
def test_a_card_verifies_what_processors_trained(driver: Path, tmp_path: Path) -> None:
    """`verify` trains on a card if there is one: the same bits, or the first that differs. Without, it asks for cpu."""
    runner.run(parse_study(tomllib.loads(STUDY)), workers=0, progress=False, out=tmp_path / "out")
    process = command(driver, tmp_path, start="verify out")
    printed, said = process.communicate(timeout=300)
    assert "Test card trains 4 runs" in said
    assert (process.returncode, printed) == (0, "4 of 4 runs are the same to the bit.\n"), said
    process = command(None, tmp_path, "--device", "cuda", start="verify out")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--device cpu" in said


@ON_LINUX
@pytest.mark.mnist
def test_a_card_is_found_and_named_in_one_line(driver: Path, tmp_path: Path) -> None:
    """By default a card trains what it can, and one line says so; what torch trains stays with processors."""
    status, said = ran(driver, tmp_path)
    assert status == 0, said
    assert [line for line in said.splitlines() if "card" in line] == ["Test card trains 4 runs"]
    assert {document["provenance"]["card"] for document in load(tmp_path / "out").documents.values()} == {"Test card"}
    status, said = ran(driver, tmp_path, "--engine", "autograd", "--out", "torch")
    assert status == 0, said
    (line,) = (line for line in said.splitlines() if "card" in line)
    assert line == "Processors train all runs: torch has other bits on a card, which --device cuda asks for."


@ON_LINUX
@pytest.mark.mnist
def test_a_card_that_cannot_train_is_named_and_left_alone(driver: Path, tmp_path: Path) -> None:
    """By default processors train where the card is too old, and one line says why."""
    status, said = ran(driver, tmp_path, HOST_CAPABILITY="70")
    assert status == 0, said
    (line,) = (line for line in said.splitlines() if "card" in line)
    assert line.startswith("Processors train all runs. ")
    assert "has compute capability 7.0" in line


LONG_AND_SHORT = STUDY.replace("epochs = 2\n", "").replace("batch_norm = [false, true]", "epochs = [1, 15]")


@ON_LINUX
@pytest.mark.mnist
@pytest.mark.parametrize("killed", ["the process with the card", "the command"])
def test_killed_in_the_middle(killed: str, driver: Path, tmp_path: Path) -> None:
    """`kill -9` loses no finished run: another process, or the same command again, trains the rest to the same bits."""
    process = command(driver, tmp_path, "--device", "cuda", study=LONG_AND_SHORT)
    wait_for(process, tmp_path / "out", 2)
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "runs").iterdir()}
    assert len(finished) == 2
    os.kill(workers_of(process.pid)[0] if killed == "the process with the card" else process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    if killed == "the command":
        status, said = ran(driver, tmp_path, "--device", "cuda", study=LONG_AND_SHORT)
        assert (status, "2 of 4 runs are stored already" in said) == (0, True), said
    else:
        assert process.returncode == 0, said
        assert "The card failed (its worker process died (killed, or out of memory)); runs to be tried again: 2" in said
    on_cpu = runner.run(parse_study(tomllib.loads(LONG_AND_SHORT)), workers=0, progress=False, out=tmp_path / "cpu")
    assert weights(load(tmp_path / "out")) == weights(on_cpu)
    assert all(file.stat().st_mtime_ns == at for file, at in finished.items())


@ON_LINUX
@pytest.mark.mnist
def test_stopped_and_resumed(driver: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the study with status 3 and leaves no process behind; the same command finishes it."""
    process = command(driver, tmp_path, "--device", "cuda", "--epochs", "30")
    hear(process, "trains")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    status, said = ran(driver, tmp_path, "--device", "cuda", "--epochs", "30")
    assert status == 0, said


@ON_LINUX
@pytest.mark.mnist
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HOST_CARDS": "0"}, "the driver shows no card"),
        ({"HOST_DRIVER": "11080"}, "the driver is for CUDA 11.8"),
        ({"HOST_DRIVER": "12080"}, "the driver is for CUDA 12, and the installed NVRTC for 13"),
        ({"HOST_CAPABILITY": "70"}, "has compute capability 7.0"),
        ({"HOST_MEMORY": "300"}, "of the card's memory, and 0 MiB are free"),
    ],
)
def test_a_card_that_cannot_train_is_bad_input(
    driver: Path, tmp_path: Path, environment: dict[str, str], words: str
) -> None:
    """Exit status 2, one sentence, and nothing trained."""
    status, said = ran(driver, tmp_path, "--device", "cuda", **environment)
    assert status == 2, said
    assert words in said
    assert "--device cpu" in said
    assert "Traceback" not in said


@pytest.mark.mnist
def test_no_driver(tmp_path: Path) -> None:
    """Without CUDA's driver `--device cuda` ends with status 2; the default trains on processors, and says nothing."""
    if has_driver():
        pytest.skip("this machine has a driver")
    status, said = ran(None, tmp_path, "--device", "cuda")
    assert status == 2, said
    assert "this machine has no CUDA driver" in said
    status, said = ran(None, tmp_path)
    assert (status, "card" in said) == (0, False)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVRTC the message names the extra that has it."""
    monkeypatch.setattr(compiler, "_packaged", list)
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(DeviceError, match=r'pip install "mnist-ablate\[cuda\]"; or take --device cpu'):
        compiler.Compiler()


def test_device_is_checked() -> None:
    """A device that is unknown, and a card together with workers elsewhere, are bad input."""
    with pytest.raises(StudyError, match="device = 'tpu': allowed: auto, cpu, cuda"):
        runner.run(parse_study(tomllib.loads(STUDY)), device="tpu")
    with pytest.raises(StudyError, match="device = 'cuda', scheduler: give one of them"):
        runner.run(parse_study(tomllib.loads(STUDY)), device="cuda", scheduler="tcp://nowhere:1")


@pytest.mark.parametrize(
    ("engine", "settings", "words"),
    [
        ("fused", {}, ""),
        ("autograd", {}, ""),
        ("autograd", {"model": "my_models:build", "dataset": "my_data:images"}, ""),
        ("fused", {"dataset": "my_data:images"}, "take images of MNIST's size"),
        ("autograd", {"train": "my_training:train"}, "chooses its device itself"),
    ],
)
def test_what_only_processors_train(engine: EngineName, settings: dict[str, str], words: str) -> None:
    """A training of the user's own, and `fused` on other data, have a reason to stay; everything else has none."""
    run = Run("s", "c", (), 0, Settings.model_validate(settings), engine)
    assert (words in why_processors(run), why_processors(run) == "") == (True, not words)


def test_a_study_that_no_card_can_train_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Images, in_folder: Path
) -> None:
    """If one run must stay with processors, they train all, and one line says why."""
    monkeypatch.setattr(workplace, "why_processors", lambda run: "a reason" if run.settings.dropout else "")
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))
    assert len(runner.run(tiny(), device="cuda", workers=0).documents) == 4
    assert "Processors train all runs: a reason." in capsys.readouterr().err


def test_the_driver_process_needs_no_torch() -> None:
    """Neither the process that hands out runs nor a worker without a card imports anything of the card's engine."""
    test = "any('engines.card' in name or name == 'torch' for name in sys.modules)"
    code = f"import mnist_ablate.execution.runner, sys; sys.exit({test})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
    code = "import mnist_ablate.training.worker, sys; sys.exit(any('engines.card' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


# ---- Models of one's own: torch, with the processor in place of its card ----

NO_CARD = """
from mnist_ablate.training import cuda
from mnist_ablate.training.engines.autograd import AutogradEngine

made = AutogradEngine.__init__


def on_stand_in(self, settings, seed, folder, sizes, device="cpu"):
    made(self, settings, seed, folder, sizes, "cpu:0" if device == "cuda" else device)


AutogradEngine.__init__ = on_stand_in
cuda.check = lambda: {"device": "cuda", "card": "Test card", "cuda": "none"}
cuda.room = lambda try_out: try_out() or 2
"""
OWN_MODEL = """
import pathlib

import torch


class Own(torch.nn.Sequential):
    def forward(self, x):
        full = pathlib.Path("full")
        if full.exists():
            full.unlink()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate too much")
        return super().forward(x)


def build(settings, seed):
    first, last = torch.nn.Linear(784, settings.width), torch.nn.Linear(settings.width, 10)
    return Own(first, torch.nn.Dropout(settings.dropout), last)
"""


@pytest.mark.mnist
def test_models_of_ones_own_share_a_card(tmp_path: Path) -> None:
    """As many processes as the card has room for train them; one that finds no memory is trained again, alone.

    The processor stands in for the card, so even the bits are the processor's.
    """
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(NO_CARD, encoding="utf-8")
    (tmp_path / "my_card_models.py").write_text(OWN_MODEL, encoding="utf-8")
    study = STUDY.replace("[protocol]", '[protocol]\nmodel = "my_card_models:build"')
    study = study.replace("batch_norm = [false, true]\n", "")
    process = command(None, tmp_path, "--device", "cuda", study=study, before=str(tmp_path / "planted"))
    said = hear(process, "trains")
    (tmp_path / "full").touch()
    said += process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "Test card trains 2 runs, 2 at once" in said
    on_card = load(tmp_path / "out")
    assert {document["provenance"]["card"] for document in on_card.documents.values()} == {"Test card"}
    status, said_of_cpu = ran(None, tmp_path, "--device", "cpu", "--out", "cpu", study=study)
    assert status == 0, said_of_cpu
    assert weights(on_card) == weights(load(tmp_path / "cpu"))
    assert not (tmp_path / "full").exists()
    assert "to be tried again" in said


@pytest.mark.mnist
def test_torch_has_no_card(tmp_path: Path) -> None:
    """Where torch has no card, a study for `autograd` ends with status 2 and one sentence."""
    if has_driver():
        pytest.skip("this machine has a driver")
    status, said = ran(None, tmp_path, "--device", "cuda", "--engine", "autograd")
    assert status == 2, said
    assert "device = cuda: " in said
    assert "--device cpu" in said
    assert "Traceback" not in said


# ---- A card in this process, so that a test can plant what goes wrong ----


class Child(threading.Thread):
    """A thread in place of the process with the card; it dies after so many messages, if that is planted."""

    lives: ClassVar[list[int]] = []
    """How many messages each child sends before it dies; those that are not listed go on."""

    def __init__(self, target: Callable[[Any], None]) -> None:
        super().__init__(target=target, args=(self,), daemon=True)
        self.ours, self._theirs = multiprocessing.Pipe()
        self._killed = threading.Event()
        self._left = self.lives.pop(0) if self.lives else -1
        self.start()

    def run(self) -> None:
        """Answer calls."""
        with closing(self._theirs), suppress(SystemExit):
            super().run()

    def recv_bytes(self) -> bytes:
        """Wait for a call."""
        while not self._theirs.poll(0.02):
            if self._killed.is_set():
                raise EOFError
        return self._theirs.recv_bytes()

    def send(self, message: Any) -> None:
        """Answer, or die."""
        if self._killed.is_set() or self._left == 0:
            self._left = 0
            raise SystemExit
        self._left -= 1
        self._theirs.send(message)

    def kill(self) -> None:
        """Die at the next message."""
        self._killed.set()


@pytest.fixture
def children(driver: Path, small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> list[Child]:
    """Return the workers with a card that are started; they train on small images."""
    made: list[Child] = []

    def start(target: Callable[[Any], None]) -> tuple[Any, Child]:
        made.append(Child(target))
        return made[-1].ours, made[-1]

    def trainer() -> Any:
        host = host_card.HostCard(driver / "libcuda.so.1")
        host.have(2048)
        return Trainer(host, b""), {"device": "cuda", "card": host.name}

    monkeypatch.setattr(card_module, "start_worker", start)
    monkeypatch.setattr(card_module, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker, "_trainer", trainer)
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda *_, **__: data.Fetched("mnist", in_folder, "planted"))
    return made


def tiny(**keys: Any) -> Study:
    """Make a study of four cells; two have one epoch, two have four."""
    return parse_study({
        "name": "tiny", "seeds": 1, "protocol": {"width": 4, "batch_size": 100, "validation_fraction": 0.2},
        "factors": {"dropout": [0.0, 0.5], "epochs": [1, 4]},
    } | keys)  # fmt: skip


def on_card(study: Study, **options: Any) -> Results:
    """Train a study on the card."""
    return runner.run(study, device="cuda", progress=False, **options)


def test_fail_fast_stops_the_card(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fail_fast` the first run that fails ends the study while others train; the same call makes the rest."""
    with monkeypatch.context() as patch:
        patch.setattr(study_module._One, "result", failing(study_module._One.result))
        with pytest.raises(RunsFailedError, match="A run failed, and --fail-fast was given"):
            on_card(tiny(), fail_fast=True)
    assert not any(child.is_alive() for child in children)
    kept = set(load("results/tiny").documents)
    assert len(kept) <= 1
    again = on_card(tiny())
    assert len(again.documents) == 4
    assert kept <= set(again.documents)


def failing(result: Callable[..., Any]) -> Callable[..., Any]:
    """Return what fails for runs with dropout, and is `result` for others."""

    def fails(one: Any) -> Any:
        return ValueError("planted") if one.run.settings.dropout else result(one)

    return fails


@pytest.mark.usefixtures("children")
def test_a_failed_run_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `fail_fast` the failure is named, and the others are trained and stored."""
    monkeypatch.setattr(study_module._One, "result", failing(study_module._One.result))
    with pytest.raises(RunsFailedError, match="2 of 4 runs failed"):
        on_card(tiny())
    assert len(load("results/tiny").documents) == 2


@pytest.mark.usefixtures("children")
def test_a_study_on_a_card_grows_until_it_is_told() -> None:
    """Each look is asked once its runs are stored, nothing is trained after the last, and bits are the processor's."""
    hypothesis = {"id": "H", "statement": "So it is", "effect": "dropout", "kind": "negligible", "smallest": 2.5}
    study = tiny(seeds={"first": 6, "step": 2, "most": 12}, futility=0.0, hypotheses=[hypothesis])
    asked: list[int] = []

    def decide(results: Results) -> tuple[bool, str]:
        asked.append(len(results.documents))
        return len(asked) == 2, "a sentence"

    results = on_card(study, decide=decide)
    assert asked[0] >= 24
    assert asked[1] >= 32
    assert {run.seed for run in plan(study.reaching(8))} == set(results.final["seed"]) - {8, 9}
    on_cpu = runner.run(study.reaching(8), device="cpu", workers=0, progress=False, out="cpu")
    assert weights(on_cpu).items() <= weights(results).items()


def fails_after(epochs: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the card fail in the epochs that are marked False; those that are not listed are well."""
    wait = Card.wait

    def waits(self: Card) -> None:
        if epochs and not epochs.pop(0):
            raise RuntimeError("cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED")
        wait(self)

    monkeypatch.setattr(Card, "wait", waits)


def test_an_error_of_the_card(
    children: list[Child], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an error of the card another process trains all that was not finished, and one line says so."""
    fails_after([True, False], monkeypatch)
    assert len(on_card(tiny()).documents) == 4
    assert len(children) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "card" in line]
    assert said == [
        "Test card trains 4 runs",
        "The card failed (cuCtxSynchronize: CUDA_ERROR_LAUNCH_FAILED); runs to be tried again: 2",
    ]


def test_a_card_that_fails_again(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the card fails once more, the runs that are left fail, each with the cause; what was finished is kept."""
    fails_after([True, False, False], monkeypatch)
    with pytest.raises(RunsFailedError, match="2 of 4 runs failed"):
        on_card(tiny())
    results = load("results/tiny")
    assert len(results.documents) == 2
    assert all("CUDA_ERROR_LAUNCH_FAILED" in problem for problem in results.problems)
    assert len(children) == 2


def test_a_process_that_dies_again_and_again(
    children: list[Child], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs whose process died twice are tried one at a time, which leaves the others to go on."""
    monkeypatch.setattr(Child, "lives", [2, 1])  # the first has told of its card, and of an epoch
    on_cpu = runner.run(tiny(), device="cpu", workers=0, progress=False, out="cpu")
    assert weights(on_card(tiny())) == weights(on_cpu)
    assert len(children) == 6
    said = capsys.readouterr().err
    assert said.count("The card failed") == 1
    assert said.count("A worker process died (killed, or out of memory); to be tried again") == 4
