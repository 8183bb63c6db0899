"""Settings of the two trainings; light, so that a line file is checked without importing torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from labelmill.config import Config, FilePath

DETECTOR_MODELS = ("yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x")
STRIDE_PX = 32
HUB_PATTERN = r"^hf://[^/]+/[^/]+/.+\.safetensors$"

DetectorModel = Literal["yolov5n", "yolov5s", "yolov5m", "yolov5l", "yolov5x"]
Method = Literal["lora", "probe", "full", "resnet18"]


def _multiple_of_stride(value: int) -> int:
    if value % STRIDE_PX:
        below = value // STRIDE_PX * STRIDE_PX
        raise ValueError(
            f"must be a multiple of {STRIDE_PX}; the nearest are {below} and {below + STRIDE_PX}"
        )
    return value


ImagePx = Annotated[int, Field(ge=STRIDE_PX, le=4096), AfterValidator(_multiple_of_stride)]
"""Side of the square that a frame is letterboxed to, a multiple of the detector's largest stride."""


class DetectorConfig(Config):
    """How a detector is trained (LRIAR, eq. 5: YOLOv5 on D_L).

    Attributes:
        model: Size of YOLOv5, from the smallest (n) to the largest (x).
        weights: Where training starts: a `.safetensors` file with ultralytics' tensor names (a backbone is
            enough), a model folder that labelmill wrote, `hf://owner/repository/file.safetensors`, or nothing
            for random weights.
        image_px: Frames are letterboxed to a square of this side.
        epochs: At most this many passes over the training split.
        batch: Frames a step; "auto" fits it to the GPU's memory, and is 16 on a CPU.
        freeze: How many of the first layers keep their initial weights (10: the backbone).
        optimizer: "auto" is AdamW for short trainings and MuSGD for long ones, with a rate for the number of
            classes (ultralytics' choice); otherwise `learning_rate` counts.
        learning_rate: For "SGD" and "AdamW".
        warmup_epochs: Over how many epochs the rate rises.
        mosaic: Share of training pictures made of four.
        patience: Stop after this many epochs without a better mAP on the validation split.
        seed: Of every random number: order, augmentation, initial weights.
        mixed_precision: Half precision where the device is a GPU.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: Processes that read pictures on a GPU machine; a CPU training reads in its own process.
    """

    model: DetectorModel = "yolov5n"
    weights: Annotated[str, Field(pattern=HUB_PATTERN)] | FilePath | None = Field(
        default=None, union_mode="left_to_right"
    )
    image_px: ImagePx = 640
    epochs: PositiveInt = 100
    batch: PositiveInt | Literal["auto"] = "auto"
    freeze: int = Field(default=0, ge=0, le=24)
    optimizer: Literal["auto", "SGD", "AdamW"] = "auto"
    learning_rate: PositiveFloat = 0.01
    warmup_epochs: float = Field(default=3.0, ge=0)
    mosaic: float = Field(default=1.0, ge=0, le=1)
    patience: PositiveInt = 50
    seed: int = Field(default=0, ge=0)
    mixed_precision: bool = True
    device: str = "auto"
    workers: int = Field(default=4, ge=0)

    not_in_key: ClassVar[frozenset[str]] = frozenset({"device", "workers"})


LEARNING_RATES: dict[Method, float] = {
    "lora": 5e-3,  # the paper's
    "probe": 5e-3,
    "full": 1e-4,  # a pretrained transformer does not survive 5e-3 on every weight
    "resnet18": 1e-3,
}
"""Learning rate of each method where the settings name none."""


class ClassifierConfig(Config):
    """How a classifier is trained (LRIAR, eq. 6: a ViT with LoRA, `h = W0 x + B A x`).

    Attributes:
        method: "lora" trains low-rank adapters and the head; "probe" the head alone; "full" every weight;
            "resnet18" a ResNet-18 entirely (then `backbone` is not used).
        backbone: A timm model's name, one of "vit-ti16", "vit-s16", "vit-b16", "vit-l16" (the paper's), or a
            local folder that transformers' `save_pretrained` wrote.
        weights: Initial weights of a timm backbone: a `.safetensors` file or a state dict of tensors. Without
            it they are looked for in the hub's cache on this machine.
        pretrained: False starts from random weights, and the model card says so.
        start: A classifier folder that labelmill wrote: training goes on from its weights (v4 from v3's).
        image_px: Crops are scaled to a square of this side; the backbone's own when absent.
        rank: r of the adapters.
        alpha: Their scale is alpha / rank.
        adapter_dropout: On the adapters' input.
        target_modules: Names of the layers that get adapters; without it the attention's query and value
            projections (timm keeps query, key and value in one layer, `qkv`).
        learning_rate: Peak of a cosine schedule with warm-up; by method when absent: lora and probe 5e-3 (the
            paper's), full 1e-4, resnet18 1e-3.
        weight_decay: AdamW's.
        batch: Crops a step.
        epochs: At most this many passes over the training split.
        warmup: Share of all steps over which the rate rises.
        patience: Stop after this many epochs without a better balanced accuracy (then loss) on validation.
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: Weigh the loss against unequal class counts, at most 10 to 1.
        flip: Whether training crops are mirrored; switch it off where left and right mean different actions.
        ng: "class" makes NG one more class; "reject" leaves NG out of training, and calls NG what the trained
            classifier scores below a threshold on its own calibrated probability.
        accept_accuracy: With "reject": the threshold is the lowest at which the accepted validation crops
            reach this accuracy.
        mixed_precision: Half precision where the device is a GPU.
        seed: Of every random number: order, augmentation, head, adapters, random backbones.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        workers: Threads that decode crops.
    """

    method: Method = "lora"
    backbone: str = "vit-l16"
    weights: FilePath | None = None
    pretrained: bool = True
    start: FilePath | None = None
    image_px: int | None = Field(default=None, ge=16, le=1024)
    rank: PositiveInt = 16
    alpha: PositiveFloat = 16.0
    adapter_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] | None = None
    learning_rate: PositiveFloat | None = None
    weight_decay: float = Field(default=0.01, ge=0)
    batch: PositiveInt = 64
    epochs: PositiveInt = 30
    warmup: float = Field(default=0.05, ge=0, lt=1)
    patience: PositiveInt = 8
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: bool = True
    flip: bool = True
    ng: Literal["class", "reject"] = "class"
    accept_accuracy: float = Field(default=0.99, gt=0, le=1)
    mixed_precision: bool = True
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    workers: PositiveInt = 2

    not_in_key: ClassVar[frozenset[str]] = frozenset({"device", "workers"})

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that counts, chosen by method where none is named."""
        return self.learning_rate if self.learning_rate is not None else LEARNING_RATES[self.method]


class TrainingConfig(Config):
    """The `training` part of a line file: what `labelmill run` trains from each new version.

    Attributes:
        detector: Absent: no detector is trained.
        classifier: Absent: no classifier is trained.
        models: Folder that gets `detector-v<N>` and `classifier-v<N>`; the workspace's `models/` when absent.
        from_previous: Start from the models of the previous version where they exist.
        export: Formats to write after training.
    """

    detector: DetectorConfig | None = None
    classifier: ClassifierConfig | None = None
    models: FilePath | None = None
    from_previous: bool = True
    export: tuple[Literal["onnx", "openvino"], ...] = ()
