"""How a text file is written, where that cannot be seen in it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """How a text file is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    encoding: str = "utf-8"
    """Such as ``cp1252``."""
    separator: Annotated[str, Field(max_length=1)] = ""
    """Between cells; empty: the commonest of comma, semicolon and tab in the first line."""
    decimal: Literal["", ".", ","] = ""
    """In numbers; empty: a point."""
