"""The answers page, the table and the article: they say what the answers say, whatever has been run."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure
from pages import Page

from mnist_ablate import plots
from mnist_ablate.claims import page as claims_page
from mnist_ablate.claims.judge import ClaimAnswer, Finding, References, answer_all
from mnist_ablate.inference.combined import ClaimVerdict, Outcome
from mnist_ablate.plots import JudgedRow
from mnist_ablate.report.verdict_words import BADGES, estimate_text, interval_text


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> References:
    """Plant results: factorial whole, and its Fashion-MNIST with dropout that hurts."""
    folder = tmp_path_factory.mktemp("references")
    study = synthetic.factorial(8, 2)
    declared = {"study_sha256": "f" * 64, "hypotheses_sha256": study.hypotheses_sha256, "looks": [8]}
    good = {cell: 97 + 1.0 * ("dropout" in cell) + 0.6 * ("batch_norm" in cell) for cell in synthetic.MEANS}
    bad = {cell: 97 - 1.0 * ("dropout" in cell) + 0.6 * ("batch_norm" in cell) for cell in synthetic.MEANS}
    for name, means in (("factorial", good), ("factorial-fashion-mnist", bad)):
        synthetic.make(folder / name, study, means=means, declared=declared, answers=synthetic.rightly(means))
    return References.read(folder)


@pytest.fixture(scope="module")
def answers(found: References) -> list[ClaimAnswer]:
    """Answer the claims from the planted results."""
    return answer_all(found)


@pytest.fixture(scope="module")
def source(answers: list[ClaimAnswer], found: References) -> str:
    """Return the text of the page."""
    return claims_page.page(answers, found)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the pictures empty: they take most of the time."""
    monkeypatch.setattr(plots, "judged", lambda *_, **__: Figure((1, 1)))


def test_page_stands_alone(source: str) -> None:
    """Nothing is fetched and nothing runs; links go to headings here and to pages of studies that have results."""
    page = Page(source)
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("img")
    ids = {f"#{element['id']}" for _, element in page.elements if "id" in element}
    links = {str(link["href"]) for link in page.all("a")}
    assert links - ids == {"factorial/index.html", "factorial-fashion-mnist/index.html"}
    assert not re.search(r"url\((?!#)|@import|https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", source))


def test_page_says_what_the_answers_say(source: str, answers: list[ClaimAnswer]) -> None:
    """Each claim stands with its verdict, and what decides on it with the estimate and the interval of its study."""
    page = Page(source)
    sections = {a["id"] for a in page.all("article")}
    assert sections == {answer.claim.id for answer in answers}
    for answer in answers:
        assert f"{BADGES[answer.verdict]} {answer.claim.id}: {answer.claim.claim}" in page.text
        for finding in answer.findings:
            assert finding.hypothesis.statement.rstrip(".") in page.text
            if finding.judgement:
                assert f"{estimate_text(finding.judgement)} {interval_text(finding.judgement)}" in page.text


def test_what_is_not_run_is_said(source: str, answers: list[ClaimAnswer]) -> None:
    """Studies without results are named, and claims that need them have neither estimate nor picture."""
    page = Page(source)
    assert "What capacity," in page.text
    without = {answer.claim.id for answer in answers if answer.verdict == "not run"}
    assert {"C5", "C13"} <= without
    drawn = {name.removesuffix("-picture") for name in page.pictures}
    assert drawn == {a.claim.id for a in answers if any(f.judgement for f in a.findings)}
    assert "Not measured yet C5:" in page.text


def test_pictures_tell_their_content(source: str, answers: list[ClaimAnswer]) -> None:
    """The text in place of a picture has every estimate in it, and what was not run."""
    alts = Page(source).pictures
    for answer in answers:
        for finding in answer.findings if f"{answer.claim.id}-picture" in alts else ():
            shown = estimate_text(finding.judgement) if finding.judgement else "not measured yet"
            assert f"{finding.where}: {shown}" in alts[f"{answer.claim.id}-picture"]


def test_page_is_reproducible(source: str, answers: list[ClaimAnswer], found: References) -> None:
    """The same answers give the same bytes, under 700 KB."""
    assert claims_page.page(answers, found) == source
    assert len(source.encode()) < 700e3


@pytest.mark.usefixtures("blank")
def test_without_any_results(tmp_path: Path) -> None:
    """A page and a table can be made before anything is run, and claim nothing."""
    file = claims_page.write(tmp_path / "results", tmp_path / "out")
    page = Page(file.read_text(encoding="utf-8"))
    assert "13 claims: 13 not measured yet." in page.text
    nothing = References({})
    answers = answer_all(nothing)
    assert claims_page.markdown_table(answers, "pages").count("**Not measured yet**") == 13
    assert claims_page.pictures(answers) == {}


