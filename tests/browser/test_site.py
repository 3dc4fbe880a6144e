"""The documentation site in a real browser. Screenshots go to ``reports/browser``."""

import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from views import VIEWS

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "reports" / "browser"
PAGES = ("index", "statistics", "findings", "hallazgos", "api", "command-line")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--quiet", "--doctree-dir", str(folder / "doctrees")]
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder / "html")], check=True)  # noqa: S603
    return folder / "html"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read(browser: Browser, site: Path, name: str, view: str) -> None:
    """Axe finds no violation, the page is no wider than the screen, and nothing comes from elsewhere."""
    page = browser.new_page(**VIEWS[view])  # type: ignore[arg-type] # mypy sees dictionaries of objects
    fetched: list[str] = []
    page.on("request", lambda wanted: fetched.append(wanted.url))
    page.goto((site / f"{name}.html").as_uri())
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view]["viewport"]["width"]  # type: ignore[index]
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"site-{name}-{view}.png")
    found = Axe().run(page)
    page.close()
    assert found.violations_count == 0, found.generate_report()


def test_search_finds_a_word(browser: Browser, site: Path) -> None:
    """The search lists the page on statistics for a word that it explains."""
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + "?q=interaction")
    page.wait_for_selector("#search-results li a")
    assert any(
        "statistics.html" in str(link.get_attribute("href")) for link in page.locator("#search-results li a").all()
    )
    page.close()


def test_links_to_reports_lead_somewhere(browser: Browser, site: Path) -> None:
    """Every link of the front page that stays on the site leads to a file."""
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
    files = {link.partition("#")[0] for link in links if link.startswith("file:")}
    assert any("/reports/reference/factorial/" in link for link in files)
    assert [link for link in files if not Path(link.removeprefix("file://")).exists()] == []
    page.close()
