"""Both makers on checkpoints in their real formats, with the same weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
import torch

from labelmill.annotators.grounding.pixels import PixelReader, places
from labelmill.annotators.grounding.proposer import GroundingProposer
from labelmill.annotators.proposers.grounding_dino import GroundingDino, load_port
from labelmill.annotators.proposers.groundingdino_py import GroundingDinoPy
from labelmill.annotators.types import Frame

PHRASES = ("car", "carpet", "work glove", "red bottle")
SMALL: dict[str, Any] = {"device": "cpu", "dtype": "float32", "shortest_px": 96, "longest_px": 160}
OPEN: dict[str, Any] = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": None}


def make(kind: str, original: Path, port: Path, **settings: Any) -> GroundingProposer:
    settings = {"prompts": PHRASES, **SMALL, **settings}
    if kind == "grounding-dino":
        return GroundingDino(GroundingDino.Config(model=str(port), **settings))
    text = str(original / "bert")
    return GroundingDinoPy(GroundingDinoPy.Config(model=str(original), text_encoder=text, **settings))


def frames(count: int, shape_hw: tuple[int, int] = (120, 200), first: int = 0) -> list[Frame]:
    rng = np.random.default_rng(first)
    images = [rng.integers(0, 256, (*shape_hw, 3), dtype=np.uint8) for _ in range(count)]
    return [Frame("s", first + number, 0.0, image) for number, image in enumerate(images)]


def raw(
    proposer: GroundingProposer, batch: Sequence[Frame], group: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    logits, boxes = proposer.launch(batch)[group]
    return logits[..., : len(proposer.groups[group].token_ids)], boxes


def agreement(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Share of queries whose boxes and scores differ by less than 1e-3."""
    scores = (one[0].sigmoid() - other[0].sigmoid()).abs().amax(-1)
    boxes = (one[1] - other[1]).abs().amax(-1)
    return ((scores < 1e-3) & (boxes < 1e-3)).float().mean().item()


