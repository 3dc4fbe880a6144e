"""Compare two results folders: bit-identical, equivalent, different, or too little to tell."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changed import SMALL, moved, noise
from scipy import stats
from synthetic import DATA_SHA256, MACHINE, factorial, make

from mnist_ablate.checks.compare import ALPHA, MARGINS, MEAN, Comparison, _apart, _findings, compare, judge, margins_of
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.intervals import Sample
from mnist_ablate.inference.power import equivalence_power
from mnist_ablate.store.compact import write_compact
from mnist_ablate.store.results import Results, load

RESPONSES = ("test_accuracy", "gap", "val_loss")


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return results of two cells and 12 seeds."""
    return load(make(tmp_path_factory.mktemp("compare") / "a", SMALL))


def verdicts(comparison: Comparison) -> dict[tuple[str, str], str]:
    """Return the verdicts by cell and response."""
    return {(finding.cell, finding.response): finding.verdict for finding in comparison.findings}


def test_a_folder_and_itself(a: Results, tmp_path: Path) -> None:
    """A folder is bit-identical to itself in every response, even if one is compact: status 0."""
    for b in (a, load(write_compact(a, tmp_path / "compact"))):
        comparison = compare(a, b)
        assert set(verdicts(comparison)) == {
            (cell, name) for cell in ("baseline", "dropout", MEAN) for name in RESPONSES
        }
        assert set(verdicts(comparison).values()) == {"bit-identical"}
        assert [finding.identical for finding in comparison.bits] == [True, True]
        assert (comparison.verdict, comparison.exit_status, comparison.causes) == ("bit-identical", 0, [])


def test_small_differences_are_equivalent(a: Results) -> None:
    """If bits differ but every difference is far below its margin, all is equivalent: status 0."""
    b = moved(moved(a, "val_loss", noise(0.0005)), "test_accuracy", noise(0.00005))
    comparison = compare(a, b)
    assert set(verdicts(comparison).values()) == {"equivalent"}
    assert comparison.exit_status == 0
    assert [finding.since for finding in comparison.bits] == ["epoch 2", "epoch 2"]


def test_a_large_difference_is_named(a: Results) -> None:
    """A response of one cell that moves beyond its margin is different, with size and epoch: status 1."""
    b = moved(a, "val_loss", lambda cell, seed: 0.05 * (cell == "dropout") + noise(0.001)(cell, seed), epoch=1)
    b = moved(b, "val_loss", lambda cell, seed: 0.05 * (cell == "dropout") + noise(0.001)(cell, seed))
    comparison = compare(a, b)
    assert (comparison.verdict, comparison.exit_status) == ("different", 1)
    first = comparison.having("different")[0]
    assert (first.cell, first.matters) == ("dropout", True)
    assert first.response in ("val_loss", "gap")
    assert first.sample.mean == pytest.approx(0.05, abs=0.002)
    assert verdicts(comparison)["baseline", "val_loss"] == "equivalent"
    assert comparison.bits[1].since == "epoch 1"


def test_noise_is_too_little_to_tell(a: Results) -> None:
    """If differences scatter more than the margin, there is too little to tell, and a number of seeds: status 3."""
    comparison = compare(a, moved(a, "test_accuracy", noise(0.004)))
    assert (comparison.verdict, comparison.exit_status) == ("too little to tell", 3)
    finding = comparison.having("too little to tell")[0]
    assert finding.needed.likely is not None
    assert finding.needed.likely > 12
    assert equivalence_power(finding.sample.sd, finding.needed.likely, finding.margin, finding.alpha) >= 0.9


def test_few_seeds_tell_nothing(tmp_path: Path) -> None:
    """With fewer than 6 seeds only bits are compared: a tiny difference is too little to tell."""
    few = load(make(tmp_path / "few", SMALL.with_options(seeds=5)))
    assert set(verdicts(compare(few, few)).values()) == {"bit-identical"}
    assert set(verdicts(compare(few, moved(few, "val_loss", noise(1e-6)))).values()) == {"too little to tell"}


def test_one_run_of_many(a: Results) -> None:
    """A single bit in a single run is named with its seed; the other cell stays bit-identical."""
    b = moved(a, "test_loss", lambda cell, seed: 2.0**-52 if (cell, seed) == ("dropout", 7) else 0.0)
    comparison = compare(a, b)
    assert [(finding.cell, len(finding.partings)) for finding in comparison.bits] == [("baseline", 0), ("dropout", 1)]
    assert comparison.bits[1].example.startswith("seed 7: test_loss of epoch 2 was ")
    assert verdicts(comparison)["baseline", "gap"] == "bit-identical"
    assert verdicts(comparison)["dropout", "gap"] == "equivalent"


