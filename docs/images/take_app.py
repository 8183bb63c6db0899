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
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
        process.wait(60)


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """Open the App in a headless Chromium, and wait until pictures with boxes are drawn.

    Requests beyond this machine are refused: the App's fonts are, and it does without.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.route(
            lambda address: not address.startswith(("http://127.0.0.1", "data:", "blob:")),
            lambda route: route.abort(),
        )
        page.goto(url)
        page.get_by_text("samples", exact=False).first.wait_for(timeout=120_000)
        page.wait_for_selector("[data-cy='looker']", timeout=120_000)
        page.wait_for_timeout(4000)
        yield page
        browser.close()


if __name__ == "__main__":
    with browsed(Path(sys.argv[1]), sys.argv[2]) as address, opened(address) as shown:
        shown.screenshot(path=Path(__file__).with_name("app.png"))
