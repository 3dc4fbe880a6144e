"""The report in a real browser: ``nox -s browser``. Screenshots go to ``reports/browser``.

Needs Chromium: the system's (``chromium``, ``google-chrome``), or Playwright's (``playwright install chromium``).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from views import VIEWS

from mnist_ablate.report import write

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference" / "factorial"
SHOTS = ROOT / "reports" / "browser"


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of the reference results."""
    return write(REFERENCE, tmp_path_factory.mktemp("page")).html


@pytest.fixture(params=VIEWS)
def view(request: pytest.FixtureRequest, browser: Browser, page_file: Path) -> Iterator[tuple[str, Page, list[str]]]:
    """Open the page on a kind of screen; give its name, the page, and all that the browser complained of or fetched."""
    page = browser.new_page(**VIEWS[request.param])  # type: ignore[arg-type] # mypy sees dictionaries of objects
    noticed: list[str] = []
    page.on("console", lambda message: noticed.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noticed.append(f"error: {error}"))
    page.on("request", lambda wanted: noticed.append(wanted.url) if not wanted.url.startswith("data:") else None)
    page.goto(page_file.as_uri())
    yield request.param, page, [what for what in noticed if what != page_file.as_uri()]
    page.close()


def test_it_opens_alone_and_without_complaint(view: tuple[str, Page, list[str]]) -> None:
    """The browser prints nothing on its console and fetches nothing but the page."""
    _, page, noticed = view
    page.wait_for_load_state("networkidle")
    assert noticed == []


def test_every_picture_is_drawn(view: tuple[str, Page, list[str]]) -> None:
    """Each picture says in words what it shows, and one of its drawings, that for the screen's width, has a size."""
    name, page, _ = view
    pictures = page.evaluate("""[...document.querySelectorAll(".picture")].map(picture => [
        picture.getAttribute("aria-label"), [...picture.children].filter(d => d.getBoundingClientRect().height > 50)
            .map(d => d.getAttribute("class")).join()])""")
    assert len(pictures) >= 8
    assert all(alt for alt, _ in pictures)
    assert {drawn for _, drawn in pictures} == {"narrow" if name.startswith("phone") else "wide"}


def test_it_is_accessible(view: tuple[str, Page, list[str]]) -> None:
    """Axe finds no violation, with all details open."""
    _, page, _ = view
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_it_does_not_scroll_sideways(view: tuple[str, Page, list[str]]) -> None:
    """The page is no wider than the screen: what is wide scrolls within itself."""
    name, page, _ = view
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[name]["viewport"]["width"]  # type: ignore[index]


def test_it_works_by_keyboard(view: tuple[str, Page, list[str]]) -> None:
    """Tab reaches the link to the answers first, then details, tables and their files; Enter opens details."""
    _, page, _ = view
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
    assert {"SUMMARY.", "DIV.scroll", "A.csv"} <= set(reached)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_tables_come_as_files(view: tuple[str, Page, list[str]]) -> None:
    """The CSV link of a table downloads it under its name."""
    _, page, _ = view
    with page.expect_download() as download:
        page.locator('a.csv[download="effects-test-accuracy.csv"]').click()
    assert download.value.suggested_filename == "effects-test-accuracy.csv"
    assert Path(download.value.path()).read_text().startswith("kind,label,")


def test_screenshots(view: tuple[str, Page, list[str]]) -> None:
    """A picture of the whole page lies in reports/browser, to be looked at."""
    name, page, _ = view
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
    assert (SHOTS / f"{name}.png").stat().st_size > 100_000


def test_print(browser: Browser, page_file: Path) -> None:
    """On paper nothing is cut off at the right, what was folded is open, and there are few pages."""
    page = browser.new_page(viewport={"width": 680, "height": 900})  # the width of A4 between its margins
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert page.locator("details p").first.is_visible()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.pdf(path=SHOTS / "print.pdf", format="A4", print_background=True)
    assert b"/Type /Page" in (SHOTS / "print.pdf").read_bytes()
    page.close()
