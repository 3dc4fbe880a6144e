"""Studies and the state of their runs in words."""

from pathlib import Path

import pytest
import synthetic

from mnist_ablate.design.study import parse_study
from mnist_ablate.inference.analysis import analyse
from mnist_ablate.report import words
from mnist_ablate.store.results import load

STUDY = {"name": "pair", "seeds": 3, "protocol": {"epochs": 1}, "factors": {"dropout": [0.0, 0.2]}}


def test_levels_are_written_as_people_write_them() -> None:
    """Switches are on or off, numbers are short, and data sets have their own names."""
    assert (words.level(True), words.level(False), words.level(1e-5)) == ("on", "off", "1e-05")
    study = parse_study(STUDY | {"factors": {"dataset": ["mnist", "fashion-mnist"]}})
    assert words.levels(study, "dataset") == "MNIST or Fashion-MNIST"
    assert words.levels(study, "width") == "256"


def test_runs_are_named_by_cell() -> None:
    """Cells have the names that people use, and seeds that follow each other are a range."""
    runs = [("l2+batch_norm", 0), ("l2+batch_norm", 1), ("baseline", 4)]
    assert words.by_cell(runs) == "L2 + BatchNorm (seeds 0–1); baseline (seed 4)"  # noqa: RUF001 # an en dash


def test_a_part_is_named() -> None:
    """A picture of some things says which; of all, nothing."""
    assert words.part(3, 3, "cell", "baseline", "means") == ""
    expected = "It shows 3 of 1,200 cells: baseline, and those with the highest and the lowest means."
    assert words.part(3, 1200, "cell", "baseline", "means") == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "trains 2 variants of a neural network 3 times each, each time from another random seed, for 1 epoch on "
            "MNIST, and tests them on images kept apart. The variants (cells) differ only in dropout.",
        ),
        ({"seeds": 1}, "trains 2 variants of a neural network once, for 1 epoch"),
        (
            {"factors": {"dropout": [0.2]}},
            "trains one neural network 3 times, each time from another random seed, for 1 "
            "epoch on MNIST, and tests it on images kept apart.",
        ),
        (
            {"factors": {"batch_norm": [False, True], "learning_rate": [0.001, 0.01]}},
            "differ only in BatchNorm and learning rate.",
        ),
        ({"factors": {"epochs": [1, 2]}, "protocol": {}}, "for 1 or 2 epochs on MNIST"),
        ({"factors": {"dataset": ["mnist", "fashion-mnist"]}}, "on MNIST or Fashion-MNIST"),
    ],
)
def test_lead_says_what_was_run(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    """One sentence has the cells, seeds, epochs and images; several cells get another on what they differ in."""
    analysis = analyse(load(synthetic.make(tmp_path, parse_study(STUDY | changes))))
    assert said in words.lead(analysis)
    assert ("differ only in" in words.lead(analysis)) == (len(analysis.cell_names) > 1)


def test_facts_mark_what_varies(tmp_path: Path) -> None:
    """Factors come first and are marked, under the names that people use; times are summed over the runs."""
    facts = words.facts(analyse(load(synthetic.make(tmp_path, parse_study(STUDY)))))
    assert list(facts.items())[:3] == [("Dropout", "0 or 0.2 (varied)"), ("L2", "0"), ("BatchNorm", "off")]
    assert facts["Time"] == "37.5 s of training and 3.0 s of evaluation, summed over 6 runs"


def test_state_and_notices(tmp_path: Path) -> None:
    """What is missing and what diverged is counted, and named by cell and seed."""
    study = parse_study(STUDY)
    results = load(synthetic.make(tmp_path, study, missing=[("dropout", 1)], diverged=[("baseline", 2)]))
    analysis = analyse(results)
    assert words.state(analysis) == "5 of 6 planned runs stored, 1 diverged"
    gone, diverged = words.notices(analysis)
    assert gone.startswith("1 planned run not stored (not run yet, failed or damaged): dropout (seed 1).")
    assert diverged.startswith("1 run diverged, the loss was no longer finite: baseline (seed 2).")


def test_changed_hypotheses_are_said() -> None:
    """Runs made under other hypotheses are counted; the same ones, or none recorded, are no notice."""
    study = synthetic.factorial(1, 1)
    same = {"study_sha256": "", "hypotheses_sha256": study.hypotheses_sha256, "looks": [1]}
    assert words.notices(analyse(synthetic.results(study, declared=same))) == []
    assert words.notices(analyse(synthetic.results(study, declared={}))) == []
    (notice,) = words.notices(analyse(synthetic.results(study, declared=same | {"hypotheses_sha256": "other"})))
    assert notice.startswith("The hypotheses were changed after the first run: 8 of 8 runs were made under others.")


def test_two_kinds_of_processors_are_said(tmp_path: Path) -> None:
    """Each kind is named with its runs, the commonest first; fused runs are the same on all, which is no notice."""
    machines = [synthetic.MACHINE, synthetic.MACHINE | {"processor": "Abacus"}, synthetic.MACHINE]
    fused, autograd = (
        words.notices(analyse(load(synthetic.make(tmp_path / engine, study, machines=machines))))
        for engine in ("fused", "autograd")
        for study in [parse_study(STUDY | {"engine": engine})]
    )
    assert fused == []
    (notice,) = autograd
    assert notice.index(f"{synthetic.MACHINE['processor']}, 4 runs: ") < notice.index("Abacus, 2 runs: ")


def test_runs_without_numbers_of_probes_are_said() -> None:
    """A run that lacks a number of the study's probes is named; without probes nothing is said."""
    study = parse_study(STUDY | {"probes": ["weights"]})
    results = synthetic.results(study)
    for i, document in enumerate(results.documents.values()):
        norm = None if i == 2 else 1.0
        document["probes"] = {"weights": {"log_weight_norm": norm, "log_weight_evenness": 0.0}}
    (notice,) = words.notices(analyse(results))
    assert notice.startswith("1 run without some or all numbers of the probes")
    last = list(results.documents)[2]
    who = results.final.set_index("run_id").loc[last]
    assert f"{who['cell']} (seed {who['seed']})" in notice
    assert words.notices(analyse(synthetic.results(parse_study(STUDY)))) == []
