"""The files for a paper: the numbers of the page, its figures, and methods that say what was done."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import tex

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import latex, method_words, write
from mnist_ablate.store.results import Results, load

pytestmark = pytest.mark.usefixtures("no_images")
PAIR = {"name": "pair", "seeds": 7, "protocol": {"epochs": 2}, "factors": {"dropout": [0.0, 0.2]}}
CLAIM = {"id": "H_1", "claim": r"\input{x} & 50 %", "statement": r"100 % of $x_1$ \& <b>", "effect": "dropout",
         "kind": "increase", "smallest": 0.1}  # fmt: skip


def planted(folder: Path, study: Study | None = None, **options: Any) -> Results:
    """Return planted results whose rules were declared before them."""
    study = study or synthetic.factorial(7, 2)
    options = {"declared": synthetic.declaration(study)} | options
    return load(synthetic.make(folder / "results", study, **options))


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Return the rows of each table of a page, by its name, without headings."""
    found = {}
    for name, body in re.findall(r'<caption id="([^"]+)-caption">.*?<tbody>(.*?)</tbody>', page, re.DOTALL):
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
        cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows)
        found[name] = [[html.unescape(cell) for cell in row] for row in cells]
    return found


@pytest.mark.usefixtures("blank")
def test_numbers_are_those_of_the_page(tmp_path: Path) -> None:
    """Every table of the page is there in LaTeX, with the same rows, numbers and intervals; verdicts are among them."""
    report = write(planted(tmp_path), tmp_path / "out", latex=True)
    on_page = tables_of(report.html.read_text(encoding="utf-8"))
    on_page.pop("made", None)  # provenance is no table of numbers
    files = {file.stem: file.read_text(encoding="utf-8") for file in (tmp_path / "out/paper/tables").iterdir()}
    assert {"verdicts", "cells", "effects-test-accuracy", "effects-gap", "effects-val-loss"} <= set(files)
    assert {name: tex.rows(text) for name, text in files.items()} == on_page
    document = report.paper and report.paper.document.read_text(encoding="utf-8")
    assert document
    assert set(re.findall(r"^\\input\{tables/(.*?)\}", document, re.MULTILINE)) == set(files)
    verdicts = files["verdicts"]
    judgements = analyse(load(tmp_path / "results")).judgements
    assert len(tex.rows(verdicts)) == len(judgements) == 9
    assert r"99.44 \% interval" in verdicts


def test_figures_are_those_of_the_page(tmp_path: Path) -> None:
    """Each picture of the page is a PDF with outlines for letters, the same bytes each time, and has its caption."""
    results = planted(tmp_path, parse_study(PAIR | {"hypotheses": [CLAIM]}))
    reports = [write(results, tmp_path / out, latex=True) for out in ("a", "b")]
    first, second = (
        {file.stem: file.read_bytes() for file in (tmp_path / out / "paper/figures").iterdir()} for out in ("a", "b")
    )
    assert first == second
    assert set(first) == {file.stem for file in (tmp_path / "a/figures").glob("*.svg")}
    assert all(content.startswith(b"%PDF") and b"/Type3" not in content for content in first.values())
    assert reports[0].paper
    document = reports[0].paper.document.read_text(encoding="utf-8")
    page = reports[0].html.read_text(encoding="utf-8")
    captions = [re.sub(r"<[^>]+>", "", text) for text in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)]
    assert len(captions) == len(first)
    for caption in captions:
        assert rf"\caption{{{latex.escape(html.unescape(caption))}}}" in document


@pytest.mark.usefixtures("blank")
def test_text_of_the_user_is_text(tmp_path: Path) -> None:
    """Whatever a study is called and claims, LaTeX shows it and runs none of it."""
    study = parse_study(PAIR | {"title": r"\write18{ls} #1", "hypotheses": [CLAIM]})
    report = write(planted(tmp_path, study), tmp_path / "out", latex=True)
    assert report.paper
    files = [*report.paper.document.parent.glob("*.tex"), *report.paper.document.parent.glob("tables/*.tex")]
    written = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert r"\write18" not in written
    assert r"\input{x}" not in written
    assert r"\textbackslash{}write18\{ls\} \#1" in written
    methods = report.paper.methods.read_text(encoding="utf-8")
    assert r"H_1: 100 % of $x_1$ \& <b> (0.1 points)." in methods
    in_latex = report.paper.document.with_name("methods.tex").read_text(encoding="utf-8")
    assert tex.shown(in_latex) == methods


def methods(results: Any) -> str:
    """Return the methods of some results."""
    text = "\n".join(method_words.paragraphs(analyse(results)))
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert "  " not in text
    return text


def test_methods_of_a_study(tmp_path: Path) -> None:
    """Design, seeds, rules, versions and their numbers are those of the results."""
    text = methods(planted(tmp_path))
    for said in (
        "We trained 56 runs of a neural network on MNIST.",
        "A full 2 \N{MULTIPLICATION SIGN} 2 \N{MULTIPLICATION SIGN} 2 factorial design varied L2 (0 or 1e-05), dropout",
        "with the same 7 seeds (seeds 0\N{EN DASH}6), and compared within seeds.",
        "The 9 hypotheses are one family with a probability of any false verdict of at most 5 %",
        "each is decided by one 99.44 % interval",
        "C3-accuracy: Dropout makes test accuracy higher (0.1 points)",
        "were fixed before the first run.",
        "All 56 planned runs ended well.",
        "torch 2.14.1; numpy 2.4.6",
        "Data, SHA-256 c0ffee000000\N{HORIZONTAL ELLIPSIS}",
        "Student's t interval",
    ):
        assert said in text, said
    for wrong in ("Newcombe", "Welch", "McNemar", "Nadeau", "look", "provisional"):
        assert wrong not in text, wrong


