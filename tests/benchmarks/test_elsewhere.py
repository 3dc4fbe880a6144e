"""The measurements across versions and machines: problems are reported, and the tables have what was measured."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import digests
import pandas as pd
import pytest
from synthetic import MACHINE, factorial, make

from mnist_ablate.design.study import load_study
from mnist_ablate.report.format import NOTHING
from mnist_ablate.store.results import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "elsewhere"


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """Import the scripts, which are not part of the package."""
    added = [str(FOLDER), str(ROOT / "docs")]
    sys.path[:0] = added
    names = ("arm64", "compat", "elsewhere_tables", "engines", "places", "reproducibility", "rounding")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for folder in added:
        sys.path.remove(folder)


def planted(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, problems: dict[str, str]) -> None:
    """Plant runs instead of training them, and make no environments, unless there is a problem with them."""

    def train(place: Any, work: Path, _options: object) -> str:
        problem = problems.get(f"train {place.name}", "")
        if not problem:
            out, torch = scripts.places.folder_of(work, place.name), place.name.rpartition(" ")[2]
            make(out, load_study(FOLDER / "study.toml"), machines=[MACHINE | {"torch": torch, "numba": "0.68"}])
        return problem

    monkeypatch.setattr(
        scripts.compat, "make", lambda pair, _: problems.get(f"make {scripts.compat.name_of(pair)}", "")
    )
    monkeypatch.setattr(scripts.places.Place, "train", train)


def test_supported_versions_are_those_of_the_project(scripts: SimpleNamespace) -> None:
    """The oldest and newest Python and the oldest torch are those of pyproject.toml, the newest first."""
    pythons, torches = scripts.compat.supported()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={pythons[-1]}"' in text
    assert f'"Programming Language :: Python :: {pythons[0]}"' in text
    assert torches[0] == "torch"
    assert f'"{torches[1].replace("==", ">=")}"' in text


def test_problems_are_reported(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment that cannot be made and one that fails are in the table with the reason."""
    planted(scripts, monkeypatch, {"make Python 3.13, torch 2.4": "no wheel", "train Python 3.11, torch 2.4": "Boom"})
    pairs = [(python, torch) for python in ("3.13", "3.11") for torch in ("torch", "torch==2.4")]
    rows = list(scripts.compat.measure(pairs, tmp_path, []))
    table = scripts.elsewhere_tables.compat(pd.DataFrame(rows)).splitlines()
    assert len(table) == 2 + 2 + 4
    assert "not tried: no wheel" in table[5]
    assert "failed: Boom" in table[7]
    assert "| 12 of 12 | " in table[4]
    assert table[6].startswith("| Python 3.11, torch | torch | ")
    assert table[6].endswith("| 0 | 0 | bit-identical |")


