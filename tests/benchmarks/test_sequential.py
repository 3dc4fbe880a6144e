"""The simulation of studies that go on until they are settled: its stops are the package's, its table is right."""

import calibration
import calibration_page as document
import pandas as pd
import pytest
import sequential as script
from marks import between

from mnist_ablate.design.study import load_study
from mnist_ablate.inference import power
from mnist_ablate.store.results import load


@pytest.fixture(scope="module")
def rule() -> script.Rule:
    """Return the rule of the bundled study, with the spreads of the reference results."""
    study = load_study("factorial")
    return script.Rule(study, calibration.population(power.as_pilot(load(calibration.REFERENCE), study)))


def test_stops_are_those_of_the_package(rule: script.Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look, reason and verdicts are the package's, with every kind of noise."""
    monkeypatch.setattr(script, "_CHECKED", 3)
    assert script.check(rule) == 5 * 3 * 3


def test_counts_add_up(rule: script.Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large effects settle most studies early; shares, seeds and the table are within their bounds."""
    monkeypatch.setattr(script, "NOISES", {"gaussian": calibration.NOISES["gaussian"]})
    frame = pd.DataFrame(script.simulate(rule, 40))
    assert frame["truth"].tolist() == ["0", "0.5", "1", "2", "mixed", "measured"]
    measured = load(calibration.REFERENCE).final.pivot_table(index="seed", columns="cell", values="test_accuracy")
    c4 = rule.people.ids.index("C4-accuracy")
    assert rule.people.means[c4] == pytest.approx(100 * (measured["batch_norm"] - measured["baseline"]).mean())
    large = frame.set_index("truth").loc["2"]
    assert large["settled"] >= 0.6
    assert large["error_k"] == 0
    assert large["mean_seeds"] < large["fixed"]
    assert (frame["settled"] + frame["futile"] <= 1).all()
    assert frame["max_seeds"].isin(rule.study.looks).all()
    assert large["right"]["C1-gap"] >= 0.9
    half = frame.set_index("truth")["right"]["0.5"]
    assert min(half.values()) < 0.9  # no number of seeds here settles all
    assert document.right_table(frame).count("100.0\u00a0%") >= 9
    text = document.sequential_table(frame)
    assert f"| Gaussian, 2\u0394 | 0.0\u00a0% | {100 * large['coverage_estimate']:.1f}\u00a0% |" in text


def test_what_misses_is_said_first() -> None:
    """Noise with too many false verdicts, or intervals that hold too seldom, is named at the top of the page."""
    row = {"noise": "gaussian", "truth": "0", "studies": 1000, "fixed": 89, "error_k": 50, "error_estimate": 0.05,
           "error_nominal": 0.05, "coverage_k": 950, "coverage_estimate": 0.95, "coverage_nominal": 0.95,
           "settled": 1.0, "futile": 0.0, "mean_seeds": 30.0, "max_seeds": 120, "bias": -0.05}  # fmt: skip
    assert document.say_sequential(pd.DataFrame([row])) == []
    name = "heavy tails (t, 3 df), studies that go on until they are settled"
    for worse, said in (
        ({"error_k": 90, "error_estimate": 0.09}, "up to 9.0\u00a0% have a false verdict (5.0\u00a0% allowed)"),
        (
            {"coverage_k": 900, "coverage_estimate": 0.9},
            "all intervals of all looks hold in 90.0\u00a0% (95.0\u00a0% promised)",
        ),
    ):
        frame = pd.DataFrame([row, row | {"truth": "measured"}, row | worse | {"noise": "t3"}])
        assert document.say_sequential(frame) == [f"{name}: {said}."]
    text = document.sequential_table(frame)
    assert "with Gaussian noise 0.34 to 0.34 of 89 on average, 0.34 if the true effects are" in text
    assert "30 (0.34)" in text
    assert "\u22120.05" in text


def test_the_document_and_the_pages_say_what_was_counted() -> None:
    """The committed counts give docs/calibration.md to the byte, and bear out what the pages say of bias and error."""
    frame = pd.read_parquet(calibration.SEQUENTIAL)
    text = document.PAGE.read_text(encoding="utf-8")
    assert between("sequential.parquet", document.sequential_table(frame), text) == text
    assert between("sequential.parquet, right", document.right_table(frame), text) == text
    top = text.partition("## What holds")[0]
    missed = document.say_sequential(frame)
    assert missed
    assert all(f"- {line}\n" in top for line in missed)
    assert frame["bias"].abs().max() <= 0.08
    gaussian = frame[frame["noise"] == "gaussian"]
    assert (gaussian["error_low"] <= gaussian["error_nominal"]).all()
    assert (gaussian["coverage_high"] >= gaussian["coverage_nominal"]).all()
