"""What of a line file decides an annotation run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny
from pydantic_core import PydanticCustomError

from labelmill.annotators.config import CropConfig, MatchingConfig, TemplatesConfig
from labelmill.config import Config, MakerConfig
from labelmill.datasets.sources.config import SelectionConfig, SourceConfig
from labelmill.errors import UnknownMakerError
from labelmill.makers import ENCODERS, PROPOSERS, Registry


def _maker(registry: Registry, default: str) -> BeforeValidator:
    def validate(value: Any, info: Any) -> Any:
        if isinstance(value, MakerConfig):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise PydanticCustomError("maker", "expected a mapping with `kind`")
        kind = str(value.get("kind", default))
        try:
            model = registry.config(kind)
        except UnknownMakerError as error:
            raise PydanticCustomError("unknown_kind", "{text}", {"text": str(error)}) from error
        return model.model_validate({**value, "kind": kind}, context=info.context)

    return BeforeValidator(validate)


ProposerConfig = Annotated[SerializeAsAny[MakerConfig], _maker(PROPOSERS, "motion")]
EncoderConfig = Annotated[SerializeAsAny[MakerConfig], _maker(ENCODERS, "hog")]


class AnnotationConfig(Config):
    """The sections of a line file that `annotate` follows.

    Attributes:
        name: Name of the line: letters, digits, `-`, `_` and `.`.
        sources: Where the footage is.
        selection: Which frames are looked at.
        proposer: What finds regions, by `kind`.
        crop: How a region becomes a crop.
        encoder: What embeds crops, by `kind`.
        templates: What the classes look like. Without it, every region goes to people.
        matching: λ, and what goes to people.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    selection: SelectionConfig = SelectionConfig()
    proposer: ProposerConfig = Field(default_factory=lambda: PROPOSERS.config("motion")())  # type: ignore[call-arg]
    crop: CropConfig = CropConfig()
    encoder: EncoderConfig = Field(default_factory=lambda: ENCODERS.config("hog")())  # type: ignore[call-arg]
    templates: TemplatesConfig | None = None
    matching: MatchingConfig = MatchingConfig()
    _base: Path = PrivateAttr(default_factory=Path.cwd)

    def model_post_init(self, context: Any) -> None:
        """Remember the line file's folder."""
        if context and context.get("base"):
            self._base = Path(context["base"])

    @property
    def base(self) -> Path:
        """The line file's folder."""
        return self._base
