"""The folder of a trained model: what it is, and proof that its files are those that were written.

- `model.json`: this module's `ModelInfo`, with the SHA-256 of every weights file
- `model.safetensors`: weights, merged and ready to run
- `adapter/`: LoRA's own weights, where it was used
- `model.onnx`, `openvino/model.xml`, `openvino/model.bin`: exports
- `metrics.json`, `plots/*.png`, `README.md`: what was measured, for machines and for people
- `run/`: history and checkpoint of the training

A pickle is never among them, and none is ever loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labelmill.errors import TrainingError, WeightsError
from labelmill.files import digest_file, write_bytes

FORMAT = 1
INFO = "model.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
OPENVINO = "openvino/model.xml"
OPENVINO_WEIGHTS = "openvino/model.bin"

Backend = Literal["torch", "onnx", "openvino"]


class ModelInfo(BaseModel):
    """What a model is and where it came from.

    Attributes:
        format: Of this file.
        kind: "detector" or "classifier".
        architecture: Name from which the network is built: "yolov5n", or a timm model's.
        arguments: Further arguments of the network's builder.
        classes: Names by index; NG among them where it was trained as a class.
        image_px: Side of the square that the network was trained on.
        dataset: `dataset@vN` that it was trained on.
        dataset_digest: Of the pulled files.
        settings: Of the training, as JSON.
        training_digest: Of data, settings and initial weights: the same training has the same.
        temperature: Divides a classifier's logits, so that its scores are probabilities.
        reject_below: A classifier's score below which a crop is called NG; None where NG is a class.
        files: SHA-256 of each weights file, by its path in the folder.
        made_by: Version of labelmill.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = FORMAT
    kind: Literal["detector", "classifier"]
    architecture: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...] = Field(min_length=1)
    image_px: int = Field(gt=0)
    dataset: str = ""
    dataset_digest: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    training_digest: str = ""
    temperature: float = Field(default=1.0, gt=0)
    reject_below: float | None = None
    files: dict[str, str] = Field(default_factory=dict)
    made_by: str = ""


def read_model(root: Path, kind: Literal["detector", "classifier"] | None = None) -> ModelInfo:
    """Read what a model folder says it is.

    Args:
        root: The folder.
        kind: The kind that is wanted.

    Raises:
        TrainingError: It is no model folder, or of another kind or format.
    """
    try:
        info = ModelInfo.model_validate_json((root / INFO).read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(
            f"{root} is not a model folder",
            got="a pickle or another single file" if root.is_file() else f"no {INFO}",
            expected="a folder that `labelmill train` wrote",
        ) from error
    except NotADirectoryError as error:
        raise TrainingError(
            f"{root} is not a model folder",
            got=f"a {root.suffix or 'plain'} file",
            expected="a folder that `labelmill train` wrote",
            do="start a training from it: labelmill train detector --weights FILE.safetensors",
        ) from error
    except (ValidationError, OSError) as error:
        first = str(error).splitlines()[0]
        raise TrainingError(
            f"{root / INFO} is damaged", got=first, do="train again, or restore the folder"
        ) from error
    if info.format != FORMAT:
        raise TrainingError(
            f"model {root} has another format",
            got=info.format,
            expected=str(FORMAT),
            do="use the labelmill that made it",
        )
    if kind is not None and info.kind != kind:
        raise TrainingError(f"model {root} is a {info.kind}", expected=f"a {kind}", do="name another folder")
    return info


def write_model(root: Path, info: ModelInfo) -> ModelInfo:
    """Write `model.json` with the present digest of every weights file in the folder.

    Returns:
        The same information, with those digests.
    """
    present = [root / name for name in (WEIGHTS, ONNX, OPENVINO, OPENVINO_WEIGHTS)]
    present += sorted((root / "adapter").glob("*"))
    files = {path.relative_to(root).as_posix(): digest_file(path) for path in present if path.is_file()}
    written = info.model_copy(update={"files": files})
    write_bytes(root / INFO, json.dumps(written.model_dump(mode="json"), indent=2).encode() + b"\n")
    return written


def trusted_file(root: Path, info: ModelInfo, name: str) -> Path:
    """A weights file of the folder, once its bytes are known to be those that were written.

    Raises:
        WeightsError: It is absent, or its digest is not the recorded one.
    """
    path = root / name
    if not path.is_file() or name not in info.files:
        raise WeightsError(
            f"model {root} has no {name}",
            do=f"write it: labelmill export {root}"
            if name != WEIGHTS
            else "train again, or restore the folder",
        )
    found = digest_file(path)
    if found != info.files[name]:
        raise WeightsError(
            f"{path} is damaged or was exchanged",
            got=f"SHA-256 {found[:12]}…",
            expected=f"{info.files[name][:12]}… as {INFO} records",
            do="restore the folder, or train again",
        )
    return path
