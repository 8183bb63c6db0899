"""Which makers exist for each part of a line, named by `kind`.

A registry holds `module:Class` strings, so that listing or validating a kind imports nothing heavy.
Third parties add theirs through the entry point groups `labelmill.proposers` and `labelmill.encoders`.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from labelmill.config import MakerConfig, nearest
from labelmill.errors import UnknownMakerError


class Registry:
    """An explicit table from `kind` to the class that makes it.

    A maker class has a `Config` (a `MakerConfig`) and is constructed from one.

    Args:
        part: What the makers make, for messages: "proposer", "encoder".
        builtin: `kind` to `module:Class`.
    """

    def __init__(self, part: str, builtin: dict[str, str]) -> None:
        self.part = part
        self._targets = dict(builtin)

    @cached_property
    def _all(self) -> dict[str, str]:
        for point in entry_points(group=f"labelmill.{self.part}s"):
            self.add(point.name, point.value)
        return self._targets

    def add(self, kind: str, target: str) -> None:
        """Register a maker.

        Raises:
            ValueError: The kind is taken by another target.
        """
        if self._targets.get(kind, target) != target:
            raise ValueError(
                f"{self.part} kind {kind!r} is registered twice: {self._targets[kind]} and {target}"
            )
        self._targets[kind] = target

    def kinds(self) -> list[str]:
        """Every known kind, sorted."""
        return sorted(self._all)

    def load(self, kind: str) -> Any:
        """Import the maker class of a kind.

        Raises:
            UnknownMakerError: No maker has this kind.
        """
        if kind not in self._all:
            raise UnknownMakerError(f"unknown {self.part} kind {kind!r}", do=nearest(kind, self._all))
        module, _, name = self._all[kind].partition(":")
        return getattr(importlib.import_module(module), name)

    def config(self, kind: str) -> type[MakerConfig]:
        """The settings model of a kind."""
        model: type[MakerConfig] = self.load(kind).Config
        return model

    def make(self, config: MakerConfig) -> Any:
        """Construct the maker that a line's settings ask for."""
        return self.load(config.kind)(config)


PROPOSERS = Registry(
    "proposer",
    {
        "motion": "labelmill.annotators.proposers.motion:Motion",
        "boxes": "labelmill.annotators.proposers.boxes:Boxes",
        "yolo": "labelmill.annotators.proposers.yolo:Yolo",
        "grounding-dino": "labelmill.annotators.proposers.grounding_dino:GroundingDino",
        "groundingdino-py": "labelmill.annotators.proposers.groundingdino_py:GroundingDinoPy",
    },
)

ENCODERS = Registry(
    "encoder",
    {
        "hog": "labelmill.annotators.encoders.hog:Hog",
        "timm": "labelmill.annotators.encoders.timm:Timm",
        "transformers": "labelmill.annotators.encoders.transformers:Transformers",
        "blip2": "labelmill.annotators.encoders.blip2:Blip2",
        "lavis": "labelmill.annotators.encoders.lavis:Lavis",
    },
)
