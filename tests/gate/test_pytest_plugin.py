"""The fixture `gate` as a user of pytest meets it: record, accept, judge, and what it says."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from mnist_ablate import cli
from mnist_ablate.gate.pytest_plugin import COLUMNS, Gate

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PLUGIN = "mnist_ablate.gate.pytest_plugin"
SUITE = """
import numpy as np

def train(cell, seed, repeat):
    return np.random.default_rng([seed, repeat]).normal({{"small": 90.0, "large": 92.0}}[cell], 0.1) + {by}

def test_training(gate):
    for cell in ("small", "large"):
        for seed in range({seeds}):
            gate(cell, seed, train(cell, seed, {repeat}), metric="accuracy")
"""


def run(pytester: pytest.Pytester, *arguments: str, suite: str | None = None) -> pytest.RunResult:
    """Run pytest with the plugin in this process, on a suite where one is given."""
    if suite is not None:
        pytester.makepyfile(test_suite=suite)
    # Modules of earlier runs are imported anew, and no other plugin has a say.
    return pytester.runpytest_inprocess("-p", PLUGIN, "-p", "no:xdist", "-p", "no:cacheprovider", *arguments)


def suite(by: float = 0.0, seeds: int = 5, repeat: str = "gate.repeat") -> str:
    """Return a suite whose training is off by something."""
    return SUITE.format(by=by, seeds=seeds, repeat=repeat)


def accept(pytester: pytest.Pytester, text: str, repeats: int = 3) -> None:
    """Record a suite, and accept what it gave as the reference."""
    for _ in range(repeats):
        assert run(pytester, "--gate-record", "values.csv", suite=text).ret == 0
    command = ["gate", "values.csv", "--accept", "--reference", "tests/gate", "--why", "first"]
    assert cli.main(command) == 0


def test_recorded_accepted_and_judged(pytester: pytest.Pytester) -> None:
    """A training that is as it was passes, with a line for each check; one that moved fails, and says by how much."""
    accept(pytester, suite())
    table = pd.read_csv("values.csv")
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 5 * 3
    assert sorted(table["repeat"].unique()) == [0, 1, 2]
    same = run(pytester)
    same.assert_outcomes(passed=1)
    same.stdout.fnmatch_lines(["*= gate =*", "*test_training: Pass: accuracy moved by *", "*5 of 5 seeds",
                               "*accuracy, mean of all cells: *% of the limit ±*", "*accuracy, small: *",
                               "*accuracy, large: *"])  # fmt: skip
    worse = run(pytester, suite=suite(by=-1.0))
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines(["*Regression: accuracy * by -*, most in cell *"])
    worse.stdout.no_fnmatch_line("*Traceback*")
    run(pytester, suite=suite(by=+1.0)).assert_outcomes(failed=1)


def test_the_command_judges_what_was_recorded(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    """`gate TABLE --reference DIR` says of recorded values what the fixture says."""
    accept(pytester, suite())
    run(pytester, "--gate-record", "now.csv", suite=suite(by=-1.0))
    capsys.readouterr()
    assert cli.main(["gate", "now.csv", "--reference", "tests/gate", "--out", "said"]) == 1
    assert capsys.readouterr().out.startswith("Regression: accuracy")
    assert "Accuracies in percentage points" not in Path("said/gate.md").read_text()
    assert cli.main(["gate", "values.csv", "--reference", "tests/gate", "--out", "said"]) == 0


def test_renewed_by_the_same_commands(pytester: pytest.Pytester) -> None:
    """A change on purpose is recorded and accepted like the first reference; reasons and rules are kept."""
    accept(pytester, suite())
    rules = Path("tests/gate/gate.toml")
    rules.write_text(rules.read_text().replace("# accuracy = 0.95", "accuracy = 80.0"))
    Path("values.csv").unlink()
    accept(pytester, suite(by=3.0))
    run(pytester).assert_outcomes(passed=1)
    assert "accuracy = 80.0" in rules.read_text()
    assert Path("tests/gate/reference.json").read_text().count('"why"') == 2


def test_without_a_reference_it_cannot_tell(pytester: pytest.Pytester) -> None:
    """The test fails and names the commands that make a reference, or is skipped where the user prefers that."""
    result = run(pytester, suite=suite())
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Cannot tell: *tests*gate has no reference. Record one: *--gate-record*--accept*"])
    run(pytester, "-o", "gate_cannot_tell=skip").assert_outcomes(skipped=1)
    assert run(pytester, "-o", "gate_cannot_tell=pass").ret == pytest.ExitCode.USAGE_ERROR


def test_few_values_cannot_tell(pytester: pytest.Pytester) -> None:
    """Three seeds say too little of chance for anything but a pass to the bit, and the message says what is needed."""
    accept(pytester, suite(seeds=3, repeat="0"), repeats=1)
    run(pytester).assert_outcomes(passed=1)
    result = run(pytester, suite=suite(by=0.01, seeds=3, repeat="0"))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Cannot tell: *known from 2 degrees of freedom alone, and 6 are needed*"])


def test_a_training_without_luck(pytester: pytest.Pytester) -> None:
    """Where repeats change nothing, chance is what seeds do: equal values pass, and a large shift fails."""
    accept(pytester, suite(seeds=12, repeat="0"), repeats=2)
    same = run(pytester)
    same.assert_outcomes(passed=1)
    same.stdout.fnmatch_lines(["*, unchanged"])
    run(pytester, suite=suite(by=-1.0, seeds=12, repeat="0")).assert_outcomes(failed=1)
    run(pytester, suite=suite(by=-0.02, seeds=12, repeat="0")).assert_outcomes(passed=1)


def test_a_value_that_is_not_finite_fails(pytester: pytest.Pytester) -> None:
    """A training that diverges fails the test, even where all of its values are lost."""
    accept(pytester, suite())
    result = run(pytester, suite=suite().replace("return ", "return float('nan') * "))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Regression: * accuracy is not finite.*"])


def test_each_test_has_its_own_cells(pytester: pytest.Pytester) -> None:
    """Two tests share a reference, each is judged by its own cells, and one that is not recorded cannot tell."""
    two = (
        suite()
        + "\ndef test_other(gate):\n    for seed in range(8):\n        gate('other', seed, seed + gate.repeat / 9)\n"
    )
    accept(pytester, two)
    run(pytester).assert_outcomes(passed=2)
    run(pytester, suite=two.replace("seed + gate", "7 + seed + gate")).assert_outcomes(passed=1, failed=1)
    result = run(pytester, suite=two.replace("'other'", "'new'"))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Cannot tell: The reference has no cell new; it has small, large, other.*"])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def test_it(gate): pass", "*Cannot tell: the test gave the gate no value*"),
        ("def test_it(gate):\n    gate('a', 0, 1.0)\n    gate('a', 0, 2.0)",
         "*ValueError: cell a, seed 0: value is given twice*"),
        ("def test_it(gate):\n    gate('a', 0.5, 1.0)", "*TypeError: *float*"),
        ("def test_it(gate):\n    gate('a', 0, 1.0)\n    assert 1 == 2", "*assert 1 == 2*"),
    ],
)  # fmt: skip
def test_misuse_fails_the_test(pytester: pytest.Pytester, code: str, told: str) -> None:
    """No value, a value twice, a seed that is no whole number, and whatever else is wrong with the test: it fails."""
    result = run(pytester, suite=code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([told])


def test_only_whole_sessions_are_recorded(pytester: pytest.Pytester) -> None:
    """A session with a failure is not recorded, nor one whose tests give the same value, nor one without values."""
    failing = suite() + "\ndef test_wrong():\n    assert False\n"
    result = run(pytester, "--gate-record", "values.csv", suite=failing)
    result.stdout.fnmatch_lines(["nothing recorded: *test_wrong failed.*"])
    same = suite() + suite().replace("test_training", "test_again")
    result = run(pytester, "--gate-record", "values.csv", suite=same)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["not written: *test_training and *test_again both gave cell small, seed 0, accuracy.*"]
    )
    result = run(pytester, "--gate-record", "values.csv", suite="def test_it(): pass")
    result.stdout.fnmatch_lines(["nothing recorded: no test gave the gate a value."])
    assert not Path("values.csv").exists()


@pytest.mark.parametrize("content", ["a,b\n1,2\n", ",".join(COLUMNS) + "\nsmall,0,accuracy,x,1\n"])
def test_another_file_is_not_added_to(pytester: pytest.Pytester, content: str) -> None:
    """A file that is no record is left as it is, and named before anything is trained."""
    Path("values.csv").write_text(content)
    result = run(pytester, "--gate-record", "values.csv", suite=suite())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gate-record values.csv: cannot be added to*"])
    assert Path("values.csv").read_text() == content


def test_the_page_has_all_verdicts(pytester: pytest.Pytester) -> None:
    """`--gate-page` writes what the gate says of each test as Markdown, also of one that fails."""
    accept(pytester, suite())
    run(pytester, "--gate-page", "out/gate.md", suite=suite(by=-1.0))
    page = Path("out/gate.md").read_text()
    assert "test_suite.py::test_training" in page
    assert "# Regression gate: fail" in page
    assert "| accuracy" in page
    assert "Reference of " in page


def test_workers_of_xdist_say_the_same(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pytest-xdist, values are recorded and judged as without."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # else xdist would be loaded under another name, too
    pytester.makepyfile(test_suite=suite())
    workers = ("-p", PLUGIN, "-p", "xdist.plugin", "--numprocesses", "1", "-p", "no:cacheprovider")
    for repeat in range(3):
        result = pytester.runpytest_inprocess(*workers, "--gate-record", "values.csv")
        result.stdout.fnmatch_lines([f"10 values recorded in values.csv, as repeat {repeat}.*"])
    assert cli.main(["gate", "values.csv", "--accept", "--reference", "tests/gate", "--why", "first"]) == 0
    result = pytester.runpytest_inprocess(*workers)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*accuracy, mean of all cells: *% of the limit ±*"])


def test_whoever_does_not_use_it_pays_nothing() -> None:
    """The module imports nothing but pytest and the standard library until a test gives a value."""
    code = (
        f"import {PLUGIN}, sys\n"
        "heavy = {'numpy', 'pandas', 'scipy', 'pyarrow', 'pydantic', 'torch', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith('mnist_ablate.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == f"[] ['mnist_ablate.gate', '{PLUGIN}']"


def test_pytest_finds_it_by_its_entry_point() -> None:
    """The package names the plugin under the name of its module, so that `-p` and `-p no:` take the same name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}


def test_values_may_be_of_any_library() -> None:
    """Numbers of numpy and pandas are taken, and kept as plain ones."""
    gate = Gate()
    gate("a", pd.Series([3]).iloc[0], pd.Series([0.5]).iloc[0])
    ((key, value),) = gate.values.items()
    assert key == ("a", 3, "value")
    assert [type(part) for part in (*key, value)] == [str, int, str, float]