def test_it_depends_on_what_is_named(answers: list[ClaimAnswer]) -> None:
    """Where dropout helps on one data set and hurts on the other, both sides are named, and each only once."""
    (answer,) = (a for a in answers if a.claim.id == "C3")
    assert answer.verdict == "it depends"
    said = claims_page.sentence(answer)
    assert "A higher accuracy: it holds after 5 epochs; it does not hold on Fashion-MNIST, and the difference" in said
    of_accuracy = claims_page.elsewhere(answer).partition(" Elsewhere, a smaller gap")[0]
    assert "on Fashion-MNIST" not in of_accuracy
    assert "it is not measured yet alone" in of_accuracy


def test_a_difference_that_may_be_chance_is_said(answers: list[ClaimAnswer]) -> None:
    """A condition that contradicts what decides, without certainly differing, changes no verdict and is named so."""
    (c4,) = (a for a in answers if a.claim.id == "C4")
    changed = tuple(replace(f, outcome="does not hold") if f.where == "on Fashion-MNIST" else f for f in c4.findings)
    said = claims_page.elsewhere(replace(c4, findings=changed))
    assert "it does not hold on Fashion-MNIST, a difference that may be chance" in said
    contrary = [(f, f.judgement and replace(f.judgement, verdict="refuted")) for f in changed]
    changed = tuple(
        replace(f, judgement=judgement) if f.where == "on Fashion-MNIST" else f for f, judgement in contrary
    )
    said = claims_page.elsewhere(replace(c4, findings=changed))
    assert "it is the other way round on Fashion-MNIST, a difference that may be chance" in said


def test_a_former_question_is_said(answers: list[ClaimAnswer]) -> None:
    """What decided before first results were seen stands beside a claim, with the verdict by it and why it changed."""
    (c7,) = (a for a in answers if a.claim.id == "C7")
    assert c7.former not in (None, "not run")
    for former, said in ((c7.verdict, "would be the same."), ("refuted", "would be 'refuted'.")):
        words = claims_page.formerly(replace(c7, former=former))
        assert words.startswith(
            "Before first results were seen, this decided: a lower validation loss, after 5 epochs;"
        )
        assert f"{said} The gap after 50 epochs was left out" in words
    assert claims_page.formerly(answers[0]) == ""
    assert claims_page.formerly(replace(c7, former="not run")) == ""


def test_table_has_a_row_for_each_claim(answers: list[ClaimAnswer]) -> None:
    """The table in Markdown has the verdict and the estimate of each claim, and links only to pages that exist."""
    rows = claims_page.markdown_table(answers, "pages").splitlines()
    assert len(rows) == 2 + 13
    assert len({row.count("|") for row in rows}) == 1
    columns = [[column.strip() for column in row.strip("|").split("|")] for row in rows]
    for answer, row, (claim, verdict, places, estimates, intervals, *_) in zip(
        answers, rows[2:], columns[2:], strict=True
    ):
        assert claim.startswith(f"{answer.claim.id}: ")
        assert verdict == f"**{BADGES[answer.verdict]}**"
        measured = [f.judgement for f in answer.deciding if f.judgement is not None]
        assert row.count("](pages/") == len(measured)
        assert places.split("<br>") == [f"{f.what}, {f.where}" for f in answer.deciding]
        if measured:
            assert estimates.split("<br>") == [estimate_text(judgement) for judgement in measured]
            assert intervals.split("<br>") == [interval_text(judgement) for judgement in measured]


def verdict_answer(answer: ClaimAnswer, verdict: ClaimVerdict, outcome: Outcome) -> ClaimAnswer:
    """Change the verdict and all outcomes of an answer."""
    findings = tuple(Finding(**{**vars(f), "outcome": outcome}) for f in answer.findings)
    return ClaimAnswer(answer.claim, verdict, findings, verdict)


SENTENCES: list[tuple[ClaimVerdict, Outcome, str]] = [
    ("not run", "not run", "Not measured yet, in factorial: a higher accuracy and a smaller gap. So there is no"),
    ("inconclusive", "open", "Open: a higher accuracy and a smaller gap."),
    ("no verdict", "open", "Open: a higher accuracy and a smaller gap."),
    ("refuted", "does not hold", "No: nothing that decides it holds, and part of it is the other way round."),
    ("negligible", "does not hold", "No: what was measured is too small to matter."),
    ("supported, size open", "holds", "Yes, but the size of the effect is open."),
    ("supported", "holds", "Yes: everything that decides it holds."),
]


