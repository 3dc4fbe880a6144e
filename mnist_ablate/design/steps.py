"""A number of seeds that grows, step by step, until a study is settled."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LEAST_FIRST = 6
MOST_LOOKS = 100
EXAMPLE = "{ first = 10, step = 10, most = 120 }"


class Steps(BaseModel):
    """Numbers of seeds at which a study is looked at: `first`, then `step` more each time, up to `most`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    first: Annotated[int, Field(ge=LEAST_FIRST, le=100_000)]
    step: Annotated[int, Field(ge=1, le=100_000)]
    most: Annotated[int, Field(ge=1, le=100_000)]

    @property
    def looks(self) -> tuple[int, ...]:
        """The number of seeds of each look."""
        return tuple(range(self.first, self.most + 1, self.step))
