"""`labelmill models`: which models are on this machine, fetching them, and checking their bytes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from labelmill.verbs.common import AsJson, emit

models = typer.Typer(help="Foundation models: list, pull and verify.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(models, name="models")


@models.command("list", epilog="Example: `labelmill models list --json`")
def list_models(as_json: AsJson = False) -> None:
    """Show the models that labelmill knows by name, and those that were pulled.

    Any hub id of the same architecture and any local folder works too: write it as `model:` in a line file.
    """
    from labelmill.annotators.known_models import KNOWN
    from labelmill.annotators.model_store import folder_of, models_folder, pulled

    here = {manifest.model: manifest for manifest in pulled()}
    rows: list[dict[str, Any]] = [
        {
            "model": entry.model,
            "kind": entry.kind,
            "megabytes": entry.megabytes,
            "licence": entry.licence,
            "about": entry.about,
            "folder": str(folder_of(entry.model)) if entry.model in here else None,
        }
        for entry in KNOWN
    ]
    rows += [
        {
            "model": manifest.model,
            "kind": "",
            "megabytes": round(sum(file.size_bytes for file in manifest.files.values()) / 1e6),
            "licence": manifest.licence,
            "about": "",
            "folder": str(folder_of(manifest.model)),
        }
        for manifest in here.values()
        if manifest.model not in {entry.model for entry in KNOWN}
    ]

    def text() -> str:
        lines = [f"models folder: {models_folder()}"]
        for row in rows:
            place = "pulled" if row["folder"] else f"{row['megabytes']:,} MB"
            lines.append(
                f"{row['model']:<34} {row['kind']:<16} {place:>9}  {row['licence']:<11} {row['about']}"
            )
        return "\n".join(lines)

    emit({"folder": str(models_folder()), "models": rows}, as_json=as_json, text=text)


@models.command(epilog="Example: `labelmill models pull IDEA-Research/grounding-dino-tiny`")
def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Hub id, such as IDEA-Research/grounding-dino-tiny.", show_default=False
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the newest.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model into the models folder; it is used from there ever after, without a network.

    The folder can be carried to a machine that has no network: set LABELMILL_MODELS to it there.
    """
    from labelmill.annotators import hub
    from labelmill.annotators.model_store import Manifest

    folder = hub.pull(model, revision)
    manifest = Manifest.read(folder)
    found = manifest.revision if manifest else ""
    files = {name: file.sha256 for name, file in manifest.files.items()} if manifest else {}
    document = {"model": model, "revision": found, "folder": str(folder), "files": files}
    emit(document, as_json=as_json, text=lambda: f"{model} at {found[:12]} lies in {folder}")


@models.command(epilog="Example: `labelmill models verify IDEA-Research/grounding-dino-tiny`")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Hub ids; default: all that were pulled.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the bytes of pulled models with the digests written down when they were pulled.

    Exits 2 when a file is absent or differs.
    """
    from labelmill.annotators.model_store import pulled
    from labelmill.annotators.model_store import verify as problems_of

    found = {name: problems_of(name) for name in names or [manifest.model for manifest in pulled()]}
    broken = [name for name, problems in found.items() if problems]

    def text() -> str:
        lines = [f"{name}: {'; '.join(problems) or 'ok'}" for name, problems in found.items()]
        lines += [f"cure: labelmill models pull {name}" for name in broken]
        return "\n".join(lines) or "no model was pulled yet"

    emit({"ok": not broken, "models": found}, as_json=as_json, text=text)
    if broken:
        raise typer.Exit(2)
