"""What CONTRIBUTING.md says of additions: each takes the two files that it names, tried on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import mnist_ablate

PACKAGE = Path(mnist_ablate.__file__).parent
RESPONSES, PROBES = "design/responses.py", "training/probes.py"
ESTIMANDS, SECTIONS = "inference/estimands.py", "report/sections/__init__.py"
OF_RESPONSES = "RESPONSES: Mapping[str, Response] = MappingProxyType({\n"

Additions = dict[str, list[tuple[str, str]]]
"""By file: a text that is there once, and what comes after it; an empty text makes a new file."""

PROBE: Additions = {
    RESPONSES: [(OF_RESPONSES, '    "log_bias_norm": _log("log of the norm of the biases", "biases"),\n')],
    PROBES: [
        ('    "weights": weights,\n', '    "biases": biases,\n'),
        (
            "# ---- Answers ----\n",
            "\n\ndef biases(subject: Subject) -> Numbers:\n"
            '    """Return the logarithm of the norm of all biases."""\n'
            "    network = subject.network\n"
            '    squares = _squares(network.weights[f"{name}.bias"] for name in network.linears)\n'
            '    return {"log_bias_norm": 0.5 * _log(network, float(total(squares)))}\n',
        ),
    ],
}
ESTIMAND: Additions = {
    RESPONSES: [
        (OF_RESPONSES, '    "log_epochs_to_50": _log("log of epochs to 50 % validation accuracy", "curve", -1),\n')
    ],
    ESTIMANDS: [
        (
            '    "log_epochs_to_97": log_epochs_to,\n',
            '    "log_epochs_to_50": lambda epochs: log_epochs_to(epochs, 0.5),\n',
        )
    ],
}
PLOT: Additions = {
    "plots/ranges.py": [
        (
            "",
            '"""A picture of ranges."""\n\n'
            "from mnist_ablate.inference.analysis import analyse\n"
            "from mnist_ablate.plots.style import THEMES, WIDTH, canvas\n\n\n"
            'def ranges(runs, *, theme="light", width=WIDTH):\n'
            '    """Draw the range of each cell."""\n'
            "    figure, axes = canvas(THEMES[theme], width, 3)\n"
            "    cells = analyse(runs).cells()\n"
            '    axes.bar(cells["cell"], cells["max"] - cells["min"])\n'
            "    return figure\n",
        )
    ],
}
SECTION: Additions = {
    "report/sections/ranges.py": [
        (
            "",
            '"""How far the runs of a cell lie apart."""\n\n'
            "from functools import partial\n\n"
            "from mnist_ablate.plots.ranges import ranges\n"
            "from mnist_ablate.report.section import Section\n"
            "from mnist_ablate.report.svg import picture\n\n\n"
            "def section(analysis):\n"
            '    """Return the section."""\n'
            '    drawn = {"ranges": picture(partial(ranges, analysis), "Bars of ranges.")}\n'
            "    template = \"{% call figure(pictures, 'ranges') %}Highest minus lowest accuracy.{% endcall %}\"\n"
            '    return Section("ranges", "How far runs lie apart", template, pictures=drawn)\n',
        )
    ],
    SECTIONS: [("    provenance,\n", "    ranges,\n"), ("    cells.section,\n", "    ranges.section,\n")],
}
STUDY = """
name = "added"
engine = "autograd"
seeds = 6
probes = ["biases"]

[protocol]
epochs = 2
train_images = 64
width = 8

[factors]
dropout = [0.0, 0.5]

[[hypotheses]]
id = "biases"
statement = "Dropout makes biases larger"
response = "log_bias_norm"
effect = "dropout"
kind = "increase"
smallest = 0.01

[[hypotheses]]
id = "half"
statement = "Dropout slows learning"
response = "log_epochs_to_50"
effect = "dropout"
kind = "increase"
smallest = 0.01
"""
TRAIN = """
import conftest
from mnist_ablate import data, load_study, report, run
from mnist_ablate.training import worker

worker._images = lambda name: conftest.small_images()
data.fetch = lambda name, *_, **__: data.Fetched(name, None, "planted")
print(report(run("added.toml", workers=0, progress=False), "page"))
"""


@pytest.mark.parametrize(
    ("what", "additions"),
    [("A probe", PROBE), ("An estimand", ESTIMAND), ("A plot", PLOT | dict.fromkeys(SECTION)), ("A section", SECTION)],
)
def test_an_addition_takes_the_files_that_are_named(what: str, additions: Mapping[str, object]) -> None:
    """CONTRIBUTING.md names two steps for each kind of addition, and what is added below keeps to their files."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\d\. .*?`([\w/.]+)`", text.partition(f"**{what}")[2].partition("\n**")[0], re.MULTILINE)
    assert len(set(steps)) == 2
    assert all(any(file.startswith(step) for step in steps) for file in additions)


def test_added_parts_are_measured_judged_and_shown(tmp_path: Path) -> None:
    """With one of each added, a study with the probe is trained, both responses are judged, and the page shows all."""
    copy = tmp_path / "mnist_ablate"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for additions in (PROBE, ESTIMAND, PLOT, SECTION):
        for name, changes in additions.items():
            for after, text in changes:
                _insert(copy / name, after, text)
    (tmp_path / "added.toml").write_text(STUDY)
    (tmp_path / "train.py").write_text(TRAIN)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent)]),
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
    }
    command = [sys.executable, "train.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    verdicts = (tmp_path / "page" / "tables" / "verdicts.csv").read_text(encoding="utf-8").splitlines()
    assert [line.partition(",")[0] for line in verdicts] == ["id", "biases", "half"]
    assert "log of the norm of the biases, log ratio" in page
    assert "Log of epochs to 50 % validation accuracy" in page
    assert "How far runs lie apart" in page
    assert (tmp_path / "page" / "figures" / "ranges.svg").exists()


def _insert(file: Path, after: str, text: str) -> None:
    """Put `text` after a text that the file has once, or make the file of it."""
    if not after:
        file.write_text(text, encoding="utf-8")
        return
    source = file.read_text(encoding="utf-8")
    assert source.count(after) == 1, f"{file.name} has {source.count(after)} times: {after}"
    file.write_text(source.replace(after, after + text), encoding="utf-8")
