"""The command line, end to end: what it prints, how it exits, and what bad input gets."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import make_bench, moving_square, save, square
from tests.footage import write_video
from typer.testing import CliRunner

from labelmill import __version__
from labelmill.annotators.encoders.hog import Hog
from labelmill.cli import app, main
from labelmill.datasets.annotate import annotate
from labelmill.datasets.workspace import Workspace
from labelmill.errors import WeightsError
from labelmill.files import digest_file
from labelmill.line import load_line

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
VERBS = sorted(
    command.name or (command.callback.__name__ if command.callback else "")
    for command in app.registered_commands
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bench(tmp_path_factory.mktemp("made"))


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "line"))
    monkeypatch.chdir(folder)
    return folder


def edit(folder: Path, **sections: Any) -> Path:
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))
    return path


class Done:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def line(self) -> str:
        """The one line that a user's error comes to."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        said = self.err.splitlines()
        assert len(said) == 1, self.err
        assert said[0].startswith("labelmill: ")
        return said[0].removeprefix("labelmill: ")


Call = Callable[..., Done]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process."""

    def run(*words: object) -> Done:
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        else:
            code = 0
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def start(*words: object) -> subprocess.Popen[str]:
    """Run a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "labelmill.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def wait(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def digests(workspace: Path) -> dict[str, str]:
    return {
        path.relative_to(workspace).as_posix(): digest_file(path)
        for folder in ("tables", "shards", "media")
        for path in sorted((workspace / folder).rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


# What it prints


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "Example" in shown.stdout
    assert "--json" in shown.stdout


def test_the_verbs_of_annotation_are_there() -> None:
    assert {"annotate", "check", "run"} <= set(VERBS)


def test_the_version(call: Call) -> None:
    assert call("--version").out == f"labelmill {__version__}\n"


def test_annotate_prints_one_json_document(place: Path, call: Call) -> None:
    done = call("annotate", "line.yaml", "--json", "-w", "w")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["counts"]["frames"] == 40
    assert document["shards"] == {"computed": 3, "reused": 0}
    assert document["workspace"] == str(place / "w")
    assert "annotating: 40 of 40 frames" in done.err
    again = json.loads(call("annotate", "line.yaml", "--json", "-w", "w").out)
    assert again["shards"] == {"computed": 0, "reused": 3}
    assert again["counts"] == document["counts"]


def test_annotate_prints_a_table_for_people(place: Path, call: Call) -> None:
    done = call("annotate", "line.yaml")
    assert done.code == 0
    assert done.out.startswith(
        "bench: 40 frames (40 kept, 0 repeats, 0 unreadable), 10 NG frames\n30 regions: "
    )
    assert "3 shards computed, 0 reused, " in done.out
    assert (place / "workspace" / "bench" / "tables" / "regions.parquet").is_file()


def test_what_comes_next_can_be_copied(place: Path, call: Call) -> None:
    """Each verb ends with the command that a newcomer wants then."""
    found = call("annotate", "line.yaml", "-w", "a place")
    assert found.out.splitlines()[-1] == "look at it: labelmill report line.yaml -w 'a place'"
    assert call("report", "line.yaml", "-w", "a place").code == 0
    done = call("publish", "line.yaml", "-w", "a place", "--no-fiftyone")
    assert done.code == 0
    head, columns, *_ = done.out.splitlines()
    assert head.startswith("published bench@v1  ")
    named = [name for name in ("train", "val", "test", "aside") if name in columns.split()]
    assert columns.split() == named  # in the order in which people think of them
    counts = json.loads(call("annotate", "line.yaml", "-w", "a place", "--json").out)["counts"]
    waiting = [line for line in done.out.splitlines() if line.endswith("wait for a person and are not in it")]
    assert len(waiting) == (counts["review"] > 0)
    assert all(line.startswith(f"{counts['review']} regions ") for line in waiting)


def test_nothing_to_publish_leaves_no_folder(place: Path, call: Call) -> None:
    assert call("publish", "line.yaml", "-w", "typo").line == (
        f"nothing to publish, got no folder {place / 'typo'}; run labelmill annotate LINE first"
    )
    assert not (place / "typo").exists()


def test_another_source_in_place_of_the_lines(place: Path, call: Call) -> None:
    write_video(place / "other.mp4", [moving_square(n) for n in range(12)])
    save(place / "stills" / "a.png", square((9, 9, 9)))
    document = json.loads(call("annotate", "line.yaml", "--json", "--source", "other.mp4").out)
    assert document["counts"]["frames"] == 12
    words = ("annotate", "line.yaml", "--json", "--source", "stills", "--source", "other.mp4")
    assert json.loads(call(*words).out)["counts"]["frames"] == 13


def test_check_says_that_a_line_is_ready(place: Path, call: Call) -> None:
    done = call("check", "line.yaml")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "the line is ready"
    assert "40 frames, 40 sampled" in done.out
    assert "blue 1, red 1; NG examples 1" in done.out
    document = json.loads(call("check", "line.yaml", "--json").out)
    assert document["ok"] is True
    assert {finding["ok"] for finding in document["findings"]} == {True}


def test_check_names_every_fault_with_its_cure(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise WeightsError("no weights", do="fetch them")

    monkeypatch.setattr(Hog, "dim", property(broken, lambda *_: None), raising=False)
    (place / "templates" / "green").mkdir()
    edit(place, sources=[{"video": "gone.mp4"}], proposer={"kind": "boxes", "labels": "gone"})
    (place / "file").touch()
    done = call("check", "line.yaml", "--json", "-w", "file")
    assert done.code == 2
    assert done.err == ""
    document = json.loads(done.out)
    assert document["ok"] is False
    found = {finding["what"]: finding["detail"] for finding in document["findings"] if not finding["ok"]}
    assert set(found) == {"sources", "templates", "proposer boxes", "encoder hog", "workspace"}
    assert all("; " in detail and "\n" not in detail for detail in found.values())


def test_check_says_what_templates_are_too_few_for(place: Path, call: Call) -> None:
    save(place / "crops" / "1.png", square((9, 9, 9)))
    folders = {"folder": "templates", "background": "crops"}
    edit(place, templates=folders, matching={"space": "discriminant"})
    said = call("check", "line.yaml").out
    assert "background 1 (a few hundred tell more); no class has two, so that λ is a guess" in said
    shutil.rmtree(place / "templates" / "blue")
    for verb in ("check", "annotate"):
        done = call(verb, "line.yaml")
        assert done.code == 2
        assert "matching.space 'discriminant'" in done.out + done.err
        assert "got one class" in done.out + done.err


def test_check_says_what_turning_costs(place: Path, call: Call) -> None:
    pytest.importorskip("timm")
    from labelmill.annotators.encoders.timm import Timm

    assert "at four quarter turns" not in call("check", "line.yaml").out
    edit(place, templates={"folder": "templates", "turned": True})
    said = call("check", "line.yaml").out
    assert "each at four quarter turns" in said
    assert "passes" not in said
    edit(place, encoder={"kind": "timm", "weights": "none", "fit": "both", "turned": True})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Timm, "dim", 7)
        assert "7 values a crop, 8 passes a crop" in call("check", "line.yaml").out


def test_check_leaves_sources_and_weights_as_they_are(place: Path, call: Call) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    call("check", "line.yaml")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_bug_is_a_traceback_and_exit_1(place: Path) -> None:
    code = (
        "import labelmill.datasets.annotate as a, labelmill.cli as c; "
        "a.open_run = lambda *_: 1 / 0; c.main(['annotate', 'line.yaml'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_reader_that_went_away_is_no_error(place: Path) -> None:
    process = start("check", "line.yaml")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) in (0, 1)  # 1 is what typer gives a broken pipe
    assert err == ""


# What bad input gets


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["anotate"], "no such command 'anotate'; did you mean 'annotate'?; see labelmill --help"),
        (["annotate"], "missing argument 'LINE'; see labelmill annotate --help"),
        (
            ["annotate", "line.yaml", "--wrk", "x"],
            "no such option: --wrk; did you mean --workspace?; see labelmill annotate --help",
        ),
        (
            ["demo", "--seconds", "0"],
            "invalid value for '--seconds': expected greater than or equal to 1; see labelmill demo --help",
        ),
        (
            ["pull", "d@v1", "out", "--format", "yolov8"],
            "invalid value for '--format' / '-f': 'yolov8' is not one of 'yolo', 'coco', 'voc', "
            "'imagefolder', 'fiftyone'; see labelmill pull --help",
        ),
    ],
)
def test_a_wrong_command_line(call: Call, words: list[str], line: str) -> None:
    assert call(*words).line == line


