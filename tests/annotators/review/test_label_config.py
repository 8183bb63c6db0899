"""The labelling page: its choices, and what may be sent to it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from labelmill.annotators.review.label_config import build, check_prediction, choices, read_choices, same
from labelmill.errors import ReviewError

ODD = ("nut & bolt", "<M6>", 'said "so"', "größe/10 µm", "it's")


def parsed(page: str) -> ET.Element:
    return ET.fromstring(page)  # noqa: S314 - what we wrote ourselves


def test_a_page_offers_the_classes_ng_and_not_sure() -> None:
    assert read_choices(build(("hand", "tool"))) == ("hand", "tool", "NG", "not sure")


def test_names_with_signs_of_xml_come_through() -> None:
    assert read_choices(build(ODD)) == (*ODD, "NG", "not sure")


def test_every_control_names_an_object_of_the_page() -> None:
    root = parsed(build(("a",)))
    objects = {element.get("name") for element in root.iter("Image")}
    assert objects == {"crop", "frame", "template_1", "template_2", "group_sheet"}
    controls = {
        e.get("name"): e.get("toName") for tag in ("Choices", "RectangleLabels") for e in root.iter(tag)
    }
    assert controls == {"label": "crop", "group": "crop", "box": "frame"}


def test_answers_added_by_hand_and_used_stay() -> None:
    assert read_choices(build(("a", "b"), ["washer", "a"])) == ("a", "b", "NG", "not sure", "washer")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("NG",), "cannot be called 'NG'"),
        (("not sure",), "cannot be called 'not sure'"),
        ((" a",), "spaces at its ends"),
        (("a\nb",), "control characters"),
        (("",), "spaces at its ends"),
        (("$crop",), "begins with \\$"),
        (("a", "a"), "named twice"),
    ],
)
def test_names_that_cannot_be_shown_are_refused(names: tuple[str, ...], says: str) -> None:
    with pytest.raises(ReviewError, match=says):
        choices(names)


@pytest.mark.parametrize(
    "xml", ["", "<View>", "<View/>", '<View><Choices name="other"><Choice value="x"/></Choices></View>']
)
def test_a_page_without_our_choices_offers_nothing(xml: str) -> None:
    assert read_choices(xml) == ()


def test_pages_are_compared_by_meaning() -> None:
    page = build(("a",))
    assert same(page, ET.tostring(parsed(page), encoding="unicode").replace("  ", ""))
    assert not same(page, build(("b",)))
    assert not same(page, "<View>")


def choice(**changes: Any) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "crop", "value": {"choices": ["a"]}} | changes


def box(x: float, y: float, width: float, height: float, label: str = "region") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": [label]}
    return {"from_name": "box", "to_name": "frame", "value": value}


def test_a_fitting_prediction_passes() -> None:
    check_prediction({"result": [choice(), box(0, 0, 100, 100)]}, ("a", "NG"))


@pytest.mark.parametrize(
    "part",
    [
        choice(value={"choices": ["b"]}),
        choice(value={"choices": []}),
        choice(value={"choices": ["a", "NG"]}),
        choice(to_name="frame"),
        choice(from_name="unknown"),
        box(-1, 0, 10, 10),
        box(0, 0, 0, 10),
        box(95, 0, 10, 10),
        box(0, 0, 10, 10, label="other"),
    ],
)
def test_a_prediction_that_the_page_cannot_show_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(ReviewError):
        check_prediction({"result": [part]}, ("a", "NG"))
