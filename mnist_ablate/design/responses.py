"""What can be measured of a run: columns of the results, what follows from its curve, and what probes look at."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Probe = Literal["preactivations", "gradients", "weights", "removal", "sampling", "calibration"]
ResponseName = Literal[
    "test_accuracy", "val_accuracy", "test_loss", "val_loss", "train_loss", "train_loss_eval", "gap",
    "log_epochs_to_97",
    "log_shift_linear", "log_spread_linear", "log_shift_activation", "log_spread_activation",
    "log_gradient_norm", "log_weight_norm", "log_weight_evenness",
    "accuracy_lost_10", "accuracy_lost_20", "accuracy_lost_50",
    "accuracy_gain_of_50", "loss_gain_of_50", "ece_gain_of_50", "ece",
]  # fmt: skip

PROBES: Mapping[Probe, tuple[str, ...]] = MappingProxyType({
    "preactivations": ("log_shift_linear", "log_spread_linear", "log_shift_activation", "log_spread_activation"),
    "gradients": ("log_gradient_norm",),
    "weights": ("log_weight_norm", "log_weight_evenness"),
    "removal": ("accuracy_lost_10", "accuracy_lost_20", "accuracy_lost_50"),
    "sampling": ("accuracy_gain_of_50", "loss_gain_of_50", "ece_gain_of_50"),
    "calibration": ("ece",),
})  # fmt: skip
"""The responses that each probe gives: see `mnist_ablate.training.probes`."""


def probe_of(response: str) -> Probe | None:
    """Name the probe that gives `response`; None where no probe is needed."""
    return next((probe for probe, given in PROBES.items() if response in given), None)


def scale(response: str) -> float:
    """Return what a stored response is multiplied by: accuracies are stored as fractions and shown in percent."""
    return 100.0 if response.endswith("accuracy") else 1.0
