"""A user's own model: where its module is looked for, and how it is imported. Nothing here needs torch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mnist_ablate.errors import TrainingError


def own_model(model: str, folder: str = "") -> Callable[..., Any]:
    """Return the user's function that makes a model.

    Parameters
    ----------
    model
        ``module:function``. The module is looked for beside the study file, in the current folder, and then where
        Python's import looks.
    folder
        The study file's; empty if it is not known.

    Raises
    ------
    TrainingError
        If there is no such function, or a module of the same name from another folder is in its place.
    """
    module, _, name = model.partition(":")
    try:
        with looking_in(folder):
            check_present(model, folder)
            function: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainingError(f"model = {model!r}: {error}; {_looked_in(folder)}.") from error
    return function


def check_present(model: str, folder: str = "") -> None:
    """Check, without importing it, that there is a module to make `model`, and that no other took its name.

    Raises
    ------
    TrainingError
        If there is none, or another.
    """
    top = model.partition(":")[0].partition(".")[0]
    with looking_in(folder):
        mine, loaded = PathFinder.find_spec(top, _places(folder)), sys.modules.get(top)
        if loaded is None and find_spec(top) is None:
            raise TrainingError(f"model = {model!r}: No module named {top!r}; {_looked_in(folder)}.")
    other = getattr(loaded, "__file__", None)
    if mine and mine.origin and other and Path(other).resolve() != Path(mine.origin).resolve():
        raise TrainingError(
            f"model = {model!r}: {other} is imported already, and would hide {mine.origin}. Rename the module, or "
            "start Python again."
        )


@contextmanager
def looking_in(folder: str) -> Iterator[None]:
    """Have Python's import look in `folder` and in the current folder first, within the block."""
    places = _places(folder)
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            with suppress(ValueError):  # the module has changed the path
                sys.path.remove(place)


def _places(folder: str) -> list[str]:
    return [*([folder] if folder else []), ""]  # "" is the current folder, whatever it is


def _looked_in(folder: str) -> str:
    beside = f"{folder} (the study file's folder), " if folder not in ("", str(_current())) else ""
    return f"looked in {beside}{_current()} (the current folder), and where Python's import looks"


def _current() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path()
