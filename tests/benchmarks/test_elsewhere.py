"""The measurements across versions and machines: problems are reported, and the tables have what was measured."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from synthetic import MACHINE, factorial, make

from mnist_ablate.design.study import load_study

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "elsewhere"


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """Import the scripts, which are not part of the package."""
    added = [str(FOLDER), str(ROOT / "docs")]
    sys.path[:0] = added
    names = ("compat", "elsewhere_tables", "places", "reproducibility")
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
    places = list(scripts.reproducibility.places(["python"]))
    names = [place.name for place in places]
    assert len(set(names)) == len(names) == 11
    assert all(place.base in names[:i] for i, place in enumerate(places) if place.base)


def test_a_missing_python_is_named(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Without an interpreter of the version nothing is made, and the reason names the version."""
    assert scripts.compat.make(("3.999", "torch"), tmp_path / "env") == "there is no Python 3.999 on this machine"
    assert not (tmp_path / "env").exists()


def test_the_reason_is_the_last_error_of_pip(scripts: SimpleNamespace) -> None:
    """The reason is the last error that pip prints."""
    printed = "WARNING: x\nERROR: Could not find\nERROR: No matching distribution\nnote: y\n"
    assert scripts.compat.reason(printed) == "No matching distribution"


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
