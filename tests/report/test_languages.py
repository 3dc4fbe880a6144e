"""The page in other languages: nothing stays English, and verdicts, numbers and pictures are the same."""

import html
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn
import gate_tables
import numpy as np
import pandas as pd
import pytest
import synthetic
from changed import SMALL, moved, noise
from languages import Shown, english_words, marked, numbers, unmarked, words
from matplotlib.figure import Figure
from pages import Page

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.checks import compare_page
from mnist_ablate.checks.compare import Comparison, compare
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import References, answer_all
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import LanguageError
from mnist_ablate.gate import page as gate_page
from mnist_ablate.gate.judge import Verdict, judge
from mnist_ablate.gate.reference import Rules
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import Language, say, speaking
from mnist_ablate.report.page import live_page, page, summary
from mnist_ablate.report.svg import Picture, inline, svg
from mnist_ablate.store.results import load
from mnist_ablate.tables import design, runs, sources

ELSEWHERE: dict[str, dict[str, Any]] = {
    "search": {"table": {"seed": "seed", "epoch": "epoch", "search": True}, "metrics": {"acc": {"better": "higher"}},
               "factors": {"lr": "numbers", "optimiser": ["sgd", "adam"]},
               "hypotheses": [{"id": "h", "statement": "Faster is better", "response": "acc", "effect": "trend(lr)",
                               "kind": "increase", "smallest": 0.1}]},
    "curves": {"table": {"seed": "seed", "epoch": "epoch"}, "metrics": {"acc": {"better": "higher"}},
               "factors": {"optimiser": ["sgd", "adam"]}},
}  # fmt: skip
"""Runs made elsewhere of other kinds than a table with a row for each run."""
STUDIES = ("factorial", "notebook", "learning-rate", "variance", "mechanisms", "fashion")
GONE = {"missing": [("l2", 0), ("dropout", 1)], "diverged": [("batch_norm", 2)]}
TABLE = "optimiser,warmup,seed,acc\n" + "".join(
    f"{name},{warmup},{seed},{0.9 + 0.01 * (name == 'adam') + 0.001 * seed}\n"
    for name in ("sgd", "adam") for warmup in (0, 10) for seed in range(6)
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_pictures() -> Iterator[None]:
    """Draw each picture once, as it is on a wide screen."""

    def picture(draw: Callable[..., Figure], alt: str) -> Picture:
        file = svg(draw())
        return Picture(alt, file, b"", inline(file, "wide"), draw)

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("mnist_ablate.") and hasattr(module, "picture") and name != "mnist_ablate.report.svg":
                patch.setattr(module, "picture", picture)
        yield


@pytest.fixture(scope="module", params=[*STUDIES, "table", *ELSEWHERE])
def analysis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Return planted results of studies that have all sections between them, and those of a table from elsewhere."""
    folder = tmp_path_factory.mktemp("results")
    if request.param == "table":
        return _table(folder)
    if request.param in ELSEWHERE:
        return analyse(runs.make(sources.read(_frame()), design.parse(ELSEWHERE[request.param], "frame", "frame")))
    if request.param == "factorial":
        return analyse(load(synthetic.make(folder, synthetic.factorial(7, 2), answers=drawn.answers, **GONE)))  # type: ignore[arg-type]
    if request.param == "fashion":
        study = synthetic.factorial(3, 1)
        study = study.with_options(dataset="fashion-mnist").model_copy(update={"first_seed": 0, "hypotheses": ()})
        return analyse(load(synthetic.make(folder, study, answers=drawn.answers)))
    return analyse(load(synthetic.make(folder, synthetic.bundled(request.param, 6, 2))))


def _frame() -> pd.DataFrame:
    """Return runs of a search that were logged twice each."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 120), "optimiser": ["sgd", "adam"] * 60,
                          "seed": np.arange(120) // 2})  # fmt: skip
    table = table.assign(acc=np.log2(table["lr"]) + rng.normal(0, 1, 120), sd=0.3, n=8)
    return pd.concat([table.assign(epoch=epoch, acc=table["acc"] + epoch) for epoch in (1, 2)], ignore_index=True)


def _table(folder: Path) -> Analysis:
    file = folder / "runs.csv"
    file.write_text(TABLE, encoding="utf-8")
    document = {
        "factors": {"optimiser": ["sgd", "adam"], "warmup": [0, 10]}, "metrics": {"acc": {"better": "higher"}},
        "table": {"seed": "seed"},
        "hypotheses": [{"id": "h", "statement": "Adam is better", "response": "acc", "effect": "optimiser",
                        "kind": "increase", "smallest": 0.001}],
    }  # fmt: skip
    declared = design.parse(document, "runs.csv", "runs")
    return analyse(runs.make(sources.read(file), declared))


@pytest.fixture(scope="module")
def english(analysis: Analysis) -> str:
    """Return the page in English."""
    return page(analysis)


@pytest.fixture(scope="module")
def spanish(analysis: Analysis) -> str:
    """Return the page in Spanish."""
    return page(analysis, lang="es")


def own_names(analysis: Analysis) -> set[str]:
    """Return the words that a user has written, or a machine recorded."""
    if analysis.ours:
        return words(" ".join(f"{name} {value}" for name, value in synthetic.MACHINE.items()))
    own = "runs csv h Adam is better Faster warmup optimiser lr epoch seed frame"
    return {form for word in words(f"{TABLE} {own} {analysis.results.folder} {analysis.study.title}")
            for form in (word, word.capitalize())}  # fmt: skip


def test_no_text_escapes_the_catalogue(analysis: Analysis) -> None:
    """What the page and its summary show outside of messages is names, code and numbers."""
    marks = Shown(page(analysis, lang=marked())).text + summary(analysis, lang=marked())
    assert words(unmarked(marks)) <= own_names(analysis)


def test_the_spanish_page_has_no_english_word(analysis: Analysis, spanish: str) -> None:
    """No word of the page is one of the English messages and of no Spanish one, names aside."""
    shown = Shown(spanish).text + summary(analysis, lang="es")
    assert english_words(shown) <= own_names(analysis)
    assert '<html lang="es">' in spanish


def test_verdicts_tables_and_numbers_are_the_same(english: str, spanish: str) -> None:
    """Badges, data for download, cells of tables and numbers of answers differ in their words alone."""
    badges = re.compile(r'class="(badge [\w-]+|part [\w-]+)"')
    assert badges.findall(english) == badges.findall(spanish)
    data = re.compile(r'href="(data:text/csv[^"]*)"')
    assert data.findall(english) == data.findall(spanish)
    assert _numbers_in_cells(english, point=".") == _numbers_in_cells(spanish, point=",")
    assert _numbers_in_answers(english, point=".") == _numbers_in_answers(spanish, point=",")


def _numbers_in_cells(text: str, point: str) -> list[list[str]]:
    cells = re.findall(r"<td[^>]*>(.*?)</td>", re.sub(r'<table class="provenance">.*?</table>', "", text, flags=re.S))
    return [_numbers(cell, point) for cell in cells]


def _numbers_in_answers(text: str, point: str) -> list[list[str]]:
    answers = re.findall(r'<div class="answer">(.*?)</div>', text, flags=re.S)
    return [sorted(_numbers(re.sub(r"<[^>]*>", " ", answer), point)) for answer in answers]


def _numbers(text: str, point: str) -> list[str]:
    text = html.unescape(text)
    text = re.sub(r"(?<=\d),(?=\d)", ".", text) if point == "," else re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return numbers(text)


def test_pictures_are_the_same(english: str, spanish: str) -> None:
    """Each picture has as many lines, marks and areas, and the same numbers."""
    drawings = [re.findall(r"<svg\b.*?</svg>", text, flags=re.S) for text in (english, spanish)]
    assert len(drawings[0]) == len(drawings[1]) > 0
    for ours, theirs in zip(*drawings, strict=True):
        for tag in ("path", "use", "image", "rect"):
            assert len(re.findall(f"<{tag}\\b", ours)) == len(re.findall(f"<{tag}\\b", theirs))
        written = [" ".join(re.findall(r"<text[^>]*>([^<]*)</text>", text)) for text in (ours, theirs)]
        assert sorted(_numbers(written[0], point=".")) == sorted(_numbers(written[1], point=","))


def test_a_page_in_another_language_leaves_the_analysis_english(analysis: Analysis, english: str, spanish: str) -> None:
    """What is computed once and kept is the same for the next page, whatever its language."""
    assert spanish != english
    assert page(analysis) == english


def test_the_page_with_sliders(tmp_path: Path) -> None:
    """Nothing escapes on it; in Spanish its intervals, which the script looks up, are the same numbers."""
    analysis = analyse(load(synthetic.make(tmp_path, synthetic.factorial(7, 1))))
    pages = []
    for language in (marked(), "en", "es"):
        with speaking(language):
            pages.append(live_page(analysis))
    assert words(unmarked(Shown(pages[0]).text)) <= words(str(analysis.results.folder))
    english, spanish = (json.loads(re.findall(r'id="data">(.*?)</script>', text)[0]) for text in pages[1:])
    assert english["hypotheses"][0]["smallest"] == spanish["hypotheses"][0]["smallest"]
    assert [[[row[:3] for row in rows] for rows in of] for of in english["at"]] == [
        [[row[:3] for row in rows] for rows in of] for of in spanish["at"]
    ]
    assert "puntos" in spanish["at"][-1][0][-1][3] + spanish["at"][-1][0][2][3]


def test_the_answers_page(tmp_path: Path) -> None:
    """The page of all claims: nothing escapes, and badges are the same in both languages."""
    study = synthetic.factorial(8, 2)
    for name in ("factorial", "factorial-fashion-mnist"):
        synthetic.make(tmp_path / name, study, answers=synthetic.rightly(synthetic.MEANS))
    found = References.read(tmp_path)
    answers = answer_all(found)
    marks = claims_page.page(answers, found, lang=marked())
    studies = words(" ".join({finding.reference for answer in answers for finding in answer.findings}))
    assert words(unmarked(Shown(marks).text)) <= studies
    english, spanish = (claims_page.page(answers, found, lang=lang) for lang in ("en", "es"))
    badges = re.compile(r'class="(badge [\w-]+|part [\w-]+)"')
    assert badges.findall(english) == badges.findall(spanish)
    assert _numbers_in_cells(english, point=".") == _numbers_in_cells(spanish, point=",")


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    """Return comparisons with every verdict, and with all that can be said of two folders."""
    folder = tmp_path_factory.mktemp("compared")
    a = load(synthetic.make(folder / "a", SMALL))
    fused, few = (load(synthetic.make(folder / name, SMALL.with_options(**options))) for name, options in (
        ("fused", {"engine": "fused"}), ("few", {"seeds": 2}),
    ))  # fmt: skip
    old = {run_id: of | {"specification": {"protocol_version": 1}} for run_id, of in a.documents.items()}
    elsewhere = {run_id: of | {"provenance": synthetic.MACHINE | {"torch": "2.9.1", "git_dirty": True}}
                 for run_id, of in a.documents.items()}  # fmt: skip
    broken = load(synthetic.make(folder / "broken", SMALL, missing=[("dropout", 3)], diverged=[("baseline", 5)]))
    weights = {run_id: of | {"weights_sha256": "1" * 64} for run_id, of in a.documents.items()}
    return {
        "identical": compare(a, a),
        "equivalent": compare(a, replace(moved(a, "val_loss", noise(1e-5)), documents=elsewhere)),
        "different": compare(a, moved(a, "val_loss", noise(1e-3, 0.05)), {"test_loss": 0.01}),
        "barely": compare(a, moved(a, "val_loss", noise(0.004, 0.01))),
        "open": compare(a, moved(a, "val_loss", noise(0.02))),
        "few": compare(few, moved(few, "val_loss", noise(1e-3))),
        "defect": compare(fused, moved(fused, "val_loss", lambda *of: 1e-9 * (of == ("dropout", 5)))),
        "protocols": compare(replace(a, documents=old), a),
        "broken": compare(a, broken),
        "weights": compare(a, replace(a, folder=Path("weights"), documents=weights)),
    }


HISTORY = {"history": [{"date": "2026-01-02", "why": "the reason"}]}


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """Return verdicts of the gate of every outcome, for every reason that it has."""
    known = gate_tables.reference(rules=Rules(thresholds={"test_accuracy": 0.9, "val_loss": 0.05}))
    few = gate_tables.reference(2, 2)
    few = replace(few, bank=few.bank[few.bank["seed"] < 103])
    clean = gate_tables.candidate(known)
    lost = clean.runs.assign(value=clean.runs["value"].where(clean.runs.index > 0))
    bad = {"test_loss": 0.2, "test_accuracy": 96.0}
    evaluated = clean.trace.assign(value=clean.trace["value"] + 0.1 * (clean.trace["what"] != "step"))
    changed = [
        clean,
        replace(clean, machine={**clean.machine, "engine": "autograd"}),
        replace(clean, runs=gate_tables.moved(clean.runs, -1.0), trace=gate_tables.trace(0.01), checkpoint=bad,
                predictions=np.ones(1000, np.uint8)),
        replace(clean, runs=gate_tables.moved(clean.runs, -20.0, cells=("dropout",)),
                trace=gate_tables.trace(0.01, start=2)),
        replace(clean, runs=gate_tables.moved(clean.runs, 0.13), trace=evaluated),
        replace(clean, runs=lost, trace=clean.trace[clean.trace["at"] != 3]),
    ]  # fmt: skip
    return [
        *(judge(evidence, known) for evidence in changed), judge(clean, known, changed_on_purpose=True),
        judge(known.evidence, known), judge(gate_tables.candidate(few), few), judge(clean.runs, known),
    ]  # fmt: skip


def said_of(comparison: Comparison, language: str | Language) -> tuple[str, str]:
    """Return the page of a comparison, and it in Markdown."""
    with speaking(language):
        return compare_page.page(comparison), compare_page.to_markdown(comparison)


OF_RUNS = "test_accuracy val_loss test_loss torch status ok diverged verify margin l2 the reason"
"""What compare and gate show as it is in the results, and the reason that a user gives."""


def test_no_text_escapes_compare_and_gate(comparisons: dict[str, Comparison], verdicts: list[Verdict]) -> None:
    """What their pages show outside of messages is names, code and numbers."""
    own = words(OF_RUNS)
    for comparison in comparisons.values():
        html, markdown = said_of(comparison, marked())
        there = words(f"{comparison.a} {comparison.b} {' '.join(map(str, synthetic.MACHINE.values()))}")
        assert words(unmarked(Shown(html).text + markdown)) <= own | there
    for verdict in verdicts:
        with speaking(marked()):
            assert words(unmarked(gate_page.markdown(verdict, HISTORY))) <= own


def test_compare_and_gate_have_no_english_word(comparisons: dict[str, Comparison], verdicts: list[Verdict]) -> None:
    """In Spanish no word of their pages is English, names aside."""
    for comparison in comparisons.values():
        html, markdown = said_of(comparison, "es")
        there = words(f"{OF_RUNS} {comparison.a} {comparison.b}")
        assert english_words(Shown(html).text + markdown) <= there
        assert '<html lang="es">' in html
    with speaking("es"):
        pages = "".join(gate_page.markdown(verdict, HISTORY) for verdict in verdicts)
    assert english_words(pages) <= words(OF_RUNS)
    assert "**FALLA**" in pages


def test_numbers_of_compare_and_gate_are_the_same(comparisons: dict[str, Comparison], verdicts: list[Verdict]) -> None:
    """The Spanish pages have the numbers of the English ones, with a decimal comma, and the same data for download."""
    data = re.compile(r'href="(data:text/csv[^"]*)"')
    for comparison in comparisons.values():
        english, spanish = (said_of(comparison, language) for language in ("en", "es"))
        assert data.findall(english[0]) == data.findall(spanish[0])
        assert _numbers_in_cells(english[0], point=".") == _numbers_in_cells(spanish[0], point=",")
        assert str(comparison).count("media") == 0
    for verdict in verdicts:
        english_page = gate_page.markdown(verdict, HISTORY)
        with speaking("es"):
            spanish_page = gate_page.markdown(verdict, HISTORY)
        assert sorted(_numbers(english_page, point=".")) == sorted(_numbers(spanish_page, point=","))
        assert gate_page.markdown(verdict, HISTORY) == english_page


# ---- Commands and functions ----


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a results folder of two cells, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    study = parse_study({"name": "pair", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.2]}})
    return synthetic.make(tmp_path / "results", study)


