"""The command line: one verb per thing a person does.

Imports nothing heavy: a verb's module imports its room when the verb runs. Exit status 0 on success, 2 on a
user's error or a wrong command line (one line on stderr), 1 on a bug (a traceback), 130 when interrupted.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any, NoReturn

import typer

from labelmill import __version__
from labelmill.errors import LabelmillError

VERBS = {
    "Start": ("demo",),
    "From footage to labels": ("annotate", "settings", "report", "run", "models"),
    "Dataset versions": ("versions", "inspect", "pull", "upkeep"),
    "From a version to a model": ("train", "watch"),
    "People": ("services", "review"),
}
"""What a person is after, and the modules of `labelmill.verbs` for it, in the order of `--help`."""

_INTERRUPTED = 130
_GO_ON = {
    *("demo", "annotate", "run", "models"),
    *("publish", "pull", "restore", "train", "services", "review"),
}
"""Verbs whose finished work is there when they are called again; the others have nothing to lose."""
_WORDS = {
    r"Value error, ": "",
    r": Input should be ": ": expected ",
    r"\. Did you mean": "; did you mean",
    r" \(Possible options: (.*)\)$": r"; did you mean \1?",
}
"""What typer and pydantic say of a wrong command line, and how every other message says it."""

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


def _register() -> None:
    for panel, names in VERBS.items():
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        for name in names:
            import_module(f"labelmill.verbs.{name}").register(app)
        for command in app.registered_commands[commands:]:
            command.rich_help_panel = panel
        for group in app.registered_groups[groups:]:
            group.rich_help_panel = panel


_register()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit status."""
    try:
        code = app(args=arguments, prog_name="labelmill", standalone_mode=False) or 0
    except LabelmillError as error:
        _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        _fail(_usage(error), 2)
    except BrokenPipeError:
        sys.exit(0)
    if code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt, without a word
        typer.echo(_interruption(sys.argv[1:] if arguments is None else arguments), err=True)
    sys.exit(code)


def _interruption(arguments: list[str]) -> str:
    kept = "; finished work is kept, run the same command to go on"
    return "labelmill: interrupted" + (kept if _GO_ON.intersection(arguments[:1]) else "")


def _fail(line: str, code: int) -> NoReturn:
    if line:
        typer.secho(f"labelmill: {line}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(code)


def _usage(error: Any) -> str:
    """A wrong command line in one line; nothing where typer answered it with the help already."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    message = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in _WORDS.items():
        message = re.sub(theirs, ours, message)
    verb = context.command_path if context else "labelmill"
    return f"{message[:1].lower()}{message[1:]}; see {verb} --help"


if __name__ == "__main__":
    main()
