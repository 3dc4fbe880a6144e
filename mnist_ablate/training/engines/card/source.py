"""The source of the card's kernels, in one piece, with the numbers that the processor's kernels have, too."""

from pathlib import Path

from mnist_ablate.data import CLASSES, PIXELS
from mnist_ablate.training.engines.card.layout import PARTS, declarations
from mnist_ablate.training.engines.kernels import constants

FOLDER = Path(__file__).parent / "kernels"
THREADS_FILE = "threads.cuh"
"""How a card runs threads; tests have another, for the processor."""
FILES = ("arithmetic", "words", "optimisers", "products", "units", "losses", "steps")
OPTIONS = ("--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "--std=c++17")
"""What makes the compiler keep to IEEE 754; the first three of its defaults would not."""

_NUMBERS = (
    "TINY", "LOG2_E", "LN2_HIGH", "LN2_LOW", "ROUND", "EXP_SMALLEST", "EXP_LARGEST", "EPS", "MOMENTUM",
    "NO_NORM", "BATCH_NORM", "GROUP_NORM", "ADAM", "SGD",
)  # fmt: skip


def source(threads: str | None = None) -> str:
    """Return the kernels, for the card's threads or for those that a piece of C++ defines."""
    numbers: dict[str, float | str] = {name: getattr(constants, name) for name in _NUMBERS}
    numbers |= {"TINY": f"{constants.TINY!r}f", "PIXELS": PIXELS, "CLASSES": CLASSES, "PARTS": PARTS}
    numbers |= {"INFINITE": "from_bits(0x7FF0000000000000)", "NOT_A_NUMBER": "from_bits(0x7FF8000000000000)"}
    defined = "".join(f"#define {name} {value}\n" for name, value in numbers.items())
    files = "".join((FOLDER / f"{name}.{'cu' if name == 'steps' else 'cuh'}").read_text("utf-8") for name in FILES)
    opened = threads or (FOLDER / THREADS_FILE).read_text("utf-8")  # a namespace, which hides the library's `fma`
    return opened + defined + declarations() + files + "}\n"
