"""A page, read for its elements, its text and its tables."""

import base64
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep its text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def offered(page: str, name: str) -> str:
    """Return the table that a page offers for download as ``<name>.csv``."""
    (encoded,) = re.findall(rf'download="{re.escape(name)}\.csv" href="data:text/csv;base64,([^"]*)"', page)
    return base64.b64decode(encoded).decode()
