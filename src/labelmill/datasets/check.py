"""Whether a line is ready to run, part by part, without running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labelmill.annotators.model_store import nothing_fetched
from labelmill.annotators.templates import (
    BACKGROUND_OWNER,
    NG_OWNER,
    check_space,
    find_templates,
    read_templates,
)
from labelmill.datasets.catalogue import Catalogue
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.selection import sample
from labelmill.datasets.sources.footage import open_footage
from labelmill.datasets.workspace import Workspace
from labelmill.errors import LabelmillError
from labelmill.makers import ENCODERS, PROPOSERS

_FEW_UNLABELLED = 100
"""A tenth of the background is a crop's neighbourhood; of fewer, chance decides who is in it."""


def check_line(config: AnnotationConfig, workspace: Workspace) -> list[dict[str, Any]]:
    """Try every part of a line.

    Returns:
        One finding a part: `what`, `ok`, and `detail`, which for a fault says what cures it.
    """
    parts: list[tuple[str, Callable[[], str]]] = [
        ("sources", lambda: _sources(config)),
        ("templates", lambda: _templates(config)),
        (f"proposer {config.proposer.kind}", lambda: _proposer(config)),
        (f"encoder {config.encoder.kind}", lambda: _encoder(config)),
        ("workspace", lambda: _workspace(workspace)),
    ]
    findings = []
    for what, attempt in parts:
        try:
            with nothing_fetched():  # gigabytes, for a question
                findings.append({"what": what, "ok": True, "detail": attempt()})
        except LabelmillError as error:
            findings.append({"what": what, "ok": False, "detail": str(error)})
    return findings


def _sources(config: AnnotationConfig) -> str:
    with Catalogue(":memory:") as catalogue:
        footage, problems = open_footage(config.sources, catalogue, config.base)
    frames = sum(len(sample(source, config.selection)) for source in footage)
    text = f"{sum(len(source) for source in footage):,} frames, {frames:,} sampled"
    return text + "".join(f"; quarantined {problem.source}: {problem.reason}" for problem in problems[:5])


def _templates(config: AnnotationConfig) -> str:
    files = find_templates(config.templates)
    if not files.classes:
        return "none yet: every region goes to people"
    check_space(files, config.matching)
    read_templates(files)
    counts = {name: files.owners.count(number) for number, name in enumerate(files.classes)}
    listing = ", ".join(f"{name} {count}" for name, count in counts.items())
    text = f"{listing}; NG examples {files.owners.count(NG_OWNER)}"
    if config.templates is not None and config.templates.turned:
        text += "; each at four quarter turns"
    if background := files.owners.count(BACKGROUND_OWNER):
        text += f"; background {background}"
        if background < _FEW_UNLABELLED:
            text += " (a few hundred tell more)"
    if config.matching.lambda_ == "auto" and max(counts.values()) == 1:
        text += "; no class has two, so that λ is a guess and most goes to people: "
        text += "add some, or write `matching: lambda`"
    return text


def _maker(maker: object) -> str:
    return f"loads ({type(maker).__name__})"


def _proposer(config: AnnotationConfig) -> str:
    maker = PROPOSERS.make(config.proposer)
    phrases: dict[str, list[str]] = {}
    for prompt in getattr(config.proposer, "prompts", ()):  # shown, since a misspelt class is no fault
        phrases.setdefault(prompt.name, []).append(prompt.phrase)
    if not phrases:
        return _maker(maker)
    finds = [f"{name} by {', '.join(map(repr, said[:4]))}" for name, said in list(phrases.items())[:8]]
    shown = sum(len(said[:4]) for said in list(phrases.values())[:8])
    more = sum(map(len, phrases.values())) - shown
    rest = f" and {more} phrases more" if more else ""
    passes = len(getattr(maker, "groups", ())) or 1
    cost = "a pass a frame" if passes == 1 else f"{passes} passes a frame"
    return f"{_maker(maker)}, finds {'; '.join(finds)}{rest}, {cost}"


def _encoder(config: AnnotationConfig) -> str:
    encoder = ENCODERS.make(config.encoder)
    # Asked for its length, a model that loads when first needed shows whether it does.
    text = f"{_maker(encoder)}, {encoder.dim} values a crop"
    passes = 2 if getattr(config.encoder, "fit", "") == "both" else 1
    passes *= 4 if getattr(config.encoder, "turned", False) else 1
    return text if passes == 1 else f"{text}, {passes} passes a crop"


def _workspace(workspace: Workspace) -> str:
    with workspace.lock():
        return str(workspace.root)
