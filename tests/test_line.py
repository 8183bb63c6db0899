from __future__ import annotations

from pathlib import Path

import pytest

from labelmill.annotators.encoders.hog import HogConfig
from labelmill.annotators.proposers.motion import MotionConfig
from labelmill.errors import LabelmillError, LineFileError, UnknownMakerError
from labelmill.line import Line, load_line
from labelmill.makers import Registry

BASE = """\
name: demo
sources: [{video: clips/a.mp4}]
templates: {folder: templates}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "line.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(LineFileError) as caught:
        load_line(write(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_the_least_line_takes_the_embedded_defaults(tmp_path: Path) -> None:
    line = load_line(write(tmp_path, BASE))
    assert isinstance(line.proposer, MotionConfig)
    assert isinstance(line.encoder, HogConfig)
    assert line.matching.lambda_ == "auto"
    assert line.runner.kind == "local"
    assert line.selection.repeats is not None


def test_paths_are_relative_to_the_line_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("FOOTAGE", "/mnt/camera")
    text = BASE.replace("clips/a.mp4", "'${FOOTAGE}/b.mp4'").replace(
        "folder: templates", "folder: '../${CLASSES:-crops}'"
    )
    line = load_line(write(tmp_path, text))
    assert line.base == tmp_path
    assert line.sources[0].video == Path("/mnt/camera/b.mp4")
    assert line.templates is not None
    assert line.templates.folder == tmp_path.parent / "crops"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proposr: motion", "unknown key 'proposr', did you mean 'proposer'? known: "),
        ("matching: {lamda: 0.5}", "matching: unknown key 'lamda', did you mean 'lambda'?"),
        ("proposer: {kind: motion, contrst: 3}", "unknown key 'contrst', did you mean 'contrast'?"),
        ("xyz: 1", "unknown key 'xyz', known: crop, "),
        ("1: 2", "unknown key '1'"),
        ("selection: {stride: 0}", "selection.stride: input should be greater than or equal to 1, got 0"),
        ("selection: {fps: -1}", "selection.fps: input should be greater than 0, got -1"),
        ("selection: {fps: .inf}", "selection.fps: input should be a finite number, got inf"),
        ("selection: {fps: 2, stride: 3}", "selection: give either `stride` or `fps`, not both"),
        ("proposer: {kind: motion, contrast: 0}", "proposer.contrast: input should be greater than 0"),
        ("proposer: {kind: boxes}", "proposer.labels: field required"),
        ("proposer: 3", "proposer: expected a mapping with `kind`, got 3"),
        ("runner: {kind: daks}", "should be 'local', 'dask' or 'ray', got 'daks'; did you mean 'dask'?"),
        ("matching:", "matching: expected a mapping, got None"),
        ("crop: {margin: wide}", "crop.margin: input should be a valid number"),
        ("encoder: {kind: hog, size_px: 20}", "encoder.size_px: input should be a multiple of 8, got 20"),
        ("name: again", "the key 'name' is given twice"),
        ("crop: {margin: 0, margin: 1}", "the key 'margin' is given twice"),
        ("crop: *nowhere", "cannot be read as YAML, got found undefined alias"),
        ("? [a]\n: b", "cannot be read as YAML"),
        ("when: 2024-13-45", "cannot be read as YAML, got month must be in 1..12"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, f"{BASE}{text}\n")
    assert "line.yaml" in message
    assert said in message


@pytest.mark.parametrize("value", ["1.01", "-1.01", "2", "high", "true", ".nan", "-.inf", "[0.5]"])
def test_lambda_is_a_cosine(tmp_path: Path, value: str) -> None:
    message = refused(tmp_path, f"{BASE}matching: {{lambda: {value}}}\n")
    assert "matching.lambda: expected a cosine from -1 to 1, or auto, got" in message


@pytest.mark.parametrize(("value", "held"), [("1", 1.0), ("-1", -1.0), ("0.25", 0.25), ("auto", "auto")])
def test_lambda_may_be_any_cosine(tmp_path: Path, value: str, held: float | str) -> None:
    assert load_line(write(tmp_path, f"{BASE}matching: {{lambda: {value}}}\n")).matching.lambda_ == held


@pytest.mark.parametrize(
    ("part", "kind", "said"),
    [
        ("proposer", "moton", "unknown proposer kind 'moton'; did you mean 'motion'? known: "),
        ("encoder", "hgo", "unknown encoder kind 'hgo'; did you mean 'hog'? known: "),
        ("encoder", "[a]", "known: "),
    ],
)
def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path, part: str, kind: str, said: str) -> None:
    for written in (kind, f"{{kind: {kind}}}"):
        if kind.startswith("[") and written == kind:
            continue
        message = refused(tmp_path, f"{BASE}{part}: {written}\n")
        assert said in message
        assert ("boxes" if part == "proposer" else "timm") in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no line file, got NoneType, expected a mapping"),
        ("- a\n", "is no line file, got list"),
        ("just words\n", "is no line file, got str"),
        ("name: [\n", "cannot be read as YAML"),
        ("a: b: c\n", "cannot be read as YAML, got mapping values are not allowed"),
        ("\x00", "cannot be read as YAML, got unacceptable character"),
        ("sources: [{video: a}]\ntemplates: {folder: t}\n", "name: field required"),
        ("name: a b\nsources: [{video: a}]\ntemplates: {folder: t}\n", "name: string should match"),
        ("name: ../x\nsources: [{video: a}]\ntemplates: {folder: t}\n", "name: string should match"),
        ("name: a\nsources: []\ntemplates: {folder: t}\n", "sources: "),
        ("name: a\nsources: b.mp4\ntemplates: {folder: t}\n", "sources: expected a list, got 'b.mp4'"),
        ("name: a\nsources: [{}]\ntemplates: {folder: t}\n", "a source is either `video: PATH` or"),
        ("name: a\nsources: [{video: a, images: b}]\ntemplates: {folder: t}\n", "a source is either"),
        ("name: a\nsources: [{video: a}]\ntemplates: {folder: 3}\n", "folder: expected a path, got 3"),
    ],
)  # fmt: skip
def test_what_is_no_line(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, text)
    assert said in message
    assert "more)" not in message


def test_further_faults_are_counted(tmp_path: Path) -> None:
    message = refused(tmp_path, f"{BASE}selection: {{stride: 0, shard_frames: 0}}\n")
    assert message.endswith("(and 1 more)")


def test_an_unset_variable_says_how_to_cure_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    message = refused(tmp_path, BASE.replace("clips/a.mp4", "'${NOWHERE}/a.mp4'"))
    assert "sources.0.video: the environment variable NOWHERE is not set" in message
    assert "${NOWHERE:-some/path}" in message


def test_an_absent_line_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, BASE)
    with pytest.raises(LineFileError, match=r"no line file .*lime\.yaml; did you mean .*line\.yaml\?$"):
        load_line(tmp_path / "lime.yaml")
    with pytest.raises(LineFileError, match=r"no line file .*; give the path of a YAML line file$"):
        load_line(tmp_path / "nowhere" / "line.yaml")


def test_what_cannot_be_read_as_text(tmp_path: Path) -> None:
    with pytest.raises(LineFileError, match=r"cannot read .* expected a YAML text file"):
        load_line(tmp_path)
    binary = tmp_path / "line.yaml"
    binary.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(LineFileError, match=r"cannot read .* expected a YAML text file"):
        load_line(binary)


def test_a_line_travels_as_json(tmp_path: Path) -> None:
    line = load_line(write(tmp_path, f"{BASE}matching: {{lambda: 0.5}}\nselection: {{repeats: false}}\n"))
    again = Line.model_validate_json(line.model_dump_json(by_alias=True), context={"base": line.base})
    assert again == line
    assert again.base == line.base


def test_registries_refuse_a_second_maker_of_a_kind() -> None:
    registry = Registry("proposer", {"a": "m:A"})
    registry.add("a", "m:A")
    with pytest.raises(ValueError, match="registered twice: m:A and n:B"):
        registry.add("a", "n:B")
    with pytest.raises(UnknownMakerError, match="unknown proposer kind 'b'"):
        registry.load("b")


def test_an_error_is_one_line_and_travels_between_processes() -> None:
    import pickle

    error = LineFileError("bad\n thing", got="a\nb", expected="c", do="mend it")
    assert str(error) == "bad thing, got a b, expected c; mend it"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is LineFileError
    assert isinstance(again, LabelmillError)
    assert str(again) == str(error)
