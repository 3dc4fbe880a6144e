"""All sections: each is there where the study has something for it, and its tables and pictures are whole."""

import io
from pathlib import Path

import pandas as pd
import pytest
import synthetic

from mnist_ablate.design.study import load_study, parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.plots import style
from mnist_ablate.report.page import environment
from mnist_ablate.report.section import Section
from mnist_ablate.report.sections import SECTIONS, methods
from mnist_ablate.report.tables import Table
from mnist_ablate.store.results import load

pytestmark = pytest.mark.usefixtures("blank", "no_images")
ALWAYS = ["answers", "cells", "loss", "sure", "read", "made"]


def sections_of(analysis: Analysis) -> dict[str, Section]:
    """Return the sections of an analysis by their names."""
    return {section.id: section for make in SECTIONS if (section := make(analysis))}


def tables_of(analysis: Analysis) -> list[Table]:
    """Return all tables of an analysis."""
    sections = sections_of(analysis).values()
    return [table for section in sections for table in section.tables.values() if table]


def pictures_of(analysis: Analysis) -> dict[str, str]:
    """Return the words of all pictures of an analysis, by name."""
    sections = sections_of(analysis).values()
    return {name: picture.alt for section in sections for name, picture in section.pictures.items() if picture}


@pytest.mark.parametrize("which", ["whole", "holed", "poor"])
def test_every_table_is_whole(which: str, request: pytest.FixtureRequest) -> None:
    """Every row has all columns, no text says 'nan' or 'None', and names of files differ."""
    tables = tables_of(request.getfixturevalue(which))
    assert len({table.name for table in tables}) == len(tables) >= 8
    for table in tables:
        assert table.rows
        assert all(list(row) == list(table.headings) for row in table.rows)
        assert not [text for row in table.rows for text in row.values() if text in ("nan", "None", "")]


@pytest.mark.parametrize("which", ["whole", "holed", "poor"])
def test_csv_has_all_digits_and_reads_back(which: str, request: pytest.FixtureRequest) -> None:
    """The CSV text gives the frame again, to the last bit, under the names that files use."""
    for table in tables_of(request.getfixturevalue(which)):
        back = pd.read_csv(io.StringIO(table.csv), dtype=str)
        assert list(back) == list(table.frame)
        for name in table.frame.select_dtypes("number"):
            assert back[name].astype(float).tolist() == pytest.approx(
                table.frame[name].astype(float).tolist(), rel=0, abs=0, nan_ok=True
            )


def test_files_keep_code_names_and_tables_show_words(whole: Analysis) -> None:
    """A cell is 'L2 + BatchNorm' on the page and 'l2+batch_norm' in its file, and effects likewise."""
    tables = {table.name: table for table in tables_of(whole)}
    for name, column in (("cells", "cell"), ("losses", "cell"), ("last-epoch", "cell")):
        assert [row[column] for row in tables[name].rows][3:6] == ["dropout + BatchNorm", "L2", "L2 + BatchNorm"]
        assert tables[name].frame[column].tolist()[3:6] == ["dropout+batch_norm", "l2", "l2+batch_norm"]
    labels = [row["label"] for row in tables["effects-test-accuracy"].rows]
    assert {"BatchNorm", "L2 × BatchNorm", "L2 alone"} <= set(labels)  # noqa: RUF001 # the sign of products
    assert {"batch_norm", "l2 alone"} <= set(tables["effects-test-accuracy"].frame["label"])


@pytest.mark.parametrize(
    ("factors", "seeds", "names"),
    [
        ({"dropout": [0.2]}, 2, set()),
        ({"dropout": [0.0, 0.2]}, 1, {"effects", "effects-by-epoch"}),
        ({"dropout": [0.0, 0.2]}, 2, {"effects", "effects-by-epoch", "power"}),
        ({"dropout": [0.0, 0.2], "l2": [0.0, 1e-5]}, 2, {"effects", "effects-by-epoch", "power", "interactions"}),
    ],
)
def test_only_what_results_allow_is_drawn(factors: object, seeds: int, names: set[str]) -> None:
    """One cell has no effects, one seed no power, one factor no interactions; each picture has its words."""
    study = parse_study({"name": "s", "seeds": seeds, "protocol": {"epochs": 1}, "factors": factors})
    results = synthetic.results(study, test_accuracy=lambda run: 0.9 + run.seed * bool(run.settings.dropout) / 100)
    pictures = pictures_of(analyse(results))
    assert set(pictures) == {"accuracy", "losses"} | names
    assert all(alt and "nan" not in alt for alt in pictures.values())


