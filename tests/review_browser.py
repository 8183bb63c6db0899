"""A person at the labelling page, played by a headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labelmill.annotators.review.server import Access

_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_PATIENCE_MS = 120_000


@contextmanager
def chromium() -> Iterator[Any]:
    """A page of the machine's own Chromium; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        page = browser.new_page(viewport={"width": 1360, "height": 1300})
        page.set_default_timeout(_PATIENCE_MS)
        yield page
        browser.close()


def log_in(page: Any, access: Access) -> None:
    """Log in as the owner."""
    page.goto(f"{access.url}/user/login/")
    page.fill("input[name=email]", access.login)
    page.fill("input[name=password]", access.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)


def open_queue(page: Any, access: Access, project: int) -> None:
    """Begin to label, as the button "Label All Tasks" does."""
    page.goto(f"{access.url}/projects/{project}/data?labeling=1")
    wait_for_task(page)


def wait_for_task(page: Any) -> None:
    """Wait until a task with all its pictures is there."""
    page.get_by_text("The whole frame").wait_for()
    page.wait_for_function(
        "() => [...document.images].filter(i => i.src.startsWith('blob:') && i.naturalWidth > 0).length >= 5"
    )
    page.get_by_text("region", exact=True).first.wait_for()


def shown_task(page: Any) -> int:
    """Number of the task on the page."""
    found = re.search(r"(\d+)\n\d+ of \d+", page.inner_text("body"))
    assert found, "the page names no task"
    return int(found[1])


def wait_for_other_task(page: Any, task: int) -> None:
    """Wait until the page has left a task and shows the next one whole."""
    page.wait_for_function(f"() => !document.body.innerText.includes('{task}\\n')")
    wait_for_task(page)


def choose(page: Any, label: str) -> None:
    """Choose a class."""
    page.locator("label", has_text=label).first.click()


def drag_box(page: Any, box: tuple[float, float, float, float], step_px: tuple[int, int]) -> None:
    """Drag the region's box.

    Args:
        page: The page.
        box: x, y, width, height in percent of the frame.
        step_px: Right and down, pixels of the screen.
    """
    stages = page.locator("[class*=konvajs-content]")
    areas = [stages.nth(number).bounding_box() for number in range(stages.count())]
    frame = max((area for area in areas if area), key=lambda area: float(area["width"]))
    x = frame["x"] + frame["width"] * (box[0] + box[2] / 2) / 100
    y = frame["y"] + frame["height"] * (box[1] + box[3] / 2) / 100
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + step_px[0] / 2, y + step_px[1] / 2, steps=4)
    page.mouse.move(x + step_px[0], y + step_px[1], steps=4)
    page.mouse.up()


def submit(page: Any) -> dict[str, Any]:
    """Submit the answer.

    Returns:
        The annotation, as the server answers.
    """
    with page.expect_response(
        lambda reply: "/annotations" in reply.url and reply.request.method == "POST"
    ) as reply:
        page.get_by_role("button", name="Submit").first.click()
    made: dict[str, Any] = reply.value.json()
    return made


def screenshot(page: Any, path: Path) -> None:
    """Keep what the page shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