def test_the_report_command_writes_spanish_beside_english(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`report --lang es` has a folder of its own by default, and says how to make the page again."""
    assert cli.main(["report", str(small), "--lang", "es"]) == 0
    assert "Report: reports/pair/es/index.html" in capsys.readouterr().out
    text = Path("reports/pair/es/index.html").read_text(encoding="utf-8")
    assert "Todos los entrenamientos" in Page(text).text
    assert Path("reports/pair/es/figures/accuracy.svg").read_text(encoding="utf-8").count("exactitud de prueba") == 1
    assert "Variante" in Path("reports/pair/es/summary.md").read_text(encoding="utf-8")
    assert "--lang es" in page(analyse(load(small)), lang="es")
    assert mnist_ablate.report(small, "es", lang="es").html == Path("es/index.html")


def test_judge_writes_spanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`judge --lang es`, and the same from Python."""
    monkeypatch.chdir(tmp_path)
    Path("runs.csv").write_text(TABLE, encoding="utf-8")
    assert cli.main(["judge", "runs.csv", "--lang", "es"]) == 0
    assert "Hecho por" in Path("reports/runs/es/index.html").read_text(encoding="utf-8")
    judged = mnist_ablate.judge("runs.csv", out="here", lang="es")
    assert "Qué se empareja" in judged.report.html.read_text(encoding="utf-8") or "Emparejado" in judged._repr_html_()


def test_compare_writes_spanish(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compare --lang es` has a folder of its own by default, and prints English; so does the function."""
    assert cli.main(["compare", str(small), str(small), "--lang", "es"]) == 0
    printed = capsys.readouterr().out
    assert "Bit-identical" in printed
    assert "More: reports/compare/es/compare.html" in printed
    assert "Idéntico bit a bit" in Page(Path("reports/compare/es/compare.html").read_text(encoding="utf-8")).text
    assert Path("reports/compare/es/compare.md").read_text(encoding="utf-8").startswith("## Idéntico bit a bit\n")
    assert "Bit-identical" in str(mnist_ablate.compare(small, small, out="here", lang="es"))
    assert "Idéntico bit a bit" in Path("here/compare.md").read_text(encoding="utf-8")


def test_gate_writes_spanish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`gate --lang es` writes its page in Spanish; what it prints, and the file for programs, stay English."""
    known, out = gate_tables.reference(), tmp_path / "out"
    known.save(tmp_path / "reference")
    gate_tables.candidate(known).runs.to_csv(tmp_path / "runs.csv", index=False)
    command = ["gate", str(tmp_path / "runs.csv"), "--reference", str(tmp_path / "reference"), "--out", str(out)]
    assert cli.main([*command, "--lang", "es"]) == 0
    assert "Pass: test_accuracy moved by" in capsys.readouterr().out
    page = (out / "gate.md").read_text(encoding="utf-8")
    assert page.startswith("# Control de regresiones: pasa\n\nPasa: test_accuracy cambió")
    assert "not applied" in (out / "gate.xml").read_text(encoding="utf-8")


def test_claims_writes_all_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`claims` writes the answers and the page of each study that has results, in either language."""
    monkeypatch.chdir(tmp_path)
    synthetic.make(tmp_path / "results" / "reference" / "spread", synthetic.bundled("spread", 6, 1))
    assert cli.main(["claims", "--lang", "es"]) == 0
    assert capsys.readouterr().out == "Answers: reports/claims/es/index.html\n"
    answers, of_study = (Path(f"reports/claims/es/{name}index.html").read_text() for name in ("", "spread/"))
    assert all('<html lang="es">' in text for text in (answers, of_study))
    assert "C1: Una red sin técnicas se sobreajusta" in Page(answers).text
    assert "results/reference/</code>" in answers
    assert {str(link["href"]) for link in Page(answers).all("a")} >= {"spread/index.html"}
    assert cli.main(["claims", "elsewhere"]) == 2
    assert "mnist-ablate: elsewhere: has no reference results. Give a folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    ["report", "results"], ["judge", "runs.csv"], ["run", "factorial", "--report"], ["compare", "results", "results"],
    ["gate"], ["claims"],
])  # fmt: skip
def test_an_unknown_language_is_bad_input(command: list[str], small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One message names the languages that there are, before anything is read, trained or written; the status is 2."""
    assert small.exists()
    assert cli.main([*command, "--lang", "fr"]) == 2
    assert capsys.readouterr().err == "mnist-ablate: fr: not a language of the pages. Give one of them: en, es.\n"
    assert not Path("reports").exists()


def test_a_users_study_stays_as_written(tmp_path: Path) -> None:
    """Titles and statements that are not ours are shown in the words of whoever wrote them, in any language."""
    asked: dict[str, Any] = {"id": "h", "statement": "My own words", "effect": "dropout", "kind": "increase",
                             "smallest": 1.0}  # fmt: skip
    study = parse_study({"name": "own", "title": "What I ask", "seeds": 2, "protocol": {"epochs": 1},
                         "factors": {"dropout": [0.0, 0.2]}, "hypotheses": [asked]})  # fmt: skip
    text = page(analyse(load(synthetic.make(tmp_path, study))), lang="es")
    assert "<h1>What I ask</h1>" in text
    assert "My own words" in text


def test_a_message_that_a_catalogue_lacks_stops_the_page(small: Path) -> None:
    """Rather than a page half in English, there is one message that names what is missing."""
    with pytest.raises(LanguageError, match="lacks the message 'No such words'"), speaking("es"):
        say("No such words")
    assert small.exists()
