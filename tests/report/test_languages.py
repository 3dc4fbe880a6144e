"""The page in other languages: nothing stays English, and verdicts, numbers and pictures are the same."""

import html
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drawn
import numpy as np
import pandas as pd
import pytest
import synthetic
from languages import Shown, marked, messages, numbers, unmarked, words
from matplotlib.figure import Figure
from pages import Page

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import References, answer_all
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import LanguageError
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.language import find, say, speaking
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
    of_english = {word.lower() for _, message in messages().messages() for word in words(" ".join([*message] if
                  isinstance(message, tuple) else [message]))}  # fmt: skip
    of_spanish = {word.lower() for forms in find("es").entries.values() for form in forms for word in words(form)}
    shown = Shown(spanish).text + summary(analysis, lang="es")
    found = {word for word in words(shown) if word.lower() in of_english - of_spanish}
    assert found <= own_names(analysis)
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


@pytest.mark.parametrize("command", [["report", "results"], ["judge", "runs.csv"], ["run", "factorial", "--report"]])
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