@pytest.mark.parametrize(("verdict", "outcome", "start"), SENTENCES)
def test_every_verdict_has_its_sentence(
    answers: list[ClaimAnswer], verdict: ClaimVerdict, outcome: Outcome, start: str
) -> None:
    """What is said of a claim follows from its verdict and names what the verdict rests on."""
    (c3,) = (a for a in answers if a.claim.id == "C3")
    assert claims_page.sentence(verdict_answer(c3, verdict, outcome)).startswith(start)


def test_in_part_names_both_sides(answers: list[ClaimAnswer]) -> None:
    """A claim that holds in part says of which part, and of which not."""
    (c3,) = (a for a in answers if a.claim.id == "C3")
    deciding = [f for f in c3.findings if f.role == "decides"]
    changed = tuple(
        Finding(**{**vars(f), "outcome": said}) for f, said in zip(deciding, ("holds", "does not hold"), strict=True)
    )
    found = ClaimAnswer(c3.claim, "in part", changed, "in part")
    assert claims_page.sentence(found) == "It holds for a higher accuracy, but not for a smaller gap."


def test_rows_of_pictures_point_to_the_right_where_claimed(answers: list[ClaimAnswer]) -> None:
    """An effect that is as claimed lies to the right of 0 in the picture, in units of what matters."""
    (c3,) = (a for a in answers if a.claim.id == "C3")
    for finding in (f for f in c3.findings if f.judgement is not None and f.hypothesis.kind != "negligible"):
        row = claims_page._judged_row(finding)
        assert (row.estimate > 0) == (finding.outcome == "holds") or abs(row.estimate) < 1
        assert row.low <= row.estimate <= row.high
        assert abs(row.estimate) == pytest.approx(abs(finding.judgement.sample.mean) / finding.hypothesis.smallest)  # type: ignore[union-attr]


def test_what_is_guaranteed_is_said(answers: list[ClaimAnswer], found: References, source: str) -> None:
    """The bound over all studies, the verdicts that one family would change, and the runs that studies share."""
    one = replace(answers[3], verdict="supported", strict="inconclusive")
    said = claims_page.guarantees([one], found)
    assert "C4 (supported) would be 'not settled'" in said
    assert "over 2 studies, the chance that at least one verdict is false is at most 10 %; it may be much" in said
    assert "former questions" not in said
    asked = replace(one, verdict="refuted", former="supported")
    assert "By the former questions these verdicts would be others: C4 'supported'." in claims_page.guarantees(
        [asked], found
    )
    assert "questions on C4 were changed" in claims_page.guarantees([asked], found)
    both = [asked, replace(asked, claim=answers[4].claim), replace(answers[0], former=None)]
    assert "questions on all claims but C1 were changed" in claims_page.guarantees(both, found)
    assert "every verdict would be the same" in claims_page.guarantees([replace(one, strict="supported")], found)
    assert "128 runs, 128 are in more than one study" in said  # planted weights are all alike
    assert "more than one study" not in claims_page.guarantees([one], References(found.judgements))
    text = Page(source).text
    assert claims_page.guarantees(answers, found) in text
    assert "honour system" in text
    assert "same 60,000 images, one sample" in text


@pytest.mark.parametrize("width", [plots.WIDTH, 4.1])
def test_picture_cuts_absurd_intervals(width: float) -> None:
    """An interval without end, and a hypothesis that was not run, are drawn within the axis; all values are written."""
    inf = float("inf")
    rows = [
        JudgedRow("accuracy", "after 5 epochs", True, 2.0, -inf, inf, False, "+0.20 points"),
        JudgedRow("accuracy", "with 1,000 images and much more to say", False, 0.1, -0.2, 0.3, True, "+0.01 points"),
        JudgedRow("beside it", "later", False, float("nan"), float("nan"), float("nan"), False, "not run yet"),
    ]
    figure = plots.judged(rows, width=width)
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert -20 < low < -1
    assert 2 < high < 20
    assert {row.value for row in rows} <= {text.get_text() for text in axes.texts}
    for line in axes.lines:
        drawn = np.asarray(line.get_xdata(), dtype=float)
        assert np.all((low <= drawn) & (drawn <= high))


def test_long_headings_break() -> None:
    """A heading that is longer than a phone is wide has several lines, rather than squeezing the picture."""
    heading = "Supported: a claim that is said in so many words that it takes more room than there is"
    figure = plots.judged([JudgedRow(heading, "here", True, 2.0, 1.5, 2.5, False, "+0.20 points")], width=4.1)
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text() not in ("", "+0.20 points")]
    assert max(map(len, texts)) < 45
    assert " ".join(texts) == heading
