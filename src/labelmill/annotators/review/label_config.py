"""The labelling page of a line's project, as Label Studio's XML, and the check of what is sent to it.

The control and object names below are the contract between the page, the tasks and the pulled results.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labelmill.errors import ReviewError

NG = "NG"
NOT_SURE = "not sure"

LABEL = "label"
"""Control: the class, NG or not sure."""
GROUP = "group"
"""Control: ticked when the answer holds for every crop of the group."""
GROUP_YES = "all crops of the group"
BOX = "box"
"""Control: the region on the frame."""
BOX_LABEL = "region"

PICTURES = ("crop", "frame", "template_1", "template_2", "group_sheet")
TEXTS = ("facts", "caption_1", "caption_2", "note")

_HOTKEYS = "123456789"
_STYLE = """
.lm-row { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start }
.lm-side { flex: 1 1 220px; min-width: 200px; max-width: 420px }
.lm-crop { max-height: 330px; overflow: hidden }
.lm-wide { flex: 2 1 480px; min-width: 320px }
"""


def choices(classes: Sequence[str]) -> tuple[str, ...]:
    """What an annotator may answer: the classes, NG, and not sure.

    Raises:
        ReviewError: A name that the page could not show, or would confuse.
    """
    seen = set()
    for name in classes:
        if name in (NG, NOT_SURE):
            raise ReviewError(
                f"a class cannot be called {name!r}", expected="another name", do="rename its template folder"
            )
        if name != name.strip() or not name or any(ord(sign) < 32 for sign in name):
            raise ReviewError(
                f"class name {name!r} has spaces at its ends or control characters",
                expected="printable characters",
                do="rename its template folder",
            )
        if name.startswith("$"):
            raise ReviewError(
                f"class name {name!r} begins with $, which Label Studio reads as a variable",
                do="rename its template folder",
            )
        if name in seen:
            raise ReviewError(f"class {name!r} is named twice", do="remove one of the template folders")
        seen.add(name)
    return (*classes, NG, NOT_SURE)


def build(classes: Sequence[str], extra: Iterable[str] = ()) -> str:
    """The page's XML.

    Args:
        classes: The line's classes.
        extra: Choices that someone added by hand and that decisions already use; they stay, so that no
            decision loses its label.

    Raises:
        ReviewError: A class name that cannot be shown.
    """
    ours = choices(classes)
    names = (*ours, *sorted(set(extra) - set(ours)))
    root = ET.Element("View")
    ET.SubElement(root, "Style").text = _STYLE
    ET.SubElement(root, "Header", value="$facts", size="5")
    ET.SubElement(root, "Text", name="note", value="$note")

    top = ET.SubElement(root, "View", className="lm-row")
    # Label Studio reserves a tall picture's height at full width; the row is as high as what it shows.
    left = ET.SubElement(top, "View", className="lm-side lm-crop")
    ET.SubElement(left, "Header", value="This crop", size="5")
    _picture(left, "crop")
    for number in (1, 2):
        side = ET.SubElement(top, "View", className="lm-side lm-crop")
        ET.SubElement(side, "Header", value=f"$caption_{number}", size="5")
        _picture(side, f"template_{number}")

    answer = ET.SubElement(
        root, "Choices", name=LABEL, toName="crop", choice="single-radio", required="true", showInline="true",
        requiredMessage="Choose a class, NG, or not sure",
    )  # fmt: skip
    for index, name in enumerate(names):
        choice = ET.SubElement(answer, "Choice", value=name)
        if index < len(_HOTKEYS):
            choice.set("hotkey", _HOTKEYS[index])

    bottom = ET.SubElement(root, "View", className="lm-row")
    wide = ET.SubElement(bottom, "View", className="lm-wide")
    ET.SubElement(wide, "Header", value="The whole frame: move the box where it is wrong", size="5")
    _picture(wide, "frame")
    boxes = ET.SubElement(wide, "RectangleLabels", name=BOX, toName="frame", canRotate="false")
    ET.SubElement(boxes, "Label", value=BOX_LABEL, background="#e4572e")
    side = ET.SubElement(bottom, "View", className="lm-side")
    ET.SubElement(side, "Header", value="Near-identical crops", size="5")
    _picture(side, "group_sheet")
    group = ET.SubElement(side, "Choices", name=GROUP, toName="crop", choice="multiple", showInline="true")
    ET.SubElement(group, "Choice", value=GROUP_YES, hotkey="g")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _picture(parent: ET.Element, name: str) -> None:
    picture = ET.SubElement(parent, "Image", name=name, value=f"${name}", zoom="false", zoomControl="false")
    if name == "frame":
        picture.set("zoom", "true")
        picture.set("zoomControl", "true")
    else:
        picture.set("maxWidth", "300px")


def read_choices(xml: str) -> tuple[str, ...]:
    """The answers that a page offers, also one edited by hand; empty when it has none of ours."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - our own server's answer
    except ET.ParseError:
        return ()
    for element in root.iter("Choices"):
        if element.get("name") == LABEL:
            return tuple(
                choice.get("alias") or choice.get("value") or "" for choice in element.iter("Choice")
            )
    return ()


def same(first: str, second: str) -> bool:
    """Whether two pages are the same but for white space and the order of attributes."""
    try:
        return ET.canonicalize(first, strip_text=True) == ET.canonicalize(second, strip_text=True)
    except ET.ParseError:
        return first == second


def check_prediction(prediction: Mapping[str, Any], answers: Sequence[str]) -> None:
    """Refuse a prediction that the page could not show. Label Studio itself takes it without a word.

    Raises:
        ReviewError: An unknown control, an unknown answer, or a box outside the frame.
    """
    for part in prediction["result"]:
        control, value = part["from_name"], part["value"]
        if control == LABEL:
            if part["to_name"] != "crop" or len(value["choices"]) != 1 or value["choices"][0] not in answers:
                raise ReviewError(
                    "a prediction does not fit the labelling page",
                    got=value["choices"],
                    expected=f"one of {', '.join(answers)}",
                    do="run `labelmill annotate` again, so that labels and classes agree",
                )
        elif control == BOX:
            inside = all(
                value[start] >= 0 and value[size] > 0 and value[start] + value[size] <= 100.001
                for start, size in (("x", "width"), ("y", "height"))
            )
            if part["to_name"] != "frame" or value["rectanglelabels"] != [BOX_LABEL] or not inside:
                got = [round(value[name], 2) for name in ("x", "y", "width", "height")]
                raise ReviewError(
                    "a predicted box does not lie inside its frame",
                    got=f"x, y, width, height {got} in percent",
                    do="run `labelmill annotate` again",
                )
        else:
            raise ReviewError(f"a prediction names the control {control!r}", expected=f"{LABEL} or {BOX}")
