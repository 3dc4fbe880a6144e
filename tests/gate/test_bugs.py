"""The planted bugs of benchmarks/gate fit the package as it is."""

import ast
import sys
from pathlib import Path

import pytest

import mnist_ablate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gate"))
import power
from bugs import BUGS, Bug

PACKAGE = Path(mnist_ablate.__file__).parent


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_be_planted(bug: Bug) -> None:
    """Each edit of a bug finds its text exactly once, changes it, and leaves valid Python."""
    for name in {name for name, _, _ in bug.edits}:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        for _, old, new in (edit for edit in bug.edits if edit[0] == name):
            assert text.count(old) == 1
            assert old != new
            text = text.replace(old, new)
        ast.parse(text)


def test_bugs_have_names_of_their_own() -> None:
    """There are at least 25, each under its own name, and none is taken for a clean copy."""
    names = [bug.name for bug in BUGS]
    assert len(set(names)) == len(names) >= 25
    assert not any(name.startswith(("clean", "reference")) for name in names)


def test_a_bug_is_planted_in_a_copy(tmp_path: Path) -> None:
    """Planting copies the package and edits the copy; text that is not there once is refused, naming the bug."""
    (tmp_path / "base" / "mnist_ablate").mkdir(parents=True)
    (tmp_path / "base" / "mnist_ablate" / "a.py").write_text("x = 1\n")
    power.plant(tmp_path / "base", tmp_path / "copy", Bug("b", "", (("a.py", "x = 1", "x = 2"),)))
    assert (tmp_path / "copy" / "mnist_ablate" / "a.py").read_text() == "x = 2\n"
    assert (tmp_path / "base" / "mnist_ablate" / "a.py").read_text() == "x = 1\n"
    with pytest.raises(SystemExit, match=r"b: a\.py has 0 times"):
        power.plant(tmp_path / "base", tmp_path / "other", Bug("b", "", (("a.py", "y", "z"),)))


def test_seed_sets_are_trained_one_after_the_other() -> None:
    """A seed set has its reference in three roundings, clean copies, then every bug once; no name twice."""
    for index in range(power.SETS):
        names = [item.name for item in power.items(index, "python")]
        assert names[:3] == ["reference", "reference-1", "reference-2"]
        assert len(set(names)) == len(names)
        assert {bug.name for bug in BUGS} <= set(names)
        assert sum(name.startswith("clean") for name in names) >= 5