def test_weights_alone(a: Results) -> None:
    """Different weights with the same numbers are not bit-identical, and no epoch differs."""
    documents = {run_id: of | {"weights_sha256": "1" * 64} for run_id, of in a.documents.items()}
    comparison = compare(a, replace(a, documents=documents))
    assert comparison.bits[0].since == "in 12 seeds no epoch, only the weights"
    assert comparison.verdict == "equivalent"


def test_probes_alone(a: Results) -> None:
    """Probes that differ where nothing else does are told apart from weights, and their number is named."""
    documents = {run_id: of | {"probes": {"calibration": {"ece": 0.25}}} for run_id, of in a.documents.items()}
    with_probes = replace(a, documents=documents)
    assert compare(a, with_probes).bits[0].identical
    others = {run_id: of | {"probes": {"calibration": {"ece": 0.5}}} for run_id, of in a.documents.items()}
    comparison = compare(with_probes, replace(a, documents=others))
    assert comparison.bits[0].since == "in 12 seeds no epoch, only the probes"
    assert comparison.bits[0].example == "seed 0: ece of the probe calibration was 0.25 and is 0.5"


def test_the_same_shift_in_every_seed_is_not_hidden(a: Results) -> None:
    """A shift that is the same in all seeds has no spread, and is never called equivalent."""
    comparison = compare(a, moved(a, "val_loss", lambda *_: 0.125))
    assert verdicts(comparison)["baseline", "val_loss"] == "too little to tell"


def test_what_is_in_one_folder_only_is_named(tmp_path: Path) -> None:
    """Cells and seeds that one folder lacks are named, and the others are compared."""
    whole = make(tmp_path / "whole", factorial(seeds=7))
    part = make(tmp_path / "part", factorial(seeds=7), missing=[("l2", 3), ("l2", 4)])
    comparison = compare(whole, part)
    assert comparison.notices[:1] == [f"Only {whole} has the runs L2 (seeds 3–4): not compared."]  # noqa: RUF001
    assert comparison.verdict == "bit-identical"
    assert {finding.cell: finding.seeds for finding in comparison.bits}["l2"] == 5
    two = make(tmp_path / "two", SMALL.with_options(seeds=7))
    comparison = compare(whole, two)
    assert [finding.cell for finding in comparison.bits] == ["baseline", "dropout"]
    start = f"Only {whole} has, with these settings, the cells batch_norm, "
    assert any(notice.startswith(start) for notice in comparison.notices)


def test_a_cell_without_common_seeds_is_not_passed_over(tmp_path: Path, a: Results) -> None:
    """A cell without any run in one of the folders is too little to tell, not left out."""
    b = make(tmp_path / "b", SMALL, missing=[("dropout", seed) for seed in range(12)])
    comparison = compare(a, b)
    assert verdicts(comparison)["dropout", "gap"] == "too little to tell"
    assert comparison.exit_status == 3


def test_cells_are_matched_by_settings(tmp_path: Path, a: Results) -> None:
    """Cells of the same name and other settings are not compared; those with the same settings are."""
    other = SMALL.model_dump(exclude_unset=True) | {"factors": {"dropout": [0.0, 0.5]}}
    comparison = compare(a, make(tmp_path / "b", parse_study(other)))
    assert [finding.cell for finding in comparison.bits] == ["baseline"]
    assert {finding.cell for finding in comparison.findings} == {"baseline"}
    assert len([notice for notice in comparison.notices if "the cells dropout: not compared" in notice]) == 2


def test_other_protocols_are_refused(tmp_path: Path, a: Results) -> None:
    """Folders without a common cell are refused in a line: which studies they are, and the settings that differ."""
    b = load(make(tmp_path / "b", SMALL.with_options(epochs=1, seeds=1)))
    with pytest.raises(ResultsError) as error:
        compare(a, b)
    assert str(error.value) == (
        f"A, {a.folder} (study {a.study.name}), and B, {b.folder} (study {b.study.name}), cannot be compared: no cell "
        "has the same settings in both. epochs is 2 in A, 1 in B. Give two folders of one study."
    )
    assert error.value.exit_status == 2


