"""The whole as a user runs it: real MNIST, real worker processes, real signals. Networks are tiny, to be quick."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from disturbed import heed_ctrl_c, wait_for, workers_of

import mnist_ablate
from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.store.results import Results

pytestmark = pytest.mark.mnist

STUDY = """
name = "small"
seeds = 2
[protocol]
epochs = 1
width = 16
batch_size = 256
[factors]
l2 = [0.0, 1e-4]
dropout = [0.0, 0.2]
batch_norm = [false, true]
"""
SECONDS = ["train_seconds", "eval_seconds"]


@pytest.fixture(scope="module")
def study(mnist: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a study of 16 tiny runs on MNIST, which is there."""
    assert mnist.name == "mnist"
    file = tmp_path_factory.mktemp("study") / "small.toml"
    file.write_text(STUDY)
    return file


@pytest.fixture(scope="module")
def undisturbed(study: Path) -> Results:
    """Run the study once, without disturbance, with one worker."""
    return mnist_ablate.run(study, workers=1, out=study.parent / "undisturbed", progress=False)


def command(study: Path, out: Path, *options: str) -> list[str]:
    """Return the command that runs the study."""
    return [sys.executable, "-m", "mnist_ablate", "run", str(study), "--out", str(out), *options]


def same(a: Results, b: Results) -> bool:
    """Return whether all rows without their seconds, all weights and all predictions are the same."""
    digests = [{run: document["weights_sha256"] for run, document in r.documents.items()} for r in (a, b)]
    predictions = all(a.predictions(run).equals(b.predictions(run)) for run in a.documents)
    return (
        a.epochs.drop(columns=SECONDS).equals(b.epochs.drop(columns=SECONDS))
        and digests[0] == digests[1]
        and predictions
    )


def start_and_wait_for(study: Path, out: Path, runs: int) -> "subprocess.Popen[str]":
    """Start the study with two workers, and return when some runs are stored."""
    driver = subprocess.Popen(  # noqa: S603
        command(study, out, "--workers", "2"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    wait_for(driver, out, runs)
    return driver


def test_the_numbers_are_sane(undisturbed: Results) -> None:
    """Even tiny networks learn real digits, every run is there, and the seconds are measured."""
    assert len(undisturbed.documents) == 16
    assert undisturbed.final["test_accuracy"].between(0.7, 0.97).all()
    assert (undisturbed.epochs[SECONDS] > 0).all(axis=None)
    assert {document["data_sha256"] for document in undisturbed.documents.values()} == {data.load("mnist").sha256}


def test_two_workers_give_the_same_bits(study: Path, undisturbed: Results, tmp_path: Path) -> None:
    """The number of workers changes nothing but the seconds."""
    assert same(undisturbed, mnist_ablate.run(study, workers=2, out=tmp_path, progress=False))


def test_another_order_gives_the_same_bits(study: Path, undisturbed: Results, tmp_path: Path) -> None:
    """Runs trained in this process, in another order, after other runs, are the same to the bit."""
    turned = study.read_text().replace("[0.0, 0.2]", "[0.2, 0.0]").replace("[false, true]", "[true, false]")
    (tmp_path / "turned.toml").write_text(turned)
    results = mnist_ablate.run(tmp_path / "turned.toml", workers=0, out=tmp_path / "out", progress=False)
    columns = ["run_id", "epoch", "train_loss", "train_loss_eval", "val_loss", "val_accuracy", "test_loss"]
    a, b = (
        r.epochs.drop_duplicates(["run_id", "epoch"])[columns].sort_values(["run_id", "epoch"]).reset_index(drop=True)
        for r in (undisturbed, results)
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers through /proc")
def test_a_killed_driver_loses_nothing(study: Path, undisturbed: Results, tmp_path: Path) -> None:
    """A second driver on the folder is refused, and the first goes on; after `kill -9` of that, the command resumes.

    The folder is then that of an undisturbed run, and no run was made twice.
    """
    driver = start_and_wait_for(study, tmp_path, 1)
    driver.send_signal(signal.SIGSTOP)  # its runs may take less time than the start of the second driver
    second = subprocess.run(command(study, tmp_path), capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    driver.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert "another process is writing there" in second.stderr
    wait_for(driver, tmp_path, 3)
    driver.kill()
    driver.communicate()
    finished = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "runs").glob("*.parquet")}
    results = mnist_ablate.run(study, workers=2, out=tmp_path, progress=False)
    assert same(undisturbed, results)
    assert all((tmp_path / "runs" / name).stat().st_mtime_ns == at for name, at in finished.items())


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers through /proc")
def test_a_killed_worker_is_replaced(study: Path, undisturbed: Results, tmp_path: Path) -> None:
    """After `kill -9` of a worker the pool is made anew, what was in flight is tried again, and all is stored."""
    driver = start_and_wait_for(study, tmp_path, 2)
    os.kill(workers_of(driver.pid)[0], signal.SIGKILL)
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    assert "A worker process died" in told
    assert same(undisturbed, mnist_ablate.load(tmp_path))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
def test_ctrl_c_keeps_what_is_finished(study: Path, undisturbed: Results, tmp_path: Path) -> None:
    """SIGINT to the whole terminal ends everything, says how to go on, with status 3; going on completes the study."""
    driver = start_and_wait_for(study, tmp_path, 2)
    os.killpg(driver.pid, signal.SIGINT)
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 3
    assert "run the same command again to go on" in told
    assert "Traceback" not in told
    assert same(undisturbed, mnist_ablate.run(study, workers=2, out=tmp_path, progress=False))


def test_a_plain_script_needs_no_guard(study: Path, tmp_path: Path) -> None:
    """A user's script without `if __name__ == "__main__"` runs, reports, and runs once only."""
    script = tmp_path / "script.py"
    script.write_text(
        "import mnist_ablate\n"
        "print('once')\n"
        f"results = mnist_ablate.run({str(study)!r}, seeds=1, epochs=1, workers=2, out='out', progress=False)\n"
        "print(mnist_ablate.report(results, 'page'))\n"
        "print(len(mnist_ablate.load('out').documents))\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.count("once") == 1
    assert done.stdout.splitlines()[-1] == "8"
    assert (tmp_path / "page" / "index.html").exists()
