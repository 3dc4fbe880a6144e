"""Documents whose tables are made from result files."""

import re


def between(source: str, table: str, text: str) -> str:
    """Put `table` between the two marks that `text` has for what is made from `source`.

    Raises
    ------
    SystemExit
        If the marks are not there once.
    """
    place = re.compile(rf"(<!-- table: {re.escape(source)} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, found = place.subn(lambda marks: f"{marks[1]}{table.strip()}\n{marks[2]}", text)
    if found != 1:
        raise SystemExit(f"the marks of the table from {source} are not there once, but {found} times")
    return text