def test_runs_of_several_places_are_refused(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Results that were made with several versions are not compared: a row has one place."""
    machines = [MACHINE, MACHINE | {"torch": "2.4"}]
    make(tmp_path / "mixed", factorial(2, 2), machines=machines)
    with pytest.raises(ValueError, match="several places"):
        list(scripts.places.Place("mixed", "mixed").compare(tmp_path))


def test_places_come_after_their_base(scripts: SimpleNamespace) -> None:
    """Every place has its own name, and is compared with one that comes before it."""
    places = list(scripts.rounding.places())
    names = [place.name for place in places]
    assert len(set(names)) == len(names) == 7
    assert all(place.base in names[:i] for i, place in enumerate(places) if place.base)


def test_a_missing_python_is_named(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Without an interpreter of the version nothing is made, and the reason names the version."""
    assert scripts.compat.make(("3.999", "torch"), tmp_path / "env") == "there is no Python 3.999 on this machine"
    assert not (tmp_path / "env").exists()


def test_the_reason_is_the_last_error_of_pip(scripts: SimpleNamespace) -> None:
    """The reason is the last error that pip prints."""
    printed = "WARNING: x\nERROR: Could not find\nERROR: No matching distribution\nnote: y\n"
    assert scripts.compat.reason(printed) == "No matching distribution"


def test_protocols_are_compared_cell_by_cell(scripts: SimpleNamespace) -> None:
    """Each cell of the table of protocols has three differences with intervals, and each verdict that is another."""
    frame = pd.read_parquet(ROOT / "results" / "reference" / "protocols.parquet")
    lines = scripts.elsewhere_tables.protocols(frame).splitlines()
    assert len(lines) == 2 + frame["cell"].nunique() == 11
    assert all(line.count(" to ") == 3 and line.endswith("| equivalent |") for line in lines[2:])
    assert (frame[["low", "high"]].abs().max(axis=1) < frame["margin"]).all()
    one = (frame["cell"] == "l2") & (frame["response"] == "gap")
    frame.loc[one, "verdict"] = "different"
    (line,) = (line for line in scripts.elsewhere_tables.protocols(frame).splitlines() if line.startswith("| l2 |"))
    assert line.endswith("| equivalent and different |")


def test_the_engines_are_compared_with_few_and_many_seeds(scripts: SimpleNamespace) -> None:
    """The table of engines has both means, the differences of 10 and of all seeds, and a verdict for each cell."""
    frame = pd.read_parquet(ROOT / "results" / "reference" / "engines.parquet")
    lines = scripts.elsewhere_tables.engines(frame).splitlines()
    assert lines[2].startswith("| Cell | fused, 10 seeds | autograd, 10 seeds | Difference | Difference, 40 seeds |")
    (baseline,) = (line.split(" | ") for line in lines if line.startswith("| baseline |"))
    (row,) = frame.query("cell == 'baseline' and response == 'test_accuracy' and n == 10").to_dict("records")
    assert baseline[1:3] == [f"{row['fused']:.2f}", f"{row['autograd']:.2f}"]
    assert baseline[3].startswith(f"{row['difference']:+.3f} (")
    assert baseline[3] != baseline[4]
    assert len(lines) == 4 + 9


def test_engines_are_compared_with_as_many_seeds_as_asked(scripts: SimpleNamespace) -> None:
    """Against themselves, the first runs of `fused` are the same, and both means are those of these seeds."""
    fused = load(scripts.engines.FUSED)
    frame = pd.DataFrame(scripts.engines.rows(fused, fused, 3))
    assert set(frame["verdict"]) == {"bit-identical"}
    assert set(frame["n"]) == {3}
    cells = frame[frame["cell"] != scripts.engines.MEAN]
    assert (cells["fused"] == cells["autograd"]).all()
    runs = fused.final.query("cell == 'baseline' and seed < 1003")
    (mean,) = cells.query("cell == 'baseline' and response == 'test_accuracy'")["fused"]
    assert mean == pytest.approx(100 * runs["test_accuracy"].mean())


@pytest.fixture
def environments(scripts: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    """Return all environments in which digests are compared, by name."""
    listed = list(scripts.reproducibility.environments(tmp_path / "work", tmp_path / "envs", tmp_path / "arm64"))
    by_name = {place.name: place for place in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_other_code_has_a_cache_of_its_own(environments: dict[str, Any]) -> None:
    """Only environments of this Python and this processor's own code share compiled kernels."""
    native = [place for place in environments.values() if place.cache == "native"]
    assert {place.python for place in native} == {(sys.executable,)}
    assert not any("NUMBA_CPU_NAME" in place.variables for place in native)
    assert digests.FEATURES.keys() < {place.cache for place in environments.values()}


@pytest.mark.parametrize(
    ("program", "row"),
    [
        ("print(json.dumps(same))", {"differ": ""}),
        ("same['digests']['width 300'] = '0'; print(json.dumps(same))", {"differ": "width 300"}),
        ("del same['digests']['baseline']; print(json.dumps(same))", {"differ": "baseline"}),
        ("sys.exit('No wheel')", {"failed": "No wheel"}),
    ],
)
def test_digests_are_compared_with_the_committed_ones(
    scripts: SimpleNamespace, program: str, row: dict[str, str], tmp_path: Path
) -> None:
    """A row names the runs whose digest is another or missing, or why training failed."""
    place = dict.fromkeys(scripts.reproducibility.PLACE, "1")
    said = json.dumps({"digests": digests.expected(), "seconds": 1.0, "place": place})
    code = f"import json, sys; same = json.loads({said!r}); {program}"
    found = scripts.reproducibility.Environment("x", python=(sys.executable, "-c", code)).measure(tmp_path)
    assert found["not_tried"] == ""
    assert {"failed": ""} | row == {key: found[key] for key in {"failed"} | row.keys()}


def test_what_cannot_be_had_is_not_tried(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Where an environment cannot be made, the row has the reason and nothing is trained."""
    place = scripts.reproducibility.Environment("x", python=("/none",), prepare=lambda: "no such processor")
    assert place.measure(tmp_path)["not_tried"] == "no such processor"


def test_the_table_grows(scripts: SimpleNamespace) -> None:
    """A row replaces its own of this processor; those of others stay unless their digests are no longer the same."""
    rows = [
        {"name": name, "processor": processor, "expected": expected}
        for name, processor, expected in [("a", "Zen", "1"), ("b", "Zen", "1"), ("a", "Lake", "1"), ("a", "M1", "0")]
    ]
    new = {"name": "a", "processor": "Zen", "expected": "1", "differ": ""}
    assert scripts.reproducibility.grown(rows, new) == [rows[1], rows[2], new]


def test_the_table_says_what_came_out_where(scripts: SimpleNamespace) -> None:
    """Processors with one outcome share a line; another outcome, a failure and a place not tried are told."""
    versions = {"python": "3.11", "torch": "2.14", "numpy": "2.4", "numba": "0.68", "runs": 3.0}
    fine = {"name": "AVX2", "not_tried": "", "failed": "", "differ": "", **versions}
    rows = [
        fine | {"processor": "Zen"},
        fine | {"processor": "Lake", "torch": "2.13"},
        fine | {"processor": "Atom", "differ": "width 300; depth 3, odd width"},
        fine | {"name": "SSE2", "processor": "Zen", "failed": "Boom"},
        {"name": "ARM64", "processor": "Zen", "not_tried": "no apt-get", "failed": ""},
    ]
    lines = scripts.elsewhere_tables.reproducibility(pd.DataFrame(rows)).splitlines()[2:]
    assert lines == [
        f"| AVX2 | 3.11 / 2.14 and 2.13 / 2.4 / 0.68 | 3 of 3 | {NOTHING} | Zen and Lake |",
        "| AVX2 | 3.11 / 2.14 / 2.4 / 0.68 | 1 of 3 | width 300, depth 3, odd width | Atom |",
        f"| SSE2 | 3.11 / 2.14 / 2.4 / 0.68 | {NOTHING} | failed: Boom | Zen |",
        f"| ARM64 | {NOTHING} | {NOTHING} | not tried: no apt-get | {NOTHING} |",
    ]


def test_an_arm64_is_emulated_where_it_can_be(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On an ARM64, and without Debian's tools, nothing is fetched, and the reason says so."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert scripts.arm64.make(tmp_path / "x") == "this is an ARM64 processor"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", "")
    assert scripts.arm64.make(tmp_path / "x") == "apt-get and dpkg-deb of Debian are needed"
    assert not (tmp_path / "x").exists()


def test_an_overlay_finds_all_other_packages(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An environment with other versions of some packages takes the others from this one."""
    own = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    own.mkdir(parents=True)
    monkeypatch.setattr(scripts.compat, "_make", lambda *_: "")
    assert scripts.compat.overlay(["numba==0.61"], tmp_path / "env") == ""
    assert str(Path(pd.__file__).parents[1]) in (own / "others.pth").read_text()
