"""The command line: what each command prints, and its exit status."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pytest
import synthetic

from mnist_ablate import cli, data
from mnist_ablate.checks import plan
from mnist_ablate.data import Images
from mnist_ablate.design.plan import PROTOCOL_VERSION
from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.errors import (
    DamagedFileError,
    DataError,
    GateReferenceError,
    ResultsError,
    RunsFailedError,
    StorageError,
    StudyError,
    WorkerError,
)
from mnist_ablate.execution import workplace
from mnist_ablate.gate import accept, runs
from mnist_ablate.gate.judge import Verdict
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.power import as_pilot, power_table
from mnist_ablate.store.results import load
from mnist_ablate.training import estimate, worker
from mnist_ablate.training.protocol import train

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
TINY = """
name = "tiny"
title = "A tiny study"
seeds = 1
[protocol]
epochs = 1
width = 4
batch_size = 100
[factors]
dropout = [0.0, 0.5]
"""


@pytest.fixture(autouse=True)
def study(small: Images, monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> Path:
    """Work in an empty folder with a tiny study file, on small images."""
    monkeypatch.setattr(worker, "_images", lambda _: small)
    monkeypatch.setattr(data, "fetch", lambda name, *_, **__: data.Fetched(name, in_folder, "planted"))
    file = in_folder / "tiny.toml"
    file.write_text(TINY)
    return file


def run(*arguments: str) -> int:
    """Run a command in this process; return its exit status, also if argparse ends it."""
    try:
        return cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_run_trains_prints_a_table_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    """`run` prints each cell with its accuracy, and where the results and the report are; its status is 0."""
    assert run("run", "tiny.toml", "--workers", "0", "--report") == 0
    printed = capsys.readouterr().out
    assert "baseline" in printed
    assert "dropout" in printed
    assert "Results: results/tiny" in printed
    assert "Report:  reports/tiny/index.html" in printed
    assert Path("reports/tiny/index.html").exists()
    assert Path("reports/tiny/summary.md").exists()


def test_out_moves_results_and_report() -> None:
    """With `--out DIR`, results go to DIR, the report to DIR/report, and nothing elsewhere."""
    assert run("run", "tiny.toml", "--workers", "0", "--report", "--out", "here", "--seeds", "2", "--epochs", "2") == 0
    assert Path("here/report/index.html").exists()
    assert len(list(Path("here/runs").iterdir())) == 4
    assert not Path("results").exists()
    assert not Path("reports").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "nothing"], "nothing: no such study"),
        (["run", "tiny.toml", "--seeds", "0"], "seeds = 0: allowed: a whole number >= 1"),
        (["run", "tiny.toml", "--seeds", "many"], "invalid int value: 'many'"),
        (["run", "tiny.toml", "--epochs", "-1"], "protocol.epochs = -1: allowed: a whole number >= 1"),
        (["run", "tiny.toml", "--dataset", "cifar"], 'allowed: one of "mnist", "fashion-mnist"'),
        (["run", "tiny.toml", "--engine", "warp"], 'engine = "warp": allowed: one of "autograd", "fused"'),
        (["run", "tiny.toml", "--workers", "-2"], "workers = -2: allowed: a whole number >= 0"),
        (["run", "tiny.toml", "--workers", "0", "--out", "tiny.toml/x"], "Give another folder with --out"),
        (["plan", "nothing"], "nothing: no such study"),
        (["data", "cifar"], "invalid choice: 'cifar'"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_gets_one_message_and_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input gets a message with its cause and what is allowed, no traceback, and status 2."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_failed_run_ends_with_1_after_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a run fails, the others are still shown and reported, and the status is 1."""

    def breaks(run: Any, images: Images) -> Any:
        if run.cell == "dropout":
            raise MemoryError("planted")
        return train(run, images)

    monkeypatch.setattr(worker, "train", breaks)
    assert run("run", "tiny.toml", "--workers", "0", "--report") == 1
    printed = capsys.readouterr()
    assert "baseline" in printed.out
    assert "1 of 2 runs failed" in printed.err
    assert "MemoryError: planted" in Path("reports/tiny/index.html").read_text()
    monkeypatch.setattr(worker, "train", lambda *_: 1 / 0)
    assert run("run", "tiny.toml", "--workers", "0", "--out", "none") == 1


