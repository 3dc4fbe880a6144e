"""The report: a page that stands alone, says what is missing, and is safe whatever a study is called."""

import itertools
import re
import subprocess
import sys
import urllib.parse
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic
from pages import Page

import mnist_ablate.report as report_module
from mnist_ablate import data
from mnist_ablate.data import Images
from mnist_ablate.design.plan import Run, plan
from mnist_ablate.design.settings import in_words
from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import Report, write
from mnist_ablate.report.__main__ import main
from mnist_ablate.report.format import seeds
from mnist_ablate.report.page import page as page_alone
from mnist_ablate.report.sections import SECTIONS
from mnist_ablate.report.verdict_words import estimate_text, interval_text
from mnist_ablate.report.words import notices
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.folder import Store
from mnist_ablate.store.results import Results, load

HOLES = [("l2", 0), ("l2", 1), ("l2", 2), ("dropout", 1)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 8 cells x 7 seeds x 2 epochs, all there, of the same test images."""
    study = synthetic.factorial(7, 2)
    declared = {"study_sha256": "f" * 64, "hypotheses_sha256": study.hypotheses_sha256, "looks": [7]}
    return load(synthetic.make(tmp_path_factory.mktemp("results"), study, answers=answers, declared=declared))


@pytest.fixture(scope="module")
def source(results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of their page."""
    return write(results, tmp_path_factory.mktemp("report")).html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    """Return their page, parsed."""
    return Page(source)


def answers(run: Run) -> dict[str, Any]:
    """Make predictions of the same 20 images in all runs: the last is always wrong, the first now and then."""
    labels = np.arange(20, dtype=np.uint8) % 10
    said = labels.copy()
    said[0], said[-1] = run.seed % 2, 4
    return {"test_index": np.arange(20, dtype=np.int32), "label": labels, "prediction": said,
            "confidence": np.full(20, 0.5, np.float32)}  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_images")


def report_of(folder: Path, **options: object) -> tuple[Page, str]:
    """Return the page and the summary of planted results."""
    folder = synthetic.make(folder / "results", **options)  # type: ignore[arg-type]
    report = write(folder, folder / "report")
    return Page(report.html.read_text(encoding="utf-8")), report.summary.read_text(encoding="utf-8")


def test_page_stands_alone(page: Page, source: str) -> None:
    """Nothing on the page or in its pictures is fetched from anywhere, and there is no script."""
    assert not page.all("script")
    assert not page.all("link")
    assert "default-src 'none'" in source
    for _, attributes in page.elements:
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert page.all("svg")
    assert not re.search(r"url\((?!#)|@import|https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", source))


def test_page_is_small_and_reproducible(results: Results, tmp_path: Path, source: str) -> None:
    """The page is under 700 KB, and the same results give the same bytes."""
    assert len(source) < 7e5
    assert write(results, tmp_path).html.read_text(encoding="utf-8") == source


