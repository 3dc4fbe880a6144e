"""Catalogues of messages: one ``.po`` file for each language but English, read as it is, so nothing can be stale."""

import ast
import gettext
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from mnist_ablate.errors import LanguageError

Key = tuple[str, str]
"""The context of a message, mostly empty, and its English text; of a message with a plural, the singular."""
ENGLISH = "en"
"""The language of the messages themselves."""
WHERE = "mnist_ablate/language"


@dataclass(frozen=True)
class Language:
    """A language of the pages.

    Parameters
    ----------
    code
        As in HTML's ``lang``.
    entries
        The translations of each message: one, or one for each form of the plural. Of English there are none.
    plural
        The form that goes with a number, counted from 0.
    """

    code: str
    entries: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    plural: Callable[[int], int] = lambda n: int(n != 1)

    def message(self, english: str, context: str = "") -> str:
        """Return a message in this language.

        Raises
        ------
        LanguageError
            If the catalogue lacks it.
        """
        return english if self.code == ENGLISH else self._entry(english, context)[0]

    def numbered(self, one: str, many: str, n: int) -> str:
        """Return the form of a message that goes with the number `n`; errors as of `message`."""
        if self.code == ENGLISH:
            return one if n == 1 else many
        return self._entry(one, "")[self.plural(n)]

    def known(self, text: str, context: str = "") -> str:
        """Return `text` in this language if the catalogue has it, else as it is: it is somebody's own."""
        return self.entries.get((context, text), (text,))[0]

    def _entry(self, english: str, context: str) -> tuple[str, ...]:
        entry = self.entries.get((context, english))
        if entry is None:
            raise LanguageError(
                f"{WHERE}/{self.code}.po: lacks the message '{english}'. `nox -s messages` adds what is missing to the "
                "file; translate it there."
            )
        return entry


def languages() -> list[str]:
    """List the languages of the pages."""
    there = [file.name.removesuffix(".po") for file in files("mnist_ablate.language").iterdir()
             if file.name.endswith(".po")]  # fmt: skip
    return sorted([ENGLISH, *there])


@lru_cache
def find(code: str) -> Language:
    """Return a language.

    Raises
    ------
    LanguageError
        If there is no such language, or its catalogue cannot be read.
    """
    if code not in languages():
        raise LanguageError(f"{code}: not a language of the pages. Give one of them: {', '.join(languages())}.")
    if code == ENGLISH:
        return Language(ENGLISH)
    text = files("mnist_ablate.language").joinpath(f"{code}.po").read_text(encoding="utf-8")
    return parse(text, code)


def folder_of(pages: Path, code: str) -> Path:
    """Return where pages in a language are by default: in the folder `pages` for English, else in one below it."""
    return pages if code == ENGLISH else pages / code


def parse(text: str, code: str) -> Language:
    """Read the text of a ``.po`` file; an entry without a translation, or marked as fuzzy, is missing.

    Raises
    ------
    LanguageError
        If a line cannot be read.
    """
    entries: dict[Key, tuple[str, ...]] = {}
    for block in text.split("\n\n"):
        entry, fuzzy = _fields(block, code)
        translations = tuple(text for name, text in entry.items() if name.startswith("msgstr"))
        if "msgid" in entry and not fuzzy and all(translations):
            entries[entry.get("msgctxt", ""), entry["msgid"]] = translations
    head = dict(line.split(": ", 1) for line in entries.pop(("", ""), ("",))[0].splitlines() if ": " in line)
    formula = head.get("Plural-Forms", "nplurals=2; plural=(n != 1);").partition("plural=")[2].rstrip(" ;")
    compiled: Callable[[int], int] = gettext.c2py(formula)
    return Language(code, entries, compiled)


def _fields(block: str, code: str) -> tuple[dict[str, str], bool]:
    """Return the parts of an entry, such as ``msgid``, and whether it is marked as fuzzy."""
    fields: dict[str, str] = {}
    name, fuzzy = "", False
    for line in block.splitlines():
        if line.startswith("#"):
            fuzzy |= line.startswith("#,") and "fuzzy" in line
            continue
        keyword, _, rest = line.partition(" ") if not line.startswith('"') else (name, "", line)
        try:
            fields[keyword] = fields.get(keyword, "") + ast.literal_eval(rest)
        except (SyntaxError, ValueError, TypeError):
            raise LanguageError(f'{WHERE}/{code}.po: cannot be read at {line!r}. Write it as msgid "...".') from None
        name = keyword
    return fields, fuzzy