def test_ctrl_c_ends_with_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt, in a run or elsewhere, is one sentence and status 3."""

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "train", interrupted)
    assert run("run", "tiny.toml", "--workers", "0") == 3
    assert "run the same command again to go on" in capsys.readouterr().err
    monkeypatch.setattr(data, "fetch", interrupted)
    assert run("data") == 3
    assert capsys.readouterr().err == "mnist-ablate: Stopped.\n"


def test_plan_counts_without_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` prints how many runs there are, how many are stored, and about how long the rest takes."""
    monkeypatch.setattr(workplace, "default_workers", lambda: 2)
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 120.0 * len(runs))
    assert run("run", "tiny.toml", "--workers", "0") == 0
    capsys.readouterr()
    Path("tiny.toml").write_text(TINY.replace("seeds = 1", "seeds = 3"))
    assert run("plan", "tiny.toml") == 0
    printed = capsys.readouterr().out
    assert "2 cells x 3 seeds = 6 runs; 2 stored in results/tiny" in printed
    assert "4 to do: about 0:04:00 with 2 workers" in printed
    assert "factor dropout: 0.0, 0.5" in printed


def test_a_study_goes_on_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` says how far a study may go, `run --until-settled` goes there, and a fixed number is refused."""
    growing = TINY.replace("seeds = 1", "seeds = { first = 6, step = 1, most = 7 }\nfutility = 0.0") + HYPOTHESIS
    Path("tiny.toml").write_text(growing)
    assert run("plan", "tiny.toml") == 0
    assert "2 cells x 6 seeds (--until-settled: up to 7) = 12 runs" in capsys.readouterr().out
    assert run("run", "tiny.toml", "--workers", "0", "--until-settled") == 0
    assert "6 seeds: helps not settled; goes on\n" in capsys.readouterr().err
    assert load("results/tiny").study.n_seeds == 7
    assert run("doctor", "results/tiny") == 0
    assert "beyond" not in capsys.readouterr().out
    assert run("run", "tiny.toml", "--until-settled", "--seeds", "3") == 2
    assert "give one of them" in capsys.readouterr().err


def test_another_protocol_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """With a folder of protocol 1, `verify` cannot tell and `run` refuses; `plan` and `doctor` say so."""
    study = load_study("tiny.toml").with_options(seeds=2)
    folder = str(synthetic.make(Path("results/tiny"), study, protocol_version=1))
    for arguments, status in ((["run", "tiny.toml"], 2), (["verify", folder], 3)):
        assert run(*arguments) == status
        told = capsys.readouterr().err
        assert "protocol 1" in told
        assert told.count("\n") == 1
    assert run("plan", "tiny.toml") == 0
    assert "holds runs of protocol 1" in capsys.readouterr().out
    assert run("doctor", folder) == 0
    what_can_be_done = told.removeprefix("mnist-ablate: ")
    assert f"NOTE: {what_can_be_done}" in capsys.readouterr().out
    assert run("compare", folder, folder) == run("report", folder) == 0
    new = str(synthetic.make(Path("new"), study))
    assert run("compare", folder, new) == 3
    assert "Note: Bits cannot be compared across protocols" in capsys.readouterr().out


def test_plan_lists_the_bundled_studies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a study, `plan` lists the bundled ones, each with its cost."""
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: float(len(runs)))
    assert run("plan") == 0
    assert "factorial: L2, dropout and BatchNorm" in capsys.readouterr().out


def test_data_says_where_it_lies(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`data` prints the folder and the source; a failed download is a message and status 2."""
    assert run("data", "fashion-mnist") == 0
    assert capsys.readouterr().out == f"fashion-mnist: {in_folder} (planted)\n"

    def unavailable(*_: Any, **__: Any) -> Any:
        raise DataError("no network")

    monkeypatch.setattr(data, "fetch", unavailable)
    assert run("data") == 2
    assert capsys.readouterr().err == "mnist-ablate: no network\n"


def test_gate_from_accept_to_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`gate --accept --why` makes a reference; `gate` then passes with status 0, and says where the page is."""
    monkeypatch.setattr(accept, "BANK", range(1000, 1003))
    monkeypatch.setattr(accept, "GOLDEN_SEEDS", (1000,))
    monkeypatch.setattr(accept, "ENVIRONMENTS", {})
    monkeypatch.setattr(runs, "GOLDEN_FRACTION", 0.8)
    here = ["--reference", "ref", "--workers", "0"]
    assert run("gate", *here) == 2
    assert "gate --accept --why" in capsys.readouterr().err
    assert run("gate", "--accept", *here, "--study", "tiny.toml") == 3
    assert "--why TEXT" in capsys.readouterr().err
    assert run("gate", "--accept", "--why", "because", *here, "--study", "tiny.toml") == 0
    assert "Reference: ref" in capsys.readouterr().out
    assert run("gate", *here) == 0
    printed = capsys.readouterr().out
    assert "Pass: every bit" in printed
    assert "results/gate/gate.md" in printed
    assert run("gate", "results/gate", "--reference", "ref", "--changed-on-purpose") == 0
    assert Path("results/gate/gate.xml").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageError("out: cannot be written"), 3),
        (WorkerError("no worker"), 3),
        (DataError("no images"), 3),
        (DamagedFileError("ref: damaged"), 3),
        (RunsFailedError("a run cannot be trained", Path()), 3),  # for --accept; else it is a verdict
        (OSError(28, "No space left on device", "a-file"), 3),
        (MemoryError(), 3),
        (ImportError("libtorch.so"), 3),
        (ZeroDivisionError("a mistake in the gate"), 3),
        (KeyboardInterrupt(), 3),
        (GateReferenceError("old"), 3),
        (StudyError("no such study"), 2),
        (ResultsError("no reference there"), 2),
    ],
)
def test_only_a_regression_ends_the_gate_with_1(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever keeps the gate from an answer, its status is 3, or 2 for bad input, and the cause is said."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(runs, "gate", fail)
    monkeypatch.setattr(accept, "accept_reference", fail)
    for arguments in (["gate"], ["gate", "--accept", "--why", "x"]):
        assert run(*arguments) == status
        assert (str(error) or type(error).__name__ or "Stopped") in capsys.readouterr().err.replace(
            "Stopped", "KeyboardInterrupt"
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("outcome", "status"), [("fail", 1), ("pass", 0), ("cannot tell", 3)])
def test_a_verdict_holds_if_nobody_reads_it(
    outcome: Any, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where standard output is full, or closed at the other end, the verdict and its status stay what they are."""
    monkeypatch.setattr(runs, "gate", lambda *_, **__: Verdict(outcome, f"It is: {outcome}", (), pd.DataFrame()))
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("gate") == status
        with suppress(OSError):
            full.flush()
    assert f"It is: {outcome}" in capsys.readouterr().err


@pytest.mark.parametrize("program", [["-m", "mnist_ablate"], ["-m", "mnist_ablate.report"]])
def test_the_programs_start(program: list[str], in_folder: Path) -> None:
    """Both programs have a help text, and start without a warning."""
    command = [sys.executable, "-W", "error::RuntimeWarning", *program, "--help"]
    environment = os.environ | {"MNIST_ABLATE_DATA": str(in_folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device", "a-file")])
def test_what_the_machine_lacks_is_one_message(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If memory or space runs out unexpectedly, one sentence says so, and the status is 1."""

    def breaks(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(data, "fetch", breaks)
    assert run("data") == 1
    told = capsys.readouterr().err
    assert "not enough memory" in told or "a-file: No space left on device" in told
    assert told.count("\n") == 1


def program(*arguments: str, code: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the program in its own process, after `code`."""
    end = "from mnist_ablate.__main__ import main\nsys.exit(main())"
    start = f"import sys; sys.argv[1:] = {list(arguments)!r}\n{code}\n{end}"
    return subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)  # noqa: S603


def test_ctrl_c_while_it_starts() -> None:
    """Ctrl-C during the first imports gives one sentence and status 3, as it does later."""
    interrupted = "import types; broken = types.ModuleType('mnist_ablate.cli')\n"
    interrupted += "def main(*_): raise KeyboardInterrupt\nbroken.main = main; sys.modules[broken.__name__] = broken"
    done = program("plan", code=interrupted)
    assert (done.returncode, done.stderr) == (3, "mnist-ablate: Stopped.\n")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize(("seconds", "told"), [(3.0, "ended"), (-1.0, "mnist-ablate: Stopped.")])
def test_ctrl_c_twice(seconds: float, told: str) -> None:
    """An immediate second Ctrl-C does not disturb the clean end that the first one began; a later one does."""
    stub = (
        "import mnist_ablate.__main__ as start, os, signal, time, types\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it as ignored
        f"start.AT_ONCE_SECONDS = {seconds}\n"
        "def stub(*_):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1); print('ended', file=sys.stderr); return 3\n"
        "stubbed = types.ModuleType('mnist_ablate.cli'); stubbed.main = stub; sys.modules[stubbed.__name__] = stubbed"
    )
    done = program("plan", code=stub)
    assert (done.returncode, done.stderr) == (3, told + "\n")


STUB = (
    "import os, signal, time, types\n"
    "def stub(*_):\n"
    "    {0}\n"
    "stubbed = types.ModuleType('mnist_ablate.cli'); stubbed.main = stub; sys.modules[stubbed.__name__] = stubbed"
)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_programs_stop_it_as_ctrl_c_does(name: str) -> None:
    """`kill`, the end of a container and a closed terminal end it cleanly; `nohup` keeps it going."""
    told = program("plan", code=STUB.format(f"os.kill(os.getpid(), signal.{name}); time.sleep(60)"))
    assert (told.returncode, told.stderr) == (3, "mnist-ablate: Stopped.\n")
    ignored = f"import signal; signal.signal(signal.{name}, signal.SIG_IGN)\n"
    assert program("plan", code=ignored + STUB.format(f"os.kill(os.getpid(), signal.{name}); return 0")).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_open_ones(closed: str, in_folder: Path) -> None:
    """With a stream closed, a command ends as it does with it, and no file of ours gets the stream's number."""
    synthetic.make(in_folder / "results", synthetic.factorial(2, 1))
    code = "import sys; sys.argv[1:] = ['doctor', 'results']\n"
    code += "from mnist_ablate.__main__ import main; status = main()\n"
    code += "with open('written', 'w') as file:\n    print(file.fileno() > 2, status, file=file)"
    shell = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=in_folder)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")
    assert (in_folder / "written").read_text() == "True 0\n"
    assert ("no damaged files" in done.stdout) == (" >&-" not in f" {closed}")


def test_a_reader_that_has_enough_changes_no_answer(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the reader of output or messages is gone, as after `| head`, all is done and the status is right."""

    def unread() -> TextIO:
        ours, theirs = os.pipe()
        os.close(ours)
        return os.fdopen(theirs, "w", buffering=1)

    results = synthetic.make(in_folder / "results", synthetic.factorial(2, 1))
    with unread() as out, unread() as messages:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", messages)
        assert run("run", "tiny.toml", "--workers", "0") == 0
        assert run("doctor", str(results)) == 0
        next((results / "runs").iterdir()).write_bytes(b"")
        assert run("doctor", str(results)) == 1
        assert run("doctor", "nothing") == 2
        assert run("--help") == 0
    monkeypatch.undo()
    assert len(list((in_folder / "results" / "tiny" / "runs").iterdir())) == 2


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_AS, ({0} << 20, {0} << 20))"
ULIMIT = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold to the limit")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param(LIMIT.format(50), "the limit is 50 MB", marks=ULIMIT),
        pytest.param(LIMIT.format(400), "the limit is 400 MB", marks=ULIMIT),
        ("sys.modules['mnist_ablate.cli'] = None", "import of mnist_ablate.cli"),
    ],
)
def test_libraries_that_do_not_load(code: str, told: str) -> None:
    """With too little memory for the libraries, one sentence says so, and nothing hangs."""
    done = program("plan", code=code)
    assert told in done.stderr
    assert "ulimit -v" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1
    if "RLIMIT" not in code:
        assert program("gate", code=code).returncode == 3  # there, 1 means a regression


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_printing_to_a_full_disk() -> None:
    """If standard output cannot be written, one sentence says so, and the status is 1."""
    stub = "from mnist_ablate import data; data.fetch = lambda *_, **__: data.Fetched('mnist', 'here', 'a stub')"
    done = program("data", code=f"{stub}; sys.stdout = open('/dev/full', 'w')")
    assert done.stderr.startswith("mnist-ablate: standard output: No space left on device")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
@pytest.mark.usefixtures("in_folder")
def test_a_name_that_is_no_text() -> None:
    """A path whose bytes are not text can be named in a message like any other."""
    done = program("doctor", os.fsdecode(b"caf\xe9"), code="sys.stdout.reconfigure(encoding='utf-8', errors='strict')")
    assert done.returncode == 2
    assert "no results there" in done.stderr


HYPOTHESIS = """
[[hypotheses]]
id = "helps"
statement = "Dropout helps"
effect = "dropout"
kind = "increase"
smallest = 0.1
"""


def test_plan_prints_the_seeds_needed_by_a_pilot(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan --power` prints `power_table` for the study's own hypotheses, and what the study would cost."""
    monkeypatch.setattr(workplace, "default_workers", lambda: 2)
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    pilot = synthetic.make(in_folder / "pilot", synthetic.factorial(8, 1))
    assert run("plan", "factorial", "--power", "pilot") == 0
    printed = capsys.readouterr().out
    table = power_table(analyse(as_pilot(load(pilot), load_study("factorial"))).judgements).set_index("id")
    for name, row in table.iterrows():
        (line,) = (line for line in printed.splitlines() if line.split()[:1] == [name])
        assert line.split()[1] == "8"
        assert line.split()[-2:] == [f"{row['likely']:.0f}", f"{row['cautious']:.0f}"]
    assert "The pilot has epochs = 1 instead of 5" in printed
    assert f"{table['likely'].max():.0f} seeds settle all by the likely number" in printed
    proposed = int(re.findall(r"seeds = { first = 10, step = 10, most = (\d+) }, and run --until-settled", printed)[0])
    assert 1.1 * table["likely"].max() <= proposed < 1.1 * table["likely"].max() + 10
    parse_study(
        load_study("factorial").model_dump(exclude_unset=True) | {"seeds": {"first": 10, "step": 10, "most": proposed}}
    )


