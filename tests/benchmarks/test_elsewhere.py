"""The measurements across versions and machines: what cannot be tried is said, and the tables say what was measured."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from synthetic import MACHINE, MEANS, factorial, make

from mnist_ablate.design.study import load_study
from mnist_ablate.store.results import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "elsewhere"


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """Import the scripts, which are not part of the package."""
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(
        **{name: importlib.import_module(name) for name in ("compat", "elsewhere_tables", "engines", "rates")}
    )
    sys.path.remove(str(FOLDER))


def planted(scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, problems: dict[str, str]) -> None:
    """Let environments be made and runs be planted in the place of trained, but for those that have a problem."""
    compat: ModuleType = scripts.compat

    def train(python: Path, out: Path, *_: object) -> str:
        problem = problems.get(f"train {python.parent.parent.name}", "")
        if not problem:
            torch = python.parent.parent.name.rpartition("-")[2]
            make(out, load_study(FOLDER / "study.toml"), machines=[MACHINE | {"torch": torch, "numba": "0.68"}])
        return problem

    monkeypatch.setattr(compat, "make", lambda environment, _: problems.get(f"make {environment.name}", ""))
    monkeypatch.setattr(compat.places, "train", train)


def test_what_is_supported_is_what_the_project_says(scripts: SimpleNamespace) -> None:
    """The oldest and newest Python and the oldest torch are those of pyproject.toml, the newest first."""
    pythons, torches = scripts.compat.supported()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">={pythons[-1]}"' in text
    assert f'"Programming Language :: Python :: {pythons[0]}"' in text
    assert torches[0] == "torch"
    assert f'"{torches[1].replace("==", ">=")}"' in text


def test_what_cannot_be_tried_is_said(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An environment that cannot be had, and one that fails, each stand in the table with the reason."""
    planted(scripts, monkeypatch, {"make Python 3.13, torch 2.4": "no wheel", "train Python-3.11-torch-2.4": "Boom"})
    environments = [
        scripts.compat.Environment(python, torch) for python in ("3.13", "3.11") for torch in ("torch", "torch==2.4")
    ]
    rows = list(scripts.compat.measure(environments, tmp_path, []))
    table = scripts.elsewhere_tables.compat(pd.DataFrame(rows)).splitlines()
    assert len(table) == 2 + 2 + 4
    assert "not tried: no wheel" in table[5]
    assert "failed: Boom" in table[7]
    assert "| 12 of 12 | " in table[4]
    assert table[6].startswith("| Python 3.11, torch | torch | ")
    assert table[6].endswith("| 0 | 0 | bit-identical |")


def test_a_python_that_is_not_there(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Without an interpreter of the version nothing is made, and the reason says which is missing."""
    environment = scripts.compat.Environment("3.999", "torch")
    assert scripts.compat.make(environment, tmp_path / "env") == "there is no Python 3.999 on this machine"
    assert not (tmp_path / "env").exists()


def test_pips_reason_is_its_last_error(scripts: SimpleNamespace) -> None:
    """Of what pip prints, the last error is kept."""
    printed = "WARNING: x\nERROR: Could not find\nERROR: No matching distribution\nnote: y\n"
    assert scripts.compat._reason(printed) == "No matching distribution"


def test_the_simulated_rule_is_the_rule(scripts: SimpleNamespace) -> None:
    """What is simulated decides as `compare.judge` does, on thousands of samples."""
    assert scripts.rates.check_rule() == 3000


def test_the_engines_are_compared_by_seed(scripts: SimpleNamespace, tmp_path: Path) -> None:
    """Of two engines' results the table has the means of the first seeds, and the differences of few and of all."""
    means = {name: mean + 0.5 for name, mean in MEANS.items()}
    study = factorial(seeds=8)
    fused = load(make(tmp_path / "fused", study.with_options(engine="fused")))
    autograd = load(make(tmp_path / "autograd", study.with_options(engine="autograd"), means=means))
    first = scripts.engines.first_seeds
    few, every = ([first(results, n) for results in (fused, autograd)] for n in (6, 8))
    frame = pd.DataFrame([*scripts.engines.measured(*few), *scripts.engines.measured(*every)])
    lines = scripts.elsewhere_tables.engines(frame).splitlines()
    assert lines[2].startswith("| Cell | fused, 6 seeds | autograd, 6 seeds | Difference | Difference, 8 seeds |")
    (baseline,) = (line.split(" | ") for line in lines if line.startswith("| baseline |"))
    final = fused.final.set_index("cell").loc["baseline"]
    assert baseline[1] == f"{100 * final['test_accuracy'][final['seed'] < 6].mean():.2f}"
    assert 0.3 < float(baseline[3].split()[0]) < 0.7
    assert baseline[3] != baseline[4]


def test_gaussian_folders_keep_the_promise() -> None:
    """In the committed counts, folders with Gaussian differences have no more false verdicts than promised."""
    frame = pd.read_parquet(ROOT / "results" / "reference" / "compare-rates.parquet")
    gaussian = frame[frame["noise"] == "gaussian"]
    assert len(gaussian) == 12
    assert (gaussian["low"] <= gaussian["nominal"]).all()
    assert gaussian["false"].max() > 0
