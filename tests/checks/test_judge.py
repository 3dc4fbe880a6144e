"""`judge` as a person calls it: the same numbers as our own page, any shape of table, the command and its files."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from pandas.testing import assert_frame_equal

import mnist_ablate
from mnist_ablate import cli
from mnist_ablate.design.study import Study
from mnist_ablate.inference.analysis import Analysis, analyse
from mnist_ablate.store.results import Results, load
from mnist_ablate.tables import design, runs, sources

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def on_seeds(results: Results) -> Results:
    """Return results whose hypotheses speak of seeds alone: a table has no answers to images."""
    hypotheses = tuple(h.model_copy(update={"population": "seeds"}) for h in results.study.hypotheses)
    return Results(results.folder, results.study.model_copy(update={"hypotheses": hypotheses}), results.epochs,
                   results.documents)  # fmt: skip


def exported(results: Results, folder: Path) -> Path:
    """Write the runs as anybody's CSV: levels, seed and numbers, in no order, and nothing that is ours."""
    final = results.final.assign(gap=results.final["val_loss"] - results.final["train_loss_eval"])
    columns = [*(factor.name for factor in results.study.varied), "seed", "test_accuracy", "val_loss", "gap"]
    final[columns].sample(frac=1, random_state=0).to_csv(folder / "runs.csv", index=False)
    return folder / "runs.csv"


def as_table(study: Study) -> dict[str, Any]:
    """Return what the study file of a table says of the same design."""
    document = study.model_dump(
        exclude_unset=True, include={"name", "seeds", "first_seed", "settle", "futility", "alpha"}
    )
    hypotheses = [h.model_dump(exclude_unset=True) | {"response": h.response} for h in study.hypotheses]
    accuracy = {"label": "test accuracy", "unit": "points", "scale": 100.0, "better": "higher", "digits": 2}
    loss = {"unit": "nats", "digits": 4}
    return document | {
        "table": {"seed": "seed"}, "factors": {factor.name: factor.levels for factor in study.varied},
        "metrics": {"test_accuracy": accuracy, "val_loss": loss | {"better": "lower"}, "gap": loss},
        "hypotheses": [{k: v for k, v in h.items() if v is not None and v != ""} for h in hypotheses],
    }  # fmt: skip


def assert_same(ours: Analysis, theirs: Analysis) -> None:
    """Compare effects, cells, seeds needed and verdicts, to the last digit."""
    for response in ("test_accuracy", "gap", "val_loss"):
        assert_frame_equal(ours.effects(response), theirs.effects(response), check_exact=True)
        assert_frame_equal(ours.cells(response), theirs.cells(response), check_exact=True)
    assert_frame_equal(ours.detectable, theirs.detectable, check_exact=True)
    assert len(ours.judgements) == len(theirs.judgements) > 0
    for one, other in zip(ours.judgements, theirs.judgements, strict=True):
        names = ("verdict", "low", "high", "p", "p_holm", "p_sign_flip", "n_planned", "seeds_needed", "alpha")
        assert [repr(getattr(one, name)) for name in names] == [repr(getattr(other, name)) for name in names]
        assert (one.sample.n, one.sample.mean, one.sample.sd) == (other.sample.n, other.sample.mean, other.sample.sd)


def test_the_stored_factorial_judged_as_a_table(tmp_path: Path) -> None:
    """Exported to CSV with all that is ours removed, it has the statistics of our own page."""
    results = on_seeds(load(REFERENCE / "factorial"))
    table = runs.make(sources.read(exported(results, tmp_path)), design.parse(as_table(results.study), "s", "s"))
    assert_same(analyse(results), analyse(table))


def test_a_study_that_grows_judged_as_a_table(tmp_path: Path) -> None:
    """Looks, their intervals and the stop are the same for a table whose seeds are numbered as the study's."""
    study = mnist_ablate.load_study("factorial").model_copy(update={"first_seed": 0})
    results = on_seeds(load(synthetic.make(tmp_path / "runs", study.reaching(20))))
    table = runs.make(sources.read(exported(results, tmp_path)), design.parse(as_table(results.study), "s", "s"))
    ours, theirs = analyse(results), analyse(table)
    assert_same(ours, theirs)
    assert ours.standing == theirs.standing
    assert_frame_equal(ours.by_look, theirs.by_look, check_exact=True)
    judged = mnist_ablate.judge(tmp_path / "runs.csv", as_table(results.study), out=tmp_path / "out")
    assert "How far the study has gone" in judged.report.html.read_text(encoding="utf-8")