def test_what_keeps_two_studies_apart() -> None:
    """Settings without a common level are named, with few levels or their number; else those that the cells combine."""

    def apart(a: dict[str, Any], b: dict[str, Any]) -> str:
        return _apart(*(parse_study({"name": "s", "seeds": 1} | study) for study in (a, b)))

    many: dict[str, Any] = {"factors": {"width": [4, 8, 16, 32], "dropout": [0.0, 0.2]}}
    own: dict[str, Any] = {"protocol": {"model": "m:f"}, "factors": {"size": [1, 2]}}
    assert apart(many, {"factors": {"width": [64, 128]}}) == "width is one of 4 levels in A, 64 or 128 in B."
    assert "size is 1 or 2 in A, none in B" in apart(own, many)
    first: dict[str, Any] = {"exclude": [{"dropout": 0.0, "l2": 0.0}, {"dropout": 0.2, "l2": 0.1}]}
    other: dict[str, Any] = {"exclude": [{"dropout": 0.0, "l2": 0.1}, {"dropout": 0.2, "l2": 0.0}]}
    factors: dict[str, Any] = {"factors": {"dropout": [0.0, 0.2], "l2": [0.0, 0.1]}}
    assert apart(factors | first, factors | other) == "They combine l2, dropout in different ways."


def test_other_images_are_refused(a: Results) -> None:
    """Runs of other images are refused, with the start of both digests."""
    documents = {run_id: of | {"data_sha256": "b" * 64} for run_id, of in a.documents.items()}
    with pytest.raises(ResultsError, match=f"{DATA_SHA256[:12]} in A, {'b' * 12} in B"):
        compare(a, replace(a, documents=documents))


@pytest.mark.parametrize(("size", "verdict", "status"), [(0.00005, "equivalent", 0), (0.02, "too little to tell", 3)])
def test_protocols_are_compared_by_statistics(a: Results, size: float, verdict: str, status: int) -> None:
    """Across protocols bits are not compared, even where they agree, and numbers are as ever; both are named."""
    documents = {
        run_id: of | {"specification": of["specification"] | {"protocol_version": 1}}
        for run_id, of in a.documents.items()
    }
    comparison = compare(replace(a, documents=documents), moved(a, "val_loss", noise(size)))
    assert (comparison.bits, comparison.verdict, comparison.exit_status) == ([], verdict, status)
    (notice,) = comparison.notices
    assert notice.startswith("Bits cannot be compared across protocols: A is of protocol 1, B of protocol 2, ")
    assert comparison.causes == [("Protocol", "1", "2")]
    same = compare(replace(a, documents=documents), a)
    assert set(verdicts(same).values()) == {"equivalent"}


def test_folders_of_protocol_1_are_compared_as_ever(tmp_path: Path) -> None:
    """Two folders of protocol 1 are compared bit by bit, and a difference of fused runs is no defect."""
    old = load(make(tmp_path, SMALL.with_options(engine="fused"), protocol_version=1))
    assert compare(old, old).verdict == "bit-identical"
    comparison = compare(old, moved(old, "val_loss", noise(1e-6)))
    assert (comparison.verdict, comparison.exit_status, comparison.defects) == ("equivalent", 0, 0)


def test_other_bits_of_the_engine_fused_are_a_defect(tmp_path: Path) -> None:
    """A difference between fused runs of one specification is a defect, however small, whatever machine: status 1."""
    fused = SMALL.with_options(engine="fused", seeds=6)
    a, b = (load(make(tmp_path / name, fused, machines=[MACHINE | {"processor": name}])) for name in ("a", "b"))
    assert compare(a, b).verdict == "bit-identical"
    b = moved(b, "test_loss", lambda cell, seed: 2.0**-52 if (cell, seed) == ("dropout", 3) else 0.0)
    comparison = compare(a, b)
    assert (comparison.verdict, comparison.exit_status, comparison.defects) == ("defect", 1, 1)
    assert comparison.by_numbers == "equivalent"
    autograd = load(make(tmp_path / "autograd", SMALL.with_options(seeds=6)))
    assert compare(a, autograd).defects == 0


def test_two_engines_are_compared(tmp_path: Path) -> None:
    """Runs of two engines are paired by cell and seed, though their identities differ; the engine is a cause."""
    autograd, fused = (
        make(tmp_path / engine, SMALL.with_options(engine=engine), machines=[MACHINE | {"engine": engine}])
        for engine in ("autograd", "fused")
    )
    comparison = compare(autograd, fused)
    assert [finding.seeds for finding in comparison.bits] == [12, 12]
    assert ("Engine", "autograd", "fused") in comparison.causes


def test_causes_are_told(tmp_path: Path, a: Results) -> None:
    """What the provenance differs in is listed, and nothing else."""
    b = make(tmp_path / "b", SMALL, machines=[MACHINE | {"torch": "2.9.1", "processor": "another"}])
    assert compare(a, b).causes == [("torch", "2.14.1", "2.9.1"), ("Processor", MACHINE["processor"], "another")]


def test_runs_that_diverged_in_one_only_are_named(tmp_path: Path, a: Results) -> None:
    """A run that diverged in one folder and not in the other is named."""
    b = make(tmp_path / "b", SMALL, diverged=[("dropout", 2)])
    assert f"Diverged in {b} only: dropout (seed 2)." in compare(a, b).notices


