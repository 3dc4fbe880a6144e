"""Cells as levels, seeds and numbers, each by one rule; what cannot be read is refused by its row."""

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from mnist_ablate.design.contrasts import Level
from mnist_ablate.errors import TableError
from mnist_ablate.tables.source import Source, named, rows, shortened

_MISSING = ("", "nan", "na", "n/a", "none", "null", "-nan", "<na>")
_TRUTHS = {"true": True, "false": False}
_EXACT = 2**53
"""Whole numbers beyond this have lost digits in a float."""
_LARGEST = 2**63


def numbers(source: Source, column: str, decimal: str = "") -> "pd.Series[float]":
    """Return a column as numbers; NaN where there is none, or none that is finite.

    Raises
    ------
    TableError
        If a cell is text, or has a decimal comma that was not declared.
    """
    cells = source.frame[column]
    if not source.text:
        return _typed_numbers(source, column)
    stripped = cells.str.strip()
    if decimal == ",":
        stripped = stripped.str.replace(",", ".", regex=False)
    lower = stripped.str.lower()
    missing = lower.isin(_MISSING)
    found = pd.to_numeric(stripped.mask(missing), errors="coerce").astype(float)
    found = found.mask(lower == "true", 1.0).mask(lower == "false", 0.0)
    wrong = found.isna() & ~missing
    if wrong.any():
        _refuse_numbers(source, column, cells[wrong], decimal)
    return found.where(np.isfinite(found))


def _typed_numbers(source: Source, column: str) -> "pd.Series[float]":
    cells = source.frame[column]
    if pd.api.types.is_bool_dtype(cells) or pd.api.types.is_numeric_dtype(cells):
        found = cells.astype("Float64").astype(float) if cells.isna().any() else cells.astype(float)
        return found.where(np.isfinite(found))
    found = pd.to_numeric(cells.astype(object).where(cells.notna(), None), errors="coerce").astype(float)
    wrong = found.isna() & cells.notna()
    if wrong.any():
        _refuse_numbers(source, column, cells[wrong], "")
    return found.where(np.isfinite(found))


def _refuse_numbers(source: Source, column: str, cells: "pd.Series[str]", decimal: str) -> None:
    place, example = f"{source.path}: {column}, {rows(cells.index)}", shortened(cells.iloc[0])
    if all(str(cell).strip().startswith("=") for cell in cells):
        raise TableError(f"{place}: formulas ({example}). Save the values of the cells, without formulas.")
    if not decimal and cells.astype(str).str.strip().str.fullmatch(r"[-+]?\d+,\d+").all():
        raise TableError(f'{place}: a comma in a number ({example}). Write [table] decimal = "," in the study file, or '
                         "use points.")  # fmt: skip
    raise TableError(f"{place}: not a number ({example}). Correct it, or leave the cell empty: the run then failed.")


def has_decimal_commas(cells: "pd.Series[str]") -> bool:
    """Return whether text cells are numbers with decimal commas, as in 0,95, and never groups of three digits."""
    known = cells.str.strip()
    known = known[~known.str.lower().isin(_MISSING)]
    with_comma = known[known.str.contains(",", regex=False)]
    if with_comma.empty or not known.str.fullmatch(r"[-+]?\d+(,\d+)?(e[-+]?\d+)?", case=False).all():
        return False
    return not with_comma.str.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}").all()


def levels(source: Source, column: str, decimal: str = "") -> "pd.Series[Level]":
    """Return a column as levels of a factor, all of one type.

    Raises
    ------
    TableError
        If a cell is empty or a formula, or the cells are of several types.
    """
    cells = source.frame[column]
    if source.text:
        stripped = cells.str.strip()
        _refuse_missing(source, column, stripped == "")
        formulas = stripped.str.startswith("=")
        if formulas.any():
            _refuse_numbers(source, column, cells[formulas], "")
        codes, distinct = pd.factorize(stripped)
        return _coded(codes, _parsed([str(text) for text in distinct], decimal), cells.index)
    _refuse_missing(source, column, cells.isna())
    codes, distinct = pd.factorize(cells.astype(object))
    plain = [value.item() if hasattr(value, "item") else value for value in distinct]
    kinds = {type(value) for value in plain}
    if kinds == {int, float}:
        plain, kinds = [float(value) for value in plain], {float}
    if len(kinds) > 1:
        found = named(sorted(kind.__name__ for kind in kinds))
        raise TableError(f"{source.path}: {column}: values of several types ({found}). Give all cells one type.")
    if not kinds <= {bool, int, float, str}:
        plain = [str(value) for value in plain]
    return _coded(codes, plain, cells.index)