def test_without_a_verb_the_help(call: Call) -> None:
    for words in ([], ["review"]):
        done = call(*words)
        assert (done.code, done.err) == (2, "")
        assert "Usage: labelmill" in done.out


def test_no_line_file(place: Path, call: Call) -> None:
    assert call("annotate", "lime.yaml").line == "no line file lime.yaml; did you mean line.yaml?"


def test_a_source_that_is_not_there(place: Path, call: Call) -> None:
    assert call("annotate", "line.yaml", "--source", "gone.mp4").line == (
        f"no file {place / 'gone.mp4'}, expected a video file or a folder; mend `sources: video`"
    )
    edit(place, sources=[{"images": "gone"}])
    assert call("annotate", "line.yaml").line == (
        f"no folder {place / 'gone'}, expected a folder of images; mend `sources: images`"
    )
    (place / "empty").mkdir()
    assert call("annotate", "line.yaml", "--source", "empty").line.startswith("no video in ")


def test_a_single_image_as_a_source(place: Path, call: Call) -> None:
    save(place / "a.png", square((1, 2, 3)))
    assert call("annotate", "line.yaml", "--source", "a.png").line == (
        "a.png is a single image, expected a video, or a folder; give the image's folder"
    )


def test_a_video_of_nothing(place: Path, call: Call) -> None:
    (place / "zero.mp4").write_bytes(b"")
    assert call("annotate", "line.yaml", "--source", "zero.mp4").line == (
        "no source can be read: cannot open zero.mp4 as a video, got an empty file, expected a video file; "
        "export it again; mend `sources`"
    )


