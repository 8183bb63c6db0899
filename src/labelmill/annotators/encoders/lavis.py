"""BLIP-2 as its authors publish it (salesforce-lavis), in an environment and a process of its own.

lavis needs transformers 4.26 and numpy 1, so that it cannot be imported beside the rest of labelmill; what
crosses the border is pixels and embeddings (`lavis_worker.py`).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from labelmill.annotators.encoders import lavis_worker
from labelmill.annotators.encoders.batches import Pixels, View, embed
from labelmill.annotators.encoders.blip2 import CLIP_MEAN, CLIP_STD, Features
from labelmill.annotators.model_store import may_fetch
from labelmill.annotators.state_dicts import conversion_command
from labelmill.annotators.types import Embeddings, Image
from labelmill.annotators.workers import Worker, WorkerSpec
from labelmill.config import FilePath, MakerConfig
from labelmill.environments import LOCKS, ensure_environment, locate
from labelmill.errors import ServiceError, WeightsError

_log = logging.getLogger(__name__)

_LOAD_TIMEOUT_S = 900.0  # importing lavis takes half a minute, reading ViT-g from a slow disk minutes
_SOURCE = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"


class LavisConfig(MakerConfig):
    """Settings of the `lavis` encoder.

    Attributes:
        checkpoint: LAVIS's BLIP-2 checkpoint, such as `blip2_pretrained.pth`.
        vit: Its vision transformer, `eva_vit_g.pth`, where the checkpoint does not hold it.
        features: "pooled", "projected" or "cls", as for the `blip2` encoder.
        fit: "squash" stretches a crop to the square, "pad" keeps its aspect ratio, "both" takes the mean of
            the two at twice the cost.
        turned: Take the mean over a crop's four quarter turns too, for things that lie at any angle; at four
            times the cost.
        batch_size: Crops in one request.
        device: "auto", "cpu", "cuda"; on CUDA the vision transformer runs in float16, as LAVIS has it.
        timeout_s: Seconds that one request may take before its worker counts as hung.
    """

    kind: Literal["lavis"] = "lavis"
    checkpoint: FilePath
    vit: FilePath | None = None
    features: Features = "pooled"
    fit: View = "squash"
    turned: bool = False
    batch_size: int = Field(default=8, ge=1)
    device: str = "auto"
    timeout_s: float = Field(default=600, gt=0)

    not_in_key: ClassVar[frozenset[str]] = frozenset({"batch_size", "device", "timeout_s"})

    def files(self) -> tuple[Path, ...]:
        """The weights, and the list of packages that run them."""
        weights = (self.checkpoint, self.vit) if self.vit else (self.checkpoint,)
        return (*weights, LOCKS / "lavis.lock")


class Lavis:
    """Embeddings from salesforce-lavis; the environment and the worker are made when first needed."""

    Config = LavisConfig
    version = 1

    def __init__(self, config: LavisConfig) -> None:
        self.config = config

    @cached_property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.worker.start()["dims"][self.config.features])

    def encode(self, crops: Sequence[Image]) -> Embeddings:
        """Embed crops.

        Returns:
            Float32, shape (len(crops), dim), not normalised.

        Raises:
            ServiceError: The environment cannot be made, or the worker fails twice at one batch.
            WeightsError: The checkpoint cannot be used.
        """
        dim = self.dim
        return embed(
            crops,
            size_px=int(self.worker.greeted["size_px"]),
            fit=self.config.fit,
            turned=self.config.turned,
            batch_size=self.config.batch_size,
            forward=self._forward,
            dim=dim,
        )

    def _forward(self, pixels: Pixels) -> Embeddings:
        _, found = self.worker.ask({"encode": self.config.features}, pixels)
        embeddings: Embeddings = found
        return embeddings

    @cached_property
    def worker(self) -> Worker:
        """The process; it ends with this encoder."""
        if not may_fetch() and not locate("lavis").whole:
            raise ServiceError(
                "the lavis environment is not made yet: minutes, and 6 GB with CUDA",
                do="make it with `make lavis`; else the first run does",
            )
        for path in self.config.files():
            if not path.is_file():
                raise WeightsError(
                    f"weights {path} are absent", do=f"fetch them from {_SOURCE}{path.name}, or mend the path"
                )
        if not locate("lavis").whole:
            _log.warning("making the lavis environment, once: minutes, and 6 GB with CUDA")
        environment = ensure_environment("lavis", _log.info)
        settings = {
            "checkpoint": str(self.config.checkpoint),
            "vit": str(self.config.vit or ""),
            "device": self.config.device,
            "mean": CLIP_MEAN,
            "std": CLIP_STD,
        }
        command = [str(environment.python), "-P", lavis_worker.__file__]  # -P: timm.py lies beside it
        spec = WorkerSpec(
            "lavis",
            command,
            environment.variables(),
            {"load": settings},
            _LOAD_TIMEOUT_S,
            self.config.timeout_s,
        )
        worker = Worker(
            spec, partial(_raise, self.config.checkpoint)
        )  # no way back to self, or it never ends
        weakref.finalize(self, worker.close)
        return worker

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as settings, and start a worker there."""
        return type(self), (self.config,)


def _raise(checkpoint: Path, reply: dict[str, Any]) -> None:
    """Say what the worker complained of."""
    if "error" not in reply:
        return
    if reply["weights"] and reply["error"] == "pickle":
        raise WeightsError(
            f"weights {checkpoint} are a pickle of live objects, which could run any program",
            expected="safetensors, or a state dict of tensors only",
            do=f"convert it where you trust it: {conversion_command(checkpoint)}",
        )
    if reply["weights"]:
        raise WeightsError(
            f"weights {checkpoint} make no BLIP-2 image encoder",
            got=reply["error"],
            expected="LAVIS's blip2_pretrained.pth, and its eva_vit_g.pth as `vit`",
        )
    raise ServiceError("lavis refuses", got=reply["error"])
