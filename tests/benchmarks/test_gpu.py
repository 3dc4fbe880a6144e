"""What the documents say once a card was measured: from numbers that are planted, since none was."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
ABOUT = {"card": "Test card", "driver": 13000, "multiprocessors": 132}
ROWS = [
    *(("main", f"80 runs of 5 epochs, time {k}", seconds, "s") for k, seconds in enumerate([1.9, 1.8, 2.9], 1)),
    ("main", "the whole command, start-up included", 9.0, "s"),
    ("main", "time 1, while the card trained or evaluated", 1.1, "s"),
    ("main", "weights as committed, of 80 runs", 0, "that differ"),
    ("packs", "80 runs at once", 1.7, "s"),
    ("packs", "80 runs at once, pace", 47.0, "runs/s"),
    ("packs", "1000 runs at once", 15.0, "s"),
    ("peers", "JAX, vmap and scan, TF32, baseline, 80 models", 12.0, "s for 5 epochs"),
    ("peers", "JAX, vmap and scan, TF32, dropout+batch_norm, 80 models", 14.0, "s for 5 epochs"),
    ("peers", "JAX, vmap and scan, TF32, baseline, test accuracy", 0.97, ""),
    ("peers", "torch, one model, CUDA graphs, float32, baseline, 1 models", 2.0, "s for 5 epochs"),
]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import docs/gpu_table.py."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "docs")])
    return import_module("gpu_table")


@pytest.fixture
def rows() -> pd.DataFrame:
    """Return measurements as `benchmarks/gpu/card.py` stores them."""
    names = ["part", "what", "value", "unit"]
    return pd.DataFrame([dict(zip(names, row, strict=True)) | ABOUT | {"note": ""} for row in ROWS])


def test_the_line_and_the_table_of_the_readme(module: Any, rows: pd.DataFrame) -> None:
    """The median of the main job, and peers for as many models; before, only that nothing was measured."""
    assert module.headline(None) == "How fast that is on a card is not measured yet."
    text = module.headline(rows)
    assert "On Test card the main job, 80 runs of five epochs, takes 1.9 s" in text
    assert "| this project | 1.9 | 1.0 |" in text
    assert "The fastest of them, JAX, vmap and scan, TF32, takes 6.8 times as long." in text
    assert "| JAX, vmap and scan, TF32 | 13.0 | 6.8 |" in text
    assert "| torch, one model, CUDA graphs, float32 | 160.0 | 84.2 |" in text


def test_other_cards_and_parts_that_are_missing(module: Any, rows: pd.DataFrame) -> None:
    """Each card has a table; what is said of times is of the card with the main job, and without one, nothing is."""
    other = rows[rows["part"] == "packs"].assign(card="Other card", value=1.0)
    both = pd.concat([other, rows])
    assert module.headline(both) == module.headline(rows)
    assert [line for line in module.markdown(both).splitlines() if line.endswith(":")] == [
        "Other card, 132 multiprocessors, driver for CUDA 13:",
        "Test card, 132 multiprocessors, driver for CUDA 13:",
    ]
    assert module.headline(other) == module.headline(None)
    assert "The fastest" not in module.headline(rows[rows["part"] == "main"])
    processors = pd.read_parquet(ROOT / "results" / "reference" / "performance.parquet")
    assert module.costs(rows[rows["part"] != "packs"], processors) == module.costs(None, processors)


def test_the_picture(module: Any, rows: pd.DataFrame) -> None:
    """Each program has a mark with its seconds."""
    (axes,) = module.figure(rows).axes
    assert {text.get_text() for text in axes.texts} >= {"1.9 s", "13.0 s", "160.0 s"}


def test_what_runs_cost(module: Any, rows: pd.DataFrame) -> None:
    """A card takes as long as the smallest pack that holds the runs, and packs follow each other; cards share them."""
    processors = pd.read_parquet(ROOT / "results" / "reference" / "performance.parquet")
    lines = module.costs(rows, processors).splitlines()
    assert lines[-2] == "| one card | 1.7 s | 15.0 s | 25 min |"
    assert lines[-1] == "| 8 such cards | 1.7 s | 15.0 s | 3 min |"
    assert module.costs(None, processors).count("not measured yet") == 6
