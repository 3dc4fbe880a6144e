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

from babel.core import Locale, UnknownLocaleError
from babel.messages.plurals import get_plural
from babel.messages.pofile import normalize
from jinja2.ext import babel_extract

from mnist_ablate.data.catalogue import CLASS_NAMES
from mnist_ablate.design.responses import RESPONSES, SUMMARIES
from mnist_ablate.design.settings import LABELS, LEVELS
from mnist_ablate.language.catalogue import parse
from mnist_ablate.language.speech import from_template

PACKAGE = Path(__file__).parent.parent / "mnist_ablate"
CATALOGUES = PACKAGE / "language"
_FORMS = {"say": 1, "mark": 1, "later": 1, "say_as": 2, "mark_as": 2, "count": 3, "later_count": 3}
"""The functions that are called with messages, and the place of the last of them among the arguments."""
_OF_TEMPLATES = {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}
_OF_STUDIES = {"title", "claim", "statement", "what", "where", "why"}
Found = tuple[str, str | tuple[str, str]]
"""The context of a message, mostly empty, and the message; one with a plural has two forms."""
_FORMATS: list[Found] = [("number", "0.5"), ("number", "1,000"), ("number", "10,000")]
"""What shows how a language writes numbers."""


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
    """Yield the messages of a module, also those of the templates in it.

    Babel's own extractor does not see calls within f-strings before Python 3.12.
    """
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call | ast.Constant)]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and "{% trans" in node.value:
                yield from _of_template(node.value)
        elif isinstance(node.func, ast.Name) and node.func.id in _FORMS:
            words = [str(word.value) for word in node.args[: _FORMS[node.func.id]] if isinstance(word, ast.Constant)]
            if "count" in node.func.id and len(words) == 2:
                yield "", (words[0], words[1])
            elif node.func.id.endswith("_as") and len(words) == 2:
                yield words[0], words[1]
            elif len(words) == 1:
                yield "", words[0]


def _of_template(text: str) -> Iterator[Found]:
    for _, function, message, _ in babel_extract(io.BytesIO(text.encode()), ("gettext", "ngettext"), (), _OF_TEMPLATES):
        if function == "ngettext" and isinstance(message, tuple):
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
    head = text.split("\n\n")[0] + "\n" if text else _head(code)
    known = parse(text, code).entries if text else {}
    blocks = [head]
    for context, message in wanted:
        one = message if isinstance(message, str) else message[0]
        blocks.append(_entry(context, message, known.get((context, one), ()), _n_plurals(head)))
    return "\n".join(blocks)


def _entry(context: str, message: str | tuple[str, str], translations: tuple[str, ...], n_plurals: int) -> str:
    """Write a message with its translations, or with places for them."""
    fields = {"msgctxt": context} if context else {}
    if isinstance(message, str):
        fields |= {"msgid": message, "msgstr": translations[0] if translations else ""}
    else:
        forms = translations or ("",) * n_plurals
        fields |= {"msgid": message[0], "msgid_plural": message[1]}
        fields |= {f"msgstr[{i}]": form for i, form in enumerate(forms)}
    return "".join(f"{name} {normalize(value, width=120)}\n" for name, value in fields.items())


_HEAD = """\
# The words of the pages in this language. `nox -s messages` adds and removes messages; translations are made by hand.
# Places in braces, and the tags and entities of HTML, stay as they are.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: {code}\\n"
"Plural-Forms: {plural};\\n"
"""


def _head(code: str) -> str:
    plural = get_plural(code)
    return _HEAD.format(code=code, plural=f"nplurals={plural.num_plurals}; plural={plural.plural_expr}")


def _n_plurals(head: str) -> int:
    return int(head.partition("nplurals=")[2].partition(";")[0])


def missing(text: str, code: str, wanted: Iterable[Found]) -> list[str]:
    """List the messages that a catalogue has no translation of."""
    known = parse(text, code).entries
    ones = [(context, message if isinstance(message, str) else message[0]) for context, message in wanted]
    return [one for context, one in ones if (context, one) not in known]


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
        left = missing(text, code, wanted)
        print(f"{file}: {len(wanted)} messages, {len(left)} not translated")  # noqa: T201
        for message in left[:20]:
            print(f"    {message}")  # noqa: T201


if __name__ == "__main__":
    main()
