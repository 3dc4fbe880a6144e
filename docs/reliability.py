"""The tables of docs/reliability.md, from the committed measurements; docs/readme.py writes them."""

import pandas as pd
from marks import table

_COUNTS = ("lost", "double", "different")


def faults(measured: pd.DataFrame) -> str:
    """Return the table of faults, a row for each kind."""
    head = ("Fault", "When", "Injections", "Exit status", "Repaired", "Lost", "Double", "Different", "Otherwise wrong")
    rows = [_faults(str(kind), injections) for kind, injections in measured.groupby("kind", sort=False)]
    total = _faults("**All**", measured)
    total[1] = total[3] = ""  # the moments and exit statuses of all kinds say nothing
    return table(head, [*rows, total])


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
