"""`labelmill settings`: complete, and true to what a line file takes."""

from __future__ import annotations

import json

import pytest

from labelmill.cli import main
from labelmill.line import Line
from labelmill.makers import ENCODERS, PROPOSERS


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["settings", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_every_section_and_every_key_has_a_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document) == set(Line.model_fields) - {"base"}
    assert [row for rows in document.values() for row in rows if not row["meaning"]] == []


@pytest.mark.parametrize("kind", [*PROPOSERS.kinds(), *ENCODERS.kinds()])
def test_every_key_of_a_kind_has_a_meaning(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, kind, "--json")
    ((title, rows),) = json.loads(out).items()
    registry = PROPOSERS if title.startswith("proposer ") else ENCODERS
    keys = {row["key"].partition("[")[0].partition(".")[0] for row in rows}
    fields = registry.config(kind).model_fields
    assert keys == {field.alias or name for name, field in fields.items()} - {"kind"}
    assert [row["key"] for row in rows if not row["meaning"]] == []


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "matching", "selection", "hog")
    assert "matching\n  lambda (default auto): λ of LRIAR" in out
    assert "  stride (default 1): Take every n-th frame." in out
    assert "  fps (default none): " in out
    assert "  repeats.threshold (default 4.0): " in out
    assert "\n\nencoder hog\n  size_px (default 64): " in out
    assert max(map(len, out.splitlines())) <= 100


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "motin")
    assert (code, out) == (2, "")
    assert err.startswith("labelmill: no section or kind 'motin'; did you mean 'motion'? known: ")
