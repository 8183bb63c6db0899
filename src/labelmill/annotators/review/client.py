"""Label Studio's API, as far as the review queue needs it: the one module that knows label_studio_sdk.

Requests that can be repeated are repeated until the server answers or patience ends; those that cannot
(importing) raise `InterruptedRequestError`, and whoever asked looks at what is there before asking again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from labelmill.errors import MissingDependencyError, ReviewError

if TYPE_CHECKING:
    import httpx
    from label_studio_sdk import LabelStudio

T = TypeVar("T")

PAGE = 1000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0
_LISTED = (
    "id,data,total_predictions,total_annotations,cancelled_annotations,overlap,is_labeled,predictions_score"
)
# Of a task and of its annotations alike; everything would cost the server twice to four times the work.
_ANSWERED = f"{_LISTED},annotations,created_at,updated_at,result,completed_by,was_cancelled,lead_time"
# The server computes the score only where a filter names it; the other half lets every task through.
_ALL_BY_NUMBER = json.dumps(
    {
        "ordering": ["tasks:id"],
        "filters": {
            "conjunction": "or",
            "items": [
                {
                    "filter": f"filter:tasks:{column}",
                    "operator": "greater",
                    "type": "Number",
                    "value": 0,
                }
                for column in ("id", "predictions_score")
            ],
        },
    }
)
_ONCE: dict[str, Any] = {"max_retries": 0}
_TITLE_MAX = 50


class InterruptedRequestError(ReviewError):
    """The server went away while a request that cannot be repeated blindly was under way."""


class GoneError(ReviewError):
    """What a request named is not on the server any more."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project on the server.

    Attributes:
        id: Its number.
        title: Its title.
        description: Where our marker is.
        label_config: The labelling page's XML.
        overlap: How many people look at a new task.
        sampling: How the queue is ordered.
        model_version: Whose predictions are shown.
        created_at: When it was made.
    """

    id: int
    title: str
    description: str
    label_config: str
    overlap: int
    sampling: str
    model_version: str
    created_at: str


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """A task on the server.

    Attributes:
        id: Its number.
        data: Its fields.
        annotations: How many people answered.
        skips: How many people skipped it.
        predictions: How many predictions it has.
        score: Of its prediction; None where it was not asked for.
        overlap: How many answers it waits for; 0 when we closed it.
        done: Whether the queue leaves it out.
        updated_at: When the server last changed it, where it was asked for.
        answers: The annotations themselves, where they were asked for.
    """

    id: int
    data: Mapping[str, Any]
    annotations: int
    skips: int
    predictions: int
    score: float | None
    overlap: int
    done: bool
    updated_at: datetime | None = None
    answers: tuple[Mapping[str, Any], ...] = ()


class Studio:
    """One Label Studio server.

    Args:
        url: Its address.
        token: A legacy token or a personal access token; the latter is refreshed as it expires.
        patience_s: How long a server that does not answer is waited for.
        timeout_s: How long one answer may take.
        say: Called with a line for people when the server is waited for.
        locate: Says where the server is now; asked while it is waited for. None: where it was.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience_s: float = 120.0,
        timeout_s: float = 120.0,
        say: Callable[[str], None] = lambda _: None,
        locate: Callable[[], str | None] | None = None,
    ) -> None:
        self._locate = locate
        self.url = url.rstrip("/")
        self._token = token
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._say = say
        self._made: LabelStudio | None = None
        self._http: httpx.Client | None = None

    # ---- connection

    def _client(self) -> LabelStudio:
        if self._made is None:
            try:
                from label_studio_sdk import LabelStudio
            except ImportError as error:
                raise MissingDependencyError(
                    "label-studio-sdk is not installed", do="pip install 'labelmill[review]'"
                ) from error
            import httpx

            self._http = httpx.Client(timeout=self._timeout_s, follow_redirects=True)
            self._made = LabelStudio(
                base_url=f"{self.url}/",
                api_key=self._token,
                timeout=self._timeout_s,
                httpx_client=self._http,
            )
        return self._made

    def close(self) -> None:
        """Close the connections; the next request opens others."""
        if self._http is not None:
            self._http.close()
        self._made = self._http = None

    def _ask(self, what: str, request: Callable[[LabelStudio], T], *, repeat: bool = True) -> T:
        """Ask the server.

        Args:
            what: For messages: "list the tasks".
            request: The request.
            repeat: Whether it may be asked again after a failure whose effect is not known.

        Raises:
            InterruptedRequestError: It may not be repeated, and it is not known whether it took effect.
            GoneError: The server does not know what was named.
            ReviewError: The server refuses, or does not answer within patience.
        """
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        deadline = time.monotonic() + self._patience_s
        wait_s = _FIRST_WAIT_S
        renewed = waiting = False
        while True:
            try:
                return request(self._client())
            except ApiError as error:
                status = error.status_code or 0
                if status == 401 and not renewed and self._token.count(".") == 2:
                    self.close()  # an access token from before a restart: fetch another
                    renewed = True
                    continue
                if status < 500 and status not in (408, 429):
                    if self._follow():
                        continue  # whoever answers at the old address has nothing to say for the server
                    raise self._refusal(what, status, error.body) from error
                trouble: object = f"status {status} {_said(error.body)}".strip()
                cause: Exception = error
            except (httpx.TransportError, json.JSONDecodeError, ConnectionError) as error:
                trouble, cause = type(error).__name__, error
            if not repeat and not isinstance(cause, httpx.ConnectError):
                raise InterruptedRequestError(
                    f"Label Studio at {self.url} broke off while asked to {what}", got=trouble
                ) from cause
            if time.monotonic() + wait_s > deadline:
                raise ReviewError(
                    f"Label Studio at {self.url} does not answer ({what})",
                    got=trouble,
                    expected=f"an answer within {self._patience_s:.0f} s",
                    do="start it (`labelmill services up`) and run again: finished work is kept",
                ) from cause
            if not waiting:
                self._say(
                    f"Label Studio at {self.url} does not answer ({trouble}); waiting up to "
                    f"{self._patience_s:.0f} s: if it is down, start it (labelmill services up)"
                )
                waiting = True
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            self._follow()

    def _follow(self) -> bool:
        """Go where the server is now; says whether that is another place."""
        url = ((self._locate and self._locate()) or self.url).rstrip("/")
        if url == self.url:
            return False
        self._say(f"Label Studio is at {url} now")
        self.close()
        self.url = url
        return True

    def _refusal(self, what: str, status: int, body: object) -> ReviewError:
        said = _said(body)
        if status == 401:
            return ReviewError(
                f"Label Studio at {self.url} refuses the token",
                got=said or "401",
                expected="a legacy token or a personal access token that is neither revoked nor expired",
                do="put one from Account & Settings into the variable that review.token_env names",
            )
        if status == 403:
            return ReviewError(
                f"Label Studio at {self.url} forbids to {what}", got=said, do="use an owner's token"
            )
        if status == 404:
            return GoneError(f"Label Studio at {self.url} cannot {what}", got="404 not found")
        return ReviewError(f"Label Studio at {self.url} refuses to {what}", got=said or status)

    def preflight(self) -> str:
        """Check that the server answers and takes the token.

        Returns:
            The e-mail address of the token's owner.

        Raises:
            ReviewError: It does not answer, is no Label Studio, or refuses the token.
        """
        return str(
            self._ask("say who we are", lambda client: client.users.whoami(request_options=_ONCE)).email
        )

    # ---- projects

    def get_project(self, project: int) -> Project | None:
        """A project, or None when it is gone."""
        try:
            return _project(
                self._ask("show the project", lambda c: c.projects.get(project, request_options=_ONCE))
            )
        except GoneError:
            return None

    def find_project(self, marker: str) -> Project | None:
        """The oldest project whose description holds a marker."""
        found = self._ask(
            "list the projects",
            lambda c: [p for p in c.projects.list(page_size=100) if marker in (p.description or "")],
        )
        return self.get_project(min(p.id for p in found)) if found else None

    def create_project(self, title: str, **settings: Any) -> Project:
        """Make a project.

        Raises:
            InterruptedRequestError: It is not known whether it was made: look for its marker.
        """
        made = self._ask(
            "make a project",
            lambda c: c.projects.create(title=title[:_TITLE_MAX], **settings, request_options=_ONCE),
            repeat=False,
        )
        return _project(made)

    def update_project(self, project: int, **settings: Any) -> None:
        """Change a project's settings."""
        self._ask(
            "change the project", lambda c: c.projects.update(project, **settings, request_options=_ONCE)
        )

    # ---- tasks

    def tasks(self, project: int) -> list[RemoteTask]:
        """Every task, by number, without its annotations."""
        if not self._any_task(project):  # a project without tasks knows no score, and answers 500
            return []
        found = self._ask(
            "list the tasks",
            lambda c: {
                t.id: _task(t)
                for t in c.tasks.list(
                    project=project, fields="task_only", include=_LISTED, query=_ALL_BY_NUMBER, page_size=PAGE
                )
            },
        )
        return [found[number] for number in sorted(found)]

    def _any_task(self, project: int) -> bool:
        first = self._ask(
            "list the tasks",
            lambda c: next(
                iter(c.tasks.list(project=project, fields="task_only", include="id", page_size=1)), None
            ),
        )
        return first is not None

    def answered(self, project: int, since: str | None) -> list[RemoteTask]:
        """Tasks with an answer or a skip, changed at `since` (ISO 8601) or later, with their annotations."""
        found: dict[int, RemoteTask] = {}
        for column in ("total_annotations", "cancelled_annotations"):
            items: list[dict[str, Any]] = [_filter(column, "Number", 0)]
            if since:
                items.append(_filter("updated_at", "Datetime", since))
            query = json.dumps({"filters": {"conjunction": "and", "items": items}})
            found |= self._query(project, query)
        return [found[number] for number in sorted(found)]

    def tasks_by_id(self, project: int, numbers: Sequence[int]) -> list[RemoteTask]:
        """Some tasks with their annotations."""
        found: dict[int, RemoteTask] = {}
        for start in range(0, len(numbers), 100):
            query = {"selectedItems": {"all": False, "included": list(numbers[start : start + 100])}}
            found |= self._query(project, json.dumps(query))
        return [found[number] for number in sorted(found)]

    def _query(self, project: int, query: str) -> dict[int, RemoteTask]:
        return self._ask(
            "list the answers",
            lambda c: {
                t.id: _task(t)
                for t in c.tasks.list(
                    project=project, fields="all", include=_ANSWERED, query=query, page_size=200
                )
            },
        )

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add tasks with their predictions; the server adds all or none of one call.

        Raises:
            InterruptedRequestError: It is not known whether they were added: list the tasks.
        """
        made = self._ask(
            f"import {len(tasks)} tasks",
            lambda c: c.projects.import_tasks(
                project, request=tasks, return_task_ids=True, request_options=_ONCE
            ),
            repeat=False,
        )
        return list(made.task_ids or [])

    def set_overlap(self, task: int, overlap: int, *, done: bool) -> None:
        """Say how many answers a task waits for: 0 closes it, more than it has opens it again."""
        self._ask(
            "change a task",
            lambda c: c.tasks.update(str(task), overlap=overlap, is_labeled=done, request_options=_ONCE),
        )

    def set_data(self, task: int, data: Mapping[str, Any]) -> None:
        """Replace a task's fields."""
        self._ask("change a task", lambda c: c.tasks.update(str(task), data=data, request_options=_ONCE))

    def delete_task(self, task: int) -> None:
        """Remove a task (an undecided duplicate)."""
        with suppress(GoneError):
            self._ask("remove a task", lambda c: c.tasks.delete(str(task), request_options=_ONCE))

    def replace_predictions(self, project: int, predictions: Mapping[int, Mapping[str, Any]]) -> None:
        """Give tasks new predictions, in bulk.

        A kill between the two steps leaves tasks without one; push sees that and sends them again.

        Raises:
            InterruptedRequestError: It is not known whether they were added: list the tasks.
        """
        numbers = sorted(predictions)
        chosen = {"all": False, "included": numbers}
        self._ask(
            "remove predictions",
            lambda c: c.actions.create(
                id="delete_tasks_predictions",
                project=project,
                request_options={**_ONCE, "additional_body_parameters": {"selectedItems": chosen}},
            ),
        )
        body = [{"task": number, **predictions[number]} for number in numbers]
        self._ask(
            "import predictions",
            lambda c: c.projects.import_predictions(project, request=body, request_options=_ONCE),
            repeat=False,
        )

    # ---- surroundings

    def users(self) -> dict[int, str]:
        """E-mail addresses of the annotators, by number."""
        return {
            user.id: str(user.email)
            for user in self._ask("list the users", lambda c: c.users.list(request_options=_ONCE))
        }

    def ensure_storage(self, project: int, path: str) -> None:
        """Let the server serve the pictures below a folder to this project's members."""
        existing = self._ask("list the storages", lambda c: c.import_storage.local.list(project=project))
        if any((storage.path or "").rstrip("/") == path.rstrip("/") for storage in existing):
            return
        self._ask(
            "connect the media folder",
            lambda c: c.import_storage.local.create(
                project=project, path=path, title="labelmill media", use_blob_urls=True, regex_filter="$^",
                request_options=_ONCE,
            ),
        )  # fmt: skip

    def ensure_view(self, project: int, title: str) -> None:
        """Give the project's task list one tab in the order of the queue."""
        data = {
            "title": title,
            "ordering": ["tasks:predictions_score"],
            "filters": {"conjunction": "and", "items": []},
            "hiddenColumns": {"explore": [], "labeling": []},
        }
        views = self._ask("list the tabs", lambda c: c.views.list(project=project))
        if not any((view.data or {}).get("title") == title for view in views):
            self._ask(
                "make a tab", lambda c: c.views.create(project=project, data=data, request_options=_ONCE)
            )

    def set_webhook(self, project: int, url: str, secret_header: Mapping[str, str]) -> None:
        """Let the server tell an address of every new, changed or removed annotation."""
        actions = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"]
        settings: dict[str, Any] = {
            "url": url, "headers": dict(secret_header), "actions": actions, "send_payload": False,
            "send_for_all_actions": False, "is_active": True,
        }  # fmt: skip
        self.drop_webhook(project, url)
        self._ask(
            "make a webhook",
            lambda c: c.webhooks.create(project=project, **settings, request_options=_ONCE),
        )

    def drop_webhook(self, project: int, url: str) -> None:
        """Tell that address nothing any more."""
        for hook in self._ask("list the webhooks", lambda c: c.webhooks.list(project=str(project))):
            if hook.url == url and hook.id is not None:
                self._drop_webhook(hook.id)

    def _drop_webhook(self, number: int) -> None:
        with suppress(GoneError):
            self._ask("remove a webhook", lambda c: c.webhooks.delete(number, request_options=_ONCE))


def _filter(column: str, kind: str, value: object) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": "greater", "type": kind, "value": value}


def _project(found: Any) -> Project:
    return Project(
        id=found.id,
        title=found.title or "",
        description=found.description or "",
        label_config=found.label_config or "",
        overlap=found.maximum_annotations or 1,
        sampling=found.sampling or "",
        model_version=found.model_version or "",
        created_at=str(found.created_at),
    )


def _task(found: Any) -> RemoteTask:
    return RemoteTask(
        id=found.id,
        data=found.data or {},
        annotations=found.total_annotations or 0,
        skips=found.cancelled_annotations or 0,
        predictions=found.total_predictions or 0,
        score=found.predictions_score,
        overlap=found.overlap if found.overlap is not None else 1,
        done=bool(found.is_labeled),
        updated_at=found.updated_at,
        answers=tuple(dict(answer) for answer in found.annotations or ()),
    )


def _said(body: object) -> str:
    """The gist of the server's refusal, in one line."""
    if isinstance(body, Mapping):
        details = body.get("validation_errors") or body.get("detail") or body
        return " ".join(str(details).split())[:400]
    return " ".join(str(body or "").split())[:400]


def pages(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a list into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