def shapes() -> dict[str, pd.DataFrame]:
    """Return tables of many shapes."""
    rng, seeds = np.random.default_rng(0), range(8)
    rows = [(arm, seed, rng.normal(), rng.normal()) for arm in "ab" for seed in seeds]
    one = pd.DataFrame(rows, columns=["arm", "seed", "acc", "loss"])
    combinations = itertools.product((True, False), (1, 2, 4), "xyz", seeds)
    cube = pd.DataFrame(combinations, columns=["flag", "width", "arm", "seed"])
    cube["score"] = rng.normal(size=len(cube))
    return {
        "two arms": one,
        "without seeds": one.drop(columns="seed"),
        "one cell": one[one["arm"] == "a"].drop(columns="arm"),
        "one run": one[:1],
        "two runs": one[::8],
        "other seeds": one.assign(seed=[f"{a}{s}" for a, s in zip(one["arm"], one["seed"], strict=True)]),
        "yes or no": one.assign(acc=(one["acc"] > 0).astype(int)),
        "all failed": one.assign(acc=np.nan),
        "one arm failed": one.assign(acc=one["acc"].where(one["arm"] == "a")),
        "all equal": one.assign(acc=1.0, loss=2.0),
        "cube": cube,
        "holes": cube[rng.random(len(cube)) < 0.8],
        "large numbers": one.assign(acc=1e9 * one["acc"]),
        "small numbers": one.assign(acc=1e-9 * one["acc"]),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(shapes()))
def test_any_shape_has_a_page(name: str, tmp_path: Path) -> None:
    """Guessed columns, then the same with a hypothesis: there is a page with the cells, and nothing fails."""
    table = shapes()[name]
    if name == "all failed":
        table = table.assign(acc=0.0).astype(object).assign(acc="nan")
    judged = mnist_ablate.judge(table, out=tmp_path / "guessed")
    assert judged.proposal is not None
    assert "Every run" in judged.report.html.read_text(encoding="utf-8")
    document = judged.proposal.document
    factors = [factor for factor, levels in document["factors"].items() if len(levels) == 2]
    hypothesis = {
        "id": "H",
        "statement": "It matters",
        "effect": (factors or ["mean"])[0],
        "kind": "increase",
        "smallest": 0.1,
    }
    again = mnist_ablate.judge(table, document | {"hypotheses": [hypothesis]}, out=tmp_path / "judged")
    assert "It matters" in again.report.summary.read_text(encoding="utf-8")
    assert "H: " in str(again)


def test_the_command_proposes_and_judges(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--init` writes what it prints, a second call judges by it, and the page says which table it was."""
    shapes()["two arms"].to_csv("runs.csv", index=False)
    assert cli.main(["judge", "runs.csv", "--init"]) == 0
    out, _ = capsys.readouterr()
    assert "factor arm: a, b" in out
    assert "metric acc: higher is better" in out
    with Path("runs.toml").open("a") as study:
        study.write('[[hypotheses]]\nid = "H1"\nstatement = "b"\neffect = "arm"\nkind = "increase"\nsmallest = 0.1\n')
    assert cli.main(["judge", "runs.csv", "--study", "runs.toml", "--out", "page"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("H1: ")
    first = (in_folder / "page" / "index.html").read_bytes()
    assert b"Provisional: " in first
    assert cli.main(["judge", "runs.csv", "--study", "runs.toml", "--out", "page"]) == 0
    assert (in_folder / "page" / "index.html").read_bytes() == first
    shapes()["two arms"].assign(acc=1.5).to_csv("runs.csv", index=False)
    assert cli.main(["judge", "runs.csv", "--study", "runs.toml", "--out", "page"]) == 0
    assert "not the one that the study file was written for" in (in_folder / "page" / "summary.md").read_text()
