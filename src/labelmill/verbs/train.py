"""`labelmill train detector|classifier`, `labelmill evaluate` and `labelmill export`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labelmill.verbs.common import AsJson, emit, note, progress_bar
from labelmill.verbs.versions import StorePath

if TYPE_CHECKING:
    from labelmill.config import Config
    from labelmill.training.model_writing import Written
    from labelmill.training.progress import Report

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="A dataset version (parts@v3), or a folder that `labelmill pull` wrote.",
        show_default=False,
    ),
]
Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A folder that `labelmill train` wrote.", show_default=False),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="The model's folder; default: models/ with VERSION and kind.", show_default=False
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting (docs/training.md); give it again for more."
    ),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Drop the training or model that lies in the folder.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="FORMAT", help="Also write onnx or openvino; give it again for both."),
]
Mlflow = Annotated[
    str | None,
    typer.Option(
        "--mlflow",
        metavar="ADDRESS",
        help="Record the training: an MLflow server's address, or `local` for files beside the model.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps; default: auto.", show_default=False),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of every random number; default: 0.", show_default=False)
]


def _option(name: str, help: str, metavar: str | None = None) -> Any:  # noqa: A002 - typer's word
    """An option whose default the training's settings hold; the help tells it."""
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    train = typer.Typer(
        help="Train a detector or a classifier from a dataset version; goes on where it was interrupted.",
        no_args_is_help=True,
    )
    train.command(
        epilog="Examples: `labelmill train detector parts@v3 --weights yolov5n.safetensors` · "
        "`labelmill train detector parts@v4 --weights models/parts-v3-detector` (goes on from v3's). "
        "Every setting: docs/training.md."
    )(detector)
    train.command(
        epilog="Examples: `labelmill train classifier parts@v3 --backbone vit-l16` · "
        "`labelmill train classifier parts@v3 --method resnet18 --no-pretrained`. "
        "Every setting: docs/training.md."
    )(classifier)
    app.add_typer(train, name="train")
    app.command(
        epilog="Examples: `labelmill evaluate models/parts-v3-detector parts@v3 --split test` · "
        "`labelmill evaluate models/parts-v3-detector parts@v3 --classifier models/parts-v3-classifier-lora`"
    )(evaluate)
    app.command(epilog="Example: `labelmill export models/parts-v3-detector --format openvino`")(export)


