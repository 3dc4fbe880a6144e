"""Other pages, and pages in Spanish, in a real browser: ``nox -s browser``. Screenshots go to ``reports/browser``."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from axe_playwright_python.sync_playwright import Axe
from changed import moved, noise
from playwright.sync_api import Browser, Page
from views import VIEWS

from mnist_ablate.checks import compare_page
from mnist_ablate.checks.compare import compare
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import References, answer_all
from mnist_ablate.report import write
from mnist_ablate.store.results import load

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT / "results" / "reference"
SHOTS = ROOT / "reports" / "browser"
NAMES = ("study-es", "live-es", "answers-en", "answers-es", "compare-en", "compare-es")
A4 = 680
"""Pixels between the margins of a sheet."""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a study's page in Spanish, and in both languages the answers and a comparison with all its tables."""
    folder = tmp_path_factory.mktemp("languages")
    study = write(REFERENCES / "factorial", folder, lang="es", live=True)
    found = References.read(REFERENCES)
    answers = answer_all(found)
    a = load(synthetic.make(folder / "a", synthetic.factorial(7).with_options(engine="autograd")))
    comparison = compare(a, moved(a, "val_loss", noise(0.02)))
    assert study.live is not None
    written = {"study-es": study.html, "live-es": study.live}
    for language in ("en", "es"):
        page = folder / f"answers-{language}.html"
        page.write_text(claims_page.page(answers, found, lang=language), encoding="utf-8")
        compared = compare_page.write(comparison, folder / language, lang=language)
        written |= {f"answers-{language}": page, f"compare-{language}": compared.html}
    return written


@pytest.fixture(params=[(name, view) for name in NAMES for view in VIEWS], ids="-".join)
def opened(request: pytest.FixtureRequest, browser: Browser, files: dict[str, Path]) -> Iterator[tuple[str, str, Page]]:
    """Open a page on a kind of screen; it must not complain nor fetch anything."""
    name, view = request.param
    page = browser.new_page(**VIEWS[view])  # type: ignore[arg-type] # mypy sees dictionaries of objects
    noticed: list[str] = []
    page.on("console", lambda message: noticed.append(message.text))
    page.on("pageerror", lambda error: noticed.append(str(error)))
    page.on("request", lambda wanted: noticed.append(wanted.url) if not wanted.url.startswith("data:") else None)
    page.goto(files[name].as_uri())
    yield name, view, page
    page.close()
    assert noticed == [files[name].as_uri()]


def test_a_page_can_be_read(opened: tuple[str, str, Page]) -> None:
    """The language is declared, axe finds no violation, nothing is wider than the screen; a picture of it is kept."""
    name, view, page = opened
    assert page.get_attribute("html", "lang") == name.rpartition("-")[2]
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view]["viewport"]["width"]  # type: ignore[index]
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}-{view}.png", full_page=True)


@pytest.mark.parametrize("name", NAMES)
def test_print(name: str, browser: Browser, files: dict[str, Path]) -> None:
    """On paper nothing is cut off at the right; what was printed is kept, to be looked at."""
    page = browser.new_page(viewport={"width": A4, "height": 900})
    page.goto(files[name].as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= A4
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.pdf(path=SHOTS / f"{name}.pdf", format="A4", print_background=True)
    page.close()
