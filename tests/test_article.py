"""Tests of the article: docs/findings.md and docs/hallazgos.md, whose text is in docs/article/."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from outside import import_file

from mnist_ablate.claims.judge import claims

ROOT = Path(__file__).parent.parent
LANGUAGES = ["en", "es"]


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    """Import docs/readme.py, which knows the reference results."""
    return import_file(ROOT / "docs" / "readme.py")


def article(readme: ModuleType, language: str) -> Any:
    """Return the article in a language."""
    return readme.article.Article.of(readme.REFERENCES, readme.answers(), readme.found(), language)


def template(language: str) -> str:
    """Read what a person wrote."""
    return (ROOT / "docs" / "article" / f"{language}.md").read_text(encoding="utf-8")


def asked(language: str) -> Iterator[str]:
    """Yield what the text asks of the results, without the words that stand for a picture."""
    for call in re.findall(r"\{\{ (.*?) \}\}", template(language)):
        yield re.sub(r'^(picture\("C\d+"), .*', r"\1", call)


def test_it_is_that_of_the_results(readme: ModuleType) -> None:
    """The committed articles are, to the byte, what the texts and the reference results give."""
    for name, text in readme.articles().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_short_and_about_every_claim(readme: ModuleType, language: str) -> None:
    """It has at most 2,500 words, each claim under a heading of its own, and a picture of each that is there."""
    text = article(readme, language).text()
    words = re.sub(r"!\[[^]]*\]\([^)]*\)|<!--.*?-->", "", text)
    assert len(words.split()) <= 2500
    assert re.findall(r"^## (C\d+)\. ", text, re.MULTILINE) == [claim.id for claim in claims()]
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(pictures) == len(claims())
    assert all((ROOT / "docs" / picture).exists() for picture in pictures)


def test_both_languages_say_the_same() -> None:
    """They ask the results for the same verdicts, numbers and pictures, in the same order within each section."""
    of = {language: [list(re.findall(r"^## .*", template(language), re.MULTILINE)), list(asked(language))]
          for language in LANGUAGES}  # fmt: skip
    assert len(of["en"][0]) == len(of["es"][0])
    assert sorted(of["en"][1]) == sorted(of["es"][1])


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_measured_number_is_written_by_hand(language: str) -> None:
    """Numbers in the text are those of the design and of years; what was measured is filled in."""
    text = re.sub(r"\{\{.*?\}\}|^- .*, (ICML|NeurIPS|ICLR|ICCV|MLSys|JMLR)\.$|^#.*$", "", template(language),
                  flags=re.MULTILINE)  # fmt: skip
    numbers = {number.rstrip(".,") for number in re.findall(r"(?<![\w.])\d[\d.,]*(?: 000| 322)?", text)}
    years = {"1992", "2013", "2014", "2015", "2017", "2018", "2019", "2021"}
    design = {"256", "0.001", "0.01", "0.2", "269,322", "48,000", "50", "0.00001", "40", "10", "20", "100", "95",
              "97", "1.4", "1,000", "1000"}  # fmt: skip
    spanish = {"0,001", "0,01", "0,2", "0,00001", "269 322", "48 000", "1,4"}
    assert numbers <= years | design | spanish


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_verdict_stops_it(readme: ModuleType, language: str) -> None:
    """Where a claim or a hypothesis has another verdict than the text was written for, it is not made, and says so."""
    whole = article(readme, language)
    for kind, place in (("claims", "C4"), ("hypotheses", "factorial/C3-accuracy")):
        other = {**whole.assumed, kind: {**whole.assumed[kind], place: "refuted"}}
        with pytest.raises(readme.article.ArticleError, match=f"written for {place} being 'refuted'.*assumed.toml"):
            replace(whole, assumed=other).text()


def test_a_missing_result_stops_it(readme: ModuleType) -> None:
    """A text cannot ask for a hypothesis that has no results."""
    whole = article(readme, "en")
    without = {name: of for name, of in whole.found.judgements.items() if name != "norms"}
    with pytest.raises(readme.article.ArticleError, match="no results for norms/"):
        replace(whole, found=replace(whole.found, judgements=without)).text()


def test_nothing_is_assumed_that_is_not_said() -> None:
    """assumed.toml has the claims and the hypotheses that the text asks for, and no other."""
    assumed = tomllib.loads((ROOT / "docs" / "article" / "assumed.toml").read_text(encoding="utf-8"))
    said = {place for call in asked("en") for place in re.findall(r'"([a-z0-9-]+/[A-Za-z0-9.-]+)"', call)}
    assert set(assumed["hypotheses"]) == said
    assert set(assumed["claims"]) == {claim.id for claim in claims()}