def test_methods_say_what_went_wrong(tmp_path: Path) -> None:
    """Missing and diverged runs, other machines, and rules that were not declared are named with their numbers."""
    study = parse_study(PAIR | {"hypotheses": [CLAIM]})
    machines = [synthetic.MACHINE, synthetic.MACHINE | {"torch": "2.13.0"}]
    text = methods(planted(tmp_path, study, missing=[("dropout", 3)], diverged=[("baseline", 1)], machines=machines,
                           declared={"study_sha256": "", "hypotheses_sha256": "", "looks": [5]}))  # fmt: skip
    for said in ("1 planned run not stored", "1 run diverged", "torch 2.14.1 (7 of 13 runs) and 2.13.0 (6 of 13 runs)",
                 "provisional (H_1: ", "The hypothesis is decided by one 95 % interval."):  # fmt: skip
        assert said in text, said
    assert "We varied dropout (0 or 0.2): 2 cells." in text


def test_methods_of_other_designs(tmp_path: Path) -> None:
    """One cell, a part of the combinations, and no hypotheses are told as they are."""
    one = methods(planted(tmp_path / "one", parse_study(PAIR | {"factors": {"dropout": [0.2]}})))
    assert "All runs are of one cell." in one
    assert "No hypotheses were declared" in one
    grid = {"l2": [0.0, 1e-5], "dropout": [0.0, 0.2]}
    part = parse_study(PAIR | {"factors": grid, "cells": [{}, {"l2": 1e-5}, {"dropout": 0.2}]})
    assert "A design with 3 of 4 combinations of levels varied" in methods(planted(tmp_path / "part", part))


def test_methods_of_a_study_that_grows(tmp_path: Path) -> None:
    """The looks, the kind of interval, and why the study stopped where it did."""
    study = load_study("factorial").model_copy(update={"first_seed": 0}).reaching(20)
    text = methods(planted(tmp_path, study))
    looks = study.looks
    assert f"at {looks[0]} seeds and after every {looks[1] - looks[0]} more, up to {looks[-1]}" in text
    assert "repeated confidence intervals" in text
    assert re.search(r"The study (stopped at \d+ seeds, because|stands at \d+ seeds, and goes on)", text)


@pytest.mark.parametrize(
    ("change", "said", "not_said"),
    [
        (lambda t: t, "compared within seeds", "Welch"),
        (lambda t: t.drop(columns="seed"), "Cells share no seeds and have 8 runs each", "Student"),
        (lambda t: t.assign(score=(t["score"] > 50).astype(int)), "McNemar", "Welch"),
    ],
)
def test_methods_of_a_table(tmp_path: Path, change: Any, said: str, not_said: str) -> None:
    """Of runs made elsewhere, the methods say where they are from, and which estimator their design calls for."""
    rng = np.random.default_rng(0)
    rows = [(arm, seed, rng.normal(50, 1)) for arm in ("a", "b_1") for seed in range(8)]
    table = change(pd.DataFrame(rows, columns=["arm", "seed", "score"]))
    judged = mnist_ablate.judge(table, out=tmp_path / "out", latex=True)
    assert judged.report.paper
    text = judged.report.paper.methods.read_text(encoding="utf-8")
    assert "made by other programs" in text
    assert "arm (a or b_1): 2 cells" in text
    assert said in text
    assert not_said not in text
    assert str(judged).endswith(f"Paper: {judged.report.paper}")


@pytest.mark.usefixtures("blank")
def test_commands_say_where_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--latex`, both commands name the document, its folders and the methods; without it there are none."""
    folder = planted(tmp_path, parse_study(PAIR)).folder
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(folder), "--out", "plain"]) == 0
    assert "Paper" not in capsys.readouterr().out
    assert not Path("plain/paper").exists()
    assert cli.main(["report", str(folder), "--out", "out", "--latex"]) == 0
    said = capsys.readouterr().out
    Path("runs.csv").write_text("arm,seed,acc\n" + "".join(f"{a},{s},{s}.5\n" for a in "ab" for s in range(7)))
    assert cli.main(["judge", "runs.csv", "--out", "judged", "--latex"]) == 0
    for text, out in ((said, "out"), (capsys.readouterr().out, "judged")):
        (line,) = (line for line in text.splitlines() if line.startswith("Paper: "))
        for name in ("paper.tex", "tables", "figures", "methods.txt"):
            assert f"{out}/paper/{name}" in line
            assert Path(out, "paper", name).exists()


@pytest.mark.usefixtures("blank")
def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the folder for the paper would be is named, with status 2."""
    folder = planted(tmp_path, parse_study(PAIR)).folder
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "paper").write_text("mine")
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "out"), "--latex"]) == 2
    assert "--out for another folder" in capsys.readouterr().err
