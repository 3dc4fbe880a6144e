"""What a study has a number of: seeds, runs in each cell, or runs. Its pages say it alike, everywhere."""

import json
import re
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report import live, method_words
from mnist_ablate.report.page import page, summary
from mnist_ablate.tables import design, runs, sources

NO_COUNTS = {
    "en": ("share no seeds", "seeds pair nothing", "other seeds at these settings"),
    "es": ("no comparten semillas", "las semillas no emparejan nada", "otras semillas con esos ajustes"),
}
"""Sentences that are about seeds, and not about how many there are."""

DECLARED = {"started": "started", "declared": date(2026, 3, 1)}


def claim(name: str, effect: str, kind: str, smallest: float) -> dict[str, Any]:
    """Return a hypothesis."""
    return {"id": name, "statement": name, "effect": effect, "kind": kind, "smallest": smallest}


def cells(n: int = 8, **table: Any) -> Analysis:
    """Analyse a table of 2 x 3 cells with `n` runs each, in which nothing is settled."""
    rng = np.random.default_rng(0)
    rows = [(o, w, i, rng.normal(), "2026-03-02") for o in "ab" for w in (1, 2, 4) for i in range(n)]
    frame = pd.DataFrame(rows, columns=["optimiser", "width", "number", "acc", "started"])
    document = {
        "seeds": 9, "table": DECLARED | table, "metrics": {"acc": {}},
        "factors": {"optimiser": ["a", "b"], "width": [1, 2, 4]},
        "hypotheses": [claim("A", "optimiser", "increase", 0.3), claim("B", "trend(width)", "negligible", 0.2)],
    }  # fmt: skip
    return analyse(runs.make(sources.read(frame), design.parse(document, "study", "study")))


def search() -> Analysis:
    """Analyse a random search in which nothing is settled."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 60), "acc": rng.normal(size=60), "started": "2026-03-02"})
    document = {
        "seeds": 50, "table": DECLARED | {"search": True}, "factors": {"lr": "numbers"}, "metrics": {"acc": {}},
        "hypotheses": [claim("A", "trend(lr)", "increase", 0.05)],
    }  # fmt: skip
    return analyse(runs.make(sources.read(frame), design.parse(document, "study", "study")))


def said(analysis: Analysis, lang: str = "en") -> str:
    """Return all that the page and its summary say, and in English the page with sliders and the methods."""
    shown = re.sub(r"(?s)<(style|script).*?</\1>|href=\"data:[^\"]*\"", "", page(analysis, lang=lang))
    more = [summary(analysis, lang=lang)]
    if lang == "en":
        more += [*method_words.paragraphs(analysis), *json.loads(live.content(analysis)["data"])["seeds"]]
    return " ".join(" ".join([re.sub(r"</?\w+>", "", shown), *more]).split())


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("lang", ["en", "es"])
@pytest.mark.parametrize("make", [lambda: cells(pairing="none"), search], ids=["cells", "search"])
def test_runs_are_not_called_seeds(make: Any, lang: str) -> None:
    """Where nothing pairs cells, and where there are none, no sentence, table or picture counts seeds."""
    text = said(make(), lang)
    for sentence in NO_COUNTS[lang]:
        text = text.replace(sentence, "")
    assert re.findall(r".{0,60}\b(?:[Ss]eeds?|[Ss]emillas?)\b.{0,40}", text) == []


@pytest.mark.usefixtures("blank")
def test_what_is_counted_instead() -> None:
    """Runs in each cell where cells are independent, and runs in a search; what pairs has seeds."""
    independent, searched, paired = said(cells(pairing="none")), said(search()), said(cells(seed="number"))
    assert re.search(
        r"About [\d,]+ runs in each cell would settle most questions like it.*; there are 8\.", independent
    )
    assert "it rests on 8 runs in each cell, and 9 were declared before the first run" in independent
    assert re.search(r"(About [\d,]+|[\d,]+) runs (would settle|settle most)", searched)
    assert "it rests on 60 runs, and 50 were declared" in searched
    assert re.search(r"About [\d,]+ seeds would settle most questions like it", paired)
    assert "it rests on 8 seeds, and 9 were declared" in paired
    assert "Only 3 runs in each cell." in said(cells(3, pairing="none"))
