"""The training part of a whole line: from a published version to its models, from the last version's on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelmill.annotators.model_folder import INFO, read_model
from labelmill.datasets.versions.pull.pull import Format, pull
from labelmill.datasets.versions.store import Version, VersionStore
from labelmill.datasets.workspace import Workspace
from labelmill.training.config import ClassifierConfig, DetectorConfig, TrainingConfig
from labelmill.training.model_writing import Written
from labelmill.training.progress import Report, silent


def pull_version(workspace: Workspace, version: Version, kind: Format) -> Path:
    """Pull a version into the workspace, or what changed since it was pulled there before.

    Raises:
        VersionError: There is nothing to pull, or a picture is altered or gone.
    """
    name = f"{version.manifest.dataset}-v{version.manifest.number}-{kind.value}"
    folder = workspace.root / "pulled" / name
    pull(workspace, version, kind, str(folder))
    return folder


def train_version(
    workspace: Workspace, spec: str, config: TrainingConfig, report: Report = silent
) -> dict[str, Any]:
    """Train what a line asks for, and export it; a model that was trained before is left as it is.

    Args:
        workspace: Where the version was published.
        spec: `D@vN`.
        config: What to train.
        report: Told after every step.

    Returns:
        Folder, whether it was trained now, and validation figures, by "detector" and "classifier".

    Raises:
        VersionError: The version is absent or has nothing to pull.
        TrainingError: It cannot be trained.
    """
    version = VersionStore(workspace).resolve(spec)
    number = version.manifest.number
    root = config.models or workspace.root / "models"
    results: dict[str, Any] = {}
    if config.detector is not None:
        from labelmill.training.detectors.train import train_detector
        from labelmill.training.inputs import read_detection

        data = read_detection(pull_version(workspace, version, Format.YOLO))
        before = _previous(root, "detector", number) if config.from_previous else None
        detector = _detector_from(config.detector, before)
        results["detector"] = _finish(
            train_detector(data, detector, root / f"detector-v{number}", report=report), config
        )
    if config.classifier is not None:
        from labelmill.training.classifiers.train import train_classifier
        from labelmill.training.inputs import read_crops

        crops = read_crops(pull_version(workspace, version, Format.IMAGEFOLDER))
        before = _previous(root, "classifier", number) if config.from_previous else None
        classifier = _classifier_from(config.classifier, before)
        results["classifier"] = _finish(
            train_classifier(crops, classifier, root / f"classifier-v{number}", report=report), config
        )
    return results


def _previous(root: Path, kind: str, number: int) -> Path | None:
    """The finished model of the nearest earlier version."""
    for earlier in range(number - 1, 0, -1):
        if (root / f"{kind}-v{earlier}" / INFO).is_file():
            return root / f"{kind}-v{earlier}"
    return None


def _detector_from(config: DetectorConfig, before: Path | None) -> DetectorConfig:
    if before is None or read_model(before, "detector").architecture != config.model:
        return config
    return config.model_copy(update={"weights": before})


def _classifier_from(config: ClassifierConfig, before: Path | None) -> ClassifierConfig:
    from labelmill.training.classifiers.model import plan

    if before is None:
        return config
    info, wanted = read_model(before, "classifier"), plan(config)
    if (info.architecture, info.image_px) != (wanted.name, wanted.image_px):
        return config
    return config.model_copy(update={"start": before})


def _finish(written: Written, config: TrainingConfig) -> dict[str, Any]:
    if config.export and written.trained:
        from labelmill.training.export import export

        export(written.folder, config.export)
    return {
        "model": str(written.folder),
        "trained": written.trained,
        "val": written.metrics.get("splits", {}).get("val", {}),
    }