def test_a_pilot_of_another_protocol_is_told(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pilot of protocol 1 serves, and the words of `verify` say what else can be done with it."""
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    for protocol in (1, PROTOCOL_VERSION):
        pilot = load(synthetic.make(in_folder / str(protocol), synthetic.factorial(8, 1), protocol_version=protocol))
        assert bool(pilot.of_other_protocol) is (protocol == 1)
        told = str(plan.power("factorial", pilot))
        assert ("was made by protocol 1" in told) is (protocol == 1)
        assert pilot.of_other_protocol in told


def test_most_is_proposed_though_some_hypotheses_have_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of the reference proposes `most` by the others, and names those that no seeds make certain."""
    monkeypatch.setattr(workplace, "default_workers", lambda: 2)
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    printed = plan.power("factorial", REFERENCE / "factorial")
    table = printed.table.set_index("id")
    without = table.index[table["likely"].isna()]
    assert 0 < len(without) < len(table)
    *_, likely, cautious, last = str(printed).splitlines()
    for line, name in ((likely, "likely"), (cautious, "cautious")):
        known = table[name].dropna()
        assert line.startswith(f"  {known.max():.0f} seeds settle {len(known)} of {len(table)} by the {name} number: ")
    (proposed,) = re.findall(r"most = (\d+) }, and run --until-settled\.", last)
    assert 1.1 * table["likely"].max() <= int(proposed) < 1.1 * table["likely"].max() + 10
    assert last.endswith(f" No feasible number of seeds makes certain: {', '.join(without)}.")


def test_a_hypothesis_that_a_pilot_cannot_judge_is_named(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pilot of one seed has no spread, so nothing is proposed."""
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    synthetic.make(in_folder / "pilot", synthetic.factorial(1, 1))
    assert run("plan", "factorial", "--power", "pilot") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("  The pilot has no spread to judge by for: C1-gap, ")


def test_a_pilot_has_all_its_seeds(in_folder: Path) -> None:
    """A pilot is judged by all of its seeds at once, whatever looks the planned study or the pilot has."""
    pilot = load(synthetic.make(in_folder / "pilot", load_study("factorial").reaching(14)))
    assert {j.sample.n for j in analyse(pilot).judgements} == {10}
    assert {j.sample.n for j in analyse(as_pilot(pilot, load_study("factorial"))).judgements} == {14}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--power", "pilot"], "for which study?"),
        (["tiny.toml", "--power", "pilot"], "tiny: has no hypotheses"),
        (["claims.toml", "--power", "pilot"], "no pilot for tiny, it has no runs of baseline, dropout"),
        (["factorial", "--power", "nowhere"], "nowhere"),
    ],
)
def test_an_unusable_pilot_is_one_message(
    arguments: list[str], told: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a study, hypotheses, matching cells or a folder: one line, and status 2."""
    synthetic.make(in_folder / "pilot", synthetic.factorial(2, 1))
    Path("claims.toml").write_text(TINY + HYPOTHESIS)
    assert run("plan", *arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_one_seed_is_no_pilot_for_a_number(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed has no spread, so every number is a dash and no cost is printed."""
    monkeypatch.setattr(estimate, "core_seconds", lambda runs: 60.0 * len(runs))
    synthetic.make(in_folder / "pilot", synthetic.factorial(1, 1))
    assert run("plan", "factorial", "--power", "pilot") == 0
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if line.split()[:1] == ["C4-accuracy"])
    assert line.split()[-2:] == ["-", "-"]
    assert "settle all" not in printed


def test_compare_ends_with_its_status(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare` prints findings and page; its status: 0 the same, 1 different, 3 cannot tell, 2 bad input."""
    six, three = (synthetic.factorial(seeds).with_options(engine="autograd") for seeds in (6, 3))
    a, b = (synthetic.make(in_folder / name, study) for name, study in (("a", six), ("b", three)))
    far = synthetic.make(in_folder / "far", six, means=dict.fromkeys(synthetic.MEANS, 90.0), sd=0.3)
    assert run("compare", str(a), str(a)) == 0
    assert "More: reports/compare/compare.html, reports/compare/compare.md" in capsys.readouterr().out
    assert Path("reports/compare/compare.html").exists()
    assert run("compare", str(a), str(far), "--out", "far-from") == 1
    assert "Different: " in capsys.readouterr().out
    assert Path("far-from/compare.md").exists()
    other = synthetic.make(in_folder / "other", three, means=dict.fromkeys(synthetic.MEANS, 97.0))
    assert run("compare", str(b), str(other)) == 3
    assert run("compare", str(a), "nowhere") == 2
    assert "no results there" in capsys.readouterr().err
    assert run("compare", str(a), str(b), "--margin", "test_accuracy") == 2
    assert "allowed: RESPONSE=SIZE" in capsys.readouterr().err
    assert run("compare", str(a), str(b), "--margin", "accuracy=1") == 2
    assert "no such response; allowed: one of test_accuracy, " in capsys.readouterr().err


def test_run_loads_statistics_and_plots_late() -> None:
    """Before its workers train, `run` loads no torch, SciPy or matplotlib, which take longer than all else."""
    slow = ("torch", "scipy", "matplotlib")
    code = f"import mnist_ablate.cli, sys; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "[]\n"
