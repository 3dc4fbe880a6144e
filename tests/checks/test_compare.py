"""Two results folders: the same to the bit, equivalent, different, or too little to tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from changed import SMALL, moved, noise
from scipy import stats
from synthetic import DATA_SHA256, MACHINE, factorial, make

from mnist_ablate.checks import compare
from mnist_ablate.checks.compare import ALPHA, MEAN, check, judge, margins_of
from mnist_ablate.design.study import parse_study
from mnist_ablate.errors import ResultsError
from mnist_ablate.inference.verdicts import Sample, equivalence_power
from mnist_ablate.store.results import Results, load, write_compact

RESPONSES = ("test_accuracy", "gap", "val_loss")


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Make results of two cells and 12 seeds."""
    return load(make(tmp_path_factory.mktemp("compare") / "a", SMALL))


def verdicts(found: compare.Comparison) -> dict[tuple[str, str], str]:
    """Give the verdicts by cell and response."""
    return {(one.cell, one.response): one.verdict for one in found.findings}


def test_a_folder_and_itself(a: Results, tmp_path: Path) -> None:
    """The same runs are the same to the bit in every response, also where one folder is compact: exit status 0."""
    for b in (a, load(write_compact(a, tmp_path / "compact"))):
        found = check(a, b)
        assert set(verdicts(found)) == {(cell, name) for cell in ("baseline", "dropout", MEAN) for name in RESPONSES}
        assert set(verdicts(found).values()) == {"bit-identical"}
        assert [one.identical for one in found.bits] == [True, True]
        assert (found.verdict, found.exit_status, found.causes) == ("bit-identical", 0, [])


def test_small_differences_are_equivalent(a: Results) -> None:
    """Where bits differ and every difference is far below its margin, all is equivalent: exit status 0."""
    b = moved(moved(a, "val_loss", noise(0.0005)), "test_accuracy", noise(0.00005))
    found = check(a, b)
    assert set(verdicts(found).values()) == {"equivalent"}
    assert found.exit_status == 0
    assert [one.since for one in found.bits] == ["epoch 2", "epoch 2"]


def test_a_large_difference_is_named(a: Results) -> None:
    """A response of one cell that moves by more than matters is different, by that much, since that epoch: exit 1."""
    b = moved(a, "val_loss", lambda cell, seed: 0.05 * (cell == "dropout") + noise(0.001)(cell, seed), epoch=1)
    b = moved(b, "val_loss", lambda cell, seed: 0.05 * (cell == "dropout") + noise(0.001)(cell, seed))
    found = check(a, b)
    assert (found.verdict, found.exit_status) == ("different", 1)
    first = found.of("different")[0]
    assert (first.cell, first.matters) == ("dropout", True)
    assert first.response in ("val_loss", "gap")
    assert first.sample.mean == pytest.approx(0.05, abs=0.002)
    assert verdicts(found)["baseline", "val_loss"] == "equivalent"
    assert found.bits[1].since == "epoch 1"


def test_noise_is_too_little_to_tell(a: Results) -> None:
    """Where differences scatter more than the margin, nothing is told, and the seeds that would tell are: exit 3."""
    found = check(a, moved(a, "test_accuracy", noise(0.004)))
    assert (found.verdict, found.exit_status) == ("too little to tell", 3)
    one = found.of("too little to tell")[0]
    assert one.needed.likely is not None
    assert one.needed.likely > 12
    assert equivalence_power(one.sample.sd, one.needed.likely, one.margin, one.alpha) >= 0.9


def test_few_seeds_tell_nothing(tmp_path: Path) -> None:
    """With fewer than 6 seeds only bits are compared: a tiny difference is too little to tell."""
    few = load(make(tmp_path / "few", SMALL.with_options(seeds=5)))
    assert set(verdicts(check(few, few)).values()) == {"bit-identical"}
    assert set(verdicts(check(few, moved(few, "val_loss", noise(1e-6)))).values()) == {"too little to tell"}


def test_one_run_of_many(a: Results) -> None:
    """A single bit in a single run is seen, and named with its seed; the other cell stays bit-identical."""
    b = moved(a, "test_loss", lambda cell, seed: 2.0**-52 if (cell, seed) == ("dropout", 7) else 0.0)
    found = check(a, b)
    assert [(one.cell, len(one.partings)) for one in found.bits] == [("baseline", 0), ("dropout", 1)]
    assert found.bits[1].example.startswith("seed 7: test_loss of epoch 2 was ")
    assert verdicts(found)["baseline", "gap"] == "bit-identical"
    assert verdicts(found)["dropout", "gap"] == "equivalent"