@pytest.fixture(scope="module", params=["grounding-dino", "groundingdino-py"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def proposer(kind: str, original: Path, port: Path) -> GroundingProposer:
    return make(kind, original, port, **OPEN)


def test_the_makers_agree(original: Path, port: Path) -> None:
    theirs, ours = (make(kind, original, port, **OPEN) for kind in ("groundingdino-py", "grounding-dino"))
    assert ours.groups == theirs.groups
    batch = frames(2)
    encoded: list[torch.Tensor] = []
    for encoder in (ours.network.model.model.encoder, theirs.network.model.transformer.encoder):  # type: ignore[attr-defined]
        encoder.register_forward_hook(lambda module, given, found: encoded.extend((found[0], found[1])))
    assert agreement(raw(ours, batch), raw(theirs, batch)) >= 0.99
    vision, text, their_vision, their_text = encoded
    torch.testing.assert_close(vision, their_vision, rtol=0, atol=1e-4)
    torch.testing.assert_close(text, their_text, rtol=0, atol=1e-4)
    pixels = PixelReader(torch.device("cpu"), 96, 160)([frame.image for frame in batch])
    with torch.inference_mode():
        from groundingdino.util.misc import NestedTensor

        port_maps = ours.network.model.model.backbone(pixels, torch.ones_like(pixels[:, 0]))[0]  # type: ignore[attr-defined]
        mask = torch.zeros_like(pixels[:, 0], dtype=torch.bool)
        original_maps = theirs.network.model.backbone(NestedTensor(pixels, mask))[0]  # type: ignore[attr-defined]
    assert len(port_maps) == len(original_maps) == 3
    for (features, _), nested in zip(port_maps, original_maps, strict=True):
        torch.testing.assert_close(features, nested.tensors, rtol=0, atol=1e-4)


def test_the_port_as_it_comes_gives_the_same(original: Path, port: Path) -> None:
    """Neither the text encoded once nor the lean attention changes what transformers' own model gives."""
    ours = make("grounding-dino", original, port, **OPEN)
    batch = frames(2)
    pixels = PixelReader(torch.device("cpu"), 96, 160)([frame.image for frame in batch])
    ids = torch.tensor([ours.groups[0].token_ids]).expand(2, -1)
    with torch.inference_mode():
        plain = load_port(port)(pixel_values=pixels, input_ids=ids)
    assert agreement(raw(ours, batch), (plain.logits[..., : ids.shape[1]], plain.pred_boxes)) == 1.0


def test_the_original_as_it_comes_gives_the_same(original: Path, port: Path) -> None:
    from labelmill.annotators.proposers.groundingdino_py_network import build, fill, read_architecture

    ours = make("groundingdino-py", original, port, **OPEN)
    plain = build(read_architecture(original / "tiny.cfg.py"), original / "bert")
    fill(plain, original / "tiny.pth")
    batch = frames(2)
    pixels = PixelReader(torch.device("cpu"), 96, 160)([frame.image for frame in batch])
    caption = " . ".join(PHRASES) + " ."
    with torch.inference_mode(), pytest.warns(FutureWarning, match="autocast"):
        found = plain(pixels, captions=[caption, caption])
    tokens = len(ours.groups[0].token_ids)
    assert agreement(raw(ours, batch), (found["pred_logits"][..., :tokens], found["pred_boxes"])) == 1.0


def test_the_text_is_encoded_once(proposer: GroundingProposer) -> None:
    first = raw(proposer, frames(1))
    text = proposer.network._text  # type: ignore[attr-defined]
    assert text.encoder is None  # its memory is given back
    again = raw(proposer, frames(1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_a_batch_gives_what_single_frames_give(proposer: GroundingProposer) -> None:
    batch = frames(3)
    logits, boxes = raw(proposer, batch)
    for number, frame in enumerate(batch):
        single = raw(proposer, [frame])
        assert agreement((logits[number : number + 1], boxes[number : number + 1]), single) == 1.0


def test_mixed_shapes_are_answered_in_order(kind: str, original: Path, port: Path) -> None:
    mixed = [*frames(2), *frames(1, (200, 120), 2), *frames(1, first=3), *frames(1, (96, 96), 4)]
    one, many = (make(kind, original, port, box_threshold=0.3, batch_size=size) for size in (1, 3))
    singles = list(one.propose(iter(mixed)))
    batched = list(many.propose(iter(mixed)))
    assert len(batched) == len(mixed)
    assert sum(map(len, singles)) > 0
    for frame, single, other in zip(mixed, singles, batched, strict=True):
        same(single, other)
        height, width = frame.image.shape[:2]
        assert (other.xyxy >= 0).all()
        assert (other.xyxy <= [width, height, width, height]).all()


def same(one: sv.Detections, other: sv.Detections) -> None:
    assert one.data["phrase"].tolist() == other.data["phrase"].tolist()
    np.testing.assert_allclose(one.xyxy, other.xyxy, atol=0.05)
    assert one.confidence is not None
    assert other.confidence is not None
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-3)


def test_many_phrases_are_split_and_merged(kind: str, original: Path, port: Path) -> None:
    """Groups share the image's features, and give what each gives alone."""
    phrases = [f"{a}{b} {c}" for a in "abcdefgh" for b in "abcdefg" for c in ("hand", "bag")]
    merged = make(kind, original, port, prompts=phrases, **OPEN)
    assert [len(group.token_ids) <= 256 for group in merged.groups] == [True, True]
    passes = merged.launch(frames(1))
    for number, group in enumerate(merged.groups):
        alone = make(kind, original, port, prompts=[phrases[index] for index in group.prompts], **OPEN)
        assert agreement(passes[number], alone.launch(frames(1))[0]) == 1.0
    (found,) = merged.collect(frames(1), merged.look(frames(1)))
    assert set(found.data["phrase"].tolist()) == set(phrases)


def test_phrases_of_one_class_answer_with_it(kind: str, original: Path, port: Path) -> None:
    prompts = [{"phrase": phrase, "class": "thing"} for phrase in PHRASES]
    chosen = make(kind, original, port, prompts=prompts, box_threshold=0.3)
    (found,) = chosen.propose(iter(frames(1)))
    assert len(found) > 0
    assert set(found.data["phrase"].tolist()) == {"thing"}
    assert set(found.data["text"].tolist()) <= set(PHRASES)


def test_half_precision_keeps_coordinates(kind: str, original: Path, port: Path) -> None:
    """Top-k picks other queries where two nearly tie; a box of both is within a pixel of 1333."""
    exact, half = (make(kind, original, port, **OPEN, dtype=dtype) for dtype in ("float32", "bfloat16"))
    (_, boxes), (_, half_boxes) = raw(exact, frames(1)), raw(half, frames(1))
    assert half_boxes.dtype == torch.float32
    distance = (boxes[0][:, None] - half_boxes[0][None]).abs().amax(-1).amin(1)
    of_both = distance[distance < 4 / 1333]
    assert len(of_both) >= 0.4 * len(distance)
    assert of_both.median().item() < 1 / 1333


def test_no_numbers_are_an_error(kind: str, original: Path, port: Path) -> None:
    from labelmill.errors import WeightsError

    broken = make(kind, original, port)
    ((logits, boxes),) = broken.look(frames(1))
    with pytest.raises(WeightsError, match="write dtype: float32"):
        broken.collect(frames(1), [(np.full_like(logits, np.nan), boxes)])


def test_a_full_accelerator_is_one_line(proposer: GroundingProposer, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelmill.errors import LineFileError

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 8 GiB.")

    monkeypatch.setattr(proposer.network, "forward", full)
    with pytest.raises(
        LineFileError, match=r"does not fit.*got CUDA out of memory; write a smaller batch_size"
    ):
        list(proposer.propose(iter(frames(1))))


def test_an_accelerator_computes_while_answers_are_used(
    kind: str, original: Path, port: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer = make(kind, original, port, box_threshold=0.3, batch_size=1)
    expected = list(proposer.propose(iter(frames(3))))
    forward, used, passes = proposer.network.forward, threading.Event(), 0

    def watched(pixels: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal passes
        passes += 1
        assert passes != 2 or used.wait(20), "the first answer waited for the second pass"
        return forward(pixels, group)

    monkeypatch.setattr(proposer.network, "forward", watched)
    monkeypatch.setattr(proposer, "_accelerated", True)
    stream = proposer.propose(iter(frames(3)))
    first = next(stream)
    used.set()
    for found, one in zip([first, *stream], expected, strict=True):
        same(found, one)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("grounding")]


@pytest.mark.parametrize(
    ("shape_hw", "said"),
    [
        ((40, 5000), "got 5000x40 px, scaled to 160x1, expected at least 100 places"),
        ((1, 2000), "got 2000x1 px, scaled to 160x0, expected at least 100 places"),
    ],
)
def test_a_frame_without_places_for_its_boxes_is_one_line(
    proposer: GroundingProposer, shape_hw: tuple[int, int], said: str
) -> None:
    from labelmill.errors import LineFileError

    with pytest.raises(LineFileError, match=said):
        proposer.launch(frames(1, shape_hw))


@pytest.mark.parametrize("shape_hw", [(32, 152), (101, 70), (65, 129)])
def test_places_are_the_networks_own(proposer: GroundingProposer, shape_hw: tuple[int, int]) -> None:
    network: Any = proposer.network
    core = network.model.model if proposer.config.kind == "grounding-dino" else network.model.transformer
    found: list[int] = []
    hook = core.encoder.register_forward_hook(lambda _, given, encoded: found.append(encoded[0].shape[1]))
    with torch.inference_mode():
        network.forward(torch.zeros(1, 3, *shape_hw), 0)
    hook.remove()
    assert found == [places(*shape_hw)]
