"""A page, read for its elements, its text and its tables."""

import urllib.request
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

    @property
    def pictures(self) -> dict[str, str]:
        """What each picture says that it shows, by its id."""
        return {str(a["id"]): a["aria-label"] or "" for a in self.all("div") if a.get("role") == "img"}

    def offered(self, name: str) -> str:
        """Return the table that the page offers for download as ``<name>.csv``."""
        (link,) = (link for link in self.all("a") if link.get("download") == f"{name}.csv")
        with urllib.request.urlopen(str(link["href"])) as file:  # noqa: S310 # data within the page
            text: str = file.read().decode()
        return text
