"""The numbers of the course notebook: beside the cells that it trained, and beside no others."""

import pytest

from mnist_ablate.design.study import Study, parse_study
from mnist_ablate.notebook.printed import printed_beside, printed_losses


def accuracies(of: Study) -> dict[str, float]:
    """Return the accuracies that the notebook printed for cells of a study."""
    return {name: printed.test_accuracy for name, printed in printed_beside(of)}


FACTORS = {"l2": [0.0, 1e-5], "dropout": [0.0, 0.2], "batch_norm": [False, True]}


def study(factors: object = FACTORS, **protocol: object) -> Study:
    """Return a study of the factors with this protocol."""
    return parse_study({"name": "s", "seeds": 1, "protocol": protocol, "factors": factors})


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_the_right_cells_whatever_the_epochs(epochs: int) -> None:
    """The notebook's four networks have their numbers, the combinations that it did not train have none."""
    assert accuracies(study(epochs=epochs)) == {"baseline": 97.69, "l2": 97.73, "dropout": 96.96, "batch_norm": 97.19}
    losses = printed_losses(study(epochs=epochs)).set_index(["cell", "epoch"])
    assert len(losses) == 20
    assert losses.query("cell == 'dropout' and epoch == 1").to_numpy().tolist() == [[0.3268, 0.1935]]
    assert losses.query("cell == 'batch_norm' and epoch == 5").to_numpy().tolist() == [[0.0397, 0.0852]]


@pytest.mark.parametrize(
    "protocol",
    [
        {"dataset": "fashion-mnist"},
        {"width": 128},
        {"depth": 3},
        {"batch_size": 128},
        {"learning_rate": 0.01},
        {"validation_fraction": 0.1},
    ],
)
def test_no_numbers_of_another_protocol(protocol: dict[str, object]) -> None:
    """Where anything but the number of epochs differs, nothing is shown beside it."""
    assert printed_losses(study(**protocol)).empty
    assert not accuracies(study(**protocol))


def test_another_rate_is_another_cell() -> None:
    """A cell of the same name with another level has no numbers; one at the notebook's level has, under its name."""
    rates = accuracies(study({"dropout": [0.5, 0.0, 0.2]}))
    assert rates == {"dropout=0": 97.69, "dropout=0.2": 96.96}