def detector(
    version: Version,
    model: Annotated[str, typer.Option(help="yolov5n, yolov5s, yolov5m, yolov5l or yolov5x.")] = "yolov5n",
    weights: Annotated[
        str | None,
        _option("--weights", "A .safetensors file, a model folder or hf://…; default: random weights."),
    ] = None,
    image_px: Annotated[
        int | None,
        _option("--image-px", "Side of the square input, a multiple of 32; default: 640.", "PIXELS"),
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", "At most so many; default: 100.")] = None,
    batch: Annotated[
        str | None,
        _option("--batch", "Frames a step, or auto: what fits the GPU, 16 on a CPU; default: auto."),
    ] = None,
    freeze: Annotated[
        int | None,
        _option("--freeze", "First layers that keep their weights, 10: the backbone; default: 0."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _option("--learning-rate", "Peak of the schedule, of SGD; default: the trainer chooses."),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    settings: Settings = None,
    out: Out = None,
    restart: Restart = False,
    formats: Formats = None,
    mlflow: Mlflow = None,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Train YOLOv5 on a version's boxes."""
    from labelmill.training.config import DetectorConfig
    from labelmill.training.inputs import read_detection

    config = _config(
        DetectorConfig,
        settings,
        model=model,
        weights=weights,
        image_px=image_px,
        epochs=epochs,
        batch=batch,
        freeze=freeze,
        learning_rate=learning_rate,
        optimizer=None if learning_rate is None else "SGD",
        seed=seed,
        device=device,
    )
    with _pulled(version, "yolo", workspace) as folder:
        from labelmill.training.detectors.train import train_detector

        data = read_detection(folder)
        place = _place(out, version, "detector")
        with _steps() as report:
            written = train_detector(data, config, place, restart=restart, report=report)
    _after(written, formats, mlflow, as_json=as_json)


def classifier(
    version: Version,
    method: Annotated[str, typer.Option(help="lora, probe, full or resnet18.")] = "lora",
    backbone: Annotated[
        str | None,
        _option(
            "--backbone",
            "vit-ti16, vit-s16, vit-b16, vit-l16, any timm name, or transformers' folder; default: vit-l16.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        _option("--weights", "The backbone's: a .safetensors file; default: the hub's on this machine."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option(help="Start from the backbone's pretrained weights, or from random ones.")
    ] = True,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A classifier's folder to go on from.", show_default=False),
    ] = None,
    image_px: Annotated[
        int | None, _option("--image-px", "Side of the square input; default: the backbone's own.", "PIXELS")
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", "At most so many; default: 30.")] = None,
    batch: Annotated[str | None, _option("--batch", "Crops a step; default: 64.")] = None,
    learning_rate: Annotated[
        float | None,
        _option("--learning-rate", "Peak of the schedule; default: by method, from 1e-4 to 5e-3."),
    ] = None,
    ng: Annotated[
        str | None,
        _option("--ng", "NG is one more class, or reject: what scores low in every class; default: class."),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    settings: Settings = None,
    out: Out = None,
    restart: Restart = False,
    formats: Formats = None,
    mlflow: Mlflow = None,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on a version's crops: LoRA on a ViT, or a baseline."""
    from labelmill.training.config import ClassifierConfig
    from labelmill.training.inputs import read_crops

    config = _config(
        ClassifierConfig,
        settings,
        method=method,
        backbone=backbone,
        weights=weights,
        pretrained=pretrained,
        start=start,
        image_px=image_px,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        ng=ng,
        seed=seed,
        device=device,
    )
    with _pulled(version, "imagefolder", workspace) as folder:
        from labelmill.training.classifiers.train import train_classifier

        data = read_crops(folder)
        place = _place(out, version, f"classifier-{method}")
        with _steps() as report:
            written = train_classifier(data, config, place, restart=restart, report=report)
    _after(written, formats, mlflow, as_json=as_json)


def evaluate(
    model: Model,
    version: Version,
    split: Annotated[str, typer.Option(help="Of the version: train, val or test.")] = "val",
    classifier: Annotated[
        Path | None,
        typer.Option(
            "--classifier",
            help="With a detector: the folder of a classifier, to measure both together.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="torch, or onnx or openvino where the model was exported.")
    ] = "torch",
    threshold: Annotated[
        float, typer.Option(help="Score, 0 to 1, from which on a detector's boxes count.")
    ] = 0.25,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a split of a version."""
    from labelmill.annotators.model_folder import read_model

    chosen: Any = _one_of("--backend", backend, ("torch", "onnx", "openvino"))
    info = read_model(model)
    if info.kind == "classifier":
        from labelmill.training.classifiers.evaluate import evaluate_classifier
        from labelmill.training.classifiers.predictor import CropClassifier
        from labelmill.training.inputs import read_crops

        with _pulled(version, "imagefolder", workspace) as folder:
            crops = read_crops(folder)
            figures = evaluate_classifier(CropClassifier.load(model, chosen), crops.split(split)).as_dict()
        name, digest = crops.version, crops.digest
    else:
        from labelmill.annotators.yolo.detector import Detector
        from labelmill.training.detectors.evaluate import evaluate_detector, evaluate_jointly
        from labelmill.training.inputs import read_detection

        loaded = Detector.load(model, chosen)
        with _pulled(version, "yolo", workspace) as folder:
            pictures = read_detection(folder)
            if classifier is None:
                figures = evaluate_detector(loaded, pictures, split, threshold).as_dict()
            else:
                from labelmill.training.classifiers.predictor import CropClassifier

                second = CropClassifier.load(classifier, chosen)
                figures = evaluate_jointly(loaded, second, pictures, split, threshold=threshold).as_dict()
        name, digest = pictures.version, pictures.digest
    document = {"model": str(model), "version": name, "digest": digest, "split": split, **figures}
    emit(document, as_json=as_json, text=lambda: _text(f"{model} on {name}, {split}", figures))


def export(
    model: Model,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help="onnx or openvino; default: both.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX and OpenVINO graphs, each held against PyTorch."""
    differences = _export(model, formats or ["onnx", "openvino"])
    emit(
        {"model": str(model), "differences": differences},
        as_json=as_json,
        text=lambda: "\n".join(
            f"{name}: outputs equal PyTorch's to {value:.1e} of the largest"
            for name, value in differences.items()
        ),
    )


def _config(kind: type[Config], settings: list[str] | None, /, **options: Any) -> Any:
    """Settings from options and `--set`, validated as a line file's would be."""
    import yaml
    from pydantic import ValidationError

    from labelmill.errors import TrainingError
    from labelmill.line import explain

    values = {name: value for name, value in options.items() if value is not None}
    if str(values.get("batch", "")).isdigit():
        values["batch"] = int(values["batch"])
    for setting in settings or ():
        key, sign, value = setting.partition("=")
        if not sign:
            raise TrainingError(f"--set {setting}", expected="KEY=VALUE")
        values[key] = yaml.safe_load(value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise TrainingError(explain(error, "settings")) from None


def _export(folder: Path, formats: list[str]) -> dict[str, float]:
    from labelmill.training.export import FORMATS
    from labelmill.training.export import export as write

    chosen: Any = [_one_of("format", name, FORMATS) for name in formats]
    return write(folder, chosen)


def _one_of(what: str, name: str, known: tuple[str, ...]) -> str:
    from labelmill.config import nearest
    from labelmill.errors import TrainingError

    if name not in known:
        raise TrainingError(f"unknown {what} {name!r}", do=nearest(name, known))
    return name


def _place(out: Path | None, version: str, kind: str) -> Path:
    """The model's folder, absolute: below a relative one, ultralytics writes into a folder of its own."""
    return (out or _default_out(version, kind)).absolute()


def _default_out(version: str, kind: str) -> Path:
    name = Path(version).resolve().name if Path(version).is_dir() else version.replace("@", "-")
    return Path("models") / f"{name}-{kind}"


@contextmanager
def _pulled(version: str, form: str, workspace: Path | None) -> Iterator[Path]:
    """The pulled folder of a version; a folder is taken as it is."""
    if Path(version).is_dir():
        yield Path(version)
        return
    from labelmill.datasets.versions.pull.pull import Format
    from labelmill.training.from_version import pull_version
    from labelmill.verbs.versions import find_store

    store = find_store(version, workspace)
    yield pull_version(store.workspace, store.resolve(version), Format(form))


@contextmanager
def _steps() -> Iterator[Report]:
    from labelmill.training.progress import Progress

    with progress_bar("steps") as bar:

        def report(progress: Progress) -> None:
            bar(progress.done, progress.total, progress.text)

        yield report


def _after(written: Written, formats: list[str] | None, mlflow: str | None, *, as_json: bool) -> None:
    """Export, record and tell."""
    info, metrics = written.info, written.metrics
    if not written.trained:
        note(f"{written.folder} was trained before with the same data and settings")
    differences = _export(written.folder, formats) if formats else {}
    if mlflow is not None and written.trained:
        from labelmill.training.tracking import track

        history = metrics.get("history", {})
        figures = {
            f"{split}.{name}": value
            for split, values in metrics.get("splits", {}).items()
            for name, value in values.items()
        }
        track(
            mlflow,
            written.folder.resolve(),
            experiment=info.dataset,
            settings=info.settings | {"dataset_digest": info.dataset_digest, "kind": info.kind},
            figures=figures,
            history=history,
        )
    document = {
        "model": str(written.folder),
        "trained": written.trained,
        "version": info.dataset,
        "export_differences": differences,
        **metrics,
    }
    text: Callable[[], str] = lambda: "\n".join(  # noqa: E731
        [
            *(
                _text(f"{info.kind} on {info.dataset}, {split}", figures)
                for split, figures in metrics.get("splits", {}).items()
            ),
            f"model and card: {written.folder / 'README.md'}",
        ]
    )
    emit(document, as_json=as_json, text=text)


def _text(title: str, figures: dict[str, Any]) -> str:
    rows = [title]
    rows += [
        f"  {name.replace('_', ' ')}: {_figure(value)}"
        for name, value in figures.items()
        if isinstance(value, int | float | str)
    ]
    for iou, values in figures.get("at_iou", {}).items():
        rows.append(
            f"  at IoU {iou}: recall {_figure(values['recall'])}, precision {_figure(values['precision'])}"
        )
    for name, values in figures.get("classes", {}).items():
        rows.append(f"  {name}: " + ", ".join(f"{key} {_figure(value)}" for key, value in values.items()))
    return "\n".join(rows)


def _figure(value: Any) -> str:
    """A figure for people; all its digits are in `--json`."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
