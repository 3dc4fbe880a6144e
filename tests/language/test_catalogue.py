"""The catalogues of the pages' languages are complete, fit the messages, and say what is wrong with them."""

import io
import re
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from languages import messages

from mnist_ablate.errors import LanguageError
from mnist_ablate.language import ENGLISH, find, languages
from mnist_ablate.language.catalogue import Language, parse

OTHERS = [code for code in languages() if code != ENGLISH]
HEAD = 'msgid ""\nmsgstr "Plural-Forms: nplurals=2; plural=(n > 1);\\n"\n\n'


def text_of(code: str) -> str:
    """Read a catalogue."""
    return Path(messages().CATALOGUES / f"{code}.po").read_text(encoding="utf-8")


def forms(message: str | tuple[str, str]) -> tuple[str, ...]:
    """Return the forms of a message."""
    return (message,) if isinstance(message, str) else message


def test_there_is_spanish() -> None:
    """The pages are written in English and in Spanish."""
    assert {"en", "es"} <= set(languages())


@pytest.mark.parametrize("code", OTHERS)
def test_each_catalogue_is_up_to_date(code: str) -> None:
    """A catalogue has exactly what the pages say, all of it translated, as `nox -s messages` leaves it."""
    text, wanted = text_of(code), messages().messages()
    assert messages().missing(text, code, wanted) == []
    assert messages().updated(text, code, wanted) == text


@pytest.mark.parametrize("code", OTHERS)
def test_translations_have_the_places_and_tags_of_their_messages(code: str) -> None:
    """A value is never lost or asked for in vain, and the markup stays whole."""
    entries = find(code).entries
    for context, message in messages().messages():
        english = forms(message)
        for translation in entries[context, english[0]]:
            for pattern in (r"\{\w*\}", r"</?\w+>"):
                wanted = [set(re.findall(pattern, form)) for form in english]
                assert set(re.findall(pattern, translation)) in wanted, translation


@pytest.mark.parametrize("code", OTHERS)
def test_our_reader_reads_what_babel_reads(code: str) -> None:
    """Babel, the reference for such files, finds the same translations and the same rule for plurals."""
    theirs = read_po(io.StringIO(text_of(code)), locale=code)
    entries = {}
    for message in theirs:
        if message.id:
            one = message.id if isinstance(message.id, str) else message.id[0]
            strings = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
            entries[message.context or "", one] = strings
    ours = find(code)
    assert entries == ours.entries
    assert [ours.plural(n) for n in range(30)] == [eval(theirs.plural_expr, {"n": n}) for n in range(30)]  # noqa: S307


def test_entries_without_a_translation_are_missing() -> None:
    """An empty, a fuzzy and an obsolete entry do not count; lines that are continued do."""
    text = (
        HEAD + 'msgid "a"\nmsgstr ""\n\n#, fuzzy\nmsgid "b"\nmsgstr "B"\n\n#~ msgid "c"\n#~ msgstr "C"\n\n'
        'msgctxt "x"\nmsgid ""\n"d "\n"e"\nmsgstr ""\n"D \\"E\\""\n\n'
        'msgid "f"\nmsgid_plural "fs"\nmsgstr[0] "F"\nmsgstr[1] "Fs"\n'
    )
    language = parse(text, "xx")
    assert language.entries == {("x", "d e"): ('D "E"',), ("", "f"): ("F", "Fs")}
    assert [language.numbered("f", "fs", n) for n in (0, 1, 2)] == ["F", "F", "Fs"]


def test_a_missing_message_is_named_with_the_remedy() -> None:
    """Whoever changes a page reads which message the catalogue lacks, and what adds it."""
    with pytest.raises(LanguageError, match=r"language/xx\.po: lacks the message 'Every run'.*nox -s messages"):
        Language("xx").message("Every run")
    with pytest.raises(LanguageError, match=r"lacks the message '\{n\} run'"):
        Language("xx").numbered("{n} run", "{n} runs", 2)


def test_a_line_that_cannot_be_read_is_named() -> None:
    """A quote too few in a catalogue is found."""
    with pytest.raises(LanguageError, match=r"xx\.po: cannot be read at 'msgstr \"A'"):
        parse(HEAD + 'msgid "a"\nmsgstr "A\n', "xx")


@pytest.mark.parametrize("code", ["fr", "", "../es", "ES"])
def test_unknown_languages_are_refused(code: str) -> None:
    """The message names the languages that there are."""
    with pytest.raises(LanguageError, match=f"{re.escape(code)}: not a language of the pages.*en, es"):
        find(code)


def test_a_new_language_is_one_file() -> None:
    """The tool makes a catalogue with a place for every message, in as many forms as the language has."""
    wanted = [("", "Seeds"), ("", ("{n} run", "{n} runs")), ("unit", "points")]
    text = messages().updated("", "pl", wanted)
    assert messages().missing(text, "pl", wanted) == ["Seeds", "{n} run", "points"]
    assert text.count("msgstr[") == 3
    filled = text.replace('msgid "Seeds"\nmsgstr ""', 'msgid "Seeds"\nmsgstr "Ziarna"')
    assert parse(filled, "pl").entries == {("", "Seeds"): ("Ziarna",)}
    assert 'msgstr "Ziarna"' in messages().updated(filled, "pl", wanted)
    assert "Ziarna" not in messages().updated(filled, "pl", wanted[1:])


def test_messages_are_found_wherever_they_are_said() -> None:
    """In calls, in f-strings, with their contexts and plurals, and in templates within modules."""
    code = (
        'a = f"{say(\'in an {x}\', x=1)}"\nb = count(n, "{n} one", "{n} more")\nc = say_as("of it", "word")\n'
        'd = "{% trans %}5 % of\\n  {{ n }}{% endtrans %}"\ne = later_count(n, "1", "2")\nf = say(x)\n'
        'g = text.count("no")\n'
    )
    assert list(messages()._of_python(code)) == [
        ("", "in an {x}"), ("", ("{n} one", "{n} more")), ("of it", "word"), ("", "5 % of {n}"), ("", ("1", "2")),
    ]  # fmt: skip
