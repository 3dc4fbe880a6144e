"""The places in documents that tables from result files fill."""

import re


def between(source: str, table: str, text: str) -> str:
    """Return `text` with `table` between the two marks that name `source`.

    Raises
    ------
    SystemExit
        If `text` does not have these marks exactly once.
    """
    place = re.compile(rf"(<!-- table: {re.escape(source)} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, places = place.subn(lambda marks: f"{marks[1]}{table.strip()}\n{marks[2]}", text)
    if places != 1:
        raise SystemExit(f"{places} places for the table from {source}: allowed: exactly one.")
    return text


def sources(text: str) -> list[str]:
    """Return the sources that the marks in `text` name, in their order."""
    return re.findall(r"<!-- table: (.*?) -->", text)
