"""The tables of docs/reliability.md, from the committed measurements; docs/readme.py writes them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

_COUNTS = ("lost", "double", "different")


def faults(measured: pd.DataFrame) -> str:
    """Return the table of faults, a row for each kind, and the number of bits that were flipped."""
    head = ("Fault", "When", "Injections", "Exit status", "Repaired", "Lost", "Double", "Different", "Otherwise wrong")
    rows = [_faults(str(kind), injections) for kind, injections in measured.groupby("kind", sort=False)]
    total = _faults("**All**", measured)
    total[1] = total[3] = ""  # the moments and exit statuses of all kinds say nothing
    flips, unseen = int(measured["flips"].sum()), int(measured["unseen"].sum())
    bits = f"Single bits flipped in files with a digest: {flips:,}, not seen: {unseen:,}."
    return f"{_markdown(head, [*rows, total])}\n\n{bits}"


def _faults(kind: str, injections: pd.DataFrame) -> list[str]:
    statuses = injections["status"].value_counts()
    wrong = injections["hung"] | injections["traceback"] | (injections["left_over"] > 0) | (injections["left"] != "")
    wrong |= (injections["resumed"] != 0) | (injections["unseen"] > 0)
    return [
        kind,
        ", ".join(dict.fromkeys(injections["stage"])),
        f"{len(injections):,}",
        ", ".join(f"{status:.0f} ({n})" for status, n in statuses.items()),
        f"{int(injections['repaired'].sum())}",
        *(f"{int(injections[name].sum())}" for name in _COUNTS),
        f"{int(wrong.sum())}",
    ]


_WRONG = ("traceback", "wrong answer", "hang", "crash", "not read")


def fuzz(measured: pd.DataFrame) -> str:
    """Return the table of bad input, a row for each reader."""
    head = ("Reader", "Inputs", "Right answers", "Our errors", "Tracebacks", "Wrong answers", "Hangs", "Crashes")
    head += ("Not read", "Longest, s", "Peak memory, MB")
    return _markdown(head, [_fuzz(reader, outcomes) for reader, outcomes in measured.groupby("reader", sort=False)])


def _fuzz(reader: Any, outcomes: pd.DataFrame) -> list[str]:
    counts, first = outcomes.set_index("outcome")["n"], outcomes.iloc[0]
    errors = {name: n for name, n in counts.items() if name not in ("right", *_WRONG)}
    return [
        str(reader),
        f"{int(first['inputs']):,}",
        f"{int(counts.get('right', 0)):,}",
        ", ".join(f"{name} {n:,}" for name, n in errors.items()),
        *(f"{int(counts.get(name, 0))}" for name in _WRONG),
        f"{first['longest_seconds']:.2f}",
        f"{first['peak_mb']:.0f}",
    ]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))