def test_weights_alone(a: Results) -> None:
    """Other weights with the same numbers are not the same bits, and the numbers part in no epoch."""
    documents = {run_id: of | {"weights_sha256": "1" * 64} for run_id, of in a.documents.items()}
    found = check(a, replace(a, documents=documents))
    assert found.bits[0].since == "in 12 seeds no epoch, but the weights"
    assert found.verdict == "equivalent"


def test_the_same_shift_in_every_seed_is_not_hidden(a: Results) -> None:
    """A shift that is the same in all seeds has no spread, and is never called equivalent."""
    found = check(a, moved(a, "val_loss", lambda *_: 0.125))
    assert verdicts(found)["baseline", "val_loss"] == "too little to tell"


def test_what_is_in_one_folder_only_is_named(tmp_path: Path) -> None:
    """Cells and seeds that one folder lacks are named, and the others are compared."""
    whole = make(tmp_path / "whole", factorial(seeds=7))
    part = make(tmp_path / "part", factorial(seeds=7), missing=[("l2", 3), ("l2", 4)])
    found = check(whole, part)
    assert found.notices[:1] == [f"Only {whole} has the runs L2 (seeds 3–4): not compared."]  # noqa: RUF001
    assert found.verdict == "bit-identical"
    assert {one.cell: one.seeds for one in found.bits}["l2"] == 5
    two = make(tmp_path / "two", SMALL.with_options(seeds=7))
    found = check(whole, two)
    assert [one.cell for one in found.bits] == ["baseline", "dropout"]
    assert any(
        notice.startswith(f"Only {whole} has, with these settings, the cells batch_norm, ") for notice in found.notices
    )


def test_a_cell_without_common_seeds_is_not_passed_over(tmp_path: Path, a: Results) -> None:
    """A cell that both studies have and one folder has no run of is too little to tell, not left out."""
    b = make(tmp_path / "b", SMALL, missing=[("dropout", seed) for seed in range(12)])
    found = check(a, b)
    assert verdicts(found)["dropout", "gap"] == "too little to tell"
    assert found.exit_status == 3


def test_cells_are_matched_by_settings(tmp_path: Path, a: Results) -> None:
    """Cells of the same name and other settings are not compared; those with the same settings are."""
    other = SMALL.model_dump(exclude_unset=True) | {"factors": {"dropout": [0.0, 0.5]}}
    found = check(a, make(tmp_path / "b", parse_study(other)))
    assert [one.cell for one in found.bits] == ["baseline"]
    assert {one.cell for one in found.findings} == {"baseline"}
    assert len([notice for notice in found.notices if "the cells dropout: not compared" in notice]) == 2


def test_other_protocols_are_refused(tmp_path: Path, a: Results) -> None:
    """Folders without a cell of the same settings are refused, and what differs is said."""
    b = make(tmp_path / "b", SMALL.with_options(epochs=1, seeds=1))
    with pytest.raises(ResultsError, match=r"protocol\.epochs is 2 in A, 1 in B") as error:
        check(a, b)
    assert error.value.exit_status == 2


def test_other_images_are_refused(a: Results) -> None:
    """Runs of other images are refused, with the beginnings of both digests."""
    documents = {run_id: of | {"data_sha256": "b" * 64} for run_id, of in a.documents.items()}
    with pytest.raises(ResultsError, match=f"{DATA_SHA256[:12]} in A, {'b' * 12} in B"):
        check(a, replace(a, documents=documents))


def test_another_version_of_the_protocol_is_refused(a: Results) -> None:
    """Runs whose protocol has another version number are refused."""
    documents = {
        run_id: of | {"specification": of["specification"] | {"protocol_version": 99}}
        for run_id, of in a.documents.items()
    }
    with pytest.raises(ResultsError, match="1 in A, 99 in B"):
        check(a, replace(a, documents=documents))


def test_two_engines_are_compared(tmp_path: Path) -> None:
    """Runs of two engines are paired by cell and seed, though their identities differ; the engine is a cause."""
    autograd, fused = (
        make(tmp_path / engine, SMALL.with_options(engine=engine), machines=[MACHINE | {"engine": engine}])
        for engine in ("autograd", "fused")
    )
    found = check(autograd, fused)
    assert [one.seeds for one in found.bits] == [12, 12]
    assert ("Engine", "autograd", "fused") in found.causes


def test_causes_are_told(tmp_path: Path, a: Results) -> None:
    """What the provenance differs in is listed, and nothing else."""
    b = make(tmp_path / "b", SMALL, machines=[MACHINE | {"torch": "2.9.1", "processor": "another"}])
    assert check(a, b).causes == [("torch", "2.14.1", "2.9.1"), ("Processor", MACHINE["processor"], "another")]


