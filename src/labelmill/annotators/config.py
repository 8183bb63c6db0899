"""The `crop`, `templates` and `matching` sections of a line file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from labelmill.config import Config, FilePath


class CropConfig(Config):
    """How a region becomes a crop.

    Attributes:
        margin: Share of the box's width and height that is added on each side.
        square: Widen the shorter side to the longer one, so that resizing keeps the proportions.
    """

    margin: Annotated[float, Field(ge=0, le=2)] = 0.0
    square: bool = False


class TemplatesConfig(Config):
    """What the classes look like.

    Attributes:
        folder: One sub-folder of images per class; its name is the class.
        ng: Examples of what must not fire (no good): images, in sub-folders or not. Optional.
    """

    folder: FilePath
    ng: FilePath | None = None


def _cosine(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (number and -1 <= value <= 1):  # type: ignore[operator]
        raise PydanticCustomError("lambda", "expected a cosine from -1 to 1, or auto")
    return value


class MatchingConfig(Config):
    """When a crop is taken for a class, sent to people, or called NG.

    Attributes:
        lambda_: λ of LRIAR, eq. 3 (`lambda` in a line file): the least similarity of a match, from -1 to 1.
            `auto` takes the value that best separates the templates of a class from the rest.
        margin: The least lead over the runner-up (another class or an NG template) that needs no person.
        review_band: Crops whose similarity is below λ by less than this go to people.
    """

    lambda_: Annotated[float | Literal["auto"], BeforeValidator(_cosine), Field(alias="lambda")] = "auto"
    margin: Annotated[float, Field(ge=0, le=2)] = 0.03
    review_band: Annotated[float, Field(ge=0, le=2)] = 0.05
