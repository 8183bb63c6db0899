"""The verbs that look into versions: diff and explain."""

from __future__ import annotations

from typing import Annotated

import typer

from labelmill.verbs.common import AsJson, emit, note
from labelmill.verbs.versions import StorePath, find_store


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command(epilog="Examples: `labelmill diff bottles@v2 bottles@v3` · `labelmill diff v2 v3 --json`")(
        diff
    )
    app.command(epilog="Example: `labelmill explain 3f9c21d0` (a region id, or how it begins)")(explain)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A version: bottles@v2.", show_default=False)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A version: bottles@v3.", show_default=False)],
    workspace: StorePath = None,
    fiftyone: Annotated[
        bool,
        typer.Option("--fiftyone", help="Also save it in FiftyOne: a view of NEW."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what changed from one version to another."""
    from labelmill.datasets.versions.diff import as_text
    from labelmill.datasets.versions.diff import diff as compare_versions

    store = find_store(old, workspace)
    before, after = store.resolve(old), store.resolve(new)
    changes = compare_versions(before, after)
    document = changes.to_json()
    if fiftyone:
        from labelmill.datasets.fiftyone_window import Window
        from labelmill.datasets.versions.show import compare

        note("writing to FiftyOne …")
        window = Window(store.workspace)
        with store.workspace.lock():
            comparison = compare(
                (before.manifest, before.frames, before.regions), after.frames, after.regions
            )
            window.compare(window.load(after.manifest), after.frames, comparison)
        document["view"] = f"changed since v{before.manifest.number}"

    def text() -> str:
        tail = f"\n\nFiftyOne: the view {document['view']!r} of {after.manifest.name}" if fiftyone else ""
        return as_text(changes) + tail

    emit(document, as_json=as_json, text=text)


def explain(
    region: Annotated[
        str,
        typer.Argument(
            metavar="REGION", help="A region id, or its first 6 or more characters.", show_default=False
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Its dataset, where there are several.", show_default=False)
    ] = None,
    workspace: StorePath = None,
    as_json: AsJson = False,
) -> None:
    """Say why a region has its label: who or what decided, on what figures, from which footage."""
    from labelmill.datasets.versions.explain import as_text, dataset_of, to_json
    from labelmill.datasets.versions.explain import explain as find

    store = find_store(dataset, workspace)
    found = find(store.all(dataset_of(store.datasets(), dataset)), region)
    emit(to_json(found, store.workspace), as_json=as_json, text=lambda: as_text(found, store.workspace))
