"""Take the picture of the FiftyOne App on a version: `python docs/images/take_app.py WORKSPACE D@vN`.

Needs Playwright and a Chromium on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


PATIENCE_MS = 120_000


@contextmanager
def browsed(workspace: Path, spec: str) -> Iterator[str]:
    """Run `labelmill browse` until the block ends.

    Yields:
        The address of the App.
    """
    command = [sys.executable, "-W", "ignore", "-m", "labelmill.cli", "browse", spec, "--no-open", "--json"]
    process = subprocess.Popen(
        [*command, "--workspace", str(workspace)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        if process.stdout is None:
            raise SystemExit("no output to read the address from")
        text = ""
        while line := process.stdout.readline():
            text += line
            if line == "}\n":
                break
        if not text:
            raise SystemExit(f"labelmill browse ended with {process.wait()}")
        yield str(json.loads(text)["url"])
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def chromium_program() -> str | None:
    """The machine's Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def opened(url: str, view: str = "", seen: list[str] | None = None) -> Iterator[Page]:
    """Open the App in a headless Chromium, and wait until pictures with boxes are drawn.

    Requests beyond this machine are refused: the App's fonts are, and it does without.

    Args:
        url: Of the dataset.
        view: Slug of a saved view, like `split-train`.
        seen: Takes the address of everything that was served.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        page.route(
            lambda address: not address.startswith(("http://127.0.0.1", "data:", "blob:")),
            lambda route: route.abort(),
        )
        if seen is not None:
            page.on("response", lambda answer: seen.append(unquote(answer.url)) if answer.ok else None)
        page.goto(f"{url}?view={view}" if view else url)
        page.wait_for_selector("[data-cy='looker']")
        for button in ("Dismiss", "Disable"):  # of what the App advertises, and of its statistics
            with suppress(PlaywrightTimeout):
                page.get_by_text(button, exact=True).first.click(timeout=10_000)
        page.wait_for_timeout(3000)  # the pictures fade in
        yield page
        browser.close()


def take(page: Page, file: Path) -> None:
    """Write what the page shows, in 256 colours: half the bytes."""
    Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(256).save(file, optimize=True)


if __name__ == "__main__":
    with browsed(Path(sys.argv[1]), sys.argv[2]) as address, opened(address, "split-train") as shown:
        shown.mouse.move(700, 400)
        shown.mouse.wheel(0, 900)  # to where hands are in the picture
        shown.mouse.move(150, 700)
        shown.wait_for_timeout(4000)
        take(shown, Path(__file__).with_name("app.png"))
