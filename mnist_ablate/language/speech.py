"""Say messages, numbers and text in the language that is being spoken, English unless `speaking` says otherwise."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from mnist_ablate.language.catalogue import ENGLISH, Language, find

_ENGLISH = Language(ENGLISH)
_SPOKEN: ContextVar[Language | None] = ContextVar("language", default=None)


def spoken() -> Language:
    """Return the language that is being spoken."""
    return _SPOKEN.get() or _ENGLISH


@contextmanager
def speaking(language: str | Language) -> Iterator[None]:
    """Speak a language, given by its code.

    Raises
    ------
    LanguageError
        If there is no such language.
    """
    before = _SPOKEN.set(find(language) if isinstance(language, str) else language)
    try:
        yield
    finally:
        _SPOKEN.reset(before)


# ---- Messages ----


def say(message: str, /, **values: object) -> str:
    """Return a message with `values` in its places."""
    return spoken().message(message).format(**values)


def say_as(context: str, message: str, /, **values: object) -> str:
    """Return a message that other contexts may translate in another way."""
    return spoken().message(message, context).format(**values)


def count(n: int, one: str, many: str, /, **values: object) -> str:
    """Return the form of a message that goes with the number `n`, which is also the value of its place ``{n}``."""
    return spoken().numbered(one, many, n).format(n=whole(n), **values)


def mark(message: str) -> str:
    """Return a message as it is, in English, to be translated where it is shown, by `told`."""
    return message


def mark_as(context: str, message: str) -> str:  # noqa: ARG001 # what collects the messages reads it
    """Return a message as it is; `told_as` translates it in its context."""
    return message


class Message(str):
    """English text that remembers how it was said, so that `told` can say it again in another language.

    It may be kept, compared and written like any text.
    """

    again: Callable[[], str]
    """Says it in the language that is being spoken."""

    def __reduce__(self) -> tuple[object, ...]:
        return later_by, (self.again,)


def later_by(function: Callable[..., str], /, *arguments: object) -> Message:
    """Return in English what a function says of `arguments`; `told` calls it again in the language of a page."""
    again = partial(function, *arguments) if arguments else function
    with speaking(_ENGLISH):
        text = Message(again())
    text.again = again
    return text


def later(message: str, /, **values: object) -> Message:
    """Return a message in English, to be said again by `told` in the language of a page.

    Values that are text are told, too.
    """
    return later_by(_say_told, message, values)


def later_count(n: int, one: str, many: str, /, **values: object) -> Message:
    """Return the form of a message that goes with `n`, as `later` does."""
    return later_by(_count_told, n, one, many, values)


def later_as(context: str, text: str, /) -> Message:
    """Return text that was marked in a context, to be said again in it by `told`."""
    return later_by(told_as, context, text)


def _say_told(message: str, values: dict[str, object]) -> str:
    return say(message, **_told_values(values))


def _count_told(n: int, one: str, many: str, values: dict[str, object]) -> str:
    return count(n, one, many, **_told_values(values))


def _told_values(values: dict[str, object]) -> dict[str, object]:
    return {name: told(value) if isinstance(value, str) else value for name, value in values.items()}


def told(text: str) -> str:
    """Say text that was made elsewhere: a `Message` again, a marked one translated; a user's own words stay."""
    return text.again() if isinstance(text, Message) else spoken().known(text)


def told_as(context: str, text: str) -> str:
    """Say text that was marked in a context; a user's own words stay."""
    return spoken().known(text, context)


def at_start(text: str) -> str:
    """Write `text` with a capital, as at the start of a sentence."""
    return text[:1].upper() + text[1:]


# ---- Numbers ----

_FIGURES = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def figures(text: str) -> str:
    """Write the numbers of `text`, which are in English, as the language does."""
    if spoken().code == ENGLISH:
        return text
    point = say_as("number", "0.5")[1:-1]

    def written(match: re.Match[str]) -> str:
        integer, _, fraction = match[0].partition(".")
        groups = integer.split(",")
        # Spanish, for one, writes 1000 and 10 000.
        example = say_as("number", "1,000")[1:-3] if len(integer) == 5 else say_as("number", "10,000")[2:-3]
        return example.join(groups) + (point + fraction if fraction else "")

    return _FIGURES.sub(written, text)


def whole(n: int) -> str:
    """Write a whole number, with its thousands apart."""
    return figures(f"{n:,}")


# ---- Templates ----

_PLACE, _NAMED = re.compile(r"%\((\w+)\)s"), re.compile(r"\{(\w+)\}")


def from_template(text: str) -> str:
    """Return the message in the text of a ``trans`` block: one line, and places as in other messages."""
    return _PLACE.sub(r"{\1}", " ".join(text.split()).replace("%%", "%"))


def _to_template(message: str) -> str:
    return _NAMED.sub(r"%(\1)s", message.replace("%", "%%"))


def template_message(text: str) -> str:
    """Return the text of a ``trans`` block in the language; in English as it stands, with its line breaks."""
    return text if spoken().code == ENGLISH else _to_template(spoken().message(from_template(text)))


def template_count(one: str, many: str, n: int) -> str:
    """Return the form of a ``trans`` block that goes with the number `n`."""
    if spoken().code == ENGLISH:
        return one if n == 1 else many
    return _to_template(spoken().numbered(from_template(one), from_template(many), n))
