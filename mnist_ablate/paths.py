"""Paths that a person gives."""

import os
from pathlib import Path


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading ``~`` replaced by the home folder, which a shell leaves alone in ``--out=~/x``.

    A ``~`` stays where the system knows no home folder for this user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
