"""`--help` of every verb: the same words for the same things, with defaults, units and examples."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from labelmill.cli import app
from labelmill.training.config import LEARNING_RATES, ClassifierConfig, DetectorConfig

ROOT: Any = typer.main.get_command(app)


def commands(group: Any, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every verb that does something, by what a person types."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        here = (*words, name)
        found |= commands(command, here) if hasattr(command, "commands") else {" ".join(here): command}
    return found


VERBS = commands(ROOT)


def shown(verb: str) -> str:
    result = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.stdout).split())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_what_it_is_for_with_an_example(verb: str) -> None:
    command = VERBS[verb]
    purpose = str(command.help).splitlines()[0]
    assert purpose[0].isupper()
    assert purpose.endswith(".")
    assert len(purpose) <= 110
    assert f"labelmill {verb}" in command.epilog
    assert "--json" in shown(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_named_alike(verb: str) -> None:
    text = shown(verb)
    for parameter in VERBS[verb].params:
        if not parameter.opts[0].startswith("-"):
            assert re.fullmatch("[A-Z]+", parameter.metavar or ""), parameter.name
            assert parameter.metavar in text
            continue
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.name
        both = {"--workspace": "-w", "--out": "-o", "--format": "-f", "--message": "-m", "--help": "-h"}
        for long, short in both.items():
            assert (long in parameter.opts) == (short in parameter.opts)
        if "--workspace" in parameter.opts:
            assert parameter.envvar == "LABELMILL_WORKSPACE"
        # Markdown takes <this> for a tag, and leaves it out.
        assert not re.search(r"<\w+>", parameter.help)


def test_the_defaults_of_training_are_those_of_its_settings() -> None:
    def default(config: Any, name: str) -> object:
        return config.model_fields[name].default

    detector, classifier = shown("train detector"), shown("train classifier")
    for text, config, names in (
        (detector, DetectorConfig, ("image_px", "epochs", "batch", "freeze", "seed", "device")),
        (classifier, ClassifierConfig, ("backbone", "epochs", "batch", "ng", "seed", "device")),
    ):
        for name in names:
            option = f"--{name.replace('_', '-')}"
            says = re.search(rf"{option} .*?default: ([^ ]+)\.", text)
            assert says, option
            assert says[1] == str(default(config, name)), option
    assert f"default: {default(DetectorConfig, 'model')}]" in detector
    assert f"default: {default(ClassifierConfig, 'method')}]" in classifier
    rates = [float(word) for word in re.findall(r"\d+e-\d+", classifier)]
    assert rates == [min(LEARNING_RATES.values()), max(LEARNING_RATES.values())]
