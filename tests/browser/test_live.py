"""The page with sliders in a real browser: ``nox -s browser``. Screenshots go to ``reports/browser``."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from views import VIEWS

from mnist_ablate.inference.analysis import analyse
from mnist_ablate.inference.combined import claim_verdict
from mnist_ablate.inference.verdicts import by_interval
from mnist_ablate.report import write
from mnist_ablate.report.live import ALPHAS, FACTORS
from mnist_ablate.report.verdict_words import BADGES, claims
from mnist_ablate.store.results import load

ROOT = Path(__file__).parents[2]
REFERENCES = ROOT / "results" / "reference"
SHOTS = ROOT / "reports" / "browser"
BADGE_TEXTS = "[...document.querySelectorAll('[data-kind]')].map(badge => badge.textContent)"
OF_HYPOTHESES = """data.hypotheses.map((_, i) => {
    const row = document.getElementById(`row-${i}`);
    return (row.querySelector(".part") || row.closest("article").querySelector(".badge")).textContent;
})"""


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the page of a study that went on until it was settled, and of one with a number of seeds."""
    folder = tmp_path_factory.mktemp("live")
    pages = {name: write(REFERENCES / name, folder / name, live=True).live for name in ("l2-strength", "spread")}
    return {name: page for name, page in pages.items() if page}


@pytest.fixture(params=["l2-strength", "spread"])
def opened(request: pytest.FixtureRequest, browser: Browser, files: dict[str, Path]) -> Iterator[tuple[str, Page]]:
    """Open a page; it must not complain nor fetch anything."""
    page = browser.new_page()
    noticed: list[str] = []
    page.on("console", lambda message: noticed.append(message.text))
    page.on("pageerror", lambda error: noticed.append(str(error)))
    page.on("request", lambda wanted: noticed.append(wanted.url))
    page.goto(files[request.param].as_uri())
    yield request.param, page
    page.close()
    assert noticed == [files[request.param].as_uri()]


def slide(page: Page, name: str, to: int) -> None:
    """Move a slider, as a hand would."""
    page.evaluate(
        "([name, to]) => { const slider = document.getElementById(name); slider.value = to;"
        "slider.dispatchEvent(new Event('input')); }",
        [name, to],
    )


def expected(name: str) -> list[str]:
    """Return the words of all badges as the report has them, in the order of the page."""
    badges = []
    for claim in claims(analyse(load(REFERENCES / name)).judgements):
        badges += [claim.badge, *([answer.badge for answer in claim.answers] if len(claim.answers) > 1 else [])]
    return badges


def test_as_declared_it_is_the_report(opened: tuple[str, Page]) -> None:
    """Before a slider is moved, and again after 'As declared', verdicts and numbers are those of the static page."""
    name, page = opened
    before = page.evaluate(BADGE_TEXTS), page.inner_text("main")
    assert before[0] == expected(name)
    for slider in ("smallest", "alpha", "seeds"):
        slide(page, slider, 0)
    assert page.inner_text("main") != before[1]
    page.click("#again")
    assert (page.evaluate(BADGE_TEXTS), page.inner_text("main")) == before


def test_the_sliders_decide_as_python_does(opened: tuple[str, Page]) -> None:
    """At every alpha, with any smallest effect, the badges are what the rules give for the same runs."""
    name, page = opened
    judgements = analyse(load(REFERENCES / name)).judgements
    alphas = sorted({*ALPHAS, 0.05}, reverse=True)
    for (i, alpha), (j, factor) in itertools.product(enumerate(alphas), enumerate(FACTORS)):
        slide(page, "alpha", i)
        slide(page, "smallest", j)
        again = [judgement.sample.interval(judgement.alpha * alpha / 0.05) for judgement in judgements]
        assert page.evaluate(OF_HYPOTHESES) == [
            BADGES[by_interval(ends, judgement.hypothesis.kind, judgement.hypothesis.smallest * factor)]
            for ends, judgement in zip(again, judgements, strict=True)
        ]


def test_fewer_seeds_are_the_first_ones(opened: tuple[str, Page]) -> None:
    """The first number of seeds has the verdicts of a study that ended there."""
    name, page = opened
    if name == "l2-strength":
        assert page.get_attribute("#seeds", "disabled") is not None  # it was settled at its first look
        return
    slide(page, "seeds", 0)
    assert page.inner_text("#seeds-value") == "6 seeds"
    runs = load(REFERENCES / name)
    (judgement,) = analyse(runs).judgements
    assert judgement.sample.n == 340
    assert page.inner_text(".interval") != page.evaluate("data.at.at(-1)[2][0][4]")


def test_the_rule_is_that_of_the_package(opened: tuple[str, Page]) -> None:
    """For any interval, kind and smallest effect the script gives the verdict of `by_interval`."""
    _, page = opened
    rng = random.Random(0)  # noqa: S311 # no secret
    for _ in range(300):
        ends = (rng.uniform(-3, 3), rng.uniform(-3, 3))
        kind, smallest = rng.choice(["increase", "decrease", "negligible"]), rng.choice([0.5, 1.0, 2.0])
        said = page.evaluate("([kind, smallest, ends]) => verdictOf({kind}, smallest, [0, ...ends, '', '', ''])",
                             [kind, smallest, ends])  # fmt: skip
        assert said == by_interval(ends, kind, smallest)


def test_claims_of_several_parts_have_the_verdict_of_the_package(opened: tuple[str, Page]) -> None:
    """For all combinations of verdicts on up to three parts the script gives the verdict of `claim_verdict`."""
    _, page = opened
    kinds = ["supported", "supported, size open", "negligible", "refuted", "inconclusive", "no verdict", "inconsistent"]
    for parts in itertools.chain(itertools.product(kinds, repeat=1), itertools.product(kinds, repeat=2),
                                 itertools.product(kinds, repeat=3)):  # fmt: skip
        stand_ins = [SimpleNamespace(verdict=verdict, measured=True) for verdict in parts]
        assert page.evaluate("parts => claimVerdict(parts)", list(parts)) == claim_verdict(stand_ins)  # type: ignore[arg-type]


def test_without_javascript_it_shows_the_report(browser: Browser, files: dict[str, Path]) -> None:
    """Where scripts are off the page says so, shows the verdicts as declared, and has no sliders and empty drawings."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["l2-strength"].as_uri())
    assert "need JavaScript" in page.inner_text("noscript")
    assert not page.is_visible("#sliders")
    assert not any(picture.is_visible() for picture in page.query_selector_all("svg"))
    assert page.locator("[data-kind]").all_inner_texts() == expected("l2-strength")
    context.close()


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_accessible_on_every_screen(view: str, browser: Browser, files: dict[str, Path]) -> None:
    """Axe finds no violation, nothing is wider than the screen, and a picture of it is kept to look at."""
    page = browser.new_page(**VIEWS[view])  # type: ignore[arg-type] # mypy sees dictionaries of objects
    page.goto(files["spread"].as_uri())
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"live-{view}.png", full_page=True)
    page.close()


def test_it_is_small(files: dict[str, Path]) -> None:
    """The page is one file under 3 MB."""
    assert all(file.stat().st_size < 3e6 for file in files.values())
