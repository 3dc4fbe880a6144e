"""A section of the page, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mnist_ablate.report.svg import Picture
from mnist_ablate.report.tables import Table


@dataclass(frozen=True)
class Section:
    """A section of the page: what it shows, and how its parts are put together.

    Parameters
    ----------
    id
        For links, and for the page's own use.
    heading
        What stands above it.
    template
        Its body in Jinja, which can show a table as ``{{ table(tables.cells) }}``, and a picture with its caption
        as ``{% call figure(pictures, "accuracy") %}...{% endcall %}``.
    tables, pictures
        By the names under which `template` asks for them; None where the study has nothing for one. The name of a
        picture is also that of its file.
    values
        What else `template` needs.
    style
        A class for the style sheet.
    """

    id: str
    heading: str
    template: str
    tables: Mapping[str, Table | None] = field(default_factory=dict)
    pictures: Mapping[str, Picture | None] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    style: str = ""
