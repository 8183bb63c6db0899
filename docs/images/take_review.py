"""Takes `review.png`: the labelling page of the sample line's first group, in a headless Chromium.

labelmill demo && labelmill services up && labelmill review push labelmill-demo/sample/demo-line.yaml \
        -w labelmill-demo/workspace
python docs/images/take_review.py labelmill-demo/workspace
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.review_browser import chromium, log_in, screenshot, wait_for_task

from labelmill.annotators.review.client import Studio
from labelmill.annotators.review.server import LabelStudioServer


def main(workspace: Path) -> None:
    """Take the picture."""
    access = LabelStudioServer().access()
    if access is None:
        raise SystemExit("no Label Studio on this machine: labelmill services up")
    project = json.loads((workspace / "review" / "state.json").read_text())["project"]
    studio = Studio(access.url, access.token)
    grouped = [task for task in studio.tasks(project) if task.data["members"] and not task.done]
    task = min(grouped, key=lambda task: task.score or 0.0)
    studio.close()
    with chromium() as page:
        log_in(page, access)
        page.set_viewport_size({"width": 1360, "height": 1010})
        page.goto(f"{access.url}/projects/{project}/data?task={task.id}")
        wait_for_task(page)
        screenshot(page, Path(__file__).with_name("review.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
