"""The section of a study that goes on until it is settled: where it stands, why, how to go on, and its looks."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import synthetic

from mnist_ablate.design.plan import Run
from mnist_ablate.design.study import Study, load_study, parse_study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.report.page import page
from mnist_ablate.report.sections.looks import section
from mnist_ablate.store.results import Results


def study_of(**keys: object) -> Study:
    """Make a study of two cells that looks at 6, 12 and 18 seeds."""
    hypothesis = {"id": "H", "statement": "So it is", "effect": "dropout", "kind": "negligible", "smallest": 0.1}
    document = {"name": "grows", "seeds": {"first": 6, "step": 6, "most": 18}, "futility": 0.0,
                "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.5]}, "hypotheses": [hypothesis]}  # fmt: skip
    return parse_study(document | keys)


def planted(study: Study, seeds: int, sd: float, **options: object) -> Results:
    """Plant no effect, with Gaussian noise in points."""

    def accuracy(run: Run) -> float:
        noise = float(np.random.default_rng(run.seed).normal())
        return (97 + sd * noise * (run.cell == "dropout")) / 100

    return synthetic.results(study.reaching(seeds), test_accuracy=accuracy, **options)  # type: ignore[arg-type]


def said(analysis: Analysis) -> str:
    """Return the text of the page's section, without its picture and its tables."""
    body = page(analysis).partition("How far the study has gone</h2>")[2].partition("<figure")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", body))).strip()


def test_a_fixed_number_has_no_looks() -> None:
    """A study with a fixed number of seeds has no such section."""
    assert section(analyse(synthetic.results(synthetic.factorial(6, 1)))) is None


@pytest.mark.parametrize(
    ("seeds", "sd", "futility", "words"),
    [
        (6, 0.1, 0.0, "look 1 of 3, with 6 seeds of at most 18. Not settled yet: H. This goes on: "),
        (12, 0.01, 0.0, "look 1 of 3, with 6 seeds of at most 18. It stopped there, because all hypotheses are"),
        (18, 1.0, 0.0, "look 3 of 3, with 18 seeds of at most 18. It stopped there, because it has all its seeds."),
        (
            18, 1.0, 0.1, "look 2 of 3, with 12 seeds of at most 18. It stopped there, because each hypothesis that is "
            "not settled (H) has a chance of less than 10 % to be settled with 18 seeds.",
        ),
    ],
)  # fmt: skip
def test_it_says_where_the_study_stands(seeds: int, sd: float, futility: float, words: str) -> None:
    """The look, the seeds and the reason are named, and the command only where the study goes on."""
    analysis = analyse(planted(study_of(futility=futility), seeds, sd))
    text = said(analysis)
    assert text.startswith(f"This study adds seeds until its hypotheses are settled. It stands at {words}")
    assert ("--until-settled" in text) == (not analysis.standing.stop)


def test_it_names_the_command_that_goes_on() -> None:
    """A bundled study goes by its name, another by a file; the folder is named where it is not the usual one."""
    for study, command in (
        (study_of(), "python -m mnist_ablate run grows.toml --until-settled --out elsewhere"),
        (load_study("factorial"), "python -m mnist_ablate run factorial --until-settled"),
    ):
        folder = Path("results/factorial" if study.name == "factorial" else "elsewhere")
        analysis = analyse(replace(synthetic.results(study), folder=folder))
        made = section(analysis)
        assert made is not None
        assert made.values["command"] == command


def test_what_waits_is_counted() -> None:
    """Runs beyond the look are counted and not used; a first look without all its runs is said to lack some."""
    assert "1 run of later seeds is stored and not used" in said(
        analyse(planted(study_of(), 7, 0.1, missing=[("dropout", 6)]))
    )
    assert "Its first look, at 6 seeds, lacks some runs. Not settled yet: H." in said(
        analyse(planted(study_of(), 6, 0.1, missing=[("dropout", 1)]))
    )


def test_the_table_has_each_look() -> None:
    """A row per hypothesis and look, whose last is the judgement that the page gives."""
    analysis = analyse(planted(study_of(), 18, 0.1))
    assert analysis.standing.seeds == analysis.study.n_seeds
    made = section(analysis)
    assert made is not None
    table, (judgement,) = made.tables["looks"], analysis.judgements
    assert table is not None
    assert table.frame["seeds"].tolist() == [n for n in (6, 12, 18) if n <= analysis.study.n_seeds]
    last = table.frame.iloc[-1]
    assert (last["estimate"], last["low"], last["high"], last["verdict"]) == (
        judgement.sample.mean, judgement.low, judgement.high, judgement.verdict,
    )  # fmt: skip
