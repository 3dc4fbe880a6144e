"""Bring the catalogues of the pages up to date: ``nox -s messages``, or ``nox -s messages -- fr`` for a new language.

Each ``mnist_ablate/language/<code>.po`` then has every message of the pages, in the order of the code: a new one
without a translation, to be filled in by hand, and none that the pages no longer say.
"""

import argparse
import ast
import io
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from babel.core import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from jinja2.ext import babel_extract

from mnist_ablate.data.catalogue import CLASS_NAMES
from mnist_ablate.design.responses import RESPONSES, SUMMARIES
from mnist_ablate.design.settings import LABELS, LEVELS
from mnist_ablate.language.speech import from_template

PACKAGE = Path(__file__).parent.parent / "mnist_ablate"
CATALOGUES = PACKAGE / "language"
_KEYWORDS: dict[str, Any] = {
    "say": None, "mark": None, "later": None, "say_as": ((1, "c"), 2), "mark_as": ((1, "c"), 2), "count": (2, 3),
    "later_count": (2, 3),
}  # fmt: skip
_OF_TEMPLATES = {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}
_OF_STUDIES = {"title", "claim", "statement", "what", "where"}
_FORMATS = [("number", "0.5"), ("number", "1,000"), ("number", "10,000")]
"""What shows how a language writes numbers."""

Found = tuple[str, str | tuple[str, str]]
"""The context of a message, mostly empty, and the message; one with a plural has two forms."""


def messages() -> list[Found]:
    """List the messages of the pages."""
    found = [*_FORMATS]
    for file in sorted(PACKAGE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "from mnist_ablate.language import" in text:
            found += _of_python(text)
    for file in sorted((PACKAGE / "report" / "templates").iterdir()):
        found += _of_template(file.read_text(encoding="utf-8"))
    found += _of_registries()
    for file in [*sorted((PACKAGE / "studies").glob("*.toml")), PACKAGE / "claims" / "claims.toml"]:
        found += (("", text) for text in _of_study(tomllib.loads(file.read_text(encoding="utf-8"))))
    return list(dict.fromkeys(found))


def _of_python(text: str) -> Iterator[Found]:
    """Yield the messages of a module, also those of the templates in it."""
    for _, message, _, context in extract("python", io.BytesIO(text.encode()), keywords=_KEYWORDS):
        yield context or "", tuple(message) if isinstance(message, tuple | list) else message  # type: ignore[misc]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{% trans" in node.value:
            yield from _of_template(node.value)


def _of_template(text: str) -> Iterator[Found]:
    for _, function, message, _ in babel_extract(io.BytesIO(text.encode()), ("gettext", "ngettext"), (), _OF_TEMPLATES):
        if function == "ngettext":
            one, many = (from_template(str(form)) for form in message[:2])
            yield "", (one, many)
        else:
            yield "", from_template(str(message))


def _of_registries() -> Iterator[Found]:
    """Yield what is named once for all pages: quantities, units, settings and classes."""
    for response in RESPONSES.values():
        yield "name", response.label
        yield "in a sentence", response.label
        yield "unit", response.unit
    for summary in SUMMARIES.values():
        yield "unit", summary.unit
        yield from (("", text) for text in (summary.sentence, summary.heading, summary.caption))
    yield from (("", label) for label in LABELS.values())
    yield from (("level", level) for level in LEVELS)
    yield from (("", name) for names in CLASS_NAMES.values() for name in names if not name.isdecimal())


def _of_study(part: object) -> Iterator[str]:
    """Yield the texts for people in a study file, or in a part of one."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in _OF_STUDIES and isinstance(value, str):
                yield value
            else:
                yield from _of_study(value)
    elif isinstance(part, list):
        for entry in part:
            yield from _of_study(entry)


def updated(text: str, code: str, wanted: Iterable[Found]) -> str:
    """Return the text of a catalogue with exactly the messages that are `wanted`; translations are kept."""
    before = read_po(io.StringIO(text), locale=code) if text else Catalog(locale=code)
    after = Catalog(locale=code, project="mnist-ablate", fuzzy=False, header_comment=_HEAD)
    for context, message in wanted:
        known = before.get(message, context or None)
        after.add(message, known.string if known and "fuzzy" not in known.flags else "", context=context or None)
    for message in after:
        message.flags -= {"python-format", "python-brace-format"}
    buffer = io.BytesIO()
    write_po(buffer, after, width=120, no_location=True, omit_header=True)
    return f"{_HEAD}{_head(after)}\n{buffer.getvalue().decode()}"


_HEAD = """\
# The words of the pages in this language. `nox -s messages` adds and removes messages; translations are made by hand.
# Places in braces, and the tags and entities of HTML, stay as they are.
"""


def _head(catalog: Catalog) -> str:
    lines = ("Content-Type: text/plain; charset=utf-8", f"Language: {catalog.locale_identifier}",
             f"Plural-Forms: {catalog.plural_forms}")  # fmt: skip
    return 'msgid ""\nmsgstr ""\n' + "".join(f'"{line}\\n"\n' for line in lines)


def missing(text: str, code: str) -> list[str]:
    """List the messages of a catalogue that have no translation."""
    return [str(message.id) for message in read_po(io.StringIO(text), locale=code) if message.id and not (
        all(message.string) if isinstance(message.string, tuple | list) else message.string)]  # fmt: skip


def main() -> None:
    """Update what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="CODE", help="new languages, such as fr; those there are, too")
    arguments = parser.parse_args()
    wanted = messages()
    for code in sorted({*arguments.languages, *(file.stem for file in CATALOGUES.glob("*.po"))}):
        try:
            Locale.parse(code)
        except (UnknownLocaleError, ValueError):
            parser.error(f"{code}: not the code of a language; allowed: one as in HTML, such as fr")
        file = CATALOGUES / f"{code}.po"
        text = updated(file.read_text(encoding="utf-8") if file.exists() else "", code, wanted)
        file.write_text(text, encoding="utf-8")
        left = missing(text, code)
        print(f"{file}: {len(wanted)} messages, {len(left)} not translated")  # noqa: T201
        for message in left[:20]:
            print(f"    {message}")  # noqa: T201


if __name__ == "__main__":
    main()
