"""Two runs of one specification: the same bits, or what differs first."""

import math
from typing import Any

import pytest

from mnist_ablate.store.bits import COMPARED, is_exact, parting, reasons

ROW = dict.fromkeys(COMPARED, 0.5) | {"status": "ok"}
DOCUMENT: dict[str, Any] = {"data_sha256": "d", "weights_sha256": "w", "first_losses": [2.3, 2.2], "provenance": {}}


def epochs(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the epochs of a run, each with a change."""
    return [ROW | {"epoch": i} | change for i, change in enumerate(changes, start=1)]


def test_equal_runs_do_not_part() -> None:
    """Equal numbers and digests are the same bits; NaN equals NaN, and times do not count."""
    one = epochs({"train_loss": math.nan, "train_seconds": 1.0}, {})
    other = epochs({"train_loss": math.nan, "train_seconds": 2.0}, {})
    assert parting(DOCUMENT, one, dict(DOCUMENT), other) is None


def test_the_last_bit_counts() -> None:
    """One unit in the last place of one number is found, with its epoch and both values."""
    found = parting(DOCUMENT, epochs({}, {}), DOCUMENT, epochs({}, {"val_loss": math.nextafter(0.5, 1)}))
    assert found is not None
    assert (found.what, found.epoch, found.step) == ("epoch", 2, None)
    assert found.sentence == f"val_loss of epoch 2 was 0.5 and is {math.nextafter(0.5, 1)!r}"


def test_a_step_comes_first_and_the_epoch_is_told_too() -> None:
    """If the losses of the first steps differ, both the step and the first epoch that differs are named."""
    found = parting(DOCUMENT, epochs({}), DOCUMENT | {"first_losses": [2.3, 2.1]}, epochs({"test_loss": 0.4}))
    assert found is not None
    assert (found.what, found.epoch, found.step) == ("step", 1, 2)


def test_without_losses_of_steps() -> None:
    """Without losses of steps, as in a compact folder, the epochs and the digests decide."""
    compact = {key: value for key, value in DOCUMENT.items() if key != "first_losses"}
    assert parting(DOCUMENT, epochs({}), compact, epochs({})) is None


def test_what_no_epoch_shows() -> None:
    """Different weights, images and numbers of epochs are found even if all numbers in common are equal."""
    for key, what in (("weights_sha256", "weights"), ("data_sha256", "data")):
        found = parting(DOCUMENT, epochs({}), DOCUMENT | {key: "x"}, epochs({}))
        assert found is not None
        assert (found.what, found.epoch) == (what, None)
    found = parting(DOCUMENT, epochs({}), DOCUMENT, epochs({}, {}))
    assert found is not None
    assert found.sentence == "there were 1 epochs and are 2"


def test_probes_that_both_have_are_compared() -> None:
    """A number of a probe that differs is found, if nothing else differs; what one run lacks is no difference."""
    of_weights: dict[str, Any] = {"weights": {"norm": 0.5, "evenness": None}}
    old = DOCUMENT | {"probes": of_weights | {"calibration": {"ece": 0.1}}}
    without: list[dict[str, Any]] = [{}, {"probes": {}}, {"probes": of_weights | {"removal": {"lost": 1.0}}}]
    for probes in without:
        assert parting(old, epochs({}), DOCUMENT | probes, epochs({})) is None
    for norm, evenness, sentence in (
        (math.nextafter(0.5, 1), None, f"norm of the probe weights was 0.5 and is {math.nextafter(0.5, 1)!r}"),
        (0.5, 0.25, "evenness of the probe weights was None and is 0.25"),
    ):
        new = old | {"probes": {"weights": {"norm": norm, "evenness": evenness}}}
        found = parting(old, epochs({}), new, epochs({}))
        assert found is not None
        assert (found.what, found.epoch, found.sentence) == ("probe", None, sentence)
        first = parting(old, epochs({}), new, epochs({"val_loss": 0.4}))
        assert first is not None
        assert first.what == "epoch"


def test_reasons_are_what_may_change_bits() -> None:
    """A different torch is a reason; a different time is not."""
    old = {"provenance": {"torch": "2.4.0", "started": "then"}}
    new = {"provenance": {"torch": "2.9.1", "started": "now"}}
    assert reasons(old, new) == ["torch: '2.4.0' then, '2.9.1' now"]


@pytest.mark.parametrize(
    ("engine", "version", "exact"), [("fused", 2, True), ("fused", 1, False), ("autograd", 2, False)]
)
def test_only_fused_runs_from_protocol_2_on_are_exact(engine: str, version: int, exact: bool) -> None:
    """The engine fused has the same bits everywhere from protocol 2 on, so that nothing is a reason for others."""
    old = {"specification": {"engine": engine, "protocol_version": version}, "provenance": {"torch": "2.4.0"}}
    assert is_exact(old) == exact
    assert (reasons(old, old | {"provenance": {"torch": "2.9.1"}}) == []) == exact
    assert not is_exact({})
