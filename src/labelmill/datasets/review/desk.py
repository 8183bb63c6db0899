"""Push, pull and status of one line's review queue, against its workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from labelmill.annotators.review import consensus, ledger
from labelmill.annotators.review.client import GoneError, InterruptedRequestError, Project, RemoteTask, Studio
from labelmill.annotators.review.config import ReviewConfig
from labelmill.annotators.review.decisions import Verdicts, decide
from labelmill.annotators.review.label_config import build, choices, read_choices, same
from labelmill.annotators.review.push import push as push_tasks
from labelmill.annotators.review.server import LabelStudioServer
from labelmill.annotators.review.tasks import MODEL_VERSION, read_time
from labelmill.datasets.config import AnnotationConfig
from labelmill.datasets.review.material import open_material
from labelmill.datasets.review.pictures import Pictures, mirror, serve
from labelmill.datasets.review.queue import build_tasks, choose
from labelmill.datasets.review.state import OWN, State, ledger_path, read_state, write_state
from labelmill.datasets.workspace import Workspace
from labelmill.errors import ReviewError, WorkspaceError
from labelmill.files import disk_errors, replacing

VIEW = "Queue"
SAMPLING = "Uncertainty sampling"
"""Label Studio's name for "the lowest prediction score first"; the score is ours."""

_OVERLAP_S = 60.0
"""Changes so long before the cursor are read again: the server stamps a change before it shows it."""

_INSTRUCTION = (
    "Choose the class of the crop on the left; the two pictures beside it are the best examples of the two "
    "likeliest classes. Move the box on the frame where it is wrong. Tick the group only if the answer holds "
    "for every crop shown there. NG: none of the classes. Not sure: leave it out of the data."
)

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