def test_a_video_cut_off_in_the_middle(place: Path, call: Call) -> None:
    data = (place / "clip.mp4").read_bytes()
    (place / "clip.mp4").write_bytes(data[: len(data) // 2])  # the header lies at the end
    assert "cannot open clip.mp4 as a video, got invalid data" in call("annotate", "line.yaml").line
    write_video(place / "cut.mkv", [moving_square(n) for n in range(40)], options={"g": "10"})
    data = (place / "cut.mkv").read_bytes()
    (place / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    done = call("annotate", "line.yaml", "--source", "cut.mkv")
    assert done.code == 0
    assert "1 quarantined: " in done.out


def test_a_folder_with_a_zero_byte_and_a_lying_image(place: Path, call: Call) -> None:
    save(place / "stills" / "good.png", square((200, 30, 30)))
    (place / "stills" / "zero.jpg").write_bytes(b"")
    (place / "stills" / "lying.png").write_text("text")
    document = json.loads(call("annotate", "line.yaml", "--source", "stills", "--json").out)
    assert (document["counts"]["kept"], document["counts"]["quarantined"]) == (1, 2)


def test_templates_for_the_generated_video(place: Path, call: Call) -> None:
    assert call("demo", "--templates", "templates").line == (
        "--templates without --source; name your video with --source, or drop it"
    )
    assert not (place / "labelmill-demo").exists()


def test_a_template_class_without_images(place: Path, call: Call) -> None:
    (place / "templates" / "green").mkdir()
    line = call("annotate", "line.yaml").line
    assert line == (
        f"class 'green' has no images, got an empty folder {place / 'templates' / 'green'}, expected at "
        "least one template crop; put some crops there, or remove the folder"
    )


@pytest.mark.parametrize("value", [1.5, -2, "much"])
def test_a_lambda_out_of_range(place: Path, call: Call, value: object) -> None:
    edit(place, matching={"lambda": value})
    assert call("annotate", "line.yaml").line == (
        f"line.yaml: matching.lambda: expected a cosine from -1 to 1, or auto, got {value!r}"
    )


def test_a_workspace_that_is_a_file(place: Path, call: Call) -> None:
    (place / "w").write_text("mine")
    assert call("annotate", "line.yaml", "-w", "w").line.startswith(
        f"workspace {place / 'w'} is not a folder"
    )
    assert (place / "w").read_text() == "mine"


def mounted(folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A small disk of its own; yields what mounts it anew with other options."""
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted(folder, options)
    try:
        yield lambda other: mounted(folder, f"remount,{other}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk(place: Path, call: Call) -> None:
    with disk(place / "small", "size=96k") as resize:
        full = call("annotate", "line.yaml", "-w", "small/w")
        assert full.code == 2
        assert full.err.splitlines()[-1] == (
            f"labelmill: no space left in {place / 'small' / 'w'}; free some space, or name another "
            "--workspace, and run again: finished shards are kept"
        )
        assert "Traceback" not in full.err
        assert not list((place / "small").rglob(".tmp-*"))
        resize("size=64m")
        assert call("annotate", "line.yaml", "-w", "small/w").code == 0
        assert call("annotate", "line.yaml", "-w", "ample").code == 0
        assert digests(place / "small" / "w") == digests(place / "ample")


@pytest.mark.parametrize("kilobytes", [4, 12, 20, 32, 48, 64, 80, 128, 160, 192, 256])
def test_a_disk_that_fills_up_anywhere(place: Path, call: Call, kilobytes: int) -> None:
    """Whatever write is the last that fits: one line, or a finished run."""
    with disk(place / "small", f"size={kilobytes}k"):
        done = call("annotate", "line.yaml", "-w", "small/w")
        assert done.code in (0, 2)
        assert (done.code == 0) == (done.out != "")
        assert "Traceback" not in done.err
        if done.code:
            assert done.err.splitlines()[-1].startswith("labelmill: no space left in ")


def test_a_file_that_may_not_grow(place: Path, call: Call) -> None:
    """The same without root: a limit on the size of any file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        done = call("annotate", "line.yaml", "-w", "w")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 2
    assert "no space left in" in done.err or "cannot work in" in done.err
    assert "Traceback" not in done.err
    assert call("annotate", "line.yaml", "-w", "w").code == 0


def test_a_read_only_disk(place: Path, call: Call) -> None:
    with disk(place / "small", "size=16m") as remount:
        assert call("annotate", "line.yaml", "-w", "small/w").code == 0
        remount("ro")
        expected = "got read-only file system, expected a folder that can be read and written; name another"
        assert expected in call("annotate", "line.yaml", "-w", "small/w").line
        assert expected in call("annotate", "line.yaml", "-w", "small/new").line
        assert expected in call("annotate", "line.yaml", "-w", "small/w/shards/deep").line


def long_line(folder: Path) -> list[object]:
    """A line of some seconds' work, in many shards."""
    write_video(folder / "long.mp4", [moving_square(n % 40) for n in range(120)], options={"g": "30"})
    edit(
        folder,
        sources=[{"video": "long.mp4"}],
        selection={"repeats": False, "shard_frames": 4},
        proposer={"kind": "motion", "history_frames": 64, "lookahead_frames": 0, "rest_frames": 16},
    )
    return ["annotate", folder / "line.yaml", "--json", "-w"]


def when_shards(workspace: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has finished some shards."""
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        if len(list((workspace / "shards" / "match").glob("[!.]*"))) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(wait(process).err)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object], dict[str, str]]:
    """A long line, run undisturbed."""
    folder = make_bench(tmp_path_factory.mktemp("long"))
    words = long_line(folder)
    annotate(load_line(folder / "line.yaml"), Workspace(folder / "whole"))
    return folder, words, digests(folder / "whole")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_goes_on(
    long_run: tuple[Path, list[object], dict[str, str]], tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    _, words, expected = long_run
    process = start(*words, tmp_path / "w")
    when_shards(tmp_path / "w", 3, process)
    process.send_signal(sent)
    stopped = wait(process)
    assert stopped.code == code
    assert stopped.out == ""
    if sent == signal.SIGINT:
        said = "labelmill: interrupted; finished work is kept, run the same command to go on"
        assert stopped.err.splitlines()[-1] == said
        assert "Traceback" not in stopped.err
    assert not (tmp_path / "w" / "tables" / "summary.json").exists()
    again = wait(start(*words, tmp_path / "w"))
    assert again.code == 0
    shards = json.loads(again.out)["shards"]
    assert 3 <= shards["reused"] < 30
    assert shards["computed"] == 30 - shards["reused"]
    assert digests(tmp_path / "w") == expected


def test_two_runs_at_once(long_run: tuple[Path, list[object], dict[str, str]], tmp_path: Path) -> None:
    """The second gets one clear line, and the first does not notice."""
    _, words, expected = long_run
    first = start(*words, tmp_path / "w")
    when_shards(tmp_path / "w", 1, first)
    first.send_signal(signal.SIGSTOP)  # so that it does not finish before the second begins
    second = wait(start(*words, tmp_path / "w"))
    first.send_signal(signal.SIGCONT)
    assert second.line.startswith(f"workspace {tmp_path / 'w'} is in use, got process {first.pid} on ")
    assert wait(first).code == 0
    assert digests(tmp_path / "w") == expected
