"""What tests of the pages' languages use: the messages, a language that marks them, and the text that a page shows."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

from outside import import_file

from mnist_ablate.language import Language, find

ROOT = Path(__file__).parent.parent
NAMES = {
    "Adam", "AdamW", "BatchNorm", "CSV", "Fashion", "GroupNorm", "Holm", "LayerNorm", "MNIST", "Python", "SHA",
    "Student", "UTC", "Welch", "autograd", "baseline", "dropout", "factorial", "fused", "inf", "ln", "min", "sgd",
}  # fmt: skip
"""Names, which are the same in all languages."""
_LOWER = {name.lower() for name in NAMES}


@cache
def messages() -> ModuleType:
    """Import docs/messages.py, which lists the messages of the pages."""
    return import_file(ROOT / "docs" / "messages.py")


@cache
def marked() -> Language:
    """Return a language of marks: each message between ⟦ and ⟧, except for what is put in its places."""
    entries = {}
    for context, message in messages().messages():
        forms = (message,) if isinstance(message, str) else message
        entries[context, forms[0]] = forms if context == "number" else tuple(map(_marked, forms))
    return Language("marks", entries)


def _marked(message: str) -> str:
    return re.sub(r"\{\w+\}", lambda place: f"⟧{place[0]}⟦", f"⟦{message}⟧").replace("⟦⟧", "")


def unmarked(text: str) -> str:
    """Return what is left of a text without its marked messages, also those that were cut short."""
    return re.sub("⟦[^⟦⟧]*(?:⟧|…)", " ", text)


def words(text: str) -> set[str]:
    """Return the words of two letters or more, without digests and hypotheses' names such as C1-gap."""
    text = re.sub(r"\b(?:(?:C\d+|BN|N|LN)-[\w.-]+|[0-9a-f]{32,})", " ", text)
    return {word for word in re.findall(r"[^\W\d_]{2,}", text) if word.lower() not in _LOWER}


class Shown(HTMLParser):
    """The text of a page, with the words for those who cannot see it, without code and what runs recorded."""

    _HIDDEN = ("style", "code", "script")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._within: list[str] = []
        self._recorded = False
        self.feed(page)

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where we are, and keep labels."""
        known = dict(attrs)
        if tag == "tbody" or (tag == "table" and known.get("class") == "provenance"):
            self._recorded |= tag == "table"
        if tag in self._HIDDEN:
            self._within.append(tag)
        label = known.get("aria-label") or ""
        if label and not label.endswith(".csv"):
            self.parts.append(label)

    def handle_endtag(self, tag: str) -> None:
        """Note where we are."""
        if self._within and self._within[-1] == tag:
            self._within.pop()
        if tag == "table":
            self._recorded = False

    def handle_data(self, data: str) -> None:
        """Keep text."""
        if not self._within and not (self._recorded and self.lasttag == "td"):
            self.parts.append(data)


def numbers(text: str) -> list[str]:
    """Return the numbers of a text in the order in which they stand, as Python writes them."""
    plain = re.sub(r"(?<=\d)[,\N{NO-BREAK SPACE}](?=\d{3}\b)(?!\d{4})", "", text)
    return re.findall(r"\d+(?:\.\d+)?", plain)


def english_words(text: str) -> set[str]:
    """Return the words of a Spanish text that English messages have and no Spanish one."""
    return {word for word in words(text) if word.lower() in _english_alone()}


@cache
def _english_alone() -> set[str]:
    of_english = {word.lower() for _, message in messages().messages() for word in words(" ".join([*message] if
                  isinstance(message, tuple) else [message]))}  # fmt: skip
    of_spanish = {word.lower() for forms in find("es").entries.values() for form in forms for word in words(form)}
    return of_english - of_spanish
