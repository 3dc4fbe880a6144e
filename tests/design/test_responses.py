"""What can be measured."""

import math
from typing import get_args

import pandas as pd
import pytest

from mnist_ablate.design.responses import LOSS_CAP, PROBES, RESPONSES, Probe, probe_of, scale, shown
from mnist_ablate.store.schema import EPOCH_COLUMNS


def test_every_response_of_a_probe_can_be_asked_for() -> None:
    """Hypotheses may name every response of a probe, and each response comes from one probe."""
    given = [response for responses in PROBES.values() for response in responses]
    assert len(given) == len(set(given))
    assert set(given) < set(RESPONSES)
    assert set(PROBES) == set(get_args(Probe))


def test_every_response_can_be_reported() -> None:
    """Each has words, a unit and digits, and comes from a column of the results, a curve or a known probe."""
    assert all(response.label and response.unit and response.digits > 0 for response in RESPONSES.values())
    assert {response.source for response in RESPONSES.values()} == {"column", "curve", *PROBES}
    columns = {name for name, response in RESPONSES.items() if response.source == "column"}
    assert columns == set(EPOCH_COLUMNS) & set(RESPONSES)


def test_the_probe_of_a_response() -> None:
    """A column of the results needs no probe; others name theirs."""
    assert probe_of("test_accuracy") is None
    assert probe_of("log_epochs_to_97") is None
    assert probe_of("ece") == "calibration"


def test_accuracies_are_shown_in_percent() -> None:
    """What is stored as a fraction is multiplied by 100; losses stay in nats."""
    assert scale("test_accuracy") == scale("val_accuracy") == 100
    assert scale("train_loss") == scale("first train_loss") == 1


def test_values_are_shown_in_the_unit_of_the_pages() -> None:
    """Fractions become percent; a healthy run's loss is shown as it is, however large, and so is its gap."""
    frame = pd.DataFrame(
        {"status": "ok", "test_accuracy": [0.5], "val_loss": [9.0], "train_loss_eval": [0.25], "loss_gain_of_50": [9.0]}
    )
    assert shown(frame, "test_accuracy").tolist() == [50.0]
    assert shown(frame, "val_loss").tolist() == [9.0]
    assert shown(frame, "gap").tolist() == [8.75]
    assert shown(frame, "loss_gain_of_50").tolist() == [9.0]


def test_a_run_that_diverged_counts_as_one_that_guesses() -> None:
    """Whatever its last finite evaluation was: the loss and the accuracy of guessing, and no gap."""
    losses = {"val_loss": 0.1, "train_loss_eval": 0.05, "train_loss": math.nan}
    frame = pd.DataFrame({"status": ["ok", "diverged"], "test_accuracy": 0.97} | losses)
    assert shown(frame, "test_accuracy").tolist() == [97.0, 10.0]
    assert shown(frame, "val_loss").tolist() == [0.1, LOSS_CAP]
    assert shown(frame, "train_loss").tolist()[1] == LOSS_CAP
    assert shown(frame, "gap").tolist() == pytest.approx([0.05, math.nan], nan_ok=True)


def test_a_logarithm_is_of_what_is_shown() -> None:
    """The logarithm of a probe's number is of points; where that is not above 0 there is none."""
    frame = pd.DataFrame({"status": "ok", "accuracy_lost_20": [0.02, 0.0, -0.01, math.nan]})
    expected = [math.log(2.0), math.nan, math.nan, math.nan]
    assert shown(frame, "log_accuracy_lost_20").tolist() == pytest.approx(expected, nan_ok=True)
    assert probe_of("log_accuracy_lost_20") == "removal"
    assert "log_accuracy_lost_20" not in PROBES["removal"]
