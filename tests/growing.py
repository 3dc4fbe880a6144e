"""A study that stops at its second look, whose training takes no time and can be held back at a seed."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STUDY = """
name = "grows"
seeds = { first = 6, step = 2, most = 12 }
[protocol]
train = "growing:train"
dataset = "growing:arrays"
epochs = 1
[factors]
size = [1, 2]
[metrics.error]
[[hypotheses]]
id = "H"
statement = "The second size errs more"
effect = "size"
kind = "increase"
smallest = 1.0
"""
HOLD = Path(__file__).with_name("hold")
"""Its text is the first seed that is not trained while the file is there."""


def write(folder: Path, module: str) -> Path:
    """Write the study and its code, under a name that no other test's has; return the path of `HOLD` there."""
    shutil.copy(__file__, folder / f"{module}.py")
    (folder / "grows.toml").write_text(STUDY.replace("growing:", f"{module}:"))
    return folder / HOLD.name


def arrays() -> list[Any]:
    """Return data, which nothing looks at."""
    return [np.arange(40.0)[:, None], np.arange(40.0)] * 2


def train(settings: Any, seed: int, _: Any) -> Iterator[dict[str, float]]:
    """Yield one number, once the seed is not held back."""
    while _held_back(seed):
        time.sleep(0.01)
    size = settings.own["size"]
    yield {"error": size + 0.4 * float(np.random.default_rng([seed, size]).normal())}


def _held_back(seed: int) -> bool:
    try:
        return seed >= int(HOLD.read_text())
    except FileNotFoundError:
        return False
