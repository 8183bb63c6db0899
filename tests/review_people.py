"""Annotators who work through Label Studio's own API, each logged in with an account of their own."""

from __future__ import annotations

import secrets
from typing import Any

import httpx

from labelmill.annotators.review.label_config import BOX_LABEL, GROUP_YES
from labelmill.annotators.review.server import Access


def admin(access: Access) -> httpx.Client:
    """The owner."""
    return httpx.Client(base_url=access.url, headers={"Authorization": f"Token {access.token}"}, timeout=120)


class Annotator:
    """A person with an account and a session.

    Args:
        access: The server.
        name: Begins the address; what follows keeps two runs against one server apart.
    """

    def __init__(self, access: Access, name: str) -> None:
        self.email = f"{name}-{secrets.token_hex(3)}@example.com"
        password = "correct-horse-1"  # noqa: S105 - of a server that lives for one test run
        with admin(access) as owner:
            invitation = owner.get("/api/invite").json()["invite_url"]
        self.client = httpx.Client(base_url=access.url, timeout=120, follow_redirects=True)
        self.client.get(invitation)
        form = {
            "email": self.email,
            "password": password,
            "csrfmiddlewaretoken": self.client.cookies.get("csrftoken", ""),
        }
        self.client.post(invitation, data=form, headers={"Referer": access.url})
        person = self.client.get("/api/current-user/whoami").json()
        assert person.get("email") == self.email, person
        self.id: int = person["id"]

    def next(self, project: int) -> dict[str, Any] | None:
        """The task that the queue hands out, or None when there is none."""
        reply = self.client.get(f"/api/projects/{project}/next")
        if reply.status_code == 404:
            return None
        assert reply.status_code == 200, reply.text
        task: dict[str, Any] = reply.json()
        return task

    def answer(
        self,
        task: int,
        label: str | None,
        *,
        group: bool = False,
        box: tuple[float, float, float, float] | None = None,
        skip: bool = False,
        seconds: float = 2.0,
    ) -> int:
        """Submit an annotation, or a skip.

        Args:
            task: Its number.
            label: The choice; None chooses nothing.
            group: Whether it holds for the group.
            box: x, y, width, height in percent.
            skip: Skip the task.
            seconds: Time spent.

        Returns:
            The annotation's number.
        """
        body: dict[str, Any] = {
            "result": result(label, group=group, box=box),
            "lead_time": seconds,
            "was_cancelled": skip,
        }
        reply = self.client.post(f"/api/tasks/{task}/annotations/", json=body, headers=self._csrf())
        assert reply.status_code == 201, reply.text
        number: int = reply.json()["id"]
        return number

    def change(self, annotation: int, label: str) -> None:
        """Submit an annotation again with another choice."""
        body: dict[str, Any] = {"result": result(label), "lead_time": 5.0}
        reply = self.client.patch(f"/api/annotations/{annotation}/", json=body, headers=self._csrf())
        assert reply.status_code == 200, reply.text

    def remove(self, annotation: int) -> None:
        """Take an annotation back."""
        reply = self.client.delete(f"/api/annotations/{annotation}/", headers=self._csrf())
        assert reply.status_code == 204, reply.text

    def _csrf(self) -> dict[str, str]:
        return {"X-CSRFToken": self.client.cookies.get("csrftoken") or ""}


def result(
    label: str | None, *, group: bool = False, box: tuple[float, float, float, float] | None = None
) -> list[dict[str, Any]]:
    """An annotation's result as the page would send it."""
    parts: list[dict[str, Any]] = []
    if label is not None:
        parts.append(_choice("label", label))
    if group:
        parts.append(_choice("group", GROUP_YES))
    if box is not None:
        x, y, width, height = box
        value = {
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "rotation": 0,
            "rectanglelabels": [BOX_LABEL],
        }
        parts.append(
            {"id": "box", "from_name": "box", "to_name": "frame", "type": "rectanglelabels",
             "original_width": 128, "original_height": 128, "value": value}
        )  # fmt: skip
    return parts


def _choice(control: str, value: str) -> dict[str, Any]:
    kind: dict[str, Any] = {"from_name": control, "to_name": "crop", "type": "choices"}
    return {"id": control, **kind, "value": {"choices": [value]}}
