"""The report: a page that stands alone, says what is missing, and is safe whatever a study is called."""

import base64
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic
from matplotlib.figure import Figure

import mnist_ablate.report as report_module
from mnist_ablate import plots
from mnist_ablate.design import parse_study
from mnist_ablate.report import Report, main, write
from mnist_ablate.store import Results, load
from mnist_ablate.tables import markdown_table, text_table
from mnist_ablate.words import notices

HOLES = [("l2", 0), ("l2", 1), ("l2", 2), ("dropout", 1)]


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep its text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return 8 cells x 7 seeds x 2 epochs, all there."""
    return load(synthetic.make(tmp_path_factory.mktemp("results"), synthetic.factorial(7, 2)))


@pytest.fixture(scope="module")
def source(results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of their page."""
    return write(results, tmp_path_factory.mktemp("report")).html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    """Return their page, parsed."""
    return Page(source)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pictures empty: they take most of the time."""
    monkeypatch.setattr(plots, "accuracy", lambda *_, **__: Figure((1, 1)))
    monkeypatch.setattr(plots, "loss_curves", lambda *_, **__: Figure((1, 1)))


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
            assert (attributes.get(name) or "data:").startswith("data:")
    for picture in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", source):
        drawing = base64.b64decode(picture).decode()
        assert not re.search(r'(href="(?!#)|url\((?!#)|<script|<!DOCTYPE|@import)', drawing)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", source))


def test_page_is_small_and_reproducible(results: Results, tmp_path: Path, source: str) -> None:
    """The page is under 3 MB, and the same results give the same bytes."""
    assert len(source) < 3e6
    assert write(results, tmp_path).html.read_text(encoding="utf-8") == source


def test_pictures_tell_their_content(page: Page, results: Results) -> None:
    """Each picture has a text in its place with the numbers that it shows, and a version for dark screens only."""
    accuracy, loss = (image["alt"] or "" for image in page.all("img"))
    best = 100 * results.final.groupby("cell")["test_accuracy"].mean()
    assert f"highest to lowest, in percent: {best.idxmax()} {best.max():.2f}" in accuracy
    ends = results.final.groupby("cell")["train_loss_eval"].mean()
    assert f"baseline {ends['baseline']:.4f}" in loss
    media = [source["media"] or "" for source in page.all("source")]
    assert len(media) == 6
    assert all(query.startswith("screen") for query in media)


def test_page_is_accessible(page: Page) -> None:
    """Language, landmarks, one h1 with h2 below it, captions, scopes, and tables that the keyboard can scroll."""
    assert page.all("html") == [{"lang": "en"}]
    tags = [tag for tag, _ in page.elements]
    assert all(tags.count(tag) == 1 for tag in ("main", "header", "footer", "h1", "title"))
    assert next(tag for tag in tags if re.fullmatch("h[1-6]", tag)) == "h1"
    assert tags.count("table") == tags.count("caption") == 3
    assert all(cell.get("scope") for cell in page.all("th"))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    labels = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labels) <= ids
    regions = [box for box in page.all("div") if box.get("role") == "region"]
    assert [box["tabindex"] for box in regions] == ["0"] * 3


def test_numbers_come_from_the_results(page: Page, results: Results) -> None:
    """The table has the mean of each cell, computed here by hand, in percent with two decimals."""
    for mean in 100 * results.final.groupby("cell")["test_accuracy"].mean():
        assert f" {mean:.2f} " in page.text
    assert "trains 8 variants of a neural network 7 times each" in page.text
    assert "56 of 56 planned runs stored, none diverged" in page.text


def test_whole_study_has_no_notice(page: Page, results: Results) -> None:
    """Where nothing is missing and all went well, there is no warning."""
    assert notices(results) == []
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
        assert "l2 (seeds 0–2)" in text  # noqa: RUF001 # an en dash between numbers
        assert "dropout (seed 1)" in text
        assert "1 run diverged" in text
        assert "batch_norm (seed 2)" in text
    assert "l2 0 of 3 – –" in page.text  # noqa: RUF001


def test_damaged_file_is_said(tmp_path: Path) -> None:
    """A file that cannot be read is named, and its run counts as missing."""
    folder = synthetic.make(tmp_path / "results")
    victim = min((folder / "runs").glob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:100])
    found = notices(load(folder))
    assert "1 planned run not stored" in found[0]
    assert victim.name in found[1]


@pytest.mark.usefixtures("blank")
def test_few_seeds_are_warned_of(tmp_path: Path, page: Page) -> None:
    """Below six seeds the page says how little that is; from six on it does not."""
    few, summary = report_of(tmp_path)
    assert "Only 3 seeds" in few.text
    assert "Fewer than six seeds" in summary
    assert "rehearsal" not in page.text


@pytest.mark.usefixtures("blank")
def test_one_seed(tmp_path: Path) -> None:
    """A study with one seed has a page: means and differences, dashes where there is no spread."""
    page, _ = report_of(tmp_path, study=synthetic.factorial(1, 1))
    assert "One seed." in page.text
    assert "once, for 1 epoch on MNIST" in page.text
    assert re.search(r"dropout 1 97\.\d\d – [+−]\d\.\d\d – 0", page.text)  # noqa: RUF001


@pytest.mark.usefixtures("blank")
def test_one_cell(tmp_path: Path) -> None:
    """A study with one cell has a page, and compares it with nothing."""
    study = parse_study({"name": "alone", "seeds": 2, "protocol": {"epochs": 1}, "factors": {"dropout": [0.2]}})
    page, _ = report_of(tmp_path, study=study)
    assert "trains one neural network 2 times, from as many random seeds" in page.text
    assert "differ in nothing" not in page.text


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


@pytest.mark.usefixtures("blank")
def test_hostile_provenance_is_text(tmp_path: Path) -> None:
    """What a run recorded of its machine is shown as text too."""
    page, _ = report_of(tmp_path, machines=[{"processor": "<img src=x onerror=alert(1)>"}])
    assert "<img src=x onerror=alert(1)>" in page.text
    assert len(page.all("img")) == 2


@pytest.mark.usefixtures("blank")
def test_provenance_may_be_poor(tmp_path: Path) -> None:
    """Runs that recorded little, a time that is none, or other things than text have a page too."""
    page, _ = report_of(tmp_path, machines=[{"started": "some day", "extra": {"a": [1, None]}}, {"git_commit": None}])
    assert "some day" in page.text
    assert '{"a": [1, null]}' in page.text


def test_markdown_table(results: Results) -> None:
    """Every row of the Markdown table has as many columns as its head, and a row per cell."""
    lines = markdown_table(results).splitlines()
    assert len(lines) == 2 + 8
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| baseline | 7 | 97.")


def test_text_table(results: Results) -> None:
    """The table for a terminal is aligned, uses plain signs, and has a line per cell."""
    lines = text_table(results).splitlines()
    assert len(lines) == 1 + 8
    assert len({len(line) for line in lines}) == 1
    assert "Diverged" in lines[0]
    text_table(results).encode("cp1252")


@pytest.mark.usefixtures("blank")
def test_default_place(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `out` the report goes to ``reports/<study>`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    report = write(results)
    assert report == Report(Path("reports/factorial/index.html"), Path("reports/factorial/summary.md"))
    assert sorted(path.name for path in report.html.parent.iterdir()) == ["index.html", "summary.md"]


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
