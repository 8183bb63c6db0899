"""Take the pictures of the demo's report: `python docs/images/take_report.py labelmill-demo/report.html`.

Needs Playwright and a Chromium on the machine. Neither picture shows the paths that the report names.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def take(report: Path, folder: Path) -> None:
    """Write report.png (its first screen) and report-crops.png (its galleries) into a folder."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        middle, after = (page.get_by_role("heading", name=name, exact=True) for name in ("Over time", "Time"))
        top = middle.locator("xpath=ancestor::section").bounding_box()
        end = after.locator("xpath=ancestor::section").bounding_box()
        if top is None or end is None:
            raise SystemExit(f"{report} is not the report of a whole demo")
        split = top["y"] + top["height"] + 8
        for name, first, last in (("report", 0.0, split), ("report-crops", split, end["y"] - 8)):
            clip = {"x": 0.0, "y": first, "width": 1200.0, "height": last - first}
            page.screenshot(path=folder / f"{name}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(__file__).parent)