class Desk:
    """The review queue of one line in one workspace. Hold the workspace's lock while pushing or pulling.

    Args:
        config: The line.
        review: Its `review` section.
        workspace: Where `annotate` worked.
        server: The server of this machine, where the line names none.
        frame_quality: Of stored frames, JPEG.
        say: Called with a line for people.
    """

    def __init__(
        self,
        config: AnnotationConfig,
        review: ReviewConfig,
        workspace: Workspace,
        *,
        server: LabelStudioServer | None = None,
        frame_quality: int = 95,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config, self.review, self.workspace, self.say = config, review, workspace, say
        own = server or LabelStudioServer()
        access = own.access() if review.url is None else None
        url, token = (access.url, access.token) if access else (review.url, None)
        token = review.token() or token
        if url is None:
            raise ReviewError(
                "no review server",
                expected="one that runs here, or review.url",
                do="run `labelmill services up`, or name one in the line file",
            )
        if token is None:
            raise ReviewError(
                f"no token for {url}",
                got=f"${review.token_env} is empty",
                do=f"set {review.token_env} to a token from its Account & Settings page",
            )
        if access and own.stopped():
            raise ReviewError("Label Studio does not run", do="start it: labelmill services up")
        self._server = own if access else None
        self._frame_quality = frame_quality
        self._place = OWN if access else url
        self.studio = Studio(
            url, token, patience_s=review.patience_s, say=say, locate=self._address if access else None
        )
        self.state = read_state(workspace, config.name)

    def _address(self) -> str | None:
        """Where this machine's server is now: a start that found its port taken chose another."""
        access = self._server.access() if self._server else None
        return access.url if access else None

    def close(self) -> None:
        """Close the connections to the server."""
        self.studio.close()

    # ---- project

    def _project(self) -> Project | None:
        """The line's project on the server, if there is one."""
        state = self.state
        found = None
        if state.url == self._place and state.project:
            found = self.studio.get_project(state.project)
            if found and state.marker not in found.description:
                found = None  # another server under this address gave the number to another project
        found = found or self.studio.find_project(state.marker)
        origin = f"{self._place}#{found.id}@{found.created_at}" if found else ""
        if found and origin != state.origin:
            self.state = State(state.marker, self._place, found.id, origin, None)
        return found

    def _make_project(self, page: str) -> Project:
        title = f"labelmill {self.review.project or self.config.name}"
        description = f"Made by labelmill for the line {self.config.name}. {self.state.marker}"
        while (found := self._project()) is None:
            try:
                self.studio.create_project(
                    title, description=description, label_config=page, expert_instruction=_INSTRUCTION,
                    show_instruction=False, enable_empty_annotation=False, sampling=SAMPLING,
                    maximum_annotations=self.review.overlap,
                )  # fmt: skip
            except InterruptedRequestError:
                continue
        return found

    def _settle_project(self, classes: Sequence[str], verdicts: Verdicts) -> tuple[Project, tuple[str, ...]]:
        """Bring the project's settings to what the line says.

        Returns:
            The project, and the answers that its page offers.
        """
        page = build(classes)
        project = self._make_project(page)
        offered = set(read_choices(project.label_config))
        extra = offered & set(verdicts.unknown)
        if extra:
            page = build(classes, extra)
            self.say(
                f"the page of project {project.id} offers {', '.join(sorted(extra))}, which is no class of "
                "the line but was chosen: it stays; make a template folder of that name to let it count"
            )
        changed: dict[str, Any] = {}
        if not same(project.label_config, page):
            changed["label_config"] = page
            if project.label_config:
                self.say(f"the labelling page of project {project.id} is not that of the line: written anew")
        if project.sampling != SAMPLING:
            changed["sampling"] = SAMPLING
        if project.overlap != self.review.overlap:
            changed["maximum_annotations"] = self.review.overlap
        if changed:
            self.studio.update_project(project.id, **changed)
        return project, (*choices(classes), *sorted(extra))

    # ---- pull

    def pull(self, *, full: bool = False) -> dict[str, Any]:
        """Read what people answered since the last pull, and work out the decisions.

        Args:
            full: Read everything again, also to notice answers that were removed from their task.

        Raises:
            ReviewError: The server refuses, or does not answer within patience.
        """
        project = self._project()
        if project is None:
            if self.state.project:
                self.say("the project is gone from the server; the decisions pulled so far are kept")
            return self._report(self._decide(), added=0, project=None)
        added = self._read_answers(project, full=full)
        verdicts = self._decide()
        self._reopen(project, verdicts)
        return self._report(verdicts, added=added, project=project)

    def _read_answers(self, project: Project, *, full: bool) -> int:
        """Add to the ledger what is new; the cursor moves only when that is on disk."""
        since = None if full else self.state.cursor
        if since:
            since = (read_time(since) - timedelta(seconds=_OVERLAP_S)).isoformat().replace("+00:00", "Z")
        tasks = self.studio.answered(project.id, since)
        rows = ledger.read(ledger_path(self.workspace))
        if full:
            tasks += self._emptied(project, rows, tasks)
        added = ledger.new_rows(rows, tasks, self.state.origin, self.studio.users()) if tasks else []
        with disk_errors(self.workspace.root):
            if added:
                ledger.write(ledger_path(self.workspace), [*rows, *added])
            changed = [task.updated_at for task in tasks if task.updated_at is not None]
            if changed:
                newest = max(changed).isoformat()
                self.state.cursor = max(filter(None, (self.state.cursor, newest)), key=read_time)
            write_state(self.workspace, self.state)
        return len(added)

    def _emptied(
        self, project: Project, rows: Sequence[ledger.Row], tasks: Sequence[RemoteTask]
    ) -> list[RemoteTask]:
        """Tasks that had answers once and have none now: people removed them."""
        seen = {task.id for task in tasks}
        had = {row["task"] for row in rows if row["origin"] == self.state.origin and not row["retracted"]}
        return self.studio.tasks_by_id(project.id, sorted(had - seen))

    def _decide(self) -> Verdicts:
        """Work out the decisions from the ledger, and write their table."""
        regions: set[str] = set()
        if self.workspace.table("regions").exists():
            table = pq.read_table(self.workspace.table("regions"), columns=["region_id"])
            regions = set(table["region_id"].to_pylist())
        verdicts = decide(ledger.read(ledger_path(self.workspace)), choices(self._classes()), regions)
        with disk_errors(self.workspace.root), replacing(self.workspace.table("decisions")) as temporary:
            pq.write_table(verdicts.table, temporary, compression="zstd")
        return verdicts

    def _classes(self) -> tuple[str, ...]:
        from labelmill.annotators.templates import find_templates

        return find_templates(self.config.templates).classes

    def _reopen(self, project: Project, verdicts: Verdicts) -> None:
        """Put what annotators disagree about back into the queue, for one more of them."""
        again = verdicts.disputed | verdicts.empty
        if not again:
            return
        rows = ledger.read(ledger_path(self.workspace))
        numbers = {r["task"] for r in rows if r["region_id"] in again and r["origin"] == self.state.origin}
        for task in self.studio.tasks_by_id(project.id, sorted(numbers)):
            if task.done and task.overlap:
                self.studio.set_overlap(task.id, task.annotations + 1, done=False)

    def _report(self, verdicts: Verdicts, *, added: int, project: Project | None) -> dict[str, Any]:
        for label, count in sorted(verdicts.unknown.items()):
            self.say(f"{count} answers say {label!r}, which is no class of the line: kept, and not counted")
        if verdicts.empty:
            self.say(f"{len(verdicts.empty)} answers choose nothing that counts: asked again")
        alpha = consensus.alpha(list(verdicts.votes.values()))
        table = verdicts.table
        return {
            "new_answers": added,
            "decisions": table.num_rows,
            "decided": len(verdicts.labels),
            "not_sure": len(verdicts.unsure),
            "disputed": len(verdicts.disputed),
            "skipped": len(verdicts.skipped),
            "empty": len(verdicts.empty),
            "unknown_labels": dict(sorted(verdicts.unknown.items())),
            "alpha": None if alpha is None else round(alpha, 4),
            "seconds": round(sum(table["seconds"].to_pylist()), 1),
            "project": f"{self.studio.url}/projects/{project.id}" if project else None,
        }

    def pull_and_count(self) -> dict[str, Any]:
        """Pull, and say in `open` how many tasks people have left; 0 only when every answer was read."""
        left = self._open()  # counted first: an answer given in between is read, and counted as open
        report = self.pull()
        if not left and (report["disputed"] or report["empty"]):
            left = self._open()  # the pull sent some back
        return {**report, "open": left}

    def _open(self) -> int:
        project = self._project()
        return sum(_is_open(task) for task in self.studio.tasks(project.id)) if project else 0

    # ---- push

    def push(self, progress: Progress = silent) -> dict[str, Any]:
        """Pull, then bring the server's queue to what it should be.

        Args:
            progress: Called as work goes on.

        Raises:
            LabelmillError: The line changed since `annotate`, or the server cannot be used.
        """
        self.studio.preflight()
        existing = self._project()
        if existing is not None:
            self._read_answers(existing, full=True)
        verdicts = self._decide()
        with open_material(self.config, self.workspace, self._frame_quality) as opened:
            classes = opened.material.bank.classes
            if not classes:
                raise ReviewError(
                    "the line has no classes yet, so there is nothing to choose between",
                    expected="templates.folder with a sub-folder of crops per class",
                    do="name some templates and run `labelmill annotate LINE` again",
                )
            project, answers = self._settle_project(classes, verdicts)
            with disk_errors(self.workspace.root):
                write_state(self.workspace, self.state)
            served = serve(self.review.media, self.workspace.media, self._server)
            if served.storage:
                self.studio.ensure_storage(project.id, served.storage)
            found = self.studio.tasks(project.id)
            ours = {str(task.data["region_id"]): task for task in found if task.data.get("region_id")}
            asks = choose(
                opened.material,
                verdicts,
                self.review,
                {region: task.data.get("members") or () for region, task in ours.items()},
                {region for region, task in ours.items() if not task.done},
            )
            pictures = Pictures(self.workspace.media, opened.templates)
            with disk_errors(self.workspace.root):
                tasks, shown = build_tasks(
                    opened.material,
                    asks,
                    verdicts,
                    answers,
                    pictures,
                    opened.frames,
                    served,
                    progress,
                )
        if served.bucket:
            mirror(served.bucket, self.workspace.media, shown)
        try:
            pushed = push_tasks(
                self.studio, project.id, tasks, overlap=self.review.overlap, decided=verdicts.decided,
                disputed=verdicts.disputed | verdicts.empty, found=found, progress=progress,
            )  # fmt: skip
        except GoneError as error:
            raise ReviewError(
                f"project {project.id} at {self.studio.url} was removed while it was pushed to",
                do="run again: a new one is made, and nothing decided is lost",
            ) from error
        if tasks:  # a tab in the order of a score that no task has yet would be an error page
            self.studio.ensure_view(project.id, VIEW)
        if tasks and project.model_version != MODEL_VERSION:
            self.studio.update_project(project.id, model_version=MODEL_VERSION)
        grouped = sum(len(ask.members) for ask in asks)
        return {
            **asdict(pushed),
            "queue": len(asks),
            "grouped": grouped,
            "audits": sum(ask.audit for ask in asks),
            "decided": len(verdicts.decided),
            "project": f"{self.studio.url}/projects/{project.id}",
        }

    # ---- webhooks

    def listen(self, url: str, header: Mapping[str, str]) -> None:
        """Let the server tell an address of every answer.

        Raises:
            ReviewError: There is no project yet.
        """
        project = self._project()
        if project is None:
            raise ReviewError("there is no project yet", do="run `labelmill review push LINE` first")
        self.studio.set_webhook(project.id, url, header)

    def unlisten(self, url: str) -> None:
        """Tell that address nothing any more."""
        project = self._project()
        if project is not None:
            self.studio.drop_webhook(project.id, url)

    # ---- status

    def status(self) -> dict[str, Any]:
        """How the queue stands, as the server says it."""
        project = self._project()
        verdicts = self._decide_only()
        report = self._report(verdicts, added=0, project=project)
        del report["new_answers"]
        tasks = (
            [task for task in self.studio.tasks(project.id) if task.data.get("region_id")] if project else []
        )
        answered = sum(task.annotations > 0 for task in tasks)
        pace = report["seconds"] / max(1, report["decisions"])
        return {
            **report,
            "tasks": len(tasks),
            "open": (left := sum(map(_is_open, tasks))),
            "answered": answered,
            "closed": sum(task.done and not task.annotations for task in tasks),
            "seconds_left": round(pace * left * self.review.overlap, 1) if report["decisions"] else None,
        }

    def _decide_only(self) -> Verdicts:
        return decide(ledger.read(ledger_path(self.workspace)), choices(self._classes()), None)


def _is_open(task: RemoteTask) -> bool:
    """Whether the queue waits for a task of ours; one that was skipped is offered, and not waited for."""
    return bool(task.data.get("region_id")) and not task.done and (task.annotations > 0 or not task.skips)


@contextmanager
def at_desk(
    config: AnnotationConfig,
    review: ReviewConfig,
    workspace: Workspace,
    *,
    server: LabelStudioServer | None = None,
    frame_quality: int = 95,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Desk]:
    """Lock a workspace and sit down at its desk.

    Raises:
        WorkspaceLockedError: Another run, push or pull works there.
        WorkspaceError: Nothing was annotated there.
    """
    if not workspace.table("regions").exists():
        raise WorkspaceError(
            f"nothing was annotated in {workspace.root}",
            do="run `labelmill annotate LINE`, or name its --workspace",
        )
    with (
        workspace.lock(),
        closing(Desk(config, review, workspace, server=server, frame_quality=frame_quality, say=say)) as desk,
    ):
        yield desk


def read_decisions(workspace: Workspace) -> pa.Table | None:
    """The decisions table of a workspace, or None before the first pull."""
    path = workspace.table("decisions")
    return pq.read_table(path) if path.exists() else None
