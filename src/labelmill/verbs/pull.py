"""`labelmill pull`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from labelmill.verbs.common import AsJson, emit, note, progress_bar
from labelmill.verbs.versions import Spec, StorePath, find_store


class _Format(StrEnum):
    YOLO = "yolo"
    COCO = "coco"
    VOC = "voc"
    IMAGEFOLDER = "imagefolder"
    FIFTYONE = "fiftyone"


class _Ng(StrEnum):
    CLASS = "class"
    LEAVE_OUT = "leave-out"


class _Labels(StrEnum):
    LABEL = "label"
    PHRASE = "phrase"
    ONE = "one"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Examples: `labelmill pull bottles@v3 --format yolo ./bottles-yolo` · "
        "`labelmill pull bottles@v3 --format imagefolder --copy s3://sets/bottles`"
    )(pull)


def pull(
    spec: Spec,
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="A folder, or an fsspec address.", show_default=False)
    ],
    kind: Annotated[
        _Format, typer.Option("--format", "-f", help="What the trainer reads.", show_default=False)
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Only this split; give it again for more.", show_default=False)
    ] = None,
    ng: Annotated[
        _Ng | None,
        typer.Option(help="NG regions: a class, or left out; default: crops only.", show_default=False),
    ] = None,
    labels: Annotated[
        _Labels, typer.Option(help="A detector's classes: the label, the proposer's phrase, or one for all.")
    ] = _Labels.LABEL,
    pending: Annotated[
        bool, typer.Option("--pending", help="Also frames on which a region still waits for a person.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Hard links where the disk can, or copies.")
    ] = True,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Bring a version to a trainer; again into the same folder, only what changed."""
    from labelmill.datasets.fiftyone_window import Window
    from labelmill.datasets.versions.pull.choose import Labels, NgAs
    from labelmill.datasets.versions.pull.pull import Format
    from labelmill.datasets.versions.pull.pull import pull as run

    store = find_store(spec, workspace)
    version = store.resolve(spec)
    with progress_bar("files") as progress:
        result = run(
            store.workspace,
            version,
            Format(kind.value),
            out,
            splits=split,
            ng=NgAs(ng.value) if ng else None,
            labels=Labels(labels.value),
            pending=pending,
            link=link,
            window=Window(store.workspace) if kind is _Format.FIFTYONE else None,
            progress=progress,
        )
    for warning in result["warnings"]:
        note(f"note: {warning}")

    def text() -> str:
        what = "crops" if "crops" in result else "frames"
        taken = ", ".join(f"{number:,} {name}" for name, number in result[what].items())
        return (
            f"{result['version']} as {result['format']} in {out}: {what}: {taken}; "
            f"{result['written']:,} files written, {result['kept']:,} kept, {result['removed']:,} removed"
        )

    emit(result, as_json=as_json, text=text)
