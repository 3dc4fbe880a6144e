"""What the names of runs and of their folders say: ``lr=0.1,seed=3``, ``sgd/seed_3``."""

import re
from pathlib import Path

_PAIRS = re.compile(r"[,;&]|__|_(?=[A-Za-z][\w.]*=)|-(?=[A-Za-z][\w.]*=)|\s+")
_SEED = re.compile(r"(?i)seed[-_ ]?(\d+)")


def from_name(name: str) -> dict[str, str]:
    """Return the values that a name gives: pairs ``key=value``, and a seed."""
    found = {}
    for part in _PAIRS.split(name):
        key, equals, value = part.partition("=")
        if equals and key.strip() and value.strip():
            found[key.strip()] = value.strip()
    if not found and (match := _SEED.search(name)):
        found["seed"] = match[1]
    return found


def from_path(path: Path) -> dict[str, str]:
    """Return the values that the parts of a relative path give; a part that gives none counts as ``folder 1``, ...."""
    found: dict[str, str] = {}
    for place, part in enumerate(path.parts, 1):
        values = from_name(part)
        found |= values or {f"folder {place}": part}
    return found