@pytest.mark.usefixtures("blank")
def test_a_terminal_sees_how_far_the_report_is(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report that takes long says so on a terminal; elsewhere, and without a stream of errors, it is silent."""
    monkeypatch.setattr(sys.modules["mnist_ablate.report.page"], "_PATIENCE", 0)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test may have loaded it
    write(results, tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    write(results, tmp_path)
    assert re.search(rf"Report: .* \d+/{len(SECTIONS)} ", capsys.readouterr().err)
    monkeypatch.setattr(sys, "stderr", None)
    assert write(results, tmp_path).html.exists()


def test_pictures_tell_their_content(page: Page, results: Results) -> None:
    """Each picture has a label with the numbers that it shows, and a drawing for wide and one for narrow screens."""
    alts = page.pictures
    assert list(alts) == [
        "answers", "effects", "interactions", "effects-by-epoch", "printed-losses", "accuracy", "losses", "confusions",
        "power",
    ]  # fmt: skip
    assert all(alts.values())
    best = 100 * results.final.groupby("cell")["test_accuracy"].mean()
    first = analyse(results).judgements[0]
    assert f"{estimate_text(first)}, interval {interval_text(first)}" in alts["answers"]
    assert f"highest to lowest, in percent: {in_words(str(best.idxmax()))} {best.max():.2f};" in alts["accuracy"]
    ends = results.final.groupby("cell")["train_loss_eval"].mean()
    assert f"baseline {ends['baseline']:.4f}" in alts["losses"]
    assert [drawing["class"] for drawing in page.all("svg")] == ["wide", "narrow"] * len(alts)


def test_identifiers_are_unique(page: Page, source: str) -> None:
    """No two elements of the page share an identifier, and each reference leads to one."""
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', source)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }


def test_page_is_accessible(page: Page) -> None:
    """Language, landmarks, one h1 with h2 below it, captions, scopes, and tables that the keyboard can scroll."""
    assert page.all("html") == [{"lang": "en"}]
    tags = [tag for tag, _ in page.elements]
    assert all(tags.count(tag) == 1 for tag in ("main", "header", "footer", "h1", "title"))
    assert next(tag for tag in tags if re.fullmatch("h[1-6]", tag)) == "h1"
    assert tags.count("table") == tags.count("caption") == len(regions_of(page))
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert tags.count("details") == tags.count("summary")
    assert all(cell.get("scope") for cell in page.all("th"))
    named = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    ids = set(named)
    assert len(ids) == len(named)
    labels = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labels) <= ids
    assert {box["tabindex"] for box in regions_of(page)} == {"0"}
    assert "main" in ids  # where the first link leads


def regions_of(page: Page) -> list[dict[str, str | None]]:
    """List the boxes that scroll."""
    return [box for box in page.all("div") if box.get("role") == "region"]


def test_numbers_come_from_the_results(page: Page, results: Results) -> None:
    """The table has the mean of each cell, computed here by hand, in percent with two decimals."""
    for mean in 100 * results.final.groupby("cell")["test_accuracy"].mean():
        assert f" {mean:.2f} " in page.text
    assert "trains 8 variants of a neural network 7 times each, each time from another random seed, for 2" in page.text
    assert "56 of 56 planned runs stored, none diverged" in page.text


def test_whole_study_has_no_notice(page: Page, results: Results) -> None:
    """Where nothing is missing and all went well, there is no warning."""
    assert notices(analyse(results)) == []
    assert "went wrong" not in page.text


def test_provenance(page: Page, results: Results) -> None:
    """Versions, data and times of the runs are on the page."""
    assert synthetic.DATA_SHA256 in page.text
    assert synthetic.MACHINE["processor"] in page.text
    assert "2025-11-23 16:00 to 2025-11-23 16:55 UTC" in page.text
    seconds = results.epochs["train_seconds"].sum()
    assert f"{round(seconds / 60)} min of training" in page.text


@pytest.mark.usefixtures("blank")
def test_two_machines(tmp_path: Path) -> None:
    """Where runs differ in their versions, each value is shown with its number of runs."""
    other = synthetic.MACHINE | {"torch": "2.4.0", "threads": 4}
    page, _ = report_of(tmp_path, machines=[synthetic.MACHINE, synthetic.MACHINE, other])
    assert "torch 2.14.1 16 of 24 2.4.0 8 of 24" in page.text


@pytest.mark.usefixtures("blank")
def test_missing_and_diverged_are_said(tmp_path: Path) -> None:
    """Missing runs and diverged ones are named with their seeds, on the page and in the summary."""
    page, summary = report_of(tmp_path, missing=HOLES, diverged=[("batch_norm", 2)])
    assert "20 of 24 planned runs stored, 1 diverged" in page.text
    for text in (page.text, summary.replace("\\", "")):
        assert "4 planned runs not stored" in text
        assert "L2 (seeds 0–2)" in text  # noqa: RUF001 # an en dash between numbers
        assert "dropout (seed 1)" in text
        assert "1 run diverged" in text
        assert "BatchNorm (seed 2)" in text
    assert "L2 0 of 3 – –" in page.text  # noqa: RUF001


def test_damaged_file_is_said(tmp_path: Path) -> None:
    """A file that cannot be read is named, and its run counts as missing."""
    folder = synthetic.make(tmp_path / "results")
    victim = min((folder / "runs").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:100])
    missing, damaged = notices(analyse(load(folder)))
    assert "1 planned run not stored" in missing
    assert victim.name in damaged


@pytest.mark.usefixtures("blank")
def test_few_seeds_are_warned_of(tmp_path: Path, page: Page) -> None:
    """Below six seeds the page says how little that is; from six on it does not."""
    few, summary = report_of(tmp_path)
    assert "Only 3 seeds" in few.text
    assert "Fewer than 6 seeds" in summary
    assert "rehearsal" not in page.text


@pytest.mark.usefixtures("blank")
def test_one_seed(tmp_path: Path) -> None:
    """A study with one seed has a page: means and differences, dashes where there is no spread."""
    page, _ = report_of(tmp_path, study=synthetic.factorial(1, 1))
    assert "Only 1 seed." in page.text
    assert "once, for 1 epoch on MNIST" in page.text
    assert re.search(r"dropout 1 97\.\d\d – [+−]\d\.\d\d – 0", page.text)  # noqa: RUF001


@pytest.mark.usefixtures("blank")
def test_one_cell(tmp_path: Path) -> None:
    """A study with one cell has a page, and compares it with nothing."""
    study = parse_study({"name": "alone", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"dropout": [0.2]}})
    page, _ = report_of(tmp_path, study=study)
    assert "trains one neural network 2 times, each time from another random seed" in page.text
    assert "differ only in" not in page.text


@pytest.mark.usefixtures("blank")
def test_hostile_title_is_text(tmp_path: Path) -> None:
    """A title made of markup is shown as it is written, on the page and in the summary, and does nothing."""
    title = "<script>alert('x')</script> & <b>|bold|</b>\n# `more`"
    study = parse_study({"name": "n", "title": title, "seeds": 1, "factors": {"dropout": [0.0, 0.2]}})
    page, summary = report_of(tmp_path, study=study)
    assert not page.all("script")
    assert not page.all("b")
    assert "<script>alert('x')</script> & <b>|bold|</b>" in page.text
    assert not re.search(r"(?<!\\)<", summary)
    assert summary.splitlines()[0].startswith("## \\<script\\>")
    assert not any(line.startswith("# ") for line in summary.splitlines())


HOSTILE = "\"'><script>alert(1)</script>{{ 7 * 7 }}<svg/onload=x()>]]>"


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    """Levels, statements and reasons made of markup are text in the page, its attributes, pictures and tables."""
    claim = {"id": "h", "statement": HOSTILE, "effect": "kind", "kind": "increase", "smallest": 0.1}
    study = parse_study(
        {
            "name": "n",
            "title": HOSTILE,
            "seeds": 3,
            "protocol": {"model": "m:f", "epochs": 2},
            "factors": {"kind": ["plain", HOSTILE]},
            "hypotheses": [claim],
        }
    )
    folder = synthetic.make(tmp_path / "results", study, answers=answers)
    Store(folder).write_failure(Run("n", "x", (), 99, plan(study)[0].settings, "autograd"), HOSTILE)
    report = write(folder, tmp_path / "report")
    source = report.html.read_text(encoding="utf-8")
    page = Page(source)
    assert not page.all("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert "<script" not in source.lower()
    assert "<svg/onload" not in source
    for drawing in (tmp_path / "report" / "figures").glob("*.svg"):
        names = {element.tag.rpartition("}")[2] for element in ElementTree.parse(drawing).iter()}  # noqa: S314
        assert "script" not in names
    assert not re.search(r"(?<!\\)<", report.summary.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("blank")
def test_hostile_provenance_is_text(tmp_path: Path) -> None:
    """What a run recorded of its machine is shown as text too."""
    page, _ = report_of(tmp_path, machines=[{"processor": "<img src=x onerror=alert(1)>"}])
    assert "<img src=x onerror=alert(1)>" in page.text
    assert not page.all("img")


@pytest.mark.usefixtures("blank")
def test_provenance_may_be_poor(tmp_path: Path) -> None:
    """Runs that recorded little, a time that is none, or other things than text have a page too."""
    page, _ = report_of(tmp_path, machines=[{"started": "some day", "extra": {"a": [1, None]}}, {"git_commit": None}])
    assert "some day" in page.text
    assert '{"a": [1, null]}' in page.text


@pytest.mark.usefixtures("blank")
def test_default_place(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `out` the report goes to ``reports/<study>`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    report = write(results)
    assert report == Report(Path("reports/factorial/index.html"), Path("reports/factorial/summary.md"))
    made = sorted(path.name for path in report.html.parent.iterdir())
    assert made == ["figures", "index.html", "summary.md", "tables"]


@pytest.mark.usefixtures("blank")
def test_report_shows_itself(results: Results, tmp_path: Path) -> None:
    """A report prints as its path, shows its page in a notebook's frame, and cannot be changed."""
    report = write(results, tmp_path)
    assert str(report) == str(tmp_path / "index.html")
    frames = Page(report._repr_html_()).all("iframe")
    assert frames[0]["srcdoc"] == report.html.read_text(encoding="utf-8")
    assert "sandbox" in frames[0]
    with pytest.raises(FrozenInstanceError):
        report.html = tmp_path  # type: ignore[misc]


@pytest.mark.usefixtures("blank")
def test_command(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes the page and prints where it is."""
    assert main([str(results.folder), "--out", str(tmp_path / "a" / "b")]) == 0
    assert str(tmp_path / "a" / "b" / "index.html") in capsys.readouterr().out


@pytest.mark.parametrize("content", ["nothing", "empty", "no runs"])
def test_command_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    """A wrong path, an empty folder, and a study without runs: one line that says so, and exit status 2."""
    folder = tmp_path / "folder"
    if content == "empty":
        folder.mkdir()
    if content == "no runs":
        synthetic.make(folder, missing=[(cell, seed) for cell in synthetic.MEANS for seed in range(3)])
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "folder" in output.err
    assert not (tmp_path / "out").exists()


def test_command_cannot_write(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where `--out` cannot be a folder, the message names it and exit status is 2."""
    (tmp_path / "file").write_text("")
    assert main([str(results.folder), "--out", str(tmp_path / "file" / "below")]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.usefixtures("blank")
def test_module_is_callable(results: Results, tmp_path: Path) -> None:
    """The module itself writes a report when called."""
    assert report_module(results, tmp_path) == Report(tmp_path / "index.html", tmp_path / "summary.md")  # type: ignore[operator]


def python(code: str, *arguments: str) -> str:
    """Run `code` in a Python of its own, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 # our own code


@pytest.mark.parametrize("first", ["", "import mnist_ablate.report", "from mnist_ablate.report import write"])
def test_callable_in_either_import_order(first: str) -> None:
    """However the module was imported, ``mnist_ablate.report`` can be called; so it can if nothing was."""
    code = """if True:
        import mnist_ablate
        from mnist_ablate.errors import ResultsError
        try:
            mnist_ablate.report("nowhere")
        except ResultsError as error:
            print(error)
    """
    assert "nowhere: no results there" in python(f"{first}\n{code}")


def test_reading_half_has_no_torch() -> None:
    """Importing the report imports neither torch nor pyplot."""
    code = "import mnist_ablate.report, sys; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    assert python(code).strip() == "[]"


def test_runs_as_a_module(results: Results, tmp_path: Path) -> None:
    """``python -m mnist_ablate.report`` works, and warns of nothing."""
    command = [sys.executable, "-W", "error", "-m", "mnist_ablate.report", str(results.folder), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stderr == ""
    assert (tmp_path / "index.html").exists()


PAIR = {"name": "pair", "seeds": 7, "protocol": {"epochs": 2}, "factors": {"dropout": [0.0, 0.2]}}
CLAIM = {"id": "H", "claim": "<i>Claim</i> | *x*", "statement": "<b>It</b> is [so](http://x)", "effect": "dropout",
         "kind": "increase", "smallest": 0.1}  # fmt: skip
GRID = {"l2": [0.0, 1e-5], "dropout": [0.0, 0.2]}
RATES = {"learning_rate": [1e-3, 1e-4, 3e-4, 3e-3, 1e-2]}


def declared(study: Study, **changes: object) -> dict[str, object]:
    """Say what a run of `study` records of its hypotheses."""
    return {"study_sha256": "f" * 64, "hypotheses_sha256": study.hypotheses_sha256, "looks": [study.seeds]} | changes


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"seeds": 1}, {}, "Only 1 seed."),
        ({"seeds": 2}, {}, "Only 2 seeds."),
        ({"seeds": 3}, {}, "Only 3 seeds."),
        ({"seeds": 7}, {"missing": [(c, s) for c in ("baseline", "dropout") for s in range(2, 7)]}, "Only 2 seeds."),
        ({"factors": {"dropout": [0.2]}}, {}, "trains one neural network 7 times"),
        ({"factors": RATES}, {}, "trend per doubling of learning rate"),
        ({"factors": GRID, "cells": [{}, {"l2": 1e-5}, {"dropout": 0.2}]}, {}, "trains 3 variants"),
        ({"factors": GRID, "cells": [{}, {"l2": 1e-5, "dropout": 0.2}]}, {}, "trains 2 variants"),
        ({"factors": GRID, "exclude": [{"l2": 0.0, "dropout": 0.0}]}, {}, "trains 3 variants"),
        ({}, {"missing": [("dropout", s) for s in range(7)]}, "7 planned runs not stored"),
        ({"seeds": 1}, {"missing": [("baseline", 0)]}, "1 planned run not stored"),
        ({}, {"diverged": [(c, s) for c in ("baseline", "dropout") for s in range(7)]}, "14 runs diverged"),
        ({}, {"sd": 0.0, "means": {"baseline": 97.5, "dropout": 97.5}}, "All seeds give the same"),
    ],
)  # fmt: skip
def test_poor_and_odd_studies(tmp_path: Path, changes: dict[str, object], options: dict[str, Any], said: str) -> None:
    """With its real pictures, each has a page that says what it is, without a warning and without 'nan'."""
    given = PAIR | {"hypotheses": [CLAIM]} if "factors" not in changes else PAIR
    study = parse_study(given | changes)
    page, summary = report_of(tmp_path, study=study, answers=answers, declared=declared(study), **options)
    assert said in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text + summary)
    assert not [alt for alt in page.pictures.values() if re.search(r"\b(nan|None)\b", alt)]
    assert ("Verdicts." in page.text) == ("hypotheses" in given)


@pytest.mark.usefixtures("blank")
def test_failed_diverged_and_missing_at_once(tmp_path: Path) -> None:
    """Each is named with its cell and seed, and the verdict rests on the seeds that are left, provisionally."""
    study = parse_study(PAIR | {"seeds": 9, "hypotheses": [CLAIM]})
    folder = synthetic.make(tmp_path / "r", study, missing=[("dropout", 3), ("baseline", 4)],
                            diverged=[("dropout", 5)], answers=answers, declared=declared(study))  # fmt: skip
    run = next(run for run in plan(study) if (run.cell, run.seed) == ("dropout", 3))
    Store(folder).write_failure(run, "MemoryError: planted")
    page = Page(write(folder, tmp_path / "out").html.read_text(encoding="utf-8"))
    assert "2 planned runs not stored (not run yet, failed or damaged): " in page.text
    assert "baseline (seed 4)" in page.text
    assert "dropout (seed 3)" in page.text
    assert "MemoryError: planted" in page.text
    assert "1 run diverged, the loss was no longer finite: dropout (seed 5)" in page.text
    assert "Provisional: it rests on 7 seeds, and 9 were declared before the first run." in page.text
    assert "7 of 9, 1 diverged" in page.text


@pytest.mark.usefixtures("blank")
def test_hypotheses_are_text(tmp_path: Path) -> None:
    """Markup in a claim or a statement is shown as it was written, on the page and in the summary."""
    study = parse_study(PAIR | {"hypotheses": [CLAIM]})
    page, summary = report_of(tmp_path, study=study, declared=declared(study))
    assert not page.all("i")
    assert not page.all("b")
    assert "<i>Claim</i> | *x*" in page.text
    assert "<b>It</b> is [so](http://x)." in page.text
    assert not re.search(r"(?<!\\)[<\[]", summary)
    assert "Each was judged by a rule that was written down before the first run." in page.text


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("changes", [{"hypotheses_sha256": "other"}, {"looks": [5]}])
def test_changed_rules_are_provisional(tmp_path: Path, changes: dict[str, object]) -> None:
    """Where hypotheses or seeds are not those laid down before the runs, the page does not claim that they are."""
    study = parse_study(PAIR | {"hypotheses": [CLAIM]})
    page, summary = report_of(tmp_path, study=study, declared=declared(study, **changes))
    assert "Provisional: " in page.text
    assert "Provisional: " in summary
    assert "was written down before the first run" not in page.text
    assert ("The hypotheses were changed after the first run: 14 of 14" in page.text) == ("looks" not in changes)


@pytest.mark.usefixtures("blank")
def test_without_hypotheses(tmp_path: Path) -> None:
    """A study that claims nothing has estimates, and no verdict anywhere."""
    page, summary = report_of(tmp_path, study=parse_study(PAIR), answers=answers)
    assert "This study declares no hypotheses" in page.text
    assert "Verdicts." not in page.text
    assert "no verdicts." in summary


@pytest.mark.usefixtures("blank")
def test_two_processors_are_noticed(tmp_path: Path) -> None:
    """Runs from two kinds of processors are a notice on the page and in the summary, with which are from which."""
    machines = [synthetic.MACHINE, synthetic.MACHINE | {"processor": "Abacus"}]
    for text in report_of(tmp_path, study=parse_study(PAIR | {"engine": "autograd"}), machines=machines):
        said = text.text if isinstance(text, Page) else text
        assert "more than one kind of processor" in said
        results = load(tmp_path / "results")
        for processor in ("Abacus", synthetic.MACHINE["processor"]):
            made = {i for i, of in results.documents.items() if of["provenance"]["processor"] == processor}
            final = results.final[results.final["run_id"].isin(made)]
            which = "; ".join(
                f"{cell} ({seeds(final.loc[final['cell'] == cell, 'seed'])})" for cell in final["cell"].unique()
            )
            assert f"{processor}, {len(made)} runs: {which}." in said


@pytest.mark.usefixtures("blank")
def test_images_that_all_get_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Images) -> None:
    """They are shown where the data set is the runs' own; else the page says why not, and lists them."""
    folder = synthetic.make(tmp_path / "r", parse_study(PAIR), answers=answers)
    for at_hand, shown in ((None, False), (small, False), (replace(small, sha256=synthetic.DATA_SHA256), True)):
        if at_hand:
            monkeypatch.setattr(data, "load", lambda *_, images=at_hand: images)
        page = Page(write(folder, tmp_path / "out").html.read_text(encoding="utf-8"))
        assert ("always-wrong" in page.pictures) == shown
        assert ("The images themselves are not shown" in page.text) != shown
        assert "Test images that every run of every cell gets wrong." in page.text


@pytest.mark.usefixtures("blank")
def test_without_predictions(tmp_path: Path) -> None:
    """Where runs did not answer the same images the page says that it cannot tell which are got wrong."""
    page, _ = report_of(tmp_path, study=parse_study(PAIR))
    assert "cannot say which images are got wrong" in page.text
    assert "the runs were not all tested on the same images" in page.text
    assert "What the networks get wrong" not in page.text


@pytest.mark.usefixtures("blank")
def test_compact_folder_gives_the_same_page(tmp_path: Path) -> None:
    """From a compact folder the page is the same but for the folder's name."""
    results = load(synthetic.make(tmp_path / "r", parse_study(PAIR), answers=answers))
    pages = [write(found, tmp_path / "out").html.read_text(encoding="utf-8") for found in
             (results, load(write_compact(results, tmp_path / "c")))]  # fmt: skip
    assert pages[0].replace(str(tmp_path / "r"), "") == pages[1].replace(str(tmp_path / "c"), "")


@pytest.mark.usefixtures("blank")
def test_figures_and_tables_are_files(results: Results, tmp_path: Path) -> None:
    """Beside the page lie each of its pictures as SVG and PNG, and each of its tables as CSV."""
    write(results, tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    ids = set(page.pictures)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{i}.{end}" for i in ids for end in ("svg", "png")
    }
    names = {link["download"] for link in page.all("a") if "download" in link}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == names
    for link in page.all("a"):
        if "download" in link:
            content = urllib.parse.unquote(str(link["href"]).removeprefix("data:text/csv;charset=utf-8,"))
            assert content == (tmp_path / "tables" / str(link["download"])).read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank")
def test_a_page_alone_says_how_to_get_its_files(results: Results, tmp_path: Path) -> None:
    """A page without files beside it is otherwise the same, and names the command that writes them."""
    alone, beside = Page(page_alone(analyse(results))), Page(write(results, tmp_path).html.read_text(encoding="utf-8"))
    command = f"python -m mnist_ablate.report {results.folder.as_posix()}"
    assert command in alone.text
    assert command not in beside.text
    assert "beside this page" in beside.text
    footer = alone.elements.index(("footer", {}))
    assert alone.elements[:footer] == beside.elements[:footer]
    assert alone.pictures == beside.pictures