def test_margins(a: Results) -> None:
    """Margins are the defaults, or less if a hypothesis says so; given ones override or extend them."""
    assert margins_of(SMALL) == dict(MARGINS)
    claimed = parse_study(
        SMALL.model_dump(exclude_unset=True)
        | {"hypotheses": [{"id": "x", "statement": "s", "effect": "dropout", "kind": "increase", "smallest": 0.05}]}
    )
    assert margins_of(SMALL, claimed)["test_accuracy"] == 0.05
    comparison = compare(a, a, {"test_accuracy": 0.2, "test_loss": 0.01})
    assert {(finding.response, finding.margin) for finding in comparison.findings} == {
        ("test_accuracy", 0.2), ("gap", 0.01), ("val_loss", 0.01), ("test_loss", 0.01),
    }  # fmt: skip
    assert {finding.alpha for finding in comparison.findings} == {ALPHA / 12}


@pytest.mark.parametrize("margins", [{"accuracy": 0.1}, {"gap": 0.0}, {"gap": float("nan")}, {"gap": float("inf")}])
def test_bad_margins_are_refused(a: Results, margins: dict[str, float]) -> None:
    """An unknown response, and a margin that is not a positive number, are refused by name."""
    with pytest.raises(ResultsError, match=next(iter(margins))):
        compare(a, a, margins)


def test_a_response_that_one_folder_lacks_is_named(a: Results) -> None:
    """A response without values is named, not compared, and not counted in the family."""
    comparison = compare(a, a, {"log_weight_norm": 0.05})
    assert "log of the weights' norm is not compared: " in comparison.notices[0]
    assert {finding.response for finding in comparison.findings} == set(RESPONSES)


def test_the_rule_is_that_of_two_one_sided_tests() -> None:
    """The verdict is 'equivalent' if both one-sided t tests reject, else 'different' if the two-sided one does."""
    generator, alpha, margin = np.random.default_rng(3), 0.01, 0.1
    seen = set()
    for _ in range(300):
        z = generator.normal(generator.uniform(-0.2, 0.2), generator.uniform(0.01, 0.2), 8)
        low = stats.ttest_1samp(z, -margin, alternative="greater").pvalue
        high = stats.ttest_1samp(z, margin, alternative="less").pvalue
        real = stats.ttest_1samp(z, 0).pvalue < alpha
        wanted = "equivalent" if max(low, high) < alpha / 2 else "different" if real else "too little to tell"
        assert judge(Sample.of(z), margin, alpha) == wanted
        seen.add(wanted)
    assert seen == {"equivalent", "different", "too little to tell"}


@pytest.mark.parametrize(("truth", "false"), [(1.0, "equivalent"), (-1.0, "equivalent"), (0.0, "different")])
def test_false_verdicts_are_as_rare_as_promised(truth: float, false: str) -> None:
    """At the margin itself 'equivalent' is false, at 0 'different' is: no more often than alpha says.

    The spread is small against the margin, where 'equivalent' is false on one side of the interval alone: half as often
    as alpha. 4,000 draws: more than 246 false ones have a probability below 0.1 % if the rate is 5 %.
    """
    generator = np.random.default_rng(11)
    draws = generator.normal(truth * 0.1, 0.02, (4000, 8))
    k = sum(judge(Sample(8, float(m), float(s)), 0.1, 0.05) == false
            for m, s in zip(draws.mean(axis=1), draws.std(axis=1, ddof=1), strict=True))  # fmt: skip
    if truth:
        assert 70 <= k <= 135
    else:  # rarer than alpha: what is significant and inside the margin is equivalent
        assert k <= 246


def test_the_family_keeps_its_level() -> None:
    """With all true differences at the margin, a folder has a false 'equivalent' at most as often as promised.

    400 folders of 9 comparisons, each difference at its margin: at 5 % more than 34 have a probability below 0.1 %.
    """
    generator, false = np.random.default_rng(5), 0
    margins, identical = dict(MARGINS), {"baseline": False, "dropout": False}
    for _ in range(400):
        values = {
            name: pd.DataFrame(generator.normal(margin, margin / 10, (8, 2)), columns=list(identical))
            for name, margin in margins.items()
        }
        false += any(finding.verdict == "equivalent" for finding in _findings(values, margins, identical))
    assert 3 <= false <= 34


def test_a_folder_without_results_is_refused(tmp_path: Path, a: Results) -> None:
    """A missing folder is refused by name."""
    with pytest.raises(ResultsError, match="no results there"):
        compare(a, tmp_path / "nothing")
