"""What an evaluation asks of an engine."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Answers(NamedTuple):
    """A network's answers to some images, each (images,)."""

    losses: NDArray[np.float64]
    """Cross-entropy, in nats."""
    predictions: NDArray[np.uint8]
    """The most probable class; of several, the first."""
    confidences: NDArray[np.floating]
    """The probability of that class."""
