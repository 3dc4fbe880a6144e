"""How a process tells `card.py` what it measured: by a line of JSON each on standard output, as soon as it is known.

It needs nothing but Python, since not every program that is measured has our package.
"""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

UNAVAILABLE = 3
"""Exit status of a process that cannot measure here: a library or a card is missing. Its last line says which."""


def tell(what: str, value: float | str, unit: str = "", *, failed: bool = False) -> None:
    """Tell a number, or in words why there is none; `failed` if something is wrong."""
    _write({"what": what, "value": value, "unit": unit, "failed": failed})


def tell_about(**about: Any) -> None:
    """Tell what all rows say of the machine."""
    _write({"about": about})


@contextmanager
def trying(what: str, *, failed: bool = True) -> Iterator[None]:
    """Do a step, named so that one can see where a process ended; after an exception, which is told, the next begins.

    `failed` if an exception means that something is wrong.
    """
    _write({"step": what})
    try:
        yield
    except Exception as error:  # noqa: BLE001 # the other steps go on
        traceback.print_exc()
        tell(what, in_words(error), failed=failed)
    _write({"step": f"after {what}"})


def in_words(error: BaseException) -> str:
    """Return what kind of error it is, and what it says."""
    return f"{type(error).__name__}: {error}"[:300]


def _write(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