def test_runs_that_diverged_in_one_only_are_named(tmp_path: Path, a: Results) -> None:
    """A run that diverged in one folder and not in the other is named."""
    b = make(tmp_path / "b", SMALL, diverged=[("dropout", 2)])
    assert f"Diverged in {b} only: dropout (seed 2)." in check(a, b).notices


def test_margins(a: Results) -> None:
    """Margins are the program's, or less where a hypothesis says so; given ones replace them or add a response."""
    assert margins_of(SMALL) == dict(compare.MARGINS)
    claimed = parse_study(
        SMALL.model_dump(exclude_unset=True)
        | {"hypotheses": [{"id": "x", "statement": "s", "effect": "dropout", "kind": "increase", "smallest": 0.05}]}
    )
    assert margins_of(SMALL, claimed)["test_accuracy"] == 0.05
    found = check(a, a, {"test_accuracy": 0.2, "test_loss": 0.01})
    assert {(one.response, one.margin) for one in found.findings} == {
        ("test_accuracy", 0.2), ("gap", 0.01), ("val_loss", 0.01), ("test_loss", 0.01),
    }  # fmt: skip
    assert {one.alpha for one in found.findings} == {ALPHA / 12}


@pytest.mark.parametrize("margins", [{"accuracy": 0.1}, {"gap": 0.0}, {"gap": float("nan")}, {"gap": float("inf")}])
def test_bad_margins_are_refused(a: Results, margins: dict[str, float]) -> None:
    """An unknown response, and a margin that is no positive number, are refused by name."""
    with pytest.raises(ResultsError, match=next(iter(margins))):
        check(a, a, margins)


def test_a_response_that_one_folder_lacks_is_named(a: Results) -> None:
    """A response without values is named and not compared, and is not part of the family."""
    found = check(a, a, {"log_weight_norm": 0.05})
    assert "log of the weights' norm is not compared: " in found.notices[0]
    assert {one.response for one in found.findings} == set(RESPONSES)


def test_the_rule_is_that_of_two_one_sided_tests() -> None:
    """'equivalent' is where both one-sided t tests reject at alpha; else 'different' is where 0 is outside."""
    generator, alpha, margin = np.random.default_rng(3), 0.01, 0.1
    seen = set()
    for _ in range(300):
        z = generator.normal(generator.uniform(-0.2, 0.2), generator.uniform(0.01, 0.2), 8)
        low = stats.ttest_1samp(z, -margin, alternative="greater").pvalue
        high = stats.ttest_1samp(z, margin, alternative="less").pvalue
        real = stats.ttest_1samp(z, 0).pvalue < alpha
        wanted = "equivalent" if max(low, high) < alpha else "different" if real else "too little to tell"
        assert judge(Sample.of(z), margin, alpha) == wanted
        seen.add(wanted)
    assert seen == {"equivalent", "different", "too little to tell"}


@pytest.mark.parametrize(("truth", "false"), [(1.0, "equivalent"), (-1.0, "equivalent"), (0.0, "different")])
def test_false_verdicts_are_as_rare_as_promised(truth: float, false: str) -> None:
    """At the margin itself 'equivalent' is false, at 0 'different' is: as often as alpha says, and no more.

    The spread is small against the margin, where TOST's error is not below alpha but alpha itself. 4,000 draws:
    more than 246 false ones have a probability below 0.1 % if the rate is 5 %.
    """
    generator = np.random.default_rng(11)
    draws = generator.normal(truth * 0.1, 0.02, (4000, 8))
    k = sum(judge(Sample(8, float(m), float(s)), 0.1, 0.05) == false
            for m, s in zip(draws.mean(axis=1), draws.std(axis=1, ddof=1), strict=True))  # fmt: skip
    if truth:
        assert 160 <= k <= 246
    else:  # rarer than alpha: what is significant and inside the margin is equivalent
        assert k <= 246


def test_the_family_keeps_its_level() -> None:
    """With all true differences at the margin, a folder has a false 'equivalent' at most as often as promised.

    400 folders of 9 comparisons, each difference at its margin: at 5 % more than 34 have a probability below 0.1 %.
    """
    generator, false = np.random.default_rng(5), 0
    margins, identical = dict(compare.MARGINS), {"baseline": False, "dropout": False}
    for _ in range(400):
        values = {
            name: pd.DataFrame(generator.normal(margin, margin / 10, (8, 2)), columns=list(identical))
            for name, margin in margins.items()
        }
        false += any(one.verdict == "equivalent" for one in compare._findings(values, margins, identical))
    assert 3 <= false <= 34


def test_a_folder_without_results_is_refused(tmp_path: Path, a: Results) -> None:
    """A folder that is not there is refused, and named."""
    with pytest.raises(ResultsError, match="no results there"):
        check(a, tmp_path / "nothing")
