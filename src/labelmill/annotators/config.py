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
        background: Unlabelled crops of the line, a few hundred or more: a crop then counts as similar to a
            class by how much more it resembles its templates than its neighbours among these. Optional.
        turned: A template counts as similar to a crop as the most similar of its four quarter turns, for
            things that lie at any angle. Costs next to nothing; an encoder's own `turned` tells more.
    """

    folder: FilePath
    ng: FilePath | None = None
    background: FilePath | None = None
    turned: bool = False


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
        space: Where the cosine is taken (`embedding_space.fit_space`): "raw" is LRIAR, eq. 2 to the letter;
            "whitened" shortens the directions in which templates of one class differ (the same as "raw" with
            one template a class); "centred" takes away what all classes have in common, for many unlike
            classes; "discriminant" does both.
        neighbours: Similarity to a class is the mean over so many of its nearest templates; 1 is the maximum
            of LRIAR, eq. 3.
    """

    lambda_: Annotated[float | Literal["auto"], BeforeValidator(_cosine), Field(alias="lambda")] = "auto"
    margin: Annotated[float, Field(ge=0, le=2)] = 0.03
    review_band: Annotated[float, Field(ge=0, le=2)] = 0.05
    space: Literal["raw", "centred", "whitened", "discriminant"] = "whitened"
    neighbours: Annotated[int, Field(ge=1)] = 3