def _coded(
    codes: "np.ndarray[tuple[int], np.dtype[np.intp]]", distinct: list[Level], index: pd.Index
) -> "pd.Series[Level]":
    """Return values by their codes; numbers that were written in two ways are one level."""
    values = np.empty(len(distinct), dtype=object)
    values[:] = distinct
    return pd.Series(values[codes], index=index, dtype=object)


def _refuse_missing(source: Source, column: str, missing: "pd.Series[bool]") -> None:
    if missing.any():
        raise TableError(
            f"{source.path}: {column}, {rows(missing.index[missing])}: empty. Fill in the level, or remove such rows."
        )


def _parsed(texts: list[str], decimal: str) -> list[Level]:
    """Return texts as truths, whole numbers or numbers, if all of them are; else as they are."""
    if all(text.lower() in _TRUTHS for text in texts):
        return [_TRUTHS[text.lower()] for text in texts]
    plain = [text.replace(",", ".") for text in texts] if decimal == "," else texts
    try:
        whole = [int(text) for text in plain]
        if all(abs(number) < _LARGEST and "_" not in text for number, text in zip(whole, plain, strict=True)):
            return list(whole)
    except ValueError:
        pass
    try:
        real = [float(text) for text in plain]
    except ValueError:
        return list(texts)
    return list(real) if all(math.isfinite(number) for number in real) and "_" not in "".join(plain) else list(texts)


def seeds(source: Source, column: str) -> "tuple[pd.Series[int], dict[int, str]]":
    """Return the seeds of the rows as whole numbers, and the name of each if they are not whole numbers themselves.

    Raises
    ------
    TableError
        If a cell is empty, or a number has lost digits.
    """
    cells = source.frame[column]
    missing = cells.str.strip() == "" if source.text else cells.isna()
    if missing.any():
        where = rows(missing.index[missing])
        raise TableError(f"{source.path}: {column}, {where}: no seed. Fill it in, or leave such rows out.")
    codes, distinct = pd.factorize(cells.str.strip() if source.text else cells.astype(object))
    found = [_whole(source, column, value) for value in distinct]
    if all(isinstance(value, int) and abs(value) < _LARGEST for value in found):
        return pd.Series(np.array(found, dtype=np.int64)[codes], index=cells.index), {}
    texts = [str(value) for value in found]
    order = sorted(set(texts), key=lambda text: (len(text), text) if text.lstrip("-").isdecimal() else (0, text))
    places = {text: i for i, text in enumerate(order)}
    return (pd.Series(np.array([places[text] for text in texts], dtype=np.int64)[codes], index=cells.index),
            {i: shortened(text) for text, i in places.items()})  # fmt: skip


def _whole(source: Source, column: str, value: object) -> int | str:
    """Return a seed as the whole number that it is, or as text."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            return repr(value)
        if abs(value) > _EXACT:
            raise TableError(f"{source.path}: {column}: {value:g} is a seed stored as a float, which has lost digits. "
                             "Store seeds as whole numbers or as text.")  # fmt: skip
        return int(value)
    text = str(value).strip()
    number = text[:-2] if text.endswith(".0") else text
    return int(number) if number.lstrip("-").isdecimal() and number.isascii() and len(number) < 400 else text


def truths(source: Source, column: str, yes: tuple[str, ...] = ("true", "1", "yes", "1.0")) -> "pd.Series[bool]":
    """Return whether the cells of a column, in any case, are one of `yes`."""
    cells = source.frame[column].astype(str).str.strip().str.lower()
    return cells.isin([word.lower() for word in yes])


def are_seeds(source: Source, column: str, wanted: tuple[str, ...]) -> "pd.Series[bool]":
    """Return whether the cells of a column of seeds are one of `wanted`, however a number is written: 3 or 3.0."""
    found, names = seeds(source, column)
    texts = found.map(names) if names else found.astype(str)
    return texts.isin(wanted)


def times(source: Source, column: str) -> "pd.Series[pd.Timestamp]":
    """Return a column as times in UTC; NaT where a cell is none."""
    cells = source.frame[column]
    if pd.api.types.is_datetime64_any_dtype(cells):
        return pd.to_datetime(cells, utc=True)
    texts = cells.astype(str).str.strip()
    return pd.to_datetime(texts, utc=True, errors="coerce", format="mixed")


def earliest(source: Source, column: str) -> datetime | None:
    """Return the earliest time of a column; None where a cell has no time."""
    found = times(source, column)
    return None if found.isna().any() else found.min().to_pydatetime().astimezone(UTC)
