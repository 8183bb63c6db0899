"""The command line: one verb per thing a person does.

Imports nothing heavy: a verb's module imports its room when the verb runs. Exit status 0 on success, 2 on a
user's error (one line on stderr), 1 on a bug (a traceback), 130 when interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from labelmill import __version__
from labelmill.errors import LabelmillError

VERBS = (
    "demo",
    "report",
    "annotate",
    "review",
    "run",
    "versions",
    "inspect",
    "pull",
    "upkeep",
    "models",
    "train",
    "watch",
    "services",
)
"""Modules of `labelmill.verbs`, in the order in which `--help` lists their verbs."""

_INTERRUPTED = 130

app = typer.Typer(
    name="labelmill",
    help="Footage of a production line in, versioned training datasets out.",
    epilog="Start with `labelmill demo`. LINE is a YAML line file; see examples/.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labelmill {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    del version


for _verb in VERBS:
    import_module(f"labelmill.verbs.{_verb}").register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    try:
        app(args=arguments, prog_name="labelmill")
    except LabelmillError as error:
        typer.secho(f"labelmill: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt, without a word
            typer.echo(
                "labelmill: interrupted; finished work is kept, run the same command to go on", err=True
            )
        raise
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
