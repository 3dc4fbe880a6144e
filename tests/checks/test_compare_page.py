"""A comparison in words, in Markdown and on its page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from changed import SMALL, moved, noise
from synthetic import MACHINE, make

from mnist_ablate.checks import compare_page
from mnist_ablate.checks.compare import Comparison, compare
from mnist_ablate.errors import ResultsError
from mnist_ablate.store.results import Results, load


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return results of two cells and 12 seeds."""
    return load(make(tmp_path_factory.mktemp("report") / "a", SMALL))


def other(a: Results, size: float, mean: float = 0.0) -> Results:
    """Move the validation loss of all runs, and name another torch."""
    b = moved(a, "val_loss", noise(size, mean))
    documents = {run_id: of | {"provenance": MACHINE | {"torch": "2.9.1"}} for run_id, of in a.documents.items()}
    return replace(b, documents=documents)


def test_each_verdict_has_its_sentence(a: Results) -> None:
    """The sentence has the verdict and what one needs to act on it: size, margin, epoch, seeds."""
    sentences = [compare_page.sentence(compare(a, b)) for b in (
        a, other(a, 1e-5), other(a, 1e-3, 0.05), other(a, 0.02),
    )]  # fmt: skip
    assert sentences[0].startswith("Bit-identical: every number of every epoch and the final weights of 24 runs")
    assert sentences[1] == "Equivalent: bits differ, and 9 differences of 9 lie within the margin."
    assert "differs by +0.05" in sentences[2]
    assert "more than the 0.01 that matter. Its numbers part in epoch 2." in sentences[2]
    assert re.search(r"Too little to tell: .* About \d+ seeds would tell if there is no difference\.", sentences[3])


def test_few_seeds_have_a_remedy(tmp_path: Path) -> None:
    """With fewer than 6 seeds, the sentence says how many there are and how many are needed."""
    few = load(make(tmp_path / "few", SMALL.with_options(seeds=2)))
    sentence = compare_page.sentence(compare(few, other(few, 1e-3)))
    assert sentence.endswith("The folders have 2 seeds in common; at least 6 are needed.")


def test_a_defect_is_told_first(tmp_path: Path) -> None:
    """Where bits of the engine fused differ, the sentence says that this is no chance, and where; so does the page."""
    fused = load(make(tmp_path, SMALL.with_options(engine="fused")))
    comparison = compare(fused, moved(fused, "val_loss", lambda cell, seed: 1e-9 * ((cell, seed) == ("dropout", 5))))
    sentence = compare_page.sentence(comparison)
    assert sentence.startswith("Defect: bits differ in 1 of 24 runs, although the engine fused computes the same bits")
    assert "That is not chance" in sentence
    assert "In dropout, seed 5: val_loss of epoch 2 was" in sentence
    assert sentence.endswith("By the margins: equivalent.")
    assert all("That is not chance" in written for written in everywhere(comparison))


def test_protocols_are_told_apart(a: Results) -> None:
    """Across protocols there is no table of bits, no word of bits that differ, and one sentence that says why."""
    documents = {run_id: of | {"specification": {"protocol_version": 1}} for run_id, of in a.documents.items()}
    comparison = compare(replace(a, documents=documents), other(a, 1e-5))
    assert compare_page.sentence(comparison) == "Equivalent: 9 differences of 9 lie within the margin."
    for written in everywhere(comparison):
        assert "Bits cannot be compared across protocols: A is of protocol 1, B of protocol 2" in written
        assert "Runs with the same bits" not in written


def everywhere(comparison: Comparison) -> list[str]:
    """Return a comparison as text, Markdown and page."""
    ways = (compare_page.text, compare_page.to_markdown, compare_page.page)
    return [way(comparison) for way in ways]


def test_text_markdown_and_page_say_the_same(a: Results) -> None:
    """All three have the cells, responses, verdicts, causes, notices and the confidence level."""
    comparison = replace(compare(a, other(a, 0.02)), notices=["Only x has the runs y: not compared."])
    for written in everywhere(comparison):
        for part in ("mean of all cells", "gap between validation and training loss", "too little to tell", "2.9.1",
                     "Only x has the runs y: not compared.", "0 of 12", "99.44 % interval"):  # fmt: skip
            assert part in written.replace("&nbsp;", " "), part


def test_the_rule_is_stated(a: Results) -> None:
    """Markdown and page state the level of confidence and the error rate of the family."""
    for written in everywhere(compare(a, other(a, 0.02)))[1:]:
        assert "99.44 % t interval lies within the margin, else different if it excludes 0" in written
        assert "among all is at most 5 %" in written


def test_bits_that_differ_without_a_cause(a: Results) -> None:
    """If bits differ without a recorded cause, that is said, with what to do."""
    for written in everywhere(compare(a, moved(a, "val_loss", noise(0.001)))):
        assert "Nothing that was recorded about the runs differs." in written


def test_a_name_is_no_markup(a: Results) -> None:
    """Names of folders and values of the provenance cannot inject markup into the page."""
    b = replace(other(a, 0.02), folder=Path("<script>alert(1)</script>"))
    documents = {run_id: of | {"provenance": {"torch": "<b>2</b>"}} for run_id, of in b.documents.items()}
    page = compare_page.page(compare(a, replace(b, documents=documents)))
    assert "<script" not in page
    assert "<b>2" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_needs_nothing_else(a: Results) -> None:
    """The page includes its style, requests nothing, and has one first-level heading."""
    page = compare_page.page(compare(a, other(a, 0.02)))
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<h1>") == 1
    assert not re.search(r"""(src|href)=["'](?!data:|\#)""", page)
    assert "--paper" in page


def test_files_are_written(a: Results, tmp_path: Path) -> None:
    """Page and Markdown go to the given folder, which is created; a folder that cannot be created is an error."""
    comparison = compare(a, a, out=tmp_path / "asked")
    assert (tmp_path / "asked" / "compare.html").exists()
    written = compare_page.write(comparison, tmp_path / "new" / "folder")
    assert written.html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert written.markdown.read_text(encoding="utf-8").startswith("## Bit-identical\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="Give another folder with --out"):
        compare_page.write(comparison, tmp_path / "file" / "x")
    assert str(comparison) == repr(comparison) == compare_page.text(comparison)
    assert comparison._repr_markdown_() == compare_page.to_markdown(comparison)
