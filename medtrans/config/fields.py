"""What the models of recipes are made of, besides pydantic's own types."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class StrictModel(BaseModel):
    """A table of a recipe: an unknown key is an error, and nothing can be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)
