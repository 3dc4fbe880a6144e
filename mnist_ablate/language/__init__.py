"""The words of the pages in several languages: say a message here, and it comes out in the language being spoken.

>>> from mnist_ablate.language import say, speaking
>>> with speaking("es"):
...     say("Every run")
'Todos los entrenamientos'

The English message is the source and the key. Each other language is one file beside this one, ``<code>.po``, read
when it is first spoken. Messages are whole sentences with named places, never parts to be joined: languages differ in
the order of words. What is computed and kept (verdicts, frames) holds English, marked with `mark` or `later`, and is
translated with `told` where it is shown.
"""

from mnist_ablate.language.catalogue import ENGLISH, Language, find, folder_of, languages
from mnist_ablate.language.speech import (
    Message,
    at_start,
    count,
    figures,
    later,
    later_as,
    later_by,
    later_count,
    mark,
    mark_as,
    say,
    say_as,
    speaking,
    spoken,
    template_count,
    template_message,
    told,
    told_as,
    whole,
)

__all__ = [
    "ENGLISH", "Language", "Message", "at_start", "count", "figures", "find", "folder_of", "languages", "later",
    "later_as", "later_by", "later_count", "mark", "mark_as", "say", "say_as", "speaking", "spoken",
    "template_count", "template_message", "told", "told_as", "whole",
]  # fmt: skip