def test_no_effects_by_epoch_without_main_effects() -> None:
    """Cells that allow simple effects only have no picture of main effects by epoch."""
    cells = [{}, {"l2": 1e-5}, {"dropout": 0.2}]
    study = {"name": "s", "seeds": 2, "factors": {"l2": [0.0, 1e-5], "dropout": [0.0, 0.2]}, "cells": cells}
    pictures = pictures_of(analyse(synthetic.results(parse_study(study))))
    assert "effects" in pictures
    assert "effects-by-epoch" not in pictures


def test_pictures_of_levels_of_chance_and_of_the_notebook() -> None:
    """Graded factors have a picture each, parts of chance have theirs, the notebook has two; all of them have words."""

    def drawn(name: str) -> dict[str, str]:
        pictures = pictures_of(analyse(synthetic.results(load_study(name).with_options(seeds=2))))
        assert all(alt and "nan" not in alt for alt in pictures.values())
        return pictures

    assert {"levels-dropout"} == {name for name in drawn("dropout-rate") if name.startswith("levels-")}
    assert "variance" in drawn("variance")
    assert {"printed-accuracies", "printed-losses"} <= set(drawn("notebook"))


def test_of_many_cells_pictures_say_what_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits, the words below and behind a picture are about the part that it shows, the table has all."""
    for limit in ("MOST_ROWS", "MOST_PANELS", "MOST_LINES"):
        monkeypatch.setattr(style, limit, 3)
    factors = {"dropout": [0.0, 0.2, 0.5], "l2": [0.0, 1e-5], "batch_norm": [False, True]}
    study = parse_study({"name": "many", "seeds": 2, "protocol": {"epochs": 1, "width": 64}, "factors": factors})
    sections = sections_of(analyse(synthetic.results(study, test_accuracy=lambda run: 0.9 + run.settings.dropout / 9)))
    said = "It shows 3 of 12 cells: baseline, and those with the highest and the lowest means."
    assert sections["cells"].values["part"] == said
    assert "3 of 12 cells" in sections["loss"].values["part"]
    assert "3 of 4 lines" in sections["levels"].values["parts"]["levels-dropout"]
    table, picture = sections["cells"].tables["cells"], sections["cells"].pictures["accuracy"]
    assert table is not None
    assert len(table.rows) == 12
    assert picture is not None
    assert "a row for each of 3 cells" in picture.alt


def test_only_sections_with_something_to_show(whole: Analysis, tmp_path: Path) -> None:
    """A plain study has no variance, levels, probes or notebook, a whole one no notices, and one cell no effects."""
    plain = parse_study({"name": "s", "seeds": 2, "factors": {"width": [16, 32]}})
    assert list(sections_of(analyse(synthetic.results(plain)))) == ["answers", "effects", *ALWAYS[1:]]
    alone = parse_study({"name": "s", "seeds": 2, "factors": {"width": [16]}})
    assert list(sections_of(analyse(synthetic.results(alone)))) == ALWAYS
    folder = synthetic.make(tmp_path, missing=[("l2", 0)])
    assert "notice" in sections_of(analyse(load(folder)))
    assert "notice" not in sections_of(whole)
    assert "errors" in sections_of(whole)


@pytest.mark.parametrize(
    ("seeds", "claims", "says", "lacks"),
    [
        (6, 1, "One interval decides", "usual one"),
        ({"first": 6, "step": 2, "most": 8}, 1, "wider than the usual one", "one family"),
        (6, 2, "All 2 hypotheses are one family", "One interval decides"),
    ],
)
def test_methods_count_hypotheses(seeds: object, claims: int, says: str, lacks: str) -> None:
    """A family has several hypotheses; the interval of a single one is wider than usual only where there are looks."""
    rules = [
        {"id": f"H{i}", "statement": "s", "effect": "dropout", "kind": "increase", "smallest": 0.1}
        for i in range(claims)
    ]
    study = {"name": "s", "seeds": seeds, "factors": {"dropout": [0.0, 0.2]}, "hypotheses": rules}
    section = methods.section(analyse(synthetic.results(parse_study(study))))
    text = " ".join(environment().from_string(section.template).render(**section.values).split())
    assert says in text
    assert lacks not in text
