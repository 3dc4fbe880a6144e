"""What can be measured."""

from typing import get_args

from mnist_ablate.design.responses import PROBES, Probe, ResponseName, probe_of, scale
from mnist_ablate.inference.effects import FURTHER_RESPONSES, RESPONSES, describe


def test_every_response_of_a_probe_can_be_asked_for() -> None:
    """Hypotheses may name every response of a probe, and each response comes from one probe."""
    given = [response for responses in PROBES.values() for response in responses]
    assert len(given) == len(set(given))
    assert set(given) < set(get_args(ResponseName))
    assert set(PROBES) == set(get_args(Probe))


def test_every_response_can_be_reported() -> None:
    """Each has a label and a unit, and none stands in both tables."""
    assert set(RESPONSES) | set(FURTHER_RESPONSES) == set(get_args(ResponseName))
    assert not set(RESPONSES) & set(FURTHER_RESPONSES)
    assert describe("ece").label == "expected calibration error"


def test_the_probe_of_a_response() -> None:
    """A column of the results needs no probe; others name theirs."""
    assert probe_of("test_accuracy") is None
    assert probe_of("log_epochs_to_97") is None
    assert probe_of("ece") == "calibration"


def test_accuracies_are_shown_in_percent() -> None:
    """What is stored as a fraction is multiplied by 100; losses stay in nats."""
    assert scale("test_accuracy") == scale("val_accuracy") == 100
    assert scale("train_loss") == scale("first train_loss") == 1
